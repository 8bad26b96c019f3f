"""A time of day that does not jump, and is the same after a restart."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpu_balancer.runtime.steady_clock import SteadyClock

NOON = datetime(2030, 1, 1, 12, tzinfo=UTC)
YEAR = timedelta(days=365)


class Machine:
    """A machine whose clock can be set."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.since_boot_s = 500.0
        self.boot = "first"
        self.set_by = timedelta()

    def clock(self) -> SteadyClock:
        """A daemon that starts here and now."""
        return SteadyClock(
            self.path,
            wall_time=lambda: NOON + timedelta(seconds=self.since_boot_s - 500) + self.set_by,
            since_boot_s=lambda: self.since_boot_s,
            boot_id=lambda: self.boot,
        )


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path / "clock")


def test_it_begins_with_the_systems_time_and_goes_on_with_it(machine: Machine) -> None:
    clock = machine.clock()
    assert clock.now() == NOON
    machine.since_boot_s += 3600
    assert clock.now() == NOON + timedelta(hours=1)


@pytest.mark.parametrize("jump", [YEAR, -YEAR])
def test_a_system_clock_that_is_set_moves_it_by_a_hundredth_at_most(machine: Machine, jump: timedelta) -> None:
    clock = machine.clock()
    machine.set_by = jump
    machine.since_boot_s += 1000
    off = clock.now() - (NOON + timedelta(seconds=1000))
    assert off == timedelta(seconds=10 if jump > timedelta() else -10)


def test_it_agrees_with_the_system_again_in_time(machine: Machine) -> None:
    clock = machine.clock()
    machine.set_by = timedelta(minutes=5)
    for _ in range(600):
        machine.since_boot_s += 60
        clock.now()
    assert clock.now() == NOON + timedelta(hours=10, minutes=5)


@given(
    steps=st.lists(
        st.tuples(st.floats(min_value=0, max_value=1e5), st.integers(min_value=-(10**9), max_value=10**9)), max_size=20
    )
)
def test_it_never_goes_back_nor_far_from_the_time_that_has_passed(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[float, int]]
) -> None:
    machine = Machine(tmp_path_factory.mktemp("machine") / "clock")
    clock = machine.clock()
    told = [clock.now()]
    for passed_s, set_by_s in steps:
        machine.since_boot_s += passed_s
        machine.set_by = timedelta(seconds=set_by_s)
        told.append(clock.now())
        if passed_s < 50_000:
            clock = machine.clock() if not told[-1].microsecond % 2 and keep(clock) else clock
    for (before, after), (passed_s, _) in zip(pairwise(told), steps, strict=True):
        assert abs((after - before).total_seconds() - passed_s) <= passed_s * 0.011 + 1e-5
        assert after >= before


def keep(clock: SteadyClock) -> bool:
    """Keeps the time, and says yes."""
    clock.keep()
    return True


@pytest.mark.parametrize("jump", [YEAR, -YEAR])
def test_a_clock_that_is_set_while_nobody_runs_is_noticed_by_the_next_start(
    machine: Machine, jump: timedelta, caplog: pytest.LogCaptureFixture
) -> None:
    machine.clock().keep()
    machine.set_by = jump
    machine.since_boot_s += 60
    assert machine.clock().now() == NOON + timedelta(seconds=60)
    assert "was set by about" in caplog.text


def test_after_a_reboot_the_system_is_believed(machine: Machine) -> None:
    machine.clock().keep()
    machine.boot, machine.set_by = "second", YEAR
    assert machine.clock().now() == NOON + YEAR


@pytest.mark.parametrize(
    "content",
    [b"", b"[]", b"{", b'{"boot_id": "first"}', b'{"boot_id": "first", "since_boot_s": 1, "time": "2029-01-01"}'],
)
def test_a_damaged_file_is_as_good_as_none(machine: Machine, content: bytes) -> None:
    machine.path.write_bytes(content)
    assert machine.clock().now() == NOON


def test_a_time_kept_later_than_now_is_of_another_machine(machine: Machine) -> None:
    kept = {"boot_id": "first", "since_boot_s": 9e9, "time": (NOON - YEAR).isoformat()}
    machine.path.write_text(json.dumps(kept))
    assert machine.clock().now() == NOON


def test_the_real_one_tells_the_time_of_day(tmp_path: Path) -> None:
    clock = SteadyClock(tmp_path / "clock")
    first, second = clock.now(), clock.now()
    clock.keep()
    assert second >= first
    assert clock.monotonic_s() <= clock.monotonic_s()
    assert SteadyClock(tmp_path / "clock").now() >= second
