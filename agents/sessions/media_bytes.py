"""How much media is in MP4 files, so that nothing is removed before all of it is in what was made of them."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from agents.sessions.torn_files import BOX, FIRST, INDEXES, LONG_BOX, boxes_of, content_end, opened_file

if TYPE_CHECKING:
    from collections.abc import Sequence

    from agents.pipelines.command import OutputMove

_LONGEST = 0xFFFFFFFF
"""Of a box whose length has 32 bits."""
_WRITTEN = (*FIRST, *INDEXES, b"mdat", b"mfra", b"free", b"sidx")
"""What ffmpeg makes a file of."""


def require_all_media(pieces: Sequence[str], made: str, move: OutputMove | None) -> None:
    """Makes sure that an MP4 has all that its pieces have; of other files nothing is known. Blocks for the disk.

    ffmpeg takes what it cannot read for the end, and says that it is done: on a disk that fails, or in a piece with a
    hole.

    Args:
        pieces: Absolute paths of what was joined.
        made: Absolute path of what came of it.
        move: Where that goes. None: it is an artifact.

    Raises:
        OSError: When something is missing, or one of them cannot be read.
    """
    there = sum(media_bytes(piece, move) or 0 for piece in pieces)
    has = media_bytes(made, move)
    if has is not None and has < there:
        raise OSError(None, f"only {has:,} of {there:,} bytes of sound and pictures could be joined")


def media_bytes(path: str, move: OutputMove | None) -> int | None:
    """Tells how much media is in an MP4. Blocks for the disk.

    It is what its whole boxes hold, and what stands behind a place where they cannot be followed, unless that is empty.
    A copy has exactly as much.

    Args:
        path: Absolute path of the file.
        move: Where the file that it is of goes. None: it is an artifact.

    Returns:
        Bytes. None: it is no MP4. Other containers mix it with theirs, which may be half of it.

    Raises:
        OSError: When it cannot be read.
    """
    with opened_file(path, move) as descriptor:
        return _media_bytes(descriptor, 0, os.fstat(descriptor).st_size)


def _media_bytes(descriptor: int, begin: int, size: int) -> int | None:
    """Tells how much media a row of boxes holds. None: it is no such row."""
    boxes = [box for box in boxes_of(descriptor, size, begin) if sum(box[:2]) <= size]
    if not boxes:
        return None
    media = 0
    for at, length, kind in boxes:
        if kind == b"mdat":
            # What was written in fragments may be one box in the end, with all of them in it as they are.
            payload = at + (LONG_BOX.size if length > _LONGEST else BOX.size)
            inside = _media_bytes(descriptor, payload, at + length)
            media += at + length - payload if inside is None else inside
    return media + _unfollowed_bytes(descriptor, sum(boxes[-1][:2]), size)


def _unfollowed_bytes(descriptor: int, begin: int, size: int) -> int:
    """Tells how much there is behind the last whole box, unless it is a torn one, which ends with the file."""
    head = os.pread(descriptor, BOX.size, begin)
    torn = len(head) < BOX.size or BOX.unpack(head)[1] in _WRITTEN
    return 0 if torn else content_end(descriptor, begin, size) - begin
