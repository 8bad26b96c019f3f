"""Which Chromium there is on this machine: the program behind any wrapper, and its version.

A distribution's wrapper adds arguments of its own, from /etc/chromium.d and variables such as CHROMIUM_FLAGS, among
which people put --no-sandbox. So the program behind a known wrapper is started itself; of other wrappers the variables
are emptied, and what came out is looked at when the browser runs.
"""

from __future__ import annotations

import os
import re
import shutil
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from agents.bounded_program import run_bounded
from agents.browsers.flags import OLDEST_VERSION
from agents.displays.display import DisplayUnavailable

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_PROGRAMS = (
    Path("/usr/lib/chromium/chromium"),
    Path("/usr/lib/chromium-browser/chromium-browser"),
    Path("/usr/lib64/chromium-browser/chromium-browser"),
    Path("/opt/google/chrome/chrome"),
)
"""Programs that distributions' wrappers start."""
_WRAPPED_BY = {
    "chromium": _PROGRAMS[:3],
    "chromium-browser": _PROGRAMS[:3],
    "google-chrome": _PROGRAMS[3:],
    "google-chrome-stable": _PROGRAMS[3:],
}
_VERSION = re.compile(r"(?P<name>[A-Za-z][A-Za-z ]*?) (?P<version>(?P<major>\d+)(?:\.\d+){3})")
_VERSION_TIMEOUT = timedelta(seconds=20)

BROWSER_ENVIRONMENT: Mapping[str, str] = {
    # What wrappers of distributions add to the command line.
    "CHROMIUM_FLAGS": "",
    "CHROMIUM_USER_FLAGS": "",
    "CHROME_USER_FLAGS": "",
    # Said to have none, Chromium does not complain about it in a bar.
    "GOOGLE_API_KEY": "no",
    "GOOGLE_DEFAULT_CLIENT_ID": "no",
    "GOOGLE_DEFAULT_CLIENT_SECRET": "no",
    # Neither is there a bus, and looking for one takes time.
    "DBUS_SESSION_BUS_ADDRESS": "disabled:",
    "DBUS_SYSTEM_BUS_ADDRESS": "disabled:",
}
"""Variables for any browser, on top of its display's."""
_NO_PROGRAMS = "/var/empty"


@dataclass(frozen=True, slots=True, kw_only=True)
class Chromium:
    """A browser that can be started."""

    program: str
    """Absolute path."""
    name: str
    """Name and version, "Chromium 156.0.8078.108"."""
    version: int
    """Major version."""

    @property
    def environment(self) -> Mapping[str, str]:
        """Its variables, on top of its display's."""
        # Where there is no xdg-open, a page's mailto: link starts no program on the display. A wrapper needs programs.
        return BROWSER_ENVIRONMENT if self.is_wrapped else {**BROWSER_ENVIRONMENT, "PATH": _NO_PROGRAMS}

    @property
    def is_wrapped(self) -> bool:
        """Whether it is started by a script, and so finds other programs."""
        return _is_script(Path(self.program))


async def find_chromium(candidates: Iterable[str]) -> Chromium:
    """Finds the first candidate that is there and runs.

    Args:
        candidates: Names on the PATH, or absolute paths, in order of preference.

    Raises:
        DisplayUnavailable: BROWSER_MISSING, when none does. It says what is wrong with each that is there.
    """
    problems = []
    names = tuple(candidates)
    for name in names:
        path = shutil.which(name)
        if path is None:
            continue
        program = _behind_wrapper(Path(path))
        found = await _ask_version(program)
        if isinstance(found, Chromium):
            return found
        problems.append(f"{program} {found}")
    problem = "; ".join(problems) or f"none of {', '.join(names)} is there"
    raise DisplayUnavailable(
        "BROWSER_MISSING",
        f"Cannot find a browser: {problem}. Try apt-get install chromium, or candidates in [browser] of the settings.",
    )


def _behind_wrapper(path: Path) -> Path:
    real = path.resolve()
    if path.name not in _WRAPPED_BY or not _is_script(real):
        return path
    return next((program for program in _WRAPPED_BY[path.name] if os.access(program, os.X_OK)), path)


def _is_script(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(2) == b"#!"


async def _ask_version(program: Path) -> Chromium | str:
    """Asks a program for its version. Returns what is wrong, when it cannot say or is too old."""
    try:
        run = await run_bounded([str(program), "--version"], timeout=_VERSION_TIMEOUT, env=BROWSER_ENVIRONMENT)
    except OSError as error:
        return f"cannot be started: {error}"
    match = _VERSION.search(run.output)
    if run.exit_code != 0 or match is None:
        last = run.output.strip().rpartition("\n")[2][-200:]
        return "does not answer" if run.timed_out else f"does not tell its version: {last}"
    if int(match["major"]) < OLDEST_VERSION:
        return f"is version {match['version']}, and {OLDEST_VERSION} is needed at least"
    name = match["name"].removeprefix("Google ")
    return Chromium(program=str(program), name=f"{name} {match['version']}", version=int(match["major"]))
