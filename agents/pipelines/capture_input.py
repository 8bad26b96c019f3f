"""How a display and its sound are opened.

Sound comes first: the demuxer that is opened last starts last, and what the display shows while the sound server is
still being asked would be lost. The sound's clock is told to follow the picture's (`-isync`), so that both begin at the
moment at which they were taken, not each at its own zero.

What is about to be drawn is waited for by the display's gate, if `display` is the name of that: see
`agents.displays.capture_gate`.

A display that goes away is not noticed: ffmpeg's grabber asks it again for ever. Whoever owns the display has to watch
it and to end ffmpeg, which then completes its files. A sound server that goes away ends ffmpeg at once (`-xerror`);
otherwise the rest of the recording would be silent and nobody would know.
"""

from __future__ import annotations

import math
from fractions import Fraction
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from agents.pipelines.job import CaptureInput, FrameRate

# What arrives needs no looking into: it is raw, and its form is told. So nothing is awaited before the first picture.
_AT_ONCE = ("-probesize", "32", "-analyzeduration", "0")
_SOUND_FRAGMENT_BYTES = "7680"
"""40 ms of 48,000 Hz stereo at 16 bits: what PulseAudio hands over at a time. Less than that wakes ffmpeg oftener."""


def capture_arguments(source: CaptureInput, *, pictures: bool) -> tuple[str, ...]:
    """Writes the inputs of a take, each from its options to `-i`.

    Args:
        source: What is captured.
        pictures: Whether the display is looked at; a recording may be of sound alone.

    Returns:
        Arguments. The sound is input 0; the display is input 1, or 0 without sound.
    """
    sound: tuple[str, ...] = ()
    if source.sound_source is not None:
        sync = ("-isync", "1") if pictures else ()
        queue = ("-thread_queue_size", "1024")
        sound = ("-xerror", *_AT_ONCE, *queue, "-f", "pulse", "-fragment_size", _SOUND_FRAGMENT_BYTES, *sync)
        sound += ("-i", source.sound_source)
    return (*sound, *_display(source)) if pictures else sound


def picture_input(source: CaptureInput) -> str:
    """Gives the specifier of the display's video."""
    return "0:V:0" if source.sound_source is None else "1:V:0"


def rate_text(rate: FrameRate) -> str:
    """Writes a frame rate as ffmpeg reads it."""
    return f"{rate.numerator}/{rate.denominator}"


def frame_stretch(rate: FrameRate) -> Fraction:
    """Tells how much longer a frame is than the grabber's pause from picture to picture, which is whole microseconds.

    At 30 a second it is 33,333 of them, so that an hour has one picture more than it should. By this much, 1.00001, a
    recording is made longer than what it shows, pictures and sound alike: then each has its frame, and no more.
    """
    frame_us = Fraction(10**6 * rate.denominator, rate.numerator)
    return frame_us / max(1, math.floor(frame_us + Fraction(1, 2)))


def _display(source: CaptureInput) -> tuple[str, ...]:
    return (
        *_AT_ONCE,
        *("-thread_queue_size", "64", "-f", "x11grab"),
        *("-framerate", rate_text(source.frame_rate)),
        *("-video_size", f"{source.width}x{source.height}"),
        *("-draw_mouse", "1" if source.show_cursor else "0"),
        *("-i", source.display),
    )
