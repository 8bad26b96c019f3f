"""What an ffmpeg can do, told from its version: where two versions need different options for the same result."""

from __future__ import annotations

import re
from dataclasses import dataclass

_VERSION = re.compile(r"n?(\d+)\.(\d+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class FfmpegFeatures:
    """What a version of ffmpeg has beyond 5.1, the oldest one in use."""

    hybrid_mp4: bool
    """`-movflags +hybrid_fragmented`: fragments while writing, an ordinary MP4 once complete."""
    enhanced_flv: bool
    """HEVC and AV1 in FLV, and so over RTMP."""
    opus_in_flv: bool
    """Opus in FLV, and so over RTMP."""
    measured_hls_bandwidth: bool
    """An HLS master playlist tells in the end what segments really take. Else, and until then, a variant of unknown bit
    rate is left out."""
    encoder_stats: bool
    """`-stats_enc_pre`: a line in a file about each picture that is encoded."""
    options_from_files: bool
    """`-/name FILE`: the value of an option is read from a file."""


_OLDEST = FfmpegFeatures(
    hybrid_mp4=False,
    enhanced_flv=False,
    opus_in_flv=False,
    measured_hls_bandwidth=False,
    encoder_stats=False,
    options_from_files=False,
)


def version_number(version: str) -> tuple[int, int] | None:
    """Reads the major and minor number of a version as ffmpeg prints it.

    Args:
        version: "9.0.2", "n9.0.2-17-g2a571b6068", "5.1.9-0+deb12u1" or "N-119584-g06cee0c681" for instance.

    Returns:
        Major and minor number. None for a build from between releases, which carries no number.
    """
    found = _VERSION.match(version)
    return (int(found[1]), int(found[2])) if found else None


def features_of(version: str) -> FfmpegFeatures:
    """Tells what an ffmpeg of a version has.

    The hybrid MP4 muxer came with 7.1 and was made sound by 8.0; HEVC and AV1 in FLV came with 6.1, Opus in FLV with
    8.0; measured HLS bandwidths are in 8.0 for certain; encoders' statistics came with 6.0 and know the captured
    picture behind a filter graph since 7.0; options are read from files since 7.0. A version without a number is taken
    for the oldest one: the result is then right, if less refined.

    Args:
        version: As ffmpeg prints it.

    Returns:
        Its features.
    """
    number = version_number(version)
    if number is None:
        return _OLDEST
    return FfmpegFeatures(
        hybrid_mp4=number >= (8, 0),
        enhanced_flv=number >= (6, 1),
        opus_in_flv=number >= (8, 0),
        measured_hls_bandwidth=number >= (8, 0),
        encoder_stats=number >= (7, 0),
        options_from_files=number >= (7, 0),
    )
