"""Where a recording stands, as it is kept in its folder: all that the next agent needs to go on with it.

It is written before what it tells of is done: a take that is named here may not have begun, and the folder tells.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Literal

from pydantic import TypeAdapter, ValidationError

from agents.displays.display import Display
from agents.pipelines.recording_report import MeasuredUse, RecordingPhase, RecordingReport, SoundTiming
from agents.sessions.attempt import Failure
from agents.sessions.records import RecordUnreadableError, load_status
from gpu_balancer.runtime.durable_file import write_durably

if TYPE_CHECKING:
    from agents.sessions.folder import AttemptFolder

_FILE = "recording.json"


STOPPED = "STOPPED"
"""Why a recording ended that was asked to."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordingEnd:
    """Why a recording ends."""

    cause: str
    """"STOPPED", "MAX_DURATION", "END_SIGNAL", "SILENCE", "IDLE", "PAGE_CLOSED", "APPLICATION_ENDED", or the failure's
    reason."""
    failure: Failure | None = None
    """None: it is as it should be."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Take:
    """One stretch of a recording."""

    number: int
    """From 1."""
    ended: bool = False
    """Whether what follows is final."""
    sound_only: bool = False
    """Whether it has no pictures."""
    frames: int = 0
    duplicated_frames: int = 0
    dropped_frames: int = 0
    out_time: timedelta = timedelta()
    longest_freeze: timedelta | None = None

    @property
    def begun(self) -> bool:
        """Whether anything was recorded; where there are to be pictures, sound alone is not enough."""
        return self.out_time > timedelta() if self.sound_only else self.frames > 0

    def is_beyond(self, other: Take) -> bool:
        """Tells whether more was recorded than at another time of the same take."""
        return self.out_time > other.out_time if self.sound_only else self.frames > other.frames


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorded:
    """What became of a recording, as far as it can be counted."""

    take_count: int = 0
    frames: int = 0
    duplicated_frames: int = 0
    dropped_frames: int = 0
    longest_freeze: timedelta | None = None
    dismissed_dialogs: int = 0
    closed_popups: int = 0
    cancelled_downloads: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordingState:
    """Where a recording stands."""

    version: Literal[1] = 1
    display: Display | None = None
    """None: it has none yet, or any more."""
    application_pid: int | None = None
    takes: tuple[Take, ...] = ()
    paused_time: datetime | None = None
    """Since when it rests, or is to rest. None: it records."""
    max_duration: timedelta | None = None
    """Of what is recorded, all takes together. None: no bound."""
    end: RecordingEnd | None = None
    """None: it goes on."""
    phases: tuple[RecordingPhase, ...] = ()
    start_time: timedelta | None = None
    """From the launch to the first picture. None: there is none yet."""
    browser: str = ""
    renderer: str = ""
    dismissed_dialogs: int = 0
    closed_popups: int = 0
    cancelled_downloads: int = 0
    sound_timing: SoundTiming | None = None
    """Of its latest take. None: it has no sound, or none has been made ready yet."""
    measured_use: MeasuredUse | None = None
    resumed_at: timedelta = timedelta()
    """Where on the timeline of its HLS its first take goes on."""
    thumbnails_before: int = 0
    """How many earlier attempts have taken."""
    recorded_before: Recorded = Recorded()
    """By the attempts that this one goes on with."""

    def with_take(self, take: Take) -> RecordingState:
        """Gives the state with a take added, or in the place of the one of its number."""
        others = tuple(other for other in self.takes if other.number != take.number)
        return replace(self, takes=(*others, take))

    def recorded(self) -> Recorded:
        """Counts what was recorded until now, by the attempts before, too."""
        before = self.recorded_before
        freezes = [before.longest_freeze, *(take.longest_freeze for take in self.takes)]
        return Recorded(
            take_count=before.take_count + len(self.takes),
            frames=before.frames + sum(take.frames for take in self.takes),
            duplicated_frames=before.duplicated_frames + sum(take.duplicated_frames for take in self.takes),
            dropped_frames=before.dropped_frames + sum(take.dropped_frames for take in self.takes),
            longest_freeze=max((freeze for freeze in freezes if freeze is not None), default=None),
            dismissed_dialogs=before.dismissed_dialogs + self.dismissed_dialogs,
            closed_popups=before.closed_popups + self.closed_popups,
            cancelled_downloads=before.cancelled_downloads + self.cancelled_downloads,
        )

    def report(self) -> RecordingReport:
        """Tells what has become of the recording; files are told by whoever makes them."""
        recorded = self.recorded()
        return RecordingReport(
            captured_frames=max(recorded.frames - recorded.duplicated_frames + recorded.dropped_frames, 0),
            encoded_frames=recorded.frames,
            duplicated_frames=recorded.duplicated_frames,
            dropped_frames=recorded.dropped_frames,
            longest_freeze=recorded.longest_freeze,
            phases=self.phases,
            start_time=self.start_time,
            take_count=recorded.take_count,
            end_cause=self.end.cause if self.end is not None else "",
            browser=self.browser,
            renderer=self.renderer,
            dismissed_dialogs=recorded.dismissed_dialogs,
            closed_popups=recorded.closed_popups,
            cancelled_downloads=recorded.cancelled_downloads,
            sound_timing=self.sound_timing,
        )


_STATE: TypeAdapter[RecordingState] = TypeAdapter(RecordingState)


def state_file(state: RecordingState) -> dict[str, bytes]:
    """Gives name and content of the file that keeps a state."""
    return {_FILE: _STATE.dump_json(state, indent=1)}


def write_state(folder: AttemptFolder, state: RecordingState) -> None:
    """Replaces the kept state durably.

    Raises:
        OSError: When the disk is full or refuses; the former state stays.
    """
    write_durably(folder.path / _FILE, _STATE.dump_json(state, indent=1))


def used_display(folder: AttemptFolder) -> str | None:
    """Gives the id of the display that a folder's recording uses. None: it uses none, or is none, or has ended."""
    try:
        # The state first: a transcode has none, and there may be thousands of those.
        state = read_state(folder)
        status = load_status(folder.status.read_bytes())
    except (OSError, RecordUnreadableError):
        return None
    return state.display.id if status.live and state.display is not None else None


def read_state(folder: AttemptFolder) -> RecordingState:
    """Reads the kept state.

    Raises:
        RecordUnreadableError: When it is missing, damaged, or of a newer agent.
    """
    try:
        return _STATE.validate_json((folder.path / _FILE).read_bytes())
    except FileNotFoundError as error:
        raise RecordUnreadableError("Cannot read the state of a recording: it is missing.") from error
    except ValidationError as error:
        problem = error.errors()[0]["msg"]
        raise RecordUnreadableError(f"Cannot read the state of a recording: {problem}.") from error
