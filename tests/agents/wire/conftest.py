"""Real agents and media for the tests over the wire."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from agent_process import FFMPEG, AgentProcess


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
def probe_results(tmp_path_factory: pytest.TempPathFactory, media: Path) -> Path:
    """The kept outcome of one real golden probe, so that further agents of the tests need not repeat it."""
    folder = tmp_path_factory.mktemp("probed")
    agent = AgentProcess(folder=folder, media=media, out=folder)
    agent.configure()
    agent.start()
    try:
        with agent.connected() as stub:
            from agent_process import await_probed

            await_probed(stub)
        agent.end()
    finally:
        agent.clean()
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
