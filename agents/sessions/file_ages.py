"""How long ago a file was written: by the kernel's stamp and the clock that the kernel stamps with, and no other.

Nothing else may be reckoned from such a stamp: that clock may have been set since. So an age is believed up to a bound
only, and what is reckoned from it is off by that bound at most.
"""

from __future__ import annotations

import time
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


def written_ago_s(stamp_s: float, *, most_s: float) -> float:
    """Tells how long ago something was written.

    Args:
        stamp_s: The kernel's stamp, in seconds since 1970.
        most_s: What is believed at most; a stamp of the future is one of now.
    """
    return min(max(time.time() - stamp_s, 0.0), most_s)  # noqa: TID251 - the kernel's own clock, see above


def written_time(path: Path, *, since: datetime, now: datetime) -> datetime:
    """Tells when a file was written, by another clock than the kernel's.

    Args:
        path: The file.
        since: The earliest time at which it can have been.
        now: The time by that clock.

    Raises:
        OSError: When it cannot be looked at.
    """
    longest_s = max((now - since).total_seconds(), 0.0)
    return now - timedelta(seconds=written_ago_s(path.stat().st_mtime, most_s=longest_s))
