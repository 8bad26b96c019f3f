"""What a balancer that starts awaits of its agents before it says that it serves: one bounded wait for all of them.

An agent counts as reconciled once everything that it kept was heard and what lives there was compared with the store.
Before that a session may be shown as running that has ended, and a device as empty on which a stray runs. An agent that
does not answer in time must not keep the others from being used: it is told as unreachable later, and reconciled
whenever it comes.
"""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import TYPE_CHECKING

import structlog

from gpu_balancer.runtime.failures import Reason, RequestFailure

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from balancer.domain.ids import DeviceId

_log = structlog.stdlib.get_logger(__name__)
_LONGEST_WAIT = timedelta(seconds=10)
"""For which a request is held back; shorter than clients wait for an answer."""
_RETRY_AFTER = timedelta(seconds=1)


class StartReconciliation:
    """The agents that are still awaited. Once over, it is over for good."""

    def __init__(self) -> None:
        """Awaits nobody yet."""
        self._awaited: set[DeviceId] = set()
        self._heard: set[DeviceId] = set()
        self._changed = asyncio.Event()
        self._over = asyncio.Event()

    def expect(self, device_ids: Iterable[DeviceId]) -> None:
        """Has the agents of devices awaited, but those that were reconciled already."""
        self._awaited |= set(device_ids) - self._heard

    def reconciled(self, device_id: DeviceId) -> None:
        """Notes that a device's agent was heard and compared with."""
        self._heard.add(device_id)
        self._awaited.discard(device_id)
        self._changed.set()

    async def run(self, within: timedelta, flush: Callable[[], Awaitable[None]]) -> tuple[DeviceId, ...]:
        """Waits for the agents, then for what they told to be durable, and lets requests through.

        Args:
            within: For both together.
            flush: Returns when what was taken is durable.

        Returns:
            The devices whose agents have not been heard.
        """
        try:
            async with asyncio.timeout(within.total_seconds()):
                while self._awaited:
                    self._changed.clear()
                    await self._changed.wait()
                await flush()
        except TimeoutError:
            _log.warning(
                "serving before everything is known; who did not answer is reconciled as soon as it does",
                not_answered=sorted(self._awaited),
                waited_s=within.total_seconds(),
            )
        self._over.set()
        return tuple(sorted(self._awaited))

    async def over(self) -> None:
        """Holds a request back until the balancer knows what its agents run.

        Raises:
            RequestFailure: NO_DEVICE_READY when that takes long; asking again soon may help.
        """
        if self._over.is_set():
            return
        try:
            async with asyncio.timeout(_LONGEST_WAIT.total_seconds()):
                await self._over.wait()
        except TimeoutError:
            raise RequestFailure(
                reason=Reason.NO_DEVICE_READY,
                message="Cannot take the session: the balancer is still finding its devices. Try again soon.",
                retry_after=_RETRY_AFTER,
            ) from None
