"""What may be typed to make a recording, and about one that runs."""

from __future__ import annotations

from typing import Annotated

import typer

from gpu_balancer.cli.completions import complete_session
from gpu_balancer.cli.invocation import Invocation, Misuse, command
from gpu_balancer.cli.job_options import OutputOptions, RenditionOptions
from gpu_balancer.cli.record_options import CaptureOptions, FinishOptions, PageOptions, SourceOptions

RecordingArgument = Annotated[
    str, typer.Argument(metavar="NAME", help="A recording: x or sessions/x.", autocompletion=complete_session)
]


def register(app: typer.Typer) -> None:
    """Registers `record`, and what can be done with a recording that runs."""
    _register_record(app)
    _register_control(app)


def _register_record(app: typer.Typer) -> None:
    @command(app, "record", short_help="Record a web page or an application.")
    def record(  # noqa: PLR0913 - one group of options each
        invocation: Invocation,
        source: SourceOptions,
        capture: CaptureOptions,
        page: PageOptions,
        made: RenditionOptions,
        out: OutputOptions,
        finish: FinishOptions,
        plan: Annotated[bool, typer.Option("--plan", help="Only tell where it would go, and why.")] = False,
        verbose: Annotated[
            bool, typer.Option("--verbose", "-v", help="With --plan: show what each device would have to give.")
        ] = False,
        detach: Annotated[
            bool, typer.Option("--detach", help="Print the session's name and leave; artifacts stay with the agent.")
        ] = False,
    ) -> int | None:
        """Record a web page, or an application of the operator's, and fetch the result: recording.mp4, or -o OUT.

        Ctrl-C ends the recording and fetches what there is; a second one leaves that to the agent.

        Example: gpu-balancer record https://example.org/ -o out.mp4 --duration 30s
        """
        from gpu_balancer.cli.record_actions import record as run

        return run(invocation, source, capture, page, made, out, finish, detach=detach, plan=plan, verbose=verbose)


def _register_control(app: typer.Typer) -> None:
    @command(app, "pause")
    def pause(invocation: Invocation, name: RecordingArgument) -> None:
        """Let a recording rest; its files show no gap."""
        from gpu_balancer.cli.record_control import pause as run

        run(invocation, name)

    @command(app, "resume")
    def resume(invocation: Invocation, name: RecordingArgument) -> None:
        """Go on with a recording that rests."""
        from gpu_balancer.cli.record_control import resume as run

        run(invocation, name)

    @command(app, "extend", short_help="Make a recording longer or shorter.")
    def extend(
        invocation: Invocation,
        name: RecordingArgument,
        duration: Annotated[
            str | None,
            typer.Argument(metavar="TIME", help="10m: in all. +10m: so much more.", show_default=False),
        ] = None,
        unbounded: Annotated[bool, typer.Option("--unbounded", help="Go on until it is stopped.")] = False,
    ) -> None:
        """Make a recording longer or shorter, counted from its first picture; pauses do not count.

        A time that has passed already ends it.
        """
        from gpu_balancer.cli.record_control import extend as run

        if (duration is None) != unbounded:
            raise Misuse("Cannot tell how long it is to be. Try either 10m in all, +10m more, or --unbounded.")
        run(invocation, name, duration)

    @command(app, "snapshot", short_help="Take a picture of what a recording shows now.")
    def snapshot(
        invocation: Invocation,
        name: RecordingArgument,
        output: Annotated[
            str | None,
            typer.Option("--output", "-o", metavar="FILE.png", help="Default: NAME.png. -: standard output."),
        ] = None,
        width: Annotated[
            int | None,
            typer.Option("--width", metavar="N", min=16, max=8192, help="In pixels. Default: the display's."),
        ] = None,
        overwrite: Annotated[bool, typer.Option("--overwrite", "-y", help="Replace an existing file.")] = False,
    ) -> None:
        """Take a picture of what a recording shows now, as PNG."""
        from gpu_balancer.cli.record_control import snapshot as run

        run(invocation, name, output=output, width=width, overwrite=overwrite)
