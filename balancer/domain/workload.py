"""What a session asks of whatever device takes it, in pixels per second, before anything is known of the device.

A session that is not bound to real time (a file as fast as it goes) is described at real time too. What is booked for
it is that times the speed that is kept free for it; how fast it then runs is another matter, see `pacing`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from fractions import Fraction


class VideoCodec(StrEnum):
    """A video compression format."""

    H264 = "h264"
    HEVC = "hevc"
    AV1 = "av1"
    VP8 = "vp8"
    VP9 = "vp9"
    MPEG2 = "mpeg2"
    MPEG4 = "mpeg4"
    MJPEG = "mjpeg"
    OTHER = "other"


CHROMAS = ("4:0:0", "4:1:0", "4:1:1", "4:2:0", "4:2:2", "4:4:0", "4:4:4", "rgb")
"""How a picture's colours are sampled, as agents tell it; "rgb" of pictures that are not YUV."""


class EncodingSpeed(StrEnum):
    """How much work an encoder puts into a picture; the value is the NVENC preset of the capacity table."""

    FASTEST = "p1"
    FAST = "p3"
    BALANCED = "p5"
    THOROUGH = "p7"


@dataclass(frozen=True, slots=True, kw_only=True)
class DecodeTask:
    """The one decode of a session."""

    codec: VideoCodec
    width: int
    height: int
    bit_depth: int
    chroma: str | None
    """One of `CHROMAS`. None: unknown, taken for 4:2:0."""
    pixels_per_second: int
    rotated: bool = False
    """Whether pictures are to be turned for showing, which only the cores do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EncodeTask:
    """One encoded rendition."""

    codec: VideoCodec
    width: int
    height: int
    bit_depth: int
    speed: EncodingSpeed
    pixels_per_second: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CaptureTask:
    """A display that is looked at."""

    width: int
    height: int
    pixels_per_second: int
    browser: bool
    """Whether a browser draws on it; else an application of the operator's does."""
    sound: bool
    application: str | None = None
    """Name of the application in the settings of agents. None: a browser draws, or nobody may know which one does."""


class SessionKind(StrEnum):
    """What is done in a session."""

    TRANSCODE = "transcode"
    RECORDING = "recording"


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """Everything a session costs."""

    decode: DecodeTask | None
    """None: every rendition passes the video through, or has none."""
    scale_pixels_per_second: int
    """Output pixels of all renditions whose size or frame rate is not the input's."""
    encodes: tuple[EncodeTask, ...]
    real_time: bool
    """Whether the session falls behind when its device is slower than real time."""
    allow_software_encode: bool
    """Whether a GPU may leave encoding to the cores of its host."""
    reserved_speed: Fraction | None = None
    """The speed that is kept free for it, in times real time; never given where `real_time` is. None: real time for
    a session that is bound to it, else what the device has left, at most real time."""
    capture: CaptureTask | None = None
    """None: it is no recording."""
    upload_bits_per_second: int = 0
    """Sent to other machines."""
    _hash: int = field(init=False, repr=False, compare=False)
    """Worked out once: every admission looks things up by its workload, several times."""

    def __post_init__(self) -> None:
        told = (self.decode, self.scale_pixels_per_second, self.encodes, self.real_time, self.allow_software_encode)
        of_recordings = (self.capture, self.upload_bits_per_second)
        object.__setattr__(self, "_hash", hash((*told, self.reserved_speed, *of_recordings)))

    def __hash__(self) -> int:
        return self._hash

    @property
    def kind(self) -> SessionKind:
        """What is done."""
        return SessionKind.TRANSCODE if self.capture is None else SessionKind.RECORDING

    @property
    def elastic(self) -> bool:
        """Whether it is content with what a device has left."""
        return not self.real_time and self.reserved_speed is None

    @property
    def decode_pixels_per_second(self) -> int:
        """Pixels per second to be decoded, 0 when nothing is."""
        return self.decode.pixels_per_second if self.decode else 0

    @property
    def encode_pixels_per_second(self) -> int:
        """Pixels per second of all encoded renditions."""
        return sum(task.pixels_per_second for task in self.encodes)


@dataclass(frozen=True, slots=True, kw_only=True)
class CostFactors:
    """How much one pixel per second of each kind of work weighs. Defaults: 1, 1 and 5."""

    decode: int = 1
    scale: int = 1
    encode: int = 5
