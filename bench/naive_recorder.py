"""The rival: what a script does that records a page, one after the other, for one recording, and then ends it all.

An X server, a sound server, a browser and ffmpeg are started in this order, each as soon as it can be, without any
sleep that real scripts have; nothing is kept warm, nothing is looked at, the file is an ordinary MP4.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from bench.analysis.decoding import FFMPEG

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

PROGRAMS = ("Xvfb", "pulseaudio", "chromium")
_BROWSER_FLAGS = (
    *("--kiosk", "--no-first-run", "--no-default-browser-check", "--hide-scrollbars", "--password-store=basic"),
    *("--autoplay-policy=no-user-gesture-required", "--disable-background-networking", "--disable-component-update"),
)
_START_S, _END_S = 60.0, 10.0


@dataclass(slots=True, kw_only=True)
class NaiveRecording:
    """A recording under way."""

    folder: Path
    environment: dict[str, str]
    seconds: float
    """Length of the file."""
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def start(self, argv: Sequence[str], *, passed: Sequence[int] = ()) -> subprocess.Popen[bytes]:
        """Starts a program that ends with the recording."""
        process = subprocess.Popen(
            argv,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=passed,
            start_new_session=True,
        )
        self.processes.append(process)
        return process

    def await_file(self) -> None:
        """Waits until ffmpeg has completed its file by itself.

        Raises:
            RuntimeError: When it failed.
        """
        recorder = self.processes[-1]
        if recorder.wait(self.seconds + _START_S):
            raise RuntimeError(f"ffmpeg ended with {recorder.returncode}")

    def end(self) -> None:
        """Ends every program, the last one first: ffmpeg may complete its file, the X server remove its socket."""
        for number, process in enumerate(reversed(self.processes)):
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM if number else signal.SIGINT)
            with suppress(subprocess.TimeoutExpired):
                process.wait(_END_S)
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def missing_programs() -> list[str]:
    """Names what the rival needs and the machine lacks."""
    return [name for name in PROGRAMS if shutil.which(name) is None]


@contextmanager
def naive_recording(
    url: str, path: Path, *, seconds: float, width: int = 1280, height: int = 720, frame_rate: int = 30
) -> Iterator[NaiveRecording]:
    """Records so many seconds of a page; ends all at the end of the block."""
    with tempfile.TemporaryDirectory(prefix="gpu-balancer-bench-", ignore_cleanup_errors=True) as scratch:
        folder = Path(scratch)
        environment = {**os.environ, "HOME": scratch, "XDG_RUNTIME_DIR": scratch, "PULSE_SERVER": f"unix:{scratch}/s"}
        recording = NaiveRecording(folder=folder, environment=environment, seconds=seconds)
        try:
            environment["DISPLAY"] = _start_display(recording, width=width, height=height)
            _start_sound(recording)
            browser = ["chromium", *_BROWSER_FLAGS, f"--user-data-dir={scratch}/profile"]
            browser += [f"--window-size={width},{height}", "--window-position=0,0"]
            browser += ["--no-sandbox"] if os.geteuid() == 0 else []
            recording.start([*browser, url])
            # Sound first: while ffmpeg opens it, which takes seconds, a screen opened before it is not looked at.
            queue = ["-thread_queue_size", "1024"]
            command = [FFMPEG, "-nostdin", "-y", *queue, "-f", "pulse", "-i", "output.monitor"]
            command += [*queue, "-f", "x11grab", "-framerate", str(frame_rate), "-video_size", f"{width}x{height}"]
            command += ["-draw_mouse", "0", "-i", environment["DISPLAY"], "-c:v", "libx264", "-preset", "ultrafast"]
            command += ["-pix_fmt", "yuv420p", "-c:a", "aac", "-t", str(seconds), str(path)]
            recording.start(command)
            yield recording
        finally:
            recording.end()


def _start_display(recording: NaiveRecording, *, width: int, height: int) -> str:
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb") as told:
        screen = f"{width}x{height}x24"
        recording.start(["Xvfb", "-displayfd", str(writing), "-screen", "0", screen, "-ac"], passed=[writing])
        os.close(writing)
        return f":{told.readline().decode().strip()}"


def _start_sound(recording: NaiveRecording) -> None:
    socket = recording.folder / "s"
    recording.start(
        [
            *("pulseaudio", "-n", "--daemonize=no", "--use-pid-file=no", "--exit-idle-time=-1", "--disable-shm=yes"),
            *("-L", "module-null-sink sink_name=output"),
            *("-L", f"module-native-protocol-unix auth-anonymous=1 socket={socket}"),
        ]
    )
    deadline = time.monotonic() + _END_S
    while not socket.exists():
        if time.monotonic() > deadline:
            raise RuntimeError("pulseaudio does not start")
        time.sleep(0.005)
