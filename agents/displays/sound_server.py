"""The sound server of a display: a PulseAudio of its own, whose only output is recorded through its monitor.

What is played goes nowhere, at the pace of a sound card. Such a sink sleeps up to two seconds at a time while nobody
plays, and only then is a new listener of its monitor served; without rewinding (`norewinds`) it never sleeps longer
than 50 ms. A PulseAudio that does not know that is kept awake by a listener that asks for little delay; there, only a
display that was warm has sound in its first two seconds.
"""

from __future__ import annotations

import asyncio
import shutil
import socket
from typing import TYPE_CHECKING

from agents.displays.display import DisplayUnavailable
from agents.displays.spawning import SOUND_LISTENER, SOUND_SERVER

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import timedelta
    from pathlib import Path

    from agents.displays.spawning import DisplayProcesses

SINK = "output"
SOURCE = f"{SINK}.monitor"
_PROGRAM = "pulseaudio"
_LISTENER = "parec"
_LISTENER_DELAY = "--latency-msec=20"
_ASK_AGAIN_S = 0.005


def find_sound_fault() -> str | None:
    """Tells why recordings have no sound. None: they have."""
    if shutil.which(_PROGRAM) is None:
        return (
            f"Recordings have no sound: {_PROGRAM} is not installed. Try apt-get install pulseaudio pulseaudio-utils."
        )
    return None


def sound_address(work: Path) -> str:
    """Gives the address of a display's sound server, whether there is one or not: "unix:/…/sound".

    Not "pulse": PulseAudio makes a folder of that name in XDG_RUNTIME_DIR.
    """
    return f"unix:{work / 'sound'}"


def sound_environment(work: Path) -> Mapping[str, str]:
    """Gives what programs need to play. With an address set, they never start a sound server by themselves."""
    return {"PULSE_SERVER": sound_address(work), "PULSE_SINK": SINK, "PULSE_SOURCE": SOURCE}


async def start_sound(processes: DisplayProcesses, *, within: timedelta) -> None:
    """Starts PulseAudio and awaits that clients can connect.

    Args:
        processes: Of the display.
        within: For everything.

    Raises:
        DisplayUnavailable: DISPLAY_FAILED.
    """
    try:
        async with asyncio.timeout(within.total_seconds()):
            await processes.spawn(_command(processes.work, " norewinds=1"), name=SOUND_SERVER)
            if await _listens(processes):
                return
            await processes.spawn(_command(processes.work, ""), name=SOUND_SERVER)
            if await _listens(processes):
                await _keep_awake(processes)
                return
    except TimeoutError:
        pass
    raise DisplayUnavailable(
        "DISPLAY_FAILED",
        f"Cannot start {_PROGRAM}: {processes.folder.log_tail() or 'it does not listen'}. Try {_PROGRAM} --version.",
    )


def _command(work: Path, sink_options: str) -> list[str]:
    """Gives the command line. Everybody is let in who reaches the socket: its folder keeps others out."""
    sink = f"module-null-sink sink_name={SINK} rate=48000 channels=2 format=s16le{sink_options}"
    protocol = f"module-native-protocol-unix auth-anonymous=1 auth-cookie-enabled=0 socket={work / 'sound'}"
    quiet = ["--log-target=stderr", "--log-level=error", "--realtime=no", "--high-priority=no"]
    alone = ["-n", "--daemonize=no", "--use-pid-file=no", "--exit-idle-time=-1", "--disallow-exit=yes"]
    return [shutil.which(_PROGRAM) or _PROGRAM, *alone, *quiet, "-L", sink, "-L", protocol]


async def _keep_awake(processes: DisplayProcesses) -> None:
    listener = shutil.which(_LISTENER)
    # Without one there is sound all the same, only its first two seconds may be missing.
    if listener is not None:
        argv = [listener, _LISTENER_DELAY, "--raw", "-d", SOURCE, "/dev/null"]
        await processes.spawn(argv, name=SOUND_LISTENER)


async def _listens(processes: DisplayProcesses) -> bool:
    """Awaits that the server takes connections; its sink is there before. False: it has ended."""
    while processes.is_alive(SOUND_SERVER):
        with socket.socket(socket.AF_UNIX) as client:
            client.setblocking(False)
            try:
                client.connect(str(processes.work / "sound"))
            except OSError:
                await asyncio.sleep(_ASK_AGAIN_S)
            else:
                return True
    return False
