"""Whether something was drawn on a display, as its X server tells it.

Spoken without an X library: to load one takes three times what the whole program needs that asks this, of which each
display has one. "X Window System Protocol", chapters 8 and 9 and appendix B; "The DAMAGE Extension", version 1.1.
"""

from __future__ import annotations

import select
import socket
import struct
from contextlib import ExitStack
from typing import TYPE_CHECKING

from agents.displays.x_authority import COOKIE_NAME
from agents.displays.x_sockets import socket_of
from agents.displays.x_stream import CHUNK_BYTES, ERROR, REPLY, SENT_EVENT, Answers, padded
from gpu_balancer.runtime.clock import SystemClock

if TYPE_CHECKING:
    from typing import Self

_ANSWER_TIMEOUT_S = 20.0
_VERSION = 11
_WELCOME = 1
_FIXED_WELCOME_BYTES = 40
_FORMAT_BYTES = 8
_CREATE_WINDOW, _SEND_EVENT, _GET_INPUT_FOCUS, _QUERY_EXTENSION = 1, 25, 43, 98
_INPUT_ONLY = 2
_CLIENT_MESSAGE = 33
_QUERY_DAMAGE, _CREATE_DAMAGE, _SUBTRACT_DAMAGE = 0, 1, 3
_NON_EMPTY = 3


class Drawing:
    """What is drawn on a display. A context manager: it ends the connection."""

    def __init__(self, name: str, cookie: bytes) -> None:
        """Asks the server to tell.

        Args:
            name: The display, ":1007".
            cookie: That it demands.

        Raises:
            OSError: The server is not there, refuses, does not answer, or has no such extension.
        """
        with ExitStack() as stack:
            self._way = stack.enter_context(connected_to(name))
            self._way.settimeout(_ANSWER_TIMEOUT_S)
            self._answers = Answers()
            first_id, root = self._introduce_itself(cookie)
            self.shared_memory_opcode = self._opcode(b"MIT-SHM")
            self._damage_opcode = self._opcode(b"DAMAGE")
            if not self._damage_opcode:
                raise ConnectionRefusedError("it has no DAMAGE extension")
            self._ask(self.introduction("<"))
            self._damage, self._window = first_id, first_id + 1
            window = (self._window, root, 0, 0, 1, 1, 0, _INPUT_ONLY, 0, 0)
            damage = (self._damage, root, _NON_EMPTY)
            asked = struct.pack("<BBHIIhhHHHHII", _CREATE_WINDOW, 0, 8, *window)
            asked += struct.pack("<BBHIIBxxx", self._damage_opcode, _CREATE_DAMAGE, 4, *damage)
            # Both are answered only if they fail.
            self._ask(asked + struct.pack("<BBH", _GET_INPUT_FOCUS, 0, 1))
            self._way.setblocking(False)
            self._end = stack.pop_all()
        self._clock = SystemClock()
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
        return struct.pack(f"{order}BBHII", self._damage_opcode, _QUERY_DAMAGE, 3, 1, 1)

    def beginning(self, order: str) -> tuple[bytes, bytes]:
        """Gives two requests with which a client has it begin anew: what was drawn by then has not happened.

        The first sends a mark, behind which events are new; the second has the next drawing told again. In this order:
        of what is drawn between the two it is told in vain, but never not at all.

        Args:
            order: Of the client's bytes, as `struct` has it.
        """
        mark = struct.pack(f"{order}BBHIIBB30x", _SEND_EVENT, 0, 11, self._window, 0, _CLIENT_MESSAGE, 8)
        return mark, struct.pack(f"{order}BBHIII", self._damage_opcode, _SUBTRACT_DAMAGE, 4, self._damage, 0, 0)

    def happened(self, within_s: float) -> bool:
        """Tells whether something was drawn since it began anew, and awaits that. 0: it does not wait.

        Raises:
            OSError: The server has ended.
        """
        end_s = self._clock.monotonic_s() + within_s
        self._listen(0.0)
        while not self._happened and (left_s := end_s - self._clock.monotonic_s()) > 0:
            self._listen(left_s)
        return self._happened

    def _listen(self, within_s: float) -> None:
        if select.select((self._way,), (), (), within_s)[0] and (told := self._read()):
            self._happened = told[-1][0] & ~SENT_EVENT != _CLIENT_MESSAGE

    def _introduce_itself(self, cookie: bytes) -> tuple[int, int]:
        """Gives the first id that is this client's to give, and the root window."""
        lengths = (len(COOKIE_NAME), len(cookie))
        proof = COOKIE_NAME.ljust(padded(len(COOKIE_NAME)), b"\0") + cookie.ljust(padded(len(cookie)), b"\0")
        welcome = self._ask(struct.pack("<BxHHHHxx", ord("l"), _VERSION, 0, *lengths) + proof)
        if welcome[0] != _WELCOME:
            raise ConnectionRefusedError(welcome[8 : 8 + welcome[1]].decode(errors="replace").strip())
        (first_id,) = struct.unpack_from("<I", welcome, 12)
        vendor_length, format_count = struct.unpack_from("<H3xB", welcome, 24)
        at = _FIXED_WELCOME_BYTES + padded(vendor_length) + _FORMAT_BYTES * format_count
        (root,) = struct.unpack_from("<I", welcome, at)
        return first_id, root

    def _opcode(self, extension: bytes) -> int:
        """Gives the major opcode of an extension; 0, which no request has, where there is none."""
        name = extension.ljust(padded(len(extension)), b"\0")
        reply = self._ask(struct.pack("<BBHHxx", _QUERY_EXTENSION, 0, 2 + len(name) // 4, len(extension)) + name)
        return reply[9] if reply[8] else 0

    def _ask(self, said: bytes) -> bytes:
        """Says something and gives the answer."""
        is_welcome = not self._answers.introduced
        self._way.sendall(said)
        while True:
            for answer in self._read():
                if is_welcome or answer[0] == REPLY:
                    return answer
                if answer[0] == ERROR:
                    raise ConnectionRefusedError(f"X error {answer[1]} for a request {answer[10]}")

    def _read(self) -> list[bytes]:
        data = self._way.recv(CHUNK_BYTES)
        if not data:
            raise ConnectionResetError("the X server has ended")
        return self._answers.feed(data)


def connected_to(name: str) -> socket.socket:
    """Connects to a display's X server.

    Raises:
        OSError: It is not there.
    """
    server = socket.socket(socket.AF_UNIX)
    try:
        server.connect(str(socket_of(name)))
    except OSError:
        server.close()
        raise
    return server
