"""A recording whose device is emptied: it goes on on another device, and is one film in the end."""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from daemons import RunningDaemon, daemon_running, eventually, needs_displays

from bench.analysis.media_file import is_faststart
from bench.analysis.strip import count_frames, read_strip
from bench.pages.server import PageServer
from gpu_balancer.v1 import recording_pb2, session_pb2

pytestmark = [
    pytest.mark.process,
    pytest.mark.timeout(240),
    needs_displays,
    pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="needs two cores"),
]


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory, probe_results: Path) -> Iterator[RunningDaemon]:
    """A daemon with two devices that share the cores, with room for a recording each."""
    settings = (
        "[inputs]\nallow_private_networks = true\n[recordings]\nwarm_displays = 0\n"
        '[[cpu_devices]]\nname = "cpu-0"\ncores = "0"\n[[cpu_devices]]\nname = "cpu-1"\ncores = "1"\n'
    )
    names = ("cpu-0", "cpu-1")
    folder = tmp_path_factory.mktemp("moved")
    with daemon_running(folder, settings, probe_results=probe_results, probed_devices=names) as daemon:
        daemon.await_devices_ready(2)
        yield daemon


def test_a_recording_goes_on_on_another_device_when_its_own_is_emptied(
    pair: RunningDaemon, pages: PageServer, tmp_path: Path
) -> None:
    spec = recording_pb2.RecordingSpec(page=recording_pb2.PageSource(url=pages.url("counter")))
    spec.capture.width, spec.capture.height = 320, 180
    spec.capture.frame_rate.numerator, spec.capture.frame_rate.denominator = 10, 1
    with pair.client() as client:
        made = client.create_session(session_pb2.Session(recording=spec))

        def at_least(seconds: float, attempt: int) -> session_pb2.Session | None:
            now = client.get_session(made.name)
            assert not now.HasField("end_time"), now
            enough = now.attempt == attempt and now.progress.out_time.ToTimedelta() >= timedelta(seconds=seconds)
            return now if enough else None

        first = eventually(lambda: at_least(2, 1), "it records")
        client.drain_device(first.device, move=True)
        second = eventually(lambda: at_least(2, 2), "it goes on as a second attempt")
        assert second.device != first.device
        assert (second.restart_count, second.last_restart.failure.reason) == (1, "DEVICE_DRAINED")
        client.stop_session(made.name)
        ended = client.wait(made)
        client.download_artifacts(made.name, tmp_path)
    assert ended.state == session_pb2.SESSION_STATE_SUCCEEDED
    film = tmp_path / "recording.mp4"
    assert is_faststart(film)
    count = count_frames(read_strip(film), frame_rate=10)
    assert count.frames >= 40, "what both attempts recorded"
    assert count.unreadable == 0
