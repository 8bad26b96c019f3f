"""Where a daemon keeps its state when nobody says, and so where its clients find it.

Both sides follow this one rule, so that a daemon started without settings and a command typed without an address
meet. It only names paths: nothing is made or looked at here.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

SYSTEM_STATE_DIR = Path("/var/lib/gpu-balancer")
"""The state folder of a daemon that runs as root."""

_SOCKET_NAME = "balancer.sock"
_FOLDER_NAME = "gpu-balancer"


def default_state_dir(
    *, environment: Mapping[str, str] | None = None, user_id: int | None = None, home: Path | None = None
) -> Path:
    """Tells the state folder of a daemon that was given none.

    Args:
        environment: Environment variables. None: this process's own.
        user_id: Effective user id. None: this process's own.
        home: The user's home folder. None: this user's own.

    Returns:
        `/var/lib/gpu-balancer` for root; for others `$XDG_STATE_HOME/gpu-balancer`, or
        `~/.local/state/gpu-balancer` when that variable is unset or no absolute path (as the XDG base directory
        specification asks).
    """
    if (os.geteuid() if user_id is None else user_id) == 0:
        return SYSTEM_STATE_DIR
    state_home = Path((os.environ if environment is None else environment).get("XDG_STATE_HOME", ""))
    if not state_home.is_absolute():
        state_home = (Path.home() if home is None else home) / ".local" / "state"
    return state_home / _FOLDER_NAME


def socket_path(state_dir: Path) -> Path:
    """Tells the path of the daemon's Unix socket in its state folder."""
    return state_dir / _SOCKET_NAME


def default_address() -> str:
    """Tells the gRPC address of a daemon that was given no state folder, `unix:/…/balancer.sock`."""
    return f"unix:{socket_path(default_state_dir())}"
