"""What must be true of every history, whatever was done to the house. Pure: a history in, violations out.

Each invariant is a function that finds its own violations. Where two observers' clocks meet (a session was seen placed,
a device was seen closed) it says only what cannot be otherwise: a violation is a fault of the house, never of the order
in which news arrived.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from bench.chaos import news_invariants, output_invariants, process_invariants

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from bench.chaos.history import History


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


INVARIANTS: dict[str, Callable[[History], Iterator[tuple[float, str]]]] = {
    "LOST": news_invariants.lost,
    "UNENDED": news_invariants.unended,
    "UNEARNED_FAILURE": news_invariants.unearned_failures,
    "BEGUN_AGAIN": news_invariants.begun_again,
    "TWICE_FOR_ONE_REQUEST": news_invariants.twice_for_one_request,
    "FINAL_STATE_CHANGED": news_invariants.final_state_changed,
    "WENT_BACK": news_invariants.went_back,
    "ONE_REVISION_TWO_STORIES": news_invariants.one_revision_two_stories,
    "PROGRESS_WENT_BACK": news_invariants.progress_went_back,
    "DISORDERED_FEED": news_invariants.disordered_feed,
    "PLACED_ON_CLOSED_DEVICE": news_invariants.placed_on_closed_device,
    "TWO_LIVE_ATTEMPTS": process_invariants.two_live_attempts,
    "TWO_WRITERS": process_invariants.two_writers,
    "STANDS_STILL": news_invariants.stands_still,
    "ALIVE_AFTER_END": process_invariants.alive_after_end,
    "WRONG_LOADS": news_invariants.wrong_loads,
    "UNTRUE_ENDS": output_invariants.untrue_ends,
    "LOST_FRAMES": output_invariants.lost_frames,
    "NOT_SAVED": output_invariants.not_saved,
    "NOT_PLAYABLE": output_invariants.not_playable,
    "ORPHANS": process_invariants.orphans,
}
"""Every invariant by the name under which it is told."""
