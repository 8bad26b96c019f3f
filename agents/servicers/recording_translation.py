"""From the contract's messages to recordings, and from what became of them back. Mistakes are told all at once."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from agents.pipelines.job import FrameRate, VideoPassthrough
from agents.pipelines.recording import (
    ApplicationSource,
    BasicAuth,
    Capture,
    ColorScheme,
    Cookie,
    Corner,
    GateKind,
    PageSource,
    RecordingJob,
    StartGate,
    StopRules,
    Watermark,
)
from agents.servicers.job_translation import outputs_of, renditions_of
from agents.servicers.request_fields import Mistakes, session_id
from gpu_balancer.v1 import recording_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Mapping

    from google.protobuf.duration_pb2 import Duration

    from agents.pipelines.recording import RecordingSource
    from agents.pipelines.recording_report import MeasuredUse, RecordedFile, RecordingReport, SoundTiming
    from agents.recordings.ability import RecordingAbility
    from gpu_balancer.v1 import agent_service_pb2

_GATES: Mapping[int, GateKind] = {
    pb.START_GATE_KIND_IMMEDIATELY: GateKind.IMMEDIATELY,
    pb.START_GATE_KIND_FIRST_CONTENTFUL_PAINT: GateKind.FIRST_CONTENTFUL_PAINT,
    pb.START_GATE_KIND_NETWORK_IDLE: GateKind.NETWORK_IDLE,
    pb.START_GATE_KIND_SELECTOR: GateKind.SELECTOR,
    pb.START_GATE_KIND_CONSOLE_SIGNAL: GateKind.CONSOLE_SIGNAL,
    pb.START_GATE_KIND_FIRST_WINDOW: GateKind.FIRST_WINDOW,
}
_SCHEMES: Mapping[int, ColorScheme] = {
    pb.COLOR_SCHEME_UNSPECIFIED: ColorScheme.LIGHT,
    pb.COLOR_SCHEME_LIGHT: ColorScheme.LIGHT,
    pb.COLOR_SCHEME_DARK: ColorScheme.DARK,
}
_CORNERS: Mapping[int, Corner] = {
    pb.CORNER_UNSPECIFIED: Corner.BOTTOM_RIGHT,
    pb.CORNER_TOP_LEFT: Corner.TOP_LEFT,
    pb.CORNER_TOP_RIGHT: Corner.TOP_RIGHT,
    pb.CORNER_BOTTOM_LEFT: Corner.BOTTOM_LEFT,
    pb.CORNER_BOTTOM_RIGHT: Corner.BOTTOM_RIGHT,
}
_LARGEST_SIDE = 16384
_HIGHEST_RATE = 120


def recording_from_plan(plan: agent_service_pb2.LaunchPlan, *, path: str = "plan") -> RecordingJob:
    """Makes a recording.

    Args:
        plan: The launch plan.
        path: Where it stands in the request.

    Raises:
        RequestFailure: INVALID_REQUEST with every mistake.
    """
    mistakes = Mistakes()
    spec, where = plan.recording, f"{path}.recording"
    if plan.id.attempt < 1:
        mistakes.add(f"{path}.id.attempt", "must be 1 or more.")
    renditions = renditions_of(spec.renditions, f"{where}.renditions", mistakes)
    for index, rendition in enumerate(renditions):
        if isinstance(rendition.video, VideoPassthrough):
            mistakes.add(f"{where}.renditions[{index}]", "must be encoded: a display has no video to pass through.")
    outputs = outputs_of(spec.outputs, f"{where}.outputs", mistakes)
    source = _source(spec, where, mistakes)
    capture = _capture(spec.capture, f"{where}.capture", mistakes)
    gate = _gate(spec, f"{where}.start_gate", mistakes)
    watermark = _watermark(spec.watermark, where, mistakes) if spec.HasField("watermark") else None
    session = session_id(plan.id.session, path=f"{path}.id.session")
    mistakes.refuse()
    assert source is not None
    assert gate is not None
    return RecordingJob(
        session=session,
        attempt=plan.id.attempt,
        source=source,
        capture=capture,
        gate=gate,
        stop_rules=_stop_rules(spec.stop_rules),
        renditions=renditions,
        outputs=outputs,
        watermark=watermark,
        thumbnail_interval=_duration(spec.thumbnail_interval) if spec.HasField("thumbnail_interval") else None,
        destinations=tuple(spec.destinations),
        allow_software_encode=spec.allow_software_encode,
        continues=bool(plan.continues),
    )


def report_message(report: RecordingReport) -> pb.RecordingReport:
    """Makes the message of what became of a recording; what is None stays unset."""
    message = pb.RecordingReport(
        captured_frames=report.captured_frames,
        encoded_frames=report.encoded_frames,
        duplicated_frames=report.duplicated_frames,
        dropped_frames=report.dropped_frames,
        take_count=report.take_count,
        end_cause=report.end_cause,
        files=[_file_message(file) for file in report.files],
        browser=report.browser,
        renderer=report.renderer,
        dismissed_dialogs=report.dismissed_dialogs,
        closed_popups=report.closed_popups,
        cancelled_downloads=report.cancelled_downloads,
    )
    for phase in report.phases:
        message.phases.add(name=phase.name).duration.FromTimedelta(phase.duration)
    if report.longest_freeze is not None:
        message.longest_freeze.FromTimedelta(report.longest_freeze)
    if report.start_time is not None:
        message.start_time.FromTimedelta(report.start_time)
    if report.sound_timing is not None:
        message.sound_timing.CopyFrom(timing_message(report.sound_timing))
    return message


def timing_message(timing: SoundTiming) -> pb.SoundTiming:
    """Makes the message of how far sound and picture are apart; what is None stays unset."""
    message = pb.SoundTiming(delay_source=timing.delay_source)
    message.delay.FromTimedelta(timing.delay)
    if timing.film_offset is not None:
        message.film_offset.FromTimedelta(timing.film_offset)
    if timing.drawing_offset is not None:
        message.drawing_offset.FromTimedelta(timing.drawing_offset)
    if timing.heard_drawing_offset is not None:
        message.heard_drawing_offset.FromTimedelta(timing.heard_drawing_offset)
    if timing.measurement_time is not None:
        message.measurement_time.FromDatetime(timing.measurement_time)
    return message


def ability_message(ability: RecordingAbility) -> pb.RecordingAbility:
    """Makes the message of what an agent records."""
    message = pb.RecordingAbility(
        available=ability.available,
        fault_message=ability.fault_message,
        display_count=ability.display_count,
        ready_display_count=ability.ready_display_count,
        browser=ability.browser,
        applications=ability.applications,
        largest_width=ability.largest_width,
        largest_height=ability.largest_height,
    )
    if ability.sound_timing is not None:
        message.sound_timing.CopyFrom(timing_message(ability.sound_timing))
    return message


def use_message(use: MeasuredUse) -> pb.MeasuredUse:
    """Makes the message of what a display was seen to take."""
    message = pb.MeasuredUse(cores=use.cores, memory_mib=use.memory_mib)
    message.measured_time.FromTimedelta(use.measured_time)
    return message


def _file_message(file: RecordedFile) -> pb.RecordedFile:
    message = pb.RecordedFile(
        path=file.path,
        sha256=file.sha256,
        size_bytes=file.size_bytes,
        width=file.width or 0,
        height=file.height or 0,
        codecs=file.codecs,
    )
    if file.duration is not None:
        message.duration.FromTimedelta(file.duration)
    return message


def _source(spec: pb.RecordingSpec, where: str, mistakes: Mistakes) -> RecordingSource | None:
    match spec.WhichOneof("source"):
        case "page":
            return _page(spec.page, f"{where}.page", mistakes)
        case "application":
            return ApplicationSource(name=spec.application.name)
        case _:
            mistakes.add(where, "must have one source: page or application.")
            return None


def _page(message: pb.PageSource, path: str, mistakes: Mistakes) -> PageSource | None:
    scheme = mistakes.choose(_SCHEMES, message.color_scheme, f"{path}.color_scheme")
    if scheme is None:
        return None
    auth = None
    if message.HasField("basic_auth"):
        auth = BasicAuth(username=message.basic_auth.username, password=message.basic_auth.password)
    return PageSource(
        url=message.url,
        device_scale_factor=message.device_scale_factor if message.HasField("device_scale_factor") else 1.0,
        locale=message.locale or "en-US",
        timezone=message.timezone or None,
        user_agent=message.user_agent or None,
        headers=dict(message.headers),
        cookies=tuple(_cookie(cookie) for cookie in message.cookies),
        basic_auth=auth,
        init_script=message.init_script or None,
        color_scheme=scheme,
        show_scrollbars=message.show_scrollbars,
        accept_http_errors=message.accept_http_errors,
        ignore_certificate_errors=message.ignore_certificate_errors,
    )


def _cookie(message: pb.Cookie) -> Cookie:
    return Cookie(
        name=message.name,
        value=message.value,
        domain=message.domain or None,
        path=message.path or "/",
        secure=message.secure,
        http_only=message.http_only,
    )


def _capture(message: pb.Capture, path: str, mistakes: Mistakes) -> Capture:
    usual = Capture()
    width = message.width if message.HasField("width") else usual.width
    height = message.height if message.HasField("height") else usual.height
    for name, side in (("width", width), ("height", height)):
        if not 0 < side <= _LARGEST_SIDE or side % 2:
            mistakes.add(f"{path}.{name}", f"must be an even number of pixels up to {_LARGEST_SIDE:,}, not {side:,}.")
    rate = usual.frame_rate
    if message.HasField("frame_rate"):
        numerator, denominator = message.frame_rate.numerator, message.frame_rate.denominator
        if not numerator or not denominator or numerator > _HIGHEST_RATE * denominator:
            mistakes.add(f"{path}.frame_rate", f"must be above 0 and at most {_HIGHEST_RATE} pictures per second.")
        else:
            rate = FrameRate(numerator=numerator, denominator=denominator)
    return Capture(
        width=width,
        height=height,
        frame_rate=rate,
        show_cursor=message.show_cursor,
        sound=not message.without_sound,
    )


def _gate(spec: pb.RecordingSpec, path: str, mistakes: Mistakes) -> StartGate | None:
    message, usual = spec.start_gate, StartGate()
    page = spec.HasField("page")
    kind = GateKind.FIRST_CONTENTFUL_PAINT if page else GateKind.FIRST_WINDOW
    if message.kind != pb.START_GATE_KIND_UNSPECIFIED:
        chosen = mistakes.choose(_GATES, message.kind, f"{path}.kind")
        if chosen is None:
            return None
        kind = chosen
    fits = kind is not GateKind.FIRST_WINDOW if page else kind in (GateKind.FIRST_WINDOW, GateKind.IMMEDIATELY)
    if not fits:
        mistakes.add(f"{path}.kind", f"{kind} does not go with {'a page' if page else 'an application'}.")
    return StartGate(
        kind=kind,
        timeout=_duration(message.timeout) if message.HasField("timeout") else usual.timeout,
        selector=message.selector or None,
        signal=message.signal or usual.signal,
    )


def _stop_rules(message: pb.StopRules) -> StopRules:
    return StopRules(
        end_signal=message.end_signal or StopRules().end_signal,
        silence=_duration(message.silence) if message.HasField("silence") else None,
        idle=_duration(message.idle) if message.HasField("idle") else None,
    )


def _watermark(message: pb.Watermark, where: str, mistakes: Mistakes) -> Watermark | None:
    corner = mistakes.choose(_CORNERS, message.corner, f"{where}.watermark.corner")
    if corner is None:
        return None
    usual = Watermark(path=message.path)
    return Watermark(
        path=message.path,
        corner=corner,
        margin=message.margin if message.HasField("margin") else usual.margin,
        opacity=message.opacity if message.HasField("opacity") else usual.opacity,
    )


def _duration(message: Duration) -> timedelta:
    return message.ToTimedelta()
