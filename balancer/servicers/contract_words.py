"""The contract's enums in words, for checks and messages, and the domain's counterparts."""

from __future__ import annotations

from collections.abc import Sequence

from balancer.domain.session import Priority, SessionState
from balancer.domain.workload import EncodingSpeed, VideoCodec
from gpu_balancer.v1 import media_pb2, recording_pb2, session_pb2

VIDEO_CODECS = {
    number: VideoCodec(name.removeprefix("VIDEO_CODEC_").lower())
    for name, number in media_pb2.VideoCodec.items()
    if number != media_pb2.VIDEO_CODEC_UNSPECIFIED
}
"""By number. UNSPECIFIED is not among them."""
VIDEO_CODEC_NUMBERS = {codec: number for number, codec in VIDEO_CODECS.items()}

ENCODED_CODECS = {
    media_pb2.VIDEO_CODEC_UNSPECIFIED: VideoCodec.H264,
    media_pb2.VIDEO_CODEC_H264: VideoCodec.H264,
    media_pb2.VIDEO_CODEC_HEVC: VideoCodec.HEVC,
    media_pb2.VIDEO_CODEC_AV1: VideoCodec.AV1,
}
"""What can be asked for. UNSPECIFIED is H.264."""

SPEEDS = {
    media_pb2.ENCODING_SPEED_UNSPECIFIED: EncodingSpeed.FAST,
    media_pb2.ENCODING_SPEED_FASTEST: EncodingSpeed.FASTEST,
    media_pb2.ENCODING_SPEED_FAST: EncodingSpeed.FAST,
    media_pb2.ENCODING_SPEED_BALANCED: EncodingSpeed.BALANCED,
    media_pb2.ENCODING_SPEED_THOROUGH: EncodingSpeed.THOROUGH,
}
SPEED_NUMBERS = {speed: number for number, speed in SPEEDS.items() if number != media_pb2.ENCODING_SPEED_UNSPECIFIED}

PRIORITIES = {
    session_pb2.PRIORITY_LIVE: Priority.LIVE,
    session_pb2.PRIORITY_BATCH: Priority.BATCH,
}
"""UNSPECIFIED is not among them: it follows from the input."""
PRIORITY_NUMBERS = {priority: number for number, priority in PRIORITIES.items()}

SESSION_STATES = {
    number: SessionState(name.removeprefix("SESSION_STATE_").lower())
    for name, number in session_pb2.SessionState.items()
    if number != session_pb2.SESSION_STATE_UNSPECIFIED
}
SESSION_STATE_NUMBERS = {state: number for number, state in SESSION_STATES.items()}


def words(prefix: str, items: Sequence[tuple[str, int]]) -> dict[int, str]:
    """Makes the names of an enum by number, without their common beginning, for messages."""
    return {number: name.removeprefix(prefix) for name, number in items}


AUDIO_CODECS = words("AUDIO_CODEC_", media_pb2.AudioCodec.items())
CONTAINERS = words("CONTAINER_", media_pb2.Container.items())
FITS = words("FIT_", media_pb2.Fit.items())
INGEST_PROTOCOLS = words("INGEST_PROTOCOL_", media_pb2.IngestProtocol.items())
SEGMENT_FORMATS = words("HLS_SEGMENT_FORMAT_", media_pb2.HlsSegmentFormat.items())
PRIORITY_WORDS = words("PRIORITY_", session_pb2.Priority.items())
VIDEO_CODEC_WORDS = words("VIDEO_CODEC_", media_pb2.VideoCodec.items())
ENCODED_CODEC_WORDS = {number: VIDEO_CODEC_WORDS[number] for number in ENCODED_CODECS if number}
SPEED_WORDS = words("ENCODING_SPEED_", media_pb2.EncodingSpeed.items())
COLOR_SCHEMES = words("COLOR_SCHEME_", recording_pb2.ColorScheme.items())
CORNERS = words("CORNER_", recording_pb2.Corner.items())
START_GATES = words("START_GATE_KIND_", recording_pb2.StartGateKind.items())
