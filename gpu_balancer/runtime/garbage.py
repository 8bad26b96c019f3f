"""When a program looks for garbage in cycles.

Nearly all that a request leaves behind is freed the moment nobody holds it. The collector is for what holds itself,
such as errors with their tracebacks, and its young generations find those. A full collection walks through every
session that is kept, stops the daemon meanwhile (0.1 s with ten thousand sessions) and finds next to nothing.
"""

from __future__ import annotations

import gc
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_YOUNG_OBJECTS = 5_000
_YOUNG_COLLECTIONS = 10
_MIDDLE_COLLECTIONS = 1_000
"""Before a full one: fifty million objects more than were freed."""


@contextmanager
def loading() -> Iterator[None]:
    """Looks for none while modules are loaded, and never at what they are made of: that stays, and it is much."""
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def collect_seldom() -> None:
    """Has full collections run seldom, and never look at what is there now. To be called when a daemon has started."""
    gc.freeze()
    gc.set_threshold(_YOUNG_OBJECTS, _YOUNG_COLLECTIONS, _MIDDLE_COLLECTIONS)
