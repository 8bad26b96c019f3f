"""Runs takes on a bare screen."""

from __future__ import annotations

import os
import signal
import subprocess
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline_devices import NEW_FFMPEG, OLD_FFMPEG, cpu
from pipeline_programs import run_program

from agents.pipelines.held_command import held_command
from agents.pipelines.input_description import parse_input_description
from agents.pipelines.progress import Progress, parse_progress
from agents.pipelines.recording_files import (
    describe_command,
    file_places,
    is_playable,
    join_step,
    take_files,
)
from agents.pipelines.takes import DisplayAccess, TakePlaces, build_take

if TYPE_CHECKING:
    from datetime import timedelta

    from agents.pipelines.capability import FfmpegBuild, PipelineDevice
    from agents.pipelines.recording import RecordingJob
    from fakes.bare_screen import BareScreen

PATIENCE_S = 30.0


def device_with(program: str, *, new: bool) -> PipelineDevice:
    """Makes a CPU device of two cores with an ffmpeg that is there."""
    made = cpu(NEW_FFMPEG if new else OLD_FFMPEG, core_count=2)
    return replace(
        made,
        capabilities=tuple(replace(capability, ffmpeg=program) for capability in made.capabilities),
        ffmpeg_builds=tuple(replace(build, path=program) for build in made.ffmpeg_builds),
    )


@dataclass(kw_only=True)
class TakeRig:
    """A recording on a screen, take by take."""

    job: RecordingJob
    device: PipelineDevice
    screen: BareScreen
    folder: Path
    takes: list[Take] = field(default_factory=list)

    @property
    def artifacts(self) -> Path:
        """Folder of the artifacts."""
        return self.folder / "artifacts"

    @property
    def build(self) -> FfmpegBuild:
        """The ffmpeg."""
        return self.device.ffmpeg_builds[0]

    @property
    def access(self) -> DisplayAccess:
        """The screen, for pipelines."""
        screen = self.screen
        return DisplayAccess(
            name=screen.name,
            authority=screen.authority,
            sound_server=screen.sound_server,
            sound_source="output.monitor",
        )

    def places(self, number: int) -> TakePlaces:
        """Where a take writes."""
        return TakePlaces(
            artifacts_dir=str(self.artifacts),
            progress=str(self.folder / f"progress-{number}"),
            frames=str(self.folder / f"frames-{number}"),
            silence=str(self.folder / f"silence-{number}"),
            idleness=str(self.folder / f"idleness-{number}"),
        )

    def start(self, *, sound_delay: timedelta | None = None, held: bool = False) -> Take:
        """Starts the next take; one that is held waits for `let_go`."""
        number = len(self.takes) + 1
        places = self.places(number)
        delay = {} if sound_delay is None else {"sound_delay": sound_delay}
        command = build_take(self.job, self.device, self.access, places, number=number, **delay)
        for directory in command.directories:
            Path(directory).mkdir(parents=True, exist_ok=True)
        argv, gate = command.argv, None
        if held:
            read, gate = os.pipe()
            waiting = held_command(command, read)
            argv = waiting.argv
        process = subprocess.Popen(
            argv,
            pass_fds=(read,) if held else (),
            env={**os.environ, **command.env},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        take = Take(process=process, places=places)
        if gate is not None:
            os.close(read)
            take.gate, take.graph = gate, waiting.graph
        self.takes.append(take)
        return take

    def finish(self) -> dict[str, Path]:
        """Makes the files as an agent does, and gives them by output."""
        files = take_files(self.job, range(1, len(self.takes) + 1), artifacts_dir=str(self.artifacts))
        playable = {output: [path for path in paths if self.plays(path)] for output, paths in files.items()}
        made = {}
        places = file_places(self.job, artifacts_dir=str(self.artifacts))
        steps = [join_step(one, playable[one.output], self.build.path) for one in places if playable[one.output]]
        for step in steps:
            for directory in (*step.directories, str(Path(step.made_path).parent)):
                Path(directory).mkdir(parents=True, exist_ok=True)
            for path, text in step.texts.items():
                Path(path).write_text(text)
            for command in step.commands:
                done = run_program(*command)
                assert done.returncode == 0, done.stderr
            Path(step.made_path).replace(step.final_path)
            made[step.output] = Path(step.final_path)
        return made

    def close(self) -> None:
        """Ends what still runs."""
        for take in self.takes:
            if take.gate is not None:
                take.let_go(unsaid=True)
            take.process.kill()
            take.process.communicate()

    def plays(self, path: str) -> bool:
        """Tells whether a take's file is of any use."""
        described = run_program(*describe_command(self.build.path, path))
        return is_playable(parse_input_description(described.stderr))


@dataclass(kw_only=True)
class Take:
    """A take that runs."""

    process: subprocess.Popen[str]
    places: TakePlaces
    gate: int | None = None
    graph: bytes = b""

    def progress(self) -> Progress:
        """Tells how far it is."""
        path = Path(self.places.progress)
        return (parse_progress(path.read_text(), None)[0] if path.exists() else None) or Progress()

    def let_go(self, *, unsaid: bool = False) -> None:
        """Lets a held take begin, or lets go of it without a word."""
        assert self.gate is not None
        if not unsaid:
            os.write(self.gate, self.graph)
        os.close(self.gate)
        self.gate = None

    def has_connections(self) -> bool:
        """Tells whether it has asked anybody for anything: a display, a sound server."""
        return any(fd.readlink().name.startswith("socket:") for fd in Path(f"/proc/{self.process.pid}/fd").iterdir())

    def await_frames(self, count: int) -> None:
        """Waits until so many pictures are encoded."""
        self.await_that(lambda: self.progress().frames >= count)

    def await_that(self, condition: object) -> None:
        """Waits until something holds; the take's own pace is the clock."""
        assert callable(condition)
        while not condition():
            assert self.process.poll() is None, self.end()
            with_timeout(self.process)

    def end(self, how: signal.Signals = signal.SIGTERM) -> str:
        """Ends it, and gives its log."""
        self.process.send_signal(how)
        _, log = self.process.communicate(timeout=PATIENCE_S)
        return log


def with_timeout(process: subprocess.Popen[str]) -> None:
    """Waits a moment, or until a program has ended."""
    try:
        process.wait(timeout=0.05)
    except subprocess.TimeoutExpired:
        return
