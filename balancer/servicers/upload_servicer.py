"""UploadService: takes files from clients, and says what the store of uploads says."""

from __future__ import annotations

from contextlib import aclosing
from dataclasses import replace
from typing import TYPE_CHECKING, cast

from balancer.servicers.names import check_request_id, upload_id_of
from balancer.servicers.violations import Violations
from gpu_balancer.runtime.failures import RequestFailure, Violation, invalid
from gpu_balancer.v1 import upload_service_pb2 as pb
from gpu_balancer.v1.upload_service_pb2_grpc import UploadServiceServicer

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Callable, Collection

    from balancer.uploads import StoredUpload, UploadStore
    from gpu_balancer.v1.media_pb2 import Input

MAX_CHUNK_BYTES = 128 * 1024
MAX_FILE_NAME_CHARACTERS = 1_024


class UploadServicer(UploadServiceServicer):
    """Answers clients about uploads."""

    def __init__(self, uploads: UploadStore, *, in_use: Callable[[], Collection[str]]) -> None:
        """Makes the servicer.

        Args:
            uploads: Keeps them.
            in_use: Gives the names of the uploads that live sessions read.
        """
        self._uploads = uploads
        self._in_use = in_use

    async def CreateUpload(self, request: pb.CreateUploadRequest, _context: object) -> pb.CreateUploadResponse:  # noqa: N802
        """Begins an upload."""
        check_request_id(request.request_id)
        found = Violations()
        file_name = request.upload.file_name
        if len(file_name) > MAX_FILE_NAME_CHARACTERS:
            found.add("upload.file_name", f"must be at most {MAX_FILE_NAME_CHARACTERS:,} characters")
        found.refuse()
        upload = await self._uploads.create(
            file_name=file_name, size_bytes=request.upload.size_bytes, request_id=request.request_id or None
        )
        return pb.CreateUploadResponse(upload=upload_to_proto(upload))

    async def WriteUpload(  # noqa: N802
        self, requests: AsyncIterator[pb.WriteUploadRequest], _context: object
    ) -> pb.WriteUploadResponse:
        """Writes what a client streams."""
        first = await anext(aiter(requests), None)
        if first is None:
            raise invalid(Violation(field="name", description="must be given in the first request of the stream"))
        upload_id = upload_id_of(first.name)
        # Closed at once when the writing fails: an open file must not wait for the garbage collector.
        async with aclosing(cast("AsyncGenerator[bytes, None]", _pieces(first, requests))) as pieces:
            upload = await self._uploads.write(upload_id, offset_bytes=first.offset_bytes, pieces=pieces)
        return pb.WriteUploadResponse(upload=upload_to_proto(upload))

    async def GetUpload(self, request: pb.GetUploadRequest, _context: object) -> pb.GetUploadResponse:  # noqa: N802
        """Gives one upload."""
        return pb.GetUploadResponse(upload=upload_to_proto(await self._uploads.get(upload_id_of(request.name))))

    async def DeleteUpload(self, request: pb.DeleteUploadRequest, _context: object) -> pb.DeleteUploadResponse:  # noqa: N802
        """Removes an upload that no live session reads."""
        await self._uploads.delete(upload_id_of(request.name), in_use=self._in_use)
        return pb.DeleteUploadResponse()


def upload_to_proto(upload: StoredUpload) -> pb.Upload:
    """Makes the message of an upload."""
    message = pb.Upload(
        name=upload.name,
        file_name=upload.file_name,
        size_bytes=upload.size_bytes,
        received_bytes=upload.received_bytes,
        complete=upload.complete,
    )
    message.expire_time.FromDatetime(upload.expire_time)
    return message


def check_upload(uploads: UploadStore, given: Input) -> None:
    """Makes sure that the upload which an input names, if any, is there and whole.

    Raises:
        RequestFailure: UPLOAD_NOT_FOUND or UPLOAD_INCOMPLETE, with the path of the field that names it.
    """
    try:
        uploads.resolve_input(given)
    except RequestFailure as failure:
        told = Violation(field="session.transcode.input.upload", description=failure.message)
        raise replace(failure, violations=(told,)) from failure


async def _pieces(first: pb.WriteUploadRequest, requests: AsyncIterator[pb.WriteUploadRequest]) -> AsyncIterator[bytes]:
    yield _checked(first.data)
    async for request in requests:
        if request.name and request.name != first.name:
            raise invalid(Violation(field="name", description="must not change within a stream"))
        yield _checked(request.data)


def _checked(data: bytes) -> bytes:
    if len(data) > MAX_CHUNK_BYTES:
        told = f"must be at most {MAX_CHUNK_BYTES:,} bytes in one request, not {len(data):,}"
        raise invalid(Violation(field="data", description=told))
    return data
