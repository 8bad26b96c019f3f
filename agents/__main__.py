"""The command `gpu-balancer-agent`: reads the command line, then lists GPUs or runs the agent.

The balancer waits for the list at its start, so what the agent is made of is loaded only once it is known that it runs.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from gpu_balancer import __version__
from gpu_balancer.runtime.garbage import loading
from gpu_balancer.runtime.plain_structlog import load_plain_structlog

if TYPE_CHECKING:
    from collections.abc import Sequence

_FAULT_STATUS = 1
_SETTINGS_STATUS = 2
_LOCKED_STATUS = 3


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command.

    Args:
        arguments: What follows the program's name. None: the process's own.

    Returns:
        Exit status: 0 when all is well, 1 when the agent cannot run, 2 for wrong settings, 3 when another agent owns
        the state folder.
    """
    parser = argparse.ArgumentParser(prog="gpu-balancer-agent", description="The agent of one device of gpu-balancer.")
    parser.add_argument("--config", type=Path, metavar="FILE", help="settings, as config/agent.toml describes them")
    parser.add_argument("--list-devices", action="store_true", help="print this machine's GPUs as JSON and exit")
    parser.add_argument("--version", action="version", version=f"gpu-balancer-agent {__version__}")
    chosen = parser.parse_args(arguments)
    return _list_devices() if chosen.list_devices else _run(chosen.config)


def _list_devices() -> int:
    from agents.devices import list_devices_json

    devices, faults = list_devices_json()
    print(devices)
    for fault in faults:
        print(fault, file=sys.stderr)
    return 0


def _run(config: Path | None) -> int:
    # Displays' programs are started by fork, as their own users, and become other programs at once: gRPC need not be
    # made ready for children, and would write a line for each.
    os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "false")
    with loading():
        load_plain_structlog()
        from agents.daemon import StartFault, run_agent
        from gpu_balancer.runtime.folder_lock import FolderLockedError, FolderUnusableError
        from gpu_balancer.runtime.listening import ListenFault
        from gpu_balancer.runtime.settings_file import SettingsError
        from gpu_balancer.runtime.telemetry import TelemetryFault

    try:
        run_agent(config)
    except SettingsError as error:
        return _told(error, _SETTINGS_STATUS)
    except FolderLockedError as error:
        return _told(error, _LOCKED_STATUS)
    except (FolderUnusableError, ListenFault, StartFault, TelemetryFault) as error:
        return _told(error, _FAULT_STATUS)
    return 0


def _told(error: Exception, status: int) -> int:
    print(f"gpu-balancer-agent: {error}", file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main())
