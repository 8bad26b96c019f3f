"""What is declared and does not come: only so many uploads are begun at once, and no more than the disk can hold."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from pathlib import Path

import pytest

from balancer.uploads import StoredUpload, UploadStore
from gpu_balancer.runtime.clock import SystemClock
from gpu_balancer.runtime.failures import Reason, RequestFailure, StatusCode

SPARED_BYTES = 64 * 1024 * 1024
"""What an upload leaves free for others."""


class Uploads:
    """A store, which may be restarted, and what the tests ask of it."""

    def __init__(self, folder: Path, max_incomplete: int) -> None:
        self._folder = folder
        self._max_incomplete = max_incomplete
        self.store = self._made()

    async def restart(self) -> None:
        self.store = self._made()
        await self.store.start()

    async def begun(self, size_bytes: int = 1, request_id: str | None = None) -> StoredUpload:
        return await self.store.create(file_name="in.mp4", size_bytes=size_bytes, request_id=request_id)

    async def refused(self, size_bytes: int = 1) -> RequestFailure:
        with pytest.raises(RequestFailure) as caught:
            await self.begun(size_bytes)
        return caught.value

    async def send(self, upload: StoredUpload, size_bytes: int) -> None:
        async def pieces() -> AsyncIterator[bytes]:
            yield bytes(size_bytes)

        await self.store.write(id_of(upload), offset_bytes=0, pieces=pieces())

    async def delete(self, upload: StoredUpload) -> None:
        await self.store.delete(id_of(upload), in_use=tuple)

    def folder_count(self) -> int:
        return len(list(self._folder.iterdir()))

    def _made(self) -> UploadStore:
        return UploadStore(
            self._folder,
            max_bytes=1000,
            expire_after=timedelta(hours=1),
            clock=SystemClock(),
            max_incomplete=self._max_incomplete,
        )


def id_of(upload: StoredUpload) -> str:
    return upload.name.removeprefix("uploads/")


@pytest.fixture
async def uploads(tmp_path: Path) -> Uploads:
    made = Uploads(tmp_path / "uploads", max_incomplete=2)
    await made.restart()
    return made


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Sets how much room the disk has beside what is spared."""
    usage_of = shutil.disk_usage

    def free(size_bytes: int) -> None:
        monkeypatch.setattr(shutil, "disk_usage", lambda path: usage_of(path)._replace(free=SPARED_BYTES + size_bytes))

    return free


async def test_what_other_uploads_are_yet_to_send_is_not_free(uploads: Uploads, disk: Callable[[int], None]) -> None:
    disk(1000)
    first = await uploads.begun(600)
    failure = await uploads.refused(401)
    assert failure.reason is Reason.DISK_FULL
    assert "other uploads are yet to fill 600" in failure.message
    # What has arrived is on the disk, and no longer to come.
    await uploads.send(first, 500)
    disk(500)
    second = await uploads.begun(400)
    await uploads.delete(first)
    assert (await uploads.refused(101)).reason is Reason.DISK_FULL
    await uploads.delete(second)
    await uploads.begun(500)


async def test_only_so_many_uploads_wait_for_their_bytes(uploads: Uploads) -> None:
    first, second = await uploads.begun(request_id="once"), await uploads.begun()
    for _ in range(2):
        failure = await uploads.refused()
        assert failure.reason is Reason.UPLOAD_TOO_MANY
        assert failure.reason.code is StatusCode.RESOURCE_EXHAUSTED
        assert failure.retry_after is not None
        assert failure.metadata == {"limit": "2"}
        assert uploads.folder_count() == 2
        # They are counted after a restart as well.
        await uploads.restart()
    assert (await uploads.begun(request_id="once")).name == first.name
    await uploads.send(first, 1)
    third = await uploads.begun()
    assert (await uploads.refused()).reason is Reason.UPLOAD_TOO_MANY
    for given_up in (second, third):
        await uploads.delete(given_up)
        await uploads.begun()


async def test_many_that_begin_at_the_same_moment_are_counted_one_by_one(tmp_path: Path) -> None:
    uploads = Uploads(tmp_path / "uploads", max_incomplete=64)
    await uploads.restart()
    answers = await asyncio.gather(*(uploads.begun() for _ in range(80)), return_exceptions=True)
    refusals = [answer for answer in answers if isinstance(answer, RequestFailure)]
    assert [refusal.reason for refusal in refusals] == [Reason.UPLOAD_TOO_MANY] * 16
    assert uploads.folder_count() == 64
