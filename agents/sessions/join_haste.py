"""What keeps the end of a joining short, which somebody waits for who has stopped a recording of an hour.

An index that ffmpeg moves to the front when all is written has the whole file written anew: whatever the disk had
written until then was in vain. With room kept for the index in the front the disk can write while ffmpeg does, and
hardly anything is left to be waited for.
"""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from typing import TYPE_CHECKING

from agents.pipelines.job import Container
from agents.sessions.torn_files import fragment_indexes_bytes
from gpu_balancer.runtime.durable_file import flush_file

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from agents.pipelines.command import FileParts

_TIMES, _LEAST_BYTES = 3, 64 * 1024
"""Room beside the indexes of the fragments, which the index replaces: it is some twice as large as they are."""
_SHARE = 100
"""So many times as large as the room a file must be: what stays of the room is never used."""
_FLUSHED_EVERY_S = 0.05


def index_room(pieces: Sequence[str], file: FileParts) -> int:
    """Tells how much room to keep for an index in the front of a file. Blocks for the disk.

    Args:
        pieces: Absolute paths of what is joined.
        file: What they are joined to.

    Returns:
        Bytes. 0: none is to be kept, as there is no index, or the room would be much beside the file.
    """
    if file.container is not Container.MP4:
        return 0
    room = _LEAST_BYTES + _TIMES * sum(fragment_indexes_bytes(piece, file.move) for piece in pieces)
    size = sum(Path(piece).stat().st_size for piece in pieces)
    return room if room * _SHARE <= size else 0


@contextlib.asynccontextmanager
async def flushed_meanwhile(path: Path) -> AsyncIterator[None]:
    """Has the disk write a file while the block does.

    Args:
        path: The file, which need not be there yet.
    """

    async def flush() -> None:
        while True:
            with contextlib.suppress(OSError):
                await asyncio.to_thread(flush_file, path)
            await asyncio.sleep(_FLUSHED_EVERY_S)

    flushing = asyncio.get_running_loop().create_task(flush())
    try:
        yield
    finally:
        flushing.cancel()
        await asyncio.wait({flushing})
