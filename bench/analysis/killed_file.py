"""What a recording's file lacks of the time until something was killed: at its end, within, at its begin, and of sound.

A page drew `bench/pages/strip.js` meanwhile, so the file alone is asked.
"""

from __future__ import annotations

import subprocess
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from bench.analysis.decoding import QUIET, SOUND_RATE_HZ, Undecodable, sound_pieces
from bench.analysis.strip import WRAP_MS, read_strip

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Lack:
    """What a file lacks, in seconds."""

    begin_s: float
    """Between the moment from which it was to have everything and its first picture of the page."""
    inside_s: float
    """Of the time between its first picture and its last before the kill: what it has no picture for."""
    end_s: float
    """Between its last picture before the kill and the kill."""
    sound_s: float
    """Between the end of its sound and the kill."""

    @property
    def lost_s(self) -> float:
        """Gives the time until the kill that cannot be seen, or cannot be heard, whichever is more."""
        return max(self.begin_s + self.inside_s + self.end_s, self.sound_s)


def measure_lack(film: Path, *, began_s: float, killed_s: float) -> Lack:
    """Tells what a file lacks. All of it where there is no file, or none that decodes to its end without an error.

    Args:
        film: The file.
        began_s: Unix time from which on it was to have everything.
        killed_s: Unix time of the kill. Of what was recorded after it nothing is asked.
    """
    everything_s = killed_s - began_s
    with suppress(Undecodable):
        if film.exists() and not _decoding_errors(film):
            return _lack(film, began_s, killed_s)
    return Lack(begin_s=everything_s, inside_s=0.0, end_s=0.0, sound_s=everything_s)


def _lack(film: Path, began_s: float, killed_s: float) -> Lack:
    reading = read_strip(film)
    ages_ms = np.where(reading.drawings >= 0, (round(killed_s * 1000) - reading.page_ms) % WRAP_MS, -1)
    # What was drawn after the kill, where ffmpeg lived on, has an age of nearly the whole circle.
    before = np.flatnonzero((ages_ms >= 0) & (ages_ms < WRAP_MS // 2))
    if not len(before):
        raise Undecodable(f"{film} shows nothing that was drawn before the kill")
    first, newest = int(before[0]), int(before[-1])
    end_s = float(ages_ms[newest]) / 1000
    frame_s = float(np.median(np.diff(reading.times_s))) if len(reading.times_s) > 1 else 0.0
    shown_s = float(ages_ms[first] - ages_ms[newest]) / 1000
    heard_s = sum(map(len, sound_pieces(film))) / SOUND_RATE_HZ
    return Lack(
        begin_s=max(0.0, killed_s - float(ages_ms[first]) / 1000 - began_s),
        inside_s=max(0.0, shown_s - (newest - first) * frame_s),
        end_s=end_s,
        sound_s=max(0.0, float(reading.times_s[newest]) + end_s - heard_s),
    )


def _decoding_errors(film: Path) -> str:
    """Decodes all of a file, and gives what ffmpeg has to say against it."""
    done = subprocess.run([*QUIET, "-i", str(film), "-f", "null", "-"], capture_output=True, text=True, check=False)
    return done.stderr or ("" if done.returncode == 0 else f"ffmpeg ended with {done.returncode}")
