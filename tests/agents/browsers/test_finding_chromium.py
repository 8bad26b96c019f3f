"""Which browser is found."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest

from agents.browsers.chromium import find_chromium
from agents.displays.display import DisplayUnavailable

if TYPE_CHECKING:
    from pathlib import Path


def program(path: Path, script: str) -> str:
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return str(path)


async def test_a_missing_browser_says_what_to_install() -> None:
    with pytest.raises(DisplayUnavailable, match=r"none of no-such-browser is there\. Try apt-get install") as caught:
        await find_chromium(["no-such-browser"])
    assert caught.value.reason == "BROWSER_MISSING"


async def test_one_that_is_too_old_is_not_taken(tmp_path: Path) -> None:
    old = program(tmp_path / "old", "echo Chromium 90.0.4430.212")
    with pytest.raises(DisplayUnavailable, match=r"is version 90\.0\.4430\.212, and 120 is needed"):
        await find_chromium([old])


async def test_one_that_does_not_run_is_not_taken(tmp_path: Path) -> None:
    stub = program(tmp_path / "stub", "echo requires the chromium snap to be installed; exit 10")
    with pytest.raises(DisplayUnavailable, match="requires the chromium snap"):
        await find_chromium([stub])


async def test_the_next_candidate_is_taken_instead(tmp_path: Path) -> None:
    stub = program(tmp_path / "stub", "exit 1")
    new = program(tmp_path / "new", "echo Google Chrome 150.0.1.2 beta")
    found = await find_chromium(["no-such-browser", stub, new])
    assert (found.program, found.name, found.version) == (new, "Chrome 150.0.1.2", 150)


async def test_what_a_wrapper_would_add_is_emptied(tmp_path: Path) -> None:
    wrapper = program(tmp_path / "wrapper", 'test -z "$CHROMIUM_FLAGS" && echo Chromium 150.0.1.2')
    found = await find_chromium([wrapper])
    assert found.is_wrapped
    assert found.environment["CHROMIUM_FLAGS"] == ""
    assert "PATH" not in found.environment


@pytest.mark.process
async def test_the_program_behind_the_distributions_wrapper_is_taken() -> None:
    found = await find_chromium(["chromium"])
    assert not found.is_wrapped
    assert found.name == f"Chromium {found.name.split()[1]}"
    assert shutil.which("xdg-open", path=found.environment["PATH"]) is None
