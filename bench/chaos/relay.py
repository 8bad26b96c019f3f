"""A wire between balancer and agent that can be cut, or held so that nothing comes through while nobody notices."""

from __future__ import annotations

import selectors
import socket
import threading
from contextlib import suppress
from enum import Enum, auto
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

_PIECE = 64 * 1024
_TICK_S = 0.05
_PATIENCE_S = 10.0


class _Way(Enum):
    PASSING = auto()
    CUT = auto()
    HELD = auto()


class Relay:
    """Passes bytes between whoever connects to one Unix socket and another Unix socket. Ends with `close`.

    One thread does it all. What a side cannot take yet is awaited: enough for control traffic, which is all that
    passes here.
    """

    def __init__(self, listen: Path, target: Path) -> None:
        """Begins to pass.

        Args:
            listen: The socket to make.
            target: The agent's own; need not be there yet.
        """
        self._listen, self._target = listen, target
        self._selector = selectors.DefaultSelector()
        self._peers: dict[socket.socket, socket.socket] = {}
        self._wanted = self._present = _Way.PASSING
        self._changed = threading.Condition()
        self._ended = threading.Event()
        self._listener = self._open()
        self._thread = threading.Thread(target=self._run, name=f"relay {listen.name}", daemon=True)
        self._thread.start()

    def cut(self) -> None:
        """Breaks every connection and every new one, until it is mended."""
        self._become(_Way.CUT)

    def hold(self) -> None:
        """Lets nothing through, and breaks nothing, until it is mended: what was sent meanwhile arrives then."""
        self._become(_Way.HELD)

    def mend(self) -> None:
        """Passes again."""
        self._become(_Way.PASSING)

    def close(self) -> None:
        """Ends it; may be called again."""
        self._ended.set()
        self._thread.join(5)
        self._listen.unlink(missing_ok=True)

    def _open(self) -> socket.socket:
        self._listen.unlink(missing_ok=True)
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(self._listen))
        listener.listen(64)
        self._selector.register(listener, selectors.EVENT_READ)
        return listener

    def _become(self, way: _Way) -> None:
        with self._changed:
            self._wanted = way
            self._changed.wait_for(lambda: self._present is way or not self._thread.is_alive(), _PATIENCE_S)

    def _run(self) -> None:
        while not self._ended.is_set():
            with self._changed:
                self._present = self._wanted
                if self._present is _Way.CUT:
                    self._break_all()
                self._changed.notify_all()
                if self._present is not _Way.PASSING:
                    self._changed.wait(_TICK_S)
                    continue
            for key, _ in self._selector.select(_TICK_S):
                self._serve(key.fileobj)  # type: ignore[arg-type]
        self._break_all()
        self._selector.unregister(self._listener)
        self._listener.close()
        self._selector.close()

    def _serve(self, ready: socket.socket) -> None:
        if ready is self._listener:
            self._connect()
            return
        peer = self._peers.get(ready)
        if peer is None:
            return
        try:
            piece = ready.recv(_PIECE)
            if piece:
                peer.sendall(piece)
                return
        except OSError:
            pass
        self._break(ready)

    def _connect(self) -> None:
        caller, _ = self._listener.accept()
        agent = socket.socket(socket.AF_UNIX)
        try:
            agent.connect(str(self._target))
        except OSError:
            caller.close()
            agent.close()
            return
        for one, other in ((caller, agent), (agent, caller)):
            one.settimeout(5)
            self._peers[one] = other
            self._selector.register(one, selectors.EVENT_READ)

    def _break_all(self) -> None:
        while self._peers:
            self._break(next(iter(self._peers)))
        self._listener.setblocking(False)
        with suppress(BlockingIOError):
            while True:
                self._listener.accept()[0].close()
        self._listener.setblocking(True)

    def _break(self, one: socket.socket) -> None:
        other = self._peers.pop(one, None)
        for end in (one, other):
            if end is not None:
                self._peers.pop(end, None)
                with suppress(KeyError):
                    self._selector.unregister(end)
                end.close()
