"""How a session record lies in the store: columns for what is looked for, the client's own words, JSON for the rest.

What never changes (`fixed`) is apart from what does (`changing`). Instants and durations are whole microseconds, the
finest that Python knows, so that a record comes back equal. Encoding is in the path of every admission: plain
functions and the C encoder, no model classes, and workloads, which come in few shapes, are written once per shape.
"""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from collections.abc import Mapping, Sequence
from datetime import timedelta
from fractions import Fraction
from functools import lru_cache
from typing import Any, NamedTuple

from balancer.adapters.restart_codec import (
    MICROSECOND,
    decoded_course,
    decoded_failure,
    encoded_course,
    encoded_failure,
    encoded_rule,
    instant,
    instant_or_none,
    microseconds,
    whole,
)
from balancer.domain.decision import Reservation
from balancer.domain.device import Dimension
from balancer.domain.ids import DeviceId, SessionId
from balancer.domain.restart import NO_RESTART
from balancer.domain.session import (
    Condition,
    MeasuredUse,
    Priority,
    Progress,
    SessionRecord,
    SessionState,
    Settling,
)
from balancer.domain.workload import CaptureTask, DecodeTask, EncodeTask, EncodingSpeed, VideoCodec, Workload

_KEPT_WORKLOADS = 256
_PLAIN = (
    "ingest_url",
    "stop_requested",
    "preemptible",
    "requeue",
    "preemption_count",
    "retry_count",
    "avoided_device_ids",
    "earlier_device_ids",
    "restart_count",
    "restart_row",
    "folder",
)
_INSTANTS = ("running_time", "end_time", "queued_time", "queue_deadline", "not_before_time")
_encode_json = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False, check_circular=False).encode


class SessionRow(NamedTuple):
    """One row of the table of sessions, columns in order."""

    id: str
    create_time_us: int
    state: str
    device_id: str | None
    attempt: int
    revision: int
    request_id: str | None
    request_digest: str | None
    payload: bytes
    fixed: str
    changing: str


def encode_session(record: SessionRecord) -> SessionRow:
    """Makes a record's row."""
    return SessionRow(
        record.id,
        microseconds(record.create_time),
        record.state.value,
        record.device_id,
        record.attempt,
        record.revision,
        record.request_id,
        record.request_digest,
        record.payload,
        _fixed(record),
        _encode_json(_changing(record)),
    )


def decode_session(row: tuple[Any, ...]) -> SessionRecord:
    """Makes the record of a row.

    Args:
        row: The columns in the order of `SessionRow`.

    Raises:
        ValueError: The row is not one that `encode_session` made.
    """
    stored = SessionRow._make(row)
    try:
        return _decoded(stored, json.loads(stored.fixed), json.loads(stored.changing))
    except (KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise ValueError(f"{type(error).__name__}: {error}") from error


def _fixed(record: SessionRecord) -> str:
    own: dict[str, Any] = {
        "priority": record.priority,
        "labels": dict(record.labels),
        "traceparent": record.traceparent,
    }
    if record.restart != NO_RESTART:
        own["restart"] = encoded_rule(record.restart)
    if record.resumable:
        own["resumable"] = True
    if record.max_duration is not None:
        own["max_duration_us"] = record.max_duration // MICROSECOND
    return f'{_encode_json(own)[:-1]},"workload":{_workload_json(record.workload)}}}'


@lru_cache(maxsize=_KEPT_WORKLOADS)
def _workload_json(workload: Workload) -> str:
    decode, capture = workload.decode, workload.capture
    return _encode_json(
        {
            "decode": decode
            and {
                "codec": decode.codec,
                "width": decode.width,
                "height": decode.height,
                "bit_depth": decode.bit_depth,
                "chroma": decode.chroma,
                "pixels_per_second": decode.pixels_per_second,
                "rotated": decode.rotated,
            },
            "scale_pixels_per_second": workload.scale_pixels_per_second,
            "encodes": [
                {
                    "codec": task.codec,
                    "width": task.width,
                    "height": task.height,
                    "bit_depth": task.bit_depth,
                    "speed": task.speed,
                    "pixels_per_second": task.pixels_per_second,
                }
                for task in workload.encodes
            ],
            "real_time": workload.real_time,
            "allow_software_encode": workload.allow_software_encode,
            "reserved_speed": workload.reserved_speed and str(workload.reserved_speed),
            "capture": capture
            and {
                "width": capture.width,
                "height": capture.height,
                "pixels_per_second": capture.pixels_per_second,
                "browser": capture.browser,
                "sound": capture.sound,
                "application": capture.application,
            },
            "upload_bits_per_second": workload.upload_bits_per_second,
        }
    )


def _changing(record: SessionRecord) -> dict[str, Any]:
    """Leaves out what is not there: most records have little of it."""
    changing: dict[str, Any] = {}
    if record.reservation is not None:
        changing["reservation"] = _encoded_reservation(record.reservation)
    if record.conditions:
        changing["conditions"] = [
            [condition.type, condition.message, microseconds(condition.since_time)] for condition in record.conditions
        ]
    if record.progress is not None:
        changing["progress"] = _progress(record.progress)
    if record.failure is not None:
        changing["failure"] = encoded_failure(record.failure)
    changing |= encoded_course(record)
    if (measured := record.measured_use) is not None:
        changing["measured_use"] = [measured.cores, measured.memory_mib, measured.measured_time // MICROSECOND]
    if (settling := record.settling) is not None:
        changing["settling"] = [settling.state, settling.attempt]
    if record.recording_report is not None:
        changing["recording_report"] = b64encode(record.recording_report).decode()
    for name in _PLAIN:
        if value := getattr(record, name):
            changing[name] = value
    for name in _INSTANTS:
        if (instant := getattr(record, name)) is not None:
            changing[f"{name}_us"] = microseconds(instant)
    return changing


def _settling(encoded: list[Any] | None) -> Settling | None:
    return None if encoded is None else Settling(state=SessionState(encoded[0]), attempt=whole(encoded[1]))


def _encoded_reservation(reservation: Reservation) -> dict[str, Any]:
    encoded: dict[str, Any] = {
        "device_id": reservation.device_id,
        "cost_pixels_per_second": reservation.cost_pixels_per_second,
        "device": _amounts(reservation.device_amounts),
        "host": _amounts(reservation.host_amounts),
    }
    if reservation.firm_device_amounts is not None and reservation.firm_host_amounts is not None:
        encoded["firm_device"] = _amounts(reservation.firm_device_amounts)
        encoded["firm_host"] = _amounts(reservation.firm_host_amounts)
    if reservation.capture_amounts is not None:
        encoded["capture"] = _amounts(reservation.capture_amounts)
    return encoded


def _amounts(amounts: Mapping[Dimension, int]) -> dict[str, int]:
    return {str(dimension.value): amount for dimension, amount in amounts.items()}


def _progress(progress: Progress) -> dict[str, Any]:
    return {
        "frames": progress.frames,
        "frames_per_second": progress.frames_per_second,
        "speed": progress.speed,
        "duplicated_frames": progress.duplicated_frames,
        "dropped_frames": progress.dropped_frames,
        "out_time_us": progress.out_time // MICROSECOND,
        "written_bytes": progress.written_bytes,
        "total_time_us": None if progress.total_time is None else progress.total_time // MICROSECOND,
    }


def _decoded(row: SessionRow, fixed: dict[str, Any], changing: dict[str, Any]) -> SessionRecord:
    return SessionRecord(
        id=SessionId(row.id),
        state=SessionState(row.state),
        payload=row.payload,
        priority=Priority(fixed["priority"]),
        workload=_workload(fixed["workload"]),
        create_time=instant(row.create_time_us),
        labels=fixed["labels"],
        request_id=row.request_id,
        request_digest=row.request_digest,
        device_id=None if row.device_id is None else DeviceId(row.device_id),
        attempt=whole(row.attempt),
        reservation=_reservation(changing.get("reservation")),
        conditions=tuple(
            Condition(type=type_, message=message, since_time=instant(since_us))
            for type_, message, since_us in changing.get("conditions", ())
        ),
        progress=_decoded_progress(changing.get("progress")),
        failure=decoded_failure(changing.get("failure")),
        ingest_url=changing.get("ingest_url"),
        running_time=instant_or_none(changing.get("running_time_us")),
        end_time=instant_or_none(changing.get("end_time_us")),
        stop_requested=changing.get("stop_requested", False),
        preemptible=changing.get("preemptible", False),
        requeue=changing.get("requeue", False),
        settling=_settling(changing.get("settling")),
        preemption_count=whole(changing.get("preemption_count", 0)),
        retry_count=whole(changing.get("retry_count", 0)),
        avoided_device_ids=_device_ids(changing.get("avoided_device_ids", ())),
        earlier_device_ids=_device_ids(changing.get("earlier_device_ids", ())),
        queued_time=instant_or_none(changing.get("queued_time_us")),
        queue_deadline=instant_or_none(changing.get("queue_deadline_us")),
        revision=whole(row.revision),
        traceparent=fixed["traceparent"],
        measured_use=_measured_use(changing.get("measured_use")),
        recording_report=_report(changing.get("recording_report")),
        **decoded_course(fixed, changing),
    )


def _workload(stored: dict[str, Any]) -> Workload:
    decode, capture = stored["decode"], stored.get("capture")
    return Workload(
        decode=decode and DecodeTask(**{**decode, "codec": VideoCodec(decode["codec"])}),
        scale_pixels_per_second=stored["scale_pixels_per_second"],
        encodes=tuple(
            EncodeTask(**{**task, "codec": VideoCodec(task["codec"]), "speed": EncodingSpeed(task["speed"])})
            for task in stored["encodes"]
        ),
        real_time=stored["real_time"],
        allow_software_encode=stored["allow_software_encode"],
        reserved_speed=_speed(stored.get("reserved_speed")),
        capture=capture and CaptureTask(**capture),
        upload_bits_per_second=stored.get("upload_bits_per_second", 0),
    )


def _reservation(stored: dict[str, Any] | None) -> Reservation | None:
    if stored is None:
        return None
    return Reservation(
        device_id=DeviceId(stored["device_id"]),
        cost_pixels_per_second=whole(stored["cost_pixels_per_second"]),
        device_amounts=_decoded_amounts(stored["device"]),
        host_amounts=_decoded_amounts(stored["host"]),
        firm_device_amounts=_decoded_amounts(stored["firm_device"]) if "firm_device" in stored else None,
        firm_host_amounts=_decoded_amounts(stored["firm_host"]) if "firm_host" in stored else None,
        capture_amounts=_decoded_amounts(stored["capture"]) if "capture" in stored else None,
    )


def _decoded_amounts(stored: dict[str, int]) -> dict[Dimension, int]:
    return {Dimension(int(number)): whole(amount) for number, amount in stored.items()}


def _report(stored: str | None) -> bytes | None:
    return None if stored is None else b64decode(stored, validate=True)


def _device_ids(stored: Sequence[str]) -> tuple[DeviceId, ...]:
    return tuple(DeviceId(device_id) for device_id in stored)


def _speed(stored: str | None) -> Fraction | None:
    return None if stored is None else Fraction(stored)


def _decoded_progress(stored: dict[str, Any] | None) -> Progress | None:
    if stored is None:
        return None
    total_time_us = stored["total_time_us"]
    return Progress(
        frames=stored["frames"],
        frames_per_second=stored["frames_per_second"],
        speed=stored["speed"],
        duplicated_frames=stored["duplicated_frames"],
        dropped_frames=stored["dropped_frames"],
        out_time=timedelta(microseconds=stored["out_time_us"]),
        written_bytes=stored["written_bytes"],
        total_time=None if total_time_us is None else timedelta(microseconds=total_time_us),
    )


def _measured_use(stored: list[int] | None) -> MeasuredUse | None:
    if stored is None:
        return None
    cores, memory_mib, measured_us = stored
    return MeasuredUse(cores=cores, memory_mib=memory_mib, measured_time=timedelta(microseconds=measured_us))
