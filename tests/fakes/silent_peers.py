"""Servers that fall silent in the middle: they hold their connections, and neither send nor read nor close."""

from __future__ import annotations

import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

FOREVER = threading.Event()
"""Never set: who waits for it is silent to the end of the test."""
_NEVER_SENT = 100_000_000
"""Bytes that a length tells of and nobody sends. ffmpeg looks at the end of a transport stream first, and reads on to
there instead of asking for it when that is no farther than its receive buffer, which may become as large as 32 MB."""


@contextmanager
def tcp_server(answer: Callable[[socket.socket], None]) -> Iterator[int]:
    """Serves every connection in a thread; gives the port. At the end all connections are closed."""
    listener = socket.create_server(("127.0.0.1", 0))
    held: list[socket.socket] = []

    def serve(connection: socket.socket) -> None:
        try:
            answer(connection)
        except OSError:
            return

    def accept() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            held.append(connection)
            threading.Thread(target=serve, args=(connection,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield listener.getsockname()[1]
    finally:
        listener.close()
        for connection in held:
            connection.close()


def say_nothing(_: socket.socket) -> None:
    """Accepts, and that is all."""
    FOREVER.wait()


@contextmanager
def silent_udp() -> Iterator[int]:
    """A UDP port where nobody answers."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as held:
        held.bind(("127.0.0.1", 0))
        yield held.getsockname()[1]


def http_until(content: bytes, sent_bytes: int, *, length_told: bool) -> Callable[[socket.socket], None]:
    """Answers GET with the beginning of a content and then says nothing; to one who asks for the rest, never a word."""

    def answer(connection: socket.socket) -> None:
        head = read_head(connection)
        if f"bytes={sent_bytes}-" in head:
            FOREVER.wait()
        told = f"Content-Length: {len(content) + _NEVER_SENT}\r\nAccept-Ranges: bytes\r\n" if length_told else ""
        connection.sendall(f"HTTP/1.1 200 OK\r\nContent-Type: video/mp2t\r\n{told}\r\n".encode())
        connection.sendall(content[:sent_bytes])
        FOREVER.wait()

    return answer


def hls_until(folder: Path, *, names: list[str], half: str | None) -> Callable[[socket.socket], None]:
    """Serves a live playlist that gets no further segment; of the segment `half`, half, and then says nothing."""
    entries = "".join(f"#EXTINF:1.0,\n{name}\n" for name in names)
    playlist = f"#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:1\n#EXT-X-MEDIA-SEQUENCE:0\n{entries}".encode()

    def answer(connection: socket.socket) -> None:
        while head := read_head(connection):
            name = head.split()[1].lstrip("/")
            body = playlist if name.endswith(".m3u8") else (folder / name).read_bytes()
            sent = body[: len(body) // 2] if name == half else body
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + sent)
            if name == half:
                FOREVER.wait()

    return answer


def rtsp_silent_after(method: str) -> Callable[[socket.socket], None]:
    """Answers as an RTSP camera does, up to one of its methods."""
    sdp = (
        "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=x\r\nt=0 0\r\nm=video 0 RTP/AVP 96\r\na=rtpmap:96 H264/90000\r\n"
        "a=fmtp:96 packetization-mode=1\r\na=control:t0\r\n"
    )
    extra = {
        "OPTIONS": "Public: OPTIONS, DESCRIBE, SETUP, PLAY\r\n\r\n",
        "DESCRIBE": f"Content-Type: application/sdp\r\nContent-Length: {len(sdp)}\r\n\r\n{sdp}",
        "SETUP": "Transport: RTP/AVP/TCP;unicast;interleaved=0-1\r\nSession: 1\r\n\r\n",
        "PLAY": "Session: 1\r\n\r\n",
    }

    def answer(connection: socket.socket) -> None:
        while head := read_head(connection):
            asked = head.split()[0]
            (number,) = [line for line in head.split("\r\n") if line.lower().startswith("cseq")]
            connection.sendall(f"RTSP/1.0 200 OK\r\n{number}\r\n{extra[asked]}".encode())
            if asked == method:
                FOREVER.wait()

    return answer


def read_head(connection: socket.socket) -> str:
    """Reads a request's head. Empty: the other side has left."""
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        piece = connection.recv(1)
        if not piece:
            return ""
        head += piece
    return head.decode()


def free_port(kind: socket.SocketKind) -> int:
    """Finds a port that nobody has now."""
    with socket.socket(socket.AF_INET, kind) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def program(argv: list[str], *, ready: Callable[[], bool]) -> Iterator[subprocess.Popen[bytes]]:
    """Runs a peer that is a program, from when it is ready; killed at the end, stopped or not."""
    peer = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        await_truth(ready)
        yield peer
    finally:
        peer.kill()
        peer.wait()


def listens(port: int, table: str) -> Callable[[], bool]:
    """Tells whether somebody has bound a port, by the kernel's table "tcp" or "udp"."""
    place, told = Path(f"/proc/net/{table}"), f":{port:04X}"
    return lambda: any(line.split()[1].endswith(told) for line in place.read_text().splitlines()[1:])


def await_truth(truth: Callable[[], bool], timeout_s: float = 20) -> None:
    """Looks again and again until something holds; fails when it never does."""
    deadline = time.monotonic() + timeout_s
    while not truth():
        assert time.monotonic() < deadline, "it did not come true in time"
        time.sleep(0.01)
