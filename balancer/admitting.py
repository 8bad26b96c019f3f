"""How a session comes in: placed at once, queued, or refused; durable before anybody hears of it.

What is admitted is booked in memory at once, so that two admissions never take the same room. If it then cannot be
kept, everything is as if it had never been asked for.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

from balancer.admission import hopeful, placement_refused, queue_full
from balancer.decision_text import decision_to_text
from balancer.domain.ids import SessionId
from balancer.domain.lifecycle import launch_of
from balancer.domain.session import SessionRecord, SessionState
from balancer.group_commit import Write
from balancer.ports.session_store import PutSession, StoreError, StoreFullError
from balancer.session_book import Entry
from gpu_balancer.runtime.failures import Reason, RequestFailure
from gpu_balancer.runtime.ids import random_id

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import datetime

    from balancer.admission import Admission
    from balancer.domain.decision import Decision, Reservation
    from balancer.domain.session_events import Command
    from balancer.group_commit import GroupCommit
    from balancer.placer import Placer
    from balancer.ports.session_observer import SessionObserver
    from balancer.session_book import SessionBook
    from balancer.session_pacing import SessionPacing
    from balancer.session_queue import SessionQueue
    from gpu_balancer.runtime.clock import Clock

_TICK = timedelta(microseconds=1)


class Admitting:
    """Takes new sessions for the engine."""

    def __init__(  # noqa: PLR0913 - the engine's parts, each by its name
        self,
        *,
        placer: Placer,
        queue: SessionQueue,
        pacing: SessionPacing,
        book: SessionBook,
        writer: GroupCommit,
        clock: Clock,
        observer: SessionObserver,
        run: Callable[[Sequence[Command]], None],
        preempt: Callable[[SessionId], object],
        retry_after: timedelta,
    ) -> None:
        """Begins without sessions.

        Args:
            placer: Decides.
            queue: Takes those that wait.
            pacing: Hears of those that are placed.
            book: Keeps them.
            writer: Makes them durable.
            clock: Tells the time.
            observer: Hears of what is done.
            run: Has commands carried out.
            preempt: Has a session stopped and queued again.
            retry_after: What a client is told when there is no room now.
        """
        self._placer = placer
        self._queue = queue
        self._pacing = pacing
        self._book = book
        self._writer = writer
        self._clock = clock
        self._observer = observer
        self._run = run
        self._preempt = preempt
        self._retry_after = retry_after
        self.last_create_time: datetime | None = None
        """Of the youngest session there is. None: there is none."""

    def admit(self, admission: Admission) -> Entry:
        """Places a session, or queues it.

        Returns:
            Its entry; `admitted` gets the outcome once it is durable.

        Raises:
            PlacementRefused: Every device refused, and it may not wait or too many wait already.
        """
        started_s = self._clock.monotonic_s()
        session_id = SessionId(random_id())
        decision = self._placer.place(session_id, admission.workload, closed=self._queue.closed())
        record = self._new_record(session_id, admission, decision.reservation)
        if decision.reservation is None:
            return self._enqueue(record, admission, decision)
        commands = launch_of(record)
        entry = self._enter(record)

        def durable() -> None:
            self._admitted(entry, record)
            self._observer.on_admitted(record, decision, self._clock.monotonic_s() - started_s)
            self._run(commands)

        self._submit(entry, decision, durable, lambda: None)
        return entry

    def _enqueue(self, queued: SessionRecord, admission: Admission, decision: Decision) -> Entry:
        room = self._queue.room_for(self._queue.waiting_of(queued), decision)
        if room is None and not (admission.max_wait and hopeful(decision)):
            self._observer.on_refused(decision)
            raise placement_refused(decision, retry_after=self._retry_after)
        if room is None and self._queue.full:
            self._observer.on_refused(decision)
            count = self._queue.settings.max_sessions
            raise queue_full(decision, max_sessions=count, retry_after=self._retry_after)
        wait = self._queue.longest_wait(admission.max_wait, for_room=room is not None)
        # Not from its creation: that is dated after the one before it, whatever the clock says.
        now = self._clock.now()
        record = replace(
            queued,
            queued_time=now,
            queue_deadline=now + wait,
            reservation=room.reservation if room is not None else None,
            revision=1,
        )
        entry = self._enter(record)
        victims = room.preempted if room is not None else ()
        self._queue.expect(1)
        self._queue.promise(victims)

        def settled() -> None:
            self._queue.expect(-1)
            self._queue.redeem(victims)

        def durable() -> None:
            self._admitted(entry, record)
            self._observer.on_queued(record, decision)
            self._queue.enter(record, room or decision)
            for victim in victims:
                self._preempt(victim)
            settled()
            self._queue.wake()

        self._submit(entry, room or decision, durable, settled)
        return entry

    def _new_record(
        self, session_id: SessionId, admission: Admission, reservation: Reservation | None
    ) -> SessionRecord:
        """Makes a session's record: queued, or where there is a reservation as `advance` would have placed it."""
        now = self._clock.now()
        if self.last_create_time is not None and now <= self.last_create_time:
            # No two alike, in the order of admission: pages and the store rely on it.
            now = self.last_create_time + _TICK
        self.last_create_time = now
        return SessionRecord(
            id=session_id,
            state=SessionState.QUEUED if reservation is None else SessionState.STARTING,
            payload=admission.payload,
            priority=admission.priority,
            workload=admission.workload,
            create_time=now,
            labels=admission.labels,
            request_id=admission.request_id,
            request_digest=admission.request_digest,
            traceparent=admission.traceparent,
            preemptible=admission.preemptible,
            restart=admission.restart,
            resumable=admission.resumable,
            max_duration=admission.max_duration,
            device_id=reservation.device_id if reservation is not None else None,
            attempt=0 if reservation is None else 1,
            reservation=reservation,
            revision=0 if reservation is None else 1,
        )

    def _enter(self, record: SessionRecord) -> Entry:
        entry = Entry(record, asyncio.get_running_loop().create_future())
        self._book.enter(entry)
        self._pacing.moved(None, record)
        return entry

    def _submit(self, entry: Entry, decision: Decision, durable: Callable[[], None], undo: Callable[[], None]) -> None:
        def failed(error: StoreError) -> None:
            undo()
            self._not_admitted(entry, error)

        put = PutSession(record=entry.record, decision=decision_line(entry.record, decision, self._clock))
        self._writer.submit(Write((put,), durable, failed, True))

    def _admitted(self, entry: Entry, record: SessionRecord) -> None:
        self._book.publish(record)
        outcome, entry.admitted = entry.admitted, None
        if outcome is not None:
            outcome.set_result(record)

    def _not_admitted(self, entry: Entry, error: StoreError) -> None:
        """Undoes an admission that could not be kept: as if it had never been asked for."""
        self._book.forget(entry)
        self._pacing.moved(entry.record, None)
        self._placer.ended(entry.record.id)
        outcome = entry.admitted
        if outcome is not None:
            outcome.set_exception(store_failure("take the session", error))
            # Whoever asked may have hung up.
            outcome.exception()


def decision_line(record: SessionRecord, decision: Decision, clock: Clock) -> str:
    """Writes a decision down as it is kept: for the attempt that is being placed, or that the session waits for."""
    attempt = record.attempt + (record.state is SessionState.QUEUED)
    return decision_to_text(decision, attempt=attempt, decision_time=clock.now())


def store_failure(what: str, error: StoreError) -> RequestFailure:
    """Makes the failure of a request that could not be kept.

    Args:
        what: What could not be done, after "Cannot ".
        error: Why.
    """
    if isinstance(error, StoreFullError):
        return RequestFailure(
            reason=Reason.DISK_FULL,
            message=f"Cannot {what}: the disk of the balancer's state folder is full. Try again when there is room.",
        )
    return RequestFailure(
        reason=Reason.STORE_UNAVAILABLE,
        message=f"Cannot {what}: the balancer's store does not work now. Try again soon; its log says what is wrong.",
    )
