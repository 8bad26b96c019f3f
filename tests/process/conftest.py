"""Daemons and media for tests of the whole house."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import imageio_ffmpeg
import pytest
from daemons import RunningDaemon, StartDaemon, daemon_running

from bench.pages.server import PageServer, serve_pages

if TYPE_CHECKING:
    from gpu_balancer.client import Client

FFMPEG = imageio_ffmpeg.get_ffmpeg_exe()


@pytest.fixture(scope="session")
def media(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `clip.mp4`: 2 s of 320x180 at 30 frames/s, moving, with sound; and `long.mp4`: 60 s of it."""
    folder = tmp_path_factory.mktemp("media")
    for name, seconds in (("clip.mp4", 2), ("long.mp4", 60)):
        command = [FFMPEG, "-hide_banner", "-loglevel", "error", "-f", "lavfi", "-i", "testsrc2=size=320x180:rate=30"]
        command += ["-f", "lavfi", "-i", "sine=frequency=440:sample_rate=48000", "-t", str(seconds)]
        command += ["-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p", "-c:a", "aac", str(folder / name)]
        subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
    return folder


@pytest.fixture(scope="module")
def pages() -> Iterator[PageServer]:
    """Pages that say what they show."""
    with serve_pages() as served:
        yield served


@pytest.fixture(scope="session")
def exports(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder under which `cpu_daemon` and `open_daemon` may write."""
    return tmp_path_factory.mktemp("exports")


@pytest.fixture(scope="session")
def cpu_daemon(tmp_path_factory: pytest.TempPathFactory, media: Path, exports: Path) -> Iterator[RunningDaemon]:
    """One daemon with one CPU device, ready, shared by the tests that do it no harm. Private networks are closed."""
    settings = f'[inputs]\nroots = ["{media}"]\n[outputs]\nroots = ["{exports}"]\n'
    own = tmp_path_factory.getbasetemp()
    shared = own.parent if "PYTEST_XDIST_WORKER" in os.environ else own
    found = shared / "probe.json"
    with contextlib.ExitStack() as stack:
        with (shared / "probe.lock").open("w") as lock:
            # What the device can do takes seconds of every core to find out: one worker does, the others wait for it.
            fcntl.flock(lock, fcntl.LOCK_EX)
            results = found if found.exists() else None
            running = daemon_running(tmp_path_factory.mktemp("cpu"), settings, probe_results=results)
            daemon = stack.enter_context(running)
            daemon.await_devices_ready()
            if results is None:
                shutil.copy(_probe_results(daemon), found)
        yield daemon


@pytest.fixture(scope="session")
def cpu_client(cpu_daemon: RunningDaemon) -> Iterator[Client]:
    """A client of `cpu_daemon`."""
    with cpu_daemon.client() as client:
        yield client


@pytest.fixture(scope="session")
def probe_results(cpu_daemon: RunningDaemon) -> Path:
    """What `cpu_daemon` found out about its device; other daemons with it are ready at once."""
    return _probe_results(cpu_daemon)


def _probe_results(daemon: RunningDaemon) -> Path:
    return daemon.state_dir / "agents" / "cpu-0" / "probe.json"


@pytest.fixture(scope="session")
def open_daemon(
    tmp_path_factory: pytest.TempPathFactory, media: Path, exports: Path, probe_results: Path
) -> Iterator[RunningDaemon]:
    """As `cpu_daemon`, but it may reach this machine's own addresses, so that live inputs and pushes can be tried."""
    settings = (
        f'[inputs]\nroots = ["{media}"]\nallow_private_networks = true\nfirst_frame_timeout_s = 10.0\n'
        f'[outputs]\nroots = ["{exports}"]\nallow_private_networks = true\n'
    )
    with daemon_running(tmp_path_factory.mktemp("open"), settings, probe_results=probe_results) as daemon:
        daemon.await_devices_ready()
        yield daemon


@pytest.fixture(scope="session")
def open_client(open_daemon: RunningDaemon) -> Iterator[Client]:
    """A client of `open_daemon`."""
    with open_daemon.client() as client:
        yield client


@pytest.fixture
def start_daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StartDaemon]:
    """Gives a function that starts a daemon: `start_daemon(settings="", environment=None, probe_results=None)`."""
    with contextlib.ExitStack() as stack:

        def start(
            settings: str = "",
            environment: Mapping[str, str] | None = None,
            *,
            probe_results: Path | None = None,
            arguments: tuple[str, ...] = (),
        ) -> RunningDaemon:
            # Not below the test's own folder, whose long name leaves no room for a socket's.
            folder = tmp_path_factory.mktemp("daemon")
            running = daemon_running(folder, settings, environment, probe_results=probe_results, arguments=arguments)
            return stack.enter_context(running)

        yield start
