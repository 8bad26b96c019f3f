"""A screen without a browser: an X server with a cookie, and a sound server, to capture from in tests."""

from __future__ import annotations

import contextlib
import os
import secrets
import struct
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import xcffib
import xcffib.xproto

_ANY_HOST = 0xFFFF
_COOKIE = b"MIT-MAGIC-COOKIE-1"


@dataclass(frozen=True, kw_only=True)
class BareScreen:
    """A screen that is up."""

    name: str
    authority: str
    sound_server: str | None
    x_server: subprocess.Popen[bytes]
    sound: subprocess.Popen[bytes] | None

    @property
    def environment(self) -> dict[str, str]:
        """Variables for programs that are to run on it."""
        sound = {"PULSE_SERVER": self.sound_server} if self.sound_server else {}
        return {**os.environ, "DISPLAY": self.name, "XAUTHORITY": self.authority, **sound}


@contextlib.contextmanager
def bare_screen(folder: Path, *, width: int = 320, height: int = 180, sound: bool = False) -> Iterator[BareScreen]:
    """Brings a screen up and takes it down.

    Args:
        folder: For its sockets and its cookie.
        width: Pixels.
        height: Pixels.
        sound: Whether it has a sound server, with a sink "output".
    """
    authority = folder / "authority"
    cookie = secrets.token_bytes(16)
    fields = (b"", b"", _COOKIE, cookie)
    authority.write_bytes(
        struct.pack(">H", _ANY_HOST) + b"".join(struct.pack(">H", len(field)) + field for field in fields)
    )
    authority.chmod(0o600)
    with contextlib.ExitStack() as stack:
        x_server, name = _x_server(authority, width, height)
        stack.callback(_end, x_server)
        heard = address = None
        if sound:
            heard, address = _sound_server(folder)
            stack.callback(_end, heard)
            stack.callback(_end, _listener(address))
        yield BareScreen(name=name, authority=str(authority), sound_server=address, x_server=x_server, sound=heard)


class Painter:
    """Draws on a screen."""

    def __init__(self, screen: BareScreen) -> None:
        """Connects to it.

        Args:
            screen: The screen.
        """
        number = int(screen.name.removeprefix(":"))
        os.environ["XAUTHORITY"] = screen.authority
        self._connection = xcffib.connect(f":{number}")
        self._root = self._connection.get_setup().roots[self._connection.pref_screen].root
        self._context = self._connection.generate_id()
        self._connection.core.CreateGC(self._context, self._root, xcffib.xproto.GC.Foreground, [0])

    def fill(self, color: int, x: int = 0, y: int = 0, width: int = 32767, height: int = 32767) -> None:
        """Fills a rectangle, and comes back when that is done.

        Args:
            color: 0xRRGGBB.
            x: Of its left edge, in pixels.
            y: Of its upper edge, in pixels.
            width: Pixels.
            height: Pixels.
        """
        core = self._connection.core
        core.ChangeGC(self._context, xcffib.xproto.GC.Foreground, [color])
        rectangle = xcffib.xproto.RECTANGLE.synthetic(x, y, width, height)
        core.PolyFillRectangle(self._root, self._context, 1, [rectangle])
        core.GetInputFocus().reply()

    def close(self) -> None:
        """Lets the screen go."""
        self._connection.disconnect()


def _x_server(authority: Path, width: int, height: int) -> tuple[subprocess.Popen[bytes], str]:
    reading, writing = os.pipe()
    command = ["Xvfb", "-displayfd", str(writing), "-screen", "0", f"{width}x{height}x24", "-auth", str(authority)]
    process = subprocess.Popen(
        [*command, "-nolisten", "tcp", "-noreset"],
        pass_fds=[writing],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    os.close(writing)
    with os.fdopen(reading) as told:
        number = told.readline().strip()
        # Its newline may come by itself, and the server minds when nobody reads it.
    assert number, "Xvfb did not start"
    return process, f":{number}"


def _sound_server(folder: Path) -> tuple[subprocess.Popen[bytes], str]:
    runtime = folder / "runtime"
    runtime.mkdir(mode=0o700)
    address = f"unix:{runtime}/sound"
    modules = (
        "module-null-sink sink_name=output rate=48000 channels=2",
        f"module-native-protocol-unix socket={runtime}/sound auth-anonymous=1",
    )
    arguments = ["--daemonize=no", "--exit-idle-time=-1", "--use-pid-file=no", "--log-level=error"]
    process = subprocess.Popen(
        ["pulseaudio", "-n", *arguments, *(f"--load={module}" for module in modules)],
        env={**os.environ, "HOME": str(runtime), "XDG_RUNTIME_DIR": str(runtime)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    environment = {**os.environ, "PULSE_SERVER": address, "HOME": str(runtime), "XDG_RUNTIME_DIR": str(runtime)}
    for _ in range(200):
        assert process.poll() is None, "pulseaudio did not start"
        asked = subprocess.run(["pactl", "info"], env=environment, capture_output=True, check=False)
        if asked.returncode == 0:
            return process, address
    raise AssertionError("pulseaudio does not answer")


def _listener(address: str) -> subprocess.Popen[bytes]:
    """Keeps the sink's monitor awake: otherwise its first sound comes a second late."""
    process = subprocess.Popen(
        ["parec", "--latency-msec=20", "-d", "output.monitor"],
        env={**os.environ, "PULSE_SERVER": address},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    assert process.stdout is not None
    assert process.stdout.read(1), "the monitor gives no sound"
    # It goes on into a pipe that nobody reads; it is the open stream that matters.
    return process


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()
    if process.stdout is not None:
        process.stdout.close()
