"""Uploads and downloads: whole files, in spite of cuts, into the right place."""

# ruff: noqa: ASYNC240 - a test may wait for the disk: nothing else runs on its loop
from __future__ import annotations

import os
from typing import TYPE_CHECKING

import grpc
import pytest

from gpu_balancer import AsyncClient, BalancerUnreachable, Client, Reason, RequestFailure, RetryPolicy
from gpu_balancer.client.failures import failure_of
from gpu_balancer.client.uploads import CHUNK_BYTES
from gpu_balancer.v1 import session_service_pb2, upload_service_pb2

if TYPE_CHECKING:
    from pathlib import Path

    from fakes.balancer_server import FakeBalancer

CONTENT = bytes(range(256)) * 40
NAME = "sessions/a/artifacts/out.mp4"


def parts_in(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if path.name.endswith(".part")]


def write_offsets(fake: FakeBalancer) -> list[int]:
    return [one.offset_bytes for one in fake.received if isinstance(one, upload_service_pb2.WriteUploadRequest)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "files"
    made.mkdir()
    return made


@pytest.fixture
def big_file(folder: Path) -> Path:
    file = folder / "in.mov"
    file.write_bytes(os.urandom(CHUNK_BYTES * 3 + 17))
    return file


@pytest.fixture
def with_artifact(fake: FakeBalancer) -> FakeBalancer:
    fake.add_session("a")
    fake.add_artifact("sessions/a", "out.mp4", CONTENT)
    return fake


async def test_an_artifact_becomes_a_file(with_artifact: FakeBalancer, client: AsyncClient, folder: Path) -> None:
    told: list[tuple[int, int]] = []
    place = await client.download_artifact(NAME, folder / "o.mp4", progress=lambda *done: told.append(done))
    assert place.read_bytes() == CONTENT
    assert told[-1] == (len(CONTENT), len(CONTENT))
    assert parts_in(folder) == []


async def test_a_download_goes_on_where_it_was_cut(
    with_artifact: FakeBalancer, client: AsyncClient, folder: Path
) -> None:
    with_artifact.cut("ReadArtifact", 4, 3)
    place = await client.download_artifact(NAME, folder / "o.mp4")
    assert place.read_bytes() == CONTENT
    asked = [
        one.offset_bytes
        for one in with_artifact.received
        if isinstance(one, session_service_pb2.ReadArtifactRequest) and one.limit_bytes != 1
    ]
    assert asked == [0, 4000, 7000]


async def test_a_cut_after_the_last_byte_is_no_cut(
    with_artifact: FakeBalancer, client: AsyncClient, folder: Path
) -> None:
    with_artifact.cut("ReadArtifact", 11)
    place = await client.download_artifact(NAME, folder / "o.mp4")
    assert place.read_bytes() == CONTENT


async def test_a_second_run_goes_on_where_the_first_one_ended(with_artifact: FakeBalancer, folder: Path) -> None:
    impatient = RetryPolicy(patience=RetryPolicy().patience * 0)
    with_artifact.cut("ReadArtifact", 6)
    async with AsyncClient(with_artifact.address, stream_policy=impatient) as client:
        with pytest.raises(BalancerUnreachable):
            await client.download_artifact(NAME, folder / "o.mp4")
        assert [part.stat().st_size for part in parts_in(folder)] == [6000]
        assert not (folder / "o.mp4").exists()
        with_artifact.received.clear()
        place = await client.download_artifact(NAME, folder / "o.mp4")
    assert place.read_bytes() == CONTENT
    assert max(one.offset_bytes for one in with_artifact.received) == 6000  # type: ignore[attr-defined]
    assert parts_in(folder) == []


async def test_halves_of_different_artifacts_are_never_joined(with_artifact: FakeBalancer, folder: Path) -> None:
    impatient = RetryPolicy(patience=RetryPolicy().patience * 0)
    with_artifact.cut("ReadArtifact", 6)
    async with AsyncClient(with_artifact.address, stream_policy=impatient) as client:
        with pytest.raises(BalancerUnreachable):
            await client.download_artifact(NAME, folder / "o.mp4")
        other = bytes(reversed(CONTENT))
        with_artifact.add_artifact("sessions/a", "out.mp4", other, seconds=2)
        place = await client.download_artifact(NAME, folder / "o.mp4")
    assert place.read_bytes() == other


async def test_an_artifact_that_changes_during_a_cut_is_read_from_its_beginning(
    with_artifact: FakeBalancer, client: AsyncClient, folder: Path
) -> None:
    other = bytes(reversed(CONTENT))

    def change(done_bytes: int, _: int) -> None:
        if done_bytes == 4000:
            with_artifact.add_artifact("sessions/a", "out.mp4", other, seconds=2)

    with_artifact.cut("ReadArtifact", 4)
    place = await client.download_artifact(NAME, folder / "o.mp4", progress=change)
    assert place.read_bytes() == other


async def test_an_existing_file_is_kept_unless_it_may_be_replaced(
    with_artifact: FakeBalancer, client: AsyncClient, folder: Path
) -> None:
    place = folder / "o.mp4"
    place.write_bytes(b"mine")
    with pytest.raises(FileExistsError):
        await client.download_artifact(NAME, place)
    assert place.read_bytes() == b"mine"
    await client.download_artifact(NAME, place, overwrite=True)
    assert place.read_bytes() == CONTENT


async def test_an_empty_artifact_becomes_an_empty_file(fake: FakeBalancer, client: AsyncClient, folder: Path) -> None:
    fake.add_session("a")
    fake.add_artifact("sessions/a", "out.mp4", b"")
    assert (await client.download_artifact(NAME, folder / "o.mp4")).read_bytes() == b""


async def test_an_unfinished_artifact_is_read_as_far_as_it_is(
    fake: FakeBalancer, client: AsyncClient, folder: Path
) -> None:
    fake.add_session("a")
    fake.add_artifact("sessions/a", "out.mp4", CONTENT, final=False)
    assert (await client.download_artifact(NAME, folder / "o.mp4")).read_bytes() == CONTENT


async def test_an_unknown_artifact_leaves_nothing_behind(fake: FakeBalancer, client: AsyncClient, folder: Path) -> None:
    with pytest.raises(RequestFailure) as caught:
        await client.download_artifact(NAME, folder / "o.mp4")
    assert caught.value.reason is Reason.ARTIFACT_NOT_FOUND
    assert list(folder.iterdir()) == []


async def test_all_artifacts_keep_their_folders(fake: FakeBalancer, client: AsyncClient, folder: Path) -> None:
    fake.add_session("a")
    for path in ("hls/master.m3u8", "hls/720p/0.m4s", "720p.mp4"):
        fake.add_artifact("sessions/a", path, path.encode())
    written = await client.download_artifacts("a", folder)
    assert {path.relative_to(folder).as_posix(): path.read_text() for path in written} == {
        path: path for path in ("hls/master.m3u8", "hls/720p/0.m4s", "720p.mp4")
    }
    assert written[-1].name == "master.m3u8"


@pytest.mark.parametrize("path", ["../x", "/etc/x", "a/../../x"])
async def test_an_artifact_never_leaves_its_folder(
    fake: FakeBalancer, client: AsyncClient, folder: Path, path: str
) -> None:
    fake.add_session("a")
    fake.add_artifact("sessions/a", path, b"x")
    with pytest.raises(ValueError, match="leaves the folder"):
        await client.download_artifacts("a", folder / "inside")
    assert list(folder.iterdir()) == []


async def test_a_range_is_read_in_spite_of_a_cut(with_artifact: FakeBalancer, client: AsyncClient) -> None:
    with_artifact.cut("ReadArtifact", 2)
    read = b"".join([data async for data in client.read_artifact(NAME, offset_bytes=100, limit_bytes=5000)])
    assert read == CONTENT[100:5100]


async def test_a_file_is_uploaded_whole(fake: FakeBalancer, client: AsyncClient, big_file: Path) -> None:
    told: list[tuple[int, int]] = []
    upload = await client.upload_file(big_file, progress=lambda *done: told.append(done))
    assert fake.uploads[upload.name].data == big_file.read_bytes()
    assert (upload.complete, upload.file_name) == (True, "in.mov")
    size = big_file.stat().st_size
    assert told[-1] == (size, size)
    assert told == sorted(told)


def test_a_blocking_client_uploads_and_downloads(
    fake_aside: FakeBalancer, blocking_client: Client, big_file: Path
) -> None:
    upload = blocking_client.upload_file(big_file)
    content = big_file.read_bytes()
    assert fake_aside.uploads[upload.name].data == content
    fake_aside.do(lambda: fake_aside.add_session("a"))
    fake_aside.do(lambda: fake_aside.add_artifact("sessions/a", "out.mp4", content[:20_000]))
    fake_aside.do(lambda: fake_aside.cut("ReadArtifact", 3))
    assert blocking_client.download_artifact(NAME, big_file.with_name("o.mp4")).read_bytes() == content[:20_000]


async def test_an_upload_goes_on_where_it_was_cut(fake: FakeBalancer, client: AsyncClient, big_file: Path) -> None:
    fake.cut("WriteUpload", 2)
    upload = await client.upload_file(big_file)
    assert fake.uploads[upload.name].data == big_file.read_bytes()
    assert write_offsets(fake) == [0, 2 * CHUNK_BYTES]


def test_a_connection_that_breaks_while_a_part_is_sent_is_no_fault_of_the_daemon() -> None:
    """grpc.aio tells it as INTERNAL, which would end the upload."""
    told = grpc.aio.AioRpcError(
        grpc.StatusCode.INTERNAL, grpc.aio.Metadata(), grpc.aio.Metadata(), "Internal error from Core"
    )
    failure = failure_of(told, address="unix:/run/balancer.sock", timeout=None)
    assert isinstance(failure, BalancerUnreachable)
    assert "the connection broke" in failure.message


async def test_an_upload_whose_last_answer_is_lost_is_complete(
    fake: FakeBalancer, client: AsyncClient, big_file: Path
) -> None:
    fake.lose_answer("WriteUpload")
    upload = await client.upload_file(big_file)
    assert upload.complete
    assert fake.calls["WriteUpload"] == 1


async def test_a_second_run_uses_the_upload_of_the_first(
    fake: FakeBalancer, client: AsyncClient, big_file: Path
) -> None:
    first = await client.upload_file(big_file)
    second = await client.upload_file(big_file)
    assert second.name == first.name
    assert fake.calls["WriteUpload"] == 1


async def test_a_changed_file_is_uploaded_anew(fake: FakeBalancer, client: AsyncClient, big_file: Path) -> None:
    first = await client.upload_file(big_file)
    big_file.write_bytes(os.urandom(CHUNK_BYTES))
    second = await client.upload_file(big_file)
    assert second.name != first.name
    assert fake.uploads[second.name].data == big_file.read_bytes()


async def test_an_upload_that_the_daemon_removed_is_made_anew(
    fake: FakeBalancer, client: AsyncClient, big_file: Path
) -> None:
    first = await client.upload_file(big_file)
    del fake.uploads[first.name]
    second = await client.upload_file(big_file)
    assert second.name != first.name
    assert fake.uploads[second.name].data == big_file.read_bytes()


async def test_a_daemon_that_takes_nothing_more_is_given_up(fake: FakeBalancer, big_file: Path) -> None:
    impatient = RetryPolicy(patience=RetryPolicy().patience * 0)
    fake.refuse("WriteUpload", *[grpc.StatusCode.UNAVAILABLE] * 3)
    async with AsyncClient(fake.address, stream_policy=impatient) as client:
        with pytest.raises(BalancerUnreachable):
            await client.upload_file(big_file)


async def test_a_file_that_shrinks_is_told_as_such(fake: FakeBalancer, client: AsyncClient, big_file: Path) -> None:
    def shrink(done_bytes: int, _: int) -> None:
        if done_bytes == CHUNK_BYTES:
            os.truncate(big_file, CHUNK_BYTES)

    with pytest.raises(OSError, match="became shorter"):
        await client.upload_file(big_file, progress=shrink)


async def test_a_refused_upload_is_not_tried_again(fake: FakeBalancer, client: AsyncClient, big_file: Path) -> None:
    fake.refuse("CreateUpload", RequestFailure(reason=Reason.UPLOAD_TOO_LARGE, message="Cannot take it."))
    with pytest.raises(RequestFailure) as caught:
        await client.upload_file(big_file)
    assert caught.value.reason is Reason.UPLOAD_TOO_LARGE


async def test_an_upload_in_use_is_not_removed(client: AsyncClient) -> None:
    upload = await client.create_upload("in.mov", 3)
    assert (await client.get_upload(upload.name)).size_bytes == 3
    await client.delete_upload(upload.name)
    with pytest.raises(RequestFailure) as caught:
        await client.get_upload(upload.name)
    assert caught.value.reason is Reason.UPLOAD_NOT_FOUND
