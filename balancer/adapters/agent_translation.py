"""Between the agent's part of the contract and the balancer's domain. Pure; unset on the wire is None here."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from balancer.domain.device import (
    Capability,
    DeviceIdentity,
    DeviceKind,
    Direction,
    RecordingAbility,
    SoundTiming,
)
from balancer.domain.health import DeviceHealth, HealthState
from balancer.domain.ids import DeviceId, SessionId
from balancer.domain.session import Condition, Failure, MeasuredUse, Progress
from balancer.domain.session_events import AttemptOutcome, AttemptPhase, AttemptReported
from balancer.domain.workload import VideoCodec
from balancer.ports.agent_client import AgentEvent, AgentReport, AttemptEvent, CaughtUp, FfmpegBuild, Measurements
from gpu_balancer.v1 import agent_service_pb2, device_pb2, media_pb2, recording_pb2, session_pb2

if TYPE_CHECKING:
    from google.protobuf.timestamp_pb2 import Timestamp

SESSION_PREFIX = "sessions/"

_PHASES = {
    agent_service_pb2.ATTEMPT_PHASE_STARTING: AttemptPhase.STARTING,
    agent_service_pb2.ATTEMPT_PHASE_RUNNING: AttemptPhase.RUNNING,
    agent_service_pb2.ATTEMPT_PHASE_ENDED: AttemptPhase.ENDED,
}
_OUTCOMES = {
    agent_service_pb2.ATTEMPT_OUTCOME_COMPLETED: AttemptOutcome.COMPLETED,
    agent_service_pb2.ATTEMPT_OUTCOME_STOPPED: AttemptOutcome.STOPPED,
    agent_service_pb2.ATTEMPT_OUTCOME_FAILED: AttemptOutcome.FAILED,
}
_CODECS = {
    number: VideoCodec(name.removeprefix("VIDEO_CODEC_").lower())
    for name, number in media_pb2.VideoCodec.items()
    if number != media_pb2.VIDEO_CODEC_UNSPECIFIED
}
_DIRECTIONS = {
    device_pb2.CODING_DIRECTION_DECODE: Direction.DECODE,
    device_pb2.CODING_DIRECTION_ENCODE: Direction.ENCODE,
}
_HEALTH_STATES = {
    device_pb2.HEALTH_STATE_OK: HealthState.OK,
    device_pb2.HEALTH_STATE_DEGRADED: HealthState.DEGRADED,
    device_pb2.HEALTH_STATE_UNHEALTHY: HealthState.UNHEALTHY,
    device_pb2.HEALTH_STATE_LOST: HealthState.LOST,
}


def session_id_of(name: str) -> SessionId:
    """Takes the id out of "sessions/{id}"."""
    return SessionId(name.removeprefix(SESSION_PREFIX))


def session_name(session_id: SessionId) -> str:
    """Makes "sessions/{id}"."""
    return f"{SESSION_PREFIX}{session_id}"


def identity_from_proto(message: device_pb2.DeviceIdentity) -> DeviceIdentity:
    """Reads what a device is."""

    def optional_int(field: str) -> int | None:
        return getattr(message, field) if message.HasField(field) else None  # type: ignore[arg-type]

    return DeviceIdentity(
        id=DeviceId(message.id),
        kind=DeviceKind.NVIDIA if message.kind == device_pb2.DEVICE_KIND_NVIDIA else DeviceKind.CPU,
        model=message.model,
        architecture=message.architecture or None,
        pci_address=message.pci_address or None,
        index=optional_int("index"),
        driver_version=message.driver_version or None,
        memory_total_mib=optional_int("memory_total_mib"),
        encoder_engines=optional_int("encoder_engines"),
        decoder_engines=optional_int("decoder_engines"),
        cores=tuple(message.cores),
        video_clock_mhz=optional_int("video_clock_mhz"),
        table_model=message.table_model or None,
    )


def agent_from_proto(message: agent_service_pb2.Agent) -> AgentReport:
    """Reads what an agent is and what its device can do. Capabilities of unknown codecs or directions are left out."""
    return AgentReport(
        incarnation=message.incarnation,
        version=message.version,
        process_id=message.process_id,
        identity=identity_from_proto(message.identity),
        ffmpeg_builds=tuple(
            FfmpegBuild(path=build.path, version=build.version, candidate=build.candidate)
            for build in message.ffmpeg_builds
        ),
        capabilities=tuple(
            Capability(
                codec=_CODECS[item.codec],
                direction=_DIRECTIONS[item.direction],
                bit_depth=item.bit_depth,
                works=item.works,
                hardware=item.hardware,
                implementation=item.implementation,
                message=item.message,
                ffmpeg=item.ffmpeg,
            )
            for item in message.capabilities
            if item.codec in _CODECS and item.direction in _DIRECTIONS
        ),
        probed=message.probed,
        fault_message=message.fault_message,
        last_event_number=message.last_event_number,
        recording=ability_from_proto(message.recording) if message.HasField("recording") else None,
        ready_display_count=message.recording.ready_display_count,
        health=health_from_proto(message.health) if message.HasField("health") else None,
    )


def health_from_proto(message: device_pb2.DeviceHealth) -> DeviceHealth | None:
    """Reads how well a device is. None: nothing was said that is known here."""
    if message.state not in _HEALTH_STATES:
        return None
    return DeviceHealth(
        state=_HEALTH_STATES[message.state],
        reason=message.reason,
        message=message.message,
        xid=message.xid if message.HasField("xid") else None,
        since_time=_time(message.since_time) if message.HasField("since_time") else None,
        faulty_engines=tuple(_DIRECTIONS[item] for item in message.faulty_engines if item in _DIRECTIONS),
    )


def ability_from_proto(message: recording_pb2.RecordingAbility) -> RecordingAbility:
    """Reads what an agent records, apart from what stands ready now."""
    return RecordingAbility(
        available=message.available,
        fault_message=message.fault_message,
        display_count=message.display_count,
        browser=message.browser or None,
        applications=frozenset(message.applications),
        largest_width=message.largest_width,
        largest_height=message.largest_height,
        sound_timing=sound_timing_from_proto(message.sound_timing) if message.HasField("sound_timing") else None,
    )


def sound_timing_from_proto(message: recording_pb2.SoundTiming) -> SoundTiming:
    """Reads how far sound and picture are apart; what was not measured is None."""

    def optional(field: str) -> timedelta | None:
        return getattr(message, field).ToTimedelta() if message.HasField(field) else None  # type: ignore[arg-type]

    return SoundTiming(
        delay=message.delay.ToTimedelta(),
        delay_source=message.delay_source,
        film_offset=optional("film_offset"),
        drawing_offset=optional("drawing_offset"),
        heard_drawing_offset=optional("heard_drawing_offset"),
        measurement_time=_time(message.measurement_time) if message.HasField("measurement_time") else None,
    )


def measurements_from_proto(message: device_pb2.DeviceMeasurements) -> Measurements:
    """Reads measurements; what was not measured is None."""

    def optional_int(field: str) -> int | None:
        return getattr(message, field) if message.HasField(field) else None  # type: ignore[arg-type]

    return Measurements(
        encoder_utilization_percent=optional_int("encoder_utilization_percent"),
        decoder_utilization_percent=optional_int("decoder_utilization_percent"),
        compute_utilization_percent=optional_int("compute_utilization_percent"),
        memory_used_mib=optional_int("memory_used_mib"),
        encoder_sessions=optional_int("encoder_sessions"),
        temperature_celsius=optional_int("temperature_celsius"),
        measure_time=_time(message.measure_time) if message.HasField("measure_time") else None,
        foreign_encoder_sessions=optional_int("foreign_encoder_sessions"),
        foreign_encoder_utilization_percent=optional_int("foreign_encoder_utilization_percent"),
        foreign_decoder_utilization_percent=optional_int("foreign_decoder_utilization_percent"),
        foreign_memory_used_mib=optional_int("foreign_memory_used_mib"),
        foreign_compute_utilization_percent=optional_int("foreign_compute_utilization_percent"),
    )


def event_from_proto(message: agent_service_pb2.WatchEventsResponse) -> AgentEvent | None:
    """Reads one event.

    Returns:
        The event; None for a kind that this version does not know, which is skipped.
    """
    match message.WhichOneof("event"):
        case "attempt":
            report = attempt_from_proto(message.attempt)
            if report is None:
                return None
            body = AttemptEvent(session_id=session_id_of(message.attempt.id.session), report=report)
            return AgentEvent(number=message.event_number, body=body)
        case "measurements":
            return AgentEvent(number=message.event_number, body=measurements_from_proto(message.measurements))
        case "agent":
            return AgentEvent(number=message.event_number, body=agent_from_proto(message.agent))
        case "caught_up":
            live = {session_id_of(item.session): item.attempt for item in message.caught_up.live_attempts}
            return AgentEvent(number=message.event_number, body=CaughtUp(live_attempts=live))
        case _:
            return None


def attempt_from_proto(status: agent_service_pb2.AttemptStatus) -> AttemptReported | None:
    """Reads where an attempt stands. None: in a phase that this version does not know."""
    if status.phase not in _PHASES:
        return None
    return AttemptReported(
        attempt=status.id.attempt,
        phase=_PHASES[status.phase],
        outcome=_OUTCOMES.get(status.outcome),
        failure=_failure(status.failure) if status.HasField("failure") else None,
        progress=_progress(status.progress) if status.HasField("progress") else None,
        conditions=tuple(
            Condition(type=item.type, message=item.message, since_time=_time(item.since_time))
            for item in status.conditions
        ),
        ingest_url=status.ingest_url or None,
        running_time=_time(status.running_time) if status.HasField("running_time") else None,
        end_time=_time(status.end_time) if status.HasField("end_time") else None,
        measured_use=_measured_use(status.measured_use) if status.HasField("measured_use") else None,
        recording_report=status.recording_report.SerializeToString() if status.HasField("recording_report") else None,
        folder=status.folder,
    )


def _measured_use(message: recording_pb2.MeasuredUse) -> MeasuredUse:
    return MeasuredUse(
        cores=message.cores, memory_mib=message.memory_mib, measured_time=message.measured_time.ToTimedelta()
    )


def _failure(message: session_pb2.Failure) -> Failure:
    return Failure(
        reason=message.reason,
        message=message.message,
        exit_code=message.exit_code if message.HasField("exit_code") else None,
        log_tail=tuple(message.log_tail),
    )


def _progress(message: session_pb2.Progress) -> Progress:
    return Progress(
        frames=message.frames,
        frames_per_second=message.frames_per_second,
        speed=message.speed if message.HasField("speed") else None,
        duplicated_frames=message.duplicated_frames,
        dropped_frames=message.dropped_frames,
        out_time=message.out_time.ToTimedelta(),
        written_bytes=message.written_bytes,
        total_time=message.total_time.ToTimedelta() if message.HasField("total_time") else None,
    )


def _time(stamp: Timestamp) -> datetime:
    return stamp.ToDatetime(tzinfo=UTC)
