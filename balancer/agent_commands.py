"""Carries out what a session's life demands of an agent: launching, pacing, stopping, however long the agent is away.

Every command is idempotent on the agent and is tried again until the agent answers or the session has moved on. What
an agent answers becomes an event of the session. A stop waits for a launch that is on its way, so that the two never
overtake each other.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

import structlog

from balancer.domain.session import Failure, SessionRecord, SessionState
from balancer.domain.session_events import (
    Command,
    LaunchAccepted,
    LaunchOnAgent,
    LaunchRefused,
    PaceOnAgent,
    SessionEvent,
    StopHeard,
    StopOnAgent,
)
from balancer.ports.agent_client import AgentUnreachableError
from gpu_balancer.runtime.failures import Reason, RequestFailure, StatusCode

if TYPE_CHECKING:
    from fractions import Fraction

    from balancer.domain.ids import DeviceId, SessionId
    from balancer.ports.agent_client import AgentClient
    from balancer.ports.agent_clients import AgentClients
    from gpu_balancer.runtime.task_guard import TaskGuard

_log = structlog.stdlib.get_logger(__name__)
_Command = TypeVar("_Command", bound=Command)


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandTimes:
    """How long an agent may take, and how often it is asked again."""

    launch_timeout: timedelta = timedelta(seconds=15)
    stop_timeout: timedelta = timedelta(seconds=5)
    delete_timeout: timedelta = timedelta(seconds=10)
    busy_timeout: timedelta = timedelta(seconds=30)
    """For an earlier attempt to end on the agent, which is asked to end it as soon as it tells of it."""
    first_pause: timedelta = timedelta(milliseconds=100)
    """After the first try that got no answer; doubled after each further one."""
    longest_pause: timedelta = timedelta(seconds=5)


class CommandDoor(Protocol):
    """What commands know of sessions."""

    def current(self, session_id: SessionId) -> SessionRecord | None:
        """Gives a session as it is now. None: there is none."""
        ...

    def post(self, session_id: SessionId, event: SessionEvent) -> object:
        """Takes what came of a command."""
        ...


@dataclass(slots=True, eq=False)
class _Running(Generic[_Command]):
    """A command that is being carried out."""

    command: _Command
    """As it was given last: of stops of one attempt the last one holds."""
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    nudged: asyncio.Event = field(default_factory=asyncio.Event)
    again: bool = False
    """Whether it was given anew since it was last carried out."""


class AgentCommands:
    """Runs each command once at a time."""

    def __init__(self, door: CommandDoor, agents: AgentClients, tasks: TaskGuard, times: CommandTimes) -> None:
        """Begins without commands."""
        self._door = door
        self._agents = agents
        self._tasks = tasks
        self._times = times
        self._running: dict[Command, _Running[Any]] = {}

    def run(self, command: Command) -> None:
        """Begins a command, unless it is being carried out already: then it is tried again at once.

        A stop that comes while its attempt is told another one takes that one's place, and is the last to be told.
        """
        running = self._running.get(_errand(command))
        if running is not None:
            running.command = command
            running.again = True
            running.nudged.set()
            return
        running = self._running[_errand(command)] = _Running(command)
        match command:
            case LaunchOnAgent():
                self._tasks.spawn(self._launch(command, running), name="launch")
            case StopOnAgent():
                self._tasks.spawn(self._stop(command, running), name="stop")
            case PaceOnAgent():
                self._tasks.spawn(self._pace(command, running), name="pace")

    def nudge(self, device_id: DeviceId) -> None:
        """Tries again at once what waits for a device's agent, which answers."""
        for command, running in self._running.items():
            if command.device_id == device_id:
                running.nudged.set()

    async def launched(self, record: SessionRecord) -> None:
        """Returns once the launch of a session's present attempt is not under way."""
        if record.device_id is not None:
            command = LaunchOnAgent(session_id=record.id, device_id=record.device_id, attempt=record.attempt)
            if (running := self._running.get(command)) is not None:
                await running.ended.wait()

    async def delete(self, record: SessionRecord) -> None:
        """Asks its agents to remove what an ended session left. A device without an agent has nothing to remove.

        Raises:
            RequestFailure: An agent does not answer, or refuses.
        """
        for device_id in dict.fromkeys((*record.earlier_device_ids, record.device_id)):
            agent = self._agents.get(device_id) if device_id else None
            if agent is not None:
                await self._delete_on(agent, device_id, record)

    async def _delete_on(self, agent: AgentClient, device_id: DeviceId | None, record: SessionRecord) -> None:
        try:
            async with asyncio.timeout(self._times.delete_timeout.total_seconds()):
                await agent.delete(record.id)
        except (AgentUnreachableError, TimeoutError) as error:
            raise RequestFailure(
                reason=Reason.AGENT_UNREACHABLE,
                message=f"Cannot delete sessions/{record.id}: the agent of device {device_id}, which has its "
                f"files, does not answer ({error or 'no answer in time'}). Try again when it does.",
            ) from error

    async def _launch(self, command: LaunchOnAgent, running: _Running[LaunchOnAgent]) -> None:
        pause = self._times.first_pause
        patient_until_s: float | None = None
        try:
            while (record := self._awaiting_launch(command)) is not None:
                event = await self._try_launch(command, record, aloud=pause == self._times.first_pause)
                now_s = asyncio.get_running_loop().time()
                if isinstance(event, LaunchRefused) and event.failure.reason == Reason.AGENT_BUSY.name:
                    patient_until_s = patient_until_s or now_s + self._times.busy_timeout.total_seconds()
                    event = event if now_s >= patient_until_s else None
                if event is not None:
                    self._door.post(command.session_id, event)
                    return
                await self._wait(running, pause)
                pause = min(2 * pause, self._times.longest_pause)
        finally:
            self._end(running)

    def _awaiting_launch(self, command: LaunchOnAgent) -> SessionRecord | None:
        record = self._door.current(command.session_id)
        if record is None or record.attempt != command.attempt or record.state is not SessionState.STARTING:
            return None
        return record

    async def _try_launch(self, command: LaunchOnAgent, record: SessionRecord, *, aloud: bool) -> SessionEvent | None:
        """Asks once. Gives None when the agent did not answer; only the first such is logged."""
        agent = self._agents.get(command.device_id)
        if agent is None:
            return None
        try:
            async with asyncio.timeout(self._times.launch_timeout.total_seconds()):
                ingest_url = await agent.launch(record)
        except (AgentUnreachableError, TimeoutError) as error:
            _tell(command, error, aloud=aloud)
            return None
        except RequestFailure as failure:
            if failure.reason.code is StatusCode.UNAVAILABLE:
                _tell(command, failure, aloud=aloud)
                return None
            return LaunchRefused(
                attempt=command.attempt, failure=Failure(reason=failure.reason.name, message=failure.message)
            )
        return LaunchAccepted(attempt=command.attempt, ingest_url=ingest_url)

    async def _stop(self, command: StopOnAgent, running: _Running[StopOnAgent]) -> None:
        pause = self._times.first_pause
        try:
            launch = self._running.get(
                LaunchOnAgent(session_id=command.session_id, device_id=command.device_id, attempt=command.attempt)
            )
            if launch is not None:
                launch.nudged.set()
                await launch.ended.wait()
            while True:
                command, running.again = running.command, False
                # At least once: an attempt may live on after its session ended.
                heard = await self._try_stop(command, aloud=pause == self._times.first_pause)
                if heard is not None:
                    if running.again:
                        # It may have been heard before the attempt ended, which is to be told again then; or it was
                        # another one.
                        continue
                    self._door.post(command.session_id, heard)
                    return
                if self._over(command):
                    return
                await self._wait(running, pause)
                pause = min(2 * pause, self._times.longest_pause)
        finally:
            self._end(running)

    def _over(self, command: StopOnAgent) -> bool:
        """Whether the attempt is known to have ended."""
        record = self._door.current(command.session_id)
        return record is not None and record.attempt == command.attempt and record.state.final

    async def _try_stop(self, command: StopOnAgent, *, aloud: bool) -> StopHeard | None:
        """Asks once. Gives None when the agent did not answer, or refused; only the first such is logged."""
        agent = self._agents.get(command.device_id)
        if agent is None:
            return None
        try:
            async with asyncio.timeout(self._times.stop_timeout.total_seconds()):
                report = await agent.stop(
                    command.session_id,
                    command.attempt,
                    discard_outputs=command.discard_outputs,
                    to_be_continued=command.to_be_continued,
                )
        except (AgentUnreachableError, TimeoutError, RequestFailure) as error:
            _tell(command, error, aloud=aloud)
            return None
        return StopHeard(attempt=command.attempt, report=report)

    async def _pace(self, command: PaceOnAgent, running: _Running[PaceOnAgent]) -> None:
        """Tells the speed that the session has by then, until it was told or the attempt is none of the agent's."""
        pause = self._times.first_pause
        try:
            while (record := self._paced(command)) is not None:
                running.nudged.clear()
                told = record.speed_limit
                if await self._try_pace(command, told, aloud=pause == self._times.first_pause):
                    now = self._paced(command)
                    if now is None or now.speed_limit == told:
                        return
                    continue
                await self._wait(running, pause)
                pause = min(2 * pause, self._times.longest_pause)
        finally:
            self._end(running)

    def _paced(self, command: PaceOnAgent) -> SessionRecord | None:
        record = self._door.current(command.session_id)
        if record is None or record.attempt != command.attempt or record.state.final:
            return None
        return record if record.device_id == command.device_id else None

    async def _try_pace(self, command: PaceOnAgent, speed_limit: Fraction | None, *, aloud: bool) -> bool:
        agent = self._agents.get(command.device_id)
        if agent is None:
            return False
        try:
            async with asyncio.timeout(self._times.stop_timeout.total_seconds()):
                await agent.pace(command.session_id, command.attempt, speed_limit)
        except (AgentUnreachableError, TimeoutError, RequestFailure) as error:
            _tell(command, error, aloud=aloud)
            return False
        return True

    async def _wait(self, running: _Running[Any], pause: timedelta) -> None:
        running.nudged.clear()
        try:
            async with asyncio.timeout(pause.total_seconds()):
                await running.nudged.wait()
        except TimeoutError:
            pass

    def _end(self, running: _Running[Any]) -> None:
        del self._running[_errand(running.command)]
        running.ended.set()


def _errand(command: Command) -> Command:
    """Gives what a command has in common with others that are not carried out beside it."""
    if isinstance(command, StopOnAgent):
        return replace(command, discard_outputs=False, to_be_continued=False)
    return command


def _tell(command: Command, error: Exception, *, aloud: bool) -> None:
    _log.log(
        logging.WARNING if aloud else logging.DEBUG,
        "the agent gave no answer, trying again",
        command=type(command).__name__.removesuffix("OnAgent").lower(),
        session=command.session_id,
        attempt=command.attempt,
        device=command.device_id,
        problem=str(error) or type(error).__name__,
    )
