"""A decision comes back from its line as it was, whatever is in it, and a line of another version is told as one."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from fractions import Fraction

import pytest
from domain.devices import cpu, gpu
from hypothesis import given, settings
from hypothesis import strategies as st

from balancer.decision_text import (
    BEST_VERDICTS,
    MAX_VERDICTS,
    UnreadableDecision,
    decision_from_text,
    decision_to_text,
    shortened,
)
from balancer.domain.decision import Decision, OmittedVerdicts, PlacementSettings, Refusal, Reservation, Verdict
from balancer.domain.device import Dimension
from balancer.domain.ids import DeviceId, SessionId
from balancer.domain.ledger import Ledger
from balancer.domain.placement import place
from balancer.domain.policies import LeastWeightedLoad
from balancer.domain.workload import CaptureTask, DecodeTask, EncodeTask, EncodingSpeed, VideoCodec, Workload
from fakes.session_records import LADDER
from fakes.virtual_time import START_TIME

texts = st.text(max_size=20)
figures = st.integers(-(2**40), 2**70)
device_ids = texts.map(DeviceId)
dimensions = st.sampled_from(list(Dimension))
amounts = st.dictionaries(dimensions, figures, max_size=3)
tasks = {"codec": st.sampled_from(list(VideoCodec)), "width": figures, "height": figures, "bit_depth": figures}
workloads = st.builds(
    Workload,
    decode=st.none() | st.builds(DecodeTask, **tasks, chroma=st.none() | texts, pixels_per_second=figures),
    scale_pixels_per_second=figures,
    encodes=st.lists(
        st.builds(EncodeTask, **tasks, speed=st.sampled_from(list(EncodingSpeed)), pixels_per_second=figures),
        max_size=3,
    ).map(tuple),
    real_time=st.booleans(),
    allow_software_encode=st.booleans(),
    reserved_speed=st.none() | st.fractions(min_value=Fraction(1, 100), max_value=1000),
    capture=st.none()
    | st.builds(
        CaptureTask,
        width=figures,
        height=figures,
        pixels_per_second=figures,
        browser=st.booleans(),
        sound=st.booleans(),
        application=st.none() | texts,
    ),
    upload_bits_per_second=figures,
)
refusals = st.builds(
    Refusal,
    rule=texts,
    message=texts,
    dimension=st.none() | dimensions,
    needed=st.none() | figures,
    available=st.none() | figures,
    permanent=st.booleans(),
)
needs_and_used = st.lists(st.tuples(dimensions, figures, figures, figures), max_size=3)


@st.composite
def verdicts(draw: st.DrawFn) -> Verdict:
    device, host = draw(needs_and_used), draw(needs_and_used)
    return Verdict(
        device_id=draw(device_ids),
        weight=draw(figures),
        session_count=draw(figures),
        weighted_load_before=draw(st.none() | figures),
        score=draw(st.none() | figures),
        refusal=draw(st.none() | refusals),
        device_needs=tuple((dimension, needed, bookable) for dimension, needed, bookable, _ in device),
        device_used=tuple(used for *_, used in device),
        host_needs=tuple((dimension, needed, bookable) for dimension, needed, bookable, _ in host),
        host_used=tuple(used for *_, used in host),
    )


decisions = st.builds(
    Decision,
    device_id=st.none() | device_ids,
    policy=texts,
    workload=workloads,
    cost_pixels_per_second=figures,
    verdicts=st.lists(verdicts(), max_size=4).map(tuple),
    settings_version=figures,
    reservation=st.none()
    | st.builds(
        Reservation,
        device_id=device_ids,
        cost_pixels_per_second=figures,
        device_amounts=amounts,
        host_amounts=amounts,
        firm_device_amounts=st.none() | amounts,
        firm_host_amounts=st.none() | amounts,
    ),
    omitted=st.lists(st.builds(OmittedVerdicts, rule=st.none() | texts, device_count=figures), max_size=3).map(tuple),
    policy_fault=texts,
    preempted=st.lists(texts.map(SessionId), max_size=3).map(tuple),
)
instants = st.datetimes(timezones=st.just(UTC))


@given(decisions, st.integers(0, 2**31), instants)
def test_a_decision_comes_back_as_it_was(decision: Decision, attempt: int, decision_time: datetime) -> None:
    line = decision_to_text(decision, attempt=attempt, decision_time=decision_time)
    assert line.splitlines() == [line]
    assert decision_from_text(line) == (decision, attempt, decision_time)


def placed(*views: object, ledger: Ledger | None = None) -> Decision:
    settings = PlacementSettings(version=3)
    return place(LADDER, views, ledger or Ledger(), LeastWeightedLoad(), settings, {Dimension.CORES: 64_000_000})  # type: ignore[arg-type]


def test_a_real_decision_over_unequal_devices_comes_back_as_it_was() -> None:
    decision = placed(gpu(), cpu(1), gpu("Tesla T4", "GPU-2", weight=0), gpu("NVIDIA A100", "GPU-3"))
    line = decision_to_text(decision, attempt=1, decision_time=START_TIME)
    assert decision.device_id == "GPU-1"
    assert decision_from_text(line) == (decision, 1, START_TIME)


def test_devices_of_one_kind_share_what_a_session_needs_of_them() -> None:
    line = decision_to_text(
        placed(*(gpu(device_id=f"GPU-{number}") for number in range(8))), attempt=1, decision_time=START_TIME
    )
    assert len(json.loads(line)["needs"]) == 1


def many(scores: list[int | None], chosen: int | None, rules: str = "CAPACITY") -> Decision:
    """Makes a decision over devices with these scores; those without refuse."""
    return replace(
        placed(gpu()),
        device_id=None if chosen is None else DeviceId(f"GPU-{chosen}"),
        verdicts=tuple(
            Verdict(
                device_id=DeviceId(f"GPU-{number}"),
                weight=100,
                session_count=0,
                weighted_load_before=0,
                score=score,
                refusal=None
                if score is not None
                else Refusal(rule=rules.split()[number % len(rules.split())], message=""),
            )
            for number, score in enumerate(scores)
        ),
    )


def numbers(decision: Decision) -> list[int]:
    return [int(verdict.device_id.removeprefix("GPU-")) for verdict in decision.verdicts]


def test_of_very_many_devices_the_chosen_and_the_best_are_kept_and_the_others_counted() -> None:
    decision = many([*range(1000, 900, -1), *[None] * 50], chosen=0)
    kept, _, _ = decision_from_text(decision_to_text(decision, attempt=1, decision_time=START_TIME))
    assert numbers(kept) == [0, *range(100 - BEST_VERDICTS, 100)]
    assert kept.omitted == (
        OmittedVerdicts(rule=None, device_count=99 - BEST_VERDICTS),
        OmittedVerdicts(rule="CAPACITY", device_count=50),
    )
    assert kept == shortened(decision)


def test_where_all_refuse_one_of_each_rule_is_kept() -> None:
    kept = shortened(many([None] * 99, chosen=None, rules=" ".join(["CAPACITY"] * 98 + ["NOT_READY"])))
    assert numbers(kept) == [*range(BEST_VERDICTS - 1), 98]
    assert kept.omitted == (OmittedVerdicts(rule="CAPACITY", device_count=99 - BEST_VERDICTS),)


@settings(max_examples=40)
@given(st.lists(st.none() | st.integers(0, 9), min_size=MAX_VERDICTS + 1, max_size=100), st.integers(0, 300))
def test_shortening_loses_no_device_and_not_the_chosen_one(scores: list[int | None], chosen: int) -> None:
    eligible = [number for number, score in enumerate(scores) if score is not None]
    picked = eligible[chosen % len(eligible)] if eligible else None
    before = replace(many(scores, picked), omitted=(OmittedVerdicts(rule="CAPACITY", device_count=7),))
    after = shortened(before)
    assert len(after.verdicts) in (BEST_VERDICTS, BEST_VERDICTS + 1)
    assert len(after.verdicts) + sum(one.device_count for one in after.omitted) == len(scores) + 7
    assert picked is None or picked in numbers(after)
    assert numbers(after) == sorted(numbers(after))


def test_a_line_of_another_version_is_told_as_one() -> None:
    line = decision_to_text(placed(gpu()), attempt=1, decision_time=START_TIME)
    with pytest.raises(UnreadableDecision, match="version 2"):
        decision_from_text(line.replace('{"v":1', '{"v":2'))
    assert decision_from_text(line.replace('{"v":1', '{"later":[],"v":1'))[0] == placed(gpu())


@pytest.mark.parametrize(
    "line",
    [
        "",
        "{}",
        "[]",
        "7",
        "null",
        '{"v":1}',
        '{"v":1,"workload":[],"needs":[],"decision":[]}',
        "[" * 100_000,
        '{"v":1,',
    ],
)
def test_a_damaged_line_is_told_as_one(line: str) -> None:
    with pytest.raises(UnreadableDecision):
        decision_from_text(line)


@given(st.data())
def test_no_damage_is_anything_but_told(data: st.DataObject) -> None:
    line = decision_to_text(placed(gpu(), cpu()), attempt=1, decision_time=START_TIME + timedelta(days=1))
    begin = data.draw(st.integers(0, len(line)))
    damaged = line[:begin] + data.draw(st.text(max_size=3)) + line[begin + data.draw(st.integers(0, 3)) :]
    try:
        decision_from_text(damaged)
    except UnreadableDecision:
        return
