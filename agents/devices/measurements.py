"""What a device does right now. None: not supported, not yet known, or the query failed for this value alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurements:
    """One reading of a device."""

    measure_time: datetime
    """Aware, UTC."""
    encoder_utilization_percent: int | None = None
    """Busy share of all encoder engines together; lags by about a second."""
    decoder_utilization_percent: int | None = None
    compute_utilization_percent: int | None = None
    """Busy share of a GPU's compute engines, without NVENC and NVDEC, or of a CPU device's cores."""
    memory_used_mib: int | None = None
    """Used device memory; for a CPU device, used memory of the host."""
    encoder_sessions: int | None = None
    """Open encoder sessions, of anybody."""
    temperature_celsius: int | None = None
    foreign_encoder_sessions: int | None = None
    """Of processes that are not this agent's own, like the figures that follow. None: also where it cannot be told
    whose they are."""
    foreign_encoder_utilization_percent: int | None = None
    foreign_decoder_utilization_percent: int | None = None
    foreign_memory_used_mib: int | None = None
    foreign_compute_utilization_percent: int | None = None
    """Of a CPU device's cores."""


@dataclass(slots=True, eq=False)
class DeviceFault(Exception):
    """A device that cannot work, with what an operator should know and do."""

    message: str
    """A sentence: "Cannot X: Y. Try Z."."""

    def __post_init__(self) -> None:
        Exception.__init__(self, self.message)
