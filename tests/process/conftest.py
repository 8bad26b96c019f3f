"""Daemons and media for tests of the whole house."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import imageio_ffmpeg
import pytest
from daemons import RunningDaemon, StartDaemon, daemon_running

from agents.devices.cpu import cpu_identity
from agents.devices.golden_probe import probe_device
from bench.pages.server import PageServer, serve_pages
from gpu_balancer.runtime.settings_sections import FfmpegSettings

if TYPE_CHECKING:
    from gpu_balancer.client import Client

FFMPEG = imageio_ffmpeg.get_ffmpeg_exe()


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that all workers have: what one of them made, under a lock, the others need not make."""
    own = tmp_path_factory.getbasetemp()
    return own.parent if "PYTEST_XDIST_WORKER" in os.environ else own


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@pytest.fixture(scope="session")
def media(tmp_path_factory: pytest.TempPathFactory, shared: Path) -> Path:
    """A folder with `clip.mp4`: 2 s of 320x180 at 30 frames/s, moving, with sound; and `long.mp4`: 60 s of it."""
    folder, films = tmp_path_factory.mktemp("media"), shared / "films"
    with _locked(shared / "films.lock"):
        if not films.exists():
            made = tmp_path_factory.mktemp("films")
            _make_films(made)
            made.rename(films)
    # A folder of each worker's own, because tests put further files beside them.
    shutil.copytree(films, folder, dirs_exist_ok=True)
    return folder


def _make_films(folder: Path) -> None:
    for name, seconds in (("clip.mp4", 2), ("long.mp4", 60)):
        command = [FFMPEG, "-hide_banner", "-loglevel", "error", "-f", "lavfi", "-i", "testsrc2=size=320x180:rate=30"]
        command += ["-f", "lavfi", "-i", "sine=frequency=440:sample_rate=48000", "-t", str(seconds)]
        command += ["-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p", "-c:a", "aac", str(folder / name)]
        subprocess.run(command, check=True, stdin=subprocess.DEVNULL)


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
def probe_results(shared: Path) -> Path:
    """What this machine's cores can do: daemons that are given it have their device "cpu-0" ready at once.

    That takes seconds of every core to find out: one worker does, the others wait for it.
    """
    found, work = shared / "probe.json", shared / "probed"
    with _locked(shared / "probe.lock"):
        if not found.exists():
            work.mkdir()
            asyncio.run(probe_device(cpu_identity("cpu-0"), FfmpegSettings().candidates, state_folder=work))
            (work / "probe.json").rename(found)
    return found


# Shared by the tests of one file, not of all that a worker runs: a daemon and its agent work a little while they wait.


@pytest.fixture(scope="module")
def cpu_daemon(
    tmp_path_factory: pytest.TempPathFactory, media: Path, exports: Path, probe_results: Path
) -> Iterator[RunningDaemon]:
    """One daemon with one CPU device, ready, shared by the tests that do it no harm. Private networks are closed.

    No display stands ready after a recording: hardly any test records with it.
    """
    settings = f'[inputs]\nroots = ["{media}"]\n[outputs]\nroots = ["{exports}"]\n[recordings]\nwarm_displays = 0\n'
    with daemon_running(tmp_path_factory.mktemp("cpu"), settings, probe_results=probe_results) as daemon:
        daemon.await_devices_ready()
        yield daemon


@pytest.fixture(scope="module")
def cpu_client(cpu_daemon: RunningDaemon) -> Iterator[Client]:
    """A client of `cpu_daemon`."""
    with cpu_daemon.client() as client:
        yield client


@pytest.fixture(scope="module")
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


@pytest.fixture(scope="module")
def open_client(open_daemon: RunningDaemon) -> Iterator[Client]:
    """A client of `open_daemon`."""
    with open_daemon.client() as client:
        yield client


@pytest.fixture
def start_daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StartDaemon]:
    """Gives a function that starts a daemon, with what `daemon_running` takes but the folder."""
    with contextlib.ExitStack() as stack:

        def start(
            settings: str = "",
            environment: Mapping[str, str] | None = None,
            *,
            probe_results: Path | None = None,
            probed_devices: Sequence[str] = ("cpu-0",),
            arguments: tuple[str, ...] = (),
        ) -> RunningDaemon:
            # Not below the test's own folder, whose long name leaves no room for a socket's.
            folder = tmp_path_factory.mktemp("daemon")
            running = daemon_running(
                folder,
                settings,
                environment,
                probe_results=probe_results,
                probed_devices=probed_devices,
                arguments=arguments,
            )
            return stack.enter_context(running)

        yield start
