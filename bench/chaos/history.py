"""What was seen of a house while it was being broken: plain values, so that histories can be made up to test the judge.

Times are seconds of this machine's monotonic clock, as the observer saw things: later than they happened, never before.
"""

from __future__ import annotations

from dataclasses import dataclass, field

FINAL_STATES = frozenset({"SUCCEEDED", "FAILED", "CANCELLED"})
PLACED_STATES = frozenset({"STARTING", "RUNNING", "STOPPING"})
NEWS_S = 2.0
"""Within it, news that two streams bring may have crossed."""
CLOSED_STATES = frozenset({"CORDONED", "DRAINING", "UNHEALTHY", "UNREACHABLE"})
"""Of devices: nothing may be placed on one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionView:
    """A session as the balancer told it."""

    at_s: float
    name: str
    state: str
    """Without its prefix, "RUNNING"."""
    revision: int
    attempt: int
    device: str = ""
    frames: int | None = None
    """None: nothing is told of its progress."""
    failure: str = ""
    """Its reason. Empty: none."""
    end_time: str = ""
    conditions: tuple[str, ...] = ()

    @property
    def ended(self) -> bool:
        """Whether its state is final."""
        return self.state in FINAL_STATES


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceView:
    """A device as the balancer told it."""

    at_s: float
    name: str
    state: str
    session_count: int
    used: int = 0
    """All that sessions have booked, dimensions added up: 0 means nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FeedMark:
    """What a watch said besides sessions."""

    at_s: float
    kind: str
    """ "SYNCED", "RESET", "REMOVED", or "OPENED" when the watch begins anew."""
    name: str = ""
    """Of a session that was removed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SeenProcess:
    """A living process of an attempt."""

    pid: int
    session: str
    attempt: int
    device: str
    program: bool
    """Whether it is what encodes, as against its shim."""
    began_s: float = 0.0
    """When it began, to the hundredth of a second that the kernel tells."""
    stopped: bool = False
    """Whether a signal holds it."""
    writes: frozenset[str] = frozenset()
    """Names of the declared outputs outside of its folder that it has open for writing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sighting:
    """Every process of every attempt at one moment."""

    at_s: float
    processes: tuple[SeenProcess, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class SeenWrite:
    """A program began to write an output, or went on after another had."""

    at_s: float
    output: str
    """Its name, as in `SeenProcess.writes`; all artifacts of a session are one."""
    pid: int
    attempt: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Act:
    """What was done to the house."""

    at_s: float
    until_s: float
    """When it was over, as a stopped process going on; the same as `at_s` for a kill."""
    kind: str
    target: str = ""

    def __str__(self) -> str:
        return f"{self.kind} {self.target}".rstrip()


@dataclass(frozen=True, slots=True, kw_only=True)
class Created:
    """A session that was asked for."""

    asked_s: float
    request_id: str
    name: str
    """As it was answered. Empty: refused, or no answer came."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputView:
    """What is left of an output, read back frame by frame."""

    session: str
    path: str
    complaints: tuple[str, ...] = ()
    """What the decoder did not like, and `unplayable`."""
    unplayable: tuple[str, ...] = ()
    """What keeps a player from playing what is there."""
    whole: bool = True
    """Whether it is what was promised: an index before the media, an end in the playlist."""
    frames: int = 0
    lost: int = 0
    """Numbers that no frame shows."""
    repeated: int = 0
    backwards: int = 0
    unreadable: int = 0
    cuts: int = 0
    """Joints between attempts at which frames may be lost or shown again."""
    breaks: int = 0
    """Places at which a frame is not followed by the next one."""
    continues: bool = False
    """Whether all attempts' work must be in it, as against the last one's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """Sessions and devices at one moment at which nothing changed."""

    at_s: float
    sessions: tuple[SessionView, ...]
    devices: tuple[DeviceView, ...]


@dataclass(slots=True, kw_only=True)
class History:
    """Everything, each list in the order in which it was seen. The observers append to it, and nobody else."""

    seed: int = 0
    daemons_only: bool = False
    """Whether nothing but daemons was harmed: then every session stays the attempt that it was."""
    sessions: list[SessionView] = field(default_factory=list)
    marks: list[FeedMark] = field(default_factory=list)
    devices: list[DeviceView] = field(default_factory=list)
    sightings: list[Sighting] = field(default_factory=list)
    writes: list[SeenWrite] = field(default_factory=list)
    """In the order in which the kernel told of them. Empty where this user may not listen."""
    acts: list[Act] = field(default_factory=list)
    created: list[Created] = field(default_factory=list)
    snapshots: list[Snapshot] = field(default_factory=list)
    healed: list[Snapshot] = field(default_factory=list)
    """The first and a later look at the sessions, after all harm was undone and time to settle was given."""
    outputs: list[OutputView] = field(default_factory=list)
    last: dict[str, SessionView] = field(default_factory=dict)
    """Every session as the balancer told it when all was over."""
    leftovers: list[str] = field(default_factory=list)
    """Processes, sockets, locks and folders that were there when the house had ended."""
