"""What may be typed about traces of sessions."""

from __future__ import annotations

from typing import Annotated

import typer

from gpu_balancer.cli.invocation import Invocation, command
from gpu_balancer.cli.session_commands import DeviceOption, LabelOption, StateOption


def register(app: typer.Typer) -> None:
    """Registers the command about traces."""

    @command(app, "trace")
    def trace(
        invocation: Invocation,
        output: Annotated[
            str | None, typer.Option("--output", "-o", metavar="FILE", help="Where to. Default: standard output.")
        ] = None,
        since: Annotated[
            str | None,
            typer.Option("--since", metavar="WHEN", help="Asked for since: 2h or 7d ago, or 2030-01-31[T18:00[Z]]."),
        ] = None,
        until: Annotated[
            str | None, typer.Option("--until", metavar="WHEN", help="Asked for before; as --since.")
        ] = None,
        state: StateOption = [],  # noqa: B006 - typer reads it, nobody changes it
        device: DeviceOption = None,
        label: LabelOption = [],  # noqa: B006
        overwrite: Annotated[bool, typer.Option("--overwrite", "-y", help="Replace an existing file.")] = False,
    ) -> None:
        """Export sessions as a trace for gpu-balancerd simulate."""
        from gpu_balancer.cli.trace_actions import Wanted, export_trace

        wanted = Wanted(since=since, until=until, states=[one.value for one in state], device=device, labels=label)
        export_trace(invocation, wanted, output=output, overwrite=overwrite)
