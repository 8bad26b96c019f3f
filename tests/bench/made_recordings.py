"""Recordings made up for tests: their frames and sounds are known, so what is read back can be compared."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from bench.analysis.decoding import FFMPEG, SOUND_RATE_HZ
from bench.analysis.strip import check_byte

WIDTH, HEIGHT = 640, 360
X264 = ("-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p", "-g", "30")


def strip_picture(page_ms: int, drawing: int, *, noise: int = 0) -> np.ndarray:
    """Draws what a page draws: the strip, and something under it."""
    picture = np.full((HEIGHT, WIDTH), 90, np.uint8)
    for row, value in enumerate((page_ms, drawing)):
        word = value << 8 | check_byte(value)
        cells = np.array([255 if word >> (31 - column) & 1 else 0 for column in range(32)], np.uint8)
        half = HEIGHT // 16
        picture[row * half : (row + 1) * half] = np.repeat(cells, WIDTH // 32)
    picture[HEIGHT // 8 :] += np.random.default_rng(drawing).integers(0, noise + 1, dtype=np.uint8)
    return picture


def blank_picture(level: int = 255) -> np.ndarray:
    """Draws a page of one grey."""
    return np.full((HEIGHT, WIDTH), level, np.uint8)


def write_video(
    path: Path, pictures: Sequence[np.ndarray], *options: str, rate: float = 30, sound: Path | None = None
) -> Path:
    """Encodes pictures as a recorder would, with the sound of a file of samples."""
    source = ("-f", "rawvideo", "-pix_fmt", "gray", "-video_size", f"{WIDTH}x{HEIGHT}", "-framerate", str(rate))
    heard = () if sound is None else ("-f", "s16le", "-ar", str(SOUND_RATE_HZ), "-ac", "1", "-i", str(sound))
    command = [FFMPEG, "-loglevel", "error", "-y", *source, "-i", "-", *heard, *X264, *options, str(path)]
    subprocess.run(command, input=b"".join(picture.tobytes() for picture in pictures), check=True, timeout=60)
    return path


def write_beeps(
    path: Path, flashes_s: Sequence[float], beeps_s: Sequence[float], *, seconds: float, rate: int = 30
) -> Path:
    """Encodes flashes and beeps at given times."""
    lit = [any(flash <= frame / rate < flash + 0.15 for flash in flashes_s) for frame in range(int(seconds * rate))]
    sound = np.zeros(int(seconds * SOUND_RATE_HZ), np.int16)
    tone = (16_000 * np.sin(2 * np.pi * 2000 * np.arange(int(0.06 * SOUND_RATE_HZ)) / SOUND_RATE_HZ)).astype(np.int16)
    for beep in beeps_s:
        begin = round(beep * SOUND_RATE_HZ)
        sound[begin : begin + len(tone)] = tone
    raw = path.with_suffix(".pcm")
    raw.write_bytes(sound.tobytes())
    return write_video(path, [blank_picture(255 if white else 0) for white in lit], rate=rate, sound=raw)
