"""What a transcode costs, from its ladder and what is known of its input; and whether the two fit together at all."""

from __future__ import annotations

from typing import TYPE_CHECKING

from balancer.domain.workload import DecodeTask, VideoCodec, Workload
from balancer.servicers.contract_words import VIDEO_CODECS
from balancer.servicers.input_validation import HIGHEST_INPUT_FRAME_RATE
from balancer.servicers.output_validation import check_copied_formats
from balancer.servicers.rendition_work import Rate, checked_sizes, encoding_work, pixels_per_second, rate_of
from balancer.servicers.session_specs import TRANSCODE as SPEC
from balancer.servicers.upload_rates import upload_bits_per_second
from balancer.servicers.violations import SECOND, Violations
from gpu_balancer.pictures.sizes import PictureSize
from gpu_balancer.runtime.failures import Reason, RequestFailure, Violation
from gpu_balancer.v1 import media_pb2

if TYPE_CHECKING:
    from balancer.servicers.ladder_memory import Ladder
    from gpu_balancer.v1.media_pb2 import Input, InputFacts, TranscodeSpec

DEFAULT_FRAME_RATE: Rate = (30, 1)
"""Of an input whose rate nobody knows."""


def checked_workload(spec: TranscodeSpec, ladder: Ladder, facts: InputFacts, *, real_time: bool) -> Workload:
    """Finds what a transcode costs, and that its ladder can be made of its input: once for each ladder and such input.

    Args:
        spec: The transcode, filled in.
        ladder: Remembers what it cost with the inputs that it met.
        facts: Of its input.
        real_time: Whether it falls behind when its device is slower.

    Raises:
        RequestFailure: INVALID_REQUEST when the asked and the input do not fit together; INPUT_NO_VIDEO.
    """
    found = Violations()
    _check_start(found, spec.input, facts)
    workload = ladder.workload(facts, real_time=real_time)
    if workload is not None:
        found.refuse()
        return workload
    sizes = _checked_sizes(found, spec, facts)
    workload = _workload(spec, facts, sizes, real_time=real_time)
    ladder.keep(facts, workload)
    return workload


def _checked_sizes(found: Violations, spec: TranscodeSpec, facts: InputFacts) -> list[PictureSize | None]:
    """Finds the size of each rendition, None where nothing is encoded, and notes what does not fit the input."""
    encoded = any(rendition.WhichOneof("video") == "encode" for rendition in spec.renditions)
    if encoded and not (facts.width and facts.height):
        raise RequestFailure(
            reason=Reason.INPUT_NO_VIDEO,
            message="Cannot encode video: the input has none. Try another input, or renditions with sound only.",
            violations=(Violation(field=f"{SPEC}.input", description="has no video"),),
        )
    source = PictureSize(facts.width, facts.height)
    sizes = checked_sizes(found, f"{SPEC}.renditions", spec.renditions, source, "the input's")
    if _passes_on(spec):
        by_name = {rendition.id: rendition for rendition in spec.renditions}
        check_copied_formats(found, f"{SPEC}.outputs", spec.outputs, by_name, facts)
    found.refuse()
    return sizes


def _passes_on(spec: TranscodeSpec) -> bool:
    """Whether anything reaches an output in the input's own format."""
    return any(
        rendition.WhichOneof("video") == "passthrough" or rendition.audio.codec == media_pb2.AUDIO_CODEC_COPY
        for rendition in spec.renditions
    )


def _check_start(found: Violations, given: Input, facts: InputFacts) -> None:
    if not (given.HasField("start_offset") and facts.HasField("duration")):
        return
    length = facts.duration.seconds * SECOND + facts.duration.nanos
    if length and given.start_offset.seconds * SECOND + given.start_offset.nanos >= length:
        told = f"must be before the input's end at {length / SECOND:g} s"
        found.add(f"{SPEC}.input.start_offset", told)


def _workload(spec: TranscodeSpec, facts: InputFacts, sizes: list[PictureSize | None], *, real_time: bool) -> Workload:
    source, source_rate = PictureSize(facts.width, facts.height), _source_rate(facts)
    encoding = encoding_work(spec.renditions, sizes, source, source_rate)
    source_pixels = pixels_per_second(source, source_rate)
    return Workload(
        decode=_decode_task(facts, source_pixels) if encoding.tasks else None,
        scale_pixels_per_second=encoding.scaled_pixels_per_second,
        encodes=encoding.tasks,
        real_time=real_time,
        allow_software_encode=spec.allow_software_encode,
        upload_bits_per_second=upload_bits_per_second(
            spec.outputs, spec.renditions, encoding.pixels_by_rendition, source_pixels=source_pixels
        ),
    )


def _decode_task(facts: InputFacts, pixels: int) -> DecodeTask:
    return DecodeTask(
        # An ingest whose client did not say: what publishers send is H.264 with hardly an exception.
        codec=VIDEO_CODECS.get(facts.video_codec, VideoCodec.H264),
        width=facts.width,
        height=facts.height,
        bit_depth=facts.bit_depth if facts.HasField("bit_depth") else 8,
        chroma=facts.chroma or None,
        pixels_per_second=pixels,
        rotated=facts.rotation_degrees != 0,
    )


def _source_rate(facts: InputFacts) -> Rate:
    """Gives the input's frame rate; 30 when it is unknown or, as with some streams, what was read is a time base."""
    numerator, denominator = rate_of(facts.frame_rate)
    if not numerator or not denominator or numerator > HIGHEST_INPUT_FRAME_RATE * denominator:
        return DEFAULT_FRAME_RATE
    return numerator, denominator
