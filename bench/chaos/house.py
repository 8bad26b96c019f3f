"""The house that is broken: a real balancer, real agents on this machine's cores, and ways to kill and mend them.

Agents are started by the balancer ("local"), or by this house behind relays that can be cut ("external"), as systemd
would: one that ends is started again. Everything is below one short-named folder and gone at the end.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import ChainMap
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from bench.chaos.house_settings import Wishes, agent_settings, balancer_settings, cpu_devices
from bench.chaos.kept_agents import KeptAgent, live_attempts
from bench.chaos.relay import Relay
from bench.chaos.sightings import Sighter
from bench.chaos.small_disks import SmallDisk, small_disk
from bench.stand_ins import house_clock, stand_in_gpus
from gpu_balancer import Client, RequestFailure
from gpu_balancer.runtime.folder_lock import lock_owner
from gpu_balancer.v1 import device_pb2

if TYPE_CHECKING:
    from collections.abc import Iterator

_SERVING = health_pb2.HealthCheckResponse.SERVING
_POLL_S = 0.02

_LACKING = ("h264_nvenc:10", "hevc_nvenc", "av1_nvenc")
"""What GPUs that are stood in for cannot do."""


class House:
    """One balancer with its agents. `house_running` makes and ends it."""

    def __init__(self, folder: Path, wishes: Wishes) -> None:
        """Prepares; nothing runs yet.

        Args:
            folder: Empty, with a short name: sockets lie in it.
            wishes: What it shall have.
        """
        self.folder, self.wishes = folder, wishes
        self.state_dir, self.films, self.out_root = (folder / name for name in ("state", "films", "out"))
        for made in (self.state_dir, self.films, self.out_root):
            made.mkdir(mode=0o700)
        self.clock = house_clock(folder) if wishes.clock else None
        """The daemons' wall clock. None: it is the machine's."""
        self.gpus = stand_in_gpus(
            folder, {f"GPU-chaos-{number}": "NVIDIA L4" for number in range(wishes.gpus)}, lacking=_LACKING
        )
        """Stand-ins. None: there are none."""
        self._cpus = cpu_devices(wishes)
        self.devices = (*self._cpus, *(self.gpus.ids if self.gpus else ()))
        """Ids of all devices."""
        self.sighter = Sighter((self.state_dir,))
        self.relays: dict[str, Relay] = {}
        """Of external agents, by device."""
        self.disks: list[SmallDisk] = []
        """Small ones that the state folder and the outputs lie on, when they were asked for and may be made."""
        self.process: subprocess.Popen[bytes] | None = None
        self.started_s = 0.0
        self._agents: dict[str, KeptAgent] = {}
        addresses = [f"unix:{self._wire(device)}" for device in self.devices]
        self._settings_path = folder / "balancer.toml"
        self._settings_path.write_text(balancer_settings(wishes, self._cpus, addresses, self.films, self.out_root))
        made_up = [part.environment for part in (self.clock, self.gpus) if part is not None]
        self._environment = dict(ChainMap(*map(dict, made_up), dict(os.environ)))

    @property
    def address(self) -> str:
        """Where the balancer answers."""
        return f"unix:{self.state_dir}/balancer.sock"

    def client(self) -> Client:
        """Makes a client of the balancer."""
        return Client(self.address)

    def agent_folder(self, device: str) -> Path:
        """Gives an agent's state folder."""
        return self.state_dir / "agents" / device

    def agent_pid(self, device: str) -> int | None:
        """Tells the process id of a device's living agent. None: there is none."""
        return lock_owner(self.agent_folder(device) / "agent.lock")

    def mount_disks(self, stack: ExitStack) -> None:
        """Puts small disks under state and outputs, before anything is in them, as far as this user may."""
        for kind, place in (("fill state", self.state_dir), ("fill outputs", self.out_root)):
            disk = stack.enter_context(small_disk(kind, place, size_mib=self.wishes.disk_mib))
            if disk is not None:
                self.disks.append(disk)

    def start(self) -> None:
        """Starts the balancer, and in an external house the agents that are not there yet."""
        self._start_agents()
        command = [sys.executable, "-m", "balancer", "--config", str(self._settings_path)]
        with (self.folder / "gpu-balancerd.log").open("ab") as log:
            self.started_s = time.monotonic()
            self.process = subprocess.Popen(
                [*command, "--state-dir", str(self.state_dir)],
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                env=self._environment,
            )

    def kill_balancer(self) -> None:
        """Ends the balancer as the kernel does when memory is short."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def signal_balancer(self, number: signal.Signals) -> None:
        """Sends the balancer a signal."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(number)

    def await_living(self, timeout_s: float = 60.0) -> list[str]:
        """Waits until a device has a living agent; gives all devices that have one.

        Raises:
            RuntimeError: When none has in time.
        """
        deadline_s = time.monotonic() + timeout_s
        while not (living := [device for device in self.devices if self.agent_pid(device) is not None]):
            if time.monotonic() > deadline_s:
                raise RuntimeError(f"No agent lives: {self.log_tail()}")
            time.sleep(_POLL_S)
        return living

    def signal_agent(self, device: str, number: signal.Signals) -> int | None:
        """Sends an agent a signal; gives its process id. None: it is not there."""
        pid = self.agent_pid(device)
        if pid is not None:
            with suppress(ProcessLookupError):
                os.kill(pid, number)
        return pid

    def is_serving(self) -> bool:
        """Asks the balancer's health once, over a connection of its own."""
        with grpc.insecure_channel(self.address) as channel:
            try:
                answer = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=1)
            except grpc.RpcError:
                return False
        return bool(answer.status == _SERVING)

    def await_serving(self, timeout_s: float = 60.0) -> float:
        """Waits until the balancer serves; gives the seconds since its start.

        Raises:
            RuntimeError: When it ends or does not serve in time.
        """
        deadline_s = time.monotonic() + timeout_s
        while not self.is_serving():
            if self.process is None or self.process.poll() is not None:
                raise RuntimeError(f"The balancer ended: {self.log_tail()}")
            if time.monotonic() > deadline_s:
                raise RuntimeError(f"The balancer does not serve: {self.log_tail()}")
            time.sleep(_POLL_S)
        return time.monotonic() - self.started_s

    def await_known(self, timeout_s: float = 60.0) -> None:
        """Waits until the balancer tells of every device; an external agent's is known once that has answered.

        Raises:
            RuntimeError: When it does not in time.
        """
        deadline_s = time.monotonic() + timeout_s
        wanted, found = {f"devices/{device}" for device in self.devices}, set[str]()
        with self.client() as client:
            while not wanted <= found:
                if time.monotonic() > deadline_s:
                    raise RuntimeError(f"{sorted(wanted - found)} were not known in {timeout_s:g} s.")
                with suppress(RequestFailure):
                    found = {device.name for device in client.list_devices()}
                time.sleep(_POLL_S)

    def await_adopted(self, names: frozenset[str], timeout_s: float = 60.0) -> float:
        """Waits until the balancer serves, every device is READY, and some sessions run and can be reached.

        Returns:
            Seconds since the balancer's start.
        """
        self.await_serving(timeout_s)
        deadline_s = time.monotonic() + timeout_s
        with self.client() as client:
            while not self._all_well(client, names):
                if time.monotonic() > deadline_s:
                    raise RuntimeError(f"Not every session was adopted in {timeout_s:g} s.")
                time.sleep(_POLL_S)
        return time.monotonic() - self.started_s

    def _all_well(self, client: Client, names: frozenset[str]) -> bool:
        try:
            ready = [device.state == device_pb2.DEVICE_STATE_READY for device in client.list_devices()]
            sessions = {session.name: session for session in client.list_sessions()}
        except RequestFailure:
            return False
        told = [sessions.get(name) for name in names]
        found = [session for session in told if session is not None]
        silent = any(condition.type == "UNREACHABLE" for session in found for condition in session.conditions)
        return len(ready) == len(self.devices) and all(ready) and len(found) == len(names) and not silent

    def live_attempts(self, device: str) -> frozenset[str] | None:
        """Asks an agent itself which sessions it has that live. None: it does not answer yet."""
        return live_attempts(self.agent_folder(device) / "agent.sock")

    def await_agent(self, device: str, former: int, sessions: frozenset[str], timeout_s: float = 60.0) -> None:
        """Waits until another agent than a former one has adopted some sessions.

        Raises:
            RuntimeError: When there is none in time.
        """
        deadline_s = time.monotonic() + timeout_s
        while self.agent_pid(device) in (None, former) or not sessions <= (self.live_attempts(device) or frozenset()):
            if time.monotonic() > deadline_s:
                raise RuntimeError(f"No agent of {device} has adopted {sorted(sessions)} in {timeout_s:g} s.")
            time.sleep(_POLL_S)

    def log_tail(self) -> str:
        """Gives the last lines of the balancer's log."""
        return (self.folder / "gpu-balancerd.log").read_text(errors="replace")[-2000:]

    def keep_probe_results(self, path: Path) -> None:
        """Copies what the golden probe found, for houses that come later."""
        shutil.copy(self.agent_folder("cpu-0") / "probe.json", path)

    def take_probe_results(self, path: Path) -> None:
        """Gives every CPU device what an earlier house's probe found of this machine's cores."""
        for device in self._cpus:
            folder = self.agent_folder(device)
            folder.mkdir(mode=0o700, parents=True)
            content = json.loads(path.read_text())
            renamed = {f"{device}|{key.partition('|')[2]}": value for key, value in content["outcomes"].items()}
            (folder / "probe.json").write_text(json.dumps(content | {"outcomes": renamed}))

    def end(self) -> list[str]:
        """Ends everything as an operator does; gives what is left then. What is left is ended too."""
        self.heal()
        self._shut_down()
        for agent in self._agents.values():
            agent.end()
        left = self._leftovers(within_s=15.0)
        for relay in self.relays.values():
            relay.close()
        for pid in self.sighter.house_processes():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return left

    def heal(self) -> None:
        """Lets whatever was stopped go on and mends whatever was cut. Does not start what was killed."""
        for relay in self.relays.values():
            relay.mend()
        for pid in self.sighter.house_processes():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)

    def _wire(self, device: str) -> Path:
        return self.folder / f"{device}.sock"

    def _start_agents(self) -> None:
        if not self.wishes.external or self._agents:
            return
        if self.gpus is not None:
            self.gpus.keep_probe_results(self.state_dir / "agents")
        for device in self.devices:
            folder, cores = self.agent_folder(device), self._cpus.get(device)
            ffmpeg = "bundled" if cores is not None or self.gpus is None else str(self.gpus.program)
            text = agent_settings(device, cores, films=self.films, out=self.out_root, ffmpeg=ffmpeg)
            self._agents[device] = KeptAgent(folder, text, self._environment)
            self.relays[device] = Relay(self._wire(device), folder / "agent.sock")

    def _shut_down(self) -> None:
        if self.process is None:
            return
        if self.process.poll() is None:
            try:
                with self.client() as client:
                    client.shutdown(stop_sessions=True)
            except RequestFailure:
                self.process.terminate()
        try:
            self.process.wait(40)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def _leftovers(self, *, within_s: float) -> list[str]:
        """Waits for everything to go and gives what has not."""
        deadline_s = time.monotonic() + within_s
        while (left := self._left()) and time.monotonic() < deadline_s:
            time.sleep(0.1)
        return left

    def _left(self) -> list[str]:
        held = [lock for lock in self.state_dir.rglob("*lock") if lock_owner(lock)]
        # Sessions were deleted: their unfinished files, and marks in folders of presentations, went with them.
        folders = [path for path in self.state_dir.glob("agents/*/sessions/*") if path.is_dir()]
        halves = [*self.state_dir.rglob(".new-*"), *self.out_root.rglob(".*"), *folders]
        return [
            *(f"process {pid} lives: {line[:160]}" for pid, line in self.sighter.house_processes().items()),
            *(f"lock {lock.relative_to(self.folder)} is held" for lock in held),
            *(f"{path.relative_to(self.folder)} is left" for path in halves),
            *(f"socket {path.relative_to(self.folder)} is left" for path in self.state_dir.rglob("*.sock")),
        ]


@contextmanager
def house_running(
    wishes: Wishes, *, probe_results: Path | None = None, leftovers: list[str] | None = None
) -> Iterator[House]:
    """Starts a house whose devices are ready, and ends it.

    Args:
        wishes: What it shall have.
        probe_results: Of an earlier house, so that this one is ready at once. A path without a file gets them.
        leftovers: Gets what is left when it has ended.
    """
    with (
        tempfile.TemporaryDirectory(prefix="gb-chaos-", ignore_cleanup_errors=True) as scratch,
        ExitStack() as stack,
    ):
        house = House(Path(scratch), wishes)
        if wishes.disk_mib:
            house.mount_disks(stack)
        if probe_results is not None and probe_results.exists():
            house.take_probe_results(probe_results)
        try:
            house.start()
            house.await_adopted(frozenset(), timeout_s=120)
            if probe_results is not None and not probe_results.exists():
                house.keep_probe_results(probe_results)
            yield house
        finally:
            left = house.end()
            if leftovers is not None:
                leftovers.extend(left)
