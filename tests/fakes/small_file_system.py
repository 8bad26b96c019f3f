"""Small file systems, for tests of full disks, and folders that take nothing. Others' tests than root's are skipped."""

from __future__ import annotations

import contextlib
import os
import subprocess
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_BLOCK = bytes(4096)


@contextlib.contextmanager
def small_file_system(place: Path, *, size: str) -> Iterator[Path]:
    """Makes a folder with a file system of its own, and takes it away again.

    Args:
        place: The folder, which does not exist.
        size: As tmpfs has it, "24m".
    """
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "gpu-balancer-test", str(place)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("needs the right to mount a file system")
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)


@contextlib.contextmanager
def read_only(place: Path) -> Iterator[None]:
    """Has a folder take nothing more for a while; what is open for writing already goes on being written."""
    commands = (["mount", "--bind", str(place), str(place)], ["mount", "-o", "remount,ro,bind", str(place)])
    if os.geteuid() != 0 or any(subprocess.run(one, capture_output=True, check=False).returncode for one in commands):
        pytest.skip("needs the right to mount a file system")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)


def fill(place: Path, *, leave_bytes: int = 0) -> Path:
    """Takes all room of a file system but so many bytes; gives the file that takes it."""
    filler = place / "filler"
    told = os.statvfs(place)
    room = told.f_bavail * told.f_frsize - leave_bytes
    with filler.open("ab", buffering=0) as file:
        with contextlib.suppress(OSError):
            # Others take some of it meanwhile: then nothing is taken here.
            os.posix_fallocate(file.fileno(), 0, max(room, 1))
        with contextlib.suppress(OSError):
            while not leave_bytes:
                file.write(_BLOCK)
    return filler
