"""The section [restart] of balancer.toml: what becomes of sessions whose attempt ends short of its work."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from balancer.domain.restart import LOST_REASONS, PASSING_REASONS
from gpu_balancer.runtime.settings_values import Distinct, Section, refuse


def _passing(reason: str) -> str:
    if reason not in PASSING_REASONS:
        raise ValueError(f"must be one of {', '.join(sorted(PASSING_REASONS))}; {reason!r} is none of them")
    return reason


class RestartSettings(Section):
    """What becomes of sessions whose attempt ends short of its work, where their clients say nothing of it."""

    mode: Literal["never", "on_failure", "always"] = "on_failure"
    """When they begin anew: "never", "on_failure", or "always", which is also when a live input ends by itself."""
    max_restarts: Annotated[int, Field(ge=1, le=1000)] = 3
    """Restarts in a row, 1 to 1,000, after which a session fails."""
    first_backoff_s: Annotated[float, Field(ge=0, le=3600, allow_inf_nan=False)] = 1.0
    """Seconds before the first restart of a row, up to an hour; doubled before each further one."""
    longest_backoff_s: Annotated[float, Field(ge=0, le=86_400, allow_inf_nan=False)] = 60.0
    """Seconds before a restart at most, up to a day."""
    reasons: Annotated[Distinct[Annotated[str, AfterValidator(_passing)]], Field(min_length=1)] = tuple(
        sorted(LOST_REASONS)
    )
    """Failures that count, by their reason."""
    lost_after_s: Annotated[float, Field(ge=0, le=86_400, allow_inf_nan=False)] = 60.0
    """Seconds of silence after which a session whose agent does not answer goes on elsewhere; 0: never."""

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.longest_backoff_s < self.first_backoff_s:
            refuse([(("longest_backoff_s",), f"must not be below first_backoff_s, which is {self.first_backoff_s:g}")])
        return self
