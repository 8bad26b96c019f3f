"""How many pixels per second one coding engine of a GPU does, as published; what is not published is borrowed.

A format without a figure gets the slowest of its generation, an unknown generation gets the slowest one's.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

from balancer.domain.device import DeviceIdentity, FigureSource
from balancer.domain.workload import EncodingSpeed, VideoCodec
from gpu_balancer.hardware import engine_frames_per_second
from gpu_balancer.hardware.engine_speeds import REFERENCE_PIXELS, Engine

_SLOWEST_GENERATION = "maxwell"
_ENCODED = (VideoCodec.H264, VideoCodec.HEVC, VideoCodec.AV1)
_REFERENCE = (VideoCodec.H264, EncodingSpeed.FAST.value)

_Work = TypeVar("_Work")


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedSpeed:
    """The speed of one engine as it is published."""

    frames_per_second: int
    """Of 1920x1080 pixels."""
    reference_mhz: int | None
    """Video clock at which that holds. None: not published."""
    of_generation: bool
    """Whether it is of the device's own generation; else of the slowest one."""
    own_mhz: int | None = None
    """The device's own video clock. None: unknown."""

    def rate(self, own_mhz: int | None) -> int:
        """Gives pixels per second at the device's own clock."""
        rate = self.frames_per_second * REFERENCE_PIXELS
        if self.of_generation and self.reference_mhz and own_mhz:
            rate = rate * own_mhz // self.reference_mhz
        return rate


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineRates(Generic[_Work]):
    """Published rates of one engine, where each is from, and the one of H.264 as it is published."""

    rates: dict[_Work, int]
    sources: dict[_Work, FigureSource]
    reference: PublishedSpeed


def engine_decode_rates(generation: str | None, identity: DeviceIdentity) -> EngineRates[VideoCodec]:
    """Gives what one decoder engine of a generation does at the device's own clock.

    Args:
        generation: Whose decoder it is. None, or one without figures: the slowest.
        identity: Tells the clock.
    """
    rates = {}
    for codec in (VideoCodec.H264, VideoCodec.HEVC, VideoCodec.VP9, VideoCodec.AV1):
        # A session's bit depth is not known here: the slower of 8 and 10 bits holds for both.
        figures = [_published("nvdec", name, None, None, generation) for name in (codec, f"{codec}_10")]
        if found := _slowest(figures):
            rates[codec] = found.rate(identity.video_clock_mhz)
    slowest = min(rates.values())
    reference = _slowest([_published("nvdec", VideoCodec.H264, None, None, generation)])
    assert reference is not None
    return EngineRates(
        rates={codec: rates.get(codec, slowest) for codec in VideoCodec},
        sources={codec: _source(reference, known=codec in rates) for codec in VideoCodec},
        reference=replace(reference, own_mhz=identity.video_clock_mhz),
    )


def engine_encode_rates(generation: str | None, identity: DeviceIdentity) -> EngineRates[tuple[VideoCodec, str]]:
    """Gives what one encoder engine of a generation does at the device's own clock, as `engine_decode_rates`."""
    found = {
        (codec, speed.value): figure
        for speed in EncodingSpeed
        for codec in _ENCODED
        # Pipelines choose the tuning by what the client wants: the slower one holds for both.
        if (figure := _slowest(_published("nvenc", codec, speed, tuning, generation) for tuning in ("hq", "ll")))
    }
    reference = found[_REFERENCE]
    rates = {key: figure.rate(identity.video_clock_mhz) for key, figure in found.items()}
    slowest = {speed: min(rate for key, rate in rates.items() if key[1] == speed) for speed in EncodingSpeed}
    keys = [(codec, speed.value) for speed in EncodingSpeed for codec in _ENCODED]
    return EngineRates(
        rates={key: rates.get(key, slowest[EncodingSpeed(key[1])]) for key in keys},
        sources={key: _source(reference, known=key in rates) for key in keys},
        reference=replace(reference, own_mhz=identity.video_clock_mhz),
    )


def _slowest(figures: Iterable[PublishedSpeed | None]) -> PublishedSpeed | None:
    return min((one for one in figures if one is not None), key=lambda one: one.frames_per_second, default=None)


def _source(reference: PublishedSpeed, *, known: bool) -> FigureSource:
    """Tells where a rate is from: what is borrowed from another format or generation is no table's."""
    return FigureSource.TABLE if known and reference.of_generation else FigureSource.DEFAULT


def _published(
    engine: Engine, codec: str, preset: str | None, tuning: str | None, generation: str | None
) -> PublishedSpeed | None:
    """Gives the frames per second of one engine. None: there is no figure."""
    known = generation is not None and engine_frames_per_second(engine, "h264", "p3", "hq", generation) is not None
    figure = engine_frames_per_second(
        engine, codec, preset, tuning, generation if known and generation else _SLOWEST_GENERATION
    )
    if figure is None:
        return None
    return PublishedSpeed(frames_per_second=figure[0], reference_mhz=figure[1], of_generation=known)
