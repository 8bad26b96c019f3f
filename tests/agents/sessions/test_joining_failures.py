"""What is told of files that could not be joined."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from session_rig import Rig, Rigs, key_of, until
from test_attempt_continuation import begun, counts_of, killed, live_job, runs_of, stopped

from agents.bounded_program import ProgramRun
from agents.pipelines.job import Container, FileOutput, Job
from agents.pipelines.recording_files import FinishStep
from agents.sessions import join_scratch, joining
from agents.sessions.attempt import AttemptStatus, Ending
from agents.sessions.join_scratch import RoomError
from gpu_balancer.runtime.disk_room import DiskRoom

pytestmark = pytest.mark.process


def two_attempts(counting: Path, path: str) -> tuple[Job, Job]:
    """Makes the jobs of an attempt and of one that goes on with its file."""
    file = FileOutput(id="film", path=path, container=Container.MP4)
    return live_job(counting, file), live_job(counting, file, attempt=2)


async def both_begun(rig: Rig, first: Job, second: Job, *, frames: int = 40) -> None:
    """Has an attempt write its part until it is killed, and the next one begin its own."""
    await begun(rig, first, frames=frames)
    await begun(rig, second, await killed(rig, first), frames=frames)


async def ended_by_stop(rig: Rig, job: Job) -> AttemptStatus:
    """Stops an attempt, whatever comes of it."""
    await rig.registry.stop(key_of(job))
    return await rig.ended(job)


async def test_a_disk_that_is_full_when_parts_are_joined_is_told_as_such(
    rigs: Rigs, counting: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With each part where it is: not all are among the artifacts."""
    out = tmp_path / "out"
    out.mkdir()
    first, second = two_attempts(counting, str(out / "film.mp4"))
    async with rigs.start() as rig:
        await both_begun(rig, first, second)
        # ffmpeg itself writes to a device that is always full.
        monkeypatch.setattr(joining, "by_descriptor", lambda command, held: _to_full_disk(command))
        ended = await ended_by_stop(rig, second)
    assert ended.ending is Ending.FAILED
    assert ended.failure is not None
    assert ended.failure.reason == "DISK_FULL"
    for part in (out / ".gpu-balancer-s1-1" / "part-0.mp4", out / ".gpu-balancer-s1-2" / "own-0.mp4"):
        assert str(part) in ended.failure.message
        assert part.stat().st_size
    assert sorted(path.name for path in out.rglob("*.mp4")) == ["own-0.mp4", "part-0.mp4"], "no half-made file is left"


async def test_a_joining_that_has_no_room_is_not_begun_and_says_what_it_takes(
    rigs: Rigs, counting: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Others write to that disk, too."""
    first, second = two_attempts(counting, "film.mp4")
    async with rigs.start() as rig:
        await both_begun(rig, first, second)
        monkeypatch.setattr(join_scratch, "measure_room", lambda _: DiskRoom(free_bytes=20_000, size_bytes=30_000_000))
        ended = await ended_by_stop(rig, second)
    assert ended.failure is not None
    assert ended.failure.reason == "DISK_FULL"
    assert "the disk has no room for it: it takes 0 MiB, and 0 are free" in ended.failure.message
    for part in ("film.part1.mp4", "film.part2.mp4"):
        assert part in ended.failure.message
        assert (rig.folder(second).artifacts / part).stat().st_size


async def test_what_a_killed_agents_joining_has_left_takes_no_room_of_the_next_one(
    rigs: Rigs, counting: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    first, second = two_attempts(counting, str(out / "film.mp4"))
    left = out / ".gpu-balancer-s1-2" / "part-0.mp4"
    found: list[bool] = []

    def looked(step: FinishStep, copies: Mapping[str, int]) -> None:
        found.append(left.exists())
        raise RoomError(28, "the disk has no room for it", step.final_path)

    monkeypatch.setattr(joining, "require_room", looked)
    async with rigs.start() as rig:
        await both_begun(rig, first, second)
        left.write_bytes(bytes(1000))
        ended = await ended_by_stop(rig, second)
    assert ended.failure is not None
    assert ended.failure.reason == "DISK_FULL"
    assert found == [False]
    assert not left.exists(), "nor does it stay where there is no room"


async def test_a_file_elsewhere_that_ends_by_itself_is_joined_and_what_a_killed_joining_left_is_not_taken_for_it(
    rigs: Rigs, counting: Path, tmp_path: Path
) -> None:
    """An ingest's publisher has gone, for instance. Until a file is joined nothing stands under its name."""
    out = tmp_path / "out"
    out.mkdir()
    first, second = two_attempts(counting, str(out / "film.mp4"))
    second = replace(second, input=replace(second.input, repeat_forever=False))
    async with rigs.start() as rig:
        await both_begun(rig, first, second)
        (out / ".gpu-balancer-s1-2" / "part-0.mp4").write_bytes(bytes(1000))
        ended = await rig.ended(second)
        # What it was made of goes once the end is told.
        await until(lambda: list(out.iterdir()) == [out / "film.mp4"])
    assert (ended.ending, ended.failure) == (Ending.COMPLETED, None)
    assert len(runs_of(counts_of(out / "film.mp4"))) == 2, "what both have made"


@pytest.mark.parametrize("place", ["film.mp4", "{elsewhere}/film.mp4"])
async def test_a_joining_that_is_killed_is_done_once_more(
    rigs: Rigs, counting: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    """In the middle of the second of its programs, with something written."""
    first, second = two_attempts(counting, place.format(elsewhere=tmp_path))
    run_bounded = joining.run_bounded
    written: list[str] = []

    async def once_killed(command: Sequence[str], **more: Any) -> ProgramRun:
        if "-y" in command:
            written.append(command[-1].removeprefix("file:"))
            if len(written) == 2:
                command = ("sh", "-c", f"echo half > {written[-1]}; kill -KILL $$")
        return await run_bounded(command, **more)

    async with rigs.start() as rig:
        await both_begun(rig, first, second)
        monkeypatch.setattr(joining, "run_bounded", once_killed)
        ended = await ended_by_stop(rig, second)
        film = (rig.folder(second).artifacts if place == "film.mp4" else tmp_path) / "film.mp4"
        assert len(runs_of(counts_of(film))) == 2, "what both have made"
        await until(lambda: sorted(path.name for path in film.parent.rglob("*.mp4")) == ["film.mp4"])
    assert (ended.ending, ended.failure) == (Ending.STOPPED, None)
    assert len(written) == 5, "two of three programs, then all of them"


LOOKS = ("-hide_banner", "-nostdin", "-protocol_whitelist")


@pytest.mark.parametrize(
    ("fault", "times"),
    [("kill -KILL $$", 1), ("kill -KILL $$", 99), ("echo Cannot allocate memory >&2; exit 1", 99)],
)
async def test_what_could_not_be_looked_at_is_not_left_out(
    rigs: Rigs, counting: Path, monkeypatch: pytest.MonkeyPatch, fault: str, times: int
) -> None:
    """A look that somebody ends is done once more. Without any, what there is stays as it was written."""
    first, second = two_attempts(counting, "film.mp4")
    run_bounded = joining.run_bounded
    looked: list[Sequence[str]] = []

    async def faulty(command: Sequence[str], **more: Any) -> ProgramRun:
        if tuple(command[1:4]) == LOOKS:
            looked.append(command)
            if len(looked) <= times:
                command = ("sh", "-c", fault)
        return await run_bounded(command, **more)

    async with rigs.start() as rig:
        await both_begun(rig, first, second)
        monkeypatch.setattr(joining, "run_bounded", faulty)
        ended = await ended_by_stop(rig, second)
        left = [path.name for path in rig.folder(second).artifacts.glob("film*.mp4")]
    assert looked
    assert ended.ending is Ending.STOPPED
    if times == 1:
        assert left == ["film.mp4"]
    else:
        assert sorted(left) == ["film.part1.mp4", "film.part2.mp4"]
        assert [condition.type for condition in ended.conditions] == ["IN_PARTS"]


async def test_a_joining_that_is_killed_again_is_told_as_such(
    rigs: Rigs, counting: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = two_attempts(counting, "film.mp4")
    async with rigs.start() as rig:
        await both_begun(rig, first, second)
        warns_and_dies = ("sh", "-c", "echo Non-monotonic DTS >&2; kill -KILL $$")
        monkeypatch.setattr(joining, "by_descriptor", lambda command, _: warns_and_dies if "-y" in command else command)
        ended = await ended_by_stop(rig, second)
    assert ended.failure is not None
    assert "Cannot finish film: ffmpeg was ended by a signal (Killed)." in ended.failure.message


async def test_a_file_elsewhere_is_joined_on_its_own_disk_and_may_be_read_like_any_other(
    rigs: Rigs, counting: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk of the state folder may have no room for it."""
    out = tmp_path / "out"
    out.mkdir()
    first, second = two_attempts(counting, str(out / "film.mp4"))
    run: list[tuple[str, ...]] = []
    run_bounded = joining.run_bounded

    async def noted(command: tuple[str, ...], **more: Any) -> ProgramRun:
        run.append(command)
        return await run_bounded(command, **more)

    async with rigs.start() as rig:
        await both_begun(rig, first, second)
        monkeypatch.setattr(joining, "run_bounded", noted)
        assert (await ended_by_stop(rig, second)).ending is Ending.STOPPED
        joined = str(rig.folder(second).artifacts)
    written = [command[-1] for command in run if "-y" in command]
    assert len(written) == 3
    assert all(path.startswith("file:/proc/self/fd/") for path in written)
    assert not any(
        argument.startswith(f"file:{joined}") and argument.endswith(".mp4") for argv in run for argument in argv
    )
    assert [path.name for path in out.glob("*.mp4")] == ["film.mp4"]
    plain = tmp_path / "plain"
    plain.touch()
    assert (out / "film.mp4").stat().st_mode == plain.stat().st_mode


async def test_where_files_must_have_names_copies_are_made_among_the_artifacts(
    rigs: Rigs, counting: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    first, second = two_attempts(counting, str(out / "film.mp4"))
    async with rigs.start() as rig:
        await both_begun(rig, first, second)
        monkeypatch.setattr(join_scratch.os, "O_TMPFILE", os.O_DIRECTORY | os.O_WRONLY)  # as an old kernel takes it
        assert (await ended_by_stop(rig, second)).ending is Ending.STOPPED
        assert not list(rig.folder(second).artifacts.rglob("output-*"))
    assert [path.name for path in out.glob("*.mp4")] == ["film.mp4"]


async def test_a_joining_that_stands_still_is_given_up_and_its_parts_are_told(
    rigs: Rigs, counting: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk hangs: until then the session cannot end."""
    first, second = two_attempts(counting, "film.mp4")
    async with rigs.start() as rig:
        await both_begun(rig, first, second)
        monkeypatch.setattr(joining, "_STANDS_STILL_WITHIN", timedelta(seconds=0.2))
        monkeypatch.setattr(joining, "by_descriptor", lambda command, held: _hanging(command))
        ended = await ended_by_stop(rig, second)
    assert ended.ending is Ending.FAILED
    assert ended.failure is not None
    assert "stood still" in ended.failure.message


def _hanging(command: tuple[str, ...]) -> tuple[str, ...]:
    return ("/bin/sleep", "600") if "-y" in command else command


def _to_full_disk(command: tuple[str, ...]) -> tuple[str, ...]:
    return (*command[:-1], "file:/dev/full") if "-y" in command else command


@pytest.mark.parametrize(
    ("container", "torn"),
    [(Container.MP4, b"mdat"), (Container.MP4, b"moof"), (Container.MKV, b""), (Container.TS, b"")],
    ids=["mp4 within a picture", "mp4 within an index", "mkv", "ts"],
)
async def test_what_a_full_disk_tore_and_what_comes_behind_it_is_joined(
    rigs: Rigs, counting: Path, container: Container, torn: bytes
) -> None:
    """ffmpeg takes half a picture for the end of all, and says that it is done; a file with half an index is none."""
    file = FileOutput(id="film", path=f"film.{container}", container=container)
    first, second = live_job(counting, file), live_job(counting, file, attempt=2)
    async with rigs.start() as rig:
        await begun(rig, first, frames=60)
        lost = await killed(rig, first)
        part = rig.folder(first).artifacts / f"film.{container}"
        content = part.read_bytes()
        # Pictures stand in front of the sound.
        os.truncate(part, content.rindex(torn) + 300 if torn else len(content) - 2000)
        await begun(rig, second, lost)
        ended = await stopped(rig, second)
    assert ended.progress is not None
    before, after = runs_of(counts_of(rig.folder(second).artifacts / f"film.{container}"))
    assert before[0] == after[0] == 0
    assert len(before) >= 15
    assert len(after) == ended.progress.frames


async def test_parts_of_which_not_all_could_be_joined_are_kept(
    rigs: Rigs, counting: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = two_attempts(counting, "film.mp4")
    run_bounded = joining.run_bounded

    async def shortened(command: tuple[str, ...], **more: Any) -> ProgramRun:
        if "concat" in command:
            command = (*command[:-1], "-t", "1", command[-1])
        return await run_bounded(command, **more)

    async with rigs.start() as rig:
        await both_begun(rig, first, second, frames=60)
        monkeypatch.setattr(joining, "run_bounded", shortened)
        ended = await ended_by_stop(rig, second)
    assert ended.failure is not None
    assert "only 1.0 s of " in ended.failure.message
    for part in ("film.part1.mp4", "film.part2.mp4"):
        assert part in ended.failure.message
        assert (rig.folder(second).artifacts / part).stat().st_size
    assert not (rig.folder(second).artifacts / "film.mp4").exists()


async def test_a_part_with_a_hole_is_kept_and_not_taken_for_as_much_as_can_be_read_of_it(
    rigs: Rigs, counting: Path
) -> None:
    """ffmpeg takes the hole that a failing disk has left for the end, and says that it is done."""
    first, second = two_attempts(counting, "film.mp4")
    async with rigs.start() as rig:
        await begun(rig, first, frames=120)
        lost = await killed(rig, first)
        part = rig.folder(first).artifacts / "film.mp4"
        content = part.read_bytes()
        hole = content.index(b"moof", content.index(b"moof") + 4) - 4
        part.write_bytes(content[:hole] + bytes(100) + content[hole + 100 :])
        await begun(rig, second, lost, frames=60)
        ended = await ended_by_stop(rig, second)
        kept = rig.folder(second).artifacts / "film.part1.mp4"
        assert len(kept.read_bytes()) == len(content)
    assert ended.failure is not None
    assert "bytes of sound and pictures could be joined" in ended.failure.message
    assert "film.part1.mp4" in ended.failure.message
