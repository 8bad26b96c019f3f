"""Attempts that go on with what earlier ones have made, with real ffmpeg: nothing is lost, nothing is there twice."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from functools import partial
from pathlib import Path

import pytest
from session_rig import FACTS, FFMPEG, GREYS, Rig, Rigs, cpu_device, job_of, key_of

from agents.pipelines.hls import own_playlist
from agents.pipelines.job import Container, FileOutput, HlsOutput, HlsSegmentFormat, Job, JobOutput, UriInput
from agents.pipelines.playlists import parse_playlist
from agents.sessions import joining
from agents.sessions.artifacts import list_artifacts
from agents.sessions.attempt import AttemptStatus, Ending
from agents.sessions.continuation import EarlierAttempt
from agents.sessions.live_playlists import LivePlaylists

pytestmark = pytest.mark.process

_OLD = shutil.which("ffmpeg", path=os.environ.get("PATH", ""))


@pytest.fixture(params=["new", "old"])
def both(request: pytest.FixtureRequest, rigs: Rigs, others: Rigs) -> tuple[Rigs, Rigs]:
    """Two agents of a host, with a new and with an old ffmpeg."""
    if request.param == "old":
        if _OLD is None:
            pytest.skip("there is no ffmpeg of the system")
        told = subprocess.run([_OLD, "-version"], capture_output=True, text=True, check=True).stdout
        for one in (rigs, others):
            one.device = partial(cpu_device, _OLD, told.split()[2])
    return rigs, others


def counts_of(media: Path) -> list[int]:
    """Reads the count of every picture; fails when the file, or playlist, is damaged."""
    opened = ["-allowed_extensions", "ALL"] if media.suffix == ".m3u8" else []
    reading = [FFMPEG, "-v", "error", "-xerror", *opened, "-i", str(media), "-map", "0:v:0", "-fps_mode", "passthrough"]
    shrinking = ["-vf", "extractplanes=y,crop=8:8,scale=1:1:flags=area", "-f", "rawvideo", "-"]
    done = subprocess.run([*reading, *shrinking], check=True, capture_output=True, stdin=subprocess.DEVNULL)
    assert not done.stderr, done.stderr
    return [value - 16 for value in done.stdout]


def runs_of(counts: list[int]) -> list[list[int]]:
    """Splits counts where they do not go on by one."""
    runs: list[list[int]] = [[counts[0]]]
    for count in counts[1:]:
        if count == (runs[-1][-1] + 1) % GREYS:
            runs[-1].append(count)
        else:
            runs.append([count])
    return runs


def live_job(counting: Path, *outputs: JobOutput, attempt: int = 1) -> Job:
    source = UriInput(uri=str(counting), native_rate=True, repeat_forever=True)
    job = job_of(source, *outputs, attempt=attempt, facts=replace(FACTS, width=64, height=36))
    rendition = job.renditions[0]
    assert rendition.video is not None
    video = replace(rendition.video, height=36, quality=1)  # type: ignore[type-var]
    return replace(job, continues=attempt > 1, renditions=(replace(rendition, video=video),))


async def begun(rig: Rig, job: Job, *earlier: AttemptStatus, frames: int = 40) -> None:
    """Launches a job and awaits some pictures."""
    continues = tuple(EarlierAttempt(attempt=status.key.attempt, folder=status.folder) for status in earlier)
    await rig.launch(job, continues=continues, may_continue=True)
    await rig.until(job, lambda status: status.progress is not None and status.progress.frames >= frames)


async def killed(rig: Rig, job: Job) -> AttemptStatus:
    """Kills the program of an attempt and awaits its end, and that its runner has put everything away."""
    ended = await just_killed(rig, job)
    await until(lambda: rig.registry.runner(key_of(job)) is None)
    return ended


async def just_killed(rig: Rig, job: Job) -> AttemptStatus:
    """Kills the program of an attempt and awaits that it tells its end."""
    pid = rig.folder(job).program_pid()
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    ended = await rig.ended(job)
    assert ended.ending is Ending.FAILED
    return ended


async def stopped(rig: Rig, job: Job) -> AttemptStatus:
    """Stops an attempt in order."""
    await rig.registry.stop(key_of(job))
    ended = await rig.ended(job)
    assert (ended.ending, ended.failure) == (Ending.STOPPED, None)
    await until(lambda: rig.registry.runner(key_of(job)) is None)
    return ended


def artifacts_of(rig: Rig, job: Job) -> list[str]:
    return [artifact.path for artifact in list_artifacts(rig.folder(job).artifacts)]


@pytest.mark.parametrize("container", list(Container))
async def test_a_file_goes_on_over_a_kill_on_another_agent_and_is_one_in_the_end(
    both: tuple[Rigs, Rigs], counting: Path, container: Container
) -> None:
    file = FileOutput(id="film", path=f"out/film.{container}", container=container)
    first, second = live_job(counting, file), live_job(counting, file, attempt=2)
    async with both[0].start() as rig, both[1].start() as other:
        await begun(rig, first)
        lost = await killed(rig, first)
        await begun(other, second, lost)
        assert artifacts_of(other, second) == [f"out/film.part1.{container}", f"out/film.part2.{container}"]
        assert artifacts_of(rig, first) == []
        await stopped(other, second)
        assert artifacts_of(other, second) == [f"out/film.{container}"]
    before, after = runs_of(counts_of(other.folder(second).artifacts / "out" / f"film.{container}"))
    assert before[0] == after[0] == 0
    assert len(before) >= 15
    assert len(after) >= 40


async def test_a_file_under_the_roots_goes_on_over_kills_and_is_one_in_the_end(
    rigs: Rigs, others: Rigs, counting: Path, tmp_path: Path
) -> None:
    """Three attempts on two agents."""
    out = tmp_path / "out"
    out.mkdir()
    file = FileOutput(id="film", path=str(out / "film.mp4"), container=Container.MP4)
    first, second, third = (live_job(counting, file, attempt=attempt) for attempt in (1, 2, 3))
    async with rigs.start() as rig, others.start() as other:
        await begun(rig, first)
        lost = [await killed(rig, first)]
        await begun(other, second, *lost)
        lost.append(await killed(other, second))
        await begun(rig, third, *lost)
        await stopped(rig, third)
    assert [path.name for path in out.iterdir()] == ["film.mp4"]
    assert [run[0] for run in runs_of(counts_of(out / "film.mp4"))] == [0, 0, 0]


async def test_a_file_that_was_put_in_place_is_taken_back_when_its_session_goes_on(
    rigs: Rigs, counting: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    file = FileOutput(id="film", path=str(out / "film.mp4"), container=Container.MP4)
    first, second = live_job(counting, file), live_job(counting, file, attempt=2)
    async with rigs.start() as rig:
        await begun(rig, first)
        moved = await stopped(rig, first)
        assert [path.name for path in out.iterdir()] == ["film.mp4"]
        await begun(rig, second, moved)
        assert not (out / "film.mp4").exists()
        await stopped(rig, second)
    assert [path.name for path in out.iterdir()] == ["film.mp4"]
    assert [run[0] for run in runs_of(counts_of(out / "film.mp4"))] == [0, 0]


async def test_files_that_were_encoded_differently_stay_in_parts_and_it_is_said(rigs: Rigs, counting: Path) -> None:
    file = FileOutput(id="film", path="film.mp4", container=Container.MP4)
    first, second = live_job(counting, file), live_job(counting, file, attempt=2)
    rendition = second.renditions[0]
    video = replace(rendition.video, height=72)  # type: ignore[type-var]
    second = replace(second, renditions=(replace(rendition, video=video),))
    async with rigs.start() as rig:
        await begun(rig, first)
        await begun(rig, second, await killed(rig, first))
        ended = await stopped(rig, second)
        assert artifacts_of(rig, second) == ["film.part1.mp4", "film.part2.mp4"]
    assert [
        (condition.type, "film.part1.mp4, film.part2.mp4" in condition.message) for condition in ended.conditions
    ] == [("IN_PARTS", True)]


async def test_a_part_that_takes_too_long_to_look_at_is_kept(
    rigs: Rigs, counting: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It says nothing of what is in it: a disk may be slow, a machine starved."""
    out = tmp_path / "out"
    out.mkdir()
    hidden = FileOutput(id="hidden", path=str(out / "hidden.mp4"), container=Container.MP4)
    file = FileOutput(id="film", path="film.mp4", container=Container.MP4)
    first, second = live_job(counting, file, hidden), live_job(counting, file, hidden, attempt=2)
    async with rigs.start() as rig:
        await begun(rig, first)
        await begun(rig, second, await killed(rig, first))
        monkeypatch.setattr(joining, "_LOOKED_AT_WITHIN", timedelta())
        ended = await stopped(rig, second)
        assert artifacts_of(rig, second) == ["film.part1.mp4", "film.part2.mp4"]
    assert sorted(str(path.relative_to(out)) for path in out.rglob("*")) == ["hidden.part1.mp4", "hidden.part2.mp4"]
    assert [condition.type for condition in ended.conditions] == ["IN_PARTS"]


async def test_all_parts_are_placed_that_can_be_and_each_that_cannot_is_named(
    rigs: Rigs, counting: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    films = [FileOutput(id=name, path=str(out / f"{name}.mp4"), container=Container.MP4) for name in ("film", "other")]
    first, second = live_job(counting, *films), live_job(counting, *films, attempt=2)
    rendition = second.renditions[0]
    video = replace(rendition.video, height=72)  # type: ignore[type-var]
    second = replace(second, renditions=(replace(rendition, video=video),))
    async with rigs.start() as rig:
        await begun(rig, first)
        await begun(rig, second, await killed(rig, first))
        for name in ("film", "other"):
            (out / f"{name}.part1.mp4").write_text("somebody else's")
        await rig.registry.stop(key_of(second))
        ended = await rig.ended(second)
        await until(lambda: rig.registry.runner(key_of(second)) is None)
    assert (ended.ending, ended.failure and ended.failure.reason) == (Ending.FAILED, "OUTPUT_EXISTS")
    assert ended.failure is not None
    for index in (0, 1):
        kept = out / ".gpu-balancer-s1-1" / f"part-{index}.mp4"
        assert str(kept) in ended.failure.message
        assert counts_of(kept)
    for name in ("film", "other"):
        assert (out / f"{name}.part1.mp4").read_text() == "somebody else's"
        assert counts_of(out / f"{name}.part2.mp4")
    assert not (out / ".gpu-balancer-s1-2").exists(), "what has its name is not kept twice"


@pytest.mark.parametrize("segments", list(HlsSegmentFormat))
async def test_hls_goes_on_in_the_same_playlist_over_kills_and_agents(
    both: tuple[Rigs, Rigs], counting: Path, segments: HlsSegmentFormat
) -> None:
    hls = HlsOutput(id="hls", path="hls", segment_format=segments, segment_duration=timedelta(seconds=1))
    first, second, third = (live_job(counting, hls, attempt=attempt) for attempt in (1, 2, 3))
    async with both[0].start() as rig, both[1].start() as other:
        await begun(rig, first, frames=60)
        lost = [await killed(rig, first)]
        await begun(other, second, *lost, frames=60)
        playlist = other.folder(second).artifacts / "hls" / "90p" / "index.m3u8"
        await until(lambda: "segment-2_00000" in playlist.read_text())
        assert "#EXT-X-ENDLIST" not in playlist.read_text()
        lost.append(await killed(other, second))
        await begun(rig, third, *lost, frames=60)
        await stopped(rig, third)
    folder = rig.folder(third).artifacts / "hls"
    playlist = folder / "90p" / "index.m3u8"
    text = playlist.read_text()
    assert text.endswith("#EXT-X-ENDLIST\n")
    assert text.count("#EXT-X-DISCONTINUITY\n") == 2
    found = parse_playlist(text)
    assert found is not None
    assert len({segment.uri for segment in found.segments}) == len(found.segments)
    assert all((folder / "90p" / segment.uri).stat().st_size for segment in found.segments)
    runs = runs_of(counts_of(playlist))
    assert [run[0] for run in runs] == [0, 0, 0]
    assert counts_of(folder / "master.m3u8") == counts_of(playlist)
    assert not [path for path in artifacts_of(rig, third) if "/." in path]


async def test_hls_with_a_window_keeps_to_it_over_attempts(rigs: Rigs, counting: Path) -> None:
    window = timedelta(seconds=4)
    hls = HlsOutput(
        id="hls",
        path="hls",
        segment_format=HlsSegmentFormat.TS,
        segment_duration=timedelta(seconds=1),
        dvr_window=window,
    )
    first, second = live_job(counting, hls), live_job(counting, hls, attempt=2)
    async with rigs.start() as rig:
        await begun(rig, first, frames=90)
        await begun(rig, second, await killed(rig, first), frames=40)
        folder = rig.folder(second).artifacts / "hls" / "90p"
        sequences = []

        def slid() -> bool:
            found = parse_playlist((folder / "index.m3u8").read_text())
            assert found is not None
            sequences.append(found.media_sequence)
            assert len(found.segments) <= 4
            return found.discontinuity_sequence == 1

        await until(slid)
        await until(lambda: not (folder / "segment_00000.ts").exists())
        await stopped(rig, second)
    assert sequences == sorted(sequences)
    assert sequences[-1] >= 3


async def test_hls_outside_goes_on_and_nobody_else_may_write_there(
    rigs: Rigs, others: Rigs, counting: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    hls = HlsOutput(id="hls", path=str(out / "show"), segment_duration=timedelta(seconds=1))
    first, second = live_job(counting, hls), live_job(counting, hls, attempt=2)
    async with rigs.start() as rig, others.start() as other:
        await begun(rig, first, frames=60)
        lost = await killed(rig, first)
        with pytest.raises(Exception, match="not empty"):
            await other.launch(replace(second, session="stranger"))
        await begun(other, second, lost, frames=60)
        await stopped(other, second)
        assert [run[0] for run in runs_of(counts_of(out / "show" / "master.m3u8"))] == [0, 0]
    assert not list((out / "show").glob(".gpu-balancer-*"))


async def test_nothing_but_a_presentation_is_left_outside_when_nothing_goes_on_with_what_failed(
    rigs: Rigs, counting: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    job = live_job(counting, HlsOutput(id="hls", path=str(out / "show"), segment_duration=timedelta(seconds=1)))
    async with rigs.start() as rig:
        await begun(rig, job)
        await killed(rig, job)
        assert list((out / "show").glob(".gpu-balancer-*")), "another attempt may go on there"
        await rig.registry.stop(key_of(job))
    assert not list((out / "show").glob(".gpu-balancer-*"))


def film_outside(tmp_path: Path, counting: Path) -> tuple[Path, Job]:
    """A folder under an output root, and a job that writes a file there."""
    out = tmp_path / "out"
    out.mkdir()
    return out, live_job(counting, FileOutput(id="film", path=str(out / "film.mp4"), container=Container.MP4))


async def test_a_first_attempt_that_none_goes_on_with_has_its_file_named(
    rigs: Rigs, counting: Path, tmp_path: Path
) -> None:
    out, job = film_outside(tmp_path, counting)
    async with rigs.start() as rig:
        await begun(rig, job)
        failed = await killed(rig, job)
        assert not (out / "film.mp4").exists(), "another attempt may go on with it"
        await rig.registry.stop(key_of(job))
        assert rig.registry.attempt(job.session).status.failure == failed.failure
    assert [path.name for path in out.iterdir()] == ["film.mp4"]
    assert [run[0] for run in runs_of(counts_of(out / "film.mp4"))] == [0]


async def test_a_file_that_got_its_name_late_is_told_as_unfinished_no_more(
    rigs: Rigs, counting: Path, tmp_path: Path
) -> None:
    """Its program hangs when it is stopped, and is killed then: nobody can have known before."""
    out, job = film_outside(tmp_path, counting)
    async with rigs.start() as rig:
        await begun(rig, job)
        program = rig.folder(job).program_pid()
        assert program is not None
        os.kill(program, signal.SIGSTOP)
        await rig.registry.stop(key_of(job))
        # Where the machine is slow, its stop has killed it already.
        with contextlib.suppress(ProcessLookupError):
            os.kill(program, signal.SIGKILL)
        failed = await rig.ended(job)
        assert [condition.type for condition in failed.conditions] == ["UNFINISHED_FILES"]
        await until(lambda: rig.registry.runner(key_of(job)) is None)
        await rig.registry.stop(key_of(job))
        assert rig.registry.attempt(job.session).status.conditions == ()
    assert [path.name for path in out.iterdir()] == ["film.mp4"]


@pytest.mark.parametrize("attempts", [1, 2])
async def test_what_cannot_be_named_when_none_goes_on_with_it_is_told_with_where_it_is(
    rigs: Rigs, counting: Path, tmp_path: Path, attempts: int
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    file = FileOutput(id="film", path=str(out / "film.mp4"), container=Container.MP4)
    first, second = live_job(counting, file), live_job(counting, file, attempt=2)
    async with rigs.start() as rig:
        await begun(rig, first)
        last, failed = first, await killed(rig, first)
        if attempts == 2:
            await begun(rig, second, failed)
            last, failed = second, await killed(rig, second)
        (out / "film.mp4").write_bytes(b"somebody else's")
        await rig.registry.stop(key_of(last))
        told = await rig.until(last, lambda status: status.failure is not None and "taken" in status.failure.message)
    assert failed.failure is not None
    assert told.failure is not None
    assert told.failure.reason == failed.failure.reason
    assert str(out / f".gpu-balancer-s1-{attempts}") in told.failure.message
    assert (out / "film.mp4").read_bytes() == b"somebody else's"


async def test_a_deleted_session_leaves_nothing_that_a_full_disk_kept_it_from_taking_away(
    rigs: Rigs, counting: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: LivePlaylists) -> None:
        raise OSError(28, "No space left on device", "index.m3u8")

    out = tmp_path / "out"
    out.mkdir()
    hls = HlsOutput(id="hls", path=str(out / "show"), segment_duration=timedelta(seconds=1))
    first, second = live_job(counting, hls), live_job(counting, hls, attempt=2)
    async with rigs.start() as rig:
        await begun(rig, first)
        await begun(rig, second, await killed(rig, first))
        await killed(rig, second)
        monkeypatch.setattr(LivePlaylists, "end", full)
        await rig.registry.stop(key_of(second))
        assert list((out / "show").rglob(".index-*"))
        await rig.registry.delete(second.session)
    assert [path.name for path in (out / "show").rglob(".*")] == []
    assert list((out / "show").rglob("*.m4s")), "what was written stays"


async def test_what_begins_anew_clears_what_its_lost_attempt_has_left_outside(
    rigs: Rigs, others: Rigs, counting: Path, tmp_path: Path
) -> None:
    """A film has nothing to go on with; whoever ran it cannot throw away what it made."""
    out = tmp_path / "out"
    out.mkdir()
    hls = HlsOutput(id="hls", path=str(out / "show"), segment_duration=timedelta(seconds=1))
    first = replace(live_job(counting, hls), continues=False)
    async with rigs.start() as rig, others.start() as other:
        await begun(rig, first, frames=60)
        await killed(rig, first)
        left = {path.name for path in (out / "show").rglob("*.m4s")}
        assert left
        await begun(other, replace(first, attempt=2), frames=30)
        await stopped(other, replace(first, attempt=2))
    assert not list((out / "show").glob(".gpu-balancer-*"))
    assert [run[0] for run in runs_of(counts_of(out / "show" / "master.m3u8"))] == [0]


async def test_a_playlist_that_was_ended_is_opened_again(rigs: Rigs, counting: Path) -> None:
    """As when a session is moved: its attempt was stopped in order."""
    hls = HlsOutput(id="hls", path="hls", segment_duration=timedelta(seconds=1))
    first, second = live_job(counting, hls), live_job(counting, hls, attempt=2)
    async with rigs.start() as rig:
        await begun(rig, first)
        moved = await stopped(rig, first)
        assert "#EXT-X-ENDLIST" in (rig.folder(first).artifacts / "hls" / "90p" / "index.m3u8").read_text()
        await rig.launch(second, continues=(EarlierAttempt(attempt=1, folder=moved.folder),), may_continue=True)
        playlist = rig.folder(second).artifacts / "hls" / "90p" / "index.m3u8"
        assert "#EXT-X-ENDLIST" not in playlist.read_text()
        await rig.running(second)
        await stopped(rig, second)
    assert playlist.read_text().count("#EXT-X-ENDLIST") == 1


async def test_a_part_that_was_damaged_is_left_out_and_that_is_said(rigs: Rigs, counting: Path) -> None:
    file = FileOutput(id="film", path="film.mp4", container=Container.MP4)
    first, second = live_job(counting, file), live_job(counting, file, attempt=2)
    async with rigs.start() as rig:
        await begun(rig, first)
        await begun(rig, second, await killed(rig, first))
        damaged = rig.folder(second).artifacts / "film.part1.mp4"
        damaged.write_bytes(b"no film" * 1000)
        ended = await stopped(rig, second)
    (condition,) = ended.conditions
    assert condition.type == "IN_PARTS"
    assert condition.message == "Left out and kept, as no player can show it: film.part1.mp4."
    assert damaged.stat().st_size == 7000
    assert (damaged.parent / "film.mp4").stat().st_size


async def test_what_an_attempt_took_over_that_nobody_heard_of_is_in_the_file(
    rigs: Rigs, others: Rigs, counting: Path
) -> None:
    """The answer of the second one's agent was lost with the connection, and then the agent."""
    file = FileOutput(id="film", path="film.mp4", container=Container.MP4)
    first, second, third = (live_job(counting, file, attempt=attempt) for attempt in (1, 2, 3))
    async with rigs.start() as rig, others.start() as other:
        await begun(rig, first)
        lost = await killed(rig, first)
        await begun(other, second, lost)
        unheard = replace(await killed(other, second), folder="")
        await begun(rig, third, lost, unheard)
        assert (await stopped(rig, third)).conditions == ()
    assert len(runs_of(counts_of(rig.folder(third).artifacts / "film.mp4"))) == 3


async def test_what_cannot_be_reached_stays_where_it_is(
    rigs: Rigs, others: Rigs, counting: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = FileOutput(id="film", path="film.mp4", container=Container.MP4)
    first, second = live_job(counting, file), live_job(counting, file, attempt=2)
    async with rigs.start() as rig, others.start() as other:
        await begun(rig, first)
        lost = await killed(rig, first)
        (tmp_path / "link").symlink_to(Path(lost.folder).parent)
        await begun(other, second, replace(lost, folder=str(tmp_path / "link" / "1")))
        ended = await stopped(other, second)
        assert artifacts_of(rig, first) == artifacts_of(other, second) == ["film.mp4"]
    assert "Left what attempt 1 of sessions/s1 has made where it is" in caplog.text
    [condition] = ended.conditions
    assert condition.type == "PARTS_MISSING"
    assert "attempt 1: its folder is not named like one" in condition.message
    assert [run[0] for run in runs_of(counts_of(other.folder(second).artifacts / "film.mp4"))] == [0]


async def until(truth: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not truth():  # noqa: ASYNC110 - another process does it
            await asyncio.sleep(0.01)


def test_hidden_playlists_are_no_artifacts(tmp_path: Path) -> None:
    (tmp_path / own_playlist("index.m3u8", 2)).touch()
    assert list_artifacts(tmp_path) == ()


async def test_what_failed_is_settled_when_nothing_goes_on_with_it(rigs: Rigs, counting: Path) -> None:
    """As soon as it has told its end, and once, however often it is asked."""
    file = FileOutput(id="film", path="film.mp4", container=Container.MP4)
    hls = HlsOutput(id="hls", path="hls", segment_duration=timedelta(seconds=1))
    first, second = live_job(counting, file, hls), live_job(counting, file, hls, attempt=2)
    async with rigs.start() as rig:
        await begun(rig, first)
        await begun(rig, second, await killed(rig, first))
        await just_killed(rig, second)
        playlist = rig.folder(second).artifacts / "hls" / "90p" / "index.m3u8"
        assert "#EXT-X-ENDLIST" not in playlist.read_text()
        assert [path for path in artifacts_of(rig, second) if "film" in path] == ["film.part1.mp4", "film.part2.mp4"]
        await asyncio.gather(*(rig.registry.stop(key_of(second)) for _ in range(3)))
        assert playlist.read_text().endswith("#EXT-X-ENDLIST\n")
        assert [path for path in artifacts_of(rig, second) if "film" in path] == ["film.mp4"]
    assert [run[0] for run in runs_of(counts_of(rig.folder(second).artifacts / "film.mp4"))] == [0, 0]


async def test_a_playlist_stays_open_when_its_attempt_is_stopped_to_go_on_elsewhere(rigs: Rigs, counting: Path) -> None:
    job = live_job(counting, HlsOutput(id="hls", path="hls", segment_duration=timedelta(seconds=1)))
    async with rigs.start() as rig:
        await begun(rig, job)
        await rig.registry.stop(key_of(job), to_be_continued=True)
        assert (await rig.ended(job)).ending is Ending.STOPPED
        await until(lambda: rig.registry.runner(key_of(job)) is None)
        playlist = rig.folder(job).artifacts / "hls" / "90p" / "index.m3u8"
        assert "#EXT-X-ENDLIST" not in playlist.read_text()
        await rig.registry.stop(key_of(job), to_be_continued=True)
        assert "#EXT-X-ENDLIST" not in playlist.read_text()
        await rig.registry.stop(key_of(job))
        assert playlist.read_text().endswith("#EXT-X-ENDLIST\n")
