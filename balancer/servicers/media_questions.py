"""Asks agents what the balancer cannot know: what an input is, whether outputs may be written, how a command looks.

Any agent that is awake will do for inputs and outputs, since all agents of a host see the same files and networks. The
balancer itself never opens media.
"""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import TYPE_CHECKING

from balancer.agent_answers import RECORDING_PATHS, TRANSCODE_PATHS, agent_failures, unreachable
from balancer.domain.device import DeviceState
from balancer.ports.agent_client import AgentUnreachableError
from balancer.servicers.input_validation import InputKind, are_complete
from balancer.servicers.session_secrets import redacted_argv
from balancer.servicers.session_specs import RECORDING, input_of, is_recording, outputs_of
from gpu_balancer.runtime.failures import Reason, RequestFailure, Violation
from gpu_balancer.v1 import media_pb2

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Mapping

    from balancer.domain.ids import DeviceId
    from balancer.ports.agent_media import AgentMedia, AgentMediaDirectory
    from balancer.ports.device_news import DeviceViews
    from balancer.servicers.session_validation import SessionDraft
    from gpu_balancer.v1.media_pb2 import InputFacts, Output
    from gpu_balancer.v1.session_pb2 import Session

PROBE_TIMEOUT = timedelta(seconds=5)
_GRACE = timedelta(seconds=1)
"""For the way to the agent and back, after the time in which it gives up itself."""
_RETRY_AFTER = timedelta(seconds=2)
_WATERMARK = f"{RECORDING}.watermark.path"
_AWAKE = (DeviceState.READY, DeviceState.CORDONED, DeviceState.DRAINING)
"""Devices whose agents are asked, the best first."""


class MediaQuestions:
    """Asks whichever agent answers."""

    def __init__(
        self, devices: DeviceViews, agents: AgentMediaDirectory, *, probe_timeout: timedelta = PROBE_TIMEOUT
    ) -> None:
        """Begins without questions.

        Args:
            devices: Tell which agents are awake.
            agents: Ask them.
            probe_timeout: How long an agent may look at an input.
        """
        self._devices = devices
        self._agents = agents
        self._probe_timeout = probe_timeout

    def needs_agent(self, draft: SessionDraft) -> bool:
        """Whether a checked session's media, its upload included, are looked at before it is admitted."""
        session = draft.session
        if any(_reaches_beyond(output) for output in outputs_of(session)):
            return True
        given = input_of(session)
        if given is None:
            return session.recording.HasField("watermark")
        known = draft.input_kind is InputKind.INGEST or are_complete(given.declared_facts)
        return not known or bool(given.upload)

    async def facts_of(self, draft: SessionDraft) -> InputFacts:
        """Finds out what the input of a checked transcode is.

        Returns:
            What its client declared where that is enough, or all there can be; else what an agent saw, completed by
            what was declared.

        Raises:
            RequestFailure: The agent's, with the client's field paths; NO_DEVICE_READY or AGENT_UNREACHABLE.
        """
        source = draft.session.transcode.input
        declared = source.declared_facts
        if draft.input_kind is InputKind.INGEST or are_complete(declared):
            return declared
        seen = await self._ask(
            "look at the input",
            lambda agent: agent.probe_input(source, timeout=self._probe_timeout),
            timeout=self._probe_timeout + _GRACE,
        )
        facts = media_pb2.InputFacts()
        facts.CopyFrom(declared)
        facts.MergeFrom(seen)
        if not seen.HasField("duration"):
            # What has no end for the agent that looked has none, whatever was declared.
            facts.ClearField("duration")
        return facts

    async def check_outputs(self, draft: SessionDraft) -> None:
        """Makes sure that a checked session's outputs may be written. Artifacts always may: nobody is asked then.

        Raises:
            RequestFailure: As for `facts_of`.
        """
        session = draft.session
        outputs = outputs_of(session)
        if any(_reaches_beyond(output) for output in outputs):
            # All of them, so that the agent's field paths are the client's.
            await self._ask(
                "check the outputs",
                lambda agent: agent.check_outputs(outputs),
                timeout=self._probe_timeout + _GRACE,
                paths=RECORDING_PATHS if is_recording(session) else TRANSCODE_PATHS,
            )

    async def check_watermark(self, draft: SessionDraft) -> None:
        """Makes sure that the watermark of a checked recording, if it has one, is a picture that may be read.

        Raises:
            RequestFailure: As for `facts_of`; INPUT_NO_VIDEO when it is no picture.
        """
        if not draft.session.recording.HasField("watermark"):
            return
        picture = media_pb2.Input(uri=draft.session.recording.watermark.path)
        seen = await self._ask(
            "look at the watermark",
            lambda agent: agent.probe_input(picture, timeout=self._probe_timeout),
            timeout=self._probe_timeout + _GRACE,
            paths={"input.uri": _WATERMARK, "input": _WATERMARK},
        )
        if not (seen.width and seen.height):
            raise RequestFailure(
                reason=Reason.INPUT_NO_VIDEO,
                message="Cannot use the watermark: there is no picture in it. Try a PNG or JPEG file.",
                violations=(Violation(field=_WATERMARK, description="must be a picture"),),
            )

    async def command_for(self, device_id: DeviceId, session: Session) -> list[str]:
        """Asks the agent of a device which command would run a session; secrets are hidden.

        Raises:
            RequestFailure: As for `facts_of`.
        """
        agent = self._agents.get(device_id)
        what = f"tell the command of device {device_id}"
        if agent is None:
            raise unreachable(what)
        with agent_failures(what, RECORDING_PATHS if is_recording(session) else TRANSCODE_PATHS):
            async with asyncio.timeout((self._probe_timeout + _GRACE).total_seconds()):
                return redacted_argv(session, iter(await agent.describe_command(session)))

    async def _ask(
        self,
        what: str,
        question: Callable[[AgentMedia], Awaitable[InputFacts | None]],
        *,
        timeout: timedelta,
        paths: Mapping[str, str] = TRANSCODE_PATHS,
    ) -> InputFacts:
        """Asks the first agent that answers, within one time for all of them. A question without answer gives none."""
        silent: AgentUnreachableError | None = None
        with agent_failures(what, paths):
            async with asyncio.timeout(timeout.total_seconds()):
                for agent in self._awake():
                    try:
                        return await question(agent) or media_pb2.InputFacts()
                    except AgentUnreachableError as error:
                        silent = error
        if silent is not None:
            raise unreachable(what, silent)
        raise RequestFailure(
            reason=Reason.NO_DEVICE_READY,
            message=f"Cannot {what}: no device is ready. Try again when one is, or look at `gpu-balancer devices`.",
            retry_after=_RETRY_AFTER,
        )

    def _awake(self) -> Iterator[AgentMedia]:
        views = [view for view in self._devices.views() if view.state in _AWAKE]
        for view in sorted(views, key=lambda view: _AWAKE.index(view.state)):
            agent = self._agents.get(view.id)
            if agent is not None:
                yield agent


def _reaches_beyond(output: Output) -> bool:
    """Whether an output reaches beyond the session's own folder."""
    match output.WhichOneof("kind"):
        case "file":
            return output.file.path.startswith("/")
        case "hls":
            return output.hls.path.startswith("/")
        case _:
            return True
