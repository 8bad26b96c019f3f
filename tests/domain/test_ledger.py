"""The ledger is exact: nothing remains of what was given back."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from balancer.domain.device import Dimension
from balancer.domain.ids import DeviceId, SessionId
from balancer.domain.ledger import Ledger
from balancer.domain.placement import Reservation

A, B = DeviceId("GPU-a"), DeviceId("GPU-b")
FIRST, SECOND = SessionId("first"), SessionId("second")


def reservation(
    device_id: DeviceId, cost: int, device: dict[Dimension, int], host: dict[Dimension, int] | None = None
) -> Reservation:
    """Makes a reservation."""
    return Reservation(device_id=device_id, cost_pixels_per_second=cost, device_amounts=device, host_amounts=host or {})


def test_a_device_carries_the_sum_of_its_sessions() -> None:
    ledger = Ledger()
    ledger.book(FIRST, reservation(A, 100, {Dimension.ENCODE: 5, Dimension.SCALE: 1}, {Dimension.CORES: 3}))
    ledger.book(SECOND, reservation(A, 11, {Dimension.ENCODE: 7}, {Dimension.CORES: 4}))
    assert ledger.used(A) == {Dimension.ENCODE: 12, Dimension.SCALE: 1}
    assert ledger.host_used() == {Dimension.CORES: 7}
    assert ledger.cost(A) == 111
    assert ledger.session_count(A) == 2
    assert ledger.used(B) == {}
    assert (ledger.cost(B), ledger.session_count(B)) == (0, 0)


def test_booking_a_session_again_moves_it() -> None:
    """A session is in one place; an engine that repeats itself must not fill a device."""
    ledger = Ledger()
    ledger.book(FIRST, reservation(A, 100, {Dimension.ENCODE: 5}))
    ledger.book(FIRST, reservation(B, 50, {Dimension.ENCODE: 4}))
    assert (ledger.cost(A), ledger.session_count(A), dict(ledger.used(A))) == (0, 0, {})
    assert (ledger.cost(B), ledger.session_count(B), dict(ledger.used(B))) == (50, 1, {Dimension.ENCODE: 4})


def test_releasing_tells_what_was_booked_and_twice_does_nothing() -> None:
    ledger = Ledger()
    booked = reservation(A, 100, {Dimension.ENCODE: 5})
    ledger.book(FIRST, booked)
    assert ledger.reservation(FIRST) is booked
    assert ledger.release(FIRST) is booked
    assert ledger.release(FIRST) is None
    assert ledger.reservation(FIRST) is None
    assert vars(ledger) == vars(Ledger())


device_ids = st.sampled_from([A, B, DeviceId("cpu-0")])
amounts = st.dictionaries(st.sampled_from(list(Dimension)), st.integers(0, 10**12))
reservations = st.builds(
    Reservation,
    device_id=device_ids,
    cost_pixels_per_second=st.integers(0, 10**12),
    device_amounts=amounts,
    host_amounts=amounts,
    firm_device_amounts=st.none() | amounts,
    firm_host_amounts=st.none() | amounts,
)
session_ids = st.integers(0, 9).map(lambda number: SessionId(f"s-{number}"))


class LedgerAgainstModel(RuleBasedStateMachine):
    """Compares the ledger's kept sums with sums taken anew from a plain map."""

    def __init__(self) -> None:
        super().__init__()
        self.ledger = Ledger()
        self.model: dict[SessionId, Reservation] = {}
        self.foreign: dict[DeviceId, dict[Dimension, int]] = {}

    @rule(session_id=session_ids, booked=reservations)
    def book(self, session_id: SessionId, booked: Reservation) -> None:
        self.ledger.book(session_id, booked)
        self.model.pop(session_id, None)
        self.model[session_id] = booked

    @rule(session_id=session_ids)
    def release(self, session_id: SessionId) -> None:
        assert self.ledger.release(session_id) == self.model.pop(session_id, None)

    @rule(device_id=device_ids, taken=amounts)
    def others_take(self, device_id: DeviceId, taken: dict[Dimension, int]) -> None:
        self.ledger.set_foreign(device_id, taken)
        self.foreign[device_id] = taken

    @invariant()
    def sums_are_those_of_the_reservations(self) -> None:
        for device_id in (A, B, DeviceId("cpu-0")):
            here = [booked for booked in self.model.values() if booked.device_id == device_id]
            assert self.ledger.session_count(device_id) == len(here)
            assert self.ledger.cost(device_id) == sum(booked.cost_pixels_per_second for booked in here)
            for dimension in Dimension:
                total = sum(booked.device_amounts.get(dimension, 0) for booked in here)
                others = self.foreign.get(device_id, {}).get(dimension, 0)
                assert self.ledger.used(device_id).get(dimension, 0) == total + others
                yielding = sum(
                    booked.device_amounts[dimension] - booked.firm_device_amounts.get(dimension, 0)
                    for booked in here
                    if booked.firm_device_amounts is not None and dimension in booked.device_amounts
                )
                assert self.ledger.yielding(device_id).get(dimension, 0) == yielding
            assert list(self.ledger.sessions(device_id)) == [
                session_id for session_id, booked in self.model.items() if booked.device_id == device_id
            ]
        for dimension in Dimension:
            total = sum(booked.host_amounts.get(dimension, 0) for booked in self.model.values())
            assert self.ledger.host_used().get(dimension, 0) == total

    def teardown(self) -> None:
        for session_id in tuple(self.model):
            self.ledger.release(session_id)
        for device_id in self.foreign:
            self.ledger.set_foreign(device_id, {})
        assert vars(self.ledger) == vars(Ledger())


TestLedgerAgainstModel = LedgerAgainstModel.TestCase
TestLedgerAgainstModel.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
