"""Artifacts by HTTP: a list as JSON, and each file with ranges, streamed straight from the agent that has it.

What the headers say of a file is what its agent says as it opens it: a playlist that is written anew between two looks
must not get the length of the other one.
"""

from __future__ import annotations

from contextlib import aclosing
from dataclasses import dataclass
from datetime import UTC
from email.utils import format_datetime
from pathlib import PurePosixPath
from typing import TYPE_CHECKING
from urllib.parse import quote

import structlog
from google.protobuf.json_format import MessageToDict
from starlette.responses import JSONResponse, Response, StreamingResponse

from balancer.domain.ids import SessionId
from balancer.web.answers import answer_of
from balancer.web.byte_ranges import (
    ByteRange,
    Span,
    entity_tag,
    is_unchanged,
    matches_any,
    parse_range,
    span_of,
)
from gpu_balancer.runtime.failures import Reason, RequestFailure

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from starlette.requests import Request
    from starlette.types import Send

    from balancer.session_files import SessionFiles

_log = structlog.get_logger(__name__)

_MEDIA_TYPES = {
    ".aac": "audio/aac",
    ".json": "application/json",
    ".m3u8": "application/vnd.apple.mpegurl",
    ".m4a": "audio/mp4",
    ".m4s": "video/iso.segment",
    ".m4v": "video/mp4",
    ".mkv": "video/x-matroska",
    ".mp4": "video/mp4",
    ".ts": "video/mp2t",
    ".vtt": "text/vtt; charset=utf-8",
}
"""Everything else is octets: a session names its files itself, and none of them is to be run by a browser."""
_NOT_MODIFIED, _PARTIAL, _WHOLE = 304, 206, 200


@dataclass(frozen=True, slots=True, kw_only=True)
class _Described:
    """An artifact as its agent opened it."""

    size: int
    final: bool
    headers: dict[str, str]

    @property
    def tag(self) -> str:
        """Its validator."""
        return self.headers["ETag"]


class ArtifactPages:
    """Answers for the artifacts of all sessions."""

    def __init__(self, files: SessionFiles) -> None:
        """Makes the pages.

        Args:
            files: Reads from agents.
        """
        self._files = files

    async def listing(self, request: Request) -> Response:
        """Lists a session's artifacts, in the contract's JSON."""
        try:
            artifacts = await self._files.artifacts(SessionId(request.path_params["session"]))
        except RequestFailure as failure:
            return answer_of(failure)
        told = [MessageToDict(artifact) for artifact in artifacts]
        return JSONResponse({"artifacts": told}, headers={"Cache-Control": "no-store"})

    async def file(self, request: Request) -> Response:
        """Gives a file or a range of it; HEAD gives its headers."""
        session_id, path = SessionId(request.path_params["session"]), request.path_params["path"]
        try:
            if request.method == "HEAD":
                return await self._headers(session_id, path, request)
            wanted = parse_range(request.headers.get("range"))
            span = await self._span(session_id, path, wanted, request.headers.get("if-range"))
            return await self._opened(session_id, path, request, span)
        except RequestFailure as failure:
            return answer_of(failure)

    async def _headers(self, session_id: SessionId, path: str, request: Request) -> Response:
        described = await self._describe(session_id, path)
        if _known(request, described):
            return Response(status_code=_NOT_MODIFIED, headers=described.headers)
        return Response(status_code=_WHOLE, headers={**described.headers, "Content-Length": str(described.size)})

    async def _span(
        self, session_id: SessionId, path: str, wanted: ByteRange | None, if_range: str | None
    ) -> Span | None:
        """Finds where to read. None: the whole. The length is at most that; 0 means to the end."""
        if wanted is None:
            return None
        if wanted.first is not None and if_range is None:
            return Span(offset=wanted.first, length=0 if wanted.last is None else wanted.last - wanted.first + 1)
        described = await self._describe(session_id, path)
        if not is_unchanged(if_range, described.tag):
            return None
        span = span_of(wanted, described.size)
        if span is None:
            raise _out_of_range(path, described.size)
        return span

    async def _opened(self, session_id: SessionId, path: str, request: Request, span: Span | None) -> Response:
        offset = span.offset if span else 0
        pieces = self._pieces(session_id, path, offset=offset, limit=span.length if span else 0)
        try:
            described = await anext(pieces)
            assert isinstance(described, _Described)
            if _known(request, described):
                await pieces.aclose()
                return Response(status_code=_NOT_MODIFIED, headers=described.headers)
            length = described.size - offset
            if span is None:
                return _StreamedFile(pieces, path, status=_WHOLE, headers=described.headers, length=length)
            if length <= 0:
                raise _out_of_range(path, described.size)
            length = min(length, span.length or length)
            content_range = f"bytes {offset}-{offset + length - 1}/{described.size}"
            headers = {**described.headers, "Content-Range": content_range}
            return _StreamedFile(pieces, path, status=_PARTIAL, headers=headers, length=length)
        except BaseException:
            await pieces.aclose()
            raise

    async def _describe(self, session_id: SessionId, path: str) -> _Described:
        """Looks at a file without reading it: one byte is the least that can be asked for."""
        async with aclosing(self._pieces(session_id, path, offset=0, limit=1)) as pieces:
            described = await anext(pieces)
        assert isinstance(described, _Described)
        return described

    async def _pieces(
        self, session_id: SessionId, path: str, *, offset: int, limit: int
    ) -> AsyncGenerator[_Described | bytes, None]:
        """Gives first what a file is, then its bytes."""
        stream = self._files.artifact(session_id, path, offset_bytes=offset, limit_bytes=limit)
        async with aclosing(stream) as messages:
            async for message in messages:
                if message.HasField("artifact"):
                    artifact = message.artifact
                    yield _describe(
                        path,
                        size=artifact.size_bytes,
                        modified_ns=artifact.update_time.ToNanoseconds(),
                        final=artifact.final,
                        last_modified=format_datetime(artifact.update_time.ToDatetime(tzinfo=UTC), usegmt=True),
                    )
                if message.data:
                    yield message.data


class _StreamedFile(StreamingResponse):
    """Sends as many bytes as it says, as fast as the client takes them, or ends the connection.

    The agent's stream is closed as soon as the client has gone.
    """

    def __init__(
        self,
        pieces: AsyncGenerator[_Described | bytes, None],
        path: str,
        *,
        status: int,
        headers: dict[str, str],
        length: int,
    ) -> None:
        super().__init__((), status_code=status, headers={**headers, "Content-Length": str(length)})
        self._pieces = pieces
        self._path = path
        self._length = length

    async def stream_response(self, send: Send) -> None:
        """Sends headers and bytes."""
        left = self._length
        async with aclosing(self._pieces) as pieces:
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            try:
                async for data in pieces:
                    assert isinstance(data, bytes)
                    left -= len(data)
                    await send({"type": "http.response.body", "body": data, "more_body": True})
            except RequestFailure as failure:
                # Headers are out. A connection that ends too early is the one way left to tell.
                _log.warning("artifact cut off", path=self._path, reason=failure.reason.name, error=failure.message)
                return
        if left:
            _log.warning("artifact became shorter while it was sent", path=self._path, missing_bytes=left)
            return
        await send({"type": "http.response.body", "body": b"", "more_body": False})


def _describe(path: str, *, size: int, modified_ns: int, final: bool, last_modified: str) -> _Described:
    name = PurePosixPath(path)
    headers = {
        "Accept-Ranges": "bytes",
        "Cache-Control": "private, max-age=3600" if final else "no-cache",
        "Content-Disposition": f"inline; filename*=UTF-8''{quote(name.name, safe='')}",
        "Content-Type": _MEDIA_TYPES.get(name.suffix.lower(), "application/octet-stream"),
        "ETag": entity_tag(size, modified_ns, final=final),
        "Last-Modified": last_modified,
        "X-Content-Type-Options": "nosniff",
    }
    return _Described(size=size, final=final, headers=headers)


def _known(request: Request, described: _Described) -> bool:
    """Whether the client has the very same bytes already."""
    header = request.headers.get("if-none-match")
    return header is not None and matches_any(header, described.tag)


def _out_of_range(path: str, size: int) -> RequestFailure:
    return RequestFailure(
        reason=Reason.RANGE_INVALID,
        message=f"Cannot read that range of {path}: it has {size} bytes.",
        metadata={"size_bytes": str(size)},
    )
