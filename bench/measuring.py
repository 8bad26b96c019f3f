"""Paired measurements: A B A B …, so that a machine whose speed drifts treats both sides alike."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Spent:
    """What one run took."""

    wall_s: float
    cpu_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One claim and what was found."""

    name: str
    value: float
    unit: str
    bound: str
    """The figure asked for, such as "<= 1.03"."""
    detail: str = ""

    def __str__(self) -> str:
        shown = f"{self.value:.3f}" if abs(self.value) < 100 else f"{self.value:.0f}"
        return f"{self.name:<52} {shown:>9} {self.unit:<8} asked {self.bound:<9} {self.detail}"


def run_spent(argv: Sequence[str], *, environment: dict[str, str] | None = None) -> Spent:
    """Runs a program to its end, silently, and tells what it and its children took.

    Raises:
        RuntimeError: It failed; its last lines are in the message.
    """
    began = time.monotonic()
    process = subprocess.Popen(
        argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=environment
    )
    assert process.stderr is not None
    told = process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{argv[0]} ended with {process.returncode}:\n{told.decode(errors='replace')[-2000:]}")
    return Spent(wall_s=time.monotonic() - began, cpu_s=usage.ru_utime + usage.ru_stime)


def pairs(first: Callable[[], float], second: Callable[[], float], *, count: int) -> list[tuple[float, float]]:
    """Measures both sides in turn, after one uncounted run of each."""
    first(), second()
    return [(first(), second()) for _ in range(count)]


def median_ratio(measured: Sequence[tuple[float, float]]) -> float:
    """Gives the median of first / second, pair by pair."""
    return statistics.median(first / second for first, second in measured)


def spread(values: Sequence[float], unit: str) -> str:
    """Writes minimum, median and maximum for people."""
    return f"min {min(values):.3f}, median {statistics.median(values):.3f}, max {max(values):.3f} {unit}"


def make_video(ffmpeg: str, path: Path, *, seconds: int, size: str = "1280x720") -> None:
    """Makes a video with moving content and sound."""
    command = [ffmpeg, "-hide_banner", "-loglevel", "error", "-y", "-f", "lavfi", "-i", f"testsrc2=size={size}:rate=30"]
    command += ["-f", "lavfi", "-i", "sine=frequency=440:sample_rate=48000", "-t", str(seconds), "-c:v", "libx264"]
    command += ["-preset", "veryfast", "-pix_fmt", "yuv420p", "-c:a", "aac", str(path)]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)


def process_cpu_s(pid: int) -> float:
    """Reads the processor time that a living process itself has used so far."""
    fields = (open(f"/proc/{pid}/stat").read().rpartition(")")[2]).split()  # noqa: PTH123, SIM115 - one read
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def report(title: str, figures: Sequence[Figure], output: Path | None) -> None:
    """Prints figures, and adds them to a JSON lines file when one is given."""
    print(f"\n{title}")
    for figure in figures:
        print(f"  {figure}")
    if output is not None:
        with output.open("a") as file:
            for figure in figures:
                file.write(
                    json.dumps({"benchmark": title, "name": figure.name, "value": figure.value, "unit": figure.unit})
                )
                file.write("\n")
