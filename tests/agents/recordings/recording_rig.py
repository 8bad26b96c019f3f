"""Recordings without displays, browsers and ffmpeg: real folders, locks and shims, and programs that do as ffmpeg does.

What a display is to a director: a lock that a process holds. What ffmpeg is: a program that writes how far it is, and
ends in order when it is told to.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import subprocess
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

from opentelemetry.trace import NoOpTracer

from agents.browsers.page import PageEnd, PageFault, PageFigures
from agents.displays.display import BrowserEndpoint, Display, DisplayUnavailable
from agents.lock_holders import is_held, kill_holders
from agents.pipelines.command import Command, OutputMove
from agents.pipelines.held_command import GRAPH_OPTION
from agents.pipelines.job import AudioRendition, Container, FileOutput, JobOutput, Rendition, VideoEncoding
from agents.pipelines.recording import Capture, PageSource, RecordingJob, StartGate, StopRules
from agents.pipelines.recording_files import FinishStep, final_moves, take_file
from agents.pipelines.recording_report import SoundTiming
from agents.recordings.closing import Closing
from agents.recordings.direction import Direction
from agents.recordings.launcher import RecordingLauncher, RecordingOrder
from agents.recordings.narration import Narration
from agents.recordings.runner import RecordingRunner
from agents.recordings.shooting import Shooting
from agents.recordings.stage import Stage, StageSettings
from agents.recordings.state import RecordingState, read_state
from agents.recordings.take_run import TakeBounds
from agents.recordings.takes import Takes
from agents.recordings.use_meter import UseMeter
from agents.sessions.attempt import AttemptKey, AttemptStatus, Failure, Phase
from agents.sessions.attempt_health import HealthBounds
from agents.sessions.continuation import EarlierAttempt
from agents.sessions.event_feed import StatusTold
from agents.sessions.event_numbers import EventNumbers
from agents.sessions.fence import Fences
from agents.sessions.folder import AttemptFolder, SessionFolders
from agents.sessions.records import AnyRecord, RecordingRecord
from agents.sessions.registry import SessionRegistry
from agents.sessions.running import Launched
from agents.sessions.session_trace import SessionTrace
from agents.sessions.status_book import Attempt, StatusBook
from gpu_balancer.runtime.clock import SystemClock
from gpu_balancer.runtime.task_guard import TaskGuard

CAMERA = Path(__file__).with_name("camera.sh")


class FakeDisplays:
    """Lends displays that are a sleeping process each. They outlive it, as real ones do."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.refusal: DisplayUnavailable | None = None
        self.lent: dict[str, Display] = {}
        self.released: list[str] = []

    async def acquire(self, *, width: int, height: int, browser: bool, sound: bool, timeout: timedelta) -> Display:
        if self.refusal is not None:
            raise self.refusal
        number = len(list(self.root.glob("d*"))) + 1 if self.root.exists() else 1
        folder = self.root / f"d{number}"
        folder.mkdir(parents=True)
        lock = folder / "lock"
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT)
        fcntl.flock(descriptor, fcntl.LOCK_SH)
        await asyncio.to_thread(_start_sleeper, descriptor)
        os.close(descriptor)
        display = Display(
            id=folder.name,
            name=f":{number}",
            authority="/dev/null",
            width=width,
            height=height,
            lock=str(lock),
            work=str(folder),
            user_id=None,
            sound_server=None,
            browser=BrowserEndpoint(url="http://127.0.0.1:1", name="Chromium 1") if browser else None,
        )
        self.lent[display.id] = display
        return display

    def find(self, display_id: str) -> Display | None:
        return self.lent.get(display_id)

    def alive(self, display_id: str) -> bool:
        display = self.lent.get(display_id)
        return display is not None and is_held(Path(display.lock))

    def screen_alive(self, display_id: str) -> bool:
        return self.alive(display_id)

    async def spawn(self, display: Display, argv: Sequence[str], *, name: str) -> int:
        raise AssertionError("no applications here")

    async def release(self, display_id: str) -> None:
        self.released.append(display_id)
        display = self.lent.pop(display_id, None)
        if display is not None:
            kill_holders(Path(display.lock))

    def adopt(self, other: FakeDisplays) -> None:
        """Takes over what another agent has lent."""
        self.lent |= other.lent


def _start_sleeper(descriptor: int) -> None:
    process = subprocess.Popen(["sleep", "600"], pass_fds=(descriptor,), start_new_session=True)
    process.returncode = 0


@dataclass(slots=True)
class FakePage:
    """A page that does as it is told."""

    gate: asyncio.Event = field(default_factory=asyncio.Event)
    fault: PageFault | None = None
    fault_at_gate: PageFault | None = None
    end: asyncio.Future[PageEnd] | None = None
    opened: bool = False

    @property
    def is_over(self) -> bool:
        return self.end is not None and self.end.done() and self.end.result() is PageEnd.SIGNAL

    async def open(self) -> timedelta:
        self.opened = True
        if self.fault is not None:
            raise self.fault
        return timedelta(milliseconds=50)

    async def pass_gate(self) -> timedelta:
        await self.gate.wait()
        if self.fault_at_gate is not None:
            raise self.fault_at_gate
        return timedelta(milliseconds=80)

    async def ended(self) -> PageEnd:
        if self.end is None:
            self.end = asyncio.get_running_loop().create_future()
        return await asyncio.shield(self.end)

    def finish(self, end: PageEnd) -> None:
        """Makes the page end."""
        if self.end is None:
            self.end = asyncio.get_running_loop().create_future()
        self.end.set_result(end)

    async def save_screenshot(self, path: Path) -> None:
        await asyncio.to_thread(path.write_bytes, b"PNG")

    def figures(self) -> PageFigures:
        return PageFigures(dismissed_dialogs=2)

    async def close(self) -> None:
        return


class FakePages:
    """Gives one page, at once."""

    def __init__(self) -> None:
        self.one = FakePage()
        self.one.gate.set()
        self.taken_over = 0

    async def page(self, display: Display, job: RecordingJob, *, log: Path, opened: bool) -> FakePage:
        self.taken_over += opened
        return self.one

    async def rendering(self, display: Display) -> str | None:
        return "ANGLE (Software)"


class FakeShooting(Shooting):
    """Runs a script in the place of ffmpeg: it writes progress, and its name into the take's file."""

    def __init__(self) -> None:
        """Knows no device."""
        self.lost_of_three = 0
        self.may_be_held = True

    async def ready(self) -> None:
        return

    def planned(self, job: RecordingJob, artifacts: Path) -> Command:
        return Command(argv=("camera",))

    def command(
        self,
        record: RecordingRecord,
        attempt: AttemptFolder,
        folder: AttemptFolder,
        display: Display,
        number: int,
        *,
        resumed_at: timedelta,
    ) -> Command:
        file = attempt.artifacts / take_file(0, Container.MP4, number)
        file.parent.mkdir(parents=True, exist_ok=True)
        sound = "" if record.job.pictures else "sound"
        argv = ("/bin/sh", str(CAMERA), str(folder.progress), str(file), sound, str(self.lost_of_three))
        return Command(argv=(*argv, GRAPH_OPTION, "graph"), may_be_held=self.may_be_held)

    def sound_timing(self, job: RecordingJob) -> SoundTiming | None:
        return SoundTiming(delay=timedelta(milliseconds=3), delay_source="settings") if job.capture.sound else None

    def moves(self, job: RecordingJob) -> tuple[OutputMove, ...]:
        return final_moves(job)

    async def snapshot(self, job: RecordingJob, folder: AttemptFolder, display: Display, width: int | None) -> bytes:
        return f"{display.name} {width}".encode()

    async def take_thumbnail(self, job: RecordingJob, display: Display, path: Path) -> bool:
        await asyncio.to_thread(path.parent.mkdir, exist_ok=True)
        await asyncio.to_thread(path.write_bytes, b"JPEG")
        return True

    async def finish_plan(
        self, record: RecordingRecord, folder: AttemptFolder, numbers: Sequence[int]
    ) -> tuple[FinishStep, ...]:
        files = [folder.artifacts / take_file(0, Container.MP4, number) for number in numbers]
        takes = [str(file) for file in files if await asyncio.to_thread(file.exists)]
        made = str(folder.artifacts / ".takes" / "joined.mp4")
        return (
            FinishStep(
                output="output-1",
                takes=tuple(takes),
                texts={},
                commands=(("/bin/sh", "-c", f"cat {' '.join(takes)} > {made}"),),
                made_path=made,
                final_path=str(folder.artifacts / "recording.mp4"),
                move=None,
                directories=(),
                scratch=(),
            ),
        )

    def ffmpeg(self, job: RecordingJob) -> str:
        return "/bin/true"

    def verdict(
        self, record: RecordingRecord, attempt: AttemptFolder, take: object, exit_code: int | None, *, asked: bool
    ) -> Failure | None:
        if exit_code in (255, 143) and asked:
            return None
        return Failure(reason="KILLED", message="Cannot go on.", exit_code=exit_code)


class NoDeliveries:
    """Notes what was to be copied."""

    def __init__(self) -> None:
        self.begun: list[tuple[str, tuple[str, ...], tuple[str, ...]]] = []

    async def begin(
        self, session: str, attempt: int, artifacts: Path, paths: Sequence[str], destinations: Sequence[str]
    ) -> None:
        self.begun.append((session, tuple(paths), tuple(destinations)))


@dataclass(slots=True, kw_only=True)
class RecordingRig:
    """The recordings part of one agent."""

    registry: SessionRegistry
    launcher: RecordingLauncher
    book: StatusBook
    folders: SessionFolders
    displays: FakeDisplays
    pages: FakePages
    deliveries: NoDeliveries

    async def launch(
        self, job: RecordingJob, max_duration: timedelta | None = None, *, continues: Sequence[AttemptStatus] = ()
    ) -> None:
        """Launches a recording as the balancer would."""
        key = key_of(job)
        earlier = tuple(EarlierAttempt(attempt=one.key.attempt, folder=one.folder) for one in continues)
        order = RecordingOrder(job=job, plan=b"plan", max_duration=max_duration, continues=earlier)

        async def start(_: Collection[int]) -> Launched:
            return await self.launcher.launch(key, order)

        await self.registry.launch(key, start)

    def runner(self, job: RecordingJob) -> RecordingRunner:
        """Who directs it."""
        found = self.registry.runner(key_of(job))
        assert isinstance(found, RecordingRunner)
        return found

    async def until(self, job: RecordingJob, truth: Callable[[AttemptStatus], bool]) -> AttemptStatus:
        """Listens until the status is so; progress counts too."""
        with self.book.feed.watch(0, self.book.last_number) as watcher:
            async with asyncio.timeout(20):
                async for event in watcher.events():
                    if isinstance(event, StatusTold) and event.status.key == key_of(job) and truth(event.status):
                        return event.status
        raise AssertionError("events ended")

    async def running(self, job: RecordingJob) -> AttemptStatus:
        """Awaits the first picture."""
        return await self.until(job, lambda status: status.phase is not Phase.STARTING)

    async def recorded(self, job: RecordingJob, frames: int) -> AttemptStatus:
        """Awaits so many pictures."""
        return await self.until(job, lambda status: status.progress is not None and status.progress.frames >= frames)

    async def ended(self, job: RecordingJob) -> AttemptStatus:
        """Awaits the end, and that everything is tidied up."""
        status = await self.until(job, lambda status: status.phase is Phase.ENDED)
        async with asyncio.timeout(20):
            while self.registry.runner(key_of(job)) is not None:  # noqa: ASYNC110 - nobody tells of it
                await asyncio.sleep(0.01)
        return status

    def folder(self, job: RecordingJob) -> AttemptFolder:
        """Where it lives."""
        return self.folders.of(key_of(job))

    def state(self, job: RecordingJob) -> RecordingState:
        """What is written down of it."""
        return read_state(self.folder(job))


class RecordingRigs:
    """Makes rigs on one state folder, one after the other; leaving one leaves its processes running."""

    def __init__(self, state_dir: Path) -> None:
        self.state_dir = state_dir
        self.shooting = FakeShooting()
        self.stop_timeout = timedelta(seconds=5)
        self.excess: Failure | None = None
        self.displays_known = asyncio.Event()
        self.displays_known.set()
        self.health = HealthBounds()
        self._former: FakeDisplays | None = None

    @asynccontextmanager
    async def start(self) -> AsyncIterator[RecordingRig]:
        """An agent from start to end."""
        clock = SystemClock()
        folders = SessionFolders(root=self.state_dir / "sessions")
        book = StatusBook(EventNumbers(self.state_dir / "event-number", clock))
        displays, pages, deliveries = FakeDisplays(self.state_dir / "displays"), FakePages(), NoDeliveries()
        if self._former is not None:
            displays.adopt(self._former)
        self._former = displays
        fences = Fences(self.state_dir.parent / "fences", clock)
        launcher = RecordingLauncher(
            folders,
            self.shooting,
            fences=fences,
            tracer=NoOpTracer(),
            clock=clock,
            output_roots=(str(self.state_dir.parent),),
        )
        bounds = TakeBounds(
            stop_timeout=self.stop_timeout,
            log_limit_bytes=1 << 20,
            first_picture_timeout=timedelta(seconds=10),
            health=self.health,
        )

        def runner(attempt: Attempt, record: AnyRecord, trace: SessionTrace) -> RecordingRunner:
            assert isinstance(record, RecordingRecord)
            stage = Stage(
                record.job,
                displays,
                pages,
                log=attempt.folder.artifacts / "console.log",
                clock=clock,
                settings=StageSettings(acquire_timeout=timedelta(seconds=5), applications={}),
            )
            direction = Direction(record, Narration(attempt, book, trace, clock=clock), stage, fences)
            meter = UseMeter(clock, over=timedelta(milliseconds=100))
            takes = Takes(direction, self.shooting, meter=meter, clock=clock, bounds=bounds)
            closing = Closing(self.shooting, deliveries, clock=clock)  # type: ignore[arg-type]
            return RecordingRunner(
                direction,
                takes,
                shooting=self.shooting,
                closing=closing,
                clock=clock,
                find_excess=lambda _: self.excess,
                displays_known=self.displays_known.wait,
            )

        async with TaskGuard("rig") as tasks:
            registry = SessionRegistry(
                folders, book, fences=fences, make_runner=runner, tasks=tasks, tracer=NoOpTracer(), clock=clock
            )
            await registry.adopt()
            yield RecordingRig(
                registry=registry,
                launcher=launcher,
                book=book,
                folders=folders,
                displays=displays,
                pages=pages,
                deliveries=deliveries,
            )

    def end_everything(self) -> None:
        """Ends what a test left running."""
        for lock in self.state_dir.glob("displays/*/lock"):
            kill_holders(lock)
        for lock in self.state_dir.glob("sessions/*/*/lock"):
            kill_holders(lock)


def recording(*outputs: JobOutput, session: str = "s1", destinations: tuple[str, ...] = ()) -> RecordingJob:
    """A recording of a page."""
    return RecordingJob(
        session=session,
        attempt=1,
        source=PageSource(url="http://127.0.0.1/page"),
        capture=Capture(),
        gate=StartGate(),
        stop_rules=StopRules(),
        renditions=(Rendition(id="720p", video=VideoEncoding(), audio=AudioRendition()),),
        outputs=outputs or (FileOutput(id="output-1", path="recording.mp4", container=Container.MP4),),
        destinations=destinations,
    )


def key_of(job: RecordingJob) -> AttemptKey:
    """Names a recording's attempt."""
    return AttemptKey(session=job.session, attempt=job.attempt)


def cause_of(status: AttemptStatus) -> str:
    """Why a recording ended."""
    assert status.recording_report is not None
    return status.recording_report.end_cause


def signal_program(rig: RecordingRig, job: RecordingJob, take: int, number: int) -> None:
    """Sends a signal to the program of a take."""
    folder = AttemptFolder(path=rig.folder(job).path / "takes" / str(take), key=key_of(job))
    pid = folder.program_pid()
    assert pid is not None
    os.kill(pid, number)
