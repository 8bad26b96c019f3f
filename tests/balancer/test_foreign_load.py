"""What others take of devices: when it is booked, how calmly, and when it is given up again."""

from __future__ import annotations

import pytest

from balancer.device_registry import DeviceRegistry
from balancer.domain.decision import Reservation
from balancer.domain.device import DeviceIdentity, DeviceKind, DeviceState, Dimension, Utilization
from balancer.domain.ids import DeviceId, SessionId
from balancer.domain.ledger import Ledger
from balancer.foreign_load import ForeignLoad
from balancer.ports.agent_client import AgentReport, Measurements

L4 = DeviceIdentity(
    id=DeviceId("GPU-1"),
    kind=DeviceKind.NVIDIA,
    model="NVIDIA L4",
    memory_total_mib=20_000,
    encoder_engines=2,
    decoder_engines=4,
    table_model="L4",
)
CPU = DeviceIdentity(id=DeviceId("cpu-0"), kind=DeviceKind.CPU, model="a processor", cores=(0, 1, 2, 3))
BUSY = Measurements(
    foreign_encoder_sessions=2,
    foreign_encoder_utilization_percent=30,
    foreign_decoder_utilization_percent=12,
    foreign_memory_used_mib=500,
)


def report(identity: DeviceIdentity, *, fault: str = "") -> AgentReport:
    return AgentReport(
        incarnation="one",
        version="0",
        process_id=1,
        identity=identity,
        ffmpeg_builds=(),
        capabilities=(),
        probed=True,
        fault_message=fault,
        last_event_number=0,
    )


class House:
    """A registry with a GPU and a CPU device, a ledger, and what stands between."""

    def __init__(self, *kinds: DeviceKind) -> None:
        self.registry = DeviceRegistry()
        self.ledger = Ledger()
        self.changes = 0
        self.ledger.listen(self.note)
        self.told: list[tuple[DeviceId, Utilization]] = []
        self.load = ForeignLoad(
            self.registry,
            self.registry,
            self.ledger,
            kinds=kinds or (DeviceKind.NVIDIA,),
            on_measured=lambda device_id, utilization: self.told.append((device_id, utilization)),
        )
        for identity in (L4, CPU):
            self.registry.expect(identity)
            self.load.update_agent(report(identity))

    def note(self, _: DeviceId) -> None:
        self.changes += 1

    def measure(self, *measurements: Measurements, of: DeviceIdentity = L4) -> dict[Dimension, int]:
        for one in measurements:
            self.load.update_measurements(of.id, one)
        return dict(self.ledger.foreign(of.id))


def test_what_others_take_is_booked_in_the_units_of_the_ledger() -> None:
    house = House()
    assert house.measure(BUSY, BUSY, BUSY) == {
        Dimension.ENCODER_SESSIONS: 2,
        Dimension.ENCODE: 600_000,
        Dimension.DECODE: 600_000,
        Dimension.MEMORY: 512,
    }
    assert house.ledger.used(L4.id) == house.ledger.foreign(L4.id)


def test_a_session_that_shows_for_a_moment_as_somebody_else_s_is_not_booked() -> None:
    house = House()
    calm = Measurements(
        foreign_encoder_sessions=0,
        foreign_encoder_utilization_percent=0,
        foreign_decoder_utilization_percent=0,
        foreign_memory_used_mib=0,
    )
    assert house.measure(BUSY, BUSY, calm, BUSY, BUSY, calm) == {}
    assert house.changes == 0


def test_a_fall_counts_at_once() -> None:
    house = House()
    house.measure(BUSY, BUSY, BUSY)
    less = Measurements(
        foreign_encoder_sessions=1,
        foreign_encoder_utilization_percent=0,
        foreign_decoder_utilization_percent=5,
        foreign_memory_used_mib=100,
    )
    assert house.measure(less) == {Dimension.ENCODER_SESSIONS: 1, Dimension.DECODE: 200_000, Dimension.MEMORY: 128}


def test_small_changes_leave_the_ledger_alone() -> None:
    house = House()
    for percent in (31, 33, 32, 34, 31, 33, 35, 34, 32, 33) * 5:
        house.measure(Measurements(foreign_encoder_utilization_percent=percent, foreign_memory_used_mib=percent + 70))
    assert house.ledger.foreign(L4.id) == {Dimension.ENCODE: 700_000, Dimension.MEMORY: 128}
    assert house.changes == 1


def test_encoder_sessions_that_nobody_tells_apart_are_those_that_are_not_booked() -> None:
    """Memory is not guessed: what a session really takes of it is not known so well."""
    house = House()
    booked = Reservation(
        device_id=L4.id,
        device_amounts={Dimension.ENCODER_SESSIONS: 3},
        host_amounts={},
        cost_pixels_per_second=1,
    )
    house.ledger.book(SessionId("one"), booked)
    total = Measurements(encoder_sessions=5, memory_used_mib=9000)
    assert house.measure(total, total, total) == {Dimension.ENCODER_SESSIONS: 2}
    assert house.measure(Measurements(encoder_sessions=2)) == {}


def test_what_is_not_told_for_a_moment_is_remembered_and_then_forgotten() -> None:
    house = House()
    before = house.measure(BUSY, BUSY, BUSY)
    assert house.measure(*[Measurements()] * 4) == before
    assert house.measure(BUSY) == before
    assert house.measure(*[Measurements()] * 5) == {}


@pytest.mark.parametrize("what", ["silence", "fault"])
def test_nothing_is_known_of_a_device_that_is_not_measured_any_more(what: str) -> None:
    house = House()
    house.measure(BUSY, BUSY, BUSY)
    if what == "silence":
        house.load.mark_unreachable(L4.id, "Its agent is silent.")
    else:
        house.load.update_agent(report(L4, fault="It fell off the bus."))
    assert house.ledger.foreign(L4.id) == {}
    house.load.mark_reachable(L4.id)
    assert house.measure(BUSY, BUSY) == {}


def test_cores_are_booked_only_where_the_settings_say_so_and_at_once_when_they_do_not() -> None:
    busy = Measurements(foreign_compute_utilization_percent=50)
    house = House()
    assert house.measure(busy, busy, busy, of=CPU) == {}
    house.load.use([DeviceKind.NVIDIA, DeviceKind.CPU])
    assert house.measure(busy, busy, busy, of=CPU) == {Dimension.CORES: 2_000_000}
    house.measure(BUSY, BUSY, BUSY)
    house.load.use([DeviceKind.NVIDIA])
    assert house.ledger.foreign(CPU.id) == {}
    assert house.ledger.foreign(L4.id) != {}


def test_everything_is_handed_on_and_utilization_is_told() -> None:
    house = House()
    measured = Measurements(encoder_utilization_percent=40, memory_used_mib=5_000)
    house.measure(measured)
    entry = house.registry.get(L4.id)
    assert entry is not None
    assert entry.measurements is measured
    assert house.told == [(L4.id, Utilization(encoder_percent=40, memory_percent=25))]
    house.load.mark_unreachable(L4.id, "Its agent is silent.")
    entry = house.registry.get(L4.id)
    assert entry is not None
    assert entry.state is DeviceState.UNREACHABLE
