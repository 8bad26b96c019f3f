"""What each thing that happens makes of a card's health: cell by cell."""

from __future__ import annotations

import math
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from agents.health.device_health import HEALTHY, DeviceHealth, Engine, HealthState
from agents.health.reading import SETTLING_LOOKS, DriverError, Reading
from agents.health.record import (
    HealthRecord,
    Moment,
    Probed,
    after_probe,
    after_reading,
    after_silence,
    after_xid,
    health_of,
)

NEW = HealthRecord()
FINE = Reading(recovery_action=0, uncorrected_errors=0, clock_reasons=0, temperature_celsius=50)
BOTH = frozenset({Engine.DECODE, Engine.ENCODE})
START = datetime(2030, 1, 1, tzinfo=UTC)


def at(seconds: float) -> Moment:
    """So long after the start."""
    return Moment(time=START + timedelta(seconds=seconds), monotonic_s=seconds)


def told(health: DeviceHealth) -> tuple[str, str]:
    """State and reason."""
    return health.state.value, health.reason


def passed(begin_s: float, *, by_operator: bool = False, engines: frozenset[Engine] = BOTH) -> Probed:
    """A golden probe that passed."""
    return Probed(begin_s=begin_s, passed=True, working_engines=engines, by_operator=by_operator)


def test_nothing_is_known_against_a_card_at_first_and_after_a_fine_look() -> None:
    assert health_of(NEW) == HEALTHY
    assert health_of(after_reading(NEW, FINE, at(1))) == HEALTHY
    assert health_of(after_reading(NEW, Reading(), at(1))) == HEALTHY, "a card that tells nothing is not ill"


@pytest.mark.parametrize(
    ("action", "expected"),
    [
        (0, ("ok", "")),
        (1, ("unhealthy", "RECOVERY_ACTION")),
        (2, ("unhealthy", "RECOVERY_ACTION")),
        (3, ("unhealthy", "RECOVERY_DRAIN")),
        (4, ("unhealthy", "RECOVERY_DRAIN")),
        (5, ("unhealthy", "RECOVERY_ACTION")),
        (6, ("unhealthy", "RECOVERY_ACTION")),
        (7, ("unhealthy", "RECOVERY_ACTION")),
        (99, ("unhealthy", "RECOVERY_ACTION")),
    ],
)
def test_the_drivers_recovery_action_decides(action: int, expected: tuple[str, str]) -> None:
    health = health_of(after_reading(NEW, replace(FINE, recovery_action=action), at(1)))
    assert told(health) == expected
    assert ("Try: " in health.message) is (action != 0)


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (15, ("lost", "GPU_LOST")),
        (16, ("unhealthy", "RESET_REQUIRED")),
        (999, ("unhealthy", "UNKNOWN_ERROR")),
        (6, ("unhealthy", "GPU_MISSING")),
        (28, ("unhealthy", "GPU_MISSING")),
        (9, ("unhealthy", "DRIVER_GONE")),
        (12, ("unhealthy", "DRIVER_GONE")),
        (18, ("unhealthy", "DRIVER_MISMATCH")),
        (1, ("unhealthy", "NVML_ERROR")),
        (12345, ("unhealthy", "NVML_ERROR")),
    ],
)
def test_an_error_instead_of_an_answer_bars_sessions(code: int, expected: tuple[str, str]) -> None:
    reading = Reading(error=DriverError(code=code, words="it said so"))
    health = health_of(after_reading(NEW, reading, at(1)))
    assert told(health) == expected
    assert "Try" in health.message


def test_gpus_that_are_all_gone_are_the_containers_fault() -> None:
    health = health_of(after_reading(NEW, Reading(all_gpus_lost=True), at(1)))
    assert told(health) == ("unhealthy", "CONTAINER_LOST_GPUS")
    assert "container" in health.message


@pytest.mark.parametrize("xid", [13, 31, 43, 45, 69, 154])
def test_what_processes_do_or_suffer_never_counts(xid: int) -> None:
    record = NEW
    for second in range(100):
        record = after_xid(record, xid, at(second))
    assert health_of(record) == HEALTHY


@pytest.mark.parametrize(
    ("xid", "expected"),
    [
        (46, ("unhealthy", "XID_46")),
        (79, ("lost", "XID_79")),
        (63, ("degraded", "XID_63")),
        (777, ("degraded", "XID_777")),
    ],
)
def test_an_xid_shows_at_once(xid: int, expected: tuple[str, str]) -> None:
    health = health_of(after_xid(NEW, xid, at(7)))
    assert told(health) == expected
    assert (health.xid, health.since_time) == (xid, at(7).time)


def test_a_reset_alone_does_not_bring_a_card_back_but_a_probe_after_it_does() -> None:
    record = after_reading(after_xid(NEW, 46, at(1)), replace(FINE, recovery_action=1), at(2))
    assert told(health_of(after_probe(record, passed(3)))) == ("unhealthy", "XID_46"), "the driver still says so"
    record = after_reading(record, FINE, at(10))
    assert told(health_of(record)) == ("unhealthy", "XID_46")
    assert "golden probe" in health_of(record).message
    assert health_of(after_probe(record, passed(11))) == HEALTHY


def test_a_probe_that_failed_or_began_before_the_fault_proves_nothing() -> None:
    record = after_xid(NEW, 46, at(5))
    failed = Probed(begin_s=6, passed=False, working_engines=frozenset(), by_operator=True)
    assert told(health_of(after_probe(record, failed))) == ("unhealthy", "XID_46")
    assert told(health_of(after_probe(record, passed(4)))) == ("unhealthy", "XID_46")
    again = after_xid(record, 46, at(9))
    assert told(health_of(after_probe(again, passed(8)))) == ("unhealthy", "XID_46"), "it came again meanwhile"


def test_only_an_operators_probe_brings_back_a_card_that_was_lost() -> None:
    record = after_xid(NEW, 79, at(1))
    record = after_reading(record, FINE, at(2))
    assert told(health_of(after_probe(record, passed(3)))) == ("lost", "XID_79")
    assert health_of(after_probe(record, passed(3, by_operator=True))) == HEALTHY


def test_not_even_an_operators_probe_does_while_nvml_calls_it_lost() -> None:
    lost = Reading(error=DriverError(code=15, words="GPU is lost"))
    record = after_reading(after_xid(NEW, 79, at(1)), lost, at(2))
    assert told(health_of(after_probe(record, passed(3, by_operator=True)))) == ("lost", "XID_79")


@pytest.mark.parametrize("first", [46, 79])
def test_the_gravest_is_told_and_among_equals_the_first(first: int) -> None:
    record = after_xid(NEW, first, at(1))
    for second, xid in enumerate((95, 119, 63, 45), 2):
        record = after_xid(record, xid, at(second))
    assert health_of(record).reason == f"XID_{first}"
    assert health_of(after_xid(record, 79, at(9))).reason == "XID_79"


def test_a_fault_under_which_sessions_leave_is_told_before_one_under_which_they_stay() -> None:
    drained = after_reading(NEW, replace(FINE, recovery_action=4), at(1))
    assert health_of(drained).reason == "RECOVERY_DRAIN"
    assert health_of(after_xid(drained, 48, at(2))).reason == "XID_48"


def test_what_should_only_be_looked_at_is_told_together_until_a_probe_passed() -> None:
    record = after_xid(after_xid(NEW, 63, at(1)), 92, at(2))
    health = health_of(record)
    assert told(health) == ("degraded", "XID_63")
    assert "XID 92" in health.message
    assert health_of(after_probe(record, passed(3))) == HEALTHY


def test_what_comes_again_and_again_is_told_once() -> None:
    once = after_xid(NEW, 63, at(1))
    again = after_xid(once, 63, at(9))
    assert health_of(again) == health_of(once)
    assert health_of(after_probe(again, passed(5))).reason == "XID_63", "it came again after that probe began"


# ------------------------------------------------------------------------------------------------------------ engines


def test_one_fault_of_an_engine_is_the_sessions_and_two_within_ten_minutes_are_the_engines() -> None:
    record = after_xid(NEW, 47, at(0))
    assert health_of(record) == HEALTHY
    health = health_of(after_xid(record, 65, at(599)))
    assert told(health) == ("degraded", "ENCODER_OUT_OF_USE")
    assert health.faulty_engines == {Engine.ENCODE}
    assert "XID 65" in health.engines_message
    assert health_of(after_xid(record, 65, at(601))) == HEALTHY


def test_faults_of_encoders_and_decoders_do_not_add_up() -> None:
    record = after_xid(after_xid(NEW, 47, at(0)), 68, at(1))
    assert health_of(record) == HEALTHY
    record = after_xid(record, 98, at(2))
    assert health_of(record).faulty_engines == {Engine.DECODE}
    assert health_of(after_xid(record, 142, at(3))).faulty_engines == BOTH


def test_an_engine_comes_back_by_a_probe_in_which_it_worked_and_goes_at_its_next_fault() -> None:
    record = after_xid(after_xid(NEW, 47, at(0)), 47, at(1))
    without = after_probe(record, passed(2, engines=frozenset({Engine.DECODE})))
    assert health_of(without).faulty_engines == {Engine.ENCODE}
    back = after_probe(without, passed(3))
    assert health_of(back) == HEALTHY
    assert health_of(after_xid(back, 47, at(10))).faulty_engines == {Engine.ENCODE}
    assert health_of(after_xid(back, 47, at(700))) == HEALTHY


def test_a_lost_card_still_tells_which_engines_were_out_of_use() -> None:
    record = after_xid(after_xid(after_xid(NEW, 47, at(0)), 47, at(1)), 79, at(2))
    health = health_of(record)
    assert (told(health), health.faulty_engines) == (("lost", "XID_79"), {Engine.ENCODE})


# ------------------------------------------------------------------------------------------------- memory, heat, power


def test_uncorrected_errors_bar_when_they_become_more_and_are_told_while_there_are_any() -> None:
    record = after_reading(NEW, replace(FINE, uncorrected_errors=3), at(1))
    assert told(health_of(record)) == ("degraded", "ECC_UNCORRECTED"), "older than the watch"
    record = after_reading(record, replace(FINE, uncorrected_errors=5), at(2))
    assert told(health_of(record)) == ("unhealthy", "ECC_UNCORRECTED")
    assert "2 further errors" in health_of(record).message
    assert told(health_of(after_probe(record, passed(3)))) == ("degraded", "ECC_UNCORRECTED")
    reloaded = after_reading(after_probe(record, passed(3)), FINE, at(4))
    assert health_of(reloaded) == HEALTHY, "a count that begins anew is no error"
    unknown = after_reading(record, replace(FINE, uncorrected_errors=None), at(4))
    assert unknown.uncorrected_errors == 5


@pytest.mark.parametrize(
    ("reading", "reason"),
    [
        (replace(FINE, repair_pending=True), "MEMORY_REPAIR_PENDING"),
        (replace(FINE, repair_failed=True), "MEMORY_REPAIR_FAILED"),
    ],
)
def test_damaged_memory_is_told_from_the_first_look_to_the_last(reading: Reading, reason: str) -> None:
    record = after_reading(NEW, reading, at(1))
    record = after_reading(record, reading, at(2))
    assert told(health_of(record)) == ("degraded", reason)
    assert health_of(record).since_time == at(1).time
    assert health_of(after_reading(record, FINE, at(3))) == HEALTHY


@pytest.mark.parametrize(
    ("reading", "reason"),
    [
        (replace(FINE, clock_reasons=0x20), "THERMAL_SLOWDOWN"),
        (replace(FINE, clock_reasons=0x40), "THERMAL_SLOWDOWN"),
        (replace(FINE, clock_reasons=0x48), "THERMAL_SLOWDOWN"),
        (replace(FINE, clock_reasons=0x08), "POWER_BRAKE"),
        (replace(FINE, clock_reasons=0x80), "POWER_BRAKE"),
        (replace(FINE, temperature_celsius=91, slowdown_celsius=91), "OVER_TEMPERATURE"),
        (replace(FINE, temperature_celsius=96, shutdown_celsius=95), "OVER_TEMPERATURE"),
    ],
)
def test_a_card_that_is_held_back_is_told_after_a_while_and_well_again_after_a_while(
    reading: Reading, reason: str
) -> None:
    record = NEW
    for second in range(SETTLING_LOOKS):
        assert health_of(record) == HEALTHY
        record = after_reading(record, reading, at(second))
    health = health_of(record)
    assert told(health) == ("degraded", reason)
    assert f"{reading.temperature_celsius} °C" in health.message
    cool = replace(reading, clock_reasons=0, temperature_celsius=60)
    for second in range(SETTLING_LOOKS):
        assert health_of(record) == health, "the figures are those of the beginning"
        record = after_reading(record, cool, at(second))
    assert health_of(record) == HEALTHY


@pytest.mark.parametrize("clock_reasons", [0x0, 0x1, 0x2, 0x4, 0x10, 0x100])
def test_clocks_that_are_low_for_other_reasons_are_ordinary(clock_reasons: int) -> None:
    record = NEW
    for second in range(2 * SETTLING_LOOKS):
        record = after_reading(record, replace(FINE, clock_reasons=clock_reasons), at(second))
    assert health_of(record) == HEALTHY


def test_short_dips_are_not_told() -> None:
    record, hot = NEW, replace(FINE, clock_reasons=0x40)
    for second in range(40):
        record = after_reading(record, FINE if second % SETTLING_LOOKS == 0 else hot, at(second))
        assert health_of(record) == HEALTHY


# ------------------------------------------------------------------------------------------------------------- silence


def test_a_driver_that_does_not_answer_bars_until_it_has_answered_and_a_probe_has_passed() -> None:
    record = after_silence(NEW, 5, at(5))
    assert told(health_of(record)) == ("unhealthy", "DRIVER_HANGS")
    assert after_silence(record, 6, at(6)) is record
    assert told(health_of(after_probe(record, passed(7)))) == ("unhealthy", "DRIVER_HANGS")
    record = after_reading(record, FINE, at(8))
    assert health_of(after_probe(record, passed(9))) == HEALTHY


def test_what_an_earlier_agent_kept_is_older_than_any_probe() -> None:
    kept = after_xid(NEW, 46, Moment(time=START, monotonic_s=-math.inf))
    assert health_of(after_probe(kept, passed(0))) == HEALTHY


def test_states_are_ordered_by_whether_they_bar() -> None:
    assert [state.bars for state in HealthState] == [False, False, True, True]
