"""Real agents and media for the tests over the wire."""

from __future__ import annotations

import asyncio
import fcntl
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from agent_process import FFMPEG, AgentProcess

from agents.devices.cpu import cpu_identity
from agents.devices.golden_probe import probe_device


@pytest.fixture(scope="session")
def media(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of inputs with clip.mp4, two seconds of moving picture and sound."""
    folder = tmp_path_factory.mktemp("media")
    sources = ["-f", "lavfi", "-i", "testsrc2=s=320x180:r=25:d=2", "-f", "lavfi", "-i", "sine=d=2"]
    coding = ["-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p", "-g", "25", "-c:a", "aac"]
    argv = [FFMPEG, "-v", "error", *sources, *coding, str(folder / "clip.mp4")]
    subprocess.run(argv, check=True, stdin=subprocess.DEVNULL)
    return folder


@pytest.fixture(scope="session")
def probe_results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The kept outcome of one real golden probe, so that no agent of the tests but one that is told to repeats it."""
    own = tmp_path_factory.getbasetemp()
    folder = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "probed-cpu"
    folder.mkdir(mode=0o700, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        # It takes seconds of every core: one worker does it, the others wait for it.
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "probe.json").exists():
            asyncio.run(probe_device(cpu_identity("cpu-0"), ["bundled"], state_folder=folder))
    return folder / "probe.json"


@pytest.fixture
def agent(tmp_path: Path, media: Path, probe_results: Path) -> Iterator[AgentProcess]:
    """An agent that is configured and not started; whatever it leaves running is killed at the end."""
    folder, out = tmp_path / "agent", tmp_path / "out"
    folder.mkdir(mode=0o700)
    out.mkdir()
    (folder / "probe.json").write_bytes(probe_results.read_bytes())
    made = AgentProcess(folder=folder, media=media, out=out)
    made.configure()
    try:
        yield made
    finally:
        made.clean()
