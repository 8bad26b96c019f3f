"""What must be true of the processes of attempts, and of what is left of a house."""

from __future__ import annotations

from collections import defaultdict
from itertools import pairwise
from typing import TYPE_CHECKING

from bench.chaos.history import NEWS_S

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bench.chaos.history import History, SeenProcess, SeenWrite, SessionView

STOP_S = 10.0
"""Within it everything is gone of what is told to stop."""
TICK_S = 0.05
"""The kernel's clock of a process's begin has ticks of 10 ms; a look at all processes takes some more."""


def two_live_attempts(history: History) -> Iterator[tuple[float, str]]:
    """A session has one live program: on one host nothing new begins before all that came before it has ended.

    The kernel tells when a program began: one that is seen alive later than another began has lived beside it, however
    short that was.
    """
    lives: dict[str, dict[tuple[int, float], tuple[SeenProcess, float]]] = defaultdict(dict)
    for sighting in history.sightings:
        for process in sighting.processes:
            if process.program:
                lives[process.session][process.pid, process.began_s] = process, sighting.at_s
    for name, programs in lives.items():
        ordered = sorted(programs.values(), key=lambda life: life[0].began_s)
        for (former, seen_s), (later, _) in pairwise(ordered):
            beside_s = seen_s - later.began_s
            if beside_s > TICK_S:
                which = [(one.attempt, one.device, one.pid) for one in (former, later)]
                yield seen_s, f"{name} has 2 live programs for {beside_s:.2f} s: {which}"


def two_writers(history: History) -> Iterator[tuple[float, str]]:
    """An output is written by one program, and never by an earlier one after a later one has begun to."""
    yield from _returning_writers(history)
    newest: dict[str, SeenProcess] = {}
    for sighting in history.sightings:
        writers = sorted(
            (
                (output, process)
                for process in sighting.processes
                for output in process.writes
                if not process.stopped  # it cannot; whether it may once it goes on is seen then
            ),
            key=lambda pair: pair[1].attempt,
        )
        for output, process in writers:
            known = newest.setdefault(output, process)
            if process.attempt > known.attempt:
                newest[output] = process
            elif process.attempt < known.attempt:
                yield sighting.at_s, f"{output} is written by attempt {process.attempt} after {known.attempt}"
        for (first, one), (second, other) in pairwise(sorted(writers, key=lambda pair: (pair[0], pair[1].pid))):
            if first == second and one.pid != other.pid:
                yield sighting.at_s, f"{first} is written by attempts {one.attempt} and {other.attempt} at once"


def _returning_writers(history: History) -> Iterator[tuple[float, str]]:
    """Finds in what the kernel told of every write: each program that goes on after another has begun."""
    former: dict[str, set[tuple[int, int]]] = defaultdict(set)
    latest: dict[str, SeenWrite] = {}
    for write in history.writes:
        last, program = latest.get(write.output), (write.attempt, write.pid)
        if last is not None and program != (last.attempt, last.pid):
            former[write.output].add((last.attempt, last.pid))
        if program in former[write.output] or (last is not None and write.attempt < last.attempt):
            told = f"attempt {write.attempt} (process {write.pid})"
            yield write.at_s, f"{write.output} is written by {told} after another had begun to"
        latest[write.output] = write


def alive_after_end(history: History) -> Iterator[tuple[float, str]]:
    """A session ends when its processes are gone, not before: what it had booked is free from then on.

    But for those of an earlier attempt on a device that could not be reached: they go when it can be again.
    """
    ends: dict[str, SessionView] = {}
    for view in history.sessions:
        if view.ended:
            ends.setdefault(view.name, view)
    told = set()
    for sighting in history.sightings:
        for process in sighting.processes:
            end = ends.get(process.session)
            if end is None or process.pid in told:
                continue
            since_s = end.at_s + NEWS_S
            if process.attempt < end.attempt:
                since_s = max(since_s, _unreachable_until_s(history, process.device, sighting.at_s) + STOP_S)
            if sighting.at_s > since_s:
                told.add(process.pid)
                yield sighting.at_s, f"{process.session} had ended, process {process.pid} of it lives"


def _unreachable_until_s(history: History, device: str, at_s: float) -> float:
    """Gives the last moment, up to another, at which a device was told to be unreachable."""
    states = [(view.at_s, view.state) for view in history.devices if view.name == device and view.at_s <= at_s]
    until_s = [*(when_s for when_s, _ in states[1:]), at_s]
    return max(
        (end_s for (_, state), end_s in zip(states, until_s, strict=True) if state == "UNREACHABLE"),
        default=float("-inf"),
    )


def orphans(history: History) -> Iterator[tuple[float, str]]:
    """When the house has ended nothing of it is left but its state folder and its outputs."""
    for left in history.leftovers:
        yield float("inf"), left
