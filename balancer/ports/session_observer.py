"""Who is told of what the engine did: metrics and traces. The engine works the same whether anybody listens.

An observer MUST NOT raise, wait or call the engine: it is called inside the hot path.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from balancer.domain.decision import Decision
    from balancer.domain.session import Failure, SessionRecord


class SessionObserver(Protocol):
    """Hears of admissions, refusals and changes."""

    def on_admitted(self, record: SessionRecord, decision: Decision, seconds: float) -> None:
        """Hears that a session was placed, and how long that took in seconds, the wait for a device counted."""
        ...

    def on_refused(self, decision: Decision) -> None:
        """Hears that no device takes a session."""
        ...

    def on_queued(self, record: SessionRecord, decision: Decision) -> None:
        """Hears that a session waits, durably, and by which decision."""
        ...

    def on_not_begun(self, record: SessionRecord, failure: Failure) -> None:
        """Hears that a session's attempt failed before its first frame, before anything is done about it.

        Args:
            record: The session as it was, with what it has booked.
            failure: Why.
        """
        ...

    def on_changed(self, before: SessionRecord, after: SessionRecord) -> None:
        """Hears of a change that watchers were told of, progress included."""
        ...


class SeveralObservers:
    """Tells several, in order."""

    def __init__(self, *observers: SessionObserver) -> None:
        """Takes who is told."""
        self._observers = observers

    def on_admitted(self, record: SessionRecord, decision: Decision, seconds: float) -> None:
        """Passes it on."""
        for observer in self._observers:
            observer.on_admitted(record, decision, seconds)

    def on_refused(self, decision: Decision) -> None:
        """Passes it on."""
        for observer in self._observers:
            observer.on_refused(decision)

    def on_queued(self, record: SessionRecord, decision: Decision) -> None:
        """Passes it on."""
        for observer in self._observers:
            observer.on_queued(record, decision)

    def on_not_begun(self, record: SessionRecord, failure: Failure) -> None:
        """Passes it on."""
        for observer in self._observers:
            observer.on_not_begun(record, failure)

    def on_changed(self, before: SessionRecord, after: SessionRecord) -> None:
        """Passes it on."""
        for observer in self._observers:
            observer.on_changed(before, after)


class SilentObserver:
    """Lets everything pass."""

    def on_admitted(self, record: SessionRecord, decision: Decision, seconds: float) -> None:
        """Does nothing."""

    def on_refused(self, decision: Decision) -> None:
        """Does nothing."""

    def on_queued(self, record: SessionRecord, decision: Decision) -> None:
        """Does nothing."""

    def on_not_begun(self, record: SessionRecord, failure: Failure) -> None:
        """Does nothing."""

    def on_changed(self, before: SessionRecord, after: SessionRecord) -> None:
        """Does nothing."""
