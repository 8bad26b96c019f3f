"""Who took over what an attempt has made, noted in its folder.

An attempt that its agent began, and that nobody heard of, may have taken over all that there is: its folder is then
known to none but the folders that it took from. So whoever goes on next follows the notes.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from gpu_balancer.runtime.durable_file import write_durably

if TYPE_CHECKING:
    from agents.sessions.folder import AttemptFolder

_FILE = "taken-over-by"
_MOST_BYTES = 1 << 16
_LOG = logging.getLogger(__name__)


def note_taker(source: AttemptFolder, taker: AttemptFolder) -> None:
    """Notes who takes over, before it does. Blocks; may be repeated. A disk that is full keeps nobody from going on."""
    try:
        write_durably(source.path / _FILE, bytes(taker.path))
    except OSError as error:
        _LOG.warning("Cannot note that %s takes over from %s: %s", taker.key, source.key, error.strerror)


def taker_of(source: AttemptFolder) -> Path | None:
    """Gives the folder of the attempt that took over last. Blocks. None: none is known."""
    try:
        with (source.path / _FILE).open("rb") as file:
            noted = file.read(_MOST_BYTES)
    except OSError:
        return None
    return Path(noted.decode(errors="surrogateescape")) if noted else None
