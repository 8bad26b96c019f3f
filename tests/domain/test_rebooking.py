"""What is booked for a recording once it was seen what it takes."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
from domain.devices import cpu, gpu
from domain.recordings import recorder, recording

from balancer.domain.decision import Reservation
from balancer.domain.demand import Demand, demand_on
from balancer.domain.device import Dimension
from balancer.domain.rebooking import rebooked
from balancer.domain.session import MeasuredUse
from balancer.domain.workload import CostFactors


def booked(demand: Demand) -> Reservation:
    return Reservation(
        device_id=cpu().id,
        cost_pixels_per_second=demand.cost_pixels_per_second,
        device_amounts=demand.device_amounts,
        host_amounts=demand.host_amounts,
        capture_amounts=demand.capture_amounts,
    )


def on_cpu() -> Reservation:
    demand = demand_on(recording(), recorder(cpu(2)), CostFactors())
    assert isinstance(demand, Demand)
    return booked(demand)


def on_gpu() -> Reservation:
    demand = demand_on(recording(), recorder(gpu()), CostFactors())
    assert isinstance(demand, Demand)
    return booked(demand)


def use(cores: float, memory_mib: int = 600) -> MeasuredUse:
    return MeasuredUse(cores=round(cores * 1_000_000), memory_mib=memory_mib, measured_time=timedelta(seconds=15))


def test_what_a_heavy_page_takes_is_booked_on_host_and_cpu_device() -> None:
    after = rebooked(on_cpu(), use(1.7, 1500))
    for amounts in (after.host_amounts, after.device_amounts):
        assert amounts[Dimension.CORES] == 1_700_000
        assert amounts[Dimension.MEMORY] == 1500
    assert after.device_amounts[Dimension.DISPLAYS] == 1


def test_a_page_that_stands_still_keeps_what_encoding_needs_when_it_moves() -> None:
    before = on_cpu()
    assert before.capture_amounts is not None
    encoding = before.host_amounts[Dimension.CORES] - before.capture_amounts[Dimension.CORES]
    after = rebooked(before, use(0.05, 300))
    assert after.host_amounts[Dimension.CORES] == after.device_amounts[Dimension.CORES] == encoding > 50_000
    again = rebooked(after, use(0.9, 700))
    assert again.host_amounts[Dimension.CORES] == 900_000
    assert again == rebooked(before, use(0.9, 700))


def test_the_engines_of_a_gpu_are_booked_as_they_were() -> None:
    before = on_gpu()
    after = rebooked(before, use(0.3, 900))
    assert after.device_amounts == before.device_amounts
    assert dict(after.host_amounts) == {**before.host_amounts, Dimension.CORES: 300_000, Dimension.MEMORY: 900}
    assert after.cost_pixels_per_second == before.cost_pixels_per_second


@pytest.mark.parametrize("share", [0.91, 1.0, 1.09])
def test_small_differences_are_left_as_they_are(share: float) -> None:
    before = on_cpu()
    cores = before.host_amounts[Dimension.CORES] * share / 1_000_000
    assert rebooked(before, use(cores, before.host_amounts[Dimension.MEMORY])) is before


def test_never_is_less_booked_than_was_measured() -> None:
    before = on_cpu()
    memory = before.host_amounts[Dimension.MEMORY] * 105 // 100
    after = rebooked(before, use(0.2, memory))
    assert after.host_amounts[Dimension.MEMORY] == memory


def test_transcodes_were_no_guess() -> None:
    before = replace(on_cpu(), capture_amounts=None)
    assert rebooked(before, use(1.9, 3000)) is before
