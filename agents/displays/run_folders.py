"""Work folders of displays: sockets, browser profile and temporary files, below a folder of this agent's own.

They are not in the state folder, which nobody but the agent may enter: a display's own user has to reach its folder,
and the paths of sockets must be short. Folders above are the agent's and can be walked through but not listed; each
work folder belongs to its display's user, and nobody else may look in.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from agents.process_marks import Mark, OwnerKind

if TYPE_CHECKING:
    from collections.abc import Mapping

DISPLAY_ID_LENGTH = 8
_AGENT_LENGTH = 6
_LONGEST_SOCKET_PATH = 107
"""sun_path of sockaddr_un, unix(7), less its end."""
_LONGEST_INSIDE = len("/tmp/.org.chromium.Chromium.XXXXXX/SingletonSocket")  # noqa: S108 - a browser's own, in a work folder
_SYSTEM_RUN_DIR = Path("/run/gpu-balancer")
_ROOT = 0
_WORK_MODE = 0o700
_PASSAGE_MODE = 0o711
INNER_FOLDERS = ("home", "run", "tmp")
"""What every work folder has: HOME, XDG_RUNTIME_DIR, TMPDIR."""


class RunFolderUnusableError(Exception):
    """Work folders cannot be made. The message says why and what to try."""


def default_run_dir(*, environment: Mapping[str, str] | None = None, user_id: int | None = None) -> Path:
    """Tells where work folders are when the settings do not.

    Args:
        environment: Environment variables. None: this process's own.
        user_id: Effective user id. None: this process's own.
    """
    user_id = os.geteuid() if user_id is None else user_id
    if user_id == _ROOT:
        return _SYSTEM_RUN_DIR
    runtime = Path((os.environ if environment is None else environment).get("XDG_RUNTIME_DIR", ""))
    below = runtime / "gpu-balancer"
    if runtime.is_absolute() and not _too_long(below):
        return below
    return Path(f"/tmp/gpu-balancer-{user_id}")  # noqa: S108 - used only when this user owns it


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFolders:
    """All work folders of an agent."""

    run_dir: Path
    """Shared by the agents of a host."""
    agent: str
    """Name of this agent's own folder in it."""

    @property
    def root(self) -> Path:
        """This agent's own folder."""
        return self.run_dir / self.agent

    @property
    def users(self) -> Path:
        """Where agents note which users they took."""
        return self.run_dir / "users"

    def work_of(self, display_id: str) -> Path:
        """Gives the work folder of a display, which need not exist."""
        return self.root / display_id

    def mark_of(self, display_id: str) -> Mark:
        """Gives the mark that every process of a display carries."""
        return Mark(agent=self.agent, kind=OwnerKind.DISPLAY, name=display_id)

    def prepare(self) -> None:
        """Makes the folders that all work folders need.

        Raises:
            RunFolderUnusableError: When they cannot be made, are somebody else's, or lie too deep for sockets.
        """
        if _too_long(self.run_dir):
            raise RunFolderUnusableError(
                f"Cannot keep sockets in {self.run_dir}: its path is too long. Try a shorter recordings.run_dir."
            )
        try:
            for folder in (self.run_dir, self.root, self.users):
                folder.mkdir(mode=_PASSAGE_MODE, parents=True, exist_ok=True)
                found = folder.lstat()
                if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
                    raise RunFolderUnusableError(
                        f"Cannot keep sockets in {folder}: it is somebody else's. Try another recordings.run_dir."
                    )
                # Whatever the umask is: the displays' users walk through.
                folder.chmod(_PASSAGE_MODE)
        except OSError as error:
            raise RunFolderUnusableError(
                f"Cannot make folders in {self.run_dir}: {error.strerror}. Try another recordings.run_dir."
            ) from error

    def create_work(self, display_id: str, user_id: int | None) -> Path:
        """Makes the work folder of a display.

        Args:
            display_id: Whose.
            user_id: Who owns it. None: the agent's own user.

        Raises:
            OSError: When the disk is full or refuses.
        """
        work = self.work_of(display_id)
        for folder in (work, *(work / name for name in INNER_FOLDERS)):
            folder.mkdir(mode=_WORK_MODE)
        for path in (*(work / name for name in INNER_FOLDERS), work):
            give_to(path, user_id)
        return work

    def found(self) -> tuple[str, ...]:
        """Lists the displays that have a work folder."""
        return tuple(sorted(path.name for path in self.root.iterdir())) if self.root.is_dir() else ()

    def tidy(self) -> None:
        """Removes this agent's own folder when there is nothing in it."""
        with contextlib.suppress(OSError):
            self.root.rmdir()

    def remove(self, display_id: str) -> None:
        """Removes a work folder; one that is not there is no mistake."""
        shutil.rmtree(self.work_of(display_id), ignore_errors=True)


def agent_name(root: Path) -> str:
    """Names an agent among those of its host, always in the same way.

    Args:
        root: The folder of its displays, which no other agent has.
    """
    return hashlib.sha256(os.fsencode(root.resolve())).hexdigest()[:_AGENT_LENGTH]


def give_to(path: Path, user_id: int | None) -> None:
    """Gives a file or folder to a display's user. None: it stays the agent's."""
    if user_id is not None:
        os.chown(path, user_id, user_id)


def _too_long(run_dir: Path) -> bool:
    deepest = len(os.fsencode(run_dir)) + 1 + _AGENT_LENGTH + 1 + DISPLAY_ID_LENGTH + _LONGEST_INSIDE
    return deepest > _LONGEST_SOCKET_PATH
