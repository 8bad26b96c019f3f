"""Second act: a film and live sessions share a device that has room for one of them, and the daemon is killed beneath.

The device is one core, so that a film is as fast on a large machine as on a small one, and its speed in the settings is
twice what a live session takes. So a live session books a little more than half of it, and within the headroom of 0.9
there is room for one of them and a tenth of a film, never for two.
"""

from __future__ import annotations

import os
import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

from demo.daemon import Daemon, Missed, eventually
from demo.films import frames_of, make_clip
from demo.stage import Check, note, step
from gpu_balancer.client import Client
from gpu_balancer.v1.session_pb2 import (
    SESSION_STATE_QUEUED,
    SESSION_STATE_RUNNING,
    SESSION_STATE_SUCCEEDED,
    Session,
    SessionState,
)

CLIP_S = 12
CLIP_COUNT = 5
"""How often the film shows the clip: so long that a fast core is not through with it before the live session comes."""
LIVE_PIXELS_PER_SECOND = 480 * 270 * 30
CANNOT_BE_REACHED = 4
"""The exit status of `gpu-balancer` that says so."""
_WINDOW_S = 3.0


def play(daemon: Daemon, output: Path) -> Iterator[Check]:
    """Plays the act and gives its checks, each one once it was made."""
    for name in ("live-1", "live-2"):
        shutil.rmtree(output / name, ignore_errors=True)
    (output / "film.mp4").unlink(missing_ok=True)
    clip = output / "clip.mp4"
    make_clip(clip, CLIP_S)
    step("A device of one core, said to carry one small live session beside a film")
    daemon.start(_settings(output))
    daemon.cli("devices")
    film = yield from _film_runs_free(daemon, clip, output)
    first = yield from _live_joins(daemon, clip, output, film)
    second = yield from _live_waits(daemon, clip, output)
    yield from _daemon_is_killed(daemon, output, [film, first, second])
    yield from _room_is_made(daemon, first, second)
    yield from _film_ends_whole(daemon, clip, output, film, second)


def _settings(output: Path) -> str:
    return (
        f'[inputs]\nroots = ["{output}"]\n[outputs]\nroots = ["{output}"]\n'
        f'[[cpu_devices]]\nname = "cpu-0"\ncores = "{max(os.sched_getaffinity(0))}"\n'
        f"encode_pixels_per_second = {2 * LIVE_PIXELS_PER_SECOND}\n"
        # What GPUs there are stay out of this act.
        '[[devices]]\nmatch = "*"\nweight = 0\n'
    )


def _film_runs_free(daemon: Daemon, clip: Path, output: Path) -> Iterator[Check]:
    step("A film, BATCH work: it runs as fast as it goes")
    repeat = ["--repeat", str(CLIP_COUNT - 1), "--speed", "thorough"]
    film = daemon.submit("transcode", str(clip), *repeat, "--label", "is=film", "--server-output", f"{output}/film.mp4")
    with daemon.client() as client:
        alone = eventually(lambda: _with_speed(client.get_session(film)), "the film runs")
    note(f"It runs at {alone.progress.speed:.2g} times real time.")
    free = not alone.HasField("speed_limit")
    yield Check(what="film, alone", found=f"{alone.progress.speed:.2g}x, as fast as it goes", passed=free)
    return film


def _live(clip: Path, output: Path, name: str) -> list[str]:
    playing = ["--native-rate", "--loop", "--label", f"is={name}", "--server-output", f"{output}/{name}"]
    return [str(clip), *playing, "--keyframe-interval", "1", "--segment-duration", "1"]


def _live_joins(daemon: Daemon, clip: Path, output: Path, film: str) -> Iterator[Check]:
    step("A live session joins it: what it needs is booked, and the film gets what is left")
    first = daemon.submit("transcode", *_live(clip, output, "live-1"))
    with daemon.client() as client:
        eventually(lambda: _is_running(client.get_session(first)), "the live session runs")
        held = eventually(lambda: _if_held(client.get_session(film)), "the film is held at a speed")
        if not _is_running(held):
            raise Missed("The film was through before the live session came.")
        speed = eventually(lambda: _speed_if_held(client, held), "it runs no faster than that")
        held = client.get_session(film)
    _show_sessions(daemon)
    note(f"The film is at {speed:.2g}x now, by the last {_WINDOW_S:g} s.")
    found = f"held at {held.speed_limit:.2g}x, runs at {speed:.2g}x"
    yield Check(what="film, beside live work", found=found, passed=_is_running(held))
    return first


def _live_waits(daemon: Daemon, clip: Path, output: Path) -> Iterator[Check]:
    step("There is no room for a second one: it waits")
    second = daemon.submit("transcode", *_live(clip, output, "live-2"), "--wait-for-device", "5m")
    with daemon.client() as client:
        waits = eventually(lambda: _if_placed_in_queue(client.get_session(second)), "it has a place in the queue")
    _show_sessions(daemon)
    yield Check(
        what="second live session", found=f"waits, place {waits.queue.position}", passed=waits.queue.position == 1
    )
    return second


def _daemon_is_killed(daemon: Daemon, output: Path, names: list[str]) -> Iterator[Check]:
    step("The daemon is killed: SIGKILL, no warning")
    with daemon.client() as client:
        before = [client.get_session(name) for name in names]
    daemon.kill()
    status = daemon.cli("sessions")
    yield Check(
        what="daemon killed, nobody there",
        found=f"the command says so, status {status}",
        passed=status == CANNOT_BE_REACHED,
    )
    shown = _newest_segment(output / "live-1")
    grown = eventually(lambda: _later(_newest_segment(output / "live-1"), shown + 2), "the live stream goes on")
    note(f"Nobody is there, and live-1 goes on: segment {shown}, now {grown}.")
    yield Check(what="live-1 meanwhile", found=f"from segment {shown} to {grown}", passed=grown > shown)
    step("It is started again")
    daemon.start()
    with daemon.client() as client:
        eventually(lambda: all(_is_as_it_was(client, session) for session in before), "all are known again")
        waits = eventually(lambda: _if_placed_in_queue(client.get_session(names[-1])), "the queue is as it was")
        eventually(lambda: _if_held(client.get_session(names[0])), "the film is held as before")
        for session in before[:-1]:
            after = eventually(lambda was=session: _if_further(client, was), "a session goes on")
            found = f"frame {session.progress.frames}, after the restart {after.progress.frames}"
            what = f"{after.labels['is']} over the restart"
            yield Check(what=what, found=found, passed=after.attempt == session.attempt)
    _show_sessions(daemon)
    found = f"waits, place {waits.queue.position}"
    yield Check(what="live-2 over the restart", found=found, passed=waits.queue.position == 1)


def _room_is_made(daemon: Daemon, first: str, second: str) -> Iterator[Check]:
    step("The first live session is stopped; the one that waits gets its room")
    daemon.cli("stop", first)
    with daemon.client() as client:
        runs = eventually(lambda: _if_runs(client.get_session(second)), "the session that waited runs")
        told = [placement.device for placement in client.explain(second)]
    yield Check(
        what="second live session, then",
        found=f"runs on {runs.device.removeprefix('devices/')}",
        passed=_is_running(runs),
    )
    step("Why did it wait, and why does it run there?")
    status = daemon.cli("explain", second)
    passed = status == 0 and told == ["", runs.device]
    yield Check(what="explained", found="refused first, placed later" if passed else f"{told}", passed=passed)


def _film_ends_whole(daemon: Daemon, clip: Path, output: Path, film: str, second: str) -> Iterator[Check]:
    step("The second one is stopped too; the film is let go and runs to its end")
    daemon.cli("stop", second)
    daemon.cli("watch", film)
    with daemon.client() as client:
        ended = client.get_session(film)
    state = SessionState.Name(ended.state).removeprefix("SESSION_STATE_").lower()
    found, passed = f"{state}, attempt {ended.attempt}", ended.state == SESSION_STATE_SUCCEEDED and ended.attempt == 1
    yield Check(what="film", found=found, passed=passed)
    frames, expected = frames_of(output / "film.mp4"), CLIP_COUNT * frames_of(clip)
    yield Check(what="film.mp4, decoded", found=f"{frames} of {expected} frames", passed=frames == expected > 0)


def _show_sessions(daemon: Daemon) -> None:
    daemon.cli("sessions", "--state", "running", "--state", "queued")


def _is_running(session: Session) -> bool:
    return session.state == SESSION_STATE_RUNNING


def _with_speed(session: Session) -> Session | None:
    return session if _is_running(session) and session.progress.speed > 0 else None


def _if_held(session: Session) -> Session | None:
    """Gives a session that is held at a speed; one that has ended too, or it would be awaited in vain."""
    return session if session.HasField("speed_limit") or not _is_running(session) else None


def _speed_if_held(client: Client, held: Session) -> float | None:
    """Looks at a session for some seconds and gives its speed if it is about the one at which it is held."""
    began_s, before = time.monotonic(), client.get_session(held.name).progress.out_time.ToTimedelta()
    time.sleep(_WINDOW_S)
    made = client.get_session(held.name).progress.out_time.ToTimedelta() - before
    speed = made.total_seconds() / (time.monotonic() - began_s)
    # Progress is told once a second, so a few seconds of it are no exact figure.
    return speed if 0 < speed <= 2 * held.speed_limit else None


def _if_placed_in_queue(session: Session) -> Session | None:
    waits = session.state == SESSION_STATE_QUEUED and session.queue.position
    return session if waits else None


def _if_runs(session: Session) -> Session | None:
    return session if _is_running(session) and session.progress.frames else None


def _if_further(client: Client, before: Session) -> Session | None:
    after = client.get_session(before.name)
    return after if after.progress.frames > before.progress.frames else None


def _is_as_it_was(client: Client, before: Session) -> bool:
    """Tells whether a session is where it was. A film may have come to its end meanwhile."""
    state = client.get_session(before.name).state
    return state == before.state or (before.labels["is"] == "film" and state == SESSION_STATE_SUCCEEDED)


def _newest_segment(folder: Path) -> int:
    """Gives the number of the newest segment of an HLS presentation with one rendition; 0 before there is one."""
    text = "".join(path.read_text() for path in folder.glob("*/*.m3u8"))
    first = re.search(r"#EXT-X-MEDIA-SEQUENCE:(\d+)", text)
    return (int(first[1]) if first else 0) + text.count("#EXTINF:")


def _later(number: int, least: int) -> int | None:
    return number if number >= least else None
