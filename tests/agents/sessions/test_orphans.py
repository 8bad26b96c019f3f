"""Orphans with real processes: what carries our mark and belongs to nothing is ended, and nobody else is touched."""

from __future__ import annotations

import asyncio
import os
import select
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from pathlib import Path

import pytest
from session_rig import Rig, Rigs, endless, job_of, key_of, processes_of

from agents.bounded_program import run_bounded
from agents.process_marks import OWNER_VARIABLE, Mark, OwnerKind, find_marked, mark_of, name_of_agent, parse_mark
from agents.sessions.attempt import AttemptKey
from agents.sessions.folder import SessionFolders, marked_attempt, session_mark
from agents.sessions.orphans import OrphanSweep
from agents.sessions.processes import AttemptProcesses
from agents.sessions.spawning import spawn_shim
from gpu_balancer.runtime.clock import SystemClock

pytestmark = pytest.mark.process

LIFE = "this-life"
LET_GO = """
import os, sys, time
if os.fork():
    os._exit(0)
os.setsid()
if os.fork():
    os._exit(0)
os.closerange(3, 256)
with open(sys.argv[1], "w") as file:
    file.write(f"{os.getpid()}\\n")
time.sleep(600)
"""
"""A program that leaves a child behind in a session of its own, without any descriptor of its attempt."""


def sweep_of(rig: Rig) -> OrphanSweep:
    life = Mark(agent=rig.folders.agent, kind=OwnerKind.AGENT, name=LIFE)
    return OrphanSweep(life, is_live=rig.registry.is_live, clock=SystemClock())


async def swept(rig: Rig) -> None:
    await sweep_of(rig).sweep(within=timedelta(seconds=20))


@contextmanager
def marked(text: str, *argv: str) -> Iterator[subprocess.Popen[bytes]]:
    """A process with this for a mark."""
    process = subprocess.Popen(argv or ("/bin/sleep", "600"), env={**os.environ, OWNER_VARIABLE: text})
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def gone(pid: int) -> bool:
    """Whether a process has ended; one that nobody has reaped counts."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return True


def await_truth(truth: Callable[[], object]) -> None:
    """Looks again and again until something holds; fails when it never does."""
    for _ in range(2000):
        if truth():
            return
        select.select([], [], [], 0.01)
    raise AssertionError("it did not come true in time")


def leave_behind(folders: SessionFolders, key: AttemptKey, told: Path) -> int:
    """Has a program of an attempt leave a child behind, and gives its process id."""
    folder = folders.of(key)
    folder.create({})
    shim = spawn_shim(folder, [sys.executable, "-c", LET_GO, str(told)], {})
    await_truth(lambda: told.exists() and told.read_text().endswith("\n"))
    with AttemptProcesses(folder, shim) as processes:
        await_truth(lambda: not processes.any_alive())
    return int(told.read_text())


async def test_a_child_that_let_go_of_everything_is_ended_when_its_attempt_has_no_record(
    rigs: Rigs, tmp_path: Path
) -> None:
    folders = SessionFolders(root=rigs.state_dir / "sessions", agent=name_of_agent(rigs.state_dir))
    child = leave_behind(folders, AttemptKey(session="s1", attempt=1), tmp_path / "told")
    try:
        assert mark_of(child) == session_mark(folders.agent, AttemptKey(session="s1", attempt=1))
        async with rigs.start() as rig:
            assert not gone(child), "its folder's lock is free: nothing else tells of it"
            await swept(rig)
            assert gone(child)
    finally:
        if not gone(child):
            os.kill(child, signal.SIGKILL)


async def test_a_session_whose_folder_was_removed_while_no_agent_was_there_is_ended(rigs: Rigs, clip: Path) -> None:
    job = job_of(endless(clip))
    async with rigs.start() as rig:
        await rig.launch(job)
        await rig.running(job)
        pids = processes_of(rig.folder(job))
    assert len(pids) == 2
    shutil.rmtree(rigs.state_dir / "sessions" / job.session)
    async with rigs.start() as successor:
        await swept(successor)
        assert [pid for pid in pids if not gone(pid)] == []


async def test_attempts_that_are_known_run_on_and_their_strays_do_not_outlive_them(rigs: Rigs, clip: Path) -> None:
    job = job_of(endless(clip))
    key = key_of(job)
    async with rigs.start() as rig:
        await rig.launch(job)
        await rig.running(job)
        pids = processes_of(rig.folder(job))
        with marked(str(session_mark(rig.folders.agent, key))) as stray:
            await swept(rig)
            assert [pid for pid in pids if gone(pid)] == []
            assert stray.poll() is None, "what a live attempt has started is its own affair"
            await rig.registry.stop(key)
            await rig.ended(job)
            await swept(rig)
            assert gone(stray.pid)


async def test_nothing_of_others_is_touched_however_much_it_looks_like_ours(rigs: Rigs, tmp_path: Path) -> None:
    async with rigs.start() as rig:
        ours = rig.folders.agent
        (tmp_path / "other").mkdir()
        theirs = name_of_agent(tmp_path / "other")
        look_alikes = [
            f"{theirs}:session:s1:1",
            f"{ours}x:session:s1:1",
            f"x{ours}:session:s1:1",
            f"{ours}:session:s1",
            f"{ours}:session:s1:one",
            f"{ours}:session:../s1:1",
            f"{ours}:session:s1:1:2",
            f"{ours}:sessions:s1:1",
            f"{ours}:display:abc",
            f"{ours}:agent:{LIFE}",
            f"{ours}:agent:",
            ours,
            "",
        ]
        with ExitStack() as stack:
            others = [stack.enter_context(marked(text)) for text in look_alikes]
            orphan = stack.enter_context(marked(f"{ours}:session:s1:1"))
            await swept(rig)
            assert gone(orphan.pid)
            assert [text for text, other in zip(look_alikes, others, strict=True) if gone(other.pid)] == []


async def test_what_an_earlier_life_of_the_agent_started_is_ended_and_what_this_one_starts_is_not(
    rigs: Rigs, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with rigs.start() as rig:
        agent = rig.folders.agent
        monkeypatch.setenv(OWNER_VARIABLE, f"{agent}:agent:{LIFE}")
        with marked(f"{agent}:agent:an-earlier-one") as earlier:
            looking = rig.tasks.spawn(
                run_bounded(["/bin/sleep", "600"], timeout=timedelta(seconds=60)), name="a look at an input"
            )
            await asyncio.sleep(0)
            async with asyncio.timeout(20):
                while not (mine := find_marked(agent).keys() - {earlier.pid}):  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
            await swept(rig)
            assert gone(earlier.pid)
            assert [pid for pid in mine if gone(pid)] == []
            looking.cancel()


async def test_orphans_that_start_others_are_ended_all_the_same(rigs: Rigs) -> None:
    async with rigs.start() as rig:
        mark = session_mark(rig.folders.agent, AttemptKey(session="s1", attempt=3))
        script = "while :; do sleep 600 & sleep 0.01; done"
        with marked(str(mark), "/bin/sh", "-c", script) as busy:
            await swept(rig)
            assert gone(busy.pid)
        assert [pid for pid in find_marked(rig.folders.agent) if not gone(pid)] == []


async def test_an_attempt_that_is_launched_while_orphans_are_looked_for_is_spared(
    rigs: Rigs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is known by the time its processes are held, though it was not when they were found."""
    known: list[AttemptKey] = []
    async with rigs.start() as rig:
        key = AttemptKey(session="s1", attempt=1)
        life = Mark(agent=rig.folders.agent, kind=OwnerKind.AGENT, name=LIFE)

        def is_live(asked: AttemptKey) -> bool:
            known.append(asked)
            return len(known) > 1

        with marked(str(session_mark(rig.folders.agent, key))) as launched:
            await OrphanSweep(life, is_live=is_live, clock=SystemClock()).sweep(within=timedelta(seconds=5))
            assert not gone(launched.pid)
    assert known == [key, key]


def test_marks_are_read_as_they_are_written() -> None:
    key = AttemptKey(session="s1", attempt=12)
    mark = session_mark("a", key)
    assert parse_mark(str(mark)) == mark
    assert marked_attempt(mark) == key


def test_state_folders_of_the_same_path_are_not_the_same_agent(tmp_path: Path) -> None:
    first = tmp_path / "state"
    first.mkdir()
    name = name_of_agent(first)
    assert name == name_of_agent(tmp_path / "." / "state")
    first.rename(tmp_path / "moved")
    first.mkdir()
    assert name_of_agent(first) != name
