"""Finds and ends processes that carry this agent's mark and belong to nothing that it knows: orphans.

They come to be when an attempt's folder is removed or damaged under it, when an agent is killed between starting a
process and knowing it, or when a program leaves something behind that let go of its attempt's lock. Nobody would stop
them, and they may write outputs of a newer attempt.

Looked for before the agent serves, so that what it does not know does not run, whenever an attempt has ended, and every
minute. Attempts that are known and have not ended are left alone, and so is everything that another agent has started.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
from collections import Counter
from datetime import timedelta
from typing import TYPE_CHECKING

from agents.lock_holders import send
from agents.process_marks import OwnerKind, find_marked, hold_marked
from agents.sessions.folder import marked_attempt

if TYPE_CHECKING:
    from collections.abc import Callable

    from agents.process_marks import Mark
    from agents.sessions.attempt import AttemptKey
    from gpu_balancer.runtime.clock import Clock

_LOG = logging.getLogger(__name__)
_EVERY = timedelta(minutes=1)
_AGAIN_S = 0.05
_AFTER_END_S = 1.0
"""After an end: many may come at once, and are looked after together."""


class OrphanSweep:
    """Ends orphans of one agent."""

    def __init__(self, life: Mark, *, is_live: Callable[[AttemptKey], bool], clock: Clock) -> None:
        """Looks for nothing yet.

        Args:
            life: The mark of this life of the agent, which its own processes carry.
            is_live: Tells whether an attempt is known and has not ended, launches on their way included.
            clock: Bounds a sweep.
        """
        self._life = life
        self._is_live = is_live
        self._clock = clock
        self._woken = asyncio.Event()

    def wake(self) -> None:
        """Has orphans looked for soon: an attempt has ended."""
        self._woken.set()

    async def run(self) -> None:
        """Sweeps from time to time. Never returns."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_EVERY.total_seconds()):
                    await self._woken.wait()
            self._woken.clear()
            await asyncio.sleep(_AFTER_END_S)
            await self.sweep(within=_EVERY)

    async def sweep(self, *, within: timedelta) -> None:
        """Ends every orphan that there is now, and those that they start meanwhile.

        Args:
            within: How long to go on when some do not go.
        """
        give_up_s = self._clock.monotonic_s() + within.total_seconds()
        ended: Counter[str] = Counter()
        while met := await self._end_once():
            # A process that does not go at once is met again and is still one.
            ended |= met
            if self._clock.monotonic_s() >= give_up_s:
                _LOG.error("Cannot end orphans: %s do not go; trying again later", _told(met))
                break
            await asyncio.sleep(_AGAIN_S)
        if ended:
            _LOG.error("Ended processes that belonged to nothing here: %s", _told(ended))

    async def _end_once(self) -> Counter[str]:
        """Kills the orphans that there are and gives their number by what they claimed to be."""
        found = await asyncio.to_thread(find_marked, self._life.agent)
        orphans = {pid: mark for pid, mark in found.items() if self._is_orphan(mark)}
        if not orphans:
            return Counter()
        held = await asyncio.to_thread(hold_marked, orphans)
        met: Counter[str] = Counter()
        try:
            for descriptor, mark in held.items():
                # Asked again: an attempt may have been launched since its processes were met.
                if self._is_orphan(mark) and send(descriptor, signal.SIGKILL):
                    met[_claim(mark)] += 1
        finally:
            for descriptor in held:
                with contextlib.suppress(OSError):
                    os.close(descriptor)
        return met

    def _is_orphan(self, mark: Mark) -> bool:
        match mark.kind:
            case OwnerKind.SESSION:
                key = marked_attempt(mark)
                return key is not None and not self._is_live(key)
            case OwnerKind.AGENT:
                return mark.name != self._life.name
            case OwnerKind.DISPLAY:
                # The pool of displays ends its own.
                return False


def _claim(mark: Mark) -> str:
    key = marked_attempt(mark)
    return "an earlier life of this agent" if key is None else str(key)


def _told(orphans: Counter[str]) -> str:
    return ", ".join(f"{count} of {claim}" for claim, count in sorted(orphans.items()))
