"""What must be true of what the balancer tells: of sessions and devices, through all its deaths."""

from __future__ import annotations

from collections import defaultdict
from itertools import pairwise
from typing import TYPE_CHECKING

from bench.chaos.history import CLOSED_STATES, NEWS_S, PLACED_STATES
from bench.chaos.output_invariants import DISK_FAILURES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bench.chaos.history import History, SessionView

_RANKS = {"STARTING": 1, "RUNNING": 2, "STOPPING": 3, "QUEUED": 4, "SUCCEEDED": 5, "FAILED": 5, "CANCELLED": 5}
"""Order of the states within an attempt. Queued with attempt n means: after attempt n, before the next."""
_EARNED_FAILURES = dict.fromkeys(DISK_FAILURES, ("fill outputs", "fill state"))
"""Reasons for which a session may fail for good, and what must have been done. After all else it begins anew."""
_HEARD_S = 60.0
"""After so long, whatever was done to a session has shown: its agent, or its balancer, may be away meanwhile."""


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
    """A session fails for good only of something that no second attempt mends, done while its last attempt lasted.

    Or of what was done to it once it had been told to stop: no second attempt follows then.
    """
    views = _by_session(history)
    for view in history.last.values():
        if view.state != "FAILED" or not view.failure:
            continue
        if _is_harmed_at_its_stop(history, views[view.name], view):
            continue
        lasted = [one.at_s for one in views[view.name] if one.attempt == view.attempt] or [view.at_s]
        end_s = _end_s(views[view.name], view)
        earned = any(
            act.kind in _EARNED_FAILURES.get(view.failure, ())
            and act.at_s < end_s + NEWS_S
            and act.until_s > max(min(lasted) - NEWS_S, end_s - _HEARD_S)
            for act in history.acts
        )
        if not earned:
            yield view.at_s, f"{view.name} failed: {view.failure}"


def _is_harmed_at_its_stop(history: History, views: list[SessionView], last: SessionView) -> bool:
    stops_s = [one.at_s for one in views if one.attempt == last.attempt and one.state == "STOPPING" and not one.failure]
    since_s = max([*stops_s[:1], _end_s(views, last) - _HEARD_S]) - NEWS_S
    return any(
        act.target == last.name and act.kind.startswith(("kill", "stop program")) and act.until_s > since_s
        for act in history.acts
        if stops_s
    )


def _end_s(views: list[SessionView], last: SessionView) -> float:
    return next((view.at_s for view in views if view.ended), last.at_s)


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
    """A session's revision, attempt and state within an attempt never go back.

    One that is stopped while it rests between two attempts is STOPPING until the outputs of the first are completed.
    """
    for name, views in _by_session(history).items():
        for before, after in pairwise(views):
            if after.revision < before.revision:
                yield after.at_s, f"{name}: revision {before.revision}, then {after.revision}"
            stopped = (before.state, after.state, after.attempt) == ("QUEUED", "STOPPING", before.attempt)
            if _place(after) < _place(before) and not stopped:
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


def _by_session(history: History) -> dict[str, list[SessionView]]:
    views = defaultdict(list)
    for view in history.sessions:
        views[view.name].append(view)
    return views
