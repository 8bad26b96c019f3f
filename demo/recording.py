"""Third act: a web page is recorded. It is looked at, rests for a while, and goes on while daemon and agent are killed.

The page counts what it draws in a strip of black and white cells, so every frame of the file can be asked what it
shows.
"""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

from bench.analysis.media_file import is_faststart, measure_playable
from bench.analysis.strip import count_frames, read_strip
from bench.pages.server import serve_pages
from demo.daemon import Daemon, Missed, eventually
from demo.stage import Check, note, show_command, step
from gpu_balancer.client import Client
from gpu_balancer.v1.session_pb2 import SESSION_STATE_RUNNING, SESSION_STATE_SUCCEEDED, Session

FRAME_RATE = 30
STRETCH_S = 3.0
"""How long each stretch of the recording is, at least."""
PROGRAMS = ("Xvfb", "openbox", "pulseaudio", "chromium")


def play(daemon: Daemon, output: Path) -> Iterator[Check]:
    """Plays the act and gives its checks, each one once it was made."""
    lacking = [program for program in PROGRAMS if shutil.which(program) is None]
    if lacking:
        note(f"Left out: this machine lacks {', '.join(lacking)}. Try `make system-packages` as root.")
        return
    folder = output / "recording"
    shutil.rmtree(folder, ignore_errors=True)
    with serve_pages() as pages:
        step("A page that counts what it draws, recorded on a display of its own")
        # The page is served by this machine.
        daemon.start("[inputs]\nallow_private_networks = true\n[recordings]\nprewarm = true\n")
        with daemon.client() as client:
            eventually(
                lambda: any(device.recording.ready_display_count for device in client.list_devices()), "a display"
            )
        name = daemon.submit("record", pages.url("counter"), "--size", "1280x720")
        with daemon.client() as client:
            eventually(lambda: _recorded(client, name, STRETCH_S), "the page is recorded")
            began_s = client.get_session(name).recording_report.start_time.ToTimedelta().total_seconds()
        yield Check(what="first picture", found=f"{began_s:.2f} s after the request", passed=began_s > 0)
        yield from _is_looked_at(daemon, name, output)
        yield from _rests(daemon, name)
        yield from _is_left_alone(daemon, name)
        yield from _is_whole(daemon, name, folder)


def _recorded(client: Client, name: str, seconds: float) -> bool:
    session = client.get_session(name)
    if session.failure.reason:
        raise Missed(f"The recording failed: {session.failure.message}")
    done = session.progress.out_time.ToTimedelta() if session.HasField("progress") else timedelta()
    return session.state == SESSION_STATE_RUNNING and done.total_seconds() >= seconds


def _is_looked_at(daemon: Daemon, name: str, output: Path) -> Iterator[Check]:
    picture = output / "snapshot.png"
    picture.unlink(missing_ok=True)
    status = daemon.cli("snapshot", name, "-o", str(picture))
    size = picture.stat().st_size if picture.exists() else 0
    yield Check(
        what="a picture of it now", found=f"snapshot.png, {size / 1000:.0f} kB", passed=status == 0 and size > 0
    )


def _rests(daemon: Daemon, name: str) -> Iterator[Check]:
    step("It rests: nothing is recorded, and its file will show no gap")
    daemon.cli("pause", name)
    with daemon.client() as client:
        before = eventually(lambda: _paused(client.get_session(name)), "it rests").progress.frames
        time.sleep(1)
        after = client.get_session(name).progress.frames
        yield Check(what="while it rested", found=f"{after - before} frames recorded", passed=after == before)
        daemon.cli("resume", name)
        eventually(lambda: client.get_session(name).progress.frames > after, "it goes on")


def _paused(session: Session) -> Session | None:
    return session if any(condition.type == "PAUSED" for condition in session.conditions) else None


def _is_left_alone(daemon: Daemon, name: str) -> Iterator[Check]:
    step("Balancer and agent are killed, and started again, while it records")
    with daemon.client() as client:
        frames = client.get_session(name).progress.frames
    for pid in daemon.agents():
        show_command(["kill", "-KILL", str(pid)])
        os.kill(pid, signal.SIGKILL)
    daemon.kill()
    time.sleep(1)
    daemon.start()
    with daemon.client() as client:
        eventually(lambda: client.get_session(name).progress.frames > frames, "it is heard of again")
        goes_on = client.get_session(name).state == SESSION_STATE_RUNNING
    yield Check(what="the recording, then", found="went on without them", passed=goes_on)


def _is_whole(daemon: Daemon, name: str, folder: Path) -> Iterator[Check]:
    step("It is stopped, and every frame is asked what it shows")
    daemon.cli("stop", name)
    with daemon.client() as client:
        ended = eventually(lambda: _ended(client.get_session(name)), "it ends")
        client.download_artifacts(name, folder)
    daemon.cli("session", name)
    report = ended.recording_report
    yield Check(
        what="it ended",
        found=f"{report.end_cause}, {report.take_count} takes",
        passed=ended.state == SESSION_STATE_SUCCEEDED,
    )
    film = folder / "recording.mp4"
    playable = measure_playable(film)
    in_front = is_faststart(film)
    found = f"{playable.seconds:.1f} s, {'seekable at once' if in_front else 'index behind'}"
    yield Check(what="recording.mp4", found=found, passed=playable.seconds >= 2 * STRETCH_S and in_front)
    count = count_frames(read_strip(film), frame_rate=FRAME_RATE)
    told = f"{count.frames} frames, {count.leading_unreadable} before the page, {count.unreadable} unreadable"
    yield Check(what="what they show", found=told, passed=count.leading_unreadable == 0 and count.unreadable == 0)
    told = f"{report.captured_frames} captured, {report.duplicated_frames} repeated, {report.dropped_frames} dropped"
    yield Check(what="what the report says", found=told, passed=report.encoded_frames == count.frames)


def _ended(session: Session) -> Session | None:
    return session if session.HasField("end_time") else None
