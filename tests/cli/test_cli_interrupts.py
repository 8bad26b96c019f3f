"""Ctrl-C while a session is waited for, in a real terminal and in none."""

from __future__ import annotations

import os
import pty
import select
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from gpu_balancer.v1 import device_pb2, session_pb2

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fakes.balancer_server import FakeBalancer

pytestmark = pytest.mark.process
ROOT = Path(__file__).parents[2]
QUESTION = "Stop the session s1? y: stop it, n: go on, Ctrl-C: leave it running [y/n]"


class Terminal:
    """A command in a terminal of 80 columns: what it shows, and what is typed."""

    def __init__(self, process: subprocess.Popen[bytes], terminal: int) -> None:
        self.process = process
        self._terminal = terminal
        self.seen = ""

    def expect(self, words: str) -> None:
        """Reads until the words have been shown after what was expected before."""
        while words not in self.seen:
            self._read(words)
        self.seen = self.seen.partition(words)[2]

    def type(self, text: str) -> None:
        os.write(self._terminal, text.encode())

    def press_ctrl_c(self) -> None:
        self.type("\x03")

    def end(self) -> int:
        """Reads to the end and gives the exit code."""
        try:
            while True:
                self._read("the end")
        except OSError:
            return self.process.wait(20)

    def _read(self, awaited: str) -> None:
        readable, _, _ = select.select([self._terminal], [], [], 20)
        assert readable, f"{awaited!r} never came; seen: {self.seen!r}"
        shown = os.read(self._terminal, 65536).decode(errors="replace")
        if not shown:
            raise OSError
        self.seen += shown


@contextmanager
def terminal_of(fake: FakeBalancer, *words: str) -> Iterator[Terminal]:
    """Runs the command in a terminal of its own session, so that Ctrl-C is the terminal's."""
    ours, theirs = pty.openpty()
    environment = {**os.environ, "GPU_BALANCER_ADDRESS": fake.address, "COLUMNS": "80", "TERM": "xterm"}
    process = subprocess.Popen(
        [sys.executable, "-c", f"import fcntl, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); {_RUN}", *words],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
        env=environment,
        cwd=ROOT,
    )
    os.close(theirs)
    try:
        yield Terminal(process, ours)
    finally:
        if process.poll() is None:
            process.kill()
        process.wait(20)
        os.close(ours)


_RUN = "from gpu_balancer.cli.__main__ import main; main()"


@pytest.fixture
def running(fake: FakeBalancer) -> FakeBalancer:
    """A fake whose sessions run until they are stopped, and leave their artifacts then."""

    def start(session: session_pb2.Session) -> None:
        for output in session.transcode.outputs:
            fake.add_artifact(session.name, output.file.path, b"half a film")
        fake.advance(session.name, state=session_pb2.SESSION_STATE_RUNNING)

    fake.on_create = start
    return fake


def state_of(fake: FakeBalancer) -> int:
    return fake.do(lambda: fake.sessions["sessions/s1"].state)


def test_yes_stops_the_session_and_fetches_what_there_is(running: FakeBalancer, source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.mp4"
    with terminal_of(running, "transcode", str(source), "-o", str(out)) as terminal:
        terminal.expect("running")
        terminal.press_ctrl_c()
        terminal.expect(QUESTION)
        terminal.type("y\n")
        terminal.expect(f"Wrote {out}")
        assert terminal.end() == 130
    assert state_of(running) == session_pb2.SESSION_STATE_CANCELLED
    assert out.read_bytes() == b"half a film"


def test_no_goes_on(running: FakeBalancer, source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.mp4"
    with terminal_of(running, "transcode", str(source), "-o", str(out)) as terminal:
        terminal.expect("running")
        terminal.press_ctrl_c()
        terminal.expect(QUESTION)
        terminal.type("what\n")
        terminal.expect(QUESTION)
        terminal.type("n\n")
        terminal.expect("running")
        assert state_of(running) == session_pb2.SESSION_STATE_RUNNING
        running.do(lambda: running.advance("sessions/s1", state=session_pb2.SESSION_STATE_SUCCEEDED))
        assert terminal.end() == 0
    assert out.read_bytes() == b"half a film"


def test_a_second_ctrl_c_leaves_it_running(running: FakeBalancer, source: Path) -> None:
    with terminal_of(running, "transcode", str(source)) as terminal:
        terminal.expect("running")
        terminal.press_ctrl_c()
        terminal.expect(QUESTION)
        terminal.press_ctrl_c()
        terminal.expect("gpu-balancer stop s1")
        assert terminal.end() == 130
    assert state_of(running) == session_pb2.SESSION_STATE_RUNNING


@pytest.fixture
def queueing(fake: FakeBalancer) -> FakeBalancer:
    """A fake whose sessions wait for a device until they are stopped."""

    def queue(session: session_pb2.Session) -> None:
        session.ClearField("attempt")
        place = session_pb2.QueueStatus(position=3, estimated_wait=Duration(seconds=118))
        fake.advance(session.name, state=session_pb2.SESSION_STATE_QUEUED, queue=place)

    fake.on_create = queue
    return fake


def test_a_session_that_waits_is_stopped_at_once_and_nothing_is_fetched(
    queueing: FakeBalancer, source: Path, tmp_path: Path
) -> None:
    with terminal_of(queueing, "transcode", str(source), "-o", str(tmp_path / "out.mp4")) as terminal:
        terminal.expect("waiting for a device: place 3, about 2 min")
        terminal.press_ctrl_c()
        terminal.expect(QUESTION)
        terminal.type("y\n")
        terminal.expect("s1: cancelled")
        assert terminal.end() == 130
        assert "completes its outputs" not in terminal.seen
    assert state_of(queueing) == session_pb2.SESSION_STATE_CANCELLED
    assert queueing.calls["ListArtifacts"] == 0


def test_a_session_that_waits_is_left_waiting(queueing: FakeBalancer, source: Path) -> None:
    with terminal_of(queueing, "transcode", str(source)) as terminal:
        terminal.expect("place 3")
        terminal.press_ctrl_c()
        terminal.expect(QUESTION)
        terminal.press_ctrl_c()
        terminal.expect("The session s1 waits on for a device.")
        assert terminal.end() == 130
    assert state_of(queueing) == session_pb2.SESSION_STATE_QUEUED


def test_without_a_terminal_it_runs_on_and_is_said_how_to_stop_it(running: FakeBalancer, source: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "gpu_balancer.cli", "transcode", str(source)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "GPU_BALANCER_ADDRESS": running.address},
        cwd=ROOT,
    )
    assert process.stderr is not None
    assert process.stderr.readline() == "Session s1 waits for a device\n"
    assert process.stderr.readline() == "s1: running\n"
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=20)
    assert (process.returncode, out) == (130, "")
    assert "Traceback" not in err
    assert "gpu-balancer stop s1" in err
    assert state_of(running) == session_pb2.SESSION_STATE_RUNNING


@pytest.fixture
def recording(fake: FakeBalancer) -> FakeBalancer:
    """A fake whose recordings go on until they are asked to stop, and then take their time to complete their file."""

    def start(session: session_pb2.Session) -> None:
        fake.advance(session.name, state=session_pb2.SESSION_STATE_RUNNING, running_time=Timestamp(seconds=1))

    fake.on_create = start
    fake.on_stop = lambda session: fake.advance(session.name, state=session_pb2.SESSION_STATE_STOPPING)
    return fake


def complete_recording(fake: FakeBalancer) -> None:
    def complete() -> None:
        fake.add_artifact("sessions/s1", "recording.mp4", b"half a film")
        fake.advance("sessions/s1", state=session_pb2.SESSION_STATE_CANCELLED)

    fake.do(complete)


def test_ctrl_c_ends_a_recording_without_a_question_and_fetches_it(recording: FakeBalancer, tmp_path: Path) -> None:
    out = tmp_path / "out.mp4"
    with terminal_of(recording, "record", "https://example.org/", "-o", str(out)) as terminal:
        terminal.expect("recording")
        terminal.press_ctrl_c()
        terminal.expect("It completes its outputs and ends")
        terminal.expect("finalising")
        assert state_of(recording) == session_pb2.SESSION_STATE_STOPPING
        complete_recording(recording)
        terminal.expect(f"Wrote {out}")
        assert terminal.end() == 130
    assert out.read_bytes() == b"half a film"
    assert recording.calls["StopSession"] == 1


def test_a_second_ctrl_c_leaves_the_end_of_a_recording_to_the_agent(recording: FakeBalancer, tmp_path: Path) -> None:
    out = tmp_path / "out.mp4"
    with terminal_of(recording, "record", "https://example.org/", "-o", str(out)) as terminal:
        terminal.expect("recording")
        terminal.press_ctrl_c()
        terminal.expect("finalising")
        terminal.press_ctrl_c()
        terminal.expect("The session s1 completes its outputs and ends.")
        terminal.expect("gpu-balancer artifacts s1 --download DIR")
        assert terminal.end() == 130
    assert recording.calls["StopSession"] == 1
    assert not out.exists()


def test_a_recording_that_waits_is_cancelled_with_ctrl_c(queueing: FakeBalancer, tmp_path: Path) -> None:
    with terminal_of(
        queueing, "record", "https://example.org/", "-o", str(tmp_path / "o.mp4"), "--wait-for-device", "5m"
    ) as terminal:
        terminal.expect("place 3")
        terminal.press_ctrl_c()
        terminal.expect("s1: cancelled")
        assert terminal.end() == 130
    assert queueing.calls["ListArtifacts"] == 0


def test_a_recording_that_is_interrupted_while_it_is_asked_for_is_not_left_running(
    recording: FakeBalancer, tmp_path: Path
) -> None:
    processes: list[subprocess.Popen[str]] = []
    recording.on_create = lambda session: processes[0].send_signal(signal.SIGINT)
    recording.on_stop = None
    processes.append(
        subprocess.Popen(
            [sys.executable, "-m", "gpu_balancer.cli", "record", "https://example.org/", "-o", str(tmp_path / "o.mp4")],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "GPU_BALANCER_ADDRESS": recording.address},
            cwd=ROOT,
        )
    )
    _, err = processes[0].communicate(timeout=20)
    assert processes[0].returncode == 130
    assert "s1: cancelled" in err
    assert list(recording.sessions) == ["sessions/s1"]
    assert state_of(recording) == session_pb2.SESSION_STATE_CANCELLED


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM])
def test_without_a_terminal_a_recording_is_ended_too(
    recording: FakeBalancer, tmp_path: Path, ending: signal.Signals
) -> None:
    out = tmp_path / "out.mp4"
    process = subprocess.Popen(
        [sys.executable, "-m", "gpu_balancer.cli", "record", "https://example.org/", "-o", str(out)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "GPU_BALANCER_ADDRESS": recording.address},
        cwd=ROOT,
    )
    assert process.stderr is not None
    while process.stderr.readline() != "s1: recording\n":
        assert process.poll() is None
    process.send_signal(ending)
    while process.stderr.readline() != "s1: finalising\n":
        assert process.poll() is None
    complete_recording(recording)
    shown, err = process.communicate(timeout=20)
    assert (process.returncode, shown) == (130, f"{out}\n")
    assert "Traceback" not in err
    assert out.read_bytes() == b"half a film"


def test_top_is_left_with_ctrl_c_in_good_order(running: FakeBalancer) -> None:
    running.do(lambda: running.add_session("live"))
    with terminal_of(running, "top") as terminal:
        terminal.expect("live")
        terminal.press_ctrl_c()
        assert terminal.end() == 0


def test_watching_all_shows_changes_until_ctrl_c(running: FakeBalancer) -> None:
    running.do(lambda: running.add_session("first"))
    with terminal_of(running, "watch") as terminal:
        terminal.expect("first")
        running.do(lambda: running.add_session("second"))
        terminal.expect("second")
        terminal.press_ctrl_c()
        terminal.expect("Interrupted.")
        assert terminal.end() == 130


def test_a_drain_goes_on_without_the_command(fake: FakeBalancer) -> None:
    fake.add_device(device_pb2.Device(name="devices/cpu-0", session_count=2, state=device_pb2.DEVICE_STATE_READY))
    with terminal_of(fake, "devices", "drain", "cpu-0") as terminal:
        terminal.expect("Being emptied: 2 left.")
        terminal.press_ctrl_c()
        terminal.expect("2 sessions left")
        terminal.expect("gpu-balancer devices uncordon cpu-0")
        assert terminal.end() == 130
    assert fake.devices["devices/cpu-0"].state == device_pb2.DEVICE_STATE_DRAINING
