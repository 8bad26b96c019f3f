"""A decision as a line of text, as it is kept beside its session: compact JSON, and back.

Every placement writes one, so encoding is in the path of every admission: lists instead of objects, the C encoder, and
what comes in few shapes, workloads and what they need of a kind of device, is written once per shape. Of very many
devices those are kept that mattered. Nothing but ASCII is written, so that a line is one line to whoever splits lines.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from functools import lru_cache
from typing import Any

from balancer.domain.decision import Decision, Need, OmittedVerdicts, Refusal, Reservation, Verdict
from balancer.domain.device import Dimension
from balancer.domain.ids import DeviceId, SessionId
from balancer.domain.workload import CaptureTask, DecodeTask, EncodeTask, EncodingSpeed, VideoCodec, Workload

VERSION = 1
"""Of the text. Raised when a line of it means something else; lines of other versions are not read."""

MAX_VERDICTS = 64
"""Of a decision over more devices only the verdicts that mattered are kept."""
BEST_VERDICTS = 32
"""That are kept then, besides the chosen device's."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_KEPT_SHAPES = 256
_NUMBERS = {dimension: dimension.value for dimension in Dimension}
_DIMENSIONS = {dimension.value: dimension for dimension in Dimension}
_encode_json = json.JSONEncoder(separators=(",", ":"), check_circular=False).encode


class UnreadableDecision(ValueError):
    """A text is not one that this version wrote. The message says why."""


def decision_to_text(decision: Decision, *, attempt: int, decision_time: datetime) -> str:
    """Writes a decision down.

    Args:
        decision: The decision. Of very many devices only those are written that mattered, see `shortened`.
        attempt: The one that it was made for, from 1; of a session that was queued, the one that it waits for.
        decision_time: When it was made, aware.

    Returns:
        One line, without its end.
    """
    if len(decision.verdicts) > MAX_VERDICTS:
        decision = shortened(decision)
    shapes: dict[tuple[tuple[Need, ...], tuple[Need, ...]], int] = {}
    verdicts = [_verdict(verdict, shapes) for verdict in decision.verdicts]
    since = decision_time - _EPOCH
    rest = _encode_json(
        (
            attempt,
            (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds,
            decision.device_id,
            decision.policy,
            decision.cost_pixels_per_second,
            decision.settings_version,
            decision.reservation and _reservation(decision.reservation),
            verdicts,
            [(omitted.rule, omitted.device_count) for omitted in decision.omitted],
            decision.policy_fault,
            decision.preempted,
        )
    )
    needs = ",".join([_needs_json(*shape) for shape in shapes])
    return f'{{"v":{VERSION},"workload":{_workload_json(decision.workload)},"needs":[{needs}],"decision":{rest}}}'


def decision_from_text(text: str) -> tuple[Decision, int, datetime]:
    """Reads what `decision_to_text` wrote.

    Args:
        text: The line.

    Returns:
        The decision, the attempt that it was made for, and when.

    Raises:
        UnreadableDecision: It is of another version, or damaged.
    """
    try:
        stored = json.loads(text)
        if (version := stored["v"]) != VERSION:
            raise UnreadableDecision(f"Cannot read a decision of version {version!r}: this is version {VERSION}.")
        return _decoded(stored)
    except UnreadableDecision:
        raise
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, OverflowError, RecursionError) as error:
        raise UnreadableDecision(f"Cannot read a decision: {type(error).__name__}: {error}.") from error


def shortened(decision: Decision) -> Decision:
    """Keeps the verdicts that mattered: the chosen device's and the best others; counts the rest by rule.

    The best are those with the lowest scores, then, where too few were eligible, refusals: one of each rule, then in
    device order.
    """
    verdicts = decision.verdicts
    seen_rules: set[str] = set()
    ranked: list[tuple[int, int, int]] = []
    for place, verdict in enumerate(verdicts):
        if verdict.refusal is None:
            ranked.append((0, verdict.score or 0, place))
        else:
            first = verdict.refusal.rule not in seen_rules
            seen_rules.add(verdict.refusal.rule)
            ranked.append((1 if first else 2, 0, place))
    kept = {place for _, _, place in sorted(ranked)[:BEST_VERDICTS]}
    kept |= {place for place, verdict in enumerate(verdicts) if verdict.device_id == decision.device_id}
    counts: Counter[str | None] = Counter()
    for omitted in decision.omitted:
        counts[omitted.rule] += omitted.device_count
    for place, verdict in enumerate(verdicts):
        if place not in kept:
            counts[verdict.refusal.rule if verdict.refusal is not None else None] += 1
    return replace(
        decision,
        verdicts=tuple(verdicts[place] for place in sorted(kept)),
        omitted=tuple(OmittedVerdicts(rule=rule, device_count=count) for rule, count in counts.items()),
    )


def _verdict(verdict: Verdict, shapes: dict[tuple[tuple[Need, ...], tuple[Need, ...]], int]) -> tuple[Any, ...]:
    device_id, weight, session_count, load_before, score, refusal, device_needs, device_used, host_needs, host_used = (
        verdict
    )
    return (
        device_id,
        weight,
        session_count,
        load_before,
        score,
        refusal
        and (
            refusal.rule,
            refusal.message,
            refusal.dimension and _NUMBERS[refusal.dimension],
            refusal.needed,
            refusal.available,
            refusal.permanent,
        ),
        shapes.setdefault((device_needs, host_needs), len(shapes)),
        device_used,
        host_used,
    )


@lru_cache(maxsize=_KEPT_SHAPES)
def _needs_json(device_needs: tuple[Need, ...], host_needs: tuple[Need, ...]) -> str:
    return _encode_json(
        [
            [(_NUMBERS[dimension], needed, bookable) for dimension, needed, bookable in needs]
            for needs in (device_needs, host_needs)
        ]
    )


@lru_cache(maxsize=_KEPT_SHAPES)
def _workload_json(workload: Workload) -> str:
    decode = workload.decode
    return _encode_json(
        (
            decode
            and (
                decode.codec,
                decode.width,
                decode.height,
                decode.bit_depth,
                decode.chroma,
                decode.pixels_per_second,
                decode.rotated,
            ),
            workload.scale_pixels_per_second,
            [
                (task.codec, task.width, task.height, task.bit_depth, task.speed, task.pixels_per_second)
                for task in workload.encodes
            ],
            workload.real_time,
            workload.allow_software_encode,
            None if workload.reserved_speed is None else str(workload.reserved_speed),
            *_of_recordings(workload),
        )
    )


def _of_recordings(workload: Workload) -> tuple[Any, ...]:
    """Gives what recordings and pushes have beside: nothing for most sessions, as in lines of earlier programs."""
    capture = workload.capture
    if capture is None and not workload.upload_bits_per_second:
        return ()
    told = capture and (
        capture.width,
        capture.height,
        capture.pixels_per_second,
        capture.browser,
        capture.sound,
        capture.application,
    )
    return (told, workload.upload_bits_per_second)


def _reservation(reservation: Reservation) -> tuple[Any, ...]:
    firm, firm_host = reservation.firm_device_amounts, reservation.firm_host_amounts
    return (
        reservation.device_id,
        reservation.cost_pixels_per_second,
        _amounts(reservation.device_amounts),
        _amounts(reservation.host_amounts),
        None if firm is None else _amounts(firm),
        None if firm_host is None else _amounts(firm_host),
    )


def _amounts(amounts: Mapping[Dimension, int]) -> list[tuple[int, int]]:
    return [(_NUMBERS[dimension], amount) for dimension, amount in amounts.items()]


def _decoded(stored: dict[str, Any]) -> tuple[Decision, int, datetime]:
    attempt, time_us, device_id, policy, cost, settings_version, reservation, verdicts, omitted, fault, preempted = (
        stored["decision"]
    )
    shapes = [tuple(_needs(needs) for needs in shape) for shape in stored["needs"]]
    decision = Decision(
        device_id=None if device_id is None else DeviceId(device_id),
        policy=policy,
        workload=_workload(stored["workload"]),
        cost_pixels_per_second=cost,
        verdicts=tuple(_decoded_verdict(verdict, shapes) for verdict in verdicts),
        settings_version=settings_version,
        reservation=None if reservation is None else _decoded_reservation(*reservation),
        omitted=tuple(OmittedVerdicts(rule=rule, device_count=count) for rule, count in omitted),
        policy_fault=fault,
        preempted=tuple(SessionId(session_id) for session_id in preempted),
    )
    return decision, attempt, _EPOCH + time_us * _MICROSECOND


def _decoded_verdict(stored: Sequence[Any], shapes: Sequence[tuple[tuple[Need, ...], ...]]) -> Verdict:
    device_id, weight, session_count, load, score, refusal, shape, device_used, host_used = stored
    device_needs, host_needs = shapes[shape]
    return Verdict(
        device_id=DeviceId(device_id),
        weight=weight,
        session_count=session_count,
        weighted_load_before=load,
        score=score,
        refusal=None if refusal is None else _refusal(*refusal),
        device_needs=device_needs,
        device_used=tuple(device_used),
        host_needs=host_needs,
        host_used=tuple(host_used),
    )


def _refusal(
    rule: str, message: str, dimension: int | None, needed: int | None, available: int | None, permanent: bool
) -> Refusal:
    return Refusal(
        rule=rule,
        message=message,
        dimension=None if dimension is None else _DIMENSIONS[dimension],
        needed=needed,
        available=available,
        permanent=permanent,
    )


def _needs(stored: Sequence[Sequence[int]]) -> tuple[Need, ...]:
    return tuple((_DIMENSIONS[dimension], needed, bookable) for dimension, needed, bookable in stored)


def _workload(stored: Sequence[Any]) -> Workload:
    decode, scaled, encodes, real_time, allow_software_encode, reserved_speed, *of_recordings = stored
    capture, upload = of_recordings or (None, 0)
    return Workload(
        decode=None if decode is None else _decode(*decode),
        scale_pixels_per_second=scaled,
        encodes=tuple(_encode(*task) for task in encodes),
        real_time=real_time,
        allow_software_encode=allow_software_encode,
        reserved_speed=None if reserved_speed is None else Fraction(reserved_speed),
        capture=None if capture is None else _capture(*capture),
        upload_bits_per_second=upload,
    )


def _capture(
    width: int, height: int, pixels_per_second: int, browser: bool, sound: bool, application: str | None
) -> CaptureTask:
    return CaptureTask(
        width=width,
        height=height,
        pixels_per_second=pixels_per_second,
        browser=browser,
        sound=sound,
        application=application,
    )


def _decode(
    codec: str, width: int, height: int, bit_depth: int, chroma: str | None, pixels_per_second: int, rotated: bool
) -> DecodeTask:
    return DecodeTask(
        codec=VideoCodec(codec),
        width=width,
        height=height,
        bit_depth=bit_depth,
        chroma=chroma,
        pixels_per_second=pixels_per_second,
        rotated=rotated,
    )


def _encode(codec: str, width: int, height: int, bit_depth: int, speed: str, pixels_per_second: int) -> EncodeTask:
    return EncodeTask(
        codec=VideoCodec(codec),
        width=width,
        height=height,
        bit_depth=bit_depth,
        speed=EncodingSpeed(speed),
        pixels_per_second=pixels_per_second,
    )


def _decoded_reservation(
    device_id: str,
    cost: int,
    device: list[list[int]],
    host: list[list[int]],
    firm_device: list[list[int]] | None,
    firm_host: list[list[int]] | None,
) -> Reservation:
    return Reservation(
        device_id=DeviceId(device_id),
        cost_pixels_per_second=cost,
        device_amounts=_decoded_amounts(device),
        host_amounts=_decoded_amounts(host),
        firm_device_amounts=None if firm_device is None else _decoded_amounts(firm_device),
        firm_host_amounts=None if firm_host is None else _decoded_amounts(firm_host),
    )


def _decoded_amounts(stored: list[list[int]]) -> dict[Dimension, int]:
    return {_DIMENSIONS[dimension]: amount for dimension, amount in stored}
