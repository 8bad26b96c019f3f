"""Room that is kept for what must be written when the disk is full."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from gpu_balancer.runtime.disk_reserve import DiskReserve

_SIZE = 64 * 1024


def test_the_reserve_takes_real_room_and_gives_it_back_once(tmp_path: Path) -> None:
    reserve = DiskReserve(tmp_path / "reserve", size_bytes=_SIZE)
    reserve.take()
    assert (tmp_path / "reserve").stat().st_blocks * 512 >= _SIZE
    assert reserve.give_up()
    assert not (tmp_path / "reserve").exists()
    assert not reserve.give_up()
    reserve.take()
    assert (tmp_path / "reserve").exists()


def test_a_reserve_of_a_former_process_is_used_as_it_is(tmp_path: Path) -> None:
    DiskReserve(tmp_path / "reserve", size_bytes=_SIZE).take()
    inode = (tmp_path / "reserve").stat().st_ino
    successor = DiskReserve(tmp_path / "reserve", size_bytes=_SIZE)
    successor.take()
    assert (tmp_path / "reserve").stat().st_ino == inode
    assert successor.give_up()


@pytest.mark.parametrize("blocks", [0, 63])
def test_where_there_is_little_room_none_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, blocks: int) -> None:
    monkeypatch.setattr(os, "statvfs", lambda _: SimpleNamespace(f_bavail=blocks, f_frsize=4096))
    DiskReserve(tmp_path / "reserve", size_bytes=_SIZE).take()
    assert not (tmp_path / "reserve").exists()


def test_a_folder_that_is_not_there_has_no_reserve(tmp_path: Path) -> None:
    reserve = DiskReserve(tmp_path / "absent" / "reserve", size_bytes=_SIZE)
    reserve.take()
    assert not reserve.give_up()
