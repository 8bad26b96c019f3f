"""Recordings in one call, and what can be done with one that runs."""

from __future__ import annotations

import hashlib
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration

from gpu_balancer import AsyncClient, Client, Reason, RequestFailure
from gpu_balancer.client.deliveries import file_delivery, hls_delivery
from gpu_balancer.v1 import balancer_service_pb2, media_pb2, recording_pb2, session_pb2

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from fakes.balancer_server import FakeBalancer

URL = "https://example.org/"
RUNNING, SUCCEEDED = session_pb2.SESSION_STATE_RUNNING, session_pb2.SESSION_STATE_SUCCEEDED
FAILED, CANCELLED = session_pb2.SESSION_STATE_FAILED, session_pb2.SESSION_STATE_CANCELLED


def ending(
    fake: FakeBalancer, state: session_pb2.SessionState.ValueType = SUCCEEDED, *, sha256: str | None = None
) -> Callable[[session_pb2.Session], None]:
    """Makes what has recordings end at once, with a file for each output and a report that tells its SHA-256."""

    def end(session: session_pb2.Session) -> None:
        report = recording_pb2.RecordingReport(captured_frames=30, end_cause="STOPPED")
        for output in session.recording.outputs:
            path = output.file.path or f"{output.hls.path}/master.m3u8"
            data = path.encode() * 500
            fake.add_artifact(session.name, path, data)
            report.files.add(path=path, sha256=sha256 or hashlib.sha256(data).hexdigest(), size_bytes=len(data))
        fake.advance(session.name, state=state, recording_report=report)

    return end


def running(fake: FakeBalancer) -> session_pb2.Session:
    spec = recording_pb2.RecordingSpec(page=recording_pb2.PageSource(url=URL))
    return fake.add_session("r", state=RUNNING, recording=spec)


def asked(fake: FakeBalancer) -> session_pb2.Session:
    (session,) = fake.sessions.values()
    return session


def test_a_page_is_recorded_into_a_local_file(
    fake_aside: FakeBalancer, blocking_client: Client, tmp_path: Path
) -> None:
    fake_aside.on_create = ending(fake_aside)
    session = blocking_client.record(URL, duration=timedelta(seconds=5), save_to=tmp_path / "out.mp4")
    assert session.state == SUCCEEDED
    assert session.recording_report.captured_frames == 30
    assert (tmp_path / "out.mp4").read_bytes() == b"recording.mp4" * 500
    assert session.recording.page.url == URL
    assert session.max_duration == Duration(seconds=5)
    (rendition,) = session.recording.renditions
    assert rendition.id == "recording"
    assert not rendition.encode.HasField("width")


async def test_what_is_said_of_a_recording_is_asked_for(fake: FakeBalancer, client: AsyncClient) -> None:
    await client.record(
        recording_pb2.PageSource(url=URL, locale="de-DE"),
        size="720p",
        fps=29.97,
        gate="selector:#ready",
        gate_timeout=timedelta(seconds=5),
        end_signal="DONE",
        stop_on_silence=timedelta(seconds=10),
        stop_on_idle=timedelta(minutes=1),
        show_cursor=True,
        sound=False,
        renditions=["1280x720:hevc", "360p"],
        watermark="/srv/logo.png:top-left",
        thumbnail_interval=timedelta(seconds=10),
        destinations=["archive"],
        labels={"show": "news"},
        allow_software_encode=True,
        wait=False,
    )
    spec = asked(fake).recording
    assert spec.page == recording_pb2.PageSource(url=URL, locale="de-DE")
    assert spec.capture == recording_pb2.Capture(
        width=1280,
        height=720,
        frame_rate=media_pb2.FrameRate(numerator=30000, denominator=1001),
        show_cursor=True,
        without_sound=True,
    )
    assert spec.start_gate == recording_pb2.StartGate(
        kind=recording_pb2.START_GATE_KIND_SELECTOR, timeout=Duration(seconds=5), selector="#ready"
    )
    assert spec.stop_rules == recording_pb2.StopRules(
        end_signal="DONE", silence=Duration(seconds=10), idle=Duration(seconds=60)
    )
    assert [one.id for one in spec.renditions] == ["720p", "360p"]
    assert spec.watermark == recording_pb2.Watermark(path="/srv/logo.png", corner=recording_pb2.CORNER_TOP_LEFT)
    assert (spec.thumbnail_interval, list(spec.destinations)) == (Duration(seconds=10), ["archive"])
    assert spec.allow_software_encode
    assert asked(fake).labels["show"] == "news"


async def test_what_is_not_said_of_a_recording_is_left_to_the_contract(fake: FakeBalancer, client: AsyncClient) -> None:
    await client.record(recording_pb2.ApplicationSource(name="clock"), wait=False)
    spec = asked(fake).recording
    assert spec.application.name == "clock"
    assert (spec.capture, spec.start_gate) == (recording_pb2.Capture(), recording_pb2.StartGate())
    assert not asked(fake).HasField("max_duration")
    assert not spec.HasField("watermark")
    assert not spec.HasField("thumbnail_interval")
    assert list(spec.outputs) == []


async def test_one_request_id_makes_one_recording(fake: FakeBalancer, client: AsyncClient) -> None:
    fake.lose_answer("CreateSession")
    first = await client.record(URL, wait=False, request_id="monday")
    second = await client.record(URL, wait=False, request_id="monday")
    assert first.name == second.name
    assert fake.calls["CreateSession"] == 3


async def test_a_profile_gives_the_names_of_its_files(fake: FakeBalancer, client: AsyncClient, tmp_path: Path) -> None:
    fake.on_create = ending(fake)
    ladder = [media_pb2.Rendition(id="high"), media_pb2.Rendition(id="low")]
    fake.profiles.append(balancer_service_pb2.Profile(name="two", renditions=ladder))
    session = await client.record(URL, profile="two", save_to=tmp_path / "o.mkv")
    assert list(session.recording.renditions) == []
    assert (tmp_path / "o-high.mkv").exists()
    assert (tmp_path / "o-low.mkv").exists()


async def test_what_was_recorded_until_a_stop_is_fetched(
    fake: FakeBalancer, client: AsyncClient, tmp_path: Path
) -> None:
    fake.on_create = ending(fake, CANCELLED)
    session = await client.record(URL, save_to=tmp_path / "show")
    assert session.state == CANCELLED
    assert (tmp_path / "show/master.m3u8").exists()


async def test_a_recording_that_failed_is_given_back(fake: FakeBalancer, client: AsyncClient, tmp_path: Path) -> None:
    failure = session_pb2.Failure(reason="GATE_TIMEOUT", message="Cannot record.")
    fake.on_create = lambda session: fake.advance(session.name, state=FAILED, failure=failure)
    session = await client.record(URL, save_to=tmp_path / "out.mp4")
    assert session.failure.reason == "GATE_TIMEOUT"
    assert not (tmp_path / "out.mp4").exists()


async def test_a_file_that_is_not_what_the_agent_wrote_is_told(
    fake: FakeBalancer, client: AsyncClient, tmp_path: Path
) -> None:
    fake.on_create = ending(fake, sha256="0" * 64)
    with pytest.raises(RequestFailure, match="its SHA-256 is") as caught:
        await client.record(URL, save_to=tmp_path / "out.mp4")
    assert caught.value.reason is Reason.INTERNAL
    assert (tmp_path / "out.mp4").exists()


async def test_only_what_was_fetched_and_is_told_of_is_compared(
    fake: FakeBalancer, client: AsyncClient, tmp_path: Path
) -> None:
    (tmp_path / "a.mp4").write_bytes(b"a")
    (tmp_path / "show").mkdir()
    (tmp_path / "show/x.m4s").write_bytes(b"x")
    report = recording_pb2.RecordingReport()
    for path, data in (("hls/x.m4s", b"x"), ("a.mp4", b"a"), ("b.mp4", b"b"), ("/srv/out/c.mp4", b"c")):
        report.files.add(path=path, sha256=hashlib.sha256(data).hexdigest())
    session = session_pb2.Session(recording_report=report)
    delivery = file_delivery(tmp_path / "a.mp4", ["a"])
    assert list(await client.check_files(session, delivery)) == [tmp_path / "a.mp4"]
    assert list(await client.check_files(session, hls_delivery(tmp_path / "show"))) == [tmp_path / "show/x.m4s"]


@pytest.mark.parametrize(
    "options",
    [
        {"source": "example.org"},
        {"size": "1281x720"},
        {"size": (32, 32)},
        {"fps": 240},
        {"fps": float("nan")},
        {"gate": "window"},
        {"gate": "later"},
        {"source": recording_pb2.ApplicationSource(name="clock"), "gate": "paint"},
        {"duration": timedelta(0)},
        {"duration": timedelta(days=400)},
        {"profile": "p", "renditions": ["720p"]},
        {"save_to": "o.mp4", "wait": False},
        {"watermark": ""},
    ],
)
async def test_what_cannot_be_meant_is_refused_before_anything_is_asked(
    fake: FakeBalancer, client: AsyncClient, options: dict[str, Any]
) -> None:
    with pytest.raises(ValueError):
        await client.record(options.pop("source", URL), **options)
    assert fake.calls["CreateSession"] == 0


async def test_a_recording_rests_and_goes_on(fake: FakeBalancer, client: AsyncClient) -> None:
    running(fake)
    fake.lose_answer("PauseSession")
    assert (await client.pause("r")).conditions[0].type == "PAUSED"
    assert fake.calls["PauseSession"] == 2
    assert list((await client.resume("sessions/r")).conditions) == []


async def test_a_recording_is_made_longer_and_unbounded(fake: FakeBalancer, client: AsyncClient) -> None:
    running(fake)
    fake.refuse("ExtendSession", grpc.StatusCode.UNAVAILABLE)
    assert (await client.extend("r", timedelta(minutes=10))).max_duration == Duration(seconds=600)
    assert not (await client.extend("r", None)).HasField("max_duration")
    with pytest.raises(ValueError, match="366 days"):
        await client.extend("r", timedelta(0))


async def test_a_recording_is_looked_at(fake: FakeBalancer, client: AsyncClient) -> None:
    running(fake)
    taken = await client.snapshot("r", width=320)
    assert (taken.image, taken.snapshot_time.seconds) == (fake.picture, 1_700_000_000)
    assert fake.received[-1].width == 320
    await client.snapshot("r")
    assert not fake.received[-1].HasField("width")


def test_a_blocking_client_does_the_same(fake_aside: FakeBalancer, blocking_client: Client) -> None:
    fake_aside.do(lambda: running(fake_aside))
    assert blocking_client.pause("r").conditions[0].type == "PAUSED"
    assert list(blocking_client.resume("r").conditions) == []
    assert blocking_client.extend("r", timedelta(hours=1)).max_duration.seconds == 3600
    assert blocking_client.snapshot("r").image == fake_aside.picture


async def test_what_does_not_record_now_cannot_rest(fake: FakeBalancer, client: AsyncClient) -> None:
    fake.add_session("t", state=RUNNING, transcode=media_pb2.TranscodeSpec())
    with pytest.raises(RequestFailure, match="does not record now"):
        await client.pause("t")
