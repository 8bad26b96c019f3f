"""What the registry needs of whoever watches over a live attempt, and what a launch gives it to watch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Protocol

from agents.sessions.attempt_health import USUAL_BOUNDS, HealthBounds

if TYPE_CHECKING:
    from agents.sessions.attempt import StopCause
    from agents.sessions.records import AnyRecord
    from agents.sessions.session_trace import SessionTrace
    from agents.sessions.status_book import Attempt


@dataclass(frozen=True, slots=True, kw_only=True)
class RunnerSettings:
    """How attempts are run."""

    stop_timeout: timedelta = timedelta(seconds=8)
    """How long a program may complete its outputs before it is killed."""
    log_limit_bytes: int = 16 * 1024 * 1024
    log_tail_lines: int = 20
    health: HealthBounds = USUAL_BOUNDS
    """What is still taken for healthy."""


class Runner(Protocol):
    """Watches over one attempt until nothing of it runs and its end is told. Cancelled, it leaves processes alone.

    It MUST find out by the attempt's folder where the attempt stands: it may have been launched by another agent.
    """

    async def stop(self, cause: StopCause, *, discard_outputs: bool = False, to_be_continued: bool = False) -> None:
        """Asks the attempt to complete its outputs and end; durable before it returns. The first cause holds.

        Args:
            cause: Why.
            discard_outputs: Throws away what it made.
            to_be_continued: Leaves its outputs open for another attempt.
        """
        ...

    def pace(self, speed_limit: float | None) -> None:
        """Holds it at a speed, in times real time, if it can be held. None: lets it go."""
        ...

    async def settle(self) -> None:
        """Makes up for what was left for another attempt, of one that failed and that none goes on with."""
        ...

    async def give_up(self) -> None:
        """Gives back what it holds of the agent's, when nobody is to watch over the attempt any more."""
        ...

    async def watch(self, shim: int | None = None) -> None:
        """Watches until the attempt has ended and that was told.

        Args:
            shim: Process id of its shim when that is the agent's own child. None: it is to be found.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Launched:
    """An attempt that was started and has to be watched."""

    attempt: Attempt
    record: AnyRecord
    trace: SessionTrace
    shim: int | None = None
    """Process id of its shim, the agent's own child. None: it has none yet."""
    speed_limit: float | None = None
    """The speed at which it begins, in times real time. None: as fast as it goes."""


RunnerMaker = Callable[["Attempt", "AnyRecord", "SessionTrace"], Runner]
"""Makes the runner of an attempt."""
