"""Looking at inputs with the real ffmpeg: what good ones are, and what is told of bad ones."""

from __future__ import annotations

import random
import subprocess
from datetime import timedelta
from pathlib import Path

import imageio_ffmpeg
import psutil
import pytest

from agents.media_access.input_probe import guard_input, probe_input
from agents.pipelines.job import FrameRate, IngestInput, IngestProtocol, InputFacts, JobInput, UriInput, VideoCodec
from fakes.http_media_server import HttpMediaServer
from gpu_balancer.runtime.failures import Reason, RequestFailure
from gpu_balancer.runtime.settings_sections import InputSettings

pytestmark = pytest.mark.process

FFMPEG = imageio_ffmpeg.get_ffmpeg_exe()
PICTURE = ["-f", "lavfi", "-i", "testsrc2=size=320x180:rate=30000/1001:duration=1"]
SOUND = ["-f", "lavfi", "-i", "sine=duration=1"]


def make(path: Path, *arguments: str) -> Path:
    subprocess.run([FFMPEG, "-v", "error", "-y", *arguments, str(path)], check=True)
    return path


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An input root with a film in it."""
    folder = tmp_path_factory.mktemp("root")
    make(folder / "film.mp4", *PICTURE, *SOUND, "-pix_fmt", "yuv420p", "-c:v", "libx264", "-c:a", "aac")
    return folder


@pytest.fixture
def settings(root: Path) -> InputSettings:
    """Settings that allow the root and hosts of any network."""
    return InputSettings(roots=(str(root),), allow_private_networks=True)


async def look(uri: object, settings: InputSettings, timeout: timedelta | None = None) -> InputFacts:
    return await probe_input(UriInput(uri=str(uri)), settings, FFMPEG, timeout=timeout)


async def refusal(uri: object, settings: InputSettings, timeout: timedelta | None = None) -> RequestFailure:
    with pytest.raises(RequestFailure) as caught:
        await look(uri, settings, timeout)
    assert [violation.field for violation in caught.value.violations] == ["session.transcode.input.uri"]
    assert "Try" in caught.value.message
    return caught.value


async def test_a_film_is_described(root: Path, settings: InputSettings) -> None:
    facts = await look(root / "film.mp4", settings)
    assert (facts.width, facts.height) == (320, 180)
    assert facts.frame_rate == FrameRate(numerator=30000, denominator=1001)
    assert facts.video_codec is VideoCodec.H264
    assert (facts.bit_depth, facts.chroma) == (8, "4:2:0")
    assert (facts.has_audio, facts.audio_codec) == (True, "aac")
    assert facts.duration is not None
    assert abs(facts.duration - timedelta(seconds=1)) < timedelta(seconds=0.1)
    assert facts.format is not None
    assert "mp4" in facts.format


async def test_a_film_by_file_url_and_by_http_is_the_same_film(root: Path, settings: InputSettings) -> None:
    by_path = await look(root / "film.mp4", settings)
    assert await look(f"file://{root}/film.mp4", settings) == by_path
    async with HttpMediaServer() as server:
        server.redirect("/a", "/film.mp4")
        server.body("/film.mp4", (root / "film.mp4").read_bytes())
        assert await look(f"{server.url}/a", settings) == by_path


async def test_a_10_bit_film_without_sound_is_told(root: Path, settings: InputSettings) -> None:
    make(root / "ten.mkv", *PICTURE, "-pix_fmt", "yuv420p10le", "-c:v", "libx265", "-x265-params", "log-level=error")
    facts = await look(root / "ten.mkv", settings)
    assert (facts.video_codec, facts.bit_depth, facts.has_audio) == (VideoCodec.HEVC, 10, False)


async def test_sound_alone_has_no_video_even_with_a_cover(root: Path, settings: InputSettings) -> None:
    make(root / "sound.m4a", *SOUND, "-c:a", "aac")
    make(root / "cover.png", "-f", "lavfi", "-i", "color=red:size=64x64:duration=0.04", "-frames:v", "1")
    cover = ["-map", "0", "-map", "1", "-c:v", "copy", "-disposition:v", "attached_pic"]
    make(root / "covered.mp3", *SOUND, "-i", str(root / "cover.png"), *cover)
    for name in ["sound.m4a", "covered.mp3"]:
        assert (await refusal(root / name, settings)).reason is Reason.INPUT_NO_VIDEO


async def test_what_is_no_film_is_told_apart(root: Path, settings: InputSettings) -> None:
    film = (root / "film.mp4").read_bytes()
    make(root / "film.mkv", "-i", str(root / "film.mp4"), "-c", "copy")
    (root / "empty.mp4").touch()
    (root / "text.mp4").write_text("these are only words\n" * 100)
    # Always the same: now and then noise looks like sound to a demuxer.
    (root / "noise.mp4").write_bytes(random.Random(1).randbytes(20_000))
    (root / "cut.mp4").write_bytes(film[: len(film) // 2])
    (root / "head.mkv").write_bytes((root / "film.mkv").read_bytes()[:700])
    (root / "list.m3u8").write_text("#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:1,\nfilm.mp4\n#EXT-X-ENDLIST\n")
    (root / "list.txt").write_text("ffconcat version 1.0\nfile film.mp4\n")
    expected = {
        "missing.mp4": (Reason.INPUT_NOT_FOUND, "no such file"),
        "": (Reason.INPUT_UNREADABLE, "it is a folder"),
        "empty.mp4": (Reason.INPUT_UNREADABLE, "it is empty"),
        "text.mp4": (Reason.INPUT_UNREADABLE, "cut short"),
        "noise.mp4": (Reason.INPUT_UNREADABLE, ""),
        "cut.mp4": (Reason.INPUT_UNREADABLE, "cut short"),
        "head.mkv": (Reason.INPUT_UNREADABLE, ""),
        "list.m3u8": (Reason.INPUT_NOT_ALLOWED, "a playlist"),
        "list.txt": (Reason.INPUT_NOT_ALLOWED, "a playlist"),
    }
    for name, (reason, words) in expected.items():
        failure = await refusal(root / name, settings)
        assert (failure.reason, words in failure.message) == (reason, True), f"{name}: {failure.message}"


async def test_files_outside_the_roots_and_protocols_that_are_off_are_refused(root: Path, tmp_path: Path) -> None:
    elsewhere = InputSettings(roots=(str(tmp_path),))
    assert (await refusal(root / "film.mp4", elsewhere)).reason is Reason.INPUT_NOT_ALLOWED
    no_files = InputSettings(roots=(str(root),), protocols=("https",))
    assert (await refusal(root / "film.mp4", no_files)).reason is Reason.INPUT_NOT_ALLOWED
    assert (await refusal("http://127.0.0.1:9/a.mp4", no_files)).reason is Reason.INPUT_NOT_ALLOWED


async def test_a_private_address_is_refused_before_anything_is_asked(root: Path) -> None:
    async with HttpMediaServer() as server:
        server.body("/film.mp4", (root / "film.mp4").read_bytes())
        failure = await refusal(f"{server.url}/film.mp4", InputSettings())
        assert failure.reason is Reason.INPUT_NOT_ALLOWED
        assert server.requests == []


@pytest.mark.parametrize(
    "url",
    [
        "http://user:hunter2secret@127.0.0.1:{}/film.mp4?token=hunter2secret",
        "rtmp://127.0.0.1:{}/live/hunter2secret",
        "rtsp://user:hunter2secret@127.0.0.1:{}/stream",
    ],
)
async def test_a_port_where_nobody_listens_is_unreachable_and_no_secret_is_told(
    settings: InputSettings, url: str, unused_tcp_port: int
) -> None:
    failure = await refusal(url.format(unused_tcp_port), settings)
    assert failure.reason is Reason.INPUT_UNREACHABLE
    assert "hunter2secret" not in failure.message + failure.violations[0].description


async def test_http_that_is_no_film_is_told(settings: InputSettings) -> None:
    async with HttpMediaServer() as server:
        server.body("/page", b"<!DOCTYPE html><html><body>Please log in</body></html>")
        page = await refusal(f"{server.url}/page", settings)
        assert page.reason is Reason.INPUT_UNREADABLE
        gone = await refusal(f"{server.url}/gone.mp4", settings)
        assert (gone.reason, "404" in gone.message) == (Reason.INPUT_UNREACHABLE, True)


async def test_a_server_that_stalls_is_given_up_in_time(settings: InputSettings) -> None:
    async with HttpMediaServer() as server:
        server.answers["/stalled.mp4"] = None
        failure = await refusal(f"{server.url}/stalled.mp4", settings, timedelta(seconds=0.3))
    assert (failure.reason, "within 0.3 s" in failure.message) == (Reason.INPUT_UNREACHABLE, True)


async def test_an_ffmpeg_that_awaits_a_slow_server_is_ended_at_the_deadline(settings: InputSettings) -> None:
    """SRT has no connection to refuse: ffmpeg would go on calling."""
    slow = settings.model_copy(update={"probe_timeout_s": 1.0})
    before = psutil.Process().children(recursive=True)
    failure = await refusal("srt://127.0.0.1:9?passphrase=hunter2secret", slow)
    assert failure.reason is Reason.INPUT_UNREACHABLE
    assert "hunter2secret" not in failure.message
    children = {*psutil.Process().children(recursive=True)} - {*before}
    assert [child for child in children if child.status() != psutil.STATUS_ZOMBIE] == []


async def test_a_client_cannot_lengthen_the_operators_bound(settings: InputSettings) -> None:
    short = settings.model_copy(update={"probe_timeout_s": 0.2})
    async with HttpMediaServer() as server:
        server.answers["/stalled.mp4"] = None
        failure = await refusal(f"{server.url}/stalled.mp4", short, timedelta(hours=1))
    assert "within 0.2 s" in failure.message


async def test_an_ingest_cannot_be_looked_at_and_needs_no_guard(settings: InputSettings) -> None:
    ingest = IngestInput(protocol=IngestProtocol.RTMP)
    with pytest.raises(RequestFailure) as caught:
        await probe_input(ingest, settings, FFMPEG)
    assert caught.value.reason is Reason.INVALID_REQUEST
    assert caught.value.violations[0].field == "session.transcode.input.declared_facts"
    assert await guard_input(ingest, settings) == ingest


async def test_a_missing_ffmpeg_is_the_daemons_fault_not_the_inputs(root: Path, settings: InputSettings) -> None:
    with pytest.raises(RequestFailure) as caught:
        await probe_input(UriInput(uri=str(root / "film.mp4")), settings, "/nowhere/ffmpeg")
    assert caught.value.reason is Reason.NO_DEVICE_READY
    assert caught.value.violations == ()


async def test_a_guarded_input_is_what_will_be_opened(root: Path, settings: InputSettings) -> None:
    (root / "link.mp4").symlink_to(root / "film.mp4")
    source: JobInput = UriInput(uri=f"file://{root}/link.mp4", native_rate=True, repeat_count=2)
    guarded = await guard_input(source, settings)
    assert guarded == UriInput(uri=str(root / "film.mp4"), native_rate=True, repeat_count=2)
    async with HttpMediaServer() as server:
        server.redirect("/a", "/b")
        server.body("/b", b"media")
        guarded = await guard_input(UriInput(uri=f"{server.url}/a"), settings)
        assert guarded == UriInput(uri=f"{server.url}/b")
    push = UriInput(uri="srt://127.0.0.1:9000?latency=20")
    assert await guard_input(push, settings) == push
