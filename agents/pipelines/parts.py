"""Parts of files that several attempts write: how they are named, which is which, and which can be joined.

An attempt that continues an earlier one writes a file of its own beside the one that was asked for. Its name tells
which attempt it is from, so that it means the same wherever the file lies, however often attempts are cut short:

| file                | what it is                                                                          |
|---------------------|-------------------------------------------------------------------------------------|
| `film.mp4`          | what was asked for: whole, or what the first attempt is writing                     |
| `film.part1.mp4`    | what attempts up to the first have made, once a later one continues it              |
| `film.part2.mp4`    | what attempt 2 makes                                                                |
| `film.part2-3.mp4`  | the third take of attempt 2 of a recording, which was cut short before it could join |

At the end they are joined, stream by stream, into `film.mp4`, when all were encoded alike. Else they stay.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import PurePosixPath

_PICTURE = re.compile(r"0, *-?\d+, *-?\d+,")
_PARAMETER = re.compile(
    r"#(extradata|tb|media_type|codec_id|dimensions|sar|sample_rate|channel_layout\w*) (\d+)[,:]\s*(.*)"
)


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class PartNumber:
    """Where a part comes among the parts of its file."""

    attempt: int
    """From 1."""
    take: int = 0
    """Of a recording, from 1. 0: the attempt's whole part."""


def part_name(path: str, number: PartNumber) -> str:
    """Names a part.

    Args:
        path: Of the file that was asked for, or its name alone.
        number: Which part.

    Returns:
        The part's path, in the same folder.
    """
    whole = PurePosixPath(path)
    told = f"{number.attempt}-{number.take}" if number.take else f"{number.attempt}"
    return str(whole.with_name(f"{whole.stem}.part{told}{whole.suffix}"))


def part_number(name: str, whole: str) -> PartNumber | None:
    """Tells which part of a file another file is, by their names. None: it is none.

    Args:
        name: Name of the other file.
        whole: Name of the file that was asked for.
    """
    asked = PurePosixPath(whole)
    pattern = re.escape(asked.stem) + r"\.part([1-9]\d{0,8})(?:-([1-9]\d{0,8}))?" + re.escape(asked.suffix)
    found = re.fullmatch(pattern, name)
    return PartNumber(attempt=int(found[1]), take=int(found[2] or 0)) if found else None


def parameters_command(ffmpeg: str, path: str, demuxer: str) -> tuple[str, ...]:
    """Gives the program that tells how a file was encoded, to be read by `parse_parameters`.

    Args:
        ffmpeg: Absolute path of an ffmpeg.
        path: Absolute path of the file.
        demuxer: ffmpeg's name of its format.
    """
    return _listing(ffmpeg, path, demuxer, "-map", "0", "-frames:v", "1", "-frames:a", "1", "-f", "framemd5")


def first_picture_command(ffmpeg: str, path: str, demuxer: str) -> tuple[str, ...]:
    """Gives the program that looks for a file's first picture, for `has_picture`. It fails where there is none.

    Args:
        ffmpeg: Absolute path of an ffmpeg.
        path: Absolute path of the file.
        demuxer: ffmpeg's name of its format.
    """
    return _listing(ffmpeg, path, demuxer, "-map", "0:v:0", "-frames:v", "1", "-f", "framecrc")


def _listing(ffmpeg: str, path: str, demuxer: str, *wanted: str) -> tuple[str, ...]:
    """Gives the program that lists what is wanted of a file of ours, which names no others, without decoding it."""
    opened = ("-protocol_whitelist", "file", "-format_whitelist", demuxer, "-i", f"file:{path}")
    return (ffmpeg, "-hide_banner", "-nostdin", "-loglevel", "error", *opened, "-c", "copy", *wanted, "-")


def has_picture(text: str) -> bool:
    """Tells whether the program of `first_picture_command` found one, from what it printed."""
    return any(_PICTURE.match(line) for line in text.splitlines())


def parse_parameters(text: str) -> tuple[tuple[int, str, str], ...]:
    """Reads how a file was encoded: codec, size, time base, and the headers of its encoders by their checksums.

    Files with equal parameters can be joined without encoding them again. Rates and profiles are in the headers.

    Args:
        text: What the program of `parameters_command` printed.

    Returns:
        Stream, name and value of each parameter, in order. Empty: nothing could be told.
    """
    found = (_PARAMETER.match(line) for line in text.splitlines())
    return tuple(sorted((int(one[2]), one[1], " ".join(one[3].split())) for one in found if one is not None))
