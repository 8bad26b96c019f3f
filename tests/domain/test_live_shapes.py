"""Which shapes of live sessions matter most."""

from __future__ import annotations

from domain.devices import encode, workload

from balancer.domain.decision import PlacementSettings
from balancer.domain.demand import nominal_cost
from balancer.domain.ids import SessionId
from balancer.domain.policies.live_shapes import SHAPES_LOOKED_AT, LiveShapes
from balancer.domain.workload import CostFactors, VideoCodec, Workload

SMALL, LARGE = workload(encode(360)), workload(encode(2160))


def cost(shape: Workload) -> int:
    return nominal_cost(shape, CostFactors())


def shapes_of(*placed: Workload) -> LiveShapes:
    shapes = LiveShapes()
    for number, shape in enumerate(placed):
        shapes.on_session_placed(SessionId(str(number)), shape)
    return shapes


def test_shapes_matter_by_what_all_their_sessions_cost_and_the_larger_the_more() -> None:
    assert LiveShapes().largest() == ()
    shapes = shapes_of(SMALL, LARGE, SMALL)
    assert shapes.largest() == ((LARGE, cost(LARGE)), (SMALL, cost(SMALL)))
    shapes.on_session_ended(SessionId("1"))
    shapes.on_session_ended(SessionId("unknown"))
    assert shapes.largest() == ((SMALL, cost(SMALL)),)


def test_many_small_sessions_that_cost_as_much_together_matter_less_than_a_large_one() -> None:
    as_much = cost(LARGE) // cost(SMALL)
    assert [shape for shape, _ in shapes_of(*[SMALL] * (as_much + 1), LARGE).largest()] == [LARGE, SMALL]


def test_a_session_that_is_told_again_counts_once_as_what_it_is_now() -> None:
    shapes = shapes_of(SMALL)
    shapes.on_session_placed(SessionId("0"), SMALL)
    assert shapes.largest() == ((SMALL, cost(SMALL)),)
    shapes.on_session_placed(SessionId("0"), LARGE)
    assert shapes.largest() == ((LARGE, cost(LARGE)),)
    shapes.on_session_placed(SessionId("0"), workload(encode(2160), real_time=False))
    assert shapes.largest() == ()


def test_files_give_way_and_keep_no_place() -> None:
    assert shapes_of(workload(encode(2160), real_time=False)).largest() == ()


def test_factors_change_what_shapes_cost() -> None:
    shapes = shapes_of(LARGE)
    before = shapes.largest()
    shapes.on_settings(PlacementSettings(factors=CostFactors(encode=50)))
    assert shapes.largest()[0][1] > before[0][1]


def test_few_of_very_many_shapes_are_looked_at_and_found_again_now_and_then() -> None:
    different = [workload(encode(size=(64, 64 + 2 * number))) for number in range(500)]
    shapes = shapes_of(*different)
    assert len(shapes.largest()) == SHAPES_LOOKED_AT
    shapes.on_session_placed(SessionId("large"), LARGE)
    for _ in range(len(different) // 8):
        shapes.on_session_placed(SessionId("small"), SMALL)
        shapes.on_session_ended(SessionId("small"))
    assert shapes.largest()[0] == (LARGE, cost(LARGE))


def test_of_shapes_that_matter_alike_the_same_are_looked_at_whoever_came_first() -> None:
    alike = [workload(encode(720, codec=codec, bit_depth=depth)) for codec in VideoCodec for depth in (8, 10)]
    assert len(alike) > SHAPES_LOOKED_AT
    assert shapes_of(LARGE, *alike).largest() == shapes_of(*reversed(alike), LARGE).largest()


def test_having_been_asked_changes_nothing_however_many_shapes_there_are() -> None:
    asked, never_asked = LiveShapes(), LiveShapes()
    for number in range(400):
        for shapes in (asked, never_asked):
            shapes.on_session_placed(SessionId(str(number)), workload(encode(size=(64, 64 + 2 * number))))
            shapes.on_session_ended(SessionId(str(number - 300)))
        asked.largest()
    assert asked.largest() == never_asked.largest()
