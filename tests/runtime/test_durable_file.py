"""A file is the old one or the new one, keeps its mode, and leaves nothing beside it."""

from __future__ import annotations

import errno
import os
import stat
from typing import TYPE_CHECKING

import pytest

from gpu_balancer.runtime import durable_file
from gpu_balancer.runtime.durable_file import flush_file, flush_folder, replace_durably, write_durably

if TYPE_CHECKING:
    from pathlib import Path


def test_a_file_is_written_whole_and_nothing_stays_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "status.json"
    write_durably(path, b"one")
    write_durably(path, b"two")
    assert path.read_bytes() == b"two"
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_is_private_unless_told_otherwise_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        write_durably(tmp_path / "private", b"")
        write_durably(tmp_path / "shared", b"", mode=0o644)
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "private").stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "shared").stat().st_mode) == 0o644


def test_a_full_disk_leaves_the_old_file_and_no_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "status.json"
    write_durably(path, b"old")

    def full(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(durable_file.os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_durably(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_data_is_flushed_before_the_rename_and_the_folder_after_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The order is what makes it durable: a rename that reaches the disk before the data leaves an empty file."""
    path = tmp_path / "status.json"
    seen: list[tuple[str, bool]] = []
    flush = os.fsync

    def recording(descriptor: int) -> None:
        kind = "folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file"
        seen.append((kind, path.exists()))
        flush(descriptor)

    monkeypatch.setattr(durable_file.os, "fsync", recording)
    write_durably(path, b"x")
    assert seen == [("file", False), ("folder", True)]


def test_replacing_keeps_the_mode_and_follows_a_link(tmp_path: Path) -> None:
    real = tmp_path / "real.toml"
    real.write_bytes(b"old")
    real.chmod(0o640)
    link = tmp_path / "link.toml"
    link.symlink_to(real)
    replace_durably(link, b"new")
    assert link.is_symlink()
    assert real.read_bytes() == b"new"
    assert stat.S_IMODE(real.stat().st_mode) == 0o640


def test_what_does_not_exist_cannot_be_replaced(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        replace_durably(tmp_path / "none", b"")


def test_a_missing_folder_cannot_be_flushed_or_written_into(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        flush_folder(tmp_path / "none")
    with pytest.raises(FileNotFoundError):
        write_durably(tmp_path / "none" / "file", b"")


def test_what_stands_where_a_file_should_is_neither_waited_for_nor_followed(tmp_path: Path) -> None:
    """A pipe without a writer would hold a thread for ever, and with it the end of a daemon."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to(tmp_path / "pipe")
    for name, error in (("pipe", errno.EINVAL), ("link", errno.ELOOP), ("missing", errno.ENOENT)):
        with pytest.raises(OSError) as refused:
            flush_file(tmp_path / name)
        assert refused.value.errno == error
    (tmp_path / "file").write_bytes(b"kept")
    flush_file(tmp_path / "file")
