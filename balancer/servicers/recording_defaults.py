"""Fills a checked recording in. After it, nothing of it depends on its reader."""

from __future__ import annotations

from typing import TYPE_CHECKING

from balancer.servicers.session_defaults import fill_in_outputs, fill_in_renditions
from gpu_balancer.v1 import media_pb2, recording_pb2

if TYPE_CHECKING:
    from gpu_balancer.v1.recording_pb2 import PageSource, RecordingSpec, StartGate

DEFAULT_WIDTH, DEFAULT_HEIGHT = 1280, 720
DEFAULT_FRAMES_PER_SECOND = 30
START_SIGNAL, END_SIGNAL = "START_RECORDING", "END_RECORDING"
ONLY_FILE = "recording.mp4"
HLS_SEGMENT_S = 2

_GATE_TIMEOUT_S = 30
_LOCALE = "en-US"
_WATERMARK_MARGIN = 16


def display_size(spec: RecordingSpec) -> tuple[int, int]:
    """Gives width and height of a recording's display, asked for or not, in pixels."""
    capture = spec.capture
    return (
        capture.width if capture.HasField("width") else DEFAULT_WIDTH,
        capture.height if capture.HasField("height") else DEFAULT_HEIGHT,
    )


def add_default_rendition(spec: RecordingSpec) -> None:
    """Gives a recording without renditions one of its display's size, whatever that is. It is changed."""
    spec.renditions.add(id=f"{display_size(spec)[1]}p").encode.SetInParent()


def fill_in_recording(spec: RecordingSpec) -> None:
    """Fills in what the client left open.

    Args:
        spec: A recording without violations, its renditions in place. Changed.
    """
    page = spec.WhichOneof("source") == "page"
    if page:
        _fill_page(spec.page)
    spec.capture.width, spec.capture.height = display_size(spec)
    if not spec.capture.HasField("frame_rate"):
        spec.capture.frame_rate.numerator, spec.capture.frame_rate.denominator = DEFAULT_FRAMES_PER_SECOND, 1
    _fill_gate(spec.start_gate, page=page)
    if page:
        spec.stop_rules.end_signal = spec.stop_rules.end_signal or END_SIGNAL
    spec.profile = ""
    _fill_renditions(spec)
    if not spec.outputs:
        for rendition in spec.renditions:
            output = spec.outputs.add(renditions=[rendition.id])
            output.file.path = ONLY_FILE if len(spec.renditions) == 1 else f"{rendition.id}.mp4"
    for output in spec.outputs:
        if output.HasField("hls") and not output.hls.HasField("segment_duration"):
            # As much as may be lost when everything is killed.
            output.hls.segment_duration.seconds = HLS_SEGMENT_S
    fill_in_outputs(spec.outputs)
    if spec.HasField("watermark"):
        watermark = spec.watermark
        watermark.corner = watermark.corner or recording_pb2.CORNER_BOTTOM_RIGHT
        watermark.margin = watermark.margin if watermark.HasField("margin") else _WATERMARK_MARGIN
        watermark.opacity = watermark.opacity if watermark.HasField("opacity") else 1.0


def _fill_page(page: PageSource) -> None:
    if not page.HasField("device_scale_factor"):
        page.device_scale_factor = 1.0
    page.locale = page.locale or _LOCALE
    page.color_scheme = page.color_scheme or recording_pb2.COLOR_SCHEME_LIGHT
    for cookie in page.cookies:
        cookie.path = cookie.path or "/"


def _fill_gate(gate: StartGate, *, page: bool) -> None:
    if not gate.kind:
        gate.kind = (
            recording_pb2.START_GATE_KIND_FIRST_CONTENTFUL_PAINT if page else recording_pb2.START_GATE_KIND_FIRST_WINDOW
        )
    if not gate.HasField("timeout"):
        gate.timeout.seconds = _GATE_TIMEOUT_S
    if gate.kind == recording_pb2.START_GATE_KIND_CONSOLE_SIGNAL:
        gate.signal = gate.signal or START_SIGNAL


def _fill_renditions(spec: RecordingSpec) -> None:
    for rendition in spec.renditions:
        if rendition.WhichOneof("video") == "encode":
            # A recording waits for nobody: it is encoded as fast as may be unless its client says otherwise.
            rendition.encode.speed = rendition.encode.speed or media_pb2.ENCODING_SPEED_FASTEST
        if spec.capture.without_sound:
            rendition.ClearField("audio")
            rendition.audio.codec = media_pb2.AUDIO_CODEC_NONE
    fill_in_renditions(spec.renditions)
    for rendition in spec.renditions:
        encoding = rendition.encode
        unsized = not encoding.HasField("width") and not encoding.HasField("height")
        if rendition.WhichOneof("video") == "encode" and unsized:
            encoding.width, encoding.height = display_size(spec)
