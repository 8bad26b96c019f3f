"""Displays outlive the agent: the next one takes over those in use and ends everything else, and nothing of others."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

import pytest
from display_rig import (
    SLEEP,
    environment_of,
    files_below,
    is_root,
    opened_pool,
    process_of,
    processes_of,
    status_of,
    traces_of,
)

from agents.displays import pool
from agents.displays.display import BrowserEndpoint, Display
from agents.displays.display_folder import DisplayFolder
from agents.displays.run_folders import agent_name
from agents.displays.screens import screen_size
from agents.displays.spawning import BROWSER, X_SERVER
from agents.process_marks import Mark, OwnerKind

pytestmark = pytest.mark.process
WITHIN = timedelta(seconds=30)
OWNER = Path(__file__).with_name("display_owner.py")
PATHS = ":".join(str(OWNER.parents[index]) for index in (0, 2, 3))


@asynccontextmanager
async def killed_owner(root: Path, run_dir: Path, kind: str) -> AsyncIterator[list[Display]]:
    """Displays of an agent that was killed."""
    owner = await asyncio.create_subprocess_exec(
        *(sys.executable, str(OWNER), str(root), str(run_dir), kind),
        env={**os.environ, "PYTHONPATH": PATHS},
        stdout=asyncio.subprocess.PIPE,
    )
    assert owner.stdout is not None
    told = json.loads(await owner.stdout.readline())
    owner.kill()
    await owner.communicate()
    yield [_display(fields) for fields in told]


def _display(fields: dict[str, object]) -> Display:
    browser = fields.pop("browser")
    endpoint = BrowserEndpoint(**browser) if isinstance(browser, dict) else None
    return Display(**fields, browser=endpoint)  # type: ignore[arg-type]


async def test_the_next_agent_takes_over_what_is_in_use_and_ends_the_rest(root: Path, run_dir: Path) -> None:
    async with killed_owner(root, run_dir, "lent") as (used, unused):
        assert processes_of(used)
        async with opened_pool(root, run_dir, used=(used.id,)) as rig:
            assert rig.pool.find(used.id) == used
            assert rig.pool.alive(used.id)
            assert await screen_size(used, within=WITHIN) == (640, 360)
            assert rig.pool.ability().used_display_count == 1
            assert traces_of(unused) == []
            pid = await rig.pool.spawn(used, [SLEEP, "1000"], name="application")
            assert f"DISPLAY={used.name}" in environment_of(pid)
            if is_root:
                assert f"Uid:\t{used.user_id}" in status_of(pid)
            await rig.pool.release(used.id)
            assert traces_of(used) == []
    assert files_below(root) == files_below(run_dir) == []


async def test_a_display_that_died_meanwhile_is_taken_over_as_dead(root: Path, run_dir: Path) -> None:
    async with killed_owner(root, run_dir, "lent") as (used, unused):
        for display, name in ((used, X_SERVER), (unused, BROWSER)):
            descriptor = os.pidfd_open(process_of(display, name))
            signal.pidfd_send_signal(descriptor, signal.SIGKILL)
            loop, ended = asyncio.get_running_loop(), asyncio.Event()
            loop.add_reader(descriptor, ended.set)
            await ended.wait()
            loop.remove_reader(descriptor)
            os.close(descriptor)
        async with opened_pool(root, run_dir, used=(used.id, unused.id)) as rig:
            for display in (used, unused):
                assert rig.pool.find(display.id) is not None
                assert not rig.pool.alive(display.id)
                await rig.pool.release(display.id)
                assert traces_of(display) == []


async def test_a_display_that_was_being_made_is_ended(root: Path, run_dir: Path) -> None:
    async with killed_owner(root, run_dir, "making") as (unfinished,), opened_pool(root, run_dir) as rig:
        assert rig.pool.find(unfinished.id) is None
        assert traces_of(unfinished) == []
    assert files_below(root) == files_below(run_dir) == []


async def test_what_has_lost_its_record_is_ended_all_the_same(root: Path, run_dir: Path) -> None:
    async with killed_owner(root, run_dir, "lent") as displays:
        for display in displays:
            folder = DisplayFolder(path=Path(display.lock).parent)
            folder.remove()
        async with opened_pool(root, run_dir, used=[displays[0].id]) as rig:
            assert rig.pool.find(displays[0].id) is None
            assert [pid for display in displays for pid in processes_of(display)] == []
    assert files_below(root) == files_below(run_dir) == []


async def marked_process(root: Path) -> asyncio.subprocess.Process:
    """A process of a display of which there is nothing else."""
    mark = Mark(agent=agent_name(root), kind=OwnerKind.DISPLAY, name="forgotten")
    return await asyncio.create_subprocess_exec(SLEEP, "1000", env=mark.environment)


async def test_a_marked_process_without_any_folder_is_ended(root: Path, run_dir: Path) -> None:
    forgotten = await marked_process(root)
    async with opened_pool(root, run_dir):
        assert await forgotten.wait() == -signal.SIGKILL


async def test_a_process_of_no_display_is_ended_while_the_agent_runs_and_displays_stay(
    root: Path, run_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool, "_TEND_EVERY_S", 0.01)
    async with opened_pool(root, run_dir) as rig:
        lent = await rig.acquire()
        before = set(processes_of(lent))
        forgotten = await marked_process(root)
        assert await forgotten.wait() == -signal.SIGKILL
        assert set(processes_of(lent)) == before
        assert rig.pool.alive(lent.id)
        await rig.pool.release(lent.id)


async def test_an_agent_leaves_the_displays_of_another_alone(root: Path, run_dir: Path, tmp_path: Path) -> None:
    other_root = tmp_path / "other"
    async with opened_pool(other_root, run_dir) as other:
        theirs = await other.acquire(sound=True)
        foreign = await marked_process(other_root)
        async with opened_pool(root, run_dir) as rig:
            await rig.pool.release((await rig.acquire()).id)
        assert other.pool.alive(theirs.id)
        assert foreign.returncode is None
        await other.pool.release(theirs.id)
    foreign.kill()
    await foreign.wait()


async def test_lent_displays_stay_when_an_agent_ends_and_others_go(root: Path, run_dir: Path) -> None:
    async with opened_pool(root, run_dir, warm_displays=1) as rig:
        lent = await rig.acquire()
        await rig.warm()
        # More than one where the machine was too busy for the first to settle.
        others = [display for display in rig.browsers_started if display.id != lent.id]
    assert others
    assert [traces_of(display) for display in others] == [[] for _ in others]
    assert processes_of(lent)
    async with opened_pool(root, run_dir, used=(lent.id,)) as rig:
        assert rig.pool.alive(lent.id)


async def test_the_folder_of_a_newer_agent_is_not_taken_over(root: Path, run_dir: Path) -> None:
    (root / "newer").mkdir(parents=True)
    (root / "newer" / "record.json").write_text('{"version": 2}')
    async with opened_pool(root, run_dir, used=("newer",)) as rig:
        assert rig.pool.find("newer") is None
