"""What a session's pushes send to other machines, at their peaks: what is booked of the host's network."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gpu_balancer.v1 import media_pb2

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from gpu_balancer.v1.media_pb2 import AudioRendition, Output, Rendition, VideoEncoding

PIXELS_PER_BIT = 10
"""Of video whose rate nobody bounds, at its peaks: 6.2 Mbit/s for 1920x1080 at 30 pictures per second."""
AUDIO_BITS_PER_SECOND = 128_000
"""Of sound that is passed on as it is."""


def upload_bits_per_second(
    outputs: Sequence[Output],
    renditions: Sequence[Rendition],
    pixels_by_rendition: Mapping[str, int],
    *,
    source_pixels: int = 0,
) -> int:
    """Adds up the peak rates of all pushes.

    Args:
        outputs: Filled in. What is no push sends nothing.
        renditions: Filled in.
        pixels_by_rendition: Pixels per second of those that are encoded, by name.
        source_pixels: Pixels per second of what is passed through.
    """
    pushes = [output for output in outputs if output.WhichOneof("kind") == "push"]
    if not pushes:
        return 0
    by_name = {rendition.id: rendition for rendition in renditions}
    total = 0
    for output in pushes:
        for name in output.renditions or by_name:
            rendition = by_name[name]
            match rendition.WhichOneof("video"):
                case "encode":
                    total += _video_peak(rendition.encode, pixels_by_rendition.get(name, 0))
                case "passthrough":
                    total += -(-source_pixels // PIXELS_PER_BIT)
                case _:
                    pass
            total += _audio_rate(rendition.audio)
    return total


def _video_peak(encoding: VideoEncoding, pixels: int) -> int:
    """Gives the peak that the contract promises, else what is usual."""
    if encoding.HasField("max_bit_rate_bps"):
        return encoding.max_bit_rate_bps
    if encoding.HasField("bit_rate_bps"):
        return encoding.bit_rate_bps * 3 // 2
    return -(-pixels // PIXELS_PER_BIT)


def _audio_rate(audio: AudioRendition) -> int:
    if audio.codec == media_pb2.AUDIO_CODEC_NONE:
        return 0
    return audio.bit_rate_bps if audio.HasField("bit_rate_bps") else AUDIO_BITS_PER_SECOND
