"""How sessions look."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gpu_balancer.cli.recording_views import recording_facts, report_facts
from gpu_balancer.cli.restart_views import rest_words, restart_facts, way_words
from gpu_balancer.cli.screen import Column
from gpu_balancer.cli.session_words import (
    input_words,
    progress_words,
    queue_words,
    recording_figures,
    session_kind,
    session_state,
)
from gpu_balancer.cli.words import (
    UNKNOWN,
    brief,
    clean,
    clock,
    count,
    device_word,
    enum_word,
    facts_words,
    moment,
    rendition_words,
    size,
)
from gpu_balancer.client.names import short_name
from gpu_balancer.v1 import media_pb2, session_pb2

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from gpu_balancer.v1.session_pb2 import Artifact, Session

COLUMNS = (
    Column(title="SESSION"),
    Column(title="STATE", states=True),
    Column(title="DEVICE"),
    Column(title="DONE", shrinks=True),
    Column(title="CREATED", optional=True),
    Column(title="LABELS", optional=True, shrinks=True),
    Column(title="INPUT", shrinks=True, cut_front=True),
    Column(title="KIND", optional=True),
)
"""Columns of the table of sessions. A new one comes last, so that scripts go on finding the others."""

ARTIFACT_COLUMNS = (
    Column(title="ARTIFACT", shrinks=True, cut_front=True),
    Column(title="SIZE", right=True),
    Column(title="TYPE", optional=True),
    Column(title="CHANGED", optional=True),
    Column(title="FINAL"),
    Column(title="COPIES", shrinks=True),
)
"""Columns of the table of artifacts."""


def session_row(session: Session) -> tuple[str, ...]:
    """Gives a session's row of the table."""
    labels = " ".join(f"{clean(key)}={clean(value)}" for key, value in sorted(session.labels.items()))
    return (
        short_name(session.name),
        session_state(session.state),
        device_word(session.device),
        progress_words(session),
        moment(session.create_time),
        labels or UNKNOWN,
        input_words(session),
        session_kind(session),
    )


def artifact_row(artifact: Artifact) -> tuple[str, ...]:
    """Gives an artifact's row of the table."""
    return (
        clean(artifact.path),
        size(artifact.size_bytes),
        artifact.media_type,
        moment(artifact.update_time),
        "yes" if artifact.final else "no",
        ", ".join(_copy_words(one) for one in artifact.deliveries) or UNKNOWN,
    )


def _copy_words(delivery: session_pb2.Delivery) -> str:
    """Tells how far a copy at a destination is, "archive: delivered" for instance."""
    state = enum_word(session_pb2.DeliveryState.Name, delivery.state, "DELIVERY_STATE_")
    tries = f" after {_times(delivery.try_count)}" if delivery.try_count > 1 else ""
    return f"{clean(delivery.destination)}: {state}{tries}"


def copy_lines(artifacts: Iterable[Artifact]) -> Iterator[str]:
    """Tells what is wrong with copies, a line each."""
    for artifact in artifacts:
        for one in artifact.deliveries:
            if one.message and one.state != session_pb2.DELIVERY_STATE_DELIVERED:
                yield f"{clean(artifact.path)} is not at {clean(one.destination)}: {clean(one.message)}"


def session_facts(session: Session) -> Iterator[tuple[str, str]]:
    """Gives everything about a session, name by name; what is unknown has no value."""
    failure = session.failure
    yield "session", short_name(session.name)
    yield "kind", session_kind(session)
    yield "state", session_state(session.state)
    yield "queue", _queue_facts(session)
    yield "conditions", "\n".join(f"{one.type}: {clean(one.message)}" for one in session.conditions)
    yield "device", device_word(session.device) if session.device else ""
    yield "attempt", str(session.attempt) if session.attempt else ""
    if session.HasField("recording"):
        yield from recording_facts(session)
    else:
        yield "input", input_words(session)
        yield "publish to", session.ingest_url
        yield "input is", facts_words(session.input_facts) if session.HasField("input_facts") else ""
    spec = session.recording if session.HasField("recording") else session.transcode
    yield "profile", spec.profile
    yield "renditions", "\n".join(rendition_words(one) for one in spec.renditions)
    yield "outputs", "\n".join(output_words(one) for one in spec.outputs)
    yield "priority", _priority_words(session)
    yield "labels", "\n".join(f"{clean(key)}={clean(value)}" for key, value in sorted(session.labels.items()))
    yield "waits", f"{clock(session.max_wait)} at most for a device" if session.max_wait.ToNanoseconds() else ""
    yield "speed", _speed_facts(session)
    yield "preempted", _times(session.preemption_count)
    yield from restart_facts(session)
    yield "done", _progress_facts(session)
    if session.HasField("recording_report"):
        yield from report_facts(session.recording_report)
    yield "takes up", _use_words(session)
    yield "failure", f"{failure.message} ({failure.reason})" if session.HasField("failure") else ""
    yield "log", "\n".join(clean(line) for line in failure.log_tail)
    yield "created", _time_or_nothing(session, "create_time")
    yield "running", _time_or_nothing(session, "running_time")
    yield "ended", _time_or_nothing(session, "end_time")
    yield "trace", session.trace_id


def output_words(output: media_pb2.Output) -> str:
    """Describes an output."""
    kind = output.WhichOneof("kind")
    if kind == "file":
        told = f"file {clean(output.file.path)}"
    elif kind == "hls":
        told = f"HLS {clean(output.hls.path)}/"
    else:
        told = f"push to {clean(output.push.url)}" if kind == "push" else UNKNOWN
    return f"{told} ({', '.join(output.renditions)})" if output.renditions else told


def _priority_words(session: Session) -> str:
    name = session_pb2.Priority.Name(session.priority).removeprefix("PRIORITY_").lower()
    if name == "unspecified":
        return ""
    return f"{name}, may be stopped for live work and queued again" if session.preemptible else name


def _queue_facts(session: Session) -> str:
    if session.state != session_pb2.SESSION_STATE_QUEUED:
        return ""
    queue = session.queue
    since = f"since {moment(queue.queued_time)}" if queue.HasField("queued_time") else ""
    until = f"given up at {moment(queue.deadline)}" if queue.HasField("deadline") else "never given up"
    facts = (way_words(session), rest_words(session), queue_words(session), since, until, clean(queue.message))
    return "\n".join(filter(None, facts))


def _times(number: int) -> str:
    if not number:
        return ""
    return "once" if number == 1 else f"{number} times"


def _speed_facts(session: Session) -> str:
    parts = []
    if session.HasField("reserved_speed"):
        parts.append(f"{session.reserved_speed:g}x real time kept free")
    if session.HasField("speed_limit"):
        parts.append(f"held at {session.speed_limit:.2g}x while live work shares its device")
    return ", ".join(parts)


def _progress_facts(session: Session) -> str:
    if not session.HasField("progress"):
        return ""
    progress = session.progress
    if session.HasField("recording"):
        return recording_figures(session)
    parts = [progress_words(session), f"{clock(progress.out_time)} of media", f"{progress.frames} frames"]
    if progress.duplicated_frames or progress.dropped_frames:
        parts.append(f"{progress.duplicated_frames} repeated, {progress.dropped_frames} dropped")
    if progress.written_bytes:
        parts.append(size(progress.written_bytes))
    if progress.frames_per_second:
        parts.append(f"{count(progress.frames_per_second)} fps")
    return ", ".join(parts)


def _use_words(session: Session) -> str:
    """Tells what a session was seen to take of its host."""
    if not session.HasField("measured_use"):
        return ""
    use = session.measured_use
    return f"{use.cores / 1e6:.2f} cores and {use.memory_mib} MiB, measured over {brief(use.measured_time)}"


def _time_or_nothing(session: Session, field: str) -> str:
    return moment(getattr(session, field)) if session.HasField(field) else ""  # type: ignore[arg-type]
