"""What policies know of what sessions take of devices: the same as if each had been asked anew."""

from __future__ import annotations

from dataclasses import replace

from domain.devices import encode, gpu, ladder, workload

from balancer.domain.decision import PlacementSettings, Refusal
from balancer.domain.demand import demand_on
from balancer.domain.policies.demands import KEPT_WORKLOADS, Demands
from balancer.domain.workload import CostFactors

USUAL = CostFactors()


def test_devices_of_a_class_are_asked_once_and_others_each() -> None:
    demands, asked = Demands(), ladder()
    one, like_it, other = gpu(device_id="GPU-1"), gpu(device_id="GPU-2"), gpu("Tesla T4", device_id="GPU-3")
    assert demands.of(asked, one) == demand_on(asked, one, USUAL)
    assert demands.of(asked, like_it) is demands.of(asked, one)
    assert demands.of(asked, other) == demand_on(asked, other, USUAL) != demands.of(asked, one)


def test_what_a_device_cannot_do_is_known_too() -> None:
    demands, too_large = Demands(), workload(encode(2160, size=(16_384, 2160)))
    refusal = demands.of(too_large, gpu())
    assert isinstance(refusal, Refusal)
    assert refusal.rule == "RESOLUTION"


def test_a_stream_too_fast_for_an_engine_is_refused_as_when_it_is_placed() -> None:
    too_fast, view = workload(encode(2160, frames_per_second=480)), gpu()
    demands = Demands()
    refusal = demands.of(too_fast, view)
    assert isinstance(refusal, Refusal)
    assert (refusal.rule, refusal.permanent) == ("CAPACITY", True)
    assert not isinstance(demands.of(replace(too_fast, real_time=False), view), Refusal), (
        "files are as fast as they can"
    )
    demands.on_settings(PlacementSettings(admission=False))
    assert not isinstance(demands.of(too_fast, view), Refusal)


def test_factors_and_devices_that_change_are_heard() -> None:
    demands, asked = Demands(), ladder()
    before = demands.of(asked, gpu())
    factors = CostFactors(decode=2 * USUAL.decode, scale=2 * USUAL.scale, encode=2 * USUAL.encode)
    demands.on_settings(PlacementSettings(factors=factors))
    after = demands.of(asked, gpu())
    assert not isinstance(before, Refusal)
    assert not isinstance(after, Refusal)
    assert after.cost_pixels_per_second == 2 * before.cost_pixels_per_second
    demands.on_devices()
    assert demands.of(asked, gpu("Tesla T4")) == demand_on(asked, gpu("Tesla T4"), factors) != after


def test_it_keeps_no_more_workloads_than_it_says() -> None:
    demands, view = Demands(), gpu()
    first = workload(encode(360))
    known = demands.of(first, view)
    for number in range(KEPT_WORKLOADS):
        demands.of(workload(encode(360, frames_per_second=number + 31)), view)
    assert demands.of(first, view) == known
    assert demands.of(first, view) is not known
