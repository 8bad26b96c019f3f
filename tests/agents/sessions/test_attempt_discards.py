"""Stops that throw away what was made, with real ffmpeg: the next attempt finds the places as they were."""

from __future__ import annotations

import os
import signal
from dataclasses import replace
from pathlib import Path

import pytest
from session_rig import Rigs, endless, frames_of, job_of, key_of, until

from agents.media_access.outputs import check_outputs
from agents.pipelines.job import Container, FileOutput, HlsOutput, Job, JobInput
from agents.sessions.attempt import Ending
from agents.sessions.endings import conclude
from agents.sessions.output_folders import PresentationFolder, look_up_presentations, remove_presentation
from agents.sessions.processes import AttemptProcesses
from gpu_balancer.runtime.settings_sections import OutputSettings

pytestmark = pytest.mark.process


def everywhere(source: JobInput | Path, out: Path, attempt: int = 1) -> Job:
    """A job with a file and two presentations under the root, and an artifact."""
    return job_of(
        source,
        FileOutput(id="file", path=str(out / "film.mkv"), container=Container.MKV),
        HlsOutput(id="new", path=str(out / "hls")),
        HlsOutput(id="old", path=str(out / "there")),
        FileOutput(id="artifact", path="out.mp4", container=Container.MP4),
        attempt=attempt,
    )


@pytest.fixture
def out(tmp_path: Path) -> Path:
    folder = tmp_path / "out"
    (folder / "there").mkdir(parents=True)
    return folder


def left_in(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


async def test_the_next_attempt_writes_where_a_discarded_one_wrote(rigs: Rigs, clip: Path, out: Path) -> None:
    """The agent is replaced between the stop and the end."""
    job = everywhere(endless(clip), out)
    async with rigs.start() as rig:
        await rig.launch(job)
        await until((out / "hls" / "master.m3u8").exists)
        assert rig.folder(job).artifacts.exists()
        await rig.registry.stop(key_of(job))
        await rig.registry.stop(key_of(job), discard_outputs=True)
    async with rigs.start() as successor:
        ended = await successor.ended(job)
        assert (ended.ending, ended.failure) == (Ending.STOPPED, None)
        assert [condition.type for condition in ended.conditions] == ["OUTPUTS_DISCARDED"]
        assert left_in(out) == ["there"]
        again = everywhere(clip, out, attempt=2)
        await check_outputs(again.outputs, OutputSettings(roots=(str(out),)))
        await successor.launch(again)
        assert (await successor.ended(again)).ending is Ending.COMPLETED
        assert not successor.folder(job).artifacts.exists()
    assert frames_of(out / "film.mkv") == frames_of(successor.folder(again).artifacts / "out.mp4") == 50
    assert (out / "hls" / "master.m3u8").exists()
    assert (out / "there" / "master.m3u8").exists()


async def test_a_stop_that_keeps_what_was_to_be_thrown_away_is_heard_while_it_runs(
    rigs: Rigs, clip: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client stops a session that was being stopped to begin anew."""
    job = everywhere(endless(clip), out)
    async with rigs.start() as rig:
        await rig.launch(job)
        await rig.running(job)
        program = rig.folder(job).program_pid()
        assert program is not None
        with monkeypatch.context() as patch:
            # It has heard the first one, and cannot end before the second.
            patch.setattr(AttemptProcesses, "continue_program", lambda _: True)
            os.kill(program, signal.SIGSTOP)
            await rig.registry.stop(key_of(job), discard_outputs=True)
            await rig.registry.stop(key_of(job))
        os.kill(program, signal.SIGCONT)
        ended = await rig.ended(job)
        assert (ended.ending, ended.conditions) == (Ending.STOPPED, ())
        assert frames_of(rig.folder(job).artifacts / "out.mp4") > 0
        await rig.registry.stop(key_of(job), discard_outputs=True)
        assert frames_of(rig.folder(job).artifacts / "out.mp4") > 0, "it has ended, and is told as such"
    assert frames_of(out / "film.mkv") > 0
    assert (out / "hls" / "master.m3u8").exists()


async def test_what_was_complete_before_it_was_stopped_is_kept(rigs: Rigs, clip: Path, out: Path) -> None:
    job = everywhere(clip, out)
    async with rigs.start() as rig:
        await rig.launch(job)
        await until(lambda: rig.folder(job).exit_code() is not None)
        await rig.registry.stop(key_of(job), discard_outputs=True)
        assert (await rig.ended(job)).ending is Ending.COMPLETED
        await rig.registry.stop(key_of(job), discard_outputs=True)
    assert frames_of(out / "film.mkv") == 50
    assert (out / "hls" / "master.m3u8").exists()


@pytest.mark.parametrize("code", [None, 0, 255, 128 + signal.SIGKILL])
async def test_a_discarded_attempt_counts_as_stopped_however_its_program_ended(
    rigs: Rigs, clip: Path, out: Path, code: int | None
) -> None:
    from agents.sessions.adoption import read_attempt
    from gpu_balancer.runtime.redaction import Redactor

    job = everywhere(endless(clip), out)
    async with rigs.start() as rig:
        await rig.launch(job)
        await rig.running(job)
        await rig.registry.stop(key_of(job), discard_outputs=True)
        await rig.ended(job)
    folder = rig.folder(job)
    folder.exit.write_text(" " * 15 if code is None else f"{code}\n")
    found = read_attempt(folder)
    assert found.launch is not None
    conclusion = conclude(folder, found.launch, found.status, redactor=Redactor(()), log_tail_lines=5)
    assert conclusion.ending is Ending.STOPPED


def test_nothing_of_others_is_removed_with_a_presentation(out: Path) -> None:
    directories = [str(out / "hls"), str(out / "hls" / "90p")]
    (presentation,) = look_up_presentations(directories, [str(out)])
    assert (presentation.name, presentation.inner, presentation.existed) == ("hls", ("90p",), False)
    (out / "hls" / "90p").mkdir(parents=True)
    for name in ("master.m3u8", "90p/index.m3u8", "90p/segment_00000.ts", "90p/notes.txt"):
        (out / "hls" / name).write_text("")
    with pytest.raises(OSError):
        remove_presentation(presentation)
    assert left_in(out / "hls") == ["90p", "90p/notes.txt", "master.m3u8"]


def test_a_presentation_s_folder_that_was_swapped_is_left_alone(out: Path, tmp_path: Path) -> None:
    (presentation,) = look_up_presentations([str(out / "hls")], [str(out)])
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "index.m3u8").write_text("precious")
    (out / "hls").symlink_to(elsewhere)
    with pytest.raises(OSError):
        remove_presentation(presentation)
    moved = replace(presentation, parent=replace(presentation.parent, inode=presentation.parent.inode + 1))
    assert isinstance(moved, PresentationFolder)
    with pytest.raises(OSError):
        remove_presentation(moved)
    assert (elsewhere / "index.m3u8").read_text() == "precious"
