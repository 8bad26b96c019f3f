"""The agent's folder for what nobody misses once it has ended."""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


def take_temporary_folder(folder: Path) -> None:
    """Empties a folder, and has everything of this process put its temporary files there.

    What drives browsers leaves some when it is killed. On a full disk nothing is changed.

    Args:
        folder: Made when it is missing.
    """
    shutil.rmtree(folder, ignore_errors=True)
    with suppress(OSError):
        folder.mkdir(mode=0o700, exist_ok=True)
        os.environ["TMPDIR"] = str(folder)
