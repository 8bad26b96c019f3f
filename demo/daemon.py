"""The daemon of the demonstration: started, asked, killed and stopped like a user does it.

It has a state folder of its own and a socket in there, so it never meets a daemon that already runs, and nothing of it
is left.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from demo.stage import Check, console, note, show_command
from gpu_balancer.client import Client
from gpu_balancer.runtime.failures import RequestFailure
from gpu_balancer.v1 import device_pb2

_BIN = Path(sys.executable).parent
_LONGEST_WAIT_S = 60.0
_T = TypeVar("_T")


class Missed(Exception):
    """Something that was to happen did not."""


def eventually(condition: Callable[[], _T], what: str) -> _T:
    """Gives the first true value of a condition.

    Raises:
        Missed: It stayed false for a minute.
    """
    deadline_s = time.monotonic() + _LONGEST_WAIT_S
    while not (value := condition()):
        if time.monotonic() > deadline_s:
            raise Missed(f"In {_LONGEST_WAIT_S:g} s it did not become true that {what}.")
        time.sleep(0.05)
    return value


class Daemon:
    """A gpu-balancerd with a state folder that outlives its processes."""

    def __init__(self, scratch: Path, log: Path) -> None:
        """Begins with nothing that runs.

        Args:
            scratch: A folder for state and settings.
            log: The file that gets what the daemon writes.
        """
        self._state_dir = scratch / "state"
        self._settings = scratch / "balancer.toml"
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None
        self._address = f"unix:{self._state_dir}/balancer.sock"
        log.write_bytes(b"")

    def start(self, settings: str | None = None) -> None:
        """Starts it and waits until its devices have been tried.

        Args:
            settings: What the settings say besides addresses. None: what they said before.

        Raises:
            Missed: It ended, or no device became ready.
        """
        if settings is not None:
            # The port is left to the system.
            server = f'[server]\nlisten = ["{self._address}"]\nhttp = "127.0.0.1:0"\n'
            self._settings.write_text(f"{server}{settings}")
        arguments = ["--config", str(self._settings), "--state-dir", str(self._state_dir)]
        show_command(["gpu-balancerd", *arguments])
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [_BIN / "gpu-balancerd", *arguments], stdout=log, stderr=log, stdin=subprocess.DEVNULL
            )
        eventually(self._ready, "a device is ready")

    def _ready(self) -> bool:
        assert self._process is not None, "it was started"
        if self._process.poll() is not None:
            raise Missed(f"The daemon ended with status {self._process.returncode}. Its log is {self._log}.")
        with contextlib.suppress(RequestFailure), self.client() as client:
            states = {device.state for device in client.list_devices()}
            return device_pb2.DEVICE_STATE_READY in states and device_pb2.DEVICE_STATE_PROBING not in states
        return False

    def client(self) -> Client:
        """Gives a client of it, to be used as a context manager."""
        return Client(self._address)

    def cli(self, *arguments: str) -> int:
        """Runs `gpu-balancer` where its output is seen and gives its exit status."""
        return self._run(*arguments).returncode

    def submit(self, command: str, *arguments: str) -> str:
        """Runs `gpu-balancer transcode`, or `record`, with `--detach` and gives the session's id.

        Raises:
            Missed: There is none.
        """
        done = self._run(command, *arguments, "--detach", stdout=subprocess.PIPE)
        if done.returncode != 0:
            raise Missed(f"The session was refused, with status {done.returncode}.")
        console.print(done.stdout.strip())
        return done.stdout.strip().removeprefix("sessions/")

    def _run(self, *arguments: str, stdout: int | None = None) -> subprocess.CompletedProcess[str]:
        show_command(["gpu-balancer", *arguments])
        environment = os.environ | {"GPU_BALANCER_ADDRESS": self._address}
        command = [str(_BIN / "gpu-balancer"), *arguments]
        return subprocess.run(command, env=environment, stdout=stdout, text=True, check=False)

    def agents(self) -> list[int]:
        """Gives the process ids of its agents."""
        return [pid for pid, words in self._processes() if b"agents" in words]

    def kill(self) -> None:
        """Ends the daemon, and it alone, as the kernel does when memory is short."""
        assert self._process is not None, "it was started"
        show_command(["kill", "-KILL", str(self._process.pid)])
        self._process.kill()
        self._process.wait()

    def stop(self) -> Check:
        """Stops it with all its sessions and agents, by force if need be, and tells whether all of it is gone."""
        status = 0
        if self._process is not None:
            if self._process.poll() is None:
                self.cli("shutdown", "--stop-sessions")
            try:
                status = self._process.wait(_LONGEST_WAIT_S / 2)
            except subprocess.TimeoutExpired:
                self._process.kill()
                status = self._process.wait()
        left = self._await_none_left()
        found = f"left running: {left}" if left else "nothing is left running"
        found = found if status == 0 else f"status {status}, {found}"
        note(f"{found.capitalize()}.")
        return Check(what="everything stopped", found=found, passed=status == 0 and not left)

    def _await_none_left(self) -> list[int]:
        """Waits up to 10 s until no process has the state folder in its command line; gives those that still do."""
        deadline_s = time.monotonic() + 10
        while (left := self._processes()) and time.monotonic() < deadline_s:
            time.sleep(0.1)
        return [pid for pid, _ in left]

    def _processes(self) -> list[tuple[int, list[bytes]]]:
        """Gives the processes that have the state folder in their command lines, each with its words."""
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                command = (folder / "cmdline").read_bytes()
                if str(self._state_dir).encode() in command and int(folder.name) != os.getpid():
                    found.append((int(folder.name), command.split(b"\0")))
        return found
