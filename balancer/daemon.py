"""The daemon, wired by hand: what is made, in which order, and in which order it ends.

It serves once it has compared notes with the agents that have sessions, for which it waits a bounded time, not when
every device is ready: devices come in as their agents answer and their probes end. It ends in the opposite order;
sessions and agents stay unless it was asked to end those too.
"""

from __future__ import annotations

import asyncio
import signal
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

import structlog

from balancer.absent_agents import AbsentAgents
from balancer.adapters.grpc_agent_client import GrpcAgentClient
from balancer.adapters.local_agent_launcher import AgentLaunchError, LocalAgent, LocalAgentLauncher, list_local_gpus
from balancer.adapters.sqlite_session_store import SqliteSessionStore
from balancer.agent_directory import AgentDirectory
from balancer.agent_watch import AgentWatch
from balancer.announcement import announce_devices, announce_listening
from balancer.artifact_retention import keep_within
from balancer.calibrations import Calibrations
from balancer.device_care import DeviceCare
from balancer.device_drains import DeviceDrains
from balancer.device_metrics import DeviceMetrics
from balancer.device_plan import agent_device, device_rules, host_capacity, local_devices
from balancer.device_registry import DeviceRegistry
from balancer.domain.device import DeviceIdentity, DeviceKind
from balancer.foreign_load import ForeignLoad
from balancer.hung_agents import replace_when_hung
from balancer.ports.agent_client import AgentUnreachableError
from balancer.ports.session_observer import SeveralObservers
from balancer.ports.session_store import StoreError
from balancer.servicers.balancer_servicer import DaemonFacts
from balancer.servicers.session_translation import check_stored
from balancer.serving import Parts, Serving
from balancer.session_engine import EngineSettings, SessionEngine
from balancer.session_retention import RetentionSettings
from balancer.session_telemetry import SessionTelemetry
from balancer.settings.agent_file import agent_file_text
from balancer.settings_reload import SettingsReload, lost_after, placement_rules
from balancer.shutdown import Shutdown
from balancer.start_reconciliation import StartReconciliation
from balancer.uploads import UploadStore
from balancer.web.application import web_application
from balancer.web.server import WebServer
from gpu_balancer.runtime.folder_lock import lock_owner
from gpu_balancer.runtime.garbage import collect_seldom
from gpu_balancer.runtime.grpc_server import MIB, ServerLimits, build_server
from gpu_balancer.runtime.listening import ListenFault
from gpu_balancer.runtime.log import configure_logging, set_log_level
from gpu_balancer.runtime.steady_clock import SteadyClock, keep_time
from gpu_balancer.runtime.task_guard import TaskFault, TaskGuard
from gpu_balancer.runtime.telemetry import TelemetryFault, build_telemetry
from gpu_balancer.runtime.waking_clock import WakingClock

if TYPE_CHECKING:
    from pathlib import Path

    from balancer.domain.ids import DeviceId
    from balancer.domain.policies import Policy
    from balancer.settings import BalancerSettings
    from gpu_balancer.runtime.grpc_server import GrpcServer

_log = structlog.get_logger(__name__)
_CANNOT_START = (ListenFault, StoreError, AgentLaunchError, TelemetryFault)
"""Errors whose message is for the person who starts the daemon."""


class StartError(Exception):
    """The daemon cannot start. The message says why and what to try."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DaemonOptions:
    """What was said on the command line."""

    settings: BalancerSettings
    policy: Policy
    """The one that the settings name."""
    settings_path: Path | None
    state_dir: Path
    """Owned by this process already."""
    stop_sessions_on_exit: bool


async def run_daemon(options: DaemonOptions) -> None:
    """Runs until a signal or a client ends it.

    Raises:
        StartError: It cannot start.
    """
    try:
        async with AsyncExitStack() as stack:
            await _Daemon(options).run(stack)
    except _CANNOT_START as error:
        raise StartError(str(error)) from error
    except TaskFault as fault:
        if isinstance(fault.__cause__, _CANNOT_START):
            raise StartError(str(fault.__cause__)) from fault
        raise
    except OSError as error:
        raise StartError(f"Cannot start: {error}. Try another state folder, or make room on its disk.") from error


class _Daemon:
    """The parts that know one another."""

    def __init__(self, options: DaemonOptions) -> None:
        self.options = options
        self.clock = SteadyClock(options.state_dir / "clock")
        self.waking = WakingClock(self.clock)
        self.serving = False
        self.lost_after = lost_after(options.settings)
        self.launches: list[asyncio.Task[None]] = []
        self.registry = DeviceRegistry(device_rules(options.settings))
        self.agents: AgentDirectory[GrpcAgentClient] = AgentDirectory()
        self.reconciliation = StartReconciliation()
        self.uploads = UploadStore(
            options.state_dir / "uploads",
            max_bytes=options.settings.uploads.max_size_mib * MIB,
            expire_after=timedelta(hours=options.settings.uploads.expire_after_h),
            clock=self.clock,
        )

    async def run(self, stack: AsyncExitStack) -> None:
        options, settings = self.options, self.options.settings
        configure_logging(settings.log)
        telemetry = build_telemetry(settings.telemetry, component="balancer", instance="balancer", prometheus=True)
        stack.push_async_callback(asyncio.to_thread, telemetry.shutdown)
        observer = SessionTelemetry(telemetry, clock=self.clock)
        tasks = await stack.enter_async_context(TaskGuard("balancer"))
        care = DeviceCare(self.registry, self.agents, clock=self.clock, tasks=tasks, settings=settings)
        engine = self._engine(observer, care, tasks)
        self.foreign_load = ForeignLoad(
            self.registry,
            self.registry,
            engine.ledger,
            kinds=_foreign_kinds(settings),
            on_measured=engine.note_measured,
        )
        reload = SettingsReload(
            path=options.settings_path,
            settings=settings,
            registry=self.registry,
            engine=engine,
            on_applied=lambda fresh: self._settings_applied(fresh, care),
            on_policy_fault=observer.on_policy_fault,
        )
        shutdown = Shutdown(
            engine=engine,
            agents=self.agents,
            let_agents_go=self._let_agents_go,
            stop_timeout=timedelta(seconds=settings.sessions.stop_timeout_s + 4),
            tasks=tasks,
        )
        self._handle_signals(shutdown, reload, tasks)
        DeviceMetrics(telemetry.meter, registry=self.registry, engine=engine)
        calibrations = Calibrations(registry=self.registry, engine=engine, agents=self.agents)
        drains = DeviceDrains(registry=self.registry, engine=engine, clock=self.clock)
        parts = Parts(
            engine=engine,
            registry=self.registry,
            agents=self.agents,
            calibrations=calibrations,
            drains=drains,
            probes=care.probes,
            uploads=self.uploads,
            opened=self.reconciliation.over,
            reload=reload,
            shutdown=shutdown,
            tracer=observer,
            facts=self._facts(),
            probe_timeout=timedelta(seconds=settings.inputs.probe_timeout_s),
        )
        serving = Serving(parts)
        server = self._server(serving)
        # Agents are listed while the store is read: both take their time.
        listing = tasks.spawn(self._devices(), name="list devices")
        await self.uploads.start()
        await engine.start()
        care.begin(engine)
        calibrations.load()
        drains.load()
        stack.push_async_callback(engine.close)
        self._keep_up(serving, engine, drains, tasks)
        await server.start()
        stack.push_async_callback(server.stop, timedelta(seconds=settings.server.shutdown_grace_s))
        http_address = ""
        if settings.server.http:
            app = web_application(serving.files, metrics=telemetry.prometheus_text, healthy=lambda: self.serving)
            http_address = await stack.enter_async_context(WebServer(settings.server.http, app))
        serving.balancer.listens_on(server.addresses, http_address)
        await self._start_agents(await listing, engine, tasks)
        await self.reconciliation.run(timedelta(seconds=settings.agents.reconcile_timeout_s), engine.flush)
        await server.set_serving(serving=True)
        self.serving = True
        collect_seldom()
        announce_listening(http_address, server.addresses, options.state_dir)
        tasks.spawn(announce_devices(self.registry), name="announce devices")
        await shutdown.wished()
        self.serving = False
        await server.set_serving(serving=False)

    def _engine(self, observer: SessionTelemetry, care: DeviceCare, tasks: TaskGuard) -> SessionEngine:
        settings = self.options.settings
        return SessionEngine(
            store=SqliteSessionStore(self.options.state_dir / "balancer.sqlite", check_record=check_stored),
            agents=self.agents,
            devices=self.registry,
            rules=placement_rules(
                settings,
                policy=self.options.policy,
                version=1,
                host_capacity=host_capacity(settings),
                on_policy_fault=observer.on_policy_fault,
            ),
            clock=self.clock,
            tasks=tasks,
            settings=EngineSettings(
                retention=RetentionSettings(keep_ended=timedelta(hours=settings.sessions.keep_ended_h))
            ),
            observer=SeveralObservers(observer, *care.observers),
        )

    def _facts(self) -> DaemonFacts:
        return DaemonFacts(
            start_time=self.clock.now(),
            state_dir=self.options.state_dir,
            settings_path=self.options.settings_path,
            max_upload_bytes=self.uploads.max_bytes,
        )

    def _server(self, serving: Serving) -> GrpcServer:
        settings = self.options.settings.server
        return build_server(
            addresses=[address.format(state_dir=self.options.state_dir) for address in settings.listen],
            services=serving.services,
            limits=ServerLimits(
                max_receive_bytes=settings.max_receive_mib * MIB,
                max_concurrent_streams=settings.max_concurrent_streams,
            ),
        )

    def _keep_up(self, serving: Serving, engine: SessionEngine, drains: DeviceDrains, tasks: TaskGuard) -> None:
        tasks.spawn_eternal(keep_time(self.clock), name="keep the time")
        tasks.spawn_eternal(self.waking.look(), name="look whether time was lost")
        tasks.spawn_eternal(drains.run(), name="drains")
        tasks.spawn_eternal(self.uploads.expire(in_use=serving.uploads_in_use), name="expire uploads")
        if (keep_gib := self.options.settings.sessions.keep_artifacts_gib) is not None:
            keeping = keep_within(
                engine,
                serving.files.artifact_bytes,
                keep_bytes=round(keep_gib * 1024 * MIB),
                look_every=timedelta(minutes=1),
            )
            tasks.spawn_eternal(keeping, name="retention by size")

    def _settings_applied(self, fresh: BalancerSettings, care: DeviceCare) -> None:
        set_log_level(fresh.log.level)
        self.lost_after = lost_after(fresh)
        care.use(fresh)
        self.foreign_load.use(_foreign_kinds(fresh))

    async def _devices(self) -> tuple[DeviceIdentity, ...]:
        settings = self.options.settings
        return local_devices(settings, await list_local_gpus()) if settings.agents.launch == "local" else ()

    async def _start_agents(self, devices: tuple[DeviceIdentity, ...], engine: SessionEngine, tasks: TaskGuard) -> None:
        settings = self.options.settings
        self.reconciliation.expect(self._to_reconcile({identity.id for identity in devices}, engine))
        for identity in devices:
            folder = self.options.state_dir / "agents" / identity.id
            text = agent_file_text(settings, agent_device(identity), state_dir=folder, uploads=self.uploads.folder)
            agent = LocalAgent(identity=identity, folder=folder, settings_toml=text)
            launcher = LocalAgentLauncher(agent, clock=self.clock)
            self.launches.append(tasks.spawn_eternal(launcher.keep_running(), name=f"keep agent {identity.id}"))
            self._replace_when_hung(identity.id, launcher, self._watch_local(identity, engine, tasks), tasks)
        if settings.agents.launch == "local":
            self._watch_forsaken({identity.id for identity in devices}, engine, tasks)
        else:
            absent = AbsentAgents(engine, self.agents, clock=self.waking, lost_after=lambda: self.lost_after)
            tasks.spawn_eternal(absent.watch(), name="absent agents")
        for address in settings.agents.addresses:
            target = address.format(state_dir=self.options.state_dir)
            tasks.spawn(self._find_external(target, engine, tasks), name=f"find agent {target}")

    def _to_reconcile(self, present: set[DeviceId], engine: SessionEngine) -> set[DeviceId]:
        """Tells whose agents are to be heard before anybody is served: those that have sessions, or run already."""
        with_sessions = {record.device_id for record in engine.live() if record.device_id}
        if self.options.settings.agents.launch != "local":
            return with_sessions
        folders = self.options.state_dir / "agents"
        # One that runs may have what nobody knows of. Nobody starts that of a device which is not here any more.
        running = {one for one in present | with_sessions if lock_owner(folders / one / "agent.lock") is not None}
        return with_sessions & present | running

    def _let_agents_go(self) -> None:
        """Starts no agent again from now on."""
        for launch in self.launches:
            launch.cancel()

    def _replace_when_hung(
        self, device_id: DeviceId, launcher: LocalAgentLauncher, watch: AgentWatch, tasks: TaskGuard
    ) -> None:
        agent = self.agents.get(device_id)
        assert agent is not None
        after = timedelta(seconds=self.options.settings.agents.replace_hung_after_s)
        replacing = replace_when_hung(device_id, launcher, heard=watch, agent=agent, after=after, clock=self.clock)
        self.launches.append(tasks.spawn_eternal(replacing, name=f"replace agent {device_id} when it hangs"))

    def _watch_local(self, identity: DeviceIdentity, engine: SessionEngine, tasks: TaskGuard) -> AgentWatch:
        self.registry.expect(identity)
        socket = self.options.state_dir / "agents" / identity.id / "agent.sock"
        return self._watch(identity, self._client(f"device {identity.id}", f"unix:{socket}"), engine, tasks)

    def _watch_forsaken(self, present: set[DeviceId], engine: SessionEngine, tasks: TaskGuard) -> None:
        """Watches devices that are here no longer, or no longer in the settings, but have sessions that live.

        Their agents may still run and tell how those end. They take no new session.
        """
        # Also those whose agents may yet be asked to complete what a waiting session has left open there.
        left = {one.device_id for record in engine.live() for one in record.ended_attempts[-1:]}
        for device_id in (left | {record.device_id for record in engine.live() if record.device_id}) - present:
            _log.warning("sessions live on a device that is not here any more", device=device_id)
            kind = DeviceKind.NVIDIA if device_id.startswith(("GPU-", "MIG-")) else DeviceKind.CPU
            identity = DeviceIdentity(id=device_id, kind=kind, model="not here any more")
            self._watch_local(identity, engine, tasks)
            self.registry.set_cordoned(device_id, cordoned=True)

    async def _find_external(self, target: str, engine: SessionEngine, tasks: TaskGuard) -> None:
        """Asks an agent that somebody else started which device it has, until it answers."""
        client = self._client(f"agent {target}", target)
        while True:
            try:
                report = await client.describe()
                break
            except AgentUnreachableError as error:
                _log.warning("agent does not answer; trying again", address=target, error=str(error))
                await asyncio.sleep(self.options.settings.agents.start_timeout_s / 4)
        self.registry.expect(report.identity)
        try:
            self._watch(report.identity, client, engine, tasks)
        except ValueError as error:
            _log.error("agent not used", address=target, error=str(error))
            await client.close()

    def _client(self, told: str, target: str) -> GrpcAgentClient:
        return GrpcAgentClient(told=told, target=target, resolve_input=self.uploads.resolve_input)

    def _watch(
        self, identity: DeviceIdentity, client: GrpcAgentClient, engine: SessionEngine, tasks: TaskGuard
    ) -> AgentWatch:
        self.agents.add(identity.id, client)
        watch = AgentWatch(
            identity.id,
            client,
            sessions=engine,
            news=self.foreign_load,
            clock=self.waking,
            lost_after=lambda: self.lost_after,
            on_reconciled=self.reconciliation.reconciled,
        )
        tasks.spawn_eternal(watch.run(), name=f"watch agent {identity.id}")
        return watch

    def _handle_signals(self, shutdown: Shutdown, reload: SettingsReload, tasks: TaskGuard) -> None:
        loop = asyncio.get_running_loop()

        def end() -> None:
            if self.options.stop_sessions_on_exit:
                tasks.spawn(shutdown.shutdown(stop_sessions=True), name="stop sessions")
            else:
                shutdown.wish()

        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, end)
        loop.add_signal_handler(
            signal.SIGHUP, lambda: tasks.spawn(reload.reload_or_log(), name="reload settings") and None
        )


def _foreign_kinds(settings: BalancerSettings) -> frozenset[DeviceKind]:
    return frozenset(DeviceKind(kind) for kind in settings.placement.foreign_load)
