"""The command as a whole: its commands in the order of their help, and the options that all of them share."""

from __future__ import annotations

from typing import Annotated

import typer

from gpu_balancer import __version__
from gpu_balancer.cli import (
    daemon_commands,
    device_commands,
    job_commands,
    record_commands,
    session_commands,
    trace_commands,
)
from gpu_balancer.cli.exit_codes import MEANINGS
from gpu_balancer.cli.invocation import AddressOption, HeadingsOption, Invocation, JsonOption

# Click joins lines into paragraphs unless a paragraph begins with \b.
_EPILOG = "\b\nExit codes:\n" + "\n".join(f"  {code.value:<4} {words}" for code, words in MEANINGS.items())

# Plain help: drawing it with rich would take longer than everything else that --help does.
app = typer.Typer(
    name="gpu-balancer",
    help="Place transcoding and recording sessions on the device with the least weighted load, and watch them.",
    epilog=_EPILOG,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

for room in (job_commands, record_commands, session_commands, trace_commands, device_commands, daemon_commands):
    room.register(app)


def _show_version(asked: bool) -> None:
    if asked:
        typer.echo(f"gpu-balancer {__version__}")
        raise typer.Exit


@app.callback()
def gpu_balancer(
    context: typer.Context,
    json: JsonOption = False,
    headings: HeadingsOption = False,
    address: AddressOption = None,
    version: Annotated[  # noqa: ARG001 - its callback answers
        bool, typer.Option("--version", help="Show the version and end.", callback=_show_version, is_eager=True)
    ] = False,
) -> None:
    """Keep what all commands share."""
    context.obj = Invocation(address=address, json=json, headings=headings)
