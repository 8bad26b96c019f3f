"""Peers that fall silent in the middle: whatever an attempt waits for, it hears its one stop and completes its file."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from session_rig import FACTS, FFMPEG, Rig, Rigs, endless, frames_of, job_of, key_of, processes_of

from agents.pipelines.job import Container, IngestInput, IngestProtocol, Job, PushOutput, UriInput
from agents.sessions.attempt import AttemptStatus, Ending
from agents.sessions.attempt_health import HealthBounds
from agents.sessions.blockage import Blockage, find_blockage, moved_bytes
from fakes.silent_peers import (
    await_truth,
    free_port,
    hls_until,
    http_until,
    listens,
    program,
    rtsp_silent_after,
    say_nothing,
    silent_udp,
    tcp_server,
)

pytestmark = pytest.mark.process

LIVE = replace(FACTS, duration=None)
QUICK = HealthBounds(stalled_after=timedelta(seconds=2), stalled_timeout=timedelta(seconds=4))
PATIENT = replace(QUICK, stalled_timeout=timedelta(minutes=1))


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty seconds as a transport stream, and in segments of a second beside it."""
    folder = tmp_path_factory.mktemp("film")
    sources = ["-f", "lavfi", "-i", "testsrc2=s=320x180:r=25:d=20", "-f", "lavfi", "-i", "sine=d=20"]
    coding = ["-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p", "-g", "25", "-c:a", "aac"]
    path = folder / "film.ts"
    subprocess.run([FFMPEG, "-v", "error", *sources, *coding, str(path)], check=True, stdin=subprocess.DEVNULL)
    parts = ["-c", "copy", "-f", "segment", "-segment_time", "1", str(folder / "part%d.ts")]
    subprocess.run([FFMPEG, "-v", "error", "-i", str(path), *parts], check=True, stdin=subprocess.DEVNULL)
    return path


async def standing_still(rig: Rig, job: Job) -> AttemptStatus:
    """Awaits that it has written frames and writes no more."""
    return await rig.until(job, lambda status: any(one.type == "STALLED" for one in status.conditions))


async def stopped_whole(rig: Rig, job: Job) -> None:
    """Stops a program that waits for its input; it has to complete its file by itself."""
    stalled = await standing_still(rig, job)
    await rig.registry.stop(key_of(job))
    ended = await rig.ended(job)
    assert (ended.ending, ended.failure) == (Ending.STOPPED, None)
    assert stalled.progress is not None
    assert frames_of(rig.folder(job).artifacts / "out.mp4") >= stalled.progress.frames > 0
    assert processes_of(rig.folder(job)) == []


@pytest.mark.parametrize("length_told", [False, True], ids=["live", "file"])
async def test_a_web_server_that_falls_silent(rigs: Rigs, film: Path, length_told: bool) -> None:
    rigs.settle(runner={"health": PATIENT})
    content = await asyncio.to_thread(film.read_bytes)
    facts = replace(FACTS, duration=timedelta(seconds=20)) if length_told else LIVE
    with tcp_server(http_until(content, len(content) * 3 // 4, length_told=length_told)) as port:
        job = job_of(UriInput(uri=f"http://127.0.0.1:{port}/film.ts"), facts=facts)
        async with rigs.start() as rig:
            await rig.launch(job)
            await stopped_whole(rig, job)


async def test_a_web_server_that_falls_silent_within_a_segment(rigs: Rigs, film: Path) -> None:
    rigs.settle(runner={"health": PATIENT})
    names = [f"part{number}.ts" for number in range(6)]
    with tcp_server(hls_until(film.parent, names=names, half="part5.ts")) as port:
        job = job_of(UriInput(uri=f"http://127.0.0.1:{port}/live.m3u8"), facts=LIVE)
        async with rigs.start() as rig:
            await rig.launch(job)
            await stopped_whole(rig, job)


async def test_a_stalled_input_is_ended_by_itself_with_what_was_written(rigs: Rigs, film: Path) -> None:
    rigs.settle(runner={"health": QUICK})
    names = [f"part{number}.ts" for number in range(6)]
    with tcp_server(hls_until(film.parent, names=names, half="part5.ts")) as port:
        job = job_of(UriInput(uri=f"http://127.0.0.1:{port}/live.m3u8"), facts=LIVE)
        async with rigs.start() as rig:
            await rig.launch(job)
            ended = await rig.ended(job)
    assert ended.failure is not None
    assert ended.failure.reason == "STALLED"
    assert frames_of(rig.folder(job).artifacts / "out.mp4") >= 50


async def test_a_playlist_that_gets_nothing_new_is_ended_by_itself_with_what_was_written(
    rigs: Rigs, film: Path
) -> None:
    """ffmpeg sleeps between looks at the playlist and hears nothing: it has to be killed, which costs a fragment."""
    rigs.settle(runner={"health": QUICK, "stop_timeout": timedelta(seconds=3)})
    names = [f"part{number}.ts" for number in range(6)]
    with tcp_server(hls_until(film.parent, names=names, half=None)) as port:
        job = job_of(UriInput(uri=f"http://127.0.0.1:{port}/live.m3u8"), facts=LIVE)
        async with rigs.start() as rig:
            await rig.launch(job)
            ended = await rig.ended(job)
            assert processes_of(rig.folder(job)) == []
    assert ended.failure is not None
    assert ended.failure.reason == "STALLED"
    assert frames_of(rig.folder(job).artifacts / "out.mp4") >= 50


@pytest.mark.parametrize("protocol", list(IngestProtocol))
async def test_a_publisher_that_falls_silent(rigs: Rigs, clip: Path, protocol: IngestProtocol) -> None:
    rigs.settle(runner={"health": PATIENT})
    job = job_of(IngestInput(protocol=protocol), facts=LIVE)
    async with rigs.start() as rig:
        url = await rig.launch(job)
        assert url is not None
        form = ["-f", "flv"] if protocol is IngestProtocol.RTMP else ["-f", "mpegts"]
        table = "tcp" if protocol is IngestProtocol.RTMP else "udp"
        port = int(url.split(":")[2].split("/")[0].split("?")[0])
        await asyncio.to_thread(await_truth, listens(port, table))
        argv = [FFMPEG, "-v", "error", "-re", "-stream_loop", "-1", "-i", str(clip), "-c", "copy", *form, url]
        with program(argv, ready=lambda: True) as publisher:
            await rig.running(job)
            publisher.send_signal(signal.SIGSTOP)
            await stopped_whole(rig, job)


@pytest.fixture
def pulled(clip: Path, request: pytest.FixtureRequest) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """A server that somebody can pull from, and its process."""
    rtmp = request.param == "rtmp"
    port = free_port(socket.SOCK_STREAM if rtmp else socket.SOCK_DGRAM)
    url = f"rtmp://127.0.0.1:{port}/live/film" if rtmp else f"srt://127.0.0.1:{port}"
    served = ["-f", "flv", "-listen", "1", url] if rtmp else ["-f", "mpegts", f"{url}?mode=listener"]
    argv = [FFMPEG, "-v", "error", "-re", "-stream_loop", "-1", "-i", str(clip), "-c", "copy", *served]
    with program(argv, ready=listens(port, "tcp" if rtmp else "udp")) as server:
        yield url, server


@pytest.mark.parametrize("pulled", ["rtmp", "srt"], indirect=True)
async def test_a_streaming_server_that_falls_silent(rigs: Rigs, pulled: tuple[str, subprocess.Popen[bytes]]) -> None:
    rigs.settle(runner={"health": PATIENT})
    url, server = pulled
    job = job_of(UriInput(uri=url), facts=LIVE)
    async with rigs.start() as rig:
        await rig.launch(job)
        await rig.running(job)
        server.send_signal(signal.SIGSTOP)
        await stopped_whole(rig, job)


async def ended_alone(rig: Rig, job: Job) -> str:
    """Runs a job to an end that nobody asks for, and gives its reason."""
    await rig.launch(job)
    ended = await rig.until(job, lambda status: not status.live, timeout_s=60)
    assert ended.failure is not None
    assert processes_of(rig.folder(job)) == []
    return ended.failure.reason


async def test_whoever_never_says_a_word_or_falls_silent_before_the_media_is_given_up(rigs: Rigs, clip: Path) -> None:
    """All at once, since they take nothing but time."""
    with ExitStack() as stack, silent_udp() as deaf, tcp_server(say_nothing) as mute:
        silent = {
            f"{scheme} input": job_of(UriInput(uri=f"{scheme}://127.0.0.1:{mute}/live/film"), facts=LIVE)
            for scheme in ("http", "https", "rtmp", "rtmps")
        }
        silent["srt input"] = job_of(UriInput(uri=f"srt://127.0.0.1:{deaf}"), facts=LIVE)
        for method in ("OPTIONS", "DESCRIBE", "SETUP", "PLAY"):
            port = stack.enter_context(tcp_server(rtsp_silent_after(method)))
            camera = UriInput(uri=f"rtsp://127.0.0.1:{port}/film")
            silent[f"rtsp input after {method}"] = job_of(camera, facts=replace(LIVE, has_audio=False))
        for url in (
            f"rtmp://127.0.0.1:{mute}/live/key",
            f"rtmps://127.0.0.1:{mute}/live/key",
            f"srt://127.0.0.1:{deaf}",
        ):
            silent[f"{url.partition(':')[0]} output"] = job_of(endless(clip), PushOutput(id="output-1", url=url))
        jobs = [replace(job, session=f"s{number}") for number, job in enumerate(silent.values())]
        async with rigs.start() as rig:
            reasons = await asyncio.gather(*(ended_alone(rig, job) for job in jobs))
    told = dict(zip(silent, reasons, strict=True))
    cameras = {told.pop(name) for name in silent if name.startswith("rtsp")}
    assert cameras <= {"INPUT_UNREADABLE", "FFMPEG_FAILED", "NO_OUTPUT"}
    assert told == {
        name: "INPUT_UNREADABLE" if name.endswith("input") else "OUTPUT_UNREACHABLE"
        for name in silent
        if not name.startswith("rtsp")
    }


@pytest.fixture
def reader(request: pytest.FixtureRequest) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """A server that somebody can push to, and its process."""
    rtmp = request.param == "rtmp"
    port = free_port(socket.SOCK_STREAM if rtmp else socket.SOCK_DGRAM)
    url = f"rtmp://127.0.0.1:{port}/live/key" if rtmp else f"srt://127.0.0.1:{port}"
    listening = ["-listen", "1", "-i", url] if rtmp else ["-i", f"{url}?mode=listener"]
    argv = [FFMPEG, "-v", "error", *listening, "-f", "null", "-"]
    with program(argv, ready=listens(port, "tcp" if rtmp else "udp")) as server:
        yield url, server


@pytest.mark.parametrize("reader", ["rtmp", "srt"], indirect=True)
async def test_a_server_that_stops_reading_is_given_up(
    rigs: Rigs, clip: Path, reader: tuple[str, subprocess.Popen[bytes]]
) -> None:
    """As fast as it goes, so that the buffers between them are full soon."""
    url, server = reader
    source = replace(endless(clip), native_rate=url.startswith("srt"))
    job = job_of(source, PushOutput(id="output-1", url=url))
    large = replace(job.renditions[0], video=replace(job.renditions[0].video, height=180, quality=0))
    job = replace(job, renditions=(large,))
    async with rigs.start() as rig:
        await rig.launch(job)
        await rig.running(job)
        server.send_signal(signal.SIGSTOP)
        ended = await rig.ended(job)
        assert ended.failure is not None
        assert ended.failure.reason == "OUTPUT_UNREACHABLE"


# Outputs that take nothing


@pytest.fixture
def wedging_ffmpeg(tmp_path: Path) -> Path:
    """An ffmpeg whose last output is a FIFO that is opened for reading, and never read."""
    script = tmp_path / "ffmpeg"
    script.write_text(f'#!/bin/sh\nfor last in "$@"; do :; done\nmkfifo "$last"\nexec 9<>"$last"\nexec {FFMPEG} "$@"\n')
    script.chmod(0o755)
    return script


def through(rigs: Rigs, ffmpeg: Path) -> None:
    """Has jobs run by another ffmpeg."""
    rigs.ffmpeg = str(ffmpeg)


async def test_an_output_that_takes_nothing_is_seen_and_ended_as_what_it_is(
    rigs: Rigs, clip: Path, wedging_ffmpeg: Path
) -> None:
    through(rigs, wedging_ffmpeg)
    rigs.settle(runner={"health": QUICK, "stop_timeout": timedelta(seconds=2)})
    job = job_of(endless(clip))
    job = replace(job, outputs=(replace(job.outputs[0], path="out.ts", container=Container.TS),))
    async with rigs.start() as rig:
        await rig.launch(job)
        stalled = await standing_still(rig, job)
        assert [one.message for one in stalled.conditions] == ["No frame was written for 2 s: an output takes nothing."]
        ended = await rig.ended(job)
        assert processes_of(rig.folder(job)) == []
    assert ended.failure is not None
    assert ended.failure.reason == "OUTPUT_STALLED"


async def test_an_output_that_takes_nothing_from_the_start_is_told_apart_from_an_input_that_gives_nothing(
    rigs: Rigs, clip: Path, tmp_path: Path
) -> None:
    script = tmp_path / "ffmpeg"
    script.write_text(f'#!/bin/sh\nfor last in "$@"; do :; done\nmkfifo "$last"\nexec {FFMPEG} "$@"\n')
    script.chmod(0o755)
    through(rigs, script)
    rigs.settle(launch={"first_frame_timeout": timedelta(seconds=5)}, runner={"stop_timeout": timedelta(seconds=1)})
    async with rigs.start() as rig:
        assert await ended_alone(rig, job_of(endless(clip))) == "OUTPUT_STALLED"


def test_what_a_program_reads_and_writes_is_seen_but_not_what_it_waits_with() -> None:
    with program(["sleep", "60"], ready=lambda: True) as sleeper:
        # Asleep it has read its libraries and its language.
        await_truth(lambda: Path(f"/proc/{sleeper.pid}/stat").read_text().rpartition(")")[2].split()[0] == "S")
        assert moved_bytes(sleeper.pid) == moved_bytes(sleeper.pid) is not None
    with program(["dd", "if=/dev/zero", "of=/dev/null", "bs=1M"], ready=lambda: True) as mover:
        await_truth(lambda: (moved_bytes(mover.pid) or 0) > 100 << 20)
    assert moved_bytes(2**22 + 1) is None, "nobody has that number"


def test_a_program_that_waits_for_nothing_known_is_not_guessed_at() -> None:
    with program(["sleep", "60"], ready=lambda: True) as sleeper:
        assert find_blockage(sleeper.pid) is Blockage.UNKNOWN
        os.kill(sleeper.pid, signal.SIGSTOP)
        os.waitid(os.P_PID, sleeper.pid, os.WSTOPPED | os.WNOWAIT)
        assert find_blockage(sleeper.pid) is Blockage.STOPPED
    assert find_blockage(2**22 + 1) is Blockage.UNKNOWN, "nobody has that number"


async def test_a_program_that_somebody_has_stopped_hears_its_stop_all_the_same(rigs: Rigs, clip: Path) -> None:
    rigs.settle(runner={"health": PATIENT})
    job = job_of(endless(clip))
    async with rigs.start() as rig:
        await rig.launch(job)
        await rig.running(job)
        program_id = rig.folder(job).program_pid()
        assert program_id is not None
        os.kill(program_id, signal.SIGSTOP)
        await stopped_whole(rig, job)
