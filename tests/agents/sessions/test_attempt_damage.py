"""Attempts whose records were damaged while no agent was there: what runs is watched on or ended, never forgotten."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path

import pytest
from session_rig import Rig, Rigs, endless, job_of, key_of, processes_of

from agents.pipelines.job import Job
from agents.sessions.attempt import AttemptStatus, Ending, Phase
from agents.sessions.folder import AttemptFolder, SessionFolders
from agents.sessions.processes import AttemptProcesses, end_processes
from gpu_balancer.runtime.clock import SystemClock
from gpu_balancer.runtime.failures import Reason, RequestFailure

pytestmark = pytest.mark.process

GARBAGE = [b"", b"garbage", b"\xff\xfe", b"[" * 100_000, b'{"version": 2}', None]
"""What a record may hold instead of itself. None: it is missing."""
GARBAGE_NAMES = ["empty", "words", "no UTF-8", "deep", "newer", "missing"]


def folder_of(rigs: Rigs, job: Job) -> AttemptFolder:
    return SessionFolders(root=rigs.state_dir / "sessions").of(key_of(job))


def damage(path: Path, content: bytes | None) -> None:
    if content is None:
        path.unlink()
    else:
        path.write_bytes(content)


async def left_running(rigs: Rigs, clip: Path) -> tuple[Job, AttemptStatus]:
    """An endless attempt, running, whose agent is gone."""
    job = job_of(endless(clip))
    async with rigs.start() as rig:
        await rig.launch(job)
        running = await rig.running(job)
        assert processes_of(rig.folder(job))
    return job, running


def assert_damaged(status: AttemptStatus, rig: Rig, job: Job) -> None:
    assert status.ending is Ending.FAILED
    assert status.failure is not None
    assert status.failure.reason == "RECORD_DAMAGED"
    assert status.failure.log_tail == ()
    assert processes_of(rig.folder(job)) == []
    assert rig.registry.live_count == 0


@pytest.mark.parametrize("content", GARBAGE, ids=GARBAGE_NAMES)
async def test_an_attempt_that_lost_its_status_is_watched_on(rigs: Rigs, clip: Path, content: bytes | None) -> None:
    job, before = await left_running(rigs, clip)
    damage(folder_of(rigs, job).status, content)
    async with rigs.start() as successor:
        assert successor.registry.live_count == 1
        running = await successor.running(job)
        assert running.phase is Phase.RUNNING
        assert running.event_number > before.event_number
        await successor.registry.stop(key_of(job))
        ended = await successor.ended(job)
        assert (ended.ending, ended.failure) == (Ending.STOPPED, None)
        assert processes_of(successor.folder(job)) == []


@pytest.mark.parametrize("content", GARBAGE, ids=GARBAGE_NAMES)
async def test_an_attempt_that_lost_its_launch_record_is_ended_and_told_so(
    rigs: Rigs, clip: Path, content: bytes | None
) -> None:
    job, before = await left_running(rigs, clip)
    damage(folder_of(rigs, job).launch, content)
    async with rigs.start() as successor:
        ended = await successor.ended(job)
        assert_damaged(ended, successor, job)
        assert ended.event_number > before.event_number
        assert successor.registry.secrets(key_of(job)) is None
    async with rigs.start() as another:
        assert (await another.ended(job)).failure == ended.failure


async def test_an_attempt_that_lost_both_records_is_ended_and_told_so(rigs: Rigs, clip: Path) -> None:
    job, before = await left_running(rigs, clip)
    damage(folder_of(rigs, job).launch, b"garbage")
    damage(folder_of(rigs, job).status, b"garbage")
    async with rigs.start() as successor:
        ended = await successor.ended(job)
        assert_damaged(ended, successor, job)
        assert ended.event_number > before.event_number
        await successor.registry.delete(job.session)
        assert not successor.folder(job).path.exists()


async def test_a_status_of_another_attempt_is_not_believed(rigs: Rigs, clip: Path) -> None:
    job, _ = await left_running(rigs, clip)
    folder = folder_of(rigs, job)
    folder.status.write_bytes(folder.status.read_bytes().replace(b'"s1"', b'"s2"'))
    async with rigs.start() as successor:
        await successor.registry.stop(key_of(job))
        assert (await successor.ended(job)).ending is Ending.STOPPED


async def test_an_attempt_that_ended_keeps_its_end_when_its_launch_record_is_lost(rigs: Rigs, clip: Path) -> None:
    job = job_of(clip)
    async with rigs.start() as rig:
        await rig.launch(job)
        ended = await rig.ended(job)
    damage(folder_of(rigs, job).launch, b"garbage")
    async with rigs.start() as successor:
        assert await successor.ended(job) == ended


async def test_a_deletion_ends_what_runs_in_a_folder_that_was_not_adopted(rigs: Rigs, clip: Path) -> None:
    """A folder that shows up behind the agent's back stands for one that could not be read at its start."""
    async with rigs.start() as rig:
        job, _ = await left_running(rigs, clip)
        with ExitStack() as held:
            processes = held.enter_context(AttemptProcesses(rig.folder(job)))
            assert processes.shim_alive()
            assert processes.program_fd is not None
            await rig.registry.delete(job.session)
            assert not rig.folder(job).path.exists()
            assert not processes.any_alive()


async def test_a_stop_ends_what_runs_in_a_folder_that_was_not_adopted(rigs: Rigs, clip: Path) -> None:
    async with rigs.start() as rig:
        job, _ = await left_running(rigs, clip)
        await rig.registry.stop(key_of(job))
        assert (await rig.ended(job)).ending is Ending.STOPPED
        assert processes_of(rig.folder(job)) == []


async def test_a_deletion_is_refused_while_something_cannot_be_ended(
    rigs: Rigs, clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with rigs.start() as rig:
        job, _ = await left_running(rigs, clip)
        monkeypatch.setattr(AttemptProcesses, "kill_all", lambda _: None)
        monkeypatch.setattr("agents.sessions.registry.KILLED_WITHIN", timedelta(seconds=0.2))
        with pytest.raises(RequestFailure) as refused:
            await rig.registry.delete(job.session)
        assert refused.value.reason is Reason.SESSION_NOT_ENDED
        assert rig.folder(job).launch.exists()
        monkeypatch.undo()
        await rig.registry.delete(job.session)
        assert not rig.folder(job).path.exists()


async def test_ending_spares_a_process_whose_id_stands_in_the_folder(rigs: Rigs, clip: Path) -> None:
    """A process id alone proves nothing: only the lock does."""
    job = job_of(clip)
    async with rigs.start() as rig:
        await rig.launch(job)
        await rig.ended(job)
        stranger = await asyncio.create_subprocess_exec("sleep", "60")
        try:
            for name in ("shim.pid", "program.pid"):
                (rig.folder(job).path / name).write_text(f"{stranger.pid}\n")
            assert await end_processes(rig.folder(job), within=timedelta(seconds=1), clock=SystemClock())
            await rig.registry.delete(job.session)
            assert stranger.returncode is None
        finally:
            stranger.kill()
            assert await stranger.wait() == -9
