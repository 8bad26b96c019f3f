"""What must be true of outputs, read back frame by frame when all was over."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bench.chaos.history import History

CUT_FRAMES = 75
"""That a cut may cost: a killed program keeps back up to 2 s, and what it told last may be ahead of its file."""


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

    At a joint between attempts frames of a live source may be lost or shown again; but only there. What failed may end
    in the middle of a picture, for which a decoder shows the one before again.
    """
    for output in history.outputs:
        view = history.last.get(output.session)
        repeated = output.repeated - (view is not None and view.state == "FAILED" and output.repeated == 1)
        wrong = (output.lost, repeated, output.backwards, output.unreadable)
        if output.breaks - (output.repeated - repeated) > output.cuts:
            told = f"{output.breaks} breaks at {output.cuts} joints"
            yield view.at_s if view else 0.0, f"{output.session} {output.path}: {told}"
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


def not_playable(history: History) -> Iterator[tuple[float, str]]:
    """What was written before a session failed plays, but for what the failure cost: no source here has a known end."""
    for output in history.outputs:
        view = history.last.get(output.session)
        if view is None or view.state != "FAILED":
            continue
        views = [one for one in history.sessions if (one.name, one.attempt) == (view.name, view.attempt)]
        told = max((one.frames or 0 for one in views), default=0)
        if output.unplayable:
            yield view.at_s, f"{output.session} failed; {output.path} does not play: {output.unplayable[:1]}"
        elif output.frames < told - CUT_FRAMES:
            yield view.at_s, f"{output.session} failed; {output.path} has {output.frames} frames of {told}"
