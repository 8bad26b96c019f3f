"""What can still be done with an attempt's folder that an agent finds at its start, however its records look.

A record can be damaged: by a disk, a person, or a program that is newer than this one. The processes of the attempt do
not care and would run for ever, with nobody who could stop them. So what runs is either watched on or ended, and a
folder is left alone only when its lock proves that nothing of it runs.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from agents.sessions.attempt import AttemptStatus
from agents.sessions.processes import AttemptProcesses
from agents.sessions.records import RecordUnreadableError, load_launch, load_status

if TYPE_CHECKING:
    from agents.sessions.folder import AttemptFolder
    from agents.sessions.records import AnyRecord

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundAttempt:
    """An attempt as its folder tells of it."""

    status: AttemptStatus
    launch: AnyRecord | None
    """None: it never came here, or its record cannot be read."""

    @property
    def unwatchable(self) -> bool:
        """Whether it has not ended and nothing can be known of it: all that is left is to end it."""
        return self.status.live and self.launch is None


def read_attempt(folder: AttemptFolder) -> FoundAttempt:
    """Reads a folder. Blocks for the disk.

    A live attempt whose status is lost gets that of one just launched; its progress tells again that it runs.

    Raises:
        RecordUnreadableError: When its status cannot be read and nothing of it runs.
        OSError: When the disk refuses.
    """
    launch = _read_launch(folder)
    try:
        status = _read_status(folder)
        return FoundAttempt(
            status=status if launch is None else replace(status, folder=str(folder.path)), launch=launch
        )
    except RecordUnreadableError as error:
        with AttemptProcesses(folder) as processes:
            if not processes.any_alive():
                raise
        _LOG.error("%s of %s, which still runs", error, folder.key)
    launched = datetime.fromtimestamp(folder.lock.stat().st_mtime, UTC)
    return FoundAttempt(
        status=AttemptStatus(key=folder.key, folder=str(folder.path), launch_time=launched), launch=launch
    )


def _read_status(folder: AttemptFolder) -> AttemptStatus:
    try:
        status = load_status(folder.status.read_bytes())
    except FileNotFoundError as error:
        raise RecordUnreadableError("Cannot read a status: it is missing.") from error
    if status.key != folder.key:
        raise RecordUnreadableError(f"Cannot read a status: it is of {status.key}.")
    return status


def _read_launch(folder: AttemptFolder) -> AnyRecord | None:
    try:
        return load_launch(folder.launch.read_bytes())
    except FileNotFoundError:
        return None
    except RecordUnreadableError as error:
        _LOG.error("%s of %s", error, folder.key)
        return None
