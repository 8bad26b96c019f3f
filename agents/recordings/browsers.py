"""The agent's browser: which one it is, how it gets onto displays, and who drives its pages."""

from __future__ import annotations

import importlib.util
import logging
from dataclasses import replace
from typing import TYPE_CHECKING

from agents.browsers.chromium import find_chromium
from agents.browsers.rendering import choose_rendering, draws_on_gpu
from agents.browsers.starting import BrowserOptions, start_browser, start_egress_proxy
from agents.displays.display import DisplayUnavailable
from agents.pipelines.recording import PageSource

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

    from agents.browsers.chromium import Chromium
    from agents.browsers.page import PageDriver
    from agents.browsers.playwright_pages import BrowserHub
    from agents.displays.display import BrowserEndpoint, Display
    from agents.displays.pool import DisplayPool
    from agents.pipelines.recording import RecordingJob
    from agents.settings import AgentSettings
    from gpu_balancer.runtime.clock import Clock

_LOG = logging.getLogger(__name__)
_GPU_TRIES = 3
"""Displays in a row that may turn out not to draw on the GPU, before it is left alone until the agent starts again."""


class Browsers:
    """Implements `Pages` for stages, and starts browsers for the pool of displays."""

    def __init__(self, settings: AgentSettings, *, clock: Clock, changed: Callable[[], None]) -> None:
        """Knows no browser before `find`.

        Args:
            settings: The agent's.
            clock: For logs and durations.
            changed: Called when there is a browser, or none any more.
        """
        self._settings = settings
        self._changed = changed
        self._clock = clock
        self._opened_hub: BrowserHub | None = None
        self._chromium: Chromium | None = None
        self._renderers: dict[str, str | None] = {}
        """By the address of the browser."""
        self._rendering = choose_rendering(settings.browser.rendering, of_gpu=settings.device.kind == "nvidia")
        self._gpu_failures = 0
        self.fault = "Cannot record pages yet: the browser is being looked for. Try again in a second."

    @property
    def name(self) -> str:
        """Name and version. Empty: there is none."""
        return self._chromium.name if self._chromium is not None else ""

    async def find(self) -> None:
        """Looks for a browser."""
        if not self._settings.recordings.enabled:
            self.fault = "Cannot record: recordings are switched off. Try enabled = true in [recordings]."
            return
        if importlib.util.find_spec("playwright") is None:
            self.fault = "Cannot record pages: Playwright is not installed. Try pip install 'gpu-balancer[recording]'."
            return
        try:
            self._chromium = await find_chromium(self._settings.browser.candidates)
        except DisplayUnavailable as error:
            self.fault = str(error)
        except OSError as error:
            self.fault = f"Cannot look for a browser: {error}. Try candidates in [browser] of the settings."
        self._changed()

    def starter(self, pool: Callable[[], DisplayPool]) -> Callable[[Display], Awaitable[BrowserEndpoint]]:
        """Gives what starts a browser on a display.

        Args:
            pool: Gives the pool that the display is of.
        """
        settings = self._settings

        async def start(display: Display) -> BrowserEndpoint:
            if self._chromium is None:
                raise DisplayUnavailable("BROWSER_MISSING", self.fault)

            async def spawn(
                argv: Sequence[str],
                *,
                name: str,
                environment: Mapping[str, str] | None = None,
                as_agent: bool = False,
            ) -> int:
                return await pool().spawn(display, argv, name=name, environment=environment, as_agent=as_agent)

            proxied = not settings.inputs.allow_private_networks
            proxy_port = await start_egress_proxy(display, spawn) if proxied else None
            rendering = self._rendering if self._gpu_failures < _GPU_TRIES else "software"
            while True:
                options = BrowserOptions(rendering=rendering, arguments=settings.browser.arguments)
                try:
                    endpoint = await start_browser(display, spawn, self._chromium, options, proxy_port=proxy_port)
                except DisplayUnavailable as error:
                    if rendering == "software":
                        raise
                    problem = str(error)
                else:
                    shown = replace(display, browser=endpoint)
                    awaited = pool().is_awaited(display.id)
                    renderer = await (self._hub.rendering(shown) if awaited else self._hub.make_ready(shown))
                    self._renderers[endpoint.url] = renderer
                    if rendering == "software":
                        return endpoint
                    if draws_on_gpu(renderer):
                        self._gpu_failures = 0
                        return endpoint
                    problem = f"WebGL's renderer is {renderer}." if renderer else f"{endpoint.name} has no WebGL."
                    await self._hub.end(endpoint)
                self._gpu_failures += 1
                _LOG.warning("The host's cores draw on display %s instead of the GPU: %s", display.id, problem)
                rendering = "software"

        return start

    async def page(self, display: Display, job: RecordingJob, *, log: Path, opened: bool) -> PageDriver:
        """Gives who drives the page of a display.

        Raises:
            PageFault: BROWSER_FAILED.
        """
        assert isinstance(job.source, PageSource)
        # It may be wider than what is looked at.
        display = replace(display, width=job.capture.width)
        return await self._hub.page(display, job.source, job.gate, job.stop_rules, log=log, opened=opened)

    async def rendering(self, display: Display) -> str | None:
        """Tells what renders WebGL, which each browser is asked once."""
        key = display.browser.url if display.browser is not None else ""
        if key not in self._renderers:
            self._renderers[key] = await self._hub.rendering(display)
        return self._renderers[key]

    def own_page(self, display: Display) -> AbstractAsyncContextManager[Callable[[str], Awaitable[None]]]:
        """Lends the page of a display for what is the agent's own; see `BrowserHub.own_page`."""
        return self._hub.own_page(display)

    async def close(self) -> None:
        """Lets go of all pages, which stay as they are."""
        if self._opened_hub is not None:
            await self._opened_hub.close()

    @property
    def _hub(self) -> BrowserHub:
        if self._opened_hub is None:
            # When it is needed: an agent that records no page stays small.
            from agents.browsers.playwright_pages import BrowserHub

            self._opened_hub = BrowserHub(url_schemes=self._settings.recordings.url_schemes, clock=self._clock)
        return self._opened_hub
