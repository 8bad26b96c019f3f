"""What is recorded: a display with a page or an application on it, from its making to its end.

A stage that an earlier agent set is taken over as it stands: its processes run on, and the page itself has kept what it
signalled meanwhile.
"""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from agents.browsers.kiosk_window import NARROWEST_WINDOW
from agents.browsers.page import PageEnd, PageFigures
from agents.displays.display import DisplayUnavailable
from agents.displays.screens import await_window
from agents.displays.x_client import XUnreachableError
from agents.lock_holders import open_holder
from agents.pipelines.recording import ApplicationSource, GateKind, PageSource
from agents.pipelines.recording_report import RecordingPhase
from agents.recordings.failures import BROWSER_LOST, DISPLAY_LOST, PAGE_CRASHED
from agents.recordings.state import RecordingEnd

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from agents.browsers.page import PageDriver
    from agents.displays.display import Display
    from agents.pipelines.recording import RecordingJob
    from agents.sessions.attempt import Failure
    from gpu_balancer.runtime.clock import Clock

_POLLED_EVERY_S = 0.5
_SETTLED_AFTER_S = 0.2
"""A browser that loses its display closes its pages first, as if they had closed themselves."""

_PAGE_FAILURES = {PageEnd.CRASHED: PAGE_CRASHED, PageEnd.BROWSER_GONE: BROWSER_LOST}
END_SIGNAL = "END_SIGNAL"
"""Cause of an end: the page has given its end signal."""
_PAGE_CAUSES = {PageEnd.SIGNAL: END_SIGNAL, PageEnd.CLOSED: "PAGE_CLOSED"}


class StageFault(Exception):
    """A stage cannot be set: the application did not show itself, or ended at once."""

    def __init__(self, reason: str, message: str) -> None:
        """Makes the exception from a stable reason and a message for people."""
        super().__init__(message)
        self.reason = reason


class Displays(Protocol):
    """What a stage needs of the pool of displays; `DisplayPool` says what each does."""

    async def acquire(self, *, width: int, height: int, browser: bool, sound: bool, timeout: timedelta) -> Display:
        """Lends a display."""
        ...

    def find(self, display_id: str) -> Display | None:
        """Finds a display that is lent."""
        ...

    def alive(self, display_id: str) -> bool:
        """Tells whether its screen can still be recorded, and its browser runs if it has one."""
        ...

    def screen_alive(self, display_id: str) -> bool:
        """Tells whether its screen can still be recorded."""
        ...

    async def spawn(self, display: Display, argv: Sequence[str], *, name: str) -> int:
        """Starts a program on a display; returns its process id."""
        ...

    async def release(self, display_id: str) -> None:
        """Ends a display with everything on it."""
        ...


class Pages(Protocol):
    """What a stage needs of the browsers."""

    async def page(self, display: Display, job: RecordingJob, *, log: Path, opened: bool) -> PageDriver:
        """Gives who drives the page of a display.

        Args:
            display: The display.
            job: What is to be recorded of it.
            log: Where the page's console is written.
            opened: Whether an earlier agent has opened the page already.
        """
        ...

    async def rendering(self, display: Display) -> str | None:
        """Tells what renders WebGL on a display. None: not known."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class StageSettings:
    """How stages are set."""

    acquire_timeout: timedelta
    applications: Mapping[str, Sequence[str]]
    """Commands of the operator's applications, by name."""


class Stage:
    """The stage of one recording."""

    def __init__(
        self, job: RecordingJob, displays: Displays, pages: Pages, *, log: Path, clock: Clock, settings: StageSettings
    ) -> None:
        """Sets nothing yet.

        Args:
            job: What is to be recorded.
            displays: Lends displays.
            pages: Drives pages.
            log: Where a page's console is written.
            clock: Measures phases.
            settings: How stages are set.
        """
        self._job = job
        self._displays = displays
        self._pages = pages
        self._log = log
        self._clock = clock
        self._settings = settings
        self._driver: PageDriver | None = None
        self.display: Display | None = None
        self.application_pid: int | None = None
        self.renderer: str | None = None

    @property
    def figures(self) -> PageFigures:
        """What is known of the page; nothing for an application."""
        return self._driver.figures() if self._driver is not None else PageFigures()

    @property
    def is_over(self) -> bool:
        """Whether its page has said already that there is nothing more to record."""
        return self._driver is not None and self._driver.is_over

    async def take_display(self) -> RecordingPhase:
        """Gets a display.

        Raises:
            DisplayUnavailable: When there is none in time.
        """
        began_s = self._clock.monotonic_s()
        capture = self._job.capture
        of_page = isinstance(self._job.source, PageSource)
        self.display = await self._displays.acquire(
            width=max(capture.width, NARROWEST_WINDOW) if of_page else capture.width,
            height=capture.height,
            browser=of_page,
            sound=capture.sound,
            timeout=self._settings.acquire_timeout,
        )
        return self._phase("display", began_s)

    async def open(self) -> tuple[RecordingPhase, ...]:
        """Opens the page or starts the application, and passes the gate.

        Raises:
            PageFault, StageFault: When it cannot, or does not pass.
        """
        assert self.display is not None
        if isinstance(self._job.source, ApplicationSource):
            return await self._open_application(self._job.source, self.display)
        began_s = self._clock.monotonic_s()
        self._driver = await self._pages.page(self.display, self._job, log=self._log, opened=False)
        self.renderer = await self._pages.rendering(self.display)
        browser = self._phase("browser", began_s)
        navigation = RecordingPhase(name="navigation", duration=await self._driver.open())
        began_s = self._clock.monotonic_s()
        await self._driver.pass_gate()
        return browser, navigation, self._phase("gate", began_s)

    async def take_over(self, display: Display, application_pid: int | None) -> bool:
        """Takes over what an earlier agent has set.

        Returns:
            Whether it still stands.

        Raises:
            PageFault: When the page cannot be reached any more.
        """
        if self._displays.find(display.id) is None or not self._displays.alive(display.id):
            return False
        self.display, self.application_pid = display, application_pid
        if isinstance(self._job.source, PageSource):
            self._driver = await self._pages.page(display, self._job, log=self._log, opened=True)
        return True

    async def lost(self) -> Failure | None:
        """Tells whether what went wrong over the page is that its display is gone. Waits until that would be seen."""
        if self.display is None:
            return None
        await asyncio.sleep(_SETTLED_AFTER_S)
        return None if self._displays.screen_alive(self.display.id) else DISPLAY_LOST

    async def ended(self) -> RecordingEnd:
        """Awaits that the stage is done: the page or the application has ended, or the display is lost."""
        assert self.display is not None
        loop = asyncio.get_running_loop()
        ends = [loop.create_task(self._display_lost(self.display.id))]
        if self._driver is not None:
            ends.append(loop.create_task(self._page_ended(self._driver)))
        elif self.application_pid is not None:
            ends.append(loop.create_task(self._application_ended(self.application_pid)))
        try:
            done, _ = await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for end in ends:
                end.cancel()
            await asyncio.wait(ends)
        return next(end for end in ends if end in done).result()

    async def save_screenshot(self, path: Path) -> None:
        """Writes a picture of the page, if there is one that can be seen."""
        if self._driver is not None:
            await self._driver.save_screenshot(path)

    async def give_up(self, display: Display) -> None:
        """Ends a display that an earlier agent has lent."""
        await self._displays.release(display.id)

    async def strike(self, kept: Display | None) -> None:
        """Ends everything. May be repeated.

        Args:
            kept: The display that is written down, which an earlier agent may have lent. None: none is.
        """
        driver, self._driver = self._driver, None
        if driver is not None:
            await driver.close()
        for display in {one.id for one in (self.display, kept) if one is not None}:
            await self._displays.release(display)
        self.display = None

    async def let_go(self) -> None:
        """Lets go of the stage, which stays as it is for the next agent."""
        if self._driver is not None:
            await self._driver.close()

    async def _open_application(self, source: ApplicationSource, display: Display) -> tuple[RecordingPhase, ...]:
        began_s = self._clock.monotonic_s()
        command = self._settings.applications[source.name]
        try:
            self.application_pid = await self._displays.spawn(display, command, name="application")
        except DisplayUnavailable as error:
            # Its program, not the display: another device would not start it either.
            raise StageFault("APPLICATION_FAILED", f"Cannot record {source.name}: {error}") from error
        if self._job.gate.kind is GateKind.IMMEDIATELY:
            return (self._phase("gate", began_s),)
        if not await self._shown(display, self.application_pid):
            raise StageFault(
                "GATE_TIMEOUT",
                f"Cannot record {source.name}: it showed no window within {self._gate_timeout_s:g} s. Try a longer "
                "timeout of the start gate, or the gate IMMEDIATELY.",
            )
        return (self._phase("gate", began_s),)

    @property
    def _gate_timeout_s(self) -> float:
        return self._job.gate.timeout.total_seconds()

    async def _shown(self, display: Display, pid: int) -> bool:
        """Awaits a window of the application. Returns whether there is one in time.

        Raises:
            StageFault: When the application ends before.
        """
        loop = asyncio.get_running_loop()
        shown = loop.create_task(await_window(display, within=self._job.gate.timeout))
        ended = loop.create_task(self._application_ended(pid))
        try:
            await asyncio.wait({shown, ended}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            shown.cancel()
            ended.cancel()
            await asyncio.wait({shown, ended})
        if not shown.cancelled():
            try:
                return bool(shown.result())
            except XUnreachableError:
                return False
        name = self._job.source.name if isinstance(self._job.source, ApplicationSource) else ""
        raise StageFault(
            "APPLICATION_FAILED",
            f"Cannot record {name}: it ended before it showed a window. Try its command by hand.",
        )

    async def _page_ended(self, driver: PageDriver) -> RecordingEnd:
        end = await driver.ended()
        lost = None if end is PageEnd.SIGNAL else await self.lost()
        failure = lost or _PAGE_FAILURES.get(end)
        if failure is not None:
            return RecordingEnd(cause=failure.reason, failure=failure)
        return RecordingEnd(cause=_PAGE_CAUSES[end])

    async def _application_ended(self, pid: int) -> RecordingEnd:
        assert self.display is not None
        descriptor = open_holder(pid, Path(self.display.lock))
        if descriptor is None:
            return RecordingEnd(cause="APPLICATION_ENDED")
        loop = asyncio.get_running_loop()
        ended = asyncio.Event()
        loop.add_reader(descriptor, ended.set)
        try:
            await ended.wait()
        finally:
            loop.remove_reader(descriptor)
            os.close(descriptor)
        return RecordingEnd(cause="APPLICATION_ENDED")

    async def _display_lost(self, display_id: str) -> RecordingEnd:
        while self._displays.alive(display_id):  # noqa: ASYNC110 - nobody tells of it
            await asyncio.sleep(_POLLED_EVERY_S)
        if self._driver is not None:
            # A browser that is gone counts as well, and its driver tells more.
            await asyncio.sleep(_POLLED_EVERY_S)
        failure = BROWSER_LOST if self._displays.screen_alive(display_id) else DISPLAY_LOST
        return RecordingEnd(cause=failure.reason, failure=failure)

    def _phase(self, name: str, began_s: float) -> RecordingPhase:
        return RecordingPhase(name=name, duration=timedelta(seconds=self._clock.monotonic_s() - began_s))
