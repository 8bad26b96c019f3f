"""A live source on loopback: a film over HTTP as a transport stream in its own time, joined where it is just then."""

from __future__ import annotations

import subprocess
import threading
import time
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

from bench.analysis.decoding import QUIET

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_PIECE = 188 * 16


@contextmanager
def live_source(film: Path, *, film_s: float) -> Iterator[str]:
    """Sends a film to whoever asks, over and over, until the block ends.

    Args:
        film: Of `film.make_film`.
        film_s: Its length.

    Yields:
        The URL.
    """
    began_s = time.monotonic()
    senders: set[subprocess.Popen[bytes]] = set()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            """Sends until the listener goes away."""
            self.send_response(200)
            self.send_header("Content-Type", "video/mp2t")
            self.end_headers()
            place_s = (time.monotonic() - began_s) % film_s
            command = [*QUIET, "-re", "-stream_loop", "-1", "-ss", f"{place_s:.2f}", "-i", str(film), "-c", "copy"]
            command += ["-muxdelay", "0", "-muxpreload", "0", "-flush_packets", "1", "-f", "mpegts", "-"]
            with subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL) as sender:
                senders.add(sender)
                assert sender.stdout is not None
                with suppress(OSError):
                    while piece := sender.stdout.read1(_PIECE):  # type: ignore[attr-defined]
                        self.wfile.write(piece)
                sender.kill()
                senders.discard(sender)

        def log_message(self, *_: object) -> None:
            """Says nothing: these are figures' surroundings."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, name="live source", daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}/film.ts"
        finally:
            server.shutdown()
            for sender in list(senders):
                sender.kill()
