"""All that is held for and against one GPU, and what each thing that happens makes of it.

What bars sessions is kept until a golden probe has passed that began after it, while the driver has nothing against the
card: a card that was reset looks well, and only a real run shows that it is. A loss is let go by an operator's probe
alone. Functions here are pure and total; they take time from their caller.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime

from agents.health.device_health import HEALTHY, DeviceHealth, Engine, Fault, HealthState
from agents.health.driver_words import (
    DRIVER_HANGS,
    RECOVERY_DRAIN,
    container_fault,
    error_fault,
    recovery_fault,
    silent_fault,
)
from agents.health.reading import SETTLING_LOOKS, Reading, seen_slow, told_at_once
from agents.health.xids import faulty_engine, xid_fault

ENGINE_FAULTS = 2
"""Faults of an engine after which it is out of use."""
ENGINE_WINDOW_S = 600.0
"""In which they must lie. After a probe has passed it still counts, so that one further fault is enough then."""

_NO_STREAK = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """When something happened."""

    time: datetime
    monotonic_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Since:
    """A fault and when it began."""

    fault: Fault
    since_time: datetime
    since_s: float
    """Of a clock that never goes back; minus infinity when it was an earlier agent's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineOut:
    """An engine that is out of use."""

    xid: int
    """The last of its faults."""
    since_time: datetime
    since_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class HealthRecord:
    """What is known of a card's health."""

    kept: Since | None = None
    """What bars sessions until a probe has passed."""
    present: Fault | None = None
    """What bars sessions by the last look. None: nothing, or nothing was seen yet."""
    engine_faults_s: Mapping[Engine, tuple[float, ...]] = field(default_factory=dict)
    engines_out: Mapping[Engine, EngineOut] = field(default_factory=dict)
    warned: tuple[Since, ...] = ()
    """What XIDs say that should be looked at; until a probe has passed."""
    seen: tuple[Since, ...] = ()
    """The same of the last looks."""
    streaks: Mapping[str, int] = field(default_factory=dict)
    """By reason, how many looks in a row have spoken against what is held."""
    uncorrected_errors: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Probed:
    """How a golden probe that tried everything again ended."""

    begin_s: float
    passed: bool
    """Whether anything works at all."""
    working_engines: frozenset[Engine]
    by_operator: bool
    """Whether an operator asked for it."""


def after_xid(record: HealthRecord, xid: int, when: Moment) -> HealthRecord:
    """Notes an XID."""
    engine = faulty_engine(xid)
    if engine is not None:
        return _engine_failed(record, engine, xid, when)
    fault = xid_fault(xid)
    if fault is None:
        return record
    if fault.state.bars:
        return _barred(record, fault, when)
    known = next((one for one in record.warned if one.fault.reason == fault.reason), _since(fault, when))
    others = tuple(one for one in record.warned if one.fault.reason != fault.reason)
    return replace(record, warned=(*others, replace(known, since_s=when.monotonic_s)))


def after_reading(record: HealthRecord, reading: Reading, when: Moment) -> HealthRecord:
    """Notes a look at the card."""
    if reading.all_gpus_lost:
        fault: Fault | None = container_fault()
    elif reading.error is not None:
        fault = error_fault(reading.error.code, reading.error.words)
    else:
        fault = None if reading.recovery_action is None else recovery_fault(reading.recovery_action)
    record = replace(record, present=fault)
    if fault is not None:
        record = _barred(record, fault, when)
    if reading.error is not None or reading.all_gpus_lost:
        return record
    return _with_seen(_with_errors(record, reading, when), reading, when)


def after_silence(record: HealthRecord, seconds: float, when: Moment) -> HealthRecord:
    """Notes that the driver has not answered for so long."""
    fault = silent_fault(seconds)
    if record.present is not None and record.present.reason == DRIVER_HANGS:
        return record
    return _barred(replace(record, present=fault), fault, when)


def after_probe(record: HealthRecord, probed: Probed) -> HealthRecord:
    """Notes the end of a golden probe."""
    if not probed.passed or record.present is not None:
        return record
    kept = record.kept
    if kept is not None:
        lost = kept.fault.state is HealthState.LOST
        if kept.since_s < probed.begin_s and (probed.by_operator or not lost):
            kept = None
    engines_out = {
        engine: out
        for engine, out in record.engines_out.items()
        if engine not in probed.working_engines or out.since_s >= probed.begin_s
    }
    warned = tuple(one for one in record.warned if one.since_s >= probed.begin_s)
    return replace(record, kept=kept, engines_out=engines_out, warned=warned)


def health_of(record: HealthRecord) -> DeviceHealth:
    """Tells how well the card is, the gravest first."""
    engines = frozenset(record.engines_out)
    engines_message = " ".join(_engine_words(engine, record.engines_out[engine]) for engine in sorted(engines))
    if (kept := record.kept) is not None:
        message = kept.fault.message
        if kept.fault.state is HealthState.LOST:
            message += " It takes sessions again once gpu-balancer devices probe has passed."
        elif record.present is None:
            message += " Its driver has nothing against it now; a golden probe has still to pass."
        return DeviceHealth(
            state=kept.fault.state,
            reason=kept.fault.reason,
            message=message,
            xid=kept.fault.xid,
            since_time=kept.since_time,
            faulty_engines=engines,
            engines_message=engines_message,
        )
    told = [(one.fault.reason, one.fault.message, one.fault.xid, one.since_time) for one in record.warned + record.seen]
    for engine in sorted(engines, reverse=True):
        out = record.engines_out[engine]
        told.insert(0, (f"{engine.name}R_OUT_OF_USE", _engine_words(engine, out), out.xid, out.since_time))
    if not told:
        return HEALTHY
    reason, _, xid, _ = told[0]
    return DeviceHealth(
        state=HealthState.DEGRADED,
        reason=reason,
        message=" ".join(message for _, message, _, _ in told),
        xid=xid,
        since_time=min(since_time for *_, since_time in told),
        faulty_engines=engines,
        engines_message=engines_message,
    )


def _engine_failed(record: HealthRecord, engine: Engine, xid: int, when: Moment) -> HealthRecord:
    since_s = when.monotonic_s - ENGINE_WINDOW_S
    times = (*(one for one in record.engine_faults_s.get(engine, ()) if one > since_s), when.monotonic_s)
    faults = {**record.engine_faults_s, engine: times[-ENGINE_FAULTS:]}
    record = replace(record, engine_faults_s=faults)
    if len(times) < ENGINE_FAULTS:
        return record
    known = record.engines_out.get(engine)
    out = EngineOut(xid=xid, since_time=known.since_time if known else when.time, since_s=when.monotonic_s)
    return replace(record, engines_out={**record.engines_out, engine: out})


def _engine_words(engine: Engine, out: EngineOut) -> str:
    name = "encoders (NVENC)" if engine is Engine.ENCODE else "decoders (NVDEC)"
    return (
        f"Its {name} are out of use: they failed {ENGINE_FAULTS} times within {ENGINE_WINDOW_S / 60:.0f} min, last "
        f"with XID {out.xid}; a golden probe has to pass."
    )


def _with_errors(record: HealthRecord, reading: Reading, when: Moment) -> HealthRecord:
    """Bars sessions when uncorrected errors of the memory have become more since the last look."""
    errors, before = reading.uncorrected_errors, record.uncorrected_errors
    if errors is None:
        return record
    if before is not None and errors > before:
        message = (
            f"Cannot use it: its memory had {errors - before} further errors that could not be corrected (ECC). Try "
            "nvidia-smi --gpu-reset; if they come again, have the card replaced."
        )
        fault = Fault(state=HealthState.UNHEALTHY, reason="ECC_UNCORRECTED", message=message)
        record = _barred(record, fault, when)
    return replace(record, uncorrected_errors=errors)


def _with_seen(record: HealthRecord, reading: Reading, when: Moment) -> HealthRecord:
    held = {one.fault.reason: one for one in record.seen}
    slow = seen_slow(reading)
    streaks: dict[str, int] = {}
    seen: list[Since] = []
    for fault in told_at_once(reading):
        known = held.get(fault.reason)
        seen.append(_since(fault, when) if known is None else replace(known, fault=fault))
    for reason, found in slow.items():
        known = held.get(reason)
        against = (found is None) is (known is not None)
        streak = record.streaks.get(reason, _NO_STREAK) + 1 if against else _NO_STREAK
        if streak >= SETTLING_LOOKS:
            known, streak = (None if found is None else _since(found, when)), _NO_STREAK
        if streak:
            streaks[reason] = streak
        if known is not None:
            seen.append(known)
    return replace(record, seen=tuple(seen), streaks=streaks)


def _barred(record: HealthRecord, fault: Fault, when: Moment) -> HealthRecord:
    """Keeps a fault unless one as grave is kept already: the story begins with the first."""
    kept = record.kept
    if kept is None or _gravity(fault) > _gravity(kept.fault):
        return replace(record, kept=_since(fault, when))
    # The same again: a probe that began before it proves nothing.
    return replace(record, kept=replace(kept, since_s=when.monotonic_s))


def _gravity(fault: Fault) -> int:
    if fault.state is HealthState.LOST:
        return 2
    # What runs is left alone under these two; anything else is graver.
    return 0 if fault.reason in (RECOVERY_DRAIN, DRIVER_HANGS) else 1


def _since(fault: Fault, when: Moment) -> Since:
    return Since(fault=fault, since_time=when.time, since_s=when.monotonic_s)
