"""The port of a place where copies are kept, and what is handed to it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from agents.deliveries.status import DeliveryFailure

if TYPE_CHECKING:
    import threading

    from agents.deliveries.source import Source


@dataclass(frozen=True, slots=True, kw_only=True)
class Parcel:
    """A file with the name that its copy is to have."""

    session: str
    attempt: int
    source: Source

    @property
    def path(self) -> str:
        """The artifact's path."""
        return self.source.path


class Destination(Protocol):
    """Keeps copies.

    MUST return only when the copy is confirmed: durable there, with the size and bytes of the source.
    MUST find a copy that it has already made, and never write over other bytes that are there.
    MUST hold no whole file in memory, and MUST leave soon once `called_off` is set.
    """

    def deliver(self, parcel: Parcel, called_off: threading.Event) -> str:
        """Makes a copy, or finds it made. Blocks, so it is called in threads of the destination's own.

        Returns:
            Where the copy is, for people.

        Raises:
            DeliveryFailure: When the destination did not take it; then it may be tried again.
            SourceLost: When the artifact is gone or was changed.
            CalledOff: When it was called off.
            OSError: When the artifact could not be read.
        """
        ...

    def rest(self) -> None:
        """Gives back what is kept for the next copy: for now there is none."""
        ...


class UnknownDestination:
    """Stands for a name that is in the settings no more: copies wait until it is there again."""

    def __init__(self, name: str) -> None:
        """Takes the name."""
        self._name = name

    def deliver(self, parcel: Parcel, called_off: threading.Event) -> str:  # noqa: ARG002 - the port's shape
        """Refuses.

        Raises:
            DeliveryFailure: Always.
        """
        raise DeliveryFailure(
            f"Cannot copy {parcel.path}: the settings have no destination {self._name!r}. Try to put it back.",
            permanent=True,
        )

    def rest(self) -> None:
        """Has nothing."""
