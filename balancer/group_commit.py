"""Group commit: changes of many sessions become durable in one transaction.

A commit costs a flush of the disk, and a thread that is woken, whether it carries one change or a hundred. So while one
commit runs the next changes gather, and after several came together, more are let in for as long as they keep coming.
Order is kept: what was submitted first becomes durable first, or together with what follows.

What could not be kept is either given up by its owner (an admission, which is then refused) or tried again until it
succeeds (what an agent reported is true, whether the disk is full or not).
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import structlog

from balancer.ports.session_store import Change, PutCursor, PutFinding, PutSession, RemoveSession, StoreError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from balancer.ports.session_store import SessionStore

_log = structlog.stdlib.get_logger(__name__)

_MAX_BATCH_WRITES = 512
_QUIET_TURNS = 16
"""Turns of the event loop in which a request that has arrived gets to its write, if there is one."""
_SHARED_ENOUGH = 64
"""Writes among which what a commit costs is shared out: nobody waits for more of them."""
_FIRST_PAUSE_S = 0.05
_LONGEST_PAUSE_S = 1.0
"""Between tries while the store fails; an admission made meanwhile waits at most this long for its refusal."""


@dataclass(slots=True, eq=False)
class Write:
    """Changes that become durable together, and who hears of it."""

    changes: tuple[Change, ...]
    on_durable: Callable[[], None]
    on_failed: Callable[[StoreError], None]
    """Called each time it could not be kept."""
    give_up: bool
    """Whether a write that could not be kept is dropped, rather than tried again."""


class GroupCommit:
    """The only one who commits to the store."""

    def __init__(self, store: SessionStore) -> None:
        """Begins with nothing to write."""
        self._store = store
        self._waiting: deque[Write] = deque()
        self._awake = asyncio.Event()

    def submit(self, write: Write) -> None:
        """Queues a write. Its owner hears of the outcome in the loop's thread."""
        self._waiting.append(write)
        self._awake.set()

    async def flush(self, *, give_up: bool = False) -> None:
        """Returns when everything submitted before is durable.

        Args:
            give_up: Whether to raise at the first failure, rather than wait until the store works again.

        Raises:
            StoreError: It could not be kept (yet).
        """
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def durable() -> None:
            if not done.done():
                done.set_result(None)

        def failed(error: StoreError) -> None:
            if give_up and not done.done():
                done.set_exception(error)

        self.submit(Write((), durable, failed, give_up))
        await done

    async def run(self) -> None:
        """Commits what is submitted, for ever."""
        pause_s = _FIRST_PAUSE_S
        several = False
        while True:
            if not self._waiting:
                self._awake.clear()
                await self._awake.wait()
            if several:
                await self._gather()
            batch = [self._waiting.popleft() for _ in range(min(len(self._waiting), _MAX_BATCH_WRITES))]
            try:
                changes = _latest(batch)
                several = len(changes) > 1
                if changes:
                    await self._store.commit(changes)
            except StoreError as error:
                self._failed(batch, error)
                await asyncio.sleep(pause_s)
                pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
            else:
                pause_s = _FIRST_PAUSE_S
                for write in batch:
                    write.on_durable()

    async def _gather(self) -> None:
        """Returns when nothing more comes, or enough is there. It takes the time of the requests on their way only."""
        gathered, quiet_turns = len(self._waiting), 0
        while quiet_turns < _QUIET_TURNS and gathered < _SHARED_ENOUGH:
            await asyncio.sleep(0)
            quiet_turns = quiet_turns + 1 if len(self._waiting) == gathered else 0
            gathered = len(self._waiting)

    def _failed(self, batch: list[Write], error: StoreError) -> None:
        kept = [write for write in batch if not write.give_up]
        _log.error("changes could not be kept", problem=str(error), changes=len(batch), tried_again=len(kept))
        self._waiting.extendleft(reversed(kept))
        for write in batch:
            write.on_failed(error)


def _latest(batch: Iterable[Write]) -> list[Change]:
    """Leaves of several changes of one session, or one cursor, the last: the batch is applied as a whole."""
    latest: dict[tuple[type, str], Change] = {}
    for write in batch:
        for change in write.changes:
            match change:
                case PutSession():
                    key = (PutSession, change.record.id)
                    before = latest.get(key)
                    if isinstance(before, PutSession) and before.decision:
                        decision = f"{before.decision}\n{change.decision}" if change.decision else before.decision
                        change = replace(change, decision=decision)
                    latest[key] = change
                case RemoveSession():
                    latest[(PutSession, change.session_id)] = change
                case PutCursor():
                    latest[(PutCursor, change.device_id)] = change
                case PutFinding():
                    latest[(PutFinding, change.key)] = change
    return list(latest.values())
