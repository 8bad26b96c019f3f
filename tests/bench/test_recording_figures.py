"""What the recording benchmark finds beside a recording: threads of an ffmpeg, what was lost, what is left."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from made_recordings import X264, strip_picture, write_video

from bench.analysis.decoding import QUIET, SOUND_RATE_HZ
from bench.analysis.killed_file import measure_lack
from bench.analysis.strip import WRAP_MS
from bench.recording_fidelity import thread_times_s
from bench.residue import find_residue
from bench.standstills import Standstill, Standstills, watched_standstills

KILLED_MS = 1_700_000_000_000
NOBODY = range(4_000_000_000, 4_000_000_001)


def write_killed(path: Path, ages_ms: Sequence[int], *, sound_s: float) -> Path:
    """Encodes a film, ten pictures a second, whose pictures were drawn so long before the kill."""
    pictures = [strip_picture((KILLED_MS - age_ms) % WRAP_MS, number + 1) for number, age_ms in enumerate(ages_ms)]
    raw = path.with_suffix(".pcm")
    raw.write_bytes(bytes(2 * int(sound_s * SOUND_RATE_HZ)))
    return write_video(path, pictures, rate=10, sound=raw)


def told(film: Path) -> tuple[float, float, float, float]:
    """Tells what a film lacks of the two seconds before the kill: begin, inside, end, sound."""
    lack = measure_lack(film, began_s=KILLED_MS / 1000 - 2, killed_s=KILLED_MS / 1000)
    return lack.begin_s, lack.inside_s, lack.end_s, lack.sound_s


@pytest.mark.process
@pytest.mark.parametrize(
    ("ages_ms", "sound_s", "lack"),
    [
        (range(2000, -1, -100), 2.1, (0, 0, 0, 0)),
        (range(2000, -600, -100), 2.6, (0, 0, 0, 0)),  # ffmpeg lived on
        (range(2000, 800, -100), 1.2, (0, 0, 0.9, 0.8)),
        (range(1500, -1, -100), 1.6, (0.5, 0, 0, 0)),
        ([*range(2000, 1500, -100), *range(800, -1, -100)], 1.4, (0, 0.7, 0, 0)),
        (range(2000, -1, -100), 0.5, (0, 0, 0, 1.5)),
    ],
)
def test_what_a_killed_recording_lacks_is_told_of_its_begin_its_middle_its_end_and_its_sound(
    ages_ms: Sequence[int], sound_s: float, lack: tuple[float, ...], tmp_path: Path
) -> None:
    film = write_killed(tmp_path / "a.mp4", ages_ms, sound_s=sound_s)
    assert told(film) == pytest.approx(lack, abs=0.03)


@pytest.mark.process
def test_a_killed_recording_that_does_not_decode_lacks_everything(tmp_path: Path) -> None:
    film = write_killed(tmp_path / "a.mp4", range(2000, -1, -100), sound_s=2.1)
    whole = film.read_bytes()
    middle = whole.index(b"mdat") + len(whole) // 3
    film.write_bytes(whole[:middle] + bytes(2000) + whole[middle + 2000 :])
    assert told(film) == pytest.approx((2, 0, 0, 2))
    film.write_bytes(b"torn")
    assert told(film) == pytest.approx((2, 0, 0, 2))
    assert told(tmp_path / "nothing.mp4") == pytest.approx((2, 0, 0, 2))
    assert told(write_killed(tmp_path / "late.mp4", range(-100, -600, -100), sound_s=1)) == pytest.approx((2, 0, 0, 2))


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
        (run_dir / "users").mkdir(parents=True)
        assert find_residue(run_dir, NOBODY).count == 0
        (run_dir / "agent" / "display").mkdir(parents=True)
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(run_dir / "agent" / "display" / "sound"))
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
