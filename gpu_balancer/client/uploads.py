"""Uploads: files that the daemon cannot read itself, sent once and resumed after a cut.

The request id of an upload follows from the file itself, so that a second run of the same command, after Ctrl-C or a
crash, goes on where the first one ended, and a complete upload is used again as long as the daemon keeps it.
"""

from __future__ import annotations

import hashlib
import os
import socket
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from gpu_balancer.client import methods
from gpu_balancer.client.names import upload_name
from gpu_balancer.client.requests import Requests, new_request_id
from gpu_balancer.runtime.failures import Reason, RequestFailure
from gpu_balancer.v1 import upload_service_pb2

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from gpu_balancer.v1.upload_service_pb2 import Upload

CHUNK_BYTES = 128 * 1024
"""The contract's bound for one request of WriteUpload."""

_SAMPLE_BYTES = 64 * 1024


class UploadRequests(Requests):
    """The calls of UploadService, and sending a whole file."""

    async def create_upload(self, file_name: str, size_bytes: int, request_id: str | None = None) -> Upload:
        """Begins an upload.

        Args:
            file_name: The file's own name, for people.
            size_bytes: Size of the whole file.
            request_id: The same id gives the same upload again. None: a new upload.
        """
        request = upload_service_pb2.CreateUploadRequest(
            upload=upload_service_pb2.Upload(file_name=file_name, size_bytes=size_bytes),
            request_id=request_id or new_request_id(),
        )
        return (await self._call(methods.CREATE_UPLOAD, request)).upload

    async def get_upload(self, name: str) -> Upload:
        """Gives an upload by name, `uploads/x` or `x`."""
        request = upload_service_pb2.GetUploadRequest(name=upload_name(name))
        return (await self._call(methods.GET_UPLOAD, request)).upload

    async def delete_upload(self, name: str) -> None:
        """Removes an upload.

        Raises:
            RequestFailure: With UPLOAD_IN_USE while a session uses it, UPLOAD_NOT_FOUND when there is none.
        """
        request = upload_service_pb2.DeleteUploadRequest(name=upload_name(name))
        await self._call(methods.DELETE_UPLOAD, request, gone=Reason.UPLOAD_NOT_FOUND)

    async def upload_file(
        self,
        path: str | os.PathLike[str],
        *,
        file_name: str | None = None,
        progress: Callable[[int, int], object] | None = None,
    ) -> Upload:
        """Sends a whole file, going on where an earlier try for the same file ended.

        Args:
            path: The file.
            file_name: Its name for people. None: that of the path.
            progress: Is told the bytes done and the bytes in all, now and then, possibly on another thread.

        Returns:
            The complete upload; its name goes into `Input.upload`.

        Raises:
            OSError: When the file cannot be read or changes meanwhile.
            RequestFailure: With UPLOAD_TOO_LARGE when the daemon takes no file of that size.
        """
        file = Path(path)
        identity = await self._connection.work(lambda: _identify(file))
        name = file_name if file_name is not None else file.name
        try:
            upload = await self.create_upload(name, identity.size_bytes, identity.request_id)
            return await self._send_rest(file, upload, progress)
        except RequestFailure as failure:
            # The daemon knows the request id but has removed its upload since.
            if failure.reason is not Reason.UPLOAD_NOT_FOUND:
                raise
        upload = await self.create_upload(name, identity.size_bytes)
        return await self._send_rest(file, upload, progress)

    async def _send_rest(self, file: Path, upload: Upload, progress: Callable[[int, int], object] | None) -> Upload:
        """Sends what the daemon has not received, again after each cut."""
        retries = self._retries(self._stream_policy)
        while not upload.complete:
            parts = _Parts(file=file, upload=upload, progress=progress)
            received_bytes = upload.received_bytes
            try:
                upload = (await self._connection.send(methods.WRITE_UPLOAD, parts.requests())).upload
            except RequestFailure as failure:
                if parts.fault is not None:
                    raise parts.fault from failure
                upload = await self._after_cut(upload, failure)
                if upload.received_bytes > received_bytes:
                    retries.reset()
                if not upload.complete:
                    await self._wait_or_raise(_worth_retrying(failure), retries)
            else:
                if parts.fault is not None:
                    raise parts.fault
                if not upload.complete and upload.received_bytes <= received_bytes:
                    raise RequestFailure(
                        reason=Reason.UPLOAD_INCOMPLETE,
                        message=f"Cannot complete the upload of {file}: the daemon took no further bytes.",
                    )
        if progress is not None:
            progress(upload.size_bytes, upload.size_bytes)
        return upload

    async def _after_cut(self, upload: Upload, failure: RequestFailure) -> Upload:
        """Asks how far the upload came, when the failure may be mended by going on."""
        if failure.reason.code is not Reason.BALANCER_UNREACHABLE.code and (
            failure.reason is not Reason.UPLOAD_OFFSET_WRONG
        ):
            raise failure
        return await self.get_upload(upload.name)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Identity:
    """What tells one file from another and from its own earlier content."""

    size_bytes: int
    request_id: str


def _identify(file: Path) -> _Identity:
    """Makes a request id from the host, the path, size and times of a file and both its ends."""
    with file.open("rb") as content:
        status = os.fstat(content.fileno())
        digest = hashlib.sha256()
        facts = (socket.gethostname(), os.geteuid(), file.resolve(), status.st_dev, status.st_ino, status.st_size)
        for fact in (*facts, status.st_mtime_ns):
            digest.update(f"{fact}\0".encode("utf-8", "surrogateescape"))
        digest.update(content.read(_SAMPLE_BYTES))
        content.seek(max(0, status.st_size - _SAMPLE_BYTES))
        digest.update(content.read(_SAMPLE_BYTES))
    return _Identity(size_bytes=status.st_size, request_id=f"file-{digest.hexdigest()[:40]}")


@dataclass(slots=True, kw_only=True)
class _Parts:
    """The requests of one WriteUpload.

    They are taken on a thread of gRPC's, which would only log what goes wrong there: the fault is kept for the caller.
    """

    file: Path
    upload: Upload
    progress: Callable[[int, int], object] | None
    fault: OSError | None = field(default=None)

    def requests(self) -> Iterator[upload_service_pb2.WriteUploadRequest]:
        """Gives the bytes from received_bytes to the upload's size, no more."""
        offset_bytes = self.upload.received_bytes
        head = upload_service_pb2.WriteUploadRequest(name=self.upload.name, offset_bytes=offset_bytes)
        try:
            with self.file.open("rb") as content:
                content.seek(offset_bytes)
                while offset_bytes < self.upload.size_bytes:
                    data = content.read(min(CHUNK_BYTES, self.upload.size_bytes - offset_bytes))
                    if not data:
                        raise OSError(f"Cannot upload {self.file}: it became shorter meanwhile. Try again.")
                    head.data = data
                    yield head
                    offset_bytes += len(data)
                    head = upload_service_pb2.WriteUploadRequest()
                    if self.progress is not None:
                        self.progress(offset_bytes, self.upload.size_bytes)
                if self.upload.size_bytes == 0:
                    yield head
        except OSError as fault:
            self.fault = fault


def _worth_retrying(failure: RequestFailure) -> RequestFailure:
    """Gives a wrong offset the code of a cut: the next try begins at the right one."""
    if failure.reason is not Reason.UPLOAD_OFFSET_WRONG:
        return failure
    return RequestFailure(reason=Reason.BALANCER_UNREACHABLE, message=failure.message)
