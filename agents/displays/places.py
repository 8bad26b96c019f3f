"""Places for displays in use: so many at once, given in the order in which they were asked for."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque


class Places:
    """Who has a place, by name, and who waits for one."""

    def __init__(self, count: int) -> None:
        """Makes places, all free.

        Args:
            count: How many.
        """
        self.count = count
        self._taken: set[str] = set()
        self._waiting: deque[tuple[str, asyncio.Future[None]]] = deque()

    @property
    def taken_count(self) -> int:
        """Places that are taken; more than there are, when more were adopted."""
        return len(self._taken)

    async def take(self, holder: str) -> None:
        """Awaits a place. Whoever is cancelled while waiting has none.

        Args:
            holder: For whom.
        """
        if not self._waiting and len(self._taken) < self.count:
            self._taken.add(holder)
            return
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append((holder, turn))
        try:
            await turn
        except asyncio.CancelledError:
            if turn.cancelled():
                with contextlib.suppress(ValueError):
                    self._waiting.remove((holder, turn))
            else:
                self.give_back(holder)
            raise

    def adopt(self, holder: str) -> None:
        """Takes a place for somebody who has a display already, whether one is free or not."""
        self._taken.add(holder)

    def rename(self, holder: str, new_holder: str) -> None:
        """Lets a place be held under another name."""
        self._taken.remove(holder)
        self._taken.add(new_holder)

    def give_back(self, holder: str) -> None:
        """Gives a place to whoever waits longest. A holder without a place is no mistake."""
        self._taken.discard(holder)
        while self._waiting and len(self._taken) < self.count:
            next_holder, turn = self._waiting.popleft()
            if turn.cancelled():
                continue
            self._taken.add(next_holder)
            turn.set_result(None)
