"""Redirects and playlists of http inputs, against a server on loopback whose answers may be anything."""

from __future__ import annotations

import asyncio
from ipaddress import ip_address
from typing import TYPE_CHECKING

import pytest

from agents.media_access import addresses, guard
from agents.media_access.remote_media import follow
from agents.public_addresses import Address
from fakes.http_media_server import HttpMediaServer
from gpu_balancer.runtime.failures import Reason, RequestFailure
from gpu_balancer.runtime.settings_sections import InputSettings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

RULES = InputSettings()


@pytest.fixture(autouse=True)
def internet(monkeypatch: pytest.MonkeyPatch) -> None:
    """Takes 127.0.0.1 for the internet and every other address for the network behind us."""
    internet_address = ip_address("127.0.0.1")

    async def resolve(host: str, port: int) -> tuple[Address, ...]:
        return (internet_address,) if host.endswith(".example") else await addresses.resolve(host, port)

    monkeypatch.setattr(guard, "is_public", lambda address: address == internet_address)
    monkeypatch.setattr(guard, "own_addresses", frozenset)
    monkeypatch.setattr(guard, "resolve", resolve)


@pytest.fixture
async def server() -> AsyncIterator[HttpMediaServer]:
    """A server on what counts as the internet."""
    async with HttpMediaServer() as running:
        yield running


async def refusal(url: str) -> RequestFailure:
    with pytest.raises(RequestFailure) as caught:
        await follow(url, RULES)
    assert [violation.field for violation in caught.value.violations] == ["session.transcode.input.uri"]
    return caught.value


async def test_media_itself_is_asked_for_once_and_not_read(server: HttpMediaServer) -> None:
    server.body("/a.mp4", b"\0\0\0\x18ftyp" + bytes(1_000_000))
    assert await follow(f"{server.url}/a.mp4", RULES) == f"{server.url}/a.mp4"
    assert server.targets == ["/a.mp4"]


async def test_redirects_are_followed_to_the_last_url(server: HttpMediaServer) -> None:
    server.redirect("/one", "/two?x=1", status=301)
    server.redirect("/two?x=1", f"http://cdn.example:{server.port}/three", status=307)
    server.body("/three", b"media")
    assert await follow(f"{server.url}/one", RULES) == f"http://cdn.example:{server.port}/three"


@pytest.mark.parametrize(
    "location",
    [
        "http://127.0.0.2/latest/meta-data/",
        "http://0x7f.2/",
        "http://[::ffff:10.0.0.1]/",
        "//192.168.0.1/x",
        "file:///etc/passwd",
        "rtmp://127.0.0.1/live",
        "gopher://127.0.0.1/",
        "",
    ],
)
async def test_a_redirect_to_where_nothing_may_be_read_is_refused(server: HttpMediaServer, location: str) -> None:
    server.redirect("/a", location)
    assert (await refusal(f"{server.url}/a")).reason is Reason.INPUT_NOT_ALLOWED


async def test_redirects_without_end_are_given_up(server: HttpMediaServer) -> None:
    server.redirect("/a", "/a")
    failure = await refusal(f"{server.url}/a")
    assert (failure.reason, "more than 5 times" in failure.message) == (Reason.INPUT_UNREACHABLE, True)
    assert len(server.requests) == 6


async def test_credentials_go_to_their_own_host_only(server: HttpMediaServer) -> None:
    server.redirect("/a", "/b")
    server.redirect("/b", f"http://other.example:{server.port}/c")
    server.body("/c", b"media")
    final = await follow(f"http://user:p%40ss@127.0.0.1:{server.port}/a", RULES)
    assert final == f"http://other.example:{server.port}/c"
    sent = ["Authorization: Basic dXNlcjpwQHNz" in request for request in server.requests]
    assert sent == [True, True, False]
    server.body("/b", b"media")
    final = await follow(f"http://user:p%40ss@127.0.0.1:{server.port}/a", RULES)
    assert final == f"http://user:p%40ss@127.0.0.1:{server.port}/b", "or ffmpeg could not ask"


@pytest.mark.parametrize(("status", "words"), [(404, "Not Found"), (403, "Forbidden"), (500, "Oops")])
async def test_a_server_that_says_no_is_quoted(server: HttpMediaServer, status: int, words: str) -> None:
    server.answers["/a?token=hunter2secret"] = f"HTTP/1.1 {status} {words}\r\n\r\n".encode()
    failure = await refusal(f"{server.url}/a?token=hunter2secret")
    assert failure.reason is Reason.INPUT_UNREACHABLE
    assert f"answers {status} {words}" in failure.message
    assert "hunter2secret" not in failure.message


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"", "without an answer"),
        (b"SSH-2.0-OpenSSH_9.2\r\n\r\n", "does not speak HTTP"),
        (b"HTTP/1.1 OK\r\n\r\n", "does not speak HTTP"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"a" * 200_000, "no end"),
    ],
)
async def test_what_is_no_http_is_unreachable(server: HttpMediaServer, answer: bytes, words: str) -> None:
    server.answers["/a"] = answer
    failure = await refusal(f"{server.url}/a")
    assert (failure.reason, words in failure.message) == (Reason.INPUT_UNREACHABLE, True), failure.message


async def test_a_port_where_nobody_listens_is_unreachable(server: HttpMediaServer) -> None:
    async with HttpMediaServer() as gone:
        url = gone.url
    failure = await refusal(f"{url}/a")
    assert failure.reason is Reason.INPUT_UNREACHABLE
    assert "refused" in failure.message.lower() or "connect" in failure.message.lower()


async def test_a_server_without_tls_is_unreachable_by_https() -> None:
    async def greet(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 mail.example ESMTP\r\n")
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(greet, "127.0.0.1", 0) as plain:
        port = plain.sockets[0].getsockname()[1]
        failure = await refusal(f"https://127.0.0.1:{port}/a")
    assert (failure.reason, "does not speak TLS" in failure.message) == (Reason.INPUT_UNREACHABLE, True)


MEDIA_PLAYLIST = "#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\n{}\n#EXT-X-ENDLIST\n"
MASTER_PLAYLIST = "#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1\n{}\n"


async def test_a_playlist_of_public_segments_passes(server: HttpMediaServer) -> None:
    server.body("/live/master.m3u8", MASTER_PLAYLIST.format("low/index.m3u8").encode())
    key = '#EXT-X-KEY:METHOD=AES-128,URI="https://keys.example/k"\n#EXT-X-KEY:METHOD=AES-128,URI="data:text/plain,k"\n'
    server.body("/live/low/index.m3u8", (MEDIA_PLAYLIST.format("seg.ts") + key).encode())
    assert await follow(f"{server.url}/live/master.m3u8", RULES) == f"{server.url}/live/master.m3u8"
    assert server.targets == ["/live/master.m3u8", "/live/low/index.m3u8"], "segments are not fetched"


@pytest.mark.parametrize(
    "name",
    [
        "file:///etc/passwd",
        "/etc/passwd\n#EXTINF:2,\nhttp://127.0.0.2/x.ts",
        "http://127.0.0.2/x.ts",
        "//10.0.0.1/x.ts",
        "concat:a|b",
        "other.m3u8",
        "index.m3u8",
        'seg.ts\n#EXT-X-MAP:URI="http://169.254.169.254/init.mp4"',
        'seg.ts\n#EXT-X-KEY:METHOD=AES-128,URI="file:///etc/shadow"',
    ],
)
@pytest.mark.parametrize("through_master", [False, True])
async def test_a_playlist_that_leads_elsewhere_is_refused(
    server: HttpMediaServer, name: str, through_master: bool
) -> None:
    server.body("/index.m3u8", MEDIA_PLAYLIST.format(name).encode())
    server.body("/master.m3u8", MASTER_PLAYLIST.format("index.m3u8").encode())
    failure = await refusal(f"{server.url}/{'master' if through_master else 'index'}.m3u8")
    assert failure.reason is Reason.INPUT_NOT_ALLOWED


async def test_a_variant_that_redirects_into_the_network_is_refused(server: HttpMediaServer) -> None:
    server.body("/master.m3u8", MASTER_PLAYLIST.format("index.m3u8").encode())
    server.redirect("/index.m3u8", "http://127.0.0.2/index.m3u8")
    assert (await refusal(f"{server.url}/master.m3u8")).reason is Reason.INPUT_NOT_ALLOWED


async def test_playlists_in_a_circle_are_refused_after_few_requests(server: HttpMediaServer) -> None:
    server.body("/master.m3u8", MASTER_PLAYLIST.format("master.m3u8").encode())
    assert "master playlists" in (await refusal(f"{server.url}/master.m3u8")).message
    assert len(server.requests) == 2


async def test_a_playlist_of_endless_variants_is_refused_before_they_are_asked_for(server: HttpMediaServer) -> None:
    variants = "".join(MASTER_PLAYLIST.format(f"{number}.m3u8") for number in range(100))
    server.body("/master.m3u8", variants.encode())
    assert "more than 32" in (await refusal(f"{server.url}/master.m3u8")).message
    assert len(server.requests) == 1


@pytest.mark.parametrize("chunked", [False, True])
async def test_a_playlist_without_end_is_refused(server: HttpMediaServer, chunked: bool) -> None:
    endless = b"#EXTM3U\n" + b"#" * 5_000_000
    if chunked:
        chunks = b"".join(b"10000\r\n" + endless[at : at + 0x10000] + b"\r\n" for at in range(0, 4_900_000, 0x10000))
        server.answers["/a.m3u8"] = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks + b"0\r\n\r\n"
    else:
        server.body("/a.m3u8", endless)
    assert "longer than" in (await refusal(f"{server.url}/a.m3u8")).message


async def test_a_playlist_in_chunks_is_read_whole(server: HttpMediaServer) -> None:
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    server.answers["/a.m3u8"] = head + b"4\r\n#EXT\r\n13;x=y\r\nM3U\nfile:///etc/hos\r\n3\r\nts\n\r\n0\r\n\r\n"
    assert "file:///etc/hosts" in (await refusal(f"{server.url}/a.m3u8")).message
