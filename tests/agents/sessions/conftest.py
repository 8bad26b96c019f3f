"""Media and agents for the tests of sessions."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from session_rig import FFMPEG, GREYS, Rigs

from agents.sessions.folder import SessionFolders
from agents.sessions.processes import AttemptProcesses


@pytest.fixture(scope="session")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two seconds of moving picture and sound."""
    path = tmp_path_factory.mktemp("media") / "clip.mp4"
    sources = ["-f", "lavfi", "-i", "testsrc2=s=320x180:r=25:d=2", "-f", "lavfi", "-i", "sine=d=2"]
    coding = ["-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p", "-g", "25", "-c:a", "aac"]
    subprocess.run([FFMPEG, "-v", "error", *sources, *coding, str(path)], check=True, stdin=subprocess.DEVNULL)
    return path


@pytest.fixture(scope="session")
def counting(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight seconds of pictures whose grey counts up, and sound."""
    path = tmp_path_factory.mktemp("media") / "counting.mp4"
    grey = f"nullsrc=s=64x36:r=25:d={GREYS // 25},format=yuv420p,geq=lum='16+mod(N,{GREYS})':cb=128:cr=128"
    sources = ["-f", "lavfi", "-i", grey, "-f", "lavfi", "-i", f"sine=d={GREYS // 25}"]
    coding = ["-c:v", "libx264", "-preset", "ultrafast", "-qp", "0", "-g", "25", "-c:a", "aac"]
    subprocess.run([FFMPEG, "-v", "error", *sources, *coding, str(path)], check=True, stdin=subprocess.DEVNULL)
    return path


@pytest.fixture
def rigs(tmp_path: Path) -> Iterator[Rigs]:
    """Rigs on a state folder of the test; whatever still runs at the end is killed."""
    state_dir = tmp_path / "state"
    state_dir.mkdir()
    made = Rigs(state_dir)
    yield made
    for folder in SessionFolders(root=state_dir / "sessions").found():
        with AttemptProcesses(folder) as processes:
            processes.kill_all()


@pytest.fixture
def others(tmp_path: Path) -> Iterator[Rigs]:
    """Agents of another device of the same host: another state folder, the same fences."""
    state_dir = tmp_path / "other"
    state_dir.mkdir()
    yield Rigs(state_dir)
    for folder in SessionFolders(root=state_dir / "sessions").found():
        with AttemptProcesses(folder) as processes:
            processes.kill_all()
