"""Runs the command."""

from __future__ import annotations


def main() -> None:
    """Runs the command; ends the process with one of `ExitCode`."""
    import sys

    from gpu_balancer.cli.app import app

    try:
        app(prog_name="gpu-balancer")
    except Exception:  # noqa: BLE001 - the last door: a mistake of ours must not look like a failed session
        import traceback

        from gpu_balancer.cli.exit_codes import ExitCode

        traceback.print_exc()
        sys.exit(ExitCode.INTERNAL)


if __name__ == "__main__":
    main()
