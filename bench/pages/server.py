"""Serves the pages on the loopback interface, to whoever records them.

It never serves anything but the files beside it, and never a page from a cache: each recording loads anew.
"""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar
from urllib.parse import parse_qs, urlencode, urlsplit

if TYPE_CHECKING:
    from collections.abc import Iterator

FOLDER = Path(__file__).parent
_TYPES = {".html": "text/html; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".mp4": "video/mp4"}
FILES = {f"/{path.name}": path for path in FOLDER.iterdir() if path.suffix in (".html", ".js")}


@dataclass(frozen=True, slots=True, kw_only=True)
class PageServer:
    """A running server."""

    origin: str
    """ "http://127.0.0.1:40123"."""
    files: dict[str, Path]
    """What is served, by path."""

    def add_film(self, film: Path) -> None:
        """Serves a film for `film.html`."""
        self.files["/film.mp4"] = film

    def url(self, page: str, **settings: float | str) -> str:
        """Gives the address of a page.

        Args:
            page: Its name without ".html".
            settings: What the page says it understands, and `answer_delay_ms`: how long the server takes to answer.
        """
        path = f"/{page}.html"
        if path not in self.files:
            raise ValueError(
                f"Cannot serve {page!r}: there is no such page. Try one of {', '.join(sorted(self.files))}."
            )
        return f"{self.origin}{path}" + (f"?{urlencode(settings)}" if settings else "")


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    files: ClassVar[dict[str, Path]]

    def do_GET(self) -> None:
        """Answers with a file, or that there is none."""
        asked = urlsplit(self.path)
        delay_ms = float(parse_qs(asked.query).get("answer_delay_ms", ["0"])[0])
        if delay_ms:
            time.sleep(delay_ms / 1000)
        path = self.files.get(asked.path)
        body = b"there is no such page\n" if path is None else path.read_bytes()
        self.send_response(404 if path is None else 200)
        self.send_header("Content-Type", "text/plain" if path is None else _TYPES[path.suffix])
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Says nothing: a benchmark's output is its figures."""


@contextmanager
def serve_pages() -> Iterator[PageServer]:
    """Serves the pages until the end of the block."""
    files = dict(FILES)
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("PageHandler", (_Handler,), {"files": files}))
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, name="pages", daemon=True)
    thread.start()
    try:
        yield PageServer(origin=f"http://127.0.0.1:{server.server_port}", files=files)
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
