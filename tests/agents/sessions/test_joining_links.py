"""Somebody who may rename in the folder of an output plants links where an earlier attempt's parts should be."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
from dataclasses import replace
from pathlib import Path

import pytest
from session_rig import Rigs, frames_of
from test_attempt_continuation import begun, counts_of, killed, live_job, runs_of, stopped

from agents.pipelines.command import OutputMove
from agents.pipelines.job import Container, FileOutput
from agents.sessions.output_folders import look_up_folders, make_private_folders
from agents.sessions.output_moves import OutputMoveError, forget_parts, open_output, place_outputs
from agents.sessions.private_files import by_descriptor, find_private, is_readable, lent, remove_private


@pytest.fixture
def out(tmp_path: Path) -> Path:
    folder = tmp_path / "out"
    folder.mkdir()
    return folder


@pytest.fixture
def precious(tmp_path: Path) -> Path:
    """A folder of ours that is no session's."""
    folder = tmp_path / "precious"
    folder.mkdir(mode=0o700)
    return folder


@pytest.mark.process
@pytest.mark.parametrize("planted", ["folder", "file"])
async def test_a_link_in_the_place_of_an_earlier_part_is_not_followed(
    rigs: Rigs, counting: Path, out: Path, precious: Path, planted: str
) -> None:
    file = FileOutput(id="film", path=str(out / "film.mp4"), container=Container.MP4)
    first, second = live_job(counting, file), live_job(counting, file, attempt=2)
    async with rigs.start() as rig:
        await begun(rig, first)
        lost = await killed(rig, first)
        private = out / ".gpu-balancer-s1-1"
        [part] = private.iterdir()
        shutil.copy(part, precious / part.name)
        if planted == "folder":
            private.rename(out / "away")
            private.symlink_to(precious)
        else:
            part.unlink()
            part.symlink_to(precious / part.name)
        await begun(rig, second, lost)
        ended = await stopped(rig, second)
    assert [condition.type for condition in ended.conditions] == ["PARTS_MISSING"]
    assert f"attempt 1: {private}" in ended.conditions[0].message
    assert frames_of(precious / part.name), "it is not ours to remove"
    assert len(runs_of(counts_of(out / "film.mp4"))) == 1, "nor to show"
    assert private.is_symlink() if planted == "folder" else part.is_symlink()


@pytest.mark.process
async def test_a_file_is_made_though_its_folder_is_swapped_for_a_link(
    rigs: Rigs, counting: Path, out: Path, precious: Path
) -> None:
    """Of the attempt that joins: nothing is written through it, and nothing that was there is joined."""
    file = FileOutput(id="film", path=str(out / "film.mp4"), container=Container.MP4)
    first, second = live_job(counting, file), live_job(counting, file, attempt=2)
    async with rigs.start() as rig:
        await begun(rig, first)
        lost = await killed(rig, first)
        await begun(rig, second, lost)
        private = out / ".gpu-balancer-s1-2"
        private.rename(out / "away")
        private.symlink_to(precious)
        (precious / "part-0.mp4").write_text("precious")
        await rig.registry.stop(replace(lost.key, attempt=2))
        ended = await rig.ended(second)
    assert "PARTS_MISSING" in [condition.type for condition in ended.conditions]
    assert (precious / "part-0.mp4").read_text() == "precious"


def private_move(out: Path) -> OutputMove:
    part = out / ".gpu-balancer-s1-1" / "part-0.mp4"
    move = OutputMove(part_path=str(part), final_path=str(out / "film.mp4"), overwrite=False)
    [move] = look_up_folders([move], [str(out)])
    make_private_folders([move])
    part.write_text("film")
    return move


def test_a_program_reads_and_writes_what_was_opened_wherever_its_path_leads_by_then(out: Path, precious: Path) -> None:
    move = private_move(out)
    made = str(Path(move.part_path).with_name("made.mp4"))
    with lent((move.part_path,), move, written=made) as held:
        Path(move.part_path).parent.rename(out / "away")
        (out / ".gpu-balancer-s1-1").symlink_to(precious)
        (precious / "part-0.mp4").write_text("precious")
        read, written = by_descriptor((f"file:{move.part_path}", f"file:{made}"), held)
        assert Path(read.removeprefix("file:")).read_text() == "film"
        Path(written.removeprefix("file:")).write_text("made")
    assert (out / "away" / "made.mp4").read_text() == "made"
    assert [path.name for path in precious.iterdir()] == ["part-0.mp4"]


@pytest.mark.parametrize("planted", ["link", "open", "pipe", "strangers"])
def test_what_is_not_ours_is_neither_read_nor_removed(out: Path, precious: Path, planted: str) -> None:
    move = private_move(out)
    part = Path(move.part_path)
    (precious / part.name).write_text("precious")
    if planted == "link":
        part.parent.rename(out / "away")
        part.parent.symlink_to(precious)
    elif planted == "open":
        part.parent.chmod(0o755)
    elif planted == "pipe":
        part.unlink()
        os.mkfifo(part)
    else:
        if os.geteuid() != 0:
            pytest.skip("only root can give a file away")
        os.chown(part, 61999, 61999)
    with pytest.raises(OSError, match=r"private|no file of this daemon|directory|links"):
        find_private([part.name], part.parent, move.folder)
    assert not is_readable(move.part_path, move)
    if planted in ("link", "open"):
        with pytest.raises(OSError, match=r"private|directory|links"):
            remove_private(move.part_path, move.folder)
        assert part.exists()
    assert (precious / part.name).read_text() == "precious"


@pytest.mark.parametrize("named_only", [False, True])
def test_an_output_is_read_where_it_stands(out: Path, named_only: bool) -> None:
    move = private_move(out)
    place_outputs([move], all_made=True)
    if named_only:
        forget_parts([move])
    with open_output(move) as file:
        assert file.read() == b"film"


@pytest.mark.parametrize("planted", ["link", "pipe", "socket", "another"])
def test_what_somebody_has_put_in_the_place_of_an_output_is_not_read(out: Path, precious: Path, planted: str) -> None:
    """Neither through a link, nor by waiting for a pipe, for which its reader would wait for ever."""
    move = private_move(out)
    place_outputs([move], all_made=True)
    final, mine = out / "film.mp4", out / "mine"
    (precious / "secret").write_text("precious")
    if planted == "link":
        mine.symlink_to(precious / "secret")
    elif planted == "pipe":
        os.mkfifo(mine)
    elif planted == "socket":
        with socket.socket(socket.AF_UNIX) as listener, contextlib.chdir(out):
            listener.bind("mine")
    else:
        mine.write_text("film")
    mine.rename(final)
    with pytest.raises(OutputMoveError, match=r"something else there\. What was made is kept as") as told:
        open_output(move).__enter__()
    assert told.value.taken
    assert Path(move.part_path).read_text() == "film"


@pytest.mark.parametrize("overwrites", [False, True])
def test_an_output_that_somebody_has_taken_away_is_told_as_such(out: Path, overwrites: bool) -> None:
    move = replace(private_move(out), overwrite=overwrites)
    place_outputs([move], all_made=True)
    (out / "film.mp4").rename(out / "stolen.mp4")
    kept = "" if overwrites else f" What was made is kept as {move.part_path}."
    with pytest.raises(OutputMoveError) as told:
        open_output(move).__enter__()
    assert f"Cannot keep {move.final_path}: somebody has taken it away.{kept} Try a folder" in str(told.value)
    assert not told.value.taken
    assert Path(move.part_path).exists() != overwrites


def test_an_output_whose_folder_is_another_one_by_now_is_told_as_such(out: Path) -> None:
    move = private_move(out)
    place_outputs([move], all_made=True)
    out.rename(out.with_name("elsewhere"))
    out.mkdir()
    with pytest.raises(OutputMoveError, match=r"Cannot keep .*film\.mp4: "):
        open_output(move).__enter__()
