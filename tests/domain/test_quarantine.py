"""When a device is put aside, and when it comes back."""

from __future__ import annotations

from datetime import timedelta

import pytest

from balancer.domain.ids import DeviceId
from balancer.domain.quarantine import Breaker, QuarantineSettings
from balancer.domain.session_cap import SessionCap, after_refusal

A, B = DeviceId("GPU-a"), DeviceId("GPU-b")
SETTINGS = QuarantineSettings(
    failures=2,
    within=timedelta(seconds=600),
    first_pause=timedelta(seconds=30),
    longest_pause=timedelta(seconds=100),
)


@pytest.fixture
def breaker() -> Breaker:
    return Breaker(SETTINGS)


def test_two_failures_in_a_row_put_a_device_aside_and_its_probe_is_due_at_once(breaker: Breaker) -> None:
    assert breaker.failed(A, 10, "lost") is None
    quarantine = breaker.failed(A, 11, "lost again")
    assert quarantine is not None
    assert (quarantine.failure_count, quarantine.probe_s, quarantine.message) == (2, 11, "lost again")
    assert breaker.quarantine(A) == quarantine
    assert breaker.quarantine(B) is None


def test_a_success_between_two_failures_clears_the_first(breaker: Breaker) -> None:
    breaker.failed(A, 10, "lost")
    breaker.succeeded(A)
    assert breaker.failed(A, 11, "lost") is None


def test_failures_far_apart_do_not_count_together(breaker: Breaker) -> None:
    breaker.failed(A, 0, "lost")
    assert breaker.failed(A, 601, "lost") is None
    assert breaker.failed(A, 602, "lost") is not None


def test_failures_of_what_still_ran_change_nothing_once_it_is_aside(breaker: Breaker) -> None:
    breaker.failed(A, 0, "lost")
    first = breaker.failed(A, 1, "lost")
    assert breaker.failed(A, 2, "lost") is None
    breaker.succeeded(A)
    assert breaker.quarantine(A) == first


def test_after_a_probe_one_failure_is_enough_and_pauses_double_up_to_the_longest(breaker: Breaker) -> None:
    breaker.failed(A, 0, "lost")
    breaker.failed(A, 0, "lost")
    pauses = []
    for _ in range(4):
        breaker.probe_passed(A)
        assert breaker.quarantine(A) is None
        again = breaker.failed(A, 1000, "lost")
        assert again is not None
        pauses.append(again.probe_s - 1000)
    assert pauses == [30, 60, 100, 100]


def test_a_probe_that_fails_waits_for_the_next_pause(breaker: Breaker) -> None:
    breaker.failed(A, 0, "lost")
    breaker.failed(A, 0, "lost")
    first = breaker.probe_failed(A, 1, "still lost")
    second = breaker.probe_failed(A, 31, "still lost")
    assert first is not None
    assert second is not None
    assert (first.probe_s, second.probe_s, second.message) == (31, 91, "still lost")
    assert breaker.probe_failed(B, 1, "never aside") is None


def test_a_device_that_works_again_begins_with_a_clean_record(breaker: Breaker) -> None:
    breaker.failed(A, 0, "lost")
    breaker.failed(A, 0, "lost")
    breaker.probe_passed(A)
    breaker.succeeded(A)
    assert breaker.failed(A, 1000, "lost") is None


def test_a_device_that_fails_for_years_has_a_pause_still(breaker: Breaker) -> None:
    breaker.failed(A, 0, "lost")
    breaker.failed(A, 0, "lost")
    for _ in range(5000):
        quarantine = breaker.probe_failed(A, 0, "lost")
    assert quarantine is not None
    assert quarantine.probe_s == 100


# ------------------------------------------------------------------------------------------------- encoder sessions


def test_a_refusal_bounds_the_cap_from_above_and_further_ones_only_lower_it() -> None:
    known = after_refusal(None, driver_version="570", open_count=4, asked_count=3)
    assert known == SessionCap(driver_version="570", most=6)
    assert after_refusal(known, driver_version="570", open_count=9, asked_count=3) == known
    assert after_refusal(known, driver_version="570", open_count=5, asked_count=1).most == 5


def test_another_driver_begins_anew_and_no_cap_is_below_one() -> None:
    known = SessionCap(driver_version="570", most=3)
    assert after_refusal(known, driver_version="610", open_count=8, asked_count=1).most == 8
    assert after_refusal(None, driver_version="570", open_count=0, asked_count=1).most == 1


def test_more_open_than_the_cap_says_shows_that_it_was_wrong() -> None:
    known = SessionCap(driver_version="570", most=3)
    assert known.after_open(3) is known
    assert known.after_open(4) is None
