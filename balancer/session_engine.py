"""The session engine: the only writer of sessions. Events go in by one door, commands come out after the commit.

What it does in parts of its own: placing, queueing, pacing, commanding agents, committing, showing, forgetting.

Everything is in memory; the store is read once, at start, and the ledger is rebuilt from the sessions. A change is made
in memory at once, so that two admissions never book the same room, but nobody outside sees it, and nothing is started,
before it is durable. Progress alone is not stored: it is true again a second later.

An admission belongs to the engine from the moment it is booked: a client that hangs up changes nothing.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import TYPE_CHECKING

import structlog

from balancer.admission import Admission
from balancer.admitting import Admitting, decision_line, store_failure
from balancer.agent_commands import AgentCommands, CommandTimes
from balancer.domain.ids import SessionId
from balancer.domain.lifecycle import advance, stale_stop
from balancer.domain.requeueing import NOT_BEGUN
from balancer.domain.session import Failure, SessionRecord, SessionState
from balancer.domain.session_events import (
    Amended,
    AttemptReported,
    Command,
    LaunchAccepted,
    LaunchOnAgent,
    PaceOnAgent,
    Preempted,
    SessionEvent,
    StopForgotten,
    StopOnAgent,
    StopRequested,
)
from balancer.durable_changes import DurableChanges, worth_storing
from balancer.group_commit import GroupCommit, Write
from balancer.placer import PlacementRules, Placer
from balancer.ports.session_observer import SessionObserver, SilentObserver
from balancer.ports.session_store import Change, PutCursor, PutSession, RemoveSession, StoreError
from balancer.relocation import Relocation
from balancer.session_book import Entry, SessionBook
from balancer.session_listing import SessionFilter, SessionPage, page_of
from balancer.session_moves import SessionMoves
from balancer.session_pacing import SessionPacing
from balancer.session_queue import QueueFigures, SessionQueue
from balancer.session_retention import RetentionSettings, forget_outlived, not_ended
from gpu_balancer.runtime.failures import Reason, RequestFailure

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from balancer.change_feed import ChangeFeed
    from balancer.domain.decision import Decision
    from balancer.domain.device import Utilization
    from balancer.domain.ids import DeviceId
    from balancer.domain.ledger import Ledger
    from balancer.domain.workload import Workload
    from balancer.ports.agent_clients import AgentClients
    from balancer.ports.device_news import DeviceViews
    from balancer.ports.session_store import SessionStore
    from gpu_balancer.runtime.clock import Clock
    from gpu_balancer.runtime.task_guard import TaskGuard

_log = structlog.stdlib.get_logger(__name__)

_RESTART_REVISIONS = 1 << 24
"""Added to a live session's revision at start. Progress raised it without being stored; at 1 Hz this is half a year."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineSettings:
    """What may be tuned of the engine."""

    retry_after: timedelta = timedelta(seconds=5)
    """What a client is told when there is no room now."""
    retention: RetentionSettings = field(default_factory=RetentionSettings)
    command_times: CommandTimes = field(default_factory=CommandTimes)
    flush_timeout: timedelta = timedelta(seconds=5)
    """How long closing waits for the store."""


class SessionEngine:
    """Places sessions, keeps them, and tells agents and watchers."""

    def __init__(
        self,
        *,
        store: SessionStore,
        agents: AgentClients,
        devices: DeviceViews,
        rules: PlacementRules,
        clock: Clock,
        tasks: TaskGuard,
        settings: EngineSettings = EngineSettings(),
        observer: SessionObserver = SilentObserver(),  # noqa: B008 - stateless
    ) -> None:
        """Begins empty; `start` loads the store.

        Args:
            store: Where sessions are kept; the engine closes it.
            agents: Who speaks to which device.
            devices: What can be placed on, now.
            rules: How devices are chosen.
            clock: Tells the time.
            tasks: Owns the engine's tasks; must be entered, and left after `close`.
            settings: What may be tuned.
            observer: Hears of what is done.
        """
        self._book = SessionBook()
        self._placer = Placer(rules, devices, self._book.ledger)
        self._queue = SessionQueue(self, self._placer, clock, rules.queue)
        self._pacing = SessionPacing(self, self._placer)
        self._relocation = Relocation(self, self._placer, self._queue)
        self._moves = SessionMoves(self, self._placer, self._queue.closed)
        self._store = store
        self._clock = clock
        self._tasks = tasks
        self._settings = settings
        self._observer = observer
        self._cursors: dict[DeviceId, int] = {}
        self._findings: dict[str, str] = {}
        self._writer = GroupCommit(store)
        self._changes = DurableChanges(self._writer, self._book, observer, self._run)
        self._commands = AgentCommands(self, agents, tasks, settings.command_times)
        self._admitting = Admitting(
            placer=self._placer,
            queue=self._queue,
            pacing=self._pacing,
            book=self._book,
            writer=self._writer,
            clock=clock,
            observer=observer,
            run=self._run,
            preempt=lambda session_id: self.post(session_id, Preempted()),
            retry_after=settings.retry_after,
        )
        self._refusing = False
        self._closed = False

    @property
    def changes(self) -> ChangeFeed:
        """Tells watchers of what became durable, and of progress."""
        return self._book.changes

    @property
    def ledger(self) -> Ledger:
        """What is booked. For reading: the engine alone books."""
        return self._book.ledger

    # ----------------------------------------------------------------------------------------------------- life

    async def start(self) -> None:
        """Loads the store, rebuilds the ledger, and goes on with every launch and stop that was under way.

        Raises:
            StoreError: The store cannot be read.
        """
        stored = await self._store.load()
        self._cursors.update(stored.cursors)
        self._findings.update(stored.findings)
        for record in stored.records:
            self._restore(record)
        self._tasks.spawn_eternal(self._writer.run(), name="group commit")
        retaining = forget_outlived(self._book, self.delete, self._settings.retention, self._clock)
        self._tasks.spawn_eternal(retaining, name="retention")
        self._tasks.spawn_eternal(self._every_second(), name="queue and paces")
        await self._writer.flush(give_up=True)
        for entry in self._book.live():
            self._resume(entry.record)

    async def close(self) -> None:
        """Takes nothing new, lets what is under way become durable, ends watchers and closes the store.

        Sessions run on with their agents.
        """
        self.refuse_admissions()
        try:
            async with asyncio.timeout(self._settings.flush_timeout.total_seconds()):
                await self._writer.flush()
        except TimeoutError:
            _log.error("the store does not answer; the last changes are not kept, agents tell them again at start")
        self._closed = True
        self.changes.close()
        await self._store.close()

    # ------------------------------------------------------------------------------------------------ admission

    async def admit(self, admission: Admission) -> SessionRecord:
        """Places a session and has it launched, or queues it. Returns once that is durable.

        Args:
            admission: What is asked for. A request id that is known, with the same digest, gives the same session.

        Returns:
            The session.

        Raises:
            RequestFailure: REQUEST_ID_REUSED; STORE_UNAVAILABLE or DISK_FULL when the placement could not be kept, and
                nothing was started; SHUTTING_DOWN.
            PlacementRefused: Every device refused, and the session may not wait or too many wait already.
        """
        if self._refusing:
            raise RequestFailure(
                reason=Reason.SHUTTING_DOWN,
                message="Cannot take the session: the balancer is shutting down. Try again when it is back.",
            )
        known = self._requested(admission.request_id, admission.request_digest) if admission.request_id else None
        return await self._outcome(known or self._admitting.admit(admission))

    async def answered(self, request_id: str, request_digest: str) -> SessionRecord | None:
        """Gives the session that an earlier request made, also one that is just being made.

        Args:
            request_id: Of the request.
            request_digest: Hash of what it asks for.

        Returns:
            The session. None: no request with this id is known.

        Raises:
            RequestFailure: REQUEST_ID_REUSED; the earlier request's failure, when it is being made and fails.
        """
        entry = self._requested(request_id, request_digest)
        return None if entry is None else await self._outcome(entry)

    async def _outcome(self, entry: Entry) -> SessionRecord:
        if entry.admitted is None:
            return self._book.require(entry.record.id)
        return await asyncio.shield(entry.admitted)

    def plan(self, workload: Workload) -> Decision:
        """Tells where a workload would go now, and why, without booking it."""
        return self._placer.consider(workload, closed=self._queue.closed())

    async def decisions(self, session_id: SessionId) -> Sequence[str]:
        """Gives why a session went where it went, oldest first, each a line of `decision_text`.

        Raises:
            RequestFailure: SESSION_NOT_FOUND; STORE_UNAVAILABLE.
        """
        self.get(session_id)
        try:
            return await self._store.read_decisions(session_id)
        except StoreError as error:
            raise store_failure(f"explain sessions/{session_id}", error) from error

    @property
    def waiting(self) -> QueueFigures:
        """What waits for a device."""
        return self._queue.figures()

    @property
    def rules(self) -> PlacementRules:
        """How devices are chosen now."""
        return self._placer.rules

    @rules.setter
    def rules(self, rules: PlacementRules) -> None:
        """Chooses devices by other rules from now on. Sessions stay where they are."""
        self._placer.use(rules, [entry.record for entry in self._book.unended()])
        self._queue.settings = rules.queue
        self._queue.wake()
        self._pacing.look_again()

    @property
    def findings(self) -> Mapping[str, str]:
        """What was found out about devices and the host, by key."""
        return self._findings

    async def keep_finding(self, key: str, text: str | None) -> None:
        """Keeps what was found out; None forgets it.

        Raises:
            StoreError: It could not be kept; it holds until the next start.
        """
        if text is None:
            self._findings.pop(key, None)
        else:
            self._findings[key] = text
        await self._changes.keep_finding(key, text)

    def refuse_admissions(self) -> None:
        """Takes no new session from now on; everything else goes on."""
        self._refusing = True

    def _requested(self, request_id: str, request_digest: str | None) -> Entry | None:
        entry = self._book.requested(request_id)
        if entry is not None and entry.record.request_digest != request_digest:
            raise RequestFailure(
                reason=Reason.REQUEST_ID_REUSED,
                message=f"Cannot use request id {request_id!r} again: it was used for another session. Try a new one.",
            )
        return entry

    # --------------------------------------------------------------------------------------------------- events

    async def apply(
        self, session_id: SessionId, event: SessionEvent, cursor: tuple[DeviceId, int] | None = None
    ) -> None:
        """Takes an event and returns when what came of it is durable.

        Args:
            session_id: Which session; an unknown one is no error, because agents may tell of deleted ones.
            event: What happened.
            cursor: The agent that told it and the event's number, kept together with the change. None: not numbered.
        """
        if self.post(session_id, event, cursor):
            await self._writer.flush()

    def post(
        self,
        session_id: SessionId,
        event: SessionEvent,
        cursor: tuple[DeviceId, int] | None = None,
        *,
        decision: Decision | None = None,
    ) -> bool:
        """Takes an event at once; what comes of it becomes durable, and is carried out, later and in order.

        Args:
            session_id: Which session.
            event: What happened.
            cursor: As in `apply`.
            decision: What led to the event, kept with it. None: nothing to keep.

        Returns:
            Whether there is anything to become durable; `flush` waits for it.
        """
        if self._closed:
            return False
        changes: list[Change] = []
        if cursor is not None:
            self._cursors[cursor[0]] = cursor[1]
            changes.append(PutCursor(device_id=cursor[0], event_number=cursor[1]))
        entry = self._book.entry(session_id)
        commands: tuple[Command, ...] = ()
        if entry is not None and entry.admitted is None:
            commands = self._advance(entry, event, changes, decision)
        if not changes and not commands:
            return False
        self._changes.submit(entry, changes, commands)
        return True

    async def flush(self) -> None:
        """Returns when every event that was taken so far is durable."""
        await self._writer.flush()

    def _advance(
        self, entry: Entry, event: SessionEvent, changes: list[Change], decision: Decision | None
    ) -> tuple[Command, ...]:
        if isinstance(event, AttemptReported | LaunchAccepted):
            entry.known_attempt = max(entry.known_attempt, event.attempt)
        before = entry.record
        after, commands = advance(before, event, self._clock.now())
        if after is before:
            return commands
        if after.failure is not None and after.failure is not before.failure and _not_begun(before, after.failure):
            self._observer.on_not_begun(before, after.failure)
        after, kept = self._moves.arrive(before, after)
        decision = decision or kept
        self._book.change(entry, after)
        self._moved(before, after)
        if worth_storing(before, after):
            told = "" if decision is None else decision_line(before, decision, self._clock)
            changes.append(PutSession(record=after, decision=told))
        elif not entry.unwritten and entry.admitted is None:
            self._changes.publish(after)
        if decision is not None and after.state is SessionState.STARTING:
            waited = after.create_time if before.queued_time is None else before.queued_time
            self._observer.on_admitted(after, decision, (self._clock.now() - waited).total_seconds())
        return commands

    def _moved(self, before: SessionRecord, after: SessionRecord) -> None:
        """Has everybody hear who keeps in mind where sessions are."""
        self._pacing.moved(before, after)
        queued = after.state is SessionState.QUEUED and before.state is not SessionState.QUEUED
        if queued or (after.reservation is None and (before.reservation is not None or after.state.final)):
            self._placer.ended(after.id)
        if before.state is SessionState.QUEUED and after.state.final:
            self._queue.leave(after.id)
        if before.reservation is not None and after.reservation is None and before.device_id is not None:
            self._queue.note_end()
        if after.measured_use is not before.measured_use:
            self._queue.wake()
        # One that found no further device may wait again, for the rest of its rule.
        if queued or (after.state is SessionState.QUEUED and after.queue_deadline != before.queue_deadline):
            self._queue.enter(after)
            self._queue.wake()

    def _run(self, commands: Sequence[Command]) -> None:
        for command in commands:
            self._commands.run(command)

    # -------------------------------------------------------------------------------------------------- clients

    def get(self, session_id: SessionId) -> SessionRecord:
        """Gives a session.

        Raises:
            RequestFailure: SESSION_NOT_FOUND.
        """
        return self._book.require(session_id)

    def list(self, wanted: SessionFilter, *, page_size: int = 0, page_token: str = "") -> SessionPage:
        """Gives a page of the sessions that are meant, newest first; see `page_of`."""
        return page_of(self._book.newest_first(), wanted, page_size=page_size, page_token=page_token)

    async def stop(self, session_id: SessionId) -> SessionRecord:
        """Asks a session to complete its outputs and end. Asking again changes nothing.

        Returns:
            The session, stopping or ended.

        Raises:
            RequestFailure: SESSION_NOT_FOUND; STORE_UNAVAILABLE or DISK_FULL when the wish could not be kept, though
                the agent is asked all the same.
        """
        return await self._kept(session_id, StopRequested(), "keep that the session is to stop")

    def move(self, session_id: SessionId, failure: Failure) -> bool:
        """Has a session go on elsewhere; False where there is no room for it now, and it stays. See `SessionMoves`."""
        return self._moves.begin(session_id, failure)

    async def amend(self, session_id: SessionId, payload: bytes) -> SessionRecord:
        """Keeps what a client changed of what it had asked for, of which its agent knows. Raises as `stop`."""
        return await self._kept(session_id, Amended(payload=payload), "keep the change")

    async def _kept(self, session_id: SessionId, wish: SessionEvent, what: str) -> SessionRecord:
        shown = self.get(session_id)
        if self.post(session_id, wish) or self.current(session_id) is not shown:  # another's wish is being kept
            try:
                await self._writer.flush(give_up=True)
            except StoreError as error:
                raise store_failure(f"{what}, though its agent is told", error) from error
        return self.get(session_id)

    async def launched(self, record: SessionRecord) -> None:
        """Returns once its device's agent has answered the launch of a session, or nobody waits for that."""
        await self._commands.launched(record)

    async def delete(self, session_id: SessionId) -> None:
        """Removes an ended session with its files.

        Raises:
            RequestFailure: SESSION_NOT_FOUND; SESSION_NOT_ENDED; AGENT_UNREACHABLE when its files cannot be removed
                now; STORE_UNAVAILABLE or DISK_FULL.
        """
        record = self.get(session_id)
        if not record.state.final:
            raise not_ended(record)
        await self._commands.delete(record)
        entry = self._book.entry(session_id)
        if entry is None:
            return
        removed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def durable() -> None:
            if self._book.entry(session_id) is entry:
                self._book.forget(entry)
            if not removed.done():
                removed.set_result(None)

        def failed(error: StoreError) -> None:
            if not removed.done():
                removed.set_exception(store_failure(f"delete sessions/{session_id}", error))

        self._writer.submit(Write((RemoveSession(session_id=session_id),), durable, failed, True))
        await removed

    # --------------------------------------------------------------------------------------------- agent's watch

    def current(self, session_id: SessionId) -> SessionRecord | None:
        """Gives a session as the engine has it, changes that are not durable yet included. None: there is none."""
        entry = self._book.entry(session_id)
        return None if entry is None else entry.record

    def cursor(self, device_id: DeviceId) -> int:
        """Gives the number of an agent's last event that was taken. 0: none."""
        return self._cursors.get(device_id, 0)

    def live(self, device_id: DeviceId | None = None) -> tuple[SessionRecord, ...]:
        """Gives the sessions that have not ended, of one device or of all, as the engine has them."""
        return tuple(entry.record for entry in self._book.live(device_id))

    def expected_on(self, device_id: DeviceId) -> dict[SessionId, int]:
        """Gives the attempts that a device's agent must know: launched and acknowledged, and not ended."""
        return {
            entry.record.id: entry.record.attempt
            for entry in self._book.live(device_id)
            if entry.record.running_time is not None or entry.known_attempt == entry.record.attempt
        }

    def note_measured(self, device_id: DeviceId, utilization: Utilization) -> None:
        """Has the policy hear how busy a device was lately."""
        self._placer.measured(device_id, utilization)

    def hurry(self, device_id: DeviceId) -> None:
        """Carries out at once what waited for a device's agent, which answers, and tells it its sessions' speeds."""
        self._commands.nudge(device_id)
        for record in self.live(device_id):
            # Also those that may run freely: an agent may hold one still that it held before we restarted.
            if not record.workload.real_time and record.state is not SessionState.STOPPING:
                self._commands.run(PaceOnAgent(session_id=record.id, device_id=device_id, attempt=record.attempt))

    def stop_stray(self, session_id: SessionId, device_id: DeviceId, attempt: int) -> None:
        """Ends an attempt that an agent has but should not."""
        _log.warning("stopping a stray attempt", session=session_id, attempt=attempt, device=device_id)
        record = self.current(session_id)
        stray = StopOnAgent(session_id=session_id, device_id=device_id, attempt=attempt)
        self._commands.run(stray if record is None else stale_stop(record, device_id, attempt))

    def lose(self, device_id: DeviceId, silence: timedelta) -> None:
        """Has sessions go on elsewhere whose agent is not waited for any more; see `Relocation`."""
        self._relocation.lose(device_id, silence)

    # ---------------------------------------------------------------------------------------------------- inner

    def _restore(self, record: SessionRecord) -> None:
        entry = Entry(record)
        if not record.state.final:
            # Of its progress the store knows what it was at the last change of state: its agent tells more, soon.
            entry.record = record = replace(record, revision=record.revision + _RESTART_REVISIONS, progress=None)
            self._writer.submit(Write((PutSession(record=record),), lambda: None, lambda _: None, True))
        self._book.enter(entry)
        self._book.publish(record)
        if not record.state.final:
            self._placer.adopt(record)
            self._pacing.moved(None, record)
        if record.state is SessionState.QUEUED:
            self._queue.enter(record)
        self._admitting.last_create_time = record.create_time

    def _resume(self, record: SessionRecord) -> None:
        if record.device_id is None:
            return
        if record.state is SessionState.STARTING:
            self._commands.run(LaunchOnAgent(session_id=record.id, device_id=record.device_id, attempt=record.attempt))
        elif record.state is SessionState.STOPPING:
            # Told as it was meant, whether it is to end for good or to be queued again.
            self.post(record.id, StopForgotten())

    async def _every_second(self) -> None:
        while True:
            await asyncio.sleep(1)
            self._queue.tick()
            self._pacing.tick()


def _not_begun(before: SessionRecord, failure: Failure) -> bool:
    """Whether an attempt failed before its first frame, in a way for which its device may be to blame."""
    return before.running_time is None and before.moving is None and failure.reason in NOT_BEGUN
