"""Starts a browser on a display, with its egress proxy where pages must not reach private networks.

Both are started by the display's own way of starting programs, as its user and with its lock, so that they outlive the
agent and go with the display. The browser is believed when its DevTools port answers, not when its process is there.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from agents.browsers.devtools import NoBrowserError, browser_name
from agents.browsers.flags import START_PAGE, Rendering, browser_flags
from agents.browsers.port_file import PROXY_PORT_FILE, read_port
from agents.browsers.preferences import local_state, profile_preferences
from agents.displays.display import BrowserEndpoint, DisplayUnavailable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from agents.browsers.chromium import Chromium
    from agents.displays.display import Display

_PACKAGE_FOLDER = Path(__file__).resolve().parents[2]
_PROFILES: Mapping[Rendering, str] = {"software": "profile", "vulkan": "profile-vulkan"}
"""Of each its own: where the GPU turns out to be of no use a second browser is started on the same display."""
_POLL_S = 0.01
_ANSWER_TIMEOUT = timedelta(seconds=5)
_PROXY_TIMEOUT = timedelta(seconds=15)
_SMALL_SHARED_MEMORY_BYTES = 256 * 1024 * 1024


class Spawn(Protocol):
    """Starts a program on a display: detached, with its lock held, as the display's user."""

    async def __call__(
        self,
        argv: Sequence[str],
        *,
        name: str,
        environment: Mapping[str, str] | None = None,
        as_agent: bool = False,
    ) -> int:
        """Starts it.

        Args:
            argv: Absolute path of the program, and its arguments.
            name: What it is for.
            environment: Variables on top of the display's.
            as_agent: As the agent's own user instead. For a program of ours that becomes the display's user itself,
                once it has read what that user may not: this package, the interpreter in somebody's home.

        Returns:
            Its process id.

        Raises:
            OSError: When it cannot be started.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class BrowserOptions:
    """How browsers are started."""

    rendering: Rendering = "software"
    """What draws pages."""
    arguments: tuple[str, ...] = ()
    """The operator's own."""
    timeout: timedelta = timedelta(seconds=20)
    """Until the browser must answer."""


async def start_egress_proxy(display: Display, spawn: Spawn) -> int:
    """Starts a display's egress proxy. Returns its port on loopback.

    Raises:
        DisplayUnavailable: BROWSER_FAILED.
    """
    port_file = Path(display.work) / PROXY_PORT_FILE
    served = {os.geteuid(), os.geteuid() if display.user_id is None else display.user_id}
    # Without the site packages, which it does not need, and never with what lies in the current folder.
    argv = [sys.executable, "-S", "-P", "-m", "agents.browsers.egress_proxy"]
    argv += [str(port_file), str(display.user_id or ""), *map(str, sorted(served))]
    environment = {"PYTHONPATH": str(_PACKAGE_FOLDER), "PYTHONDONTWRITEBYTECODE": "1"}
    pid = await _spawn(spawn, argv, name="egress_proxy", environment=environment, as_agent=True)
    try:
        return await _awaited_port(port_file, pid, _PROXY_TIMEOUT)
    except _NotReady as error:
        raise _failed(f"its egress proxy {error}", "the display's log") from None


async def start_browser(
    display: Display, spawn: Spawn, chromium: Chromium, options: BrowserOptions, *, proxy_port: int | None
) -> BrowserEndpoint:
    """Starts a browser with a blank page on a display.

    Args:
        display: Where; its work folder is there. A browser of the same rendering has not been started on it.
        spawn: How programs are started on it.
        chromium: Which browser.
        options: How.
        proxy_port: Of the display's egress proxy. None: there is none, and pages may reach private networks.

    Returns:
        Where it is driven; it has answered there.

    Raises:
        DisplayUnavailable: BROWSER_FAILED. What was started is left to the end of the display.
    """
    profile = Path(display.work) / _PROFILES[options.rendering]
    _write_profile(profile, display.user_id)
    flags = browser_flags(
        chromium.version,
        width=display.width,
        height=display.height,
        profile=str(profile),
        rendering=options.rendering,
        proxy_port=proxy_port,
        small_shared_memory=_shared_memory_is_small(),
        more=options.arguments,
    )
    start_page = "about:blank" if chromium.is_wrapped else START_PAGE
    pid = await _spawn(spawn, [chromium.program, *flags, start_page], name="browser", environment=chromium.environment)
    try:
        async with asyncio.timeout(options.timeout.total_seconds()):
            port = await _awaited_port(profile / "DevToolsActivePort", pid, options.timeout)
            url = f"http://127.0.0.1:{port}"
            name = await browser_name(url, _ANSWER_TIMEOUT)
    except (_NotReady, NoBrowserError, TimeoutError) as error:
        problem = str(error) or f"has not answered within {options.timeout.total_seconds():g} s"
        raise _failed(f"{chromium.program} {problem}", "the display's log") from None
    _require_sandbox(pid, chromium)
    return BrowserEndpoint(url=url, name=name)


class _NotReady(Exception):
    """A program ended, or took too long, before it told its port."""


async def _spawn(
    spawn: Spawn, argv: Sequence[str], *, name: str, environment: Mapping[str, str], as_agent: bool = False
) -> int:
    try:
        return await spawn(argv, name=name, environment=environment, as_agent=as_agent)
    except OSError as error:
        raise _failed(f"{argv[0]} cannot be started: {error}", "whether the display's user may run it") from error


async def _awaited_port(path: Path, pid: int, timeout: timedelta) -> int:
    """Awaits the port that a program writes into a file as its first line.

    Looked at again and again: what would tell of a new file (inotify) tells nothing of the program's end.
    """
    polls = int(timeout.total_seconds() / _POLL_S)
    for _ in range(polls):
        port = read_port(path)
        if port is not None:
            return port
        if not _is_running(pid):
            raise _NotReady("ended at once")
        await asyncio.sleep(_POLL_S)
    raise _NotReady(f"has not answered within {timeout.total_seconds():g} s")


def _is_running(pid: int) -> bool:
    """Tells whether a process runs; one that has ended may not have been reaped yet."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return status.rpartition(")")[2].split()[0] not in ("Z", "X")


def _write_profile(profile: Path, user_id: int | None) -> None:
    default = profile / "Default"
    for folder in (profile, default):
        folder.mkdir(mode=0o700)
    texts = {
        default / "Preferences": profile_preferences(),
        profile / "Local State": local_state(),
        profile / "First Run": None,
    }
    for path, content in texts.items():
        path.write_text("" if content is None else json.dumps(content))
    if user_id is not None:
        for path in (profile, default, *texts):
            os.chown(path, user_id, user_id, follow_symlinks=False)


def _shared_memory_is_small() -> bool:
    try:
        status = os.statvfs("/dev/shm")  # noqa: S108 - looked at, nothing is put there
    except OSError:
        return True
    return status.f_bavail * status.f_frsize < _SMALL_SHARED_MEMORY_BYTES


def _require_sandbox(pid: int, chromium: Chromium) -> None:
    """Looks whether a wrapper or a distribution has taken the sandbox away."""
    try:
        arguments = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        arguments = []
    if b"--no-sandbox" in arguments or b"--disable-setuid-sandbox" in arguments:
        os.kill(pid, signal.SIGKILL)
        raise _failed(
            f"{chromium.program} adds --no-sandbox to its arguments, and pages are strangers",
            "taking that out of its configuration, or the program itself in [browser] of the settings",
        )


def _failed(problem: str, cure: str) -> DisplayUnavailable:
    return DisplayUnavailable("BROWSER_FAILED", f"Cannot start the browser: {problem}. Try {cure}.")
