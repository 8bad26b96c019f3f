"""A program between who records a display and its X server: no picture is taken twice while the next is being drawn.

A grabber takes its pictures on time, whatever is on the screen. When a browser, or the whole machine, is late for a
moment, the same picture is taken twice, and what is drawn right after it is never seen. So a request for a picture is
held here until something was drawn since the one before, for a part of the time until the next one; see `CapturePace`.
Nothing else that a client says is touched, pictures go by shared memory, and the client needs the display's cookie as
it does at the server itself.

What was drawn the server tells by its DAMAGE extension, to a connection of this program's own. It is told to begin anew
by requests among the client's, right before that for the picture: so whatever is drawn is in this picture, or new for
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
import xcffib.xproto

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
_SEND_EVENT, _CLIENT_MESSAGE, _SENT_EVENT = 25, 33, 0x80
_EVENT_BYTES = 32
_REQUEST_CHUNK_BYTES, _ANSWER_CHUNK_BYTES = 1 << 12, 1 << 16
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
        with ExitStack() as stack:
            self._told = stack.enter_context(_to_server(name))
            self._told.setblocking(False)
            connection: Any = connected(os.dup(self._told.fileno()), cookie)
            stack.callback(connection.disconnect)
            damage = connection(xcffib.damage.key)
            damage.QueryVersion(1, 1).reply()
            self._damage_opcode = _opcode(connection.core, "DAMAGE")
            self.shared_memory_opcode: int = _opcode(connection.core, "MIT-SHM")
            root = connection.get_setup().roots[0].root
            self._damage, self._window = connection.generate_id(), connection.generate_id()
            unseen = xcffib.xproto.WindowClass.InputOnly
            connection.core.CreateWindowChecked(0, self._window, root, 0, 0, 1, 1, 0, unseen, 0, 0, []).check()
            damage.CreateChecked(self._damage, root, xcffib.damage.ReportLevel.NonEmpty).check()
            self._end = stack.pop_all()
        self._clock = SystemClock()
        self._events = b""
        self._happened = True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._end.close()

    def introduction(self, order: str) -> bytes:
        """Gives a request with which a client begins, before any of `beginning`.

        Args:
            order: Of the client's bytes, as `struct` has it.
        """
        return struct.pack(f"{order}BBHII", self._damage_opcode, _QUERY_VERSION, 3, 1, 1)

    def beginning(self, order: str) -> tuple[bytes, bytes]:
        """Gives two requests with which a client has it begin anew: what was drawn by then has not happened.

        The first sends a mark, behind which events are new; the second has the next drawing told again. In this order:
        of what is drawn between the two it is told in vain, but never not at all.

        Args:
            order: Of the client's bytes, as `struct` has it.
        """
        mark = struct.pack(f"{order}BBHIIBB30x", _SEND_EVENT, 0, 11, self._window, 0, _CLIENT_MESSAGE, 8)
        return mark, struct.pack(f"{order}BBHIII", self._damage_opcode, _SUBTRACT, 4, self._damage, 0, 0)

    def happened(self, within_s: float) -> bool:
        """Tells whether something was drawn since it began anew, and awaits that. 0: it does not wait.

        Raises:
            ConnectionError: The server has ended.
        """
        end_s = self._clock.monotonic_s() + within_s
        self._read(0.0)
        while not self._happened and (left_s := end_s - self._clock.monotonic_s()) > 0:
            self._read(left_s)
        return self._happened

    def _read(self, within_s: float) -> None:
        if not select.select((self._told,), (), (), within_s)[0]:
            return
        data = self._told.recv(_ANSWER_CHUNK_BYTES)
        if not data:
            raise ConnectionResetError("the X server has ended")
        self._events += data
        # Of the connection nothing else is read from here on: what it is sent are events.
        if whole := len(self._events) // _EVENT_BYTES * _EVENT_BYTES:
            self._happened = self._events[whole - _EVENT_BYTES] & ~_SENT_EVENT != _CLIENT_MESSAGE
            self._events = self._events[whole:]


class _Gate:
    """One client's way to the server."""

    def __init__(self, client: socket.socket, server: socket.socket, drawing: Drawing) -> None:
        self._client, self._server, self._drawing = client, server, drawing
        self._requests, self._answers = Requests(), Answers()
        self._clock = SystemClock()
        self._pace = CapturePace()
        self._introduced = False
        self._begin_anew: tuple[bytes, ...] = ()

    def run(self) -> None:
        """Passes on what is said until either side ends."""
        poll = select.poll()
        poll.register(self._client, select.POLLIN)
        poll.register(self._server, select.POLLIN)
        while True:
            ready = [descriptor for descriptor, _ in poll.poll()]
            # Answers first: with a request for a picture further ones are taken.
            if self._server.fileno() in ready and not self._pass_answers():
                return
            if self._client.fileno() in ready and not self._pass_requests():
                return

    def _pass_answers(self) -> bool:
        """Passes on what the server has said. False: it has ended."""
        data = self._server.recv(_ANSWER_CHUNK_BYTES)
        self._client.sendall(b"".join(self._answers.feed(data)))
        return bool(data)

    def _pass_requests(self) -> bool:
        """Passes on what the client has said. False: it, or the server, has ended."""
        data = self._client.recv(_REQUEST_CHUNK_BYTES)
        for message in self._requests.feed(data):
            if not self._introduced:
                self._introduce(message)
            elif self._asks_for_picture(message):
                patience_s = self._pace.asked(self._clock.monotonic_s())
                self._pace.taken(new=self._drawing.happened(patience_s))
                self._inject(*self._begin_anew, then=message)
                # An answer always comes. Awaited here: one call of the system less for each picture.
                if not self._pass_answers():
                    return False
            else:
                self._answers.note_request(injected=False)
                self._server.sendall(message)
        return bool(data)

    def _introduce(self, message: bytes) -> None:
        self._introduced = True
        self._server.sendall(message)
        self._answers.order = self._requests.order
        order = "<" if self._requests.order == "little" else ">"
        self._begin_anew = self._drawing.beginning(order)
        self._inject(self._drawing.introduction(order))

    def _asks_for_picture(self, message: bytes) -> bool:
        opcode, minor = message[0], message[1]
        return opcode == _GET_IMAGE or (opcode == self._drawing.shared_memory_opcode and minor == _SHM_GET_IMAGE)

    def _inject(self, *requests: bytes, then: bytes = b"") -> None:
        """Sends requests of which the client knows nothing, and one of its own in the same breath."""
        for _ in requests:
            self._answers.note_request(injected=True)
        if then:
            self._answers.note_request(injected=False)
        self._server.sendall(b"".join((*requests, then)))


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
