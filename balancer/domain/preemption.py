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

from balancer.domain.decision import Decision, Refusal, Reservation
from balancer.domain.ids import DeviceId, SessionId
from balancer.domain.ledger import Ledger


@dataclass(frozen=True, slots=True, kw_only=True)
class Victim:
    """A session that may be stopped and queued again."""

    session_id: SessionId
    device_id: DeviceId
    done: timedelta
    """Media time that would have to be done again. Of one that ends anyway: nothing."""
    ending: bool = False
    """Whether it is being stopped already, so that its room comes free without anybody's loss."""


def make_room(
    refused: Decision,
    victims: Sequence[Victim],
    ledger: Ledger,
    has_room: Callable[[DeviceId], bool],
    decide: Callable[[Mapping[DeviceId, Refusal]], Decision],
) -> Decision | None:
    """Finds the sessions to stop so that a session fits.

    Args:
        refused: The decision by which every device refused it.
        victims: Who may be stopped, on any device.
        ledger: What is booked. Changed meanwhile, and afterwards as it was.
        has_room: Tells whether a device takes the session, as the ledger is at that moment.
        decide: Decides again; the devices given take nothing.

    Returns:
        A decision that names the device, the reservation and whom to stop for it. None: stopping does not help.
    """
    permanent = {verdict.device_id for verdict in refused.verdicts if not _may_help(verdict.refusal)}
    best: tuple[tuple[timedelta, int], Decision] | None = None
    for device_id in dict.fromkeys(victim.device_id for victim in victims):
        if device_id in permanent:
            continue
        # Whose room comes free anyway goes first, and is never kept after all. On other devices, too: of the host that
        # they share it comes free for this one.
        here = sorted(
            (one for one in victims if one.ending or one.device_id == device_id),
            key=lambda one: (not one.ending, one.done),
        )
        found = _given_up(here, ledger, partial(has_room, device_id), partial(decide, closed_but(device_id, refused)))
        if found is None:
            continue
        decision, stopped = found
        lost = sum((one.done for one in stopped), timedelta()), len(stopped)
        if best is None or lost < best[0]:
            best = lost, replace(decision, preempted=tuple(one.session_id for one in stopped))
    return None if best is None else best[1]


def _may_help(refusal: Refusal | None) -> bool:
    """Whether stopping sessions of a device may let it take the session."""
    return (
        refusal is not None
        and not refusal.permanent
        and refusal.rule in ("CAPACITY", "HOST_CAPACITY", "ENCODER_SESSIONS")
    )


def closed_but(device_id: DeviceId, refused: Decision) -> dict[DeviceId, Refusal]:
    """Closes all devices of a decision but one."""
    closed = Refusal(rule="NOT_ASKED", message="Another device is asked.")
    return {verdict.device_id: closed for verdict in refused.verdicts if verdict.device_id != device_id}


def _given_up(
    victims: Sequence[Victim], ledger: Ledger, has_room: Callable[[], bool], decide: Callable[[], Decision]
) -> tuple[Decision, tuple[Victim, ...]] | None:
    """Finds whom to stop on one device, and the decision then. None: it does not help."""
    released: list[tuple[Victim, Reservation]] = []
    try:
        fits = False
        for victim in victims:
            reservation = ledger.release(victim.session_id)
            if reservation is None:
                continue
            released.append((victim, reservation))
            if fits := has_room():
                break
        if not fits:
            return None
        # Whoever was given up before the one that mattered may not have mattered.
        for victim, reservation in tuple(released[:-1]):
            if victim.ending:
                continue
            ledger.book(victim.session_id, reservation)
            if has_room():
                released.remove((victim, reservation))
            else:
                ledger.release(victim.session_id)
        decision = decide()
        if decision.device_id is None:
            return None
        return decision, tuple(victim for victim, _ in released if not victim.ending)
    finally:
        for victim, reservation in released:
            ledger.book(victim.session_id, reservation)
