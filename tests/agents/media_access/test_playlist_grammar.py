"""Playlists that programs read differently are refused before ffmpeg sees them; those that ffmpeg makes are not."""

from __future__ import annotations

import asyncio
import gzip
import subprocess
from ipaddress import ip_address
from typing import TYPE_CHECKING

import imageio_ffmpeg
import pytest

from agents.media_access import guard
from agents.media_access.input_probe import probe_input
from agents.media_access.playlists import PlaylistError, read_playlist
from agents.media_access.remote_media import follow
from agents.pipelines.job import UriInput
from fakes.http_media_server import HttpMediaServer
from gpu_balancer.runtime.failures import Reason, RequestFailure
from gpu_balancer.runtime.settings_sections import InputSettings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

FFMPEG = imageio_ffmpeg.get_ffmpeg_exe()
BASE = "http://media.example/live/index.m3u8"
HEAD = "#EXTM3U\n#EXT-X-VERSION:7\n#EXT-X-TARGETDURATION:2\n"
SEGMENT = "#EXTINF:2,\nseg.ts\n#EXT-X-ENDLIST\n"
# The six forms by which ffmpeg finds a host that a kinder reader does not; {} is the host and its port.
FORMS = {
    "NUL in a comment": (HEAD + "#EXTINF:2,\n#c\0http://{}/x.ts\n#EXT-X-ENDLIST\n", "control character 0x00"),
    "map without quotes": (HEAD + "#EXT-X-MAP:URI=http://{}/x.mp4\n" + SEGMENT, "#EXT-X-MAP without quotes"),
    "media without quotes": (
        (
            '#EXTM3U\n#EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID="a",NAME="a",URI=http://{}/x.m3u8\n'
            '#EXT-X-STREAM-INF:BANDWIDTH=1,AUDIO="a"\nvariant.m3u8\n'
        ),
        "#EXT-X-MEDIA without quotes",
    ),
    "key without quotes": (
        HEAD + "#EXT-X-KEY:METHOD=AES-128,URI=http://{}/key,IV=0x00000000000000000000000000000001\n" + SEGMENT,
        "#EXT-X-KEY without quotes",
    ),
    "one slash": (HEAD + "#EXTINF:2,\nhttp:/{}/x.ts\n#EXT-X-ENDLIST\n", "no http(s)://host/path"),
    "no slash": (HEAD + "#EXTINF:2,\nhttp:{}/x.ts\n#EXT-X-ENDLIST\n", "no http(s)://host/path"),
}


@pytest.fixture(autouse=True)
def internet(monkeypatch: pytest.MonkeyPatch) -> None:
    """Takes 127.0.0.1 for the internet and every other address for the network behind us."""
    monkeypatch.setattr(guard, "is_public", lambda address: address == ip_address("127.0.0.1"))
    monkeypatch.setattr(guard, "own_addresses", frozenset)


@pytest.fixture
async def server() -> AsyncIterator[HttpMediaServer]:
    """A server on what counts as the internet."""
    async with HttpMediaServer() as running:
        yield running


@pytest.fixture
async def forbidden() -> AsyncIterator[HttpMediaServer]:
    """A server in the network behind us."""
    async with HttpMediaServer("127.0.0.2") as running:
        yield running


@pytest.fixture(scope="module")
def transport_stream() -> bytes:
    """A second of picture, so that ffmpeg finds a good segment wherever it looks."""
    picture = ["-f", "lavfi", "-i", "testsrc2=size=160x90:rate=25:duration=1", "-c:v", "libx264", "-pix_fmt", "yuv420p"]
    return subprocess.run(
        [FFMPEG, "-v", "error", *picture, "-f", "mpegts", "-"], check=True, capture_output=True
    ).stdout


def serve(server: HttpMediaServer, text: str, segment: bytes) -> str:
    kind = "Content-Type: application/vnd.apple.mpegurl\r\n"
    server.body("/index.m3u8", text.encode(), headers=kind)
    server.body("/variant.m3u8", (HEAD + SEGMENT).encode(), headers=kind)
    server.body("/seg.ts", segment)
    return f"{server.url}/index.m3u8"


@pytest.mark.process
@pytest.mark.parametrize("form", FORMS)
async def test_a_host_that_ffmpeg_alone_would_find_is_not_asked(
    server: HttpMediaServer, forbidden: HttpMediaServer, transport_stream: bytes, form: str
) -> None:
    text, words = FORMS[form]
    url = serve(server, text.format(f"{forbidden.host}:{forbidden.port}"), transport_stream)
    with pytest.raises(RequestFailure) as caught:
        await probe_input(UriInput(uri=url), InputSettings(), FFMPEG)
    assert (caught.value.reason, words in caught.value.message) == (Reason.INPUT_NOT_ALLOWED, True), (
        caught.value.message
    )
    assert (server.targets, forbidden.requests) == (["/index.m3u8"], [])


@pytest.mark.parametrize(
    "line",
    [
        *["#a\x01b", "#a\x0bhttp://h.example/x", "#a\x0cb", "#a\x1cb", "#a\x7fb", "#a\x85b"],
        *["seg\u2028http://h.example/x", "a b.ts", " seg.ts", "\tseg.ts", "\xa0seg.ts:", "a\\b.ts", "a|b", "<a>"],
        *["http:///x", "http://h.example?@127.0.0.1/x", "http://h.example#@127.0.0.1/x", "http://a@b@h.example/x"],
        *["HTTP://h.example/x", "http://h.example:x/y", "http://[::1/x", "http://h%2eexample/x", "http://é.example/x"],
        *[
            "//",
            "///h.example/x",
            "//h.example?x",
            "//a:b:c/x",
            "crypto+http://h.example/x",
            "crypto:http://h.example/x",
        ],
        *["data:text/plain;base64,AAAA", "subfile,,start,0,end,9,,:http://h.example/x", "c:/x", ":x", "a:b.ts", "x:"],
        *["../../127.0.0.1/x.ts", "a/../../../127.0.0.1/x.ts", "../..", "a" * 4096],
        *['#EXT-X-MAP:URI="a.mp4', "#EXT-X-MAP:URI='a.mp4'", '#EXT-X-MAP:URI=""', '#EXT-X-MAP: ,URI="a.mp4"'],
        *['#EXT-X-MAP:URI="h\\ttp://h.example/x"', '#EXT-X-MEDIA:NAME="a\\",URI="b.m3u8"', '#EXT-X-MAP:URI ="a.mp4"'],
        *['#EXT-X-MAP:A="b"URI="a.mp4"', '#EXT-X-MAP:A=b URI="a.mp4"', '#EXT-X-MAP:URI="http:/h.example/x"'],
        *['#EXT-X-MEDIA:TYPE=AUDIO,URI="data:text/plain;base64,AAAA"', "#EXT-X-FOO:X-ASSET-URI=http://h.example/x"],
        *['#EXT-X-MAP:URI="' + "a" * 4096 + '"', "#EXTINF:2,URI=x", '#EXTURI="x"', "#EXT-X-MAP:A=URI=x"],
    ],
)
def test_a_line_that_programs_read_differently_is_refused(line: str) -> None:
    with pytest.raises(PlaylistError, match=r"^its playlist "):
        read_playlist(BASE, f"{HEAD}{line}\nseg.ts\n")


@pytest.mark.parametrize(
    ("line", "target"),
    [
        (
            "seg.ts?t=12:30:00&u=http://other.example/",
            "http://media.example/live/seg.ts?t=12:30:00&u=http://other.example/",
        ),
        ("a/b:c.ts#t=1:2", "http://media.example/live/a/b:c.ts#t=1:2"),
        ("./a:b.ts", "http://media.example/live/a:b.ts"),
        ("../other/seg.ts \t", "http://media.example/other/seg.ts"),
        ("/seg:1.ts", "http://media.example/seg:1.ts"),
        ("?part=1", "http://media.example/live/index.m3u8?part=1"),
        ("//cdn.example:8080/a.ts", "http://cdn.example:8080/a.ts"),
        ("https://user:p%40ss@cdn.example/a.ts", "https://user:p%40ss@cdn.example/a.ts"),
        ("http://[2606:4700::1111]:80/a.ts", "http://[2606:4700::1111]:80/a.ts"),
        ("é.ts", "http://media.example/live/é.ts"),
        ('#EXT-X-MAP:URI="init.mp4",BYTERANGE="7@0"', "http://media.example/live/init.mp4"),
        ('#EXT-X-MEDIA:TYPE=AUDIO, NAME="x, URI=y", URI="a.m3u8"', "http://media.example/live/a.m3u8"),
    ],
)
@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"])
def test_what_every_program_reads_alike_is_read(line: str, target: str, line_end: str) -> None:
    text = line_end.join(["\ufeff#EXTM3U", "# a comment: URI=x \u2028http://h.example/x", "#EXTINF:2,a\tb", line, ""])
    assert read_playlist(BASE, text).targets == (target,)


def test_a_key_may_hold_its_data_itself() -> None:
    text = HEAD + '#EXT-X-KEY:METHOD=AES-128,URI="data:text/plain;base64,AAAA"\n' + SEGMENT
    assert read_playlist(BASE, text).targets == ("http://media.example/live/seg.ts",)


def test_a_relative_name_needs_a_path_to_begin_from() -> None:
    with pytest.raises(PlaylistError, match="without a path"):
        read_playlist("http://media.example?x=/", f"{HEAD}127.0.0.1/x.ts\n")


async def test_a_rendition_is_a_playlist_whatever_its_name(server: HttpMediaServer) -> None:
    server.body("/index.m3u8", (HEAD + '#EXT-X-MEDIA:TYPE=AUDIO,URI="sound.txt"\n' + SEGMENT).encode())
    server.body("/sound.txt", (HEAD + "#EXTINF:2,\nhttp://127.0.0.2/x.ts\n").encode())
    server.body("/seg.ts", b"media")
    with pytest.raises(RequestFailure, match="not public"):
        await follow(f"{server.url}/index.m3u8", InputSettings())


@pytest.mark.parametrize("status", ["200 OK", "203 Other", "206 Partial Content"])
async def test_a_playlist_is_one_with_every_success(server: HttpMediaServer, status: str) -> None:
    server.answers["/a"] = f"HTTP/1.1 {status}\r\n\r\n{HEAD}#EXTINF:2,\nhttp://127.0.0.2/x.ts\n".encode()
    with pytest.raises(RequestFailure, match="not public"):
        await follow(f"{server.url}/a", InputSettings())


@pytest.mark.parametrize(
    ("headers", "words"),
    [
        ("Content-Encoding: gzip\r\n", "compresses it"),
        ("Content-Encoding: x-gzip\r\nContent-Encoding: identity\r\n", "compresses it"),
        ("Content-Encoding: Deflate\r\n", "compresses it"),
        ("X: y\nContent-Encoding: gzip\r\n", "line ends of two kinds"),
    ],
)
async def test_a_compressed_playlist_is_not_taken_for_media(server: HttpMediaServer, headers: str, words: str) -> None:
    server.body("/a", gzip.compress((HEAD + "#EXTINF:2,\nhttp://127.0.0.2/x.ts\n").encode()), headers=headers)
    with pytest.raises(RequestFailure, match=words):
        await follow(f"{server.url}/a", InputSettings())


def made_presentation(folder: Path, segment_type: str) -> dict[str, bytes]:
    """Makes a picture and a sound apart, with a master playlist; file name -> content."""
    sources = ["-f", "lavfi", "-i", "testsrc2=size=160x90:rate=25:duration=2", "-f", "lavfi", "-i", "sine=duration=2"]
    codecs = ["-map", "0:v", "-map", "1:a", "-c:v", "libx264", "-pix_fmt", "yuv420p", "-g", "25", "-c:a", "aac"]
    form = ["-f", "hls", "-hls_time", "1", "-hls_playlist_type", "vod", "-hls_segment_type", segment_type]
    groups = ["-master_pl_name", "master.m3u8", "-var_stream_map", "v:0,agroup:sound a:0,agroup:sound"]
    made = [FFMPEG, "-v", "error", *sources, *codecs, *form, *groups, str(folder / "stream_%v.m3u8")]
    subprocess.run(made, check=True, cwd=folder)
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.process
@pytest.mark.parametrize("segment_type", ["mpegts", "fmp4"])
async def test_a_presentation_that_ffmpeg_made_is_read(
    server: HttpMediaServer, tmp_path: Path, segment_type: str
) -> None:
    presentation = await asyncio.to_thread(made_presentation, tmp_path, segment_type)
    for name, content in presentation.items():
        server.body(f"/{name}", content)
    assert b"#EXT-X-MEDIA:" in presentation["master.m3u8"]
    facts = await probe_input(UriInput(uri=f"{server.url}/master.m3u8"), InputSettings(), FFMPEG)
    assert (facts.width, facts.height, facts.has_audio) == (160, 90, True)
