"""Whom to stop for work in real time that no device takes as things are.

On each device that could take it, the sessions that allow it are given up one by one, those first that have done
least, until it fits; then those are kept after all that turn out not to matter. The device where least work is lost is
the one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import partial

from balancer.domain.decision import Decision, Refusal
from balancer.domain.ids import DeviceId, SessionId
from balancer.domain.ledger import Ledger


@dataclass(frozen=True, slots=True, kw_only=True)
class Victim:
    """A session that may be stopped and queued again."""

    session_id: SessionId
    device_id: DeviceId
    done: timedelta
    """Media time that would have to be done again."""


def make_room(
    refused: Decision,
    victims: Sequence[Victim],
    ledger: Ledger,
    decide: Callable[[Mapping[DeviceId, Refusal]], Decision],
) -> Decision | None:
    """Finds the sessions to stop so that a session fits.

    Args:
        refused: The decision by which every device refused it.
        victims: Who may be stopped, on any device.
        ledger: What is booked. Changed meanwhile, and afterwards as it was.
        decide: Decides again; the devices given take nothing.

    Returns:
        A decision that names the device, the reservation and whom to stop for it. None: stopping does not help.
    """
    permanent = {verdict.device_id for verdict in refused.verdicts if not _may_help(verdict.refusal)}
    best: tuple[tuple[timedelta, int], Decision] | None = None
    for device_id in dict.fromkeys(victim.device_id for victim in victims):
        if device_id in permanent:
            continue
        here = sorted((one for one in victims if one.device_id == device_id), key=lambda one: one.done)
        found = _given_up(here, ledger, partial(decide, _closed_but(device_id, refused)))
        if found is None:
            continue
        decision, stopped = found
        lost = sum((one.done for one in stopped), timedelta()), len(stopped)
        if best is None or lost < best[0]:
            best = lost, replace(decision, preempted=tuple(one.session_id for one in stopped))
    return None if best is None else best[1]


def _may_help(refusal: Refusal | None) -> bool:
    """Whether stopping sessions of a device may let it take the session."""
    return refusal is not None and refusal.rule in ("CAPACITY", "HOST_CAPACITY", "ENCODER_SESSIONS")


def _closed_but(device_id: DeviceId, refused: Decision) -> dict[DeviceId, Refusal]:
    closed = Refusal(rule="NOT_ASKED", message="Another device is asked.")
    return {verdict.device_id: closed for verdict in refused.verdicts if verdict.device_id != device_id}


def _given_up(
    victims: Sequence[Victim], ledger: Ledger, decide: Callable[[], Decision]
) -> tuple[Decision, tuple[Victim, ...]] | None:
    released = []
    try:
        decision = None
        for victim in victims:
            reservation = ledger.release(victim.session_id)
            if reservation is None:
                continue
            released.append((victim, reservation))
            decision = decide()
            if decision.device_id is not None:
                break
        if decision is None or decision.device_id is None:
            return None
        # Whoever was given up before the one that mattered may not have mattered.
        for one in tuple(released[:-1]):
            ledger.book(one[0].session_id, one[1])
            without = decide()
            if without.device_id is None:
                ledger.release(one[0].session_id)
            else:
                released.remove(one)
                decision = without
        return decision, tuple(victim for victim, _ in released)
    finally:
        for victim, reservation in released:
            ledger.book(victim.session_id, reservation)
