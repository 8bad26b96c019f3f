"""What can still be done with an attempt's folder that an agent finds at its start, however its records look.

A record can be damaged: by a disk, a person, or a program that is newer than this one. The processes of the attempt do
not care and would run for ever, with nobody who could stop them. So what runs is either watched on or ended, and a
folder is left alone only when its lock proves that nothing of it runs: see `folder_reconciliation`, which decides.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from agents.lock_holders import is_held
from agents.sessions.attempt import AttemptStatus
from agents.sessions.folder_reconciliation import (
    ExitSays,
    LaunchSays,
    Outcome,
    ProcessesSay,
    StatusSays,
    reconcile_folder,
)
from agents.sessions.processes import AttemptProcesses
from agents.sessions.records import RecordingRecord, RecordUnreadableError, load_launch, load_status

if TYPE_CHECKING:
    from agents.sessions.folder import AttemptFolder, SessionFolders
    from agents.sessions.records import AnyRecord

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundAttempt:
    """An attempt as its folder tells of it, and what becomes of it."""

    outcome: Outcome
    status: AttemptStatus
    launch: AnyRecord | None
    """None: it never came here, or its record cannot be read."""


def found_folders(folders: SessionFolders) -> tuple[AttemptFolder, ...]:
    """Lists the folders that exist, those of which something runs first: an end can be read later. Blocks."""
    return tuple(sorted(folders.found(), key=lambda folder: not _is_held(folder)))


def read_attempt(folder: AttemptFolder) -> FoundAttempt:
    """Reads a folder. Blocks for the disk.

    A live attempt whose status is lost gets that of one just launched; its progress tells again that it runs.

    Raises:
        RecordUnreadableError: When nothing of it runs and nothing can be told of it.
        OSError: When the disk refuses.
    """
    launch, launch_says = _read_launch(folder)
    status, problem = _read_status(folder)
    # Processes before the exit file: a shim that ends in between has written it.
    processes = _look_for_processes(folder)
    outcome = reconcile_folder(
        launch=launch_says,
        status=StatusSays.DAMAGED if status is None else StatusSays.LIVE if status.live else StatusSays.ENDED,
        processes=processes,
        exit_file=ExitSays.BLANK if folder.exit_code() is None else ExitSays.WRITTEN,
    )
    if outcome is Outcome.LEAVE:
        raise RecordUnreadableError(problem)
    if status is None:
        _LOG.error("%s of %s, which still runs", problem, folder.key)
        launched = datetime.fromtimestamp(folder.lock.stat().st_mtime, UTC)
        status = AttemptStatus(key=folder.key, launch_time=launched)
    return FoundAttempt(outcome=outcome, status=status, launch=launch)


def _read_launch(folder: AttemptFolder) -> tuple[AnyRecord | None, LaunchSays]:
    try:
        record = load_launch(folder.launch.read_bytes())
    except FileNotFoundError:
        return None, LaunchSays.ABSENT
    except RecordUnreadableError as error:
        _LOG.error("%s of %s", error, folder.key)
        return None, LaunchSays.DAMAGED
    return record, LaunchSays.RECORDING if isinstance(record, RecordingRecord) else LaunchSays.TRANSCODE


def _read_status(folder: AttemptFolder) -> tuple[AttemptStatus | None, str]:
    """Gives the status, or why there is none."""
    try:
        status = load_status(folder.status.read_bytes())
    except FileNotFoundError:
        return None, "Cannot read a status: it is missing."
    except RecordUnreadableError as error:
        return None, str(error)
    if status.key != folder.key:
        return None, f"Cannot read a status: it is of {status.key}."
    return status, ""


def _look_for_processes(folder: AttemptFolder) -> ProcessesSay:
    with AttemptProcesses(folder) as processes:
        if not processes.any_alive():
            return ProcessesSay.NONE
        # Who holds the lock before any shim has said who it is can only be the shim.
        if folder.shim_pid() is None or processes.shim_alive():
            return ProcessesSay.SHIM
        return ProcessesSay.OTHERS if processes.program_fd is None else ProcessesSay.PROGRAM


def _is_held(folder: AttemptFolder) -> bool:
    try:
        return is_held(folder.lock)
    except OSError:
        return False
