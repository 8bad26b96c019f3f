"""What an agent's refusals become for the balancer's clients: the same reasons, with the paths of their requests."""

from __future__ import annotations

from contextlib import aclosing, contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar, cast

from balancer.ports.agent_client import AgentUnreachableError
from gpu_balancer.runtime.failures import Reason, RequestFailure, Violation

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping

Item = TypeVar("Item")

TRANSCODE_PATHS = {
    "plan.transcode": "session.transcode",
    "plan.recording": "session.recording",
    "input": "session.transcode.input",
    "outputs": "session.transcode.outputs",
}
"""Beginnings of field paths in requests to agents, and what they are in those of clients."""
RECORDING_PATHS = {**TRANSCODE_PATHS, "outputs": "session.recording.outputs"}


@contextmanager
def agent_failures(what: str, paths: Mapping[str, str] = TRANSCODE_PATHS) -> Iterator[None]:
    """Tells failures of the block, in which an agent is asked, in the words of the balancer's client.

    Args:
        what: What the balancer wanted, after "Cannot ".
        paths: What the beginnings of field paths become; the first that fits counts.

    Raises:
        RequestFailure: The agent's own, with the client's field paths; AGENT_UNREACHABLE when it did not answer.
    """
    try:
        yield
    except RequestFailure as failure:
        raise replace(failure, violations=tuple(_repathed(one, paths) for one in failure.violations)) from failure
    except (AgentUnreachableError, TimeoutError) as error:
        raise unreachable(what, error) from error


def unreachable(what: str, error: Exception | None = None) -> RequestFailure:
    """Makes the failure of a request that needs an agent which does not answer."""
    told = str(error) if error and str(error) else "its agent does not answer"
    return RequestFailure(
        reason=Reason.AGENT_UNREACHABLE, message=f"Cannot {what}: {told.rstrip('.')}. Try again when the agent runs."
    )


async def forwarded(stream: AsyncIterator[Item], what: str) -> AsyncGenerator[Item, None]:
    """Gives on what an agent streams, no faster than it is read, and ends the agent's call when it is closed.

    Raises:
        RequestFailure: As `agent_failures`.
    """
    with agent_failures(what):
        # A port may give any iterator; those of agents are generators, which must be closed at once and not when they
        # are collected.
        if hasattr(stream, "aclose"):
            async with aclosing(cast("AsyncGenerator[Any, None]", stream)) as open_stream:
                async for item in open_stream:
                    yield item
        else:
            async for item in stream:
                yield item


def _repathed(violation: Violation, paths: Mapping[str, str]) -> Violation:
    """Turns the path of the agent's request into that of the client's."""
    for beginning, told in paths.items():
        if violation.field.startswith(beginning):
            return replace(violation, field=told + violation.field.removeprefix(beginning))
    return violation
