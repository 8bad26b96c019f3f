"""An agent's side of an `s3_worker` process: starts it, gives it orders, and ends it with the agent or at once.

Waiting is done in small steps, so that an agent that ends does not wait for a store that does not answer.
"""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agents.deliveries.status import CalledOff, DeliveryFailure

if TYPE_CHECKING:
    import threading

_WORKER = Path(__file__).with_name("s3_worker.py")
_STEP_S = 0.25
_ANSWER_BYTES = 64 * 1024


class S3Connection:
    """One worker process. For one thread at a time."""

    def __init__(self) -> None:
        """Starts it. Blocks for that.

        Raises:
            DeliveryFailure: When it cannot be started.
        """
        self._channel, theirs = socket.socketpair()
        try:
            # -P: its own folder has modules that must not stand for others.
            self._process = subprocess.Popen(
                [sys.executable, "-P", str(_WORKER)],
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                start_new_session=True,  # a Ctrl-C is for the agent
            )
        except OSError as error:
            self._channel.close()
            raise DeliveryFailure(f"Cannot start the process that uploads: {error.strerror}.") from error
        finally:
            theirs.close()
        self._channel.settimeout(_STEP_S)

    def order(
        self, verb: str, called_off: threading.Event, *, file: int | None = None, **fields: object
    ) -> dict[str, Any]:
        """Has the worker do something. Blocks until it answers.

        Args:
            verb: "head", "put" or "digest".
            called_off: Ends the waiting.
            file: The open file of "put".
            **fields: What the verb needs.

        Returns:
            Its answer.

        Raises:
            DeliveryFailure: When the store refuses or cannot be reached, or the worker has died.
            CalledOff: When it was called off.
        """
        line = json.dumps({"verb": verb, **fields}).encode() + b"\n"
        try:
            if file is None:
                self._channel.sendall(line)
            else:
                sent = socket.send_fds(self._channel, [line], [file])
                self._channel.sendall(line[sent:])
            answer = self._answer(called_off)
        except OSError:
            raise self._died() from None
        if failure := answer.get("failure"):
            raise DeliveryFailure(failure["message"], permanent=failure["permanent"])
        return answer

    def close(self) -> None:
        """Ends the worker, whatever it is at."""
        with contextlib.suppress(OSError):
            self._channel.close()
        self._process.kill()
        self._process.wait()

    def _answer(self, called_off: threading.Event) -> dict[str, Any]:
        received = b""
        while not received.endswith(b"\n"):
            if called_off.is_set():
                raise CalledOff
            try:
                data = self._channel.recv(_ANSWER_BYTES)
            except TimeoutError:
                continue
            if not data:
                raise self._died()
            received += data
        answer: dict[str, Any] = json.loads(received)
        return answer

    def _died(self) -> DeliveryFailure:
        self._process.kill()
        status = self._process.wait()
        ended = f"by signal {-status}" if status < 0 else f"with status {status}"
        return DeliveryFailure(f"the process that uploads ended {ended}")
