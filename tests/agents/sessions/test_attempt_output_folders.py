"""Somebody who may write into the folder of an output plants links and swaps folders."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
from session_rig import Rigs, endless, frames_of, job_of, key_of

from agents.pipelines.command import OutputMove
from agents.pipelines.job import Container, FileOutput, HlsOutput
from agents.sessions.output_folders import look_up_folders, make_presentation_folders, make_private_folders
from agents.sessions.output_moves import OutputMoveError, place_outputs, remove_parts
from gpu_balancer.runtime.failures import Reason, RequestFailure


@pytest.fixture
def shared(tmp_path: Path) -> Path:
    """A folder that everybody may write into, under the root, which is the test's folder."""
    folder = tmp_path / "shared"
    folder.mkdir()
    folder.chmod(0o777)
    return folder


def planned(folder: Path, *, overwrite: bool = False) -> OutputMove:
    part = folder / ".gpu-balancer-s1-1" / "part-0.mp4"
    return OutputMove(part_path=str(part), final_path=str(folder / "out.mp4"), overwrite=overwrite)


def begun(folder: Path, *, overwrite: bool = False) -> OutputMove:
    moves = look_up_folders([planned(folder, overwrite=overwrite)], [str(folder.parent)])
    make_private_folders(moves)
    return moves[0]


def swap(folder: Path, moved: Path, target: Path) -> None:
    folder.rename(moved)
    folder.symlink_to(target)


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_nobody_else_may_enter_the_folder_of_an_unfinished_file(shared: Path) -> None:
    private = Path(begun(shared).part_path).parent
    assert stat.S_IMODE(private.stat().st_mode) == 0o700


def test_a_private_folder_that_is_there_already_is_not_used(shared: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (shared / ".gpu-balancer-s1-1").symlink_to(elsewhere)
    [move] = look_up_folders([planned(shared)], [str(tmp_path)])
    (tmp_path / "other").mkdir()
    [other] = look_up_folders([planned(tmp_path / "other")], [str(tmp_path)])
    with pytest.raises(FileExistsError):
        make_private_folders([other, move])
    assert list((tmp_path / "other").iterdir()) == [], "all of them or none"


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_link_is_not_published(shared: Path, tmp_path: Path, *, overwrite: bool) -> None:
    move = begun(shared, overwrite=overwrite)
    (tmp_path / "precious").write_text("precious")
    Path(move.part_path).symlink_to(tmp_path / "precious")
    for all_made in (True, False):
        with pytest.raises(OutputMoveError, match="no file of this daemon") as caught:
            place_outputs([move], all_made=all_made)
        assert not caught.value.taken
    assert not (shared / "out.mp4").is_symlink()


def test_a_link_at_the_final_name_is_replaced_and_not_followed(shared: Path, tmp_path: Path) -> None:
    move = begun(shared, overwrite=True)
    Path(move.part_path).write_bytes(b"film")
    (tmp_path / "precious").write_text("precious")
    (shared / "out.mp4").symlink_to(tmp_path / "precious")
    place_outputs([move], all_made=True)
    assert (tmp_path / "precious").read_text() == "precious"
    assert ((shared / "out.mp4").is_symlink(), (shared / "out.mp4").read_bytes()) == (False, b"film")


@pytest.mark.parametrize("kind", ["link", "folder"])
def test_nothing_is_written_through_a_folder_that_was_swapped(shared: Path, tmp_path: Path, kind: str) -> None:
    move = begun(shared)
    Path(move.part_path).write_bytes(b"film")
    shared.rename(tmp_path / "moved")
    outside = tmp_path / "outside"
    (outside / ".gpu-balancer-s1-1").mkdir(mode=0o700, parents=True)
    (outside / ".gpu-balancer-s1-1" / "part-0.mp4").write_bytes(b"forged")
    if kind == "link":
        shared.symlink_to(outside)
    else:
        outside.rename(shared)
    with pytest.raises(OutputMoveError, match="Cannot write"):
        place_outputs([move], all_made=True)
    remove_parts([move], only_empty=False)
    assert not (shared / "out.mp4").exists()
    assert (shared / ".gpu-balancer-s1-1" / "part-0.mp4").read_bytes() == b"forged", "it is not ours to remove"


@pytest.mark.parametrize("kind", ["link", "open"])
def test_a_private_folder_that_was_swapped_is_refused(shared: Path, tmp_path: Path, kind: str) -> None:
    move = begun(shared)
    private = Path(move.part_path).parent
    private.rename(shared / "away")
    forged = tmp_path / "forged"
    forged.mkdir()
    (forged / "part-0.mp4").write_bytes(b"forged")
    if kind == "link":
        forged.chmod(0o700)
        private.symlink_to(forged)
    else:
        forged.chmod(0o755)
        forged.rename(private)
    with pytest.raises(OutputMoveError, match="Cannot write"):
        place_outputs([move], all_made=True)
    assert not (shared / "out.mp4").exists()


def test_a_folder_that_leads_outside_of_the_roots_is_refused(shared: Path, tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (shared / "inner").symlink_to(tmp_path / "outside")
    with pytest.raises(RequestFailure) as caught:
        look_up_folders([planned(shared / "inner")], [str(shared)])
    assert caught.value.reason is Reason.OUTPUT_NOT_ALLOWED
    with pytest.raises(RequestFailure) as caught:
        make_presentation_folders([str(shared / "inner" / "show")], [str(shared)])
    assert caught.value.reason is Reason.OUTPUT_NOT_ALLOWED
    assert list((tmp_path / "outside").iterdir()) == []


def test_the_folders_of_a_presentation_are_closed_to_the_writing_of_others(shared: Path) -> None:
    make_presentation_folders([str(shared / "show"), str(shared / "show" / "a")], [str(shared)])
    for folder in (shared / "show", shared / "show" / "a"):
        assert stat.S_IMODE(folder.stat().st_mode) & 0o022 == 0


def test_a_presentation_is_not_written_into_a_folder_that_somebody_else_prepared(shared: Path, tmp_path: Path) -> None:
    (shared / "open").mkdir()
    (shared / "open").chmod(0o777)
    (shared / "full").mkdir()
    (shared / "full" / "a").symlink_to(tmp_path)
    for name in ("open", "full"):
        with pytest.raises(RequestFailure) as caught:
            make_presentation_folders([str(shared / name), str(shared / name / "a")], [str(shared)])
        assert caught.value.reason is Reason.OUTPUT_NOT_ALLOWED
    (shared / "link").symlink_to(tmp_path)
    with pytest.raises(NotADirectoryError):
        make_presentation_folders([str(shared / "link")], [str(shared)])


@pytest.mark.process
async def test_a_session_whose_folder_was_swapped_fails_with_a_sentence(
    rigs: Rigs, clip: Path, shared: Path, tmp_path: Path
) -> None:
    job = job_of(endless(clip), FileOutput(id="o", path=str(shared / "film.mp4"), container=Container.MP4))
    outside = tmp_path / "outside"
    outside.mkdir()
    async with rigs.start() as rig:
        await rig.launch(job)
        await rig.running(job)
        swap(shared, tmp_path / "moved", outside)
        await rig.registry.stop(key_of(job))
        ended = await rig.ended(job)
    assert ended.failure is not None
    assert ended.failure.reason == "OUTPUT_UNWRITABLE"
    assert ended.failure.message.startswith(f"Cannot write {shared / 'film.mp4'}: ")
    assert names_in(outside) == []


@pytest.mark.process
async def test_a_successor_publishes_a_name_of_255_bytes(rigs: Rigs, clip: Path, shared: Path) -> None:
    final = shared / f"{'n' * 251}.mp4"
    job = job_of(endless(clip), FileOutput(id="o", path=str(final), container=Container.MP4))
    async with rigs.start() as rig:
        await rig.launch(job)
        await rig.running(job)
    async with rigs.start() as successor:
        await successor.registry.stop(key_of(job))
        ended = await successor.ended(job)
        await successor.registry.delete(job.session)
    assert ended.failure is None
    assert frames_of(final) > 0
    assert names_in(shared) == [final.name], "the private folder is gone"


@pytest.mark.process
async def test_a_launch_that_cannot_start_its_program_leaves_no_private_folder(
    rigs: Rigs, clip: Path, shared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> int:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr("agents.sessions.launcher.spawn_shim", refuse)
    job = job_of(clip, FileOutput(id="o", path=str(shared / "film.mp4"), container=Container.MP4))
    async with rigs.start() as rig:
        with pytest.raises(RequestFailure) as caught:
            await rig.launch(job)
    assert caught.value.reason is Reason.OUTPUT_UNWRITABLE
    assert names_in(shared) == []


@pytest.mark.process
async def test_a_presentation_is_written_into_a_folder_of_its_own(rigs: Rigs, clip: Path, shared: Path) -> None:
    job = job_of(clip, HlsOutput(id="o", path=str(shared / "show")))
    async with rigs.start() as rig:
        await rig.launch(job)
        ended = await rig.ended(job)
    assert ended.failure is None
    assert "master.m3u8" in names_in(shared / "show")
