"""A recording that goes on over lost agents and browsers, with real ones: one film in the end, nothing of it twice."""

from __future__ import annotations

import base64
import contextlib
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from agent_process import AgentProcess, await_probed, ended, until

from agents.lock_holders import kill_holders
from agents.pipelines.playlists import parse_playlist
from bench.analysis.strip import read_strip
from gpu_balancer.v1 import agent_service_pb2 as pb
from gpu_balancer.v1 import media_pb2, recording_pb2

PROGRAMS = ("Xvfb", "openbox", "pulseaudio", "chromium")
PAGES = Path(__file__).resolve().parents[3] / "bench" / "pages"
SETTINGS = '[recordings]\nurl_schemes = ["data"]\nwarm_displays = 0\nacquire_timeout_s = 60.0\n'

pytestmark = [
    pytest.mark.process,
    pytest.mark.timeout(300),
    pytest.mark.skipif(not all(map(shutil.which, PROGRAMS)), reason="needs Xvfb, openbox, PulseAudio and Chromium"),
]


@pytest.fixture
def agents(tmp_path: Path, media: Path, probe_results: Path) -> Iterator[tuple[AgentProcess, AgentProcess]]:
    """Two agents that share fences."""
    with contextlib.ExitStack() as stack:
        made = []
        for name in ("first", "second"):
            folder = tmp_path / name
            folder.mkdir(mode=0o700)
            (folder / "probe.json").write_bytes(probe_results.read_bytes())
            agent = AgentProcess(folder=folder, media=media, out=tmp_path, fences=tmp_path / "fences")
            agent.configure(SETTINGS)
            stack.callback(_clean, agent)
            agent.start()
            made.append(agent)
        yield made[0], made[1]


def _clean(agent: AgentProcess) -> None:
    if agent.process is not None and agent.process.poll() is None:
        agent.end()
    agent.clean()
    for lock in agent.folder.glob("displays/*/lock"):
        kill_holders(lock)


def counter() -> str:
    """A page that counts its drawings, by itself."""
    page = (PAGES / "counter.html").read_text()
    script = (PAGES / "strip.js").read_text()
    whole = page.replace('<script src="strip.js"></script>', f"<script>{script}</script>")
    return "data:text/html;base64," + base64.b64encode(whole.encode()).decode()


def going_on(attempt: int, *earlier: str) -> pb.LaunchPlan:
    encode = media_pb2.VideoEncoding(
        codec=media_pb2.VIDEO_CODEC_H264, height=360, speed=media_pb2.ENCODING_SPEED_FASTEST
    )
    encode.keyframe_interval.FromSeconds(1)
    hls = media_pb2.HlsOutput(path="hls")
    hls.segment_duration.FromSeconds(1)
    recording = recording_pb2.RecordingSpec(
        page=recording_pb2.PageSource(url=counter()),
        renditions=[media_pb2.Rendition(id="360p", encode=encode)],
        outputs=[
            media_pb2.Output(id="film", file=media_pb2.FileOutput(path="film.mp4")),
            media_pb2.Output(id="hls", hls=hls),
        ],
    )
    recording.capture.width, recording.capture.height = 640, 360
    recording.capture.frame_rate.numerator, recording.capture.frame_rate.denominator = 10, 1
    recording.thumbnail_interval.FromSeconds(1)
    plan = pb.LaunchPlan(
        id=pb.AttemptId(session="sessions/s1", attempt=attempt), recording=recording, may_continue=True
    )
    for number, folder in enumerate(earlier, start=1):
        plan.continues.add(attempt=number, folder=folder)
    return plan


def recorded(event: pb.WatchEventsResponse) -> bool:
    """Whether some seconds are recorded; an end counts too, so that a failure is seen."""
    status = event.attempt
    return status.progress.frames >= 35 or status.phase == pb.ATTEMPT_PHASE_ENDED


def begun(stub, plan: pb.LaunchPlan) -> pb.AttemptStatus:
    stub.LaunchSession(pb.LaunchSessionRequest(plan=plan), timeout=60)

    def enough(event: pb.WatchEventsResponse) -> bool:
        return event.attempt.id.attempt == plan.id.attempt and recorded(event)

    status = until(stub, enough, timeout_s=120)[-1].attempt
    assert status.phase == pb.ATTEMPT_PHASE_RUNNING, status
    return status


def kill_browser(agent: AgentProcess) -> None:
    for processes in agent.folder.glob("displays/*/processes"):
        for line in processes.read_text().splitlines():
            name, pid = line.split()
            if name == "browser":
                os.kill(int(pid), signal.SIGKILL)


def test_a_recording_goes_on_over_a_lost_agent_and_a_lost_browser(agents: tuple[AgentProcess, AgentProcess]) -> None:
    first, second = agents
    with first.connected() as stub, second.connected() as other:
        await_probed(stub)
        await_probed(other)
        lost = [begun(stub, going_on(1)).folder]
        first.end(signal.SIGKILL)
        lost.append(begun(other, going_on(2, *lost)).folder)
        playlist = Path(lost[1]) / "artifacts" / "hls" / "360p" / "index.m3u8"
        assert "#EXT-X-ENDLIST" not in playlist.read_text()
        kill_browser(second)
        end = until(other, ended("s1"))[-1].attempt
        assert end.failure.reason == "BROWSER_LOST"
        assert "#EXT-X-ENDLIST" not in playlist.read_text()
    first.start()
    with first.connected() as stub:
        # It finds its own attempt fenced before anything else.
        assert until(stub, ended("s1"))[-1].attempt.failure.reason == "FENCED"
        await_probed(stub)
        third = begun(stub, going_on(3, *lost))
        stub.StopSession(
            pb.AgentServiceStopSessionRequest(id=pb.AttemptId(session="sessions/s1", attempt=3)), timeout=20
        )
        end = until(stub, lambda event: event.attempt.id.attempt == 3 and ended("s1")(event))[-1].attempt
    assert end.outcome == pb.ATTEMPT_OUTCOME_COMPLETED, end
    artifacts = Path(third.folder) / "artifacts"
    assert [path.name for path in artifacts.glob("film*")] == ["film.mp4"]
    reading = read_strip(artifacts / "film.mp4")
    assert end.recording_report.take_count == 3
    # What ffmpeg had counted when it was killed, and not written yet, is not in the file.
    assert 0 <= end.recording_report.encoded_frames - len(reading.page_ms) <= 2 * 20
    shown = reading.drawn_ms()
    jumps = np.flatnonzero(np.diff(shown) > 1500)
    assert (np.diff(shown) >= 0).all(), "something is there twice"
    assert len(jumps) == 2
    assert all(len(part) >= 20 for part in np.split(shown, jumps + 1))
    found = parse_playlist((artifacts / "hls" / "360p" / "index.m3u8").read_text())
    assert found is not None
    assert found.ended
    assert sum(segment.discontinuity for segment in found.segments) == 2
    assert len({segment.uri for segment in found.segments}) == len(found.segments)
    played = read_strip(artifacts / "hls" / "master.m3u8")
    of_hls = played.drawn_ms()
    assert (np.diff(of_hls) >= 0).all()
    assert len(np.flatnonzero(np.diff(of_hls) > 1500)) == 2
    # One that was being taken when its agent was killed has a hidden name, and is no artifact.
    thumbnails = sorted(int(path.stem) for path in (artifacts / "thumbnails").glob("[!.]*.jpg"))
    assert len(thumbnails) >= 7
    assert (artifacts / "attempt-2" / "failure.png").exists()
