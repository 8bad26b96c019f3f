"""CreateSession, durable commit included, against a bare grpc.aio echo of the same messages, at 16 clients."""

from __future__ import annotations

import asyncio
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import grpc

from bench.measuring import Figure, median_ratio, spread
from gpu_balancer.runtime.ids import random_id
from gpu_balancer.v1 import media_pb2, session_pb2, session_service_pb2
from gpu_balancer.v1.session_service_pb2_grpc import SessionServiceStub

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

CLIENTS = 16
_SIZES = ((1920, 1080), (1280, 720), (854, 480), (720, 576), (1920, 800))
_FRAME_RATES = ((30, 1), (25, 1), (24, 1), (30_000, 1001), (24_000, 1001), (60, 1))
_LADDERS = ((720, 480, 360), (1080, 720, 480), (480, 360, 240), (720, 540, 360))


def measure(*, pair_count: int = 5, requests: int = 4_000) -> list[Figure]:
    """Measures rate and latency.

    Args:
        pair_count: Counted pairs.
        requests: Requests of one run, of all clients together.
    """
    latencies: list[float] = []

    def rate(socket: str, *, counted: bool) -> float:
        times, wall_s = asyncio.run(_load(socket, requests))
        if counted:
            latencies[:] = [*latencies, *times]
        return len(times) / wall_s

    with (
        tempfile.TemporaryDirectory(prefix="gpu-balancer-bench-") as scratch,
        _server("balancer", Path(scratch)) as balancer,
        _server("echo", Path(scratch)) as echo,
        _server("echo-uvloop", Path(scratch)) as fast_echo,
    ):
        rounds = [
            (rate(balancer, counted=number > 0), rate(echo, counted=False), rate(fast_echo, counted=False))
            for number in range(pair_count + 1)
        ][1:]
    ordered = sorted(latencies)
    p99_ms = 1000 * ordered[int(0.99 * (len(ordered) - 1))]
    return [
        Figure(
            name="CreateSession: rate / bare echo",
            value=median_ratio([(ours, bare) for ours, bare, _ in rounds]),
            unit="",
            bound=">= 0.4",
            detail=f"{spread([ours for ours, _, _ in rounds], '/s')}; echo {_median(rounds, 1):.0f}/s",
        ),
        Figure(
            name="CreateSession: rate / echo on the balancer's loop",
            value=median_ratio([(ours, fast) for ours, _, fast in rounds]),
            unit="",
            bound="-",
            detail=f"echo {_median(rounds, 2):.0f}/s",
        ),
        Figure(
            name=f"CreateSession: p99 at {CLIENTS} clients",
            value=p99_ms,
            unit="ms",
            bound="<= 50",
            detail=f"median {1000 * statistics.median(ordered):.1f} ms",
        ),
    ]


def _median(rounds: Sequence[tuple[float, ...]], side: int) -> float:
    return statistics.median(one[side] for one in rounds)


@contextmanager
def _server(side: str, scratch: Path) -> Iterator[str]:
    socket = scratch / f"{side}.sock"
    process = subprocess.Popen([sys.executable, "-m", "bench.create_session_server", side, str(socket), str(scratch)])
    try:
        deadline = time.monotonic() + 30
        while not socket.exists() and time.monotonic() < deadline and process.poll() is None:
            time.sleep(0.02)
        if not socket.exists():
            raise RuntimeError(f"Cannot measure: the {side} does not serve. Try `{' '.join(map(str, process.args))}`.")
        yield f"unix:{socket}"
    finally:
        process.terminate()
        process.wait(20)


async def _load(target: str, requests: int) -> tuple[list[float], float]:
    """Has every client send its share, one request after the other; gives each one's time, and the time of all."""
    times: list[float] = []

    async def client(first: int) -> None:
        # Its own connection: channels with equal arguments would share one.
        options = (("grpc.use_local_subchannel_pool", 1),)
        async with grpc.aio.insecure_channel(target, options=options) as channel:
            stub = SessionServiceStub(channel)
            await channel.channel_ready()
            await ready.wait()
            for number in range(first, requests, CLIENTS):
                request = _request(number)
                began = time.perf_counter()
                await stub.CreateSession(request)
                times.append(time.perf_counter() - began)

    ready = asyncio.Barrier(CLIENTS + 1)
    async with asyncio.TaskGroup() as clients:
        for first in range(CLIENTS):
            clients.create_task(client(first))
        await ready.wait()
        began = time.perf_counter()
    return times, time.perf_counter() - began


def _request(number: int) -> session_service_pb2.CreateSessionRequest:
    """Asks for a ladder of an input that the client knows, so that no agent has to look at it.

    Inputs and ladders vary, as they do where many clients ask: the balancer remembers what it worked out for a shape of
    session, and one shape alone would flatter it. Every input has a name and a length of its own.
    """
    width, height = _SIZES[number % len(_SIZES)]
    numerator, denominator = _FRAME_RATES[number // len(_SIZES) % len(_FRAME_RATES)]
    facts = media_pb2.InputFacts(
        width=width,
        height=height,
        frame_rate=media_pb2.FrameRate(numerator=numerator, denominator=denominator),
        video_codec=media_pb2.VIDEO_CODEC_H264,
        bit_depth=8,
        chroma="4:2:0",
        has_audio=True,
        audio_codec="aac",
    )
    facts.duration.seconds = 60 + number
    renditions = [
        media_pb2.Rendition(
            id=f"{rung}p", encode=media_pb2.VideoEncoding(codec=media_pb2.VIDEO_CODEC_H264, height=rung)
        )
        for rung in _LADDERS[number // 7 % len(_LADDERS)]
    ]
    spec = media_pb2.TranscodeSpec(
        input=media_pb2.Input(uri=f"/srv/media/film-{number}.mp4", declared_facts=facts), renditions=renditions
    )
    return session_service_pb2.CreateSessionRequest(
        session=session_pb2.Session(transcode=spec, labels={"bench": "yes"}), request_id=random_id()
    )
