"""The queue: who waits for a device, in which order, and who may not be overtaken any longer.

LIVE goes before BATCH, each in the order of asking; a BATCH session that has waited long counts as LIVE, so that no
stream of LIVE work keeps it waiting for ever. Whoever fits is placed, also past others that do not fit: a small session
need not wait for room that only a large one lacks. But that would let small ones keep a large one waiting for ever.
So who has waited long and heads the queue gets a device kept for it: nobody else is placed there until it fits.

Serving costs a decision for each shape of session that waits, not for each session: within one round room only gets
less, so what was refused once is refused again.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol

from balancer.domain.decision import Decision, Refusal
from balancer.domain.device import Dimension
from balancer.domain.ids import DeviceId, SessionId
from balancer.domain.session import Priority
from balancer.domain.workload import Workload

_KEPT_RULE = "KEPT"


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueSettings:
    """What the operator tuned."""

    max_sessions: int = 100
    """That may wait at once. Sessions that were running before come on top."""
    longest_wait: timedelta = timedelta(hours=24)
    """However long a session may wait, it is not kept longer. Not counted for sessions that were running before."""
    batch_ages_after: timedelta = timedelta(minutes=10)
    """After which a BATCH session counts as LIVE in the order of the queue."""
    keep_device_after: timedelta = timedelta(minutes=1)
    """After which the head of the queue gets a device kept for it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """A session that waits."""

    session_id: SessionId
    workload: Workload
    priority: Priority
    asked_s: float
    """When it was asked for, on any clock: only the order counts. What was stopped for others keeps its place by it."""
    waiting_s: float
    """When it began to wait this time, on a clock that never jumps."""
    deadline_s: float | None = None
    """When it is given up, on the same clock. None: never."""
    avoided: frozenset[DeviceId] = frozenset()
    """Devices that it was not able to begin on."""
    deadline: datetime | None = None
    """As `deadline_s`, on the wall: which wait this is."""
    ready_s: float | None = None
    """When it has rested for long enough, on the same clock. None: it need not rest."""


class Decide(Protocol):
    """Decides where a session goes now, and books it there when it goes anywhere."""

    def __call__(self, waiting: Waiting, closed: Mapping[DeviceId, Refusal], /) -> Decision:
        """Decides; devices in `closed` take nothing, for the reason that is given."""
        ...


class WaitingLine:
    """The sessions that wait. Knows no clock: who asks says what time it is."""

    def __init__(self, settings: QueueSettings) -> None:
        """Begins empty."""
        self.settings = settings
        """Replaced when the operator tunes them."""
        self._waiting: dict[SessionId, Waiting] = {}
        self._kept: tuple[SessionId, tuple[DeviceId, ...]] | None = None

    def __len__(self) -> int:
        return len(self._waiting)

    def __iter__(self) -> Iterator[Waiting]:
        return iter(tuple(self._waiting.values()))

    def __contains__(self, session_id: object) -> bool:
        return session_id in self._waiting

    def add(self, waiting: Waiting) -> None:
        """Takes a session in, also where the line is full: who asks decides."""
        self._waiting[waiting.session_id] = waiting

    def remove(self, session_id: SessionId) -> None:
        """Forgets a session, which need not be there."""
        self._waiting.pop(session_id, None)
        if self._kept is not None and self._kept[0] == session_id:
            self._kept = None

    def ordered(self, now_s: float) -> tuple[Waiting, ...]:
        """Gives the sessions in the order in which they are served."""
        aged_s = now_s - self.settings.batch_ages_after.total_seconds()

        def rank(one: Waiting) -> tuple[bool, float]:
            return one.priority is Priority.BATCH and one.waiting_s > aged_s, one.asked_s

        return tuple(sorted(self._waiting.values(), key=rank))

    def closed_to(self, session_id: SessionId | None) -> Mapping[DeviceId, Refusal]:
        """Gives the devices that are kept for others, with the refusal to tell.

        Args:
            session_id: Who would be placed. None: a session that does not wait.
        """
        if self._kept is None or self._kept[0] == session_id:
            return {}
        holder, device_ids = self._kept
        refusal = Refusal(rule=_KEPT_RULE, message=f"It is kept for sessions/{holder}, which has waited long.")
        return dict.fromkeys(device_ids, refusal)

    def serve(self, now_s: float, decide: Decide) -> tuple[Decision, ...]:
        """Places whom it can, in order.

        Args:
            now_s: What time it is.
            decide: Decides, and books what it placed. It may remove sessions from the line.

        Returns:
            The decisions that placed a session.
        """
        placed: list[Decision] = []
        refused: set[tuple[Workload, Priority, frozenset[DeviceId]]] = set()
        keep_s = now_s - self.settings.keep_device_after.total_seconds()
        ordered = [one for one in self.ordered(now_s) if one.ready_s is None or one.ready_s <= now_s]
        head = next((one.session_id for one in ordered if one.waiting_s <= keep_s), None)
        if self._kept is not None and self._kept[0] != head:
            # Somebody has come to stand before the holder, by ageing: what is kept is kept for the head.
            self._kept = None
        keeping = head if self._kept is not None else None
        for waiting in ordered:
            # Others may be stopped for LIVE work, so what BATCH was refused is not refused to it.
            shape = (waiting.workload, waiting.priority, waiting.avoided)
            if shape in refused and waiting.session_id != keeping:
                continue
            closed = {**_avoiding(waiting.avoided), **self.closed_to(waiting.session_id)}
            decision = decide(waiting, closed)
            if decision.device_id is not None:
                self.remove(waiting.session_id)
                placed.append(decision)
                continue
            refused.add(shape)
            if waiting.waiting_s <= keep_s and (self._kept is None or self._kept[0] == waiting.session_id):
                self._keep_for(waiting, decision)
        return tuple(placed)

    def _keep_for(self, waiting: Waiting, decision: Decision) -> None:
        """Keeps the device that lacks least for a session, and stays with it for as long as it may still take it.

        Where the host is what is short, all devices are kept whose sessions would take of the same.
        """
        shortages = {
            verdict.device_id: (shortage, verdict.refusal)
            for verdict in decision.verdicts
            if (shortage := _shortage(verdict.refusal))
        }
        if self._kept is not None and self._kept[1][0] in shortages:
            chosen = self._kept[1][0]
        elif shortages:
            chosen = min(shortages, key=lambda device_id: shortages[device_id][0])
        else:
            self._kept = None
            return
        refusal = shortages[chosen][1]
        others = _takers_of_host(decision, refusal.dimension) if refusal is not None and refusal.host else []
        self._kept = (waiting.session_id, tuple(dict.fromkeys((chosen, *others))))


def _shortage(refusal: Refusal | None) -> tuple[int, int] | None:
    """Tells how far a device is from taking a session, to compare. None: waiting for room there is in vain."""
    if refusal is None or refusal.permanent or refusal.needed is None or refusal.available is None:
        return None
    # Shares of what is needed, in thousandths: dimensions have different units.
    missing = refusal.needed - refusal.available
    return (1000 * missing // max(1, refusal.needed), missing)


def _takers_of_host(decision: Decision, dimension: Dimension | None) -> list[DeviceId]:
    return [
        verdict.device_id
        for verdict in decision.verdicts
        if any(needed == dimension for needed, _, _ in verdict.host_needs)
    ]


def _avoiding(device_ids: Collection[DeviceId]) -> dict[DeviceId, Refusal]:
    refusal = Refusal(rule="AVOIDED", message="The session could not begin on it before.")
    return dict.fromkeys(device_ids, refusal)


def estimated_wait(
    position: int, *, remaining: Sequence[timedelta], end_interval: timedelta | None
) -> timedelta | None:
    """Estimates how long a session still waits.

    The session at place n goes when about n of those that run have ended. Where the ends of enough of them are known,
    files that are being worked on mostly, it is the n-th of these; else n times the time between ends lately.

    Args:
        position: Its place, from 1.
        remaining: How long sessions that run and have a known end still take.
        end_interval: The mean time between ends lately. None: too few were seen.

    Returns:
        None where neither is known.
    """
    if len(remaining) >= position:
        return sorted(remaining)[position - 1]
    return None if end_interval is None else end_interval * position


class EndRate:
    """How often sessions end, from the last of them."""

    _KEPT = 32

    def __init__(self) -> None:
        """Begins without having seen any."""
        self._ends_s: list[float] = []

    def note(self, now_s: float) -> None:
        """Notes an end."""
        self._ends_s = [*self._ends_s[-self._KEPT + 1 :], now_s]

    def interval(self, now_s: float) -> timedelta | None:
        """Gives the mean time between ends, the present pause counted. None: fewer than two were seen."""
        if len(self._ends_s) < 2:
            return None
        return timedelta(seconds=(now_s - self._ends_s[0]) / len(self._ends_s))
