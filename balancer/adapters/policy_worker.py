"""A thread of its own for a stranger's placement policy, and what becomes of calls in it."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Coroutine, Iterator
from contextlib import suppress
from queue import Empty, SimpleQueue
from threading import Thread
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from datetime import timedelta
    from types import TracebackType

_LONGEST_TOLD = 200

_Value = TypeVar("_Value")


class Answer(Generic[_Value]):
    """What became of a call in the policy's thread. A context in which every error is kept and told in words."""

    value: _Value
    """What the call returned. Unset where there is an error."""
    error: BaseException | None = None
    told: str = ""
    """The error in words: its type and what it says."""

    def __enter__(self) -> Answer[_Value]:
        return self

    def __exit__(self, _: type[BaseException] | None, error: BaseException | None, __: TracebackType | None) -> bool:
        """Keeps the error, whatever it is: a stranger's SystemExit ends nothing here."""
        self.error = error
        if error is not None:
            self.told = type(error).__name__
            with suppress(BaseException):
                self.told = short_line(f"{self.told}: {error}")
        return True


class PolicyWorker:
    """A thread in which a stranger's code runs. It ends when it is asked nothing any more, or was abandoned."""

    def __init__(self, name: str) -> None:
        """Starts the thread.

        Args:
            name: The policy's.
        """
        self._requests: SimpleQueue[_Request | None] = SimpleQueue()
        self._notes: dict[str, _Request] = {}
        self._failures: SimpleQueue[Answer[None]] = SimpleQueue()
        self._thread = Thread(target=_serve, args=(self._requests, self._notes), name=f"policy {name}", daemon=True)
        self._thread.start()
        # Without this object nobody can ask any more.
        weakref.finalize(self, self._requests.put, None).atexit = False

    @property
    def alive(self) -> bool:
        """Whether the thread is there: of an abandoned one, whether its last call goes on."""
        return self._thread.is_alive()

    def ask(self, call: Callable[[], _Value], timeout: timedelta) -> Answer[_Value] | None:
        """Calls in the thread and waits.

        Args:
            call: What is to be called there.
            timeout: How long to wait for it, and before that for the note that the thread may be busy with.

        Returns:
            What became of it. None: it did not end in time; then nothing more is to be asked.
        """
        begun: SimpleQueue[None] = SimpleQueue()
        reply: SimpleQueue[Answer[_Value]] = SimpleQueue()

        def answer() -> None:
            begun.put(None)
            kept: Answer[_Value] = Answer()
            with kept:
                kept.value = call()
            reply.put(kept)

        self._requests.put(answer)
        try:
            begun.get(timeout=timeout.total_seconds())
            return reply.get(timeout=timeout.total_seconds())
        except Empty:
            self._requests.put(None)
            return None

    def note(self, key: str, call: Callable[[], object]) -> None:
        """Calls in the thread when nothing is asked there, without waiting.

        Args:
            key: Of notes of one key that wait, only the latest is called.
            call: What is to be called there.
        """
        failures = self._failures  # The thread must not hold the worker: it ends when nobody else does.

        def noted() -> None:
            kept: Answer[None] = Answer()
            with kept:
                call()
            if kept.error is not None:
                failures.put(kept)

        self._notes[key] = noted
        if self._requests.empty():
            # Else it looks when it is through with what it was asked.
            self._requests.put(_look)

    def failures(self) -> Iterator[Answer[None]]:
        """Gives the notes that have failed, each once."""
        with suppress(Empty):
            while True:
                yield self._failures.get_nowait()


def called(method: Callable[..., object], *told: object) -> object:
    """Calls a stranger's method, which must not be one to await: its coroutine would never run, and nobody would know.

    Raises:
        TypeError: It is one.
        Exception: Whatever the method raises.
    """
    answer = method(*told)
    if isinstance(answer, Coroutine):
        answer.close()
        raise TypeError("nobody awaits it; try without async")
    return answer


def short_line(text: str) -> str:
    """Makes one short line of a stranger's text, without what a terminal would obey."""
    shown = text if len(text) <= _LONGEST_TOLD else f"{text[:_LONGEST_TOLD]}…"
    return "".join(sign if sign.isprintable() else " " for sign in shown)


_Request = Callable[[], None]


def _look() -> None:
    """Wakes the thread for a note."""


def _serve(requests: SimpleQueue[_Request | None], notes: dict[str, _Request]) -> None:
    """Does what is asked, and notes only while nothing is."""
    while True:
        try:
            request = requests.get(block=not notes)
        except Empty:
            # A copy, because notes come in meanwhile. Those that wait longest go first.
            request = notes.pop(list(notes)[0])  # noqa: RUF015
        if request is None:
            return
        request()
        del request  # It holds what it was asked with.
