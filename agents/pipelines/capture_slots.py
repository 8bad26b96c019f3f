"""Into which slot of a recording a captured picture comes, by when it was taken.

It is written twice: here, for the gate that waits for pictures, which knows by it what will be kept, and as an
expression of ffmpeg's for the pictures themselves (`agents.pipelines.capture_filters.in_slots`).
"""

from __future__ import annotations

EARLIEST, LATEST = -0.6, 0.9
"""How far a picture may be from the slot after the one before, in slots, to come into it. By chance it is late, never
early. Where all of them come earlier by and by nevertheless, one is left out when it is so early, and the next is at
0.4: none is between two slots by a hair."""
LATEST_OF_HANG, CATCHING_UP = 3.1, 0.5
"""A machine that stands still for a tenth of a second holds the grabber up, which then takes what it has missed in
quick succession. So a picture may be as late as this after one that was not, or after one that was later by the second:
then what is drawn when the machine goes on is kept, instead of one slot being filled from before and the rest left out.
After four at most all are in time again. Who lacks the processor for good does not catch up, and may not be so late."""


def slots_from_turn(late: float, late_before: float) -> int:
    """Tells how far a picture comes from the slot after the one before.

    Args:
        late: How late it was taken for that slot, in slots.
        late_before: How late the one before was taken for the slot into which it came.

    Returns:
        0 for that slot, else the nearest. -1: that of the one before, and it is left out.
    """
    hangs = late_before <= LATEST or late < late_before - CATCHING_UP
    return 0 if EARLIEST <= late <= (LATEST_OF_HANG if hangs else LATEST) else max(-1, round(late))
