"""What an attempt could not take over from earlier ones, noted in its folder: at its end, it is told."""

from __future__ import annotations

import contextlib
import logging
from typing import TYPE_CHECKING

from pydantic import TypeAdapter, ValidationError

from gpu_balancer.runtime.durable_file import write_durably

if TYPE_CHECKING:
    from collections.abc import Sequence

    from agents.sessions.folder import AttemptFolder

_FILE = "left.json"
_LEFT = TypeAdapter(tuple[str, ...])
_LOG = logging.getLogger(__name__)


def note_left(folder: AttemptFolder, left: Sequence[str]) -> None:
    """Notes what was left where it is, in place of what was noted before. Blocks; may be repeated.

    It is told at best: a disk that is full keeps nobody from going on.

    Args:
        folder: Of the attempt that goes on.
        left: From which attempt, and why, for people.
    """
    try:
        if left:
            write_durably(folder.path / _FILE, _LEFT.dump_json(tuple(left)))
        else:
            (folder.path / _FILE).unlink(missing_ok=True)
    except OSError as error:
        _LOG.warning("Cannot note what %s has left: %s", folder.key, error.strerror)


def left_by(folder: AttemptFolder) -> tuple[str, ...]:
    """Reads what an attempt has left where it is. Blocks."""
    with contextlib.suppress(OSError, ValidationError):
        return _LEFT.validate_json((folder.path / _FILE).read_bytes())
    return ()
