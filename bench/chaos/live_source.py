"""A live source on loopback: a film in its own time as HLS without an end, only the newest seconds of it there."""

from __future__ import annotations

import subprocess
import tempfile
import threading
import time
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING

from bench.analysis.decoding import QUIET

if TYPE_CHECKING:
    from collections.abc import Iterator

_SEGMENT_S = 1
_SEGMENTS = 10
_BEGIN_S = 30.0


@contextmanager
def live_source(film: Path) -> Iterator[str]:
    """Sends a film over and over until the block ends.

    Args:
        film: Of `film.make_film`.

    Yields:
        The URL of its playlist.
    """
    with tempfile.TemporaryDirectory(prefix="gb-chaos-") as scratch:
        playlist = Path(scratch) / "live.m3u8"
        command = [*QUIET, "-re", "-stream_loop", "-1", "-i", str(film), "-c", "copy", "-f", "hls"]
        command += ["-hls_time", str(_SEGMENT_S), "-hls_list_size", str(_SEGMENTS), "-hls_flags", "delete_segments"]
        sender = subprocess.Popen([*command, str(playlist)], stdin=subprocess.DEVNULL)

        class Handler(SimpleHTTPRequestHandler):
            def __init__(self, *arguments: object, **more: object) -> None:
                super().__init__(*arguments, directory=scratch, **more)  # type: ignore[arg-type]

            def log_message(self, *_: object) -> None:
                """Says nothing: it is only the figures' surroundings."""

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *_: object) -> None:
                """Says nothing: readers are killed in the middle of what they read."""

        try:
            with Server(("127.0.0.1", 0), Handler) as server:
                threading.Thread(target=server.serve_forever, name="live source", daemon=True).start()
                _await(playlist)
                yield f"http://127.0.0.1:{server.server_address[1]}/{playlist.name}"
                server.shutdown()
        finally:
            sender.kill()
            sender.wait()


def _await(playlist: Path) -> None:
    deadline_s = time.monotonic() + _BEGIN_S
    while not playlist.exists() or playlist.read_text().count("#EXTINF") < 3:
        if time.monotonic() > deadline_s:
            raise RuntimeError("The live source does not begin.")
        time.sleep(0.1)
