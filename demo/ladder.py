"""First act: one session, a real video, a three-rung H.264 ladder as MP4 and as HLS, and a look at every result."""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

from demo.daemon import Daemon
from demo.films import describe, frames_of, seconds_of
from demo.stage import Check, note, step

RUNGS = {"720p": 720, "480p": 480, "360p": 360}


def play(daemon: Daemon, source: Path, output: Path) -> Iterator[Check]:
    """Plays the act and gives its checks, each one once it was made."""
    rungs = [part for name in RUNGS for part in ("-r", name)]
    shutil.rmtree(output / "hls", ignore_errors=True)
    for name in RUNGS:
        (output / f"{name}.mp4").unlink(missing_ok=True)
    step("Starting gpu-balancerd: no settings but folders, it finds its devices by trying them")
    daemon.start(f'[inputs]\nroots = ["{source.parent}"]\n')
    daemon.cli("devices")
    step("Where would it go, and why?")
    status = daemon.cli("plan", str(source), *rungs)
    yield Check(
        what="placement planned", found="a device was chosen" if status == 0 else f"status {status}", passed=status == 0
    )
    step("One session: decoded once, three renditions, as MP4 files and as HLS")
    began_s = time.monotonic()
    status = daemon.cli("transcode", str(source), "-o", f"{output}/{{rendition}}.mp4", "--hls", f"{output}/hls", *rungs)
    yield Check(what="transcoded", found=f"in {time.monotonic() - began_s:.1f} s", passed=status == 0)
    step("Looking at what came out: every frame is decoded")
    for name, height in RUNGS.items():
        yield from _check_file(source, output / f"{name}.mp4", height)
    yield from _check_hls(source, output / "hls")
    note(f"Play {output}/720p.mp4 or {output}/hls/master.m3u8.")


def _check_file(source: Path, path: Path, height: int) -> Iterator[Check]:
    if not path.is_file():
        yield Check(what=path.name, found="no such file", passed=False)
        return
    facts, has_sound = describe(path).facts, describe(source).facts.has_audio
    found = f"{facts.video_codec} {facts.width}x{facts.height}, {facts.audio_codec or 'no sound'}"
    alike = abs(seconds_of(path) - seconds_of(source)) < 0.5
    right = facts.video_codec == "h264" and facts.height == height and bool(facts.has_audio) == bool(has_sound)
    yield Check(what=path.name, found=f"{found}, {seconds_of(path):.2f} s", passed=right and alike)
    frames, expected = frames_of(path), frames_of(source)
    yield Check(what=f"{path.name}, decoded", found=f"{frames} of {expected} frames", passed=frames == expected > 0)


def _check_hls(source: Path, folder: Path) -> Iterator[Check]:
    master = folder / "master.m3u8"
    if not master.is_file():
        yield Check(what="HLS", found="no master playlist", passed=False)
        return
    playlists = re.findall(r"^#EXT-X-STREAM-INF:.*RESOLUTION=.*\n(\S+)", master.read_text(), re.MULTILINE)
    yield Check(what="HLS master", found=f"{len(playlists)} renditions", passed=len(playlists) == len(RUNGS))
    starts = []
    for name in playlists:
        text = (folder / name).read_text()
        durations = [float(value) for value in re.findall(r"#EXTINF:([\d.]+)", text)]
        starts.append([round(sum(durations[:index]), 2) for index in range(len(durations))])
        whole = abs(sum(durations) - seconds_of(source)) < 0.5 and "#EXT-X-ENDLIST" in text
        frames = frames_of(folder / name)
        found = f"{len(durations)} segments, {sum(durations):.2f} s, {frames} frames"
        yield Check(what=f"HLS {name}", found=found, passed=whole and frames > 0)
    aligned = all(start == starts[0] for start in starts)
    yield Check(what="HLS segments", found="begin at the same times" if aligned else "differ", passed=aligned)
