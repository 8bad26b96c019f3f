"""Folders and users of displays: who may look in, and what is refused."""

from __future__ import annotations

import os
import stat
import subprocess
from pathlib import Path

import pytest
from display_rig import SLEEP, is_root

from agents.displays.display import Display
from agents.displays.display_folder import DisplayFolder, DisplayRecord, DisplayRecordUnreadableError
from agents.displays.run_folders import RunFolders, RunFolderUnusableError, agent_name, default_run_dir
from agents.displays.users import NoUserLeftError, UserIds

RECORD = DisplayRecord(
    backend="xvfb",
    work="/run/x",
    user_id=61234,
    display=Display(
        id="abc",
        name=":1007",
        authority="/run/x/authority",
        width=1280,
        height=720,
        lock="/var/lib/x/lock",
        work="/run/x",
        user_id=61234,
        sound_server=None,
        environment={"DISPLAY": ":1007"},
    ),
)


def test_a_record_is_read_as_it_was_written(tmp_path: Path) -> None:
    folder = DisplayFolder(path=tmp_path / "abc")
    folder.create(RECORD)
    assert folder.read_record() == RECORD
    assert stat.S_IMODE(folder.path.stat().st_mode) == 0o700


@pytest.mark.parametrize("content", [b"", b"{", b'{"version": 2, "backend": "xvfb"}', b"[]", b"\xff"])
def test_a_record_that_is_damaged_or_newer_is_refused(tmp_path: Path, content: bytes) -> None:
    folder = DisplayFolder(path=tmp_path / "abc")
    folder.create(RECORD)
    (folder.path / "record.json").write_bytes(content)
    with pytest.raises(DisplayRecordUnreadableError, match="Cannot read the record of display abc"):
        folder.read_record()


def test_a_line_that_was_cut_off_names_no_process(tmp_path: Path) -> None:
    folder = DisplayFolder(path=tmp_path / "abc")
    folder.create(RECORD)
    folder.add_process("x_server", 17)
    with folder.processes.open("a") as file:
        file.write("bro")
    assert folder.read_processes() == (("x_server", 17),)


def test_a_log_that_grew_large_is_emptied(tmp_path: Path) -> None:
    folder = DisplayFolder(path=tmp_path / "abc")
    folder.create(RECORD)
    folder.log.write_bytes(b"short\n")
    folder.bound_log()
    assert folder.log_tail() == "short"
    folder.log.write_bytes(bytes(2**21))
    folder.bound_log()
    assert folder.log.stat().st_size == 0


def test_root_keeps_work_folders_below_run() -> None:
    assert default_run_dir(environment={"XDG_RUNTIME_DIR": "/run/user/0"}, user_id=0) == Path("/run/gpu-balancer")


@pytest.mark.parametrize(
    ("environment", "folder"),
    [
        ({"XDG_RUNTIME_DIR": "/run/user/1000"}, "/run/user/1000/gpu-balancer"),
        ({}, "/tmp/gpu-balancer-1000"),
        ({"XDG_RUNTIME_DIR": "not/absolute"}, "/tmp/gpu-balancer-1000"),
        ({"XDG_RUNTIME_DIR": "/" + "deep" * 20}, "/tmp/gpu-balancer-1000"),
    ],
)
def test_others_keep_them_where_sockets_of_theirs_belong(environment: dict[str, str], folder: str) -> None:
    assert default_run_dir(environment=environment, user_id=1000) == Path(folder)


def test_a_path_that_is_too_long_for_sockets_is_refused_with_advice(tmp_path: Path) -> None:
    folders = RunFolders(run_dir=tmp_path / ("deep" * 20), agent="a")
    with pytest.raises(RunFolderUnusableError, match=r"too long. Try a shorter recordings.run_dir"):
        folders.prepare()


def test_a_link_that_somebody_put_in_the_way_is_refused(run_dir: Path) -> None:
    (run_dir / "elsewhere").mkdir()
    (run_dir / "r").symlink_to(run_dir / "elsewhere")
    with pytest.raises(RunFolderUnusableError, match="somebody else's"):
        RunFolders(run_dir=run_dir / "r", agent="a").prepare()


@pytest.mark.skipif(not is_root, reason="only root can give a folder to somebody else")
def test_a_folder_of_somebody_else_is_refused(run_dir: Path) -> None:
    (run_dir / "r").mkdir()
    os.chown(run_dir / "r", 61999, 61999)
    with pytest.raises(RunFolderUnusableError, match="somebody else's"):
        RunFolders(run_dir=run_dir / "r", agent="a").prepare()


def test_folders_can_be_walked_through_and_a_work_folder_is_private(run_dir: Path) -> None:
    folders = RunFolders(run_dir=run_dir / "r", agent="a")
    before = os.umask(0o077)
    try:
        folders.prepare()
    finally:
        os.umask(before)
    user_id = 61999 if is_root else None
    work = folders.create_work("abc", user_id)
    for passage in (folders.run_dir, folders.root):
        assert (stat.S_IMODE(passage.stat().st_mode), passage.stat().st_uid) == (0o711, os.geteuid())
    assert stat.S_IMODE(work.stat().st_mode) == 0o700
    assert work.stat().st_uid == (user_id or os.geteuid())
    folders.remove("abc")
    assert folders.found() == ()


def test_two_agents_have_two_names(tmp_path: Path) -> None:
    assert agent_name(tmp_path / "a") != agent_name(tmp_path / "b")
    assert agent_name(tmp_path / "a") == agent_name(tmp_path / "b" / ".." / "a")


def test_two_agents_never_take_the_same_user(tmp_path: Path) -> None:
    first = UserIds(folder=tmp_path, ids=range(4_000_000, 4_000_002), agent="first")
    second = UserIds(folder=tmp_path, ids=first.ids, agent="second")
    taken = first.take("one"), second.take("two")
    assert sorted(taken) == [4_000_000, 4_000_001]
    assert dict(first.taken()) == {taken[0]: "one"}
    with pytest.raises(NoUserLeftError, match=r"all ids from 4000000 to 4000001 are in use"):
        first.take("three")
    second.give_back(taken[1])
    assert first.take("three") == taken[1]


@pytest.mark.skipif(not is_root, reason="only root can be somebody else")
@pytest.mark.process
def test_a_user_with_a_process_is_not_taken(tmp_path: Path) -> None:
    users = UserIds(folder=tmp_path, ids=range(4_000_010, 4_000_012), agent="a")
    with subprocess.Popen([SLEEP, "1000"], user=4_000_010) as process:
        assert users.take("one") == 4_000_011
        process.kill()


def test_a_user_with_a_name_is_not_taken(tmp_path: Path) -> None:
    with pytest.raises(NoUserLeftError):
        UserIds(folder=tmp_path, ids=range(1), agent="a").take("one")
