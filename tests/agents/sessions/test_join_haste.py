"""Joined files whose index has room kept for it in the front, or is moved there."""

from __future__ import annotations

import asyncio
import subprocess
from pathlib import Path

import pytest
from session_rig import FFMPEG
from test_torn_files import boxes_of, frames_in

from agents.bounded_program import ProgramRun
from agents.pipelines.command import FileParts
from agents.pipelines.job import Container
from agents.pipelines.recording_files import NO_ROOM, FinishStep, join_step
from agents.sessions import joining
from agents.sessions.attempt import AttemptKey
from agents.sessions.fence import Fences
from agents.sessions.folder import SessionFolders
from agents.sessions.join_haste import flushed_meanwhile, index_room
from gpu_balancer.runtime.clock import SystemClock

pytestmark = pytest.mark.process

PICTURES = 50


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A take of two seconds and much beside its indexes, as takes are written."""
    path = tmp_path_factory.mktemp("takes") / "large.mp4"
    source = ["-f", "lavfi", "-i", "testsrc2=s=640x360:r=25:d=2,noise=alls=100:allf=t", "-f", "lavfi", "-i", "sine=d=2"]
    coding = ["-c:v", "libx264", "-preset", "ultrafast", "-qp", "1", "-c:a", "aac"]
    flags = ["-movflags", "+frag_keyframe+delay_moov+default_base_moof", "-frag_duration", "500000"]
    subprocess.run([FFMPEG, "-v", "error", *source, *coding, *flags, str(path)], check=True, stdin=subprocess.DEVNULL)
    return path


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same of a picture that stands still."""
    path = tmp_path_factory.mktemp("takes") / "small.mp4"
    source = ["-f", "lavfi", "-i", "color=s=640x360:r=25:d=2"]
    flags = ["-movflags", "+frag_keyframe+delay_moov+default_base_moof", "-frag_duration", "500000"]
    subprocess.run([FFMPEG, "-v", "error", *source, *flags, str(path)], check=True, stdin=subprocess.DEVNULL)
    return path


def parts(folder: Path, container: Container = Container.MP4) -> FileParts:
    return FileParts(
        output="film",
        container=container,
        own_path=str(folder / "own.mp4"),
        made_path=str(folder / "made.mp4"),
        final_path=str(folder / "film.mp4"),
        scratch=str(folder / "scratch"),
    )


async def made(step: FinishStep, folder: Path) -> Path:
    """Makes a file as attempts do."""
    attempt = SessionFolders(root=folder / "sessions").of(AttemptKey(session="s1", attempt=1))
    attempt.path.mkdir(parents=True)
    fences = Fences(folder / "fences", SystemClock())
    with await asyncio.to_thread(fences.take, attempt.key, attempt.path) as fence:
        await joining.make(step, attempt, fence)
    return Path(step.final_path)


def contents(path: Path) -> bytes:
    return path.read_bytes()


def kinds_of(path: Path) -> list[bytes]:
    return [kind for _, _, kind in boxes_of(contents(path))]


def copies_of(path: Path, folder: Path, count: int) -> list[str]:
    """Gives copies of a take, which are removed when they are joined."""
    places = [folder / f"take-{number}.mp4" for number in range(count)]
    for place in places:
        place.write_bytes(contents(path))
    return [str(place) for place in places]


def test_room_is_kept_in_files_that_are_much_larger_than_it(large: Path, small: Path, tmp_path: Path) -> None:
    room = index_room([str(large)], parts(tmp_path))
    assert 64 * 1024 < room <= large.stat().st_size / 100
    assert index_room([str(large), str(large)], parts(tmp_path)) == 2 * room - 64 * 1024
    assert index_room([str(small)], parts(tmp_path)) == 0
    assert index_room([str(large)], parts(tmp_path, Container.MKV)) == 0


@pytest.mark.parametrize("count", [1, 2])
async def test_a_file_with_room_has_its_index_in_the_front_and_all_pictures(
    large: Path, tmp_path: Path, count: int
) -> None:
    pieces = copies_of(large, tmp_path, count)
    step = join_step(parts(tmp_path), pieces, FFMPEG, index_room=index_room(pieces, parts(tmp_path)))
    film = await made(step, tmp_path)
    kinds = kinds_of(film)
    assert kinds.index(b"moov") < kinds.index(b"free") < kinds.index(b"mdat"), "what stayed of the room follows"
    assert frames_in(film) == count * PICTURES
    assert len(contents(film)) < 1.02 * count * len(contents(large))


@pytest.mark.parametrize("count", [1, 2])
async def test_an_index_that_does_not_fit_is_moved_to_the_front(
    large: Path, tmp_path: Path, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[ProgramRun] = []
    run_bounded = joining.run_bounded

    async def noted(*given: object, **more: object) -> ProgramRun:
        ran.append(await run_bounded(*given, **more))  # type: ignore[arg-type]
        return ran[-1]

    monkeypatch.setattr(joining, "run_bounded", noted)
    film = await made(join_step(parts(tmp_path), copies_of(large, tmp_path, count), FFMPEG, index_room=100), tmp_path)
    assert [NO_ROOM in run.output for run in ran].count(True) == 1
    kinds = kinds_of(film)
    assert kinds.index(b"moov") < kinds.index(b"mdat")
    assert frames_in(film) == count * PICTURES


async def test_a_joining_that_fails_otherwise_is_not_tried_again(large: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(contents(large)[64:])
    step = join_step(parts(tmp_path), [str(broken)], FFMPEG, index_room=100_000)
    with pytest.raises(OSError, match="Invalid data"):
        await made(step, tmp_path)
    assert broken.exists()
    assert not (tmp_path / "film.mp4").exists()


async def test_a_file_is_flushed_while_it_is_written_whether_or_not_it_is_there_yet(tmp_path: Path) -> None:
    path = tmp_path / "film.mp4"
    async with flushed_meanwhile(path):
        await asyncio.sleep(0.1)
        path.write_bytes(b"x" * 100_000)
        await asyncio.sleep(0.1)
    assert path.stat().st_size == 100_000
