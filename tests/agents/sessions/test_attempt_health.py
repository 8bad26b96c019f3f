"""When a program that stands still is told, and ended, and for which reason."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from agents.pipelines.progress import Progress
from agents.sessions.attempt import StopCause
from agents.sessions.attempt_health import AttemptHealth, HealthBounds
from agents.sessions.blockage import Blockage

NOON = datetime(2030, 1, 1, 12, tzinfo=UTC)
PID = 4711


class HandClock:
    """Goes on when it is told to; its wall time can be set."""

    def __init__(self) -> None:
        self.passed_s = 0.0
        self.wall_offset = timedelta()

    def now(self) -> datetime:
        return NOON + timedelta(seconds=self.passed_s) + self.wall_offset

    def monotonic_s(self) -> float:
        return 1000.0 + self.passed_s


class Patient:
    """A program whose state is told by hand."""

    def __init__(self, *, published: bool = False, real_time: bool = True) -> None:
        self.clock = HandClock()
        self.waits_for = Blockage.UNKNOWN
        self.moved_bytes = 0
        self.progress = Progress()
        self.health = AttemptHealth(
            self.clock,
            HealthBounds(),
            active_s=self.clock.monotonic_s(),
            real_time=real_time,
            frame_rate=25.0,
            published=published,
            look=lambda _: self.waits_for,
            moved=lambda _: self.moved_bytes,
        )
        self.told = 0

    def write(self, seconds: int, *, speed: float = 1.0) -> None:
        """Writes frames for a while."""
        for _ in range(seconds):
            self.clock.passed_s += 1
            frames = self.progress.frames + round(25 * speed)
            self.progress = replace(self.progress, frames=frames, out_time=timedelta(seconds=frames / 25))
            self.health.advanced(self.clock.monotonic_s())
            self.health.progressed(self.progress, written_s=self.clock.monotonic_s())
            self._look()

    def stand_still(self, seconds: int) -> None:
        """Writes nothing for a while."""
        for _ in range(seconds):
            self.clock.passed_s += 1
            self._look()

    def _look(self) -> None:
        self.health.examine(PID, self.clock.monotonic_s())
        self.told += self.health.judge(self.clock.monotonic_s())

    @property
    def conditions(self) -> list[tuple[str, str]]:
        return [(one.type, one.message) for one in self.health.conditions]

    @property
    def cause(self) -> StopCause | None:
        return self.health.end_cause(self.clock.monotonic_s())


@pytest.mark.parametrize(
    ("waits_for", "why", "cause"),
    [
        (Blockage.UNKNOWN, "", StopCause.STALLED),
        (Blockage.INPUT, ": its input gives nothing", StopCause.STALLED),
        (Blockage.OUTPUT, ": an output takes nothing", StopCause.OUTPUT_STALLED),
        (Blockage.STOPPED, ": its process is stopped", StopCause.STALLED),
    ],
)
def test_standing_still_is_told_after_ten_seconds_and_ended_after_thirty(
    waits_for: Blockage, why: str, cause: StopCause
) -> None:
    patient = Patient()
    patient.write(5)
    patient.waits_for = waits_for
    patient.stand_still(9)
    assert patient.conditions == []
    patient.stand_still(1)
    assert patient.conditions == [("STALLED", f"No frame was written for 10 s{why}.")]
    assert patient.health.conditions[0].since_time == NOON + timedelta(seconds=5)
    patient.stand_still(19)
    assert patient.cause is None
    patient.stand_still(1)
    assert patient.cause is cause
    assert patient.told == 1, "told once, not every second"


def test_what_was_seen_now_and_then_counts_more_than_nothing() -> None:
    patient = Patient()
    patient.write(1)
    patient.waits_for = Blockage.OUTPUT
    patient.stand_still(4)
    patient.waits_for = Blockage.UNKNOWN
    patient.stand_still(26)
    assert patient.cause is StopCause.OUTPUT_STALLED


def test_a_frame_makes_everything_good() -> None:
    patient = Patient(real_time=False)
    patient.write(1)
    patient.waits_for = Blockage.OUTPUT
    patient.stand_still(29)
    patient.write(1)
    assert (patient.conditions, patient.cause, patient.health.blockage) == ([], None, Blockage.UNKNOWN)


def test_a_publisher_who_pauses_ends_nothing() -> None:
    patient = Patient(published=True)
    patient.write(1)
    patient.waits_for = Blockage.INPUT
    patient.stand_still(600)
    assert patient.conditions == [("STALLED", "No frame was written for 10 s: its input gives nothing.")]
    assert patient.cause is None
    patient.waits_for = Blockage.OUTPUT
    patient.stand_still(600)
    assert patient.cause is StopCause.OUTPUT_STALLED


def test_falling_behind_is_told_with_new_figures_every_ten_seconds_and_since_when_it_began() -> None:
    patient = Patient()
    patient.write(11, speed=0.8)
    began = patient.clock.now()
    assert patient.conditions == [("DEGRADED", "It runs at 0.80 of real time, 20.0 of 25 frames/s, 50 frames behind.")]
    patient.write(9, speed=0.8)
    assert patient.told == 1
    patient.write(1, speed=0.8)
    assert patient.told == 2
    assert patient.conditions == [("DEGRADED", "It runs at 0.80 of real time, 20.0 of 25 frames/s, 100 frames behind.")]
    assert patient.health.conditions[0].since_time == began
    patient.write(11)
    assert patient.conditions == []


def test_who_goes_on_after_a_stall_is_behind_by_all_of_it() -> None:
    patient = Patient()
    patient.write(15)
    patient.stand_still(20)
    patient.write(1)
    [(kind, message)] = patient.conditions
    assert kind == "DEGRADED"
    assert message.endswith("500 frames behind.")


def test_who_moves_files_about_without_a_frame_is_at_work() -> None:
    """As ffmpeg is when it puts the index of a long file in front of it."""
    patient = Patient(real_time=False)
    patient.write(1)
    patient.waits_for = Blockage.OUTPUT
    for _ in range(600):
        patient.moved_bytes += 300 * 1024
        patient.stand_still(1)
    assert (patient.conditions, patient.cause) == ([], None)
    for _ in range(40):
        patient.moved_bytes += 400  # a report
        patient.stand_still(1)
    assert patient.cause is StopCause.OUTPUT_STALLED


def test_who_does_not_report_any_more_is_at_work_as_long_as_it_writes() -> None:
    """As ffmpeg on a disk that was full for a moment, which its outputs are not on."""
    patient = Patient()
    patient.write(1)
    for _ in range(60):
        patient.moved_bytes += 8 * 1024
        patient.stand_still(1)
    assert (patient.conditions, patient.cause) == ([], None)
    patient.stand_still(33)
    assert patient.cause is StopCause.STALLED
    patient.write(1)
    for _ in range(30):
        patient.moved_bytes += 8 * 1024
        patient.health.progressed(patient.progress, written_s=patient.clock.monotonic_s())
        patient.stand_still(1)
    patient.stand_still(1)
    assert patient.cause is StopCause.STALLED, "it reports that it writes no frame"


def test_a_rest_is_not_counted() -> None:
    patient = Patient()
    patient.write(15)
    patient.clock.passed_s += 3600
    patient.health.begin_anew(patient.clock.monotonic_s())
    patient.stand_still(9)
    assert (patient.conditions, patient.cause) == ([], None)
    patient.write(15)
    assert patient.conditions == []


def test_work_that_is_not_in_real_time_is_never_behind() -> None:
    patient = Patient(real_time=False)
    patient.write(60, speed=0.2)
    assert patient.conditions == []


@pytest.mark.parametrize("jump", [timedelta(days=400), timedelta(days=-400)])
def test_a_jump_of_the_wall_clock_neither_stalls_nor_saves_anything(jump: timedelta) -> None:
    patient = Patient()
    patient.write(30)
    patient.clock.wall_offset = jump
    patient.write(30)
    assert (patient.conditions, patient.cause) == ([], None)
    patient.stand_still(10)
    assert [kind for kind, _ in patient.conditions] == ["STALLED"]
    assert patient.cause is None
    patient.clock.wall_offset = timedelta()
    patient.stand_still(20)
    assert patient.cause is StopCause.STALLED
