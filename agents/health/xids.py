"""What each XID, the driver's number of an error, means for a device. docs/health.md shows the same table.

Sources: NVIDIA's XID catalogue (the column "immediate action") and, for what newer drivers do not use any more, its
catalogue for older GPUs. Where they leave a choice it was made for what runs here: whole sessions on one GPU each,
which use no link between GPUs, no picture engines (NVJPG, OFA) and no confidential computing.

The driver's own recovery action comes before this table, and is asked for right after every XID. So an XID that is not
listed is shown and bars nothing: where it is grave, the driver says so in that field, or sessions fail.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from agents.health.device_health import Engine, Fault, HealthState


class XidOutcome(StrEnum):
    """What follows from an XID."""

    IGNORED = "ignored"
    """Nothing is wrong."""
    APPLICATION = "application"
    """One process misbehaved or was killed, perhaps by us; the device is as it was. Never counts against it."""
    ENCODER_FAULT = "encoder fault"
    """A session lost its encoder. A second one within ten minutes puts the engine out of use."""
    DECODER_FAULT = "decoder fault"
    """The same of a decoder."""
    DEGRADED = "degraded"
    """The device works on and should be looked at."""
    UNHEALTHY = "unhealthy"
    """The device is out of use until a golden probe has passed; mostly it needs a reset before."""
    LOST = "lost"
    """The device is out of use until an operator has acted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class XidRow:
    """XIDs that mean the same here."""

    xids: tuple[int, ...]
    outcome: XidOutcome
    meaning: str
    """What the driver means, without full stop."""
    advice: str = ""
    """What to do, a sentence. Empty where there is nothing to do."""


_RESET = "Try nvidia-smi --gpu-reset, or reboot the machine."

XID_TABLE: tuple[XidRow, ...] = (
    XidRow(xids=(8,), outcome=XidOutcome.APPLICATION, meaning="a channel stopped and its process was ended"),
    XidRow(xids=(11, 25, 32, 80), outcome=XidOutcome.APPLICATION, meaning="a process sent an invalid command stream"),
    XidRow(xids=(13, 69), outcome=XidOutcome.APPLICATION, meaning="an exception of the graphics engine"),
    XidRow(xids=(14, 106, 107), outcome=XidOutcome.IGNORED, meaning="an error made for a test"),
    XidRow(xids=(31,), outcome=XidOutcome.APPLICATION, meaning="a process touched memory that is not its own"),
    XidRow(xids=(37, 38, 66, 67), outcome=XidOutcome.IGNORED, meaning="the driver's firmware refused a request"),
    XidRow(
        xids=(39, 40, 41, 70, 71, 72, 75, 76, 77, 85, *range(126, 136)),
        outcome=XidOutcome.APPLICATION,
        meaning="an exception of a copy engine, which ended its process",
    ),
    XidRow(xids=(43,), outcome=XidOutcome.APPLICATION, meaning="a process hit a fault of its own and was ended"),
    XidRow(xids=(44, 141), outcome=XidOutcome.APPLICATION, meaning="a fault while processes took turns"),
    XidRow(xids=(45,), outcome=XidOutcome.APPLICATION, meaning="a process was killed and cleaned up after"),
    XidRow(xids=(46,), outcome=XidOutcome.UNHEALTHY, meaning="the GPU stopped processing", advice=_RESET),
    XidRow(xids=(47, 65, 73, 142), outcome=XidOutcome.ENCODER_FAULT, meaning="an exception of an encoder (NVENC)"),
    XidRow(
        xids=(48,),
        outcome=XidOutcome.UNHEALTHY,
        meaning="memory gave back wrong data that could not be corrected (ECC)",
        advice=_RESET + " If it comes again, have the card replaced.",
    ),
    XidRow(
        xids=(54,),
        outcome=XidOutcome.DEGRADED,
        meaning="the card's auxiliary power is not connected",
        advice="Try its power cables.",
    ),
    XidRow(xids=(60,), outcome=XidOutcome.APPLICATION, meaning="an exception of the security engine"),
    XidRow(xids=(61, 62, 169), outcome=XidOutcome.UNHEALTHY, meaning="a micro-controller halted", advice=_RESET),
    XidRow(
        xids=(63,),
        outcome=XidOutcome.DEGRADED,
        meaning="a part of its memory is to be replaced by a spare one",
        advice="Reset the GPU when it is idle, which does that.",
    ),
    XidRow(
        xids=(64,),
        outcome=XidOutcome.UNHEALTHY,
        meaning="a part of its memory could not be replaced by a spare one",
        advice=_RESET + " If it comes again, have the card replaced.",
    ),
    XidRow(
        xids=(68, 83, 84, 88, 89, 96, 97, 98),
        outcome=XidOutcome.DECODER_FAULT,
        meaning="an exception of a decoder (NVDEC)",
    ),
    XidRow(
        xids=(74, 136, *range(144, 151), 155),
        outcome=XidOutcome.DEGRADED,
        meaning="its link to other GPUs failed; sessions use none",
        advice="Try nvidia-smi nvlink -s.",
    ),
    XidRow(
        xids=(78,),
        outcome=XidOutcome.DEGRADED,
        meaning="a virtual GPU did not start",
        advice="Try matching versions of driver and virtualization software.",
    ),
    XidRow(
        xids=(79,),
        outcome=XidOutcome.LOST,
        meaning="it has fallen off the bus",
        advice="Reboot the machine; if it comes back, check its power, its cooling and its seat.",
    ),
    XidRow(
        xids=(82, 86, *range(99, 106), 139),
        outcome=XidOutcome.APPLICATION,
        meaning="an exception of an engine that sessions do not use (NVJPG, OFA)",
    ),
    XidRow(
        xids=(92,),
        outcome=XidOutcome.DEGRADED,
        meaning="its memory errs often, corrected so far (ECC)",
        advice="Watch it, and have the card replaced if uncorrected errors follow.",
    ),
    XidRow(xids=(93,), outcome=XidOutcome.IGNORED, meaning="its information store was not written, as was asked for"),
    XidRow(
        xids=(94,),
        outcome=XidOutcome.DEGRADED,
        meaning="an uncorrected memory error ended one process and reached no other",
        advice="Reset the GPU when it is idle.",
    ),
    XidRow(
        xids=(95,),
        outcome=XidOutcome.UNHEALTHY,
        meaning="an uncorrected memory error may have reached every process",
        advice=_RESET,
    ),
    XidRow(
        xids=(108, 137), outcome=XidOutcome.APPLICATION, meaning="a process reached over a link for memory not its own"
    ),
    XidRow(xids=(109,), outcome=XidOutcome.UNHEALTHY, meaning="it did not switch between processes", advice=_RESET),
    XidRow(
        xids=(110,),
        outcome=XidOutcome.UNHEALTHY,
        meaning="a security fault, as after a change of hardware",
        advice="Try switching the machine off and on; if it comes again, have the card looked at.",
    ),
    XidRow(
        xids=(119, 120),
        outcome=XidOutcome.UNHEALTHY,
        meaning="its system processor (GSP) failed or does not answer",
        advice=_RESET,
    ),
    XidRow(xids=(121,), outcome=XidOutcome.IGNORED, meaning="an error on the link to the processor was corrected"),
    XidRow(
        xids=(140,), outcome=XidOutcome.UNHEALTHY, meaning="its memory cannot be recovered from errors", advice=_RESET
    ),
    XidRow(xids=(143,), outcome=XidOutcome.UNHEALTHY, meaning="it could not be initialized", advice=_RESET),
    XidRow(
        xids=(151,),
        outcome=XidOutcome.UNHEALTHY,
        meaning="its keys could not be changed",
        advice="Try restarting the virtual machine.",
    ),
    XidRow(
        xids=(154,), outcome=XidOutcome.IGNORED, meaning="the driver's recovery action changed; it is asked for at once"
    ),
    XidRow(
        xids=(156,),
        outcome=XidOutcome.UNHEALTHY,
        meaning="a damaged part of it is to be taken out of use",
        advice=_RESET,
    ),
    XidRow(
        xids=(157,),
        outcome=XidOutcome.DEGRADED,
        meaning="a damaged part of it could not be taken out of use",
        advice="Watch it; the same may come again.",
    ),
    XidRow(xids=(158, 167), outcome=XidOutcome.UNHEALTHY, meaning="it did not answer in time", advice=_RESET),
    XidRow(xids=(160, 161), outcome=XidOutcome.IGNORED, meaning="a channel of its memory was taken out of use, or not"),
    XidRow(xids=(*range(162, 166),), outcome=XidOutcome.IGNORED, meaning="news of its power smoothing"),
    XidRow(
        xids=(168, 171, 172),
        outcome=XidOutcome.DEGRADED,
        meaning="details of an error of its memory",
        advice="Try nvidia-smi -q -d ECC.",
    ),
)
"""Ordered by the least XID of each row."""

UNLISTED = XidRow(
    xids=(),
    outcome=XidOutcome.DEGRADED,
    meaning="nothing that is known here",
    advice="Try NVIDIA's list of XIDs, and the kernel's log.",
)
"""What holds of every other XID."""

_BY_XID: Mapping[int, XidRow] = {xid: row for row in XID_TABLE for xid in row.xids}
_ENGINES = {XidOutcome.ENCODER_FAULT: Engine.ENCODE, XidOutcome.DECODER_FAULT: Engine.DECODE}
_STATES = {
    XidOutcome.DEGRADED: HealthState.DEGRADED,
    XidOutcome.UNHEALTHY: HealthState.UNHEALTHY,
    XidOutcome.LOST: HealthState.LOST,
}


def xid_row(xid: int) -> XidRow:
    """Gives the row of an XID. Total: one that is not listed has a row too."""
    return _BY_XID.get(xid, UNLISTED)


def faulty_engine(xid: int) -> Engine | None:
    """Gives the engine that an XID speaks of. None: it speaks of none alone."""
    return _ENGINES.get(xid_row(xid).outcome)


def xid_fault(xid: int) -> Fault | None:
    """Gives what an XID says of the whole device. None: nothing."""
    row = xid_row(xid)
    state = _STATES.get(row.outcome)
    if state is None:
        return None
    told = f"The driver reports XID {xid}: {row.meaning}. {row.advice}"
    return Fault(state=state, reason=f"XID_{xid}", message=told, xid=xid)
