"""Uploads on disk: resumed after any cut, never longer than told, never gone while they are used."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import stat
import subprocess
import sys
import unicodedata
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from balancer.uploads import StoredUpload, UploadStore
from balancer.uploads.upload_folder import MAX_FILE_NAME_BYTES, UploadWriter, sanitized
from gpu_balancer.runtime.failures import Reason, RequestFailure
from gpu_balancer.v1 import media_pb2

EXPIRE_AFTER = timedelta(hours=1)
MAX_BYTES = 1000


@dataclass
class SettableClock:
    """Shows the time that a test sets."""

    time: datetime = field(default_factory=lambda: datetime.fromtimestamp(2_000_000_000, UTC))

    def now(self) -> datetime:
        return self.time

    def monotonic_s(self) -> float:
        return self.time.timestamp()


@pytest.fixture
def clock() -> SettableClock:
    return SettableClock()


Restart = Callable[[], UploadStore]


@pytest.fixture
def restarted(tmp_path: Path, clock: SettableClock) -> Restart:
    """Makes a store as after a restart; it is to be started."""
    return lambda: UploadStore(
        tmp_path / "state" / "uploads", max_bytes=MAX_BYTES, expire_after=EXPIRE_AFTER, clock=clock
    )


@pytest.fixture
async def store(restarted: Restart) -> UploadStore:
    made = restarted()
    await made.start()
    return made


async def pieces(*data: bytes) -> AsyncIterator[bytes]:
    for piece in data:
        yield piece


def id_of(upload: StoredUpload) -> str:
    return upload.name.removeprefix("uploads/")


async def whole(store: UploadStore, data: bytes = b"0123456789", file_name: str = "in.mp4") -> StoredUpload:
    """Makes a complete upload."""
    upload = await store.create(file_name=file_name, size_bytes=len(data), request_id=None)
    return await store.write(id_of(upload), offset_bytes=0, pieces=pieces(data))


async def refused(awaited: object) -> RequestFailure:
    with pytest.raises(RequestFailure) as caught:
        await awaited  # type: ignore[misc]
    return caught.value


def unused() -> frozenset[str]:
    return frozenset()


async def test_what_is_written_is_there(store: UploadStore) -> None:
    upload = await store.create(file_name="in.mp4", size_bytes=10, request_id=None)
    assert (upload.received_bytes, upload.complete) == (0, False)
    upload = await store.write(id_of(upload), offset_bytes=0, pieces=pieces(b"01234", b"", b"56789"))
    assert (upload.received_bytes, upload.complete) == (10, True)
    assert store.path_of(upload.name).read_bytes() == b"0123456789"


async def test_an_empty_file_is_complete_at_once(store: UploadStore) -> None:
    assert (await store.create(file_name="in.mp4", size_bytes=0, request_id=None)).complete


async def test_nobody_else_can_read_uploads(store: UploadStore) -> None:
    path = store.path_of((await whole(store)).name)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [stat.S_IMODE(folder.stat().st_mode) for folder in (path.parent, store.folder)] == [0o700, 0o700]


async def test_writing_goes_on_after_a_restart_where_it_ended(store: UploadStore, restarted: Restart) -> None:
    upload = await store.create(file_name="in.mp4", size_bytes=10, request_id=None)
    await store.write(id_of(upload), offset_bytes=0, pieces=pieces(b"0123"))
    again = restarted()
    await again.start()
    assert (await again.get(id_of(upload))).received_bytes == 4
    upload = await again.write(id_of(upload), offset_bytes=4, pieces=pieces(b"456789"))
    assert upload.complete
    assert again.path_of(upload.name).read_bytes() == b"0123456789"


_WRITER = """
import asyncio, sys
from datetime import timedelta
from pathlib import Path
from balancer.uploads import UploadStore
from gpu_balancer.runtime.clock import SystemClock

async def main():
    store = UploadStore(Path(sys.argv[1]), max_bytes=10**9, expire_after=timedelta(hours=1), clock=SystemClock())
    await store.start()
    upload = await store.create(file_name="in.mp4", size_bytes=10**9, request_id="once")
    async def pieces():
        while True:
            yield b"x" * 100_000
            print(flush=True)
    await store.write(upload.name.removeprefix("uploads/"), offset_bytes=0, pieces=pieces())

asyncio.run(main())
"""


def killed_while_writing(folder: Path) -> None:
    """Lets another process write to an upload, and kills it."""
    with subprocess.Popen([sys.executable, "-c", _WRITER, str(folder)], stdout=subprocess.PIPE) as writer:
        assert writer.stdout is not None
        for _ in range(10):
            assert writer.stdout.readline()
        writer.send_signal(signal.SIGKILL)


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def bytes_at(path: str) -> bytes:
    return Path(path).read_bytes()


@pytest.mark.process
async def test_what_was_received_before_a_kill_is_kept_and_the_request_still_known(
    tmp_path: Path, clock: SettableClock
) -> None:
    killed_while_writing(tmp_path)
    store = UploadStore(tmp_path, max_bytes=10**9, expire_after=EXPIRE_AFTER, clock=clock)
    await store.start()
    upload = await store.create(file_name="in.mp4", size_bytes=10**9, request_id="once")
    assert upload.received_bytes >= 1_000_000
    upload = await store.write(id_of(upload), offset_bytes=upload.received_bytes, pieces=pieces(b"y"))
    data = bytes_at(f"{tmp_path}/{id_of(upload)}/data.mp4")
    assert data == b"x" * (len(data) - 1) + b"y"


async def test_a_request_gives_the_same_upload_again_also_after_a_restart(
    store: UploadStore, restarted: Restart
) -> None:
    first = await store.create(file_name="in.mp4", size_bytes=10, request_id="once")
    assert (await store.create(file_name="in.mp4", size_bytes=10, request_id="once")).name == first.name
    again = restarted()
    await again.start()
    assert (await again.create(file_name="in.mp4", size_bytes=10, request_id="once")).name == first.name


@pytest.mark.parametrize(("file_name", "size_bytes"), [("in.mp4", 11), ("other.mp4", 10)])
async def test_a_request_id_is_not_good_for_another_file(store: UploadStore, file_name: str, size_bytes: int) -> None:
    await store.create(file_name="in.mp4", size_bytes=10, request_id="once")
    failure = await refused(store.create(file_name=file_name, size_bytes=size_bytes, request_id="once"))
    assert failure.reason is Reason.REQUEST_ID_REUSED


async def test_without_a_request_id_every_call_makes_an_upload(store: UploadStore) -> None:
    made = [await store.create(file_name="in.mp4", size_bytes=10, request_id=None) for _ in range(2)]
    assert made[0].name != made[1].name


@pytest.mark.parametrize("offset", [0, 3, 5, 10**15])
async def test_writing_begins_only_where_the_upload_ends(store: UploadStore, offset: int) -> None:
    upload = await store.create(file_name="in.mp4", size_bytes=10, request_id=None)
    await store.write(id_of(upload), offset_bytes=0, pieces=pieces(b"0123"))
    failure = await refused(store.write(id_of(upload), offset_bytes=offset, pieces=pieces(b"xx")))
    assert failure.reason is Reason.UPLOAD_OFFSET_WRONG
    assert failure.metadata == {"received_bytes": "4"}
    assert (await store.get(id_of(upload))).received_bytes == 4


async def test_an_upload_never_becomes_longer_than_was_told(store: UploadStore) -> None:
    upload = await store.create(file_name="in.mp4", size_bytes=5, request_id=None)
    failure = await refused(store.write(id_of(upload), offset_bytes=0, pieces=pieces(b"0123", b"45")))
    assert failure.reason is Reason.UPLOAD_TOO_LARGE
    assert (await store.get(id_of(upload))).received_bytes == 4


async def test_a_file_beyond_the_bound_is_refused_before_anything_is_made(store: UploadStore) -> None:
    failure = await refused(store.create(file_name="in.mp4", size_bytes=MAX_BYTES + 1, request_id=None))
    assert failure.reason is Reason.UPLOAD_TOO_LARGE
    assert failure.violations[0].field == "upload.size_bytes"
    assert list(store.folder.iterdir()) == []


async def test_a_file_that_cannot_fit_on_the_disk_is_refused_before_anything_is_made(
    store: UploadStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(100, 95, 5))  # type: ignore[attr-defined]
    failure = await refused(store.create(file_name="in.mp4", size_bytes=10, request_id=None))
    assert failure.reason is Reason.DISK_FULL
    assert list(store.folder.iterdir()) == []


async def test_a_disk_that_fills_up_keeps_what_came_and_goes_on_when_there_is_room(
    store: UploadStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    upload = await store.create(file_name="in.mp4", size_bytes=10, request_id=None)
    pwrite = os.pwrite

    def full(descriptor: int, data: bytes, offset: int) -> int:
        if offset >= 6:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return pwrite(descriptor, data[: 6 - offset], offset)

    with monkeypatch.context() as patched:
        patched.setattr(os, "pwrite", full)
        failure = await refused(store.write(id_of(upload), offset_bytes=0, pieces=pieces(b"0123", b"456789")))
    assert failure.reason is Reason.DISK_FULL
    upload = await store.get(id_of(upload))
    assert upload.received_bytes == 6
    upload = await store.write(id_of(upload), offset_bytes=6, pieces=pieces(b"6789"))
    assert store.path_of(upload.name).read_bytes() == b"0123456789"


async def test_a_disk_that_fails_is_no_fault_of_ours_to_tell_in_detail(
    store: UploadStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    upload = await store.create(file_name="in.mp4", size_bytes=10, request_id=None)

    def broken(*_: object) -> int:
        raise OSError(errno.EIO, "/secret/path")

    monkeypatch.setattr(os, "pwrite", broken)
    failure = await refused(store.write(id_of(upload), offset_bytes=0, pieces=pieces(b"0")))
    assert failure.reason is Reason.STORE_UNAVAILABLE
    assert "secret" not in failure.message


async def test_a_later_writer_ends_an_earlier_one(store: UploadStore) -> None:
    upload = await store.create(file_name="in.mp4", size_bytes=10, request_id=None)

    async def cut() -> AsyncIterator[bytes]:
        yield b"0123"
        # The line was cut and the client has come again, while this writer knows nothing of it.
        await store.write(id_of(upload), offset_bytes=4, pieces=pieces(b"456"))
        yield b"xxx"

    failure = await refused(store.write(id_of(upload), offset_bytes=0, pieces=cut()))
    assert failure.reason is Reason.UPLOAD_OFFSET_WRONG
    upload = await store.write(id_of(upload), offset_bytes=7, pieces=pieces(b"789"))
    assert store.path_of(upload.name).read_bytes() == b"0123456789"


async def test_what_a_client_sent_before_it_broke_off_counts(store: UploadStore) -> None:
    upload = await store.create(file_name="in.mp4", size_bytes=10, request_id=None)

    async def broken() -> AsyncIterator[bytes]:
        yield b"0123"
        raise ConnectionResetError

    with pytest.raises(ConnectionResetError):
        await store.write(id_of(upload), offset_bytes=0, pieces=broken())
    assert (await store.get(id_of(upload))).received_bytes == 4


async def test_a_writer_that_was_closed_before_it_opened_leaves_nothing_open(store: UploadStore) -> None:
    upload = await store.create(file_name="in.mp4", size_bytes=10, request_id=None)
    writer = UploadWriter(store._uploads[id_of(upload)])
    before = open_files()
    writer.close()
    writer.open(0)
    assert open_files() == before
    with pytest.raises(RequestFailure):
        writer.append(b"x")


async def test_an_upload_that_is_gone_is_not_found(store: UploadStore) -> None:
    upload = await whole(store)
    await store.delete(id_of(upload), in_use=unused)
    assert list(store.folder.iterdir()) == []
    for awaited in (
        store.get(id_of(upload)),
        store.delete(id_of(upload), in_use=unused),
        store.write(id_of(upload), offset_bytes=0, pieces=pieces()),
    ):
        assert (await refused(awaited)).reason is Reason.UPLOAD_NOT_FOUND
    with pytest.raises(RequestFailure) as caught:
        store.path_of(upload.name)
    assert caught.value.reason is Reason.UPLOAD_NOT_FOUND


async def test_files_that_somebody_removed_by_hand_are_not_found(store: UploadStore) -> None:
    upload = await whole(store)
    shutil.rmtree(store.folder / id_of(upload))
    assert (await refused(store.get(id_of(upload)))).reason is Reason.UPLOAD_NOT_FOUND
    failure = await refused(store.write(id_of(upload), offset_bytes=10, pieces=pieces(b"x")))
    assert failure.reason is Reason.UPLOAD_NOT_FOUND


async def test_an_upload_that_a_session_reads_is_not_deleted(store: UploadStore) -> None:
    upload = await whole(store)
    failure = await refused(store.delete(id_of(upload), in_use=lambda: {upload.name}))
    assert failure.reason is Reason.UPLOAD_IN_USE
    assert store.path_of(upload.name).exists()


async def test_only_a_whole_upload_is_read(store: UploadStore) -> None:
    upload = await store.create(file_name="in.mp4", size_bytes=10, request_id=None)
    await store.write(id_of(upload), offset_bytes=0, pieces=pieces(b"0123"))
    with pytest.raises(RequestFailure) as caught:
        store.path_of(upload.name)
    assert caught.value.reason is Reason.UPLOAD_INCOMPLETE


async def test_an_input_that_names_an_upload_becomes_its_file_for_an_agent(store: UploadStore) -> None:
    upload = await whole(store)
    given_input = media_pb2.Input(upload=upload.name, native_rate=True)
    resolved = store.resolve_input(given_input)
    assert bytes_at(resolved.uri) == b"0123456789"
    assert resolved.native_rate
    assert given_input.upload == upload.name
    other = media_pb2.Input(uri="/in.mp4")
    assert store.resolve_input(other) is other


async def test_the_extension_is_kept_for_ffmpeg_to_tell_formats_by(store: UploadStore) -> None:
    assert store.path_of((await whole(store, file_name="a/b.MKV")).name).name == "data.mkv"
    assert store.path_of((await whole(store, file_name="x.so-long$")).name).name == "data"


async def test_what_nobody_touches_expires(store: UploadStore, clock: SettableClock) -> None:
    upload = await whole(store)
    assert upload.expire_time == clock.time + EXPIRE_AFTER
    clock.time += EXPIRE_AFTER - timedelta(seconds=1)
    assert await store.remove_expired(in_use=unused) == ()
    clock.time += timedelta(seconds=1)
    assert await store.remove_expired(in_use=unused) == (upload.name,)
    assert list(store.folder.iterdir()) == []


async def test_an_upload_never_expires_while_a_session_reads_it(store: UploadStore, clock: SettableClock) -> None:
    upload = await whole(store)
    clock.time += 10 * EXPIRE_AFTER
    assert await store.remove_expired(in_use=lambda: {upload.name}) == ()
    assert await store.remove_expired(in_use=unused) == (upload.name,)


@pytest.mark.parametrize("use", ["read", "asked for again", "written"])
async def test_using_an_upload_keeps_it(store: UploadStore, clock: SettableClock, use: str) -> None:
    upload = await store.create(file_name="in.mp4", size_bytes=4, request_id="once")
    if use == "read":
        await store.write(id_of(upload), offset_bytes=0, pieces=pieces(b"0123"))
    clock.time += EXPIRE_AFTER - timedelta(seconds=1)
    match use:
        case "read":
            store.path_of(upload.name)
        case "asked for again":
            await store.create(file_name="in.mp4", size_bytes=4, request_id="once")
        case _:
            await store.write(id_of(upload), offset_bytes=0, pieces=pieces(b"0"))
    assert (await store.get(id_of(upload))).expire_time == clock.time + EXPIRE_AFTER
    clock.time += timedelta(seconds=2)
    assert await store.remove_expired(in_use=unused) == ()


async def test_expiry_outlives_a_restart(store: UploadStore, restarted: Restart, clock: SettableClock) -> None:
    upload = await whole(store)
    clock.time += EXPIRE_AFTER / 2
    again = restarted()
    await again.start()
    assert (await again.get(id_of(upload))).expire_time == upload.expire_time


async def test_an_expired_request_id_makes_a_new_upload(store: UploadStore, clock: SettableClock) -> None:
    first = await store.create(file_name="in.mp4", size_bytes=10, request_id="once")
    clock.time += EXPIRE_AFTER
    await store.remove_expired(in_use=unused)
    assert (await store.create(file_name="in.mp4", size_bytes=10, request_id="once")).name != first.name


@pytest.mark.parametrize("damage", ["no facts", "no data", "half facts", "too long", "newer version"])
async def test_what_was_not_wholly_made_is_removed_at_start(
    store: UploadStore, restarted: Restart, damage: str
) -> None:
    upload = await whole(store)
    folder = store.folder / id_of(upload)
    match damage:
        case "no facts":
            (folder / "upload.json").unlink()
        case "no data":
            (folder / "data.mp4").unlink()
        case "half facts":
            (folder / "upload.json").write_text('{"version": 1, "file')
        case "too long":
            (folder / "data.mp4").write_bytes(b"x" * 11)
        case _:
            (folder / "upload.json").write_text('{"version": 2}')
    again = restarted()
    await again.start()
    assert (await refused(again.get(id_of(upload)))).reason is Reason.UPLOAD_NOT_FOUND
    assert list(store.folder.iterdir()) == []


async def test_a_link_in_the_folder_is_neither_followed_nor_removed(
    store: UploadStore, restarted: Restart, tmp_path: Path
) -> None:
    (tmp_path / "elsewhere").mkdir()
    (store.folder / "link").symlink_to(tmp_path / "elsewhere")
    await restarted().start()
    assert (tmp_path / "elsewhere").is_dir()


@pytest.mark.parametrize(
    ("given_name", "kept"),
    [
        ("in.mp4", "in.mp4"),
        ("../../etc/passwd", "passwd"),
        ("C:\\videos\\in.mp4", "in.mp4"),
        ("a\nb\x00.mp4", "ab.mp4"),
        (".hidden.mp4", "hidden.mp4"),
        ("..", "upload"),
        ("", "upload"),
        ("Übung 1.mp4", "Übung 1.mp4"),
    ],
)
def test_file_names_are_made_safe(given_name: str, kept: str) -> None:
    assert sanitized(given_name) == kept


@given(st.text(max_size=400))
def test_no_file_name_leads_anywhere(name: str) -> None:
    safe = sanitized(name)
    assert safe
    assert len(safe.encode()) <= MAX_FILE_NAME_BYTES
    assert "/" not in safe
    assert not any(unicodedata.category(letter).startswith("C") for letter in safe)
    assert not safe.startswith(".")
