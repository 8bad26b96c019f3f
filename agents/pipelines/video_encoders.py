"""The options of each video encoder: preset, rate control, keyframes, threads.

Keyframes come by time, `gte(t,n_forced*T)`, and never by scene: so they fall on the same pictures in every rendition,
whatever its frame rate, and a stream that stutters still has them when HLS wants to cut. `-g` is only a fence far
behind them, except for SVT-AV1, which before version 2 takes no forced keyframes and so needs its group length exact.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from agents.pipelines.job import EncodingSpeed, VideoCodec
from agents.pipelines.pipeline_error import PipelineError, PipelineErrorReason

if TYPE_CHECKING:
    from agents.pipelines.job import FrameRate, VideoEncoding

_X26_PRESETS = {
    EncodingSpeed.FASTEST: "ultrafast",
    EncodingSpeed.FAST: "veryfast",
    EncodingSpeed.BALANCED: "medium",
    EncodingSpeed.THOROUGH: "slow",
}
_SVT_PRESETS = {
    EncodingSpeed.FASTEST: "10",
    EncodingSpeed.FAST: "9",
    EncodingSpeed.BALANCED: "8",
    EncodingSpeed.THOROUGH: "6",
}
"""Nothing above 10: from there on SVT-AV1 warns of visible artifacts, and its 12 is its 11."""
_NVENC_PRESETS = {
    EncodingSpeed.FASTEST: "p1",
    EncodingSpeed.FAST: "p3",
    EncodingSpeed.BALANCED: "p5",
    EncodingSpeed.THOROUGH: "p7",
}
_DEFAULT_QUALITY = {VideoCodec.H264: 23, VideoCodec.HEVC: 27, VideoCodec.AV1: 35}
"""Visually alike at the encoders' own scales: the defaults of libx264 and SVT-AV1, and one under that of libx265."""
_PEAK_FACTOR = 1.5
_BUFFER_SECONDS = 2
_FENCE_INTERVALS = 4
_UNKNOWN_RATE_FENCE = 60
_UNKNOWN_RATE_GUESS = 30
_SVT_LARGEST_PARALLELISM = 6
_LONGEST_HOLDING_SECONDS = 0.6
_X264_LOOKAHEAD = 10
"""Pictures; what its preset veryfast has."""

_PEAK_BITS_PER_PIXEL = {VideoCodec.H264: 0.25, VideoCodec.HEVC: 0.17, VideoCodec.AV1: 0.15}
"""Above what the default qualities take even for grain and water: a bound that is hardly ever felt."""
_LEAST_PEAK_BPS = 300_000

Options = tuple[tuple[str, str], ...]
"""Names without dash and stream, and values, in order."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EncoderSituation:
    """What an encoder's options depend on besides the encoding itself."""

    frame_rate: FrameRate | None
    """Of what it encodes. None: unknown."""
    thread_count: int
    """Threads that it may use on the host's cores."""
    field: str
    """Path of the encoding in the job, for errors."""
    crash_safe: bool = False
    """Whether a picture must leave the encoder soon, and each file be whole wherever it is cut off: nothing is
    reordered, and little is looked at in advance."""


def encoder_options(implementation: str, encoding: VideoEncoding, situation: EncoderSituation) -> Options:
    """Gives the options of an encoder.

    Args:
        implementation: ffmpeg's name of the encoder.
        encoding: What it has to make.
        situation: What else its options depend on.

    Returns:
        Options of one stream; "c" comes first.

    Raises:
        PipelineError: When no options are known for an encoder of that name.
    """
    if situation.crash_safe and implementation in ("libx265", "libsvtav1"):
        # Their delays are long and follow from many settings; that for little delay is the one that is sure.
        encoding = replace(encoding, low_latency=True)
    match implementation:
        case "libx264":
            options = _x264(encoding, situation)
        case "libx265":
            options = _x265(encoding, situation)
        case "libsvtav1":
            options = _svtav1(encoding, situation)
        case "h264_nvenc" | "hevc_nvenc" | "av1_nvenc":
            options = _nvenc(implementation, encoding, situation)
        case _:
            raise PipelineError(
                reason=PipelineErrorReason.NO_CAPABILITY,
                field=f"{situation.field}.codec",
                message=f"Cannot encode with {implementation}: its options are not known here. Try another device.",
            )
    return (("c", implementation), *options, *_keyframes(implementation, encoding, situation))


def unfelt_peak_bps(encoding: VideoEncoding, *, pixels: int, frame_rate: FrameRate | None) -> int:
    """Estimates a peak bit rate that constant quality stays under, where one has to be told.

    Args:
        encoding: What is encoded.
        pixels: Of each picture.
        frame_rate: None: unknown, taken for 30 per second.

    Returns:
        Bits per second.
    """
    pace = frame_rate.numerator / frame_rate.denominator if frame_rate else _UNKNOWN_RATE_GUESS
    return max(_LEAST_PEAK_BPS, round(pixels * pace * _PEAK_BITS_PER_PIXEL[encoding.codec]))


def _x264(encoding: VideoEncoding, situation: EncoderSituation) -> Options:
    return (
        ("preset", _X26_PRESETS[encoding.speed]),
        *((("tune", "zerolatency"),) if encoding.low_latency else ()),
        *_bounded_rate(encoding),
        *_constant_quality(encoding, "crf"),
        ("sc_threshold", "0"),
        ("threads", str(situation.thread_count)),
        *(_prompt_x264(situation) if situation.crash_safe and not encoding.low_latency else ()),
    )


def _prompt_x264(situation: EncoderSituation) -> Options:
    """Keeps what x264 holds back within 0.6 s: it looks ahead, and each thread after the first holds a picture.

    Where threads alone would hold that many, they share each picture instead. Looking ahead is what makes a page that
    hardly changes small, so it is not given up as `zerolatency` does.
    """
    rate = situation.frame_rate
    pace = rate.numerator / rate.denominator if rate else _UNKNOWN_RATE_GUESS
    most = int(pace * _LONGEST_HOLDING_SECONDS)
    # One more is held by the thread that looks ahead.
    sliced = situation.thread_count + _X264_LOOKAHEAD > most
    ahead = max(0, min(_X264_LOOKAHEAD, most - 1))
    return (("bf", "0"), ("rc-lookahead", str(ahead)), *((("x264-params", "sliced-threads=1"),) if sliced else ()))


def _x265(encoding: VideoEncoding, situation: EncoderSituation) -> Options:
    # Its own log would go to stderr past ffmpeg's levels; 1 is warnings.
    parameters = f"scenecut=0:open-gop=0:pools={situation.thread_count}:log-level=1"
    return (
        ("preset", _X26_PRESETS[encoding.speed]),
        *((("tune", "zerolatency"),) if encoding.low_latency else ()),
        *_bounded_rate(encoding),
        *_constant_quality(encoding, "crf"),
        ("x265-params", parameters),
    )


def _svtav1(encoding: VideoEncoding, situation: EncoderSituation) -> Options:
    parameters = f"scd=0:lp={min(situation.thread_count, _SVT_LARGEST_PARALLELISM)}"
    if encoding.low_latency:
        # An average without reordering is only had as a constant bit rate, rc=2.
        parameters += ":pred-struct=1" + (":rc=2" if encoding.bit_rate_bps is not None else "")
    # It bounds peaks only in constant quality; an average it holds by itself. Quality 0 would read as "not set".
    rate = (("b", str(encoding.bit_rate_bps)),) if encoding.bit_rate_bps is not None else _bounded_rate(encoding)
    return (
        ("preset", _SVT_PRESETS[encoding.speed]),
        *rate,
        *_constant_quality(encoding, "crf", least=1),
        ("svtav1-params", parameters),
    )


def _nvenc(implementation: str, encoding: VideoEncoding, situation: EncoderSituation) -> Options:
    constant = encoding.bit_rate_bps is not None and encoding.max_bit_rate_bps == encoding.bit_rate_bps
    # Reordering works with H.264 on every NVENC; HEVC and AV1 have it on some chips only, where asking is an error.
    reordered = implementation == "h264_nvenc" and not (encoding.low_latency or situation.crash_safe)
    latency: Options = (("zerolatency", "1"),) if encoding.low_latency else ()
    latency += (("delay", "0"),) if encoding.low_latency or situation.crash_safe else ()
    # Constant quality is bounded by a bit rate unless that is said to be 0. Quality 0 would read as "automatic".
    unbounded: Options = (("b", "0"),) if encoding.bit_rate_bps is None else ()
    return (
        ("preset", _NVENC_PRESETS[encoding.speed]),
        ("tune", "ll" if encoding.low_latency else "hq"),
        ("rc", "cbr" if constant else "vbr"),
        *unbounded,
        *_bounded_rate(encoding),
        *_constant_quality(encoding, "cq", least=1),
        ("bf", "2" if reordered else "0"),
        ("no-scenecut", "1"),
        *latency,
    )


def _bounded_rate(encoding: VideoEncoding) -> Options:
    average, peak = encoding.bit_rate_bps, encoding.max_bit_rate_bps
    if average is not None:
        buffer_seconds = 1 if encoding.low_latency else _BUFFER_SECONDS
        highest = max(average, round(average * _PEAK_FACTOR) if peak is None else peak)
        return (("b", str(average)), ("maxrate", str(highest)), ("bufsize", str(average * buffer_seconds)))
    if peak is not None:
        return (("maxrate", str(peak)), ("bufsize", str(peak * _BUFFER_SECONDS)))
    return ()


def _constant_quality(encoding: VideoEncoding, name: str, *, least: int = 0) -> Options:
    if encoding.bit_rate_bps is not None:
        return ()
    quality = _DEFAULT_QUALITY[encoding.codec] if encoding.quality is None else encoding.quality
    return ((name, str(max(quality, least))),)


def _keyframes(implementation: str, encoding: VideoEncoding, situation: EncoderSituation) -> Options:
    seconds = encoding.keyframe_interval.total_seconds()
    rate = situation.frame_rate
    exact: Options = (("force_key_frames", f"expr:gte(t,n_forced*{seconds:g})"),)
    if implementation == "libsvtav1":
        pace = rate.numerator / rate.denominator if rate else _UNKNOWN_RATE_GUESS
        return (("g", str(max(1, round(seconds * pace)))), *exact)
    pace = rate.numerator / rate.denominator if rate else _UNKNOWN_RATE_FENCE
    fence = math.ceil(_FENCE_INTERVALS * seconds * pace)
    return (("g", str(fence)), ("forced-idr", "1"), *exact)
