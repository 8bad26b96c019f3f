"""A real agent process of a test: started like the launcher starts it, spoken to over its socket."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import grpc
import imageio_ffmpeg

from agents.sessions.folder import SessionFolders
from agents.sessions.processes import AttemptProcesses
from gpu_balancer.v1 import agent_service_pb2 as pb
from gpu_balancer.v1 import media_pb2
from gpu_balancer.v1.agent_service_pb2_grpc import AgentServiceStub

FFMPEG = imageio_ffmpeg.get_ffmpeg_exe()
REPOSITORY = Path(__file__).resolve().parents[3]

SETTINGS = """
[device]
kind = "cpu"
id = "cpu-0"

[inputs]
roots = ["{media}"]

[outputs]
roots = ["{out}"]

[ffmpeg]
candidates = ["bundled"]

[ingest]
rtmp_ports = "32350-32449"
srt_ports = "32450-32549"

[sessions]
fence_dir = "{fences}"

[log]
format = "json"
{more}
"""


@dataclass(slots=True, kw_only=True)
class AgentProcess:
    """One agent on a state folder."""

    folder: Path
    media: Path
    out: Path
    fences: Path | None = None
    """Shared by the agents of a host. None: it is alone."""
    process: subprocess.Popen[bytes] | None = None
    started_s: float = 0.0

    @property
    def target(self) -> str:
        return f"unix:{self.folder}/agent.sock"

    @property
    def log(self) -> str:
        return (self.folder / "agent.log").read_text()

    def configure(self, more: str = "") -> None:
        """Writes the settings file."""
        text = SETTINGS.format(media=self.media, out=self.out, fences=self.fences or self.folder / "fences", more=more)
        (self.folder / "agent.toml").write_text(text)

    def start(self) -> None:
        """Starts the agent; it may still be starting afterwards."""
        self.started_s = time.monotonic()
        with (self.folder / "agent.log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "agents", "--config", str(self.folder / "agent.toml")],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                cwd=REPOSITORY,
            )

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Ends the agent and gives its exit status."""
        assert self.process is not None
        self.process.send_signal(number)
        return self.process.wait(20)

    def clean(self) -> None:
        """Leaves nothing running."""
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait(20)
        for folder in SessionFolders(root=self.folder / "sessions").found():
            with AttemptProcesses(folder) as processes:
                processes.kill_all()

    @contextlib.contextmanager
    def connected(self):
        """Speaks to the agent; waits until it answers."""
        with grpc.insecure_channel(self.target, options=[("grpc.initial_reconnect_backoff_ms", 50)]) as channel:
            stub = AgentServiceStub(channel)
            try:
                stub.GetAgent(pb.GetAgentRequest(), timeout=60, wait_for_ready=True)
            except grpc.RpcError as error:
                raise AssertionError(f"the agent does not answer; its log:\n{self.log}") from error
            yield stub

    def program_pid(self, session: str, attempt: int = 1) -> int | None:
        """The program of an attempt."""
        path = self.folder / "sessions" / session / str(attempt) / "program.pid"
        text = path.read_text().strip() if path.exists() else ""
        return int(text) if text else None


def await_probed(stub: AgentServiceStub, timeout_s: float = 60) -> pb.Agent:
    """Waits for the golden probe."""
    for event in stub.WatchEvents(pb.WatchEventsRequest(), timeout=timeout_s):
        agent = stub.GetAgent(pb.GetAgentRequest(), timeout=5).agent
        if agent.probed:
            return agent
        assert event is not None
    raise AssertionError("never probed")


def plan(
    uri: str, *, session: str = "s1", attempt: int = 1, repeat: bool = False, path: str = "out.mp4"
) -> pb.LaunchPlan:
    """A small H.264 transcode."""
    encode = media_pb2.VideoEncoding(
        codec=media_pb2.VIDEO_CODEC_H264, height=90, speed=media_pb2.ENCODING_SPEED_FASTEST
    )
    encode.keyframe_interval.FromSeconds(1)
    facts = media_pb2.InputFacts(
        width=320,
        height=180,
        frame_rate=media_pb2.FrameRate(numerator=25, denominator=1),
        video_codec=media_pb2.VIDEO_CODEC_H264,
        bit_depth=8,
        chroma="4:2:0",
        has_audio=True,
        audio_codec="aac",
    )
    facts.duration.FromSeconds(2)
    source = media_pb2.Input(uri=uri, repeat_forever=repeat, native_rate=repeat)
    return pb.LaunchPlan(
        id=pb.AttemptId(session=f"sessions/{session}", attempt=attempt),
        transcode=media_pb2.TranscodeSpec(
            input=source,
            renditions=[media_pb2.Rendition(id="90p", encode=encode)],
            outputs=[media_pb2.Output(id="output-1", file=media_pb2.FileOutput(path=path))],
        ),
        input_facts=facts,
    )


def until(stub: AgentServiceStub, truth, *, after: int = 0, timeout_s: float = 60) -> list[pb.WatchEventsResponse]:
    """Listens until an event is so; gives all that were heard."""
    heard = []
    call = stub.WatchEvents(pb.WatchEventsRequest(after_event_number=after), timeout=timeout_s)
    for event in call:
        heard.append(event)
        if truth(event):
            call.cancel()
            return heard
    raise AssertionError("the stream ended")


def ended(session: str):
    """Whether an event tells the end of a session."""

    def truth(event: pb.WatchEventsResponse) -> bool:
        status = event.attempt
        return status.id.session == f"sessions/{session}" and status.phase == pb.ATTEMPT_PHASE_ENDED

    return truth


def running(session: str):
    """Whether an event tells that a session runs."""

    def truth(event: pb.WatchEventsResponse) -> bool:
        status = event.attempt
        return status.id.session == f"sessions/{session}" and status.phase == pb.ATTEMPT_PHASE_RUNNING

    return truth


def resident_mib(pid: int) -> float:
    """Resident memory of a process."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise AssertionError(f"no memory of {pid}")


def is_alive(pid: int) -> bool:
    """Whether a process lives (a zombie does not)."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z" and os.getpid() != pid
