"""An agent that also answers what clients want to know of media, logs and artifacts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta

from balancer.domain.ids import SessionId
from balancer.ports.agent_client import AgentUnreachableError
from fakes.agent_client import FakeAgentClient
from gpu_balancer.runtime.failures import Reason, RequestFailure
from gpu_balancer.v1 import agent_service_pb2, media_pb2, session_pb2

CHUNK_BYTES = 256 * 1024
WRITTEN = datetime(2030, 1, 1, 12, tzinfo=UTC)
FULL_HD = media_pb2.InputFacts(
    width=1920,
    height=1080,
    frame_rate=media_pb2.FrameRate(numerator=25, denominator=1),
    video_codec=media_pb2.VIDEO_CODEC_H264,
    has_audio=True,
    audio_codec="aac",
)


class FakeAgentMedia(FakeAgentClient):
    """Client and agent in one. `probe_gate`, `probe_failure` and `output_failure` make trouble."""

    def __init__(self, device_id: str = "cpu-0") -> None:
        super().__init__(device_id)
        self.facts = FULL_HD
        self.probe_failure: Exception | None = None
        self.probe_gate = asyncio.Event()
        self.probe_gate.set()
        self.output_failure: Exception | None = None
        self.probed: list[media_pb2.Input] = []
        self.checked: list[media_pb2.Output] = []
        self.described: list[session_pb2.Session] = []
        self.log: list[str] = []
        self.follows_for_ever = True
        """Whether the attempt whose log is followed never ends."""
        self.logs_read: list[int] = []
        """Attempts whose log was asked for."""
        self.artifacts: dict[str, bytes] = {}
        self.media_failure: Exception | None = None
        """Why it gives none."""
        self.final = True
        self.cut_after_bytes: int | None = None
        """Falls silent after so many bytes of an artifact."""
        self.sent_bytes = 0
        """Of artifacts, by all readers."""
        self.open_streams = 0
        self.stream_opened = asyncio.Event()
        self.stream_closed = asyncio.Event()
        """Set once a stream was ended, by whomever."""

    async def probe_input(self, source: media_pb2.Input, *, timeout: timedelta) -> media_pb2.InputFacts:
        self._check()
        self.probed.append(source)
        await self.probe_gate.wait()
        if self.probe_failure is not None:
            raise self.probe_failure
        return self.facts

    async def check_outputs(self, outputs: Sequence[media_pb2.Output]) -> None:
        self._check()
        self.checked += outputs
        if self.output_failure is not None:
            raise self.output_failure

    async def describe_command(self, session: session_pb2.Session) -> Sequence[str]:
        self._check()
        self.described.append(session)
        return ["ffmpeg", "-i", session.transcode.input.uri]

    async def read_session_log(
        self, session_id: SessionId, attempt: int, *, tail_lines: int | None, follow: bool
    ) -> AsyncIterator[Sequence[str]]:
        self._check()
        self.logs_read.append(attempt)
        self._opened()
        try:
            yield self.log[len(self.log) - tail_lines :] if tail_lines is not None else self.log
            while follow and self.follows_for_ever:
                await asyncio.Event().wait()
        finally:
            self._closed()

    async def list_artifacts(self, session_id: SessionId) -> Sequence[session_pb2.Artifact]:
        self._check_media()
        return [self._artifact(path) for path in sorted(self.artifacts)]

    async def read_artifact(
        self, name: str, *, offset_bytes: int, limit_bytes: int
    ) -> AsyncIterator[agent_service_pb2.AgentServiceReadArtifactResponse]:
        self._check_media()
        path = name.partition("/artifacts/")[2]
        if path not in self.artifacts:
            raise RequestFailure(
                reason=Reason.ARTIFACT_NOT_FOUND, message=f"Cannot read {path}: the session has no such artifact."
            )
        data = self.artifacts[path]
        if offset_bytes > len(data):
            raise RequestFailure(
                reason=Reason.RANGE_INVALID,
                message="Cannot read behind the end.",
                metadata={"size_bytes": str(len(data))},
            )
        end = min(len(data), offset_bytes + limit_bytes) if limit_bytes else len(data)
        self._opened()
        try:
            yield agent_service_pb2.AgentServiceReadArtifactResponse(artifact=self._artifact(path))
            for start in range(offset_bytes, end, CHUNK_BYTES):
                if self.cut_after_bytes is not None and start - offset_bytes >= self.cut_after_bytes:
                    raise AgentUnreachableError("the agent was killed")
                piece = data[start : min(end, start + CHUNK_BYTES)]
                self.sent_bytes += len(piece)
                yield agent_service_pb2.AgentServiceReadArtifactResponse(data=piece)
                # As over a wire: others get their turn.
                await asyncio.sleep(0)
        finally:
            self._closed()

    def _check_media(self) -> None:
        self._check()
        if self.media_failure is not None:
            raise self.media_failure

    def _opened(self) -> None:
        self.open_streams += 1
        self.stream_opened.set()

    def _closed(self) -> None:
        self.open_streams -= 1
        self.stream_closed.set()

    def _artifact(self, path: str) -> session_pb2.Artifact:
        artifact = session_pb2.Artifact(
            path=path, size_bytes=len(self.artifacts[path]), media_type="video/mp4", final=self.final
        )
        artifact.update_time.FromDatetime(WRITTEN)
        return artifact
