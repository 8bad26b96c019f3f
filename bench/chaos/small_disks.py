"""Small file systems that can be filled to the last byte and emptied again. Only root may make them."""

from __future__ import annotations

import os
import subprocess
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_FILLER = "filler"
_BLOCK = bytes(4096)


@dataclass(frozen=True, slots=True, kw_only=True)
class SmallDisk:
    """A file system of its own."""

    kind: str
    """The act that fills it."""
    place: Path

    def fill(self) -> None:
        """Takes all room that is left."""
        status = os.statvfs(self.place)
        with suppress(OSError), (self.place / _FILLER).open("ab", buffering=0) as file:
            with suppress(OSError):
                # Others take of it meanwhile: what was left may be less by now, and then nothing is taken here.
                os.posix_fallocate(file.fileno(), 0, max(1, status.f_bavail * status.f_frsize))
            while True:
                file.write(_BLOCK)

    def empty(self) -> None:
        """Gives the room back."""
        (self.place / _FILLER).unlink(missing_ok=True)


@contextmanager
def small_disk(kind: str, place: Path, *, size_mib: int) -> Iterator[SmallDisk | None]:
    """Puts a small file system over a folder that exists, and takes it away again.

    Args:
        kind: The act that fills it.
        place: The folder.
        size_mib: Its size.

    Yields:
        The disk. None: this user may not mount, and the folder stays as it is.
    """
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size_mib}m,mode=0700", "gpu-balancer-chaos", str(place)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        yield None
        return
    try:
        yield SmallDisk(kind=kind, place=place)
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=False)
