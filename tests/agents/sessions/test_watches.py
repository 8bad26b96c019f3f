"""Runners that fail unforeseen: another one goes on, and an attempt that all of them fail over is ended."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from pathlib import Path
from typing import Any

import psutil
import pytest
from session_rig import Rig, Rigs, endless, frames_of, job_of, key_of, processes_of, until

from agents.pipelines.job import Job
from agents.sessions import watches
from agents.sessions.attempt import Ending, Phase
from agents.sessions.runner import AttemptRunner
from agents.sessions.status_book import Attempt, StatusBook

pytestmark = pytest.mark.process


class Broken:
    """Breaks a runner's method the first so many times that it is called for a session."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, name: str, *, times: int, session: str = "s1") -> None:
        self.left = times
        method = getattr(AttemptRunner, name)

        async def broken(runner: Any, *arguments: Any, **named: Any) -> Any:
            if runner._status.key.session == session and self.left:
                self.left -= 1
                raise KeyError("unforeseen")
            return await method(runner, *arguments, **named)

        monkeypatch.setattr(AttemptRunner, name, broken)


async def replaced_runner(rig: Rig, job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    """Has the runner of a job fail, and waits until there is another."""
    first = rig.registry.runner(key_of(job))
    assert first is not None
    Broken(monkeypatch, "_note_size", times=1)
    await until(lambda: rig.registry.runner(key_of(job)) is not first)


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watches, "_AGAIN_AFTER_S", (0.01, 0.01, 0.01))


@pytest.mark.parametrize("name", ["_note_phase", "_note_size", "_conclude"])
async def test_another_runner_goes_on_when_one_fails(
    rigs: Rigs, clip: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    broken = Broken(monkeypatch, name, times=3)
    job = job_of(clip)
    async with rigs.start() as rig:
        await rig.launch(job)
        ended = await rig.ended(job)
        assert (ended.ending, ended.failure, broken.left) == (Ending.COMPLETED, None, 0)
        assert frames_of(rig.folder(job).artifacts / "out.mp4") == 50
        assert rig.registry.live_count == 0
        await until(lambda: rig.registry.runner(key_of(job)) is None)
    assert (
        sum(record.levelno == logging.ERROR and "unforeseen" in str(record.exc_info) for record in caplog.records) == 3
    )


async def test_an_attempt_that_every_runner_fails_over_is_ended_and_no_other(
    rigs: Rigs, clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job, other = job_of(endless(clip)), job_of(endless(clip), session="s2")
    async with rigs.start() as rig:
        await rig.launch(job)
        await rig.launch(other)
        await rig.running(job)
        await rig.running(other)
        Broken(monkeypatch, "_note_size", times=1000)
        ended = await rig.ended(job)
        assert (ended.ending, ended.failure is not None and ended.failure.reason) == (Ending.FAILED, "AGENT_FAULT")
        assert ended.failure is not None
        assert "KeyError" in ended.failure.message
        assert processes_of(rig.folder(job)) == []
        assert processes_of(rig.folder(other))
        await rig.registry.delete(job.session)
        await rig.registry.stop(key_of(other))
        assert (await rig.ended(other)).ending is Ending.STOPPED


async def test_a_stop_that_comes_between_two_runners_is_heard(
    rigs: Rigs, clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watches, "_AGAIN_AFTER_S", (0.3,))
    job = job_of(endless(clip))
    async with rigs.start() as rig:
        await rig.launch(job)
        await rig.running(job)
        await replaced_runner(rig, job, monkeypatch)
        await rig.registry.stop(key_of(job))
        assert (await rig.ended(job)).ending is Ending.STOPPED


async def test_a_session_that_is_held_at_a_speed_is_held_by_whoever_watches_it(
    rigs: Rigs, clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits: list[float | None] = []
    pace = AttemptRunner.pace

    def noted(runner: AttemptRunner, speed_limit: float | None) -> None:
        limits.append(speed_limit)
        pace(runner, speed_limit)

    monkeypatch.setattr(AttemptRunner, "pace", noted)
    job = job_of(endless(clip))
    async with rigs.start() as rig:
        await rig.launch(job)
        await rig.running(job)
        await rig.registry.pace(key_of(job), 0.5)
        await replaced_runner(rig, job, monkeypatch)
        assert limits == [None, 0.5, 0.5]
        await rig.registry.stop(key_of(job))
        await rig.ended(job)


async def test_a_shim_that_is_killed_between_two_runners_is_missed(
    rigs: Rigs, clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watches, "_AGAIN_AFTER_S", (0.5,))
    job = job_of(endless(clip))
    async with rigs.start() as rig:
        await rig.launch(job)
        await rig.running(job)
        await replaced_runner(rig, job, monkeypatch)
        shim = rig.folder(job).shim_pid()
        assert shim is not None
        os.kill(shim, signal.SIGKILL)
        ended = await rig.ended(job)
        assert ended.failure is not None
        assert ended.failure.reason == "SHIM_LOST"


@pytest.mark.parametrize("times", [1, 1000], ids=["replaced", "given up"])
async def test_no_runner_leaves_a_zombie(rigs: Rigs, clip: Path, monkeypatch: pytest.MonkeyPatch, times: int) -> None:
    job = job_of(clip)
    async with rigs.start() as rig:
        await rig.launch(job)
        shim = rig.folder(job).shim_pid()
        Broken(monkeypatch, "_note_size", times=times)
        await rig.ended(job)
        await until(lambda: rig.registry.runner(key_of(job)) is None)
        assert shim not in [child.pid for child in psutil.Process().children()]


async def test_an_end_that_could_not_be_told_is_told_after_all(
    rigs: Rigs, clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish, faults = StatusBook.publish, iter(range(2))

    async def refused(book: StatusBook, attempt: Attempt) -> None:
        if attempt.status.phase is Phase.ENDED and next(faults, None) is not None:
            raise RuntimeError("no thread left")
        await publish(book, attempt)

    monkeypatch.setattr(StatusBook, "publish", refused)
    job = job_of(clip)
    async with rigs.start() as rig:
        await rig.launch(job)
        assert (await rig.ended(job)).ending is Ending.COMPLETED
        assert next(faults, None) is None


async def test_a_session_is_deleted_when_nobody_puts_things_of_it_away_any_more(
    rigs: Rigs, clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its end is told before: a client that deletes it at once comes in between."""
    tidying, tidied = asyncio.Event(), asyncio.Event()
    conclude = AttemptRunner._conclude

    async def slowly(runner: AttemptRunner, fence: Any) -> None:
        await conclude(runner, fence)
        tidying.set()
        await tidied.wait()

    monkeypatch.setattr(AttemptRunner, "_conclude", slowly)
    job = job_of(clip)
    async with rigs.start() as rig:
        await rig.launch(job)
        await rig.ended(job)
        await tidying.wait()
        deleting = asyncio.create_task(rig.registry.delete(job.session))
        for _ in range(100):
            await asyncio.sleep(0)
            assert rig.registry.live_sessions() == ()
        assert not deleting.done()
        tidied.set()
        await deleting
        assert rig.registry.runner(key_of(job)) is None
    assert [path.name for path in rigs.fence_dir.iterdir()] == [".generation"]


async def test_a_runner_that_worked_for_long_counts_as_the_first(
    rigs: Rigs, clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watches, "_WELL_AFTER_S", 0.0)
    broken = Broken(monkeypatch, "_note_size", times=20)
    job = job_of(clip)
    async with rigs.start() as rig:
        await rig.launch(job)
        assert (await rig.ended(job)).ending is Ending.COMPLETED
    assert broken.left == 0
