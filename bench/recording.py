"""Recordings: how soon they begin, how true they are, what is left of them when things go wrong. And a script's.

The pages say what they show, so the files alone are asked. Of a machine with few cores only one recording at a time is
asked; its load is told with the figures, because others' work shows in them.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import numpy as np
import psutil

from bench.measuring import Figure
from bench.naive_recorder import missing_programs
from bench.recording_faults import measure_cycles, measure_kills, residue_figure
from bench.recording_fidelity import measure_capture_cost, measure_colour, measure_frames, measure_sound
from bench.recording_sessions import recording_house
from bench.recording_starts import measure_leading_frames, measure_starts

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bench.recording_sessions import EndTimes, RecordingHouse


PARTS = ("starts", "leading", "frames", "sound", "colours", "capture", "kills", "cycles")
_CYCLED_DISPLAYS = 3
"""That stand ready while recordings come and go, so that these need not wait for one another's display."""


def measure(  # noqa: PLR0913 - one number for each figure
    *,
    parts: Sequence[str] = PARTS,
    start_runs: int = 30,
    cold_runs: int = 20,
    leading_runs: int = 100,
    film_s: float = 600,
    drift_s: float = 3600,
    capture_s: float = 60,
    kills: int = 100,
    cycles: int = 1000,
    naive_runs: int = 10,
    size: tuple[int, int] = (1280, 720),
    killed_after_s: tuple[float, float] = (3.0, 9.0),
) -> list[Figure]:
    """Measures.

    Args:
        parts: Which of `PARTS`.
        start_runs: Warm starts.
        cold_runs: Cold starts. 0: they are left out.
        leading_runs: Recordings of a page that paints late.
        film_s: Length of the recordings for frames, and for sound where no drift is told, in seconds.
        drift_s: Length of the two from which drift is told: a film, and a page that flashes as its beeps are heard.
        capture_s: For how long the capture's cost is looked at.
        kills: Recordings that are killed.
        cycles: Recordings that come and go.
        naive_runs: Starts of the rival; a third of them of its kills, 3 at most. 0: it is left out.
        size: Of all recordings but those for the capture's cost.
        killed_after_s: How long a recording runs before its kill, at least and at most.

    Raises:
        RuntimeError: When the machine lacks what recordings need.
    """
    if missing := missing_programs():
        raise RuntimeError(f"Cannot record: the machine lacks {', '.join(missing)}. Try to install them.")
    figures = [_machine("begin")]
    ends: list[EndTimes] = []

    def look_at_end(house: RecordingHouse) -> None:
        figures.append(residue_figure(house.run_dir))

    with recording_house(size=size, at_end=look_at_end) as house:
        if "starts" in parts:
            figures += measure_starts(house, runs=start_runs, cold_runs=cold_runs, naive_runs=naive_runs)
        if "leading" in parts:
            figures.append(measure_leading_frames(house, runs=leading_runs))
        if "frames" in parts:
            found, took = measure_frames(house, seconds=film_s, naive_seconds=min(60, film_s) if naive_runs else 0)
            figures += found
            ends.append(took)
        if "sound" in parts:
            found, all_took = measure_sound(house, seconds=film_s, drift_s=drift_s)
            figures += found
            ends += all_took
        if "colours" in parts:
            figures.append(measure_colour(house))
        if "capture" in parts:
            figures += measure_capture_cost(house, seconds=capture_s)
        if "kills" in parts:
            scripts = min(3, naive_runs // 3)
            figures += measure_kills(house, runs=kills, naive_runs=scripts, after_s=killed_after_s)
    if ends:
        figures += _end_figures(ends, film_s)
    if "cycles" in parts:
        with recording_house(warm_displays=_CYCLED_DISPLAYS, at_end=look_at_end) as house:
            figures += measure_cycles(house, cycles=cycles)
    return [*figures, _machine("end")]


def _end_figures(ends: Sequence[EndTimes], film_s: float) -> list[Figure]:
    """Tells how long ends took."""
    detail = f"{len(ends)} recordings"
    ways = (
        (f"stop to playable file, {film_s:g} s recorded: p95", [one.playable_s for one in ends], "<= 2"),
        ("… until its end is told, with a checksum: p95", [one.told_s for one in ends], "told"),
    )
    return [
        Figure(name=name, value=float(np.percentile(times_s, 95)), unit="s", bound=bound, detail=detail)
        for name, times_s, bound in ways
    ]


def _machine(when: str) -> Figure:
    """Tells how large the machine is and how busy it is now."""
    memory_gib = psutil.virtual_memory().total / 2**30
    detail = f"on {os.cpu_count()} cores, {memory_gib:.0f} GiB"
    return Figure(name=f"load average at the {when}", value=os.getloadavg()[0], unit="", bound="told", detail=detail)
