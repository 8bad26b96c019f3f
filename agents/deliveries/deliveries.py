"""Copies the artifacts of ended sessions to the operator's destinations that their clients named.

What is to be copied is durable before anybody is told that it will be; it goes on after any restart, and a session's
folder may go only when each copy is confirmed, given up, or safe in the spill folder.
"""

from __future__ import annotations

import asyncio
import logging
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from agents.deliveries.copy_book import CopyBook
from agents.deliveries.courier import Courier
from agents.deliveries.destination import Destination, UnknownDestination
from agents.deliveries.folder_destination import FolderDestination
from agents.deliveries.journal import CopyEntry, FileEntry, Header, Journal
from agents.deliveries.names import check_session
from agents.deliveries.s3_destination import S3Destination
from agents.deliveries.source import look_at
from agents.deliveries.spill import spill
from agents.deliveries.status import DeliveriesPending, DeliveryState, DeliveryStatus, SourceLost

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from agents.deliveries.consignment import Consignment, Copy
    from gpu_balancer.runtime.clock import Clock
    from gpu_balancer.runtime.recording_sections import DeliverySettings, DestinationSettings
    from gpu_balancer.runtime.task_guard import TaskGuard

_LOG = logging.getLogger(__name__)


class Deliveries:
    """All copies that this agent makes."""

    def __init__(
        self,
        root: Path,
        settings: DeliverySettings,
        destinations: Sequence[DestinationSettings],
        *,
        tasks: TaskGuard,
        clock: Clock,
        on_changed: Callable[[str], None],
    ) -> None:
        """Makes one that does nothing until `start`.

        Args:
            root: Folder of its journal; made when missing.
            settings: Pauses and the spill folder.
            destinations: The operator's destinations.
            tasks: Owns what runs.
            clock: For pauses and times.
            on_changed: Told the session of each change of a status; called in the loop, must not block.
        """
        self._settings = settings
        self._tasks = tasks
        self._clock = clock
        self._book = CopyBook(
            Journal(root), clock=clock, give_up_after=timedelta(hours=settings.give_up_after_h), on_changed=on_changed
        )
        self._couriers: dict[str, Courier] = {}
        self._known = {destination.name: destination for destination in destinations}
        self._doors: dict[str, asyncio.Lock] = {}
        """One for each session that was asked about: putting one's files into the spill folder may take a while."""

    async def start(self) -> None:
        """Reads the journal and goes on with what is pending.

        Raises:
            OSError: When the journal's folder cannot be made or read.
        """
        await self._book.read()
        for copy in self._book.pending():
            self._courier(copy.destination).take(copy)

    async def begin(
        self, session: str, attempt: int, artifacts: Path, paths: Sequence[str], destinations: Sequence[str]
    ) -> None:
        """Has an attempt's artifacts copied. Durable before it returns; asking again for the same attempt does nothing.

        Args:
            session: The session's id.
            attempt: Which attempt.
            artifacts: Its artifacts folder. The files must change no more.
            paths: What is to be copied, relative to it, with "/".
            destinations: Names of the operator's destinations. One that is not in the settings is waited for.

        Raises:
            ValueError: When the session's id could not name a folder.
            OSError: When it cannot be written down.
        """
        check_session(session)
        async with self._doors.setdefault(session, asyncio.Lock()):
            if self._book.of_attempt(session, attempt) is not None or not paths or not destinations:
                return
            header, lost = await asyncio.to_thread(
                self._described, session, attempt, artifacts, tuple(dict.fromkeys(paths)), destinations=destinations
            )
            await self._book.begin(header, lost)
        for copy in self._consignment_pending(session, attempt):
            self._courier(copy.destination).take(copy)

    def of_session(self, session: str) -> Mapping[str, Sequence[DeliveryStatus]]:
        """Gives the statuses of a session's copies by artifact, those of its newest attempt that left the artifact."""
        found: dict[str, Sequence[DeliveryStatus]] = {}
        for consignment in self._book.of_session(session):
            found |= consignment.statuses()
        return found

    def may_delete(self, session: str) -> bool:
        """Tells whether no copy needs the session's folder any more: each is delivered, given up, or spilled."""
        return not any(consignment.needs_session_folder for consignment in self._book.of_session(session))

    async def release(self, session: str) -> None:
        """Lets a session be deleted; to be awaited before its folder is removed. May be repeated.

        What could not be delivered because its destination is away is put into the spill folder and delivered from
        there; of that only the log tells from then on. What is settled is forgotten.

        Raises:
            DeliveriesPending: When a copy still needs the session's folder; the message says which, and what to try.
        """
        async with self._doors.setdefault(session, asyncio.Lock()):
            consignments = self._book.of_session(session)
            for consignment in consignments:
                self._refuse_if_needed(consignment)
            try:
                for consignment in consignments:
                    await self._spill(consignment)
                    await self._book.release(consignment)
            except OSError as error:
                raise DeliveriesPending(
                    f"Cannot delete sessions/{session}: its artifacts are still to be copied, and cannot be put into "
                    f"the spill folder {self._settings.spill_dir}: {error.strerror}. Try to make room there."
                ) from error
        self._doors.pop(session, None)

    def _refuse_if_needed(self, consignment: Consignment) -> None:
        for copy in consignment.copies(state=DeliveryState.PENDING):
            status = consignment.status(copy)
            if consignment.is_spilled(copy.path):
                continue
            told = f"Cannot delete sessions/{copy.session}: {copy.path} is still to be copied to {copy.destination}"
            if not (status.message or self._courier(copy.destination).is_away):
                raise DeliveriesPending(f"{told}. Try again in a while.")
            if self._settings.spill_dir is None:
                why = status.message or "it is away"
                raise DeliveriesPending(f"{told}, which fails: {why} Or set [deliveries] spill_dir.")

    async def _spill(self, consignment: Consignment) -> None:
        header = consignment.header
        pending = {copy.path: copy for copy in consignment.copies(state=DeliveryState.PENDING)}
        for path in pending:
            if consignment.is_spilled(path) or self._settings.spill_dir is None:
                continue
            source = consignment.source(path)
            try:
                place = await asyncio.to_thread(
                    spill, source, Path(self._settings.spill_dir), header.session, header.attempt
                )
            except SourceLost:
                # Its courier will find that too, and say so.
                continue
            await self._book.spilled(consignment, place)
            _LOG.info("Put %s of sessions/%s into %s", path, header.session, place.folder)

    def _described(
        self, session: str, attempt: int, artifacts: Path, paths: tuple[str, ...], *, destinations: Sequence[str]
    ) -> tuple[Header, list[CopyEntry]]:
        """Notes files as they are now. Copies of what cannot be copied are given up from the start, and say why."""
        now = self._clock.now()
        files, lost = [], []
        for path in paths:
            try:
                source = look_at(artifacts, path)
                files.append(FileEntry(path=path, size_bytes=source.size_bytes, modified_ns=source.modified_ns))
            except SourceLost as error:
                files.append(FileEntry(path=path, size_bytes=0, modified_ns=0))
                lost += [
                    CopyEntry(
                        path=path, destination=name, state=DeliveryState.FAILED, message=str(error), update_time=now
                    )
                    for name in destinations
                ]
        header = Header(
            session=session,
            attempt=attempt,
            folder=str(artifacts),
            begin_time=now,
            destinations=tuple(dict.fromkeys(destinations)),
            files=tuple(files),
        )
        return header, lost

    def _consignment_pending(self, session: str, attempt: int) -> list[Copy]:
        consignment = self._book.of_attempt(session, attempt)
        return [] if consignment is None else consignment.copies(state=DeliveryState.PENDING)

    def _courier(self, name: str) -> Courier:
        courier = self._couriers.get(name)
        if courier is None:
            courier = Courier(
                name,
                self._destination(name),
                self._book,
                settings=self._settings,
                tasks=self._tasks,
                clock=self._clock,
            )
            courier.start()
            self._couriers[name] = courier
        return courier

    def _destination(self, name: str) -> Destination:
        settings = self._known.get(name)
        if settings is None:
            return UnknownDestination(name)
        if settings.kind == "folder":
            return FolderDestination(Path(settings.path or "/"))
        return S3Destination(settings)
