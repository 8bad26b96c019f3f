"""What the recording benchmark finds beside a recording: threads of an ffmpeg, what was lost, what is left."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from made_recordings import X264, strip_picture, write_video

from bench.analysis.decoding import QUIET
from bench.analysis.strip import WRAP_MS
from bench.recording_faults import lost_before_s
from bench.recording_fidelity import thread_times_s
from bench.residue import find_residue
from bench.standstills import Standstill, Standstills, watched_standstills

KILLED_MS = 1_700_000_000_000
NOBODY = range(4_000_000_000, 4_000_000_001)


@pytest.mark.process
def test_what_a_killed_recording_lacks_is_told_by_its_newest_drawing_before_the_kill(tmp_path: Path) -> None:
    times_ms = [KILLED_MS - 2_000 + number * 100 for number in range(12)]
    pictures = [strip_picture(time_ms % WRAP_MS, number + 1) for number, time_ms in enumerate(times_ms)]
    film = write_video(tmp_path / "a.mp4", pictures)
    assert lost_before_s(film, KILLED_MS / 1000, began_s=0) == pytest.approx(0.9)
    longer = [*pictures, *(strip_picture((KILLED_MS + ms) % WRAP_MS, 20 + ms) for ms in (0, 500))]
    film = write_video(tmp_path / "b.mp4", longer)
    assert lost_before_s(film, KILLED_MS / 1000, began_s=0) == 0
    film.write_bytes(b"torn")
    assert lost_before_s(film, 30, began_s=10) == 20
    assert lost_before_s(tmp_path / "nothing.mp4", 30, began_s=10) == 20


@pytest.mark.process
def test_an_ffmpegs_threads_are_told_by_what_they_do() -> None:
    source = ("-re", "-f", "lavfi", "-i", "testsrc2=size=320x180:rate=30")
    command = [*QUIET, *source, "-vf", "scale=160:90", *X264, "-f", "null", "-progress", "-", "-"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        process.stdout.readline()  # It has said something, so its threads are there.
        found = thread_times_s(psutil.Process(process.pid))
        process.kill()
    assert found.keys() == {"look", "convert", "encode"}


def test_processes_sockets_and_folders_that_are_left_are_found_and_others_are_not() -> None:
    with tempfile.TemporaryDirectory() as name:
        run_dir = Path(name) / "run"
        assert find_residue(run_dir, NOBODY).count == 0
        (run_dir / "display").mkdir(parents=True)
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(run_dir / "display" / "sound"))
            sleeper = subprocess.Popen(
                [sys.executable, "-c", "input()"], stdin=subprocess.PIPE, env={**os.environ, "HOME": str(run_dir)}
            )
            left = find_residue(run_dir, NOBODY)
            sleeper.send_signal(signal.SIGKILL)
            sleeper.communicate()
        assert [len(kind) for kind in (left.processes, left.sockets, left.locks, left.folders)] == [1, 1, 0, 1]
        assert "1 processes" in str(left)
    assert str(find_residue(run_dir, NOBODY)) == "nothing"


def is_watcher(process: psutil.Process) -> bool:
    """Tells whether a process watches for standstills. Others' children may just have ended."""
    with suppress(psutil.Error):
        return any("standstills" in word for word in process.cmdline())
    return False


def watches(watcher: psutil.Process) -> bool:
    """Tells whether a watcher goes before all others by now, or has ended because it may not."""
    try:
        return os.sched_getscheduler(watcher.pid) == os.SCHED_FIFO or watcher.status() == psutil.STATUS_ZOMBIE
    except (ProcessLookupError, psutil.Error):
        return True


def test_standstills_of_the_machine_are_told_or_that_they_cannot_be() -> None:
    with watched_standstills() as told:
        watchers = [one for one in psutil.Process().children() if is_watcher(one)]
        deadline_s = time.monotonic() + 20
        while not all(map(watches, watchers)) and time.monotonic() < deadline_s:
            time.sleep(0.05)
        time.sleep(0.1)
        # Whoever goes before all others and does not run is what a machine that stands still looks like.
        for watcher in watchers:
            watcher.suspend()
        time.sleep(0.2)
        for watcher in watchers:
            watcher.resume()
        time.sleep(0.1)
    if told.known:
        assert len(watchers) == len(os.sched_getaffinity(0))
        assert len(told.found) >= len(watchers)
    assert all(one.end_s - one.begin_s > 0.02 for one in told.found)
    assert str(Standstills()) == "the machine never stood still"
    assert str(Standstills(known=False)) == "whether the machine stood still is not known"
    stood = Standstills(found=[Standstill(1.0, 1.03), Standstill(5.0, 5.1)])
    assert str(stood) == "the machine stood still 2 times, 0.100 s at most"
