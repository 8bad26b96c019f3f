"""Whom to stop for live work."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from fractions import Fraction

from domain.devices import cpu, encode, gpu, ladder, workload
from hypothesis import given
from hypothesis import strategies as st

from balancer.domain.capacity import CapacityOverride, capacity_of_host
from balancer.domain.decision import Decision, PlacementSettings, Refusal
from balancer.domain.device import DeviceView
from balancer.domain.ids import DeviceId, SessionId
from balancer.domain.ledger import Ledger
from balancer.domain.offers import Offers
from balancer.domain.placement import decide
from balancer.domain.policies import LeastWeightedLoad
from balancer.domain.preemption import Victim, closed_but, make_room
from balancer.domain.workload import Workload

FILE = workload(encode(480), real_time=False, reserved_speed=Fraction(1))
LIVE = ladder()


class House:
    """Devices full of files, and what is found for live work."""

    def __init__(self, *views: DeviceView, host_cores: int = 64) -> None:
        self.ledger = Ledger()
        self.offers = Offers(views, PlacementSettings(), capacity_of_host(host_cores))
        self.victims: list[Victim] = []

    def decide(self, asked: Workload, closed: Mapping[DeviceId, Refusal] | None = None) -> Decision:
        return decide(asked, self.offers, self.ledger, LeastWeightedLoad(), closed=closed or {})

    def place(self, name: str, asked: Workload, *, done_s: int | None = None) -> bool:
        decision = self.decide(asked)
        if decision.reservation is None:
            return False
        self.ledger.book(SessionId(name), decision.reservation)
        if done_s is not None:
            self.victims.append(
                Victim(
                    session_id=SessionId(name),
                    device_id=decision.reservation.device_id,
                    done=timedelta(seconds=done_s),
                )
            )
        return True

    def room(self, asked: Workload = LIVE) -> Decision | None:
        refused = self.decide(asked)
        assert refused.device_id is None
        return make_room(
            refused,
            self.victims,
            self.ledger,
            lambda device_id: self.decide(asked, closed_but(device_id, refused)).device_id is not None,
            lambda closed: self.decide(asked, closed),
        )


def test_those_that_have_done_least_are_stopped_and_no_more_than_must_be() -> None:
    house = House(cpu(2))
    count = 0
    while house.place(f"f{count}", FILE, done_s=100 - count):
        count += 1
    room = house.room()
    assert room is not None
    assert room.device_id == "cpu-0"
    assert list(room.preempted) == [f"f{number}" for number in range(count - 1, count - 1 - len(room.preempted), -1)]
    for name in room.preempted[:-1]:
        house.ledger.release(name)
    assert house.decide(LIVE).device_id is None, "one less would not do"
    house.ledger.release(room.preempted[-1])
    assert house.decide(LIVE).device_id == "cpu-0"


def test_the_device_where_least_work_is_lost_is_chosen() -> None:
    house = House(cpu(2, "cpu-0"), cpu(2, "cpu-1"))
    number = 0
    while house.place(f"f{number}", FILE, done_s=10 if number % 2 else 1000):
        number += 1
    room = house.room()
    assert room is not None
    assert room.device_id == "cpu-1"


def test_nobody_is_stopped_where_that_does_not_help() -> None:
    house = House(cpu(2))
    assert house.place("live", LIVE)
    while house.place(f"f{len(house.victims)}", FILE, done_s=1):
        pass
    assert house.victims
    assert house.room() is None


def test_two_that_come_together_both_get_room_though_their_devices_share_the_cores_of_the_host() -> None:
    house = House(cpu(2, "cpu-0"), cpu(2, "cpu-1"), host_cores=4)
    while house.place(f"f{len(house.victims)}", FILE, done_s=1):
        pass
    first = house.room()
    assert first is not None
    assert first.reservation is not None
    # Its room is kept over those who are being stopped for it.
    house.ledger.book(SessionId("first"), first.reservation)
    house.victims = [replace(one, ending=one.session_id in first.preempted) for one in house.victims]
    second = house.room()
    assert second is not None
    assert second.device_id != first.device_id
    assert second.preempted
    assert not set(second.preempted) & set(first.preempted)


def test_a_device_that_can_never_do_it_is_not_emptied_for_it() -> None:
    house = House(gpu("NVIDIA L4", "GPU-1", capabilities=(), override=CapacityOverride(encoder_sessions=1)))
    house.victims.append(Victim(session_id=SessionId("x"), device_id=DeviceId("GPU-1"), done=timedelta()))
    assert house.room() is None


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 500)), max_size=12))
def test_the_ledger_is_as_it_was_and_whom_it_names_makes_room(files: list[tuple[bool, int]]) -> None:
    house = House(cpu(3, "cpu-0"), cpu(2, "cpu-1"))
    for number, (preemptible, done_s) in enumerate(files):
        house.place(f"f{number}", FILE, done_s=done_s if preemptible else None)
    while house.place(f"rest{len(files)}", FILE):
        files.append((False, 0))
    if house.decide(LIVE).device_id is not None:
        return
    before = {view.id: dict(house.ledger.used(view.id)) for view in house.offers.views}
    sessions = {view.id: set(house.ledger.sessions(view.id)) for view in house.offers.views}
    room = house.room()
    assert {view.id: dict(house.ledger.used(view.id)) for view in house.offers.views} == before
    assert {view.id: set(house.ledger.sessions(view.id)) for view in house.offers.views} == sessions
    if room is not None:
        assert set(room.preempted) <= {victim.session_id for victim in house.victims}
        for name in room.preempted:
            house.ledger.release(name)
        assert house.decide(LIVE).device_id is not None
