"""Programs that are bounded in time and output, whatever they do."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import psutil
import pytest

from agents.bounded_program import Progress, run_bounded

pytestmark = pytest.mark.process

LONG = timedelta(seconds=30)


def shell(text: str) -> list[str]:
    return ["/bin/sh", "-c", text]


def live_children() -> set[psutil.Process]:
    children = psutil.Process().children(recursive=True)
    return {child for child in children if child.status() != psutil.STATUS_ZOMBIE}


@pytest.fixture(autouse=True)
def _nothing_is_left_running() -> Iterator[None]:
    """Whatever a test here runs has ended with it. Daemons that other tests of this process share may be there."""
    before = live_children()
    yield
    assert live_children() <= before


async def test_exit_code_and_both_outputs_are_told() -> None:
    run = await run_bounded(shell("echo out; echo err >&2; exit 7"), timeout=LONG)
    assert (run.exit_code, run.output, run.timed_out) == (7, "out\nerr\n", False)


async def test_a_signal_is_told_as_such() -> None:
    run = await run_bounded(shell("kill -SEGV $$"), timeout=LONG)
    assert run.exit_code in (-11, 128 + 11), "directly, or as coreutils' timeout passes it on"


async def test_variables_are_set_on_top_of_ours() -> None:
    run = await run_bounded(shell('echo "$A-$HOME"'), timeout=LONG, env={"A": "b"})
    assert run.output.startswith("b-/")


async def test_at_the_deadline_the_whole_group_is_killed() -> None:
    run = await run_bounded(shell("echo begun; sleep 600 & sleep 600"), timeout=timedelta(seconds=0.3))
    assert (run.exit_code, run.timed_out, run.output) == (None, True, "begun\n")


async def test_what_stands_still_is_killed_before_its_deadline_and_what_goes_on_is_not() -> None:
    shown = iter(range(1000))
    # A busy machine takes its time for a look, too.
    going = Progress(shown=lambda: next(shown), within=timedelta(seconds=0.6))
    run = await run_bounded(shell("sleep 2; echo done"), timeout=LONG, progress=going)
    assert (run.exit_code, run.output) == (0, "done\n")
    assert next(shown) > 1, "it was looked at"
    for still in (Progress(shown=lambda: 7, within=timedelta(seconds=0.1)), hanging(timedelta(seconds=0.1))):
        run = await run_bounded(shell("sleep 600 & sleep 600"), timeout=timedelta(hours=1), progress=still)
        assert run.timed_out


async def test_what_goes_on_for_ever_is_killed_at_its_deadline() -> None:
    shown = iter(range(1000))
    going = Progress(shown=lambda: next(shown), within=timedelta(seconds=0.05))
    assert (await run_bounded(shell("sleep 600"), timeout=timedelta(seconds=0.5), progress=going)).timed_out


def hanging(within: timedelta) -> Progress:
    """Shows nothing at all: not even the disk answers."""
    return Progress(shown=lambda: time.sleep(1), within=within)


async def test_a_run_that_is_called_off_is_killed_with_its_children(tmp_path: Path) -> None:
    begun = tmp_path / "begun"
    watcher = await asyncio.to_thread(lambda: begun.parent.stat().st_mtime_ns)
    async with asyncio.timeout(10):
        task = asyncio.get_running_loop().create_task(
            run_bounded(shell(f"sleep 600 & echo x > {begun}; sleep 600"), timeout=LONG)
        )
        while await asyncio.to_thread(lambda: begun.parent.stat().st_mtime_ns) == watcher:
            pass
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


async def test_a_run_that_is_called_off_at_once_leaves_nothing() -> None:
    task = asyncio.get_running_loop().create_task(run_bounded(shell("sleep 600 & sleep 600"), timeout=LONG))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_grandchild_that_keeps_the_output_open_does_not_hold_us() -> None:
    async with asyncio.timeout(20):
        run = await run_bounded(shell("sleep 600 & echo done"), timeout=LONG)
    assert (run.exit_code, run.output) == (0, "done\n")


async def test_of_endless_output_the_end_is_kept() -> None:
    run = await run_bounded(shell("seq 1 300000"), timeout=LONG, output_limit_bytes=1000)
    assert len(run.output) == 1000
    assert run.output.endswith("299999\n300000\n")


async def test_what_cannot_be_started_is_told_apart(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("hello")
    with pytest.raises(FileNotFoundError):
        await run_bounded([str(tmp_path / "missing")], timeout=LONG)
    with pytest.raises(PermissionError):
        await run_bounded([str(tmp_path / "text")], timeout=LONG)
