"""What a finished file is: its checksum, size, length and formats."""

from __future__ import annotations

import asyncio
import hashlib
from datetime import timedelta
from typing import TYPE_CHECKING

from agents.bounded_program import run_bounded
from agents.pipelines.input_description import parse_input_description
from agents.pipelines.recording_report import RecordedFile

if TYPE_CHECKING:
    from pathlib import Path

_LOOKED_AT_WITHIN = timedelta(seconds=20)


def checksum(path: Path) -> str:
    """Gives the SHA-256 of a file as hexadecimal digits. Blocks for the disk; holds no more than a piece of it.

    Raises:
        OSError: When it cannot be read.
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


async def describe_file(path: Path, *, told: str, sha256: str, ffmpeg: str) -> RecordedFile:
    """Describes a finished file. What ffmpeg cannot tell of it stays open.

    Args:
        path: Where it is.
        told: How the report calls it.
        sha256: Of its bytes.
        ffmpeg: Path of the program that looks at it.

    Raises:
        OSError: When it is not there, or ffmpeg cannot be started.
    """
    size_bytes = (await asyncio.to_thread(path.stat)).st_size
    run = await run_bounded([ffmpeg, "-hide_banner", "-nostdin", "-i", str(path)], timeout=_LOOKED_AT_WITHIN)
    description = parse_input_description(run.output)
    streams = [stream for stream in description.streams if stream.kind in ("video", "audio")]
    return RecordedFile(
        path=told,
        sha256=sha256,
        size_bytes=size_bytes,
        duration=description.facts.duration,
        width=description.facts.width,
        height=description.facts.height,
        codecs=tuple(stream.codec for stream in streams),
    )
