"""What may be typed about sessions that exist."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from gpu_balancer.cli.completions import complete_device, complete_session
from gpu_balancer.cli.invocation import Invocation, command

NameArgument = Annotated[
    str, typer.Argument(metavar="NAME", help="A session: x or sessions/x.", autocompletion=complete_session)
]


class StateChoice(StrEnum):
    """Where a session stands."""

    QUEUED = "queued"
    STARTING = "starting"
    RUNNING = "running"
    STOPPING = "stopping"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


StateOption = Annotated[
    list[StateChoice], typer.Option("--state", "-s", help="Only in this state. Repeatable: any of them.")
]
DeviceOption = Annotated[
    str | None, typer.Option("--device", "-d", help="Only on this device.", autocompletion=complete_device)
]
LabelOption = Annotated[
    list[str], typer.Option("--label", metavar="KEY=VALUE", help="Only with this label. Repeatable: all of them.")
]


def register(app: typer.Typer) -> None:
    """Registers the commands about sessions."""

    @command(app, "sessions", tables=True)
    def sessions(
        invocation: Invocation,
        state: StateOption = [],  # noqa: B006 - typer reads it, nobody changes it
        device: DeviceOption = None,
        label: LabelOption = [],  # noqa: B006
        limit: Annotated[int, typer.Option("--limit", "-n", min=0, help="At most so many; 0 = all.")] = 100,
    ) -> None:
        """List sessions, newest first."""
        from gpu_balancer.cli.session_actions import list_sessions

        list_sessions(invocation, states=[one.value for one in state], device=device, labels=label, limit=limit)

    @command(app, "session")
    def session(invocation: Invocation, name: NameArgument) -> None:
        """Show everything about one session."""
        from gpu_balancer.cli.session_actions import show_session

        show_session(invocation, name)

    @command(app, "explain", tables=True)
    def explain(invocation: Invocation, name: NameArgument) -> None:
        """Tell why a session went where it went: every device's score or refusal, at each attempt."""
        from gpu_balancer.cli.session_actions import explain_session

        explain_session(invocation, name)

    @command(app, "watch", tables=True)
    def watch(
        invocation: Invocation,
        name: Annotated[
            str | None,
            typer.Argument(metavar="NAME", help="A session. Default: all.", autocompletion=complete_session),
        ] = None,
    ) -> int | None:
        """Watch a session to its end, or all sessions until Ctrl-C."""
        from gpu_balancer.cli.watch_actions import watch_all, watch_one

        if name is not None:
            return watch_one(invocation, name)
        watch_all(invocation)
        return None

    @command(app, "logs")
    def logs(
        invocation: Invocation,
        name: NameArgument,
        follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the session ends.")] = False,
        lines: Annotated[int | None, typer.Option("--lines", "-n", min=0, help="Begin with the last N lines.")] = None,
    ) -> None:
        """Show a session's log, secrets redacted."""
        from gpu_balancer.cli.session_actions import show_log

        show_log(invocation, name, follow=follow, tail_lines=lines)

    @command(app, "stop")
    def stop(invocation: Invocation, name: NameArgument) -> None:
        """Ask a session to complete its outputs and end."""
        from gpu_balancer.cli.session_actions import stop_session

        stop_session(invocation, name)

    @command(app, "delete")
    def delete(invocation: Invocation, name: NameArgument) -> None:
        """Remove an ended session and its artifacts."""
        from gpu_balancer.cli.session_actions import delete_session

        delete_session(invocation, name)

    @command(app, "artifacts", tables=True)
    def artifacts(
        invocation: Invocation,
        name: NameArgument,
        download: Annotated[
            str | None, typer.Option("--download", metavar="DIR", help="Fetch all of them into this folder.")
        ] = None,
        overwrite: Annotated[bool, typer.Option("--overwrite", "-y", help="Replace existing files.")] = False,
    ) -> None:
        """List the files that a session left, or fetch them."""
        from gpu_balancer.cli.session_actions import show_artifacts

        show_artifacts(invocation, name, download=download, overwrite=overwrite)
