"""The registry: who is meant by a name, which weight holds, what watchers see."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from balancer.device_registry import DeviceRegistry, DeviceRule
from balancer.domain.device import (
    DeviceIdentity,
    DeviceKind,
    DeviceState,
    FigureSource,
    RecordingAbility,
    SoundTiming,
)
from balancer.domain.drain import DeviceDrain, DrainMode
from balancer.domain.ids import DeviceId
from balancer.domain.quarantine import Quarantine
from balancer.ports.agent_client import AgentReport, Measurements
from gpu_balancer.runtime.failures import Reason, RequestFailure

L4 = DeviceIdentity(
    id=DeviceId("GPU-1111aaaa-0000"),
    kind=DeviceKind.NVIDIA,
    model="NVIDIA L4",
    architecture="Ada",
    pci_address="00000000:65:00.0",
    index=0,
    memory_total_mib=23034,
    encoder_engines=2,
    decoder_engines=4,
    table_model="L4",
)
T4 = DeviceIdentity(
    id=DeviceId("GPU-2222bbbb-0000"),
    kind=DeviceKind.NVIDIA,
    model="Tesla T4",
    architecture="Turing",
    pci_address="00000001:03:00.0",
    index=1,
    memory_total_mib=15360,
    encoder_engines=1,
    decoder_engines=2,
    table_model="Tesla T4",
)


def report(identity: DeviceIdentity, *, probed: bool = True, fault: str = "") -> AgentReport:
    return AgentReport(
        incarnation="one",
        version="0",
        process_id=1,
        identity=identity,
        ffmpeg_builds=(),
        capabilities=(),
        probed=probed,
        fault_message=fault,
        last_event_number=0,
    )


def test_what_was_said_of_a_device_holds_whatever_else_its_agent_knows_of_it() -> None:
    """A driver that was updated must not open what an operator closed, nor clear a quarantine."""
    registry = registry_of()
    registry.set_cordoned(L4.id, cordoned=True)
    quarantine = Quarantine(failure_count=2, probe_s=1.0, message="It is lost.")
    registry.set_quarantine(T4.id, quarantine, None)
    registry.update_agent(report(replace(L4, driver_version="999")))
    registry.update_agent(report(replace(T4, driver_version="999")))
    states = {entry.identity.id: entry.state for entry in registry.entries()}
    assert states == {L4.id: DeviceState.CORDONED, T4.id: DeviceState.UNHEALTHY}


def test_a_device_that_was_closed_before_it_is_here_comes_closed() -> None:
    """As after a restart, when the store is read before any agent answers."""
    registry = DeviceRegistry()
    drain = DeviceDrain(mode=DrainMode.WAIT, start_time=datetime(2030, 1, 1, tzinfo=UTC), session_count=1, message="1!")
    registry.set_drain(L4.id, drain)
    registry.set_cordoned(T4.id, cordoned=True)
    for identity in (L4, T4):
        registry.expect(identity)
        registry.update_agent(report(identity))
    told = {entry.identity.id: (entry.state, entry.state_message) for entry in registry.entries()}
    assert told[L4.id] == (DeviceState.DRAINING, "1!")
    assert told[T4.id] == (DeviceState.CORDONED, "Closed to new sessions by an operator.")
    registry.set_cordoned(L4.id, cordoned=True)
    assert registry.find("0").drain == drain, "closing it once more ends nothing"
    registry.set_cordoned(L4.id, cordoned=False)
    assert (registry.find("0").state, registry.find("0").drain) == (DeviceState.READY, None)


def registry_of(*rules: DeviceRule) -> DeviceRegistry:
    registry = DeviceRegistry(rules)
    for identity in (L4, T4):
        registry.expect(identity)
        registry.update_agent(report(identity))
    return registry


@pytest.mark.parametrize("name", ["devices/GPU-1111aaaa-0000", "GPU-1111", "0", "65:00.0", "0000:65:00.0", "gpu-1111"])
def test_a_device_is_found_by_what_people_call_it(name: str) -> None:
    assert registry_of().find(name).identity is L4


def test_a_name_that_fits_several_devices_or_none_is_refused_with_the_names() -> None:
    with pytest.raises(RequestFailure, match="GPU-1111aaaa-0000, GPU-2222bbbb-0000") as several:
        registry_of().find("GPU-")
    assert several.value.reason is Reason.DEVICE_AMBIGUOUS
    with pytest.raises(RequestFailure, match="GPU-1111aaaa-0000") as none:
        registry_of().find("7")
    assert none.value.reason is Reason.DEVICE_NOT_FOUND


@pytest.mark.parametrize("match", ["GPU-1111*", "0", "65:00.0", "0000:65:00.0", "*L4", "L4", "nvidia l4"])
def test_a_rule_matches_by_uuid_index_pci_address_or_model(match: str) -> None:
    registry = registry_of(DeviceRule(kind=DeviceKind.NVIDIA, match=match, weight=40))
    found = {entry.identity.id: (entry.weight, entry.weight_source) for entry in registry.entries()}
    assert found[L4.id] == (40, FigureSource.SETTINGS)
    assert found[T4.id][1] is FigureSource.CAPACITY


def test_weights_follow_from_capacity_when_nobody_says_and_the_best_has_100() -> None:
    weights = {entry.identity.id: entry.weight for entry in registry_of().entries()}
    assert weights[L4.id] == 100
    assert 0 < weights[T4.id] < 100


def test_a_weight_set_by_hand_holds_until_the_settings_are_applied_again() -> None:
    registry = registry_of(DeviceRule(kind=DeviceKind.NVIDIA, match="*L4", weight=80))
    assert registry.set_weight(L4.id, 10).weight_source is FigureSource.OPERATOR
    registry.update_agent(report(L4))
    assert registry.find("0").weight == 10
    registry.apply_rules([DeviceRule(kind=DeviceKind.NVIDIA, match="*L4", weight=70)])
    assert registry.find("0").weight == 70


def test_the_last_weight_cannot_be_set_to_zero() -> None:
    registry = registry_of()
    registry.set_weight(L4.id, 0)
    with pytest.raises(RequestFailure, match="cordon"):
        registry.set_weight(T4.id, 0)


def test_the_most_serious_hindrance_is_the_state() -> None:
    registry = DeviceRegistry()
    registry.expect(L4)
    assert registry.find("0").state is DeviceState.PROBING
    registry.update_agent(report(L4, probed=False))
    assert registry.find("0").state is DeviceState.PROBING
    registry.update_agent(report(L4))
    assert registry.find("0").state is DeviceState.READY
    registry.set_cordoned(L4.id, cordoned=True)
    assert registry.find("0").state is DeviceState.CORDONED
    registry.update_agent(report(L4, fault="it fell off the bus"))
    assert registry.find("0").state is DeviceState.UNHEALTHY
    registry.mark_unreachable(L4.id, "silent for 10 s")
    assert registry.find("0").state is DeviceState.UNREACHABLE
    assert registry.find("0").state_message == "silent for 10 s"
    registry.mark_reachable(L4.id)
    assert registry.find("0").state_message == "it fell off the bus"


def test_measurements_change_nothing_that_placement_looks_at() -> None:
    registry = registry_of()
    views = registry.views()
    registry.update_measurements(L4.id, Measurements(encoder_utilization_percent=50))
    assert registry.views() is views
    registry.set_weight(L4.id, 50)
    assert registry.views() is not views


async def test_what_is_measured_of_sound_is_told_at_once_where_something_is_recorded() -> None:
    registry = registry_of()
    registry.update_agent(replace(report(L4), recording=RecordingAbility(available=True, display_count=3)))
    changes = registry.watch()
    before = {entry.identity.id: entry.revision for entry in (await anext(changes), await anext(changes))}
    timing = SoundTiming(delay=timedelta(milliseconds=16), delay_source="calibration")
    registry.set_sound_timing(T4.id, timing)
    registry.set_sound_timing(L4.id, timing)
    changed = await anext(changes)
    assert (changed.identity.id, changed.revision) == (L4.id, before[L4.id] + 1)
    assert changed.recording == RecordingAbility(available=True, display_count=3, sound_timing=timing)
    assert registry.find(T4.id).recording is None
    await changes.aclose()  # type: ignore[attr-defined]


async def test_a_slow_watcher_gets_the_latest_state_of_each_changed_device() -> None:
    registry = registry_of()
    changes = registry.watch()
    assert [(await anext(changes)).identity.id, (await anext(changes)).identity.id] == [L4.id, T4.id]
    waiting = asyncio.get_running_loop().create_task(anext(changes))  # type: ignore[arg-type]
    await asyncio.sleep(0)
    for weight in range(1, 20):
        registry.set_weight(T4.id, weight)
    assert (await waiting).weight in {1, 19}
    registry.set_cordoned(T4.id, cordoned=True)
    latest = await anext(changes)
    assert (latest.weight, latest.cordoned) == (19, True)
    await changes.aclose()  # type: ignore[attr-defined]
