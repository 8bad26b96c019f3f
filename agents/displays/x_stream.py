"""What an X client and its server say to one another, taken apart and numbered anew.

Who stands between the two can put requests of its own among the client's: the server counts them, so in what it answers
the numbers are set back by as many. The protocol is X11, "X Window System Protocol", chapters 1, 8 and appendix B.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from typing import Literal

_LITTLE = ord("l")
_SETUP_BYTES = 12
_REQUEST_BYTES = 4
_LONG_REQUEST_BYTES = 8
_WELCOME_BYTES = 8
CHUNK_BYTES = 1 << 16
"""What a server has said is read so much at a time, at most."""
_ANSWER_BYTES = 32
ERROR, REPLY = 0, 1
_KEYMAP_NOTIFY, _GENERIC_EVENT = 11, 35
SENT_EVENT = 0x80
"""Set in the kind of an event that another client sent."""
_NUMBERS = 1 << 16
_KEPT_INJECTED = 64
"""Numbers of injected requests to which an answer may still come: a client waits for the answers of few."""


class _Messages(ABC):
    """What one side says: its introduction, then one message after the other."""

    def __init__(self) -> None:
        """Begins with a connection's first byte."""
        self._rest = bytearray()
        self._needed = 0
        """Bytes of the rest, at least, before more can be told."""
        self.introduced = False
        """Whether the first message has come."""
        self.order: Literal["little", "big"] = "little"
        """Of both sides' numbers. The client chooses it, in its introduction."""

    def feed(self, data: bytes) -> list[bytes]:
        """Takes what has arrived, and gives the messages that are whole by now."""
        if self._rest:
            self._rest += data
            if len(self._rest) < self._needed:
                return []
            data = bytes(self._rest)
            self._rest.clear()
        messages, at = [], 0
        while (length := self._length(data, at)) <= len(data) - at:
            messages.append(data[at : at + length])
            at += length
            self.introduced = True
        self._rest += data[at:]
        self._needed = length
        return messages

    @abstractmethod
    def _length(self, data: bytes, at: int) -> int:
        """Gives a message's length, or, where its beginning does not tell yet, how much of it does."""

    def _number(self, data: bytes, at: int, size: int) -> int:
        return int.from_bytes(data[at : at + size], self.order)


class Requests(_Messages):
    """Takes what a client sends apart."""

    def _length(self, data: bytes, at: int) -> int:
        have = len(data) - at
        if not self.introduced:
            if have < _SETUP_BYTES:
                return _SETUP_BYTES
            self.order = "little" if data[at] == _LITTLE else "big"
            return _SETUP_BYTES + padded(self._number(data, at + 6, 2)) + padded(self._number(data, at + 8, 2))
        if have < _REQUEST_BYTES:
            return _REQUEST_BYTES
        words = self._number(data, at + 2, 2)
        if words == 0:  # A long request, BIG-REQUESTS.
            if have < _LONG_REQUEST_BYTES:
                return _LONG_REQUEST_BYTES
            words = self._number(data, at + 4, 4)
        return max(_REQUEST_BYTES, 4 * words)


class Answers(_Messages):
    """Takes what a server sends apart, and makes it what it were if nothing had been injected."""

    def __init__(self) -> None:
        """Begins with a connection's first byte."""
        super().__init__()
        self._sent = 0
        self._injected = 0
        self._recent: deque[int] = deque(maxlen=_KEPT_INJECTED)

    def note_request(self, *, injected: bool) -> None:
        """Hears of a request that is sent to the server now.

        Args:
            injected: Whether the client knows nothing of it.
        """
        self._sent += 1
        if injected:
            self._injected += 1
            self._recent.append(self._sent)

    def feed(self, data: bytes) -> list[bytes]:
        """Takes what has arrived, and gives what of it the client is to get now."""
        introduced = self.introduced
        messages = super().feed(data)
        welcome = [] if introduced else messages[:1]
        told = (self._number_anew(message) for message in messages[len(welcome) :])
        return [*welcome, *(message for message in told if message)]

    def _length(self, data: bytes, at: int) -> int:
        have = len(data) - at
        if not self.introduced:
            if have < _WELCOME_BYTES:
                return _WELCOME_BYTES
            return _WELCOME_BYTES + 4 * self._number(data, at + 6, 2)
        if have < _ANSWER_BYTES or data[at] & ~SENT_EVENT not in (REPLY, _GENERIC_EVENT):
            return _ANSWER_BYTES
        return _ANSWER_BYTES + 4 * self._number(data, at + 4, 4)

    def _number_anew(self, message: bytes) -> bytes | None:
        """Sets an answer's number back. None: it answers an injected request, and is nothing to the client."""
        kind = message[0] & ~SENT_EVENT
        if kind == _KEYMAP_NOTIFY:
            return message  # It has none.
        # Its number is that of a request that was sent lately.
        number = self._sent - (self._sent - self._number(message, 2, 2)) % _NUMBERS
        before = self._injected
        for injected in reversed(self._recent):
            if injected < number:
                break
            if injected == number and kind in (ERROR, REPLY):
                return None
            before -= injected > number
        return message[:2] + ((number - before) % _NUMBERS).to_bytes(2, self.order) + message[4:]


def padded(length: int) -> int:
    """Rounds up to what the protocol pads texts to."""
    return -(-length // 4) * 4
