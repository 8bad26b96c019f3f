"""One upload on disk: a folder with what was said of it and the bytes that came. Blocking; called from threads.

How far an upload has come is the size of its file and is written nowhere else, so the two cannot disagree after
`kill -9`. Bytes are only ever appended, at the place that the writer believes to be the end.
"""

from __future__ import annotations

import errno
import json
import os
import re
import threading
import unicodedata
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

from gpu_balancer.runtime.durable_file import flush_folder, write_durably
from gpu_balancer.runtime.failures import Reason, RequestFailure, Violation

if TYPE_CHECKING:
    from pathlib import Path

FACTS_NAME = "upload.json"
MAX_FILE_NAME_BYTES = 200
_VERSION = 1
_EXTENSION = re.compile(r"\.[A-Za-z0-9]{1,10}$", re.ASCII)
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


@dataclass(slots=True, kw_only=True, eq=False)
class UploadFolder:
    """The folder of one upload. `lock` is held by whoever touches the bytes."""

    id: str
    path: Path
    file_name: str
    """Sanitized."""
    size_bytes: int
    request_id: str | None
    create_time: datetime
    writer: int = 0
    """Number of the latest writer: an earlier one, whose client is gone, has nothing to say any more."""
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def data_path(self) -> Path:
        """The bytes. Keeps the extension, by which ffmpeg tells some formats."""
        match = _EXTENSION.search(self.file_name)
        return self.path / f"data{match[0].lower() if match else ''}"

    def received_bytes(self) -> int:
        """Gives how far the upload has come."""
        return self.data_path.stat().st_size

    def touch_time(self) -> datetime:
        """Gives when the upload was last written or used."""
        stamp = datetime.fromtimestamp(self.data_path.stat().st_mtime, self.create_time.tzinfo)
        return max(stamp, self.create_time)

    def touch(self, now: datetime) -> None:
        """Notes that the upload is being used."""
        os.utime(self.data_path, (now.timestamp(), now.timestamp()))


class UploadWriter:
    """Appends to one upload, until it is closed or a later writer comes.

    Its methods run in threads, and whoever waits for them may be cancelled: closing works at any time, also before an
    opening that is on its way.
    """

    def __init__(self, upload: UploadFolder) -> None:
        """Touches nothing yet."""
        self._upload = upload
        self._number = 0
        self._offset = 0
        self._descriptor: int | None = None
        self._closed = False

    def open(self, offset_bytes: int) -> None:
        """Opens the bytes; waits for a piece of an earlier writer that is on its way.

        Raises:
            RequestFailure: UPLOAD_OFFSET_WRONG when that is not where the upload ends.
            FileNotFoundError: The upload was removed.
        """
        upload = self._upload
        with upload.lock:
            if self._closed:
                return
            upload.writer += 1
            self._number = upload.writer
            received = upload.received_bytes()
            if offset_bytes != received:
                raise wrong_offset(upload, offset_bytes, received)
            self._descriptor = os.open(upload.data_path, os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
            self._offset = received

    def append(self, data: bytes) -> None:
        """Writes a piece.

        Raises:
            RequestFailure: UPLOAD_OFFSET_WRONG when a later writer has come; UPLOAD_TOO_LARGE beyond the size that was
                told; DISK_FULL.
        """
        upload = self._upload
        with upload.lock:
            if upload.writer != self._number or self._descriptor is None:
                raise wrong_offset(upload, self._offset, upload.received_bytes())
            if self._offset + len(data) > upload.size_bytes:
                told = f"would make the upload longer than its size of {upload.size_bytes:,} bytes"
                raise RequestFailure(
                    reason=Reason.UPLOAD_TOO_LARGE,
                    message=f"Cannot write uploads/{upload.id}: the piece {told}. Try a new upload of the right size.",
                    violations=(Violation(field="data", description=told),),
                )
            rest = memoryview(data)
            while rest:
                try:
                    written = os.pwrite(self._descriptor, rest, self._offset)
                except OSError as error:
                    raise disk_failure(f"write uploads/{upload.id}", error) from error
                self._offset += written
                rest = rest[written:]

    def close(self) -> None:
        """Makes what was written durable, and ends. May be called again.

        Raises:
            RequestFailure: DISK_FULL: the disk could not keep what it had taken.
        """
        with self._upload.lock:
            self._closed = True
            descriptor, self._descriptor = self._descriptor, None
            if descriptor is None:
                return
            try:
                os.fsync(descriptor)
            except OSError as error:
                raise disk_failure(f"keep uploads/{self._upload.id}", error) from error
            finally:
                os.close(descriptor)


def create_folder(upload: UploadFolder) -> None:
    """Makes the folder of a new upload; it counts from the moment its facts are written, which is last.

    Raises:
        OSError: The disk is full, for instance; what was made is taken away by `load_folders` later.
    """
    upload.path.mkdir(mode=0o700)
    os.close(os.open(upload.data_path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    facts = {
        "version": _VERSION,
        "file_name": upload.file_name,
        "size_bytes": upload.size_bytes,
        "request_id": upload.request_id,
        "create_time": upload.create_time.isoformat(),
    }
    write_durably(upload.path / FACTS_NAME, json.dumps(facts).encode())
    flush_folder(upload.path.parent)


def read_folder(path: Path) -> UploadFolder | None:
    """Reads a folder again after a restart. None: the upload was not wholly made, or is no upload of ours."""
    try:
        facts: dict[str, Any] = json.loads((path / FACTS_NAME).read_bytes())
        if facts["version"] != _VERSION or not _well_typed(facts):
            return None
        upload = UploadFolder(
            id=path.name,
            path=path,
            file_name=facts["file_name"],
            size_bytes=facts["size_bytes"],
            request_id=facts["request_id"],
            create_time=datetime.fromisoformat(facts["create_time"]),
        )
        whole = upload.create_time.tzinfo is not None and upload.received_bytes() <= upload.size_bytes
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    return upload if whole else None


def _well_typed(facts: dict[str, Any]) -> bool:
    """Tells whether facts that were read are of their types; a name that is no UTF-8 raises ValueError."""
    file_name, request_id = facts["file_name"], facts["request_id"]
    if not isinstance(file_name, str) or not isinstance(facts["size_bytes"], int):
        return False
    file_name.encode()
    return request_id is None or isinstance(request_id, str)


def sanitized(file_name: str) -> str:
    """Makes a name that is safe to show and to keep: no folders, no control characters, not hidden, bounded."""
    name = file_name.replace("\\", "/").rpartition("/")[2]
    name = "".join(letter for letter in name if unicodedata.category(letter)[0] != "C").strip().lstrip(".")
    while len(name.encode(errors="replace")) > MAX_FILE_NAME_BYTES:
        # The extension, at the end, is worth more than the middle.
        middle = len(name) // 2
        name = name[:middle] + name[middle + 1 :]
    return name or "upload"


def wrong_offset(upload: UploadFolder, offset_bytes: int, received_bytes: int) -> RequestFailure:
    """Makes the failure of a writer that is not at the end of an upload."""
    told = f"must be the upload's received_bytes, {received_bytes:,}, not {offset_bytes:,}"
    return RequestFailure(
        reason=Reason.UPLOAD_OFFSET_WRONG,
        message=f"Cannot write uploads/{upload.id} at byte {offset_bytes}: it has {received_bytes}. Go on there.",
        violations=(Violation(field="offset_bytes", description=told),),
        metadata={"received_bytes": str(received_bytes)},
    )


def disk_failure(what: str, error: OSError) -> RequestFailure:
    """Makes the failure of a disk that does not take it."""
    if error.errno in _FULL:
        return RequestFailure(
            reason=Reason.DISK_FULL,
            message=f"Cannot {what}: the disk of the balancer's state folder is full. Try again when there is room.",
        )
    return RequestFailure(
        reason=Reason.STORE_UNAVAILABLE,
        message=f"Cannot {what}: {os.strerror(error.errno) if error.errno else 'the disk failed'}. Try again later.",
    )
