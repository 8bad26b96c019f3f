"""An agent that lives in the test: it takes launches and stops, numbers its events and can fall silent."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from fractions import Fraction

from balancer.domain.calibration import Calibration, CalibrationProgress
from balancer.domain.device import DeviceIdentity, DeviceKind, DeviceView, RecordingAbility, SoundTiming
from balancer.domain.ids import DeviceId, SessionId
from balancer.domain.session import Failure, Progress, SessionRecord
from balancer.domain.session_events import AttemptOutcome, AttemptPhase, AttemptReported
from balancer.ports.agent_client import (
    AgentEvent,
    AgentReport,
    AgentUnreachableError,
    AttemptEvent,
    CaughtUp,
    Measurements,
)
from balancer.ports.agent_recordings import Snapshot

SNAPSHOT = Snapshot(image=b"\x89PNG", snapshot_time=datetime(2030, 1, 1, 12, tzinfo=UTC))
RECORDS = RecordingAbility(
    available=True, display_count=100, browser="Chromium 1", largest_width=3840, largest_height=2160
)


class FakeAgentClient:
    """Client and agent in one. `reachable`, `launch_failure`, `silent` and the gates make trouble."""

    def __init__(self, device_id: str = "cpu-0") -> None:
        self.device_id = DeviceId(device_id)
        self.view: DeviceView | None = None
        """What it tells of its device. None: nothing that could be placed on."""
        self.reachable = True
        self.silent = False
        """Accepts the stream but tells nothing, not even measurements."""
        self.launch_failure: Exception | None = None
        self.launch_gate = asyncio.Event()
        self.launch_gate.set()
        self.ingest_url: str | None = None
        self.launch_asked = asyncio.Event()
        self.launches: list[tuple[SessionId, int]] = []
        """Every call, repeated ones too."""
        self.launched_records: list[SessionRecord] = []
        """What each of them was asked with."""
        self.stops: list[tuple[SessionId, int]] = []
        self.discarded: list[tuple[SessionId, int]] = []
        """Stops that threw outputs away."""
        self.stop_gate = asyncio.Event()
        self.stop_gate.set()
        self.keeps_stopping = False
        """Takes stops, but its attempts end only when the test says so."""
        self.paces: list[tuple[SessionId, int, Fraction | None]] = []
        self.calibration: Calibration | Exception = AgentUnreachableError("it was not told what it measures")
        self.sound_timing: SoundTiming | Exception = AgentUnreachableError("it was not told how its sound is")
        self.knows_sound = True
        """Otherwise it is of an earlier version, and measures the device instead."""
        self.calibrating = False
        self.calibration_gate = asyncio.Event()
        self.calibration_gate.set()
        self.deleted: list[SessionId] = []
        self.delete_failure: Exception | None = None
        self.undelivered: dict[SessionId, Exception] = {}
        """Why sessions are not to be deleted yet."""
        self.recording: RecordingAbility | None = RECORDS
        self.ready_display_count = 1
        self.controls: list[tuple[str, SessionId, int]] = []
        """What was done to recordings."""
        self.durations: dict[SessionId, timedelta | None] = {}
        self.control_failure: Exception | None = None
        self.attempts: dict[SessionId, AttemptReported] = {}
        self.kept: list[AgentEvent] = []
        self.last_number = 0
        self._streams: set[asyncio.Queue[AgentEvent | AgentUnreachableError]] = set()

    @property
    def live(self) -> dict[SessionId, int]:
        """Attempts that have not ended."""
        return {
            session_id: report.attempt
            for session_id, report in self.attempts.items()
            if report.phase is not AttemptPhase.ENDED
        }

    @property
    def watched(self) -> bool:
        """Whether somebody is connected to the stream of events."""
        return bool(self._streams)

    def report(self) -> AgentReport:
        return AgentReport(
            incarnation="one",
            version="0",
            process_id=1,
            identity=self.view.identity
            if self.view is not None
            else DeviceIdentity(id=self.device_id, kind=DeviceKind.CPU, model="a test"),
            ffmpeg_builds=(),
            capabilities=self.view.capabilities if self.view is not None else (),
            probed=True,
            fault_message="",
            last_event_number=self.last_number,
            recording=self.recording,
            ready_display_count=self.ready_display_count,
        )

    async def describe(self) -> AgentReport:
        self._check()
        return self.report()

    async def launch(self, record: SessionRecord) -> str | None:
        self._check()
        self.launches.append((record.id, record.attempt))
        self.launched_records.append(record)
        self.launch_asked.set()
        await self.launch_gate.wait()
        self._check()
        if self.launch_failure is not None:
            raise self.launch_failure
        known = self.attempts.get(record.id)
        if known is None or known.attempt < record.attempt:
            self.tell(record.id, AttemptReported(attempt=record.attempt, phase=AttemptPhase.STARTING))
        return self.ingest_url

    async def stop(
        self, session_id: SessionId, attempt: int, *, discard_outputs: bool = False, to_be_continued: bool = False
    ) -> AttemptReported | None:
        self._check()
        self.stops.append((session_id, attempt))
        await self.stop_gate.wait()
        if discard_outputs:
            self.discarded.append((session_id, attempt))
        if self.keeps_stopping:
            return None
        known = self.attempts.get(session_id)
        if known is None or (known.attempt == attempt and known.phase is not AttemptPhase.ENDED):
            self.end(session_id, attempt, AttemptOutcome.STOPPED)
        return self.attempts.get(session_id)

    async def pace(self, session_id: SessionId, attempt: int, speed_limit: Fraction | None) -> None:
        self._check()
        self.paces.append((session_id, attempt, speed_limit))

    async def delete(self, session_id: SessionId) -> None:
        self._check()
        if self.delete_failure is not None:
            raise self.delete_failure
        if session_id in self.undelivered:
            raise self.undelivered[session_id]
        self.deleted.append(session_id)
        self.attempts.pop(session_id, None)

    async def pause(self, session_id: SessionId, attempt: int) -> None:
        self._control("pause", session_id, attempt)

    async def resume(self, session_id: SessionId, attempt: int) -> None:
        self._control("resume", session_id, attempt)

    async def extend(self, session_id: SessionId, attempt: int, max_duration: timedelta | None) -> None:
        self._control("extend", session_id, attempt)
        self.durations[session_id] = max_duration

    async def snapshot(self, session_id: SessionId, attempt: int, *, width: int | None) -> Snapshot:
        self._control(f"snapshot {width}", session_id, attempt)
        return SNAPSHOT

    async def events(self, after: int) -> AsyncGenerator[AgentEvent, None]:
        self._check()
        queue: asyncio.Queue[AgentEvent | AgentUnreachableError] = asyncio.Queue()
        if not self.silent:
            for event in self.kept:
                if event.number > after:
                    queue.put_nowait(event)
            queue.put_nowait(AgentEvent(number=0, body=CaughtUp(live_attempts=self.live)))
        self._streams.add(queue)
        try:
            while True:
                event = await queue.get()
                if isinstance(event, AgentUnreachableError):
                    raise event
                yield event
        finally:
            self._streams.discard(queue)

    async def probe(self, *, by_operator: bool = False) -> AgentReport:
        self._check()
        return self.report()

    async def calibrate(
        self, *, sound: bool = False
    ) -> AsyncGenerator[CalibrationProgress | Calibration | SoundTiming, None]:
        self._check()
        of_sound = sound and self.knows_sound
        self.calibrating = True
        try:
            doing = "recording a film" if of_sound else "decoding H.264"
            yield CalibrationProgress(step=0, step_count=1, message=doing)
            await self.calibration_gate.wait()
            self._check()
            result = self.sound_timing if of_sound else self.calibration
            if isinstance(result, Exception):
                raise result
            yield result
        finally:
            self.calibrating = False

    async def shutdown(self) -> None:
        self._check()

    async def close(self) -> None:
        self.cut()

    def tell(self, session_id: SessionId, report: AttemptReported) -> None:
        """Keeps and sends a numbered event."""
        self.last_number += 1
        self.attempts[session_id] = report
        event = AgentEvent(number=self.last_number, body=AttemptEvent(session_id=session_id, report=report))
        # As the real one: of each attempt only its present status is kept.
        self.kept = [one for one in self.kept if not _same_attempt(one, session_id, report.attempt)]
        self.kept.append(event)
        self._send(event)

    def run(self, session_id: SessionId, attempt: int = 1) -> None:
        self.tell(session_id, AttemptReported(attempt=attempt, phase=AttemptPhase.RUNNING))

    def end(self, session_id: SessionId, attempt: int = 1, outcome: AttemptOutcome = AttemptOutcome.COMPLETED) -> None:
        self.tell(session_id, AttemptReported(attempt=attempt, phase=AttemptPhase.ENDED, outcome=outcome))

    def fail(self, session_id: SessionId, attempt: int, failure: Failure) -> None:
        report = AttemptReported(
            attempt=attempt, phase=AttemptPhase.ENDED, outcome=AttemptOutcome.FAILED, failure=failure
        )
        self.tell(session_id, report)

    def progress(self, session_id: SessionId, frames: int) -> None:
        """Sends progress, which is not kept."""
        report = replace(self.attempts[session_id], progress=Progress(frames=frames))
        self._send(AgentEvent(number=0, body=AttemptEvent(session_id=session_id, report=report)))

    def measure(self, percent: int = 50) -> None:
        """Sends measurements."""
        self._send(AgentEvent(number=0, body=Measurements(encoder_utilization_percent=percent)))

    def cut(self) -> None:
        """Breaks every stream."""
        for queue in self._streams:
            queue.put_nowait(AgentUnreachableError("the stream was cut"))

    def lose_everything(self) -> None:
        """Begins anew, as an agent whose state folder is gone."""
        self.attempts.clear()
        self.kept.clear()
        self.last_number = 0

    def _send(self, event: AgentEvent) -> None:
        if not self.silent:
            for queue in self._streams:
                queue.put_nowait(event)

    def _control(self, what: str, session_id: SessionId, attempt: int) -> None:
        self._check()
        if self.control_failure is not None:
            raise self.control_failure
        self.controls.append((what, session_id, attempt))

    def _check(self) -> None:
        if not self.reachable:
            raise AgentUnreachableError("nobody answers")


def _same_attempt(event: AgentEvent, session_id: SessionId, attempt: int) -> bool:
    body = event.body
    return isinstance(body, AttemptEvent) and body.session_id == session_id and body.report.attempt == attempt
