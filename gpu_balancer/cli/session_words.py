"""How the command says where a session stands and what it is about, in a few words."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gpu_balancer.cli.words import UNKNOWN, about, clean, clock, enum_word, size
from gpu_balancer.client.session_requests import has_ended
from gpu_balancer.runtime.redaction import redact_url
from gpu_balancer.v1 import session_pb2

if TYPE_CHECKING:
    from google.protobuf.duration_pb2 import Duration

PHASE_CONDITIONS = frozenset({"AWAITING_DISPLAY", "AWAITING_GATE", "PAUSED", "FINALISING"})
"""Conditions that only say how far a recording is."""


def session_state(state: int) -> str:
    """Names a session's state."""
    return enum_word(session_pb2.SessionState.Name, state, "SESSION_STATE_")


def session_kind(session: session_pb2.Session) -> str:
    """Names what kind of work a session is."""
    return session.WhichOneof("spec") or UNKNOWN


def is_paused(session: session_pb2.Session) -> bool:
    """Tells whether a recording rests."""
    return session.state == session_pb2.SESSION_STATE_RUNNING and _has(session, "PAUSED")


def _has(session: session_pb2.Session, condition_type: str) -> bool:
    return any(condition.type == condition_type for condition in session.conditions)


def phase_words(session: session_pb2.Session) -> str:
    """Tells where a session stands; of a recording also what it waits for, and whether it rests."""
    state = session_state(session.state)
    if not session.HasField("recording"):
        return state
    if session.state == session_pb2.SESSION_STATE_STARTING:
        if _has(session, "AWAITING_DISPLAY"):
            return "waiting for a display"
        if _has(session, "AWAITING_GATE"):
            return f"waiting for the {session.recording.WhichOneof('source') or 'page'}"
    if session.state == session_pb2.SESSION_STATE_STOPPING or (
        session.state == session_pb2.SESSION_STATE_RUNNING and _has(session, "FINALISING")
    ):
        return "finalising"
    if session.state == session_pb2.SESSION_STATE_RUNNING:
        return "paused" if is_paused(session) else "recording"
    return state


def total_time(session: session_pb2.Session) -> Duration:
    """Tells the media time to be done; zero when that is not known. A recording's is its bound, unless told better."""
    progress = session.progress
    if session.HasField("recording") and not progress.HasField("total_time"):
        return session.max_duration
    return progress.total_time


def done_share(session: session_pb2.Session) -> float | None:
    """Tells how much of a session is done, 0 to 1. None: its end is unknown."""
    progress = session.progress
    total = total_time(session).ToMilliseconds()
    stopped = session.state == session_pb2.SESSION_STATE_CANCELLED and session.HasField("recording")
    if session.state == session_pb2.SESSION_STATE_SUCCEEDED or (stopped and progress.frames):
        return 1.0
    return min(1.0, progress.out_time.ToMilliseconds() / total) if total > 0 else None


def queue_words(session: session_pb2.Session) -> str:
    """Tells the place of a session that waits, and how long it may take: "place 3, about 2 min"."""
    queue = session.queue
    parts = [f"place {queue.position}"] if queue.position else []
    if queue.HasField("estimated_wait"):
        parts.append(about(queue.estimated_wait))
    return ", ".join(parts)


def progress_words(session: session_pb2.Session) -> str:
    """Tells in a few words how far a session is; `≤0.5x` is the speed at which it is held."""
    if session.state == session_pb2.SESSION_STATE_QUEUED:
        return queue_words(session) or UNKNOWN
    if session.HasField("recording"):
        return _recording_words(session)
    progress = session.progress
    share = done_share(session)
    parts = [f"{share:.0%}" if share is not None else clock(progress.out_time)] if session.HasField("progress") else []
    if progress.HasField("speed") and session.state == session_pb2.SESSION_STATE_RUNNING:
        parts.append(f"{progress.speed:.2g}x")
    if session.HasField("speed_limit") and session.state == session_pb2.SESSION_STATE_RUNNING:
        parts.append(f"≤{session.speed_limit:.2g}x")
    return " ".join(parts) or UNKNOWN


def _recording_words(session: session_pb2.Session) -> str:
    """Tells what a recording waits for, then how long it is, of how much when that is known."""
    if session.state == session_pb2.SESSION_STATE_STARTING:
        waits = {"AWAITING_DISPLAY": "awaits display", "AWAITING_GATE": "awaits gate"}
        return next((words for kind, words in waits.items() if _has(session, kind)), UNKNOWN)
    if not session.HasField("progress"):
        return UNKNOWN
    if has_ended(session):
        return clock(session.progress.out_time)
    words = {"paused": " paused", "finalising": " ending"}.get(phase_words(session), "")
    return f"{recorded_time(session)}{words}"


def recorded_time(session: session_pb2.Session) -> str:
    """Tells how long a recording is, of how much when that is known: "0:12/0:30"."""
    total = total_time(session)
    done = clock(session.progress.out_time)
    return f"{done}/{clock(total)}" if total.ToNanoseconds() > 0 and not has_ended(session) else done


def recording_figures(session: session_pb2.Session, *, whole: bool = True) -> str:
    """Tells how long a recording is, and the truth about its frames.

    Args:
        session: The session.
        whole: Whether there is room for everything.
    """
    progress = session.progress
    lost = [f"{progress.duplicated_frames} dup", f"{progress.dropped_frames} drop"]
    if not whole:
        return f"{recorded_time(session)} {' '.join(lost)}"
    return ", ".join([f"{recorded_time(session)} {progress.frames} frames", *lost, size(progress.written_bytes)])


def input_words(session: session_pb2.Session) -> str:
    """Names what a session is made from: a transcode's input, a recording's page or application."""
    if session.HasField("recording"):
        spec = session.recording
        if spec.HasField("application"):
            return f"application {clean(spec.application.name)}"
        # The daemon has hidden its secrets; a URL that was typed just now still has them.
        return clean(redact_url(spec.page.url)) or UNKNOWN
    given = session.transcode.input
    source = given.WhichOneof("source")
    if source == "uri":
        return clean(given.uri)
    if source == "upload":
        return given.upload
    return session.ingest_url or "ingest" if source == "ingest" else UNKNOWN
