"""The product in two minutes: a daemon, a real video, a ladder, checked.

    python demo/ladder.py [--input FILE] [--output FOLDER] [--seconds N]

It starts `gpu-balancerd` with no settings but a state folder of its own, makes a video with moving content and sound
unless one is given, asks where it would go and why, transcodes it in one session into a three-rung H.264 ladder as MP4
and as HLS, looks at every result with ffmpeg, and stops everything again. It ends with status 0 only when every check
passed.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import imageio_ffmpeg
from rich.console import Console
from rich.table import Table

from agents.pipelines.input_description import parse_input_description

BIN = Path(sys.executable).parent
FFMPEG = imageio_ffmpeg.get_ffmpeg_exe()
RUNGS = {"720p": 720, "480p": 480, "360p": 360}
console = Console(highlight=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One thing that was looked at."""

    what: str
    found: str
    passed: bool


def main() -> int:
    """Runs the demonstration; returns 0 when every check passed."""
    arguments = _arguments()
    output = arguments.output.resolve()
    output.mkdir(parents=True, exist_ok=True)
    source = arguments.input.resolve() if arguments.input else _make_video(output, arguments.seconds)
    with tempfile.TemporaryDirectory(prefix="gpu-balancer-demo-") as scratch:
        state_dir = Path(scratch) / "state"
        environment = os.environ | {"GPU_BALANCER_ADDRESS": f"unix:{state_dir}/balancer.sock"}
        settings = Path(scratch) / "balancer.toml"
        # Ports are left to the system, so that the demonstration never meets a daemon that already runs.
        settings.write_text(
            f'[server]\nlisten = ["unix:{state_dir}/balancer.sock"]\nhttp = "127.0.0.1:0"\n'
            f'[inputs]\nroots = ["{source.parent}"]\n'
        )
        daemon = subprocess.Popen(
            [BIN / "gpu-balancerd", "--config", settings, "--state-dir", state_dir],
            stderr=(output / "gpu-balancerd.log").open("wb"),
        )
        try:
            _await_daemon(daemon, environment, output)
            passed = _transcode_and_check(source, output, environment)
        finally:
            stopped = _stop(daemon, environment, state_dir)
    return 0 if passed and stopped else 1


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--input", type=Path, help="a video of your own; default: one is made")
    parser.add_argument("--output", type=Path, default=Path("demo-output"), help="where results go")
    parser.add_argument("--seconds", type=int, default=20, help="length of the video that is made")
    arguments = parser.parse_args()
    if arguments.input and not arguments.input.is_file():
        parser.error(f"Cannot read {arguments.input}: no such file.")
    return arguments


def _step(text: str) -> None:
    console.print(f"\n[bold cyan]▶ {text}[/]")


def _make_video(output: Path, seconds: int) -> Path:
    path = output / "source.mp4"
    _step(f"Making a video: {seconds} s of 1280x720 at 30 frames/s, moving, with sound")
    picture = f"mandelbrot=size=1280x720:rate=30:end_pts={seconds * 30}:maxiter=400,format=yuv420p"
    overlay = "testsrc2=size=320x180:rate=30"
    sound = f"aevalsrc='0.3*sin(2*PI*(220+110*floor(mod(t,4)))*t)':s=48000:d={seconds}"
    command = [FFMPEG, "-hide_banner", "-loglevel", "error", "-y", "-f", "lavfi", "-i", picture, "-f", "lavfi"]
    command += ["-i", overlay, "-f", "lavfi", "-i", sound, "-filter_complex", "[0:v][1:v]overlay=W-w-24:24[v]"]
    command += ["-map", "[v]", "-map", "2:a", "-t", str(seconds), "-c:v", "libx264", "-preset", "veryfast"]
    command += ["-pix_fmt", "yuv420p", "-c:a", "aac", "-movflags", "+faststart", str(path)]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
    console.print(f"  {path}, {path.stat().st_size / 1e6:.1f} MB")
    return path


def _await_daemon(daemon: subprocess.Popen[bytes], environment: dict[str, str], output: Path) -> None:
    _step("Starting gpu-balancerd")
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and daemon.poll() is None:
        devices = _cli(["devices", "--json"], environment, quiet=True)
        if devices.returncode == 0 and '"DEVICE_STATE_READY"' in devices.stdout:
            return
        time.sleep(0.2)
    raise SystemExit(f"Cannot start the daemon. Its log is {output / 'gpu-balancerd.log'}.")


def _cli(arguments: list[str], environment: dict[str, str], *, quiet: bool = False) -> subprocess.CompletedProcess[str]:
    if not quiet:
        console.print(f"[dim]$ gpu-balancer {' '.join(arguments)}[/]")
    return subprocess.run(
        [str(BIN / "gpu-balancer"), *arguments], env=environment, capture_output=quiet, text=True, check=False
    )


def _transcode_and_check(source: Path, output: Path, environment: dict[str, str]) -> bool:
    rungs = [part for name, height in RUNGS.items() for part in ("--rendition", _rendition(name, height))]
    targets = ["-o", f"{output}/{{rendition}}.mp4", "--hls", f"{output}/hls", "-y"]
    shutil.rmtree(output / "hls", ignore_errors=True)
    _step("The devices of this machine")
    _cli(["devices"], environment)
    _step("Where would it go, and why?")
    _cli(["plan", str(source), *rungs], environment)
    _step("One session: decoded once, three renditions, as MP4 files and as HLS")
    began = time.monotonic()
    done = _cli(["transcode", str(source), *targets, *rungs], environment)
    took_s = time.monotonic() - began
    if done.returncode != 0:
        console.print(f"[red]The transcode failed with status {done.returncode}.[/]")
        return False
    _step("Looking at what came out")
    checks = [check for name in RUNGS for check in _check_file(source, output / f"{name}.mp4", RUNGS[name])]
    checks += _check_hls(source, output / "hls")
    table = Table("what", "found", "")
    for check in checks:
        table.add_row(check.what, check.found, "[green]ok[/]" if check.passed else "[bold red]WRONG[/]")
    console.print(table)
    console.print(f"Done in {took_s:.1f} s. Play {output}/720p.mp4 or {output}/hls/master.m3u8.")
    return all(check.passed for check in checks)


def _rendition(name: str, height: int) -> str:
    del name  # the size names the rendition
    return f"{height * 16 // 9 // 2 * 2}x{height}"


def _describe(path: Path):
    """Lets ffmpeg open a file and tells what it found."""
    shown = subprocess.run(
        [FFMPEG, "-hide_banner", "-i", str(path)], capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL
    )
    return parse_input_description(shown.stderr)


def _frames(path: Path) -> int:
    """Decodes a file wholly and counts its frames; 0 when anything in it is broken."""
    command = [
        FFMPEG,
        "-hide_banner",
        "-v",
        "error",
        "-stats",
        "-xerror",
        "-i",
        str(path),
        "-map",
        "0:v:0",
        "-f",
        "null",
        "-",
    ]
    decoded = subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    counts = re.findall(r"frame=\s*(\d+)", decoded.stderr)
    return int(counts[-1]) if decoded.returncode == 0 and counts else 0


def _check_file(source: Path, path: Path, height: int) -> list[Check]:
    if not path.is_file():
        return [Check(what=path.name, found="no such file", passed=False)]
    before, after = _describe(source), _describe(path)
    frames, expected = _frames(path), _frames(source)
    facts = after.facts
    shown = (
        f"{facts.video_codec} {facts.width}x{facts.height}, {facts.audio_codec or 'no sound'}, {_seconds(facts):.2f} s"
    )
    alike = abs(_seconds(facts) - _seconds(before.facts)) < 0.5
    right = (
        facts.video_codec == "h264" and facts.height == height and bool(facts.has_audio) == bool(before.facts.has_audio)
    )
    return [
        Check(what=path.name, found=shown, passed=right and alike),
        Check(what=f"{path.name}, decoded", found=f"{frames} of {expected} frames", passed=frames == expected > 0),
    ]


def _seconds(facts) -> float:
    return facts.duration.total_seconds() if facts.duration else 0.0


def _check_hls(source: Path, folder: Path) -> list[Check]:
    master = folder / "master.m3u8"
    if not master.is_file():
        return [Check(what="HLS", found="no master playlist", passed=False)]
    text = master.read_text()
    playlists = re.findall(r"^#EXT-X-STREAM-INF:.*RESOLUTION=.*\n(\S+)", text, re.MULTILINE)
    checks = [Check(what="HLS master", found=f"{len(playlists)} renditions", passed=len(playlists) == len(RUNGS))]
    starts = []
    for name in playlists:
        text = (folder / name).read_text()
        durations = [float(value) for value in re.findall(r"#EXTINF:([\d.]+)", text)]
        starts.append([round(sum(durations[:index]), 2) for index in range(len(durations))])
        whole = abs(sum(durations) - _seconds(_describe(source).facts)) < 0.5 and "#EXT-X-ENDLIST" in text
        frames = _frames(folder / name)
        found = f"{len(durations)} segments, {sum(durations):.2f} s, {frames} frames"
        checks.append(Check(what=f"HLS {name}", found=found, passed=whole and frames > 0))
    aligned = all(start == starts[0] for start in starts)
    return [
        *checks,
        Check(what="HLS segments", found="begin at the same times" if aligned else "differ", passed=aligned),
    ]


def _stop(daemon: subprocess.Popen[bytes], environment: dict[str, str], state_dir: Path) -> bool:
    _step("Stopping everything")
    if daemon.poll() is None:
        _cli(["shutdown", "--stop-sessions"], environment)
    try:
        status = daemon.wait(20)
    except subprocess.TimeoutExpired:
        daemon.send_signal(signal.SIGKILL)
        status = daemon.wait()
    left = _await_none_left(str(state_dir))
    console.print("  Nothing is left running." if not left else f"[red]  Left running: {left}[/]")
    return status == 0 and not left


def _await_none_left(mark: str) -> list[int]:
    """Waits up to 10 s until no process has the state folder in its command line; gives those that still do."""
    deadline = time.monotonic() + 10
    while (left := _processes_of(mark)) and time.monotonic() < deadline:
        time.sleep(0.1)
    return left


def _processes_of(mark: str) -> list[int]:
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            command = (folder / "cmdline").read_bytes().decode(errors="replace")
        except OSError:
            continue
        if mark in command and int(folder.name) != os.getpid():
            found.append(int(folder.name))
    return found


if __name__ == "__main__":
    sys.exit(main())
