"""An agent's sessions without its server: real folders, real ffmpeg, and a restart that is a new registry."""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path

import imageio_ffmpeg
from opentelemetry.trace import NoOpTracer, Tracer

from agents.pipelines.capability import Capability, FfmpegBuild, PipelineDevice
from agents.pipelines.job import (
    AudioCodec,
    AudioRendition,
    Container,
    Direction,
    EncodingSpeed,
    FileOutput,
    FrameRate,
    InputFacts,
    Job,
    JobInput,
    JobOutput,
    Rendition,
    UriInput,
    VideoCodec,
    VideoEncoding,
)
from agents.process_marks import name_of_agent
from agents.sessions.attempt import AttemptKey, AttemptStatus, Phase
from agents.sessions.event_feed import StatusTold
from agents.sessions.event_numbers import EventNumbers
from agents.sessions.fence import Fences
from agents.sessions.folder import AttemptFolder, SessionFolders
from agents.sessions.launcher import Launcher, LaunchSettings
from agents.sessions.launching import LaunchOrder
from agents.sessions.records import AnyRecord, LaunchRecord
from agents.sessions.registry import SessionRegistry
from agents.sessions.runner import AttemptRunner
from agents.sessions.running import Launched, RunnerSettings
from agents.sessions.session_trace import SessionTrace
from agents.sessions.status_book import Attempt, StatusBook
from gpu_balancer.runtime.clock import SystemClock
from gpu_balancer.runtime.disk_reserve import DiskReserve
from gpu_balancer.runtime.task_guard import TaskGuard

FFMPEG = imageio_ffmpeg.get_ffmpeg_exe()
GREYS = 200
"""Pictures that count up in grey, from 16 on, begin anew after so many."""
FACTS = InputFacts(
    width=320,
    height=180,
    frame_rate=FrameRate(numerator=25, denominator=1),
    video_codec=VideoCodec.H264,
    bit_depth=8,
    chroma="4:2:0",
    has_audio=True,
    audio_codec="aac",
    duration=timedelta(seconds=2),
    format="mov,mp4,m4a,3gp,3g2,mj2",
)


def cpu_device(ffmpeg: str = FFMPEG, version: str = imageio_ffmpeg.get_ffmpeg_version()) -> PipelineDevice:
    """A CPU device that was proved to decode and encode H.264, by an ffmpeg."""
    proved = [
        Capability(
            codec=VideoCodec.H264,
            direction=direction,
            bit_depth=8,
            implementation=implementation,
            works=True,
            hardware=False,
            ffmpeg=ffmpeg,
        )
        for direction, implementation in ((Direction.DECODE, "h264"), (Direction.ENCODE, "libx264"))
    ]
    build = FfmpegBuild(path=ffmpeg, version=version, candidate="bundled")
    return PipelineDevice(kind="cpu", id="cpu-0", core_count=2, capabilities=tuple(proved), ffmpeg_builds=(build,))


def frames_of(path: Path) -> int:
    """Decodes a file to its end and counts its pictures; fails when it is damaged."""
    argv = [FFMPEG, "-v", "error", "-xerror", "-i", str(path), "-map", "0:v:0", "-f", "framemd5", "-"]
    done = subprocess.run(argv, check=True, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    return sum(not line.startswith("#") for line in done.stdout.splitlines())


@dataclass(slots=True, kw_only=True)
class Rig:
    """The sessions part of one agent."""

    registry: SessionRegistry
    book: StatusBook
    launcher: Launcher
    folders: SessionFolders
    tasks: TaskGuard
    heard: list[AttemptStatus] = field(default_factory=list)
    """Every numbered status that was told."""

    async def launch(self, job: Job, **order: object) -> str | None:
        """Launches a job as the balancer would."""

        async def start(used_ports: Collection[int]) -> Launched:
            asked = LaunchOrder(job=job, plan=b"plan", **order)  # type: ignore[arg-type]
            return await self.launcher.launch(key_of(job), asked, used_ports=used_ports)

        return await self.registry.launch(key_of(job), start)

    async def until(self, job: Job, truth: Callable[[AttemptStatus], bool], timeout_s: float = 30) -> AttemptStatus:
        """Listens until an attempt's status is so; progress counts too."""
        key = key_of(job)
        with self.book.feed.watch(0, self.book.last_number) as watcher:
            async with asyncio.timeout(timeout_s):
                async for event in watcher.events():
                    if isinstance(event, StatusTold) and event.status.key == key:
                        if event.number:
                            self.heard.append(event.status)
                        if truth(event.status):
                            return event.status
                        assert event.status.phase is not Phase.ENDED, event.status
        raise AssertionError("events ended")

    async def running(self, job: Job) -> AttemptStatus:
        """Awaits the first frame."""
        return await self.until(job, lambda status: status.phase is not Phase.STARTING)

    async def ended(self, job: Job) -> AttemptStatus:
        """Awaits the end."""
        return await self.until(job, lambda status: status.phase is Phase.ENDED)

    def folder(self, job: Job) -> AttemptFolder:
        """Where it lives."""
        return self.folders.of(key_of(job))


async def until(truth: Callable[[], bool]) -> None:
    """Looks until something is so that nobody tells: of files, of another process."""
    async with asyncio.timeout(20):
        while not truth():  # noqa: ASYNC110 - there is no event for it
            await asyncio.sleep(0.002)


def key_of(job: Job) -> AttemptKey:
    """Names a job's attempt."""
    return AttemptKey(session=job.session, attempt=job.attempt)


class Rigs:
    """Makes rigs on one state folder, one after the other; leaving one leaves its processes running."""

    def __init__(self, state_dir: Path) -> None:
        self.state_dir = state_dir
        self.device: Callable[[], PipelineDevice] = lambda: cpu_device(self.ffmpeg)
        self.fence_dir = state_dir.parent / "fences"
        self.launch_settings = LaunchSettings(
            rtmp_ports=range(31_350, 31_450),
            srt_ports=range(31_450, 31_550),
            first_frame_timeout=timedelta(seconds=20),
            output_roots=(str(state_dir.parent),),
        )
        self.runner_settings = RunnerSettings(stop_timeout=timedelta(seconds=8))
        self.tracer: Tracer = NoOpTracer()
        self.ffmpeg = FFMPEG
        self.reserve: DiskReserve | None = None

    def settle(self, *, launch: dict[str, object] | None = None, runner: dict[str, object] | None = None) -> None:
        """Changes settings of the rigs that follow."""
        self.launch_settings = replace(self.launch_settings, **(launch or {}))  # type: ignore[arg-type]
        self.runner_settings = replace(self.runner_settings, **(runner or {}))  # type: ignore[arg-type]

    @asynccontextmanager
    async def start(self, *, adopted_within: timedelta = timedelta(seconds=20)) -> AsyncIterator[Rig]:
        """An agent from start to end."""
        clock = SystemClock()
        folders = SessionFolders(root=self.state_dir / "sessions", agent=name_of_agent(self.state_dir))
        book = StatusBook(EventNumbers(self.state_dir / "event-number", clock), reserve=self.reserve)
        fences = Fences(self.fence_dir, clock)
        launcher = Launcher(
            folders, fences=fences, device=self.device, tracer=self.tracer, clock=clock, settings=self.launch_settings
        )

        def runner(attempt: Attempt, record: AnyRecord, trace: SessionTrace) -> AttemptRunner:
            assert isinstance(record, LaunchRecord)
            settings = self.runner_settings
            return AttemptRunner(attempt, record, book=book, fences=fences, trace=trace, clock=clock, settings=settings)

        async with TaskGuard("rig") as tasks:
            registry = SessionRegistry(
                folders, book, fences=fences, make_runner=runner, tasks=tasks, tracer=self.tracer, clock=clock
            )
            await registry.adopt(within=adopted_within)
            yield Rig(registry=registry, book=book, launcher=launcher, folders=folders, tasks=tasks)


def job_of(
    source: JobInput | Path,
    *outputs: JobOutput,
    session: str = "s1",
    attempt: int = 1,
    facts: InputFacts = FACTS,
) -> Job:
    """A small H.264 job; without outputs it makes the artifact out.mp4."""
    if isinstance(source, Path):
        source = UriInput(uri=str(source))
    video = VideoEncoding(height=90, speed=EncodingSpeed.FASTEST, keyframe_interval=timedelta(seconds=1))
    return Job(
        session=session,
        attempt=attempt,
        input=source,
        facts=facts,
        renditions=(Rendition(id="90p", video=video, audio=AudioRendition(codec=AudioCodec.AAC)),),
        outputs=outputs or (FileOutput(id="output-1", path="out.mp4", container=Container.MP4),),
    )


def endless(clip: Path) -> UriInput:
    """The clip over and over, at its own pace."""
    return UriInput(uri=str(clip), native_rate=True, repeat_forever=True)


def processes_of(folder: AttemptFolder) -> list[int]:
    """Every living process that has the attempt's lock open."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            opened = [str(link.readlink()) for link in (entry / "fd").iterdir()]
        except OSError:
            continue
        if str(folder.lock) in opened and int(entry.name) != os.getpid():
            found.append(int(entry.name))
    return found
