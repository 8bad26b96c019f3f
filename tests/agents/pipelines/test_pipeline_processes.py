"""Commands at work: stops, kills, publishers, servers, and keyframes that meet. Loopback only."""

from __future__ import annotations

import http.server
import os
import re
import signal
import socket
import subprocess
import threading
import time
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from pipeline_cases import CLIP, LADDER, LIVE, NONE, OPUS, SECOND, h264, job, mp4, video
from pipeline_devices import NEW_FFMPEG, OLD_FFMPEG, cpu
from pipeline_programs import run_ffmpeg

from agents.pipelines.command_builder import build_command
from agents.pipelines.exit_classification import ExitOutcome, Outcome, classify_exit
from agents.pipelines.exit_reasons import FailureReason
from agents.pipelines.input_description import parse_input_description
from agents.pipelines.job import (
    FrameRate,
    HlsOutput,
    IngestInput,
    IngestProtocol,
    InputFacts,
    Job,
    PushOutput,
    UriInput,
    VideoCodec,
)
from agents.pipelines.progress import parse_progress

if TYPE_CHECKING:
    from collections.abc import Iterator

    from agents.pipelines.capability import PipelineDevice
    from agents.pipelines.command import Command

pytestmark = pytest.mark.process
_PATIENCE_S = 30.0


@pytest.fixture(params=["new", "old"])
def device(request: pytest.FixtureRequest) -> PipelineDevice:
    """A CPU device with either ffmpeg."""
    program = request.getfixturevalue(f"{request.param}_ffmpeg")
    made = cpu(NEW_FFMPEG if request.param == "new" else OLD_FFMPEG, core_count=2)
    return replace(
        made,
        capabilities=tuple(replace(capability, ffmpeg=program) for capability in made.capabilities),
        ffmpeg_builds=tuple(replace(build, path=program) for build in made.ffmpeg_builds),
    )


def _command(asked: Job, device: PipelineDevice, folder: Path, ingest_url: str | None = None) -> Command:
    command = build_command(
        asked,
        device,
        artifacts_dir=str(folder / "artifacts"),
        progress_path=str(folder / "progress"),
        ingest_url=ingest_url,
    )
    for directory in command.directories:
        Path(directory).mkdir(parents=True, exist_ok=True)
    return command


@contextmanager
def _running(argv: tuple[str, ...] | list[str]) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            yield process
        finally:
            if process.poll() is None:
                process.kill()


def _outcome(process: subprocess.Popen[str], folder: Path, **state: bool) -> Outcome:
    """Awaits a program's end and classifies it as an agent would."""
    _, log = process.communicate(timeout=_PATIENCE_S)
    progress, _ = parse_progress(_progress(folder), None)
    made = progress is not None and progress.frames > 0
    return classify_exit(
        exit_code=process.returncode,
        stopping=state.get("stopping", False),
        log_tail=log.splitlines(),
        made_output=made,
        published=state.get("published", False),
    )


def _progress(folder: Path) -> str:
    path = folder / "progress"
    return path.read_text() if path.exists() else ""


def _await(condition: object, what: str) -> None:
    assert callable(condition)
    deadline = time.monotonic() + _PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not happen"
        os.sched_yield()


def _await_frames(folder: Path, count: int) -> None:
    def enough() -> bool:
        return any(int(frames) >= count for frames in re.findall(r"^frame=(\d+)$", _progress(folder), re.MULTILINE))

    _await(enough, f"frame {count}")


def _free_port(kind: socket.SocketKind) -> int:
    with socket.socket(socket.AF_INET, kind) as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _await_listener(port: int, table: str, state: str) -> None:
    """Looks into the kernel's table of sockets, because a connection made for trying would be taken for the peer."""
    line = re.compile(rf":{port:04X} [0-9A-F]+:[0-9A-F]+ {state}")
    _await(lambda: line.search(Path(f"/proc/net/{table}").read_text()), f"listening on {port}")


def _frames_of(path: Path) -> int:
    decoded = run_ffmpeg("-v", "error", "-stats", "-i", str(path), "-map", "0:v:0", "-f", "null", "-")
    assert decoded.returncode == 0
    return int(re.findall(r"frame=\s*(\d+)", decoded.stderr)[-1])


def _keyframes_of(path: Path) -> list[float]:
    shown = run_ffmpeg(
        *("-skip_frame", "nokey", "-i", str(path), "-map", "0:v:0", "-vf", "showinfo"),
        *("-fps_mode", "passthrough", "-f", "null", "-"),
    )
    return [float(found) for found in re.findall(r"pts_time:([\d.]+)", shown.stderr)]


def test_keyframes_meet_across_formats_and_frame_rates(device: PipelineDevice, media: Path, tmp_path: Path) -> None:
    """0.8 s is no multiple of any frame interval here: each rendition takes its next frame."""
    every = {"keyframe_interval": timedelta(seconds=0.8)}
    renditions = (
        video("a", h264(180, **every), NONE),
        video("b", h264(90, frame_rate=FrameRate(numerator=50, denominator=1), **every), NONE),
        video("c", h264(90, codec=VideoCodec.HEVC, **every), NONE),
        video("d", h264(90, codec=VideoCodec.AV1, **every), NONE),
    )
    asked = job(
        UriInput(uri=str(media / "clip.mp4")),
        CLIP,
        renditions,
        tuple(mp4(f"{one.id}.mp4", one.id) for one in renditions),
    )
    with _running(_command(asked, device, tmp_path).argv) as process:
        assert _outcome(process, tmp_path).kind is ExitOutcome.COMPLETED
    for one in renditions:
        found = _keyframes_of(tmp_path / "artifacts" / f"{one.id}.mp4")
        assert found == pytest.approx([0.0, 0.8, 1.6], abs=0.021)


def test_a_stuttering_input_keeps_its_frames_and_their_times(
    device: PipelineDevice, media: Path, tmp_path: Path
) -> None:
    """Behind tee, ffmpeg would by default fill gaps up to a constant rate."""
    source = tmp_path / "stutter.mkv"
    made = run_ffmpeg(
        *("-v", "error", "-i", str(media / "silent.mp4"), "-vf", "select='lt(n,10)+not(mod(n,5))'"),
        *("-fps_mode", "vfr", "-c:v", "libx264", str(source)),
    )
    assert made.returncode == 0, made.stderr
    asked = job(UriInput(uri=str(source)), CLIP, LADDER[1:2], (mp4("a.mp4"), mp4("b.mp4")))
    asked = replace(asked, facts=replace(CLIP, has_audio=False))
    with _running(_command(asked, device, tmp_path).argv) as process:
        assert _outcome(process, tmp_path).kind is ExitOutcome.COMPLETED
    assert _frames_of(tmp_path / "artifacts" / "b.mp4") == _frames_of(source) == 18


def test_a_stop_completes_every_output(device: PipelineDevice, media: Path, tmp_path: Path) -> None:
    source = UriInput(uri=str(media / "clip.mp4"), native_rate=True, repeat_forever=True)
    outputs = (mp4("a.mp4", "180p"), HlsOutput(id="hls", path="hls", segment_duration=SECOND))
    with _running(_command(job(source, CLIP, LADDER, outputs), device, tmp_path).argv) as process:
        _await_frames(tmp_path, 30)
        process.send_signal(signal.SIGTERM)
        assert _outcome(process, tmp_path, stopping=True).kind is ExitOutcome.STOPPED
    artifacts = tmp_path / "artifacts"
    assert _frames_of(artifacts / "a.mp4") >= 25
    for rung in LADDER:
        assert "#EXTINF" in (artifacts / "hls" / rung.id / "index.m3u8").read_text()


def test_a_live_file_survives_a_kill(device: PipelineDevice, media: Path, tmp_path: Path) -> None:
    source = UriInput(uri=str(media / "clip.mp4"), native_rate=True, repeat_forever=True)
    with _running(_command(job(source, CLIP, LADDER[1:2], (mp4("a.mp4"),)), device, tmp_path).argv) as process:
        _await_frames(tmp_path, 80)
        process.kill()
        assert _outcome(process, tmp_path).failure_reason is FailureReason.KILLED
    assert _frames_of(tmp_path / "artifacts" / "a.mp4") >= 25


def test_a_window_keeps_only_the_last_segments(device: PipelineDevice, media: Path, tmp_path: Path) -> None:
    source = UriInput(uri=str(media / "silent.mp4"), repeat_count=5)
    window = HlsOutput(id="hls", path="hls", segment_duration=SECOND, dvr_window=timedelta(seconds=3))
    facts = replace(CLIP, has_audio=False)
    with _running(_command(job(source, facts, LADDER[1:2], (window,)), device, tmp_path).argv) as process:
        assert _outcome(process, tmp_path).kind is ExitOutcome.COMPLETED
    folder = tmp_path / "artifacts" / "hls" / LADDER[1].id
    listed = re.findall(r"^segment_\d+\.m4s$", (folder / "index.m3u8").read_text(), re.MULTILINE)
    kept = sorted(path.name for path in folder.glob("segment_*"))
    assert len(listed) == 3
    assert kept[-3:] == listed
    assert "segment_00000.m4s" not in kept


def test_a_master_playlist_names_every_variant_with_its_bandwidth(
    device: PipelineDevice, media: Path, tmp_path: Path
) -> None:
    """Of constant quality and without sound, a variant's bit rate is nowhere written: ffmpeg 5.1 would leave it out."""
    renditions = (
        video("a", h264(180), NONE),
        video("b", h264(90, codec=VideoCodec.HEVC), NONE),
        video("c", h264(90, codec=VideoCodec.AV1), NONE),
    )
    outputs = (HlsOutput(id="hls", path="hls", segment_duration=SECOND),)
    asked = job(UriInput(uri=str(media / "silent.mp4")), replace(CLIP, has_audio=False), renditions, outputs)
    with _running(_command(asked, device, tmp_path).argv) as process:
        assert _outcome(process, tmp_path).kind is ExitOutcome.COMPLETED
    master = (tmp_path / "artifacts" / "hls" / "master.m3u8").read_text()
    variants = re.findall(r"#EXT-X-STREAM-INF:BANDWIDTH=(\d+),.*\n(\w)/index\.m3u8", master)
    assert [name for _, name in variants] == ["a", "b", "c"]
    assert all(int(bandwidth) > 20_000 for bandwidth, _ in variants)


@pytest.mark.parametrize("protocol", list(IngestProtocol))
def test_a_publisher_comes_and_leaves(
    protocol: IngestProtocol, device: PipelineDevice, media: Path, tmp_path: Path
) -> None:
    source = IngestInput(protocol=protocol)
    facts = InputFacts(video_codec=VideoCodec.H264, has_audio=True)
    if protocol is IngestProtocol.RTMP:
        port, listening = _free_port(socket.SOCK_STREAM), ("tcp", "0A")
        url, packed = f"rtmp://127.0.0.1:{port}/live/0123456789abcdef", "flv"
    else:
        port, listening = _free_port(socket.SOCK_DGRAM), ("udp", "07")
        url, packed = f"srt://127.0.0.1:{port}?mode=caller&passphrase=0123456789abcdef", "mpegts"
    command = _command(job(source, facts, LADDER[1:2], (mp4("a.mp4"),)), device, tmp_path, url)
    with _running(command.argv) as process:
        _await_listener(port, table=listening[0], state=listening[1])
        published = run_ffmpeg(
            "-v", "error", "-re", "-i", str(media / "clip.mp4"), "-c", "copy", "-f", packed, url, timeout=_PATIENCE_S
        )
        assert published.returncode == 0, published.stderr
        assert _outcome(process, tmp_path, published=True).kind is ExitOutcome.COMPLETED
    assert _frames_of(tmp_path / "artifacts" / "a.mp4") >= 40


@pytest.mark.parametrize("protocol", list(IngestProtocol))
def test_nobody_publishes(protocol: IngestProtocol, device: PipelineDevice, tmp_path: Path) -> None:
    port = _free_port(socket.SOCK_STREAM if protocol is IngestProtocol.RTMP else socket.SOCK_DGRAM)
    url = f"{protocol}://127.0.0.1:{port}" + ("/live/0123456789" if protocol is IngestProtocol.RTMP else "?mode=caller")
    source = IngestInput(protocol=protocol, publisher_timeout=SECOND)
    with _running(_command(job(source, LIVE, LADDER[1:2], (mp4("a.mp4"),)), device, tmp_path, url).argv) as process:
        assert _outcome(process, tmp_path, published=True).failure_reason is FailureReason.NO_PUBLISHER


def test_renditions_are_pushed_and_kept_at_once(device: PipelineDevice, media: Path, tmp_path: Path) -> None:
    rtmp, srt = _free_port(socket.SOCK_STREAM), _free_port(socket.SOCK_DGRAM)
    outputs = (
        PushOutput(id="a", url=f"rtmp://127.0.0.1:{rtmp}/live/key-with-1", renditions=("180p",)),
        PushOutput(id="b", url=f"srt://127.0.0.1:{srt}?passphrase=correcthorse", renditions=("144p",)),
        mp4("kept.mp4", "180p"),
    )
    source = UriInput(uri=str(media / "clip.mp4"), native_rate=True)
    bundled = [build.path for build in device.ffmpeg_builds]
    quiet = [*bundled, "-hide_banner", "-loglevel", "error", "-nostdin", "-y"]
    by_rtmp, by_srt = tmp_path / "rtmp.mkv", tmp_path / "srt.mkv"
    hear_rtmp = ["-listen", "1", "-i", f"rtmp://127.0.0.1:{rtmp}/live/key-with-1", "-map", "0", "-c", "copy"]
    hear_srt = ["-i", f"srt://127.0.0.1:{srt}?mode=listener&passphrase=correcthorse", "-map", "0", "-c", "copy"]
    with (
        _running([*quiet, *hear_rtmp, str(by_rtmp)]) as first,
        _running([*quiet, *hear_srt, str(by_srt)]) as second,
    ):
        _await_listener(rtmp, table="tcp", state="0A")
        _await_listener(srt, table="udp", state="07")
        with _running(_command(job(source, CLIP, LADDER[:2], outputs), device, tmp_path).argv) as process:
            assert _outcome(process, tmp_path).kind is ExitOutcome.COMPLETED
        first.communicate(timeout=_PATIENCE_S)
        second.communicate(timeout=_PATIENCE_S)
    assert _frames_of(tmp_path / "artifacts" / "kept.mp4") == 50
    for path, height in ((by_rtmp, 180), (by_srt, 144)):
        assert parse_input_description(run_ffmpeg("-i", str(path)).stderr).facts.height == height
        assert _frames_of(path) >= 40


def test_newer_formats_are_pushed_by_rtmp(new_ffmpeg: str, media: Path, tmp_path: Path) -> None:
    made = cpu(core_count=2)
    device = replace(
        made,
        capabilities=tuple(replace(capability, ffmpeg=new_ffmpeg) for capability in made.capabilities),
        ffmpeg_builds=(replace(NEW_FFMPEG, path=new_ffmpeg),),
    )
    port, heard = _free_port(socket.SOCK_STREAM), tmp_path / "heard.mkv"
    url = f"rtmp://127.0.0.1:{port}/live/key"
    rendition = video("a", h264(90, codec=VideoCodec.HEVC), OPUS)
    outputs = (PushOutput(id="a", url=url), mp4("kept.mp4"))
    listener = [new_ffmpeg, "-loglevel", "error", "-nostdin", "-listen", "1", "-i", url, "-map", "0", "-c", "copy"]
    with _running([*listener, str(heard)]) as receiver:
        _await_listener(port, table="tcp", state="0A")
        source = UriInput(uri=str(media / "clip.mp4"), native_rate=True)
        with _running(_command(job(source, CLIP, (rendition,), outputs), device, tmp_path).argv) as process:
            assert _outcome(process, tmp_path).kind is ExitOutcome.COMPLETED
        receiver.communicate(timeout=_PATIENCE_S)
    facts = parse_input_description(run_ffmpeg("-i", str(heard)).stderr).facts
    assert (facts.video_codec, facts.audio_codec) == (VideoCodec.HEVC, "opus")


@pytest.mark.parametrize("beside", [(), (mp4("kept.mp4"),)], ids=["alone", "beside-a-file"])
def test_a_server_that_is_not_there_is_told(
    beside: tuple[object, ...], device: PipelineDevice, media: Path, tmp_path: Path
) -> None:
    """Beside a file it goes through tee, where ffmpeg 5.1 would by default carry on without it."""
    port = _free_port(socket.SOCK_STREAM)
    push = PushOutput(id="a", url=f"rtmp://127.0.0.1:{port}/live/key")
    source = UriInput(uri=str(media / "clip.mp4"))
    command = _command(job(source, CLIP, LADDER[:1], (push, *beside)), device, tmp_path)  # type: ignore[arg-type]
    with _running(command.argv) as process:
        _, log = process.communicate(timeout=_PATIENCE_S)
    outcome = classify_exit(
        exit_code=process.returncode,
        stopping=False,
        log_tail=log.splitlines(),
        made_output=False,
        input_name=source.uri,
    )
    assert outcome.failure_reason is FailureReason.OUTPUT_UNREACHABLE


@pytest.mark.parametrize("content", [None, b"", b"no media at all\n" * 100], ids=["missing", "empty", "text"])
def test_an_input_that_is_no_media_is_told(content: bytes | None, device: PipelineDevice, tmp_path: Path) -> None:
    path = tmp_path / "input.mp4"
    if content is not None:
        path.write_bytes(content)
    with _running(
        _command(job(UriInput(uri=str(path)), CLIP, LADDER[:1], (mp4("a.mp4"),)), device, tmp_path).argv
    ) as p:
        assert _outcome(p, tmp_path).failure_reason is FailureReason.INPUT_UNREADABLE


def test_hls_of_an_input_that_has_no_sound_after_all_is_told(
    device: PipelineDevice, media: Path, tmp_path: Path
) -> None:
    source = UriInput(uri=str(media / "silent.mp4"))
    outputs = (HlsOutput(id="hls", path="hls"),)
    asked = job(source, replace(CLIP, has_audio=None), LADDER[:2], outputs)
    with _running(_command(asked, device, tmp_path).argv) as process:
        outcome = _outcome(process, tmp_path)
    assert outcome.failure_reason is FailureReason.INPUT_UNREADABLE
    assert "has_audio" in outcome.message


def test_a_source_that_breaks_off_is_told(device: PipelineDevice, media: Path, tmp_path: Path) -> None:
    """It breaks off at the same place however often it is asked: reading it again from the start would never end."""
    whole = tmp_path / "whole.ts"
    assert run_ffmpeg("-v", "error", "-i", str(media / "clip.mp4"), "-c", "copy", str(whole)).returncode == 0
    body = whole.read_bytes()

    class Breaking(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body[: len(body) * 2 // 3])

        def log_message(self, *_: object) -> None:
            """Says nothing."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Breaking) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            source = UriInput(uri=f"http://127.0.0.1:{server.server_port}/live.ts")
            asked = job(source, LIVE, LADDER[1:2], (mp4("a.mp4"),))
            with _running(_command(asked, device, tmp_path).argv) as process:
                assert _outcome(process, tmp_path).failure_reason is FailureReason.INPUT_LOST
        finally:
            server.shutdown()
            thread.join()
