"""Checks of a recording as its client asks for it, as far as they need neither its page nor an agent."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from balancer.servicers.contract_words import CORNERS, START_GATES
from balancer.servicers.ladder_validation import check_ladder
from balancer.servicers.names import shown
from balancer.servicers.output_validation import MAX_PATH_BYTES
from balancer.servicers.page_validation import check_page, refuse_oversized_page
from balancer.servicers.recording_defaults import add_default_rendition, display_size
from balancer.servicers.session_specs import RECORDING
from balancer.servicers.violations import SECOND, Violations
from gpu_balancer.v1 import media_pb2, recording_pb2

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from balancer.servicers.recording_rules import RecordingRules
    from gpu_balancer.v1.media_pb2 import Rendition
    from gpu_balancer.v1.recording_pb2 import RecordingSpec, StartGate, Watermark

MAX_DESTINATIONS = 8
SMALLEST_DISPLAY_SIDE = 64
HIGHEST_CAPTURE_RATE = 120
MAX_SIGNAL_CHARACTERS = 256
MAX_SELECTOR_CHARACTERS = 4_096
THUMBNAIL_FOLDER = "thumbnails"

_HOUR = 3_600 * SECOND
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,39}", re.ASCII)
_PICTURE = re.compile(r"\.(png|jpe?g)$", re.IGNORECASE | re.ASCII)
_PAGE_GATES = frozenset(
    {
        recording_pb2.START_GATE_KIND_FIRST_CONTENTFUL_PAINT,
        recording_pb2.START_GATE_KIND_NETWORK_IDLE,
        recording_pb2.START_GATE_KIND_SELECTOR,
        recording_pb2.START_GATE_KIND_CONSOLE_SIGNAL,
    }
)


def refuse_oversized_recording(found: Violations, spec: RecordingSpec) -> None:
    """Notes lists that are too long; nothing else should then be done with them."""
    found.check_count(f"{RECORDING}.destinations", spec.destinations, MAX_DESTINATIONS)
    if spec.WhichOneof("source") == "page":
        refuse_oversized_page(found, f"{RECORDING}.page", spec.page)


def check_recording(
    found: Violations, spec: RecordingSpec, profiles: Mapping[str, Sequence[Rendition]], rules: RecordingRules
) -> None:
    """Notes everything that is wrong with a recording.

    Args:
        found: Takes what is wrong.
        spec: As the client gave it. Changed: renditions of a profile, or of the display's size, take their place.
        profiles: Every ladder of the settings by its name.
        rules: What else the settings say.
    """
    source = spec.WhichOneof("source")
    match source:
        case "page":
            check_page(found, f"{RECORDING}.page", spec.page, rules.url_schemes)
        case "application":
            if not _NAME.fullmatch(spec.application.name):
                told = "must be the name of an application in the settings: lower-case letters, digits, '-', '_'"
                found.add(f"{RECORDING}.application.name", told)
        case _:
            found.add(RECORDING, "must have exactly one source: page or application")
    _check_capture(found, spec, rules)
    _check_gate(found, f"{RECORDING}.start_gate", spec.start_gate, source)
    _check_stop_rules(found, f"{RECORDING}.stop_rules", spec, source)
    _check_renditions(found, spec, profiles)
    if spec.HasField("watermark"):
        _check_watermark(found, f"{RECORDING}.watermark", spec.watermark)
    if spec.HasField("thumbnail_interval"):
        found.check_duration(f"{RECORDING}.thumbnail_interval", spec.thumbnail_interval, SECOND, _HOUR)
        _check_thumbnail_folder(found, spec)
    _check_destinations(found, f"{RECORDING}.destinations", spec, rules.destinations)


def _check_capture(found: Violations, spec: RecordingSpec, rules: RecordingRules) -> None:
    where = f"{RECORDING}.capture"
    sides = zip(("width", "height"), display_size(spec), (rules.largest_width, rules.largest_height), strict=True)
    for name, side, largest in sides:
        if not SMALLEST_DISPLAY_SIDE <= side <= largest:
            told = f"must be {SMALLEST_DISPLAY_SIDE} to {largest:,} pixels, not {side:,}"
            found.add(f"{where}.{name}", f"{told}; [recordings] largest_{name} is the bound")
        elif side % 2:
            found.add(f"{where}.{name}", f"must be even, not {side}; try {side - 1} or {side + 1}")
    if spec.capture.HasField("frame_rate"):
        found.check_frame_rate(f"{where}.frame_rate", spec.capture.frame_rate, 1, HIGHEST_CAPTURE_RATE)


def _check_gate(found: Violations, where: str, gate: StartGate, source: str | None) -> None:
    kind = gate.kind
    found.check_enum(f"{where}.kind", kind, START_GATES)
    if source == "application" and kind in _PAGE_GATES:
        found.add(f"{where}.kind", f"must not be {START_GATES[kind]} for an application: only pages tell")
    if source == "page" and kind == recording_pb2.START_GATE_KIND_FIRST_WINDOW:
        found.add(f"{where}.kind", "must not be FIRST_WINDOW for a page; try FIRST_CONTENTFUL_PAINT")
    if gate.HasField("timeout"):
        found.check_duration(f"{where}.timeout", gate.timeout, SECOND // 10, 600 * SECOND)
    selects = kind == recording_pb2.START_GATE_KIND_SELECTOR
    if selects and not gate.selector.strip():
        found.add(f"{where}.selector", "must be a CSS selector for SELECTOR, not empty")
    elif not selects and gate.selector:
        found.add(f"{where}.selector", "must be given for SELECTOR only")
    if len(gate.selector) > MAX_SELECTOR_CHARACTERS:
        found.add(f"{where}.selector", f"must be at most {MAX_SELECTOR_CHARACTERS:,} characters")
    if gate.signal and kind != recording_pb2.START_GATE_KIND_CONSOLE_SIGNAL:
        found.add(f"{where}.signal", "must be given for CONSOLE_SIGNAL only")
    _check_signal(found, f"{where}.signal", gate.signal)


def _check_signal(found: Violations, where: str, signal: str) -> None:
    if signal and (len(signal) > MAX_SIGNAL_CHARACTERS or not signal.isprintable() or signal != signal.strip()):
        told = f"must be at most {MAX_SIGNAL_CHARACTERS} printable characters, without spaces around them"
        found.add(where, told)


def _check_stop_rules(found: Violations, where: str, spec: RecordingSpec, source: str | None) -> None:
    rules = spec.stop_rules
    if rules.end_signal and source == "application":
        found.add(f"{where}.end_signal", "must not be given for an application: only pages have a console")
    _check_signal(found, f"{where}.end_signal", rules.end_signal)
    if rules.HasField("silence"):
        found.check_duration(f"{where}.silence", rules.silence, SECOND, 24 * _HOUR)
        if spec.capture.without_sound:
            found.add(f"{where}.silence", "must not be given without sound: nothing is heard")
    if rules.HasField("idle"):
        found.check_duration(f"{where}.idle", rules.idle, SECOND, 24 * _HOUR)


def _check_renditions(found: Violations, spec: RecordingSpec, profiles: Mapping[str, Sequence[Rendition]]) -> None:
    profile = spec.profile
    if not profile and not spec.renditions:
        add_default_rendition(spec)
    check_ladder(found, RECORDING, spec, profiles)
    for index, rendition in enumerate(spec.renditions):
        where = f"{RECORDING}.profile" if profile else f"{RECORDING}.renditions[{index}]"
        if rendition.WhichOneof("video") == "passthrough":
            found.add(where, "must encode video or have none: a display has nothing that could be passed through")
        elif rendition.audio.codec == media_pb2.AUDIO_CODEC_COPY:
            found.add(where, "must encode sound or have none: a display has nothing that could be copied")
        if not spec.capture.without_sound:
            continue
        if rendition.WhichOneof("video") is None:
            found.add(where, "must have video: the recording is without sound")
        elif rendition.audio.codec in (media_pb2.AUDIO_CODEC_AAC, media_pb2.AUDIO_CODEC_OPUS) and not profile:
            found.add(f"{where}.audio", "must not be given: the recording is without sound")


def _check_watermark(found: Violations, where: str, watermark: Watermark) -> None:
    path = watermark.path
    if not path.startswith("/") or not path.isprintable() or len(path.encode(errors="replace")) > MAX_PATH_BYTES:
        told = f"must be an absolute path of printable characters, at most {MAX_PATH_BYTES:,} bytes"
        found.add(f"{where}.path", told)
    elif not _PICTURE.search(path):
        found.add(f"{where}.path", "must be a PNG or JPEG file, its name ending in .png, .jpg or .jpeg")
    found.check_enum(f"{where}.corner", watermark.corner, CORNERS)
    if watermark.HasField("margin"):
        found.check_range(f"{where}.margin", watermark.margin, 0, 4_096, " pixels")
    # Put so that NaN is refused.
    if watermark.HasField("opacity") and not 0 < watermark.opacity <= 1:
        found.add(f"{where}.opacity", f"must be above 0, at most 1, not {watermark.opacity:g}")


def _check_thumbnail_folder(found: Violations, spec: RecordingSpec) -> None:
    for index, output in enumerate(spec.outputs):
        kind = output.WhichOneof("kind")
        path = output.file.path if kind == "file" else output.hls.path if kind == "hls" else ""
        if path.partition("/")[0] == THUMBNAIL_FOLDER:
            told = f"must not lie in {THUMBNAIL_FOLDER}/, where the thumbnails are"
            found.add(f"{RECORDING}.outputs[{index}].{kind}.path", told)


def _check_destinations(found: Violations, where: str, spec: RecordingSpec, known: frozenset[str]) -> None:
    for index, name in enumerate(spec.destinations):
        if name in spec.destinations[:index]:
            found.add(f"{where}[{index}]", f"must not name {shown(name)} twice")
        elif name not in known:
            told = ", ".join(sorted(known)) or "none"
            found.add(f"{where}[{index}]", f"must be one of the settings' destinations: {told}")
