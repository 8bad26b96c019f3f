"""The durable folder of one attempt: the only thing that agents before and after a restart have in common.

A folder appears complete or not at all (it is made beside and renamed), its small files are replaced durably, and the
three files that the shim writes (`shim.pid`, `program.pid`, `exit`) exist from the start with room for what they will
hold, so that a full disk cannot lose the way a program ended. It holds stream keys: nobody but the owner may look in.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING

from agents.process_marks import Mark, OwnerKind
from agents.sessions.attempt import AttemptKey
from gpu_balancer.runtime.durable_file import flush_folder, write_durably
from gpu_balancer.runtime.ids import random_id

if TYPE_CHECKING:
    from pathlib import Path

_RESERVED = b" " * 15 + b"\n"
_SESSION_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,62}")
_ATTEMPT = re.compile(r"[1-9][0-9]{0,8}")
_FOLDER_MODE = 0o700
_MAX_DIGITS = 9
"""Of process ids and exit statuses; more are no such thing."""


def is_session_id(text: str) -> bool:
    """Tells whether a text can be a session's id, and so the name of a folder."""
    return _SESSION_ID.fullmatch(text) is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptFolder:
    """Paths of one attempt, and what the shim wrote there."""

    path: Path
    key: AttemptKey
    agent: str = ""
    """Whose it is, by `process_marks.name_of_agent`. Empty: its processes carry no mark."""

    @property
    def mark(self) -> Mark | None:
        """The mark that every process of the attempt carries. None: they carry none."""
        return session_mark(self.agent, self.key) if self.agent else None

    @property
    def plan(self) -> Path:
        """The launch plan as it was received, for people who look into a failure."""
        return self.path / "plan.binpb"

    @property
    def launch(self) -> Path:
        """The launch record: argv, secrets, moves."""
        return self.path / "launch.json"

    @property
    def status(self) -> Path:
        """The attempt's status with its event number."""
        return self.path / "status.json"

    @property
    def lock(self) -> Path:
        """Locked for as long as a process of the attempt lives."""
        return self.path / "lock"

    @property
    def log(self) -> Path:
        """What the program wrote to stdout and stderr."""
        return self.path / "log"

    @property
    def progress(self) -> Path:
        """What the program writes to -progress."""
        return self.path / "progress"

    @property
    def artifacts(self) -> Path:
        """Folder of the artifacts."""
        return self.path / "artifacts"

    @property
    def exit(self) -> Path:
        """The exit status, blank until the program has ended."""
        return self.path / "exit"

    def shim_pid(self) -> int | None:
        """Reads the shim's process id. None: not written yet."""
        return _read_number(self.path / "shim.pid")

    def program_pid(self) -> int | None:
        """Reads the program's process id. None: not written yet."""
        return _read_number(self.path / "program.pid")

    def exit_code(self) -> int | None:
        """Reads the program's exit status, 128 + signal when a signal ended it. None: not written (yet)."""
        return _read_number(self.exit)

    def create(self, files: dict[str, bytes]) -> None:
        """Makes the folder with everything in it, at once and durably.

        Args:
            files: Contents by file name, written besides the ones that every folder has.

        Raises:
            FileExistsError: When the attempt has a folder already.
            OSError: When the disk is full or refuses; nothing is left behind.
        """
        parent = self.path.parent
        parent.mkdir(mode=_FOLDER_MODE, parents=True, exist_ok=True)
        if self.path.exists():
            raise FileExistsError(f"Cannot create {self.path}: it exists.")
        nascent = parent / random_id(".new-")
        try:
            nascent.mkdir(mode=_FOLDER_MODE)
            (nascent / "artifacts").mkdir(mode=_FOLDER_MODE)
            fixed = {"shim.pid": _RESERVED, "program.pid": _RESERVED, "exit": _RESERVED, "lock": b"", "log": b""}
            for name, content in (fixed | files).items():
                _write_synced(nascent / name, content)
            flush_folder(nascent)
            nascent.rename(self.path)
        except OSError:
            shutil.rmtree(nascent, ignore_errors=True)
            raise
        flush_folder(parent)
        flush_folder(parent.parent)

    def write_status(self, content: bytes) -> None:
        """Replaces the status durably.

        Raises:
            OSError: When the disk is full or refuses; the former status stays.
        """
        write_durably(self.status, content)


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionFolders:
    """All attempts' folders of an agent: `{root}/{session}/{attempt}`."""

    root: Path
    agent: str = ""
    """Whose they are, by `process_marks.name_of_agent`. Empty: their processes carry no mark."""

    def of(self, key: AttemptKey) -> AttemptFolder:
        """Gives the folder of an attempt, which need not exist.

        Raises:
            ValueError: When the session's id cannot name a folder.
        """
        if not is_session_id(key.session):
            raise ValueError(f"Cannot use {key.session!r} as a session's id: it is no plain name.")
        return AttemptFolder(path=self.root / key.session / str(key.attempt), key=key, agent=self.agent)

    def found(self) -> tuple[AttemptFolder, ...]:
        """Lists the folders that exist, by session and attempt. Leftovers of interrupted launches are removed."""
        folders: list[AttemptFolder] = []
        for session in sorted(self.root.iterdir()) if self.root.exists() else ():
            if not (session.is_dir() and is_session_id(session.name)):
                continue
            for entry in session.glob(".new-*"):
                shutil.rmtree(entry, ignore_errors=True)
            folders.extend(self.of_session(session.name))
        return tuple(folders)

    def of_session(self, session: str) -> tuple[AttemptFolder, ...]:
        """Lists the folders of a session's attempts that exist, by attempt."""
        parent = self.of(AttemptKey(session=session, attempt=1)).path.parent
        entries = parent.iterdir() if parent.is_dir() else ()
        numbers = [int(entry.name) for entry in entries if entry.is_dir() and _ATTEMPT.fullmatch(entry.name)]
        return tuple(self.of(AttemptKey(session=session, attempt=number)) for number in sorted(numbers))

    def remove_attempt(self, folder: AttemptFolder) -> None:
        """Removes the folder of an attempt that was not started, and its session's when that is empty then."""
        shutil.rmtree(folder.path, ignore_errors=True)
        with contextlib.suppress(OSError):
            folder.path.parent.rmdir()

    def remove(self, session: str) -> None:
        """Removes all folders of a session; one that is not there is no mistake."""
        shutil.rmtree(self.of(AttemptKey(session=session, attempt=1)).path.parent, ignore_errors=True)


def session_mark(agent: str, key: AttemptKey) -> Mark:
    """Gives the mark of an attempt's processes."""
    return Mark(agent=agent, kind=OwnerKind.SESSION, name=f"{key.session}:{key.attempt}")


def marked_attempt(mark: Mark) -> AttemptKey | None:
    """Tells whose attempt's a mark is. None: it is no attempt's, whatever it looks like."""
    session, _, number = mark.name.partition(":")
    if mark.kind is not OwnerKind.SESSION or not is_session_id(session) or not _ATTEMPT.fullmatch(number):
        return None
    return AttemptKey(session=session, attempt=int(number))


def _read_number(path: Path) -> int | None:
    try:
        text = path.read_text(encoding="ascii", errors="replace").strip()
    except FileNotFoundError:
        return None
    return int(text) if text.isdecimal() and len(text) <= _MAX_DIGITS else None


def _write_synced(path: Path, content: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
