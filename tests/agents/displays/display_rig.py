"""Pools on folders of a test, with real X servers, window managers, sound servers, and a browser that only sleeps."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import xcffib
import xcffib.xproto

from agents.displays.backend import DisplayBackend
from agents.displays.display import BrowserEndpoint, Display
from agents.displays.display_folder import DisplayFolder
from agents.displays.pool import DisplayPool
from agents.displays.process_search import user_ids_of
from agents.displays.spawning import BROWSER
from agents.displays.x_sockets import TMP, socket_of
from agents.displays.xvfb import Xvfb
from agents.process_marks import living, mark_of
from gpu_balancer.runtime.clock import Clock, SystemClock
from gpu_balancer.runtime.recording_sections import RecordingSettings
from gpu_balancer.runtime.task_guard import TaskGuard

WITHIN = timedelta(seconds=30)
SLEEP = shutil.which("sleep") or "/bin/sleep"
is_root = os.geteuid() == 0

StartBrowser = Callable[[Display], Awaitable[BrowserEndpoint]]


@dataclass(kw_only=True)
class PoolRig:
    """A pool that runs, and what tests want to know of it."""

    pool: DisplayPool
    changed: asyncio.Event
    browsers_started: list[Display] = field(default_factory=list)

    async def acquire(
        self,
        *,
        width: int = 640,
        height: int = 360,
        browser: bool = True,
        sound: bool = False,
        timeout: timedelta = WITHIN,
    ) -> Display:
        """Lends a display, a small one without sound if not said otherwise."""
        return await self.pool.acquire(width=width, height=height, browser=browser, sound=sound, timeout=timeout)

    async def until(self, so: Callable[[], bool]) -> None:
        """Awaits that something is so, looking whenever the pool says that it has changed."""
        while not so():
            self.changed.clear()
            await self.changed.wait()

    async def warm(self, count: int = 1) -> None:
        """Awaits that displays stand ready."""
        await self.until(lambda: self.pool.ability().ready_display_count == count)


@asynccontextmanager
async def opened_pool(
    root: Path,
    run_dir: Path,
    *,
    used: tuple[str, ...] = (),
    backend: DisplayBackend | None = None,
    start_browser: StartBrowser | None = None,
    clock: Clock | None = None,
    with_browser: bool = True,
    **settings: Any,
) -> AsyncIterator[PoolRig]:
    """Runs a pool; at the end it is closed, but lent displays stay, as when an agent ends."""
    changed = asyncio.Event()

    async def sleeping_browser(display: Display) -> BrowserEndpoint:
        await rig.pool.spawn(display, [SLEEP, "1000"], name=BROWSER)
        rig.browsers_started.append(display)
        return BrowserEndpoint(url="http://127.0.0.1:1", name="Sleeper 1")

    async with TaskGuard("displays") as tasks:
        pool = DisplayPool(
            root,
            RecordingSettings(run_dir=str(run_dir), **{"warm_displays": 0, "largest_width": 1920} | settings),
            backend=Xvfb() if backend is None else backend,
            start_browser=(start_browser or sleeping_browser) if with_browser else None,
            tasks=tasks,
            clock=SystemClock() if clock is None else clock,
            on_changed=changed.set,
        )
        rig = PoolRig(pool=pool, changed=changed)
        await pool.start(used=used)
        yield rig
        await pool.close()


@contextmanager
def short_folder() -> Iterator[Path]:
    """A folder with a short path that every user may walk through: sockets will lie in it."""
    folder = Path(tempfile.mkdtemp(prefix="gb-", dir="/tmp"))
    folder.chmod(0o711)
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


def status_of(pid: int) -> str:
    """Gives what the system says of a process."""
    return Path(f"/proc/{pid}/status").read_text()


def environment_of(pid: int) -> set[str]:
    """Gives the variables with which a process was started."""
    # While a program takes the place of what started it, it has none for a moment.
    while not (variables := Path(f"/proc/{pid}/environ").read_bytes()):
        time.sleep(0.001)
    return set(variables.decode().split("\0"))


def descriptor_count() -> int:
    """Counts the descriptors that this process has open."""
    return len(list(Path("/proc/self/fd").iterdir()))


def files_below(folder: Path) -> list[Path]:
    """Lists everything below a folder that is no empty folder."""
    return [path for path in folder.rglob("*") if not path.is_dir()]


def processes_of(display: Display) -> list[int]:
    """Lists the living processes that carry a display's mark or belong to its user."""
    return [
        pid
        for pid in living()
        if str(mark_of(pid)).endswith(f":display:{display.id}")
        or (display.user_id is not None and display.user_id in user_ids_of(pid))
    ]


def traces_of(display: Display) -> list[object]:
    """Lists what is left of a display on the machine."""
    number = display.name.removeprefix(":")
    places = [TMP / f".X{number}-lock", socket_of(display.name), Path(display.work), Path(display.lock).parent]
    owned = [
        path
        for folder in (TMP, Path("/dev/shm"))
        for path in folder.iterdir()
        if display.user_id is not None and _owner(path) == display.user_id
    ]
    return [*processes_of(display), *(place for place in places if place.exists()), *owned]


def kill(display: Display, name: str) -> None:
    """Kills a process of a display, a child of the test, by what it is for, and awaits its end."""
    pid = process_of(display, name)
    descriptor = os.pidfd_open(pid)
    os.kill(pid, signal.SIGKILL)
    os.waitid(os.P_PIDFD, descriptor, os.WEXITED | os.WNOWAIT)
    os.close(descriptor)


def process_of(display: Display, name: str) -> int:
    """Tells the process of a display by what it is for."""
    return dict(DisplayFolder(path=Path(display.lock).parent).read_processes())[name]


@contextmanager
def x_connection(display: Display) -> Iterator[Any]:
    """A client as any program is one: by name and authority file."""
    before = os.environ.get("XAUTHORITY")
    os.environ["XAUTHORITY"] = display.authority
    try:
        connection = xcffib.connect(display.name)
    finally:
        os.environ.pop("XAUTHORITY")
        if before is not None:
            os.environ["XAUTHORITY"] = before
    try:
        yield connection
    finally:
        connection.disconnect()


def open_window(connection: Any, width: int, height: int, *, kind: str = "NORMAL") -> int:
    """Makes a window of a kind (`_NET_WM_WINDOW_TYPE_…`) and asks for it to be shown."""
    core, root = connection.core, connection.get_setup().roots[0].root
    window: int = connection.generate_id()
    core.CreateWindowChecked(
        0, window, root, 5, 5, width, height, 0, xcffib.xproto.WindowClass.InputOutput, 0, 0, []
    ).check()
    names = ("_NET_WM_WINDOW_TYPE", f"_NET_WM_WINDOW_TYPE_{kind}")
    name, value = (core.InternAtom(False, len(name), name).reply().atom for name in names)
    core.ChangePropertyChecked(
        xcffib.xproto.PropMode.Replace, window, name, xcffib.xproto.Atom.ATOM, 32, 1, [value]
    ).check()
    core.MapWindowChecked(window).check()
    return window


def _owner(path: Path) -> int | None:
    try:
        return path.lstat().st_uid
    except FileNotFoundError:
        return None
