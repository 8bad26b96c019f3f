"""From typed options to renditions. Every mistake names its option."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gpu_balancer.cli.invocation import Misuse, spelled
from gpu_balancer.cli.typed_times import typed_duration
from gpu_balancer.client.specs import make_renditions
from gpu_balancer.client.spelling import (
    AUDIO_BIT_RATE_MAX,
    AUDIO_BIT_RATE_MIN,
    parse_bit_rate,
    parse_frame_rate,
    parse_rendition,
)
from gpu_balancer.v1 import media_pb2

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from gpu_balancer.cli.job_options import RenditionOptions


def typed_renditions(
    made: RenditionOptions, *, default: str, ladder: Callable[[str], Sequence[media_pb2.Rendition]]
) -> list[media_pb2.Rendition]:
    """Makes renditions of their options.

    Args:
        made: The options.
        default: How the one is spelled that is made when none is asked for.
        ladder: Gives the renditions of a profile; asked only when a profile is named.

    Raises:
        Misuse: When something typed cannot be meant.
    """
    if not made.profile:
        return _made_renditions(made, default)
    _refuse_with_profile(made)
    return list(ladder(made.profile))


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


def _made_renditions(made: RenditionOptions, default: str) -> list[media_pb2.Rendition]:
    with spelled("--rendition"):
        spellings = [parse_rendition(text, default_codec=made.codec.value) for text in made.rendition or [default]]
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
        keyframe_interval=typed_duration("--keyframe-interval", made.keyframe_interval), low_latency=made.low_latency
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
