"""Completes what failed attempts left open for further ones, each once at a time however often that is asked for."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from agents.sessions.attempt import AttemptKey
    from agents.sessions.running import Runner

_LOG = logging.getLogger(__name__)


class Settling:
    """The attempts that are being settled."""

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
