"""A trace as lines of JSON, written and read: a header with the version, then a session a line. Text in, values out.

Reading is strict, because a trace that was edited by hand and half understood would answer another question than was
asked: an unknown key, a key that is there twice, a number that is none, sessions out of order are refused with the line
that is wrong. docs/simulator.md lists the fields.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from enum import StrEnum
from fractions import Fraction
from typing import Any, NoReturn, TypeVar

from balancer.domain.session import Priority
from balancer.domain.workload import CHROMAS, CaptureTask, DecodeTask, EncodeTask, EncodingSpeed, VideoCodec, Workload
from balancer.simulation.strict_json import RepeatedKeyError, named, object_of_pairs
from balancer.simulation.trace import Trace, TraceSession

TRACE_VERSION = 1
LONGEST_LINE = 64 * 1024
"""Characters. A session of the largest ladder that the contract takes has a third of that."""

_LONGEST_S = 10 * 366 * 86_400
_LARGEST_SIDE = 32_768
_MOST_PIXELS_PER_SECOND = 10**12
_MOST_ENCODES = 64
_MOST_BITS_PER_SECOND = 10**12
_Word = TypeVar("_Word", bound=StrEnum)


class TraceError(Exception):
    """A trace that cannot be read. The message says the line and what is wrong with it."""

    def __init__(self, line: int, told: str) -> None:
        super().__init__(f"line {line} {told}")
        self.line = line


# ------------------------------------------------------------------------------------------------------------ writing


def header_line(*, end_s: float, title: str = "") -> str:
    """Writes the first line of a trace."""
    return json.dumps({"trace": "gpu-balancer", "version": TRACE_VERSION, "end_s": round(end_s, 3), "title": title})


def session_line(session: TraceSession) -> str:
    """Writes the line of a session."""
    workload = session.workload
    decode = workload.decode
    fields = {
        "arrival_s": round(session.arrival_s, 3),
        "duration_s": None if session.duration_s is None else round(session.duration_s, 3),
        "priority": session.priority.value,
        "real_time": workload.real_time,
        "preemptible": session.preemptible,
        "max_wait_s": round(session.max_wait_s, 3),
        "reserved_speed": None if workload.reserved_speed is None else float(workload.reserved_speed),
        "workload": {
            "decode": None
            if decode is None
            else {
                "codec": decode.codec.value,
                "width": decode.width,
                "height": decode.height,
                "bit_depth": decode.bit_depth,
                "chroma": decode.chroma,
                "pixels_per_second": decode.pixels_per_second,
                "rotated": decode.rotated,
            },
            "scale_pixels_per_second": workload.scale_pixels_per_second,
            "encodes": [
                {
                    "codec": task.codec.value,
                    "width": task.width,
                    "height": task.height,
                    "bit_depth": task.bit_depth,
                    "speed": task.speed.value,
                    "pixels_per_second": task.pixels_per_second,
                }
                for task in workload.encodes
            ],
            "allow_software_encode": workload.allow_software_encode,
            **_of_recordings(workload),
        },
    }
    return json.dumps(fields)


def _of_recordings(workload: Workload) -> dict[str, Any]:
    """Gives what recordings and pushes have beside. Others have no such keys, so that earlier programs read them."""
    told: dict[str, Any] = {}
    capture = workload.capture
    if capture is not None:
        told["capture"] = {
            "width": capture.width,
            "height": capture.height,
            "pixels_per_second": capture.pixels_per_second,
            "browser": capture.browser,
            "sound": capture.sound,
        }
    if workload.upload_bits_per_second:
        told["upload_bits_per_second"] = workload.upload_bits_per_second
    return told


def trace_lines(trace: Trace) -> Iterator[str]:
    """Writes a trace, without the ends of lines."""
    yield header_line(end_s=trace.end_s, title=trace.title)
    yield from map(session_line, trace.sessions)


# ------------------------------------------------------------------------------------------------------------ reading


def parse_trace(lines: Iterable[str]) -> Trace:
    """Reads a trace.

    Args:
        lines: With or without their ends. Empty ones are passed over.

    Returns:
        The trace.

    Raises:
        TraceError: At the first line that is wrong.
    """
    told = ((number, text.strip()) for number, text in enumerate(lines, 1))
    numbered = ((number, text) for number, text in told if text)
    first = next(numbered, None)
    if first is None:
        raise TraceError(1, "is missing: a trace begins with a header.")
    header = _header(_Fields(first[0], "the header", _document(*first)))
    sessions: list[TraceSession] = []
    latest = 0.0
    for number, text in numbered:
        session = _session(_Fields(number, "the session", _document(number, text)))
        if session.arrival_s < latest:
            raise TraceError(
                number, f"is out of order: arrival_s is {session.arrival_s:g} after {latest:g}. Try to sort the lines."
            )
        latest = session.arrival_s
        sessions.append(session)
    end_s, title = header
    if end_s is not None and end_s < latest:
        raise TraceError(first[0], f"ends the trace at {end_s:g} s, and a session comes at {latest:g} s.")
    return Trace(sessions=tuple(sessions), end_s=latest if end_s is None else end_s, title=title)


def _document(number: int, text: str) -> Mapping[str, Any]:
    if len(text) > LONGEST_LINE:
        raise TraceError(number, f"is longer than {LONGEST_LINE:,} characters.")

    def refuse_constant(constant: str) -> NoReturn:
        raise TraceError(number, f"has {constant}, which is no number.")

    try:
        found = json.loads(text, parse_constant=refuse_constant, object_pairs_hook=object_of_pairs)
    except RepeatedKeyError as error:
        raise TraceError(number, f"has a key more than once: {_shown(error.key)}.") from error
    except json.JSONDecodeError as error:
        raise TraceError(number, f"is no JSON: {error.msg} at column {error.colno}.") from error
    except RecursionError as error:
        raise TraceError(number, "is no JSON of a session: it is nested too deep.") from error
    except ValueError as error:
        # Whole numbers of thousands of digits.
        raise TraceError(number, "has a number with too many digits.") from error
    if not isinstance(found, dict):
        raise TraceError(number, "is no JSON object.")
    return found


def _header(fields: _Fields) -> tuple[float | None, str]:
    if "version" not in fields.given:
        fields.refuse('is no header of a trace. Try a first line like {"trace": "gpu-balancer", "version": 1}.')
    version = fields.whole("version", 0, 10**6)
    if version != TRACE_VERSION:
        fields.refuse(f"has version {version}, and this program reads version {TRACE_VERSION}.")
    fields.given.setdefault("trace", "gpu-balancer")
    if fields.take("trace") != "gpu-balancer":
        fields.refuse('has a "trace" that is not "gpu-balancer".')
    end_s = fields.number("end_s", None, 0, _LONGEST_S)
    title = fields.text("title", "")
    fields.end()
    return end_s, title


def _session(fields: _Fields) -> TraceSession:
    arrival_s = fields.number("arrival_s", ..., 0, _LONGEST_S)
    duration_s = fields.number("duration_s", None, 0, _LONGEST_S)
    priority = fields.word("priority", Priority, Priority.LIVE)
    real_time = fields.flag("real_time", priority is Priority.LIVE)
    speed = fields.number("reserved_speed", None, 0.01, 1000)
    if speed is not None and real_time:
        fields.refuse("has a reserved_speed, which is only for sessions with real_time false.")
    preemptible = fields.flag("preemptible", False)
    if preemptible and priority is Priority.LIVE:
        fields.refuse("is preemptible and live; only batch sessions are preemptible.")
    session = TraceSession(
        arrival_s=arrival_s if arrival_s is not None else 0.0,
        duration_s=duration_s,
        priority=priority,
        preemptible=preemptible,
        max_wait_s=fields.number("max_wait_s", 0.0, 0, _LONGEST_S) or 0.0,
        workload=_workload(
            fields.inner("workload"),
            real_time=real_time,
            reserved_speed=None if speed is None else Fraction(str(speed)).limit_denominator(10**6),
        ),
    )
    fields.end()
    return session


def _workload(fields: _Fields, *, real_time: bool, reserved_speed: Fraction | None) -> Workload:
    decode, capture = fields.given.pop("decode", None), fields.given.pop("capture", None)
    if capture is not None and not real_time:
        fields.refuse("has a capture with real_time false; recordings are in real time.")
    if capture is not None and decode is not None:
        fields.refuse("has a capture and a decode; a recording decodes nothing.")
    encodes = fields.take("encodes", [])
    if not isinstance(encodes, list) or len(encodes) > _MOST_ENCODES:
        fields.refuse(f"must have a list of at most {_MOST_ENCODES} encodes.")
    workload = Workload(
        decode=None if decode is None else _decode(_Fields(fields.line, "decode", decode)),
        scale_pixels_per_second=fields.whole("scale_pixels_per_second", 0, _MOST_PIXELS_PER_SECOND, default=0),
        encodes=tuple(_encode(_Fields(fields.line, f"encodes[{at}]", one)) for at, one in enumerate(encodes)),
        real_time=real_time,
        allow_software_encode=fields.flag("allow_software_encode", False),
        reserved_speed=reserved_speed,
        capture=None if capture is None else _capture(_Fields(fields.line, "capture", capture)),
        upload_bits_per_second=fields.whole("upload_bits_per_second", 0, _MOST_BITS_PER_SECOND, default=0),
    )
    fields.end()
    return workload


def _capture(fields: _Fields) -> CaptureTask:
    task = CaptureTask(
        width=fields.whole("width", 1, _LARGEST_SIDE),
        height=fields.whole("height", 1, _LARGEST_SIDE),
        pixels_per_second=fields.whole("pixels_per_second", 1, _MOST_PIXELS_PER_SECOND),
        browser=fields.flag("browser", True),
        sound=fields.flag("sound", True),
    )
    fields.end()
    return task


def _decode(fields: _Fields) -> DecodeTask:
    chroma = fields.text("chroma", None)
    if chroma is not None and chroma not in CHROMAS:
        fields.refuse(f"has a chroma that is none of {', '.join(CHROMAS)}: {_shown(chroma)}.")
    task = DecodeTask(
        codec=fields.word("codec", VideoCodec),
        width=fields.whole("width", 1, _LARGEST_SIDE),
        height=fields.whole("height", 1, _LARGEST_SIDE),
        bit_depth=fields.whole("bit_depth", 8, 16, default=8),
        chroma=chroma,
        pixels_per_second=fields.whole("pixels_per_second", 1, _MOST_PIXELS_PER_SECOND),
        rotated=fields.flag("rotated", False),
    )
    fields.end()
    return task


_ENCODED = (VideoCodec.H264, VideoCodec.HEVC, VideoCodec.AV1)


def _encode(fields: _Fields) -> EncodeTask:
    codec = fields.word("codec", VideoCodec)
    if codec not in _ENCODED:
        fields.refuse(f'has a codec that nothing encodes: "{codec}". Try one of {", ".join(_ENCODED)}.')
    task = EncodeTask(
        codec=codec,
        width=fields.whole("width", 1, _LARGEST_SIDE),
        height=fields.whole("height", 1, _LARGEST_SIDE),
        bit_depth=fields.whole("bit_depth", 8, 16, default=8),
        speed=fields.word("speed", EncodingSpeed, EncodingSpeed.FAST),
        pixels_per_second=fields.whole("pixels_per_second", 1, _MOST_PIXELS_PER_SECOND),
    )
    fields.end()
    return task


class _Fields:
    """The fields of one JSON object, taken one by one, so that what is left over is what nobody knows."""

    def __init__(self, line: int, what: str, given: Any) -> None:
        self.line = line
        self.what = what
        if not isinstance(given, dict):
            raise TraceError(line, f"has {named(what)} that is no JSON object.")
        self.given: dict[str, Any] = dict(given)

    def refuse(self, told: str) -> NoReturn:
        raise TraceError(self.line, told)

    def take(self, key: str, default: Any = ...) -> Any:
        value = self.given.pop(key, default)
        if value is ...:
            self.refuse(f"lacks {key} of {self.what}.")
        return value

    def inner(self, key: str) -> _Fields:
        return _Fields(self.line, key, self.take(key))

    def end(self) -> None:
        if self.given:
            self.refuse(f"has a key that {self.what} does not have: {json.dumps(next(iter(self.given)))}.")

    def number(self, key: str, default: Any, least: float, most: float) -> float | None:
        value = self.take(key, default)
        if value is None and default is not ...:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float) or not _within(value, least, most):
            self.refuse(f"has {named(key)} that is no number from {least:g} to {most:,g}: {_shown(value)}.")
        return float(value)

    def whole(self, key: str, least: int, most: int, *, default: Any = ...) -> int:
        value = self.take(key, default)
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            self.refuse(f"has {named(key)} that is no whole number from {least} to {most:,}: {_shown(value)}.")
        return value

    def flag(self, key: str, default: bool) -> bool:
        value = self.take(key, default)
        if not isinstance(value, bool):
            self.refuse(f"has {named(key)} that is neither true nor false: {_shown(value)}.")
        return value

    def text(self, key: str, default: Any) -> Any:
        value = self.take(key, default)
        if value is not None and not isinstance(value, str):
            self.refuse(f"has {named(key)} that is no text: {_shown(value)}.")
        if value and not value.isprintable():
            self.refuse(f"has {named(key)} with characters that cannot be shown: {value[:40]!a}.")
        return value

    def word(self, key: str, words: type[_Word], default: Any = ...) -> _Word:
        value = self.take(key, default)
        try:
            return words(value)
        except ValueError:
            names = ", ".join(word.value for word in words)
            self.refuse(f"has {named(key)} that is none of {names}: {_shown(value)}.")


def _within(value: float, least: float, most: float) -> bool:
    return (isinstance(value, int) or math.isfinite(value)) and least <= value <= most


def _shown(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 40 else f"{text[:37]}…"
