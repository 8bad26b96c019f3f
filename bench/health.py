"""Every XID on a fake driver beneath real daemons: what follows, how soon a client sees it, and what is placed after.

One GPU of two falls ill again and again. While it is, its engines fail, so that no probe brings it back before the
placements were counted; then it is mended and probed. Beside that: how long a session takes to begin on another device
when its first one has no further encoder session.
"""

from __future__ import annotations

import tempfile
import threading
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import imageio_ffmpeg

from agents.health.xids import XID_TABLE, XidOutcome, xid_row
from bench.daemons import BenchDaemon, bench_daemon
from bench.measuring import Figure, make_video, spread
from bench.stand_ins import StandInGpus
from gpu_balancer import RequestFailure
from gpu_balancer.v1 import device_pb2, media_pb2, session_pb2

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

UNLISTED = 9999
_EXPECTED = {
    XidOutcome.IGNORED: device_pb2.HEALTH_STATE_OK,
    XidOutcome.APPLICATION: device_pb2.HEALTH_STATE_OK,
    XidOutcome.ENCODER_FAULT: device_pb2.HEALTH_STATE_DEGRADED,
    XidOutcome.DECODER_FAULT: device_pb2.HEALTH_STATE_DEGRADED,
    XidOutcome.DEGRADED: device_pb2.HEALTH_STATE_DEGRADED,
    XidOutcome.UNHEALTHY: device_pb2.HEALTH_STATE_UNHEALTHY,
    XidOutcome.LOST: device_pb2.HEALTH_STATE_LOST,
}
_BARS = {XidOutcome.DEGRADED: 1, XidOutcome.ENCODER_FAULT: 2, XidOutcome.DECODER_FAULT: 2} | dict.fromkeys(
    (XidOutcome.UNHEALTHY, XidOutcome.LOST), 3
)
_LOOKS = {
    "recovery action": {"recovery_action": 1},
    "uncorrected error": {"uncorrected_errors": 1},
    "GPU lost": {"errors": {"*": 15}},
}
"""What no XID tells."""
_PATIENCE_S = 60.0
_FORMATS = (
    "hevc_nvenc",
    "av1_nvenc",
    "hevc_nvdec",
    "av1_nvdec",
    "vp8_nvdec",
    "vp9_nvdec",
    "mpeg2_nvdec",
    "mpeg4_nvdec",
)
"""What the cards lack, so that probes are short."""
_NO_SESSION = "OpenEncodeSessionEx failed: out of memory (10): (no details)"


@dataclass(slots=True)
class _Tally:
    """What was found."""

    right: int = 0
    wrong: list[str] = field(default_factory=list)
    unhealthy_s: list[float] = field(default_factory=list)
    placements: int = 0
    misplaced: int = 0


def measure(
    *,
    xids: Sequence[int] | None = None,
    looks: Sequence[str] = tuple(_LOOKS),
    placements: int = 100,
    retries: int = 10,
) -> list[Figure]:
    """Measures outcomes and times.

    Args:
        xids: Which. None: the whole table and one that is not in it.
        looks: Which of `_LOOKS`.
        placements: Requests after each XID that bars sessions.
        retries: Sessions whose first device has no further encoder session.
    """
    if xids is None:
        xids = [*sorted(xid for row in XID_TABLE for xid in row.xids), UNLISTED]
    tally = _Tally()
    with tempfile.TemporaryDirectory(prefix="gpu-balancer-bench-") as scratch, _house(Path(scratch)) as house:
        # What bars nothing first: it needs no probe afterwards.
        for xid in sorted(xids, key=lambda one: _BARS.get(xid_row(one).outcome, 0)):
            house.strike(xid, placements, tally)
        looks_s = {what: house.show(**_LOOKS[what]) for what in looks}
        hang_s = house.show(hangs=("*",))
        restarts = [house.retry() for _ in range(retries)]
    for complaint in tally.wrong:
        print(f"  {complaint}")
    return _figures(tally, looks_s, hang_s, restarts)


def _figures(tally: _Tally, looks_s: Mapping[str, float], hang_s: float, restarts: Sequence[float]) -> list[Figure]:
    outcomes = len(tally.wrong) + tally.right
    return [
        Figure(
            name="Health: XIDs with the documented outcome",
            value=tally.right / outcomes,
            unit="",
            bound="1.0",
            detail=f"{tally.right} of {outcomes}",
        ),
        Figure(
            name="Health: from the XID to UNHEALTHY at a client, longest",
            value=max(tally.unhealthy_s),
            unit="s",
            bound="<= 5",
            detail=spread(tally.unhealthy_s, "s"),
        ),
        Figure(
            name="Health: to UNHEALTHY by a look alone, longest",
            value=max(looks_s.values()),
            unit="s",
            bound="<= 5",
            detail=", ".join(f"{what} {seconds:.2f} s" for what, seconds in looks_s.items()),
        ),
        Figure(
            name="Health: a driver that hangs, to UNHEALTHY",
            value=hang_s,
            unit="s",
            bound="-",
            detail="noticed after 3.5 s without an answer",
        ),
        Figure(
            name="Health: placements on it after that",
            value=tally.misplaced,
            unit="",
            bound="0",
            detail=f"of {tally.placements} requests",
        ),
        Figure(
            name="Health: no encoder session, running elsewhere after",
            value=max(restarts),
            unit="s",
            bound="<= 2",
            detail=spread(restarts, "s"),
        ),
    ]


class _House:
    """A daemon on two fake GPUs, the first preferred."""

    def __init__(self, daemon: BenchDaemon, gpus: StandInGpus, video: Path) -> None:
        self.daemon = daemon
        self._gpus = gpus
        self._video = video
        self._seen: list[tuple[float, device_pb2.Device]] = []
        self._news = threading.Condition()

    def watch(self) -> None:
        """Notes what a client sees of the first GPU, until the daemon ends."""
        with suppress(RequestFailure), self.daemon.client() as client:
            for device in client.watch_devices():
                if device.name.endswith(FIRST):
                    with self._news:
                        self._seen.append((time.monotonic(), device))
                        self._news.notify_all()

    def strike(self, xid: int, placements: int, tally: _Tally) -> None:
        """Has the driver report an XID, compares what follows, counts placements, and mends the GPU."""
        row = xid_row(xid)
        expected = _EXPECTED[row.outcome]
        engine = row.outcome in (XidOutcome.ENCODER_FAULT, XidOutcome.DECODER_FAULT)
        harmless = expected == device_pb2.HEALTH_STATE_OK
        shown = row.outcome is XidOutcome.DEGRADED
        works = harmless or shown
        began_s = time.monotonic()
        # Its engines fail as those of a card that needs a reset; one that merely ended a process works on.
        self._gpus.strike(FIRST, xid, times=2 if engine else 1, works=works)
        if harmless:
            self._await_heard(xid)
            health, after_s = self._latest().health, 0.0
        else:
            health, after_s = self._await_state(expected, began_s, f"XID {xid}:" if shown else "")
        told = device_pb2.HealthState.Name(health.state)
        if health.state == expected and (works or engine or health.xid == xid or health.reason == "GPU_LOST"):
            tally.right += 1
        else:
            tally.wrong.append(f"XID {xid}: {told} {health.reason} instead of {row.outcome.value}")
        if expected in (device_pb2.HEALTH_STATE_UNHEALTHY, device_pb2.HEALTH_STATE_LOST):
            tally.unhealthy_s.append(after_s)
            self._count(placements, tally)
        if not works:
            self._mend()

    def show(self, **fields: Any) -> float:
        """Gives how long after the driver tells something else of the GPU a client sees that it is out of use."""
        began_s = time.monotonic()
        self._gpus.tell(FIRST, **fields)
        with self._news:
            self._news.wait_for(lambda: self._barred_s(began_s) is not None, timeout=_PATIENCE_S)
            seen_s = self._barred_s(began_s)
        self._mend()
        if seen_s is None:
            raise RuntimeError(f"nobody saw {fields}")
        return seen_s - began_s

    def _barred_s(self, since_s: float) -> float | None:
        unhealthy = device_pb2.DEVICE_STATE_UNHEALTHY
        return next((when_s for when_s, seen in self._seen if when_s >= since_s and seen.state == unhealthy), None)

    def _count(self, placements: int, tally: _Tally) -> None:
        with self.daemon.client() as client:
            for _ in range(placements):
                tally.placements += 1
                tally.misplaced += client.plan_session(self._session()).placement.device.endswith(FIRST)

    def retry(self) -> float:
        """Gives how long after the request a session runs on the second GPU of which the first refuses the encoder."""
        self._gpus.break_engines(FIRST, _NO_SESSION)
        with self.daemon.client() as client:
            began_s = time.monotonic()
            name = client.create_session(self._session(live=True)).name
            try:
                for session in client.watch_session(name):
                    if session.state == session_pb2.SESSION_STATE_FAILED:
                        raise RuntimeError(f"the client saw an error: {session.failure.message}")
                    if session.state == session_pb2.SESSION_STATE_RUNNING:
                        if session.attempt != 2:
                            raise RuntimeError(f"it runs as attempt {session.attempt}")
                        return time.monotonic() - began_s
            finally:
                client.stop_session(name)
                client.wait(name)
                self._mend()
        raise RuntimeError("it never ran")

    def _mend(self) -> None:
        self._gpus.mend(FIRST)
        deadline_s = time.monotonic() + _PATIENCE_S
        with self.daemon.client() as client:
            while True:
                device = client.get_device(FIRST)
                if device.state == device_pb2.DEVICE_STATE_READY and device.health.state == device_pb2.HEALTH_STATE_OK:
                    return
                if time.monotonic() > deadline_s:
                    raise RuntimeError(f"the GPU does not come back: {device.health}")
                with suppress(RequestFailure):
                    client.probe_device(FIRST)

    def _latest(self) -> device_pb2.Device:
        with self._news:
            return self._seen[-1][1]

    def _await_state(
        self, state: device_pb2.HealthState.ValueType, began_s: float, words: str
    ) -> tuple[device_pb2.DeviceHealth, float]:
        with self._news:
            self._news.wait_for(lambda: self._first(state, began_s, words) is not None, timeout=_PATIENCE_S)
            found = self._first(state, began_s, words)
        if found is None:
            return self._latest().health, _PATIENCE_S
        return found[1].health, found[0] - began_s

    def _first(
        self, state: device_pb2.HealthState.ValueType, since_s: float, words: str
    ) -> tuple[float, device_pb2.Device] | None:
        for seen in self._seen:
            health = seen[1].health
            if seen[0] >= since_s and health.state == state and words in health.message:
                return seen
        return None

    def _await_heard(self, xid: int) -> None:
        """Waits until the agent has heard an XID of which nothing is to be seen."""
        log = self.daemon.state_dir / "agents" / FIRST / "agent.log"
        deadline_s = time.monotonic() + _PATIENCE_S
        while f"reports XID {xid}" not in log.read_text():
            if time.monotonic() > deadline_s:
                raise RuntimeError(f"nobody heard XID {xid}")
            time.sleep(0.01)

    def _session(self, *, live: bool = False) -> session_pb2.Session:
        facts = media_pb2.InputFacts(width=320, height=180, video_codec=media_pb2.VIDEO_CODEC_H264)
        source = media_pb2.Input(uri=str(self._video), declared_facts=facts, native_rate=live, repeat_forever=live)
        encoding = media_pb2.VideoEncoding(
            codec=media_pb2.VIDEO_CODEC_H264, height=90, speed=media_pb2.ENCODING_SPEED_FASTEST
        )
        rendition = media_pb2.Rendition(id="out", encode=encoding)
        output = media_pb2.Output(renditions=["out"], file=media_pb2.FileOutput(path="out.mp4"))
        job = media_pb2.TranscodeSpec(input=source, renditions=[rendition], outputs=[output])
        return session_pb2.Session(transcode=job)


FIRST, SECOND = "GPU-bench-1", "GPU-bench-2"


@contextmanager
def _house(folder: Path) -> Iterator[_House]:
    video = folder / "media" / "clip.mp4"
    video.parent.mkdir()
    make_video(imageio_ffmpeg.get_ffmpeg_exe(), video, seconds=2, size="320x180")
    # A GeForce card, because only such have a cap of encoder sessions, beside one that has none.
    gpus = StandInGpus(folder, {FIRST: "NVIDIA GeForce RTX 4090", SECOND: "NVIDIA L4"}, lacking=_FORMATS)
    gpus.keep_probe_results(folder / "state" / "agents")
    settings = (
        f'[ffmpeg]\ncandidates = ["{gpus.program}"]\n[inputs]\nroots = ["{video.parent}"]\n'
        f'[[devices]]\nmatch = "{SECOND}"\nweight = 1\n'
    )
    with bench_daemon(settings, folder=folder, environment=gpus.environment) as daemon:
        daemon.await_ready(timeout_s=240)
        house = _House(daemon, gpus, video)
        threading.Thread(target=house.watch, name="watch devices", daemon=True).start()
        with house._news:
            house._news.wait_for(lambda: bool(house._seen), timeout=_PATIENCE_S)
        yield house
