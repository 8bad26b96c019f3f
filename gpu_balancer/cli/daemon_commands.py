"""What may be typed about the daemon as a whole."""

from __future__ import annotations

from typing import Annotated

import typer

from gpu_balancer.cli.invocation import Invocation, command


def register(app: typer.Typer) -> None:
    """Registers the commands about the daemon."""

    @command(app, "top", tables=True)
    def top(
        invocation: Invocation,
        once: Annotated[bool, typer.Option("--once", help="Show one picture and end.")] = False,
        interval: Annotated[
            float, typer.Option("--interval", metavar="SECONDS", min=0.2, max=3600, help="Between pictures.")
        ] = 1.0,
    ) -> None:
        """Show devices and live sessions, always up to date. Ctrl-C ends it."""
        from gpu_balancer.cli.top_actions import top as run

        run(invocation, once=once, interval_s=interval)

    @command(app, "reload")
    def reload(invocation: Invocation) -> None:
        """Have the daemon read its settings file again."""
        from gpu_balancer.cli.daemon_actions import reload_settings

        reload_settings(invocation)

    @command(app, "shutdown")
    def shutdown(
        invocation: Invocation,
        stop_sessions: Annotated[
            bool, typer.Option("--stop-sessions", help="Stop every session first. Otherwise they run on.")
        ] = False,
    ) -> None:
        """End the daemon."""
        from gpu_balancer.cli.daemon_actions import shutdown_daemon

        shutdown_daemon(invocation, stop_sessions=stop_sessions)

    @command(app, "version")
    def version(invocation: Invocation) -> None:
        """Show the versions of this command and of the daemon."""
        from gpu_balancer.cli.daemon_actions import show_version

        show_version(invocation)
