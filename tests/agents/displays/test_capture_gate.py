"""Pictures that come through a gate are those of the display, and what is about to be drawn is on them."""

from __future__ import annotations

import os
import select
import socket
import struct
import subprocess
import sys
import threading
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import imageio_ffmpeg
import pytest
import xcffib.xproto

from agents.displays.gate_starting import GATE_MODULE
from agents.displays.x_authority import COOKIE_NAME, authority_file, cookie_of, new_cookie
from agents.displays.x_drawing import Drawing
from agents.displays.x_screen import connected
from agents.displays.x_sockets import TMP, gate_of, socket_of
from fakes.bare_display import BareDisplay, bare_display
from fakes.x_picture import picture

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.process
_PROGRAM = (sys.executable, "-P", "-m", GATE_MODULE)
_PICTURE_S = 1 / 30
_ALL_PLANES = 0xFFFFFFFF
_GET_INPUT_FOCUS = struct.pack("<BBH", 43, 0, 1)


@pytest.fixture(scope="module")
def bare() -> Iterator[BareDisplay]:
    """A display with a lock: `-displayfd` makes none, and agents of other tests remove gates of displays without."""
    with bare_display(320, 180) as made:
        lock = TMP / f".X{made.display.name.removeprefix(':')}-lock"
        lock.write_text(f"{made.processes['x_server'][0].pid:>10}\n")
        yield made
        lock.unlink()


@pytest.fixture
def gate(bare: BareDisplay) -> Iterator[str]:
    """The name by which the display is captured."""
    name = bare.display.name
    process = subprocess.Popen([*_PROGRAM, name, bare.display.authority, str(bare.user_id or "")])
    try:
        end_s = time.monotonic() + 20
        while not socket_of(gate_of(name)).exists():
            assert process.poll() is None
            assert time.monotonic() < end_s
            time.sleep(0.01)
        yield gate_of(name)
    finally:
        process.kill()
        process.wait()
        socket_of(gate_of(name)).unlink(missing_ok=True)


class Client:
    """Somebody who paints on a display, or takes pictures of it."""

    def __init__(self, connection: Any) -> None:
        self.connection, self.core = connection, connection.core
        screen = connection.get_setup().roots[0]
        self.root = screen.root
        self._context = connection.generate_id()
        self.core.CreateGC(self._context, self.root, xcffib.xproto.GC.Foreground, [0])

    def paint(self, color: int) -> None:
        """Fills the upper left corner, and comes back when that is done."""
        self.core.ChangeGC(self._context, xcffib.xproto.GC.Foreground, [color])
        corner = xcffib.xproto.RECTANGLE.synthetic(0, 0, 64, 64)
        self.core.PolyFillRectangle(self.root, self._context, 1, [corner])
        self.core.GetInputFocus().reply()

    def look(self) -> int:
        """Takes a picture, and gives the colour that was painted."""
        took = self.core.GetImage(xcffib.xproto.ImageFormat.ZPixmap, self.root, 0, 0, 4, 4, _ALL_PLANES).reply()
        return int.from_bytes(took.data.buf()[:3], "little")


@contextmanager
def client_of(bare: BareDisplay, name: str, cookie: bytes | None = None) -> Iterator[Client]:
    with ExitStack() as stack, socket.socket(socket.AF_UNIX) as way:
        way.connect(str(socket_of(name)))
        way.setblocking(False)
        known = cookie_of(Path(bare.display.authority).read_bytes())
        connection = connected(os.dup(way.fileno()), cookie or known)
        stack.callback(connection.disconnect)
        yield Client(connection)


def await_served(way: socket.socket) -> None:
    """Awaits that a server has said something, and then no more."""
    assert way.recv(1 << 16)
    while select.select((way,), (), (), 0.2)[0]:
        assert way.recv(1 << 16)


def in_motion(painter: Client, grabber: Client) -> None:
    """Paints and looks in turn, until a grabber is known to look at something in motion."""
    for number in range(20):
        painter.paint(number)
        assert grabber.look() == number
        time.sleep(_PICTURE_S)


def test_what_was_drawn_before_a_picture_is_not_new_after_it_although_it_is_heard_of_late(bare: BareDisplay) -> None:
    name, cookie = bare.display.name, cookie_of(Path(bare.display.authority).read_bytes())
    welcome = struct.pack("<BxHHHHxx18s2x16s", ord("l"), 11, 0, len(COOKIE_NAME), len(cookie), COOKIE_NAME, cookie)
    with client_of(bare, name) as painter, Drawing(name, cookie) as drawing, socket.socket(socket.AF_UNIX) as way:
        way.connect(str(socket_of(name)))
        way.sendall(welcome + drawing.introduction("<"))
        for color in range(3):
            painter.paint(color)
            way.sendall(b"".join(drawing.beginning("<")) + _GET_INPUT_FOCUS)
            await_served(way)
            # Another round trip: by then the server has said what it had to say to everybody.
            painter.core.GetInputFocus().reply()
            assert not drawing.happened(0.0)
            painter.paint(color)
            assert drawing.happened(0.0)


def test_what_is_about_to_be_drawn_is_on_the_picture(bare: BareDisplay, gate: str) -> None:
    with client_of(bare, bare.display.name) as painter, client_of(bare, gate) as grabber:
        in_motion(painter, grabber)
        late = threading.Timer(0.006, painter.paint, (0xABCDEF,))
        late.start()
        assert grabber.look() == 0xABCDEF
        late.join()


def test_a_picture_is_not_waited_for_for_ever_and_not_at_all_where_everything_rests(
    bare: BareDisplay, gate: str
) -> None:
    with client_of(bare, bare.display.name) as painter, client_of(bare, gate) as grabber:
        in_motion(painter, grabber)
        assert [grabber.look() for _ in range(40)] == [19] * 40
        painter.paint(0x123456)
        assert grabber.look() == 0x123456


def test_everything_else_goes_through_as_it_is(bare: BareDisplay, gate: str) -> None:
    with client_of(bare, gate) as grabber:
        for number in range(300):
            window = grabber.connection.generate_id()
            with pytest.raises(xcffib.xproto.WindowError) as refused:
                grabber.core.GetWindowAttributes(window).reply()
            assert refused.value.bad_value == window
            grabber.look()
            geometry = grabber.core.GetGeometry(grabber.root).reply()
            assert (geometry.width, geometry.height) == (320, 180), number


def test_a_gate_lets_nobody_in_without_the_cookie(bare: BareDisplay, gate: str) -> None:
    with pytest.raises(xcffib.ConnectionException), client_of(bare, gate, cookie=new_cookie()):
        pass


def test_several_look_at_a_time_and_one_that_is_gone_is_no_harm(bare: BareDisplay, gate: str) -> None:
    with client_of(bare, bare.display.name) as painter, client_of(bare, gate) as one, client_of(bare, gate) as other:
        in_motion(painter, one)
        with client_of(bare, gate) as third:
            third.core.GetImage(xcffib.xproto.ImageFormat.ZPixmap, third.root, 0, 0, 320, 180, _ALL_PLANES)
        painter.paint(0x0000FF)
        assert (one.look(), other.look()) == (0x0000FF, 0x0000FF)


def test_ffmpegs_grabber_sees_the_display_through_the_gate(bare: BareDisplay, gate: str, tmp_path: Path) -> None:
    with client_of(bare, bare.display.name) as painter:
        painter.paint(0x336699)
        seen = picture(bare.display)
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-f", "x11grab", "-framerate", "30"]
    command += ["-video_size", "320x180", "-draw_mouse", "1", "-i", gate, "-frames:v", "40"]
    command += ["-f", "rawvideo", "-pix_fmt", "rgb24", str(tmp_path / "raw")]
    environment = {**os.environ, "XAUTHORITY": bare.display.authority}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    raw = (tmp_path / "raw").read_bytes()
    assert len(raw) == 40 * 320 * 180 * 3
    last = raw[-320 * 180 * 3 :]
    assert tuple(last[:3]) == seen.pixel(0, 0) == (0x33, 0x66, 0x99)


def test_a_gate_needs_a_server_that_lets_it_in(bare: BareDisplay, tmp_path: Path) -> None:
    strange = tmp_path / "authority"
    strange.write_bytes(authority_file(new_cookie()))
    program = [*_PROGRAM, bare.display.name, str(strange), ""]
    done = subprocess.run(program, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode != 0
    assert not socket_of(gate_of(bare.display.name)).exists()
