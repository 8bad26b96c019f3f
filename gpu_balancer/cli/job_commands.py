"""What may be typed to start a session or to ask where it would go."""

from __future__ import annotations

from typing import Annotated

import typer

from gpu_balancer.cli.invocation import Invocation, command
from gpu_balancer.cli.job_options import InputOptions, OutputOptions, RenditionOptions, SessionOptions


def register(app: typer.Typer) -> None:
    """Registers `transcode` and `plan`."""

    @command(app, "transcode", short_help="Transcode a file, stream or ingest.")
    def transcode(
        invocation: Invocation,
        given: InputOptions,
        made: RenditionOptions,
        out: OutputOptions,
        session: SessionOptions,
        detach: Annotated[
            bool,
            typer.Option("--detach", help="Print the session's name and leave; artifacts stay with the agent."),
        ] = False,
    ) -> int | None:
        """Transcode a file, stream or ingest on the device with the least weighted load.

        A local file that the daemon may not read is uploaded first. Ctrl-C asks whether to stop the session.

        Example: gpu-balancer transcode in.mov -o out.mp4 -r 1280x720:h264:2500k
        """
        from gpu_balancer.cli.transcode_actions import transcode as run

        return run(invocation, given, made, out, session, detach=detach)

    @command(app, "plan", tables=True, short_help="Tell where a transcode would go, and why.")
    def plan(
        invocation: Invocation,
        given: InputOptions,
        made: RenditionOptions,
        out: OutputOptions,
        session: SessionOptions,
        verbose: Annotated[
            bool, typer.Option("--verbose", "-v", help="Show what each device would have to give, and the program.")
        ] = False,
    ) -> int | None:
        """Tell where a transcode would go, and why, without starting it. Takes the options of `transcode`.

        For a recording: gpu-balancer record … --plan.
        """
        from gpu_balancer.cli.plan_actions import plan as run

        return run(invocation, given, made, out, session, verbose=verbose)
