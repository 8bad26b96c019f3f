"""The whole way in one call, and what becomes of local names."""

# ruff: noqa: ASYNC240 - a test may wait for the disk: nothing else runs on its loop
from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from gpu_balancer import AsyncClient, Client, Reason, RequestFailure, Violation
from gpu_balancer.client.deliveries import check_places, file_delivery, hls_delivery, names_folder
from gpu_balancer.client.specs import input_uri, local_file, make_renditions
from gpu_balancer.v1 import balancer_service_pb2, media_pb2, session_pb2

if TYPE_CHECKING:
    from fakes.balancer_server import FakeBalancer

SUCCEEDED = session_pb2.SESSION_STATE_SUCCEEDED


def finish(fake: FakeBalancer) -> None:
    """Has every session end at once, with an artifact for each of its outputs."""

    def end(session: session_pb2.Session) -> None:
        for output in session.transcode.outputs:
            if output.WhichOneof("kind") == "file":
                fake.add_artifact(session.name, output.file.path, output.file.path.encode())
            else:
                for path in ("master.m3u8", "720p/0.m4s"):
                    fake.add_artifact(session.name, f"{output.hls.path}/{path}", path.encode())
        fake.advance(session.name, state=SUCCEEDED)

    fake.on_create = end


@pytest.fixture
def source(tmp_path: Path) -> Path:
    file = tmp_path / "in.mov"
    file.write_bytes(b"a film" * 1000)
    return file


def test_a_transcode_is_saved_to_a_local_file(
    fake_aside: FakeBalancer, blocking_client: Client, source: Path, tmp_path: Path
) -> None:
    finish(fake_aside)
    session = blocking_client.transcode(source, renditions=["1280x720:hevc:2.5M"], save_to=tmp_path / "out.mp4")
    assert session.state == SUCCEEDED
    assert (tmp_path / "out.mp4").read_text() == "720p.mp4"
    (rendition,) = session.transcode.renditions
    assert (rendition.encode.codec, rendition.encode.width, rendition.encode.bit_rate_bps) == (
        media_pb2.VIDEO_CODEC_HEVC,
        1280,
        2_500_000,
    )
    assert session.transcode.input.uri == str(source)


async def test_how_a_session_waits_and_gives_way_is_asked_for(
    fake: FakeBalancer, client: AsyncClient, source: Path
) -> None:
    await client.transcode(
        source,
        wait=False,
        priority=session_pb2.PRIORITY_BATCH,
        max_wait=timedelta(minutes=10),
        preemptible=True,
        reserved_speed=0.5,
    )
    asked = fake.received[-1].session  # type: ignore[attr-defined]
    assert (asked.max_wait.seconds, asked.preemptible, asked.reserved_speed) == (600, True, 0.5)
    await client.transcode(source, wait=False)
    plain = fake.received[-1].session  # type: ignore[attr-defined]
    assert not plain.HasField("max_wait")
    assert not plain.HasField("reserved_speed")


async def test_waiting_for_a_device_is_told_like_any_change(
    fake: FakeBalancer, client: AsyncClient, source: Path
) -> None:
    def queue(session: session_pb2.Session) -> None:
        fake.advance(session.name, state=session_pb2.SESSION_STATE_QUEUED, queue=session_pb2.QueueStatus(position=2))

    fake.on_create = queue
    fake.on_told = lambda session: fake.advance(session.name, state=SUCCEEDED)
    seen: list[tuple[int, int]] = []
    ended = await client.transcode(
        source,
        max_wait=timedelta(minutes=1),
        on_change=lambda session: seen.append((session.state, session.queue.position)),
    )
    assert ended.state == SUCCEEDED
    assert seen[0] == (session_pb2.SESSION_STATE_QUEUED, 2)


async def test_a_profile_gives_the_names_of_its_files(
    fake: FakeBalancer, client: AsyncClient, source: Path, tmp_path: Path
) -> None:
    finish(fake)
    ladder = [media_pb2.Rendition(id="high"), media_pb2.Rendition(id="low")]
    fake.profiles.append(balancer_service_pb2.Profile(name="two", renditions=ladder))
    session = await client.transcode(source, profile="two", save_to=tmp_path / "o.mkv")
    assert list(session.transcode.renditions) == []
    assert (tmp_path / "o-high.mkv").read_text() == "high.mkv"
    assert (tmp_path / "o-low.mkv").read_text() == "low.mkv"


async def test_an_unknown_profile_is_refused_with_those_that_there_are(
    fake: FakeBalancer, client: AsyncClient, source: Path
) -> None:
    fake.profiles.append(balancer_service_pb2.Profile(name="two"))
    with pytest.raises(RequestFailure, match="Try one of these: two") as caught:
        await client.transcode(source, profile="three")
    assert caught.value.reason is Reason.PROFILE_UNKNOWN


async def test_hls_is_fetched_into_a_folder(
    fake: FakeBalancer, client: AsyncClient, source: Path, tmp_path: Path
) -> None:
    finish(fake)
    await client.transcode(source, save_to=tmp_path / "show")
    assert (tmp_path / "show/master.m3u8").read_text() == "master.m3u8"
    assert (tmp_path / "show/720p/0.m4s").read_text() == "720p/0.m4s"


async def test_a_file_that_the_daemon_may_not_read_is_uploaded(
    fake: FakeBalancer, client: AsyncClient, source: Path, tmp_path: Path
) -> None:
    finish(fake)
    fake.readable_paths = set()
    session = await client.transcode(source, save_to=tmp_path / "out.mp4")
    assert fake.uploads[session.transcode.input.upload].data == source.read_bytes()
    await client.discard_upload(session)
    assert fake.uploads == {}
    await client.discard_upload(session)


async def test_a_file_larger_than_the_daemon_takes_is_not_uploaded(
    fake: FakeBalancer, client: AsyncClient, source: Path
) -> None:
    fake.readable_paths = set()
    fake.max_upload_bytes = 100
    with pytest.raises(RequestFailure, match="6,000 bytes") as caught:
        await client.transcode(source)
    assert caught.value.reason is Reason.UPLOAD_TOO_LARGE
    assert fake.calls["CreateUpload"] == 0


@pytest.mark.parametrize(
    ("name", "words"), [("no.mov", "there is no such file here"), ("", "it is a folder"), ("pipe", "no regular file")]
)
async def test_what_is_no_file_here_either_is_said_to_be_none(
    fake: FakeBalancer, client: AsyncClient, tmp_path: Path, name: str, words: str
) -> None:
    os.mkfifo(tmp_path / "pipe")
    fake.readable_paths = set()
    with pytest.raises(RequestFailure, match=words) as caught:
        await client.transcode(tmp_path / name)
    assert caught.value.reason is Reason.INPUT_NOT_FOUND
    assert "the daemon may not read one of that name" in caught.value.message
    assert fake.calls["CreateUpload"] == 0


async def test_what_is_wrong_with_an_upload_is_said_of_the_file(
    fake: FakeBalancer, client: AsyncClient, source: Path
) -> None:
    fake.readable_paths = set()
    fake.upload_refusal = RequestFailure(
        reason=Reason.INPUT_UNREADABLE,
        message="Cannot read /state/uploads/u1/data.mov: it is no media. Try another file than uploads/u1.",
        violations=(Violation(field="session.transcode.input.upload", description="uploads/u1 is no media"),),
    )
    asked = session_pb2.Session(transcode=media_pb2.TranscodeSpec(input=media_pb2.Input(uri=str(source))))
    for ask in (client.submit, client.plan):
        with pytest.raises(RequestFailure) as caught:
            await ask(asked)
        assert caught.value.message == f"Cannot read {source}: it is no media. Try another file than {source}."
        assert caught.value.violations[0].description == f"{source} is no media"


async def test_a_session_that_failed_over_an_upload_says_so_of_the_file(
    fake: FakeBalancer, client: AsyncClient, source: Path
) -> None:
    fake.readable_paths = set()

    def fail(session: session_pb2.Session) -> None:
        path = f"/state/{session.transcode.input.upload}/data.mov"
        failure = session_pb2.Failure(
            reason="INPUT_UNREADABLE", message=f"Cannot read {path}.", log_tail=[f"{path}: moov atom not found"]
        )
        fake.advance(session.name, state=session_pb2.SESSION_STATE_FAILED, failure=failure)

    fake.on_create = fail
    session = await client.transcode(source)
    assert session.failure.message == f"Cannot read {source}."
    assert list(session.failure.log_tail) == [f"{source}: moov atom not found"]


async def test_a_failed_session_is_given_back_and_nothing_is_fetched(
    fake: FakeBalancer, client: AsyncClient, source: Path, tmp_path: Path
) -> None:
    failure = session_pb2.Failure(reason="INPUT_UNREADABLE", message="Cannot decode it.")
    fake.on_create = lambda session: fake.advance(session.name, state=session_pb2.SESSION_STATE_FAILED, failure=failure)
    session = await client.transcode(source, save_to=tmp_path / "out.mp4")
    assert session.failure.reason == "INPUT_UNREADABLE"
    assert not (tmp_path / "out.mp4").exists()


async def test_without_waiting_the_session_is_given_as_placed(
    fake: FakeBalancer, client: AsyncClient, source: Path
) -> None:
    session = await client.transcode(source, wait=False)
    assert session.state == session_pb2.SESSION_STATE_STARTING
    assert fake.calls["WatchSession"] == 0


@pytest.mark.parametrize(
    "options", [{"save_to": "o.mp4", "wait": False}, {"profile": "p", "renditions": ["720p"]}, {"renditions": ["7"]}]
)
async def test_options_that_exclude_one_another_are_refused(
    fake: FakeBalancer, client: AsyncClient, source: Path, options: dict[str, object]
) -> None:
    with pytest.raises(ValueError):
        await client.transcode(source, **options)  # type: ignore[arg-type]
    assert fake.sessions == {}


async def test_an_existing_result_is_refused_before_anything_is_submitted(
    fake: FakeBalancer, client: AsyncClient, source: Path, tmp_path: Path
) -> None:
    (tmp_path / "out.mp4").write_bytes(b"mine")
    with pytest.raises(FileExistsError, match="-y to replace it"):
        await client.transcode(source, save_to=tmp_path / "out.mp4")
    assert fake.sessions == {}


def test_one_rendition_goes_to_the_very_name() -> None:
    delivery = file_delivery("/tmp/out.mp4", ["720p"])
    assert [(fetch.artifact_path, str(fetch.target)) for fetch in delivery.fetches] == [("720p.mp4", "/tmp/out.mp4")]
    assert list(delivery.outputs[0].renditions) == ["720p"]


def test_several_renditions_go_beside_one_another() -> None:
    names = [str(fetch.target) for fetch in file_delivery("/tmp/out.ts", ["720p", "360p"]).fetches]
    assert names == ["/tmp/out-720p.ts", "/tmp/out-360p.ts"]


def test_a_placeholder_says_where_the_rendition_stands() -> None:
    names = [str(fetch.target) for fetch in file_delivery("/tmp/{rendition}_x.mkv", ["720p", "360p"]).fetches]
    assert names == ["/tmp/720p_x.mkv", "/tmp/360p_x.mkv"]


def test_a_name_without_a_known_container_is_refused() -> None:
    with pytest.raises(ValueError, match=r"Try \.mp4, \.mkv, \.ts, or a folder"):
        file_delivery("/tmp/out.avi", ["720p"])


@pytest.mark.parametrize(("name", "folder"), [("out/", True), ("out", True), ("out.mp4", False)])
def test_a_name_without_a_suffix_means_a_folder(name: str, folder: bool) -> None:
    assert names_folder(name) is folder


def test_places_are_checked_beforehand(tmp_path: Path) -> None:
    source = tmp_path / "in.mp4"
    source.write_bytes(b"x")
    full = tmp_path / "full"
    full.mkdir()
    (full / "x").touch()
    (tmp_path / "dir.mp4").mkdir()

    def check(name: str, *, overwrite: bool = True, hls: bool = False) -> None:
        delivery = hls_delivery(tmp_path / name) if hls else file_delivery(tmp_path / name, ["a"])
        check_places(delivery.fetches, overwrite=overwrite, source=source)

    check("new.mp4", overwrite=False)
    check("new", hls=True, overwrite=False)
    check("full", hls=True)
    for name, words in {"no/out.mp4": "no folder", "dir.mp4": "is a folder", "in.mp4": "is the input"}.items():
        with pytest.raises(OSError, match=words):
            check(name)
    with pytest.raises(FileExistsError, match="not empty"):
        check("full", hls=True, overwrite=False)
    (tmp_path / "other.mp4").touch()
    with pytest.raises(NotADirectoryError, match="is no folder"):
        check("other.mp4", hls=True)
    with pytest.raises(FileExistsError, match="twice"):
        check_places(file_delivery(tmp_path / "a.mp4", ["a"]).fetches * 2, overwrite=True)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_is_not_writable_is_refused(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o500)
    with pytest.raises(PermissionError, match="is not writable"):
        check_places(file_delivery(closed / "a.mp4", ["a"]).fetches, overwrite=False)


def test_renditions_are_named_for_their_sizes_without_repeating() -> None:
    made = make_renditions(["720p", "1280x720:hevc", "1280x720:hevc:1M", "x=720p", "copy", "source", "640x"])
    names = ["720p", "720p-hevc", "720p-2", "x", "copy", "source", "640w"]
    assert [rendition.id for rendition in made] == names


def test_two_renditions_of_one_name_are_refused() -> None:
    with pytest.raises(ValueError, match="two renditions named 'a'"):
        make_renditions(["a=720p", "a=360p"])


def test_a_relative_input_becomes_absolute_and_a_url_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert input_uri("in.mov") == str(tmp_path / "in.mov")
    assert input_uri("srt://host:1?x=y") == "srt://host:1?x=y"
    assert input_uri("~/in.mov") == str(Path("~/in.mov").expanduser())
    with pytest.raises(ValueError):
        input_uri("")


def test_only_an_existing_regular_file_counts_as_local(tmp_path: Path) -> None:
    spaced = tmp_path / "a b.mov"
    spaced.touch()
    assert local_file(media_pb2.Input(uri=str(spaced))) == spaced
    assert local_file(media_pb2.Input(uri=f"file://{tmp_path}/a%20b.mov")) == spaced
    assert local_file(media_pb2.Input(uri=str(tmp_path))) is None
    assert local_file(media_pb2.Input(uri="http://localhost/a.mov")) is None
    assert local_file(media_pb2.Input(upload="uploads/u")) is None
