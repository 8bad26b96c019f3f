"""How far sound is from its picture in a recording of flashes and beeps that belong together: arguments and arithmetic.

A flash is timed by the first picture that shows it, as a viewer sees it; a beep by its first loud sample. ffmpeg tells
how bright each picture is and when it is shown, and makes the sound one channel whose samples' numbers are their times.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import timedelta
from itertools import pairwise
from statistics import median
from typing import TYPE_CHECKING

from agents.pipelines.capture_filters import filter_text

if TYPE_CHECKING:
    from collections.abc import Sequence

BEEP_S = 0.06
FLASH_S = 0.15
SOUND_RATE_HZ = 8000
"""Of the sound that is looked at: an eighth of a millisecond is enough."""

_FILM_RATE = 50
_FILM_PERIOD_FRAMES = 34
"""From flash to flash: 20.4 pictures of a recording at 30 a second, so that flashes fall on five places between two."""
_QUIET = ("-hide_banner", "-nostdin", "-nostats", "-y", "-loglevel", "error")
_LEVEL = re.compile(r"pts_time:(-?\d{1,9}(?:\.\d{1,9})?)\s+lavfi\.signalstats\.YAVG=(\d{1,5}(?:\.\d{1,9})?)")
_BRIGHT = 126.0
"""Half way between black and white, as broadcast luminance counts from 16 to 235."""
_LOUD_SHARE = 0.3
"""Of the loudest sample: above it is beep. Encoders let one begin a little early, but softly."""
_REST_S = 0.2
"""Quiet for so long: what is loud next is another beep."""
_FARTHEST_S = 0.25
"""A flash and a beep farther apart do not belong together."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SoundOffset:
    """How far sound comes after its picture."""

    offset: timedelta
    """The median. Negative: before."""
    pair_count: int
    """Flashes with a beep."""


def film_arguments(path: str, *, seconds: int) -> list[str]:
    """Makes ffmpeg's arguments for a film of flashes and beeps, of formats that every browser plays.

    Args:
        path: Where to write it, a WebM file.
        seconds: Its length.
    """
    flash_frames = round(FLASH_S * _FILM_RATE)
    flash = f"drawbox=color=white:t=fill:enable='lt(mod(n,{_FILM_PERIOD_FRAMES}),{flash_frames})'"
    picture = f"color=black:size=160x90:rate={_FILM_RATE},{flash}"
    sound = f"aevalsrc='0.5*sin(2*PI*2000*t)*lt(mod(t,{_FILM_PERIOD_FRAMES}/{_FILM_RATE}),{BEEP_S})':s=48000"
    video = ("-c:v", "libvpx", "-deadline", "realtime", "-cpu-used", "8", "-b:v", "200k", "-pix_fmt", "yuv420p")
    audio = ("-c:a", "libopus", "-b:a", "64k")
    inputs = ("-f", "lavfi", "-i", picture, "-f", "lavfi", "-i", sound)
    return [*_QUIET, *inputs, "-t", str(seconds), *video, *audio, "-f", "webm", path]


def reading_arguments(recording: str, *, levels: str, sound: str) -> list[str]:
    """Makes ffmpeg's arguments for reading a recording of flashes and beeps.

    Args:
        recording: Path of the recording.
        levels: Where to write how bright each picture is, for `flash_times`.
        sound: Where to write the sound, 16 bits a sample in the machine's order, for `beep_times`.
    """
    # The middle, where pages show nothing else.
    bright = f"crop=iw/2:ih/2,signalstats,metadata=mode=print:key=lavfi.signalstats.YAVG:file={filter_text(levels)}"
    in_time = "aresample=async=1:min_hard_comp=0.001:first_pts=0"
    heard = ("-map", "0:a:0", "-filter:a", in_time, "-ac", "1", "-ar", str(SOUND_RATE_HZ), "-f", "s16le", sound)
    return [*_QUIET, "-i", recording, "-map", "0:v:0", "-filter:v", bright, "-f", "null", "-", *heard]


def flash_times(levels: str) -> list[float]:
    """Gives when pictures become bright, in seconds of the recording.

    Args:
        levels: What ffmpeg wrote of each picture.
    """
    pictures = [(float(time), float(level) > _BRIGHT) for time, level in _LEVEL.findall(levels)]
    return [time for (_, before), (time, bright) in pairwise(pictures) if bright and not before]


def beep_times(samples: Sequence[int]) -> list[float]:
    """Gives when sound begins after silence, in seconds of the recording.

    Args:
        samples: One channel at `SOUND_RATE_HZ`, from the recording's time 0 on.
    """
    threshold = max(1.0, max((abs(sample) for sample in samples), default=0) * _LOUD_SHARE)
    loud = [number for number, sample in enumerate(samples) if abs(sample) >= threshold]
    rest = _REST_S * SOUND_RATE_HZ
    starts = [number for before, number in pairwise([-int(rest) - 1, *loud]) if number - before > rest]
    return [number / SOUND_RATE_HZ for number in starts]


def sound_offset(flashes: Sequence[float], beeps: Sequence[float]) -> SoundOffset | None:
    """Puts each flash together with the beep nearest to it. None: no two belong together.

    Args:
        flashes: Seconds, ascending.
        beeps: Seconds, ascending.
    """
    nearest = [min((beep - flash for beep in beeps), key=abs, default=float("inf")) for flash in flashes]
    offsets = [offset for offset in nearest if abs(offset) <= _FARTHEST_S]
    if not offsets:
        return None
    return SoundOffset(offset=timedelta(seconds=median(offsets)), pair_count=len(offsets))
