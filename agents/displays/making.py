"""The making of a display: its folders and user, screen and sound side by side, then browser and gate.

The browser comes last though it takes longest: a window that it shows before the window manager is at work may never be
seen, and one that finds no sound server when it starts has no sound for good. Whatever goes wrong, nothing of an
unfinished display is left.
"""

from __future__ import annotations

import asyncio
import os
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from agents.displays.display import Display, DisplayUnavailable
from agents.displays.display_folder import DisplayFolder, DisplayRecord
from agents.displays.gate_starting import start_capture_gate
from agents.displays.run_folders import DISPLAY_ID_LENGTH, give_to
from agents.displays.screens import AUTHORITY, own_authority
from agents.displays.sound_server import SOURCE, find_sound_fault, sound_address, sound_environment, start_sound
from agents.displays.spawning import DisplayEndedError, DisplayProcesses
from agents.displays.users import NoUserLeftError
from agents.displays.window_manager import find_window_manager_fault, start_window_manager
from agents.displays.x_authority import authority_file, new_cookie
from agents.displays.x_client import XUnreachableError, ask
from agents.displays.x_sockets import socket_of
from gpu_balancer.runtime.ids import random_id

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from agents.displays.backend import DisplayBackend
    from agents.displays.display import BrowserEndpoint
    from agents.displays.ending import DisplayEnder

_START_WITHIN = timedelta(seconds=30)
"""For each program to be ready; whoever waits for the display has a bound of its own."""
_INHERITED = ("PATH", "TZ", "LD_LIBRARY_PATH")
"""Where programs and libraries are, and what time it is: all that displays know of the agent's environment."""
_PATH = "/usr/local/bin:/usr/bin:/bin"


@dataclass(frozen=True, slots=True, kw_only=True)
class DisplayWish:
    """What a display is to be like."""

    width: int
    """Pixels."""
    height: int
    """Pixels."""
    browser: bool
    """Whether a browser is to run on it."""
    sound: bool
    """Whether a sound server is, where that is possible."""


@dataclass(slots=True, kw_only=True)
class MadeDisplay:
    """A display with the agent's hold of its processes."""

    display: Display
    processes: DisplayProcesses
    folder: DisplayFolder
    backend: str

    def stands(self) -> bool:
        """Tells whether all of its processes live, and it can be recorded: a gate is reached by its socket."""
        gate = self.display.capture_name
        return self.processes.all_alive() and (gate is None or socket_of(gate).exists())

    def resized(self, width: int, height: int) -> Display:
        """Notes another size, and gives the display as it is now.

        Raises:
            OSError: When it cannot be written down.
        """
        self.display = replace(self.display, width=width, height=height)
        self.write()
        return self.display

    def write(self) -> None:
        """Writes it down as finished.

        Raises:
            OSError: When the disk is full or refuses.
        """
        display = self.display
        record = DisplayRecord(backend=self.backend, work=display.work, user_id=display.user_id, display=display)
        self.folder.write_record(record)


@dataclass(frozen=True, slots=True, kw_only=True)
class DisplayMaker:
    """Makes displays of one agent."""

    root: Path
    """Folder of the displays' folders."""
    largest_width: int
    """Pixels, with which every X server is started."""
    largest_height: int
    backend: DisplayBackend
    start_browser: Callable[[Display], Awaitable[BrowserEndpoint]] | None
    """Starts a browser by the pool's `spawn`. None: there is none."""
    ender: DisplayEnder

    def find_fault(self) -> str | None:
        """Tells what is missing to make displays. None: nothing is."""
        return self.backend.find_fault() or find_window_manager_fault()

    def has_sound(self) -> bool:
        """Tells whether displays have sound."""
        return find_sound_fault() is None

    async def make(self, wish: DisplayWish, *, begun: Callable[[str, DisplayProcesses], None]) -> MadeDisplay:
        """Makes a display.

        Args:
            wish: What it is to be like; its size is at most the largest one.
            begun: Is told its id and processes before any is started.

        Raises:
            DisplayUnavailable: When it cannot be made; nothing of it is left.
        """
        display_id = random_id(length=DISPLAY_ID_LENGTH)
        folder = DisplayFolder(path=self.root / display_id)
        user_id: int | None = None
        processes: DisplayProcesses | None = None
        try:
            if wish.browser and self.start_browser is None:
                raise DisplayUnavailable(
                    "BROWSER_MISSING", "Cannot show pages: there is no browser. Try apt-get install chromium."
                )
            if self.ender.users is not None:
                user_id = await asyncio.to_thread(self.ender.users.take, display_id)
            processes = await asyncio.to_thread(self._prepare, folder, user_id)
            begun(display_id, processes)
            return await self._start(wish, folder, processes)
        except BaseException as error:
            await self.ender.end(folder, user_id=user_id, processes=processes)
            if isinstance(error, OSError | NoUserLeftError | XUnreachableError | DisplayEndedError):
                raise DisplayUnavailable("DISPLAY_FAILED", f"Cannot make a display: {error}") from error
            raise

    def _prepare(self, folder: DisplayFolder, user_id: int | None) -> DisplayProcesses:
        run = self.ender.run
        work = run.work_of(folder.id)
        folder.create(DisplayRecord(backend=self.backend.name, work=str(work), user_id=user_id))
        run.create_work(folder.id, user_id)
        content = authority_file(new_cookie())
        for path, owner in ((own_authority(folder.path), None), (work / AUTHORITY, user_id)):
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
            give_to(path, owner)
        environment = {
            "PATH": _PATH,
            **{name: os.environ[name] for name in _INHERITED if name in os.environ},
            "LANG": "C.UTF-8",
            "HOME": str(work / "home"),
            "XDG_RUNTIME_DIR": str(work / "run"),
            "TMPDIR": str(work / "tmp"),
            "XAUTHORITY": str(work / "authority"),
            # Nobody's session bus, and none is started for it.
            "DBUS_SESSION_BUS_ADDRESS": "disabled:",
            "NO_AT_BRIDGE": "1",
            **sound_environment(work),
            **self.backend.environment(),
            **run.mark_of(folder.id).environment,
        }
        return DisplayProcesses(folder, work=work, user_id=user_id, environment=environment)

    async def _start(self, wish: DisplayWish, folder: DisplayFolder, processes: DisplayProcesses) -> MadeDisplay:
        with_sound = wish.sound and self.has_sound()
        async with _together() as group:
            screen = group.create_task(self._start_screen(wish, folder, processes))
            if with_sound:
                group.create_task(start_sound(processes, within=_START_WITHIN))
        name = screen.result()
        display = Display(
            id=folder.id,
            name=name,
            authority=str(processes.work / AUTHORITY),
            width=wish.width,
            height=wish.height,
            lock=str(folder.lock),
            work=str(processes.work),
            user_id=processes.user_id,
            sound_server=sound_address(processes.work) if with_sound else None,
            sound_source=SOURCE,
            environment=dict(processes.environment),
        )
        display = await self._finish(display, folder, processes, with_browser=wish.browser)
        made = MadeDisplay(display=display, processes=processes, folder=folder, backend=self.backend.name)
        await asyncio.to_thread(made.write)
        return made

    async def _finish(
        self, display: Display, folder: DisplayFolder, processes: DisplayProcesses, *, with_browser: bool
    ) -> Display:
        """Starts what comes last, side by side: the browser, if there is to be one, and the gate."""
        authority = own_authority(folder.path)
        browser = None
        async with _together() as group:
            capture_name = group.create_task(
                start_capture_gate(processes, display.name, authority, within=_START_WITHIN)
            )
            if self.start_browser is not None and with_browser:
                browser = await self.start_browser(display)
        return replace(display, capture_name=capture_name.result(), browser=browser)

    async def _start_screen(self, wish: DisplayWish, folder: DisplayFolder, processes: DisplayProcesses) -> str:
        name = await self.backend.start(
            processes,
            processes.work / AUTHORITY,
            width=self.largest_width,
            height=self.largest_height,
            within=_START_WITHIN,
        )
        processes.environment["DISPLAY"] = name
        authority = own_authority(folder.path)
        await ask(name, authority, lambda screen: screen.resize(wish.width, wish.height), within=_START_WITHIN)
        await start_window_manager(processes, name, authority, within=_START_WITHIN)
        return name


@asynccontextmanager
async def _together() -> AsyncIterator[asyncio.TaskGroup]:
    """Awaits several tasks; the first one that fails ends the others, and its error is raised as it is."""
    try:
        async with asyncio.TaskGroup() as group:
            yield group
    except BaseExceptionGroup as errors:
        raise errors.exceptions[0] from None
