"""A program between who records a display and its X server: no picture is taken twice while the next is being drawn.

A grabber takes its pictures on time, whatever is on the screen. When a browser, or the whole machine, is late for a
moment, the same picture is taken twice, and what is drawn right after it is never seen. So a request for a picture is
held here until something was drawn since the one before, for a part of the time until the next one; see `CapturePace`.
Nothing else that a client says is touched, pictures go by shared memory, and the client needs the display's cookie as
it does at the server itself.

What was drawn the server tells by its DAMAGE extension, to a connection of this program's own. It is told to begin anew
by a request among the client's, right before that for the picture: so whatever is drawn is in this picture, or new for
the next.
"""

from __future__ import annotations

import os
import select
import socket
import struct
import sys
from contextlib import ExitStack
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Any

import xcffib
import xcffib.damage

from agents.displays.capture_pace import CapturePace
from agents.displays.x_authority import cookie_of
from agents.displays.x_screen import connected
from agents.displays.x_sockets import gate_of, socket_of
from agents.displays.x_stream import Answers, Requests
from agents.precedence import run_in_real_time
from agents.user_rights import become
from gpu_balancer.runtime.clock import SystemClock

if TYPE_CHECKING:
    from typing import Self

_GET_IMAGE = 73
_SHM_GET_IMAGE = 4
_QUERY_VERSION, _SUBTRACT = 0, 3
_NO_REGION = 0
_CHUNK_BYTES = 1 << 16
_CLIENTS = 8


class Drawing:
    """What is drawn on a display, as its server tells it. A context manager: it ends the connection."""

    def __init__(self, name: str, cookie: bytes) -> None:
        """Asks the server to tell.

        Args:
            name: The display, ":1007".
            cookie: That it demands.

        Raises:
            OSError: The server is not there.
            xcffib.XcffibException: It refuses, or has no such extension.
        """
        with _to_server(name) as client:
            client.setblocking(False)
            self._connection: Any = connected(os.dup(client.fileno()), cookie)
        core = self._connection.core
        damage = self._connection(xcffib.damage.key)
        damage.QueryVersion(1, 1).reply()
        self.opcode: int = _opcode(core, "DAMAGE")
        self.shared_memory_opcode: int = _opcode(core, "MIT-SHM")
        self.id: int = self._connection.generate_id()
        root = self._connection.get_setup().roots[0].root
        damage.CreateChecked(self.id, root, xcffib.damage.ReportLevel.NonEmpty).check()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.disconnect()

    def fileno(self) -> int:
        """Gives what becomes readable when there is news."""
        return int(self._connection.get_file_descriptor())

    def happened(self) -> bool:
        """Tells whether something was drawn, when there is news."""
        happened = False
        while self._connection.poll_for_event() is not None:
            happened = True
        return happened


class _Gate:
    """One client's way to the server."""

    def __init__(self, client: socket.socket, server: socket.socket, drawing: Drawing) -> None:
        self._client, self._server, self._drawing = client, server, drawing
        self._requests, self._answers = Requests(), Answers()
        self._clock = SystemClock()
        self._pace = CapturePace()
        self._introduced = False
        self._new = True
        """Whether something was drawn since the latest picture."""
        self._held: bytes | None = None
        """A request for a picture that waits."""
        self._until_s = 0.0

    def run(self) -> None:
        """Passes on what is said until either side ends."""
        drawn, answered = self._drawing.fileno(), self._server.fileno()
        poll = select.poll()
        for end in (self._client, self._server, self._drawing):
            poll.register(end, select.POLLIN)
        while True:
            left_s = max(0.0, self._until_s - self._clock.monotonic_s()) if self._held is not None else None
            for descriptor, _ in poll.poll(None if left_s is None else 1000 * left_s):
                if descriptor == drawn:
                    self._new = self._drawing.happened() or self._new
                    continue
                source = self._server if descriptor == answered else self._client
                data = source.recv(_CHUNK_BYTES)
                if not data:
                    return
                if source is self._client:
                    self._requests.feed(data)
                else:
                    self._client.sendall(self._answers.feed(data))
            if self._held is not None and (self._new or self._clock.monotonic_s() >= self._until_s):
                self._take_picture(self._held)
                self._held = None
            if self._held is None:
                self._pass_requests()

    def _pass_requests(self) -> None:
        while (message := self._requests.next()) is not None:
            if not self._introduced:
                self._introduced = True
                self._server.sendall(message)
                self._inject(_QUERY_VERSION, 1, 1)
            elif self._asks_for_picture(message):
                now_s = self._clock.monotonic_s()
                patience_s = self._pace.asked(now_s)
                if not self._new and patience_s > 0:
                    self._held, self._until_s = message, now_s + patience_s
                    return
                self._take_picture(message)
            else:
                self._send(message)

    def _asks_for_picture(self, message: bytes) -> bool:
        opcode, minor = message[0], message[1]
        return opcode == _GET_IMAGE or (opcode == self._drawing.shared_memory_opcode and minor == _SHM_GET_IMAGE)

    def _take_picture(self, message: bytes) -> None:
        self._pace.taken(new=self._new)
        self._new = False
        self._inject(_SUBTRACT, self._drawing.id, _NO_REGION, _NO_REGION, then=message)

    def _inject(self, minor: int, *values: int, then: bytes = b"") -> None:
        """Sends a request of the DAMAGE extension, and one of the client's in the same breath."""
        order = self._requests.order
        header = struct.pack(f"{order}BBH", self._drawing.opcode, minor, 1 + len(values))
        self._answers.note_request(order, injected=True)
        if then:
            self._answers.note_request(order, injected=False)
        self._server.sendall(header + struct.pack(f"{order}{len(values)}I", *values) + then)

    def _send(self, message: bytes) -> None:
        self._answers.note_request(self._requests.order, injected=False)
        self._server.sendall(message)


def main(name: str, authority: str, user_id: str) -> None:
    """Serves until it is killed. Whoever may not reach the socket's file does not get as far as the cookie.

    Args:
        name: The display, ":1007".
        authority: File with its cookie.
        user_id: User to become, who owns the display. Empty: none.
    """
    cookie = cookie_of(Path(authority).read_bytes())
    # As with the grabber's own threads: it has little to do, and that at exact times.
    run_in_real_time()
    with Drawing(name, cookie):
        pass  # A server that tells nothing ends this before anybody relies on it.
    path = socket_of(gate_of(name))
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen(_CLIENTS)
    if user_id:
        become(int(user_id))
    while True:
        client, _ = listener.accept()
        Thread(target=_serve, args=(client, name, cookie), daemon=True).start()


def _serve(client: socket.socket, name: str, cookie: bytes) -> None:
    with client, ExitStack() as stack:
        try:
            drawing = stack.enter_context(Drawing(name, cookie))
            server = stack.enter_context(_to_server(name))
            _Gate(client, server, drawing).run()
        except (OSError, xcffib.XcffibException) as error:
            print(f"capture gate of {name}: {str(error) or type(error).__name__}", file=sys.stderr, flush=True)


def _to_server(name: str) -> socket.socket:
    server = socket.socket(socket.AF_UNIX)
    try:
        server.connect(str(socket_of(name)))
    except OSError:
        server.close()
        raise
    return server


def _opcode(core: Any, extension: str) -> int:
    """Gives the major opcode of an extension; 0, which no request has, where there is none."""
    return int(core.QueryExtension(len(extension), extension).reply().major_opcode)


if __name__ == "__main__":
    main(*sys.argv[1:])
