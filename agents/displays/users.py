"""Users for displays: when the agent is root, each display and what runs on it gets a user of its own.

Nobody else is that user, so a page that breaks out of its browser reaches no other recording, and everything that the
user owns can be ended and removed when the display is. A taken id is a symbolic link, made atomically in a folder that
all agents of the host share, which names its display; so two agents never take the same one.
"""

from __future__ import annotations

import contextlib
import pwd
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from agents.displays.process_search import user_ids_of
from agents.process_marks import living

if TYPE_CHECKING:
    from collections.abc import Iterator


class NoUserLeftError(Exception):
    """All user ids of the settings are in use."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UserIds:
    """The users that an agent may take."""

    folder: Path
    """Where all agents of the host note what they took."""
    ids: range
    agent: str
    """This agent's own name among them."""

    def take(self, display_id: str) -> int:
        """Takes an id that nobody uses.

        Begins anywhere, so that a user is seldom met again: nothing that one display left behind is another's.

        Args:
            display_id: For which display.

        Raises:
            NoUserLeftError: When there is none.
            OSError: When it cannot be noted.
        """
        in_use = {user_id for pid in living() for user_id in user_ids_of(pid)}
        first = secrets.randbelow(len(self.ids))
        for index in range(len(self.ids)):
            user_id = self.ids[(first + index) % len(self.ids)]
            if user_id in in_use or _has_name(user_id):
                continue
            with contextlib.suppress(FileExistsError):
                (self.folder / str(user_id)).symlink_to(f"{self.agent}/{display_id}")
                return user_id
        raise NoUserLeftError(
            f"Cannot find a user for a display: all ids from {self.ids.start} to {self.ids.stop - 1} are in use. "
            "Try a larger range in recordings.user_ids."
        )

    def give_back(self, user_id: int) -> None:
        """Gives an id back; nothing of the user may be left. One that is not taken is no mistake."""
        with contextlib.suppress(FileNotFoundError):
            (self.folder / str(user_id)).unlink()

    def taken(self) -> Iterator[tuple[int, str]]:
        """Lists what this agent has taken: user ids with their displays' ids."""
        for path in self.folder.iterdir():
            with contextlib.suppress(OSError):
                agent, _, display_id = str(path.readlink()).partition("/")
                if agent == self.agent and path.name.isdecimal():
                    yield int(path.name), display_id


def _has_name(user_id: int) -> bool:
    try:
        pwd.getpwuid(user_id)
    except KeyError:
        return False
    return True
