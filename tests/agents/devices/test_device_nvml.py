"""GPUs through the real NVML bindings and a fake library underneath them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from agents.devices import list_devices_json
from agents.devices.device_access import open_meter, take_device
from agents.devices.measurements import DeviceFault
from agents.devices.nvml import GpuInspection, GpuMeter, inspect_gpus, list_gpus
from fakes.nvml_library import (
    ADA,
    BLACKWELL,
    GPU_IS_LOST,
    HOPPER,
    LIBRARY_VERSION_MISMATCH,
    NOT_SUPPORTED,
    RESET_REQUIRED,
    TURING,
    UNKNOWN_ERROR,
    FakeGpu,
    FakeProcess,
)
from gpu_balancer.runtime.settings_sections import AgentDeviceSettings

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fakes.nvml_library import FakeNvml

T4 = FakeGpu(
    uuid="GPU-7f3c2a10-0000-0000-0000-000000000001",
    name="Tesla T4",
    architecture=TURING,
    domain=0x1,
    bus=0x3B,
    memory_total_bytes=15360 << 20,
    video_clock_mhz=1470,
)
L4 = FakeGpu(uuid="GPU-7f3c2a10-0000-0000-0000-000000000002", name="NVIDIA L4", architecture=ADA, bus=0xAF)
H100 = FakeGpu(
    uuid="GPU-7f3c2a10-0000-0000-0000-000000000003",
    name="NVIDIA H100 80GB HBM3",
    architecture=HOPPER,
    bus=0xC1,
    memory_total_bytes=81559 << 20,
)


class FixedClock:
    def now(self) -> datetime:
        return datetime(2026, 1, 2, tzinfo=UTC)

    def monotonic_s(self) -> float:
        return 0.0


@pytest.fixture
def l4_meter(fake_nvml: FakeNvml) -> Iterator[GpuMeter]:
    """A meter of the L4 in a machine with a T4 beside it."""
    fake_nvml.describe([T4, L4])
    identity = next(gpu for gpu in list_gpus() if gpu.id == L4.uuid)
    meter = GpuMeter(identity, clock=FixedClock())
    yield meter
    meter.close()


def test_unequal_gpus_are_told_apart_in_the_order_of_nvml(fake_nvml: FakeNvml) -> None:
    fake_nvml.describe([T4, L4, H100], driver_version="580.65.06")
    t4, l4, h100 = list_gpus()
    assert (t4.id, l4.id, h100.id) == (T4.uuid, L4.uuid, H100.uuid)
    assert (t4.model, t4.architecture, t4.index) == ("Tesla T4", "Turing", 0)
    assert t4.pci_address == "00000001:3b:00.0"
    assert t4.memory_total_mib == 15360
    assert t4.video_clock_mhz == 1470
    assert {gpu.driver_version for gpu in (t4, l4, h100)} == {"580.65.06"}
    assert l4.pci_address == "00000000:af:00.0"


def test_engines_come_from_the_table_by_model(fake_nvml: FakeNvml) -> None:
    fake_nvml.describe([T4, L4, H100])
    engines = [(gpu.encoder_engines, gpu.decoder_engines, gpu.table_model) for gpu in list_gpus()]
    assert engines == [(1, 2, "Tesla T4"), (2, 4, "L4"), (0, 7, "H100")]


def test_a_model_nobody_knows_has_unknown_engines(fake_nvml: FakeNvml) -> None:
    fake_nvml.describe([replace(L4, name="NVIDIA Zebra 9000", architecture=99)])
    (gpu,) = list_gpus()
    assert (gpu.encoder_engines, gpu.decoder_engines, gpu.table_model, gpu.architecture) == (None, None, None, None)


@pytest.mark.parametrize("count", [0, 1, 16])
def test_any_number_of_gpus_is_listed(fake_nvml: FakeNvml, count: int) -> None:
    fake_nvml.describe([replace(L4, uuid=f"GPU-{number}", bus=number) for number in range(count)])
    assert [gpu.id for gpu in list_gpus()] == [f"GPU-{number}" for number in range(count)]


def test_a_board_that_does_not_tell_its_memory_has_it_unknown(fake_nvml: FakeNvml) -> None:
    """GB10 answers NOT_SUPPORTED, as its memory is the machine's."""
    gb10 = replace(L4, name="NVIDIA GB10", architecture=BLACKWELL, errors={"nvmlDeviceGetMemoryInfo": NOT_SUPPORTED})
    fake_nvml.describe([gb10])
    (gpu,) = list_gpus()
    assert gpu.memory_total_mib is None
    assert gpu.architecture == "Blackwell"


def test_a_driver_that_is_not_loaded_means_no_gpus_and_no_fault(
    fake_nvml: FakeNvml, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("FAKE_NVML_CONFIG")
    assert inspect_gpus() == GpuInspection(gpus=(), faults=())


@pytest.mark.process
def test_a_missing_library_means_no_gpus_and_no_fault(tmp_path: Path) -> None:
    """In a process of its own, because this one may have loaded the fake."""
    program = "from agents.devices.nvml import inspect_gpus; found = inspect_gpus(); print(found.gpus, found.faults)"
    environment = {name: value for name, value in os.environ.items() if name != "LD_LIBRARY_PATH"}
    environment["LD_LIBRARY_PATH"] = str(tmp_path)
    run = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "() ()"


@pytest.mark.process
def test_another_process_sees_the_gpus_by_its_environment(fake_nvml: FakeNvml) -> None:
    fake_nvml.describe([T4, L4])
    run = subprocess.run(
        [sys.executable, "-m", "agents", "--list-devices"],
        env={**os.environ, **fake_nvml.environment},
        capture_output=True,
        text=True,
        check=True,
    )
    listed = json.loads(run.stdout)
    assert [gpu["id"] for gpu in listed] == [T4.uuid, L4.uuid]
    assert listed[0]["kind"] == "nvidia"
    assert run.stderr == ""


@pytest.mark.process
def test_gpus_that_cannot_be_used_are_told_beside_those_that_can(fake_nvml: FakeNvml) -> None:
    """On stderr: the list itself stays readable for programs."""
    fake_nvml.describe([replace(T4, errors={"*": GPU_IS_LOST}), L4])
    run = subprocess.run(
        [sys.executable, "-m", "agents", "--list-devices"],
        env={**os.environ, **fake_nvml.environment},
        capture_output=True,
        text=True,
        check=True,
    )
    assert [gpu["id"] for gpu in json.loads(run.stdout)] == [L4.uuid]
    assert "number 0" in run.stderr
    assert "lost" in run.stderr


def test_no_gpus_are_listed_as_an_empty_json_list(fake_nvml: FakeNvml) -> None:
    text, faults = list_devices_json()
    assert json.loads(text) == []
    assert faults == ()


def test_one_lost_card_is_a_fault_and_hides_no_other(fake_nvml: FakeNvml) -> None:
    fake_nvml.describe([replace(T4, errors={"*": GPU_IS_LOST}), L4])
    found = inspect_gpus()
    assert [gpu.id for gpu in found.gpus] == [L4.uuid]
    (fault,) = found.faults
    assert "number 0" in fault
    assert "lost" in fault


def test_a_card_that_tells_only_its_uuid_is_still_listed(fake_nvml: FakeNvml) -> None:
    names = ["nvmlDeviceGetName", "nvmlDeviceGetMemoryInfo", "nvmlDeviceGetPciInfo_v3", "nvmlDeviceGetArchitecture"]
    fake_nvml.describe([replace(L4, errors=dict.fromkeys(names, UNKNOWN_ERROR))])
    (gpu,) = list_gpus()
    assert (gpu.id, gpu.model, gpu.pci_address, gpu.memory_total_mib) == (L4.uuid, "unknown NVIDIA GPU", None, None)


def test_unknown_error_on_all_cards_is_told_as_a_container_that_lost_them(fake_nvml: FakeNvml) -> None:
    fake_nvml.describe([replace(T4, errors={"*": UNKNOWN_ERROR}), replace(L4, errors={"*": UNKNOWN_ERROR})])
    found = inspect_gpus()
    assert found.gpus == ()
    assert len(found.faults) == 1
    assert "container" in found.faults[0]


def test_a_driver_upgraded_without_a_reboot_is_told_as_such(fake_nvml: FakeNvml) -> None:
    fake_nvml.describe([L4], errors={"nvmlInitWithFlags": LIBRARY_VERSION_MISMATCH})
    found = inspect_gpus()
    assert found.gpus == ()
    assert "rebooting" in found.faults[0]


def test_a_meter_follows_the_card(fake_nvml: FakeNvml, l4_meter: GpuMeter) -> None:
    busy = replace(
        L4,
        encoder_utilization=71,
        decoder_utilization=32,
        gpu_utilization=9,
        encoder_sessions=5,
        temperature=66,
        memory_used_bytes=3 << 30,
    )
    fake_nvml.describe([T4, busy])
    first = l4_meter.measure()
    assert (first.encoder_utilization_percent, first.decoder_utilization_percent) == (71, 32)
    assert (first.compute_utilization_percent, first.memory_used_mib) == (9, 3072)
    assert (first.encoder_sessions, first.temperature_celsius) == (5, 66)
    assert first.measure_time == datetime(2026, 1, 2, tzinfo=UTC)
    fake_nvml.describe([T4, replace(busy, encoder_sessions=0)])
    assert l4_meter.measure().encoder_sessions == 0


def test_a_meter_finds_its_card_by_uuid_when_the_order_changes(fake_nvml: FakeNvml, l4_meter: GpuMeter) -> None:
    fake_nvml.describe([replace(L4, temperature=77), T4])
    assert l4_meter.measure().temperature_celsius == 77


@pytest.mark.parametrize(
    ("symbol", "field"),
    [
        ("nvmlDeviceGetEncoderUtilization", "encoder_utilization_percent"),
        ("nvmlDeviceGetDecoderUtilization", "decoder_utilization_percent"),
        ("nvmlDeviceGetUtilizationRates", "compute_utilization_percent"),
        ("nvmlDeviceGetMemoryInfo", "memory_used_mib"),
        ("nvmlDeviceGetEncoderStats", "encoder_sessions"),
        ("nvmlDeviceGetTemperature", "temperature_celsius"),
    ],
)
@pytest.mark.parametrize("code", [NOT_SUPPORTED, UNKNOWN_ERROR])
def test_a_call_that_one_card_does_not_answer_leaves_one_value_unknown(
    fake_nvml: FakeNvml, l4_meter: GpuMeter, symbol: str, field: str, code: int
) -> None:
    fake_nvml.describe([replace(L4, errors={symbol: code})])
    measured = l4_meter.measure()
    unknown = [name for name in measured.__slots__ if getattr(measured, name) is None]
    assert unknown == [field, "foreign_compute_utilization_percent"]


@pytest.mark.parametrize(
    ("code", "word"), [(GPU_IS_LOST, "lost"), (RESET_REQUIRED, "reset"), (UNKNOWN_ERROR, "container")]
)
def test_a_card_that_fails_altogether_is_a_fault_that_says_what_to_do(
    fake_nvml: FakeNvml, l4_meter: GpuMeter, code: int, word: str
) -> None:
    l4_meter.measure()
    fake_nvml.describe([T4, replace(L4, errors={"*": code})])
    with pytest.raises(DeviceFault, match=word) as caught:
        l4_meter.measure()
    assert L4.uuid in caught.value.message
    assert "Try" in caught.value.message


def test_a_card_that_comes_back_is_measured_again(fake_nvml: FakeNvml, l4_meter: GpuMeter) -> None:
    fake_nvml.describe([replace(L4, errors={"*": GPU_IS_LOST})])
    with pytest.raises(DeviceFault):
        l4_meter.measure()
    fake_nvml.describe([replace(L4, temperature=31)])
    assert l4_meter.measure().temperature_celsius == 31


def test_a_card_that_vanished_is_a_fault(fake_nvml: FakeNvml, l4_meter: GpuMeter) -> None:
    fake_nvml.describe([T4])
    with pytest.raises(DeviceFault, match="no longer shows it"):
        l4_meter.measure()


def test_an_agent_takes_its_gpu_and_measures_it(fake_nvml: FakeNvml) -> None:
    fake_nvml.describe([T4, replace(L4, temperature=51)])
    identity = take_device(AgentDeviceSettings(kind="nvidia", id=L4.uuid))
    assert identity.model == "NVIDIA L4"
    meter = open_meter(identity, clock=FixedClock())
    assert meter.measure().temperature_celsius == 51
    meter.close()
    meter.close()


def test_an_agent_whose_gpu_is_not_there_says_which_are(fake_nvml: FakeNvml) -> None:
    fake_nvml.describe([T4])
    with pytest.raises(DeviceFault, match=f"Cannot find the GPU {L4.uuid}.*{T4.uuid}"):
        take_device(AgentDeviceSettings(kind="nvidia", id=L4.uuid))


# What others do


def others_on(meter: GpuMeter, fake_nvml: FakeNvml, gpu: FakeGpu, sessions: list[int]) -> tuple[int | None, ...]:
    fake_nvml.describe([T4, gpu])
    measured = meter.measure(sessions)
    return (
        measured.foreign_encoder_sessions,
        measured.foreign_encoder_utilization_percent,
        measured.foreign_decoder_utilization_percent,
        measured.foreign_memory_used_mib,
    )


OTHER = FakeProcess(pid=1, encoder_utilization=30, decoder_utilization=10, encoder_sessions=2, memory_bytes=512 << 20)


def test_what_processes_of_others_do_is_told_apart_from_our_own(l4_meter: GpuMeter, fake_nvml: FakeNvml) -> None:
    """A session's program counts with its first process, which started it."""
    with subprocess.Popen(["/bin/sh", "-c", "sleep 60; :"], start_new_session=True) as shim:
        try:
            started = Path(f"/proc/{shim.pid}/task/{shim.pid}/children")
            while not (children := started.read_text().split()):
                pass
            ours = FakeProcess(pid=int(children[0]), encoder_utilization=50, encoder_sessions=3)
            desktop = FakeProcess(pid=2, draws=True, memory_bytes=100 << 20)
            busy = replace(L4, processes=(ours, OTHER, desktop))
            assert others_on(l4_meter, fake_nvml, busy, [shim.pid]) == (2, 30, 10, 612)
            assert others_on(l4_meter, fake_nvml, replace(L4, processes=(ours,)), [shim.pid]) == (0, 0, 0, 0)
        finally:
            os.killpg(shim.pid, signal.SIGKILL)


def test_without_sessions_everything_is_others(l4_meter: GpuMeter, fake_nvml: FakeNvml) -> None:
    assert others_on(l4_meter, fake_nvml, replace(L4, processes=(OTHER,)), []) == (2, 30, 10, 512)
    assert others_on(l4_meter, fake_nvml, L4, []) == (0, 0, 0, 0)


def test_where_none_of_our_processes_can_be_seen_nothing_is_told_of_others(
    l4_meter: GpuMeter, fake_nvml: FakeNvml
) -> None:
    """In a container NVML speaks of the host's process ids."""
    busy = replace(L4, processes=(replace(OTHER, pid=4_000_000),))
    assert others_on(l4_meter, fake_nvml, busy, [3_999_999]) == (None, None, None, None)


def test_each_list_of_processes_that_is_not_supported_is_unknown_alone(l4_meter: GpuMeter, fake_nvml: FakeNvml) -> None:
    """Under MIG there is no utilization by process, and old drivers have no list of encoder sessions."""
    busy = replace(L4, processes=(OTHER,))
    unsupported = [
        ("nvmlDeviceGetEncoderSessions", (None, 30, 10, 512)),
        ("nvmlDeviceGetProcessUtilization", (2, None, None, 512)),
        ("nvmlDeviceGetComputeRunningProcesses_v3", (2, 30, 10, None)),
    ]
    for symbol, told in unsupported:
        card = replace(busy, errors={symbol: NOT_SUPPORTED})
        assert others_on(l4_meter, fake_nvml, card, []) == told
