"""How long ago a file was written: by the kernel's stamp and the clock that the kernel stamps with, and no other.

Nothing else may be reckoned from such a stamp: that clock may have been set since. So an age is believed up to a bound
only, and what is reckoned from it is off by that bound at most.
"""

from __future__ import annotations

import time


def written_ago_s(stamp_s: float, *, most_s: float) -> float:
    """Tells how long ago something was written.

    Args:
        stamp_s: The kernel's stamp, in seconds since 1970.
        most_s: What is believed at most; a stamp of the future is one of now.
    """
    return min(max(time.time() - stamp_s, 0.0), most_s)  # noqa: TID251 - the kernel's own clock, see above
