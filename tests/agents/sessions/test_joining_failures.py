"""What is told of files that could not be joined."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
from session_rig import Rigs, key_of
from test_attempt_continuation import begun, killed, live_job

from agents.pipelines.job import Container, FileOutput
from agents.sessions import joining
from agents.sessions.attempt import Ending


async def test_a_disk_that_is_full_when_parts_are_joined_is_told_as_such(
    rigs: Rigs, counting: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With each part where it is: not all are among the artifacts."""
    out = tmp_path / "out"
    out.mkdir()
    file = FileOutput(id="film", path=str(out / "film.mp4"), container=Container.MP4)
    first, second = live_job(counting, file), live_job(counting, file, attempt=2)
    async with rigs.start() as rig:
        await begun(rig, first)
        await begun(rig, second, await killed(rig, first))
        # ffmpeg itself writes to a device that is always full.
        monkeypatch.setattr(joining, "by_descriptor", lambda command, held: _to_full_disk(command))
        await rig.registry.stop(key_of(second))
        ended = await rig.ended(second)
    assert ended.ending is Ending.FAILED
    assert ended.failure is not None
    assert ended.failure.reason == "DISK_FULL"
    for part in (out / ".gpu-balancer-s1-1" / "part-0.mp4", out / ".gpu-balancer-s1-2" / "own-0.mp4"):
        assert str(part) in ended.failure.message
        assert part.stat().st_size


async def test_a_joining_that_stands_still_is_given_up_and_its_parts_are_told(
    rigs: Rigs, counting: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk hangs: until then the session cannot end."""
    file = FileOutput(id="film", path="film.mp4", container=Container.MP4)
    first, second = live_job(counting, file), live_job(counting, file, attempt=2)
    async with rigs.start() as rig:
        await begun(rig, first)
        await begun(rig, second, await killed(rig, first))
        monkeypatch.setattr(joining, "_STANDS_STILL_WITHIN", timedelta(seconds=0.2))
        monkeypatch.setattr(joining, "by_descriptor", lambda command, held: _hanging(command))
        await rig.registry.stop(key_of(second))
        ended = await rig.ended(second)
    assert ended.ending is Ending.FAILED
    assert ended.failure is not None
    assert "stood still" in ended.failure.message


def _hanging(command: tuple[str, ...]) -> tuple[str, ...]:
    return ("/bin/sleep", "600") if "-y" in command else command


def _to_full_disk(command: tuple[str, ...]) -> tuple[str, ...]:
    return (*command[:-1], "file:/dev/full") if "-y" in command else command
