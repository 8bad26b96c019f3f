"""From typed options to the session to ask for and the files to fetch. Every mistake names its option."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from gpu_balancer.cli.invocation import Misuse, spelled
from gpu_balancer.cli.job_options import IngestChoice, PriorityChoice, SegmentChoice
from gpu_balancer.client.deliveries import Delivery, file_delivery, hls_delivery, names_folder
from gpu_balancer.client.specs import VIDEO_CODECS, input_uri, local_file, make_renditions, to_duration
from gpu_balancer.client.spelling import (
    AUDIO_BIT_RATE_MAX,
    AUDIO_BIT_RATE_MIN,
    parse_bit_rate,
    parse_facts,
    parse_frame_rate,
    parse_label,
    parse_rendition,
    parse_reserved_speed,
    parse_time,
)
from gpu_balancer.v1 import media_pb2, session_pb2

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from google.protobuf.duration_pb2 import Duration

    from gpu_balancer.cli.job_options import InputOptions, OutputOptions, RenditionOptions, SessionOptions

_PUSH = re.compile(r"(?:(?P<rendition>[A-Za-z0-9_-]{1,40})=)?(?P<url>(?:rtmps?|srt)://.+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What was asked for."""

    session: session_pb2.Session
    delivery: Delivery
    """What is to be fetched; its outputs are in the session already."""
    source_file: Path | None
    """The local input file. None: the input is none."""


def make_job(
    given: InputOptions,
    made: RenditionOptions,
    out: OutputOptions,
    session: SessionOptions,
    *,
    ladder: Callable[[str], Sequence[media_pb2.Rendition]],
) -> Job:
    """Makes a job of typed options.

    Args:
        given: Where the media comes from.
        made: What is made of it.
        out: Where it goes.
        session: What the session is like besides.
        ladder: Gives the renditions of a profile; asked only when a profile is named.

    Raises:
        Misuse: When something typed cannot be meant.
    """
    source = make_input(given)
    if made.profile:
        _refuse_with_profile(made)
        renditions = list(ladder(made.profile))
    else:
        renditions = _make_renditions(made)
    names = [rendition.id for rendition in renditions]
    delivery = _make_delivery(out, names)
    outputs = [*delivery.outputs, *_pushes(out, names), *_server_outputs(out, names)]
    with spelled("--label"):
        labels = dict(parse_label(label) for label in session.label)
    asked = session_pb2.Session(
        transcode=media_pb2.TranscodeSpec(
            input=source,
            profile=made.profile,
            renditions=() if made.profile else renditions,
            outputs=outputs,
            allow_software_encode=session.allow_software_encode,
        ),
        labels=labels,
        max_duration=_duration("--max-duration", session.max_duration),
        max_wait=_duration("--wait-for-device", session.wait_for_device),
        preemptible=session.preemptible,
        reserved_speed=_reserved_speed(given, session),
    )
    if session.priority is not None:
        asked.priority = session_pb2.Priority.Value(f"PRIORITY_{session.priority.value.upper()}")
    return Job(session=asked, delivery=delivery, source_file=local_file(source))


def _reserved_speed(given: InputOptions, session: SessionOptions) -> float | None:
    """Reads the speed to be kept free; refuses it, and giving way, where it is plain that the session is live."""
    batch, live = session.priority is PriorityChoice.BATCH, session.priority is PriorityChoice.LIVE
    paced = given.native_rate or given.ingest is not None
    if session.preemptible and (live or (paced and not batch)):
        raise Misuse("Cannot use --preemptible for live work, which nothing may stop. Try --priority batch.")
    if session.reserved_speed is None:
        return None
    if live or paced:
        raise Misuse("Cannot use --reserved-speed for live work: it goes at real time. Try without it.")
    with spelled("--reserved-speed"):
        return parse_reserved_speed(session.reserved_speed)


def make_input(given: InputOptions) -> media_pb2.Input:
    """Makes the input of its options."""
    if (given.source is None) == (given.ingest is None):
        raise Misuse(
            "Cannot tell the input. Try either a file or URL, or --ingest rtmp with --input-facts 1280x720@30."
        )
    if given.loop and given.repeat:
        raise Misuse("Cannot use --loop and --repeat together. Try one of them.")
    source = media_pb2.Input(
        start_offset=_duration("--start", given.start),
        duration=_duration("--duration", given.duration),
        native_rate=given.native_rate,
        repeat_count=given.repeat,
        repeat_forever=given.loop,
    )
    if given.source is not None:
        with spelled("INPUT"):
            source.uri = input_uri(given.source)
    if given.ingest is not None:
        if given.input_facts is None:
            raise Misuse("Cannot plan for an ingest without knowing it. Try --input-facts 1280x720@30.")
        rtmp, srt = media_pb2.INGEST_PROTOCOL_RTMP, media_pb2.INGEST_PROTOCOL_SRT
        timeout = _duration("--publisher-timeout", given.publisher_timeout)
        protocol = rtmp if given.ingest is IngestChoice.RTMP else srt
        source.ingest.CopyFrom(media_pb2.Ingest(protocol=protocol, publisher_timeout=timeout))
    elif given.publisher_timeout is not None:
        raise Misuse("Cannot use --publisher-timeout without --ingest.")
    if given.input_facts is not None:
        source.declared_facts.CopyFrom(_facts(given.input_facts))
    return source


def _facts(text: str) -> media_pb2.InputFacts:
    with spelled("--input-facts"):
        told = parse_facts(text)
        if told.codec is not None and told.codec not in VIDEO_CODECS:
            raise ValueError(f"{told.codec!r} is no codec of an input. Try {', '.join(VIDEO_CODECS)}")
    facts = media_pb2.InputFacts(width=told.width, height=told.height)
    if told.frame_rate is not None:
        facts.frame_rate.numerator, facts.frame_rate.denominator = told.frame_rate
    if told.codec is not None:
        facts.video_codec = VIDEO_CODECS[told.codec]
    return facts


def _duration(option: str, text: str | None) -> Duration | None:
    if text is None:
        return None
    with spelled(option):
        length = parse_time(text)
        if length <= timedelta(0) and option != "--start":
            raise ValueError(f"{text!r} is no time at all. Try more than 0")
    return to_duration(length)


def _refuse_with_profile(made: RenditionOptions) -> None:
    """A profile says everything about its renditions; an option that changes nothing would only look as if it did."""
    given = {
        "--rendition": made.rendition,
        "--speed": made.speed,
        "--frame-rate": made.frame_rate,
        "--keyframe-interval": made.keyframe_interval,
        "--bit-depth": made.bit_depth,
        "--fit": made.fit,
        "--low-latency": made.low_latency,
        "--audio": made.audio,
        "--audio-bit-rate": made.audio_bit_rate,
    }
    named = [option for option, value in given.items() if value]
    if named:
        raise Misuse(f"Cannot use {', '.join(named)} with --profile: the profile says it. Try one or the other.")


def _make_renditions(made: RenditionOptions) -> list[media_pb2.Rendition]:
    with spelled("--rendition"):
        spellings = [parse_rendition(text, default_codec=made.codec.value) for text in made.rendition or ["source"]]
        renditions = make_renditions(spellings)
    template = _encoding_template(made)
    audio = _audio(made)
    for rendition in renditions:
        if rendition.WhichOneof("video") == "encode":
            rendition.encode.MergeFrom(template)
        if audio is not None:
            rendition.audio.CopyFrom(audio)
    return renditions


def _encoding_template(made: RenditionOptions) -> media_pb2.VideoEncoding:
    """Makes what is the same for every encoded rendition."""
    encoding = media_pb2.VideoEncoding(
        keyframe_interval=_duration("--keyframe-interval", made.keyframe_interval), low_latency=made.low_latency
    )
    if made.frame_rate is not None:
        with spelled("--frame-rate"):
            encoding.frame_rate.numerator, encoding.frame_rate.denominator = parse_frame_rate(made.frame_rate)
    if made.bit_depth is not None:
        if made.bit_depth not in (8, 10):
            raise Misuse(f"Cannot use --bit-depth: {made.bit_depth} is none. Try 8 or 10.")
        encoding.bit_depth = made.bit_depth
    if made.speed is not None:
        encoding.speed = media_pb2.EncodingSpeed.Value(f"ENCODING_SPEED_{made.speed.value.upper()}")
    if made.fit is not None:
        encoding.fit = media_pb2.Fit.Value(f"FIT_{made.fit.value.upper()}")
    return encoding


def _audio(made: RenditionOptions) -> media_pb2.AudioRendition | None:
    if made.audio is None and made.audio_bit_rate is None:
        return None
    audio = media_pb2.AudioRendition()
    if made.audio is not None:
        audio.codec = media_pb2.AudioCodec.Value(f"AUDIO_CODEC_{made.audio.value.upper()}")
    if made.audio_bit_rate is not None:
        with spelled("--audio-bit-rate"):
            bounds = {"minimum": AUDIO_BIT_RATE_MIN, "maximum": AUDIO_BIT_RATE_MAX}
            audio.bit_rate_bps = parse_bit_rate(made.audio_bit_rate, **bounds)
    return audio


def _make_delivery(out: OutputOptions, names: Sequence[str]) -> Delivery:
    """Plans what -o and --hls ask for."""
    parts: list[Delivery] = []
    settings = _hls_settings(out)
    if out.output is not None:
        with spelled("-o"):
            folder = names_folder(out.output)
            parts.append(hls_delivery(out.output, settings) if folder else file_delivery(out.output, names))
        if folder and out.hls is not None:
            raise Misuse("Cannot make two HLS presentations. Try a file for -o, or one of -o and --hls.")
    if out.hls is not None:
        parts.append(hls_delivery(out.hls, settings))
    return Delivery(
        outputs=tuple(output for part in parts for output in part.outputs),
        fetches=tuple(fetch for part in parts for fetch in part.fetches),
    )


def _hls_settings(out: OutputOptions) -> media_pb2.HlsOutput:
    settings = media_pb2.HlsOutput(
        segment_duration=_duration("--segment-duration", out.segment_duration),
        dvr_window=_duration("--dvr-window", out.dvr_window),
    )
    if out.hls_segments is not None:
        fmp4, ts = media_pb2.HLS_SEGMENT_FORMAT_FMP4, media_pb2.HLS_SEGMENT_FORMAT_TS
        settings.segment_format = ts if out.hls_segments is SegmentChoice.TS else fmp4
    return settings


def _pushes(out: OutputOptions, names: Sequence[str]) -> list[media_pb2.Output]:
    pushes = []
    for text in out.push:
        matched = _PUSH.fullmatch(text)
        if matched is None:
            # The text may hold a stream key: it is not repeated.
            raise Misuse("Cannot use --push: it is no rtmp, rtmps or srt URL. Try --push rtmp://host/app/key.")
        name = matched["rendition"]
        if name is None:
            if len(names) > 1:
                raise Misuse(f"Cannot use --push: it takes one rendition. Try --push {names[0]}=URL.")
            name = names[0]
        elif name not in names:
            raise Misuse(f"Cannot use --push: there is no rendition {name!r}. Try one of {', '.join(names)}.")
        pushes.append(media_pb2.Output(renditions=[name], push=media_pb2.PushOutput(url=matched["url"])))
    return pushes


def _server_outputs(out: OutputOptions, names: Sequence[str]) -> list[media_pb2.Output]:
    outputs: list[media_pb2.Output] = []
    for path in out.server_output:
        if not path.startswith("/"):
            raise Misuse(f"Cannot use --server-output: {path!r} is not absolute. Try /srv/out/{path}.")
        parts = path.removesuffix("/").split("/")[1:]
        if not parts or not {"", ".", ".."}.isdisjoint(parts):
            raise Misuse(
                f"Cannot use --server-output: {path!r} has '.', '..' or '//' in it, or names nothing. "
                "Try the whole path, such as /srv/out/show.mp4, or /srv/out/show/ for HLS."
            )
        if names_folder(path):
            hls = _hls_settings(out)
            # The slash only tells that a folder is meant.
            hls.path = path.removesuffix("/")
            outputs.append(media_pb2.Output(hls=hls))
            continue
        with spelled("--server-output"):
            delivery = file_delivery(path, names)
        for name, fetch in zip(names, delivery.fetches, strict=True):
            file = media_pb2.FileOutput(path=str(fetch.target), overwrite=out.overwrite)
            outputs.append(media_pb2.Output(renditions=[name], file=file))
    return outputs
