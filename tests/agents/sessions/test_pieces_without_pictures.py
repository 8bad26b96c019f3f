"""Pieces of a film that hold sound and no picture, as of a take that is ended when it has hardly begun."""

from __future__ import annotations

import asyncio
import subprocess
from itertools import pairwise
from pathlib import Path

import pytest
from session_rig import FFMPEG

from agents.pipelines.command import FileParts
from agents.pipelines.job import Container
from agents.sessions import joining
from agents.sessions.attempt import AttemptKey
from agents.sessions.fence import Fences
from agents.sessions.folder import AttemptFolder, SessionFolders
from gpu_balancer.runtime.clock import SystemClock

pytestmark = pytest.mark.process
FLAGS = {Container.MP4: ["-movflags", "+frag_keyframe+delay_moov+default_base_moof"]}


def piece(folder: Path, container: Container, number: int, *, seconds: float, pictures: bool) -> str:
    """Writes a piece as takes are written."""
    path = folder / f"piece-{number}.{container.value}"
    video = ["-f", "lavfi", "-t", f"{seconds}", "-i", "testsrc2=s=320x180:r=25"]
    audio = ["-f", "lavfi", "-t", f"{seconds}", "-i", "sine=r=48000"]
    chosen = ["-vf", "null" if pictures else "select=0", "-c:v", "libx264", "-preset", "ultrafast", "-c:a", "aac"]
    given = [*video, *audio, *chosen, *FLAGS.get(container, ()), str(path)]
    subprocess.run([FFMPEG, "-v", "error", *given], check=True, stdin=subprocess.DEVNULL)
    return str(path)


def attempt_in(folder: Path) -> AttemptFolder:
    attempt = SessionFolders(root=folder / "sessions").of(AttemptKey(session="s1", attempt=1))
    attempt.artifacts.mkdir(parents=True)
    return attempt


async def joined(pieces: list[str], container: Container, folder: Path) -> Path:
    """Joins pieces as attempts do."""
    suffix = container.value
    file = FileParts(
        output="film",
        container=container,
        own_path=str(folder / f"own.{suffix}"),
        made_path=str(folder / f"made.{suffix}"),
        final_path=str(folder / f"film.{suffix}"),
        scratch=str(folder / "scratch"),
    )
    attempt = attempt_in(folder)
    (step,) = await joining.plan_file(file, pieces, folder=attempt, ffmpeg=FFMPEG)
    fences = Fences(folder / "fences", SystemClock())
    with await asyncio.to_thread(fences.take, attempt.key, attempt.path) as fence:
        await joining.make(step, attempt, fence)
    return Path(step.final_path)


def times_of(path: Path, stream: str) -> list[float]:
    """Gives when each picture, or packet of sound, is shown or heard, in seconds."""
    asked = ["-i", str(path), "-map", f"0:{stream}:0", "-c", "copy", "-f", "framecrc", "-"]
    told = subprocess.run([FFMPEG, "-v", "error", *asked], capture_output=True, text=True, check=True).stdout
    lines = told.splitlines()
    beat = next(line for line in lines if line.startswith("#tb 0:")).split()[-1].split("/")
    return sorted(
        int(line.split(",")[2]) * int(beat[0]) / int(beat[1]) for line in lines if line and not line.startswith("#")
    )


@pytest.mark.parametrize("container", [Container.MP4, Container.MKV, Container.TS])
async def test_a_piece_with_sound_alone_does_not_ruin_the_film(container: Container, tmp_path: Path) -> None:
    pieces = [
        piece(tmp_path, container, 0, seconds=1, pictures=True),
        piece(tmp_path, container, 1, seconds=0.1, pictures=False),
        piece(tmp_path, container, 2, seconds=1, pictures=True),
    ]
    film = await joined(pieces, container, tmp_path)
    times_s = times_of(film, "v")
    assert len(times_s) == 50
    steps_s = [later - earlier for earlier, later in pairwise(times_s)]
    assert sorted(steps_s)[:-1] == pytest.approx([0.04] * 48, abs=0.002)
    assert max(steps_s) < 0.2
    assert times_of(film, "a")[-1] - times_s[0] == pytest.approx(times_s[-1] - times_s[0], abs=0.1)


async def test_pieces_that_are_sound_alone_are_joined(tmp_path: Path) -> None:
    pieces = [piece(tmp_path, Container.MKV, number, seconds=1, pictures=False) for number in range(2)]
    assert times_of(await joined(pieces, Container.MKV, tmp_path), "a")[-1] == pytest.approx(2, abs=0.1)
