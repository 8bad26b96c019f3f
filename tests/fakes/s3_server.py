"""An S3-compatible store on loopback for tests: honest about what it keeps, and as faulty as it is told to be.

It keeps what Amazon's does of what a client may rely on: signatures (version 4) and payload digests are verified,
parts of a multipart upload are at least 5 MiB except the last, an ETag is the MD5 of the bytes or of the parts' MD5s,
an object appears whole at once. `python -m moto.server` was asked the same questions once and gave the same answers.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import re
import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum, auto
from types import TracebackType
from typing import Self
from urllib.parse import parse_qsl, quote, unquote
from xml.sax.saxutils import escape

from fakes.stream_connections import StreamConnections

ACCESS_KEY_ID = "AKIATESTTESTTEST"
SECRET_ACCESS_KEY = "secret/of+the/test"
SMALLEST_PART = 5 * 1024 * 1024
_CHUNK_BYTES = 256 * 1024


class Fault(Enum):
    """What goes wrong with a request."""

    UNAVAILABLE = auto()
    """503 SlowDown, nothing done."""
    FORBIDDEN = auto()
    """403 AccessDenied, nothing done."""
    RESET = auto()
    """The connection breaks in the middle of the request's body, nothing done."""
    HELD = auto()
    """Nothing is answered until the client has gone."""
    STORED_THEN_FAILED = auto()
    """It is done, and 500 is answered."""
    WRONG_ETAG = auto()
    """It is done; the object's ETag is no digest of it, as with encryption by the store."""
    CORRUPTED = auto()
    """It is done, with a wrong byte."""


@dataclass(slots=True)
class Request:
    """A request as it was received."""

    method: str
    bucket: str
    key: str
    query: dict[str, str]
    headers: dict[str, str]
    target: str
    body: bytes = b""


@dataclass(slots=True)
class StoredObject:
    """An object of a bucket."""

    body: bytes
    etag: str
    metadata: dict[str, str]


@dataclass(slots=True)
class _Upload:
    bucket: str
    key: str
    metadata: dict[str, str]
    parts: dict[int, bytes] = field(default_factory=dict)


@dataclass(slots=True)
class _Answer:
    status: int
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)


class _Refusal(Exception):
    def __init__(self, status: int, code: str, message: str = "") -> None:
        super().__init__(code)
        self.answer = _error(status, code, message or code)


class S3Server:
    """Serves buckets; a context manager. May be closed and opened again: then it is away meanwhile."""

    def __init__(self, *buckets: str) -> None:
        self.objects: dict[str, dict[str, StoredObject]] = {bucket: {} for bucket in buckets}
        self.uploads: dict[str, _Upload] = {}
        """Multipart uploads that were neither completed nor aborted."""
        self.requests: list[Request] = []
        self.fault: Callable[[Request], Fault | None] = lambda _: None
        """Asked of every request, when its head is there."""
        self.held = asyncio.Event()
        """Set when a request is being held."""
        # Bound and never listening, it keeps others from the port while the server is away.
        self._reserved = socket.socket()
        self._reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._reserved.bind(("127.0.0.1", 0))
        self.port: int = self._reserved.getsockname()[1]
        self._server: asyncio.Server | None = None
        self._number = 0

    @property
    def url(self) -> str:
        """The endpoint."""
        return f"http://127.0.0.1:{self.port}"

    def methods(self, key: str) -> list[str]:
        """The methods of requests for a key, in order."""
        return [request.method for request in self.requests if request.key == key]

    async def open(self) -> None:
        """Listens, on the same port as before."""
        self._connections = StreamConnections(self._serve)
        self._server = await asyncio.start_server(self._connections.accept, "127.0.0.1", self.port, limit=_CHUNK_BYTES)

    async def close(self) -> None:
        """Listens no more and breaks all connections."""
        assert self._server is not None
        await self._connections.end(self._server)

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()
        self._reserved.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while await self._exchange(reader, writer):
                pass
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Answers one request. Returns whether another may follow."""
        request = _parse_head((await reader.readuntil(b"\r\n\r\n")).decode())
        self.requests.append(request)
        fault = self.fault(request)
        length = int(request.headers.get("content-length", "0"))
        if fault is Fault.RESET:
            await reader.readexactly(length // 2)
            writer.transport.abort()
            return False
        request.body = await reader.readexactly(length)
        if fault is Fault.HELD:
            self.held.set()
            await reader.read()
            return False
        answer = self._answer(request, fault)
        reason = {200: "OK", 204: "No Content", 206: "Partial Content"}.get(answer.status, "Refused")
        headers = {"Content-Length": str(len(answer.body)), "x-amz-request-id": "1"} | answer.headers
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        writer.write(f"HTTP/1.1 {answer.status} {reason}\r\n{lines}\r\n".encode())
        if request.method != "HEAD":
            writer.write(answer.body)
        await writer.drain()
        return True

    def _answer(self, request: Request, fault: Fault | None) -> _Answer:
        try:
            if fault is Fault.UNAVAILABLE:
                raise _Refusal(503, "SlowDown", "Please reduce your request rate.")
            if fault is Fault.FORBIDDEN:
                raise _Refusal(403, "AccessDenied", "Access Denied")
            _verify(request)
            if request.bucket not in self.objects:
                raise _Refusal(404, "NoSuchBucket", "The specified bucket does not exist")
            answer = self._handle(request, fault)
        except _Refusal as refusal:
            return refusal.answer
        return _error(500, "InternalError", "We are sorry.") if fault is Fault.STORED_THEN_FAILED else answer

    def _handle(self, request: Request, fault: Fault | None) -> _Answer:
        match request.method:
            case "POST" if "uploads" in request.query:
                return self._begin_upload(request)
            case "PUT" if "uploadId" in request.query:
                return self._put_part(request)
            case "POST" if "uploadId" in request.query:
                return self._complete_upload(request, fault)
            case "DELETE" if "uploadId" in request.query:
                self.uploads.pop(request.query["uploadId"], None)
                return _Answer(204)
            case "PUT":
                etag = hashlib.md5(request.body).hexdigest()
                stored = self._store(request, request.body, etag, _metadata(request), fault)
                return _Answer(200, headers={"ETag": f'"{stored.etag}"'})
            case "GET" | "HEAD":
                return self._get(request)
            case _:
                raise _Refusal(405, "MethodNotAllowed")

    def _store(
        self, request: Request, body: bytes, etag: str, metadata: dict[str, str], fault: Fault | None
    ) -> StoredObject:
        if fault is Fault.CORRUPTED:
            body = bytes([body[0] ^ 1]) + body[1:]
        if fault in (Fault.WRONG_ETAG, Fault.CORRUPTED):
            etag = hashlib.md5(etag.encode()).hexdigest()
        stored = StoredObject(body=body, etag=etag, metadata=metadata)
        self.objects[request.bucket][request.key] = stored
        return stored

    def _begin_upload(self, request: Request) -> _Answer:
        self._number += 1
        name = f"upload-{self._number}"
        self.uploads[name] = _Upload(request.bucket, request.key, _metadata(request))
        inner = f"<Bucket>{request.bucket}</Bucket><Key>{escape(request.key)}</Key><UploadId>{name}</UploadId>"
        return _xml(f"<InitiateMultipartUploadResult>{inner}</InitiateMultipartUploadResult>")

    def _upload(self, request: Request) -> _Upload:
        upload = self.uploads.get(request.query["uploadId"])
        if upload is None or (upload.bucket, upload.key) != (request.bucket, request.key):
            raise _Refusal(404, "NoSuchUpload")
        return upload

    def _put_part(self, request: Request) -> _Answer:
        number = int(request.query["partNumber"])
        if not 1 <= number <= 10_000:
            raise _Refusal(400, "InvalidArgument")
        self._upload(request).parts[number] = request.body
        return _Answer(200, headers={"ETag": f'"{hashlib.md5(request.body).hexdigest()}"'})

    def _complete_upload(self, request: Request, fault: Fault | None) -> _Answer:
        upload = self._upload(request)
        listed = re.findall(r"<Part>(.*?)</Part>", request.body.decode(), re.DOTALL)
        digests: list[bytes] = []
        parts: list[bytes] = []
        for index, part in enumerate(listed):
            number = re.search(r"<PartNumber>(\d+)</PartNumber>", part)
            etag = re.search(r"<ETag>(?:&quot;|\")?([0-9a-f]{32})(?:&quot;|\")?</ETag>", part)
            body = upload.parts.get(int(number[1])) if number else None
            if body is None or etag is None or hashlib.md5(body).hexdigest() != etag[1]:
                raise _Refusal(400, "InvalidPart")
            if len(body) < SMALLEST_PART and index < len(listed) - 1:
                raise _Refusal(400, "EntityTooSmall")
            digests.append(hashlib.md5(body).digest())
            parts.append(body)
        etag_of_all = f"{hashlib.md5(b''.join(digests)).hexdigest()}-{len(parts)}"
        stored = self._store(request, b"".join(parts), etag_of_all, upload.metadata, fault)
        del self.uploads[request.query["uploadId"]]
        inner = f"<Key>{escape(request.key)}</Key><ETag>&quot;{stored.etag}&quot;</ETag>"
        return _xml(f"<CompleteMultipartUploadResult>{inner}</CompleteMultipartUploadResult>")

    def _get(self, request: Request) -> _Answer:
        stored = self.objects[request.bucket].get(request.key)
        if stored is None:
            raise _Refusal(404, "NoSuchKey", "The specified key does not exist.")
        facts = {
            "ETag": f'"{stored.etag}"',
            "Last-Modified": "Thu, 01 Jan 2026 00:00:00 GMT",
            "Accept-Ranges": "bytes",
        } | stored.metadata
        body, size = stored.body, len(stored.body)
        if request.method == "HEAD":
            return _Answer(200, headers=facts | {"Content-Length": str(size)})
        if wanted := re.fullmatch(r"bytes=(\d+)-(\d+)", request.headers.get("range", "")):
            first, last = int(wanted[1]), min(int(wanted[2]), size - 1)
            if first > last:
                raise _Refusal(416, "InvalidRange")
            return _Answer(206, body[first : last + 1], facts | {"Content-Range": f"bytes {first}-{last}/{size}"})
        return _Answer(200, body, facts)


def _parse_head(head: str) -> Request:
    first, *lines = head.split("\r\n")
    method, target, _ = first.split(" ")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines if line)}
    path, _, query = target.partition("?")
    bucket, _, key = path.removeprefix("/").partition("/")
    return Request(method, bucket, unquote(key), dict(parse_qsl(query, keep_blank_values=True)), headers, target)


def _verify(request: Request) -> None:
    """Refuses a request whose payload or signature is not right, as described under "Signature Version 4"."""
    headers = request.headers
    digest = headers.get("x-amz-content-sha256", "")
    if digest not in ("UNSIGNED-PAYLOAD", hashlib.sha256(request.body).hexdigest()):
        raise _Refusal(400, "XAmzContentSHA256Mismatch")
    given = re.fullmatch(
        r"AWS4-HMAC-SHA256 Credential=([^/]+)/(\d{8})/([^/]+)/s3/aws4_request, ?"
        r"SignedHeaders=([^,]+), ?Signature=(\w+)",
        headers.get("authorization", ""),
    )
    if given is None:
        raise _Refusal(403, "AccessDenied", "Anonymous access is forbidden.")
    key_id, day, region, names, signature = given.groups()
    if key_id != ACCESS_KEY_ID:
        raise _Refusal(403, "InvalidAccessKeyId", f"The key {key_id} does not exist in our records.")
    path, _, query = request.target.partition("?")
    pairs = sorted((quote(name, safe="-_.~"), quote(value, safe="-_.~")) for name, value in _pairs(query))
    canonical = "\n".join(
        [
            request.method,
            path,
            "&".join(f"{name}={value}" for name, value in pairs),
            *(f"{name}:{headers[name]}" for name in names.split(";")),
            "",
            names,
            digest,
        ]
    )
    scope = f"{day}/{region}/s3/aws4_request"
    hashed = hashlib.sha256(canonical.encode()).hexdigest()
    text = "\n".join(["AWS4-HMAC-SHA256", headers["x-amz-date"], scope, hashed])
    secret = b"AWS4" + SECRET_ACCESS_KEY.encode()
    for step in (day, region, "s3", "aws4_request", text):
        secret = hmac.digest(secret, step.encode(), "sha256")
    if not hmac.compare_digest(secret.hex(), signature):
        raise _Refusal(403, "SignatureDoesNotMatch", "The signature we calculated does not match.")


def _pairs(query: str) -> list[tuple[str, str]]:
    return parse_qsl(query, keep_blank_values=True)


def _metadata(request: Request) -> dict[str, str]:
    kept = {name: value for name, value in request.headers.items() if name.startswith("x-amz-meta-")}
    return kept | {"content-type": request.headers.get("content-type", "application/octet-stream")}


def _xml(text: str, status: int = 200) -> _Answer:
    return _Answer(status, f'<?xml version="1.0"?>{text}'.encode(), {"Content-Type": "application/xml"})


def _error(status: int, code: str, message: str) -> _Answer:
    return _xml(f"<Error><Code>{code}</Code><Message>{escape(message)}</Message></Error>", status)
