"""Files of recordings that lack what was recorded."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from agents.pipelines.command import FileParts
from agents.pipelines.job import Container
from agents.pipelines.recording_files import FinishStep, join_step
from agents.pipelines.recording_report import RecordedFile
from agents.recordings.shortfalls import find_shortfalls
from agents.recordings.state import RecordingEnd, RecordingState, Take
from agents.sessions.attempt import Failure


def output(container: Container = Container.MP4) -> FileParts:
    """A file among the artifacts."""
    name = f"film.{container}"
    return FileParts(
        output="film",
        container=container,
        own_path=f"/a/.takes/{name}",
        made_path=f"/a/.takes/joined/{name}",
        final_path=f"/a/{name}",
        scratch="/a/.takes/joined/scratch",
        move=None,
    )


def step(container: Container = Container.MP4) -> FinishStep:
    """How it was made."""
    return join_step(output(container), ["/a/.takes/1/it"], "/ffmpeg")


def file(seconds: float | None) -> RecordedFile:
    """What came of it."""
    duration = None if seconds is None else timedelta(seconds=seconds)
    return RecordedFile(path="film.mp4", sha256="", size_bytes=1, duration=duration)


def state(*takes_s: float, failure: Failure | None = None) -> RecordingState:
    """A recording of such takes that has ended."""
    takes = tuple(
        Take(number=number, ended=True, frames=1, out_time=timedelta(seconds=seconds))
        for number, seconds in enumerate(takes_s, start=1)
    )
    return RecordingState(takes=takes, end=RecordingEnd(cause="STOPPED", failure=failure))


def test_a_file_may_be_shorter_by_two_seconds_and_by_what_lengths_are_rounded() -> None:
    for length_s, short in ((20.0, 0), (17.81, 0), (17.79, 1)):
        assert len(find_shortfalls([output()], [step()], [file(length_s)], state(10, 10))) == short


def test_what_is_missing_is_told_with_where_the_rest_is() -> None:
    (failure,) = find_shortfalls([output()], [step()], [file(2)], state(5, 4))
    assert failure.reason == "OUTPUT_UNWRITABLE"
    assert "Cannot finish film: only 2.0 s of 9.0 s that were recorded can be read" in failure.message
    assert ".takes" in failure.message


def test_a_file_of_which_nothing_is_there_is_told() -> None:
    (failure,) = find_shortfalls([output()], [], [], state(9))
    assert "only 0.0 s of 9.0 s" in failure.message
    assert find_shortfalls([output()], [], [], state(1)) == [], "as when it is stopped before anything is written"


@pytest.mark.parametrize(
    ("steps", "files", "container"),
    [
        ([step()], [None], Container.MP4),
        ([step()], [file(None)], Container.MP4),
        ([replace(step(), whole=False)], [file(3)], Container.MP4),
        ([step(Container.TS)], [file(3)], Container.TS),
    ],
    ids=["told otherwise", "not told", "in parts", "no length in it"],
)
def test_of_what_cannot_be_known_nothing_is_told(
    steps: list[FinishStep], files: list[RecordedFile | None], container: Container
) -> None:
    assert find_shortfalls([output(container)], steps, files, state(9)) == []


def test_a_recording_that_failed_tells_of_that() -> None:
    failure = Failure(reason="KILLED", message="Killed.")
    assert find_shortfalls([output()], [step()], [file(3)], state(9, failure=failure)) == []
