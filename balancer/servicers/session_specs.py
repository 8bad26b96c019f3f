"""What sessions have in common, whatever is to be done: where their spec stands, its input, its outputs."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gpu_balancer.v1.media_pb2 import Input, Output
    from gpu_balancer.v1.session_pb2 import Session

TRANSCODE = "session.transcode"
RECORDING = "session.recording"
"""Paths of specs in the requests that carry a session."""


def is_recording(session: Session) -> bool:
    """Whether a session is a recording."""
    return session.WhichOneof("spec") == "recording"


def spec_path(session: Session) -> str:
    """Gives the path of a session's spec in the requests that carry it."""
    return RECORDING if is_recording(session) else TRANSCODE


def input_of(session: Session) -> Input | None:
    """Gives where a session's media comes from. None: it has none; a recording makes it."""
    return None if is_recording(session) else session.transcode.input


def outputs_of(session: Session) -> Sequence[Output]:
    """Gives where a session's media goes."""
    return session.recording.outputs if is_recording(session) else session.transcode.outputs
