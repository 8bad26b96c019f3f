"""What a device was proved to do: the part of a device that decides about pipelines.

A listed encoder is not a working encoder, so nothing here is read from `ffmpeg -encoders`; each capability is the
outcome of a real run of one ffmpeg on one device (see the golden probe of `agents/devices`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from agents.pipelines.job import Direction, VideoCodec

DeviceKind = Literal["nvidia", "cpu"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Capability:
    """The outcome of trying one thing for real on a device."""

    codec: VideoCodec
    direction: Direction
    bit_depth: int
    """Bits per sample: 8 or 10."""
    implementation: str
    """ffmpeg's name of the encoder or decoder, "h264_nvenc" for instance."""
    works: bool
    hardware: bool
    """Whether the device's own engines do it, as against the cores of its host."""
    ffmpeg: str
    """Path of the ffmpeg that was tried; one of the device's builds."""
    message: str = ""
    """Why it did not work, as ffmpeg said it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FfmpegBuild:
    """An ffmpeg program that a device may use."""

    path: str
    """Absolute path of the program."""
    version: str
    """As it prints it: "9.0.2", "n9.0.2-17-g2a571b6068", "5.1.9-0+deb12u1" or "N-119584-g…"."""
    candidate: str
    """Where it is from: "bundled", or the path in the settings."""
    scaler_blackens: bool = False
    """Whether its scale_cuda gives black pictures where it makes one side smaller and leaves the other as it is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PipelineDevice:
    """A device as pipelines see it."""

    kind: DeviceKind
    id: str
    """GPU UUID, or the name of a CPU device."""
    core_count: int
    """Cores that its processes may use: a CPU device's own, or those of a GPU's host; at least 1."""
    capabilities: tuple[Capability, ...]
    ffmpeg_builds: tuple[FfmpegBuild, ...]
    """In order of preference; at least one."""
