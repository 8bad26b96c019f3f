"""The table of switches, against rules of its own and against the browser's own names."""

from __future__ import annotations

import mmap
from pathlib import Path

import pytest

from agents.browsers.chromium import find_chromium
from agents.browsers.flags import DISABLED_FEATURES, FLAGS, SOFTWARE_FLAGS, VULKAN_FLAGS, Flag, browser_flags

TABLE = (*FLAGS, *SOFTWARE_FLAGS, *VULKAN_FLAGS)


def flags(version: int = 156, **wishes: object) -> tuple[str, ...]:
    return browser_flags(version, width=640, height=360, profile="/p", **wishes)  # type: ignore[arg-type]


@pytest.mark.parametrize("version", [120, 140, 156, 200])
@pytest.mark.parametrize("rendering", ["software", "vulkan"])
def test_the_sandbox_is_never_taken_away(version: int, rendering: str) -> None:
    assert not [flag for flag in flags(version, rendering=rendering) if "sandbox" in flag]


def test_everything_goes_through_the_proxy_loopback_too() -> None:
    assert {"--proxy-server=http://127.0.0.1:81", "--proxy-bypass-list=<-loopback>"} <= set(flags(proxy_port=81))
    assert "--no-proxy-server" in flags()


def test_an_old_browser_gets_the_switches_that_it_knows() -> None:
    old, new = flags(120), flags(156)
    assert "--force-webrtc-ip-handling-policy=disable_non_proxied_udp" in set(old) - set(new)
    assert "--enable-unsafe-swiftshader" in set(new) - set(old)


def test_a_gpu_is_used_by_vulkan_without_an_x_server_on_it() -> None:
    assert {"--use-angle=vulkan", "--disable-vulkan-surface"} <= set(flags(rendering="vulkan"))
    assert "--disable-gpu" not in flags(rendering="vulkan")


def test_pictures_go_to_disk_where_shared_memory_is_small() -> None:
    assert "--disable-dev-shm-usage" in flags(small_shared_memory=True)
    assert "--disable-dev-shm-usage" not in flags()


def test_the_operators_arguments_come_last() -> None:
    assert flags(more=("--mute-audio",))[-1] == "--mute-audio"


def test_each_switch_stands_in_the_table_once() -> None:
    names = [flag.text.split("=")[0] for flag in (*TABLE, *DISABLED_FEATURES)]
    assert len(names) == len(set(names))


@pytest.mark.process
async def test_the_browser_here_knows_every_switch_that_it_gets() -> None:
    chromium = await find_chromium(["chromium"])
    used = [flag for flag in (*TABLE, *DISABLED_FEATURES) if flag.since <= chromium.version < flag.until]
    assert unknown_to(Path(chromium.program), used) == []


def unknown_to(path: Path, used: list[Flag]) -> list[str]:
    names = [flag.text.removeprefix("--").split("=")[0] for flag in used]
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as program:
        return [name for name in names if program.find(name.encode() + b"\0") < 0]
