"""The typed clients of the daemon: `Client` and, for programs with an event loop, `AsyncClient`.

Each step is written once, in the modules that `steps` joins; see `connection` for how both clients share it. Names
are loaded when they are used, because gRPC takes a fifth of a second to load and the command's `--help` needs none of
it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gpu_balancer.client.async_client import AsyncClient
    from gpu_balancer.client.blocking_client import Client
    from gpu_balancer.client.failures import BalancerUnreachable
    from gpu_balancer.client.retries import RetryPolicy

__all__ = ["AsyncClient", "BalancerUnreachable", "Client", "RetryPolicy"]

_MODULES = {
    "AsyncClient": "gpu_balancer.client.async_client",
    "BalancerUnreachable": "gpu_balancer.client.failures",
    "Client": "gpu_balancer.client.blocking_client",
    "RetryPolicy": "gpu_balancer.client.retries",
}


def __getattr__(name: str) -> object:
    """Loads a public name at its first use."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_MODULES[name]), name)
