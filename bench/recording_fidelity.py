"""Whether a recording is true: every frame there, sound with its picture, colours right, and what looking on costs."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from agents.displays.spawning import CAPTURE_GATE
from bench.analysis.colours import measure_colours
from bench.analysis.media_file import describe, is_faststart, measure_playable
from bench.analysis.sound_offset import measure_sound_offset
from bench.analysis.strip import FrameCount, count_frames, read_strip
from bench.measuring import Figure
from bench.naive_recorder import naive_recording
from bench.pages.film import make_film
from bench.recording_sessions import display_processes, recorder_process
from bench.standstills import watched_standstills

if TYPE_CHECKING:
    from bench.analysis.drift import Drift
    from bench.recording_sessions import EndedRecording, EndTimes, RecordingHouse
    from bench.standstills import Standstills

_TELLS_DRIFT_S = 3000
"""Offsets wander for up to ten minutes around where they are: a line through a few such waves tells of them."""
_MADE_UP_FOR_S = 0.1
"""After a standstill what waited meanwhile runs first."""
_ENCODER_THREADS = ("enc",)
_FILTER_THREADS = ("vf#", "af#", "fc")
"""A filter graph of one output, or a complex one: fc0, fc1 and so on."""


def measure_frames(house: RecordingHouse, *, seconds: float, naive_seconds: float) -> tuple[list[Figure], EndTimes]:
    """Reads every frame of a long recording of an animation back.

    Args:
        house: The daemon.
        seconds: Length of the recording.
        naive_seconds: Length of the rival's. 0: it is left out.

    Returns:
        The figures, and how long the long recording's end took.
    """
    with watched_standstills() as standstills:
        ended = house.record("counter", seconds)
    found = count_frames(read_strip(ended.file), frame_rate=30)
    excused = _lost_to_standstills(found, standstills)
    late = sum(loss.frames for loss in found.losses if not loss.in_step(30))
    report = ended.session.recording_report
    told = f"the daemon says {report.duplicated_frames} duplicated, {report.dropped_frames} dropped"
    figures = [
        Figure(
            name=f"720p30, {seconds:g} s: lost frames",
            value=found.lost,
            unit="frames",
            bound="<= 1",
            detail=f"{_told(found)}; {told}",
        ),
        Figure(
            name="… because the browser was late",
            value=late,
            unit="frames",
            bound="told",
            detail="the page's own time was out of step with the recording's",
        ),
        Figure(
            name="… while the machine ran",
            value=found.lost - excused,
            unit="frames",
            bound="<= 1",
            detail=str(standstills),
        ),
        *_file_figures(ended),
    ]
    if naive_seconds:
        film = house.fetched / "script.mp4"
        with naive_recording(house.pages.url("counter"), film, seconds=naive_seconds) as recording:
            recording.await_file()
        naive = count_frames(read_strip(film), frame_rate=30)
        # One more of both, so that none of none is no error.
        ratio = ((naive.lost + 1) / naive.frames) / ((found.lost + 1) / found.frames)
        figures.append(
            Figure(
                name="lost frames: script / ours", value=ratio, unit="x", bound="> 1", detail=f"script {_told(naive)}"
            )
        )
    return figures, ended.took


def _lost_to_standstills(found: FrameCount, standstills: Standstills) -> int:
    """Counts the frames that were lost while the machine stood still, or was making up for it."""
    return sum(
        loss.frames
        for loss in found.losses
        if any(loss.meets(one.begin_s, one.end_s, leeway_s=_MADE_UP_FOR_S) for one in standstills.found)
    )


def _told(found: FrameCount) -> str:
    return (
        f"{found.frames} frames, {found.repeated} repeated ({found.repeated_by_page} by the page), "
        f"{found.absent} absent, {found.unreadable} unreadable, longest freeze {found.longest_freeze_s:.3f} s, "
        f"page {found.page_rate:.1f}/s"
    )


def _file_figures(ended: EndedRecording) -> list[Figure]:
    """Tells whether a clean end gave an ordinary file."""
    playable, about = measure_playable(ended.file), describe(ended.file)
    return [
        Figure(
            name="keyframes: longest gap",
            value=playable.longest_keyframe_gap_s,
            unit="s",
            bound="<= 2.04",
            detail=f"{', '.join(about.codecs)}, {about.pixels}",
        ),
        Figure(name="faststart", value=float(is_faststart(ended.file)), unit="(1: yes)", bound="= 1"),
    ]


def measure_sound(house: RecordingHouse, *, seconds: float, drift_s: float) -> tuple[list[Figure], list[EndTimes]]:
    """Measures how far sound is from its picture, and its drift, in each of the ways in which pages do both.

    A film is what most recordings show; the browser keeps its sound and picture together. Pages that flash by the audio
    clock, as they hand a beep over or as they believe it to be heard, depend on what the browser thinks of its latency.

    The device's sound is calibrated first, as an operator would. Drift is told of the film and of the page that flashes
    when its beeps are heard, which may be longer: offsets wander for minutes, and only a line through an hour of them
    tells less than 20 ms per hour.

    Args:
        house: The daemon.
        seconds: Length of the recording of which no drift is told.
        drift_s: Length of each of the others.

    Returns:
        The figures, and how long the end of each recording took.
    """
    *_, calibrated = house.client.calibrate_device("cpu-0", sound=True)
    timing = calibrated.device.recording.sound_timing
    offsets = (timing.film_offset, timing.drawing_offset, timing.heard_drawing_offset)
    delay_ms, *told_ms = [one.ToTimedelta() / timedelta(milliseconds=1) for one in (timing.delay, *offsets)]
    house.pages.add_film(make_film(house.fetched / "film.mp4", seconds=drift_s + 30))
    ways: dict[str, tuple[str, float, dict[str, str]]] = {
        "film": ("film", drift_s, {}),
        "beep as heard": ("beep", drift_s, {"clock": "output"}),
        "beep handed over": ("beep", seconds, {"clock": "context"}),
    }
    calibration = f"calibrated: delayed by {delay_ms:.0f} ms, which leaves {min(told_ms):.0f} to {max(told_ms):.0f} ms"
    figures, ends = [], []
    for name, (page, length_s, settings) in ways.items():
        ended = house.record(page, length_s, **settings)
        found = measure_sound_offset(ended.file)
        ends.append(ended.took)
        detail = f"{len(found.times_s)} beeps, spread 5-95 % {found.spread_s * 1000:.0f} ms, {found.unpaired} unpaired"
        offset_ms = found.median_s * 1000
        figures.append(
            Figure(
                name=f"sound after picture, {name}",
                value=offset_ms,
                unit="ms",
                bound="+-40",
                detail=f"{detail}; {calibration}",
            )
        )
        if length_s == drift_s:
            figures.append(_drift_figure(name, found.drift, length_s))
        house.discard(ended.session.name)
    return figures, ends


def _drift_figure(way: str, drift: Drift, length_s: float) -> Figure:
    detail = f"+-{drift.error_s_per_hour * 1000:.0f} (one standard error) over {length_s:g} s"
    if length_s < _TELLS_DRIFT_S:
        detail += "; too short to tell drift from wandering"
    return Figure(name=f"drift, {way}", value=drift.s_per_hour * 1000, unit="ms/h", bound="+-20", detail=detail)


def measure_colour(house: RecordingHouse) -> Figure:
    """Compares colour bars with what they should be, as a player decodes them by the file's tags."""
    found = measure_colours(house.record("bars", 3).file)
    patch = max(found.by_patch, key=lambda colour: max(map(abs, found.by_patch[colour])))
    return Figure(
        name="colour bars: worst error", value=found.worst, unit="of 255", bound="<= 4", detail=f"{patch}; {found.tags}"
    )


def measure_capture_cost(house: RecordingHouse, *, seconds: float) -> list[Figure]:
    """Measures what ffmpeg and the X server take at 1080p30, thread by thread, encoder and browser left out.

    The bound is held against a page that does not move: of one that does, the X server also takes the browser's
    pictures in, which is the browser's doing. Turning the X server's pixels into the encoder's is told apart, because
    NVENC takes them as they are and x264 does not.
    """
    figures = []
    for page, bound in (("still", "<= 0.08"), ("counter", "told")):
        house.await_warm()
        used = _capture_cost(house, page, seconds)
        detail = ", ".join(f"{kind} {used[kind]:.3f}" for kind in ("look", "X server", "gate", "convert", "encode"))
        whole = used["look"] + used["X server"] + used["gate"]
        figures.append(Figure(name=f"capture, 1080p30, {page}", value=whole, unit="cores", bound=bound, detail=detail))
    return figures


def _capture_cost(house: RecordingHouse, page: str, seconds: float) -> dict[str, float]:
    """Gives cores used, by what they are used for."""
    asked = house.start(page, size=(1920, 1080))
    recorder = recorder_process(house, asked.name)
    server = display_processes(recorder, "Xvfb")
    gate = display_processes(recorder, CAPTURE_GATE)
    used = {"look": 0.0, "convert": 0.0, "encode": 0.0, "X server": 0.0, "gate": 0.0}
    began = time.monotonic()
    for sign in (-1, 1):
        shown = {"X server": sum(map(_cpu_s, server)), "gate": sum(map(_cpu_s, gate))}
        for kind, spent_s in (thread_times_s(recorder) | shown).items():
            used[kind] += sign * spent_s
        if sign < 0:
            time.sleep(seconds)
    took_s = time.monotonic() - began
    house.discard(house.stop(asked.name).session.name)
    return {kind: spent_s / took_s for kind, spent_s in used.items()}


def thread_times_s(process: psutil.Process) -> dict[str, float]:
    """Gives the processor time of an ffmpeg's threads: those that look, that convert, and that encode.

    ffmpeg names its threads for what they do, and an encoder's own threads bear the name of the one that made them.
    """
    found: dict[str, float] = {}
    for task in Path(f"/proc/{process.pid}/task").iterdir():
        with suppress(OSError):
            name = (task / "comm").read_text().strip()
            fields = (task / "stat").read_text().rpartition(")")[2].split()
            kind = "encode" if name.startswith(_ENCODER_THREADS) else "look"
            kind = "convert" if name.startswith(_FILTER_THREADS) else kind
            found[kind] = found.get(kind, 0.0) + (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return found


def _cpu_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return times.user + times.system
