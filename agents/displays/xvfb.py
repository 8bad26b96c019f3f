"""The back end `xvfb`: X servers whose screens are in memory, any number of them, on any machine."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Mapping
from datetime import timedelta
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING

from agents.displays.display import DisplayUnavailable
from agents.displays.spawning import X_SERVER
from agents.displays.x_client import XUnreachableError, ask, find_client_fault
from agents.displays.x_sockets import NameTakenError, abstract_names_taken, ensure_socket_folder, propose_name

if TYPE_CHECKING:
    from pathlib import Path

    from agents.displays.spawning import DisplayProcesses
    from agents.displays.x_screen import XScreen

_PROGRAM = "Xvfb"
_ASK_AGAIN_S = 0.01
_NAMES_TRIED = 3
"""Two agents may propose one name at the same moment; thrice in a row is something else."""
_HUGE_PAGES = MappingProxyType({"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"})
"""The screen lies in huge pages where the kernel grants them on request: to copy it takes a tenth less."""


class Xvfb:
    """Starts Xvfb, 24 bits deep."""

    @property
    def name(self) -> str:
        """Written into records."""
        return "xvfb"

    @property
    def display_limit(self) -> int | None:
        """Any number."""
        return None

    def find_fault(self) -> str | None:
        """Tells what is missing. None: nothing is."""
        if shutil.which(_PROGRAM) is None:
            return f"Cannot make displays: {_PROGRAM} is not installed. Try apt-get install xvfb."
        return find_client_fault()

    def environment(self) -> Mapping[str, str]:
        """Nothing: programs render with the processor, as they do by themselves where no GPU is."""
        return MappingProxyType({})

    async def start(
        self, processes: DisplayProcesses, authority: Path, *, width: int, height: int, within: timedelta
    ) -> str:
        """See `DisplayBackend.start`."""
        program = shutil.which(_PROGRAM)
        if program is None:
            raise DisplayUnavailable("DISPLAY_FAILED", str(self.find_fault()))
        await asyncio.to_thread(ensure_socket_folder)
        try:
            async with asyncio.timeout(within.total_seconds()):
                for _ in range(_NAMES_TRIED):
                    name = await asyncio.to_thread(propose_name)
                    try:
                        server = await processes.spawn(
                            _command(program, name, authority, f"{width}x{height}x24"),
                            name=X_SERVER,
                            environment=_HUGE_PAGES,
                            inheriting=partial(abstract_names_taken, name),
                        )
                    except NameTakenError:
                        continue  # Since it was proposed.
                    if await _answers(name, authority, processes, server, within):
                        return name
        except TimeoutError:
            pass
        raise DisplayUnavailable(
            "DISPLAY_FAILED",
            f"Cannot start {_PROGRAM}: {processes.folder.log_tail() or 'it does not answer'}. "
            f"Try {_PROGRAM} by hand, or look at memory and limits of this machine.",
        )


def _command(program: str, name: str, authority: Path, screen: str) -> list[str]:
    """Gives the command line of a server that nobody reaches but by its socket in /tmp, with the cookie.

    It keeps its windows' state when the last client goes, and never blanks its screen.
    """
    private = ["-auth", str(authority), "-nolisten", "tcp", "-nolisten", "local"]
    return [program, name, "-screen", "0", screen, *private, "-noreset", "-s", "0", "-br"]


async def _answers(name: str, authority: Path, processes: DisplayProcesses, server: int, within: timedelta) -> bool:
    """Awaits that a client gets an answer. False: the server has ended."""
    while processes.is_alive(X_SERVER):
        try:
            await ask(name, authority, _size, within=within, server=server)
        except XUnreachableError:
            await asyncio.sleep(_ASK_AGAIN_S)
        else:
            return True
    return False


def _size(screen: XScreen) -> tuple[int, int]:
    return screen.size()
