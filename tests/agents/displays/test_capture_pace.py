"""What is about to be drawn is waited for while something is in motion, and only then."""

from __future__ import annotations

import pytest

from agents.displays.capture_pace import CapturePace


def follow(new: list[bool], *, per_second: float = 30, waited: float = 0, taking_s: float = 0) -> CapturePace:
    """Gives a pace that has seen pictures asked for in time.

    Args:
        new: Whether each showed something new.
        per_second: Pictures.
        waited: How long each was waited for, in shares of the time from one to the next.
        taking_s: How long it took to take each.
    """
    pace = CapturePace()
    for number, one in enumerate(new):
        pace.asked(number / per_second)
        from_s = (number + waited) / per_second
        pace.taken(new=one, from_s=from_s, until_s=from_s + taking_s)
    return pace


def patience(new: list[bool], *, per_second: float = 30, waited: float = 0, taking_s: float = 0) -> float:
    """Tells how long is waited after pictures that showed something new or did not."""
    pace = follow(new, per_second=per_second, waited=waited, taking_s=taking_s)
    return pace.asked(len(new) / per_second)


MOTION = [True] * 40


@pytest.mark.parametrize("per_second", [24, 30, 60])
def test_in_motion_it_waits_for_as_long_as_the_next_picture_keeps_its_place(per_second: float) -> None:
    assert patience(MOTION, per_second=per_second) == pytest.approx(1.75 / per_second)


def test_the_next_picture_keeps_its_place_also_where_taking_one_lasts_long() -> None:
    assert patience(MOTION, taking_s=0.004) == pytest.approx(1.75 / 30 - 0.008)
    assert patience(MOTION, taking_s=0.02) == pytest.approx(0.95 / 30)


def test_what_is_drawn_later_and_later_does_not_come_a_whole_picture_before_its_sound() -> None:
    assert patience(MOTION, waited=0.7) == pytest.approx(1.75 / 30)
    assert patience(MOTION, waited=0.8) == pytest.approx(0.95 / 30)


@pytest.mark.parametrize(
    "new",
    [
        pytest.param([True] * 16, id="as soon as that can be told"),
        pytest.param([True] * 30 + [False], id="a moment's lateness"),
        pytest.param([True] * 30 + [False] * 3, id="a machine that stands still for a tenth of a second"),
        pytest.param([True] * 30 + [False] * 2 + [True, False], id="and again right afterwards"),
        pytest.param([*([True] * 29), False] * 2, id="29 pictures a second in 30"),
    ],
)
def test_a_moments_lateness_does_not_make_it_less_patient(new: list[bool]) -> None:
    assert patience(new) > 0


@pytest.mark.parametrize(
    "new",
    [
        pytest.param([], id="the first picture"),
        pytest.param([True] * 15, id="too few to tell"),
        pytest.param([False] * 40, id="a page that rests"),
        pytest.param([True] * 14 + [False, True, False], id="two hangs are too many to begin with"),
        pytest.param([True] * 30 + [False] * 5, id="a page that comes to rest"),
        pytest.param([True] * 30 + [False, True] * 3, id="a browser that keeps half the pace"),
        pytest.param(([True] * 5 + [False]) * 10, id="25 pictures a second in 30"),
        pytest.param(([True] * 4 + [False]) * 10, id="24 pictures a second in 30"),
        pytest.param([number % 30 == 0 for number in range(90)], id="a flash a second"),
    ],
)
def test_otherwise_it_waits_for_nothing(new: list[bool]) -> None:
    assert patience(new) == 0


def test_who_was_held_up_by_the_picture_before_is_waited_for_until_the_same_moment() -> None:
    pace = follow(MOTION)
    assert pace.asked(40.5 / 30) == pytest.approx(1.25 / 30)
    pace.taken(new=True, from_s=41.4 / 30, until_s=41.4 / 30)
    assert pace.asked(41.4 / 30) == pytest.approx(1.35 / 30)


@pytest.mark.parametrize("late", [1.2, 2.2, 3.0])
def test_after_a_standstill_nothing_is_waited_for_until_the_next_picture_can_be_in_time(late: float) -> None:
    pace = follow(MOTION)
    now = 40 + late
    for due in range(40, 43):
        # Each has the place of its turn.
        assert pace.asked(now / 30) == pytest.approx(max(0.0, due + 1.75 - now) / 30, abs=1e-9)
        pace.taken(new=True, from_s=now / 30, until_s=now / 30)
        now = max(due + 1, now + 0.1)


def test_what_will_be_left_out_is_not_waited_for() -> None:
    pace = follow(MOTION)
    # The one due at 40 comes to the place of 45, where those of 41 to 45 are left out.
    assert pace.asked(45.2 / 30) == pytest.approx(1.55 / 30)
    pace.taken(new=True, from_s=45.2 / 30, until_s=45.2 / 30)
    for number in range(41, 46):
        late_s = (45.2 + 0.02 * (number - 40)) / 30
        assert pace.asked(late_s) == 0
        pace.taken(new=False, from_s=late_s, until_s=late_s)
    assert pace.asked(46 / 30) == pytest.approx(1.75 / 30)


def test_who_is_late_for_good_is_in_time_by_a_clock_of_its_own() -> None:
    pace = follow(MOTION)
    for number in range(40, 45):
        waited_s = pace.asked((number + 0.5) / 30)
        pace.taken(new=True, from_s=(number + 0.5) / 30, until_s=(number + 0.5) / 30)
    assert waited_s == pytest.approx(1.75 / 30)


def test_who_is_late_for_more_than_a_second_begins_anew() -> None:
    pace = follow(MOTION)
    late_s = (40 + 150) / 30
    for number in range(150):
        pace.asked(late_s + number / 1000)
        pace.taken(new=True, from_s=late_s, until_s=late_s)
    for number in range(196, 240):
        waited_s = pace.asked(number / 30)
        pace.taken(new=True, from_s=number / 30, until_s=number / 30)
    assert waited_s == pytest.approx(1.75 / 30)
