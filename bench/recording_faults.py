"""What is left of recordings: of those whose ffmpeg or browser is killed, and of a thousand that come and go."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import TYPE_CHECKING

from balancer.simulation.chance import seeded
from bench.analysis.decoding import Undecodable
from bench.analysis.strip import WRAP_MS, read_strip
from bench.measuring import Figure
from bench.naive_recorder import naive_recording
from bench.recording_sessions import USER_IDS, display_processes, recorder_process
from bench.residue import find_residue

if TYPE_CHECKING:
    from pathlib import Path

    from bench.recording_sessions import RecordingHouse

_MAY_BE_LOST_S = 2.0
_SEED = 4


def measure_kills(
    house: RecordingHouse, *, runs: int, naive_runs: int, after_s: tuple[float, float] = (3.0, 9.0)
) -> list[Figure]:
    """Kills ffmpeg or the browser at random moments, and looks how far what is left goes.

    Args:
        house: The daemon.
        runs: Kills, of ffmpeg and of the browser in turn.
        naive_runs: Kills of the rival's ffmpeg. 0: it is left out.
        after_s: How long a recording runs before its kill, at least and at most.
    """
    chance = seeded(_SEED)
    lost_s: list[float] = []
    for number in range(runs):
        house.await_warm()
        lost_s.append(_killed(house, chance.uniform(*after_s), browser=number % 2 == 1))
    good = sum(lost <= _MAY_BE_LOST_S for lost in lost_s)
    figures = [
        Figure(
            name=f"kill -9: of {runs}, playable until 2 s before",
            value=good,
            unit="files",
            bound=f"= {runs}",
            detail=f"at most {max(lost_s):.2f} s lost; seed {_SEED}",
        )
    ]
    if naive_runs:
        lost = [_naive_killed(house, chance.uniform(*after_s)) for _ in range(naive_runs)]
        kept = sum(value <= _MAY_BE_LOST_S for value in lost)
        figures.append(
            Figure(name="kill -9 of a script's ffmpeg: same", value=kept, unit="files", bound=f"of {naive_runs}")
        )
    return figures


def measure_cycles(house: RecordingHouse, *, cycles: int, kept_s: float = 0.2) -> Figure:
    """Starts and stops recordings, and tells what there is more of afterwards than after a few of them.

    The displays that stand ready are there both times. What is left when the daemon has ended, the caller looks at.
    """
    first, early = max(1, min(10, cycles // 2)), None
    for number in range(cycles):
        # Those that are being made meanwhile are not waited for.
        house.await_warm(1)
        asked = house.start("still")
        time.sleep(kept_s)
        house.client.stop_session(asked.name)
        house.client.wait(asked.name)
        house.client.delete_session(asked.name)
        if number + 1 == first:
            early = _settled_count(house)
    assert early is not None
    late = _settled_count(house)
    return Figure(
        name=f"{cycles} starts and stops: more than after {first}",
        value=late - early,
        unit="things",
        bound="= 0",
        detail=f"{late} of displays that stand ready",
    )


def residue_figure(run_dir: Path, *, timeout_s: float = 20.0) -> Figure:
    """Looks at what is left when the daemon has ended."""
    deadline = time.monotonic() + timeout_s
    while (left := find_residue(run_dir, USER_IDS)).count and time.monotonic() < deadline:
        time.sleep(0.1)
    return Figure(name="left when the daemon has ended", value=left.count, unit="things", bound="= 0", detail=str(left))


def _settled_count(house: RecordingHouse, *, timeout_s: float = 20.0) -> int:
    """Counts what there is once displays in preparation are ready and those in removal are gone: twice the same."""
    house.await_warm()
    deadline, before = time.monotonic() + timeout_s, -1
    while (count := find_residue(house.run_dir, USER_IDS).count) != before and time.monotonic() < deadline:
        before = count
        time.sleep(1)
    return count


def _killed(house: RecordingHouse, after_s: float, *, browser: bool) -> float:
    """Records, kills, and gives the seconds before the kill that the file lacks; all of them when it does not play."""
    asked = house.start("counter")
    recorder = recorder_process(house, asked.name)
    victim = display_processes(recorder, "chrom")[0] if browser else recorder
    time.sleep(after_s)
    killed_s = time.time()
    victim.kill()
    house.client.wait(asked.name)
    lost_s = lost_before_s(house.fetch(asked.name), killed_s, began_s=asked.asked_s)
    house.discard(asked.name)
    return lost_s


def _naive_killed(house: RecordingHouse, after_s: float) -> float:
    film = house.fetched / "killed.mp4"
    began_s = time.time()
    with naive_recording(house.pages.url("counter"), film, seconds=600) as recording:
        time.sleep(3 + after_s)
        killed_s = time.time()
        recording.processes[-1].kill()
        recording.processes[-1].wait()
        return lost_before_s(film, killed_s, began_s=began_s)


def lost_before_s(film: Path, killed_s: float, *, began_s: float) -> float:
    """Gives how long before the kill the page drew the newest drawing in a file; since the begin when there is none."""
    nothing_s = killed_s - began_s
    if not film.exists():
        return nothing_s
    with suppress(Undecodable):
        reading = read_strip(film)
        drawn_ms = reading.page_ms[reading.drawings >= 0]
        ages_ms = (round(killed_s * 1000) - drawn_ms) % WRAP_MS
        # What was drawn after the kill, where ffmpeg lived on, has an age of nearly the whole circle.
        before = ages_ms[ages_ms < WRAP_MS // 2]
        return float(before.min()) / 1000 if len(before) else (0.0 if len(ages_ms) else nothing_s)
    return nothing_s
