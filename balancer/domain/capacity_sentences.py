"""Where a device's capacity is from, as sentences for people."""

from __future__ import annotations

from dataclasses import dataclass

from balancer.domain.calibration import Calibration
from balancer.domain.device import DeviceCapacity, Dimension, FigureSource
from balancer.domain.engine_rates import PublishedSpeed
from balancer.domain.workload import EncodingSpeed, VideoCodec

SETTINGS_LIMIT = "The settings say so."
DISPLAYS = "So many displays of its agent may be in use at once."
DEFAULT_SCALE = "Nothing is published: scaling is bound by memory, and this is a third of the slowest supported card's."

_NAMES = {Dimension.DECODE: "decoder", Dimension.ENCODE: "encoder"}
_WORK = {Dimension.DECODE: "H.264", Dimension.ENCODE: "H.264 fast"}
_H264_FAST = (VideoCodec.H264, EncodingSpeed.FAST.value)


@dataclass(frozen=True, slots=True, kw_only=True)
class Engines:
    """The engines of one direction and what their speed follows from."""

    count: int
    count_source: FigureSource
    row: str | None
    """Row of the table that names the model. None: the model is unknown."""
    published: PublishedSpeed
    told_pixels_per_second: int | None
    """What the settings say of all together. None: nothing."""


def of_engines(dimension: Dimension, engines: Engines, calibration: Calibration | None) -> str:
    """Tells how the engines and their speed were found.

    Args:
        dimension: DECODE or ENCODE.
        engines: The engines.
        calibration: What was measured and counts. None: nothing.
    """
    counted = _counted(dimension, engines)
    if not engines.count:
        return f"{counted}."
    if engines.told_pixels_per_second is not None:
        speed = f"the settings say {_pixels(engines.told_pixels_per_second)} of {_WORK[dimension]} on all together"
    elif (measured := _measured(dimension, calibration)) is not None:
        speed = measured
    else:
        speed = _published(dimension, engines.published)
    return f"{counted}; {speed}."


def of_cores(core_count: int, capacity: DeviceCapacity, calibration: Calibration | None) -> str:
    """Tells where the speeds of a CPU device's cores are from."""
    groups: dict[FigureSource, list[str]] = {}
    for what, rate, source in (
        ("decoding H.264", capacity.decode_rates[VideoCodec.H264], capacity.decode_sources[VideoCodec.H264]),
        ("encoding H.264 fast", capacity.encode_rates[_H264_FAST], capacity.encode_sources[_H264_FAST]),
        ("scaling", capacity.scale_rate, capacity.scale_source),
    ):
        groups.setdefault(source, []).append(f"{what} {_pixels(rate)}")
    told = []
    for source, speeds in groups.items():
        match source:
            case FigureSource.SETTINGS:
                origin = "by the settings"
            case FigureSource.CALIBRATION if calibration is not None:
                origin = _calibrated(calibration)
            case _:
                origin = "by default"
        told.append(f"{origin}: {', '.join(speeds)}")
    return f"{_count(core_count, 'core')}; of each core {'; '.join(told)}."


def of_memory(total_mib: int, reserved_mib: int) -> str:
    """Tells what memory is left to sessions."""
    return f"{total_mib} MiB, less {reserved_mib} MiB for the driver and others."


def of_calibrated_scale(pixels_per_second: int, calibration: Calibration) -> str:
    """Tells what was measured of scaling."""
    return f"{_calibrated(calibration).capitalize()}: {_pixels(pixels_per_second)}."


def _counted(dimension: Dimension, engines: Engines) -> str:
    name = f"{_NAMES[dimension]} engine"
    count = _count(engines.count, name)
    known = f"Table row {engines.row}" if engines.row else "Unknown model"
    match engines.count_source:
        case FigureSource.PROBE if not engines.count:
            return f"{known}, but no {name} was seen to work"
        case FigureSource.PROBE:
            return f"{known} has no {name}, but one was seen to work"
        case FigureSource.TABLE if not engines.count:
            return f"{known}: no {name}"
        case FigureSource.DEFAULT:
            return f"{known}: {count} is assumed"
        case _:
            return f"{known}: {count}"


def _measured(dimension: Dimension, calibration: Calibration | None) -> str | None:
    """Tells what was measured. None: nothing in this dimension."""
    if calibration is None:
        return None
    decoding, decoded, encoded = dimension is Dimension.DECODE, calibration.decoded(), calibration.encoded()
    if not (decoded if decoding else encoded):
        return None
    figure = decoded.get(VideoCodec.H264) if decoding else encoded.get(_H264_FAST)
    told = f": {_WORK[dimension]} {_pixels(figure)} on all together" if figure else ""
    return f"{_calibrated(calibration)}{told}"


def _published(dimension: Dimension, published: PublishedSpeed) -> str:
    told = f"{_WORK[dimension]} {published.frames_per_second} frames/s"
    if not published.of_generation:
        return f"{told}, the slowest generation's, because nothing is published of this one"
    if published.reference_mhz is None:
        return told
    if published.own_mhz is None or published.own_mhz == published.reference_mhz:
        return f"{told} at {published.reference_mhz} MHz"
    return f"{told} at {published.reference_mhz} MHz, scaled to {published.own_mhz} MHz"


def _calibrated(calibration: Calibration) -> str:
    return f"calibrated on {calibration.end_time:%Y-%m-%d} with ffmpeg {calibration.ffmpeg_version}"


def _pixels(pixels_per_second: int) -> str:
    return f"{pixels_per_second / 1_000_000:,.0f} million pixels/s"


def _count(count: int, name: str) -> str:
    return f"{count} {name}" if count == 1 else f"{count} {name}s"
