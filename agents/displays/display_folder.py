"""The folder of a display in the agent's state folder: what agents before and after a restart know of it.

Only the agent may look in. It is written before anything of the display is started, and removed after everything of it
is gone, so that whatever interrupts an agent, the next one finds all that is left.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from pydantic import TypeAdapter, ValidationError

from agents.displays.display import Display
from gpu_balancer.runtime.durable_file import write_durably

if TYPE_CHECKING:
    from pathlib import Path

_FOLDER_MODE = 0o700
_LOG_TAIL_LINES = 20
_LOG_LIMIT_BYTES = 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class DisplayRecord:
    """A display as it is written down."""

    version: Literal[1] = 1
    backend: str
    """What made its X server: "xvfb"."""
    work: str
    """Its work folder."""
    user_id: int | None
    """Its user. None: the agent's own."""
    display: Display | None = None
    """None while it is made."""


class DisplayRecordUnreadableError(Exception):
    """A folder's record is damaged, missing, or was written by a newer agent."""


_RECORD = TypeAdapter(DisplayRecord)


@dataclass(frozen=True, slots=True, kw_only=True)
class DisplayFolder:
    """Paths of one display, and what stands there."""

    path: Path

    @property
    def id(self) -> str:
        """The display's id."""
        return self.path.name

    @property
    def lock(self) -> Path:
        """Held, shared, by every process of the display."""
        return self.path / "lock"

    @property
    def log(self) -> Path:
        """What its processes write to stdout and stderr."""
        return self.path / "log"

    @property
    def processes(self) -> Path:
        """A line for each process that was started: its name and its id."""
        return self.path / "processes"

    def create(self, record: DisplayRecord) -> None:
        """Makes the folder with a record and an unheld lock.

        Raises:
            OSError: When the disk is full or refuses.
        """
        self.path.mkdir(mode=_FOLDER_MODE, parents=True)
        for file in (self.lock, self.log, self.processes):
            file.touch(mode=0o600)
        self.write_record(record)

    def write_record(self, record: DisplayRecord) -> None:
        """Replaces the record durably.

        Raises:
            OSError: When the disk is full or refuses; the former record stays.
        """
        write_durably(self.path / "record.json", _RECORD.dump_json(record, indent=1))

    def read_record(self) -> DisplayRecord:
        """Reads the record.

        Raises:
            DisplayRecordUnreadableError: When there is none of this version.
        """
        try:
            return _RECORD.validate_json((self.path / "record.json").read_bytes())
        except (OSError, ValidationError) as error:
            raise DisplayRecordUnreadableError(f"Cannot read the record of display {self.id}: {error}.") from error

    def add_process(self, name: str, pid: int) -> None:
        """Notes a process that was started just now."""
        with self.processes.open("a", encoding="ascii") as file:
            file.write(f"{name} {pid}\n")

    def read_processes(self) -> tuple[tuple[str, int], ...]:
        """Lists the processes that were started, by name and id, in their order. They may have ended."""
        try:
            lines = self.processes.read_text(encoding="ascii", errors="replace").splitlines()
        except FileNotFoundError:
            return ()
        fields = [line.split() for line in lines]
        # The last line may be cut off.
        return tuple((field[0], int(field[1])) for field in fields if len(field) == 2 and field[1].isdecimal())

    def log_tail(self) -> str:
        """Gives the last lines of the log, in one."""
        try:
            lines = self.log.read_text(errors="replace").splitlines()
        except FileNotFoundError:
            return ""
        return " | ".join(line.strip() for line in lines[-_LOG_TAIL_LINES:] if line.strip())

    def bound_log(self) -> None:
        """Empties the log when it has grown large; who writes there goes on at its beginning."""
        try:
            if self.log.stat().st_size > _LOG_LIMIT_BYTES:
                self.log.write_bytes(b"")
        except OSError:
            return  # It is gone, or its disk is sick: it is looked at again.

    def remove(self) -> None:
        """Removes the folder; one that is not there is no mistake."""
        shutil.rmtree(self.path, ignore_errors=True)
