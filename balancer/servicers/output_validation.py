"""Checks of outputs: where they go, what goes there, and whether the two fit together."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from balancer.servicers.container_rules import Carrier, carries_copied_audio, carries_video
from balancer.servicers.contract_words import CONTAINERS, ENCODED_CODECS, SEGMENT_FORMATS, VIDEO_CODECS
from balancer.servicers.input_validation import MAX_URI_CHARACTERS, check_host
from balancer.servicers.names import shown
from balancer.servicers.rendition_validation import keyframe_interval_of
from balancer.servicers.violations import DAY, SECOND, Violations
from gpu_balancer.v1 import media_pb2

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from gpu_balancer.v1.media_pb2 import Container, FileOutput, HlsOutput, InputFacts, Output, Rendition

MAX_OUTPUTS = 32
DEFAULT_SEGMENT = 4 * SECOND
MAX_PATH_BYTES = 1_024
MAX_NAME_BYTES = 255
"""Of one name in a path: NAME_MAX of Linux."""

CONTAINERS_BY_EXTENSION = {
    ".mp4": media_pb2.CONTAINER_MP4,
    ".m4v": media_pb2.CONTAINER_MP4,
    ".mkv": media_pb2.CONTAINER_MKV,
    ".ts": media_pb2.CONTAINER_TS,
}
_CARRIERS = {
    media_pb2.CONTAINER_MP4: Carrier.MP4,
    media_pb2.CONTAINER_MKV: Carrier.MKV,
    media_pb2.CONTAINER_TS: Carrier.TS,
}
_PUSH_CARRIERS = {"rtmp": Carrier.RTMP, "rtmps": Carrier.RTMP, "srt": Carrier.TS}
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_ID = re.compile(r"[A-Za-z0-9_-]{1,40}", re.ASCII)
_EXTENSION = re.compile(r"\.[A-Za-z0-9]+$", re.ASCII)


class _Place(NamedTuple):
    """Where an output lies: no two may be the same, nor one inside the other."""

    parts: tuple[str, ...]
    field: str
    output: str


def container_of(output: FileOutput) -> Container.ValueType | None:
    """Gives the container of a file, told or from its extension; None when neither tells."""
    if output.container != media_pb2.CONTAINER_UNSPECIFIED:
        return output.container
    match = _EXTENSION.search(output.path)
    return CONTAINERS_BY_EXTENSION.get(match[0].lower()) if match else None


def carrier_of(output: Output) -> Carrier | None:
    """Gives what carries renditions to an output's reader; None when that is not known."""
    match output.WhichOneof("kind"):
        case "file":
            container = container_of(output.file)
            return _CARRIERS.get(container) if container else None
        case "hls":
            return Carrier.TS if output.hls.segment_format == media_pb2.HLS_SEGMENT_FORMAT_TS else Carrier.FRAGMENTS
        case "push":
            match = _SCHEME.match(output.push.url)
            return _PUSH_CARRIERS.get(match[1].lower()) if match else None
        case _:
            return None


def check_outputs(
    found: Violations, where: str, outputs: Sequence[Output], renditions: Mapping[str, Rendition]
) -> frozenset[str]:
    """Notes everything that is wrong with outputs.

    Args:
        found: Takes what is wrong.
        where: Path of the list.
        outputs: As the client gave them; at most MAX_OUTPUTS.
        renditions: Every rendition by its name.

    Returns:
        Names of the renditions that some output takes.
    """
    taken: dict[str, int] = {}
    places: list[_Place] = []
    used: set[str] = set()
    for index, output in enumerate(outputs):
        at = f"{where}[{index}]"
        name = output.id or f"output-{index + 1}"
        if not _ID.fullmatch(name):
            found.add(f"{at}.id", "must be 1 to 40 letters, digits, '-' or '_'")
        elif name in taken:
            found.add(f"{at}.id", f"must not be {name!r} again: outputs[{taken[name]}] has it")
        taken.setdefault(name, index)
        chosen = _check_choice(found, at, output, renditions)
        used.update(chosen)
        _check_output(found, at, output, [renditions[name] for name in chosen], places)
        _check_carrier(found, at, output, [(name, renditions[name]) for name in chosen])
    _check_places(found, places)
    return frozenset(used)


def check_copied_formats(
    found: Violations, where: str, outputs: Sequence[Output], renditions: Mapping[str, Rendition], facts: InputFacts
) -> None:
    """Notes outputs that cannot carry what is passed on from the input as it is. What is unknown passes.

    Args:
        found: Takes what is wrong.
        where: Path of the outputs.
        outputs: Checked before.
        renditions: Every rendition by its name.
        facts: What is known of the input.
    """
    video = VIDEO_CODECS.get(facts.video_codec)
    for index, output in enumerate(outputs):
        carrier = carrier_of(output)
        if carrier is None:
            continue
        at = f"{where}[{index}]"
        for name in output.renditions or renditions:
            rendition = renditions[name]
            passes = rendition.WhichOneof("video") == "passthrough"
            if passes and video is not None and not carries_video(carrier, video):
                found.add(at, f"cannot carry the input's {video.value} as it is in {carrier.value}; encode {name!r}")
            copies = rendition.audio.codec == media_pb2.AUDIO_CODEC_COPY
            if copies and facts.audio_codec and not carries_copied_audio(carrier, facts.audio_codec):
                told = f"cannot carry the input's {facts.audio_codec} sound as it is in {carrier.value}"
                found.add(at, f"{told}; try AAC for {name!r}")


def _check_choice(found: Violations, where: str, output: Output, renditions: Mapping[str, Rendition]) -> list[str]:
    """Gives the names of the known renditions that go to an output."""
    if not output.renditions:
        chosen = list(renditions)
    else:
        chosen = []
        for index, name in enumerate(output.renditions):
            if name not in renditions:
                known = ", ".join(shown(other) for other in renditions) or "none"
                found.add(f"{where}.renditions[{index}]", f"must be one of the renditions {known}")
            elif name in chosen:
                found.add(f"{where}.renditions[{index}]", f"must not name {shown(name)} twice")
            else:
                chosen.append(name)
    return chosen


def _check_output(found: Violations, where: str, output: Output, chosen: list[Rendition], places: list[_Place]) -> None:
    match output.WhichOneof("kind"):
        case "file":
            _check_file(found, f"{where}.file", output.file)
            _check_path(found, f"{where}.file.path", output.file.path, where, places)
        case "hls":
            _check_hls(found, f"{where}.hls", output.hls, chosen)
            _check_path(found, f"{where}.hls.path", output.hls.path, where, places)
            if "%" in output.hls.path:
                found.add(f"{where}.hls.path", "must not have '%', which numbers segments")
        case "push":
            _check_push(found, f"{where}.push.url", output.push.url)
            count = len(output.renditions) or len(chosen)
            if count != 1:
                told = f"must name exactly one rendition for a push, not {count}; use one output per rendition"
                found.add(f"{where}.renditions", told)
        case _:
            found.add(where, "must have exactly one kind: file, hls or push")


def _check_file(found: Violations, where: str, output: FileOutput) -> None:
    if output.container not in CONTAINERS:
        found.check_enum(f"{where}.container", output.container, CONTAINERS)
    elif output.path and container_of(output) is None:
        told = ", ".join(CONTAINERS_BY_EXTENSION)
        found.add(f"{where}.path", f"must end in one of {told}, or container must tell the format")


def _check_hls(found: Violations, where: str, output: HlsOutput, chosen: list[Rendition]) -> None:
    found.check_enum(f"{where}.segment_format", output.segment_format, SEGMENT_FORMATS)
    segment: int | None = DEFAULT_SEGMENT
    if output.HasField("segment_duration"):
        segment = found.check_duration(f"{where}.segment_duration", output.segment_duration, SECOND, 30 * SECOND)
    if output.HasField("dvr_window"):
        window = found.check_duration(f"{where}.dvr_window", output.dvr_window, SECOND, 30 * DAY)
        if window is not None and segment is not None and window < segment:
            found.add(f"{where}.dvr_window", "must not be shorter than a segment")
    if segment is None:
        return
    for rendition in chosen:
        if rendition.WhichOneof("video") != "encode":
            continue
        interval = keyframe_interval_of(rendition.encode)
        if interval <= 0 or segment % interval:
            told = f"{segment / SECOND:g} s is no multiple of {interval / SECOND:g} s"
            found.add(
                f"{where}.segment_duration",
                f"must be a multiple of every rendition's keyframe_interval, because segments begin there; {told}",
            )
            return


def _check_push(found: Violations, where: str, url: str) -> None:
    match = _SCHEME.match(url)
    if match is None or match[1].lower() not in _PUSH_CARRIERS:
        found.add(where, f"must be a URL of one of the protocols {', '.join(_PUSH_CARRIERS)}")
    elif len(url) > MAX_URI_CHARACTERS:
        found.add(where, f"must be at most {MAX_URI_CHARACTERS:,} characters, not {len(url):,}")
    else:
        check_host(found, where, url)


def _check_path(found: Violations, field: str, path: str, output: str, places: list[_Place]) -> None:
    """Notes a path that is none, leads out of its folder, or is written in a way that hides where it leads."""
    if not path:
        found.add(field, "must be a relative path for an artifact, or an absolute one, not empty")
        return
    absolute = path.startswith("/")
    parts = path.removeprefix("/").split("/")
    if len(path.encode(errors="replace")) > MAX_PATH_BYTES:
        found.add(field, f"must be at most {MAX_PATH_BYTES:,} bytes")
    elif not path.isprintable() or "\\" in path:
        # The rule of the agents, which would refuse it later.
        found.add(field, "must be printable characters, without control characters or backslashes")
    elif any(part in ("", ".", "..") for part in parts):
        found.add(field, "must name files and folders only, without '.', '..', '//' or a '/' at its end")
    elif any(len(part.encode(errors="replace")) > MAX_NAME_BYTES for part in parts):
        found.add(field, f"must not have a name above {MAX_NAME_BYTES} bytes")
    elif any(part.startswith(".") for part in parts) and not absolute:
        found.add(field, "must not have names that begin with '.'")
    else:
        places.append(_Place(("/" if absolute else "", *parts), field, output))


def _check_places(found: Violations, places: list[_Place]) -> None:
    # Sorted by parts, what lies inside a place stands right behind it.
    holder: _Place | None = None
    for place in sorted(places):
        if holder is None or place.parts[: len(holder.parts)] != holder.parts:
            holder = place
        elif place.parts == holder.parts:
            found.add(place.field, f"must not be the path of another output: {holder.output} has it")
        else:
            found.add(place.field, f"must not lie inside the path of another output, {holder.output}")


def _check_carrier(found: Violations, where: str, output: Output, chosen: list[tuple[str, Rendition]]) -> None:
    """Notes encoded formats that an output cannot carry."""
    carrier = carrier_of(output)
    if carrier is None:
        return
    for name, rendition in chosen:
        if rendition.WhichOneof("video") != "encode":
            continue
        codec = ENCODED_CODECS.get(rendition.encode.codec)
        if codec is not None and not carries_video(carrier, codec):
            told = f"cannot carry {codec.value} of {shown(name)} in {carrier.value}"
            found.add(where, f"{told}; try h264 or hevc, or MP4, Matroska or fMP4 segments")
