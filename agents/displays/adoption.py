"""What a new agent finds of displays: those in use are taken over, everything else is ended.

It looks in every place where something can be: folders in the state, work folders, users that were taken, marked
processes. Each may be there without the others, depending on when an agent was killed.
"""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import TYPE_CHECKING

from agents.displays.display_folder import DisplayFolder, DisplayRecordUnreadableError
from agents.displays.making import MadeDisplay
from agents.displays.spawning import DisplayProcesses
from agents.process_marks import OwnerKind, find_marked

if TYPE_CHECKING:
    from collections.abc import Collection

    from agents.displays.ending import DisplayEnder

_LOG = logging.getLogger(__name__)


async def adopt_displays(root: Path, ender: DisplayEnder, *, used: Collection[str]) -> tuple[MadeDisplay, ...]:
    """Takes over the displays in use, and ends what else there is.

    Args:
        root: Folder of the displays' folders.
        ender: Ends displays.
        used: Ids of displays that are in use.

    Returns:
        The displays taken over. Their processes may have ended.
    """
    users = {} if ender.users is None else {name: user_id for user_id, name in ender.users.taken()}
    taken_over = [await asyncio.to_thread(_adopt, root / display_id) for display_id in sorted(set(used))]
    adopted = {made.display.id: made for made in taken_over if made is not None}
    found = await asyncio.to_thread(_find, root, ender)
    left = sorted((found | users.keys()) - adopted.keys())
    async with asyncio.TaskGroup() as group:
        for display_id in left:
            _LOG.info("Ending display %s: nobody uses it", display_id)
            folder = DisplayFolder(path=root / display_id)
            # Of its user only what is noted with the users counts: what a record says may be another display's by now.
            group.create_task(ender.end(folder, user_id=users.get(display_id)))
    return tuple(adopted.values())


async def end_orphans(root: Path, ender: DisplayEnder, *, used: Collection[str]) -> None:
    """Ends what carries the mark of a display that has no folder, which is there as long as anything of a display is.

    Args:
        root: Folder of the displays' folders.
        ender: Ends displays.
        used: Ids of displays that are in use, whose folders may have been removed under them.
    """
    marked = await asyncio.to_thread(_marked, ender) - set(used)
    without_folder = {display_id for display_id in marked if not await asyncio.to_thread((root / display_id).exists)}
    if not without_folder:
        return
    # Looked for again: a display may have been ended in good order meanwhile.
    for display_id in sorted(without_folder & await asyncio.to_thread(_marked, ender)):
        _LOG.error("Ending processes of display %s: there is no such display", display_id)
        await ender.end(DisplayFolder(path=root / display_id), user_id=None)


def _adopt(path: Path) -> MadeDisplay | None:
    folder = DisplayFolder(path=path)
    try:
        record = folder.read_record()
    except DisplayRecordUnreadableError as error:
        _LOG.error("A display in use cannot be taken over: %s", error)
        return None
    if record.display is None:
        return None
    display = record.display
    processes = DisplayProcesses(
        folder, work=Path(display.work), user_id=display.user_id, environment=display.environment
    )
    processes.adopt()
    return MadeDisplay(display=display, processes=processes, folder=folder, backend=record.backend)


def _find(root: Path, ender: DisplayEnder) -> set[str]:
    """Lists the ids of all displays of which there is something."""
    folders = {path.name for path in root.iterdir()} if root.is_dir() else set()
    return folders | set(ender.run.found()) | _marked(ender)


def _marked(ender: DisplayEnder) -> set[str]:
    """Lists the ids of displays that processes claim to be of."""
    marks = find_marked(ender.run.agent).values()
    return {mark.name for mark in marks if mark.kind is OwnerKind.DISPLAY and _is_id(mark.name)}


def _is_id(text: str) -> bool:
    """Tells whether a text can be a display's id: a process may give itself any mark."""
    return text.isalnum() and text.isascii()
