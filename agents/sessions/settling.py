"""What attempts left open for further ones that never came: it is completed, or with the session removed."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from agents.sessions.output_folders import unmark_presentations
from agents.sessions.output_moves import remove_parts, unfinished_parts
from agents.sessions.playlist_asides import forget_asides

if TYPE_CHECKING:
    from agents.sessions.attempt import AttemptKey
    from agents.sessions.records import AnyRecord
    from agents.sessions.running import Runner

_LOG = logging.getLogger(__name__)


class Settling:
    """The attempts that are being settled: each once at a time, however often that is asked for."""

    def __init__(self) -> None:
        self._settled: dict[AttemptKey, asyncio.Future[None]] = {}

    async def settle(self, key: AttemptKey, runner: Runner) -> None:
        """Has an attempt's runner settle it, or waits while another does.

        What cannot be settled stays in parts, and is logged: the session's end must not wait for it for ever.

        Args:
            key: Which attempt.
            runner: One that watches over nothing.
        """
        if (settled := self._settled.get(key)) is not None:
            await settled
            return
        settled = self._settled[key] = asyncio.get_running_loop().create_future()
        try:
            await runner.settle()
        except Exception:  # noqa: BLE001 - whatever it is, the session has ended, and its parts are there
            _LOG.exception("Cannot complete what %s left open; it stays in parts", key)
        finally:
            del self._settled[key]
            settled.set_result(None)


def remove_outside(record: AnyRecord, session: str) -> None:
    """Removes what an attempt left outside of its folder that is nobody's artifact. Blocks for the disk."""
    remove_parts(record.every_move, only_empty=False)
    forget_asides(record.playlists, session)
    unmark_presentations(record.presentations, session)
    if left := unfinished_parts(record.every_move):
        _LOG.warning("Cannot remove unfinished files of sessions/%s, which was deleted: %s", session, ", ".join(left))
