"""Streams over loopback: pulled, published and pushed, each with a real ffmpeg at the other end."""

from __future__ import annotations

import contextlib
import json
import re
import socket
import subprocess
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from asked import (
    FAILED,
    FFMPEG,
    RUNNING,
    SUCCEEDED,
    await_state,
    encoded,
    live_input,
    to_push,
    transcode_of,
)
from daemons import eventually
from decoded import decode

from fakes.http_media_server import HttpMediaServer
from gpu_balancer.client import AsyncClient
from gpu_balancer.runtime.failures import Reason, RequestFailure
from gpu_balancer.v1 import media_pb2, session_pb2

if TYPE_CHECKING:
    from collections.abc import Iterator

    from daemons import RunningDaemon

    from gpu_balancer.client import Client

pytestmark = pytest.mark.process


def free_port(kind: socket.SocketKind = socket.SOCK_STREAM) -> int:
    with socket.socket(socket.AF_INET, kind) as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def listens(port: int, protocol: str) -> bool:
    """Whether somebody has a port, told without connecting: a listener of ffmpeg serves the first who comes."""
    rows = Path(f"/proc/net/{protocol}").read_text().splitlines()[1:]
    states = {row.split()[3] for row in rows if row.split()[1].endswith(f":{port:04X}")}
    return bool(states & {"0A"} if protocol == "tcp" else states)


@contextlib.contextmanager
def other_end(*arguments: str | Path) -> Iterator[subprocess.Popen[str]]:
    """A real ffmpeg that publishes or receives, ended afterwards."""
    command = [FFMPEG, "-hide_banner", "-loglevel", "error", "-nostdin", "-y", *map(str, arguments)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def known(uri: str) -> media_pb2.Input:
    """A live input that its client knows, so that nobody connects before the session does."""
    return media_pb2.Input(uri=uri, declared_facts=facts())


def facts() -> media_pb2.InputFacts:
    return media_pb2.InputFacts(
        width=320,
        height=180,
        frame_rate=media_pb2.FrameRate(numerator=30, denominator=1),
        video_codec=media_pb2.VIDEO_CODEC_H264,
        has_audio=True,
    )


def ingest(protocol: media_pb2.IngestProtocol.ValueType, *, timeout_s: float = 30) -> media_pb2.Input:
    """An input that somebody publishes."""
    source = media_pb2.Input(ingest=media_pb2.Ingest(protocol=protocol), declared_facts=facts())
    source.ingest.publisher_timeout.FromTimedelta(timedelta(seconds=timeout_s))
    return source


async def test_a_film_by_http_is_read_like_a_file(open_daemon: RunningDaemon, media: Path, tmp_path: Path) -> None:
    async with HttpMediaServer() as server, AsyncClient(open_daemon.address) as client:
        server.body("/film.mp4?token=s3cr3t", (media / "clip.mp4").read_bytes())
        ended = await client.transcode(f"{server.url}/film.mp4?token=s3cr3t", renditions=["160x90"])
        assert ended.state == SUCCEEDED, ended.failure
        assert ended.input_facts.width == 320
        assert "s3cr3t" not in str(ended)
        paths = await client.download_artifacts(ended.name, tmp_path)
        assert decode(paths[0]).frames == 60
        missing = transcode_of(f"{server.url}/absent.mp4")
        with pytest.raises(RequestFailure) as caught:
            await client.create_session(missing)
        assert caught.value.reason is Reason.INPUT_UNREACHABLE


@pytest.fixture
def presentation(media: Path, tmp_path: Path) -> dict[str, bytes]:
    """The files of an HLS presentation of the clip, `a.m3u8` and its segments, by name."""
    folder = tmp_path / "presentation"
    folder.mkdir()
    command = [FFMPEG, "-loglevel", "error", "-i", str(media / "clip.mp4"), "-c", "copy", "-f", "hls"]
    subprocess.run([*command, "-hls_time", "1", str(folder / "a.m3u8")], check=True, stdin=subprocess.DEVNULL)
    return {path.name: path.read_bytes() for path in folder.iterdir()}


async def test_hls_by_http_is_read_and_its_redirects_are_followed(
    open_daemon: RunningDaemon, presentation: dict[str, bytes], tmp_path: Path
) -> None:
    async with HttpMediaServer() as server, AsyncClient(open_daemon.address) as client:
        for name, content in presentation.items():
            server.body(f"/x/{name}", content)
        server.redirect("/live", f"{server.url}/x/a.m3u8")
        ended = await client.transcode(f"{server.url}/live", renditions=["160x90"])
        assert ended.state == SUCCEEDED, ended.failure
        paths = await client.download_artifacts(ended.name, tmp_path / "out")
    assert decode(paths[0]).frames == 60


async def test_a_playlist_by_http_opens_no_local_file(open_daemon: RunningDaemon, tmp_path: Path) -> None:
    async with HttpMediaServer() as server, AsyncClient(open_daemon.address) as client:
        head = "#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\n"
        server.body("/a.m3u8", f"{head}file:///etc/passwd\n#EXT-X-ENDLIST\n".encode())
        server.redirect("/b", "file:///etc/passwd")
        for name in ("a.m3u8", "b"):
            with pytest.raises(RequestFailure) as caught:
                await client.create_session(transcode_of(f"{server.url}/{name}"))
            assert caught.value.reason in (Reason.INPUT_NOT_ALLOWED, Reason.INPUT_UNREADABLE)
            assert "root:" not in caught.value.message


@pytest.mark.parametrize("protocol", ["rtmp", "srt"])
def test_a_live_stream_is_pulled_to_its_end(open_client: Client, media: Path, tmp_path: Path, protocol: str) -> None:
    port = free_port(socket.SOCK_STREAM if protocol == "rtmp" else socket.SOCK_DGRAM)
    url = f"rtmp://127.0.0.1:{port}/live/s3cr3t" if protocol == "rtmp" else f"srt://127.0.0.1:{port}"
    serve = ("-f", "flv", "-listen", "1", url) if protocol == "rtmp" else ("-f", "mpegts", f"{url}?mode=listener")
    with other_end("-re", "-i", media / "clip.mp4", "-c", "copy", *serve) as server:
        eventually(lambda: listens(port, "tcp" if protocol == "rtmp" else "udp"), "the server listens")
        session = open_client.submit(transcode_of(known(url), encoded(height=90)))
        assert session.priority == session_pb2.PRIORITY_LIVE
        ended = open_client.wait(session)
        told = server.stderr.read() if server.stderr and ended.state != SUCCEEDED else ""
    open_client.download_artifacts(session.name, tmp_path)
    made = decode(tmp_path / "out.mp4")
    assert made.frames >= 50
    assert ended.state == SUCCEEDED or ended.failure.reason == "INPUT_LOST", f"{ended.failure}\n{told}"
    assert "s3cr3t" not in str(ended)


@pytest.mark.parametrize("protocol", ["rtmp", "srt"])
def test_a_publisher_is_awaited_at_a_secret_place_and_ends_the_session_by_leaving(
    open_daemon: RunningDaemon, open_client: Client, media: Path, tmp_path: Path, protocol: str
) -> None:
    number = media_pb2.INGEST_PROTOCOL_RTMP if protocol == "rtmp" else media_pb2.INGEST_PROTOCOL_SRT
    session = open_client.submit(transcode_of(ingest(number), encoded(height=90)))
    waiting = eventually(lambda: (now := open_client.get_session(session.name)).ingest_url and now, "the place is told")
    assert waiting.state == session_pb2.SESSION_STATE_STARTING
    assert [one.type for one in waiting.conditions] == ["AWAITING_PUBLISHER"]
    assert waiting.ingest_url.startswith(f"{protocol}://127.0.0.1:")
    key = re.split(r"[/=]", waiting.ingest_url)[-1]
    assert len(key) > 20
    listed = next(one for one in open_client.list_sessions() if one.name == session.name)
    assert key not in str(listed)
    port = int(waiting.ingest_url.split(":")[2].split("/")[0].split("?")[0])
    eventually(lambda: listens(port, "tcp" if protocol == "rtmp" else "udp"), "ffmpeg listens")
    publish = ("-f", "flv" if protocol == "rtmp" else "mpegts", waiting.ingest_url)
    with other_end("-re", "-stream_loop", "1", "-i", media / "clip.mp4", "-c", "copy", *publish):
        running = await_state(open_client, session.name, RUNNING)
        assert not running.conditions
        ended = open_client.wait(session)
    assert ended.state == SUCCEEDED, ended.failure
    open_client.download_artifacts(session.name, tmp_path)
    made = decode(tmp_path / "out.mp4")
    assert made.frames >= 100
    assert not made.complaints
    told = open_daemon.cli("session", session.name).stdout + open_daemon.cli("logs", session.name).stdout
    assert protocol in told or "ingest" in told
    logs = [open_daemon.log_path, *open_daemon.state_dir.glob("agents/*/agent.log")]
    assert not [path for path in logs if key in path.read_text()]
    assert key not in "".join(open_client.read_session_log(session.name))


def test_a_publisher_with_another_key_does_not_get_in(open_client: Client, media: Path) -> None:
    session = open_client.submit(transcode_of(ingest(media_pb2.INGEST_PROTOCOL_RTMP), encoded(height=90)))
    url = eventually(lambda: open_client.get_session(session.name).ingest_url, "the place is told")
    eventually(lambda: listens(int(url.split(":")[2].split("/")[0]), "tcp"), "ffmpeg listens")
    wrong = url.rpartition("/")[0] + "/guessed"
    with other_end("-re", "-stream_loop", "5", "-i", media / "clip.mp4", "-c", "copy", "-f", "flv", wrong):
        ended = open_client.wait(session)
    assert (ended.state, ended.failure.reason) == (FAILED, "WRONG_STREAM_KEY")


@pytest.mark.parametrize("protocol", ["rtmp", "srt"])
def test_when_nobody_publishes_the_session_says_so(open_client: Client, protocol: str) -> None:
    number = media_pb2.INGEST_PROTOCOL_RTMP if protocol == "rtmp" else media_pb2.INGEST_PROTOCOL_SRT
    ended = open_client.wait(open_client.submit(transcode_of(ingest(number, timeout_s=1), encoded(height=90))))
    assert (ended.state, ended.failure.reason) == (FAILED, "NO_PUBLISHER")
    assert "publish" in ended.failure.message


def test_the_command_tells_where_to_publish_and_may_be_left(open_daemon: RunningDaemon, open_client: Client) -> None:
    told = open_daemon.cli(
        *("transcode", "--ingest", "srt", "--input-facts", "320x180@30:h264", "-r", "90p", "--detach"),
        *("--publisher-timeout", "20", "--json"),
    )
    assert told.returncode == 0, told.stderr
    session = json.loads(told.stdout)
    url = eventually(lambda: open_client.get_session(session["name"]).ingest_url, "the place is told")
    assert url in open_daemon.cli("session", session["name"]).stdout
    open_client.stop_session(session["name"])
    ended = open_client.wait(session["name"])
    assert ended.state == session_pb2.SESSION_STATE_CANCELLED


@pytest.mark.parametrize("protocol", ["rtmp", "srt"])
def test_a_rendition_is_pushed_whole_and_its_key_is_shown_nowhere(
    open_daemon: RunningDaemon, open_client: Client, media: Path, tmp_path: Path, protocol: str
) -> None:
    port = free_port(socket.SOCK_STREAM if protocol == "rtmp" else socket.SOCK_DGRAM)
    key = "s3cr3tpushkey"
    got = tmp_path / "got.mkv"
    if protocol == "rtmp":
        url = f"rtmp://127.0.0.1:{port}/live/{key}"
        receive: tuple[str, ...] = ("-listen", "1", "-f", "flv", "-i", url)
    else:
        url = f"srt://127.0.0.1:{port}?passphrase={key}"
        receive = ("-f", "mpegts", "-i", f"{url}&mode=listener")
    with other_end(*receive, "-c", "copy", got) as receiver:
        eventually(lambda: listens(port, "tcp" if protocol == "rtmp" else "udp"), "the receiver listens")
        asked = transcode_of(media / "clip.mp4", encoded(height=90), outputs=[to_push(url)])
        planned = open_client.plan_session(asked)
        assert planned.argv
        assert key not in str(planned)
        asked.transcode.input.native_rate = True
        ended = open_client.wait(open_client.submit(asked))
        assert ended.state == SUCCEEDED, ended.failure
        receiver.wait(20)
    made = decode(got)
    assert made.size == (160, 90)
    assert made.frames >= 55
    shown = str(ended) + "".join(open_client.read_session_log(ended.name))
    shown += open_daemon.cli("session", ended.name).stdout + open_daemon.cli("sessions").stdout
    shown += "".join(path.read_text() for path in open_daemon.state_dir.glob("agents/*/agent.log")) + open_daemon.log
    assert key not in shown


def test_a_push_that_nobody_takes_fails_with_its_reason_and_without_its_key(open_client: Client, media: Path) -> None:
    url = f"rtmp://127.0.0.1:{free_port()}/live/s3cr3tpushkey"
    asked = transcode_of(live_input(media / "clip.mp4"), encoded(height=90), outputs=[to_push(url)])
    ended = open_client.wait(open_client.submit(asked))
    assert (ended.state, ended.failure.reason) == (FAILED, "OUTPUT_UNREACHABLE")
    assert "s3cr3tpushkey" not in str(ended)


async def test_an_input_that_breaks_off_is_told_as_lost_and_what_was_made_stays(
    open_daemon: RunningDaemon, presentation: dict[str, bytes], tmp_path: Path
) -> None:
    whole = b"".join(presentation[f"a{number}.ts"] for number in range(len(presentation) - 1)) * 3
    head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(whole)}\r\n\r\n".encode()
    async with HttpMediaServer() as server, AsyncClient(open_daemon.address) as client:
        server.answers["/film.ts"] = head + whole[: len(whole) // 2]
        ended = await client.transcode(f"{server.url}/film.ts", renditions=["160x90"])
        assert (ended.state, ended.failure.reason) == (FAILED, "INPUT_LOST"), ended.failure
        paths = await client.download_artifacts(ended.name, tmp_path / "out")
    assert decode(paths[0]).frames > 20
