"""Who is placed first, who may overtake whom, and for how long: the waiting line without an engine around it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta

from domain.devices import cpu, encode, gpu, ladder, workload
from hypothesis import given
from hypothesis import strategies as st

from balancer.domain.capacity import capacity_of_host
from balancer.domain.decision import Decision, PlacementSettings, Refusal
from balancer.domain.device import Dimension
from balancer.domain.ids import DeviceId, SessionId
from balancer.domain.ledger import Ledger
from balancer.domain.offers import Offers
from balancer.domain.placement import decide
from balancer.domain.policies import LeastWeightedLoad
from balancer.domain.queue import EndRate, QueueSettings, Waiting, WaitingLine, estimated_wait
from balancer.domain.session import Priority
from balancer.domain.workload import Workload

SETTINGS = QueueSettings(batch_ages_after=timedelta(seconds=600), keep_device_after=timedelta(seconds=60))
SMALL = workload(encode(360))
LARGE = workload(encode(1080), encode(720))


def waiter(name: str, *, asked: Workload = SMALL, priority: Priority = Priority.LIVE, since_s: float = 0.0) -> Waiting:
    return Waiting(session_id=SessionId(name), workload=asked, priority=priority, asked_s=since_s, waiting_s=since_s)


class House:
    """Two CPU devices, a line and a ledger; counts decisions."""

    def __init__(self, *cores: int) -> None:
        views = [cpu(count, f"cpu-{number}") for number, count in enumerate(cores)]
        self.ledger = Ledger()
        self.line = WaitingLine(SETTINGS)
        self.offers = Offers(views, PlacementSettings(), capacity_of_host(sum(cores)))
        self.decisions = 0

    def decide(self, waiting: Waiting, closed: Mapping[DeviceId, Refusal]) -> Decision:
        self.decisions += 1
        decision = decide(waiting.workload, self.offers, self.ledger, LeastWeightedLoad(), closed=closed)
        if decision.reservation is not None:
            self.ledger.book(waiting.session_id, decision.reservation)
        return decision

    def serve(self, now_s: float) -> list[str]:
        """Serves, and gives the devices of those who were placed, in order."""
        return [str(decision.device_id) for decision in self.line.serve(now_s, self.decide)]

    def fill(self, asked: Workload) -> int:
        """Places a shape until nothing takes it any more."""
        for count in range(1000):
            filler = waiter(f"filler-{count}", asked=asked)
            if self.decide(filler, {}).device_id is None:
                return count
        raise AssertionError("no end to it")


def test_live_goes_first_then_who_asked_first() -> None:
    line = WaitingLine(SETTINGS)
    for one in (
        waiter("b1", priority=Priority.BATCH, since_s=1),
        waiter("l2", since_s=3),
        waiter("l1", since_s=2),
        waiter("b0", priority=Priority.BATCH, since_s=0),
    ):
        line.add(one)
    assert [one.session_id for one in line.ordered(10)] == ["l1", "l2", "b0", "b1"]
    assert [one.session_id for one in line.ordered(600.5)] == ["b0", "l1", "l2", "b1"], "b0 has waited ten minutes"


def test_a_shape_that_was_refused_is_not_asked_for_again_in_the_same_round() -> None:
    house = House(2)
    house.fill(SMALL)
    for number in range(500):
        house.line.add(waiter(f"w{number}"))
    house.decisions = 0
    assert house.serve(1) == []
    assert house.decisions == 1


def test_who_fits_is_placed_past_those_who_do_not() -> None:
    house = House(4)
    house.ledger.book(SessionId("x"), house.decide(waiter("x", asked=LARGE), {}).reservation)  # type: ignore[arg-type]
    house.line.add(waiter("large", asked=LARGE))
    house.line.add(waiter("small", since_s=1))
    assert house.serve(2) == ["cpu-0"]
    assert [one.session_id for one in house.line] == ["large"]


def test_who_has_waited_long_gets_a_device_kept_and_then_its_room() -> None:
    house = House(4, 4)
    count = house.fill(SMALL)
    house.line.add(waiter("large", asked=LARGE))
    for number in range(20):
        house.line.add(waiter(f"small-{number}", since_s=number + 1))
    assert house.serve(61) == []
    kept = house.line.closed_to(None)
    assert len(kept) == 1
    [device_id] = kept
    assert "sessions/large" in kept[device_id].message
    assert house.line.closed_to(SessionId("large")) == {}
    placed: list[str] = []
    for number in range(count):
        house.ledger.release(SessionId(f"filler-{number}"))
        placed += house.serve(62)
        if "large" not in house.line:
            break
    assert house.ledger.reservation(SessionId("large")) is not None
    before_large = placed[: placed.index(device_id)] if device_id in placed else placed
    assert set(before_large) <= {"cpu-0", "cpu-1"} - {device_id}, "nobody else was placed where room was kept"
    assert house.line.closed_to(None) == {}


def test_a_device_stays_kept_while_it_may_help_and_another_is_found_when_it_cannot() -> None:
    house = House(4, 4)
    house.fill(SMALL)
    house.line.add(waiter("large", asked=LARGE))
    house.serve(61)
    [first] = house.line.closed_to(None)
    house.serve(62)
    assert list(house.line.closed_to(None)) == [first]
    others = [view for view in house.offers.views if view.id != first]
    house.offers = Offers(others, PlacementSettings(), capacity_of_host(8))
    house.serve(63)
    assert list(house.line.closed_to(None)) == [others[0].id]
    house.line.remove(SessionId("large"))
    assert house.line.closed_to(None) == {}


def test_waiting_for_what_no_device_can_do_keeps_no_device() -> None:
    house = House(1)
    house.line.add(waiter("huge", asked=workload(encode(size=(16000, 16000)))))
    house.serve(100)
    assert house.line.closed_to(None) == {}


def test_devices_that_a_session_could_not_begin_on_are_closed_to_it() -> None:
    house = House(8, 4)
    avoiding = Waiting(
        session_id=SessionId("a"),
        workload=SMALL,
        priority=Priority.LIVE,
        asked_s=0,
        waiting_s=0,
        avoided=frozenset({DeviceId("cpu-0")}),
    )
    house.line.add(avoiding)
    assert house.serve(1) == ["cpu-1"]


def test_what_batch_work_was_refused_is_still_asked_for_live_work() -> None:
    """Others may be stopped for it."""
    house = House(2)
    house.fill(SMALL)
    house.line.add(waiter("old", priority=Priority.BATCH))
    house.line.add(waiter("live", since_s=1))
    asked: list[str] = []

    def decide(waiting: Waiting, closed: Mapping[DeviceId, Refusal]) -> Decision:
        asked.append(waiting.session_id)
        return house.decide(waiting, closed)

    house.line.serve(700, decide)
    assert asked == ["old", "live"]


def test_where_the_host_is_short_all_devices_that_take_of_it_are_kept() -> None:
    """Two cards under one cap of encoder sessions: small sessions on the other card would keep it short for ever."""
    cards = [gpu("NVIDIA GeForce RTX 4090", f"GPU-{number}") for number in (1, 2)]
    house = House(2)
    house.offers = Offers(cards, PlacementSettings(), {Dimension.ENCODER_SESSIONS: 8})
    assert house.fill(SMALL) == 8
    house.line.add(waiter("four", asked=workload(encode(720), encode(480), encode(360), encode(360))))
    for second in range(61, 200):
        house.line.add(waiter(f"small-{second}", since_s=second))
        house.serve(second)
        if second % 10 == 0:
            house.ledger.release(next(iter(house.ledger.sessions(cards[second // 10 % 2].id)), SessionId("none")))
        if "four" not in house.line:
            break
    assert "four" not in house.line


@given(
    st.lists(
        st.tuples(st.booleans(), st.booleans(), st.integers(1, 30)),
        min_size=1,
        max_size=30,
    )
)
def test_everybody_is_served_in_the_end_however_many_small_live_ones_keep_coming(
    arrivals: list[tuple[bool, bool, int]],
) -> None:
    """A stream of small LIVE work that alone would fill the device; whoever came before its end is placed by then."""
    house = House(4)
    count = house.fill(SMALL)
    expected = set()
    for number, (large, batch, since_s) in enumerate(arrivals):
        name = f"w{number}"
        expected.add(name)
        house.line.add(
            waiter(
                name,
                asked=LARGE if large else SMALL,
                priority=Priority.BATCH if batch else Priority.LIVE,
                since_s=since_s,
            )
        )
    live = [f"filler-{number}" for number in range(count)]
    now_s, coming = 31.0, 0
    while expected & {one.session_id for one in house.line}:
        assert now_s < 3600, f"{len(expected & {one.session_id for one in house.line})} starve"
        now_s += 5
        coming += 1
        house.line.add(waiter(f"late-{coming}", since_s=now_s))
        house.ledger.release(SessionId(live.pop(0)))
        waiting = {one.session_id for one in house.line}
        house.serve(now_s)
        live += sorted(str(name) for name in waiting - {one.session_id for one in house.line})


def test_a_wait_is_estimated_from_ends_in_sight_else_from_how_often_sessions_end() -> None:
    remaining = [timedelta(seconds=90), timedelta(seconds=10)]
    assert estimated_wait(1, remaining=remaining, end_interval=None) == timedelta(seconds=10)
    assert estimated_wait(2, remaining=remaining, end_interval=None) == timedelta(seconds=90)
    assert estimated_wait(3, remaining=remaining, end_interval=timedelta(seconds=7)) == timedelta(seconds=21)
    assert estimated_wait(3, remaining=remaining, end_interval=None) is None


def test_the_rate_of_ends_counts_the_present_pause() -> None:
    rate = EndRate()
    rate.note(0)
    assert rate.interval(5) is None
    rate.note(10)
    assert rate.interval(10) == timedelta(seconds=5)
    assert rate.interval(40) == timedelta(seconds=20)


def test_a_line_of_ladders_is_served_as_room_comes_free() -> None:
    house = House(2)
    for number in range(3):
        house.line.add(waiter(f"w{number}", asked=ladder(), since_s=number))
    assert house.serve(10) == ["cpu-0"]
    house.ledger.release(SessionId("w0"))
    assert house.serve(11) == ["cpu-0"]
    assert [one.session_id for one in house.line] == ["w2"]
