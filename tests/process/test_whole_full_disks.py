"""Recordings whose disk runs full under them: they end as what they are, and what was recorded can be played."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from asked import FAILED
from daemons import daemon_running, eventually, needs_displays
from decoded import decode

from bench.pages.server import PageServer
from fakes.small_file_system import fill, small_file_system
from gpu_balancer.v1 import recording_pb2, session_pb2

MIB = 1 << 20

pytestmark = [
    pytest.mark.process,
    pytest.mark.timeout(180),
    needs_displays,
]


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 200 MiB."""
    with small_file_system(tmp_path / "disk", size="200m") as place:
        yield place


@pytest.mark.parametrize(("left_mib", "reasons"), [(3, {"DISK_LOW"}), (0, {"DISK_LOW", "DISK_FULL"})])
def test_a_recording_whose_disk_runs_full_keeps_what_was_recorded(
    disk: Path, pages: PageServer, probe_results: Path, tmp_path: Path, left_mib: int, reasons: set[str]
) -> None:
    """The finished file is made of a copy, for which there is no room: then the take itself stands in its place."""
    settings = "[inputs]\nallow_private_networks = true\n[disk]\nlow_mib = 8\nleast_mib = 4\n"
    settings += "[recordings]\nwarm_displays = 0\n"
    with daemon_running(disk, settings, probe_results=probe_results) as daemon:
        daemon.await_devices_ready()
        spec = recording_pb2.RecordingSpec(page=recording_pb2.PageSource(url=pages.url("counter")))
        spec.capture.width, spec.capture.height = 640, 360
        with daemon.client() as client:
            name = client.create_session(session_pb2.Session(recording=spec)).name

            def recorded() -> bool:
                session = client.get_session(name)
                assert not session.HasField("end_time"), session
                return session.progress.out_time.ToTimedelta() >= timedelta(seconds=3)

            eventually(recorded, "3 s are recorded")
            fill(disk, leave_bytes=left_mib * MIB)
            ended = client.wait(name)
            assert ended.state == FAILED
            assert ended.failure.reason in reasons
            client.download_artifacts(name, tmp_path / "left")
            assert decode(tmp_path / "left" / "recording.mp4").frames >= 60
            assert not daemon.ffmpeg_processes()
