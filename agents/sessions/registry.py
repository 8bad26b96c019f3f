"""The attempts of this agent: the one door for launching, stopping and deleting them.

A launch is known by (session, attempt). Who asks again, at the same time or later, before or after a restart of the
agent, gets the answer of the first launch and starts nothing. The attempt number is a fence: an older attempt than the
newest one known, or one beside a live one, is refused.
"""

from __future__ import annotations

import asyncio
import logging
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, TypeVar

from agents.sessions.attempt import AttemptKey, AttemptStatus, Ending, Phase, StopCause
from agents.sessions.disk_watch import LiveSession
from agents.sessions.late_playlists import LatePlaylists
from agents.sessions.launching import named_folder
from agents.sessions.processes import end_processes
from agents.sessions.records import LaunchRecord, dump_status
from agents.sessions.session_trace import SessionTrace
from agents.sessions.settling import Settling, remove_outside
from agents.sessions.status_book import Attempt, StatusBook
from agents.sessions.takeover import Takeover
from agents.sessions.watches import KILLED_WITHIN, Watches, logging_of
from gpu_balancer.runtime.failures import Reason, RequestFailure, Violation, invalid

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Coroutine, Iterator

    from opentelemetry.trace import Tracer

    from agents.sessions.fence import Fences
    from agents.sessions.folder import AttemptFolder, SessionFolders
    from agents.sessions.records import AnyRecord
    from agents.sessions.running import Launched, Runner, RunnerMaker
    from gpu_balancer.runtime.clock import Clock
    from gpu_balancer.runtime.task_guard import TaskGuard

_LOG = logging.getLogger(__name__)

_ADOPTED_WITHIN = timedelta(seconds=2)
_NEVER = datetime.min.replace(tzinfo=UTC)

Result = TypeVar("Result")


class SessionRegistry:
    """What this agent has launched, found or heard of."""

    def __init__(
        self,
        folders: SessionFolders,
        book: StatusBook,
        *,
        fences: Fences,
        make_runner: RunnerMaker,
        tasks: TaskGuard,
        tracer: Tracer,
        clock: Clock,
        on_ended: Callable[[], None] = lambda: None,
    ) -> None:
        """Makes an empty registry; `adopt` fills it.

        Args:
            folders: Where attempts live.
            book: Where their statuses are kept and told.
            fences: Of this host.
            make_runner: Makes who watches over one.
            tasks: Owns the watchers.
            tracer: Makes spans.
            clock: For deadlines and times.
            on_ended: Called when a watched attempt has ended.
        """
        self._folders = folders
        self._book = book
        self._fences = fences
        self._make_runner = make_runner
        self._watches = Watches(make_runner, book, tasks=tasks, clock=clock, on_ended=on_ended)
        self._tasks = tasks
        self._tracer = tracer
        self._clock = clock
        self._attempts: dict[AttemptKey, Attempt] = {}
        self._launches: dict[AttemptKey, AnyRecord] = {}
        self._flights: dict[AttemptKey, asyncio.Future[str | None]] = {}
        self._deletions: dict[str, asyncio.Future[None]] = {}
        self._settling = Settling()
        self.late_playlists = LatePlaylists(self._ended, fences=fences, book=book)
        """Those of ended attempts that still get their ends."""
        self._closed = False
        self._takeover = Takeover(folders, book, door=self, tasks=tasks, clock=clock)

    @property
    def live_count(self) -> int:
        """How many attempts have not ended, launches on their way and folders not read yet included."""
        live = sum(attempt.status.live for attempt in self._attempts.values())
        return live + len(self._flights) + len(self._takeover.unread)

    async def adopt(self, *, within: timedelta = _ADOPTED_WITHIN) -> None:
        """Takes over every attempt whose folder is found, live or ended while no agent was there; see `Takeover`.

        Args:
            within: How long to wait for a disk that gives nothing.
        """
        await asyncio.to_thread(self._fences.clear)
        await self._takeover.run(within)

    def enter(self, attempt: Attempt, record: AnyRecord | None) -> None:
        """Takes in an attempt that was found; for `Takeover` alone."""
        self._attempts[attempt.key] = attempt
        if record is not None:
            self._launches[attempt.key] = record

    def watch(self, attempt: Attempt, record: AnyRecord) -> Runner:
        """Has an attempt watched that was found; for `Takeover` alone."""
        trace = SessionTrace(self._tracer, record.traceparent, attempt.key)
        return self._watches.begin(attempt, record, trace, None)

    def close(self) -> None:
        """Refuses launches from now on."""
        self._closed = True

    async def launch(self, key: AttemptKey, start: Callable[[Collection[int]], Awaitable[Launched]]) -> str | None:
        """Starts an attempt, once. Goes on to its end when the caller is cancelled.

        Args:
            key: Which attempt.
            start: Starts it, given the ingest ports of live attempts; awaited by the first launch only.

        Returns:
            Where to publish, for an ingest.

        Raises:
            RequestFailure: When it cannot be started; then nothing of it is left.
        """
        await self._takeover.read(key.session)
        flight = self._flights.get(key)
        if flight is None:
            if (known := self._attempts.get(key)) is not None:
                return known.status.ingest_url
            self._refuse_if_fenced(key)
            flight = self._flights[key] = self._started(self._launch(key, start), key, name=f"launch {key}")
            flight.add_done_callback(lambda _: self._flights.pop(key))
        return await asyncio.shield(flight)

    async def stop(self, key: AttemptKey, *, discard_outputs: bool = False, to_be_continued: bool = False) -> None:
        """Asks an attempt to complete its outputs and end; durable before it returns. May be repeated.

        An attempt that never came here is written down as ended, so that it is told so, and cannot come later.

        Args:
            key: Which attempt.
            discard_outputs: Throws away what it made, unless it has completed by itself. Asking again without takes
                that back, while it runs.
            to_be_continued: Leaves its outputs open, for another attempt that goes on with them. Asking again without
                settles them before it returns.

        Raises:
            RequestFailure: When the session's name cannot be one.
        """
        named_folder(self._folders, key)
        stopping = self._stop(key, discard_outputs, to_be_continued)
        await asyncio.shield(self._started(stopping, key, name=f"stop {key}"))

    async def pace(self, key: AttemptKey, speed_limit: float | None) -> None:
        """Holds an attempt at a speed, or lets it go. One that has ended, or is not known, is left alone.

        Args:
            key: Which attempt.
            speed_limit: In times real time, above 0. None: as fast as it goes.

        Raises:
            RequestFailure: When the session's name cannot be one.
        """
        named_folder(self._folders, key)
        if (flight := self._flights.get(key)) is not None:
            await asyncio.wait([flight])
        self._watches.pace(key, speed_limit)

    def runner(self, key: AttemptKey) -> Runner | None:
        """Gives who watches over an attempt. None: it has ended, or is not known."""
        return self._watches.runner(key)

    def is_live(self, key: AttemptKey) -> bool:
        """Tells whether an attempt is known and has not ended; launches and folders not read yet count as such."""
        return self._is_live(key) or key in self._takeover.unread

    def live_sessions(self) -> tuple[LiveSession, ...]:
        """Lists the attempts that somebody watches over."""
        found = ((key, runner, self._attempts[key].status) for key, runner in self._watches.runners())
        return tuple(
            _live_session(key, runner, status, self._launches[key])
            for key, runner, status in found
            if status.live and key in self._launches
        )

    def live_folders(self) -> tuple[AttemptFolder, ...]:
        """Lists the folders of attempts that have not ended."""
        return tuple(attempt.folder for attempt in self._attempts.values() if attempt.status.live)

    async def _stop(self, key: AttemptKey, discard_outputs: bool, to_be_continued: bool) -> None:
        await self._takeover.read(key.session)
        if (flight := self._flights.get(key)) is not None:
            await asyncio.wait([flight])
        if (runner := self.runner(key)) is not None:
            await runner.stop(StopCause.ASKED, discard_outputs=discard_outputs, to_be_continued=to_be_continued)
            if self._is_live(key):
                return
            await self._watches.put_away(key)
        if (record := self._launches.get(key)) is not None:
            status = self._attempts[key].status
            left_open = status.to_be_continued or (status.ending is Ending.FAILED and record.may_continue)
            if left_open and not to_be_continued:
                runner = self._make_runner(self._attempts[key], record, SessionTrace(self._tracer, "", key))
                await self._settling.settle(key, runner)
        elif key not in self._attempts:
            await self._enter_tombstone(key)

    async def delete(self, session: str) -> None:
        """Removes everything of a session that has ended. May be repeated; who asks meanwhile gets the same answer.

        Raises:
            RequestFailure: SESSION_NOT_ENDED while an attempt of it lives.
        """
        first = AttemptKey(session=session, attempt=1)
        named_folder(self._folders, first)
        deletion = self._deletions.get(session)
        if deletion is None:
            deletion = self._started(self._delete(session), first, name=f"delete sessions/{session}")
            self._deletions[session] = deletion
            deletion.add_done_callback(lambda _: self._deletions.pop(session))
        await asyncio.shield(deletion)

    async def _delete(self, session: str) -> None:
        await self._takeover.read(session)
        keys = tuple(key for key in self._attempts if key.session == session)
        live = [key for key in (*keys, *self._flights) if key.session == session and self._is_live(key)]
        if live:
            raise RequestFailure(
                reason=Reason.SESSION_NOT_ENDED,
                message=f"Cannot delete sessions/{session}: {live[0]} has not ended. Try to stop it first.",
            )
        for key in keys:
            # Who has told its end may still be putting its things away, behind the fence that is to be removed.
            await self._watches.put_away(key)
        await self._end_remains(session)
        await self.late_playlists.last_look(session)
        for key in keys:
            del self._attempts[key]
            if (record := self._launches.pop(key, None)) is not None:
                await asyncio.to_thread(remove_outside, record, session)
        await self._book.forget(keys)
        await asyncio.to_thread(self._folders.remove, session)
        await asyncio.to_thread(self._fences.remove, session)

    def attempt(self, session: str, number: int | None = None) -> Attempt:
        """Finds an attempt.

        Args:
            session: The session's id.
            number: Which attempt. None: the newest that was launched here.

        Raises:
            RequestFailure: SESSION_NOT_FOUND.
        """
        if number is None:
            launched = [key for key in self._launches if key.session == session]
            number = max((key.attempt for key in launched), default=0)
        found = self._attempts.get(AttemptKey(session=session, attempt=number))
        if found is None:
            raise RequestFailure(
                reason=Reason.SESSION_NOT_FOUND, message=f"Cannot find sessions/{session}: this agent does not have it."
            )
        return found

    def secrets(self, key: AttemptKey) -> tuple[str, ...] | None:
        """Tells what must not be shown of an attempt's log. None: that is not known, so nothing may be shown."""
        record = self._launches.get(key)
        return None if record is None else record.secrets

    def _started(self, work: Coroutine[Any, Any, Result], key: AttemptKey, *, name: str) -> asyncio.Future[Result]:
        """Does work to its end, whoever stops awaiting it, and hands its outcome over: a refusal is no fault."""
        outcome: asyncio.Future[Result] = asyncio.get_running_loop().create_future()

        async def hand_over() -> None:
            with logging_of(key):
                try:
                    result = await work
                except asyncio.CancelledError:
                    outcome.cancel()
                    raise
                except Exception as error:  # noqa: BLE001 - raised again where it is awaited, at the RPC boundary
                    outcome.set_exception(error)
                else:
                    outcome.set_result(result)

        # An outcome that nobody awaits any more is no fault either.
        outcome.add_done_callback(lambda done: done.cancelled() or done.exception())
        self._tasks.spawn(hand_over(), name=name)
        return outcome

    async def _launch(self, key: AttemptKey, start: Callable[[Collection[int]], Awaitable[Launched]]) -> str | None:
        launched = await start(self._used_ports())
        # From here on it runs: nothing may fail, or wait, before it is known and watched.
        self._attempts[key] = launched.attempt
        self._launches[key] = launched.record
        self._watches.begin(launched.attempt, launched.record, launched.trace, launched.shim)
        self._watches.pace(key, launched.speed_limit)
        await self._book.publish(launched.attempt)
        _LOG.info("Launched")
        return launched.attempt.status.ingest_url

    def _used_ports(self) -> set[int]:
        live = [record for key, record in self._launches.items() if self._is_live(key)]
        return {
            record.ingest_port for record in live if isinstance(record, LaunchRecord) and record.ingest_port is not None
        }

    async def _end_remains(self, session: str) -> None:
        """Ends what still runs in folders that could not be adopted.

        Raises:
            RequestFailure: SESSION_NOT_ENDED when something of it cannot be ended.
        """
        for folder in await asyncio.to_thread(self._folders.of_session, session):
            if not await end_processes(folder, within=KILLED_WITHIN, clock=self._clock):
                raise RequestFailure(
                    reason=Reason.SESSION_NOT_ENDED,
                    message=f"Cannot delete sessions/{session}: a process of {folder.key} cannot be ended. Try again.",
                )

    async def _enter_tombstone(self, key: AttemptKey) -> None:
        now = self._clock.now()
        status = AttemptStatus(key=key, phase=Phase.ENDED, ending=Ending.STOPPED, end_time=now)
        attempt = Attempt(named_folder(self._folders, key), status)
        self._attempts[key] = attempt
        if not await end_processes(attempt.folder, within=KILLED_WITHIN, clock=self._clock):
            _LOG.error("Cannot end what runs of %s", key)
        try:
            await asyncio.to_thread(attempt.folder.create, {"status.json": dump_status(status)})
        except OSError as error:
            _LOG.error("Cannot write down that %s never came: %s", key, error.strerror)
        await self._book.publish(attempt)

    def _refuse_if_fenced(self, key: AttemptKey) -> None:
        if self._closed:
            raise RequestFailure(
                reason=Reason.SHUTTING_DOWN, message=f"Cannot launch {key}: this agent is ending. Try again."
            )
        known = [other for other in (*self._attempts, *self._flights) if other.session == key.session]
        newest = max((other.attempt for other in known), default=0)
        if key.attempt < newest:
            description = f"attempt {key.attempt} is older than attempt {newest}, which this agent has seen."
            raise invalid(Violation(field="plan.id.attempt", description=description))
        live = [other for other in known if self._is_live(other)]
        if live:
            raise RequestFailure(
                reason=Reason.AGENT_BUSY,
                message=f"Cannot launch {key}: {live[0]} has not ended here. Try again when it has.",
            )

    def _ended(self) -> Iterator[tuple[Attempt, AnyRecord]]:
        for key, record in self._launches.items():
            if not self._is_live(key):
                yield self._attempts[key], record

    def _is_live(self, key: AttemptKey) -> bool:
        return key in self._flights or (key in self._attempts and self._attempts[key].status.live)


def _live_session(key: AttemptKey, runner: Runner, status: AttemptStatus, record: AnyRecord) -> LiveSession:
    return LiveSession(
        key=key,
        runner=runner,
        urgent=record.urgent,
        begin_time=status.launch_time or _NEVER,
        leaves_files=record.leaves_artifacts if isinstance(record, LaunchRecord) else True,
        stopping=status.stop_cause is not None,
    )
