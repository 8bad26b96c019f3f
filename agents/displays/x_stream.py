"""What an X client and its server say to one another, taken apart and numbered anew.

Who stands between the two can put requests of its own among the client's: the server counts them, so in what it answers
the numbers are set back by as many. The protocol is X11, "X Window System Protocol", chapters 1, 8 and appendix B.
"""

from __future__ import annotations

import struct
from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_LITTLE = ord("l")
_SETUP_BYTES = 12
_REQUEST_BYTES = 4
_LONG_REQUEST_BYTES = 8
_WELCOME_BYTES = 8
_ANSWER_BYTES = 32
_ERROR, _REPLY = 0, 1
_KEYMAP_NOTIFY, _GENERIC_EVENT = 11, 35
_SENT_EVENT = 0x80
_NUMBERS = 1 << 16
_KEPT_INJECTED = 64
"""Numbers of injected requests to which an answer may still come: a client waits for the answers of few."""


class Requests:
    """Takes what a client sends apart: its introduction, then one request after the other."""

    def __init__(self) -> None:
        """Begins with a connection's first byte."""
        self._bytes = bytearray()
        self._introduced = False
        self.order = "<"
        """Of the client's bytes, as `struct` has it; known from its introduction on."""

    def feed(self, data: bytes) -> None:
        """Takes what has arrived."""
        self._bytes += data

    def next(self) -> bytes | None:
        """Gives the next whole message. None: more of it is to come."""
        length = self._length()
        if length is None or len(self._bytes) < length:
            return None
        message = bytes(self._bytes[:length])
        del self._bytes[:length]
        self._introduced = True
        return message

    def _length(self) -> int | None:
        have = len(self._bytes)
        if not self._introduced:
            if have < _SETUP_BYTES:
                return None
            self.order = "<" if self._bytes[0] == _LITTLE else ">"
            name, proof = struct.unpack_from(f"{self.order}HH", self._bytes, 6)
            return _SETUP_BYTES + _padded(int(name)) + _padded(int(proof))
        if have < _REQUEST_BYTES:
            return None
        (words,) = struct.unpack_from(f"{self.order}H", self._bytes, 2)
        if words == 0:  # A long request, BIG-REQUESTS.
            if have < _LONG_REQUEST_BYTES:
                return None
            (words,) = struct.unpack_from(f"{self.order}I", self._bytes, 4)
        return max(_REQUEST_BYTES, 4 * int(words))


class Answers:
    """Takes what a server sends apart, and makes it what it were if nothing had been injected."""

    def __init__(self) -> None:
        """Begins with a connection's first byte."""
        self._bytes = bytearray()
        self._introduced = False
        self._order = "<"
        self._sent = 0
        self._injected = 0
        self._recent: deque[int] = deque(maxlen=_KEPT_INJECTED)

    def note_request(self, order: str, *, injected: bool) -> None:
        """Hears of a request that is sent to the server now.

        Args:
            order: Of the client's bytes.
            injected: Whether the client knows nothing of it.
        """
        self._order = order
        self._sent += 1
        if injected:
            self._injected += 1
            self._recent.append(self._sent)

    def feed(self, data: bytes) -> bytes:
        """Takes what has arrived, and gives what of it the client is to get now."""
        self._bytes += data
        return b"".join(self._whole())

    def _whole(self) -> Iterator[bytes]:
        while (length := self._length()) is not None and len(self._bytes) >= length:
            message = self._bytes[:length]
            del self._bytes[:length]
            if not self._introduced:
                self._introduced = True
                yield bytes(message)
            elif self._number_anew(message):
                yield bytes(message)

    def _length(self) -> int | None:
        if not self._introduced:
            if len(self._bytes) < _WELCOME_BYTES:
                return None
            (words,) = struct.unpack_from(f"{self._order}H", self._bytes, 6)
            return _WELCOME_BYTES + int(words) * 4
        if len(self._bytes) < _ANSWER_BYTES:
            return None
        kind = self._bytes[0] & ~_SENT_EVENT
        if kind not in (_REPLY, _GENERIC_EVENT):
            return _ANSWER_BYTES
        (words,) = struct.unpack_from(f"{self._order}I", self._bytes, 4)
        return _ANSWER_BYTES + int(words) * 4

    def _number_anew(self, message: bytearray) -> bool:
        """Sets an answer's number back. False: it answers an injected request, and is nothing to the client."""
        kind = message[0] & ~_SENT_EVENT
        if kind == _KEYMAP_NOTIFY:
            return True  # It has none.
        (short,) = struct.unpack_from(f"{self._order}H", message, 2)
        # Its number is that of a request that was sent lately.
        number = self._sent - (self._sent - short) % _NUMBERS
        if kind in (_ERROR, _REPLY) and number in self._recent:
            return False
        before = self._injected
        for injected in reversed(self._recent):
            if injected <= number:
                break
            before -= 1
        struct.pack_into(f"{self._order}H", message, 2, (number - before) % _NUMBERS)
        return True


def _padded(length: int) -> int:
    return -(-length // 4) * 4
