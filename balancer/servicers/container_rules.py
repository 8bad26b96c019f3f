"""Which formats fit which carriers, as measured with ffmpeg 5.1 and 9.0.

What ffmpeg muxes only as private data that no player recognizes counts as not fitting: AV1, FLAC or Vorbis in MPEG-TS
for instance. HEVC, AV1 and Opus over RTMP need an ffmpeg of 6.1 or newer; whether there is one, the agent knows.
"""

from __future__ import annotations

from enum import Enum

from balancer.domain.workload import VideoCodec


class Carrier(Enum):
    """What carries a rendition to its reader."""

    MP4 = "MP4"
    FRAGMENTS = "fMP4 segments"
    MKV = "Matroska"
    TS = "MPEG-TS"
    RTMP = "RTMP"


_MODERN_VIDEO = frozenset({VideoCodec.H264, VideoCodec.HEVC, VideoCodec.AV1, VideoCodec.VP9})
_VIDEO = {
    Carrier.MP4: frozenset(VideoCodec) - {VideoCodec.VP8},
    Carrier.FRAGMENTS: _MODERN_VIDEO,
    Carrier.MKV: frozenset(VideoCodec),
    Carrier.TS: frozenset({VideoCodec.H264, VideoCodec.HEVC, VideoCodec.MPEG2, VideoCodec.MPEG4}),
    Carrier.RTMP: _MODERN_VIDEO,
}
_COPIED_AUDIO = {
    Carrier.FRAGMENTS: frozenset({"aac", "ac3", "alac", "eac3", "flac", "mp3", "opus"}),
    Carrier.TS: frozenset({"aac", "aac_latm", "ac3", "dts", "eac3", "mp2", "mp3", "opus"}),
    Carrier.RTMP: frozenset({"aac", "ac3", "eac3", "flac", "mp3", "opus"}),
}
"""By ffmpeg's names. MP4 and Matroska take nearly everything; what they do not take, ffmpeg refuses at once."""


def carries_video(carrier: Carrier, codec: VideoCodec) -> bool:
    """Whether a video format can be put into a carrier so that it is recognized there."""
    return codec in _VIDEO[carrier]


def carries_copied_audio(carrier: Carrier, codec: str) -> bool:
    """Whether sound in the input's own format, by ffmpeg's name, can be put into a carrier. AAC and Opus always can."""
    known = _COPIED_AUDIO.get(carrier)
    return known is None or codec in known
