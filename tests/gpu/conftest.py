"""The real GPU of the machine. Without one, or without its driver, every test here is skipped.

What a card may lack (NVENC, above all) is asked of its probe, so that the tests hold on cards with and without it.
GPU_BALANCER_TEST_FFMPEG names an ffmpeg to try before the bundled one.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path

import imageio_ffmpeg
import pytest

from agents.devices.golden_probe import ProbeResult, probe_device
from agents.devices.identity import DeviceIdentity, identity_from_json

FFMPEG = imageio_ffmpeg.get_ffmpeg_exe()


@pytest.fixture(scope="session")
def gpu() -> DeviceIdentity:
    """The first GPU, as the agent's own command lists it: this process may have loaded another NVML for other tests."""
    listed = subprocess.run(
        [sys.executable, "-m", "agents", "--list-devices"], capture_output=True, text=True, check=True, timeout=60
    )
    gpus = [identity_from_json(item) for item in json.loads(listed.stdout)]
    if not gpus:
        pytest.skip(f"there is no NVIDIA GPU with a driver here {listed.stderr}")
    return gpus[0]


@pytest.fixture(scope="session")
def candidates() -> list[str]:
    """The ffmpegs to try, the best first."""
    named = os.environ.get("GPU_BALANCER_TEST_FFMPEG")
    system = [path for path in ("/usr/bin/ffmpeg",) if Path(path).exists()]
    return [*([named] if named else []), "bundled", *system]


@pytest.fixture(scope="session")
def probed(gpu: DeviceIdentity, candidates: list[str], tmp_path_factory: pytest.TempPathFactory) -> ProbeResult:
    """What the GPU was seen to do."""
    return asyncio.run(probe_device(gpu, candidates, state_folder=tmp_path_factory.mktemp("probe")))


@pytest.fixture(scope="session")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """2 s of 1280x720 H.264 with sound."""
    path = tmp_path_factory.mktemp("film") / "film.mp4"
    command = [FFMPEG, "-loglevel", "error", "-f", "lavfi", "-i", "testsrc2=size=1280x720:rate=30:duration=2"]
    command += ["-f", "lavfi", "-i", "sine=duration=2", "-c:v", "libx264", "-preset", "veryfast", "-pix_fmt", "yuv420p"]
    subprocess.run([*command, "-c:a", "aac", str(path)], check=True, stdin=subprocess.DEVNULL)
    return path
