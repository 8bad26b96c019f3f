"""Calibrations by a real daemon, a real agent and real runs of ffmpeg, on one core."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from asked import RUNNING, await_state, encoded, live_input, transcode_of
from daemons import RunningDaemon, daemon_running, eventually

from gpu_balancer.runtime.failures import Reason, RequestFailure
from gpu_balancer.v1 import device_pb2, device_service_pb2, placement_pb2

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator
    from pathlib import Path

    from gpu_balancer.client import Client

pytestmark = pytest.mark.process

SETTINGS = '[[cpu_devices]]\nname = "cpu-0"\ncores = "0"\n[calibration]\nwindow_s = 0.02\nrounds = 1\n'
MEASURED = ("encode-h264-8-libx264", "decode-h264-8-h264")
News = device_service_pb2.CalibrateDeviceResponse


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory, probe_results: Path, media: Path) -> Iterator[RunningDaemon]:
    """A daemon whose device does H.264 and nothing else, so that there is little to measure."""
    content = json.loads(probe_results.read_text())
    for key, outcome in content["outcomes"].items():
        if not key.endswith(MEASURED):
            outcome.update(works=False, message="Unknown encoder: not supported")
    folder = tmp_path_factory.mktemp("calibrated")
    kept = folder / "probe.json"
    kept.write_text(json.dumps(content))
    settings = f'{SETTINGS}[inputs]\nroots = ["{media}"]\n'
    with daemon_running(folder / "daemon", settings, probe_results=kept) as started:
        started.await_devices_ready()
        yield started


def begun(client: Client) -> Generator[News, None, None]:
    """Begins a calibration; gives the stream once the first run is on its way."""
    stream: Generator[News, None, None] = client.calibrate_device("cpu-0")
    assert next(stream).progress.step_count > 0
    return stream


def await_rest(daemon: RunningDaemon) -> None:
    """Waits until nothing of a calibration is left and the device takes sessions."""
    folder = daemon.state_dir / "agents" / "cpu-0" / "calibration-work"
    eventually(lambda: not measuring(daemon) and not folder.exists(), "it is ended and cleared away", timeout_s=20)
    daemon.await_devices_ready()


def measuring(daemon: RunningDaemon) -> list[str]:
    """The processes of a calibration."""
    return [line for line in daemon.processes().values() if "calibration-work" in line]


def source_of(device: device_pb2.Device) -> str:
    (load,) = (load for load in device.loads if load.dimension == placement_pb2.DIMENSION_CORES)
    return load.source


def test_a_device_is_calibrated_only_while_nothing_else_is_on_it(daemon: RunningDaemon, media: Path) -> None:
    with daemon.client() as client:
        running = client.create_session(transcode_of(live_input(media / "clip.mp4"), encoded(height=96)))
        await_state(client, running.name, RUNNING)
        with pytest.raises(RequestFailure, match="it has 1 session") as busy:
            next(client.calibrate_device("cpu-0"))
        client.stop_session(running.name)
        client.wait(running.name)
        stream = begun(client)
        with pytest.raises(RequestFailure, match="being calibrated already") as twice:
            next(client.calibrate_device("cpu-0"))
        device = client.get_device("cpu-0")
        with pytest.raises(RequestFailure) as refused:
            client.create_session(transcode_of(live_input(media / "clip.mp4"), encoded(height=96)))
        stream.close()
    await_rest(daemon)
    assert (busy.value.reason, twice.value.reason) == (Reason.DEVICE_BUSY, Reason.DEVICE_BUSY)
    assert (device.state, device.state_message) == (device_pb2.DEVICE_STATE_PROBING, "Being calibrated.")
    assert refused.value.reason is Reason.NO_DEVICE_READY


def test_nothing_is_left_after_ctrl_c_or_when_the_agent_is_killed(daemon: RunningDaemon) -> None:
    command = [sys.executable, "-m", "gpu_balancer.cli", "--address", daemon.address, "devices", "calibrate", "cpu-0"]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as typed:
        eventually(lambda: measuring(daemon), "a run is on its way")
        typed.send_signal(signal.SIGINT)
        out, _ = typed.communicate(timeout=20)
    assert (typed.returncode, out) == (130, b"")
    await_rest(daemon)
    with daemon.client() as client:
        stream = begun(client)
        eventually(lambda: measuring(daemon), "a run is on its way")
        os.kill(daemon.agent_pids()["cpu-0"], signal.SIGKILL)
        eventually(lambda: not measuring(daemon), "the kernel has ended it", timeout_s=5)
        with pytest.raises(RequestFailure) as lost:
            list(stream)
        assert lost.value.reason is Reason.AGENT_UNREACHABLE
        daemon.await_agent_back()
        await_rest(daemon)
        assert not client.get_device("cpu-0").HasField("calibration")


def test_a_calibration_is_measured_kept_over_a_restart_and_forgotten(daemon: RunningDaemon) -> None:
    with daemon.client() as client:
        before = client.get_device("cpu-0")
    document = daemon.json("devices", "calibrate", "--save")
    (device,) = document["devices"]
    figures = {
        (one["dimension"], one["codec"], one["speed"]): int(one["pixelsPerSecond"])
        for one in device["calibration"]["figures"]
        if not one["problem"]
    }
    encodes = [figures["DIMENSION_ENCODE", "VIDEO_CODEC_H264", f"ENCODING_SPEED_{speed}"] for speed in (
        "FASTEST", "FAST", "BALANCED", "THOROUGH")]  # fmt: skip
    assert encodes == sorted(encodes, reverse=True)
    assert len(figures) == 6
    assert document["suggestedWeights"] == [{"device": "devices/cpu-0", "weight": 100, "presentWeight": 100}]
    assert "weight = 100" in daemon.settings_path.read_text()
    rates = {(one["direction"], one["codec"], one["speed"]): one for one in device["rates"]}
    fast = rates["CODING_DIRECTION_ENCODE", "VIDEO_CODEC_H264", "ENCODING_SPEED_FAST"]
    assert (int(fast["pixelsPerSecond"]), fast["source"]) == (encodes[1], "calibration"), "of its one core"
    daemon.terminate()
    daemon.start()
    daemon.await_devices_ready()
    with daemon.client() as client:
        kept = client.get_device("cpu-0")
        assert (source_of(before), source_of(kept)) == ("default", "calibration")
        assert "calibrated on " in kept.loads[0].explanation
        forgotten = client.delete_calibration("cpu-0")
        assert (source_of(forgotten), forgotten.HasField("calibration")) == ("default", False)
