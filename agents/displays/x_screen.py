"""The screen of an X server, over a connection that is there already. Every call may block: see `x_client`.

Needs xcffib, so nothing imports this module before a display is used.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self, TypeVar

import xcffib
import xcffib.randr
import xcffib.xproto

from agents.displays.x_authority import COOKIE_NAME

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable
    from types import TracebackType

_Seen = TypeVar("_Seen")

_XCB: Any = xcffib
"""Its names are not all declared; nor are the types of its connections and answers."""
_MILLIMETRES_PER_PIXEL = 25.4 / 96
"""A screen of 96 dots per inch, so that nobody scales what is shown."""
_PROBE_S = 0.005
"""For a window manager to take a window: about a tenth of that is usual."""


@dataclass(frozen=True, slots=True, kw_only=True)
class XWindow:
    """A window that is to be seen: a child of the root window, so with a window manager it is one of its frames."""

    id: int
    x: int
    y: int
    width: int
    height: int


class XScreen:
    """The one screen of a display. A context manager: it ends the connection."""

    def __init__(self, client: socket.socket, cookie: bytes) -> None:
        """Introduces itself to the server.

        Args:
            client: Connected. It stays the caller's, who may shut it down at any time to end a call.
            cookie: As in the display's authority file.

        Raises:
            xcffib.XcffibException: When the server refuses.
        """
        client.setblocking(False)
        self._connection: Any = connected(os.dup(client.fileno()), cookie)
        self._root = self._connection.get_setup().roots[0].root

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._connection.disconnect()

    def size(self) -> tuple[int, int]:
        """Tells width and height in pixels."""
        return _geometry(self._connection.core.GetGeometry(self._root))[2:]

    def await_window_manager(self) -> None:
        """Waits until a window manager is at work, by having it show a window of ours that nobody sees.

        What it says of itself would not do: openbox does so at the beginning of its start, and whoever asks for a
        window to be shown before its end asks in vain, once and for all.
        """
        core, xproto = self._connection.core, xcffib.xproto
        while True:
            window = self._connection.generate_id()
            values = [int(xproto.EventMask.StructureNotify)]
            core.CreateWindowChecked(
                0, window, self._root, -1, -1, 1, 1, 0, xproto.WindowClass.InputOutput, 0, xproto.CW.EventMask, values
            ).check()
            self._set_atom(window, "_NET_WM_WINDOW_TYPE", "_NET_WM_WINDOW_TYPE_DIALOG")
            core.MapWindowChecked(window).check()
            time.sleep(_PROBE_S)
            is_managed = core.QueryTree(window).reply().parent != self._root
            core.DestroyWindowChecked(window).check()
            if is_managed:
                return

    def windows(self) -> tuple[XWindow, ...]:
        """Lists the windows that are to be seen, the topmost last."""
        core = self._connection.core
        width, height = self.size()
        children = core.QueryTree(self._root).reply().children
        # All questions before the first answer: one round trip for all.
        asked = [(child, core.GetWindowAttributes(child), core.GetGeometry(child)) for child in children]
        seen: list[XWindow] = []
        for child, attributes_asked, geometry_asked in asked:
            try:
                attributes = attributes_asked.reply()
                x, y, *size = _geometry(geometry_asked)
            except (xcffib.xproto.WindowError, xcffib.xproto.DrawableError):
                continue  # It went away meanwhile.
            is_shown = (
                attributes.map_state == xcffib.xproto.MapState.Viewable
                and attributes._class == xcffib.xproto.WindowClass.InputOutput
            )
            if is_shown and min(size) > 1 and -size[0] < x < width and -size[1] < y < height:
                seen.append(XWindow(id=child, x=x, y=y, width=size[0], height=size[1]))
        return tuple(seen)

    def await_change(self, look: Callable[[XScreen], _Seen | None]) -> _Seen:
        """Waits until something is to be seen, looking anew whenever windows or properties of the screen change.

        Args:
            look: Gives None while it is not to be seen.

        Returns:
            What `look` gave.
        """
        mask = xcffib.xproto.EventMask
        events = mask.SubstructureNotify | mask.StructureNotify | mask.PropertyChange
        self._connection.core.ChangeWindowAttributesChecked(self._root, xcffib.xproto.CW.EventMask, [events]).check()
        while (seen := look(self)) is None:
            self._connection.wait_for_event()
            while self._connection.poll_for_event() is not None:
                pass
        return seen

    def resize(self, width: int, height: int) -> None:
        """Gives the screen another size, with a mode of its own, and moves the pointer to the bottom right corner.

        Programs are told by RandR, and a window manager fits its windows.

        Args:
            width: Pixels, at most those with which the server was started.
            height: Likewise.

        Raises:
            xcffib.XcffibException: When the server refuses the size.
        """
        core = self._connection.core
        if self.size() != (width, height):
            core.GrabServerChecked().check()
            try:
                self._set_size(width, height)
            finally:
                core.UngrabServerChecked().check()
        # In the middle, where it is at first, it would hover over what is shown.
        core.WarpPointerChecked(0, self._root, 0, 0, 0, 0, width - 1, height - 1).check()

    def _set_size(self, width: int, height: int) -> None:
        randr = self._connection(xcffib.randr.key)
        resources = randr.GetScreenResourcesCurrent(self._root).reply()
        crtc, output = resources.crtcs[0], resources.outputs[0]
        mode = next((mode.id for mode in resources.modes if (mode.width, mode.height) == (width, height)), None)
        if mode is None:
            mode = self._add_mode(output, width, height)
        now, rotation = xcffib.CurrentTime, xcffib.randr.Rotation.Rotate_0
        # The screen must not be smaller than what a crtc shows, at any moment.
        randr.SetCrtcConfig(crtc, now, now, 0, 0, 0, rotation, 0, []).reply()
        millimetres = [max(1, round(pixels * _MILLIMETRES_PER_PIXEL)) for pixels in (width, height)]
        randr.SetScreenSizeChecked(self._root, width, height, *millimetres).check()
        randr.SetCrtcConfig(crtc, now, now, 0, 0, mode, rotation, 1, [output]).reply()

    def _set_atom(self, window: int, name: str, value: str) -> None:
        core, xproto = self._connection.core, xcffib.xproto
        asked = [core.InternAtom(False, len(text), text) for text in (name, value)]
        property_, atom = (answer.reply().atom for answer in asked)
        core.ChangePropertyChecked(xproto.PropMode.Replace, window, property_, xproto.Atom.ATOM, 32, 1, [atom]).check()

    def _add_mode(self, output: int, width: int, height: int) -> int:
        randr = self._connection(xcffib.randr.key)
        name = f"{width}x{height}".encode()
        # Timings without blanking: 60 pictures a second by name only, nothing is scanned out.
        timings = (width, width, width, 0, height, height, height)
        mode = _XCB.randr.ModeInfo.synthetic(0, width, height, width * height * 60, *timings, len(name), 0)
        created: int = randr.CreateMode(self._root, mode, len(name), name).reply().mode
        randr.AddOutputModeChecked(output, created).check()
        return created


def connected(descriptor: int, cookie: bytes) -> Any:
    """Makes a connection of a connected socket, which xcb then owns.

    Not by `xcffib.Connection(auth=…)`: that hands xcb memory which is freed already, and is refused now and then.

    Raises:
        xcffib.XcffibException: When the server refuses.
    """
    name, data = _XCB.ffi.new("char[]", COOKIE_NAME), _XCB.ffi.new("char[]", cookie)
    proof = _XCB.ffi.new("xcb_auth_info_t *", {"namelen": len(COOKIE_NAME), "name": name})
    proof.datalen, proof.data = len(cookie), data
    pointer = _XCB.lib.xcb_connect_to_fd(descriptor, proof)
    try:
        return _XCB.wrap(pointer)
    except xcffib.XcffibException:
        _XCB.lib.xcb_disconnect(pointer)
        raise


def _geometry(asked: Any) -> tuple[int, int, int, int]:
    answer = asked.reply()
    return answer.x, answer.y, answer.width, answer.height
