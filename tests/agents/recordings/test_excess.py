"""What a display takes, as it is seen from outside: real processes and files."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from agents.displays.display import Display
from agents.recordings.excess import DisplayBounds, find_excess

pytestmark = pytest.mark.process
AMPLE = DisplayBounds(memory_mib=4096, folder_mib=2048)
_HOLDS = "import sys; held = b'x' * (100 << 20); print(flush=True); sys.stdin.read()"
_CHILD_HOLDS = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {_HOLDS!r}], env={{}})"


@pytest.fixture
def display(tmp_path: Path) -> Display:
    work = tmp_path / "work"
    work.mkdir()
    return Display(
        id=f"d{os.getpid()}",
        name=":1",
        authority="/dev/null",
        width=640,
        height=360,
        lock=str(tmp_path / "lock"),
        work=str(work),
        user_id=None,
        sound_server=None,
        browser=None,
    )


@pytest.fixture(params=[_HOLDS, _CHILD_HOLDS], ids=["itself", "a child that lets go of the lock"])
def holder(display: Display, request: pytest.FixtureRequest) -> Iterator[None]:
    """A program of the display holds 100 MiB."""
    program = [sys.executable, "-c", request.param]
    lock = os.open(display.lock, os.O_RDWR | os.O_CREAT)
    with subprocess.Popen(program, pass_fds=[lock], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        os.close(lock)
        assert process.stdout is not None
        process.stdout.readline()
        yield
        assert process.stdin is not None
        process.stdin.close()


@pytest.mark.usefixtures("holder")
def test_memory_of_all_its_processes_counts(display: Display) -> None:
    assert find_excess(display, AMPLE) is None
    found = find_excess(display, DisplayBounds(memory_mib=90, folder_mib=2048))
    assert found is not None
    assert found.reason == "MEMORY_EXCEEDED"
    assert "90 are the most" in found.message


def test_what_is_really_on_the_disk_counts(display: Display) -> None:
    profile = Path(display.work, "home", "profile")
    profile.mkdir(parents=True)
    with (profile / "sparse").open("wb") as file:
        file.truncate(5 << 30)
    assert find_excess(display, AMPLE) is None
    (profile / "stored").write_bytes(os.urandom(3 << 20))
    found = find_excess(display, DisplayBounds(memory_mib=4096, folder_mib=2))
    assert found is not None
    assert found.reason == "STORAGE_EXCEEDED"
