"""Requests that cannot be done: each has its code, reason and field, and nothing of it is started, left or told."""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import Callable
from contextlib import aclosing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from asked import FFMPEG, encoded, live_input, make_media, to_file, to_hls, to_push, transcode_of
from daemons import needs_displays

from gpu_balancer.client import AsyncClient
from gpu_balancer.runtime.failures import Reason, RequestFailure
from gpu_balancer.v1 import media_pb2, recording_pb2, session_pb2

if TYPE_CHECKING:
    from daemons import RunningDaemon

    from bench.pages.server import PageServer
    from gpu_balancer.client import Client

pytestmark = pytest.mark.process

URI = "session.transcode.input.uri"
ENCODE = "session.transcode.renditions[0].encode"
SECRET = "s3cr3tstreamkey"


@pytest.fixture
def refused(
    cpu_daemon: RunningDaemon, cpu_client: Client
) -> Callable[[session_pb2.Session, Reason, str], RequestFailure]:
    """Asks for a session that must be refused, and makes sure that nothing of it is left."""

    def ask(asked: session_pb2.Session, reason: Reason, field: str) -> RequestFailure:
        before = cpu_daemon.session_folders(), {session.name for session in cpu_client.list_sessions()}
        with pytest.raises(RequestFailure) as caught:
            cpu_client.create_session(asked)
        failure = caught.value
        assert (failure.reason, failure.reason.code) == (reason, reason.code), failure.message
        assert field in [violation.field for violation in failure.violations], failure.message
        assert (cpu_daemon.session_folders(), {session.name for session in cpu_client.list_sessions()}) == before
        with pytest.raises(RequestFailure) as planned:
            cpu_client.plan_session(asked)
        assert planned.value.reason is reason
        return failure

    return ask


Refused = Callable[[session_pb2.Session, Reason, str], RequestFailure]


@pytest.fixture
def bad_files(media: Path) -> Path:
    """Every kind of file under the roots that is no input."""
    folder = media / "bad"
    folder.mkdir(exist_ok=True)
    (folder / "empty.mp4").write_bytes(b"")
    whole = (media / "clip.mp4").read_bytes()
    (folder / "truncated.mp4").write_bytes(whole[: len(whole) // 3])
    (folder / "noise.mp4").write_bytes(bytes(range(256)) * 400)
    (folder / "words.txt").write_text("This is no film.\n" * 100)
    (folder / "folder.mp4").mkdir(exist_ok=True)
    if not (folder / "pipe.mp4").exists():
        os.mkfifo(folder / "pipe.mp4")
    (folder / "passwd.m3u8").write_text(
        "#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\nfile:///etc/passwd\n#EXT-X-ENDLIST\n"
    )
    (folder / "concat.txt").write_text("ffconcat version 1.0\nfile /etc/passwd\n")
    if not (folder / "out.mp4").is_symlink():
        (folder / "out.mp4").symlink_to("/etc/passwd")
        (folder / "nowhere.mp4").symlink_to("/nonexistent/film.mp4")
    return folder


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("missing.mp4", Reason.INPUT_NOT_FOUND),
        ("empty.mp4/below", Reason.INPUT_NOT_FOUND),
        ("empty.mp4", Reason.INPUT_UNREADABLE),
        ("truncated.mp4", Reason.INPUT_UNREADABLE),
        ("noise.mp4", Reason.INPUT_UNREADABLE),
        ("words.txt", Reason.INPUT_NOT_ALLOWED),
        ("folder.mp4", Reason.INPUT_UNREADABLE),
        ("pipe.mp4", Reason.INPUT_UNREADABLE),
        ("passwd.m3u8", Reason.INPUT_NOT_ALLOWED),
        ("concat.txt", Reason.INPUT_NOT_ALLOWED),
        ("out.mp4", Reason.INPUT_NOT_ALLOWED),
        ("nowhere.mp4", Reason.INPUT_NOT_ALLOWED),
        ("../../../../../../etc/passwd", Reason.INPUT_NOT_ALLOWED),
    ],
)
def test_a_file_that_is_no_input_is_refused_by_what_is_wrong_with_it(
    refused: Refused, bad_files: Path, name: str, reason: Reason
) -> None:
    failure = refused(transcode_of(f"{bad_files}/{name}"), reason, URI)
    assert "root:" not in failure.message, "what is in the file must not be told"


def test_outside_the_roots_nobody_learns_what_is_there(refused: Refused, tmp_path: Path) -> None:
    there = tmp_path / "there.mp4"
    there.write_bytes(b"x")
    messages = [
        refused(transcode_of(path), Reason.INPUT_NOT_ALLOWED, URI).message.replace(str(path), "PATH")
        for path in (there, tmp_path / "absent.mp4")
    ]
    assert messages[0] == messages[1]


def test_an_input_without_video_is_refused(refused: Refused, media: Path) -> None:
    sound = media / "sound.m4a"
    make = [FFMPEG, "-loglevel", "error", "-y", "-f", "lavfi", "-i", "sine=duration=1", "-c:a", "aac", str(sound)]
    subprocess.run(make, check=True, stdin=subprocess.DEVNULL)
    failure = refused(transcode_of(sound), Reason.INPUT_NO_VIDEO, URI)
    assert "video" in failure.message


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "localhost",
        "2130706433",
        "0x7f.1",
        "127.1",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "0",
        "169.254.169.254",
        "10.0.0.1",
        "192.168.1.1",
        "[fd00::1]",
        "100.64.0.1",
    ],
)
@pytest.mark.parametrize("scheme", ["http", "rtmp"])
def test_private_addresses_are_refused_however_they_are_written(refused: Refused, host: str, scheme: str) -> None:
    failure = refused(transcode_of(f"{scheme}://u:{SECRET}@{host}/live/x"), Reason.INPUT_NOT_ALLOWED, URI)
    assert SECRET not in failure.message


@needs_displays
def test_a_page_of_this_machine_is_not_opened(cpu_client: Client, pages: PageServer) -> None:
    page = recording_pb2.PageSource(url=pages.url("still"))
    asked = session_pb2.Session(recording=recording_pb2.RecordingSpec(page=page))
    ended = cpu_client.wait(cpu_client.create_session(asked).name)
    assert ended.failure.reason == "PAGE_NOT_ALLOWED", ended


@pytest.mark.parametrize(
    ("uri", "reason"),
    [
        ("", Reason.INVALID_REQUEST),
        ("film.mp4", Reason.INVALID_REQUEST),
        ("ftp://example.com/film.mp4", Reason.INVALID_REQUEST),
        ("concat:/etc/passwd|/etc/hosts", Reason.INVALID_REQUEST),
        ("http://", Reason.INVALID_REQUEST),
        ("http://example.com:99999/a", Reason.INVALID_REQUEST),
        ("http://ex ample.com/a", Reason.INVALID_REQUEST),
        ("/media/a\nb", Reason.INVALID_REQUEST),
        ("http://host.invalid/film.mp4", Reason.INPUT_UNREACHABLE),
        ("rtmp://host.invalid/app/key", Reason.INPUT_UNREACHABLE),
    ],
)
def test_a_uri_that_leads_nowhere_is_refused(refused: Refused, uri: str, reason: Reason) -> None:
    refused(transcode_of(uri), reason, URI)


@pytest.mark.parametrize(
    ("encoding", "field"),
    [
        ({"width": 321, "height": 180}, f"{ENCODE}.width"),
        ({"width": 320, "height": 181}, f"{ENCODE}.height"),
        ({"width": 0, "height": 0}, f"{ENCODE}.width"),
        ({"width": 100_000, "height": 100_000}, f"{ENCODE}.height"),
        ({"width": 16_384, "height": 16_384}, f"{ENCODE}.height"),
        ({"height": 4_294_967_295}, f"{ENCODE}.height"),
        ({"frame_rate": media_pb2.FrameRate(numerator=0, denominator=1)}, f"{ENCODE}.frame_rate"),
        ({"frame_rate": media_pb2.FrameRate(numerator=30, denominator=0)}, f"{ENCODE}.frame_rate.denominator"),
        ({"frame_rate": media_pb2.FrameRate(numerator=100_000, denominator=1)}, f"{ENCODE}.frame_rate"),
        ({"bit_rate_bps": 1}, f"{ENCODE}.bit_rate_bps"),
        ({"bit_rate_bps": 4_000_000_000}, f"{ENCODE}.bit_rate_bps"),
        ({"quality": 52}, f"{ENCODE}.quality"),
        ({"bit_depth": 9}, f"{ENCODE}.bit_depth"),
    ],
)
def test_sizes_and_rates_that_no_encoder_takes_are_refused(
    refused: Refused, media: Path, encoding: dict[str, Any], field: str
) -> None:
    refused(transcode_of(media / "clip.mp4", encoded(**encoding)), Reason.INVALID_REQUEST, field)


def test_times_before_the_beginning_and_beyond_all_bounds_are_refused(refused: Refused, media: Path) -> None:
    for seconds in (-1, 10**12):
        for name in ("start_offset", "duration"):
            asked = transcode_of(media / "clip.mp4")
            getattr(asked.transcode.input, name).seconds = seconds
            refused(asked, Reason.INVALID_REQUEST, f"session.transcode.input.{name}")
        asked = transcode_of(media / "clip.mp4")
        asked.max_duration.seconds = seconds
        refused(asked, Reason.INVALID_REQUEST, "session.max_duration")
        asked = transcode_of(media / "clip.mp4")
        asked.transcode.renditions[0].encode.keyframe_interval.seconds = seconds
        refused(asked, Reason.INVALID_REQUEST, f"{ENCODE}.keyframe_interval")


@pytest.mark.parametrize("codec", [media_pb2.VIDEO_CODEC_VP9, media_pb2.VIDEO_CODEC_OTHER, 99])
def test_a_codec_that_nobody_makes_is_refused(refused: Refused, media: Path, codec: int) -> None:
    asked = transcode_of(media / "clip.mp4")
    asked.transcode.renditions[0].encode.codec = codec  # type: ignore[assignment]
    refused(asked, Reason.INVALID_REQUEST, f"{ENCODE}.codec")


def test_a_size_that_follows_from_a_strange_input_is_refused_with_what_it_would_be(
    refused: Refused, media: Path
) -> None:
    source = make_media(media / "ribbon.mkv", "-c:v", "ffv1", size="1000x32", seconds=0.2)
    failure = refused(transcode_of(source, encoded(width=320)), Reason.INVALID_REQUEST, f"{ENCODE}.height")
    assert "10 pixels" in failure.message


def test_outputs_that_must_not_be_written_are_refused(
    refused: Refused, media: Path, exports: Path, tmp_path: Path
) -> None:
    (exports / "there.mp4").write_bytes(b"mine")
    (exports / "link.mp4").unlink(missing_ok=True)
    (exports / "link.mp4").symlink_to(tmp_path / "elsewhere.mp4")
    (exports / "full").mkdir(exist_ok=True)
    (exports / "full" / "a.txt").write_bytes(b"mine")
    file, folder = "session.transcode.outputs[0].file.path", "session.transcode.outputs[0].hls.path"
    url = "session.transcode.outputs[0].push.url"
    for output, reason, field in (
        (to_file(tmp_path / "x.mp4"), Reason.OUTPUT_NOT_ALLOWED, file),
        (to_file("/etc/x.mp4"), Reason.OUTPUT_NOT_ALLOWED, file),
        (to_file(f"{exports}/../x.mp4"), Reason.INVALID_REQUEST, file),
        (to_file("../x.mp4"), Reason.INVALID_REQUEST, file),
        (to_file("x.avi"), Reason.INVALID_REQUEST, file),
        (to_file(""), Reason.INVALID_REQUEST, file),
        (to_file(exports / "no" / "folder.mp4"), Reason.OUTPUT_UNWRITABLE, file),
        (to_file(exports / "there.mp4"), Reason.OUTPUT_EXISTS, file),
        (to_file(exports / "link.mp4"), Reason.OUTPUT_EXISTS, file),
        (to_hls(exports / "full", segment_s=2), Reason.OUTPUT_EXISTS, folder),
        (to_hls("/etc/show", segment_s=2), Reason.OUTPUT_NOT_ALLOWED, folder),
        (to_push(f"rtmp://127.0.0.1/live/{SECRET}"), Reason.OUTPUT_NOT_ALLOWED, url),
        (to_push(f"ftp://example.com/{SECRET}"), Reason.INVALID_REQUEST, url),
    ):
        failure = refused(transcode_of(media / "clip.mp4", encoded(height=90), outputs=[output]), reason, field)
        assert SECRET not in failure.message
    assert (exports / "there.mp4").read_bytes() == b"mine"


def test_unknown_names_are_told_as_unknown(cpu_daemon: RunningDaemon, cpu_client: Client, media: Path) -> None:
    for ask, reason in (
        (lambda: cpu_client.get_session("absent"), Reason.SESSION_NOT_FOUND),
        (lambda: cpu_client.stop_session("absent"), Reason.SESSION_NOT_FOUND),
        (lambda: cpu_client.delete_session("absent"), Reason.SESSION_NOT_FOUND),
        (lambda: list(cpu_client.watch_session("absent")), Reason.SESSION_NOT_FOUND),
        (lambda: list(cpu_client.read_session_log("absent")), Reason.SESSION_NOT_FOUND),
        (lambda: list(cpu_client.list_artifacts("absent")), Reason.SESSION_NOT_FOUND),
        (lambda: cpu_client.get_device("cpu-9"), Reason.DEVICE_NOT_FOUND),
        (lambda: cpu_client.get_upload("uploads/absent"), Reason.UPLOAD_NOT_FOUND),
    ):
        with pytest.raises(RequestFailure) as caught:
            ask()
        assert caught.value.reason is reason, caught.value.message
    with pytest.raises(RequestFailure) as caught:
        cpu_client.create_session(
            session_pb2.Session(
                transcode=media_pb2.TranscodeSpec(input=media_pb2.Input(upload="uploads/absent"), profile="ladder-h264")
            )
        )
    assert caught.value.reason is Reason.UPLOAD_NOT_FOUND
    with pytest.raises(RequestFailure) as caught:
        cpu_client.create_session(
            session_pb2.Session(
                transcode=media_pb2.TranscodeSpec(
                    input=media_pb2.Input(uri=str(media / "clip.mp4")), profile="ladder-h265"
                )
            )
        )
    assert caught.value.reason is Reason.PROFILE_UNKNOWN
    assert "ladder-hevc" in caught.value.message
    told = cpu_daemon.cli("session", "absent")
    assert told.returncode == 3
    assert "absent" in told.stderr


def test_an_oversized_message_is_refused_and_the_daemon_goes_on(cpu_client: Client, media: Path) -> None:
    asked = transcode_of(media / "clip.mp4", labels={"note": "x" * 2_000_000})
    with pytest.raises(RequestFailure) as caught:
        cpu_client.create_session(asked)
    assert "larger than max" in caught.value.message or "too large" in caught.value.message
    assert cpu_client.get_balancer().process_id


def test_a_request_id_names_one_session_for_ever(cpu_client: Client, media: Path) -> None:
    asked = transcode_of(media / "clip.mp4", encoded(height=54))
    first = cpu_client.create_session(asked, request_id="the-same")
    assert cpu_client.wait(first).state == session_pb2.SESSION_STATE_SUCCEEDED
    assert cpu_client.create_session(asked, request_id="the-same").name == first.name
    with pytest.raises(RequestFailure) as caught:
        cpu_client.create_session(transcode_of(media / "clip.mp4", encoded(height=90)), request_id="the-same")
    assert caught.value.reason is Reason.REQUEST_ID_REUSED


async def test_two_hundred_requests_of_one_id_at_once_make_one_session_and_one_ffmpeg(
    cpu_daemon: RunningDaemon, media: Path
) -> None:
    asked = transcode_of(live_input(media / "clip.mp4"), encoded(height=54))
    before = cpu_daemon.session_folders()
    async with AsyncClient(cpu_daemon.address) as client:
        requests = (client.create_session(asked, request_id="all-at-once") for _ in range(200))
        (name,) = {session.name for session in await asyncio.gather(*requests)}
        async with aclosing(client.watch_session(name)) as changes:
            async for seen in changes:
                if seen.state == session_pb2.SESSION_STATE_RUNNING:
                    break
        assert cpu_daemon.session_folders() - before == {name.removeprefix("sessions/")}
        folder = str(cpu_daemon.attempt_folder(name))
        lines = [line for line in cpu_daemon.processes().values() if folder in line]
        assert len([line for line in lines if line.startswith(FFMPEG)]) == 1
        await client.stop_session(name)
        await client.wait(name)


def test_secrets_in_urls_are_shown_nowhere(cpu_daemon: RunningDaemon, cpu_client: Client, media: Path) -> None:
    for url in (
        f"http://user:{SECRET}@127.0.0.1/film.mp4",
        f"rtmp://127.0.0.1/live/{SECRET}",
        f"srt://127.0.0.1:9000?passphrase={SECRET}",
        f"http://host.invalid/film.mp4?token={SECRET}",
    ):
        told = cpu_daemon.cli("transcode", url, "-r", "90p")
        assert told.returncode == 3
        assert SECRET not in told.stdout + told.stderr
    told = cpu_daemon.cli("transcode", media / "clip.mp4", "--push", f"rtmp://127.0.0.1/live/{SECRET}", "-r", "90p")
    assert told.returncode == 3
    assert SECRET not in told.stdout + told.stderr
    logs = [cpu_daemon.log_path, *cpu_daemon.state_dir.glob("agents/*/agent.log")]
    assert not [path for path in logs if SECRET in path.read_text()]
