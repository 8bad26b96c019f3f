"""`gpu-balancerd`: reads what it is told on the command line and in the settings, then runs the daemon.

`gpu-balancerd simulate …` runs no daemon: it replays sessions on devices that need not be there.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from gpu_balancer import __version__
from gpu_balancer.runtime.default_paths import default_state_dir
from gpu_balancer.runtime.folder_lock import FolderLockedError, FolderUnusableError, owned_folder
from gpu_balancer.runtime.garbage import loading
from gpu_balancer.runtime.plain_structlog import load_plain_structlog
from gpu_balancer.runtime.settings_file import SettingsError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from balancer.usable_settings import UsableSettings

_USAGE_ERROR = 2
_CANNOT_START = 1


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the daemon until it is told to end.

    Args:
        arguments: Command line without the program's name. None: the process's own.

    Returns:
        The exit status: 0 after an orderly end, 1 when it cannot start, 2 for settings that are refused.
    """
    given = sys.argv[1:] if arguments is None else list(arguments)
    if given[:1] == ["simulate"]:
        from balancer.simulation.command import simulate

        return simulate(given[1:])
    options = _parser().parse_args(given)
    state_dir = (options.state_dir or default_state_dir()).absolute()
    with loading():
        from balancer.usable_settings import load_usable_settings

    try:
        usable = load_usable_settings(options.config)
    except SettingsError as error:
        print(error, file=sys.stderr)
        return _USAGE_ERROR
    if options.check:
        print("The settings can be used.")
        return 0
    return _run(options, usable, state_dir)


def _run(options: argparse.Namespace, usable: UsableSettings, state_dir: Path) -> int:
    # What the daemon is made of is loaded once it is known that it will run.
    with loading():
        load_plain_structlog()
        import uvloop

        from balancer.daemon import DaemonOptions, StartError, run_daemon

    daemon_options = DaemonOptions(
        settings=usable.settings,
        policy=usable.policy,
        settings_path=options.config.absolute() if options.config else None,
        state_dir=state_dir,
        stop_sessions_on_exit=options.stop_sessions_on_exit,
    )
    try:
        with (
            owned_folder(state_dir, lock_name="balancer.lock", owner="balancer"),
            # Its turns cost less than those of Python's own loop, and a request takes a dozen of them.
            asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
        ):
            runner.run(run_daemon(daemon_options))
    except (FolderLockedError, FolderUnusableError, StartError) as error:
        print(error, file=sys.stderr)
        return _CANNOT_START
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="gpu-balancerd",
        description="Places transcoding sessions on the GPU, or CPU device, with the least weighted load.",
        epilog="gpu-balancerd simulate --help: what would these devices hold?",
    )
    parser.add_argument("--config", type=Path, metavar="FILE", help="settings (balancer.toml); none: all defaults")
    parser.add_argument(
        "--state-dir", type=Path, metavar="DIR", help=f"what must survive a restart (default: {default_state_dir()})"
    )
    parser.add_argument(
        "--stop-sessions-on-exit",
        action="store_true",
        help="at SIGTERM complete and end every session first; for containers, which take their processes along",
    )
    parser.add_argument("--check", action="store_true", help="only check the settings")
    parser.add_argument("--version", action="version", version=f"gpu-balancerd {__version__}")
    return parser


if __name__ == "__main__":
    sys.exit(main())
