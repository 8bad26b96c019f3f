"""CPU devices: core sets, quotas, identity, pinning and utilization."""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.devices import cpu
from agents.devices.cpu import CpuMeter, cpu_identity, format_cores, usable_cores
from agents.devices.device_access import open_meter, take_device
from agents.devices.identity import DeviceIdentity, identities_json, identity_from_json
from agents.devices.measurements import DeviceFault
from gpu_balancer.runtime.settings_sections import AgentDeviceSettings, parse_cores

if TYPE_CHECKING:
    from pathlib import Path


class FixedClock:
    def now(self) -> datetime:
        return datetime(2026, 1, 2, tzinfo=UTC)

    def monotonic_s(self) -> float:
        return 0.0


@pytest.fixture
def eight_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine on which this process may use the cores 0 to 7."""
    monkeypatch.setattr(cpu.os, "sched_getaffinity", lambda _pid: set(range(8)))


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    """A procfs with a cgroup of version 2 at its root."""
    folder = tmp_path / "proc"
    (folder / "self").mkdir(parents=True)
    (folder / "self" / "cgroup").write_text("0::/\n")
    return folder


@given(st.sets(st.integers(min_value=0, max_value=4095), min_size=1, max_size=40))
def test_reading_a_written_core_set_gives_it_back(cores: set[int]) -> None:
    assert parse_cores(format_cores(cores)) == tuple(sorted(cores))


@pytest.mark.usefixtures("eight_cores")
def test_without_a_quota_every_core_of_the_mask_is_usable(tmp_path: Path, proc: Path) -> None:
    (tmp_path / "cpu.max").write_text("max 100000\n")
    assert usable_cores(cgroups=tmp_path, proc=proc) == tuple(range(8))


@pytest.mark.usefixtures("eight_cores")
@pytest.mark.parametrize(("quota", "count"), [("250000", 2), ("50000", 1), ("800000", 8), ("6400000", 8)])
def test_a_quota_bounds_how_many_cores_are_taken(tmp_path: Path, proc: Path, quota: str, count: int) -> None:
    (tmp_path / "cpu.max").write_text(f"{quota} 100000\n")
    cores = usable_cores(cgroups=tmp_path, proc=proc)
    assert len(cores) == count
    assert set(cores) <= set(range(8))


@pytest.mark.usefixtures("eight_cores")
def test_the_tightest_quota_above_a_process_counts(tmp_path: Path, proc: Path) -> None:
    (proc / "self" / "cgroup").write_text("0::/system.slice/agent.service\n")
    service = tmp_path / "system.slice" / "agent.service"
    service.mkdir(parents=True)
    (service / "cpu.max").write_text("max 100000\n")
    (service.parent / "cpu.max").write_text("300000 100000\n")
    assert len(usable_cores(cgroups=tmp_path, proc=proc)) == 3


@pytest.mark.usefixtures("eight_cores")
def test_a_quota_of_cgroups_version_1_counts_too(tmp_path: Path, proc: Path) -> None:
    (proc / "self" / "cgroup").write_text("4:cpu,cpuacct:/docker/abc\n3:memory:/docker/abc\n")
    (tmp_path / "cpu").mkdir()
    (tmp_path / "cpu" / "cpu.cfs_quota_us").write_text("400000\n")
    (tmp_path / "cpu" / "cpu.cfs_period_us").write_text("100000\n")
    assert len(usable_cores(cgroups=tmp_path, proc=proc)) == 4


@pytest.mark.usefixtures("eight_cores")
def test_containers_of_one_machine_do_not_all_take_its_first_core(
    tmp_path: Path, proc: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cpu.max").write_text("100000 100000\n")
    taken = set()
    for number in range(40):
        monkeypatch.setattr(cpu.socket, "gethostname", lambda number=number: f"container-{number}")
        taken.update(usable_cores(cgroups=tmp_path, proc=proc))
    assert len(taken) > 4


def test_a_cpu_device_is_named_by_its_processor(proc: Path) -> None:
    (proc / "cpuinfo").write_text("processor\t: 0\nmodel name\t: Some(R)   CPU @ 2.00GHz\n\nprocessor\t: 1\n")
    identity = cpu_identity("cpu-0", proc=proc)
    assert identity.model == "Some(R) CPU @ 2.00GHz"
    assert identity.cores == usable_cores()
    assert (identity.id, identity.kind, identity.driver_version, identity.index) == ("cpu-0", "cpu", None, None)


def test_a_processor_without_a_name_is_told_by_its_architecture(proc: Path) -> None:
    (proc / "cpuinfo").write_text("processor\t: 0\nCPU part\t: 0xd0c\n")
    assert cpu_identity("cpu-0", proc=proc).model == f"{os.uname().machine} processor"


@pytest.mark.usefixtures("eight_cores")
def test_cores_that_are_not_ours_are_refused_with_those_that_are() -> None:
    with pytest.raises(DeviceFault, match=r"cores 8-9 for cpu-1.*may use 0-7 only"):
        cpu_identity("cpu-1", "6-9")


def test_identities_survive_json() -> None:
    identity = DeviceIdentity(id="cpu-0", kind="cpu", model="m", cores=(1, 2), memory_total_mib=5)
    assert identities_json((identity,)).count("cpu-0") == 1
    assert identity_from_json({"id": "cpu-0", "kind": "cpu", "model": "m", "cores": [1, 2], "memory_total_mib": 5}) == (
        identity
    )


@pytest.mark.process
def test_pinning_moves_every_thread_and_what_is_started_later() -> None:
    """In a process of its own, with a thread that was there before."""
    core = min(os.sched_getaffinity(0))
    program = f"""
import os, subprocess, sys, threading
from agents.devices.cpu import pin_process
release = threading.Event()
seen = []
thread = threading.Thread(target=lambda: (release.wait(), seen.append(os.sched_getaffinity(0))))
thread.start()
pin_process(({core},))
release.set()
thread.join()
child = [sys.executable, "-c", "import os; print(os.sched_getaffinity(0))"]
print(seen[0], os.sched_getaffinity(0), subprocess.check_output(child, text=True).strip())
"""
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert run.stdout.split("\n")[0] == " ".join([f"{{{core}}}"] * 3)


def test_pinning_to_cores_that_are_not_there_is_a_fault() -> None:
    with pytest.raises(DeviceFault, match="Cannot keep to the cores 8191"):
        cpu.pin_process((8191,))


def test_utilization_is_that_of_the_devices_own_cores_since_the_last_look(proc: Path) -> None:
    def write(busy: dict[int, int], idle: dict[int, int]) -> None:
        lines = ["cpu 1 1 1 1 1 1 1 1 0 0"]
        # user, nice, system, idle, iowait, irq, softirq, steal, guest (already in user), guest_nice
        lines += [f"cpu{core} {busy[core]} 0 0 {idle[core]} 0 0 0 0 {busy[core]} 0" for core in busy]
        (proc / "stat").write_text("\n".join([*lines, "intr 0"]) + "\n")

    write({0: 100, 1: 100, 2: 100}, {0: 100, 1: 100, 2: 100})
    meter = CpuMeter(DeviceIdentity(id="c", kind="cpu", model="m", cores=(1, 2)), clock=FixedClock(), proc=proc)
    write({0: 900, 1: 150, 2: 125}, {0: 100, 1: 150, 2: 175})
    assert meter.measure().compute_utilization_percent == 38  # 75 of 200 ticks
    assert meter.measure().compute_utilization_percent is None, "no tick since: unknown, not 0"


def test_a_cpu_device_has_no_encoder_engines_to_measure() -> None:
    measured = CpuMeter(cpu_identity("cpu-0"), clock=FixedClock()).measure()
    assert measured.encoder_utilization_percent is None
    assert measured.encoder_sessions is None
    assert measured.memory_used_mib is not None
    assert measured.memory_used_mib > 0


def test_an_agent_takes_its_cores_and_measures_them() -> None:
    before = os.sched_getaffinity(0)
    core = max(before)
    try:
        identity = take_device(AgentDeviceSettings(kind="cpu", id="cpu-7", cores=str(core)))
        assert os.sched_getaffinity(0) == {core}
    finally:
        os.sched_setaffinity(0, before)
    assert (identity.id, identity.cores) == ("cpu-7", (core,))
    assert open_meter(identity, clock=FixedClock()).measure().memory_used_mib is not None


def write_ticks(proc: Path, *, idle: int, busy: int, own: dict[int, tuple[int, int]]) -> None:
    """Writes a core's ticks, and of each process its own and its ended children's."""
    (proc / "stat").write_text(f"cpu0 {busy} 0 0 {idle} 0 0 0 0 0 0\n")
    for pid, (ticks, children_ticks) in own.items():
        (proc / str(pid) / "task" / str(pid)).mkdir(parents=True, exist_ok=True)
        zeros = "0 " * 10
        (proc / str(pid) / "stat").write_text(f"{pid} (a (b) c) S {zeros}{ticks} 0 {children_ticks} 0 0 0\n")
        (proc / str(pid) / "task" / str(pid) / "children").touch()


def foreign_of(before: dict[str, Any], after: dict[str, Any], proc: Path, sessions: list[int]) -> int | None:
    write_ticks(proc, **before)
    identity = DeviceIdentity(id="cpu-0", kind="cpu", model="m", cores=(0,))
    meter = CpuMeter(identity, clock=FixedClock(), proc=proc)
    meter.measure(sessions)
    write_ticks(proc, **after)
    return meter.measure(sessions).foreign_compute_utilization_percent


def test_what_others_use_of_the_cores_is_what_our_own_processes_do_not(proc: Path) -> None:
    agent = os.getpid()
    before = {"idle": 100, "busy": 100, "own": {agent: (0, 0), 70: (0, 0), 71: (0, 0)}}
    (proc / "70" / "task" / "70").mkdir(parents=True)
    (proc / "70" / "task" / "70" / "children").write_text("71 ")
    working = {"idle": 120, "busy": 180, "own": {agent: (5, 0), 70: (0, 0), 71: (45, 0)}}
    assert foreign_of(before, working, proc, [70]) == 30
    handed_over = {"idle": 120, "busy": 180, "own": {agent: (5, 0), 70: (0, 45), 71: (0, 0)}}
    assert foreign_of(before, handed_over, proc, [70]) == 30, "a child that has ended counts with its parent"
    more_than_all = {"idle": 190, "busy": 110, "own": {agent: (50, 0), 70: (0, 0), 71: (0, 0)}}
    assert foreign_of(before, more_than_all, proc, [70]) == 0


def test_where_the_kernel_does_not_tell_of_children_nothing_is_told_of_others(proc: Path) -> None:
    ticks = {"idle": 1, "busy": 1, "own": {}}
    assert foreign_of(ticks, ticks | {"busy": 50}, proc, []) is None
