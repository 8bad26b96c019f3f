"""When copies are tried, in virtual time: pauses, bounds, and who waits for whom."""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

from delivery_rig import DELIVERED, FAILED, PENDING, write

from agents.deliveries.consignment import Copy
from agents.deliveries.copy_book import CopyBook
from agents.deliveries.courier import Courier
from agents.deliveries.destination import Parcel
from agents.deliveries.journal import FileEntry, Header, Journal
from agents.deliveries.status import DeliveryFailure, DeliveryState
from fakes.virtual_time import VirtualClock
from gpu_balancer.runtime.recording_sections import DeliverySettings
from gpu_balancer.runtime.task_guard import TaskGuard

SETTINGS = DeliverySettings(first_pause_s=2, longest_pause_s=300, give_up_after_h=24)


class ScriptedDestination:
    """Does with each parcel what its script says; notes when it was asked."""

    def __init__(self, script: Callable[[str], None] = lambda _: None) -> None:
        self.script = script
        self.loop = asyncio.get_running_loop()
        self.tries: list[tuple[float, str]] = []
        self.at_once = 0
        self.most_at_once = 0
        self.rests = 0
        self._lock = threading.Lock()

    def deliver(self, parcel: Parcel, called_off: threading.Event) -> str:
        with self._lock:
            self.tries.append((self.loop.time(), parcel.path))
            self.at_once += 1
            self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            self.script(parcel.path)
        finally:
            with self._lock:
                self.at_once -= 1
        return f"there/{parcel.path}"

    def rest(self) -> None:
        self.rests += 1


def fail(permanent: bool = False) -> None:
    raise DeliveryFailure("It is away.", permanent=permanent)


class House:
    """A book with couriers."""

    def __init__(self, root: Path, tasks: TaskGuard) -> None:
        self.clock = VirtualClock()
        self.tasks = tasks
        self.root = root
        self.news = asyncio.Event()
        self.book = CopyBook(
            Journal(root / "journal"),
            clock=self.clock,
            give_up_after=timedelta(hours=SETTINGS.give_up_after_h),
            on_changed=lambda _: self.news.set(),
        )

    def courier(self, name: str, destination: ScriptedDestination) -> Courier:
        courier = Courier(
            name, destination, self.book, settings=SETTINGS, tasks=self.tasks, clock=self.clock, jitter=lambda: 1.0
        )
        courier.start()
        return courier

    async def consign(self, *paths: str, to: str = "archive", session: str = "s1") -> list[Copy]:
        for path in paths:
            write(self.root / "artifacts", path, b"")
        header = Header(
            session=session,
            attempt=1,
            folder=str(self.root / "artifacts"),
            begin_time=self.clock.now(),
            destinations=(to,),
            files=tuple(FileEntry(path=path, size_bytes=0, modified_ns=0) for path in paths),
        )
        await self.book.begin(header, [])
        consignment = self.book.of_attempt(session, 1)
        assert consignment
        return consignment.copies()

    def state(self, copy: Copy) -> DeliveryState:
        consignment = self.book.of_attempt(copy.session, 1)
        assert consignment
        return consignment.status(copy).state

    def message(self, copy: Copy) -> str:
        consignment = self.book.of_attempt(copy.session, 1)
        assert consignment
        return consignment.status(copy).message

    async def until(self, fact: Callable[[], bool]) -> None:
        while not fact():
            self.news.clear()
            await self.news.wait()


async def test_pauses_double_up_to_the_longest(tmp_path: Path) -> None:
    async with TaskGuard("test") as tasks:
        house = House(tmp_path, tasks)
        destination = ScriptedDestination(lambda _: fail())
        [copy] = await house.consign("a.mp4")
        house.courier("archive", destination).take(copy)
        await house.until(lambda: len(destination.tries) == 12)
    times = [time for time, _ in destination.tries]
    pauses = [round(later - earlier) for earlier, later in itertools.pairwise(times)]
    assert pauses == [2, 4, 8, 16, 32, 64, 128, 256, 300, 300, 300]


async def test_what_only_an_operator_can_mend_is_tried_seldom_from_the_start(tmp_path: Path) -> None:
    async with TaskGuard("test") as tasks:
        house = House(tmp_path, tasks)
        destination = ScriptedDestination(lambda _: fail(permanent=True))
        [copy] = await house.consign("a.mp4")
        house.courier("archive", destination).take(copy)
        await house.until(lambda: len(destination.tries) == 4)
    assert [round(time) for time, _ in destination.tries] == [0, 300, 600, 900]


async def test_a_copy_is_given_up_in_the_end_and_says_why(tmp_path: Path) -> None:
    async with TaskGuard("test") as tasks:
        house = House(tmp_path, tasks)
        destination = ScriptedDestination(lambda _: fail())
        copies = await house.consign("a.mp4", "b.mp4", "c.mp4")
        courier = house.courier("archive", destination)
        for copy in copies:
            courier.take(copy)
        await house.until(lambda: all(house.state(copy) is FAILED for copy in copies))
        assert 24 * 3600 <= house.clock.monotonic_s() <= 24 * 3600 + 600
        assert all(house.message(copy) == "It is away. Given up after 24 h; the artifact is kept." for copy in copies)


async def test_a_wall_clock_that_jumps_gives_nothing_up(tmp_path: Path) -> None:
    async with TaskGuard("test") as tasks:
        house = House(tmp_path, tasks)
        destination = ScriptedDestination(lambda _: fail())
        [copy] = await house.consign("a.mp4")
        house.clock.wall_offset = timedelta(days=30)
        house.courier("archive", destination).take(copy)
        await house.until(lambda: len(destination.tries) == 10)
        assert house.state(copy) is PENDING


async def test_a_destination_that_is_away_is_asked_by_one_copy_only(tmp_path: Path) -> None:
    away = [True]
    async with TaskGuard("test") as tasks:
        house = House(tmp_path, tasks)
        destination = ScriptedDestination(lambda _: fail() if away[0] else None)
        copies = await house.consign(*(f"{number:04}.ts" for number in range(500)))
        courier = house.courier("archive", destination)
        for copy in copies:
            courier.take(copy)
        await house.until(lambda: house.clock.monotonic_s() > 3600)
        assert len(destination.tries) < 25
        assert courier.is_away
        away[0] = False
        await house.until(lambda: all(house.state(copy) is DELIVERED for copy in copies))
        assert not courier.is_away


async def test_at_most_two_copies_are_under_way_to_a_destination(tmp_path: Path) -> None:
    both = threading.Barrier(2)
    async with TaskGuard("test") as tasks:
        house = House(tmp_path, tasks)
        destination = ScriptedDestination(lambda _: both.wait(30) and None)
        copies = await house.consign(*(f"{number}.ts" for number in range(10)))
        courier = house.courier("archive", destination)
        for copy in copies:
            courier.take(copy)
        await house.until(lambda: all(house.state(copy) is DELIVERED for copy in copies))
    assert destination.most_at_once == 2
    assert destination.rests > 0


async def test_a_destination_that_hangs_holds_up_no_other(tmp_path: Path) -> None:
    released = threading.Event()
    async with TaskGuard("test") as tasks:
        house = House(tmp_path, tasks)
        hanging = ScriptedDestination(lambda _: released.wait(30) and None)
        working = ScriptedDestination()
        slow, quick = house.courier("slow", hanging), house.courier("quick", working)
        for copy in await house.consign("a.ts", "b.ts", "c.ts", to="slow"):
            slow.take(copy)
        copies = await house.consign("a.ts", "b.ts", "c.ts", to="quick", session="s2")
        for copy in copies:
            quick.take(copy)
        await house.until(lambda: all(house.state(copy) is DELIVERED for copy in copies))
        assert len(hanging.tries) == 2
        released.set()


async def test_a_copy_that_is_never_taken_does_not_block_the_others(tmp_path: Path) -> None:
    async with TaskGuard("test") as tasks:
        house = House(tmp_path, tasks)
        destination = ScriptedDestination(lambda path: fail(permanent=True) if path == "0.ts" else None)
        copies = await house.consign(*(f"{number}.ts" for number in range(50)))
        courier = house.courier("archive", destination)
        for copy in copies:
            courier.take(copy)
        await house.until(lambda: all(house.state(copy) is DELIVERED for copy in copies[1:]))
        assert house.state(copies[0]) is PENDING
        assert house.clock.monotonic_s() < 10
