"""What draws pages: chosen by the devices that are seen, and believed only when the browser says so itself."""

from __future__ import annotations

import asyncio
import logging
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import pytest

from agents.browsers.rendering import choose_rendering, draws_on_gpu
from agents.browsers.starting import start_browser
from agents.displays.display import DisplayUnavailable
from agents.recordings.browsers import Browsers
from agents.settings import AgentSettings
from fakes.bare_display import bare_display
from gpu_balancer.runtime.clock import SystemClock

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from agents.displays.display import BrowserEndpoint
    from agents.displays.pool import DisplayPool
    from fakes.bare_display import BareDisplay

GPU = "ANGLE (NVIDIA, Vulkan 1.4.312 (NVIDIA NVIDIA H200 (0x00002335)), NVIDIA)"
SWIFTSHADER = "ANGLE (Google, Vulkan 1.3.0 (SwiftShader Device (Subzero) (0x0000C0DE)), SwiftShader driver)"
LLVMPIPE = "ANGLE (Mesa/X.org, llvmpipe (LLVM 15.0.6 256 bits), OpenGL ES 3.2)"


@pytest.mark.parametrize(
    ("wished", "of_gpu", "files", "chosen"),
    [
        ("auto", True, ["nvidia0", "nvidiactl", "nvidia-uvm", "nvidia-uvm-tools"], "vulkan"),
        ("auto", True, ["nvidia3", "nvidiactl"], "vulkan"),
        ("auto", True, ["nvidia0", "nvidia1", "nvidiactl"], "software"),
        ("auto", True, [], "software"),
        ("auto", False, ["nvidia0"], "software"),
        ("vulkan", False, [], "vulkan"),
        ("vulkan", True, ["nvidia0", "nvidia1"], "vulkan"),
        ("software", True, ["nvidia0"], "software"),
    ],
)
def test_a_gpu_is_tried_where_it_is_the_only_one(
    tmp_path: Path, wished: Any, of_gpu: bool, files: list[str], chosen: str
) -> None:
    for name in files:
        (tmp_path / name).touch()
    assert choose_rendering(wished, of_gpu=of_gpu, devices=tmp_path) == chosen


@pytest.mark.parametrize(
    ("renderer", "gpu"),
    [
        (GPU, True),
        ("ANGLE (NVIDIA Corporation, NVIDIA H200/PCIe/SSE2, OpenGL 4.5.0)", True),
        (SWIFTSHADER, False),
        (LLVMPIPE, False),
        (None, False),
    ],
)
def test_a_software_renderer_is_no_gpu(renderer: str | None, gpu: bool) -> None:
    assert draws_on_gpu(renderer) is gpu


def arguments_of(pid: int) -> set[str]:
    """What a browser was started with; its main process writes its command line anew, with spaces."""
    return set(Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ").split(" "))


@asynccontextmanager
async def wishing_for_the_gpu() -> AsyncIterator[
    tuple[BareDisplay, Browsers, Callable[[], Awaitable[BrowserEndpoint]]]
]:
    """An agent's browsers, on a machine without a GPU, asked to draw on one; and what starts one on a display."""
    settings = AgentSettings.model_validate(
        {"browser": {"rendering": "vulkan"}, "inputs": {"allow_private_networks": True}}
    )
    browsers = Browsers(settings, clock=SystemClock(), changed=lambda: None)
    await browsers.find()
    with bare_display() as bare:

        class Pool:
            async def spawn(self, display: object, argv: list[str], **options: Any) -> int:
                assert display is bare.display
                return await bare.spawn(argv, **options)

            def is_awaited(self, display_id: str) -> bool:
                assert display_id == bare.display.id
                return False

        start = browsers.starter(lambda: cast("DisplayPool", Pool()))
        try:
            yield bare, browsers, lambda: start(bare.display)
        finally:
            await browsers.close()


@pytest.mark.process
async def test_without_a_gpu_pages_are_drawn_by_cores_whatever_was_wished(caplog: pytest.LogCaptureFixture) -> None:
    async with wishing_for_the_gpu() as (bare, browsers, start):
        with caplog.at_level(logging.WARNING):
            endpoint = await start()
        told = await browsers.rendering(replace(bare.display, browser=endpoint))
        assert told is not None
        assert "SwiftShader" in told
        (warning,) = [one.getMessage() for one in caplog.records if "instead of the GPU" in one.getMessage()]
        assert bare.display.id in warning
        tried, drawing = bare.processes["browser"]
        await asyncio.to_thread(tried.wait, 20)
        assert drawing.poll() is None
        assert {"--disable-gpu"} == arguments_of(drawing.pid) & {"--disable-gpu", "--use-angle=vulkan"}


@pytest.mark.process
async def test_a_browser_that_does_not_start_with_the_gpu_starts_without(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def crashing(*arguments: Any, **options: Any) -> BrowserEndpoint:
        if arguments[3].rendering == "vulkan":
            raise DisplayUnavailable("BROWSER_FAILED", "Cannot start the browser: its driver crashed.")
        return await start_browser(*arguments, **options)

    monkeypatch.setattr("agents.recordings.browsers.start_browser", crashing)
    async with wishing_for_the_gpu() as (_, _, start):
        with caplog.at_level(logging.WARNING):
            assert (await start()).name.startswith("Chromium")
    assert any("its driver crashed" in one.getMessage() for one in caplog.records)
