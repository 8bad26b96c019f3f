"""What must be true of every history, whatever was done to the house. Pure: a history in, violations out.

Each invariant is a function that finds its own violations. Where two observers' clocks meet (a session was seen placed,
a device was seen closed) it says only what cannot be otherwise: a violation is a fault of the house, never of the order
in which news arrived.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING

from bench.chaos.history import CLOSED_STATES, PLACED_STATES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from bench.chaos.history import History, SeenProcess, SessionView

NEWS_S = 2.0
"""Within it, news that two streams bring may have crossed."""
CUT_FRAMES = 75
"""That a cut may cost: a killed program keeps back up to 2 s, and what it told last may be ahead of its file."""
_RANKS = {"STARTING": 1, "RUNNING": 2, "STOPPING": 3, "QUEUED": 4, "SUCCEEDED": 5, "FAILED": 5, "CANCELLED": 5}
"""Order of the states within an attempt. Queued with attempt n means: after attempt n, before the next."""
_EARNED_FAILURES = dict.fromkeys(("DISK_FULL", "DISK_LOW", "OUTPUT_UNWRITABLE"), ("fill outputs", "fill state"))
"""Reasons for which a session may fail for good, and what must have been done for it. After all else it begins anew."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Violation:
    """Something that must not be."""

    invariant: str
    at_s: float
    told: str

    def __str__(self) -> str:
        return f"{self.invariant} at {self.at_s:.2f} s: {self.told}"


def check(history: History) -> list[Violation]:
    """Gives every violation, by time."""
    found = [
        Violation(invariant=name, at_s=at_s, told=told)
        for name, invariant in INVARIANTS.items()
        for at_s, told in invariant(history)
    ]
    return sorted(found, key=lambda one: one.at_s)


def _by_session(history: History) -> dict[str, list[SessionView]]:
    views = defaultdict(list)
    for view in history.sessions:
        views[view.name].append(view)
    return views


def lost(history: History) -> Iterator[tuple[float, str]]:
    """Every session that a client was told of is there in the end."""
    for created in history.created:
        if created.name and created.name not in history.last:
            yield created.asked_s, f"{created.name} is not known any more"


def unended(history: History) -> Iterator[tuple[float, str]]:
    """Every session ends once it was told to, and a failed one says why."""
    for view in history.last.values():
        if not view.ended:
            yield view.at_s, f"{view.name} is {view.state} for ever"
        elif view.state == "FAILED" and not view.failure:
            yield view.at_s, f"{view.name} failed without a reason"


def unearned_failures(history: History) -> Iterator[tuple[float, str]]:
    """A session fails for good only when something was done to the house that no second attempt mends."""
    done = {act.kind for act in history.acts}
    for view in history.last.values():
        if view.state == "FAILED" and view.failure and not done.intersection(_EARNED_FAILURES.get(view.failure, ())):
            yield view.at_s, f"{view.name} failed: {view.failure}"


def begun_again(history: History) -> Iterator[tuple[float, str]]:
    """Where only daemons are harmed, no session begins anew."""
    for view in history.last.values() if history.daemons_only else ():
        if view.attempt != 1:
            yield view.at_s, f"{view.name} is at attempt {view.attempt}"


def twice_for_one_request(history: History) -> Iterator[tuple[float, str]]:
    """One request id names one session."""
    names = defaultdict(set)
    for created in history.created:
        if created.name:
            names[created.request_id].add(created.name)
            if len(names[created.request_id]) > 1:
                yield created.asked_s, f"request {created.request_id} made {sorted(names[created.request_id])}"


def final_state_changed(history: History) -> Iterator[tuple[float, str]]:
    """Whatever is final stays as it is: state, reason and time."""
    finals: dict[str, SessionView] = {}
    for view in [*history.sessions, *history.last.values()]:
        first = finals.get(view.name)
        if first is None:
            if view.ended:
                finals[view.name] = view
        elif (view.state, view.failure, view.end_time) != (first.state, first.failure, first.end_time):
            yield view.at_s, f"{view.name} was {first.state} {first.failure}, then {view.state} {view.failure}"


def went_back(history: History) -> Iterator[tuple[float, str]]:
    """A session's revision, attempt and state within an attempt never go back."""
    for name, views in _by_session(history).items():
        for before, after in pairwise(views):
            if after.revision < before.revision:
                yield after.at_s, f"{name}: revision {before.revision}, then {after.revision}"
            if _place(after) < _place(before):
                told = f"attempt {before.attempt} {before.state}, then {after.attempt} {after.state}"
                yield after.at_s, f"{name}: {told}"


def _place(view: SessionView) -> tuple[int, int]:
    return view.attempt, _RANKS.get(view.state, 0)


def one_revision_two_stories(history: History) -> Iterator[tuple[float, str]]:
    """A revision always tells the same."""
    told: dict[tuple[str, int], SessionView] = {}
    for view in history.sessions:
        first = told.setdefault((view.name, view.revision), view)
        if (first.state, first.attempt, first.device) != (view.state, view.attempt, view.device):
            yield view.at_s, f"{view.name} revision {view.revision}: {first.state} and {view.state}"


def progress_went_back(history: History) -> Iterator[tuple[float, str]]:
    """Within an attempt frames never become fewer. That nothing is known of them for a while may be."""
    furthest: dict[tuple[str, int], int] = {}
    for view in history.sessions:
        if view.frames is None:
            continue
        known = furthest.setdefault((view.name, view.attempt), view.frames)
        if view.frames < known and view.state in PLACED_STATES:
            yield view.at_s, f"{view.name}: {known} frames, then {view.frames}"
        furthest[view.name, view.attempt] = view.frames


def disordered_feed(history: History) -> Iterator[tuple[float, str]]:
    """A watch names all that is there, says so, and never speaks again of what it said was removed."""
    removed: dict[str, float] = {}
    for mark in history.marks:
        if mark.kind == "REMOVED":
            removed[mark.name] = mark.at_s
    for view in history.sessions:
        if view.name in removed and view.at_s > removed[view.name]:
            yield view.at_s, f"{view.name} was removed, then {view.state}"
    kinds = [mark.kind for mark in history.marks if mark.kind in ("RESET", "SYNCED")]
    for before, after in pairwise(kinds):
        if before == after == "SYNCED":
            yield history.marks[-1].at_s, "SYNCED twice without a RESET between"


def placed_on_closed_device(history: History) -> Iterator[tuple[float, str]]:
    """Nothing is placed on a device after the balancer told that it takes nothing."""
    asked = {created.name: created.asked_s for created in history.created}
    closings = _closings(history)
    for name, views in _by_session(history).items():
        known_s, attempt = asked.get(name, views[0].at_s), 0
        for view in views:
            if view.attempt > attempt and view.device:
                attempt = view.attempt
                for state, closed_s, opened_s in closings.get(view.device, ()):
                    # It was placed after the last moment at which it was not, and before this one.
                    if known_s > closed_s + NEWS_S and view.at_s + NEWS_S < opened_s:
                        yield view.at_s, f"{name} attempt {attempt} placed on {view.device}, which was {state}"
            known_s = view.at_s


def _closings(history: History) -> dict[str, list[tuple[str, float, float]]]:
    """Gives when each device was closed: state, since, until."""
    open_now: dict[str, tuple[str, float]] = {}
    found = defaultdict(list)
    for view in history.devices:
        closed = view.state in CLOSED_STATES
        if closed and view.name not in open_now:
            open_now[view.name] = (view.state, view.at_s)
        elif not closed and view.name in open_now:
            state, since_s = open_now.pop(view.name)
            found[view.name].append((state, since_s, view.at_s))
    for name, (state, since_s) in open_now.items():
        found[name].append((state, since_s, float("inf")))
    return found


def two_live_attempts(history: History) -> Iterator[tuple[float, str]]:
    """A session has one live program: on one host nothing new begins before all that came before it has ended.

    A look takes its time, in which one program may end and the next begin: so two are two when two looks see the same.
    """
    before: dict[str, set[SeenProcess]] = {}
    told = set()
    for sighting in history.sightings:
        living = defaultdict(set)
        for process in sighting.processes:
            if process.program:
                living[process.session].add(replace(process, stopped=False, writes=frozenset()))
        for name, programs in living.items():
            if len(programs & before.get(name, set())) > 1 and name not in told:
                told.add(name)
                which = sorted((one.attempt, one.device, one.pid) for one in programs)
                yield sighting.at_s, f"{name} has {len(programs)} live programs: {which}"
        before = living


def two_writers(history: History) -> Iterator[tuple[float, str]]:
    """An output is written by one attempt, and never by an older one after a newer one has begun to."""
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


def stands_still(history: History) -> Iterator[tuple[float, str]]:
    """Once all harm is undone, whatever has not ended goes on."""
    for before, after in pairwise(history.healed):
        earlier = {view.name: view for view in before.sessions}
        for view in after.sessions:
            first = earlier.get(view.name)
            if view.ended or first is None:
                continue
            more = (view.frames or 0) - (first.frames or 0)
            went_on = more > 0 or view.attempt > first.attempt
            if view.state != "RUNNING" or not went_on:
                told = f"{more} frames in {after.at_s - before.at_s:.1f} s"
                yield after.at_s, f"{view.name} is {view.state} {' '.join(view.conditions)} with {told}"


def alive_after_end(history: History) -> Iterator[tuple[float, str]]:
    """A session ends when its processes are gone, not before: what it had booked is free from then on."""
    ends: dict[str, float] = {}
    for view in history.sessions:
        if view.ended:
            ends.setdefault(view.name, view.at_s)
    told = set()
    for sighting in history.sightings:
        for process in sighting.processes:
            end_s = ends.get(process.session)
            if end_s is not None and sighting.at_s > end_s + NEWS_S and process.pid not in told:
                told.add(process.pid)
                yield sighting.at_s, f"{process.session} had ended, process {process.pid} of it lives"


def wrong_loads(history: History) -> Iterator[tuple[float, str]]:
    """A device's load is that of the sessions on it, and nothing when there are none."""
    for snapshot in history.snapshots:
        waiting = any(view.state == "QUEUED" for view in snapshot.sessions)
        for device in snapshot.devices:
            there = [view for view in snapshot.sessions if view.device == device.name and view.state in PLACED_STATES]
            if len(there) != device.session_count:
                told = f"says {device.session_count} sessions, {len(there)} are there"
                yield snapshot.at_s, f"{device.name} {told}"
            if bool(there) != bool(device.used) and not waiting:
                yield snapshot.at_s, f"{device.name} has {len(there)} sessions and {device.used} booked"


def untrue_ends(history: History) -> Iterator[tuple[float, str]]:
    """What a session says of its end and what it left agree."""
    for output in history.outputs:
        view = history.last.get(output.session)
        if view is None:
            continue
        whole = output.whole and not output.complaints and output.frames > 0
        if view.state == "SUCCEEDED" and not whole:
            yield view.at_s, f"{output.session} succeeded; {output.path} is broken: {output.complaints[:1]}"
        if view.state == "CANCELLED" and view.frames and not whole:
            yield view.at_s, f"{output.session} was completed; {output.path} is broken: {output.complaints[:1]}"


def lost_frames(history: History) -> Iterator[tuple[float, str]]:
    """Within an attempt every frame of the input is in the output once, in order.

    What failed may end in the middle of a picture, for which a decoder shows the one before again.
    """
    for output in history.outputs:
        view = history.last.get(output.session)
        repeated = output.repeated - (view is not None and view.state == "FAILED" and output.repeated == 1)
        wrong = (output.lost, repeated, output.backwards, output.unreadable)
        if any(wrong) and not output.cuts:
            told = "{} lost, {} repeated, {} backwards, {} unreadable".format(*wrong)
            yield view.at_s if view else 0.0, f"{output.session} {output.path}: {told} of {output.frames} frames"


def not_saved(history: History) -> Iterator[tuple[float, str]]:
    """What was told to be encoded is in a completed output, but for what a cut costs.

    Of an output that continues, that of every attempt; else of the last one, since an earlier one's is thrown away.
    """
    told: dict[str, dict[int, int]] = defaultdict(dict)
    for view in [*history.sessions, *history.last.values()]:
        if view.frames is not None:
            told[view.name][view.attempt] = max(view.frames, told[view.name].get(view.attempt, 0))
    for output in history.outputs:
        view = history.last.get(output.session)
        if view is None or view.state not in ("SUCCEEDED", "CANCELLED") or not told[output.session]:
            continue
        attempts = told[output.session]
        wanted = sum(attempts.values()) if output.continues else attempts.get(view.attempt, 0)
        missing = wanted - output.frames - output.cuts * CUT_FRAMES
        if missing > 0:
            yield view.at_s, f"{output.session} {output.path}: {output.frames} frames of {wanted} in {attempts}"


def orphans(history: History) -> Iterator[tuple[float, str]]:
    """When the house has ended nothing of it is left but its state folder and its outputs."""
    for left in history.leftovers:
        yield float("inf"), left


INVARIANTS: dict[str, Callable[[History], Iterator[tuple[float, str]]]] = {
    "LOST": lost,
    "UNENDED": unended,
    "UNEARNED_FAILURE": unearned_failures,
    "BEGUN_AGAIN": begun_again,
    "TWICE_FOR_ONE_REQUEST": twice_for_one_request,
    "FINAL_STATE_CHANGED": final_state_changed,
    "WENT_BACK": went_back,
    "ONE_REVISION_TWO_STORIES": one_revision_two_stories,
    "PROGRESS_WENT_BACK": progress_went_back,
    "DISORDERED_FEED": disordered_feed,
    "PLACED_ON_CLOSED_DEVICE": placed_on_closed_device,
    "TWO_LIVE_ATTEMPTS": two_live_attempts,
    "TWO_WRITERS": two_writers,
    "STANDS_STILL": stands_still,
    "ALIVE_AFTER_END": alive_after_end,
    "WRONG_LOADS": wrong_loads,
    "UNTRUE_ENDS": untrue_ends,
    "LOST_FRAMES": lost_frames,
    "NOT_SAVED": not_saved,
    "ORPHANS": orphans,
}
"""Every invariant by the name under which it is told."""
