"""ffmpeg is started while its page is still awaited, and takes nothing before that is there."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from recording_rig import RecordingRig, RecordingRigs, cause_of, key_of, recording, signal_program

from agents.browsers.page import PageEnd, PageFault
from agents.pipelines.recording import RecordingJob
from agents.recordings.take_folder import take_folder, take_outputs
from agents.sessions.attempt import Ending


async def test_it_takes_nothing_until_the_gate_is_passed(rigs: RecordingRigs) -> None:
    job = recording()
    async with at_gate(rigs, job) as (rig, waiting):
        assert take_outputs(rig.folder(job), 1) == ()
        assert rig.state(job).takes == ()
        rig.pages.one.gate.set()
        await rig.recorded(job, 6)
        assert await program_of_first_take(rig, job) == waiting
        await complete(rig, job)


async def test_one_that_is_killed_while_it_waits_is_replaced(rigs: RecordingRigs) -> None:
    job = recording()
    async with at_gate(rigs, job) as (rig, waiting):
        signal_program(rig, job, 1, signal.SIGKILL)
        await until_gone(waiting)
        rig.pages.one.gate.set()
        await rig.recorded(job, 6)
        assert await program_of_first_take(rig, job) != waiting
        await complete(rig, job)


async def test_it_ends_when_its_page_cannot_be_had(rigs: RecordingRigs) -> None:
    job = recording()
    async with at_gate(rigs, job) as (rig, waiting):
        rig.pages.one.fault_at_gate = PageFault("GATE_TIMEOUT", "Cannot begin: the gate was not passed. Try another.")
        rig.pages.one.gate.set()
        ended = await rig.ended(job)
        await until_gone(waiting)
    assert ended.failure is not None
    assert ended.failure.reason == "GATE_TIMEOUT"


async def test_a_page_that_is_over_before_its_gate_leaves_no_file(rigs: RecordingRigs) -> None:
    job = recording()
    async with at_gate(rigs, job) as (rig, waiting):
        rig.pages.one.finish(PageEnd.SIGNAL)
        rig.pages.one.gate.set()
        ended = await rig.ended(job)
        await until_gone(waiting)
    assert (ended.ending, cause_of(ended)) == (Ending.STOPPED, "END_SIGNAL")
    assert rig.state(job).takes == ()
    assert list(rig.folder(job).artifacts.iterdir()) == []


async def test_it_ends_with_the_agent_and_the_next_one_begins_anew(rigs: RecordingRigs) -> None:
    job = recording()
    async with at_gate(rigs, job) as (_, waiting):
        pass
    await until_gone(waiting)
    async with rigs.start() as rig:
        await rig.recorded(job, 6)
        await complete(rig, job)


async def test_an_ffmpeg_that_cannot_wait_is_started_when_the_gate_is_passed(rigs: RecordingRigs) -> None:
    job = recording()
    rigs.shooting.may_be_held = False
    async with rigs.start() as rig:
        rig.pages.one.gate.clear()
        await rig.launch(job)
        await rig.until(job, lambda _: (rig.folder(job).path / "takes" / "1").exists())
        assert take_folder(rig.folder(job), 1).shim_pid() is None
        rig.pages.one.gate.set()
        await rig.recorded(job, 6)
        await complete(rig, job)


async def test_none_of_its_processes_is_left_to_be_reaped(rigs: RecordingRigs) -> None:
    job = recording()
    async with at_gate(rigs, job) as (rig, _):
        shim = take_folder(rig.folder(job), 1).shim_pid()
        await rig.registry.stop(key_of(job))
        await rig.ended(job)
    assert not await asyncio.to_thread(Path(f"/proc/{shim}").exists)


@asynccontextmanager
async def at_gate(rigs: RecordingRigs, job: RecordingJob) -> AsyncIterator[tuple[RecordingRig, int]]:
    """Launches a recording whose gate is shut; gives the process id of the ffmpeg that waits meanwhile."""
    async with rigs.start() as rig:
        rig.pages.one.gate.clear()
        await rig.launch(job)
        yield rig, await program_of_first_take(rig, job)


async def complete(rig: RecordingRig, job: RecordingJob) -> None:
    """Stops a recording, which then is complete."""
    await rig.registry.stop(key_of(job))
    assert (await rig.ended(job)).ending is Ending.COMPLETED


async def program_of_first_take(rig: RecordingRig, job: RecordingJob) -> int:
    """Awaits the program of the first take, which may wait itself, and gives its process id."""
    async with asyncio.timeout(20):
        while (pid := take_folder(rig.folder(job), 1).program_pid()) is None:  # noqa: ASYNC110 - a file tells it
            await asyncio.sleep(0.01)
    return pid


async def until_gone(pid: int) -> None:
    """Awaits that a process has ended."""
    async with asyncio.timeout(20):
        while await asyncio.to_thread(Path(f"/proc/{pid}").exists):  # noqa: ASYNC110 - of no child of ours
            await asyncio.sleep(0.01)
