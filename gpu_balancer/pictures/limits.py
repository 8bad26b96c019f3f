"""Which picture sizes encoders and decoders take.

Hardware: the maxima of NVIDIA's NVENC and NVDEC documentation, alike for every generation that the capacity table
knows; the minima are rounded up to what every generation was reported to take. Software: level 6.2 of H.264 and HEVC
and 6.3 of AV1 end at the same number of samples, and libx264, libx265 and SVT-AV1 take sides of 16384.

Odd sides: NVDEC decodes them, but in device memory ffmpeg 9.0 then shifts their lines and colours without a word, in
every format that has such pictures (seen on an H100; docs/hardware-verified.md).
"""

from __future__ import annotations

from collections.abc import Mapping

_Sides = tuple[int, int]

_NVENC: Mapping[str, tuple[_Sides, _Sides]] = {
    "h264": ((146, 50), (4096, 4096)),
    "hevc": ((130, 34), (8192, 8192)),
    "av1": ((192, 128), (8192, 8192)),
}
_NVDEC: Mapping[str, tuple[_Sides, _Sides]] = {
    "h264": ((48, 16), (4096, 4096)),
    "hevc": ((144, 144), (8192, 8192)),
    "av1": ((128, 128), (8192, 8192)),
    "vp8": ((48, 16), (4096, 4096)),
    "vp9": ((128, 128), (8192, 8192)),
    "mpeg2": ((48, 16), (4080, 4080)),
    "mpeg4": ((48, 16), (2032, 2032)),
    "mjpeg": ((64, 64), (16384, 16384)),
}
_SOFTWARE_SIDE = 16384
_SOFTWARE_SAMPLES = 35_651_584


def hardware_encoder_limit(codec: str, width: int, height: int) -> str | None:
    """Tells why NVENC does not take a size.

    Args:
        codec: Video format, "h264" for instance.
        width: Pixels.
        height: Pixels.

    Returns:
        Part of a sentence. None: it does take it.
    """
    return _beyond(_NVENC, codec, width, height, "encoder")


def hardware_decoder_limit(codec: str, width: int, height: int) -> str | None:
    """Tells why NVDEC does not take a size, as `hardware_encoder_limit` does for NVENC."""
    if codec in _NVDEC and (width % 2 or height % 2):
        return "its decoder takes even sides only"
    return _beyond(_NVDEC, codec, width, height, "decoder")


def software_encoder_limit(width: int, height: int) -> str | None:
    """Tells why software encoders do not take a size, as part of a sentence. None: they do."""
    if max(width, height) > _SOFTWARE_SIDE:
        return f"its encoders end at a side of {_SOFTWARE_SIDE}"
    if width * height > _SOFTWARE_SAMPLES:
        return f"its encoders end at {_SOFTWARE_SAMPLES} pixels"
    return None


def _beyond(sizes: Mapping[str, tuple[_Sides, _Sides]], codec: str, width: int, height: int, whose: str) -> str | None:
    limits = sizes.get(codec)
    if limits is None:
        return None
    (least_width, least_height), (most_width, most_height) = limits
    if width > most_width or height > most_height:
        return f"its {whose} ends at {most_width}x{most_height}"
    if width < least_width or height < least_height:
        return f"its {whose} begins at {least_width}x{least_height}"
    return None
