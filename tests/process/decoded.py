"""What media really is, told by decoding it to its last frame with a program of its own."""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from pathlib import Path
from typing import Any

import imageio_ffmpeg

FFMPEG = imageio_ffmpeg.get_ffmpeg_exe()

_VIDEO = re.compile(
    r"Stream #0:\d+.*?: Video: (?P<codec>\w+).*?, (?P<pixels>[a-z0-9]+)(?:\(.*?\))?.*?, (?P<width>\d+)x(?P<height>\d+)"
)
_SOUND = re.compile(r"Stream #0:\d+.*?: Audio: (?P<codec>\w+).*?, (?P<rate>\d+) Hz, (?P<layout>[\w.]+)")
_FORMAT = re.compile(r"Input #0, (?P<format>\S+), from")


@dataclass(frozen=True, kw_only=True)
class Decoded:
    """A media file after it was decoded whole. What takes a further decoding is found out when it is asked for."""

    format: str
    video_codec: str | None
    pixels: str | None
    width: int | None
    height: int | None
    source: Path | str
    audio_codec: str | None
    audio_rate_hz: int | None
    audio_layout: str | None
    complaints: tuple[str, ...]
    """What the decoder did not like."""
    streams: tuple[str, ...]
    """The kinds of its streams, in order."""

    @cached_property
    def frame_times_s(self) -> tuple[float, ...]:
        return self._times_s()

    @cached_property
    def key_times_s(self) -> tuple[float, ...]:
        return self._times_s("-skip_frame", "nokey")

    @cached_property
    def audio_s(self) -> float:
        return _sound_s(self.source) if self.audio_codec else 0.0

    def _times_s(self, *skip: str) -> tuple[float, ...]:
        if self.video_codec is None:
            return ()
        return _times_s(self.source, "-map", "0:v:0", "-fps_mode", "passthrough", skip=skip)

    @property
    def frames(self) -> int:
        return len(self.frame_times_s)

    @property
    def frame_rate(self) -> float:
        return (self.frames - 1) / (self.frame_times_s[-1] - self.frame_times_s[0])

    @property
    def size(self) -> tuple[int | None, int | None]:
        return self.width, self.height


def decode(source: Path | str) -> Decoded:
    """Decodes a file, playlist or URL to its end."""
    told = _run("-loglevel", "level+info", "-i", source, "-map", "0", "-f", "null", "-").stderr
    video, sound, format_found = _VIDEO.search(told), _SOUND.search(told), _FORMAT.search(told)
    assert format_found, told
    head = told.partition("Stream mapping:")[0]
    return Decoded(
        format=format_found["format"].rstrip(","),
        video_codec=video["codec"] if video else None,
        pixels=video["pixels"] if video else None,
        width=int(video["width"]) if video else None,
        height=int(video["height"]) if video else None,
        source=source,
        audio_codec=sound["codec"] if sound else None,
        audio_rate_hz=int(sound["rate"]) if sound else None,
        audio_layout=sound["layout"] if sound else None,
        complaints=tuple(line for line in told.splitlines() if "[error]" in line or "[fatal]" in line),
        streams=tuple(re.findall(r"Stream #0:\d+.*?: (Video|Audio|Subtitle|Data)", head)),
    )


def likeness_db(made: Path | str, original: Path | str) -> float:
    """Gives the average PSNR of luminance, in dB, of a file against its original scaled to its size."""
    graph = "[1:v][0:v]scale2ref[b][a];[a][b]psnr"
    told = _run("-loglevel", "info", "-i", made, "-i", original, "-lavfi", graph, "-f", "null", "-").stderr
    return float(re.findall(r"PSNR y:(\S+)", told)[-1].replace("inf", "100"))


def _times_s(source: Path | str, *options: str, skip: tuple[str, ...] = ()) -> tuple[float, ...]:
    told = _run("-loglevel", "error", *skip, "-i", source, *options, "-f", "framemd5", "-").stdout
    base = re.search(r"#tb 0: (\d+)/(\d+)", told)
    assert base, told
    tick_s = Fraction(int(base[1]), int(base[2]))
    lines = [line.split(",") for line in told.splitlines() if line and not line.startswith("#")]
    return tuple(float(int(fields[2]) * tick_s) for fields in lines)


def _sound_s(source: Path | str) -> float:
    told = _run(
        "-loglevel", "error", "-i", source, "-map", "0:a:0", "-f", "s16le", "-ac", "1", "-ar", "8000", "-", text=False
    )
    return len(told.stdout) / 16_000


def _run(*arguments: str | Path, text: bool = True) -> subprocess.CompletedProcess[Any]:
    done = subprocess.run(
        [FFMPEG, "-hide_banner", "-nostdin", *map(str, arguments)],
        capture_output=True,
        text=text,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done
