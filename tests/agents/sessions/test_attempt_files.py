"""Files of an attempt: folders, logs, artifacts, moves; what fills the disk and what tries to get out."""

from __future__ import annotations

import os
import stat
from datetime import timedelta
from pathlib import Path

import pytest

from agents.pipelines.command import OutputMove
from agents.sessions.artifacts import CHUNK_BYTES, ArtifactFile, list_artifacts, media_type, read_artifact
from agents.sessions.attempt import AttemptKey
from agents.sessions.bounded_files import bound_file, first_data_offset
from agents.sessions.folder import SessionFolders
from agents.sessions.logs import LogReader, follow_log, read_tail
from agents.sessions.output_folders import look_up_folders, make_private_folders
from agents.sessions.output_moves import OutputMoveError, forget_parts, place_outputs, remove_parts, unfinished_parts
from gpu_balancer.runtime.failures import Reason, RequestFailure
from gpu_balancer.runtime.redaction import Redactor

MIB = 1024 * 1024
NOTHING_SECRET = Redactor(())


async def read_all(folder: Path, path: str, **bounds: int) -> tuple[ArtifactFile, list[bytes]]:
    parts = [part async for part in read_artifact(folder, path, **bounds)]
    assert isinstance(parts[0], ArtifactFile)
    return parts[0], [part for part in parts[1:] if isinstance(part, bytes)]


# Folders


def test_a_folder_is_private_and_has_room_for_what_the_shim_will_write(tmp_path: Path) -> None:
    folder = SessionFolders(root=tmp_path / "sessions").of(AttemptKey(session="s1", attempt=2))
    folder.create({"plan.binpb": b"plan"})
    assert stat.S_IMODE(folder.path.stat().st_mode) == 0o700
    assert stat.S_IMODE(folder.log.stat().st_mode) == 0o600
    assert (folder.exit_code(), folder.shim_pid(), folder.program_pid()) == (None, None, None)
    assert folder.exit.stat().st_size == 16
    assert folder.plan.read_bytes() == b"plan"


def test_a_folder_is_made_once(tmp_path: Path) -> None:
    folder = SessionFolders(root=tmp_path).of(AttemptKey(session="s1", attempt=1))
    folder.create({"plan.binpb": b"first"})
    with pytest.raises(FileExistsError):
        folder.create({"plan.binpb": b"second"})
    assert folder.plan.read_bytes() == b"first"


def test_folders_are_found_by_session_and_attempt_and_leftovers_are_cleared(tmp_path: Path) -> None:
    folders = SessionFolders(root=tmp_path)
    keys = [AttemptKey(session="b", attempt=10), AttemptKey(session="b", attempt=9), AttemptKey(session="a", attempt=1)]
    for key in keys:
        folders.of(key).create({})
    (tmp_path / "b" / ".new-x").mkdir()
    (tmp_path / "b" / "notes").mkdir()
    (tmp_path / "stray").write_text("")
    assert [folder.key for folder in folders.found()] == sorted(keys)
    assert sorted(entry.name for entry in (tmp_path / "b").iterdir()) == ["10", "9", "notes"]


@pytest.mark.parametrize("session", ["", "..", "a/b", "-a", ".a", "a" * 64, "a\n"])
def test_a_session_that_is_no_plain_name_has_no_folder(tmp_path: Path, session: str) -> None:
    with pytest.raises(ValueError, match="session"):
        SessionFolders(root=tmp_path).of(AttemptKey(session=session, attempt=1))


# Bounded files


def test_a_large_log_gives_its_head_back_to_the_disk_and_keeps_its_end(tmp_path: Path) -> None:
    path = tmp_path / "log"
    with path.open("ab") as writer:
        for number in range(20_000):
            writer.write(b"%06d %s\n" % (number, b"x" * 100))
        writer.flush()
        assert bound_file(path, limit_bytes=MIB, keep_bytes=64 * 1024)
        writer.write(b"after\n")
    assert path.stat().st_blocks * 512 < 128 * 1024
    with LogReader(path, NOTHING_SECRET) as reader:
        lines = []
        while batch := reader.read():
            lines += batch
    assert lines[-1] == "after"
    numbers = [int(line.split()[0]) for line in lines[:-1]]
    assert numbers == list(range(numbers[0], 20_000))
    assert 500 < len(numbers) < 1_000


def test_a_small_file_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"x" * 1000)
    assert not bound_file(path, limit_bytes=MIB, keep_bytes=10)
    assert not bound_file(tmp_path / "missing", limit_bytes=MIB, keep_bytes=10)
    assert path.read_bytes() == b"x" * 1000


def test_the_first_data_of_an_empty_file_is_its_end(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    descriptor = os.open(tmp_path / "empty", os.O_RDONLY)
    try:
        assert first_data_offset(descriptor) == 0
    finally:
        os.close(descriptor)


# Logs


def test_the_tail_of_a_log_is_its_last_lines_with_secrets_hidden(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_text("one\ntwo\rrtmp://host/live/topsecret-key\nkey topsecret-key again\nlast without end")
    redactor = Redactor(["topsecret-key"])
    assert read_tail(path, redactor, 3) == ("rtmp://host/live/***", "key *** again", "last without end")
    assert len(read_tail(path, redactor, 50)) == 5
    assert read_tail(tmp_path / "missing", redactor, 3) == ()


def test_an_endless_line_is_cut(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"y" * (3 * MIB) + b"\nend\n")
    assert read_tail(path, NOTHING_SECRET, 1) == ("end",)
    with LogReader(path, NOTHING_SECRET) as reader:
        lines = []
        while batch := reader.read(last=True):
            lines += batch
    assert max(len(line) for line in lines) == 4096
    assert lines[-1] == "end"


async def test_following_a_log_gives_every_line_until_the_attempt_ends(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_text("before\nhalf")
    asked = 0

    def ended() -> bool:
        nonlocal asked
        asked += 1
        if asked == 2:
            with path.open("a") as log:
                log.write(" done\n")
        if asked == 3:
            with path.open("a") as log:
                log.write("no end")
        return asked >= 3

    found = [
        line
        async for lines in follow_log(
            path, NOTHING_SECRET, tail_lines=None, ended=ended, interval=timedelta(milliseconds=1)
        )
        for line in lines
    ]
    assert found == ["before", "half done", "no end"]


async def test_a_log_that_is_not_followed_is_given_as_it_stands(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_text("".join(f"{number}\n" for number in range(50_000)))
    batches = [
        lines
        async for lines in follow_log(path, NOTHING_SECRET, tail_lines=None, ended=None, interval=timedelta(seconds=1))
    ]
    assert [line for lines in batches for line in lines] == [str(number) for number in range(50_000)]
    assert len(batches) > 1


# Artifacts


def test_artifacts_are_listed_by_path_with_their_media_types(tmp_path: Path) -> None:
    (tmp_path / "hls").mkdir()
    for name in ("out.mp4", "hls/master.m3u8", "hls/seg-1.m4s", "hls/seg-2.m4s.tmp", ".hidden"):
        (tmp_path / name).write_bytes(b"abc")
    (tmp_path / "link").symlink_to("/etc/passwd")
    (tmp_path / "folder-link").symlink_to("/etc")
    found = list_artifacts(tmp_path)
    assert [(item.path, item.media_type) for item in found] == [
        ("hls/master.m3u8", "application/vnd.apple.mpegurl"),
        ("hls/seg-1.m4s", "video/iso.segment"),
        ("out.mp4", "video/mp4"),
    ]
    assert {item.size_bytes for item in found} == {3}
    assert list_artifacts(tmp_path / "missing") == ()
    assert media_type("what.ever") == "application/octet-stream"


async def test_a_range_of_an_artifact_is_read_in_pieces_of_256_kib(tmp_path: Path) -> None:
    content = os.urandom(CHUNK_BYTES * 2 + 1000)
    (tmp_path / "a.ts").write_bytes(content)
    artifact, pieces = await read_all(tmp_path, "a.ts", offset_bytes=10, limit_bytes=CHUNK_BYTES + 5)
    assert artifact.size_bytes == len(content)
    assert b"".join(pieces) == content[10 : 10 + CHUNK_BYTES + 5]
    assert [len(piece) for piece in pieces] == [CHUNK_BYTES, 5]
    _, pieces = await read_all(tmp_path, "a.ts")
    assert b"".join(pieces) == content


async def test_a_growing_artifact_is_read_up_to_the_size_that_was_announced(tmp_path: Path) -> None:
    path = tmp_path / "live.ts"
    path.write_bytes(b"a" * 1000)
    reading = read_artifact(tmp_path, "live.ts")
    announced = await anext(reading)
    assert isinstance(announced, ArtifactFile)
    with path.open("ab") as writer:
        writer.write(b"b" * 1000)
    rest = [part async for part in reading]
    assert rest == [b"a" * announced.size_bytes]


async def test_a_range_behind_the_end_is_refused_and_one_at_the_end_is_empty(tmp_path: Path) -> None:
    (tmp_path / "a.ts").write_bytes(b"abc")
    _, pieces = await read_all(tmp_path, "a.ts", offset_bytes=3)
    assert pieces == []
    with pytest.raises(RequestFailure) as caught:
        await read_all(tmp_path, "a.ts", offset_bytes=4)
    assert caught.value.reason is Reason.RANGE_INVALID
    assert caught.value.metadata == {"size_bytes": "3"}


@pytest.mark.parametrize(
    "path",
    ["../secret", "..", ".", "", "/etc/passwd", "a/../../secret", "a//b", "a/", "nul\0", "./a"],
)
async def test_a_path_that_leads_out_is_refused(tmp_path: Path, path: str) -> None:
    (tmp_path / "secret").write_text("secret")
    folder = tmp_path / "artifacts"
    folder.mkdir()
    with pytest.raises(RequestFailure) as caught:
        await read_all(folder, path)
    assert caught.value.reason is Reason.INVALID_REQUEST


@pytest.mark.parametrize("path", ["link", "folder/secret", "inner", "pipe", "missing", "missing/a"])
async def test_links_folders_and_pipes_are_no_artifacts(tmp_path: Path, path: str) -> None:
    (tmp_path / "secret").write_text("secret")
    folder = tmp_path / "artifacts"
    (folder / "inner").mkdir(parents=True)
    (folder / "link").symlink_to(tmp_path / "secret")
    (folder / "folder").symlink_to(tmp_path)
    os.mkfifo(folder / "pipe")
    with pytest.raises(RequestFailure) as caught:
        await read_all(folder, path)
    assert caught.value.reason is Reason.ARTIFACT_NOT_FOUND


# Moves


def move_of(folder: Path, *, overwrite: bool = False) -> OutputMove:
    """Looks a folder up and makes the private folder in it, as a launch does."""
    part, final = folder / ".gpu-balancer-s1-1" / "part-0.mp4", folder / "out.mp4"
    planned = OutputMove(part_path=str(part), final_path=str(final), overwrite=overwrite)
    moves = look_up_folders([planned], [str(folder)])
    make_private_folders(moves)
    return moves[0]


def files_of(folder: Path) -> list[tuple[str, bytes]]:
    return [(entry.name, entry.read_bytes()) for entry in folder.iterdir()]


def test_a_complete_file_gets_its_name_and_loses_the_other_one(tmp_path: Path) -> None:
    move = move_of(tmp_path)
    Path(move.part_path).write_bytes(b"film")
    place_outputs([move], all_made=True)
    place_outputs([move], all_made=True)  # a successor of an agent that was killed here
    assert unfinished_parts([move]) == []
    forget_parts([move])
    place_outputs([move], all_made=True)
    assert files_of(tmp_path) == [("out.mp4", b"film")]


def test_a_file_that_came_meanwhile_is_not_overwritten(tmp_path: Path) -> None:
    move = move_of(tmp_path)
    Path(move.part_path).write_bytes(b"film")
    Path(move.final_path).write_bytes(b"somebody else's")
    with pytest.raises(OutputMoveError, match="another file") as caught:
        place_outputs([move], all_made=True)
    assert caught.value.taken
    forget_parts([move])
    assert Path(move.final_path).read_bytes() == b"somebody else's"
    assert Path(move.part_path).read_bytes() == b"film"


def test_a_file_is_overwritten_when_that_was_asked_for(tmp_path: Path) -> None:
    move = move_of(tmp_path, overwrite=True)
    Path(move.part_path).write_bytes(b"new")
    Path(move.final_path).write_bytes(b"old")
    place_outputs([move], all_made=True)
    place_outputs([move], all_made=True)
    forget_parts([move])
    assert files_of(tmp_path) == [("out.mp4", b"new")]


def test_where_there_are_no_hard_links_a_rename_does_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    move = move_of(tmp_path)
    Path(move.part_path).write_bytes(b"film")
    place_outputs([move], all_made=True)
    assert Path(move.final_path).read_bytes() == b"film"
    Path(move.part_path).write_bytes(b"second")
    with pytest.raises(OutputMoveError) as caught:
        place_outputs([move], all_made=True)
    assert caught.value.taken


def test_a_file_that_a_complete_program_did_not_make_is_a_failure(tmp_path: Path) -> None:
    move = move_of(tmp_path)
    with pytest.raises(OutputMoveError) as caught:
        place_outputs([move], all_made=True)
    assert not caught.value.taken
    place_outputs([move], all_made=False)
    remove_parts([move], only_empty=True)
    assert list(tmp_path.iterdir()) == []


def test_parts_without_content_are_removed_and_others_kept(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    empty, full = move_of(tmp_path / "a"), move_of(tmp_path / "b")
    for move, content in ((empty, b""), (full, b"half a film")):
        Path(move.part_path).write_bytes(content)
    remove_parts([empty, full], only_empty=True)
    assert list((tmp_path / "a").iterdir()) == []
    assert Path(full.part_path).read_bytes() == b"half a film"
    assert unfinished_parts([empty, full]) == [full.part_path]
    remove_parts([empty, full], only_empty=False)
    assert unfinished_parts([empty, full]) == []
    assert list((tmp_path / "b").iterdir()) == []
