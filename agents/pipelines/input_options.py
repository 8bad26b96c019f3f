"""What goes before `-i`: how an input is opened, read and decoded.

Every wait on a network is bounded, and by less than a stop may take: an ffmpeg that waits for a peer without a bound
hears no signal but the one that destroys its files.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from agents.pipelines.capture_input import capture_arguments
from agents.pipelines.input_guards import input_guard_options, input_scheme
from agents.pipelines.job import CaptureInput, IngestInput, IngestProtocol, UriInput
from agents.pipelines.pipeline_error import PipelineError, PipelineErrorReason

if TYPE_CHECKING:
    from datetime import timedelta

    from agents.pipelines.job import InputFacts, JobInput

NETWORK_TIMEOUT_MICROSECONDS = 5_000_000
"""How long ffmpeg awaits a peer; below the 8 s that a stop waits for outputs to be completed."""
NETWORK_TIMEOUT_MILLISECONDS = NETWORK_TIMEOUT_MICROSECONDS // 1000
_LIVE_SCHEMES = ("rtmp", "rtmps", "rtsp", "srt")
_RECONNECTION = ("-reconnect", "1", "-reconnect_delay_max", "2")
"""Goes on where a transfer broke off. Without `-reconnect_streamed`, which begins again from the start: of a file that
breaks off at the same place each time, ffmpeg would then make an endless one."""


_LIVE_RECONNECTION = ("-reconnect_on_network_error", "1")
"""A server that cannot be reached just now is asked again for a few seconds. What breaks off in the middle of a stream
is for the session's next attempt: whether it is live, or a file that would come from its start again, nobody can tell.
"""


def is_live(source: JobInput, facts: InputFacts) -> bool:
    """Tells whether an input has no known end, so that what was written must be good at any moment.

    Args:
        source: The input.
        facts: What is known of it.

    Returns:
        True for a publisher, a display, a live protocol, a file played for ever, and a URL of unknown length.
    """
    if isinstance(source, IngestInput | CaptureInput) or source.repeat_forever:
        return True
    scheme = input_scheme(source.uri)
    return scheme in _LIVE_SCHEMES or (scheme in ("http", "https") and facts.duration is None)


def input_arguments(
    source: JobInput, *, ingest_url: str | None, live: bool, untagged: tuple[str, ...] = ()
) -> tuple[str, ...]:
    """Writes an input, from its options to `-i` and what is opened.

    Args:
        source: The input.
        ingest_url: Where the publisher comes, for an ingest.
        live: Whether it has no known end.
        untagged: Kinds of streams, "v" and "a", that are to lose the tag of the container they came in: `tee` would
            hand it to containers that refuse it.

    Returns:
        Arguments without those of decoding.

    Raises:
        PipelineError: When the input is of no kind that can be opened.
    """
    if isinstance(source, CaptureInput):
        return capture_arguments(source, pictures=True)
    tags = tuple(text for kind in untagged for text in (f"-tag:{kind}", "0"))
    if isinstance(source, IngestInput):
        return (*tags, *_ingest(source, ingest_url))
    scheme = input_scheme(source.uri)
    try:
        guard = input_guard_options(source.uri)
    except ValueError as error:
        raise PipelineError(
            reason=PipelineErrorReason.INPUT_INVALID,
            field="input.uri",
            message=f'Cannot open an input of the scheme "{scheme}": it is none of file, http, https, rtmp, rtmps, '
            "rtsp and srt. Try one of these.",
        ) from error
    return (*tags, *guard, *_waiting(scheme, live=live), *_reading(source, scheme), "-i", source.uri)


def seconds_text(duration: timedelta) -> str:
    """Writes a duration as ffmpeg reads it: seconds with as many decimals as it has."""
    return f"{duration.total_seconds():.6f}".rstrip("0").rstrip(".")


def _waiting(scheme: str, *, live: bool) -> tuple[str, ...]:
    bound = str(NETWORK_TIMEOUT_MICROSECONDS)
    match scheme:
        case "http" | "https":
            return ("-rw_timeout", bound, *_RECONNECTION, *(_LIVE_RECONNECTION if live else ()))
        case "rtmp" | "rtmps":
            return ("-rw_timeout", bound, "-rtmp_live", "live")
        case "rtsp":
            return ("-timeout", bound)
        case "srt":
            return ("-rw_timeout", bound, "-connect_timeout", str(NETWORK_TIMEOUT_MILLISECONDS))
        case _:
            return ()


def _reading(source: UriInput, scheme: str) -> tuple[str, ...]:
    options: list[str] = []
    if source.native_rate and scheme not in _LIVE_SCHEMES:
        options.append("-re")
    if source.repeat_forever:
        options += ["-stream_loop", "-1"]
    elif source.repeat_count:
        options += ["-stream_loop", str(source.repeat_count)]
    if source.start_offset:
        options += ["-ss", seconds_text(source.start_offset)]
    return (*options, *_length(source))


def _length(source: UriInput | IngestInput) -> tuple[str, ...]:
    return ("-t", seconds_text(source.duration)) if source.duration else ()


def _ingest(source: IngestInput, url: str | None) -> tuple[str, ...]:
    if url is None:
        raise PipelineError(
            reason=PipelineErrorReason.INPUT_INVALID,
            field="input.ingest",
            message="Cannot await a publisher: no URL was given to listen on. Try launching the session again.",
        )
    bound = ("-rw_timeout", str(NETWORK_TIMEOUT_MICROSECONDS))
    wait = source.publisher_timeout
    listening: tuple[str, ...]
    match source.protocol:
        case IngestProtocol.RTMP:
            listening = ("-listen", "1", "-timeout", str(max(1, math.ceil(wait.total_seconds()))))
        case IngestProtocol.SRT:
            listening = ("-listen_timeout", str(round(wait.total_seconds() * 1_000_000)))
            url = _as_listener(url)
    return (*input_guard_options(url), *bound, *listening, *_length(source), "-i", url)


def _as_listener(url: str) -> str:
    """Turns the URL that an SRT publisher calls into the one to be called at."""
    parts = urlsplit(url)
    query = [(name, value) for name, value in parse_qsl(parts.query, keep_blank_values=True) if name != "mode"]
    return urlunsplit(parts._replace(query=urlencode([("mode", "listener"), *query])))
