"""Session records with everything in them, for tests that store, list or watch them."""

from __future__ import annotations

from datetime import timedelta

from balancer.domain.decision import Reservation
from balancer.domain.device import Dimension
from balancer.domain.ids import DeviceId, SessionId
from balancer.domain.restart import RestartMode, RestartRule
from balancer.domain.session import (
    Condition,
    EndedAttempt,
    Failure,
    LastRestart,
    MeasuredUse,
    Priority,
    Progress,
    SessionRecord,
    SessionState,
    Settling,
)
from balancer.domain.workload import DecodeTask, EncodeTask, EncodingSpeed, VideoCodec, Workload
from fakes.virtual_time import START_TIME

LADDER = Workload(
    decode=DecodeTask(
        codec=VideoCodec.H264, width=1280, height=720, bit_depth=8, chroma="4:2:0", pixels_per_second=27_648_000
    ),
    scale_pixels_per_second=18_662_400,
    encodes=tuple(
        EncodeTask(
            codec=VideoCodec.H264,
            width=width,
            height=height,
            bit_depth=8,
            speed=EncodingSpeed.FAST,
            pixels_per_second=width * height * 30,
        )
        for width, height in ((1280, 720), (854, 480), (640, 360))
    ),
    real_time=True,
    allow_software_encode=False,
)


def session_record(number: int = 1, **fields: object) -> SessionRecord:
    """Makes a starting session, the `number`-th to be created."""
    record = SessionRecord(
        id=SessionId(f"session-{number}"),
        state=SessionState.STARTING,
        payload=b"\x00the client's words\xff",
        priority=Priority.LIVE,
        workload=LADDER,
        create_time=START_TIME + timedelta(milliseconds=number),
        device_id=DeviceId("cpu-0"),
        attempt=1,
        reservation=Reservation(
            device_id=DeviceId("cpu-0"),
            cost_pixels_per_second=123,
            device_amounts={Dimension.CORES: 2_500_000},
            host_amounts={},
        ),
    )
    return _replaced(record, fields)


def full_record(number: int = 1) -> SessionRecord:
    """Makes a session in which no field has its default."""
    return session_record(
        number,
        state=SessionState.FAILED,
        labels={"owner": "Zoë", "": 'quote " and \\'},
        request_id="request-1",
        request_digest="ab12",
        conditions=(Condition(type="STALLED", message="No frame for 10 s.", since_time=START_TIME),),
        progress=Progress(
            frames=2**40,
            frames_per_second=29.97,
            speed=1.01,
            duplicated_frames=3,
            dropped_frames=4,
            out_time=timedelta(days=40, microseconds=1),
            written_bytes=2**50,
            total_time=timedelta(seconds=7.5),
        ),
        failure=Failure(reason="DISK_FULL", message="No room.", exit_code=228, log_tail=("one", "two\u2028three")),
        ingest_url="rtmp://127.0.0.1/key",
        running_time=START_TIME + timedelta(microseconds=1),
        end_time=START_TIME + timedelta(days=1),
        stop_requested=True,
        preemptible=True,
        requeue=True,
        settling=Settling(state=SessionState.FAILED, attempt=2),
        preemption_count=2,
        retry_count=1,
        avoided_device_ids=(DeviceId("GPU-1"),),
        earlier_device_ids=(DeviceId("GPU-1"), DeviceId("cpu-1")),
        queued_time=START_TIME + timedelta(seconds=1),
        queue_deadline=START_TIME + timedelta(minutes=1),
        revision=2**40,
        traceparent="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        measured_use=MeasuredUse(cores=700_000, memory_mib=600, measured_time=timedelta(seconds=15)),
        recording_report=b"\x08\xff\x01",
        restart=RestartRule(mode=RestartMode.ON_FAILURE, max_restarts=7, reasons=frozenset({"KILLED", "INPUT_LOST"})),
        resumable=True,
        max_duration=timedelta(hours=2),
        restart_count=9,
        restart_row=2,
        last_restart=LastRestart(
            attempt=2,
            device_id=DeviceId("GPU-1"),
            failure=Failure(reason="KILLED", message="It was killed.", exit_code=137, log_tail=("a", "b")),
            restart_time=START_TIME,
        ),
        not_before_time=START_TIME + timedelta(seconds=4),
        moving=Failure(reason="DEVICE_DRAINED", message="The device is being emptied."),
        folder="/state/sessions/one/3",
        ended_attempts=(EndedAttempt(attempt=2, device_id=DeviceId("GPU-1"), folder="/state/sessions/one/2"),),
        ran_for=timedelta(minutes=3, microseconds=7),
    )


def _replaced(record: SessionRecord, fields: dict[str, object]) -> SessionRecord:
    values = {name: getattr(record, name) for name in SessionRecord.__slots__}
    return SessionRecord(**{**values, **fields})
