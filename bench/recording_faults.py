"""What is left of recordings: of those whose ffmpeg or browser is killed, and of a thousand that come and go."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

from balancer.simulation.chance import seeded
from bench.analysis.killed_file import measure_lack
from bench.daemons import last_words
from bench.measuring import Figure
from bench.naive_recorder import naive_recording
from bench.recording_sessions import USER_IDS, display_processes, recorder_process
from bench.residue import find_residue
from gpu_balancer import RequestFailure
from gpu_balancer.v1 import session_pb2

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from bench.analysis.killed_file import Lack
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
    lacks: list[Lack] = []
    troubles: list[str] = []
    for number in range(runs):
        after = chance.uniform(*after_s)
        try:
            house.await_warm()
            lacks.append(_killed(house, after, browser=number % 2 == 1))
        except RuntimeError as error:
            # One that could not be made is no good file; the others are told nevertheless.
            troubles.append(f"; run {number}: {error}")
    detail = f"seed {_SEED}" if not lacks else f"at most {_worst(lacks)} lost; seed {_SEED}"
    figures = [
        Figure(
            name=f"kill -9: of {runs}, whole until 2 s before",
            value=_kept(lacks),
            unit="files",
            bound=f"= {runs}",
            detail=detail + "".join(troubles),
        )
    ]
    if naive_runs:
        naive = [_naive_killed(house, chance.uniform(*after_s)) for _ in range(naive_runs)]
        figures.append(
            Figure(
                name="kill -9 of a script's ffmpeg: same", value=_kept(naive), unit="files", bound=f"of {naive_runs}"
            )
        )
    return figures


def _kept(lacks: Sequence[Lack]) -> int:
    return sum(lack.lost_s <= _MAY_BE_LOST_S for lack in lacks)


def _worst(lacks: Sequence[Lack]) -> str:
    pictures_s = max(lack.begin_s + lack.inside_s + lack.end_s for lack in lacks)
    return f"{pictures_s:.2f} s of pictures and {max(lack.sound_s for lack in lacks):.2f} s of sound"


def measure_cycles(house: RecordingHouse, *, cycles: int, kept_s: float = 0.2) -> list[Figure]:
    """Starts and stops recordings, and tells what there is more of afterwards than after a few of them.

    The displays that stand ready are there both times. What is left when the daemon has ended, the caller looks at.
    """
    first, early = max(1, min(10, cycles // 2)), None
    troubles: list[str] = []
    for number in range(cycles):
        try:
            # Those that are being made meanwhile are not waited for.
            house.await_warm(1)
            asked = house.start("still")
            time.sleep(kept_s)
            house.client.stop_session(asked.name)
            ended = house.client.wait(asked.name)
            if ended.state != session_pb2.SESSION_STATE_SUCCEEDED:
                troubles.append(f"; run {number}: {ended.failure.message or 'cancelled'}")
            house.client.delete_session(asked.name)
        except (RuntimeError, RequestFailure) as error:
            troubles.append(f"; run {number}: {error}")
            print(last_words(house.folder), file=sys.stderr)
        if number + 1 == first:
            early = _settled_count(house)
    assert early is not None
    late = _settled_count(house)
    return [
        Figure(
            name=f"starts and stops: of {cycles}, ended in order",
            value=cycles - len(troubles),
            unit="recordings",
            bound=f"= {cycles}",
            detail=f"each {kept_s:g} s long" + "".join(troubles),
        ),
        Figure(name="starts and stops: agents that ended", value=house.ended_agents(), unit="agents", bound="= 0"),
        Figure(
            name=f"{cycles} starts and stops: more than after {first}",
            value=late - early,
            unit="things",
            bound="= 0",
            detail=f"{late} of displays that stand ready",
        ),
    ]


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


def _killed(house: RecordingHouse, after_s: float, *, browser: bool) -> Lack:
    """Records, kills, and tells what the file lacks of the time from RUNNING to the kill."""
    asked = house.start("counter")
    recorder = recorder_process(house, asked.name)
    victim = display_processes(recorder, "chrom")[0] if browser else recorder
    time.sleep(after_s)
    killed_s = time.time()
    victim.kill()
    house.client.wait(asked.name)
    lack = measure_lack(house.fetch(asked.name), began_s=asked.asked_s + asked.running_s, killed_s=killed_s)
    house.discard(asked.name)
    return lack


def _naive_killed(house: RecordingHouse, after_s: float) -> Lack:
    film = house.fetched / "killed.mp4"
    with naive_recording(house.pages.url("counter"), film, seconds=600) as recording:
        time.sleep(3)
        began_s = time.time()
        time.sleep(after_s)
        killed_s = time.time()
        recording.processes[-1].kill()
        recording.processes[-1].wait()
        return measure_lack(film, began_s=began_s, killed_s=killed_s)
