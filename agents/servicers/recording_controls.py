"""What the balancer asks of recordings: to launch, describe, pause, resume, extend and picture them."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from agents.deliveries.status import DeliveriesPending
from agents.recordings.launcher import RecordingOrder
from agents.recordings.runner import RecordingRunner
from agents.servicers.recording_translation import recording_from_plan
from agents.servicers.request_fields import earlier_attempts, session_id
from agents.sessions.attempt import AttemptKey
from gpu_balancer.runtime.failures import Reason, RequestFailure
from gpu_balancer.v1.session_pb2 import PRIORITY_BATCH

if TYPE_CHECKING:
    from collections.abc import Collection
    from datetime import timedelta

    from agents.pipelines.command import Command
    from agents.recordings.assembly import Recordings
    from agents.servicers.media_guards import MediaGuards
    from agents.sessions.disk_watch import DiskWatch
    from agents.sessions.registry import SessionRegistry
    from agents.sessions.running import Launched
    from gpu_balancer.v1 import agent_service_pb2 as pb


class RecordingControls:
    """Answers about recordings for the servicer."""

    def __init__(self, recordings: Recordings, registry: SessionRegistry, guards: MediaGuards, disk: DiskWatch) -> None:
        """Makes the controls.

        Args:
            recordings: Displays, browsers and directors.
            registry: The agent's sessions.
            guards: What may be recorded, read and written.
            disk: Tells whether there is room for one.
        """
        self._disk = disk
        self._recordings = recordings
        self._registry = registry
        self._guards = guards

    async def launch(self, plan: pb.LaunchPlan) -> None:
        """Launches a recording, once.

        Raises:
            RequestFailure: When it may not, or cannot, be made.
        """
        order = _order(plan)
        key = AttemptKey(session=order.job.session, attempt=order.job.attempt)

        async def start(_: Collection[int]) -> Launched:
            self._recordings.require_able(order.job)
            job = await self._guards.guard_recording(order.job)
            await self._guards.check_outputs(job.outputs, continued=job.continues or job.attempt > 1)
            await self._disk.require_room(key, leaves_files=True)
            return await self._recordings.launcher.launch(key, replace(order, job=job))

        await self._registry.launch(key, start)

    def describe(self, plan: pb.LaunchPlan) -> Command:
        """Builds the command of the first take, without launching.

        Raises:
            RequestFailure: When the device cannot do it.
        """
        return self._recordings.launcher.describe(_order(plan))

    async def pause(self, attempt: pb.AttemptId) -> None:
        """Lets a recording rest.

        Raises:
            RequestFailure: SESSION_NOT_FOUND, SESSION_NOT_RECORDING.
        """
        await self._runner(attempt).pause()

    async def resume(self, attempt: pb.AttemptId) -> None:
        """Goes on recording.

        Raises:
            RequestFailure: As for `pause`.
        """
        await self._runner(attempt).resume()

    async def extend(self, attempt: pb.AttemptId, max_duration: timedelta | None) -> None:
        """Gives a recording another bound of time. None: none.

        Raises:
            RequestFailure: As for `pause`.
        """
        await self._runner(attempt).extend(max_duration)

    async def snapshot(self, attempt: pb.AttemptId, width: int | None) -> bytes:
        """Takes a picture of a recording's display, as PNG.

        Raises:
            RequestFailure: As for `pause`.
        """
        return await self._runner(attempt).snapshot(width)

    async def let_go(self, session: str) -> None:
        """Makes sure that no copy needs a session's folder any more.

        Raises:
            RequestFailure: DELIVERY_PENDING.
        """
        try:
            await self._recordings.deliveries.release(session)
        except DeliveriesPending as error:
            raise RequestFailure(reason=Reason.DELIVERY_PENDING, message=str(error)) from error

    def _runner(self, attempt: pb.AttemptId) -> RecordingRunner:
        key = AttemptKey(session=session_id(attempt.session, path="id.session"), attempt=max(attempt.attempt, 1))
        runner = self._registry.runner(key)
        if isinstance(runner, RecordingRunner):
            return runner
        self._registry.attempt(key.session, key.attempt)
        why = "it has ended" if runner is None else "it is a transcode"
        raise RequestFailure(
            reason=Reason.SESSION_NOT_RECORDING,
            message=f"Cannot do this with sessions/{key.session}: {why}. Try it with a recording that runs.",
        )


def _order(plan: pb.LaunchPlan) -> RecordingOrder:
    return RecordingOrder(
        job=recording_from_plan(plan),
        plan=plan.SerializeToString(),
        max_duration=plan.max_duration.ToTimedelta() if plan.HasField("max_duration") else None,
        traceparent=plan.traceparent,
        urgent=plan.priority != PRIORITY_BATCH,
        continues=earlier_attempts(plan),
        may_continue=plan.may_continue,
    )
