"""Bit depth and chroma subsampling of ffmpeg's pixel formats, by their names."""

from __future__ import annotations

import re

_PLANAR = re.compile(r"yuv[aj]?(?P<chroma>420|422|444|440|411|410)p(?P<depth>9|10|12|14|16)?(?:msb)?(?:le|be)?")
_SEMI_PLANAR = re.compile(r"p(?P<chroma>[024])(?P<depth>10|12|16)(?:le|be)?")
_GRAY = re.compile(r"(?:gray|ya8|ya16|y400a|mono)(?P<depth>9|10|12|14|16|32)?\w*")
_RGB = re.compile(r"(?:[0a]?(?:rgb|bgr)|gbr|rgba?|bgra?|pal8|x2rgb|x2bgr|bayer)\w*")
_RGB_DEPTH = re.compile(r"(?:gbra?p|x2rgb|x2bgr)(?P<planar>9|10|12|14|16)|(?:rgb|bgr)a?(?P<packed>48|64)")
_CHROMAS = {"420": "4:2:0", "422": "4:2:2", "444": "4:4:4", "440": "4:4:0", "411": "4:1:1", "410": "4:1:0"}
_SEMI_PLANAR_CHROMAS = {"0": "4:2:0", "2": "4:2:2", "4": "4:4:4"}
_NAMED = {
    "nv12": (8, "4:2:0"),
    "nv21": (8, "4:2:0"),
    "nv16": (8, "4:2:2"),
    "nv24": (8, "4:4:4"),
    "nv42": (8, "4:4:4"),
    "yuyv422": (8, "4:2:2"),
    "uyvy422": (8, "4:2:2"),
    "yvyu422": (8, "4:2:2"),
    "uyyvyy411": (8, "4:1:1"),
}


def pixel_format(name: str) -> tuple[int | None, str | None]:
    """Tells bits per sample and chroma subsampling of a pixel format.

    Args:
        name: ffmpeg's name, "yuv420p10le" for instance.

    Returns:
        Bits per sample and chroma as in "4:2:0", "rgb" for pictures that are not YUV; each None when unknown.
    """
    if name in _NAMED:
        return _NAMED[name]
    if planar := _PLANAR.fullmatch(name):
        return int(planar["depth"] or 8), _CHROMAS[planar["chroma"]]
    if semi := _SEMI_PLANAR.fullmatch(name):
        return int(semi["depth"]), _SEMI_PLANAR_CHROMAS[semi["chroma"]]
    if gray := _GRAY.fullmatch(name):
        return int(gray["depth"] or (16 if name.startswith("ya16") else 8)), "4:0:0"
    if _RGB.fullmatch(name):
        deep = _RGB_DEPTH.match(name)
        if deep is None:
            return 8, "rgb"
        return (int(deep["planar"]) if deep["planar"] else 16), "rgb"
    return None, None
