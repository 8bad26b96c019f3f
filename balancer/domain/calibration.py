"""What real runs showed of a device, and what follows from it for formats and speeds that were not measured.

A calibration tells of the device it was made on as it was then: with another driver, ffmpeg or processor it tells of
nothing any more. It is then ignored, aloud, and not thrown away: whoever goes back has it again.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime

from balancer.domain.device import DeviceIdentity, DeviceKind, Dimension
from balancer.domain.workload import EncodingSpeed, VideoCodec

_SPEEDS = tuple(EncodingSpeed)
_CLOSEST_RELATIVE = VideoCodec.H264


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibrationFigure:
    """How much of one kind of work a device carries."""

    dimension: Dimension
    """DECODE, SCALE or ENCODE; on a CPU device these are ways to spend core time."""
    codec: VideoCodec | None = None
    """None for scaling."""
    speed: EncodingSpeed | None = None
    """None unless encoding."""
    pixels_per_second: int | None = None
    """Of the whole device, while every stream kept real time. None: it could not be measured."""
    streams: int = 0
    """Streams that ran side by side then."""
    stream_width: int = 0
    stream_height: int = 0
    problem: str = ""
    """Why it could not be measured. Empty: it was."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibrationProgress:
    """How far a calibration is."""

    step: int
    step_count: int
    message: str
    """What is being measured, as words for people."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """What real runs showed of a device."""

    end_time: datetime
    ffmpeg_path: str
    ffmpeg_version: str
    ffmpeg_candidate: str
    driver_version: str | None
    """None for a CPU device."""
    figures: tuple[CalibrationFigure, ...]
    model: str = ""
    """Model of the device then. Empty: not noted."""
    core_count: int = 0
    """Cores of a CPU device then. 0: not noted."""

    @property
    def measured(self) -> tuple[CalibrationFigure, ...]:
        """The figures that were measured."""
        return tuple(figure for figure in self.figures if figure.pixels_per_second)

    def decoded(self) -> Mapping[VideoCodec, int]:
        """Gives pixels of the whole device per second by format."""
        return {
            figure.codec: figure.pixels_per_second
            for figure in self.measured
            if figure.dimension is Dimension.DECODE and figure.codec and figure.pixels_per_second
        }

    def encoded(self) -> Mapping[tuple[VideoCodec, str], int]:
        """Gives pixels of the whole device per second by format and speed."""
        return {
            (figure.codec, figure.speed.value): figure.pixels_per_second
            for figure in self.measured
            if figure.dimension is Dimension.ENCODE and figure.codec and figure.speed and figure.pixels_per_second
        }

    def scaled(self) -> int | None:
        """Gives output pixels of the whole device per second. None: not measured."""
        found = [figure.pixels_per_second for figure in self.measured if figure.dimension is Dimension.SCALE]
        return found[0] if found else None


def why_outdated(
    calibration: Calibration, identity: DeviceIdentity, ffmpegs: Collection[tuple[str, str]] | None
) -> str:
    """Tells why a calibration says nothing of a device as it is now.

    Args:
        calibration: What was measured.
        identity: The device now.
        ffmpegs: Candidate and version of each ffmpeg that the device has now. None: not known yet.

    Returns:
        What has changed, as the part of a sentence. Empty: nothing has.
    """
    if identity.driver_version and calibration.driver_version and identity.driver_version != calibration.driver_version:
        return f"the driver was {calibration.driver_version} and is {identity.driver_version}"
    if ffmpegs is not None and (calibration.ffmpeg_candidate, calibration.ffmpeg_version) not in ffmpegs:
        now = ", ".join(version for _, version in ffmpegs) or "gone"
        return f"the ffmpeg was {calibration.ffmpeg_version} ({calibration.ffmpeg_candidate}) and is {now}"
    if identity.kind is DeviceKind.CPU and calibration.core_count and identity.cores:
        if calibration.core_count != len(identity.cores):
            return f"the device had {calibration.core_count} cores and has {len(identity.cores)}"
        # What the balancer expects before an agent has answered carries no model of a processor.
        if identity.model not in (calibration.model, "CPU"):
            return f"the processor was {calibration.model} and is {identity.model}"
    return ""


def calibrated_decode_rates(
    rates: Mapping[VideoCodec, int], measured: Mapping[VideoCodec, int], parts: int
) -> dict[VideoCodec, int]:
    """Puts what was measured in place of what is published, for one engine or core.

    Args:
        rates: Published, of one engine or core, every format.
        measured: Of the whole device; not empty.
        parts: Engines or cores that it has.

    Returns:
        Every format's rate. One that was not measured keeps its proportion to H.264, or to the slowest measured one.
    """
    nearest = _CLOSEST_RELATIVE if _CLOSEST_RELATIVE in measured else min(measured, key=lambda codec: measured[codec])
    return {
        codec: _part(measured[codec], parts)
        if codec in measured
        else _in_proportion(rate, _part(measured[nearest], parts), rates[nearest])
        for codec, rate in rates.items()
    }


def calibrated_encode_rates(
    rates: Mapping[tuple[VideoCodec, str], int], measured: Mapping[tuple[VideoCodec, str], int], parts: int
) -> dict[tuple[VideoCodec, str], int]:
    """Puts what was measured in place of what is published, for one engine or core.

    Args:
        rates: Published, of one engine or core, every format and speed.
        measured: Of the whole device; not empty.
        parts: Engines or cores that it has.

    Returns:
        Every format's and speed's rate. One that was not measured keeps its proportion to the nearest one that was.
    """
    return {
        key: _part(measured[key], parts)
        if key in measured
        else _in_proportion(rate, _part(measured[nearest], parts), rates[nearest])
        for key, rate in rates.items()
        for nearest in [_nearest(key, measured)]
    }


def _nearest(key: tuple[VideoCodec, str], measured: Iterable[tuple[VideoCodec, str]]) -> tuple[VideoCodec, str]:
    """Finds the measured one that is most like another: its format first, then H.264; then the closest speed."""
    codec, speed = key
    place = _SPEEDS.index(EncodingSpeed(speed))

    def distance(other: tuple[VideoCodec, str]) -> tuple[bool, bool, int, int]:
        other_place = _SPEEDS.index(EncodingSpeed(other[1]))
        return (other[0] is not codec, other[0] is not _CLOSEST_RELATIVE, abs(other_place - place), -other_place)

    return min(measured, key=distance)


def _part(whole: int, parts: int) -> int:
    return max(1, whole // max(1, parts))


def _in_proportion(rate: int, measured: int, published: int) -> int:
    return max(1, rate * measured // published)
