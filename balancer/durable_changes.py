"""Changes of sessions on their way into the store: they are shown, and carried out, once they are durable.

Order is kept. Whatever an agent reported is true, whether the disk is full or not, so it is tried until it is kept;
meanwhile sessions can still be stopped, but none is started.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING

from balancer.domain.session_events import StopOnAgent
from balancer.group_commit import GroupCommit, Write
from balancer.ports.session_store import PutFinding, PutSession

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from balancer.domain.session import SessionRecord
    from balancer.domain.session_events import Command
    from balancer.ports.session_observer import SessionObserver
    from balancer.ports.session_store import Change, StoreError
    from balancer.session_book import Entry, SessionBook


class DurableChanges:
    """Shows changes to the world, and has commands carried out, when the store has them."""

    def __init__(
        self,
        writer: GroupCommit,
        book: SessionBook,
        observer: SessionObserver,
        run: Callable[[Sequence[Command]], None],
    ) -> None:
        """Begins with nothing under way.

        Args:
            writer: Commits.
            book: Shows sessions to the world.
            observer: Hears of what is shown.
            run: Has commands carried out.
        """
        self._writer = writer
        self._book = book
        self._observer = observer
        self._run = run

    def submit(self, entry: Entry | None, changes: Sequence[Change], commands: tuple[Command, ...]) -> None:
        """Takes changes of one session, or of none, and what is to be done once they are durable."""
        put = next((change.record for change in changes if isinstance(change, PutSession)), None)
        if entry is not None and put is not None:
            entry.unwritten += 1
        due = commands

        def durable() -> None:
            if entry is not None and put is not None:
                entry.unwritten -= 1
                # Progress that came meanwhile is told with the last of the changes.
                self.publish(put if entry.unwritten else entry.record)
            self._run(due)

        def failed(_: StoreError) -> None:
            # A full disk must not keep a session from being stopped; starting one has to wait.
            nonlocal due
            self._run(tuple(command for command in due if isinstance(command, StopOnAgent)))
            due = tuple(command for command in due if not isinstance(command, StopOnAgent))

        self._writer.submit(Write(tuple(changes), durable, failed, False))

    def publish(self, record: SessionRecord) -> None:
        """Shows a session as it is now, unless it is gone."""
        before = self._book.published(record.id)
        if before is None or before is record:
            return
        self._book.publish(record)
        self._observer.on_changed(before, record)

    async def keep_finding(self, key: str, text: str | None) -> None:
        """Keeps what was found out; returns when that is durable.

        Raises:
            StoreError: It could not be kept.
        """
        kept: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def durable() -> None:
            if not kept.done():
                kept.set_result(None)

        def failed(error: StoreError) -> None:
            if not kept.done():
                kept.set_exception(error)

        self._writer.submit(Write((PutFinding(key=key, text=text),), durable, failed, True))
        await kept


def worth_storing(before: SessionRecord, after: SessionRecord) -> bool:
    """Whether more changed than what is true again a second later."""
    same = replace(
        after,
        progress=before.progress,
        standing=before.standing,
        speed_limit=before.speed_limit,
        recording_report=before.recording_report,
        revision=before.revision,
    )
    return same != before
