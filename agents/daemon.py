"""The agent's wiring, all by hand: from settings to a served agent that runs until it is told, or nobody needs it.

Sessions are processes of their own: ending the agent, in whatever way, leaves them running to the next one.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, assert_never

from agents.devices.device_access import open_health_watch, open_meter, take_device
from agents.devices.driver_calls import driver_call, driver_call_within
from agents.devices.golden_probe import ProbeResult, probe_device
from agents.devices.identity import DeviceIdentity
from agents.devices.measurements import DeviceFault
from agents.displays.run_folders import default_run_dir
from agents.precedence import take_precedence
from agents.process_marks import Mark, OwnerKind, name_of_agent
from agents.recordings.assembly import Recordings
from agents.servicers.agent_servicer import AgentServicer
from agents.servicers.calibrator import Calibrator
from agents.servicers.media_guards import SettingsGuards
from agents.servicers.probed_device import ProbedDevice
from agents.servicers.upkeep import end_when_orphaned, measure_for_watchers
from agents.sessions.attempt_health import health_bounds
from agents.sessions.disk_watch import DiskWatch
from agents.sessions.event_numbers import EventNumbers
from agents.sessions.fence import Fences
from agents.sessions.folder import SessionFolders
from agents.sessions.launcher import Launcher, LaunchSettings
from agents.sessions.orphans import OrphanSweep
from agents.sessions.records import LaunchRecord, RecordingRecord
from agents.sessions.registry import SessionRegistry
from agents.sessions.runner import AttemptRunner
from agents.sessions.running import RunnerSettings
from agents.sessions.status_book import StatusBook
from agents.settings import AgentSettings
from agents.temporary_folder import take_temporary_folder
from gpu_balancer.runtime.disk_reserve import DiskReserve
from gpu_balancer.runtime.disk_room import RoomBounds
from gpu_balancer.runtime.failures import RequestFailure
from gpu_balancer.runtime.folder_lock import FolderUnusableError, owned_folder
from gpu_balancer.runtime.grpc_server import MIB, ServedService, ServerLimits, build_server
from gpu_balancer.runtime.ids import random_id
from gpu_balancer.runtime.log import configure_logging
from gpu_balancer.runtime.settings_file import load_settings
from gpu_balancer.runtime.settings_sections import parse_ports
from gpu_balancer.runtime.steady_clock import SteadyClock, keep_time
from gpu_balancer.runtime.task_guard import TaskGuard
from gpu_balancer.runtime.telemetry import Telemetry, build_telemetry
from gpu_balancer.v1 import agent_service_pb2
from gpu_balancer.v1.agent_service_pb2_grpc import add_AgentServiceServicer_to_server

if TYPE_CHECKING:
    from collections.abc import Iterator

    from agents.sessions.records import AnyRecord
    from agents.sessions.running import Runner
    from agents.sessions.session_trace import SessionTrace
    from agents.sessions.status_book import Attempt
    from gpu_balancer.runtime.clock import Clock
    from gpu_balancer.runtime.grpc_server import GrpcServer

_LOG = logging.getLogger("agents")
_RESERVE_BYTES = 1 * MIB
"""Room for the ends of many sessions: a status takes some kilobytes."""
_STOP_GRACE = timedelta(seconds=1)
_SWEPT_WITHIN = timedelta(seconds=1)
"""How long the agent waits at its start for orphans to go that do not go at once."""
_DEVICE_PATIENCE = timedelta(seconds=6)
"""For the driver to name its cards; sooner than the balancer takes the agent for one that does not start."""


class StartFault(Exception):
    """The agent cannot start; the message says why and what to try."""


def run_agent(config: Path | None) -> None:
    """Reads the settings, takes the state folder and runs the agent until it ends.

    Args:
        config: The settings file. None: all defaults.

    Raises:
        SettingsError: When the settings are refused.
        FolderUnusableError: When the state folder cannot be used, or none is named.
        FolderLockedError: When another agent owns it.
        StartFault: When the device's cores cannot be had.
        ListenFault: When an address cannot be listened on.
        TelemetryFault: When a collector is set and cannot be spoken to.
    """
    settings = load_settings(config, AgentSettings)
    state_dir = _state_dir(settings, config)
    configure_logging(settings.log)
    with owned_folder(state_dir, lock_name="agent.lock", owner="agent"):
        _run(settings, state_dir)


def _run(settings: AgentSettings, state_dir: Path) -> None:
    life = Mark(agent=name_of_agent(state_dir), kind=OwnerKind.AGENT, name=random_id())
    # What is started inherits it; attempts and displays, which may outlive this agent, get marks of their own.
    os.environ.update(life.environment)
    take_temporary_folder(state_dir / "tmp")
    identity = _take_device(settings)
    telemetry = build_telemetry(settings.telemetry, component="agent", instance=identity.id, prometheus=False)
    try:
        asyncio.run(_serve(settings, state_dir, identity, telemetry, life))
    finally:
        telemetry.shutdown()


async def _serve(
    settings: AgentSettings, state_dir: Path, identity: DeviceIdentity, telemetry: Telemetry, life: Mark
) -> None:
    await _Agent(settings, state_dir, identity, telemetry, life).run()


class _Agent:
    """The parts that know one another, and the order in which they begin and end."""

    def __init__(
        self, settings: AgentSettings, state_dir: Path, identity: DeviceIdentity, telemetry: Telemetry, life: Mark
    ) -> None:
        self.settings = settings
        self.state_dir = state_dir
        self.telemetry = telemetry
        self.life = life
        self.clock = SteadyClock(state_dir / "clock")
        self.stopping = asyncio.Event()
        self.reserve = DiskReserve(state_dir / "disk-reserve", size_bytes=_RESERVE_BYTES)
        self.book = StatusBook(EventNumbers(state_dir / "event-number", self.clock), reserve=self.reserve)
        self.changed = self.book.feed.agent_changed
        health = open_health_watch(identity, state_folder=state_dir, clock=self.clock, changed=self.changed)
        self.device = ProbedDevice(
            identity, _Prober(settings, state_dir), changed=self.changed, clock=self.clock, health_watch=health
        )
        self.folders = SessionFolders(root=state_dir / "sessions", agent=life.agent)
        self.fences = Fences(_fence_dir(settings), self.clock)
        self.launcher = Launcher(
            self.folders,
            fences=self.fences,
            device=self.device.pipeline_device,
            tracer=telemetry.tracer,
            clock=self.clock,
            settings=_launch_settings(settings),
        )

    async def run(self) -> None:
        """Takes over what an earlier agent left, serves until it is told to end, and leaves sessions to the next."""
        with _stopped_by_signals(self.stopping):
            async with TaskGuard("agent") as tasks:
                recordings = self._recordings(tasks)
                registry = await self._adopted(recordings, tasks)
                disk = DiskWatch(
                    self.state_dir,
                    _room_bounds(self.settings),
                    reserve=self.reserve,
                    sessions=registry.live_sessions,
                )
                servicer = AgentServicer(
                    self.device,
                    registry,
                    self.launcher,
                    self.book,
                    guards=_guards(self.settings, self.device),
                    calibrator=await self._calibrator(recordings, tasks),
                    recordings=recordings,
                    disk=disk,
                    shut_down=self.stopping.set,
                )
                async with _server(self.settings, self.state_dir, servicer) as server:
                    await server.set_serving(serving=True)
                    _LOG.info("Serving %s on %s", self.device.identity.id, ", ".join(server.addresses))
                    tasks.spawn(_first_probe(self.device), name="probe")
                    tasks.spawn_eternal(disk.watch(), name="disk watch")
                    self._keep_up(tasks, registry)
                    # No sooner: it has had much to do, and a recording that an earlier agent began goes on meanwhile.
                    take_precedence()
                    await self.stopping.wait()
                    registry.close()
                    await server.stop(_STOP_GRACE)
                    await recordings.close()
        _LOG.info("Ended; %d live sessions are left to the next agent", registry.live_count)

    def _recordings(self, tasks: TaskGuard) -> Recordings:
        return Recordings(
            self.settings,
            self.state_dir,
            self.folders,
            fences=self.fences,
            device=self.device.pipeline_device,
            book=self.book,
            tracer=self.telemetry.tracer,
            tasks=tasks,
            clock=self.clock,
            changed=self.changed,
        )

    async def _adopted(self, recordings: Recordings, tasks: TaskGuard) -> SessionRegistry:
        """Makes the registry with everything that an earlier agent left, and ends what it left without a record.

        Before anybody can ask: an attempt that is not known yet would be launched a second time, and one that will
        never be known must not run when that is told.
        """
        runners = Runners(
            recordings, self.book, self.fences, clock=self.clock, settings=_runner_settings(self.settings)
        )
        orphans = OrphanSweep(self.life, is_live=lambda key: registry.is_live(key), clock=self.clock)
        registry = SessionRegistry(
            self.folders,
            self.book,
            fences=self.fences,
            make_runner=runners.make,
            tasks=tasks,
            tracer=self.telemetry.tracer,
            clock=self.clock,
            on_ended=orphans.wake,
        )
        await recordings.start()
        await registry.adopt()
        await orphans.sweep(within=_SWEPT_WITHIN)
        tasks.spawn_eternal(orphans.run(), name="end orphans")
        return registry

    async def _calibrator(self, recordings: Recordings, tasks: TaskGuard) -> Calibrator:
        calibrator = Calibrator(
            self.device,
            recordings.sound_calibration,
            work=self.state_dir / "calibration-work",
            settings=self.settings.calibration,
            tasks=tasks,
            clock=self.clock,
        )
        await calibrator.clear()
        return calibrator

    def _keep_up(self, tasks: TaskGuard, registry: SessionRegistry) -> None:
        tasks.spawn_eternal(keep_time(self.clock), name="keep the time")
        tasks.spawn_eternal(registry.late_playlists.watch(), name="late playlists")
        if self.device.health_watch is not None:
            tasks.spawn_eternal(self.device.health_watch.run(), name="health")
        meter = open_meter(self.device.identity, clock=self.clock)
        measuring = measure_for_watchers(meter, self.book.feed, self.device, registry)
        tasks.spawn_eternal(measuring, name="measure")
        if self.settings.server.orphan_exit_s is not None:
            after = timedelta(seconds=self.settings.server.orphan_exit_s)
            end = self.stopping.set
            orphaned = end_when_orphaned(registry, self.book.feed, clock=self.clock, after=after, end=end)
            tasks.spawn_eternal(orphaned, name="orphan watch")


async def _first_probe(device: ProbedDevice) -> None:
    try:
        await device.probe(refresh=False)
    except RequestFailure as failure:
        # The agent stays: sessions may be running, and an operator can have the probe run again.
        _LOG.error("%s", failure.message)


class Runners:
    """Makes who watches over an attempt, by what it is."""

    def __init__(
        self, recordings: Recordings, book: StatusBook, fences: Fences, *, clock: Clock, settings: RunnerSettings
    ) -> None:
        self._recordings = recordings
        self._watched = partial(AttemptRunner, book=book, fences=fences, clock=clock, settings=settings)

    def make(self, attempt: Attempt, record: AnyRecord, trace: SessionTrace) -> Runner:
        """Implements `RunnerMaker`."""
        match record:
            case LaunchRecord():
                return self._watched(attempt, record, trace=trace)
            case RecordingRecord():
                return self._recordings.make_runner(attempt, record, trace)
            case _:
                assert_never(record)


class _Prober:
    """Looks at the device of the settings and runs the golden probe."""

    def __init__(self, settings: AgentSettings, state_dir: Path) -> None:
        self._settings = settings
        self._state_dir = state_dir

    async def __call__(self, refresh: bool) -> tuple[DeviceIdentity, ProbeResult]:
        try:
            identity = await driver_call(lambda: take_device(self._settings.device))
        except DeviceFault as fault:
            missing = ProbeResult(ffmpeg_builds=(), capabilities=(), fault_message=fault.message)
            return _unknown_device(self._settings), missing
        ffmpeg = self._settings.ffmpeg
        result = await probe_device(
            identity,
            ffmpeg.candidates,
            state_folder=self._state_dir,
            trial_timeout=timedelta(seconds=ffmpeg.probe_timeout_s),
            refresh=refresh,
        )
        return identity, result


def _take_device(settings: AgentSettings) -> DeviceIdentity:
    if settings.device.kind == "cpu":
        try:
            return take_device(settings.device)  # in this thread, which it pins to the device's cores
        except DeviceFault as fault:
            raise StartFault(fault.message) from fault
    try:
        return driver_call_within(partial(take_device, settings.device), _DEVICE_PATIENCE)
    except (DeviceFault, TimeoutError):
        # A GPU that is gone, or whose driver hangs, must not silence what is to be told of its sessions; the probe and
        # the health watch tell of the GPU.
        return _unknown_device(settings)


def _unknown_device(settings: AgentSettings) -> DeviceIdentity:
    return DeviceIdentity(id=settings.device.id, kind=settings.device.kind, model="unknown")


def _state_dir(settings: AgentSettings, config: Path | None) -> Path:
    if settings.server.state_dir is not None:
        return Path(settings.server.state_dir)
    if config is not None:
        return config.resolve().parent
    raise FolderUnusableError(
        "Cannot tell where to keep state: there is neither a settings file nor a state folder. Try --config FILE."
    )


def _fence_dir(settings: AgentSettings) -> Path:
    given = settings.sessions.fence_dir
    return default_run_dir() / "fences" if given is None else Path(given)


def _server(settings: AgentSettings, state_dir: Path, servicer: AgentServicer) -> GrpcServer:
    service = ServedService(
        name=agent_service_pb2.DESCRIPTOR.services_by_name["AgentService"].full_name,
        add=add_AgentServiceServicer_to_server,
        servicer=servicer,
    )
    limits = ServerLimits(
        max_receive_bytes=settings.server.max_receive_mib * MIB,
        max_concurrent_streams=settings.server.max_concurrent_streams,
    )
    addresses = [address.replace("{state_dir}", str(state_dir)) for address in settings.server.listen]
    return build_server(addresses=addresses, services=[service], limits=limits)


def _launch_settings(settings: AgentSettings) -> LaunchSettings:
    return LaunchSettings(
        ingest_host=settings.ingest.host,
        rtmp_ports=parse_ports(settings.ingest.rtmp_ports),
        srt_ports=parse_ports(settings.ingest.srt_ports),
        first_frame_timeout=timedelta(seconds=settings.inputs.first_frame_timeout_s),
        output_roots=settings.outputs.roots,
    )


def _guards(settings: AgentSettings, device: ProbedDevice) -> SettingsGuards:
    schemes = settings.recordings.url_schemes
    return SettingsGuards(settings.inputs, settings.outputs, url_schemes=schemes, ffmpeg=device.ffmpeg)


def _room_bounds(settings: AgentSettings) -> RoomBounds:
    return RoomBounds(low_bytes=settings.disk.low_mib * MIB, least_bytes=settings.disk.least_mib * MIB)


def _runner_settings(settings: AgentSettings) -> RunnerSettings:
    return RunnerSettings(
        stop_timeout=timedelta(seconds=settings.sessions.stop_timeout_s),
        log_limit_bytes=settings.sessions.log_max_mib * MIB,
        log_tail_lines=settings.sessions.log_tail_lines,
        health=health_bounds(settings.sessions),
    )


@contextmanager
def _stopped_by_signals(stopping: asyncio.Event) -> Iterator[None]:
    loop = asyncio.get_running_loop()
    numbers = (signal.SIGTERM, signal.SIGINT)
    for number in numbers:
        loop.add_signal_handler(number, stopping.set)
    try:
        yield
    finally:
        for number in numbers:
            loop.remove_signal_handler(number)
