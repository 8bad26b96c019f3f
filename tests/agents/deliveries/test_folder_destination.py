"""Copies in a folder."""

from __future__ import annotations

import errno
import os
import threading
from pathlib import Path

import pytest
from delivery_rig import files_below, parcel, write

from agents.deliveries import verified_copy
from agents.deliveries.folder_destination import FolderDestination
from agents.deliveries.status import CalledOff, DeliveryFailure, SourceLost

GOING = threading.Event()


def deliver(archive: Path, artifacts: Path, path: str = "a.mp4", *, attempt: int = 1) -> str:
    return FolderDestination(archive).deliver(parcel(artifacts, path, attempt=attempt), GOING)


@pytest.mark.parametrize("size", [0, 1, 3 * 1024 * 1024 + 1])
def test_a_copy_has_the_bytes_and_the_name(archive: Path, artifacts: Path, size: int) -> None:
    content = os.urandom(size)
    write(artifacts, "hls/720p/a.ts", content)
    assert deliver(archive, artifacts, "hls/720p/a.ts") == str(archive / "s1/hls/720p/a.ts")
    assert files_below(archive) == {"s1/hls/720p/a.ts": content}


def test_a_copy_goes_to_another_file_system(other_disk: Path, artifacts: Path) -> None:
    write(artifacts, "a.mp4", b"film")
    assert artifacts.stat().st_dev != other_disk.stat().st_dev
    deliver(other_disk, artifacts)
    assert files_below(other_disk) == {"s1/a.mp4": b"film"}


def test_a_copy_that_is_there_is_found(archive: Path, artifacts: Path) -> None:
    write(artifacts, "a.mp4", b"film")
    first = deliver(archive, artifacts)
    inode = Path(first).stat().st_ino
    assert deliver(archive, artifacts) == first
    assert Path(first).stat().st_ino == inode


def test_other_bytes_are_never_written_over(archive: Path, artifacts: Path) -> None:
    write(archive, "s1/a.mp4", b"somebody's")
    write(artifacts, "a.mp4", b"film")
    assert deliver(archive, artifacts, attempt=2) == str(archive / "s1/a.attempt-2.mp4")
    assert deliver(archive, artifacts, attempt=2) == str(archive / "s1/a.attempt-2.mp4")
    assert files_below(archive) == {"s1/a.mp4": b"somebody's", "s1/a.attempt-2.mp4": b"film"}


def test_a_name_that_is_taken_while_a_copy_is_written_is_not_written_over(
    archive: Path, artifacts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(artifacts, "a.mp4", b"film")
    (archive / "s1").mkdir()
    exists = verified_copy.exists

    def too_early(name: str, folder: int) -> bool:
        answer = exists(name, folder)
        if name == "a.mp4":
            write(archive, "s1/a.mp4", b"somebody's")
        return answer

    monkeypatch.setattr(verified_copy, "exists", too_early)
    assert deliver(archive, artifacts) == str(archive / "s1/a.attempt-1.mp4")
    assert files_below(archive) == {"s1/a.mp4": b"somebody's", "s1/a.attempt-1.mp4": b"film"}


def test_when_both_names_are_taken_only_an_operator_can_help(archive: Path, artifacts: Path) -> None:
    write(archive, "s1/a.mp4", b"1")
    (archive / "s1/a.attempt-1.mp4").mkdir()
    write(artifacts, "a.mp4", b"film")
    with pytest.raises(DeliveryFailure, match="taken by other files") as failed:
        deliver(archive, artifacts)
    assert failed.value.permanent


def test_a_link_in_the_way_is_not_followed(archive: Path, artifacts: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (archive / "s1").symlink_to(outside)
    write(artifacts, "a.mp4", b"film")
    with pytest.raises(DeliveryFailure):
        deliver(archive, artifacts)
    assert files_below(outside) == {}
    (archive / "s1").unlink()
    write(archive, "s1/other", b"")
    (archive / "s1/a.mp4").symlink_to(artifacts / "a.mp4")
    assert deliver(archive, artifacts) == str(archive / "s1/a.attempt-1.mp4")


def test_what_a_killed_agent_left_unfinished_is_replaced(archive: Path, artifacts: Path) -> None:
    write(artifacts, "a.mp4", b"film")
    write(archive, f"s1/{verified_copy.unfinished_name('a.mp4', 1)}", b"fi")
    deliver(archive, artifacts)
    assert files_below(archive) == {"s1/a.mp4": b"film"}


def test_a_missing_folder_is_not_made_because_a_disk_may_not_be_mounted(tmp_path: Path, artifacts: Path) -> None:
    write(artifacts, "a.mp4", b"film")
    with pytest.raises(DeliveryFailure, match="mount its disk") as failed:
        deliver(tmp_path / "nowhere", artifacts)
    assert failed.value.permanent
    assert not (tmp_path / "nowhere").exists()


def test_a_full_disk_is_told_and_nothing_is_left(
    archive: Path, artifacts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int, data: bytes) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    write(artifacts, "a.mp4", b"film")
    monkeypatch.setattr(verified_copy.os, "write", full)
    with pytest.raises(DeliveryFailure, match=r"No space left on device\. Try to make room") as failed:
        deliver(archive, artifacts)
    assert not failed.value.permanent
    assert files_below(archive) == {}


def test_a_disk_that_keeps_other_bytes_is_found_out(
    archive: Path, artifacts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.write
    write(artifacts, "a.mp4", b"film")
    monkeypatch.setattr(verified_copy.os, "write", lambda descriptor, data: real(descriptor, b"F" + bytes(data[1:])))
    with pytest.raises(DeliveryFailure, match="reads back differently"):
        deliver(archive, artifacts)
    assert files_below(archive) == {}


def test_an_artifact_that_changes_while_it_is_copied_is_not_delivered(
    archive: Path, artifacts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.write
    place = write(artifacts, "a.mp4", b"film")

    def write_and_change(descriptor: int, data: bytes) -> int:
        os.utime(place, ns=(1, 1))
        return real(descriptor, data)

    monkeypatch.setattr(verified_copy.os, "write", write_and_change)
    with pytest.raises(SourceLost, match="was changed"):
        deliver(archive, artifacts)
    assert files_below(archive) == {}


def test_where_there_are_no_hard_links_copies_are_renamed(
    archive: Path, artifacts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*names: object, **folders: object) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    write(artifacts, "a.mp4", b"film")
    monkeypatch.setattr(verified_copy.os, "link", refused)
    deliver(archive, artifacts)
    assert files_below(archive) == {"s1/a.mp4": b"film"}


def test_a_copy_that_is_called_off_leaves_nothing(archive: Path, artifacts: Path) -> None:
    write(artifacts, "a.mp4", b"film")
    called_off = threading.Event()
    called_off.set()
    with pytest.raises(CalledOff):
        FolderDestination(archive).deliver(parcel(artifacts, "a.mp4"), called_off)
    assert files_below(archive) == {}
