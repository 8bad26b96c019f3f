"""From typed options to the session to ask for and the files to fetch. Every mistake names its option."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from gpu_balancer.cli.invocation import Misuse, spelled
from gpu_balancer.cli.job_options import IngestChoice, PriorityChoice
from gpu_balancer.cli.job_outputs import other_outputs, typed_delivery
from gpu_balancer.cli.job_renditions import typed_renditions
from gpu_balancer.cli.restart_options import typed_restart
from gpu_balancer.cli.typed_times import typed_duration
from gpu_balancer.client.specs import VIDEO_CODECS, input_uri, local_file
from gpu_balancer.client.spelling import parse_facts, parse_label, parse_reserved_speed
from gpu_balancer.v1 import media_pb2, session_pb2

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from gpu_balancer.cli.job_options import InputOptions, OutputOptions, RenditionOptions, SessionOptions
    from gpu_balancer.client.deliveries import Delivery


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
    renditions = typed_renditions(made, default="source", ladder=ladder)
    names = [rendition.id for rendition in renditions]
    delivery = typed_delivery(out, names)
    asked = session_pb2.Session(
        transcode=media_pb2.TranscodeSpec(
            input=source,
            profile=made.profile,
            renditions=() if made.profile else renditions,
            outputs=[*delivery.outputs, *other_outputs(out, names)],
            allow_software_encode=session.allow_software_encode,
        ),
        labels=typed_labels(session.label),
        max_duration=typed_duration("--max-duration", session.max_duration),
        max_wait=typed_duration("--wait-for-device", session.wait_for_device),
        preemptible=session.preemptible,
        reserved_speed=_reserved_speed(given, session),
        restart=typed_restart(session),
    )
    if session.priority is not None:
        asked.priority = session_pb2.Priority.Value(f"PRIORITY_{session.priority.value.upper()}")
    return Job(session=asked, delivery=delivery, source_file=local_file(source))


def typed_labels(told: Sequence[str]) -> dict[str, str]:
    """Makes the labels of their options.

    Raises:
        Misuse: When one is none.
    """
    with spelled("--label"):
        return dict(parse_label(label) for label in told)


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
        start_offset=typed_duration("--start", given.start, from_zero=True),
        duration=typed_duration("--duration", given.duration),
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
        timeout = typed_duration("--publisher-timeout", given.publisher_timeout)
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
