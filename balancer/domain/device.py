"""A device as placement sees it: what it is, what it was seen to do, how much it carries, whether it takes sessions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import Enum, StrEnum

from balancer.domain.ids import DeviceId
from balancer.domain.workload import VideoCodec


class DeviceKind(StrEnum):
    """What a device is made of."""

    NVIDIA = "nvidia"
    CPU = "cpu"


class DeviceState(StrEnum):
    """Whether a device takes sessions. Only READY does."""

    PROBING = "probing"
    READY = "ready"
    CORDONED = "cordoned"
    DRAINING = "draining"
    UNHEALTHY = "unhealthy"
    UNREACHABLE = "unreachable"


class Direction(StrEnum):
    """A direction of coding."""

    DECODE = "decode"
    ENCODE = "encode"


class Dimension(Enum):
    """Where a device, or the host it sits in, can be full. Values are those of the contract's enum."""

    # Members are equal when they are the same. Enum's own hash is a Python function, and a decision takes thousands.
    __hash__ = object.__hash__

    DECODE = 1
    """Decoder engine time, millionths of one engine."""
    SCALE = 2
    """Scaled pixels per second."""
    ENCODE = 3
    """Encoder engine time, millionths of one engine."""
    ENCODER_SESSIONS = 4
    MEMORY = 5
    """Memory of a device or its host, MiB."""
    CORES = 6
    """Processor time, millionths of one core."""
    DISPLAYS = 7
    UPLOAD = 8
    """Bits per second sent to other machines."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Capability:
    """The outcome of trying one thing for real on a device."""

    codec: VideoCodec
    direction: Direction
    bit_depth: int
    works: bool
    hardware: bool
    """Whether the device's own engines do it, as against the cores of its host."""
    implementation: str
    message: str = ""
    ffmpeg: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildAbilities:
    """What one ffmpeg was seen to do on a device, by format and bit depth. A session runs in one ffmpeg."""

    hardware_encodes: frozenset[tuple[VideoCodec, int]] = frozenset()
    software_encodes: frozenset[tuple[VideoCodec, int]] = frozenset()
    hardware_decodes: frozenset[tuple[VideoCodec, int]] = frozenset()
    failed_decodes: frozenset[tuple[VideoCodec, int]] = frozenset()
    """What the cores did not decode with it. What was not tried is not here."""


def abilities_of(capabilities: Iterable[Capability], ffmpeg_paths: Sequence[str] = ()) -> tuple[BuildAbilities, ...]:
    """Sorts capabilities by ffmpeg.

    Args:
        capabilities: What was tried. What works is there for each ffmpeg in which it does.
        ffmpeg_paths: The ffmpegs in order of preference; any other follows in the order in which they are named.

    Returns:
        One for each ffmpeg that anything was told of; at least one.
    """
    builds: dict[str, dict[tuple[Direction, bool], set[tuple[VideoCodec, int]]]] = {}
    tried_decodes: set[tuple[VideoCodec, int]] = set()
    for one in capabilities:
        key = (one.codec, one.bit_depth)
        build = builds.setdefault(one.ffmpeg, {})
        if one.works:
            build.setdefault((one.direction, one.hardware), set()).add(key)
        if one.direction is Direction.DECODE and not one.hardware:
            tried_decodes.add(key)
    preference = {path: place for place, path in enumerate(ffmpeg_paths)}
    ordered = sorted(builds, key=lambda path: preference.get(path, len(preference)))
    return tuple(
        BuildAbilities(
            hardware_encodes=frozenset(builds[path].get((Direction.ENCODE, True), ())),
            software_encodes=frozenset(builds[path].get((Direction.ENCODE, False), ())),
            hardware_decodes=frozenset(builds[path].get((Direction.DECODE, True), ())),
            failed_decodes=frozenset(tried_decodes - builds[path].get((Direction.DECODE, False), set())),
        )
        for path in ordered
    ) or (BuildAbilities(),)


@dataclass(frozen=True, slots=True, kw_only=True)
class SoundTiming:
    """How far sound and picture are apart in what a device records of pages. Placement does not look at it."""

    delay: timedelta
    """By how much sound is delayed against its picture. Negative: brought forward."""
    delay_source: str
    """Where that is from: "settings", "calibration" or "default"."""
    film_offset: timedelta | None = None
    """How far sound comes after its picture with that delay, for a film that a page plays. Negative: before. None: it
    was not measured with the browser and the ffmpeg in use."""
    drawing_offset: timedelta | None = None
    """The same for a page that draws when it hands a sound over to its Web Audio."""
    heard_drawing_offset: timedelta | None = None
    """The same for a page that draws when its Web Audio tells it that a sound is heard."""
    measurement_time: datetime | None = None
    """When all of them were measured."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordingAbility:
    """What the agent of a device records."""

    available: bool
    fault_message: str = ""
    """Why nothing is recorded, and what to try. Empty when something is."""
    display_count: int = 0
    """Displays that may be in use at once."""
    browser: str | None = None
    """Name and version. None: there is none, so that only applications are recorded."""
    applications: frozenset[str] = frozenset()
    """Names of the operator's."""
    largest_width: int = 0
    """Pixels of a display."""
    largest_height: int = 0
    """Pixels of a display."""
    sound_timing: SoundTiming | None = None
    """Of recordings that begin now. None: they have no sound, or the agent does not tell."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceIdentity:
    """What a device is, as its agent found it. None: unknown or not applicable."""

    id: DeviceId
    kind: DeviceKind
    model: str
    architecture: str | None = None
    pci_address: str | None = None
    """With domain, "00000000:65:00.0"."""
    index: int | None = None
    driver_version: str | None = None
    memory_total_mib: int | None = None
    encoder_engines: int | None = None
    decoder_engines: int | None = None
    cores: tuple[int, ...] = ()
    video_clock_mhz: int | None = None
    table_model: str | None = None
    """Row of the capacity table. None: unknown model, safe defaults hold."""


class FigureSource(StrEnum):
    """Where a capacity figure or a weight is from."""

    SETTINGS = "settings"
    OPERATOR = "operator"
    CALIBRATION = "calibration"
    LEARNED = "learned"
    TABLE = "table"
    PROBE = "probe"
    DEFAULT = "default"
    CAPACITY = "capacity"


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceCapacity:
    """How much a device carries.

    `limits` holds what is available per dimension, in the dimension's unit; an absent dimension is not limited on the
    device. Rates turn pixels per second into engine time (NVIDIA) or core time (CPU): pixels per second of ONE engine
    or ONE core that is kept wholly busy.
    """

    limits: Mapping[Dimension, int]
    sources: Mapping[Dimension, FigureSource]
    decode_rates: Mapping[VideoCodec, int]
    encode_rates: Mapping[tuple[VideoCodec, str], int]
    """By codec and speed preset ("p1", "p3", "p5", "p7")."""
    scale_rate: int
    """Pixels per second of the whole device (NVIDIA) or of one core (CPU)."""
    decode_sources: Mapping[VideoCodec, FigureSource] = field(default_factory=dict)
    """Where each rate is from."""
    encode_sources: Mapping[tuple[VideoCodec, str], FigureSource] = field(default_factory=dict)
    scale_source: FigureSource = FigureSource.DEFAULT
    explanations: Mapping[Dimension, str] = field(default_factory=dict)
    """How each limit, and the rates that fill it, were found: sentences for people."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Utilization:
    """How busy a device was lately, whoever keeps it so, in percent. None: unknown."""

    encoder_percent: int | None = None
    decoder_percent: int | None = None
    compute_percent: int | None = None
    memory_percent: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceView:
    """One device in the moment of a decision."""

    identity: DeviceIdentity
    state: DeviceState
    state_message: str
    weight: int
    """0: takes no new session."""
    capabilities: tuple[Capability, ...]
    capacity: DeviceCapacity
    ffmpeg_paths: tuple[str, ...] = ()
    """Its ffmpegs in order of preference."""
    recording: RecordingAbility | None = None
    """None: its agent has not told what it records."""
    builds: tuple[BuildAbilities, ...] = field(init=False, repr=False, compare=False)
    """The capabilities by ffmpeg, sorted out once for many decisions; at least one."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "builds", abilities_of(self.capabilities, self.ffmpeg_paths))

    @property
    def id(self) -> DeviceId:
        """The device's identifier."""
        return self.identity.id
