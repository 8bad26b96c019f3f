"""The exact size of a rendition's pictures, from what was asked and what the input is. Pure.

The same rule that agents tell ffmpeg: a side that is not asked for is rounded to the nearest even number, because 4:2:0
has one colour sample for two pixels.
"""

from __future__ import annotations

from typing import NamedTuple


class PictureSize(NamedTuple):
    """In pixels."""

    width: int
    height: int


def fitted_size(source: PictureSize, *, width: int | None, height: int | None, stretch: bool = False) -> PictureSize:
    """Finds the size of a rendition's pictures.

    Args:
        source: The input's size; both sides above 0.
        width: As asked, even. None: follows from the height and the input's aspect ratio.
        height: As asked, even. None: follows from the width and the input's aspect ratio.
        stretch: With both sides given, gives up the aspect ratio. Otherwise the picture becomes as large as fits in.

    Returns:
        Even sides, at least 2; they may leave the bounds of the contract when the input is very narrow.
    """
    if width is None and height is None:
        return PictureSize(_even(source.width, 1), _even(source.height, 1))
    if width is None or height is None:
        if height is not None:
            return PictureSize(_even(height * source.width, source.height), height)
        assert width is not None
        return PictureSize(width, _even(width * source.height, source.width))
    if stretch:
        return PictureSize(width, height)
    # Compared as products: the input is relatively wider than the frame, so the width is what binds.
    if source.width * height >= width * source.height:
        return PictureSize(width, min(height, _even(width * source.height, source.width)))
    return PictureSize(min(width, _even(height * source.width, source.height)), height)


def _even(numerator: int, denominator: int) -> int:
    """Rounds a positive fraction to the nearest even number, halves up."""
    return max(2, (numerator + denominator) // (2 * denominator) * 2)
