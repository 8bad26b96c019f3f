"""How recordings look: what was asked for, and the report of what became of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gpu_balancer.cli.session_words import input_words
from gpu_balancer.cli.sound_views import sound_lines, sound_words
from gpu_balancer.cli.words import brief, clean, clock, enum_word, size
from gpu_balancer.v1 import recording_pb2

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gpu_balancer.v1.recording_pb2 import PageSource, RecordedFile, RecordingReport, RecordingSpec
    from gpu_balancer.v1.session_pb2 import Session

_CAUSES = {
    "STOPPED": "it was stopped",
    "MAX_DURATION": "its time was over",
    "END_SIGNAL": "the page said so",
    "SILENCE": "it had been silent for long enough",
    "IDLE": "nothing had moved for long enough",
    "PAGE_CLOSED": "the page closed itself",
    "APPLICATION_ENDED": "the application ended",
}


def recording_facts(session: Session) -> Iterator[tuple[str, str]]:
    """Gives what was asked of a recording, name by name; what was not said has no value."""
    spec = session.recording
    yield spec.WhichOneof("source") or "page", input_words(session).removeprefix("application ")
    yield "page gets", "\n".join(_page_lines(spec.page))
    yield "display", _display_words(spec.capture)
    yield "begins", gate_words(spec)
    yield "ends", "\n".join(_end_lines(session))
    if spec.HasField("watermark"):
        corner = enum_word(recording_pb2.Corner.Name, spec.watermark.corner, "CORNER_").replace("_", " ")
        yield "watermark", f"{clean(spec.watermark.path)}, {'bottom right' if corner == '-' else corner}"
    yield "thumbnails", f"each {brief(spec.thumbnail_interval)}" if spec.HasField("thumbnail_interval") else ""
    yield "copied to", ", ".join(clean(one) for one in spec.destinations)


def _page_lines(page: PageSource) -> Iterator[str]:
    """Tells the options of a page. Of what may be secret only the names."""
    if page.HasField("device_scale_factor"):
        yield f"{page.device_scale_factor:g} pixels for each of its own"
    for name, value in (("locale", page.locale), ("time zone", page.timezone), ("user agent", page.user_agent)):
        if value:
            yield f"{name} {clean(value)}"
    if page.color_scheme == recording_pb2.COLOR_SCHEME_DARK:
        yield "dark mode"
    if page.headers:
        yield f"headers {', '.join(clean(name) for name in sorted(page.headers))}"
    if page.cookies:
        yield f"cookies {', '.join(clean(cookie.name) for cookie in page.cookies)}"
    if page.HasField("basic_auth"):
        yield f"the password of {clean(page.basic_auth.username)}"
    if page.init_script:
        yield f"a script of {size(len(page.init_script.encode()))}"
    for asked, words in (
        (page.show_scrollbars, "scroll bars"),
        (page.accept_http_errors, "leave to answer with an error"),
        (page.ignore_certificate_errors, "leave to have any certificate"),
    ):
        if asked:
            yield words


def _display_words(capture: recording_pb2.Capture) -> str:
    """Describes a display with the contract's own figures where none were asked for."""
    width = capture.width if capture.HasField("width") else 1280
    height = capture.height if capture.HasField("height") else 720
    rate = capture.frame_rate.numerator / capture.frame_rate.denominator if capture.frame_rate.denominator else 30
    parts = [f"{width}x{height}", f"{rate:.4g} fps"]
    parts += ["with its pointer"] if capture.show_cursor else []
    parts += ["without sound"] if capture.without_sound else []
    return ", ".join(parts)


def gate_words(spec: RecordingSpec) -> str:
    """Tells what is awaited before the first picture."""
    gate = spec.start_gate
    kind = gate.kind
    if not kind:
        page, window = recording_pb2.START_GATE_KIND_FIRST_CONTENTFUL_PAINT, recording_pb2.START_GATE_KIND_FIRST_WINDOW
        kind = window if spec.HasField("application") else page
    words = {
        recording_pb2.START_GATE_KIND_IMMEDIATELY: "at once",
        recording_pb2.START_GATE_KIND_FIRST_CONTENTFUL_PAINT: "when the page has painted",
        recording_pb2.START_GATE_KIND_NETWORK_IDLE: "when the network is idle",
        recording_pb2.START_GATE_KIND_SELECTOR: f"when {clean(gate.selector)} is visible",
        recording_pb2.START_GATE_KIND_CONSOLE_SIGNAL: f"when the page logs {clean(gate.signal) or 'START_RECORDING'}",
        recording_pb2.START_GATE_KIND_FIRST_WINDOW: "when a window is visible",
    }.get(kind, f"#{kind}")
    return f"{words}, {brief(gate.timeout)} at most" if gate.HasField("timeout") else words


def _end_lines(session: Session) -> Iterator[str]:
    rules = session.recording.stop_rules
    if session.HasField("max_duration"):
        yield f"after {clock(session.max_duration)}"
    if session.recording.HasField("page"):
        yield f"when the page logs {clean(rules.end_signal) or 'END_RECORDING'}"
    if rules.HasField("silence"):
        yield f"after {brief(rules.silence)} of silence"
    if rules.HasField("idle"):
        yield f"after {brief(rules.idle)} without a change"


def report_facts(report: RecordingReport, *, whole: bool = True) -> Iterator[tuple[str, str]]:
    """Gives what became of a recording, name by name; what is not known has no value.

    Args:
        report: The report.
        whole: Everything. Otherwise what somebody wants to know who has just made it.
    """
    if report.captured_frames or report.encoded_frames:
        yield "frames", frame_words(report)
    yield "freeze", f"{brief(report.longest_freeze)} at most" if report.HasField("longest_freeze") else ""
    if report.HasField("sound_timing"):
        timing, of_pages = report.sound_timing, bool(report.browser)
        yield "sound", "\n".join(sound_lines(timing, of_pages=of_pages)) if whole else sound_words(timing)
    yield "start", f"first picture after {brief(report.start_time)}" if report.HasField("start_time") else ""
    cause = _CAUSES.get(report.end_cause, "")
    yield "end", f"{cause} ({report.end_cause})" if cause else report.end_cause
    if not whole:
        return
    yield "phases", ", ".join(f"{one.name.replace('_', ' ')} {brief(one.duration)}" for one in report.phases)
    yield "takes", str(report.take_count) if report.take_count > 1 else ""
    yield "files", "\n".join(file_words(one) for one in report.files)
    yield "browser", clean(report.browser)
    yield "renderer", clean(report.renderer)
    told = (
        (report.dismissed_dialogs, "dialogs dismissed"),
        (report.closed_popups, "windows closed"),
        (report.cancelled_downloads, "downloads cancelled"),
    )
    yield "suppressed", ", ".join(f"{count} {words}" for count, words in told if count)


def frame_words(report: RecordingReport) -> str:
    """Tells the truth about the frames."""
    return (
        f"{report.captured_frames} captured, {report.encoded_frames} encoded, "
        f"{report.duplicated_frames} duplicated, {report.dropped_frames} dropped"
    )


def file_words(told: RecordedFile) -> str:
    """Describes a finished file."""
    parts = [f"{told.width}x{told.height}"] if told.width else []
    parts += [" ".join(clean(codec) for codec in told.codecs)] if told.codecs else []
    parts += [clock(told.duration)] if told.HasField("duration") else []
    parts += [size(told.size_bytes), f"sha256 {told.sha256}"]
    return f"{clean(told.path)}: {', '.join(parts)}"
