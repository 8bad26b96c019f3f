"""Looking at a GPU's health and listening to its driver, through the real NVML bindings and a fake library beneath."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from agents.devices.identity import DeviceIdentity
from agents.devices.nvml_health import GpuHealthEye
from agents.health.reading import DriverError, Reading
from fakes.nvml_library import (
    DRIVER_NOT_LOADED,
    GPU_IS_LOST,
    NOT_SUPPORTED,
    RECOVERY_EVENT,
    RESET_REQUIRED,
    THERMAL_SLOWDOWN,
    TURING,
    UNKNOWN_ERROR,
    FakeEvent,
    FakeGpu,
    FakeNvml,
)

L4 = FakeGpu(uuid="GPU-00000000-0000-0000-0000-000000000001")
OTHER = FakeGpu(uuid="GPU-00000000-0000-0000-0000-000000000002", bus=0x66)
IDENTITY = DeviceIdentity(id=L4.uuid, kind="nvidia", model=L4.name)


@pytest.fixture
def eye(fake_nvml: FakeNvml, tmp_path: Path) -> Iterator[GpuHealthEye]:
    """An eye on the first of two cards, on a machine without the driver's device files."""
    fake_nvml.describe([L4, OTHER])
    made = GpuHealthEye(IDENTITY, control_node=tmp_path / "nvidiactl")
    yield made
    made.close()


def test_a_look_shows_what_the_driver_tells(fake_nvml: FakeNvml, eye: GpuHealthEye) -> None:
    ill = replace(
        L4,
        recovery_action=4,
        uncorrected_errors=7,
        remap_pending=1,
        remap_failed=1,
        clock_reasons=THERMAL_SLOWDOWN,
        temperature=91,
    )
    fake_nvml.describe([ill, OTHER])
    assert eye.look() == Reading(
        recovery_action=4,
        uncorrected_errors=7,
        repair_pending=True,
        repair_failed=True,
        clock_reasons=THERMAL_SLOWDOWN,
        temperature_celsius=91,
        slowdown_celsius=90,
        shutdown_celsius=95,
    )


@pytest.mark.parametrize(
    ("symbol", "field", "code"),
    [
        ("recovery_action", "recovery_action", NOT_SUPPORTED),
        *(
            (symbol, field, code)
            for symbol, field in (
                ("nvmlDeviceGetFieldValues", "recovery_action"),
                ("nvmlDeviceGetTotalEccErrors", "uncorrected_errors"),
                ("nvmlDeviceGetCurrentClocksEventReasons", "clock_reasons"),
                ("nvmlDeviceGetTemperature", "temperature_celsius"),
            )
            for code in (NOT_SUPPORTED, UNKNOWN_ERROR)
        ),
    ],
)
def test_what_one_card_does_not_tell_is_unknown_and_no_fault(
    fake_nvml: FakeNvml, eye: GpuHealthEye, symbol: str, field: str, code: int
) -> None:
    fake_nvml.describe([replace(L4, errors={symbol: code}), OTHER])
    reading = eye.look()
    assert reading.error is None
    assert getattr(reading, field) is None


def test_older_cards_retire_pages_instead_of_rows(fake_nvml: FakeNvml, eye: GpuHealthEye) -> None:
    fake_nvml.describe([replace(L4, retired_pending=1, architecture=TURING), OTHER])
    reading = eye.look()
    assert (reading.repair_pending, reading.repair_failed) == (True, None)


def test_an_older_driver_knows_no_recovery_action(fake_nvml: FakeNvml, eye: GpuHealthEye) -> None:
    fake_nvml.describe([replace(L4, recovery_action=1)], driver_version="550.54.14")
    reading = eye.look()
    assert (reading.error, reading.recovery_action) == (None, None)


def test_another_action_of_the_driver_ends_the_wait(fake_nvml: FakeNvml, eye: GpuHealthEye) -> None:
    eye.look()
    fake_nvml.change(L4.uuid, recovery_action=1, events=(FakeEvent(number=1, type=RECOVERY_EVENT, data=1),))
    assert eye.wait(3600) == ()
    assert eye.look().recovery_action == 1


@pytest.mark.parametrize("symbol", ["*", "recovery_action", "nvmlDeviceGetTemperature"])
@pytest.mark.parametrize("code", [GPU_IS_LOST, RESET_REQUIRED])
def test_a_card_that_is_lost_or_must_be_reset_is_an_error_wherever_it_says_so(
    fake_nvml: FakeNvml, eye: GpuHealthEye, symbol: str, code: int
) -> None:
    assert eye.look().error is None
    fake_nvml.change(L4.uuid, errors={symbol: code})
    error = eye.look().error
    assert error is not None
    assert error.code == code
    fake_nvml.change(L4.uuid, errors={})
    assert eye.look().error is None, "it looks anew"


def test_a_card_that_is_not_shown_any_more_is_an_error(fake_nvml: FakeNvml, eye: GpuHealthEye) -> None:
    fake_nvml.describe([OTHER])
    assert eye.look().error == DriverError(code=6, words="Not Found")


def test_a_driver_that_is_gone_is_an_error(
    fake_nvml: FakeNvml, eye: GpuHealthEye, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("FAKE_NVML_CONFIG")
    error = eye.look().error
    assert error is not None
    assert error.code == DRIVER_NOT_LOADED


@pytest.mark.parametrize("lost", [(L4,), (L4, OTHER)])
def test_unknown_errors_are_the_containers_when_every_card_gives_them(
    fake_nvml: FakeNvml, eye: GpuHealthEye, lost: tuple[FakeGpu, ...]
) -> None:
    eye.look()
    for gpu in lost:
        fake_nvml.change(gpu.uuid, errors={"*": UNKNOWN_ERROR})
    reading = eye.look()
    assert reading.error is not None
    assert reading.all_gpus_lost is (len(lost) == 2)


def test_an_unknown_error_of_the_library_is_the_containers(fake_nvml: FakeNvml, eye: GpuHealthEye) -> None:
    fake_nvml.describe([L4], errors={"nvmlInitWithFlags": UNKNOWN_ERROR})
    assert eye.look().all_gpus_lost


def test_a_device_file_that_may_not_be_opened_any_more_is_the_containers(
    fake_nvml: FakeNvml, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was open works on, so NVML still answers; cgroup rules are checked when a file is opened."""
    fake_nvml.describe([L4, OTHER])
    node = tmp_path / "nvidiactl"
    node.touch()
    eye = GpuHealthEye(IDENTITY, control_node=node)
    real_open = os.open

    def forbidden(path: object, *arguments: int, **keywords: int) -> int:
        if path == node:
            raise PermissionError(1, "Operation not permitted", str(node))
        return real_open(path, *arguments, **keywords)  # type: ignore[arg-type]

    assert eye.look().error is None
    monkeypatch.setattr(os, "open", forbidden)
    assert eye.look() == Reading(all_gpus_lost=True)
    never_permitted = GpuHealthEye(IDENTITY, control_node=node)
    assert never_permitted.look().error is None, "who never might open it knows nothing by that"
    never_permitted.close()
    monkeypatch.undo()
    monkeypatch.setenv("FAKE_NVML_CONFIG", str(fake_nvml.config_path))
    assert eye.look().error is None
    eye.close()


def test_errors_that_the_driver_reports_are_heard_in_order_and_only_of_ones_own_card(
    fake_nvml: FakeNvml, eye: GpuHealthEye
) -> None:
    fake_nvml.report(L4.uuid, 13)
    eye.look()
    assert eye.wait(0) == (), "older than the watch"
    fake_nvml.report(L4.uuid, 47)
    fake_nvml.report(OTHER.uuid, 79)
    fake_nvml.report(L4.uuid, 45)
    assert eye.wait(5) == (47, 45)
    assert eye.wait(0) == ()


def test_a_card_that_falls_off_the_bus_is_heard_once_and_then_seen(fake_nvml: FakeNvml, eye: GpuHealthEye) -> None:
    eye.look()
    fake_nvml.fall_off_the_bus(L4.uuid)
    assert eye.wait(5) == (79,)
    assert eye.wait(5) is None, "it cannot be listened to, and does not wait"
    assert eye.look().error == DriverError(code=15, words="GPU is lost")


def test_a_card_that_reports_nothing_is_only_looked_at(fake_nvml: FakeNvml, eye: GpuHealthEye) -> None:
    fake_nvml.change(L4.uuid, supported_events=0)
    assert eye.look().error is None
    assert eye.wait(5) is None


def test_after_it_was_let_go_it_looks_and_listens_anew(fake_nvml: FakeNvml, eye: GpuHealthEye) -> None:
    eye.look()
    eye.close()
    eye.close()
    assert eye.wait(5) is None
    assert eye.look().error is None
    fake_nvml.report(L4.uuid, 31)
    assert eye.wait(5) == (31,)
