"""What a recording takes of devices and hosts, and which devices cannot make it however empty they are."""

from __future__ import annotations

from dataclasses import replace

import pytest
from domain.devices import cpu, encode, gpu, ladder, workload
from domain.recordings import ABILITY, capture, recorder, recording

from balancer.domain.capacity import capacity_of_host
from balancer.domain.decision import Decision, PlacementSettings, Refusal
from balancer.domain.demand import Demand, demand_on
from balancer.domain.device import DeviceView, Dimension, RecordingAbility
from balancer.domain.ids import SessionId
from balancer.domain.ledger import Ledger
from balancer.domain.placement import place
from balancer.domain.policies import LeastWeightedLoad
from balancer.domain.workload import CostFactors, EncodingSpeed, SessionKind, Workload


def taken(work: Workload, view: DeviceView) -> Demand:
    demand = demand_on(work, view, CostFactors())
    assert isinstance(demand, Demand)
    return demand


def placed(work: Workload, view: DeviceView, ledger: Ledger, **host: int) -> Decision:
    """Decides, and books what was placed."""
    capacity = capacity_of_host(host.pop("cores", 2), **host)
    decision = place(work, [view], ledger, LeastWeightedLoad(), PlacementSettings(), capacity)
    if decision.reservation is not None:
        ledger.book(SessionId(f"s{ledger.session_count(view.id)}"), decision.reservation)
    return decision


def refusal_of(decision: Decision) -> Refusal:
    refusal = decision.verdicts[0].refusal
    assert refusal is not None
    return refusal


def test_two_cores_hold_one_recording_and_refuse_a_second() -> None:
    ledger, view = Ledger(), recorder(cpu(2))
    assert placed(recording(), view, ledger).device_id == view.id
    refusal = refusal_of(placed(recording(), view, ledger))
    assert (refusal.rule, refusal.dimension, refusal.permanent) == ("CAPACITY", Dimension.CORES, False)


def test_two_cores_hold_a_recording_in_full_hd() -> None:
    assert placed(recording(1080), recorder(cpu(2)), Ledger()).device_id is not None


def test_the_figures_are_those_of_the_document() -> None:
    """docs/placement.md has the formulae and what they give."""
    demand = taken(recording(), recorder(cpu(2)))
    cores = 530_000 + -(-27_648_000 // 132) + -(-27_648_000 // 1240) + -(-27_648_000 // 188) + 30_000
    assert demand.capture_amounts is not None
    assert demand.capture_amounts[Dimension.CORES] == pytest.approx(cores, abs=3)
    assert demand.capture_amounts[Dimension.MEMORY] == 580 + -(-1280 * 720 * 64 // 2**20)
    assert demand.host_amounts[Dimension.CORES] == pytest.approx(1_084_000, abs=1_000)
    assert demand.host_amounts == {key: demand.device_amounts[key] for key in demand.host_amounts}
    assert demand.device_amounts[Dimension.DISPLAYS] == 1
    assert taken(recording(1080), recorder(cpu(2))).host_amounts[Dimension.CORES] == pytest.approx(1_740_000, abs=2_000)


def test_fewer_pictures_spare_the_browser_nothing_and_no_sound_a_little() -> None:
    view = recorder(cpu(2))
    usual = taken(recording(), view).host_amounts[Dimension.CORES]
    slow = replace(recording(), capture=capture(frames_per_second=1))
    still = taken(slow, view).host_amounts[Dimension.CORES]
    assert 0.8 * usual < still < usual
    silent = replace(recording(), capture=capture(sound=False))
    assert taken(silent, view).host_amounts[Dimension.CORES] == usual - 30_000


def test_what_keeps_cores_busy_counts_in_a_cpu_devices_load() -> None:
    view = recorder(cpu(2))
    with_display, without = taken(recording(), view), taken(workload(encode(720, speed=EncodingSpeed.FASTEST)), view)
    ratio = with_display.cost_pixels_per_second / without.cost_pixels_per_second
    cores = with_display.device_amounts[Dimension.CORES] / without.device_amounts[Dimension.CORES]
    assert ratio == pytest.approx(cores, rel=0.01)


def test_a_gpu_encodes_while_its_hosts_cores_draw() -> None:
    view = recorder(gpu())
    demand, alone = taken(recording(1080), view), taken(workload(encode(1080, speed=EncodingSpeed.FASTEST)), view)
    assert demand.cost_pixels_per_second == alone.cost_pixels_per_second
    assert demand.device_amounts[Dimension.ENCODE] == alone.device_amounts[Dimension.ENCODE]
    pictures = demand.device_amounts[Dimension.MEMORY] - alone.device_amounts[Dimension.MEMORY]
    assert pictures == -(-8 * 1920 * 1080 * 4 // 2**20)
    assert Dimension.DECODE not in demand.device_amounts
    converting = taken(recording(1080), recorder(cpu(2)))
    assert demand.capture_amounts is not None
    assert converting.capture_amounts is not None
    assert demand.host_amounts[Dimension.CORES] == demand.capture_amounts[Dimension.CORES]
    spared = converting.capture_amounts[Dimension.CORES] - demand.capture_amounts[Dimension.CORES]
    assert spared == pytest.approx(62_208_000 / 188, abs=2)
    assert demand.host_amounts[Dimension.MEMORY] == demand.capture_amounts[Dimension.MEMORY] + 60


@pytest.mark.parametrize(
    ("ability", "work", "told"),
    [
        (None, recording(), "has not told"),
        (replace(ABILITY, available=False, fault_message="No Xvfb. Try installing it."), recording(), "No Xvfb"),
        (replace(ABILITY, browser=None), recording(), "no browser"),
        (ABILITY, recording(display=capture(browser=False, application="paint")), "no application 'paint'"),
        (replace(ABILITY, largest_width=1278), recording(), "at most 1278x2160"),
        (replace(ABILITY, largest_height=718), recording(), "at most 3840x718"),
    ],
)
@pytest.mark.parametrize("view", [cpu(8), gpu()], ids=["cpu", "gpu"])
def test_a_device_whose_agent_cannot_record_it_says_why(
    view: DeviceView, ability: RecordingAbility | None, work: Workload, told: str
) -> None:
    refusal = refusal_of(placed(work, recorder(view, ability), Ledger(), cores=8))
    assert (refusal.rule, refusal.permanent) == ("CAPABILITY", True)
    assert told in refusal.message


def test_a_known_application_needs_no_browser() -> None:
    work = recording(display=capture(browser=False, application="clock"))
    view = recorder(cpu(2), replace(ABILITY, browser=None))
    assert placed(work, view, Ledger()).device_id == view.id


def test_transcodes_need_no_displays() -> None:
    view = recorder(cpu(2), None)
    assert placed(ladder(), view, Ledger()).device_id == view.id
    assert (ladder().kind, recording().kind) == (SessionKind.TRANSCODE, SessionKind.RECORDING)


def test_displays_run_out() -> None:
    ledger, view = Ledger(), recorder(gpu(), replace(ABILITY, display_count=2))
    decisions = [placed(recording(), view, ledger, cores=64) for _ in range(3)]
    assert [decision.device_id for decision in decisions] == [view.id, view.id, None]
    refusal = refusal_of(decisions[-1])
    assert (refusal.rule, refusal.dimension, refusal.needed, refusal.available) == (
        "CAPACITY",
        Dimension.DISPLAYS,
        1,
        0,
    )
    assert "0 displays left" in refusal.message


def test_the_hosts_memory_runs_out_without_headroom() -> None:
    work = recording()
    needed = taken(work, recorder(gpu())).host_amounts[Dimension.MEMORY]
    ledger, view = Ledger(), recorder(gpu())
    decisions = [placed(work, view, ledger, cores=64, memory_mib=2 * needed) for _ in range(3)]
    assert [decision.device_id for decision in decisions] == [view.id, view.id, None]
    refusal = refusal_of(decisions[-1])
    assert (refusal.rule, refusal.dimension, refusal.host) == ("HOST_CAPACITY", Dimension.MEMORY, True)


def test_a_hosts_upload_runs_out_for_transcodes_as_well() -> None:
    ledger, view = Ledger(), gpu()
    push = replace(ladder(), upload_bits_per_second=6_000_000)
    decisions = [placed(push, view, ledger, upload_bits_per_second=13_000_000) for _ in range(3)]
    assert [decision.device_id for decision in decisions] == [view.id, view.id, None]
    refusal = refusal_of(decisions[-1])
    assert (refusal.rule, refusal.dimension) == ("HOST_CAPACITY", Dimension.UPLOAD)
    assert "1.0 Mbit/s of upload left" in refusal.message
    assert "needs 6.0 Mbit/s" in refusal.message
    assert placed(ladder(), view, ledger, upload_bits_per_second=13_000_000).device_id == view.id
