"""A recording that goes on counts what the attempts before it recorded, also what nobody had read yet."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

from agents.recordings.earlier_state import state_before
from agents.recordings.state import Recorded, RecordingState, Take, write_state
from agents.recordings.take_folder import take_folder
from agents.sessions.attempt import AttemptKey
from agents.sessions.continuation import EarlierAttempt
from agents.sessions.folder import AttemptFolder

BEFORE = Recorded(take_count=1, frames=100, duplicated_frames=3, longest_freeze=timedelta(seconds=2), closed_popups=1)
PAUSED = datetime(2026, 5, 4, 12, 0, tzinfo=UTC)


def folder_of(tmp_path: Path, attempt: int) -> AttemptFolder:
    path = tmp_path / "s1" / str(attempt)
    path.mkdir(parents=True, exist_ok=True)
    return AttemptFolder(path=path, key=AttemptKey(session="s1", attempt=attempt))


def earlier(*folders: AttemptFolder) -> list[EarlierAttempt]:
    return [EarlierAttempt(attempt=folder.key.attempt, folder=str(folder.path)) for folder in folders]


def told(frames: int, duplicated: int, seconds: int) -> str:
    return (
        f"frame={frames}\nfps=30.00\nbitrate=N/A\ntotal_size=0\nout_time_us={seconds}000000\ndup_frames={duplicated}\n"
        "drop_frames=0\nspeed=1x\nprogress=continue\n"
    )


def test_all_takes_of_all_attempts_are_counted(tmp_path: Path) -> None:
    second = folder_of(tmp_path, 2)
    takes = (Take(number=1, ended=True, frames=50), Take(number=2, ended=True, frames=7, dropped_frames=2))
    write_state(second, RecordingState(takes=takes, paused_time=PAUSED, closed_popups=2, recorded_before=BEFORE))
    before = state_before(folder_of(tmp_path, 3), earlier(folder_of(tmp_path, 1), second))
    assert before.paused_time == PAUSED
    report = RecordingState(takes=(Take(number=1, frames=10),), recorded_before=before.recorded()).report()
    assert (report.take_count, report.encoded_frames) == (4, 167)
    assert (report.duplicated_frames, report.dropped_frames, report.captured_frames) == (3, 2, 166)
    assert (report.longest_freeze, report.closed_popups) == (timedelta(seconds=2), 3)


def test_what_an_ffmpeg_told_after_its_agent_was_killed_is_counted(tmp_path: Path) -> None:
    first = folder_of(tmp_path, 1)
    write_state(first, RecordingState(takes=(Take(number=1, frames=0),)))
    take = take_folder(first, 1)
    take.path.mkdir(parents=True)
    take.progress.write_text(told(30, 0, 1) + told(90, 4, 3))
    recorded = state_before(folder_of(tmp_path, 2), earlier(first)).recorded()
    assert (recorded.take_count, recorded.frames, recorded.duplicated_frames) == (1, 90, 4)


def test_an_attempt_that_cannot_be_read_is_passed_over(tmp_path: Path) -> None:
    first, second = folder_of(tmp_path, 1), folder_of(tmp_path, 2)
    write_state(first, RecordingState(takes=(Take(number=1, ended=True, frames=20),)))
    (second.path / "recording.json").write_text("{")
    new = folder_of(tmp_path, 4)
    unknown = EarlierAttempt(attempt=3, folder="")
    assert state_before(new, [*earlier(first, second), unknown]).recorded().frames == 20
    assert state_before(new, [unknown]) == RecordingState()
