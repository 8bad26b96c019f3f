"""Attempts from launch to end with real ffmpeg: what becomes of them, whoever is killed meanwhile."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import time
from collections.abc import Collection, Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from session_rig import FFMPEG, Rigs, endless, frames_of, job_of, key_of, processes_of

from agents.pipelines.job import Container, FileOutput, IngestInput, IngestProtocol, UriInput
from agents.sessions.attempt import AttemptKey, AttemptStatus, Ending, Phase
from agents.sessions.event_feed import CaughtUp
from agents.sessions.folder import AttemptFolder, SessionFolders
from agents.sessions.launching import LaunchOrder
from agents.sessions.processes import AttemptProcesses
from agents.sessions.records import dump_launch, dump_status, load_launch
from agents.sessions.running import Launched
from fakes.small_file_system import fill, small_file_system
from gpu_balancer.runtime.failures import Reason, RequestFailure

pytestmark = pytest.mark.process


def status_of(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: value for name, _, value in (line.partition(":") for line in lines)}


async def until_stuck(folder: AttemptFolder) -> None:
    """Awaits that ffmpeg handles signals and its first thread has not moved for a while."""
    async with asyncio.timeout(20):
        before = None
        while True:
            await asyncio.sleep(0.2)
            pid = folder.program_pid()
            told = {} if pid is None else status_of(pid)
            now = (told.get("State"), told.get("voluntary_ctxt_switches"), told.get("nonvoluntary_ctxt_switches"))
            handled = int(told.get("SigCgt", "0"), 16) >> (signal.SIGTERM - 1) & 1
            if handled and now == before:
                return
            before = now


def failure_reason(status: AttemptStatus) -> str:
    assert status.ending is Ending.FAILED, status
    assert status.failure is not None
    return status.failure.reason


async def test_a_job_runs_to_its_end_and_leaves_its_artifact(rigs: Rigs, clip: Path) -> None:
    job = job_of(clip)
    async with rigs.start() as rig:
        assert await rig.launch(job) is None
        ended = await rig.ended(job)
    assert (ended.ending, ended.failure) == (Ending.COMPLETED, None)
    assert ended.progress is not None
    assert ended.progress.frames == 50
    assert ended.progress.total_time == timedelta(seconds=2)
    assert ended.launch_time is not None
    assert ended.running_time is not None
    assert ended.end_time is not None
    assert ended.launch_time <= ended.running_time
    assert frames_of(rig.folder(job).artifacts / "out.mp4") == 50
    assert processes_of(rig.folder(job)) == []


async def test_phases_are_told_in_order_under_rising_numbers(rigs: Rigs, clip: Path) -> None:
    job = job_of(endless(clip))
    async with rigs.start() as rig:
        await rig.launch(job)
        first = await rig.until(job, lambda status: True)
        running = await rig.running(job)
        await rig.registry.stop(key_of(job))
        ended = await rig.ended(job)
    assert [status.phase for status in (first, running, ended)] == [Phase.STARTING, Phase.RUNNING, Phase.ENDED]
    assert 0 < first.event_number < running.event_number < ended.event_number


async def test_a_stop_completes_a_playable_file(rigs: Rigs, clip: Path) -> None:
    job = job_of(endless(clip))
    async with rigs.start() as rig:
        await rig.launch(job)
        await rig.running(job)
        await rig.registry.stop(key_of(job))
        await rig.registry.stop(key_of(job))
        ended = await rig.ended(job)
    assert (ended.ending, ended.failure) == (Ending.STOPPED, None)
    assert frames_of(rig.folder(job).artifacts / "out.mp4") > 0


async def test_a_session_ends_by_itself_after_its_longest_time_of_running(rigs: Rigs, clip: Path) -> None:
    job = job_of(endless(clip))
    async with rigs.start() as rig:
        await rig.launch(job, max_duration=timedelta(seconds=0.5))
        ended = await rig.ended(job)
    assert ended.ending is Ending.COMPLETED
    assert frames_of(rig.folder(job).artifacts / "out.mp4") > 0


async def test_a_program_that_does_not_hear_the_signal_is_killed(rigs: Rigs, tmp_path: Path) -> None:
    """ffmpeg opens a pipe that nobody writes into: it waits for ever, whatever it is told."""
    rigs.settle(runner={"stop_timeout": timedelta(seconds=0.5)})
    os.mkfifo(tmp_path / "pipe.mp4")
    job = job_of(tmp_path / "pipe.mp4")
    async with rigs.start() as rig:
        await rig.launch(job)
        await until_stuck(rig.folder(job))
        await rig.registry.stop(key_of(job))
        await rig.ended(job)
    assert rig.folder(job).exit_code() == 128 + signal.SIGKILL
    assert processes_of(rig.folder(job)) == []


async def test_a_killed_program_is_a_failure_with_the_end_of_its_log(rigs: Rigs, clip: Path) -> None:
    job = job_of(endless(clip))
    async with rigs.start() as rig:
        await rig.launch(job)
        await rig.running(job)
        with rig.folder(job).log.open("a") as log:
            log.write("the last words\n")
        program = rig.folder(job).program_pid()
        assert program is not None
        os.kill(program, signal.SIGKILL)
        ended = await rig.ended(job)
    assert failure_reason(ended) == "KILLED"
    assert ended.failure is not None
    assert ended.failure.exit_code == 128 + signal.SIGKILL
    assert "the last words" in ended.failure.log_tail


async def test_a_killed_shim_ends_its_program_and_is_told_as_what_it_is(rigs: Rigs, clip: Path) -> None:
    job = job_of(endless(clip))
    async with rigs.start() as rig:
        await rig.launch(job)
        await rig.running(job)
        shim = rig.folder(job).shim_pid()
        assert shim is not None
        os.kill(shim, signal.SIGKILL)
        ended = await rig.ended(job)
    assert failure_reason(ended) == "SHIM_LOST"
    assert ended.failure is not None
    assert ended.failure.exit_code is None
    assert processes_of(rig.folder(job)) == []
    assert frames_of(rig.folder(job).artifacts / "out.mp4") > 0


async def test_a_broken_input_is_a_failure_with_what_ffmpeg_said(rigs: Rigs, tmp_path: Path) -> None:
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"this is no film" * 1000)
    job = job_of(broken)
    async with rigs.start() as rig:
        await rig.launch(job)
        ended = await rig.ended(job)
    assert failure_reason(ended) == "INPUT_UNREADABLE"
    assert ended.failure is not None
    assert ended.failure.log_tail


async def test_an_input_that_gives_no_frame_in_time_is_a_failure(rigs: Rigs) -> None:
    rigs.settle(launch={"first_frame_timeout": timedelta(seconds=0.5)})
    with socket.create_server(("127.0.0.1", 0)) as silent:
        job = job_of(UriInput(uri=f"http://127.0.0.1:{silent.getsockname()[1]}/never.mp4"))
        async with rigs.start() as rig:
            await rig.launch(job)
            ended = await rig.ended(job)
    assert failure_reason(ended) == "NO_FIRST_FRAME"
    assert processes_of(rig.folder(job)) == []


# Outputs


async def test_an_output_gets_its_name_when_it_is_complete(rigs: Rigs, clip: Path, tmp_path: Path) -> None:
    final = tmp_path / "film.mp4"
    job = job_of(endless(clip), FileOutput(id="o", path=str(final), container=Container.MP4))
    async with rigs.start() as rig:
        await rig.launch(job)
        await rig.running(job)
        assert not final.exists()
        await rig.registry.stop(key_of(job))
        await rig.ended(job)
    assert frames_of(final) > 0
    assert files_in(tmp_path) == ["film.mp4"]


async def test_an_output_whose_name_was_taken_meanwhile_is_kept_beside(rigs: Rigs, clip: Path, tmp_path: Path) -> None:
    final = tmp_path / "film.mp4"
    job = job_of(endless(clip), FileOutput(id="o", path=str(final), container=Container.MP4))
    async with rigs.start() as rig:
        await rig.launch(job)
        await rig.running(job)
        final.write_text("mine")
        await rig.registry.stop(key_of(job))
        ended = await rig.ended(job)
        [move] = load_launch(rig.folder(job).launch.read_bytes()).output_moves
        assert failure_reason(ended) == "OUTPUT_EXISTS"
        assert final.read_text() == "mine"
        assert frames_of(Path(move.part_path)) > 0
        await rig.registry.delete(job.session)
    assert files_in(tmp_path) == ["film.mp4"]


def files_in(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir() if entry.is_file())


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 256k."""
    with small_file_system(tmp_path / "small", size="256k") as place:
        yield place


async def test_a_full_disk_loses_neither_the_status_nor_the_truth(rigs: Rigs, clip: Path, small_disk: Path) -> None:
    """Folder, log, progress and artifacts are all on the disk that fills up."""
    small = Rigs(small_disk)
    job = job_of(endless(clip))
    job = replace(job, renditions=(replace(job.renditions[0], video=replace(job.renditions[0].video, quality=0)),))
    async with small.start() as rig:
        await rig.launch(job)
        ended = await rig.ended(job)
        assert rig.folder(job).exit_code() not in (None, 0)
    assert failure_reason(ended) == "DISK_FULL"
    async with small.start() as successor:
        assert failure_reason(await successor.ended(job)) == "DISK_FULL"


async def test_a_launch_onto_a_full_disk_leaves_nothing(rigs: Rigs, clip: Path, small_disk: Path) -> None:
    async with Rigs(small_disk).start() as rig:
        fill(small_disk)
        with pytest.raises(RequestFailure) as caught:
            await rig.launch(job_of(clip))
        assert caught.value.reason is Reason.DISK_FULL
        assert rig.folders.found() == ()
        assert rig.registry.live_count == 0


# Restarts


async def test_a_session_goes_on_without_an_agent_and_the_next_one_ends_it(rigs: Rigs, clip: Path) -> None:
    job = job_of(endless(clip))
    async with rigs.start() as rig:
        await rig.launch(job)
        before = await rig.running(job)
        program = rig.folder(job).program_pid()
    assert program in processes_of(rig.folder(job))
    async with rigs.start() as successor:
        assert successor.registry.live_count == 1
        await successor.launch(job)
        with successor.book.feed.watch(before.event_number, successor.book.last_number) as watcher:
            assert await anext(watcher.events()) == CaughtUp(live_attempts=(key_of(job),))
        assert successor.folder(job).program_pid() == program
        await successor.until(job, lambda status: (status.progress.frames if status.progress else 0) > 50)
        await successor.registry.stop(key_of(job))
        ended = await successor.ended(job)
    assert ended.ending is Ending.STOPPED
    assert ended.event_number > before.event_number
    assert ended.running_time == before.running_time
    assert frames_of(successor.folder(job).artifacts / "out.mp4") > 50


async def test_an_end_that_no_agent_saw_is_told_with_its_true_outcome_and_time(rigs: Rigs, clip: Path) -> None:
    done, killed = job_of(clip, session="done"), job_of(endless(clip), session="killed")
    async with rigs.start() as rig:
        await rig.launch(killed)
        await rig.running(killed)
        await rig.launch(done)
    folder = rig.folder(killed)
    program = folder.program_pid()
    assert program is not None
    os.kill(program, signal.SIGKILL)
    await asyncio.to_thread(_await_exits, [folder, rig.folder(done)])
    stamp_s = rig.folder(done).exit.stat().st_mtime
    os.utime(folder.exit, (1_700_000_000, 1_700_000_000))
    async with rigs.start() as successor:
        ended = await successor.ended(killed)
        completed = await successor.ended(done)
        assert completed.ending is Ending.COMPLETED
    assert failure_reason(ended) == "KILLED"
    assert ended.end_time == ended.running_time, "a stamp of before it began is of a clock that was set since"
    assert completed.end_time is not None
    assert completed.end_time.timestamp() == pytest.approx(stamp_s, abs=0.05)
    assert frames_of(successor.folder(done).artifacts / "out.mp4") == 50


def _await_exits(folders: list) -> None:
    deadline = time.monotonic() + 20
    while any(folder.exit_code() is None or processes_of(folder) for folder in folders):
        assert time.monotonic() < deadline
        time.sleep(0.01)


async def test_a_stop_survives_the_agent_and_is_signalled_once(
    rigs: Rigs, clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second signal would cost the file its index; here the program has heard the first one and cannot end yet."""
    job = job_of(endless(clip))
    with monkeypatch.context() as patch:
        patch.setattr(AttemptProcesses, "continue_program", lambda _: True)
        async with rigs.start() as rig:
            await rig.launch(job)
            await rig.running(job)
            program = rig.folder(job).program_pid()
            assert program is not None
            os.kill(program, signal.SIGSTOP)
            await rig.registry.stop(key_of(job))
            await rig.until(job, lambda status: True)
            await asyncio.to_thread(_await_signalled, rig.folder(job).status)
    # Its successor lets it go on, as it does with all that it finds.
    async with rigs.start() as successor:
        ended = await successor.ended(job)
    assert ended.ending is Ending.STOPPED
    assert frames_of(successor.folder(job).artifacts / "out.mp4") > 0


def _await_signalled(status: Path) -> None:
    deadline = time.monotonic() + 10
    while b'"signal_time":null' in status.read_bytes().replace(b" ", b""):
        assert time.monotonic() < deadline
        time.sleep(0.01)


async def test_a_launch_that_was_cut_before_its_process_began_is_told_so(rigs: Rigs, clip: Path) -> None:
    job = job_of(clip)
    async with rigs.start() as rig:
        await rig.launch(job)
        await rig.ended(job)
        record = load_launch(rig.folder(job).launch.read_bytes())
        status = rig.registry.attempt(job.session).status
    cut = replace(job, session="cut")
    folder = SessionFolders(root=rigs.state_dir / "sessions").of(key_of(cut))
    begun = AttemptStatus(key=folder.key, launch_time=status.launch_time)
    folder.create({"launch.json": dump_launch(replace(record, fences="")), "status.json": dump_status(begun)})
    async with rigs.start() as successor:
        ended = await successor.ended(cut)
    assert failure_reason(ended) == "LAUNCH_INTERRUPTED"
    assert ended.event_number > 0


async def test_a_folder_that_a_newer_agent_wrote_is_left_alone(rigs: Rigs, clip: Path) -> None:
    job = job_of(clip)
    async with rigs.start() as rig:
        await rig.launch(job)
        await rig.ended(job)
    rig.folder(job).status.write_text('{"version": 2}')
    async with rigs.start() as successor:
        assert successor.registry.live_count == 0
        with pytest.raises(RequestFailure):
            successor.registry.attempt(job.session)
    assert rig.folder(job).status.read_text() == '{"version": 2}'


# The door


async def test_fifty_launches_at_once_start_one_process(rigs: Rigs, clip: Path) -> None:
    job = job_of(IngestInput(protocol=IngestProtocol.RTMP), FileOutput(id="o", path="out.mp4", container=Container.MP4))
    started = 0

    async with rigs.start() as rig:

        async def start(used_ports: Collection[int]) -> Launched:
            nonlocal started
            started += 1
            await asyncio.sleep(0)
            return await rig.launcher.launch(key_of(job), LaunchOrder(job=job, plan=b""), used_ports=used_ports)

        launches = [rig.registry.launch(key_of(job), start) for _ in range(50)]
        urls = set(await asyncio.gather(*launches))
        assert len(urls) == 1
        assert started == 1
        folder = rig.folder(job)
        await asyncio.to_thread(_await_program, folder)
        assert set(processes_of(folder)) == {folder.shim_pid(), folder.program_pid()}
        assert await rig.registry.launch(key_of(job), start) in urls
        assert started == 1


def _await_program(folder: AttemptFolder) -> None:
    deadline = time.monotonic() + 20
    while folder.program_pid() is None or len(processes_of(folder)) != 2:
        assert time.monotonic() < deadline
        time.sleep(0.01)


async def test_a_launch_whose_caller_hangs_up_goes_on(rigs: Rigs, clip: Path) -> None:
    job = job_of(clip)
    async with rigs.start() as rig:
        calling = asyncio.gather(rig.launch(job))
        await asyncio.sleep(0)
        calling.cancel()
        with pytest.raises(asyncio.CancelledError):
            await calling
        assert (await rig.ended(job)).ending is Ending.COMPLETED


async def test_a_refused_launch_leaves_nothing_and_may_be_tried_again(rigs: Rigs, clip: Path) -> None:
    job = job_of(clip)
    async with rigs.start() as rig:

        async def refuse(_: Collection[int]) -> Launched:
            raise RequestFailure(reason=Reason.INPUT_NOT_ALLOWED, message="Cannot.")

        with pytest.raises(RequestFailure) as caught:
            await rig.registry.launch(key_of(job), refuse)
        assert caught.value.reason is Reason.INPUT_NOT_ALLOWED
        assert rig.folders.found() == ()
        await rig.launch(job)
        assert (await rig.ended(job)).ending is Ending.COMPLETED


async def test_an_older_attempt_and_one_beside_a_live_one_are_refused(rigs: Rigs, clip: Path) -> None:
    first, second, third = (job_of(endless(clip), attempt=attempt) for attempt in (1, 2, 3))
    async with rigs.start() as rig:
        await rig.launch(second)
        for job, reason in ((first, Reason.INVALID_REQUEST), (third, Reason.AGENT_BUSY)):
            with pytest.raises(RequestFailure) as caught:
                await rig.launch(job)
            assert caught.value.reason is reason
        await rig.registry.stop(key_of(second))
        await rig.ended(second)
        await rig.launch(third)
        await rig.registry.stop(key_of(third))
        await rig.ended(third)
        assert [folder.key.attempt for folder in rig.folders.found()] == [2, 3]


async def test_a_stop_of_an_attempt_that_never_came_is_told_as_an_end_and_keeps_it_away(rigs: Rigs, clip: Path) -> None:
    job = job_of(clip)
    async with rigs.start() as rig:
        await rig.registry.stop(key_of(job))
        ended = await rig.ended(job)
        assert ended.ending is Ending.STOPPED
    async with rigs.start() as successor:
        await successor.launch(job)
        assert successor.registry.live_count == 0
        assert processes_of(successor.folder(job)) == []
        again = await successor.ended(job)
    assert again.event_number == ended.event_number


async def test_a_live_session_is_not_deleted_and_an_ended_one_wholly(rigs: Rigs, clip: Path) -> None:
    job = job_of(endless(clip))
    async with rigs.start() as rig:
        await rig.launch(job)
        with pytest.raises(RequestFailure) as caught:
            await rig.registry.delete(job.session)
        assert caught.value.reason is Reason.SESSION_NOT_ENDED
        await rig.registry.stop(key_of(job))
        await rig.ended(job)
        await asyncio.gather(*(rig.registry.delete(job.session) for _ in range(3)))
        await rig.registry.delete(job.session)
        with pytest.raises(RequestFailure):
            rig.registry.attempt(job.session)
    assert list((rigs.state_dir / "sessions").iterdir()) == []
    async with rigs.start() as successor:
        await successor.registry.stop(AttemptKey(session="other", attempt=1))
        fresh = await successor.until(replace(job, session="other"), lambda status: True)
    assert fresh.event_number > max(status.event_number for status in rig.heard)


async def test_a_closed_registry_launches_nothing(rigs: Rigs, clip: Path) -> None:
    async with rigs.start() as rig:
        rig.registry.close()
        with pytest.raises(RequestFailure) as caught:
            await rig.launch(job_of(clip))
    assert caught.value.reason is Reason.SHUTTING_DOWN


# Ingest


@pytest.mark.parametrize("protocol", list(IngestProtocol))
async def test_a_published_stream_is_transcoded(rigs: Rigs, clip: Path, protocol: IngestProtocol) -> None:
    job = job_of(IngestInput(protocol=protocol, publisher_timeout=timedelta(seconds=20)))
    async with rigs.start() as rig:
        url = await rig.launch(job)
        assert url is not None
        starting = await rig.until(job, lambda status: True)
        assert starting.ingest_url == url
        assert [condition.type for condition in starting.conditions] == ["AWAITING_PUBLISHER"]
        publishing = await asyncio.to_thread(publish, clip, url, protocol)
        with publishing:
            running = await rig.running(job)
            assert running.conditions == ()
            ended = await rig.ended(job)
    assert ended.ending is Ending.COMPLETED, ended.failure
    assert frames_of(rig.folder(job).artifacts / "out.mp4") > 10


def publish(clip: Path, url: str, protocol: IngestProtocol) -> subprocess.Popen[bytes]:
    """Publishes the clip at its own pace, as soon as somebody listens."""
    form = "flv" if protocol is IngestProtocol.RTMP else "mpegts"
    port = int(url.split(":")[2].split("?")[0].split("/")[0])
    table = Path("/proc/net/tcp" if protocol is IngestProtocol.RTMP else "/proc/net/udp")
    deadline = time.monotonic() + 10
    while f"0100007F:{port:04X}" not in table.read_text():
        assert time.monotonic() < deadline, "nobody listens"
        time.sleep(0.01)
    argv = [FFMPEG, "-v", "error", "-re", "-i", str(clip), "-c", "copy", "-f", form, url]
    return subprocess.Popen(argv, stdin=subprocess.DEVNULL)


async def test_an_ingest_that_nobody_publishes_to_is_a_failure(rigs: Rigs) -> None:
    job = job_of(IngestInput(protocol=IngestProtocol.RTMP, publisher_timeout=timedelta(seconds=0.5)))
    async with rigs.start() as rig:
        await rig.launch(job)
        ended = await rig.ended(job)
    assert failure_reason(ended) == "NO_PUBLISHER"
    assert ended.conditions == ()
    assert processes_of(rig.folder(job)) == []


async def test_a_publisher_with_another_key_is_not_transcoded(rigs: Rigs, clip: Path) -> None:
    job = job_of(IngestInput(protocol=IngestProtocol.RTMP, publisher_timeout=timedelta(seconds=20)))
    async with rigs.start() as rig:
        url = await rig.launch(job)
        assert url is not None
        wrong = url.rpartition("/")[0] + "/guessed"
        with await asyncio.to_thread(publish, clip, wrong, IngestProtocol.RTMP):
            ended = await rig.ended(job)
    assert failure_reason(ended) == "WRONG_STREAM_KEY"
    assert Phase.RUNNING not in [status.phase for status in rig.heard]


async def test_two_ingests_have_ports_of_their_own_and_free_them_at_their_end(rigs: Rigs) -> None:
    rigs.settle(launch={"rtmp_ports": range(31_350, 31_352)})
    jobs = [job_of(IngestInput(protocol=IngestProtocol.RTMP), session=f"s{number}") for number in range(3)]
    async with rigs.start() as rig:
        urls = [await rig.launch(job) for job in jobs[:2]]
        assert len({url.split("/")[2] for url in urls if url}) == 2
        with pytest.raises(RequestFailure) as caught:
            await rig.launch(jobs[2])
        assert caught.value.reason is Reason.NO_CAPACITY
        await rig.registry.stop(key_of(jobs[0]))
        await rig.ended(jobs[0])
        assert await rig.launch(jobs[2])
