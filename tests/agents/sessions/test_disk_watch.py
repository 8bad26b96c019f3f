"""Who is refused and who is stopped when the disk of an agent fills up."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from agents.sessions.attempt import AttemptKey, StopCause
from agents.sessions.disk_watch import DiskWatch, LiveSession, least_important
from gpu_balancer.runtime.disk_reserve import DiskReserve
from gpu_balancer.runtime.disk_room import DiskRoom, RoomBounds, RoomLevel
from gpu_balancer.runtime.failures import Reason, RequestFailure

MIB = 1 << 20
BOUNDS = RoomBounds(low_bytes=512 * MIB, least_bytes=128 * MIB)
NOON = datetime(2030, 1, 1, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("free_mib", "size_mib", "level"),
    [
        (512, 100_000, RoomLevel.PLENTY),
        (511, 100_000, RoomLevel.LOW),
        (128, 100_000, RoomLevel.LOW),
        (127, 100_000, RoomLevel.LEAST),
        (20, 24, RoomLevel.PLENTY),
        (1, 24, RoomLevel.LOW),
        (0, 24, RoomLevel.LEAST),
    ],
)
def test_room_is_little_by_the_bounds_or_by_the_size_of_a_small_disk(
    free_mib: int, size_mib: int, level: RoomLevel
) -> None:
    assert BOUNDS.level(DiskRoom(free_bytes=free_mib * MIB, size_bytes=size_mib * MIB)) is level


@dataclass(slots=True)
class FakeRunner:
    """Notes why it was stopped."""

    causes: list[StopCause] = field(default_factory=list)

    async def stop(self, cause: StopCause, *, discard_outputs: bool = False) -> None:
        self.causes.append(cause)

    def pace(self, speed_limit: float | None) -> None:
        raise AssertionError("nobody is paced for want of room")

    async def watch(self, shim: int | None = None) -> None:
        raise AssertionError("watched already")


def session(name: str, *, urgent: bool, minutes: int, leaves_files: bool = True) -> LiveSession:
    """A session that began so many minutes after noon."""
    return LiveSession(
        key=AttemptKey(session=name, attempt=1),
        runner=FakeRunner(),
        urgent=urgent,
        begin_time=NOON + timedelta(minutes=minutes),
        leaves_files=leaves_files,
        stopping=False,
    )


OLD_BATCH, NEW_BATCH = session("old-batch", urgent=False, minutes=1), session("new-batch", urgent=False, minutes=3)
OLD_LIVE, NEW_LIVE = session("old-live", urgent=True, minutes=2), session("new-live", urgent=True, minutes=4)
ELSEWHERE = session("elsewhere", urgent=False, minutes=9, leaves_files=False)


def test_batch_goes_before_live_and_the_youngest_first() -> None:
    left = [OLD_LIVE, NEW_BATCH, ELSEWHERE, NEW_LIVE, OLD_BATCH]
    order = []
    while (chosen := least_important(left)) is not None:
        order.append(chosen)
        left.remove(chosen)
    assert order == [NEW_BATCH, OLD_BATCH, NEW_LIVE, OLD_LIVE]
    assert left == [ELSEWHERE], "its end would give this disk nothing"


class House:
    """An agent's disk, filled by hand."""

    def __init__(self, tmp_path: Path) -> None:
        self.free_mib = 5_000
        self.live = [session("a", urgent=True, minutes=1), session("b", urgent=False, minutes=2)]
        self.reserve = DiskReserve(tmp_path / "reserve", size_bytes=64 * 1024)
        self.watch = DiskWatch(
            tmp_path, BOUNDS, reserve=self.reserve, sessions=lambda: self.live, measure=lambda _: self.room
        )

    @property
    def room(self) -> DiskRoom:
        return DiskRoom(free_bytes=self.free_mib * MIB, size_bytes=100_000 * MIB)

    async def look_at(self, free_mib: int) -> list[str]:
        """Looks at a disk with so much room; gives the sessions that were told to stop by now."""
        self.free_mib = free_mib
        await self.watch.look()
        return [one.key.session for one in self.live if isinstance(one.runner, FakeRunner) and one.runner.causes]

    def end(self, name: str) -> None:
        self.live = [one for one in self.live if one.key.session != name]


async def test_one_session_is_stopped_and_the_next_only_if_the_disk_goes_on_filling(tmp_path: Path) -> None:
    house = House(tmp_path)
    assert await house.look_at(128) == []
    assert await house.look_at(100) == ["b"]
    assert await house.look_at(60) == ["b"], "it is still completing its outputs"
    house.end("b")
    assert await house.look_at(60) == []
    assert await house.look_at(50) == [], "as good as nothing has gone since"
    assert await house.look_at(43) == ["a"]
    assert [one.runner.causes for one in house.live if isinstance(one.runner, FakeRunner)] == [[StopCause.DISK_LOW]]


async def test_room_that_came_back_ends_the_matter(tmp_path: Path) -> None:
    house = House(tmp_path)
    await house.look_at(100)
    house.end("b")
    assert await house.look_at(3_000) == []
    assert await house.look_at(127) == ["a"], "a new want of room"


async def test_little_room_refuses_what_leaves_files_and_hardly_any_refuses_everything(tmp_path: Path) -> None:
    house, key = House(tmp_path), AttemptKey(session="s1", attempt=1)
    await house.watch.require_room(key, leaves_files=True)
    house.free_mib = 500
    await house.watch.require_room(key, leaves_files=False)
    with pytest.raises(RequestFailure) as caught:
        await house.watch.require_room(key, leaves_files=True)
    assert caught.value.reason is Reason.DISK_LOW
    assert caught.value.retry_after is not None
    assert "500 MiB are left" in caught.value.message
    house.free_mib = 100
    with pytest.raises(RequestFailure):
        await house.watch.require_room(key, leaves_files=False)


async def test_the_reserve_is_taken_when_there_is_plenty_and_not_when_there_is_little(tmp_path: Path) -> None:
    house = House(tmp_path)
    await house.look_at(400)
    assert not (tmp_path / "reserve").exists()
    await house.look_at(4_000)
    assert (tmp_path / "reserve").exists()
