"""Loads structlog without the parts that a daemon never shows.

structlog loads rich wherever it is installed, for tracebacks in colour, which our logs do not have: 5 MiB and a tenth
of a second in the balancer and in every one of its agents. It is content without.
"""

from __future__ import annotations

import sys


def load_plain_structlog() -> None:
    """Loads structlog as if rich were not installed. To be called by a daemon before anything else loads structlog."""
    absent = "rich" not in sys.modules
    if absent:
        sys.modules["rich"] = None  # type: ignore[assignment]
    try:
        import structlog  # noqa: F401
    finally:
        if absent:
            del sys.modules["rich"]
