"""A display with nothing but an X server and a window manager, for tests of what is shown on it.

As root everything on it runs as a user of its own, so that the browser's sandbox is on, as it is in earnest.
"""

from __future__ import annotations

import fcntl
import os
import random
import secrets
import select
import shutil
import signal
import socket
import struct
import subprocess
import tempfile
import time
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from agents import lock_holders
from agents.displays.display import BrowserEndpoint, Display
from agents.displays.window_manager import CONFIG
from agents.displays.x_authority import cookie_of
from agents.displays.x_screen import XScreen
from agents.displays.x_sockets import socket_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

USER_IDS = range(61184, 65520)
_DEADLINE_S = 20


class BareDisplay:
    """A display, and how programs are started on it."""

    def __init__(self, folder: Path) -> None:
        """Prepares the folders."""
        self.user_id = random.choice(USER_IDS) if os.geteuid() == 0 else None
        self.work = folder / "work"
        self.processes: dict[str, list[subprocess.Popen[bytes]]] = {}
        self._lock = folder / "lock"
        self._lock.touch()
        self.work.mkdir(mode=0o700)
        folder.chmod(0o711)
        if self.user_id is not None:
            os.chown(self.work, self.user_id, self.user_id)

    def start(self, width: int, height: int) -> None:
        """Starts the X server and the window manager."""
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(self.work),
            "XDG_RUNTIME_DIR": str(self.work),
            "TMPDIR": str(self.work),
            "XAUTHORITY": str(self.work / "cookie"),
            "LANG": "C.UTF-8",
        }
        self._write_cookie()
        name = self._start_x_server(width, height, environment)
        self.display = Display(
            id="d-bare",
            name=name,
            authority=str(self.work / "cookie"),
            width=width,
            height=height,
            lock=str(self._lock),
            work=str(self.work),
            user_id=self.user_id,
            sound_server=None,
            environment={**environment, "DISPLAY": name},
        )
        config = self.work / "openbox.xml"
        config.write_text(CONFIG)
        config.chmod(0o644)
        argv = ["openbox", "--sm-disable", "--config-file", str(config)]
        self._start(argv, "window_manager", self.display.environment)
        self._await_window_manager()

    def with_browser(self, endpoint: BrowserEndpoint) -> Display:
        """Gives the display as it is with a browser on it."""
        return replace(self.display, browser=endpoint)

    async def spawn(
        self,
        argv: Sequence[str],
        *,
        name: str,
        environment: Mapping[str, str] | None = None,
        as_agent: bool = False,
    ) -> int:
        """Starts a program on the display, detached, with its lock held."""
        return self._start(argv, name, {**self.display.environment, **(environment or {})}, as_agent=as_agent).pid

    def log(self, name: str) -> str:
        """Gives what a program has written."""
        return (self.work / f"{name}.log").read_text(errors="replace")

    def close(self) -> None:
        """Kills everything on the display and awaits that it is gone."""
        end = time.monotonic() + _DEADLINE_S
        # Something that is ending has lost its environment before it closes its files.
        while (living := self._living()) or lock_holders.is_held(self._lock):
            _end(living, end)
            for process in [process for processes in self.processes.values() for process in processes]:
                process.poll()
            assert time.monotonic() < end, f"cannot be killed on the display: {[_told(pid) for pid in living]}"
        for process in [process for processes in self.processes.values() for process in processes]:
            process.wait(_DEADLINE_S)

    def _living(self) -> list[int]:
        """Finds processes by their user, or the folder in their environment: Chromium's own children close the lock.

        One that has ended is none, whenever whoever it was left to asks for its status.
        """
        mark, found = os.fsencode(self.work), []
        for entry in Path("/proc").iterdir():
            with suppress(OSError):
                if (
                    entry.name.isdecimal()
                    and (entry.stat().st_uid == self.user_id or mark in (entry / "environ").read_bytes())
                    and not _has_ended(int(entry.name))
                ):
                    found.append(int(entry.name))
        return found

    def _start(
        self,
        argv: Sequence[str],
        name: str,
        environment: Mapping[str, str],
        *more: int,
        as_agent: bool = False,
    ) -> subprocess.Popen[bytes]:
        user_id = None if as_agent else self.user_id
        lock = os.open(self._lock, os.O_RDWR | os.O_CLOEXEC)
        try:
            fcntl.flock(lock, fcntl.LOCK_SH)
            with (self.work / f"{name}.log").open("ab") as log:
                process = subprocess.Popen(
                    argv,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    cwd=self.work,
                    env=dict(environment),
                    pass_fds=(lock, *more),
                    start_new_session=True,
                    user=user_id,
                    group=user_id,
                    extra_groups=None if user_id is None else [],
                )
        finally:
            os.close(lock)
        self.processes.setdefault(name, []).append(process)
        return process

    def _await_window_manager(self) -> None:
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(socket_of(self.display.name)))
            with XScreen(client, cookie_of(Path(self.display.authority).read_bytes())) as screen:
                screen.await_window_manager()

    def _write_cookie(self) -> None:
        method, cookie = b"MIT-MAGIC-COOKIE-1", secrets.token_bytes(16)
        entry = struct.pack(">HHH", 0xFFFF, 0, 0)
        entry += struct.pack(">H", len(method)) + method + struct.pack(">H", len(cookie)) + cookie
        path = self.work / "cookie"
        path.write_bytes(entry)
        path.chmod(0o600)
        if self.user_id is not None:
            os.chown(path, self.user_id, self.user_id)

    def _start_x_server(self, width: int, height: int, environment: Mapping[str, str]) -> str:
        reading, writing = os.pipe()
        screen = ["-screen", "0", f"{width}x{height}x24"]
        # On the abstract socket too: a server takes a number that another has otherwise.
        private = ["-auth", str(self.work / "cookie"), "-nolisten", "tcp", "-noreset"]
        argv = ["Xvfb", "-displayfd", str(writing), *screen, *private]
        self._start(argv, "x_server", environment, writing)
        os.close(writing)
        with os.fdopen(reading) as pipe:
            return f":{int(pipe.readline())}"


def _has_ended(pid: int) -> bool:
    descriptor = os.pidfd_open(pid)
    try:
        return lock_holders.has_ended(descriptor)
    finally:
        os.close(descriptor)


def _told(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text()[:80]
    except OSError as error:
        return f"{pid}: {error}"


def _end(pids: Iterable[int], deadline_s: float) -> None:
    """Kills processes and awaits their ends: to look for them again and again meanwhile takes a core."""
    with ExitStack() as stack:
        descriptors = []
        for pid in pids:
            with suppress(ProcessLookupError):
                descriptors.append(os.pidfd_open(pid))
                stack.callback(os.close, descriptors[-1])
                signal.pidfd_send_signal(descriptors[-1], signal.SIGKILL)
        for descriptor in descriptors:
            select.select([descriptor], [], [], max(0.0, deadline_s - time.monotonic()))


@contextmanager
def bare_display(width: int = 640, height: int = 360) -> Iterator[BareDisplay]:
    """Makes a display, in a folder that its own user can reach, and removes it."""
    folder = Path(tempfile.mkdtemp(prefix="bare-display-"))
    display = BareDisplay(folder)
    try:
        display.start(width, height)
        try:
            yield display
        finally:
            # Before its server ends: afterwards the number, and with it the socket, may be another's.
            socket_of(display.display.name).unlink(missing_ok=True)
    finally:
        display.close()
        shutil.rmtree(folder)
