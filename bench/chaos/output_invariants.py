"""What must be true of outputs, read back frame by frame when all was over."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bench.chaos.history import History, SessionView

AWAY_S = 15.0
"""An agent that came back within it before a session failed was away when the disk ran full, or may have been."""
DISK_FAILURES = ("DISK_FULL", "DISK_LOW", "OUTPUT_UNWRITABLE")
CUT_FRAMES = 75
"""That a cut may cost: a killed program keeps back up to 2 s, and what it told last may be ahead of its file."""

_MOVED_S = 60.0
"""By then a session that is moved has ended where it was."""
_MISSING = frozenset({"PARTS_MISSING", "IN_PARTS"})


def untrue_ends(history: History) -> Iterator[tuple[float, str]]:
    """What a session says of its end and what it left agree."""
    for output in history.outputs:
        view = history.last.get(output.session)
        if view is None or _thrown_away(history, view):
            continue
        whole = output.whole and not output.complaints and output.frames > 0
        if view.state == "SUCCEEDED" and not whole:
            yield view.at_s, f"{output.session} succeeded; {output.path} is broken: {output.complaints[:1]}"
        if view.state == "CANCELLED" and view.frames and not whole:
            yield view.at_s, f"{output.session} was completed; {output.path} is broken: {output.complaints[:1]}"


def lost_frames(history: History) -> Iterator[tuple[float, str]]:
    """Within an attempt every frame of the input is in the output once, in order.

    At a joint between attempts frames of a live source may be lost or shown again; but only there. What failed may end
    in the middle of a picture, for which a decoder shows the one before again. What failed of a full disk lacks what
    the disk did not take, which may be in the middle: segments that it tore are not listed.
    """
    for output in history.outputs:
        view = history.last.get(output.session)
        failed = view is not None and view.state == "FAILED"
        repeated = output.repeated - (failed and output.repeated == 1)
        torn = failed and _is_of_the_disk(view)
        wrong = (0 if torn else output.lost, repeated, output.backwards, output.unreadable)
        if not torn and output.breaks - (output.repeated - repeated) > output.cuts:
            told = f"{output.breaks} breaks at {output.cuts} joints"
            yield view.at_s if view else 0.0, f"{output.session} {output.path}: {told}"
        if any(wrong) and not output.cuts:
            told = "{} lost, {} repeated, {} backwards, {} unreadable".format(*wrong)
            yield view.at_s if view else 0.0, f"{output.session} {output.path}: {told} of {output.frames} frames"


def not_saved(history: History) -> Iterator[tuple[float, str]]:
    """What was told to be encoded is in a completed output, but for what a cut costs.

    Of an output that continues, that of every attempt; else of the last one, since an earlier one's is thrown away.
    """
    told = _told_frames(history)
    for output in history.outputs:
        view = history.last.get(output.session)
        if view is None or view.state not in ("SUCCEEDED", "CANCELLED") or not told[output.session]:
            continue
        if _thrown_away(history, view):
            continue
        attempts = told[output.session]
        wanted = sum(attempts.values()) if output.continues else attempts.get(view.attempt, 0)
        missing = wanted - output.frames - output.cuts * CUT_FRAMES
        if missing > 0:
            yield view.at_s, f"{output.session} {output.path}: {output.frames} frames of {wanted} in {attempts}"


def not_playable(history: History) -> Iterator[tuple[float, str]]:
    """What was written before a session failed plays, but for what the failure cost: no source here has a known end.

    Its last attempt counts, if that had begun; of an output that continues, all before it, too, unless it is told that
    something is missing. What a disk did not take of the middle is lost beside.
    """
    told_before = _told_frames(history)
    for output in history.outputs:
        view = history.last.get(output.session)
        if view is None or view.state != "FAILED":
            continue
        told = _watched_frames(history, view)
        if output.continues and not _MISSING.intersection(view.conditions):
            told += sum(frames for attempt, frames in told_before[view.name].items() if attempt < view.attempt)
        missing = told - output.frames - output.cuts * CUT_FRAMES - (output.lost if _is_of_the_disk(view) else 0)
        if not told:
            continue
        if output.unplayable:
            yield view.at_s, f"{output.session} failed; {output.path} does not play: {output.unplayable[:1]}"
        elif missing > CUT_FRAMES:
            yield view.at_s, f"{output.session} failed; {output.path} has {output.frames} frames of {told}"


def _thrown_away(history: History, last: SessionView) -> bool:
    """Tells whether a session that was stopped on a move, to begin anew, says that nothing of it was left."""
    told = "OUTPUTS_DISCARDED" in last.conditions
    same = [one for one in history.sessions if (one.name, one.attempt) == (last.name, last.attempt)]
    end_s = next((one.at_s for one in same if one.ended), last.at_s)
    return told and any("MOVING" in one.conditions and one.at_s > end_s - _MOVED_S for one in same)


def _told_frames(history: History) -> dict[str, dict[int, int]]:
    """Gives how many frames each attempt of each session told of."""
    told: dict[str, dict[int, int]] = defaultdict(dict)
    for view in [*history.sessions, *history.last.values()]:
        if view.frames is not None:
            told[view.name][view.attempt] = max(view.frames, told[view.name].get(view.attempt, 0))
    return told


def _is_of_the_disk(view: SessionView | None) -> bool:
    return view is not None and view.failure in DISK_FAILURES


def _watched_frames(history: History, last: SessionView) -> int:
    """Gives how many frames an attempt had told of when it was last looked after before it failed.

    What it wrote on a full disk while its agent was away is not listed by the playlists that are put back. What it told
    once the disk was full it had encoded, not written.
    """
    views = [one for one in history.sessions if (one.name, one.attempt) == (last.name, last.attempt)]
    end_s = next((view.at_s for view in views if view.ended), last.at_s)
    away_s = [one.at_s for one in views if "UNREACHABLE" in one.conditions and one.at_s > end_s - AWAY_S]
    full_s = [
        act.at_s
        for act in history.acts
        if last.failure == "DISK_FULL" and act.kind.startswith("fill") and act.at_s < end_s <= act.until_s + AWAY_S
    ]
    until_s = min(max(away_s, default=end_s), max(full_s, default=end_s))
    return max((one.frames or 0 for one in views if one.at_s <= until_s), default=0)
