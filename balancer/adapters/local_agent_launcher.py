"""Starts the agents of this machine and keeps them running.

An agent outlives the balancer, so it is started detached, in a process group of its own, and one that already runs is
used as it is, unless this version of the balancer has started it with other settings. A pidfd tells when it ends,
whoever started it; then it is started again, less and less often. The same pidfd kills one that hangs: it cannot hit
anybody else.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

import structlog

from balancer.domain.device import DeviceIdentity, DeviceKind
from balancer.domain.ids import DeviceId
from gpu_balancer import __version__
from gpu_balancer.runtime.durable_file import write_durably
from gpu_balancer.runtime.folder_lock import lock_owner

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from gpu_balancer.runtime.clock import Clock

_log = structlog.get_logger(__name__)
AGENT_ENDED = "agent ended; it is started again"
"""What is logged of an agent that has ended by itself."""

_LISTING_TIMEOUT_S = 20.0
_FIRST_BACKOFF = timedelta(milliseconds=250)
_LONGEST_BACKOFF = timedelta(seconds=30)
_LONGEST_AFTER_SERVING = timedelta(seconds=1)
"""An agent that came so far as to listen is killed by somebody, again and again, rather than that it cannot run."""
_STEADY = timedelta(seconds=5)
"""An agent that ran this long is started again at once: it has served, so it was ended rather than that it cannot run.
One that ends after so long each time takes a fifth of a core to start, at most."""
_WRITTEN_BY = f"# Written by gpu-balancer {__version__} when it started this agent.\n"
_AGENT = (sys.executable, "-P", "-m", "agents")
"""-P: a folder "agents" where the daemon happens to stand must not be run instead."""


class AgentLaunchError(Exception):
    """Agents cannot be started. The message says why and what to try."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalAgent:
    """An agent of this machine."""

    identity: DeviceIdentity
    folder: Path
    """Its state folder."""
    settings_toml: str
    """The settings file to write for it."""

    @property
    def socket_path(self) -> Path:
        """Where it listens."""
        return self.folder / "agent.sock"


async def list_local_gpus() -> tuple[DeviceIdentity, ...]:
    """Asks the agent program which GPUs this machine has, in NVML order; logs what it says of GPUs beyond use.

    Raises:
        AgentLaunchError: The program failed or took too long.
    """
    try:
        process = await asyncio.create_subprocess_exec(
            *_AGENT, "--list-devices", stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL
        )
    except OSError as error:
        raise AgentLaunchError(
            f"Cannot list GPUs: {_AGENT[0]} cannot be started: {error.strerror}. Try to let this user run it."
        ) from error
    try:
        output, errors = await asyncio.wait_for(process.communicate(), _LISTING_TIMEOUT_S)
    except TimeoutError:
        process.kill()
        await process.wait()
        raise AgentLaunchError(
            f"Cannot list GPUs: the driver did not answer within {_LISTING_TIMEOUT_S:.0f} s. Try nvidia-smi."
        ) from None
    if process.returncode:
        told = errors.decode(errors="replace").strip().splitlines()
        raise AgentLaunchError(f"Cannot list GPUs: {told[-1] if told else f'exit status {process.returncode}'}")
    for fault in errors.decode(errors="replace").splitlines():
        _log.error("GPUs cannot be used", fault=fault)
    return tuple(_identity(item) for item in json.loads(output))


def _identity(item: Mapping[str, object]) -> DeviceIdentity:
    known = {name: item[name] for name in DeviceIdentity.__dataclass_fields__ if item.get(name) not in (None, "")}
    known |= {
        "id": DeviceId(str(item["id"])),
        "kind": DeviceKind(str(item["kind"])),
        "cores": tuple(item.get("cores") or ()),  # type: ignore[arg-type]
    }
    return DeviceIdentity(**known)  # type: ignore[arg-type]


class LocalAgentLauncher:
    """Keeps one local agent running until it is told to let go."""

    def __init__(self, agent: LocalAgent, *, clock: Clock, environment: Mapping[str, str] | None = None) -> None:
        """Prepares; nothing is started yet.

        Args:
            agent: The agent.
            clock: Measures how long it ran.
            environment: Variables for the agent. None: this process's own.
        """
        self._agent = agent
        self._clock = clock
        self._environment = dict(os.environ if environment is None else environment)
        self._backoff = _FIRST_BACKOFF
        self._process: subprocess.Popen[bytes] | None = None
        self._pidfd: int | None = None
        self._since_s = 0.0

    @property
    def running_s(self) -> float | None:
        """Seconds since the agent was started or found. None: it does not run now."""
        return None if self._pidfd is None else self._clock.monotonic_s() - self._since_s

    def listens(self) -> bool:
        """Tells whether the agent's socket takes connections, whether or not anybody serves them."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            probe.setblocking(False)
            try:
                probe.connect(str(self._agent.socket_path))
            except BlockingIOError:
                # So many wait to be served that there is no room for another.
                return True
            except OSError:
                return False
        return True

    def kill(self) -> bool:
        """Kills the agent, which is started anew then. Returns False when it has ended by itself."""
        if self._pidfd is None:
            return False
        try:
            signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
        except ProcessLookupError:
            return False
        return True

    async def keep_running(self) -> None:
        """Starts the agent, and again whenever it ends, until cancelled. The agent itself is left running then."""
        while True:
            began_s, socket_before = self._clock.monotonic_s(), self._socket()
            try:
                if (running := self._owner()) is None:
                    running = self._spawn()
                else:
                    self._require_settings(running)
                await self._await_end(running)
                if self._clock.monotonic_s() - began_s >= _STEADY.total_seconds():
                    self._backoff = _FIRST_BACKOFF
                elif self._socket() not in (None, socket_before):
                    self._backoff = min(self._backoff, _LONGEST_AFTER_SERVING)
                status = self._reap(running)
                _log.warning(
                    AGENT_ENDED,
                    device=self._agent.identity.id,
                    exit_status=status,
                    wait_s=self._backoff.total_seconds(),
                    log=str(self._agent.folder / "agent.log"),
                )
            except OSError as error:
                # A full disk, or no process to be had: both may pass, and the other agents have nothing to do with it.
                _log.error("agent cannot be started; trying again", device=self._agent.identity.id, error=str(error))
            await asyncio.sleep(self._backoff.total_seconds())
            self._backoff = min(self._backoff * 2, _LONGEST_BACKOFF)

    def _socket(self) -> tuple[int, int] | None:
        """Tells the agent's socket from those of other agents. None: there is none."""
        try:
            found = self._agent.socket_path.lstat()
        except OSError:
            return None
        return found.st_ino, found.st_ctime_ns

    def _owner(self) -> int | None:
        """Gives the process id of an agent that runs. None: there is none."""
        return lock_owner(self._agent.folder / "agent.lock")

    def _require_settings(self, pid: int) -> None:
        """Ends an agent that was found, so that it is started anew, when it has other settings than it is to have.

        Its sessions run on. One that another version has started is left to whoever tries that version.
        """
        try:
            header, _, settings = self._settings_path.read_text().partition("\n")
        except (OSError, UnicodeError):
            header, settings = "", ""
        if settings == self._agent.settings_toml:
            return
        if f"{header}\n" != _WRITTEN_BY:
            advice = f"Try `kill -TERM {pid}`: its sessions run on, and it is started anew"
            _log.warning("agent may have other settings", device=self._agent.identity.id, pid=pid, advice=advice)
            return
        _log.info("agent has other settings; it is started anew", device=self._agent.identity.id, pid=pid)
        pidfd = os.pidfd_open(pid)
        try:
            if self._owner() == pid:
                signal.pidfd_send_signal(pidfd, signal.SIGTERM)
        finally:
            os.close(pidfd)

    @property
    def _settings_path(self) -> Path:
        return self._agent.folder / "agent.toml"

    async def _await_end(self, pid: int) -> None:
        """Returns when a process has ended, child or not."""
        try:
            pidfd = os.pidfd_open(pid)
        except ProcessLookupError:
            return
        ended = asyncio.Event()
        loop = asyncio.get_running_loop()
        loop.add_reader(pidfd, ended.set)
        try:
            # In this order: an id that was found may be somebody else's before its pidfd is held.
            if self._process is None and self._owner() != pid:
                return
            self._pidfd, self._since_s = pidfd, self._clock.monotonic_s()
            await ended.wait()
        finally:
            self._pidfd = None
            loop.remove_reader(pidfd)
            with suppress(OSError):
                os.close(pidfd)

    def _reap(self, pid: int) -> int | None:
        """Takes the exit status of an agent that was started here; None for one that was found."""
        process, self._process = self._process, None
        return process.wait() if process is not None and process.pid == pid else None

    def _spawn(self) -> int:
        folder = self._agent.folder
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_durably(self._settings_path, f"{_WRITTEN_BY}{self._agent.settings_toml}".encode())
        with (folder / "agent.log").open("ab") as log:
            self._process = subprocess.Popen(
                [*_AGENT, "--config", str(self._settings_path)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                cwd=folder,
                env=self._environment,
            )
        _log.info("agent started", device=self._agent.identity.id, pid=self._process.pid)
        return self._process.pid
