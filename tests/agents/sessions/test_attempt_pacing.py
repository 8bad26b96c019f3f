"""Holding programs at a speed: the arithmetic in virtual time, and real ffmpeg that is really stopped and continued."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import timedelta
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from session_rig import FACTS, Rigs, endless, job_of, key_of, until

from agents.pipelines.holding import Hold, hold_of
from agents.pipelines.job import IngestInput, IngestProtocol, PushOutput, UriInput
from agents.pipelines.progress import Progress
from agents.sessions.attempt import Ending
from agents.sessions.attempt_health import HealthBounds
from agents.sessions.pacing import Pacer
from fakes.virtual_time import VirtualClock, VirtualTimeLoop


@dataclass
class Program:
    """Makes media while it is not stopped, and reports every 0.1 s, when it comes to it.

    Of wall time, as ffmpeg does, or only of the time for which it ran; its media may come out in bursts.
    """

    clock: VirtualClock
    speed: Callable[[float], float]
    by_running_time: bool = False
    burst_s: float = 0.0
    made_s: float = 0.0
    ran_s: float = 0.0
    stopped: bool = False
    marked_s: float = 0.0
    reported_s: float = 0.0
    report: Progress | None = None
    stops: list[float] = field(default_factory=list)
    signals: list[tuple[signal.Signals, float]] = field(default_factory=list)

    def go_on(self) -> None:
        until_s = self.clock.monotonic_s()
        while self.marked_s < until_s:
            step_s = min(0.005, until_s - self.marked_s)
            self.marked_s += step_s
            if self.stopped:
                continue
            self.made_s += step_s * self.speed(self.marked_s)
            self.ran_s += step_s
            now_s = self.ran_s if self.by_running_time else self.marked_s
            if now_s - self.reported_s >= 0.1:
                self.reported_s = now_s
                out_s = self.made_s if not self.burst_s else self.made_s // self.burst_s * self.burst_s
                speed = out_s / self.marked_s
                self.report = Progress(out_time=timedelta(seconds=out_s), frames=1, speed=speed)

    def send(self, number: signal.Signals) -> bool:
        self.go_on()
        self.signals.append((number, self.marked_s))
        if number is signal.SIGSTOP:
            self.stops.append(self.marked_s)
        elif self.stopped:
            self.stops.append(self.marked_s - self.stops.pop())
        self.stopped = number is signal.SIGSTOP
        return True

    def read(self) -> Progress | None:
        self.go_on()
        return self.report


class LateLoop(VirtualTimeLoop):
    """A loop whose timers come late, as on a busy machine."""

    def __init__(self, late_s: float) -> None:
        super().__init__()
        self._late_s = late_s

    def call_later(self, delay: float, *call: Any, **context: Any) -> asyncio.TimerHandle:
        return super().call_later(delay + self._late_s, *call, **context)


def hold(
    speed: float | Callable[[float], float],
    *steps: tuple[float | None, float],
    how: Hold | None = Hold.FOR_EVER,
    late_s: float = 0.0,
    **kind: float,
) -> tuple[Program, list[float]]:
    """Holds a program at limits, each for some seconds; gives it and its media time after each."""

    async def held() -> tuple[Program, list[float]]:
        clock = VirtualClock()
        program = Program(clock, speed if callable(speed) else lambda _: speed, **kind)  # type: ignore[arg-type]
        pacer = Pacer(clock, hold=how, send=program.send, read=program.read)
        made = []
        for limit, seconds in steps:
            pacer.set_limit(limit)
            pacer.set_limit(limit)
            await asyncio.sleep(seconds)
            program.go_on()
            made.append(program.made_s)
        pacer.release()
        pacer.set_limit(0.1)
        assert not program.stopped
        return program, made

    with asyncio.Runner(loop_factory=lambda: LateLoop(late_s)) as runner:
        return runner.run(held())


@pytest.mark.parametrize("speed", [1.2, 6.0, 14.0, 60.0])
@pytest.mark.parametrize("limit", [0.5, 1.0, 2.0])
def test_a_program_keeps_to_its_limit_however_fast_it_could_go(speed: float, limit: float) -> None:
    program, (first, then) = hold(speed, (limit, 20), (limit, 10))
    wanted = min(limit, speed)
    assert (then - first) / 10 == pytest.approx(wanted, rel=0.1)
    assert first <= max(limit * 20 + 0.5, limit * 10 + speed * 0.13), (
        "what it makes before its first report is all that it may be ahead, and ten seconds of it are waited for"
    )
    if 3 < speed < 30 * limit:
        assert max(program.stops[10:]) <= 0.5


_BEFORE: dict[str, Callable[[float], tuple[tuple[float | None, float], ...]]] = {
    "launched with it": lambda limit: (),
    "free before": lambda limit: ((None, 5.05),),
    "raised": lambda limit: ((limit / 3, 10),),
    "lowered": lambda limit: ((limit * 3, 10),),
    "lifted and set again": lambda limit: ((limit * 2, 5), (None, 3), (limit, 0.01)),
}


@settings(max_examples=40)
@given(
    speed=st.floats(1, 1000),
    limit=st.sampled_from([0.05, 0.1, 0.2, 0.55, 1.0, 2.0, 5.0, 20.0, 50.0]),
    before=st.sampled_from(sorted(_BEFORE)),
    by_running_time=st.booleans(),
)
@example(speed=150, limit=0.55, before="free before", by_running_time=False)
@example(speed=150, limit=0.55, before="free before", by_running_time=True)
def test_a_program_goes_on_at_its_limit_whatever_was_before(
    speed: float, limit: float, before: str, *, by_running_time: bool
) -> None:
    # Reports that come only after fifty slices teach slowly.
    settling_s = 240 if by_running_time else 60
    steps = (*_BEFORE[before](limit), (limit, settling_s), *[(limit, 2)] * 5)
    _, made = hold(speed, *steps, by_running_time=by_running_time)
    gains = [after - earlier for earlier, after in pairwise(made[-6:])]
    assert min(gains) > 0, "it makes something every two seconds"
    wanted = min(limit, speed)
    # The least slice, 2 ms, taken as seldom as may be, is more than the limit of what is very fast; one of them more
    # or less falls into the ten seconds.
    one = speed * 0.002
    assert wanted * 8.5 - one <= sum(gains) <= max(wanted * 11.5, one * 10 / 1.4) + one


@pytest.mark.parametrize("burst_s", [0.2, 1.0])
@pytest.mark.parametrize("speed", [1.5, 8.0, 60.0])
def test_media_that_comes_in_bursts_keeps_to_its_limit_on_average(speed: float, burst_s: float) -> None:
    _, made = hold(speed, (None, 5), (0.55, 30), *[(0.55, 2)] * 10, burst_s=burst_s)
    gains = [after - earlier for earlier, after in pairwise(made[1:])]
    assert min(gains) > 0
    assert sum(gains) / 20 == pytest.approx(0.55, rel=0.15)


@pytest.mark.parametrize("late_s", [0.005, 0.015])
def test_a_program_that_is_stopped_late_makes_no_more_for_it(late_s: float) -> None:
    """So it is on a machine where everything waits for a core; with short rests it would run thrice as fast."""
    program, made = hold(150.0, (None, 5), (0.55, 20), (0.55, 40), late_s=late_s)
    assert (made[2] - made[1]) / 40 == pytest.approx(0.55, rel=0.15)
    assert max(program.stops) <= 5.5


def test_a_program_whose_speed_changes_keeps_to_its_limit() -> None:
    _, (first, then) = hold(lambda at_s: 12.0 if int(at_s) % 2 else 3.0, (1.0, 5), (1.0, 10))
    assert (then - first) / 10 == pytest.approx(1.0, rel=0.1)


def test_a_limit_is_raised_lowered_and_lifted() -> None:
    _, made = hold(8.0, (None, 2), (1.0, 10), (4.0, 10), (0.5, 10), (None, 2))
    gains = [after - before for before, after in zip([0.0, *made], made, strict=False)]
    assert gains[0] == pytest.approx(16)
    assert gains[1:4] == [pytest.approx(10, rel=0.1), pytest.approx(40, rel=0.1), pytest.approx(5, rel=0.1)]
    assert gains[4] == pytest.approx(16, rel=0.02)


def test_a_program_that_is_too_slow_for_its_limit_is_never_stopped() -> None:
    program, _ = hold(0.8, (2.0, 20))
    assert all(at_s < 3 for _, at_s in program.signals)


def test_only_a_little_of_what_was_missed_is_made_good() -> None:
    """It crawls for a minute, because others had its cores, and is then as fast as before."""
    _, made = hold(lambda at_s: 8.0 if at_s < 10 or at_s > 70 else 0.1, (1.0, 70), (1.0, 10))
    assert made[1] - made[0] <= 10 + 2 + 1


def test_what_reads_a_network_is_never_stopped_for_long() -> None:
    program, _ = hold(400.0, (0.5, 10), how=Hold.FOR_A_MOMENT)
    assert max(program.stops) <= 0.55
    program, _ = hold(400.0, (0.5, 10), how=Hold.FOR_EVER)
    assert max(program.stops) > 1


def test_what_cannot_be_held_is_left_alone() -> None:
    program, _ = hold(8.0, (0.5, 5), how=None)
    assert program.signals == []


def test_live_inputs_are_never_held_and_networks_for_a_moment_only() -> None:
    def held(uri: str, *, length: bool = True) -> Hold | None:
        facts = FACTS if length else replace(FACTS, duration=None)
        return hold_of(job_of(UriInput(uri=uri), facts=facts))

    assert held("/media/film.mp4") is Hold.FOR_EVER
    assert held("https://host/film.mp4") is Hold.FOR_A_MOMENT
    assert held("https://host/live.m3u8", length=False) is None
    assert [held(f"{scheme}://host/live") for scheme in ("rtmp", "srt", "rtsp")] == [None] * 3
    ingest = IngestInput(protocol=IngestProtocol.RTMP, publisher_timeout=timedelta(seconds=9))
    assert hold_of(job_of(ingest)) is None
    push = PushOutput(id="output-1", url="rtmp://host/live/key")
    assert hold_of(job_of(Path("/media/film.mp4"), push)) is Hold.FOR_A_MOMENT


def state_of(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


async def until_stopped(pid: int) -> None:
    await until(lambda: state_of(pid) == "T")


@pytest.mark.process
async def test_a_held_ffmpeg_is_not_stalled_hears_a_stop_and_is_let_go_with_its_agent(rigs: Rigs, clip: Path) -> None:
    rigs.settle(runner={"health": HealthBounds(stalled_after=timedelta(seconds=0.5))})
    job = job_of(UriInput(uri=str(clip), repeat_forever=True))
    slow = float(Fraction(1, 50))
    async with rigs.start() as rig:
        await rig.launch(job, speed_limit=slow)
        running = await rig.running(job)
        program = rig.folder(job).program_pid()
        assert program is not None
        await until_stopped(program)
        await asyncio.sleep(1.5)
        assert state_of(program) == "T", "so fast a program rests long at such a limit"
        assert (await rig.until(job, lambda status: True)).conditions == running.conditions == ()
    assert state_of(program) != "T", "nobody but an agent would continue it"
    os.kill(program, signal.SIGSTOP)  # as an agent leaves it that is killed just then
    async with rigs.start() as successor:
        await until(lambda: state_of(program) != "T")
        await successor.registry.pace(key_of(job), slow)
        await until_stopped(program)
        await successor.registry.stop(key_of(job))
        ended = await successor.ended(job)
        await successor.registry.pace(key_of(job), slow)
        await successor.registry.pace(replace(key_of(job), session="unheard-of"), slow)
    assert (ended.ending, successor.folder(job).exit_code()) == (Ending.STOPPED, 255)


@pytest.mark.process
async def test_a_live_like_ffmpeg_runs_on_when_its_limit_is_lifted(rigs: Rigs, clip: Path) -> None:
    job = job_of(endless(clip))
    async with rigs.start() as rig:
        await rig.launch(job, speed_limit=0.2)
        await rig.running(job)
        program = rig.folder(job).program_pid()
        assert program is not None
        await until_stopped(program)
        await rig.registry.pace(key_of(job), None)
        assert state_of(program) != "T"
        await rig.registry.stop(key_of(job))
        await rig.ended(job)
