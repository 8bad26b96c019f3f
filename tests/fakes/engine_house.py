"""An engine with everything around it faked, or real where a test asks for it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from types import MappingProxyType

from balancer.admission import Admission
from balancer.agent_watch import AgentWatch
from balancer.device_registry import DeviceRegistry
from balancer.domain.decision import PlacementSettings
from balancer.domain.device import DeviceView, Dimension
from balancer.domain.ids import DeviceId
from balancer.domain.ledger import Ledger
from balancer.domain.policies import LeastWeightedLoad, Policy
from balancer.domain.queue import QueueSettings
from balancer.domain.session import Priority, SessionRecord
from balancer.domain.workload import Workload
from balancer.placer import PlacementRules
from balancer.ports.session_store import SessionStore
from balancer.session_engine import EngineSettings, SessionEngine
from fakes.agent_client import FakeAgentClient
from fakes.device_news import FakeDeviceNews
from fakes.device_views import device_view
from fakes.session_observer import FakeSessionObserver
from fakes.session_records import LADDER
from fakes.virtual_time import VirtualClock
from gpu_balancer.runtime.clock import Clock
from gpu_balancer.runtime.task_guard import TaskGuard

_NO_HOST_LIMITS = MappingProxyType({})


def admission(
    request_id: str | None = None, *, digest: str = "digest", workload: Workload = LADDER, **labels: str
) -> Admission:
    """Asks for a ladder."""
    return Admission(
        payload=b"what the client said",
        workload=workload,
        priority=Priority.LIVE,
        labels=labels,
        request_id=request_id,
        request_digest=digest if request_id else None,
    )


@dataclass
class EngineHouse:
    """The engine and what is around it."""

    engine: SessionEngine
    store: SessionStore
    agents: dict[DeviceId, FakeAgentClient]
    devices: FakeDeviceNews | DeviceRegistry
    observer: FakeSessionObserver
    clock: Clock
    tasks: TaskGuard

    @property
    def agent(self) -> FakeAgentClient:
        """The first device's agent."""
        return next(iter(self.agents.values()))

    async def admit(self, request_id: str | None = None, **labels: str) -> SessionRecord:
        return await self.engine.admit(admission(request_id, **labels))

    def watch(self, device_id: DeviceId | None = None, *, lost_after: timedelta | None = None) -> AgentWatch:
        """Watches a device's agent until the house is left."""
        agent = self.agents[device_id] if device_id else self.agent
        watch = AgentWatch(
            agent.device_id,
            agent,
            sessions=self.engine,
            news=self.devices,
            clock=self.clock,
            lost_after=lambda: lost_after,
        )
        self.tasks.spawn_eternal(watch.run(), name=f"watch {agent.device_id}")
        return watch


@asynccontextmanager
async def engine_house(
    store: SessionStore,
    *views: DeviceView,
    agents: dict[DeviceId, FakeAgentClient] | None = None,
    settings: EngineSettings | None = None,
    policy: Policy | None = None,
    queue: QueueSettings | None = None,
    registry: DeviceRegistry | None = None,
    host_capacity: Mapping[Dimension, int] = _NO_HOST_LIMITS,
    clock: Clock | None = None,
) -> AsyncIterator[EngineHouse]:
    """Starts an engine; leaving kills it as it is: only what is durable survives.

    Args:
        store: Where sessions are kept; closed at the end.
        views: The devices. None given: one that is hardly ever full.
        agents: Agents that live on from a house before. None: new ones.
        settings: The engine's.
        policy: Who chooses.
        queue: The queue's settings.
        registry: A real one, to be told of the devices by their agents. None: a fake, where tests set devices.
        host_capacity: What the host has. An absent dimension is not limited.
        clock: The time. None: virtual, and never set.
    """
    views = views or (device_view(),)
    agents = agents if agents is not None else {view.id: FakeAgentClient(view.id) for view in views}
    devices = registry if registry is not None else FakeDeviceNews(*views)
    observer = FakeSessionObserver()
    clock = clock or VirtualClock()
    try:
        async with TaskGuard("test") as tasks:
            engine = SessionEngine(
                store=store,
                agents=agents,
                devices=devices,
                rules=PlacementRules(
                    policy=policy or LeastWeightedLoad(),
                    settings=PlacementSettings(),
                    host_capacity=host_capacity,
                    queue=queue or QueueSettings(),
                ),
                clock=clock,
                tasks=tasks,
                settings=settings or EngineSettings(),
                observer=observer,
            )
            await engine.start()
            yield EngineHouse(
                engine=engine,
                store=store,
                agents=agents,
                devices=devices,
                observer=observer,
                clock=clock,
                tasks=tasks,
            )
    finally:
        await store.close()


def rebuilt_ledger(records: list[SessionRecord]) -> Ledger:
    """Makes the ledger that sessions add up to."""
    ledger = Ledger()
    for record in records:
        if record.reservation is not None:
            ledger.book(record.id, record.reservation)
    return ledger


def same_ledger(one: Ledger, other: Ledger, device_ids: list[DeviceId]) -> bool:
    """Whether two ledgers say the same of some devices and the host."""
    return dict(one.host_used()) == dict(other.host_used()) and all(
        dict(one.used(device_id)) == dict(other.used(device_id))
        and one.cost(device_id) == other.cost(device_id)
        and one.session_count(device_id) == other.session_count(device_id)
        for device_id in device_ids
    )
