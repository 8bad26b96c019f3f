"""Has a local agent replaced that lives but does not answer: its sessions run on and the next agent adopts them.

An agent that hangs, in a driver or because somebody stopped it, is no end of a process that its launcher would see. It
is killed only when it has said nothing for long, the socket on which it once answered takes connections that nobody
serves, and it does not answer when it is asked once more. An agent that is still starting has no socket yet: to adopt
what it found may take as long as the disk takes, and to kill it would only begin that anew, so it gets much longer.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Protocol

import structlog

from balancer.ports.agent_client import AgentUnreachableError
from gpu_balancer.runtime.failures import RequestFailure

if TYPE_CHECKING:
    from datetime import timedelta

    from balancer.domain.ids import DeviceId
    from balancer.ports.agent_client import AgentClient
    from gpu_balancer.runtime.clock import Clock

_log = structlog.stdlib.get_logger(__name__)

_LOOKED_EVERY_S = 1.0
_ASKED_FOR_S = 5.0
"""How long an agent is asked for a last sign before it is killed."""
_ASKED_AGAIN_S = 0.5
STARTING_FACTOR = 6
"""How much longer an agent may take that does not listen yet."""


class ReplaceableProcess(Protocol):
    """The process of a local agent, as its launcher has it."""

    @property
    def running_s(self) -> float | None:
        """Seconds since it was started or found. None: there is none now."""
        ...

    def listens(self) -> bool:
        """Tells whether its socket takes connections, served or not."""
        ...

    def kill(self) -> bool:
        """Kills it; its launcher starts another one. Returns False when there is none any more."""
        ...


class Silence(Protocol):
    """Who listens to the agent."""

    @property
    def silence_s(self) -> float:
        """Seconds since it was heard."""
        ...


async def replace_when_hung(
    device_id: DeviceId,
    process: ReplaceableProcess,
    *,
    heard: Silence,
    agent: AgentClient,
    after: timedelta,
    clock: Clock,
) -> None:
    """Kills the agent whenever it hangs. Never returns.

    Args:
        device_id: Whose agent it is.
        process: Its process.
        heard: Tells how long it has said nothing.
        agent: Asks it once more.
        after: Silence after which it counts as hung.
        clock: Bounds the asking.
    """
    while True:
        await asyncio.sleep(_LOOKED_EVERY_S)
        if not _seems_hung(process, heard, after) or await _answers(agent, clock):
            continue
        # It may have been replaced, or heard, while it was asked.
        running_s = process.running_s
        if running_s is not None and _seems_hung(process, heard, after) and process.kill():
            _log.error(
                "killed an agent that did not answer; its sessions run on and the next one adopts them",
                device=device_id,
                silence_s=round(heard.silence_s),
            )
            await _gone(process, running_s)


def _seems_hung(process: ReplaceableProcess, heard: Silence, after: timedelta) -> bool:
    running_s = process.running_s
    if running_s is None:
        return False
    quiet_s = min(heard.silence_s, running_s)
    if quiet_s < after.total_seconds():
        return False
    return process.listens() or quiet_s >= STARTING_FACTOR * after.total_seconds()


async def _gone(process: ReplaceableProcess, running_s: float) -> None:
    """Waits until a killed process has gone, which takes as long as the driver or disk that it waits for."""
    # No event: what it waits for tells nobody.
    while (now_s := process.running_s) is not None and now_s >= running_s:  # noqa: ASYNC110
        await asyncio.sleep(_LOOKED_EVERY_S)


async def _answers(agent: AgentClient, clock: Clock) -> bool:
    """Asks an agent for a while whether it is there; also a refusal is an answer."""
    give_up_s = clock.monotonic_s() + _ASKED_FOR_S
    while (left_s := give_up_s - clock.monotonic_s()) > 0:
        try:
            async with asyncio.timeout(left_s):
                await agent.describe()
        except RequestFailure:
            return True
        except (AgentUnreachableError, TimeoutError):
            await asyncio.sleep(_ASKED_AGAIN_S)
        else:
            return True
    return False
