"""From typed options to the recording to ask for and the files to fetch. Every mistake names its option."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from gpu_balancer.cli.invocation import Misuse, spelled
from gpu_balancer.cli.job import typed_labels
from gpu_balancer.cli.job_options import AudioChoice
from gpu_balancer.cli.job_outputs import other_outputs, typed_delivery
from gpu_balancer.cli.job_renditions import typed_renditions
from gpu_balancer.cli.restart_options import RestartChoice, typed_restart
from gpu_balancer.cli.typed_times import bounded_duration, typed_duration
from gpu_balancer.client.deliveries import Delivery, Fetch
from gpu_balancer.client.recording_specs import (
    DEFAULT_RENDITION,
    THUMBNAIL_FOLDER,
    make_capture,
    make_gate,
    make_spec,
    make_watermark,
)
from gpu_balancer.client.recording_spelling import (
    DURATION_BOUNDS,
    GATE_TIMEOUT_BOUNDS,
    QUIET_BOUNDS,
    THUMBNAIL_BOUNDS,
    parse_bounded_time,
)
from gpu_balancer.v1 import media_pb2, recording_pb2, session_pb2

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from gpu_balancer.cli.job_options import OutputOptions, RenditionOptions
    from gpu_balancer.cli.record_options import CaptureOptions, FinishOptions

DEFAULT_OUTPUT = "recording.mp4"
"""Where a recording goes when nothing was said."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class RecordingJob:
    """What was asked for."""

    session: session_pb2.Session
    delivery: Delivery
    """What is to be fetched; its outputs are in the session already."""


def make_recording_job(
    source: recording_pb2.PageSource | recording_pb2.ApplicationSource,
    capture: CaptureOptions,
    made: RenditionOptions,
    out: OutputOptions,
    finish: FinishOptions,
    *,
    fetches: bool,
    ladder: Callable[[str], Sequence[media_pb2.Rendition]],
) -> RecordingJob:
    """Makes a job of typed options.

    Args:
        source: What is recorded.
        capture: How it is looked at, when it begins and ends.
        made: What is made of it.
        out: Where it goes.
        finish: What is added to it, and what the session is like besides.
        fetches: Whether results are to be fetched, also when nothing was said of where to.
        ladder: Gives the renditions of a profile; asked only when a profile is named.

    Raises:
        Misuse: When something typed cannot be meant.
    """
    spec = make_spec(source)
    _add_capture(spec, capture)
    _add_finish(spec, finish)
    renditions = typed_renditions(made, default=DEFAULT_RENDITION, ladder=ladder)
    if not made.profile:
        _refuse_copies(renditions, made)
        spec.renditions.extend(renditions)
    spec.profile = made.profile
    if finish.restart is RestartChoice.ALWAYS:
        raise Misuse("Cannot use --restart always for a recording: it ends when it is told to. Try on-failure.")
    said = out.output or out.hls or out.push or out.server_output
    chosen = out if said or not fetches else dataclasses.replace(out, output=DEFAULT_OUTPUT)
    names = [rendition.id for rendition in renditions]
    delivery = typed_delivery(chosen, names)
    spec.outputs.extend([*delivery.outputs, *other_outputs(chosen, names)])
    if finish.thumbnails is not None:
        delivery = _with_thumbnails(delivery)
    session = session_pb2.Session(
        recording=spec,
        labels=typed_labels(finish.label),
        max_duration=bounded_duration("--duration", capture.duration, DURATION_BOUNDS),
        max_wait=typed_duration("--wait-for-device", finish.wait_for_device),
        restart=typed_restart(finish),
    )
    return RecordingJob(session=session, delivery=delivery)


def _add_capture(spec: recording_pb2.RecordingSpec, capture: CaptureOptions) -> None:
    with spelled("--size"):
        looks = make_capture(capture.size, None, show_cursor=capture.cursor, sound=not capture.no_sound)
    with spelled("--fps"):
        looks.MergeFrom(make_capture(None, capture.fps, show_cursor=False, sound=True))
    spec.capture.CopyFrom(looks)
    of_page = spec.HasField("page")
    timeout = capture.gate_timeout
    with spelled("--gate-timeout"):
        awaited = None if timeout is None else parse_bounded_time(timeout, GATE_TIMEOUT_BOUNDS)
    with spelled("--gate"):
        spec.start_gate.CopyFrom(make_gate(capture.gate, awaited, of_page=of_page))
    if capture.until_signal and not of_page:
        raise Misuse("Cannot use --until-signal with --application: only a page logs anything.")
    silence = bounded_duration("--stop-on-silence", capture.stop_on_silence, QUIET_BOUNDS)
    if silence is not None and capture.no_sound:
        raise Misuse("Cannot use --stop-on-silence with --no-sound: it would be silent at once.")
    idle = bounded_duration("--stop-on-idle", capture.stop_on_idle, QUIET_BOUNDS)
    spec.stop_rules.CopyFrom(recording_pb2.StopRules(end_signal=capture.until_signal, silence=silence, idle=idle))


def _add_finish(spec: recording_pb2.RecordingSpec, finish: FinishOptions) -> None:
    if finish.watermark is not None:
        with spelled("--watermark"):
            spec.watermark.CopyFrom(make_watermark(finish.watermark))
    interval = bounded_duration("--thumbnails", finish.thumbnails, THUMBNAIL_BOUNDS)
    if interval is not None:
        spec.thumbnail_interval.CopyFrom(interval)
    spec.destinations.extend(finish.to)
    spec.allow_software_encode = finish.allow_software_encode


def _refuse_copies(renditions: Sequence[media_pb2.Rendition], made: RenditionOptions) -> None:
    """A display has nothing encoded that could be passed through."""
    if any(rendition.WhichOneof("video") == "passthrough" for rendition in renditions):
        raise Misuse("Cannot use --rendition: a display has no video to copy. Try source instead of copy.")
    if made.audio is AudioChoice.COPY:
        raise Misuse("Cannot use --audio copy: a display has no encoded sound to copy. Try aac or opus.")


def _with_thumbnails(delivery: Delivery) -> Delivery:
    """Has thumbnails fetched into a folder beside the first local place, when there is one."""
    if not delivery.fetches:
        return delivery
    place = delivery.fetches[0].target
    folder = Fetch(
        artifact_path=THUMBNAIL_FOLDER,
        target=place.with_name(f"{place.stem}-thumbnails"),
        whole_folder=True,
        required=False,
    )
    return dataclasses.replace(delivery, fetches=(*delivery.fetches, folder))
