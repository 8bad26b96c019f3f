"""Disks that fill up under sessions: what was written can be played, and how it ended is told."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from unittest.mock import Mock

import pytest
from session_rig import FACTS, FFMPEG, Rig, Rigs, endless, frames_of, job_of, key_of, processes_of
from test_attempt_continuation import begun, counts_of, killed, live_job, runs_of, stopped

from agents.pipelines.job import Container, FileOutput, HlsOutput, HlsSegmentFormat, Job, UriInput, VideoEncoding
from agents.sessions import fence, playlist_guard
from agents.sessions.attempt import Condition, Ending, StopCause
from agents.sessions.attempt_health import HealthBounds
from agents.sessions.disk_watch import DiskWatch
from agents.sessions.playlist_guard import PlaylistGuard
from agents.sessions.progress_file import ProgressFile
from fakes.silent_peers import await_truth
from fakes.small_file_system import fill, read_only, small_file_system
from gpu_balancer.runtime.disk_reserve import DiskReserve
from gpu_balancer.runtime.disk_room import RoomBounds

pytestmark = pytest.mark.process
MIB = 1 << 20


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 24 MiB."""
    with small_file_system(tmp_path / "disk", size="24m") as place:
        yield place


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A minute of moving picture and sound."""
    path = tmp_path_factory.mktemp("film") / "film.mp4"
    sources = ["-f", "lavfi", "-i", "testsrc2=s=320x180:r=25:d=60", "-f", "lavfi", "-i", "sine=d=60"]
    coding = ["-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p", "-g", "25", "-c:a", "aac"]
    subprocess.run([FFMPEG, "-v", "error", *sources, *coding, str(path)], check=True, stdin=subprocess.DEVNULL)
    return path


def large(job: Job) -> Job:
    """The same job without loss: some megabytes of every second."""
    video = VideoEncoding(height=180, quality=0, keyframe_interval=timedelta(seconds=1))
    return replace(job, renditions=(replace(job.renditions[0], video=video),))


async def run_full(place: Path, job: Job) -> tuple[Rig, str]:
    """Runs a job for some frames and lets its disk run full; gives the rig and the reason of its end."""
    rigs = Rigs(place)
    rigs.reserve = DiskReserve(place / "reserve", size_bytes=MIB)
    rigs.reserve.take()
    async with rigs.start() as rig:
        await rig.launch(job)
        await rig.until(job, lambda status: status.progress is not None and status.progress.frames > 100)
        with contextlib.suppress(OSError):
            await asyncio.to_thread(fill, place, leave_bytes=0)
        ended = await rig.ended(job)
        assert ended.failure is not None
        return rig, ended.failure.reason


async def test_a_live_file_on_a_full_disk_can_be_played(clip: Path, disk: Path) -> None:
    job = large(job_of(endless(clip)))
    rig, reason = await run_full(disk, job)
    assert reason == "DISK_FULL"
    assert whole_frames_of(rig.folder(job).artifacts / "out.mp4") > 25


async def test_a_file_elsewhere_that_a_full_disk_cut_short_is_kept_and_told(clip: Path, disk: Path) -> None:
    (disk / "out").mkdir()
    job = large(job_of(endless(clip), FileOutput(id="film", path=str(disk / "out" / "a.mp4"), container=Container.MP4)))
    rig, reason = await run_full(disk, job)
    assert reason == "DISK_FULL"
    assert not (disk / "out" / "a.mp4").exists()
    (kept,) = (disk / "out").glob(".gpu-balancer-*/*.mp4")
    (told,) = rig.registry.attempt(job.session).status.conditions
    assert (told.type, str(kept) in told.message) == ("UNFINISHED_FILES", True)
    assert whole_frames_of(kept) > 25


@pytest.mark.parametrize("format_", list(HlsSegmentFormat))
async def test_a_presentation_on_a_full_disk_is_ended_and_all_of_it_can_be_played(
    clip: Path, disk: Path, format_: HlsSegmentFormat
) -> None:
    """ffmpeg itself goes on for ever there, and puts an empty playlist in the place of the one that there was."""
    hls = HlsOutput(id="output-1", path="hls", segment_duration=timedelta(seconds=1), segment_format=format_)
    job = large(job_of(endless(clip), hls))
    rig, reason = await run_full(disk, job)
    assert reason == "DISK_FULL"
    playlist = rig.folder(job).artifacts / "hls" / "90p" / "index.m3u8"
    lines = playlist.read_text().splitlines()
    assert lines[-1] == "#EXT-X-ENDLIST"
    listed_s = sum(float(line.removeprefix("#EXTINF:").rstrip(",")) for line in lines if line.startswith("#EXTINF:"))
    assert listed_s >= 3
    assert whole_frames_of(playlist) >= 25 * listed_s - 3


async def test_playlists_that_a_full_disk_kept_open_get_their_ends_from_a_later_agent_when_there_is_room(
    rigs: Rigs, counting: Path, disk: Path
) -> None:
    """Attempts have gone on with each other, and none does any more; the agent's own disk is another one."""
    hls = HlsOutput(id="hls", path=str(disk / "show"), segment_duration=timedelta(seconds=1))
    first, second = live_job(counting, hls), live_job(counting, hls, attempt=2)
    playlist = disk / "show" / "90p" / "index.m3u8"
    async with rigs.start() as rig:
        await begun(rig, first)
        await begun(rig, second, await killed(rig, first), frames=60)
        await killed(rig, second)
        filler = fill(disk)
        await rig.registry.stop(key_of(second))
        (told,) = rig.registry.attempt(second.session).status.conditions
        assert (told.type, "No space left" in told.message) == ("PLAYLISTS_OPEN", True)
    async with rigs.start() as rig:
        await rig.registry.late_playlists.look()
        assert rig.registry.attempt(second.session).status.conditions == (told,)
        assert "#EXT-X-ENDLIST" not in playlist.read_text()
        filler.unlink()
        await rig.registry.late_playlists.look()
        assert rig.registry.attempt(second.session).status.conditions == ()
    assert playlist.read_text().endswith("#EXT-X-ENDLIST\n")
    assert [run[0] for run in runs_of(counts_of(playlist))] == [0, 0]
    assert not any(playlist.parent.glob(".index*"))


async def test_a_session_that_is_deleted_on_a_full_disk_leaves_no_playlist_open(
    rigs: Rigs, counting: Path, disk: Path
) -> None:
    """Nobody would come back to it."""
    hls = HlsOutput(id="hls", path=str(disk / "show"), segment_duration=timedelta(seconds=1))
    job = live_job(counting, hls)
    async with rigs.start() as rig:
        await begun(rig, job, frames=60)
        await killed(rig, job)
        fill(disk)
        await rig.registry.stop(key_of(job))
        await rig.registry.delete(job.session)
    playlist = disk / "show" / "90p" / "index.m3u8"
    assert playlist.read_text().endswith("#EXT-X-ENDLIST\n")
    assert runs_of(counts_of(playlist))[0][0] == 0
    assert not any(playlist.parent.glob(".index*"))


async def test_playlists_of_an_attempt_that_another_one_has_by_now_are_left_to_it(
    rigs: Rigs, counting: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hls = HlsOutput(id="hls", path="hls", segment_duration=timedelta(seconds=1))
    first, second = live_job(counting, hls), live_job(counting, hls, attempt=2)
    async with rigs.start() as rig:
        await begun(rig, first)
        lost = await killed(rig, first)
        await begun(rig, second, lost)
        attempt = rig.registry.attempt(first.session, 1)
        assert lost.end_time is not None
        still_open = Condition(type="PLAYLISTS_OPEN", message="They are.", since_time=lost.end_time)
        attempt.status = replace(attempt.status, conditions=(still_open,))
        with monkeypatch.context() as sick:
            sick.setattr(fence, "open_fence", Mock(side_effect=OSError(errno.EIO, "Input/output error")))
            await rig.registry.late_playlists.look()
            assert attempt.status.conditions == (still_open,), "nobody could tell"
        await rig.registry.late_playlists.look()
        assert attempt.status.conditions == ()
        assert "#EXT-X-ENDLIST" not in (rig.folder(second).artifacts / "hls" / "90p" / "index.m3u8").read_text()
        await stopped(rig, second)


async def test_a_stop_is_carried_out_while_the_agents_disk_is_read_only(
    rigs: Rigs, clip: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """As the kernel makes a file system whose device fails."""
    job = replace(job_of(endless(clip)), session="s1")
    async with rigs.start() as rig:
        await rig.launch(job)
        await rig.running(job)
        with read_only(rigs.state_dir):
            await rig.registry.stop(key_of(job))
            ended = await rig.ended(job)
            assert ended.stop_cause is StopCause.ASKED
            assert processes_of(rig.folder(job)) == []
    assert caplog.text.count("trying again") <= 3


async def test_stops_and_deadlines_hold_though_the_disk_does_not_give_the_progress(
    rigs: Rigs, clip: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def sick(_: ProgressFile, __: object) -> None:
        raise OSError(errno.EIO, "Input/output error", "progress")

    asked, bounded = (replace(job_of(endless(clip)), session=session) for session in ("s1", "s2"))
    async with rigs.start() as rig:
        await rig.launch(asked)
        await rig.launch(bounded, max_duration=timedelta(seconds=3))
        for job in (asked, bounded):
            await rig.running(job)
        monkeypatch.setattr(ProgressFile, "read", sick)
        await rig.registry.stop(key_of(asked))
        assert (await rig.ended(asked)).ending is Ending.STOPPED
        assert (await rig.ended(bounded)).ending is Ending.COMPLETED
    assert caplog.text.count("trying again") == 2, "once for each"


async def test_a_session_outlives_a_full_disk_that_its_outputs_are_not_on(
    disk: Path, tmp_path: Path, clip: Path
) -> None:
    """ffmpeg never reports again after that; what it writes shows that it goes on."""
    state, out = disk / "state", tmp_path / "out"
    state.mkdir()
    out.mkdir()
    rigs = Rigs(state)
    bounds = HealthBounds(stalled_after=timedelta(seconds=3), stalled_timeout=timedelta(seconds=5))
    rigs.settle(launch={"output_roots": (str(out),)}, runner={"health": bounds})
    hls = HlsOutput(id="hls", path=str(out / "show"), segment_duration=timedelta(seconds=1))
    job = job_of(endless(clip), hls, FileOutput(id="film", path=str(out / "film.mp4"), container=Container.MP4))
    async with rigs.start() as rig:
        await rig.launch(job)
        await rig.running(job)
        filler = fill(disk)
        reports = rig.folder(job).progress
        # Its last page takes some more.
        await asyncio.to_thread(await_truth, lambda: time.time() - reports.stat().st_mtime > 2)
        before = rig.registry.attempt(job.session).status.progress
        filler.unlink()
        await asyncio.sleep(8)
        after = rig.registry.attempt(job.session).status
        assert before is not None
        assert after.progress is not None
        assert after.progress.frames == before.frames, "it reports all the same: this would test nothing"
        assert after.live
        await rig.registry.stop(key_of(job))
        ended = await rig.ended(job)
    assert (ended.ending, ended.failure) == (Ending.STOPPED, None)
    assert frames_of(out / "film.mp4") > before.frames + 100


def test_a_playlist_that_is_put_back_leaves_out_what_cannot_be_played(tmp_path: Path) -> None:
    folder = tmp_path / "90p"
    folder.mkdir()
    playlist = folder / "index.m3u8"
    box = (12).to_bytes(4) + b"mdatdata"
    files = {"a.ts": bytes(188), "b.ts": b"", "c.ts": bytes(200), "d.m4s": box * 2, "e.m4s": box + box[:7]}
    for name, content in files.items():
        (folder / name).write_bytes(content)
    (folder / "segment_00007.ts").write_bytes(b"never listed")
    entries = "".join(f"#EXTINF:1.0,\n{name}\n" for name in (*files, "missing.ts"))
    playlist.write_text(f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n{entries}")
    guard = PlaylistGuard([str(tmp_path)])
    assert guard.look(1000.0)
    assert not guard.look(1e18)
    before = playlist.read_text()
    guard.restore(full=False)
    assert playlist.read_text() == before, "what is whole stays as it is, where nothing is wrong"
    playlist.write_text("")
    guard.look(0.0)
    guard.restore(full=False)
    kept = "#EXTINF:1.0,\na.ts\n#EXT-X-DISCONTINUITY\n#EXTINF:1.0,\nd.m4s\n"
    assert playlist.read_text() == f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n{kept}#EXT-X-ENDLIST\n"
    assert not (folder / "segment_00007.ts").exists()
    playlist.write_text(before)
    guard.restore(full=True)
    assert playlist.read_text().count("#EXTINF") == 2


def test_a_master_playlist_that_was_emptied_is_put_back(tmp_path: Path) -> None:
    """What names no variant, as at the very start, is nothing to go back to."""
    (tmp_path / "90p").mkdir()
    (tmp_path / "90p" / "index.m3u8").write_text("#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1.0,\nsegment_1.ts\n")
    (tmp_path / "90p" / "segment_1.ts").write_bytes(bytes(188))
    master = tmp_path / "master.m3u8"
    guard = PlaylistGuard([str(tmp_path)])
    whole = "#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=9\n90p/index.m3u8\n"
    for text in ("", "#EXTM3U\n"):
        master.write_text(text)
        guard.look(0.0)
        guard.restore(full=True)
        assert master.read_text() == text
    master.write_text(whole)
    guard.look(0.0)
    emptied(master)
    guard.restore(full=True)
    assert master.read_text() == whole
    assert [path.name for path in tmp_path.rglob(".*")] == [], "nothing is left beside it"


def test_what_one_agent_saw_is_put_back_by_the_next_without_any_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The agent was away when the disk ran full, and others take what becomes free of it."""
    (tmp_path / "90p").mkdir()
    (tmp_path / "90p" / "segment_1.ts").write_bytes(bytes(188))
    playlist, master = tmp_path / "90p" / "index.m3u8", tmp_path / "master.m3u8"
    playlist.write_text("#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1.0,\nsegment_1.ts\n")
    master.write_text("#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=9\n90p/index.m3u8\n")
    before = {path: path.read_text() for path in (playlist, master)}
    for _ in range(2):
        PlaylistGuard([str(tmp_path)]).look(0.0)
    for path in before:
        emptied(path)

    def refused(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(playlist_guard, "write_durably", refused)
    successor = PlaylistGuard([str(tmp_path)])
    successor.look(0.0)
    with pytest.raises(OSError, match="No space left"):
        successor.restore(full=True)
    assert {path: path.read_text() for path in before} == before


@pytest.mark.parametrize("full_at_first", [False, True])
def test_segments_that_came_while_nobody_looked_are_listed_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, full_at_first: bool
) -> None:
    """Where there is no room to list them at first, the next run, maybe another agent's, does."""
    folder = tmp_path / "90p"
    folder.mkdir()
    for number in (7, 8, 9, 10, 12):
        (folder / f"segment_{number:05}.ts").write_bytes(bytes(188))
    (folder / "segment_00011.ts").touch()
    (folder / "segment-2_00013.ts").write_bytes(bytes(188))
    playlist = folder / "index.m3u8"
    entries = "".join(
        f"#EXTINF:{length},\nsegment_{number:05}.ts\n" for length, number in ((1.0, 7), (2.0, 8), (2.0, 9))
    )
    playlist.write_text(f"#EXTM3U\n#EXT-X-TARGETDURATION:2\n{entries}")
    PlaylistGuard([str(tmp_path)]).look(0.0)
    emptied(playlist)
    if full_at_first:
        with monkeypatch.context() as full:
            full.setattr(playlist_guard, "write_durably", Mock(side_effect=OSError(errno.ENOSPC, "full")))
            with pytest.raises(OSError, match="full"):
                PlaylistGuard([str(tmp_path)]).restore(full=True)
    PlaylistGuard([str(tmp_path)]).restore(full=True)
    added = "#EXTINF:2.000000,\nsegment_00010.ts\n#EXT-X-DISCONTINUITY\n#EXTINF:2.000000,\nsegment_00012.ts\n"
    assert playlist.read_text() == f"#EXTM3U\n#EXT-X-TARGETDURATION:2\n{entries}{added}#EXT-X-ENDLIST\n"


def test_a_playlist_that_a_full_disk_cut_at_the_end_of_a_line_is_listed_to_its_end(tmp_path: Path) -> None:
    """It looks whole: the disk took a page of it."""
    folder = tmp_path / "90p"
    folder.mkdir()
    for number in range(5):
        (folder / f"segment_{number:05}.ts").write_bytes(bytes(188))
    playlist = folder / "index.m3u8"
    playlist.write_text(
        "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1.0,\nsegment_00000.ts\n#EXTINF:1.0,\nsegment_00001.ts\n"
    )
    PlaylistGuard([str(tmp_path)]).restore(full=True)
    listed = [line for line in playlist.read_text().splitlines() if line.startswith("segment")]
    assert listed == [f"segment_{number:05}.ts" for number in range(5)]
    assert all((folder / name).exists() for name in listed)


def emptied(path: Path) -> None:
    """Puts an empty file in the place of one, as ffmpeg does on a full disk."""
    path.with_name("empty").touch()
    path.with_name("empty").replace(path)


def whole_frames_of(path: Path) -> int:
    """Counts the pictures up to where the file breaks off."""
    argv = [FFMPEG, "-v", "quiet", "-i", str(path), "-map", "0:v:0", "-f", "framemd5", "-"]
    told = subprocess.run(argv, check=False, capture_output=True, text=True, stdin=subprocess.DEVNULL).stdout
    return sum(not line.startswith("#") for line in told.splitlines())


@asynccontextmanager
async def watched(place: Path, bounds: RoomBounds) -> AsyncIterator[Rig]:
    """A rig whose disk is watched."""
    async with Rigs(place).start() as rig:
        reserve = DiskReserve(place / "reserve", size_bytes=64 * 1024)
        watch = DiskWatch(place, bounds, reserve=reserve, sessions=rig.registry.live_sessions)
        watching = asyncio.get_running_loop().create_task(watch.watch())
        try:
            yield rig
        finally:
            watching.cancel()
            await asyncio.wait({watching})


async def test_a_file_of_known_end_is_completed_while_there_is_room_for_its_index(film: Path, disk: Path) -> None:
    """Its index is written last: on a disk that is already full it could not be played at all."""
    source = UriInput(uri=str(film), native_rate=True)
    job = large(job_of(source, facts=replace(FACTS, duration=timedelta(seconds=60))))
    await asyncio.to_thread(fill, disk, leave_bytes=2 * MIB)
    share = 24 * MIB // 50
    async with watched(disk, RoomBounds(low_bytes=share, least_bytes=share)) as rig:
        await rig.launch(job)
        ended = await rig.ended(job)
    assert ended.failure is not None
    assert ended.failure.reason == "DISK_LOW"
    assert ended.progress is not None
    assert frames_of(rig.folder(job).artifacts / "out.mp4") >= ended.progress.frames > 25
