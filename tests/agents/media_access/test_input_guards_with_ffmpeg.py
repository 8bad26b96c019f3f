"""The guard options with real ffmpegs: what hostile inputs reach with them, and that good ones still open."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import subprocess
from pathlib import Path

import imageio_ffmpeg
import pytest

from agents.pipelines.input_guards import input_guard_options, input_scheme
from fakes.http_media_server import HttpMediaServer
from fakes.stream_connections import StreamConnections

pytestmark = pytest.mark.process

BUNDLED = imageio_ffmpeg.get_ffmpeg_exe()
SYSTEM = shutil.which("ffmpeg")
FFMPEGS = [BUNDLED, *([SYSTEM] if SYSTEM else [])]

HLS = "#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:1,\n{}\n#EXT-X-ENDLIST\n"
DASH = (
    '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static" mediaPresentationDuration="PT1S" '
    'profiles="urn:mpeg:dash:profile:isoff-on-demand:2011"><Period><AdaptationSet mimeType="video/mp4">'
    '<Representation id="1" bandwidth="1000"><BaseURL>{}</BaseURL></Representation></AdaptationSet></Period></MPD>'
)
SDP = "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\na=rtpmap:96 H264/90000\n"


@pytest.fixture(scope="module")
def media(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a real stream in it, which hostile inputs try to reach under its innocent name."""
    folder = tmp_path_factory.mktemp("media")
    arguments = [
        "-v",
        "error",
        "-f",
        "lavfi",
        "-i",
        "testsrc2=size=320x180:rate=25:duration=0.5",
        "-c:v",
        "libx264",
        "-preset",
        "ultrafast",
    ]
    subprocess.run([BUNDLED, *arguments, str(folder / "secret.ts")], check=True)
    return folder


async def opened(ffmpeg: str, uri: str) -> tuple[bool, str]:
    """Opens an input with its guards; tells whether a picture stream was found, and what ffmpeg said."""
    process = await asyncio.create_subprocess_exec(
        *[ffmpeg, "-hide_banner", "-nostdin", *input_guard_options(uri), "-i", uri],
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(20):
            output = (await process.communicate())[1].decode(errors="replace")
    except TimeoutError:
        process.kill()
        output = "timed out\n" + (await process.communicate())[1].decode(errors="replace")
    return "Video: " in output, output


@pytest.fixture(params=FFMPEGS, ids=lambda path: "bundled" if path == BUNDLED else "system")
def ffmpeg(request: pytest.FixtureRequest) -> str:
    """Each ffmpeg of this machine."""
    return str(request.param)


async def test_a_plain_file_opens(ffmpeg: str, media: Path) -> None:
    assert (await opened(ffmpeg, str(media / "secret.ts")))[0]


@pytest.mark.parametrize("extension", ["m3u8", "mp4", "ts", "txt"])
@pytest.mark.parametrize("content", ["hls", "hls-relative", "ffconcat", "dash", "sdp"])
async def test_a_file_that_points_elsewhere_does_not_open(
    ffmpeg: str, media: Path, tmp_path: Path, content: str, extension: str
) -> None:
    secret = media / "secret.ts"
    shutil.copy(secret, tmp_path / "beside.ts")
    text = {
        "hls": HLS.format(f"file://{secret}"),
        "hls-relative": HLS.format("beside.ts"),
        "ffconcat": f"ffconcat version 1.0\nfile '{secret}'\n",
        "dash": DASH.format(f"file://{secret}"),
        "sdp": SDP,
    }[content]
    hostile = tmp_path / f"input.{extension}"
    hostile.write_text(text)
    found, output = await opened(ffmpeg, str(hostile))
    assert not found, output


async def test_a_file_cannot_make_requests(ffmpeg: str, media: Path, tmp_path: Path) -> None:
    async with HttpMediaServer() as server:
        server.body("/internal.ts", (media / "secret.ts").read_bytes())
        for name, text in {
            "a.m3u8": HLS.format(f"{server.url}/internal.ts"),
            "a.mpd": DASH.format(f"{server.url}/internal.ts"),
            "a.ffconcat": f"ffconcat version 1.0\nfile {server.url}/internal.ts\n",
        }.items():
            (tmp_path / name).write_text(text)
            found, output = await opened(ffmpeg, str(tmp_path / name))
            assert not found, output
        assert server.requests == []


async def test_http_media_and_hls_open(ffmpeg: str, media: Path) -> None:
    async with HttpMediaServer() as server:
        server.body("/a.ts", (media / "secret.ts").read_bytes())
        server.body("/a.m3u8", HLS.format("a.ts").encode(), headers="Content-Type: application/vnd.apple.mpegurl\r\n")
        for name in ["a.ts", "a.m3u8"]:
            found, output = await opened(ffmpeg, f"{server.url}/{name}")
            assert found, output


@pytest.mark.parametrize("text", [HLS, DASH, "ffconcat version 1.0\nfile {}\n"], ids=["hls", "dash", "concat"])
async def test_what_comes_by_http_cannot_open_files(ffmpeg: str, media: Path, text: str) -> None:
    async with HttpMediaServer() as server:
        server.body("/a.m3u8", text.format(f"file://{media / 'secret.ts'}").encode())
        found, output = await opened(ffmpeg, f"{server.url}/a.m3u8")
        assert not found, output
        assert server.targets, "it was asked for, and refused for what it is"


async def test_ffmpeg_follows_no_redirect_by_itself(ffmpeg: str, media: Path) -> None:
    async with HttpMediaServer() as server, HttpMediaServer() as internal:
        internal.body("/a.ts", (media / "secret.ts").read_bytes())
        server.redirect("/a.ts", f"{internal.url}/a.ts")
        found, output = await opened(ffmpeg, f"{server.url}/a.ts")
        assert not found, output
        assert internal.requests == []


async def test_a_text_file_is_no_film(ffmpeg: str, tmp_path: Path) -> None:
    """Without the list of formats ffmpeg draws text as pictures."""
    (tmp_path / "passwords.txt").write_text("root:x:0:0\n" * 50)
    assert not (await opened(ffmpeg, str(tmp_path / "passwords.txt")))[0]


@pytest.mark.parametrize("scheme", ["rtmp", "srt"])
async def test_streams_of_real_servers_open(scheme: str, media: Path, unused_tcp_port: int) -> None:
    """A publisher's ffmpeg listens, and the guarded one reads from it."""
    if scheme == "rtmp":
        url, listening = f"rtmp://127.0.0.1:{unused_tcp_port}/live/key", ["-f", "flv", "-listen", "1"]
    else:
        url, listening = f"srt://127.0.0.1:{unused_tcp_port}", ["-f", "mpegts"]
    target = url if scheme == "rtmp" else f"{url}?mode=listener"
    source = ["-re", "-stream_loop", "-1", "-i", str(media / "secret.ts"), "-c", "copy"]
    server = await asyncio.create_subprocess_exec(
        *[BUNDLED, "-v", "error", "-nostdin", *source, *listening, target], stderr=asyncio.subprocess.DEVNULL
    )
    try:
        for _ in range(50):
            found, output = await opened(BUNDLED, url)
            if found or ("refused" not in output and "Connection" not in output and "Input/output" not in output):
                break
        assert found, output
    finally:
        with contextlib.suppress(ProcessLookupError):
            server.kill()
        await server.wait()


async def test_rtsp_is_spoken_over_tcp_alone(ffmpeg: str) -> None:
    """A server of few words: it must be asked for interleaved transport, which needs no port of ours."""
    asked: list[str] = []
    description = (
        "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=x\r\nt=0 0\r\nm=video 0 RTP/AVP 96\r\na=rtpmap:96 H264/90000\r\n"
        "a=control:track1\r\n"
    )

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                request = (await reader.readuntil(b"\r\n\r\n")).decode()
                asked.append(request)
                number = next(line for line in request.split("\r\n") if line.lower().startswith("cseq"))
                body = description if request.startswith("DESCRIBE") else ""
                status = "461 Unsupported Transport" if request.startswith("SETUP") else "200 OK"
                head = f"RTSP/1.0 {status}\r\n{number}\r\nPublic: DESCRIBE, SETUP, PLAY\r\n"
                if body:
                    head += f"Content-Type: application/sdp\r\nContent-Length: {len(body)}\r\n"
                writer.write(f"{head}\r\n{body}".encode())
                await writer.drain()
        writer.close()

    connections = StreamConnections(serve)
    server = await asyncio.start_server(connections.accept, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    await opened(ffmpeg, f"rtsp://127.0.0.1:{port}/live")
    await connections.end(server)
    transports = [line for request in asked for line in request.split("\r\n") if line.startswith("Transport:")]
    assert transports
    assert all("RTP/AVP/TCP" in line for line in transports)


@pytest.mark.parametrize("uri", ["concat:a", "ftp://a/b", "data:x", "relative.mp4", "", "pipe:0", "tcp://a:1"])
def test_other_schemes_have_no_guard(uri: str) -> None:
    with pytest.raises(ValueError, match="Cannot guard"):
        input_guard_options(uri)


@pytest.mark.parametrize(
    ("uri", "scheme"), [("/a:b", "file"), ("FILE:///a", "file"), ("HTTPS://a", "https"), ("a", ""), ("srt://a", "srt")]
)
def test_schemes_are_told(uri: str, scheme: str) -> None:
    assert input_scheme(uri) == scheme
