"""How heavy the daemons are and how fast they are there."""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

from bench.daemons import bench_daemon
from bench.measuring import Figure, spread
from bench.stand_ins import StandInGpus


def measure(*, runs: int = 5, gpu_count: int = 8, probed: bool = True) -> list[Figure]:
    """Measures start times, memory, and the command's help.

    Args:
        runs: Counted starts.
        gpu_count: GPUs that are stood in for while memory is read.
        probed: Whether they are probed before. Otherwise they find what a probe of theirs leaves behind.
    """
    return [_help(runs), *_starts(runs), *_memory(gpu_count, probed=probed)]


def _help(runs: int) -> Figure:
    command = [str(Path(sys.executable).parent / "gpu-balancer"), "--help"]

    def once() -> float:
        began = time.monotonic()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        return time.monotonic() - began

    once()
    times = [once() for _ in range(runs)]
    return Figure(
        name="gpu-balancer --help", value=statistics.median(times), unit="s", bound="<= 0.3", detail=spread(times, "s")
    )


def _starts(runs: int) -> list[Figure]:
    """Starts on fresh state folders (the golden probe runs), and again on the same ones (its results are kept)."""
    serving, first, again = [], [], []
    for _ in range(runs):
        with tempfile.TemporaryDirectory(prefix="gpu-balancer-bench-") as scratch:
            for readies in (first, again):
                with bench_daemon('[ffmpeg]\ncandidates = ["bundled"]\n', folder=Path(scratch)) as daemon:
                    serving.append(daemon.await_serving())
                    readies.append(daemon.await_ready())
    return [
        Figure(
            name="start: SERVING", value=statistics.median(serving), unit="s", bound="<= 2", detail=spread(serving, "s")
        ),
        Figure(
            name="start: READY, probed anew",
            value=statistics.median(first),
            unit="s",
            bound="<= 6",
            detail=spread(first, "s"),
        ),
        Figure(
            name="start: READY, probe kept",
            value=statistics.median(again),
            unit="s",
            bound="<= 2",
            detail=spread(again, "s"),
        ),
    ]


def _memory(gpu_count: int, *, probed: bool) -> list[Figure]:
    """Reads resident memory with GPUs that are stood in for by the tests' NVML library and ffmpeg."""
    with tempfile.TemporaryDirectory(prefix="gpu-balancer-bench-") as scratch:
        folder = Path(scratch)
        gpus = StandInGpus(folder, {f"GPU-bench-{number}": "NVIDIA L4" for number in range(gpu_count)}, lacking=())
        if not probed:
            gpus.keep_probe_results(folder / "state" / "agents")
        settings = f'[ffmpeg]\ncandidates = ["{gpus.program}"]\n'
        with bench_daemon(settings, folder=folder, environment=gpus.environment) as daemon:
            daemon.await_ready(timeout_s=300)
            balancer = psutil.Process(daemon.process.pid).memory_info().rss / 2**20
            agents = [psutil.Process(pid).memory_info().rss / 2**20 for pid in daemon.agent_pids()]
    return [
        Figure(name=f"memory: balancer with {gpu_count} devices", value=balancer, unit="MiB", bound="<= 90"),
        Figure(
            name="memory: agent, idle", value=max(agents), unit="MiB", bound="<= 70", detail=f"largest of {len(agents)}"
        ),
    ]
