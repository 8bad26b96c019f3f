"""What encoding renditions costs, once it is known what they are made of: how large, at how many pictures a second."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from balancer.domain.workload import EncodeTask
from balancer.servicers.contract_words import ENCODED_CODECS, SPEEDS
from balancer.servicers.input_validation import MAX_PICTURE_PIXELS
from balancer.servicers.rendition_validation import LARGEST_SIDE, SMALLEST_SIDE
from gpu_balancer.pictures.sizes import PictureSize, fitted_size
from gpu_balancer.v1 import media_pb2

if TYPE_CHECKING:
    from collections.abc import Sequence

    from balancer.servicers.violations import Violations
    from gpu_balancer.v1.media_pb2 import FrameRate, Rendition

Rate = tuple[int, int]
"""Frames over seconds."""


class EncodingWork(NamedTuple):
    """What all renditions take."""

    tasks: tuple[EncodeTask, ...]
    scaled_pixels_per_second: int
    """Output pixels of those whose size or rate is not the source's."""
    pixels_by_rendition: dict[str, int]
    """Pixels per second of each encoded one, by its name."""


def encoding_work(
    renditions: Sequence[Rendition], sizes: Sequence[PictureSize | None], source: PictureSize, source_rate: Rate
) -> EncodingWork:
    """Finds what renditions take.

    Args:
        renditions: Filled in.
        sizes: Of each, in the same order. None: it is not encoded.
        source: What they are made of.
        source_rate: Its pictures per second.
    """
    tasks: list[EncodeTask] = []
    pixels: dict[str, int] = {}
    scaled = 0
    for rendition, size in zip(renditions, sizes, strict=True):
        if size is None:
            continue
        encoding = rendition.encode
        rate = rate_of(encoding.frame_rate) if encoding.HasField("frame_rate") else source_rate
        task = EncodeTask(
            codec=ENCODED_CODECS[encoding.codec],
            width=size.width,
            height=size.height,
            bit_depth=encoding.bit_depth,
            speed=SPEEDS[encoding.speed],
            pixels_per_second=pixels_per_second(size, rate),
        )
        tasks.append(task)
        pixels[rendition.id] = task.pixels_per_second
        same_rate = rate[0] * source_rate[1] == source_rate[0] * rate[1]
        if not same_rate or size != source:
            scaled += task.pixels_per_second
    return EncodingWork(tasks=tuple(tasks), scaled_pixels_per_second=scaled, pixels_by_rendition=pixels)


def checked_sizes(
    found: Violations, where: str, renditions: Sequence[Rendition], source: PictureSize, whose: str
) -> list[PictureSize | None]:
    """Finds the size of each rendition, None where nothing is encoded, and notes those that follow but cannot be made.

    Args:
        found: Takes what is wrong.
        where: Path of the renditions.
        renditions: Filled in.
        source: What they are made of.
        whose: Aspect ratio a size follows from: "the input's".
    """
    sizes: list[PictureSize | None] = []
    for index, rendition in enumerate(renditions):
        if rendition.WhichOneof("video") != "encode":
            sizes.append(None)
            continue
        encoding = rendition.encode
        size = fitted_size(
            source,
            width=encoding.width if encoding.HasField("width") else None,
            height=encoding.height if encoding.HasField("height") else None,
            stretch=encoding.fit == media_pb2.FIT_STRETCH,
        )
        _check_size(found, f"{where}[{index}].encode", size, whose)
        sizes.append(size)
    return sizes


def _check_size(found: Violations, where: str, size: PictureSize, whose: str) -> None:
    """Notes a size that follows from the source's and cannot be made. What was asked was checked before."""
    for side, pixels in (("width", size.width), ("height", size.height)):
        if not SMALLEST_SIDE <= pixels <= LARGEST_SIDE:
            told = f"would be {pixels:,} pixels with {whose} aspect ratio"
            found.add(f"{where}.{side}", f"{told}, beyond {SMALLEST_SIDE} to {LARGEST_SIDE:,}; give both sides")
    if size.width * size.height > MAX_PICTURE_PIXELS:
        told = f"must leave at most {MAX_PICTURE_PIXELS:,} pixels per picture, not {size.width:,} × {size.height:,}"
        found.add(f"{where}.height", told)


def rate_of(rate: FrameRate) -> Rate:
    """Gives a frame rate as a fraction."""
    return rate.numerator, rate.denominator


def pixels_per_second(size: PictureSize, rate: Rate) -> int:
    """Rounds up: a promise must not be short by a fraction."""
    return -(-size.width * size.height * rate[0] // rate[1])
