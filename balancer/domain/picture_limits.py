"""Which picture sizes encoders and decoders take.

Hardware: the maxima of NVIDIA's NVENC and NVDEC documentation, alike for every generation that the capacity table
knows; the minima are rounded up to what every generation was reported to take. Software: level 6.2 of H.264 and HEVC
and 6.3 of AV1 end at the same number of samples, and libx264, libx265 and SVT-AV1 take sides of 16384.
"""

from __future__ import annotations

from collections.abc import Mapping

from balancer.domain.workload import DecodeTask, EncodeTask, VideoCodec

_Sides = tuple[int, int]

_NVENC: Mapping[VideoCodec, tuple[_Sides, _Sides]] = {
    VideoCodec.H264: ((146, 50), (4096, 4096)),
    VideoCodec.HEVC: ((130, 34), (8192, 8192)),
    VideoCodec.AV1: ((192, 128), (8192, 8192)),
}
_NVDEC: Mapping[VideoCodec, tuple[_Sides, _Sides]] = {
    VideoCodec.H264: ((48, 16), (4096, 4096)),
    VideoCodec.HEVC: ((144, 144), (8192, 8192)),
    VideoCodec.AV1: ((128, 128), (8192, 8192)),
    VideoCodec.VP8: ((48, 16), (4096, 4096)),
    VideoCodec.VP9: ((128, 128), (8192, 8192)),
    VideoCodec.MPEG2: ((48, 16), (4080, 4080)),
    VideoCodec.MPEG4: ((48, 16), (2032, 2032)),
    VideoCodec.MJPEG: ((64, 64), (16384, 16384)),
}
_SOFTWARE_SIDE = 16384
_SOFTWARE_SAMPLES = 35_651_584


def hardware_encoder_limit(task: EncodeTask) -> str | None:
    """Tells why NVENC does not take a size, as part of a sentence. None: it does."""
    return _beyond(_NVENC, task, "encoder")


def hardware_decoder_limit(task: DecodeTask) -> str | None:
    """Tells why NVDEC does not take a size, as part of a sentence. None: it does."""
    return _beyond(_NVDEC, task, "decoder")


def software_encoder_limit(task: EncodeTask) -> str | None:
    """Tells why software encoders do not take a size, as part of a sentence. None: they do."""
    if max(task.width, task.height) > _SOFTWARE_SIDE:
        return f"its encoders end at a side of {_SOFTWARE_SIDE}"
    if task.width * task.height > _SOFTWARE_SAMPLES:
        return f"its encoders end at {_SOFTWARE_SAMPLES} pixels"
    return None


def _beyond(sizes: Mapping[VideoCodec, tuple[_Sides, _Sides]], task: EncodeTask | DecodeTask, whose: str) -> str | None:
    limits = sizes.get(task.codec)
    if limits is None:
        return None
    (least_width, least_height), (most_width, most_height) = limits
    if task.width > most_width or task.height > most_height:
        return f"its {whose} ends at {most_width}x{most_height}"
    if task.width < least_width or task.height < least_height:
        return f"its {whose} begins at {least_width}x{least_height}"
    return None
