"""What is about to be drawn is waited for while something is in motion, and only then."""

from __future__ import annotations

import pytest

from agents.displays.capture_pace import CapturePace


def patience(*, per_second: float = 30, new: list[bool]) -> float:
    """Tells how long is waited after pictures that showed something new or did not."""
    pace = CapturePace()
    for number, one in enumerate(new):
        pace.asked(number / per_second)
        pace.taken(new=one)
    return pace.asked(len(new) / per_second)


@pytest.mark.parametrize("per_second", [24, 30, 60])
def test_in_motion_it_waits_for_a_part_of_a_pictures_time(per_second: float) -> None:
    assert patience(per_second=per_second, new=[True] * 40) == pytest.approx(0.95 / per_second)


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
    assert patience(new=new) > 0


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
    assert patience(new=new) == 0


def test_one_late_question_does_not_make_it_more_patient() -> None:
    pace = CapturePace()
    for number in range(40):
        pace.asked(number / 30)
        pace.taken(new=True)
    assert pace.asked(45 / 30) == pytest.approx(0.95 / 30)


def test_who_catches_up_gets_no_picture_that_was_waited_for() -> None:
    pace = CapturePace()
    for number in range(40):
        pace.asked(number / 30)
        pace.taken(new=True)
    assert pace.asked(42.2 / 30) > 0
    pace.taken(new=True)
    assert [pace.asked(42.25 / 30), pace.asked(42.3 / 30)] == [0, 0]
    assert pace.asked(43 / 30) > 0
