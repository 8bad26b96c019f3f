"""What a finished file is: its checksum, size, length and formats."""

from __future__ import annotations

import asyncio
import hashlib
import os
from datetime import timedelta
from typing import TYPE_CHECKING

from agents.bounded_program import run_bounded
from agents.pipelines.input_description import parse_input_description
from agents.pipelines.recording_files import describe_command
from agents.pipelines.recording_report import RecordedFile

if TYPE_CHECKING:
    from io import BufferedReader

_LOOKED_AT_WITHIN = timedelta(seconds=20)


async def describe_file(file: BufferedReader, *, told: str, ffmpeg: str) -> RecordedFile:
    """Describes a finished file, wherever its path leads by now. What ffmpeg cannot tell of it stays open.

    Args:
        file: Open, at its begin.
        told: How the report calls it.
        ffmpeg: Path of the program that looks at it.

    Raises:
        OSError: When it cannot be read, or ffmpeg cannot be started.
    """
    descriptor = file.fileno()
    digest = await asyncio.to_thread(hashlib.file_digest, file, "sha256")
    command = describe_command(ffmpeg, f"/proc/self/fd/{descriptor}")
    run = await run_bounded(command, timeout=_LOOKED_AT_WITHIN, inherited=(descriptor,))
    description = parse_input_description(run.output)
    streams = [stream for stream in description.streams if stream.kind in ("video", "audio")]
    return RecordedFile(
        path=told,
        sha256=digest.hexdigest(),
        size_bytes=os.fstat(descriptor).st_size,
        duration=description.facts.duration,
        width=description.facts.width,
        height=description.facts.height,
        codecs=tuple(stream.codec for stream in streams),
    )
