"""Deliveries as an agent has them: restarts, deletion, spilling, several destinations."""

from __future__ import annotations

import asyncio
import errno
import os
import threading
from datetime import timedelta
from pathlib import Path

import pytest
from delivery_rig import (
    DELIVERED,
    FAILED,
    PENDING,
    QUICK,
    bucket_settings,
    delivering,
    files_below,
    folder_settings,
    write,
)

from agents.deliveries import spill as spilling
from agents.deliveries.destination import Parcel
from agents.deliveries.folder_destination import FolderDestination
from agents.deliveries.status import DeliveriesPending
from fakes.s3_server import Fault, S3Server
from gpu_balancer.runtime.recording_sections import DeliverySettings


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "state" / "deliveries"


def with_spill(folder: Path) -> DeliverySettings:
    return QUICK.model_copy(update={"spill_dir": str(folder)})


async def test_artifacts_are_copied_and_told(root: Path, artifacts: Path, archive: Path) -> None:
    write(artifacts, "a.mp4", b"film")
    write(artifacts, "thumbnails/00001.jpg", b"picture")
    async with delivering(root, [folder_settings(archive)]) as rig:
        await rig.deliveries.begin("s1", 1, artifacts, ["a.mp4", "thumbnails/00001.jpg"], ["archive"])
        await rig.until_settled()
        status = rig.status("a.mp4")
        assert (status.destination, status.state, status.try_count, status.message) == ("archive", DELIVERED, 1, "")
        assert status.location == str(archive / "s1/a.mp4")
        assert set(rig.changed) == {"s1"}
    assert files_below(archive) == {"s1/a.mp4": b"film", "s1/thumbnails/00001.jpg": b"picture"}


async def test_what_was_begun_is_gone_on_with_after_a_restart(root: Path, artifacts: Path, archive: Path) -> None:
    write(artifacts, "a.mp4", b"film")
    take_away(archive)
    async with delivering(root, [folder_settings(archive)]) as rig:
        await rig.deliveries.begin("s1", 1, artifacts, ["a.mp4"], ["archive"])
        await rig.until(lambda: rig.status("a.mp4").try_count > 1)
        tries = rig.status("a.mp4").try_count
    bring_back(archive)
    async with delivering(root, [folder_settings(archive)]) as rig:
        assert rig.status("a.mp4").state is PENDING
        assert "mount its disk" in rig.status("a.mp4").message
        await rig.until_settled()
        assert rig.status("a.mp4").state is DELIVERED
        assert rig.status("a.mp4").try_count >= tries
    async with delivering(root, [folder_settings(archive)]) as rig:
        assert rig.status("a.mp4").state is DELIVERED


async def test_a_mistake_in_bringing_a_copy_costs_no_other_and_is_made_up_for(
    root: Path, artifacts: Path, archive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(artifacts, "a.mp4", b"film")
    write(artifacts, "b.mp4", b"other")
    deliver, faults = FolderDestination.deliver, iter(range(3))

    def unforeseen(folder: FolderDestination, parcel: Parcel, called_off: threading.Event) -> str:
        if parcel.path == "a.mp4" and next(faults, None) is not None:
            raise KeyError("unforeseen")
        return deliver(folder, parcel, called_off)

    monkeypatch.setattr(FolderDestination, "deliver", unforeseen)
    async with delivering(root, [folder_settings(archive)]) as rig:
        await rig.deliveries.begin("s1", 1, artifacts, ["a.mp4", "b.mp4"], ["archive"])
        await rig.until(lambda: "KeyError" in rig.status("a.mp4").message)
        await rig.until_settled()
        assert (rig.status("a.mp4").state, rig.status("a.mp4").try_count) == (DELIVERED, 4)
        assert rig.status("b.mp4").state is DELIVERED


async def test_asking_again_does_nothing(root: Path, artifacts: Path, archive: Path) -> None:
    write(artifacts, "a.mp4", b"film")
    async with delivering(root, [folder_settings(archive)]) as rig:
        asked = [rig.deliveries.begin("s1", 1, artifacts, ["a.mp4"], ["archive"]) for _ in range(4)]
        await asyncio.gather(*asked)
        await rig.until_settled()
        assert rig.status("a.mp4").try_count == 1
        await rig.deliveries.begin("s1", 1, artifacts, ["a.mp4"], ["archive"])
        assert rig.status("a.mp4").state is DELIVERED


async def test_nothing_asked_is_nothing_noted(root: Path, artifacts: Path) -> None:
    async with delivering(root, []) as rig:
        await rig.deliveries.begin("s1", 1, artifacts, [], ["archive"])
        await rig.deliveries.begin("s1", 1, artifacts, ["a.mp4"], [])
        assert rig.deliveries.of_session("s1") == {}
        assert rig.deliveries.may_delete("s1")
        await rig.deliveries.release("s1")
    assert files_below(root) == {}


async def test_what_cannot_be_copied_is_told_and_keeps_nothing_else_from_it(
    root: Path, artifacts: Path, archive: Path, tmp_path: Path
) -> None:
    write(artifacts, "a.mp4", b"film")
    (artifacts / "link.mp4").symlink_to(write(tmp_path, "secret", b"secret"))
    async with delivering(root, [folder_settings(archive)]) as rig:
        await rig.deliveries.begin("s1", 1, artifacts, ["gone.mp4", "../../x", "link.mp4", "a.mp4"], ["archive"])
        await rig.until_settled()
        messages = {path: rig.status(path).message for path in ("gone.mp4", "../../x", "link.mp4")}
        assert "it is gone" in messages["gone.mp4"]
        assert "no path inside" in messages["../../x"]
        assert "links are not followed" in messages["link.mp4"]
        assert {rig.status(path).state for path in messages} == {FAILED}
        assert rig.status("a.mp4").state is DELIVERED
    assert files_below(archive) == {"s1/a.mp4": b"film"}


async def test_an_artifact_that_changed_or_vanished_meanwhile_is_given_up(
    root: Path, artifacts: Path, archive: Path
) -> None:
    changed, vanished = write(artifacts, "a.mp4", b"film"), write(artifacts, "b.mp4", b"film")
    take_away(archive)
    async with delivering(root, [folder_settings(archive)]) as rig:
        await rig.deliveries.begin("s1", 1, artifacts, ["a.mp4", "b.mp4"], ["archive"])
        await rig.until(lambda: rig.status("a.mp4").try_count > 0)
        changed.write_bytes(b"another film")
        vanished.unlink()
        bring_back(archive)
        await rig.until_settled()
        assert "was changed" in rig.status("a.mp4").message
        assert "it is gone" in rig.status("b.mp4").message
        assert {rig.status("a.mp4").state, rig.status("b.mp4").state} == {FAILED}
    assert files_below(archive) == {}


async def test_a_destination_that_is_in_the_settings_no_more_is_waited_for(
    root: Path, artifacts: Path, archive: Path
) -> None:
    write(artifacts, "a.mp4", b"film")
    async with delivering(root, []) as rig:
        await rig.deliveries.begin("s1", 1, artifacts, ["a.mp4"], ["archive"])
        await rig.until(lambda: "no destination 'archive'" in rig.status("a.mp4").message)
        assert rig.status("a.mp4").state is PENDING
    async with delivering(root, [folder_settings(archive)]) as rig:
        await rig.until_settled()
        assert rig.status("a.mp4").state is DELIVERED


async def test_of_several_attempts_the_newest_copy_of_an_artifact_is_told(
    root: Path, artifacts: Path, archive: Path, tmp_path: Path
) -> None:
    second = tmp_path / "state/sessions/s1/2/artifacts"
    write(artifacts, "a.mp4", b"first")
    write(artifacts, "log.txt", b"log")
    write(second, "a.mp4", b"second")
    async with delivering(root, [folder_settings(archive)]) as rig:
        await rig.deliveries.begin("s1", 1, artifacts, ["a.mp4", "log.txt"], ["archive"])
        await rig.until_settled()
        await rig.deliveries.begin("s1", 2, second, ["a.mp4"], ["archive"])
        await rig.until_settled()
        assert rig.status("a.mp4").location == str(archive / "s1/a.attempt-2.mp4")
        assert rig.status("log.txt").state is DELIVERED
        await rig.deliveries.release("s1")
        assert rig.deliveries.of_session("s1") == {}
    assert files_below(root) == {}


async def test_a_session_whose_copies_are_settled_may_be_deleted_and_is_forgotten(
    root: Path, artifacts: Path, archive: Path
) -> None:
    write(artifacts, "a.mp4", b"film")
    async with delivering(root, [folder_settings(archive)]) as rig:
        await rig.deliveries.begin("s1", 1, artifacts, ["a.mp4", "gone.mp4"], ["archive"])
        await rig.until_settled()
        assert rig.deliveries.may_delete("s1")
        await rig.deliveries.release("s1")
        await rig.deliveries.release("s1")
        assert rig.deliveries.of_session("s1") == {}
    assert files_below(root) == {}


async def test_without_a_spill_folder_a_session_stays_until_it_is_delivered(
    root: Path, artifacts: Path, archive: Path
) -> None:
    write(artifacts, "a.mp4", b"film")
    take_away(archive)
    async with delivering(root, [folder_settings(archive)]) as rig:
        await rig.deliveries.begin("s1", 1, artifacts, ["a.mp4"], ["archive"])
        await rig.until(lambda: rig.status("a.mp4").message != "")
        assert not rig.deliveries.may_delete("s1")
        with pytest.raises(DeliveriesPending, match=r"mount its disk.*spill_dir"):
            await rig.deliveries.release("s1")
        bring_back(archive)
        await rig.until_settled()
        await rig.deliveries.release("s1")


@pytest.mark.process
async def test_a_copy_that_is_well_under_way_is_waited_for_not_spilled(
    root: Path, artifacts: Path, s3: S3Server, credentials: Path, tmp_path: Path
) -> None:
    write(artifacts, "a.mp4", b"film")
    s3.fault = lambda _: Fault.HELD
    async with delivering(root, [bucket_settings(s3, credentials)], settings=with_spill(tmp_path / "spill")) as rig:
        await rig.deliveries.begin("s1", 1, artifacts, ["a.mp4"], ["cloud"])
        await s3.held.wait()
        with pytest.raises(DeliveriesPending, match="Try again in a while"):
            await rig.deliveries.release("s1")
    assert not (tmp_path / "spill").exists()


@pytest.mark.parametrize("across", [False, True], ids=["by link", "across file systems"])
async def test_what_waits_for_a_destination_that_is_away_is_spilled_and_delivered_when_it_is_back(
    root: Path, artifacts: Path, archive: Path, tmp_path: Path, other_disk: Path, across: bool
) -> None:
    spill_dir = (other_disk if across else tmp_path) / "spill"
    place = write(artifacts, "hls/a.ts", b"film")
    write(artifacts, "b.mp4", b"more")
    inode = place.stat().st_ino
    take_away(archive)
    async with delivering(root, [folder_settings(archive)], settings=with_spill(spill_dir)) as rig:
        await rig.deliveries.begin("s1", 1, artifacts, ["hls/a.ts", "b.mp4"], ["archive"])
        await rig.until(lambda: rig.status("b.mp4").message != "")
        await rig.deliveries.release("s1")
        assert rig.deliveries.may_delete("s1")
        assert files_below(spill_dir) == {"s1/1/hls/a.ts": b"film", "s1/1/b.mp4": b"more"}
        assert ((spill_dir / "s1/1/hls/a.ts").stat().st_ino == inode) is not across
    remove_session(artifacts)
    async with delivering(root, [folder_settings(archive)], settings=with_spill(spill_dir)) as rig:
        await rig.until(lambda: rig.status("b.mp4").try_count > 2)
        bring_back(archive)
        await rig.until(lambda: rig.deliveries.of_session("s1") == {} and is_empty(root))
    assert files_below(archive) == {"s1/hls/a.ts": b"film", "s1/b.mp4": b"more"}
    assert list(spill_dir.iterdir()) == []


async def test_only_what_waits_is_spilled(root: Path, artifacts: Path, archive: Path, tmp_path: Path) -> None:
    write(artifacts, "a.mp4", b"film")
    away = tmp_path / "away"
    settings = with_spill(tmp_path / "spill")
    destinations = [folder_settings(archive), folder_settings(away, "away")]
    async with delivering(root, destinations, settings=settings) as rig:
        await rig.deliveries.begin("s1", 1, artifacts, ["a.mp4"], ["archive"])
        await rig.deliveries.begin("s2", 1, artifacts, ["a.mp4"], ["archive", "away"])
        await rig.until(lambda: rig.status("a.mp4", session="s2").state is DELIVERED)
        await rig.until(lambda: rig.status("a.mp4", session="s2", index=1).message != "")
        await rig.until_settled("s1")
        await rig.deliveries.release("s1")
        await rig.deliveries.release("s2")
        assert files_below(tmp_path / "spill") == {"s2/1/a.mp4": b"film"}
        bring_back(away)
        await rig.until(lambda: rig.deliveries.of_session("s2") == {})
    assert files_below(away) == {"s2/a.mp4": b"film"}


async def test_a_full_spill_folder_keeps_the_session_and_is_told(
    root: Path, artifacts: Path, archive: Path, other_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_really = os.write

    def full(descriptor: int, data: bytes) -> int:
        if other_disk in Path(f"/proc/self/fd/{descriptor}").readlink().parents:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write_really(descriptor, data)

    write(artifacts, "a.mp4", b"film")
    take_away(archive)
    async with delivering(root, [folder_settings(archive)], settings=with_spill(other_disk / "spill")) as rig:
        await rig.deliveries.begin("s1", 1, artifacts, ["a.mp4"], ["archive"])
        await rig.until(lambda: rig.status("a.mp4").message != "")
        monkeypatch.setattr(os, "write", full)
        with pytest.raises(DeliveriesPending, match=r"No space left on device\. Try to make room"):
            await rig.deliveries.release("s1")
        assert not rig.deliveries.may_delete("s1")
        assert files_below(other_disk) == {}


async def test_spilling_that_was_interrupted_is_done_again(artifacts: Path, tmp_path: Path) -> None:
    write(artifacts, "a.mp4", b"film")
    write(tmp_path, "spill/s1/1/a.mp4", b"fi")
    spilled = spilling.spill(spilling.look_at(artifacts, "a.mp4"), tmp_path / "spill", "s1", 1)
    assert files_below(tmp_path / "spill") == {"s1/1/a.mp4": b"film"}
    spilling.remove_spilled(spilled)
    assert list((tmp_path / "spill").iterdir()) == []


async def test_what_is_given_up_stays_in_the_spill_folder(
    root: Path, artifacts: Path, archive: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write(artifacts, "a.mp4", b"film")
    take_away(archive)
    settings = with_spill(tmp_path / "spill")
    async with delivering(root, [folder_settings(archive)], settings=settings) as rig:
        await rig.deliveries.begin("s1", 1, artifacts, ["a.mp4"], ["archive"])
        await rig.until(lambda: rig.status("a.mp4").message != "")
        await rig.deliveries.release("s1")
    remove_session(artifacts)
    impatient = settings.model_copy(update={"give_up_after_h": timedelta(microseconds=1) / timedelta(hours=1)})
    async with delivering(root, [folder_settings(archive)], settings=impatient) as rig:
        await rig.until(lambda: rig.deliveries.of_session("s1") == {})
        await rig.until(lambda: is_empty(root))
    assert files_below(tmp_path / "spill") == {"s1/1/a.mp4": b"film"}
    assert f"is kept as {tmp_path}/spill/s1/1/a.mp4" in caplog.text


async def test_a_torn_line_of_the_journal_costs_a_second_look_only(root: Path, artifacts: Path, archive: Path) -> None:
    write(artifacts, "a.mp4", b"film")
    async with delivering(root, [folder_settings(archive)]) as rig:
        await rig.deliveries.begin("s1", 1, artifacts, ["a.mp4"], ["archive"])
        await rig.until_settled()
    [(name, content)] = files_below(root).items()
    write(root, name, content[:-10])
    async with delivering(root, [folder_settings(archive)]) as rig:
        assert rig.status("a.mp4").state is PENDING
        await rig.until_settled()
        assert rig.status("a.mp4").location == str(archive / "s1/a.mp4")
    async with delivering(root, [folder_settings(archive)]) as rig:
        assert rig.status("a.mp4").state is DELIVERED
    assert files_below(archive) == {"s1/a.mp4": b"film"}


@pytest.mark.parametrize("content", [b"", b'{"version": 2}', b"\xff\xfe"])
async def test_a_journal_that_cannot_be_read_is_left_and_told(
    root: Path, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    write(root, "s1.1.jsonl", content)
    write(root, ".s1.1.jsonl.abc.part", b"")
    async with delivering(root, []) as rig:
        assert rig.deliveries.of_session("s1") == {}
    assert files_below(root) == {"s1.1.jsonl": content}
    assert "It is left as it is" in caplog.text


async def test_a_session_whose_folder_somebody_removed_is_forgotten_when_it_is_settled(
    root: Path, artifacts: Path, archive: Path
) -> None:
    write(artifacts, "a.mp4", b"film")
    async with delivering(root, [folder_settings(archive)]) as rig:
        await rig.deliveries.begin("s1", 1, artifacts, ["a.mp4"], ["archive"])
        await rig.until_settled()
    remove_session(artifacts)
    async with delivering(root, [folder_settings(archive)]) as rig:
        assert rig.deliveries.of_session("s1") == {}
    assert files_below(root) == {}


@pytest.mark.process
async def test_a_store_that_was_away_gets_what_was_spilled(
    root: Path, artifacts: Path, s3: S3Server, credentials: Path, tmp_path: Path
) -> None:
    write(artifacts, "a.mp4", b"film")
    await s3.close()
    async with delivering(root, [bucket_settings(s3, credentials)], settings=with_spill(tmp_path / "spill")) as rig:
        await rig.deliveries.begin("s1", 1, artifacts, ["a.mp4"], ["cloud"])
        await rig.until(lambda: rig.status("a.mp4").message != "")
        await rig.deliveries.release("s1")
        remove_session(artifacts)
        await s3.open()
        await rig.until(lambda: rig.deliveries.of_session("s1") == {})
    assert s3.objects["recordings"]["s1/a.mp4"].body == b"film"
    assert list((tmp_path / "spill").iterdir()) == []


def is_empty(folder: Path) -> bool:
    return not any(folder.iterdir())


def take_away(folder: Path) -> None:
    folder.rmdir()


def bring_back(folder: Path) -> None:
    folder.mkdir()


def remove_session(artifacts: Path) -> None:
    for path in sorted(artifacts.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    artifacts.rmdir()
