"""A program between who records a display and its X server: no picture is taken twice while the next is being drawn.

A grabber takes its pictures on time, whatever is on the screen. When a browser, or the whole machine, is late for a
moment, the same picture is taken twice, and what is drawn right after it is never seen. So a request for a picture is
held here until something was drawn since the one before, for as long as that costs no other picture; see `CapturePace`.
Nothing else that a client says is touched, pictures go by shared memory, and the client needs the display's cookie as
it does at the server itself.

What was drawn the server tells to a connection of this program's own, see `Drawing`. It is told to begin anew by
requests among the client's, right before that for the picture: so whatever is drawn is in this picture, or new for the
next.
"""

from __future__ import annotations

import select
import socket
import sys
from contextlib import ExitStack
from pathlib import Path
from threading import Thread

from agents.displays.capture_pace import CapturePace
from agents.displays.x_authority import cookie_of
from agents.displays.x_drawing import Drawing, connected_to
from agents.displays.x_sockets import gate_of, socket_of
from agents.displays.x_stream import CHUNK_BYTES, Answers, Requests
from agents.precedence import run_in_real_time
from agents.user_rights import become
from gpu_balancer.runtime.clock import SystemClock

_GET_IMAGE = 73
_SHM_GET_IMAGE = 4
_REQUESTS_BYTES = 1 << 12
_CLIENTS = 8


class _Gate:
    """One client's way to the server."""

    def __init__(self, client: socket.socket, server: socket.socket, drawing: Drawing) -> None:
        self._client, self._server, self._drawing = client, server, drawing
        self._requests, self._answers = Requests(), Answers()
        self._clock = SystemClock()
        self._pace = CapturePace()
        self._begin_anew: tuple[bytes, ...] = ()
        """Empty until the client has introduced itself: it says in which order its bytes are."""

    def run(self) -> None:
        """Passes on what is said until either side ends."""
        poll = select.poll()
        poll.register(self._client, select.POLLIN)
        poll.register(self._server, select.POLLIN)
        while True:
            ready = [descriptor for descriptor, _ in poll.poll()]
            # Answers first: with a request for a picture further ones are taken.
            if self._server.fileno() in ready and not self._pass_answers():
                return
            if self._client.fileno() in ready and not self._pass_requests():
                return

    def _pass_answers(self) -> bool:
        """Passes on what the server has said. False: it has ended."""
        data = self._server.recv(CHUNK_BYTES)
        self._client.sendall(b"".join(self._answers.feed(data)))
        return bool(data)

    def _pass_requests(self) -> bool:
        """Passes on what the client has said. False: it, or the server, has ended."""
        data = self._client.recv(_REQUESTS_BYTES)
        for message in self._requests.feed(data):
            if not self._begin_anew:
                self._introduce(message)
            elif self._asks_for_picture(message):
                if not self._pass_picture(message):
                    return False
            else:
                self._answers.note_request(injected=False)
                self._server.sendall(message)
        return bool(data)

    def _pass_picture(self, request: bytes) -> bool:
        """Has a picture taken, when its time has come. False: the server has ended."""
        new = self._drawing.happened(self._pace.asked(self._clock.monotonic_s()))
        from_s = self._clock.monotonic_s()
        self._inject(*self._begin_anew, then=request)
        # An answer always comes. Awaited here: one call of the system less for each picture.
        if not self._pass_answers():
            return False
        self._pace.taken(new=new, from_s=from_s, until_s=self._clock.monotonic_s())
        return True

    def _introduce(self, message: bytes) -> None:
        self._server.sendall(message)
        self._answers.order = self._requests.order
        order = "<" if self._requests.order == "little" else ">"
        self._begin_anew = self._drawing.beginning(order)
        self._inject(self._drawing.introduction(order))

    def _asks_for_picture(self, message: bytes) -> bool:
        opcode, minor = message[0], message[1]
        return opcode == _GET_IMAGE or (opcode == self._drawing.shared_memory_opcode and minor == _SHM_GET_IMAGE)

    def _inject(self, *requests: bytes, then: bytes = b"") -> None:
        """Sends requests of which the client knows nothing, and one of its own in the same breath."""
        for _ in requests:
            self._answers.note_request(injected=True)
        if then:
            self._answers.note_request(injected=False)
        self._server.sendall(b"".join((*requests, then)))


def main(name: str, authority: str, user_id: str) -> None:
    """Serves until it is killed. Whoever may not reach the socket's file does not get as far as the cookie.

    Args:
        name: The display, ":1007".
        authority: File with its cookie.
        user_id: User to become, who owns the display. Empty: none.
    """
    cookie = cookie_of(Path(authority).read_bytes())
    # As with the grabber's own threads: it has little to do, and that at exact times.
    run_in_real_time()
    with Drawing(name, cookie):
        pass  # A server that tells nothing ends this before anybody relies on it.
    path = socket_of(gate_of(name))
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen(_CLIENTS)
    if user_id:
        become(int(user_id))
    while True:
        client, _ = listener.accept()
        Thread(target=_serve, args=(client, name, cookie), daemon=True).start()


def _serve(client: socket.socket, name: str, cookie: bytes) -> None:
    with client, ExitStack() as stack:
        try:
            drawing = stack.enter_context(Drawing(name, cookie))
            server = stack.enter_context(connected_to(name))
            _Gate(client, server, drawing).run()
        except OSError as error:
            print(f"capture gate of {name}: {str(error) or type(error).__name__}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
