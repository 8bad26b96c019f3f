"""Names under which copies are kept. Checked here again, whatever was checked before: they must not lead anywhere else.

A session's copies are named `{session}/{artifact}`. When that name holds other bytes already, made by another attempt
of the session, the copy gets a name of its own: `recording.attempt-2.mp4` beside `recording.mp4`.
"""

from __future__ import annotations

import re

_SESSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,62}")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_LONGEST_PATH_BYTES = 900
"""S3 keys have 1,024 bytes, of which an operator's prefix and the session want some."""
_LONGEST_NAME_BYTES = 240
"""File systems have 255, of which the mark of an attempt wants some."""


def check_session(session: str) -> str:
    """Gives a session's id back.

    Raises:
        ValueError: When it could not name a folder.
    """
    if not _SESSION.fullmatch(session):
        raise ValueError(f"Cannot deliver artifacts of {session!r}: it is no session's id.")
    return session


def path_parts(path: str) -> tuple[str, ...]:
    """Splits an artifact's path into the names of its folders and its own.

    Raises:
        ValueError: When it leads out of its folder, or could not be kept under its name.
    """
    parts = tuple(path.split("/"))
    if any(part in ("", ".", "..") for part in parts) or _CONTROL.search(path):
        raise ValueError(f"{path!r} is no path inside a session's artifacts")
    try:
        encoded = [part.encode() for part in parts]
    except UnicodeEncodeError:
        raise ValueError(f"{path!r} is not Unicode") from None
    if len(path.encode()) > _LONGEST_PATH_BYTES or max(map(len, encoded)) > _LONGEST_NAME_BYTES:
        raise ValueError(f"{path[:80]!r}… is too long a path")
    return parts


def marked_with_attempt(path: str, attempt: int) -> str:
    """Gives the name for a copy whose own name is taken: "a/recording.attempt-2.mp4" for "a/recording.mp4"."""
    folder, slash, name = path.rpartition("/")
    stem, dot, extension = name.rpartition(".")
    marked = f"{stem}.attempt-{attempt}.{extension}" if dot and stem else f"{name}.attempt-{attempt}"
    return f"{folder}{slash}{marked}"
