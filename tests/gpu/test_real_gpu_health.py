"""The health of a real GPU: its driver is asked and listened to as the fake one is, and kills are no fault of it."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from typing import TYPE_CHECKING

import imageio_ffmpeg
import pytest

from agents.devices.nvml_health import GpuHealthEye
from agents.health.record import HealthRecord, Moment, after_reading, after_xid, health_of
from gpu_balancer.runtime.clock import SystemClock

if TYPE_CHECKING:
    from pathlib import Path

    from agents.devices.identity import DeviceIdentity

pytestmark = [pytest.mark.gpu, pytest.mark.process, pytest.mark.timeout(120)]

FFMPEG = imageio_ffmpeg.get_ffmpeg_exe()


@pytest.fixture
def eye(gpu: DeviceIdentity) -> Iterator[GpuHealthEye]:
    """An eye on the GPU."""
    made = GpuHealthEye(gpu)
    yield made
    made.close()


def now() -> Moment:
    clock = SystemClock()
    return Moment(time=clock.now(), monotonic_s=clock.monotonic_s())


def test_a_gpu_that_works_is_not_ill(eye: GpuHealthEye) -> None:
    reading = eye.look()
    assert (reading.error, reading.all_gpus_lost) == (None, False)
    assert reading.recovery_action in (0, None)
    assert reading.temperature_celsius is not None
    assert not health_of(after_reading(HealthRecord(), reading, now())).state.bars
    eye.close()
    assert eye.look().error is None, "let go and taken again"


def test_a_program_that_is_killed_while_it_uses_the_gpu_counts_for_nothing(
    eye: GpuHealthEye, gpu: DeviceIdentity, film: Path
) -> None:
    """Some drivers report XID 45 then, others nothing."""
    eye.look()
    record = HealthRecord()
    command = [FFMPEG, "-hide_banner", "-stats_period", "0.1", "-hwaccel", "cuda", "-hwaccel_output_format", "cuda"]
    command += ["-stream_loop", "-1", "-i", str(film), "-an", "-f", "null", "-progress", "pipe:1", "-"]
    for _ in range(3):
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env={"CUDA_VISIBLE_DEVICES": gpu.id}
        ) as decoding:
            assert decoding.stdout is not None
            decoding.stdout.readline()
            decoding.kill()
        for xid in eye.wait(1) or ():
            record = after_xid(record, xid, now())
        record = after_reading(record, eye.look(), now())
    assert not health_of(record).state.bars
