"""From values to the contract's messages: what the agent is, what its attempts are, what was measured and left."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import quote

from agents.health.device_health import DeviceHealth, Engine, HealthState
from agents.pipelines.job import Direction
from agents.servicers.recording_translation import report_message, use_message
from agents.sessions.attempt import Ending, Phase
from agents.sessions.event_feed import AgentChanged, CaughtUp, MeasurementsTold, StatusTold
from gpu_balancer.v1 import agent_service_pb2, device_pb2, media_pb2, session_pb2

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from agents.devices.identity import DeviceIdentity
    from agents.devices.measurements import Measurements
    from agents.pipelines.capability import Capability, FfmpegBuild
    from agents.pipelines.job import InputFacts
    from agents.pipelines.progress import Progress
    from agents.sessions.artifacts import ArtifactFile
    from agents.sessions.attempt import AttemptKey, AttemptStatus, Failure
    from agents.sessions.event_feed import Event

_PHASES = {
    Phase.STARTING: agent_service_pb2.ATTEMPT_PHASE_STARTING,
    Phase.RUNNING: agent_service_pb2.ATTEMPT_PHASE_RUNNING,
    Phase.ENDED: agent_service_pb2.ATTEMPT_PHASE_ENDED,
}
_ENDINGS = {
    Ending.COMPLETED: agent_service_pb2.ATTEMPT_OUTCOME_COMPLETED,
    Ending.STOPPED: agent_service_pb2.ATTEMPT_OUTCOME_STOPPED,
    Ending.FAILED: agent_service_pb2.ATTEMPT_OUTCOME_FAILED,
}
_DIRECTIONS = {
    Direction.DECODE: device_pb2.CODING_DIRECTION_DECODE,
    Direction.ENCODE: device_pb2.CODING_DIRECTION_ENCODE,
}
_HEALTH_STATES = {
    HealthState.OK: device_pb2.HEALTH_STATE_OK,
    HealthState.DEGRADED: device_pb2.HEALTH_STATE_DEGRADED,
    HealthState.UNHEALTHY: device_pb2.HEALTH_STATE_UNHEALTHY,
    HealthState.LOST: device_pb2.HEALTH_STATE_LOST,
}
_ENGINES = {
    Engine.DECODE: device_pb2.CODING_DIRECTION_DECODE,
    Engine.ENCODE: device_pb2.CODING_DIRECTION_ENCODE,
}


def session_name(session: str) -> str:
    """Makes "sessions/{id}"."""
    return f"sessions/{session}"


def attempt_id(key: AttemptKey) -> agent_service_pb2.AttemptId:
    """Names an attempt."""
    return agent_service_pb2.AttemptId(session=session_name(key.session), attempt=key.attempt)


def event_message(event: Event, agent: Callable[[], agent_service_pb2.Agent]) -> agent_service_pb2.WatchEventsResponse:
    """Makes the message of an event.

    Args:
        event: What happened.
        agent: Describes the agent as it is now.
    """
    match event:
        case StatusTold():
            return agent_service_pb2.WatchEventsResponse(
                event_number=event.number, attempt=status_message(event.status)
            )
        case MeasurementsTold():
            return agent_service_pb2.WatchEventsResponse(measurements=measurements_message(event.measurements))
        case AgentChanged():
            return agent_service_pb2.WatchEventsResponse(agent=agent())
        case CaughtUp():
            live = [attempt_id(key) for key in event.live_attempts]
            return agent_service_pb2.WatchEventsResponse(caught_up=agent_service_pb2.CaughtUp(live_attempts=live))


def status_message(status: AttemptStatus) -> agent_service_pb2.AttemptStatus:
    """Makes the message of an attempt's status."""
    message = agent_service_pb2.AttemptStatus(
        id=attempt_id(status.key),
        phase=_PHASES[status.phase],
        outcome=_ENDINGS[status.ending] if status.ending else agent_service_pb2.ATTEMPT_OUTCOME_UNSPECIFIED,
        ingest_url=status.ingest_url or "",
    )
    if status.failure is not None:
        message.failure.CopyFrom(_failure_message(status.failure))
    if status.progress is not None:
        message.progress.CopyFrom(_progress_message(status.progress))
    for condition in status.conditions:
        added = message.conditions.add(type=condition.type, message=condition.message)
        added.since_time.FromDatetime(condition.since_time)
    if status.running_time is not None:
        message.running_time.FromDatetime(status.running_time)
    if status.end_time is not None:
        message.end_time.FromDatetime(status.end_time)
    if status.recording_report is not None:
        message.recording_report.CopyFrom(report_message(status.recording_report))
    if status.measured_use is not None:
        message.measured_use.CopyFrom(use_message(status.measured_use))
    return message


def measurements_message(measurements: Measurements) -> device_pb2.DeviceMeasurements:
    """Makes the message of measurements; what is None stays unset."""
    message = device_pb2.DeviceMeasurements(
        encoder_utilization_percent=measurements.encoder_utilization_percent,
        decoder_utilization_percent=measurements.decoder_utilization_percent,
        compute_utilization_percent=measurements.compute_utilization_percent,
        memory_used_mib=measurements.memory_used_mib,
        encoder_sessions=measurements.encoder_sessions,
        temperature_celsius=measurements.temperature_celsius,
        foreign_encoder_sessions=measurements.foreign_encoder_sessions,
        foreign_encoder_utilization_percent=measurements.foreign_encoder_utilization_percent,
        foreign_decoder_utilization_percent=measurements.foreign_decoder_utilization_percent,
        foreign_memory_used_mib=measurements.foreign_memory_used_mib,
        foreign_compute_utilization_percent=measurements.foreign_compute_utilization_percent,
    )
    message.measure_time.FromDatetime(measurements.measure_time)
    return message


def identity_message(identity: DeviceIdentity) -> device_pb2.DeviceIdentity:
    """Makes the message of what a device is; what is None stays unset."""
    kind = device_pb2.DEVICE_KIND_NVIDIA if identity.kind == "nvidia" else device_pb2.DEVICE_KIND_CPU
    return device_pb2.DeviceIdentity(
        id=identity.id,
        kind=kind,
        model=identity.model,
        architecture=identity.architecture or "",
        pci_address=identity.pci_address or "",
        index=identity.index,
        driver_version=identity.driver_version or "",
        memory_total_mib=identity.memory_total_mib,
        encoder_engines=identity.encoder_engines,
        decoder_engines=identity.decoder_engines,
        cores=identity.cores,
        video_clock_mhz=identity.video_clock_mhz,
        table_model=identity.table_model or "",
    )


def health_message(health: DeviceHealth | None) -> device_pb2.DeviceHealth | None:
    """Makes the message of how well the device is. None: it is not watched."""
    if health is None:
        return None
    message = device_pb2.DeviceHealth(
        state=_HEALTH_STATES[health.state],
        reason=health.reason,
        message=health.message,
        xid=health.xid,
        faulty_engines=[_ENGINES[engine] for engine in sorted(health.faulty_engines)],
    )
    if health.since_time is not None:
        message.since_time.FromDatetime(health.since_time)
    return message


def build_message(build: FfmpegBuild) -> device_pb2.FfmpegBuild:
    """Makes the message of an ffmpeg program."""
    return device_pb2.FfmpegBuild(path=build.path, version=build.version, candidate=build.candidate)


def capability_message(capability: Capability) -> device_pb2.Capability:
    """Makes the message of what was tried."""
    return device_pb2.Capability(
        codec=media_pb2.VideoCodec.Value(f"VIDEO_CODEC_{capability.codec.name}"),
        direction=_DIRECTIONS[capability.direction],
        bit_depth=capability.bit_depth,
        implementation=capability.implementation,
        works=capability.works,
        hardware=capability.hardware,
        message=capability.message,
        ffmpeg=capability.ffmpeg,
    )


def facts_message(facts: InputFacts) -> media_pb2.InputFacts:
    """Makes the message of what an input is; what is unknown stays unset."""
    message = media_pb2.InputFacts(
        width=facts.width or 0,
        height=facts.height or 0,
        bit_depth=facts.bit_depth,
        chroma=facts.chroma or "",
        has_audio=facts.has_audio,
        audio_codec=facts.audio_codec or "",
        format=facts.format or "",
        rotation_degrees=facts.rotation_degrees,
    )
    if facts.video_codec is not None:
        message.video_codec = media_pb2.VideoCodec.Value(f"VIDEO_CODEC_{facts.video_codec.name}")
    if facts.frame_rate is not None:
        message.frame_rate.numerator = facts.frame_rate.numerator
        message.frame_rate.denominator = facts.frame_rate.denominator
    if facts.duration is not None:
        message.duration.FromTimedelta(facts.duration)
    return message


def artifact_message(
    session: str, artifact: ArtifactFile, *, final: bool, copies: Sequence[session_pb2.Delivery] = ()
) -> session_pb2.Artifact:
    """Makes the message of an artifact.

    Args:
        session: The session's id.
        artifact: The file.
        final: Whether the attempt has ended.
        copies: Of it at destinations.
    """
    message = session_pb2.Artifact(
        name=f"{session_name(session)}/artifacts/{artifact.path}",
        path=artifact.path,
        size_bytes=artifact.size_bytes,
        media_type=artifact.media_type,
        final=final,
        http_path=f"/v1/{session_name(session)}/artifacts/{quote(artifact.path)}",
        deliveries=copies,
    )
    message.update_time.FromDatetime(artifact.update_time)
    return message


def _failure_message(failure: Failure) -> session_pb2.Failure:
    return session_pb2.Failure(
        reason=failure.reason, message=failure.message, exit_code=failure.exit_code, log_tail=failure.log_tail
    )


def _progress_message(progress: Progress) -> session_pb2.Progress:
    message = session_pb2.Progress(
        frames=progress.frames,
        frames_per_second=progress.frames_per_second,
        speed=progress.speed,
        duplicated_frames=progress.duplicated_frames,
        dropped_frames=progress.dropped_frames,
        written_bytes=progress.written_bytes or 0,
    )
    message.out_time.FromTimedelta(progress.out_time)
    if progress.total_time is not None:
        message.total_time.FromTimedelta(progress.total_time)
    return message
