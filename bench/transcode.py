"""The daemon's own price: a transcode through it against the same argv by hand; one ladder against three runs."""

from __future__ import annotations

import json
import shutil
import statistics
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import imageio_ffmpeg

from bench.daemons import BenchDaemon, bench_daemon
from bench.measuring import Figure, make_video, median_ratio, pairs, process_cpu_s, run_spent, spread
from gpu_balancer.v1 import media_pb2, session_pb2

if TYPE_CHECKING:
    from gpu_balancer import Client


def measure(*, pair_count: int = 5, seconds: int = 24, height: int = 720) -> list[Figure]:
    """Measures both claims.

    Args:
        pair_count: Counted pairs.
        seconds: Length of the source.
        height: Of the source, and of the highest of three rungs, in pixels. Divisible by 36.
    """
    ladder = (height, height * 2 // 3, height // 2)
    with tempfile.TemporaryDirectory(prefix="gpu-balancer-bench-") as scratch:
        source = Path(scratch) / "source.mp4"
        make_video(imageio_ffmpeg.get_ffmpeg_exe(), source, seconds=seconds, size=f"{height * 16 // 9}x{height}")
        with bench_daemon(f'[inputs]\nroots = ["{scratch}"]\n') as daemon, daemon.client() as client:
            daemon.await_ready()
            return [
                *_overhead(daemon, client, source, Path(scratch), pair_count, ladder[1]),
                *_ladder(daemon, client, source, Path(scratch), pair_count, ladder),
            ]


def _session(source: Path, heights: tuple[int, ...]) -> session_pb2.Session:
    renditions = [
        media_pb2.Rendition(
            id=f"{height}p",
            encode=media_pb2.VideoEncoding(
                codec=media_pb2.VIDEO_CODEC_H264, height=height, speed=media_pb2.ENCODING_SPEED_FAST
            ),
        )
        for height in heights
    ]
    return session_pb2.Session(
        transcode=media_pb2.TranscodeSpec(input=media_pb2.Input(uri=str(source)), renditions=renditions)
    )


def _run(client: Client, wanted: session_pb2.Session) -> session_pb2.Session:
    done = client.wait(client.create_session(wanted).name)
    if done.state != session_pb2.SESSION_STATE_SUCCEEDED:
        raise RuntimeError(f"the session failed: {done.failure}")
    return done


def _argv_of(daemon: BenchDaemon, session: session_pb2.Session, target: Path) -> list[str]:
    """Gives the argv that an agent ran for a session, with other places for what it writes."""
    folder = next(daemon.state_dir.glob(f"agents/*/{session.name}/{session.attempt}"))
    argv = json.loads((folder / "launch.json").read_text())["argv"]
    shutil.rmtree(target, ignore_errors=True)
    (target / "artifacts").mkdir(parents=True)
    return [part.replace(str(folder), str(target)) for part in argv]


def _overhead(
    daemon: BenchDaemon, client: Client, source: Path, scratch: Path, pair_count: int, height: int
) -> list[Figure]:
    wanted = _session(source, (height,))
    argv = _argv_of(daemon, _run(client, wanted), scratch / "by-hand")
    shares: list[float] = []

    def through_daemon() -> float:
        pids = [daemon.process.pid, *daemon.agent_pids()]
        cpu_before, began = sum(map(process_cpu_s, pids)), time.monotonic()
        _run(client, wanted)
        wall_s = time.monotonic() - began
        shares.append((sum(map(process_cpu_s, pids)) - cpu_before) / wall_s)
        return wall_s

    def by_hand() -> float:
        for part in (scratch / "by-hand" / "artifacts").iterdir():
            part.unlink()
        return run_spent(argv).wall_s

    measured = pairs(through_daemon, by_hand, count=pair_count)
    detail = f"by hand {spread([second for _, second in measured], 's')}"
    idle = _idle_share(daemon)
    return [
        Figure(
            name="transcode: wall, daemon / by hand",
            value=median_ratio(measured),
            unit="",
            bound="<= 1.03",
            detail=detail,
        ),
        Figure(
            name="transcode: CPU of daemon + agent per session",
            value=100 * (statistics.median(shares[1:]) - idle),
            unit="% core",
            bound="<= 1",
            detail=f"beyond {100 * idle:.2f} % when idle",
        ),
    ]


def _idle_share(daemon: BenchDaemon, seconds: float = 3) -> float:
    pids = [daemon.process.pid, *daemon.agent_pids()]
    before, began = sum(map(process_cpu_s, pids)), time.monotonic()
    time.sleep(seconds)
    return (sum(map(process_cpu_s, pids)) - before) / (time.monotonic() - began)


def _ladder(
    daemon: BenchDaemon, client: Client, source: Path, scratch: Path, pair_count: int, ladder: tuple[int, ...]
) -> list[Figure]:
    """Compares with what one would type, and with what the daemon itself runs for one rung."""
    together = _argv_of(daemon, _run(client, _session(source, ladder)), scratch / "ladder")
    ours = [_argv_of(daemon, _run(client, _session(source, (height,))), scratch / f"{height}p") for height in ladder]
    typed = [_typed(source, height, ladder[0], scratch / "typed" / "artifacts") for height in ladder]
    return [
        _compared("three typed runs", together, typed, scratch, pair_count, "<= 0.88"),
        _compared("three sessions of one rung", together, ours, scratch, pair_count, "(none)"),
    ]


def _typed(source: Path, height: int, source_height: int, folder: Path) -> list[str]:
    """Gives the command that one types for one rung, same encoder, preset and quality."""
    folder.mkdir(parents=True, exist_ok=True)
    scale = ["-vf", f"scale=-2:{height}"] if height != source_height else []
    encode = ["-c:v", "libx264", "-preset", "veryfast", "-crf", "23", "-g", "60", "-c:a", "aac", "-b:a", "128k"]
    target = ["-movflags", "+faststart", "-y", str(folder / f"{height}p.mp4")]
    return [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-nostdin", "-i", str(source), *scale, *encode, *target]


def _compared(
    what: str, together: list[str], apart: list[list[str]], scratch: Path, pair_count: int, bound: str
) -> Figure:
    def emptied(argv: list[str]) -> list[str]:
        for folder in scratch.glob("*/artifacts"):
            for part in folder.iterdir():
                part.unlink()
        return argv

    measured = pairs(
        lambda: run_spent(emptied(together)).cpu_s,
        lambda: sum(run_spent(emptied(argv)).cpu_s for argv in apart),
        count=pair_count,
    )
    return Figure(
        name=f"3-rung ladder: CPU, one session / {what}",
        value=median_ratio(measured),
        unit="",
        bound=bound,
        detail=f"apart {spread([second for _, second in measured], 's CPU')}",
    )
