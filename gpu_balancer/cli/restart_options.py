"""What may be typed of restarts, by everything that starts a session, and the policy that it makes."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from gpu_balancer.v1.session_pb2 import RestartPolicy

_LONGEST_BACKOFF = timedelta(hours=1)


class RestartChoice(StrEnum):
    """When a session begins again by itself."""

    NEVER = "never"
    ON_FAILURE = "on-failure"
    ALWAYS = "always"


@dataclass(frozen=True, slots=True, kw_only=True)
class RestartOptions:
    """What becomes of a session whose attempt ends short of its work."""

    restart: Annotated[
        RestartChoice | None,
        typer.Option(
            "--restart",
            help="Begin again when it fails; always: also when its live input ends. Default: as the daemon's settings "
            "say, which is on the loss of a device or an agent.",
        ),
    ] = None
    max_restarts: Annotated[
        int | None,
        typer.Option(
            "--max-restarts", metavar="N", min=1, max=1000, help="Restarts in a row at most. Default: the daemon's, 3."
        ),
    ] = None
    restart_backoff: Annotated[
        str | None,
        typer.Option(
            "--restart-backoff",
            metavar="TIME",
            help="Pause before the first restart of a row; it doubles. Default: the daemon's, 1 s.",
        ),
    ] = None
    restart_on: Annotated[
        list[str],
        typer.Option(
            "--restart-on",
            metavar="REASON",
            help="A failure that counts, INPUT_LOST for instance. Repeatable. Default: all that may pass.",
        ),
    ] = field(default_factory=list)


def typed_restart(options: RestartOptions) -> RestartPolicy | None:
    """Makes a policy of its options. None: nothing was said, so the daemon's settings count.

    Raises:
        Misuse: When something typed cannot be meant.
    """
    from gpu_balancer.cli.invocation import Misuse, spelled
    from gpu_balancer.client.spelling import parse_time
    from gpu_balancer.v1 import session_pb2

    told = options.max_restarts is not None or options.restart_backoff is not None or bool(options.restart_on)
    if options.restart is None and not told:
        return None
    if options.restart is RestartChoice.NEVER and told:
        raise Misuse("Cannot use --restart never with other options of restarts. Try on-failure, or leave them out.")
    # Whoever says how it restarts means that it does.
    chosen = options.restart or RestartChoice.ON_FAILURE
    mode = session_pb2.RestartMode.Value(f"RESTART_MODE_{chosen.value.upper().replace('-', '_')}")
    policy = session_pb2.RestartPolicy(mode=mode, max_restarts=options.max_restarts or 0)
    if options.restart_backoff is not None:
        with spelled("--restart-backoff"):
            pause = parse_time(options.restart_backoff)
            if pause > _LONGEST_BACKOFF:
                raise ValueError(f"{options.restart_backoff!r} is more than an hour. Try less")
            policy.first_backoff.FromTimedelta(pause)
    policy.reasons.extend(reason.upper().replace("-", "_") for reason in options.restart_on)
    return policy
