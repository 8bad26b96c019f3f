"""By how much the sound of recordings is delayed against its picture: what was measured, and what follows from it.

What was measured is kept in the agent's state folder. It holds for the browser and the ffmpeg that were measured.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Literal

from pydantic import TypeAdapter, ValidationError

from agents.pipelines.recording_report import SoundTiming
from gpu_balancer.runtime.durable_file import write_durably

if TYPE_CHECKING:
    from pathlib import Path

_LOG = logging.getLogger(__name__)
_USUAL_DELAY = timedelta(milliseconds=20)
"""Measured with Chromium and PulseAudio: a drawing takes longer to the screen than a sound to the sound server."""
_FARTHEST = timedelta(seconds=1)
"""No two that belong together are found farther apart."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SoundMeasurement:
    """How far sound comes after its picture where nothing is delayed. Negative: before."""

    version: Literal[1] = 1
    film: timedelta
    """For a film that a page plays."""
    drawing: timedelta
    """For a page that draws when it hands a sound over to its Web Audio."""
    heard_drawing: timedelta
    """For a page that draws when its Web Audio tells it that a sound is heard."""
    end_time: datetime
    browser: str
    """Name and version."""
    ffmpeg: str
    """Its version."""

    @property
    def best_delay(self) -> timedelta:
        """The delay with which the farthest of them is nearest: the middle between the extremes.

        Sound is never brought forward: it would wait for pictures that have not been taken, and these for it.
        """
        return max(-(min(self.offsets) + max(self.offsets)) / 2, timedelta())

    @property
    def offsets(self) -> tuple[timedelta, ...]:
        """Those of all kinds of pages."""
        return self.film, self.drawing, self.heard_drawing


_MEASUREMENT: TypeAdapter[SoundMeasurement] = TypeAdapter(SoundMeasurement)


class SoundTimings:
    """Knows the delay of one agent's recordings."""

    def __init__(self, path: Path, *, asked_ms: float | None) -> None:
        """Reads what was measured before; what cannot be read counts as not measured. Blocks for the disk.

        Args:
            path: The file where measurements are kept; its folder must exist before one is.
            asked_ms: The delay that the settings ask for. None: none.
        """
        self._path = path
        self._asked = None if asked_ms is None else timedelta(milliseconds=asked_ms)
        self._measured = _kept(path)

    def keep(self, measured: SoundMeasurement) -> None:
        """Keeps a measurement in the place of the one before, durably. Blocks for the disk.

        Raises:
            OSError: When it cannot be kept; then the one before holds.
        """
        write_durably(self._path, _MEASUREMENT.dump_json(measured, indent=1))
        self._measured = measured

    def timing(self, *, browser: str, ffmpeg: str) -> SoundTiming:
        """Tells the delay of recordings that begin now, and how far sound is from its picture with it.

        Args:
            browser: Name and version. Empty: an application is recorded, or there is none.
            ffmpeg: Version. Empty: not known.
        """
        measured = self._measured
        if measured is not None and (measured.browser, measured.ffmpeg) != (browser, ffmpeg):
            measured = None
        if self._asked is not None:
            delay, source = self._asked, "settings"
        elif measured is not None:
            delay, source = measured.best_delay, "calibration"
        else:
            delay, source = _USUAL_DELAY, "default"
        if measured is None:
            return SoundTiming(delay=delay, delay_source=source)
        return SoundTiming(
            delay=delay,
            delay_source=source,
            film_offset=measured.film + delay,
            drawing_offset=measured.drawing + delay,
            heard_drawing_offset=measured.heard_drawing + delay,
            measurement_time=measured.end_time,
        )


def _kept(path: Path) -> SoundMeasurement | None:
    try:
        measured = _MEASUREMENT.validate_json(path.read_bytes())
        if all(abs(offset) <= _FARTHEST for offset in measured.offsets):
            return measured
        told = "what it says cannot have been measured"
    except FileNotFoundError:
        return None
    except (OSError, ValidationError) as error:
        told = str(error.strerror) if isinstance(error, OSError) else error.errors()[0]["msg"]
    _LOG.warning("Cannot read %s: %s. The delay of sound is as if it had not been measured", path, told)
    return None
