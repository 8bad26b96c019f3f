"""Why a session went where it went, from real decisions, before the fact and after it."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest
from domain.devices import cpu, decode, encode, gpu, workload
from rich.console import Console

from balancer.domain.decision import Decision, OmittedVerdicts, PlacementSettings
from balancer.domain.device import DeviceState, Dimension
from balancer.domain.ids import SessionId
from balancer.domain.ledger import Ledger
from balancer.domain.placement import place
from balancer.domain.policies import LeastWeightedLoad
from balancer.servicers.placement_translation import placement_to_proto
from gpu_balancer.cli import placement_views
from gpu_balancer.cli.screen import Screen

if TYPE_CHECKING:
    from conftest import Command

    from fakes.balancer_server import FakeBalancer
    from gpu_balancer.v1.placement_pb2 import Placement

AT = datetime(2026, 1, 1, 20, 15, tzinfo=UTC)
BIG, SMALL = "GPU-7f3c2a10-1111-2222-3333-444455556660", "GPU-8a3c2a10-1111-2222-3333-444455556661"
LADDER = workload(encode(1080), encode(720), input_task=decode(1080))


def decided(sessions_before: int) -> Decision:
    """Places a ladder on a GPU, two cores and a GPU that is ill, after others were."""
    views = [gpu(device_id=BIG), cpu(2, weight=20), gpu(device_id=SMALL, state=DeviceState.UNHEALTHY)]
    ledger = Ledger()
    settings = PlacementSettings(version=3)
    for number in range(sessions_before + 1):
        decision = place(LADDER, views, ledger, LeastWeightedLoad(), settings, {Dimension.CORES: 8_000_000})
        if decision.reservation is not None:
            ledger.book(SessionId(f"s-{number}"), decision.reservation)
    return decision


def told(decision: Decision, attempt: int = 1) -> Placement:
    return placement_to_proto(decision, attempt=attempt, decision_time=AT)


@pytest.fixture
def explained(fake: FakeBalancer) -> FakeBalancer:
    """A fake that knows of a session that was refused, then placed instead of others."""
    placed = replace(
        decided(3),
        policy_fault="Policy 'mine' raised ZeroDivisionError.",
        preempted=(SessionId("a1"), SessionId("b2")),
        omitted=(OmittedVerdicts(rule="CAPACITY", device_count=900), OmittedVerdicts(rule=None, device_count=36)),
    )
    fake.do(lambda: fake.add_session("x"))
    fake.placements["sessions/x"] = [told(decided(100)), told(placed, attempt=2)]
    return fake


def test_every_attempt_tells_each_devices_score_or_refusal(explained: FakeBalancer, run: Command) -> None:
    out = run("explain", "x").out
    first, second = out.split("\nAttempt 2: ")
    assert first.startswith("Attempt 1: no device took it, 202")
    assert second.startswith("GPU-7f3c2a10, 202")
    rows = {row[0]: row[1:] for line in first.splitlines() if len(row := line.split("\t")) == 7}
    assert rows["GPU-7f3c2a10"][0] == "refused"
    assert rows["GPU-7f3c2a10"][5].startswith("CAPACITY: It has 0.0")
    assert rows["cpu-0"][5].startswith("CAPACITY: It has only 1.800 cores")
    assert rows["GPU-8a3c2a10"][5] == "NOT_READY: It is unhealthy."
    chosen = next(line.split("\t") for line in second.splitlines() if "\tchosen\t" in line)
    assert chosen[:4] == ["GPU-7f3c2a10", "chosen", "100", "3"]


def test_each_dimension_tells_what_is_needed_taken_and_there(explained: FakeBalancer, run: Command) -> None:
    second = run("explain", "x").out.split("\nAttempt 2: ")[1]
    rows = [tuple(line.split("\t")) for line in second.splitlines() if line.count("\t") == 5]
    needs = {row[:2]: row[2:] for row in rows}
    verdict = decided(3).verdicts[0]
    encoder = next(need for need in verdict.needs if need.dimension is Dimension.ENCODE)
    shown = needs["GPU-7f3c2a10", "encoder engines"]
    assert shown[:3] == tuple(f"{figure / 1e6:.3f}" for figure in (encoder.needed, encoder.used, encoder.bookable))
    assert shown[3] == f"{(encoder.needed + encoder.used) / encoder.bookable:.0%}"
    assert needs["cpu-0", "cores"][2] == "1.800"
    assert needs["cpu-0", "host's cores"][2] == "7.200"
    assert ("GPU-7f3c2a10", "memory MiB") in needs
    assert not any(device == "GPU-8a3c2a10" for device, _ in needs), "what is ill was not looked at"


def test_policy_workload_faults_and_whom_it_stopped_are_told(explained: FakeBalancer, run: Command) -> None:
    first, second = run("explain", "x").out.split("\nAttempt 2: ")
    lines = second.splitlines()
    assert "policy    least_weighted_load (settings 3)" in lines
    assert "fault     Policy 'mine' raised ZeroDivisionError. So least_weighted_load decided." in lines
    assert "preempts  a1, b2 (stopped and queued again)" in lines
    assert "decode    62.2M px/s h264 8 bit" in lines
    assert "encode    62.2M px/s h264 8 bit 1920x1080 fast" in lines
    assert "pace      real time" in lines
    assert "… and 900 more refused (CAPACITY)" in lines
    assert "… and 36 more could take it, none with a better score" in lines
    assert "fault" not in first
    assert "preempts" not in first


def test_of_a_film_it_is_told_what_is_booked_and_what_of_it_is_kept(fake: FakeBalancer, run: Command) -> None:
    film = replace(LADDER, real_time=False)
    placed = place(film, [cpu(4)], Ledger(), LeastWeightedLoad(), PlacementSettings(), {Dimension.CORES: 8_000_000})
    assert placed.reservation is not None
    assert placed.reservation.firm_device_amounts is not None
    booked, kept = placed.reservation.device_amounts, placed.reservation.firm_device_amounts
    fake.do(lambda: fake.add_session("x"))
    fake.placements["sessions/x"] = [told(placed)]
    facts = dict(line.split(maxsplit=1) for line in run("explain", "x").out.splitlines() if " " in line)
    assert facts["pace"] == "as fast as there is room"
    cores = f"{booked[Dimension.CORES] / 1e6:.3f} cores (keeps {kept[Dimension.CORES] / 1e6:.3f})"
    assert facts["books"].startswith(f"{cores}, ")
    assert "host's cores" in facts["books"]


def test_explained_as_json_is_the_contracts_answer(explained: FakeBalancer, run: Command) -> None:
    refused, placed = run("explain", "x", "--json").document["placements"]
    assert (refused["device"], placed["device"]) == ("", f"devices/{BIG}")
    assert placed["decisionTime"] == "2026-01-01T20:15:00Z"
    assert placed["preemptedSessions"] == ["sessions/a1", "sessions/b2"]
    assert placed["verdicts"][0]["needs"][0]["dimension"] == "DIMENSION_DECODE"


def test_without_decisions_it_is_said_so(fake: FakeBalancer, run: Command) -> None:
    fake.do(lambda: fake.add_session("old"))
    ran = run("explain", "old")
    assert (ran.code, ran.out, ran.err) == (0, "", "No decision is kept of old.\n")
    assert run("explain", "old", "--json").document == {"placements": []}
    assert run("explain", "nope").code == 3


def test_a_plan_shows_needs_when_asked_for_more(fake: FakeBalancer, run: Command) -> None:
    fake.verdicts = list(told(decided(3)).verdicts)
    assert "encoder engines" in run("plan", "/in.mov", "-v").out
    assert "encoder engines" not in run("plan", "/in.mov").out


@pytest.mark.parametrize("width", [40, 60, 80, 120])
def test_a_decision_fits_its_terminal(width: int, capsys: pytest.CaptureFixture[str]) -> None:
    screen = Screen(json=False)
    screen.terminal = True
    screen.console = Console(width=width, highlight=False, emoji=False, markup=False)
    placement_views.show_placement(screen, told(decided(100)), with_needs=True)
    lines = capsys.readouterr().out.splitlines()
    assert max(len(line) for line in lines) <= width
    assert any("encoder" in line for line in lines)
    assert sum("GPU-7f3c2a10" in line for line in lines) >= 2, "each table names it"
