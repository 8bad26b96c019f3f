"""The host's fence around a session's outputs, with real processes: at most one attempt writes."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from session_rig import Rigs, endless, job_of, processes_of

from agents.lock_holders import lockers
from agents.pipelines.job import Container, FileOutput
from agents.sessions.attempt import AttemptKey, Ending
from agents.sessions.fence import FencedError, Fences
from gpu_balancer.runtime.clock import SystemClock
from gpu_balancer.runtime.failures import Reason, RequestFailure

pytestmark = pytest.mark.process

HOLDING = """
import fcntl, os, sys
descriptor = os.open(sys.argv[1], os.O_RDWR)
if sys.argv[2] == "locked":
    fcntl.flock(descriptor, fcntl.LOCK_SH)
print("up", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def fences(tmp_path: Path) -> Fences:
    return Fences(tmp_path / "fences", SystemClock())


@pytest.fixture
def holding() -> Iterator[Callable[[Path, str], subprocess.Popen[bytes]]]:
    """Starts processes that have a fence open, "locked" or not, until the test ends."""
    started: list[subprocess.Popen[bytes]] = []

    def start(fence: Path, how: str) -> subprocess.Popen[bytes]:
        argv = [sys.executable, "-c", HOLDING, str(fence), how]
        process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        started.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == b"up\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def key(attempt: int) -> AttemptKey:
    return AttemptKey(session="s1", attempt=attempt)


async def test_a_newer_attempt_begins_when_no_process_of_the_older_one_is_left(
    rigs: Rigs, others: Rigs, clip: Path
) -> None:
    async with rigs.start() as rig, others.start() as other:
        first, second = job_of(endless(clip)), job_of(endless(clip), attempt=2)
        await rig.launch(first)
        await rig.running(first)
        former = processes_of(rig.folder(first))
        assert set(former) <= set(lockers(rigs.fence_dir / "s1"))
        await other.launch(second)
        assert processes_of(rig.folder(first)) == []
        assert set(lockers(rigs.fence_dir / "s1")) == set(processes_of(other.folder(second)))
        ended = await rig.ended(first)
        assert ended.ending is Ending.FAILED
        assert ended.failure is not None
        assert ended.failure.reason == "FENCED"
        await other.running(second)


async def test_an_older_attempt_is_refused_by_every_agent_of_the_host(rigs: Rigs, others: Rigs, clip: Path) -> None:
    async with rigs.start() as rig, others.start() as other:
        second = job_of(endless(clip), attempt=2)
        await rig.launch(second)
        with pytest.raises(RequestFailure) as caught:
            await other.launch(job_of(clip))
        assert caught.value.reason is Reason.STALE_ATTEMPT
        assert not other.folder(job_of(clip)).path.exists()
        await rig.running(second)


async def test_a_fenced_attempt_leaves_its_files_where_they_are(
    rigs: Rigs, others: Rigs, clip: Path, tmp_path: Path
) -> None:
    """It completed while its agent could not be asked; the newer attempt has the outputs by then."""
    out = tmp_path / "out"
    out.mkdir()
    job = job_of(clip, FileOutput(id="file", path=str(out / "film.mp4"), container=Container.MP4))
    async with rigs.start() as rig:
        await rig.launch(job)
    await asyncio.to_thread(_await_exit, rig.folder(job).exit)
    async with others.start() as other:
        await other.launch(job_of(endless(clip), attempt=2))
        async with rigs.start() as successor:
            ended = await successor.ended(job)
    assert ended.failure is not None
    assert ended.failure.reason == "FENCED"
    assert [path.name for path in out.iterdir()] == [".gpu-balancer-s1-1"]
    assert (out / ".gpu-balancer-s1-1" / "part-0.mp4").stat().st_size > 0


async def test_an_attempt_whose_fence_is_damaged_says_where_its_files_are(
    rigs: Rigs, clip: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    job = job_of(endless(clip), FileOutput(id="file", path=str(out / "film.mp4"), container=Container.MP4))
    async with rigs.start() as rig:
        await rig.launch(job)
        await rig.running(job)
        (rigs.fence_dir / "s1").write_text("#!&")
        await rig.registry.stop(key(1))
        ended = await rig.ended(job)
    assert ended.failure is not None
    assert "its fence is damaged, so nobody can tell who has them" in ended.failure.message
    (told,) = ended.conditions
    assert (told.type, str(out / ".gpu-balancer-s1-1" / "part-0.mp4") in told.message) == ("UNFINISHED_FILES", True)


def _await_exit(path: Path) -> None:
    subprocess.run(["/bin/sh", "-c", f'until grep -q 0 "{path}"; do sleep 0.02; done'], check=True, timeout=30)


async def test_an_attempt_that_ended_goes_on_to_hold_the_fence_until_a_newer_one_takes_it(
    rigs: Rigs, clip: Path, fences: Fences
) -> None:
    job = job_of(clip)
    async with rigs.start() as rig:
        await rig.launch(job)
        assert (await rig.ended(job)).ending is Ending.COMPLETED
        with fences.prove(key(1), rig.folder(job).path, generation=fences.generation()):
            pass
        await rig.registry.delete("s1")
        assert not (rigs.fence_dir / "s1").exists()


def test_a_proof_holds_the_fence(fences: Fences, tmp_path: Path) -> None:
    with fences.take(key(1), tmp_path / "1"):
        pass
    with (
        fences.prove(key(1), tmp_path / "1", generation=fences.generation()),
        pytest.raises(RequestFailure) as caught,
    ):
        fences.take(key(2), tmp_path / "2")
    assert caught.value.reason is Reason.OUTPUT_FENCED
    assert caught.value.retry_after == timedelta(seconds=1)
    with fences.take(key(2), tmp_path / "2"), pytest.raises(FencedError, match="attempt 2 has them now"):
        fences.prove(key(1), tmp_path / "1", generation=fences.generation())


def test_an_agent_that_hangs_while_it_moves_files_is_killed(
    fences: Fences, tmp_path: Path, holding: Callable[[Path, str], subprocess.Popen[bytes]]
) -> None:
    with fences.take(key(1), tmp_path / "1"):
        pass
    hung = holding(tmp_path / "fences" / "s1", "locked")
    os.kill(hung.pid, signal.SIGSTOP)
    with fences.take(key(2), tmp_path / "2"):
        assert hung.wait(10) == -signal.SIGKILL


def test_who_only_looks_at_a_fence_is_left_alone(
    fences: Fences, tmp_path: Path, holding: Callable[[Path, str], subprocess.Popen[bytes]]
) -> None:
    with fences.take(key(1), tmp_path / "1"):
        pass
    onlooker = holding(tmp_path / "fences" / "s1", "unlocked")
    holder = holding(tmp_path / "fences" / "s1", "locked")
    with fences.take(key(2), tmp_path / "2"):
        assert holder.wait(10) == -signal.SIGKILL
        assert onlooker.poll() is None


def test_what_holds_the_lock_of_the_older_attempt_is_ended_too(
    fences: Fences, tmp_path: Path, holding: Callable[[Path, str], subprocess.Popen[bytes]]
) -> None:
    """As the processes of a display do, which was there before its recording."""
    (tmp_path / "1").mkdir()
    lock = tmp_path / "1" / "lock"
    lock.touch()
    with fences.take(key(1), tmp_path / "1"):
        display = holding(lock, "locked")
    with fences.take(key(2), tmp_path / "2"):
        assert display.wait(10) == -signal.SIGKILL


def test_fences_that_were_lost_are_made_anew_by_whoever_comes_first(fences: Fences, tmp_path: Path) -> None:
    """As when the machine was started anew: /run is empty, and no process is left."""
    with fences.take(key(1), tmp_path / "1"):
        generation = fences.generation()
    shutil.rmtree(tmp_path / "fences")
    with fences.prove(key(1), tmp_path / "1", generation=generation):
        pass
    with fences.take(key(2), tmp_path / "2"), pytest.raises(FencedError):
        fences.prove(key(1), tmp_path / "1", generation=generation)


def test_an_attempt_from_before_there_were_fences_gets_one(fences: Fences, tmp_path: Path) -> None:
    with fences.prove(key(1), tmp_path / "1", generation=""):
        pass
    with fences.take(key(2), tmp_path / "2"), pytest.raises(FencedError):
        fences.prove(key(1), tmp_path / "1", generation="")


def test_nothing_is_written_for_a_session_that_was_deleted(fences: Fences, tmp_path: Path) -> None:
    with fences.take(key(1), tmp_path / "1"):
        generation = fences.generation()
    fences.remove("s1")
    with pytest.raises(FencedError, match="deleted"):
        fences.prove(key(1), tmp_path / "1", generation=generation)
    assert not (tmp_path / "fences" / "s1").exists()


def test_a_fence_with_damaged_content_names_nobody(fences: Fences, tmp_path: Path) -> None:
    with fences.take(key(3), tmp_path / "3"):
        generation = fences.generation()
    (tmp_path / "fences" / "s1").write_bytes(b"\0\0\0")
    with pytest.raises(FencedError, match="its fence is damaged, so nobody can tell"):
        fences.prove(key(3), tmp_path / "3", generation=generation)
    with fences.take(key(4), tmp_path / "4"):
        pass


def test_fences_that_nobody_needs_go_after_a_day(fences: Fences, tmp_path: Path) -> None:
    for session in ("old", "kept", "new"):
        folder = tmp_path / session
        with fences.take(AttemptKey(session=session, attempt=1), folder):
            pass
        if session != "new":
            os.utime(tmp_path / "fences" / session, (1, 1))
    (tmp_path / "kept").mkdir()
    fences.clear()
    assert {path.name for path in (tmp_path / "fences").iterdir()} == {"kept", "new"}


def test_without_a_folder_for_fences_nothing_is_launched(tmp_path: Path) -> None:
    (tmp_path / "fences").touch()
    fences = Fences(tmp_path / "fences", SystemClock())
    with pytest.raises(RequestFailure, match=r"Try another fence_dir in \[sessions\]") as caught:
        fences.take(key(1), tmp_path / "1")
    assert caught.value.reason is Reason.OUTPUT_FENCED
    with pytest.raises(FencedError, match="cannot be used"):
        fences.prove(key(1), tmp_path / "1", generation="")


def test_an_older_attempt_without_a_fence_is_ended_by_its_folder(
    fences: Fences, tmp_path: Path, holding: Callable[[Path, str], subprocess.Popen[bytes]]
) -> None:
    """Its fence was removed under it, or it began before there were any."""
    (tmp_path / "s1" / "1").mkdir(parents=True)
    lock = tmp_path / "s1" / "1" / "lock"
    lock.touch()
    running = holding(lock, "locked")
    with fences.take(key(2), tmp_path / "2", [lock.parent]):
        assert running.wait(10) == -signal.SIGKILL
