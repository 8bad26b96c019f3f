"""The store of uploads: files of clients that the daemon cannot read itself, each the input of sessions.

An upload goes on after a cut of the line, of the daemon or of the power, at the byte that was durably received. Making
one is idempotent by request id, also across a restart. What nobody uses expires; what a live session reads does not.
"""

from __future__ import annotations

import asyncio
import shutil
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import structlog

from balancer.uploads.upload_folder import (
    UploadFolder,
    UploadWriter,
    create_folder,
    disk_failure,
    read_folder,
    sanitized,
)
from gpu_balancer.runtime.failures import Reason, RequestFailure, Violation
from gpu_balancer.runtime.ids import random_id

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Collection
    from datetime import datetime
    from pathlib import Path

    from gpu_balancer.runtime.clock import Clock

_log = structlog.get_logger(__name__)

_Input = TypeVar("_Input", bound="MediaInput")

_MAX_INCOMPLETE = 64
"""More than clients send at once to one machine, few enough for what they declare to be looked at each time."""
_RETRY_AFTER = timedelta(minutes=1)
_SPARE_BYTES = 64 * 1024 * 1024
"""Left on the disk for everybody else when an upload is begun."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredUpload:
    """An upload as it is now."""

    name: str
    """"uploads/{id}"."""
    file_name: str
    size_bytes: int
    received_bytes: int
    expire_time: datetime

    @property
    def complete(self) -> bool:
        """Whether all bytes have arrived."""
        return self.received_bytes == self.size_bytes


class MediaInput(Protocol):
    """What is looked at of the contract's `Input`."""

    upload: str
    uri: str

    def WhichOneof(self, oneof_group: Any, /) -> str | None:  # noqa: N802 - protobuf's
        """Tells which source is given."""
        ...

    def CopyFrom(self, other_msg: Any, /) -> None:  # noqa: N802 - protobuf's
        """Takes all of another message."""
        ...


class UploadStore:
    """Keeps uploads in a folder of its own, each in a folder."""

    def __init__(
        self,
        folder: Path,
        *,
        max_bytes: int,
        expire_after: timedelta,
        clock: Clock,
        look_every: timedelta = timedelta(minutes=1),
        max_incomplete: int = _MAX_INCOMPLETE,
    ) -> None:
        """Begins empty; `start` reads the folder.

        Args:
            folder: Where uploads are kept; made when missing, 0700.
            max_bytes: Size of an upload at most.
            expire_after: How long an upload is kept after it was last written or used.
            clock: Tells the time.
            look_every: How often `expire` looks.
            max_incomplete: Number of uploads at most whose bytes have not all arrived.
        """
        self.folder = folder
        self.max_bytes = max_bytes
        self._expire_after = expire_after
        self._clock = clock
        self._look_every = look_every
        self._max_incomplete = max_incomplete
        self._uploads: dict[str, UploadFolder] = {}
        self._requests: dict[str, UploadFolder] = {}
        self._creating = asyncio.Lock()

    async def start(self) -> None:
        """Finds the uploads of an earlier life, and removes what was not wholly made.

        Raises:
            OSError: The folder cannot be made or read.
        """
        for upload in await asyncio.to_thread(self._found):
            self._enter(upload)

    async def create(self, *, file_name: str, size_bytes: int, request_id: str | None) -> StoredUpload:
        """Begins an upload.

        Args:
            file_name: The file's own name, for people.
            size_bytes: Size of the whole file.
            request_id: The same id gives the same upload again. None: a new one.

        Returns:
            The upload.

        Raises:
            RequestFailure: UPLOAD_TOO_LARGE; UPLOAD_TOO_MANY; DISK_FULL when it cannot fit beside what others are yet
                to send; REQUEST_ID_REUSED when the id was used for another file.
        """
        self._check_size(size_bytes)
        name = sanitized(file_name)
        async with self._creating:
            known = self._requests.get(request_id) if request_id else None
            if known is not None:
                return self._again(known, name, size_bytes)
            upload_id = random_id()
            upload = UploadFolder(
                id=upload_id,
                path=self.folder / upload_id,
                file_name=name,
                size_bytes=size_bytes,
                request_id=request_id,
                create_time=self._clock.now(),
            )
            try:
                await asyncio.to_thread(self._make, upload, tuple(self._uploads.values()))
            except OSError as error:
                raise disk_failure("begin the upload", error) from error
            self._enter(upload)
        return self._told(upload)

    async def write(self, upload_id: str, *, offset_bytes: int, pieces: AsyncIterator[bytes]) -> StoredUpload:
        """Appends what comes, until it ends. A later writer of the same upload ends an earlier one.

        Args:
            upload_id: Which upload.
            offset_bytes: Where the first piece goes; must be how far the upload has come.
            pieces: What to append.

        Returns:
            The upload.

        Raises:
            RequestFailure: UPLOAD_NOT_FOUND; UPLOAD_OFFSET_WRONG; UPLOAD_TOO_LARGE; DISK_FULL. What came before stays.
        """
        upload = self._require(upload_id)
        writer = UploadWriter(upload)
        try:
            await asyncio.to_thread(self._open, writer, upload, offset_bytes)
            async for data in pieces:
                if data:
                    await asyncio.to_thread(writer.append, data)
                    # What the kernel stamped is of a clock that may have been set.
                    self._touch(upload)
        finally:
            # Also when the client has hung up: what it sent counts.
            await asyncio.to_thread(writer.close)
        self._touch(upload)
        return self._told(upload)

    async def get(self, upload_id: str) -> StoredUpload:
        """Gives an upload.

        Raises:
            RequestFailure: UPLOAD_NOT_FOUND.
        """
        return self._told(self._require(upload_id))

    async def delete(self, upload_id: str, *, in_use: Callable[[], Collection[str]]) -> None:
        """Removes an upload.

        Args:
            upload_id: Which.
            in_use: Gives the names of the uploads that live sessions read.

        Raises:
            RequestFailure: UPLOAD_NOT_FOUND; UPLOAD_IN_USE.
        """
        upload = self._require(upload_id)
        if f"uploads/{upload_id}" in in_use():
            raise RequestFailure(
                reason=Reason.UPLOAD_IN_USE,
                message=f"Cannot delete uploads/{upload_id}: a session reads it. Try again when it has ended.",
            )
        await self._remove(upload)

    def path_of(self, name: str) -> Path:
        """Gives the file of a complete upload, and notes that it is used.

        Args:
            name: "uploads/{id}".

        Raises:
            RequestFailure: UPLOAD_NOT_FOUND; UPLOAD_INCOMPLETE.
        """
        upload = self._require(name.removeprefix("uploads/"))
        received = upload.received_bytes()
        if received < upload.size_bytes:
            raise RequestFailure(
                reason=Reason.UPLOAD_INCOMPLETE,
                message=f"Cannot read {name}: {received:,} of {upload.size_bytes:,} bytes have arrived. "
                "Try to send the rest first.",
            )
        self._touch(upload)
        return upload.data_path

    def resolve_input(self, given: _Input) -> _Input:
        """Turns an input that names an upload into one that names its file, for an agent.

        Returns:
            The input; the given one when it names no upload.

        Raises:
            RequestFailure: UPLOAD_NOT_FOUND; UPLOAD_INCOMPLETE.
        """
        if given.WhichOneof("source") != "upload":
            return given
        path = self.path_of(given.upload)
        resolved = type(given)()
        resolved.CopyFrom(given)
        resolved.uri = str(path)
        return resolved

    async def expire(self, *, in_use: Callable[[], Collection[str]]) -> None:
        """Removes what has expired, for ever.

        Args:
            in_use: Gives the names of the uploads that live sessions read.
        """
        while True:
            await self.remove_expired(in_use=in_use)
            await asyncio.sleep(self._look_every.total_seconds())

    async def remove_expired(self, *, in_use: Callable[[], Collection[str]]) -> tuple[str, ...]:
        """Removes what nobody has written or used for long enough and no live session reads; gives the names."""
        now = self._clock.now()
        expired = [upload for upload in self._uploads.values() if self._expire_time(upload) <= now]
        if not expired:
            return ()
        used = in_use()
        removed = [upload for upload in expired if f"uploads/{upload.id}" not in used]
        for upload in removed:
            await self._remove(upload)
            _log.info("upload expired", upload=f"uploads/{upload.id}", size_bytes=upload.size_bytes)
        return tuple(f"uploads/{upload.id}" for upload in removed)

    def _check_size(self, size_bytes: int) -> None:
        if size_bytes <= self.max_bytes:
            return
        told = f"must be at most {self.max_bytes:,} bytes, not {size_bytes:,}"
        raise RequestFailure(
            reason=Reason.UPLOAD_TOO_LARGE,
            message=f"Cannot take the upload: its size {told}. Try a file under the input roots.",
            violations=(Violation(field="upload.size_bytes", description=told),),
            metadata={"max_bytes": str(self.max_bytes)},
        )

    def _again(self, known: UploadFolder, file_name: str, size_bytes: int) -> StoredUpload:
        if (known.file_name, known.size_bytes) != (file_name, size_bytes):
            raise RequestFailure(
                reason=Reason.REQUEST_ID_REUSED,
                message=f"Cannot use request id {known.request_id!r} again: it was used for another upload. "
                "Try a new one.",
            )
        self._touch(known)
        return self._told(known)

    def _make(self, upload: UploadFolder, others: tuple[UploadFolder, ...]) -> None:
        # What a moment ago was yet to come may have arrived since: then too little is taken for free, never too much.
        missing = [bytes_missing for other in others if (bytes_missing := _missing_bytes(other))]
        if len(missing) >= self._max_incomplete:
            raise RequestFailure(
                reason=Reason.UPLOAD_TOO_MANY,
                message=f"Cannot begin the upload: {len(missing):,} others wait for their bytes already, which is as "
                "many as the balancer keeps. Try to end or delete one of them first.",
                retry_after=_RETRY_AFTER,
                metadata={"limit": str(self._max_incomplete)},
            )
        free = shutil.disk_usage(self.folder).free
        promised = sum(missing)
        if upload.size_bytes + promised + _SPARE_BYTES > free:
            raise RequestFailure(
                reason=Reason.DISK_FULL,
                message=f"Cannot begin the upload: it needs {upload.size_bytes:,} bytes and the disk of the "
                f"balancer's state folder has {free:,} left, of which other uploads are yet to fill {promised:,}. "
                "Try again when there is room.",
            )
        try:
            create_folder(upload)
        except OSError:
            shutil.rmtree(upload.path, ignore_errors=True)
            raise

    def _open(self, writer: UploadWriter, upload: UploadFolder, offset_bytes: int) -> None:
        try:
            writer.open(offset_bytes)
        except FileNotFoundError:
            raise self._missing(upload.id) from None

    def _found(self) -> list[UploadFolder]:
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.folder.chmod(0o700)
        found: list[UploadFolder] = []
        for path in sorted(self.folder.iterdir()):
            upload = read_folder(path) if path.is_dir() and not path.is_symlink() else None
            if upload is not None:
                found.append(upload)
            elif path.is_dir() and not path.is_symlink():
                _log.warning("removing an upload that was not wholly made", path=str(path))
                shutil.rmtree(path, ignore_errors=True)
        return found

    def _enter(self, upload: UploadFolder) -> None:
        self._uploads[upload.id] = upload
        if upload.request_id:
            self._requests[upload.request_id] = upload

    async def _remove(self, upload: UploadFolder) -> None:
        """Forgets an upload at once, then takes its files away; its facts first, so that no half of it remains."""
        self._uploads.pop(upload.id, None)
        if upload.request_id and self._requests.get(upload.request_id) is upload:
            del self._requests[upload.request_id]
        await asyncio.to_thread(_erase, upload)

    def _require(self, upload_id: str) -> UploadFolder:
        upload = self._uploads.get(upload_id)
        if upload is None:
            raise self._missing(upload_id)
        return upload

    def _missing(self, upload_id: str) -> RequestFailure:
        return RequestFailure(
            reason=Reason.UPLOAD_NOT_FOUND,
            message=f"Cannot find uploads/{upload_id}: it does not exist, or has expired. Upload the file again.",
        )

    def _touch(self, upload: UploadFolder) -> None:
        try:
            upload.touch(self._clock.now())
        except FileNotFoundError:
            raise self._missing(upload.id) from None

    def _expire_time(self, upload: UploadFolder) -> datetime:
        return upload.touch_time() + self._expire_after

    def _told(self, upload: UploadFolder) -> StoredUpload:
        try:
            return StoredUpload(
                name=f"uploads/{upload.id}",
                file_name=upload.file_name,
                size_bytes=upload.size_bytes,
                received_bytes=upload.received_bytes(),
                expire_time=self._expire_time(upload),
            )
        except FileNotFoundError:
            raise self._missing(upload.id) from None


def _missing_bytes(upload: UploadFolder) -> int:
    """Tells how many bytes are yet to come; none of an upload that was removed meanwhile."""
    try:
        return upload.size_bytes - upload.received_bytes()
    except FileNotFoundError:
        return 0


def _erase(upload: UploadFolder) -> None:
    with upload.lock:
        upload.writer += 1
        shutil.rmtree(upload.path, ignore_errors=True)
