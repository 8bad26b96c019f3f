"""Where the daemon is: from an argument, the environment, or the rule that the daemon itself follows.

Spellings are checked here, because gRPC takes nearly any text as the name of a host and then waits for it.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from gpu_balancer.runtime.default_paths import default_address

if TYPE_CHECKING:
    from collections.abc import Mapping

ADDRESS_VARIABLE = "GPU_BALANCER_ADDRESS"
"""The environment variable that names the daemon."""

_HOST_AND_PORT = re.compile(r"(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\]):(\d{1,5})")


def find_address(address: str | None = None, *, environment: Mapping[str, str] | None = None) -> str:
    """Finds the daemon's address.

    Args:
        address: `unix:/path`, an absolute path of a socket, or `host:port`. None or empty: from the environment
            variable `GPU_BALANCER_ADDRESS`, else the default Unix socket.
        environment: Environment variables. None: this process's own.

    Returns:
        A target for gRPC: `unix:/path` or `host:port`.

    Raises:
        ValueError: When the address has none of these forms.
    """
    told = address or (os.environ if environment is None else environment).get(ADDRESS_VARIABLE) or default_address()
    if told.startswith("/"):
        return f"unix:{told}"
    if told.startswith("unix:"):
        path = told.removeprefix("unix:")
        if path.startswith("//"):
            path = path.removeprefix("//")
        if path.startswith("/"):
            return f"unix:{path}"
    matched = _HOST_AND_PORT.fullmatch(told)
    if matched and 0 < int(matched[1]) < 65536:
        return told
    raise ValueError(f"Cannot use the address {told!r}: it is no socket and no host. Try unix:/path or host:port.")


def socket_of(address: str) -> Path | None:
    """Tells the socket's path of an address that `find_address` gave, or None for a host and port."""
    return Path(address.removeprefix("unix:")) if address.startswith("unix:") else None
