"""gpu-balancer for its clients: the typed clients and the generated contract (`gpu_balancer.v1`).

```python
from gpu_balancer import Client

with Client() as client:
    client.transcode("holiday.mov", renditions=["1280x720:h264:2500k"], save_to="holiday.mp4")
```
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gpu_balancer.client import AsyncClient, BalancerUnreachable, Client, RetryPolicy
    from gpu_balancer.runtime.failures import Reason, RequestFailure, Violation

__version__ = "0.1.0"
__all__ = [
    "AsyncClient",
    "BalancerUnreachable",
    "Client",
    "Reason",
    "RequestFailure",
    "RetryPolicy",
    "Violation",
    "__version__",
]

_CLIENT_NAMES = ("AsyncClient", "BalancerUnreachable", "Client", "RetryPolicy")
_FAILURE_NAMES = ("Reason", "RequestFailure", "Violation")


def __getattr__(name: str) -> object:
    """Loads a public name at its first use: daemons and `--help` need none of the clients."""
    from importlib import import_module

    if name in _CLIENT_NAMES:
        return getattr(import_module("gpu_balancer.client"), name)
    if name in _FAILURE_NAMES:
        return getattr(import_module("gpu_balancer.runtime.failures"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
