"""The window manager of a display: openbox, told to fill the screen with whatever program is shown.

Windows have no decorations and fill the screen, also after it was resized, unless they are dialogs, which stand in the
middle. There are no keys, no menus, no further desktops: what is recorded is the program and nothing else.
"""

from __future__ import annotations

import asyncio
import shutil
from typing import TYPE_CHECKING

from agents.displays.display import DisplayUnavailable
from agents.displays.run_folders import give_to
from agents.displays.spawning import WINDOW_MANAGER
from agents.displays.x_client import XUnreachableError, ask

if TYPE_CHECKING:
    from datetime import timedelta
    from pathlib import Path

    from agents.displays.spawning import DisplayProcesses

_PROGRAM = "openbox"

CONFIG = """\
<?xml version="1.0" encoding="UTF-8"?>
<openbox_config xmlns="http://openbox.org/3.4/rc">
  <focus><focusNew>yes</focusNew><followMouse>no</followMouse></focus>
  <placement><policy>Smart</policy><center>yes</center></placement>
  <theme><keepBorder>no</keepBorder><animateIconify>no</animateIconify></theme>
  <desktops><number>1</number><popupTime>0</popupTime></desktops>
  <resize><drawContents>yes</drawContents><popupShow>Never</popupShow></resize>
  <keyboard/>
  <mouse><screenEdgeWarpTime>0</screenEdgeWarpTime></mouse>
  <menu><hideDelay>0</hideDelay></menu>
  <applications>
    <application type="*"><decor>no</decor></application>
    <application type="normal"><decor>no</decor><maximized>yes</maximized><focus>yes</focus></application>
    <application type="dialog">
      <decor>no</decor><position force="yes"><x>center</x><y>center</y></position>
    </application>
  </applications>
</openbox_config>
"""


def find_window_manager_fault() -> str | None:
    """Tells what is missing. None: nothing is."""
    if shutil.which(_PROGRAM) is None:
        return f"Cannot make displays: {_PROGRAM} is not installed. Try apt-get install openbox."
    return None


async def start_window_manager(processes: DisplayProcesses, name: str, authority: Path, *, within: timedelta) -> None:
    """Starts openbox and awaits that it is at work.

    Args:
        processes: Of the display, whose X server runs.
        name: The display, ":1007".
        authority: Its authority file.
        within: For everything.

    Raises:
        DisplayUnavailable: DISPLAY_FAILED.
        OSError: When the disk is full or refuses.
    """
    config = processes.work / "openbox.xml"
    await asyncio.to_thread(_write, config, processes.user_id)
    argv = [shutil.which(_PROGRAM) or _PROGRAM, "--sm-disable", "--config-file", str(config)]
    await processes.spawn(argv, name=WINDOW_MANAGER)
    try:
        await ask(name, authority, lambda screen: screen.await_window_manager(), within=within)
    except XUnreachableError as error:
        raise DisplayUnavailable(
            "DISPLAY_FAILED",
            f"Cannot start {_PROGRAM}: {processes.folder.log_tail() or error}. Try {_PROGRAM} --version.",
        ) from error


def _write(config: Path, user_id: int | None) -> None:
    config.write_text(CONFIG)
    give_to(config, user_id)
