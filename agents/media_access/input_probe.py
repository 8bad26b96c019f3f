"""Opens an input as a session would, bounded in time and bytes, and tells what it is.

Every failure is told apart by what its sender can do about it: another path, another URL, another file. What ffmpeg
said is quoted with the secrets of URLs hidden.
"""

from __future__ import annotations

import asyncio
import re
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

from agents.bounded_program import ProgramRun, run_bounded
from agents.media_access.guard import INPUT_FIELD, guard_input_file, guard_url
from agents.media_access.remote_media import follow
from agents.pipelines.input_description import parse_input_description
from agents.pipelines.input_guards import input_scheme
from agents.pipelines.input_options import input_arguments
from agents.pipelines.job import CaptureInput, IngestInput, InputFacts, JobInput, UriInput
from gpu_balancer.runtime.failures import Reason, RequestFailure, Violation
from gpu_balancer.runtime.redaction import Redactor, redact_url, url_secrets

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from gpu_balancer.runtime.settings_sections import InputSettings

_BYTES_PER_MIB = 1024 * 1024
_UNREACHABLE = re.compile(
    r"Connection refused|timed out|Network is unreachable|No route to host|Host is unreachable|Server returned [45]\w\w"
    r"|HTTP error \d+|Failed to resolve|Name or service not known|Input/output error|Connection reset|I/O error"
    r"|Temporary failure in name resolution|Connection to \S+ failed|Broken pipe|method \w+ failed",
    re.IGNORECASE,
)
_NOT_ALLOWED = re.compile(r"not on whitelist|not in allowed|not allowed", re.IGNORECASE)
_NO_REDIRECT_LIMIT = re.compile(r"option '?max_redirects'? not found", re.IGNORECASE)
_Result = TypeVar("_Result")


async def guard_input(source: JobInput, settings: InputSettings) -> JobInput:
    """Makes sure that an input may be read.

    Args:
        source: The input as it was asked for.
        settings: The section [inputs]; its probe_timeout_s bounds the time.

    Returns:
        The input as it is to be opened: a file's real path, an http(s) URL behind its redirects. An ingest and a
        capture as they are.

    Raises:
        RequestFailure: When it may not be read, is not there, or cannot be reached.
    """
    if isinstance(source, IngestInput | CaptureInput):
        return source
    return await _within(_guarded(source, settings), source, timedelta(seconds=settings.probe_timeout_s))


async def probe_input(
    source: JobInput, settings: InputSettings, ffmpeg: str, *, timeout: timedelta | None = None
) -> InputFacts:
    """Finds out what an input is.

    Args:
        source: The input; an upload is a path by now.
        settings: The section [inputs].
        ffmpeg: Path of the program to open it with.
        timeout: For the guard and ffmpeg together; never beyond settings.probe_timeout_s. None: that.

    Returns:
        Its facts; it has a picture.

    Raises:
        RequestFailure: When it may not be read, is not there, cannot be reached in time, is no media or has no picture.
    """
    if not isinstance(source, UriInput):
        problem = "nobody publishes before the session has started. Try declared_facts."
        raise RequestFailure(
            reason=Reason.INVALID_REQUEST,
            message=f"Cannot look at an ingest: {problem}",
            violations=(Violation(field="session.transcode.input.declared_facts", description=problem),),
        )
    bound = timedelta(seconds=settings.probe_timeout_s)
    return await _within(_probe(source, settings, ffmpeg), source, min(timeout, bound) if timeout else bound)


async def _guarded(source: UriInput, settings: InputSettings) -> UriInput:
    scheme = input_scheme(source.uri)
    if scheme == "file" and "file" in settings.protocols:
        return replace(source, uri=await guard_input_file(source.uri, settings.roots))
    if scheme in ("http", "https") and scheme in settings.protocols:
        return replace(source, uri=await follow(source.uri, settings))
    await guard_url(source.uri, settings)
    return source


async def _probe(source: UriInput, settings: InputSettings, ffmpeg: str) -> InputFacts:
    guarded = await _guarded(source, settings)
    # The head of the input alone, and no slower than it comes, whatever the session asks for.
    opened = input_arguments(UriInput(uri=guarded.uri), ingest_url=None, live=False)
    bounds = ["-probesize", str(settings.probe_size_mib * _BYTES_PER_MIB)]
    try:
        run = await run_bounded(
            [ffmpeg, "-hide_banner", "-nostdin", *bounds, *opened],
            timeout=timedelta(seconds=settings.probe_timeout_s),
        )
    except OSError as error:
        raise RequestFailure(
            reason=Reason.NO_DEVICE_READY,
            message=f"Cannot look at the input: ffmpeg cannot be started: {error}. Try [ffmpeg] candidates.",
        ) from error
    return _facts(run, source)


async def _within(work: Coroutine[Any, Any, _Result], source: UriInput, bound: timedelta) -> _Result:
    try:
        async with asyncio.timeout(bound.total_seconds()):
            return await work
    except TimeoutError:
        raise _timeout_failure(source, bound) from None


def _timeout_failure(source: UriInput, bound: timedelta) -> RequestFailure:
    is_file = input_scheme(source.uri) == "file"
    seconds = f"{bound.total_seconds():g} s"
    problem = f"it was not opened within {seconds}" if is_file else f"its server gave too little within {seconds}"
    reason = Reason.INPUT_UNREADABLE if is_file else Reason.INPUT_UNREACHABLE
    cure = "again, or declared_facts, which spare this look"
    return INPUT_FIELD.failure(reason, redact_url(source.uri), problem, cure)


def _facts(run: ProgramRun, source: UriInput) -> InputFacts:
    description = parse_input_description(run.output)
    shown = redact_url(source.uri)
    if description.error is not None:
        raise _failure(source, run.output, description.error)
    pictures = [stream for stream in description.streams if stream.kind == "video" and not stream.attached_picture]
    if not pictures:
        raise INPUT_FIELD.failure(Reason.INPUT_NO_VIDEO, shown, "it has no video stream", "an input with a picture")
    if not description.has_video or pictures[0].pixel_format is None:
        # The container names a stream of which nothing came that could be decoded.
        problem = "its video cannot be read: there is too little of it, or it is damaged"
        raise INPUT_FIELD.failure(Reason.INPUT_UNREADABLE, shown, problem, "the whole file, or declared_facts")
    return description.facts


def _failure(source: UriInput, output: str, error: str) -> RequestFailure:
    """Says why nothing could be opened, by what ffmpeg said."""
    shown = redact_url(source.uri)
    told = Redactor(url_secrets(source.uri)).redact(error)
    if _NO_REDIRECT_LIMIT.search(output):
        problem = "this ffmpeg cannot be kept from following redirects"
        return INPUT_FIELD.failure(Reason.INPUT_NOT_ALLOWED, shown, problem, "a newer ffmpeg in [ffmpeg] candidates")
    if _NOT_ALLOWED.search(output):
        problem = "it is text, a playlist, or of another kind that is no media itself and may open other things"
        return INPUT_FIELD.failure(Reason.INPUT_NOT_ALLOWED, shown, problem, "the media itself, or HLS by http")
    if input_scheme(source.uri) != "file" and _UNREACHABLE.search(output):
        problem = f"it cannot be reached: {told}"
        return INPUT_FIELD.failure(
            Reason.INPUT_UNREACHABLE, shown, problem, "the URL in another player from this machine"
        )
    # Not told apart: for a text named .mp4 ffmpeg says the same as for a film without its end.
    problem = f"it is no media that ffmpeg knows, or it is cut short: {told}"
    return INPUT_FIELD.failure(Reason.INPUT_UNREADABLE, shown, problem, "another input")
