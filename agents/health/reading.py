"""What one look at a GPU showed, and what of it should be looked at by people."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from agents.health.device_health import Fault, HealthState

THERMAL = 0x20 | 0x40
"""Clocks held down for heat: by the driver, by the hardware."""
POWER_BRAKE = 0x08 | 0x80
"""Clocks held down by the hardware for power: too much drawn, or a brake from outside."""

SETTLING_LOOKS = 5
"""How many looks in a row have to show, or not to show, that clocks are held down: short dips are ordinary."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DriverError:
    """An error of NVML instead of an answer."""

    code: int
    words: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """One look at a GPU. None: the card or its driver does not tell."""

    error: DriverError | None = None
    """Why there is no answer; then nothing else is known."""
    all_gpus_lost: bool = False
    """Whether this container can use none of its GPUs any more."""
    recovery_action: int | None = None
    uncorrected_errors: int | None = None
    """Of its memory, since the driver was loaded."""
    repair_pending: bool | None = None
    """Whether a part of its memory waits to be replaced by a spare one."""
    repair_failed: bool | None = None
    """Whether there was none to spare."""
    clock_reasons: int | None = None
    """Why its clocks are held down, as NVML's bits."""
    temperature_celsius: int | None = None
    slowdown_celsius: int | None = None
    """From here on it slows down."""
    shutdown_celsius: int | None = None
    """From here on it is switched off."""


def told_at_once(reading: Reading) -> Iterator[Fault]:
    """Gives what a look shows that should be looked at, as far as one look is enough."""
    if reading.repair_failed:
        yield _degraded(
            "MEMORY_REPAIR_FAILED", "A damaged part of its memory has no spare one. Have the card replaced."
        )
    if reading.repair_pending:
        yield _degraded(
            "MEMORY_REPAIR_PENDING",
            "A damaged part of its memory waits to be replaced by a spare one. Reset the GPU when it is idle.",
        )
    if reading.uncorrected_errors:
        yield _degraded(
            "ECC_UNCORRECTED",
            f"Its memory had {reading.uncorrected_errors} uncorrected errors since its driver was loaded. Reset it "
            "when it is idle; if they come again, have the card replaced.",
        )


def seen_slow(reading: Reading) -> Mapping[str, Fault | None]:
    """Gives by reason whether a look shows that the card is held back. A reason that cannot be told is absent."""
    seen: dict[str, Fault | None] = {}
    heat = _heat_words(reading)
    if (clocks := reading.clock_reasons) is not None:
        hot, braked = clocks & THERMAL, clocks & POWER_BRAKE
        told = f"It slows down because it is hot{heat}. Try its cooling."
        seen["THERMAL_SLOWDOWN"] = _degraded("THERMAL_SLOWDOWN", told) if hot else None
        told = f"Its hardware holds its clocks down for want of power{heat}. Try its power supply."
        # The hardware's common bit comes with heat, too: then it is heat.
        seen["POWER_BRAKE"] = _degraded("POWER_BRAKE", told) if braked and not (hot and braked == 0x08) else None
    limit = reading.slowdown_celsius or reading.shutdown_celsius
    if reading.temperature_celsius is not None and limit:
        over = reading.temperature_celsius >= limit
        told = f"It is too hot{heat}. Try its cooling, before it is switched off."
        seen["OVER_TEMPERATURE"] = _degraded("OVER_TEMPERATURE", told) if over else None
    return seen


def _heat_words(reading: Reading) -> str:
    if reading.temperature_celsius is None:
        return ""
    words = f"{reading.temperature_celsius} °C"
    if reading.slowdown_celsius:
        words += f", slow from {reading.slowdown_celsius} °C"
    if reading.shutdown_celsius:
        words += f", off at {reading.shutdown_celsius} °C"
    return f" ({words})"


def _degraded(reason: str, message: str) -> Fault:
    return Fault(state=HealthState.DEGRADED, reason=reason, message=message)
