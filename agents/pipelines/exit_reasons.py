"""Why ffmpeg failed, read from its log: the words of ffmpeg 5.1 and 9.0, and of NVIDIA's driver inside them.

Order matters. One failure writes many lines, and later ones follow from earlier ones: a lost GPU also fails to open
encoders, a full disk also fails to close files. So reasons are tried from the deepest cause outwards, and each looks at
all lines before the next is tried.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


class FailureReason(StrEnum):
    """Stable names of why an attempt failed."""

    INPUT_UNREADABLE = "INPUT_UNREADABLE"
    """The input could not be opened, or has nothing that was asked of it."""
    INPUT_LOST = "INPUT_LOST"
    """The input broke off."""
    NO_PUBLISHER = "NO_PUBLISHER"
    """Nobody published in time."""
    OUTPUT_UNREACHABLE = "OUTPUT_UNREACHABLE"
    """A server to push to did not answer, or left."""
    OUTPUT_UNWRITABLE = "OUTPUT_UNWRITABLE"
    """A file could not be written."""
    DISK_FULL = "DISK_FULL"
    """A disk, or a quota on it, is full."""
    ENCODER_SESSION_LIMIT = "ENCODER_SESSION_LIMIT"
    """The GPUs have no further encoder session, or no memory for one."""
    ENCODER_UNAVAILABLE = "ENCODER_UNAVAILABLE"
    """The encoder does not work here, or not as asked."""
    DEVICE_MEMORY = "DEVICE_MEMORY"
    """The device's memory is used up."""
    ENGINE_FAULT = "ENGINE_FAULT"
    """An encoder or decoder of the device failed in the middle of its work."""
    DEVICE_LOST = "DEVICE_LOST"
    """The device or its driver is gone."""
    DISPLAY_LOST = "DISPLAY_LOST"
    """The display of a recording is gone, or was never there."""
    SOUND_LOST = "SOUND_LOST"
    """The sound server of a recording is gone, or was never there."""
    KILLED = "KILLED"
    """Something ended ffmpeg from outside."""
    FFMPEG_CRASHED = "FFMPEG_CRASHED"
    FFMPEG_FAILED = "FFMPEG_FAILED"
    """For a reason that has no name here."""
    NO_OUTPUT = "NO_OUTPUT"
    """It ended in order and had made nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """A reason that a log gives."""

    reason: FailureReason
    message: str


_LONGEST_QUOTE = 300
_COMPONENT = re.compile(r"\[[^\[\]]* @ 0x[0-9a-f]+\] ")
_ERROR_LEVEL = re.compile(r"\[(?:error|fatal|panic)\] ")
_LEVEL = re.compile(r"\[(?:quiet|panic|fatal|error|warning|info|verbose|debug|trace)\] ")
_NETWORK_TROUBLE = (
    r"Connection (?:refused|timed out|reset by peer)|Broken pipe|Network is (?:unreachable|down)|No route to host|"
    r"Host is (?:unreachable|down)|Name or service not known|Temporary failure in name resolution|"
    r"Failed to resolve hostname|Input/output error|Server returned|Connection to \w+://|handshake|TLS"
)
_NETWORK = re.compile(_NETWORK_TROUBLE)
_NETWORK_URL = re.compile(r"\b(?:rtmps?|srt|tcp|tls|https?|rtsp)://")
_END = re.compile(r"Error during demuxing: (?P<why>.+)")
_NAME = r"(?P<name>(?:/|[A-Za-z][\w+.-]*://)\S.*)"
_BARE_END = re.compile(
    rf"\[error\] {_NAME}: (?P<why>Input/output error|Connection timed out|Connection reset by peer|"
    r"Invalid data found when processing input)\s*$"
)
_OUTPUT_OPENING = re.compile(
    r"Error opening output (?!files:)(?P<what>.+)|Slave '(?P<slave>.*)': error opening: (?P<why>.+)|"
    r"Could not write header.*: (?P<header>.+)|Unable to open (?P<opened>.+)|Failed to open file (?P<file>.+)"
)
_OUTPUT_WRITING = re.compile(
    r"Error (?:submitting a packet to the muxer|writing trailer(?: of .+)?|closing file(?: .+)?|muxing a packet)"
    r"(?:: (?P<new>.+))?|av_interleaved_write_frame\(\): (?P<old>.+)|Slave muxer #\d+ failed: (?P<slave>[^,]+)"
)
_INPUT_OPENING = re.compile(
    r"Error opening input: (?P<new>.+)|Stream map '.*' matches no streams|(?P<none>matches no streams)|"
    r"Unable to map stream at (?P<map>\S+)"
)
_BARE = re.compile(
    rf"\[error\] {_NAME}: (?P<why>No such file or directory|Invalid data found when processing input|"
    r"Permission denied|Is a directory|Protocol not found|Operation not permitted|Input/output error|"
    r"Connection \w[\w ]*|Network is unreachable|No route to host|End of file|Server returned .+|"
    r"Immediate exit requested|Address already in use|Read-only file system|Invalid argument)\s*$"
)
_LOST_MESSAGE = "Cannot use the GPU: {line}. Try another device, and look at this one's driver."
_DEVICE_REASONS: tuple[tuple[re.Pattern[str], FailureReason, str], ...] = (
    (
        re.compile(
            r"GPU is lost|CUDA_ERROR_(?:NO_DEVICE|INVALID_DEVICE|DEVICE_UNAVAILABLE|DEVICE_NOT_LICENSED|"
            r"ECC_UNCORRECTABLE|SYSTEM_NOT_READY|SYSTEM_DRIVER_MISMATCH|HARDWARE_STACK_ERROR|NOT_INITIALIZED)|"
            r"Cannot load (?:lib)?(?:cuda|nvcuda)"
        ),
        FailureReason.DEVICE_LOST,
        _LOST_MESSAGE,
    ),
    (
        # Of one engine, where the errors below may be of anything on the device.
        re.compile(
            r"cuvid\w+\(.* failed -> CUDA_ERROR_(?:UNKNOWN|LAUNCH_FAILED|LAUNCH_TIMEOUT|ILLEGAL_ADDRESS)|"
            r"(?:EncodePicture failed!?|Failed (?:un)?locking bitstream buffer): generic error"
        ),
        FailureReason.ENGINE_FAULT,
        "Cannot go on: an engine of the GPU failed: {line}. Try another device.",
    ),
    (
        re.compile(r"CUDA_ERROR_(?:LAUNCH_FAILED|ILLEGAL_ADDRESS|UNKNOWN)"),
        FailureReason.DEVICE_LOST,
        _LOST_MESSAGE,
    ),
    (
        re.compile(r"OpenEncodeSessionEx failed: (?:out of memory|incompatible client key)"),
        FailureReason.ENCODER_SESSION_LIMIT,
        "Cannot open another encoder on the GPU: {line}. Try another device, or again when a session has ended.",
    ),
    (
        re.compile(r"CUDA_ERROR_OUT_OF_MEMORY|No decoder surfaces left"),
        FailureReason.DEVICE_MEMORY,
        "Cannot get memory on the GPU: {line}. Try another device, or fewer or smaller renditions.",
    ),
    (
        re.compile(
            r"OpenEncodeSessionEx failed|No capable devices found|Driver does not support the required nvenc|"
            r"minimum required Nvidia driver|Cannot load (?:lib)?(?:nvidia-encode|nvEncodeAPI|nvcuvid)|"
            r"Unknown encoder|InitializeEncoder failed|encode not supported|B-frames \d+ exceed|"
            r"[Nn]ot supported by (?:the )?(?:device|encoder)"
        ),
        FailureReason.ENCODER_UNAVAILABLE,
        "Cannot encode on the device: {line}. Try another device or format, or probe the device again.",
    ),
)


def find_reason(
    log: Sequence[str], *, made_output: bool, published: bool, input_name: str | None, pushes: bool = False
) -> Finding | None:
    """Looks for the reason of a failure.

    Args:
        log: Lines of ffmpeg's log with levels.
        made_output: Whether it wrote anything.
        published: Whether its input was published to it.
        input_name: Its input as it stands in the log. None: not known.
        pushes: Whether an output is pushed to a server: SRT says no more of one that left than "Input/output error",
            which a disk hardly ever says.

    Returns:
        What was found. None: no line says anything that is known here.
    """
    errors = [line for line in log if _ERROR_LEVEL.search(line)]
    for line in errors:
        if re.search(r"No space left on device|Disk quota exceeded", line):
            return Finding(
                reason=FailureReason.DISK_FULL,
                message="Cannot write an output: the disk is full. Try freeing space, or an output elsewhere.",
            )
    for pattern, reason, message in _DEVICE_REASONS:
        for line in errors:
            if pattern.search(line):
                return Finding(reason=reason, message=message.format(line=_quoted(line)))
    opened = None if made_output else _input_reason(errors, published=published, input_name=input_name)
    return opened or _output_reason(errors, input_name, pushes=pushes) or _encoder_reason(errors)


def find_input_end(log: Sequence[str], *, published: bool) -> Finding | None:
    """Looks for an input that broke off although ffmpeg ended in order.

    Args:
        log: Lines of ffmpeg's log with levels.
        published: Whether its input was published to it: a publisher that leaves looks like an I/O error.

    Returns:
        What was found. None: the input was read to its end, or its publisher left.
    """
    for line in log:
        found = _END.search(line) or _BARE_END.match(line)
        if found is None or (published and found["why"].rstrip().endswith("Input/output error")):
            continue
        why = found["why"]
        return Finding(
            reason=FailureReason.INPUT_LOST,
            message=f"Cannot read the input to its end: {_shortened(why)}. Try checking its source; what was made "
            "until then is kept.",
        )
    return None


def find_first_error(log: Sequence[str]) -> str | None:
    """Gives the log's first error as words: what later ones follow from. None: there is none."""
    return next((quoted for line in log if _ERROR_LEVEL.search(line) and (quoted := _quoted(line))), None)


def _input_reason(errors: Sequence[str], *, published: bool, input_name: str | None) -> Finding | None:
    for line in errors:
        if re.search(r"bind failed|Address already in use", line):
            return Finding(
                reason=FailureReason.INPUT_UNREADABLE,
                message=f"Cannot listen for the publisher: {_quoted(line)}. Try the session again, on another port.",
            )
        found = _INPUT_OPENING.search(line)
        if found is not None and (found["map"] or found["new"] is None):
            return Finding(reason=FailureReason.INPUT_UNREADABLE, message=_NOT_IN_INPUT)
        why = found["new"] if found is not None else _bare_input(line, input_name)
        if why is None:
            continue
        if published and "timed out" in why:
            return Finding(reason=FailureReason.NO_PUBLISHER, message=_NOBODY_PUBLISHED)
        message = f"Cannot open the input: {_shortened(why)}. Try checking its path or address."
        return Finding(reason=FailureReason.INPUT_UNREADABLE, message=message)
    return None


def _bare_input(line: str, input_name: str | None) -> str | None:
    """Reads ffmpeg 5.1's way to say what is wrong with an input: its name and the reason, and nothing else."""
    found = _BARE.match(line)
    if found is None or (input_name is not None and found["name"] != input_name):
        return None
    return found["why"]


def _output_reason(errors: Sequence[str], input_name: str | None, *, pushes: bool) -> Finding | None:
    for line in errors:
        found = _OUTPUT_OPENING.search(line) or _OUTPUT_WRITING.search(line)
        bare = None if found or input_name is None else _BARE.match(line)
        if found is None and (bare is None or bare["name"] == input_name):
            continue
        related = " ".join(errors)
        if _NETWORK_URL.search(line) or (_NETWORK.search(related) and _NETWORK_URL.search(related)):
            return Finding(
                reason=FailureReason.OUTPUT_UNREACHABLE,
                message=f"Cannot push to the server: {_quoted(line)}. Try checking its address, key and network.",
            )
        reached = _NETWORK.search(line)
        if reached and (pushes or not re.search(r"Input/output error", line)):
            return Finding(
                reason=FailureReason.OUTPUT_UNREACHABLE,
                message=f"Cannot go on pushing to the server: {_quoted(line)}. Try checking it and the network.",
            )
        return Finding(
            reason=FailureReason.OUTPUT_UNWRITABLE,
            message=f"Cannot write an output: {_quoted(line)}. Try checking its folder, and who may write there.",
        )
    return None


def _encoder_reason(errors: Sequence[str]) -> Finding | None:
    """The outermost words for an encoder that would not start; what is said inside has been looked for already."""
    for number, line in enumerate(errors):
        if re.search(r"Error while opening encoder|Error initializing output stream", line):
            cause = errors[number - 1] if number else line
            return Finding(
                reason=FailureReason.ENCODER_UNAVAILABLE,
                message=f"Cannot start an encoder: {_quoted(cause)}. Try other settings, or another format.",
            )
    return None


def _quoted(line: str) -> str:
    return _shortened(_LEVEL.sub("", _COMPONENT.sub("", line)))


def _shortened(text: str) -> str:
    text = " ".join(text.split()).rstrip(".")
    return text if len(text) <= _LONGEST_QUOTE else text[:_LONGEST_QUOTE] + "…"


_NOT_IN_INPUT = (
    "Cannot find in the input what was asked of it: it has no such video or sound. Try declaring what the input has "
    "(has_audio), or renditions without it."
)
_NOBODY_PUBLISHED = (
    "Cannot start: nobody published in time. Try publishing to the session's ingest URL, or a longer publisher timeout."
)
