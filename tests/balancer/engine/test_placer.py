"""Whatever changes about devices or settings, the very next decision is made by it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction

import pytest
from domain.devices import cpu, encode, workload
from hypothesis import given, settings
from hypothesis import strategies as st

from balancer.adapters.policy_plugins import load_policy
from balancer.device_registry import DeviceRegistry, DeviceRule
from balancer.domain.capacity import CapacityOverride, capacity_of_host
from balancer.domain.decision import Decision, PlacementSettings
from balancer.domain.device import Capability, DeviceIdentity, DeviceKind, DeviceView, Dimension, Direction
from balancer.domain.ids import DeviceId, SessionId
from balancer.domain.ledger import Ledger
from balancer.domain.policies import LeastWeightedLoad
from balancer.domain.workload import CostFactors, VideoCodec, Workload
from balancer.placer import PlacementRules, Placer
from balancer.ports.agent_client import AgentReport
from fakes.session_records import LADDER

ONE, TWO = DeviceId("cpu-1"), DeviceId("cpu-2")
RULES = PlacementRules(policy=LeastWeightedLoad(), settings=PlacementSettings(), host_capacity={})


def tell(registry: DeviceRegistry, device_id: DeviceId, *, codecs: tuple[VideoCodec, ...] = (VideoCodec.H264,)) -> None:
    """Has a device's agent report what it can encode."""
    capabilities = tuple(
        Capability(
            codec=codec, direction=Direction.ENCODE, bit_depth=8, works=True, hardware=False, implementation=codec
        )
        for codec in codecs
    )
    registry.update_agent(
        AgentReport(
            incarnation="one",
            version="0",
            process_id=1,
            identity=DeviceIdentity(id=device_id, kind=DeviceKind.CPU, model="a test", cores=tuple(range(1000))),
            ffmpeg_builds=(),
            capabilities=capabilities,
            probed=True,
            fault_message="",
            last_event_number=0,
        )
    )


def two_devices() -> DeviceRegistry:
    registry = DeviceRegistry()
    tell(registry, ONE)
    tell(registry, TWO)
    return registry


def rules_of(decision: Decision) -> list[str | None]:
    """Gives the rule by which each device refused."""
    return [verdict.refusal.rule if verdict.refusal else None for verdict in decision.verdicts]


def test_another_weight_holds_for_the_next_decision() -> None:
    registry = two_devices()
    placer = Placer(RULES, registry, Ledger())
    assert placer.consider(LADDER).device_id == ONE
    registry.set_weight(TWO, 500)
    decision = placer.consider(LADDER)
    assert decision.device_id == TWO
    assert [verdict.weight for verdict in decision.verdicts] == [100, 500]
    registry.set_weight(TWO, 0)
    assert rules_of(placer.consider(LADDER)) == [None, "WEIGHT_ZERO"]


def test_what_a_device_can_do_since_it_was_probed_again_holds_for_the_next_decision() -> None:
    registry = two_devices()
    placer = Placer(RULES, registry, Ledger())
    assert rules_of(placer.consider(LADDER)) == [None, None]
    tell(registry, ONE, codecs=())
    assert rules_of(placer.consider(LADDER)) == ["CAPABILITY", None]
    tell(registry, ONE)
    assert rules_of(placer.consider(LADDER)) == [None, None]


SIZES = (
    workload(encode(360)),
    workload(encode(720)),
    workload(encode(2160)),
    workload(encode(8640, size=(15360, 8640))),
)


class UnlikeDevices:
    """Three of two sizes."""

    def __init__(self) -> None:
        self._views = tuple(cpu(2 + 4 * (number % 2), f"cpu-{number}", weight=100 - 30 * number) for number in range(3))

    def views(self) -> Sequence[DeviceView]:
        return self._views


@pytest.mark.parametrize("admission", [True, False])
@pytest.mark.parametrize("name", ["least_weighted_load", "adaptive", "dominant_resource", "best_fit"])
@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(SIZES), st.booleans()), max_size=30))
def test_a_plan_is_what_a_placement_does_whatever_was_before(
    name: str, admission: bool, steps: list[tuple[Workload, bool]]
) -> None:
    rules = PlacementRules(
        policy=load_policy(name), settings=PlacementSettings(admission=admission), host_capacity=capacity_of_host(10)
    )
    placer = Placer(rules, UnlikeDevices(), Ledger())
    live: list[SessionId] = []
    for number, (asked, one_ends) in enumerate(steps):
        if one_ends and live:
            placer.ledger.release(live[0])
            placer.ended(live.pop(0))
        plan = placer.consider(asked)
        session_id = SessionId(f"s{number}")
        decision = placer.place(session_id, asked)
        assert (decision.device_id, decision.verdicts) == (plan.device_id, plan.verdicts)
        if decision.reservation is not None:
            placer.ledger.book(session_id, decision.reservation)
            live.append(session_id)


def test_another_state_holds_for_the_next_decision() -> None:
    registry = two_devices()
    placer = Placer(RULES, registry, Ledger())
    placer.consider(LADDER)
    registry.set_cordoned(ONE, cordoned=True)
    assert rules_of(placer.consider(LADDER)) == ["NOT_READY", None]
    registry.set_cordoned(ONE, cordoned=False)
    registry.mark_unreachable(TWO, "It is silent.")
    assert rules_of(placer.consider(LADDER)) == [None, "NOT_READY"]


def test_a_device_that_joins_is_offered_to_the_next_session() -> None:
    registry = DeviceRegistry()
    placer = Placer(RULES, registry, Ledger())
    assert placer.consider(LADDER).verdicts == ()
    tell(registry, ONE)
    assert placer.consider(LADDER).device_id == ONE


def test_another_capacity_from_the_settings_holds_for_the_next_decision() -> None:
    registry = two_devices()
    placer = Placer(RULES, registry, Ledger())
    placer.consider(LADDER)
    tiny = CapacityOverride(memory_mib=1)
    registry.apply_rules([DeviceRule(kind=DeviceKind.CPU, match=ONE, override=tiny)])
    assert rules_of(placer.consider(LADDER)) == ["CAPACITY", None]


def test_settings_that_are_read_again_hold_for_the_next_decision() -> None:
    registry = two_devices()
    placer = Placer(RULES, registry, Ledger())
    cost = placer.consider(LADDER).cost_pixels_per_second
    dearer = PlacementSettings(factors=CostFactors(decode=10, scale=10, encode=50), version=2)
    placer.use(replace(RULES, settings=dearer), [])
    decision = placer.consider(LADDER)
    assert decision.cost_pixels_per_second == 10 * cost
    assert decision.settings_version == 2
    placer.use(replace(RULES, settings=PlacementSettings(headroom=Fraction(1, 10**6), version=3)), [])
    assert rules_of(placer.consider(LADDER)) == ["CAPACITY", "CAPACITY"]
    placer.use(replace(RULES, host_capacity={Dimension.CORES: 1}), [])
    assert rules_of(placer.consider(LADDER)) == ["HOST_CAPACITY", "HOST_CAPACITY"]


def test_what_is_booked_counts_for_the_next_decision() -> None:
    ledger = Ledger()
    placer = Placer(RULES, two_devices(), ledger)
    first = placer.place(SessionId("first"), LADDER)
    assert first.reservation is not None
    ledger.book(SessionId("first"), first.reservation)
    second = placer.place(SessionId("second"), LADDER)
    assert [first.device_id, second.device_id] == [ONE, TWO]
    assert [verdict.session_count for verdict in second.verdicts] == [1, 0]
