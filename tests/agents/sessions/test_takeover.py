"""What a new agent makes of folders: every cell of the table is told from real processes, and has its effect."""

from __future__ import annotations

import asyncio
import fcntl
import os
import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from itertools import product
from pathlib import Path

import pytest
from session_rig import Rigs, endless, job_of, key_of, processes_of, until

from agents.pipelines.job import Container, FileOutput, Job, Rendition, VideoEncoding
from agents.pipelines.recording import Capture, PageSource, RecordingJob, StartGate, StopRules
from agents.sessions import takeover
from agents.sessions.adoption import FoundAttempt, read_attempt
from agents.sessions.attempt import AttemptKey, AttemptStatus, Ending, Phase
from agents.sessions.folder import AttemptFolder, SessionFolders
from agents.sessions.folder_reconciliation import (
    ExitSays,
    LaunchSays,
    Outcome,
    ProcessesSay,
    StatusSays,
    reconcile_folder,
)
from agents.sessions.records import (
    LaunchRecord,
    RecordingRecord,
    RecordUnreadableError,
    dump_launch,
    dump_status,
)
from agents.sessions.spawning import spawn_shim

pytestmark = pytest.mark.process

KEY = AttemptKey(session="s1", attempt=1)
TRANSCODE = LaunchRecord(argv=("/bin/sleep", "60"), has_video=True, first_frame_timeout=timedelta(seconds=20))
RECORDING = RecordingRecord(
    job=RecordingJob(
        session="s1",
        attempt=1,
        source=PageSource(url="http://127.0.0.1/page"),
        capture=Capture(),
        gate=StartGate(),
        stop_rules=StopRules(),
        renditions=(Rendition(id="720p", video=VideoEncoding()),),
        outputs=(FileOutput(id="output-1", path="recording.mp4", container=Container.MP4),),
    )
)
LAUNCHES = {
    LaunchSays.TRANSCODE: dump_launch(TRANSCODE),
    LaunchSays.RECORDING: dump_launch(RECORDING),
    LaunchSays.DAMAGED: b"garbage",
}
BEGUN = datetime(2030, 1, 1, tzinfo=UTC)
STATUSES = {
    StatusSays.LIVE: dump_status(AttemptStatus(key=KEY, event_number=7, phase=Phase.RUNNING, launch_time=BEGUN)),
    StatusSays.ENDED: dump_status(AttemptStatus(key=KEY, event_number=7, phase=Phase.ENDED, ending=Ending.COMPLETED)),
    StatusSays.DAMAGED: b"garbage",
}


def known(pid: int | None) -> int:
    """Gives a process id that must have been written: a signal to 0 would hit the test."""
    assert pid
    return pid


def reap(pid: int) -> None:
    os.waitpid(pid, 0)


def assert_ended(pid: int) -> None:
    """Awaits that a child has ended and leaves it to be reaped."""
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)


def await_program(folder: AttemptFolder) -> None:
    """Waits until the program's process id is written."""
    deadline = threading.Event()
    for _ in range(2000):
        if folder.program_pid() is not None:
            return
        deadline.wait(0.01)
    raise AssertionError("the program did not begin")


@contextmanager
def holding(lock: Path) -> Iterator[int]:
    """A process that has the lock, as one that a program has left behind."""
    descriptor = os.open(lock, os.O_RDWR)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    stray = subprocess.Popen(["/bin/sleep", "60"], pass_fds=(descriptor,), start_new_session=True)
    os.close(descriptor)
    try:
        yield stray.pid
    finally:
        stray.kill()
        stray.wait()


@contextmanager
def left(
    root: Path, launch: LaunchSays, status: StatusSays, processes: ProcessesSay, exit_file: ExitSays
) -> Iterator[AttemptFolder]:
    """A folder as an agent may find it, with real processes."""
    folder = SessionFolders(root=root).of(KEY)
    files = {"status.json": STATUSES[status]}
    if launch is not LaunchSays.ABSENT:
        files["launch.json"] = LAUNCHES[launch]
    folder.create(files)
    with ExitStack() as stack:
        if processes in (ProcessesSay.SHIM, ProcessesSay.PROGRAM):
            shim = spawn_shim(folder, ["/bin/sleep", "60"], {})
            await_program(folder)
            stack.callback(os.waitpid, shim, 0)
            stack.callback(os.kill, known(folder.program_pid()), signal.SIGKILL)
            if processes is ProcessesSay.PROGRAM:
                os.kill(shim, signal.SIGKILL)
                os.waitid(os.P_PID, shim, os.WEXITED | os.WNOWAIT)
        else:
            (folder.path / "shim.pid").write_text("999999998\n")
            (folder.path / "program.pid").write_text("999999999\n")
        if processes is ProcessesSay.OTHERS:
            stack.enter_context(holding(folder.lock))
        if exit_file is ExitSays.WRITTEN:
            folder.exit.write_text("0\n")
        yield folder


@pytest.mark.parametrize("processes", ProcessesSay)
def test_what_a_folder_shows_is_told_in_the_words_of_the_table(tmp_path: Path, processes: ProcessesSay) -> None:
    for number, seen in enumerate(product(LaunchSays, StatusSays, ExitSays)):
        launch, status, exit_file = seen
        expected = reconcile_folder(launch=launch, status=status, processes=processes, exit_file=exit_file)
        with left(tmp_path / str(number), launch, status, processes, exit_file) as folder:
            if expected is Outcome.LEAVE:
                with pytest.raises(RecordUnreadableError):
                    read_attempt(folder)
            else:
                found = read_attempt(folder)
                assert found.outcome is expected, seen
                assert (found.launch is None) == (launch in (LaunchSays.ABSENT, LaunchSays.DAMAGED))
                assert found.status.live == (status is not StatusSays.ENDED)


async def abandoned(rigs: Rigs, clip: Path) -> Job:
    """An endless attempt, running, whose agent is gone."""
    job = job_of(endless(clip))
    async with rigs.start() as rig:
        await rig.launch(job)
        await rig.running(job)
    return job


def folder_of(rigs: Rigs, job: Job) -> AttemptFolder:
    return SessionFolders(root=rigs.state_dir / "sessions").of(key_of(job))


async def test_a_program_whose_shim_was_killed_while_no_agent_was_there_is_ended_in_good_order(
    rigs: Rigs, clip: Path
) -> None:
    job = await abandoned(rigs, clip)
    folder = folder_of(rigs, job)
    os.kill(known(folder.shim_pid()), signal.SIGKILL)
    reap(known(folder.shim_pid()))
    async with rigs.start() as successor:
        ended = await successor.ended(job)
        assert ended.failure is not None
        assert ended.failure.reason == "SHIM_LOST"
        assert ended.signal_time is not None, "it was asked before it was killed"
        assert processes_of(folder) == []


async def test_what_outlives_a_program_that_has_ended_is_killed_and_its_end_told_by_exit(
    rigs: Rigs, clip: Path
) -> None:
    job = await abandoned(rigs, clip)
    folder = folder_of(rigs, job)
    with holding_after(folder) as stray:
        async with rigs.start() as successor:
            ended = await successor.ended(job)
            assert ended.failure is not None
            assert ended.failure.exit_code == 128 + signal.SIGKILL
        assert_ended(stray)


@contextmanager
def holding_after(folder: AttemptFolder) -> Iterator[int]:
    """Kills the program, awaits that its shim has told so, and leaves something that has the lock."""
    shim = known(folder.shim_pid())
    os.kill(known(folder.program_pid()), signal.SIGKILL)
    os.waitpid(shim, 0)
    with holding(folder.lock) as stray:
        yield stray


async def test_what_still_runs_of_an_attempt_that_told_its_end_is_killed_and_the_end_stands(
    rigs: Rigs, clip: Path
) -> None:
    job = job_of(clip)
    async with rigs.start() as rig:
        await rig.launch(job)
        before = await rig.ended(job)
    with holding(folder_of(rigs, job).lock) as stray:
        async with rigs.start() as successor:
            await until(lambda: processes_of(successor.folder(job)) == [])
            assert_ended(stray)
            assert await successor.ended(job) == before


async def test_a_folder_that_the_disk_does_not_give_counts_as_live_until_it_does(
    rigs: Rigs, clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = await abandoned(rigs, clip)
    gives = threading.Event()

    def slow(folder: AttemptFolder) -> FoundAttempt:
        assert gives.wait(30)
        return read_attempt(folder)

    monkeypatch.setattr(takeover, "read_attempt", slow)
    async with rigs.start(adopted_within=timedelta(milliseconds=50)) as successor:
        assert successor.registry.live_count == 1
        with successor.book.feed.watch(0, successor.book.last_number) as watcher:
            first = await anext(aiter(watcher.events()))
        assert getattr(first, "live_attempts", ()) == (key_of(job),), "nobody takes it for lost"
        async with asyncio.TaskGroup() as asked:
            again = asked.create_task(successor.launch(job))
            stopping = asked.create_task(successor.registry.stop(key_of(job)))
            await asyncio.sleep(0)
            assert not again.done()
            assert not stopping.done()
            gives.set()
        ended = await successor.ended(job)
        assert (ended.ending, ended.failure) == (Ending.STOPPED, None)
        assert len(list(folder_of(rigs, job).path.parent.iterdir())) == 1


async def test_a_slow_folder_of_which_nothing_can_be_told_is_not_known_in_the_end(
    rigs: Rigs, clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = job_of(clip)
    async with rigs.start() as rig:
        await rig.launch(job)
        await rig.ended(job)
    folder_of(rigs, job).status.write_bytes(b"garbage")
    gives = threading.Event()

    def slow(folder: AttemptFolder) -> FoundAttempt:
        assert gives.wait(30)
        return read_attempt(folder)

    monkeypatch.setattr(takeover, "read_attempt", slow)
    async with rigs.start(adopted_within=timedelta(milliseconds=50)) as successor:
        assert key_of(job) in successor.book.statuses
        gives.set()
        await until(lambda: not successor.registry.live_count)
        assert key_of(job) not in successor.book.statuses
