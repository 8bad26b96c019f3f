"""How many pixels per second one processor core does, for work that no GPU does.

Measured with ffmpeg 9.0 on one machine; docs/placement.md has the figures and what they were rounded to. They are
starting points: the settings replace them where an operator has measured his own cores.
"""

from __future__ import annotations

from collections.abc import Mapping

from balancer.domain.workload import EncodingSpeed, VideoCodec

CORE = 1_000_000
"""One core that is kept wholly busy, in the unit of Dimension.CORES."""

DECODE_RATES: Mapping[VideoCodec, int] = {
    VideoCodec.H264: 150_000_000,
    VideoCodec.HEVC: 95_000_000,
    VideoCodec.AV1: 130_000_000,
    VideoCodec.VP8: 200_000_000,
    VideoCodec.VP9: 180_000_000,
    VideoCodec.MPEG2: 500_000_000,
    VideoCodec.MPEG4: 400_000_000,
    VideoCodec.MJPEG: 300_000_000,
    # Anything may come as this, so it is taken for heavier than all that were measured.
    VideoCodec.OTHER: 60_000_000,
}

ENCODE_RATES: Mapping[tuple[VideoCodec, str], int] = {
    (VideoCodec.H264, EncodingSpeed.FASTEST.value): 190_000_000,  # libx264 ultrafast
    (VideoCodec.H264, EncodingSpeed.FAST.value): 49_000_000,  # veryfast
    (VideoCodec.H264, EncodingSpeed.BALANCED.value): 22_000_000,  # medium
    (VideoCodec.H264, EncodingSpeed.THOROUGH.value): 15_000_000,  # slow
    (VideoCodec.HEVC, EncodingSpeed.FASTEST.value): 33_000_000,  # libx265 ultrafast
    (VideoCodec.HEVC, EncodingSpeed.FAST.value): 16_000_000,  # veryfast
    (VideoCodec.HEVC, EncodingSpeed.BALANCED.value): 10_000_000,  # medium
    (VideoCodec.HEVC, EncodingSpeed.THOROUGH.value): 4_000_000,  # slow
    (VideoCodec.AV1, EncodingSpeed.FASTEST.value): 43_000_000,  # SVT-AV1 preset 10
    (VideoCodec.AV1, EncodingSpeed.FAST.value): 33_000_000,  # 9
    (VideoCodec.AV1, EncodingSpeed.BALANCED.value): 18_000_000,  # 8
    (VideoCodec.AV1, EncodingSpeed.THOROUGH.value): 9_000_000,  # 6
}

SCALE_RATE = 300_000_000
"""Output pixels, bicubic."""

TEN_BIT_ENCODE_FACTOR = 2
"""How much longer an encoder takes over samples of 10 bits. Measured: 1.2 (SVT-AV1) to 2.0 (libx265)."""
