"""The end of a display: every process of it, and everything that they left on the machine.

A display may be ended by the agent that made it or by a later one, when it was never finished, when its folders are
half gone, and more than once. Its folder in the state goes last, so that an end which is interrupted is done again.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import logging
import os
import shutil
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from agents.displays.process_search import ProcessMarks, is_gone, kill_marked
from agents.displays.x_sockets import clear_after
from agents.lock_holders import is_held

if TYPE_CHECKING:
    from collections.abc import Collection

    from agents.displays.display_folder import DisplayFolder
    from agents.displays.run_folders import RunFolders
    from agents.displays.spawning import DisplayProcesses
    from agents.displays.users import UserIds
    from gpu_balancer.runtime.clock import Clock

_LOG = logging.getLogger(__name__)
_GIVE_UP_AFTER = timedelta(seconds=10)
_KILL_AGAIN_S = 0.01
_SHARED_FOLDERS = (Path("/tmp"), Path("/var/tmp"), Path("/dev/shm"))  # noqa: S108 - looked through, not used
_SHARED_MEMORY = Path("/proc/sysvipc/shm")
_IPC_RMID = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class DisplayEnder:
    """Ends displays of one agent."""

    run: RunFolders
    users: UserIds | None
    """None: displays run as the agent's own user."""
    clock: Clock

    async def end(
        self, folder: DisplayFolder, *, user_id: int | None, processes: DisplayProcesses | None = None
    ) -> bool:
        """Ends a display.

        Args:
            folder: The display's folder, which need not exist.
            user_id: Its user. None: the agent's own, or not known.
            processes: Its processes when this agent started or adopted them. None: it did not.

        Returns:
            Whether nothing is left. False: a process cannot be killed, or a disk refuses, so everything else was left.
        """
        if processes is not None:
            processes.end()
        try:
            return await self._end(folder, user_id, processes)
        except Exception:  # noqa: BLE001 - no descriptor left, a sick disk: one display must not cost all others theirs
            # A later agent finds it.
            _LOG.exception("Cannot end display %s", folder.id)
            return False

    async def _end(self, folder: DisplayFolder, user_id: int | None, processes: DisplayProcesses | None) -> bool:
        marks = ProcessMarks(mark=self.run.mark_of(folder.id), user_id=user_id, lock=folder.lock)
        killed = {pid for _, pid in folder.read_processes()}
        give_up_s = self.clock.monotonic_s() + _GIVE_UP_AFTER.total_seconds()
        while more := await asyncio.to_thread(_kill_once, marks, processes):
            killed |= more.pids
            if self.clock.monotonic_s() >= give_up_s:
                _LOG.error("Cannot end display %s: processes of it do not go, such as %s", folder.id, more)
                return False
            await asyncio.sleep(_KILL_AGAIN_S)
        if processes is not None:
            processes.close()
        await asyncio.to_thread(self._remove, folder, user_id, killed)
        return True

    def _remove(self, folder: DisplayFolder, user_id: int | None, killed: Collection[int]) -> None:
        clear_after([pid for pid in killed if is_gone(pid)])
        if user_id is not None:
            _remove_owned(user_id)
        self.run.remove(folder.id)
        if self.users is not None and user_id is not None:
            self.users.give_back(user_id)
        folder.remove()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Killed:
    """What a round of killing met."""

    pids: frozenset[int]
    is_locked: bool
    is_unreaped: bool
    """Whether a child has not quite ended: later, nobody would let the system forget it."""

    def __bool__(self) -> bool:
        return bool(self.pids) or self.is_locked or self.is_unreaped


def _kill_once(marks: ProcessMarks, processes: DisplayProcesses | None) -> _Killed:
    pids = kill_marked(marks)
    is_unreaped = processes is not None and not processes.reap()
    is_locked = False
    with contextlib.suppress(FileNotFoundError):
        is_locked = is_held(marks.lock)
    return _Killed(pids=pids, is_locked=is_locked, is_unreaped=is_unreaped)


def _remove_owned(user_id: int) -> None:
    """Removes what a user without processes has in folders that everybody shares, and its shared memory."""
    for folder in _SHARED_FOLDERS:
        with contextlib.suppress(OSError), os.scandir(folder) as entries:
            for entry in entries:
                with contextlib.suppress(OSError):
                    if entry.stat(follow_symlinks=False).st_uid == user_id:
                        _remove_path(Path(entry.path))
    for segment in _shared_memory_of(user_id):
        _forget_shared_memory(segment)


def _remove_path(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink()


def _shared_memory_of(user_id: int) -> list[int]:
    """Lists System V segments of a user: a client that is killed between making and attaching one leaves it."""
    try:
        head, *lines = _SHARED_MEMORY.read_text().splitlines()
    except (OSError, ValueError):
        return []
    columns = head.split()
    rows = [dict(zip(columns, line.split(), strict=False)) for line in lines]
    return [int(row["shmid"]) for row in rows if row.get("uid") == str(user_id)]


def _forget_shared_memory(segment: int) -> None:
    ctypes.CDLL(None).shmctl(segment, _IPC_RMID, None)
