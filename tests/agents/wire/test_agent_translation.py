"""Messages become jobs whole, and everything that is wrong with one is told at once."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from agents.devices.identity import DeviceIdentity
from agents.devices.measurements import Measurements
from agents.pipelines.job import (
    AudioCodec,
    AudioRendition,
    Container,
    EncodingSpeed,
    FileOutput,
    Fit,
    FrameRate,
    HlsOutput,
    HlsSegmentFormat,
    IngestInput,
    IngestProtocol,
    InputFacts,
    PushOutput,
    Rendition,
    UriInput,
    VideoCodec,
    VideoEncoding,
    VideoPassthrough,
)
from agents.pipelines.progress import Progress
from agents.servicers.job_translation import facts_from_proto, input_from_proto, job_from_plan, outputs_from_proto
from agents.servicers.report_translation import (
    artifact_message,
    facts_message,
    identity_message,
    measurements_message,
    status_message,
)
from agents.servicers.request_fields import artifact_name, session_id
from agents.sessions.artifacts import ArtifactFile
from agents.sessions.attempt import AttemptKey, AttemptStatus, Condition, Ending, Failure, Phase
from gpu_balancer.runtime.failures import Reason, RequestFailure
from gpu_balancer.v1 import agent_service_pb2 as pb
from gpu_balancer.v1 import media_pb2

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


def whole_plan() -> pb.LaunchPlan:
    plan = pb.LaunchPlan(id=pb.AttemptId(session="sessions/abc", attempt=2))
    spec = plan.transcode
    spec.allow_software_encode = True
    spec.input.uri = "/srv/a.mp4"
    spec.input.start_offset.FromMilliseconds(1500)
    spec.input.duration.FromSeconds(10)
    spec.input.native_rate = True
    spec.input.repeat_count = 3
    encode = media_pb2.VideoEncoding(
        codec=media_pb2.VIDEO_CODEC_HEVC,
        width=1280,
        height=720,
        fit=media_pb2.FIT_STRETCH,
        frame_rate=media_pb2.FrameRate(numerator=30000, denominator=1001),
        bit_rate_bps=3_000_000,
        max_bit_rate_bps=4_000_000,
        bit_depth=10,
        speed=media_pb2.ENCODING_SPEED_BALANCED,
        low_latency=True,
    )
    encode.keyframe_interval.FromSeconds(4)
    audio = media_pb2.AudioRendition(
        codec=media_pb2.AUDIO_CODEC_OPUS, bit_rate_bps=96_000, channels=1, sample_rate_hz=24_000
    )
    spec.renditions.add(id="720p", encode=encode, audio=audio)
    spec.renditions.add(id="source", passthrough=media_pb2.VideoPassthrough())
    spec.renditions.add(id="sound", audio=media_pb2.AudioRendition(codec=media_pb2.AUDIO_CODEC_COPY))
    spec.outputs.add(id="a", renditions=["720p"], file=media_pb2.FileOutput(path="/srv/out/x.MKV", overwrite=True))
    hls = media_pb2.HlsOutput(path="hls", segment_format=media_pb2.HLS_SEGMENT_FORMAT_TS)
    hls.segment_duration.FromSeconds(8)
    hls.dvr_window.FromSeconds(60)
    spec.outputs.add(id="b", hls=hls)
    spec.outputs.add(renditions=["source"], push=media_pb2.PushOutput(url="rtmp://host/live/key"))
    plan.input_facts.CopyFrom(media_pb2.InputFacts(width=1920, height=1080, has_audio=False))
    return plan


def test_everything_in_a_plan_comes_through() -> None:
    job = job_from_plan(whole_plan())
    assert (job.session, job.attempt, job.allow_software_encode) == ("abc", 2, True)
    assert job.facts == InputFacts(width=1920, height=1080, has_audio=False)
    assert job.input == UriInput(
        uri="/srv/a.mp4",
        start_offset=timedelta(seconds=1.5),
        duration=timedelta(seconds=10),
        native_rate=True,
        repeat_count=3,
    )
    assert job.renditions == (
        Rendition(
            id="720p",
            video=VideoEncoding(
                codec=VideoCodec.HEVC,
                width=1280,
                height=720,
                fit=Fit.STRETCH,
                frame_rate=FrameRate(numerator=30000, denominator=1001),
                bit_rate_bps=3_000_000,
                max_bit_rate_bps=4_000_000,
                keyframe_interval=timedelta(seconds=4),
                bit_depth=10,
                speed=EncodingSpeed.BALANCED,
                low_latency=True,
            ),
            audio=AudioRendition(codec=AudioCodec.OPUS, bit_rate_bps=96_000, channels=1, sample_rate_hz=24_000),
        ),
        Rendition(id="source", video=VideoPassthrough()),
        Rendition(id="sound", video=None, audio=AudioRendition(codec=AudioCodec.COPY)),
    )
    assert job.outputs == (
        FileOutput(id="a", path="/srv/out/x.MKV", container=Container.MKV, overwrite=True, renditions=("720p",)),
        HlsOutput(
            id="b",
            path="hls",
            segment_format=HlsSegmentFormat.TS,
            segment_duration=timedelta(seconds=8),
            dvr_window=timedelta(seconds=60),
        ),
        PushOutput(id="output-3", url="rtmp://host/live/key", renditions=("source",)),
    )


def test_what_is_not_said_has_the_contract_s_defaults() -> None:
    plan = pb.LaunchPlan(id=pb.AttemptId(session="sessions/abc", attempt=1))
    plan.transcode.input.ingest.SetInParent()
    plan.transcode.renditions.add(id="r", encode=media_pb2.VideoEncoding(height=360))
    plan.transcode.outputs.add(id="o", hls=media_pb2.HlsOutput(path="h"))
    job = job_from_plan(plan)
    assert job.input == IngestInput(protocol=IngestProtocol.RTMP, publisher_timeout=timedelta(seconds=60))
    assert job.renditions == (Rendition(id="r", video=VideoEncoding(height=360), audio=AudioRendition()),)
    assert job.outputs == (HlsOutput(id="o", path="h"),)
    assert job.facts == InputFacts()


def test_every_mistake_is_told_with_its_field() -> None:
    plan = pb.LaunchPlan(id=pb.AttemptId(session="sessions/abc"))
    plan.transcode.input.upload = "uploads/u"
    plan.transcode.renditions.add(encode=media_pb2.VideoEncoding(codec=media_pb2.VIDEO_CODEC_VP9))
    plan.transcode.renditions.add(id="x", encode=media_pb2.VideoEncoding(fit=99))
    plan.transcode.outputs.add()
    plan.transcode.outputs.add(file=media_pb2.FileOutput(path="film"))
    with pytest.raises(RequestFailure) as caught:
        job_from_plan(plan)
    assert caught.value.reason is Reason.INVALID_REQUEST
    assert [violation.field for violation in caught.value.violations] == [
        "plan.id.attempt",
        "plan.transcode.input.upload",
        "plan.transcode.renditions[0].id",
        "plan.transcode.renditions[0].encode.codec",
        "plan.transcode.renditions[1].encode.fit",
        "plan.transcode.outputs[0]",
        "plan.transcode.outputs[1].file.path",
    ]


def test_a_lone_input_or_output_names_the_client_s_own_field() -> None:
    with pytest.raises(RequestFailure) as caught:
        input_from_proto(media_pb2.Input())
    assert caught.value.violations[0].field == "session.transcode.input"
    with pytest.raises(RequestFailure) as caught:
        outputs_from_proto([media_pb2.Output(file=media_pb2.FileOutput(path="a.mp4")), media_pb2.Output()])
    assert caught.value.violations[0].field == "session.transcode.outputs[1]"


@pytest.mark.parametrize("name", ["", "abc", "sessions/", "sessions/a/b", "sessions/..", "sessions/a\n", "devices/a"])
def test_a_name_that_is_no_session_is_refused(name: str) -> None:
    with pytest.raises(RequestFailure):
        session_id(name, path="session")
    with pytest.raises(RequestFailure):
        artifact_name(f"{name}/artifacts/x" if "/" in name and name != "sessions/a/b" else name)


def test_an_artifact_s_name_is_taken_apart_at_its_first_folder() -> None:
    assert artifact_name("sessions/abc/artifacts/hls/artifacts/x.m4s") == ("abc", "hls/artifacts/x.m4s")


def test_facts_survive_both_ways_and_unknown_stays_unset() -> None:
    facts = InputFacts(
        width=1920,
        height=1080,
        frame_rate=FrameRate(numerator=25, denominator=1),
        video_codec=VideoCodec.OTHER,
        bit_depth=10,
        chroma="4:2:0",
        has_audio=False,
        audio_codec=None,
        duration=timedelta(seconds=2.5),
        format="mpegts",
        rotation_degrees=270,
    )
    assert facts_from_proto(facts_message(facts)) == facts
    assert facts_from_proto(facts_message(InputFacts())) == InputFacts()
    assert facts_message(InputFacts()) == media_pb2.InputFacts()


def test_a_status_is_told_whole() -> None:
    status = AttemptStatus(
        key=AttemptKey(session="abc", attempt=2),
        phase=Phase.ENDED,
        ending=Ending.FAILED,
        failure=Failure(reason="KILLED", message="Cannot.", exit_code=137, log_tail=("a", "b")),
        progress=Progress(frames=5, speed=1.5, out_time=timedelta(seconds=1), total_time=timedelta(seconds=2)),
        conditions=(Condition(type="STALLED", message="m", since_time=NOW),),
        running_time=NOW,
        end_time=NOW,
    )
    message = status_message(status)
    assert message.id == pb.AttemptId(session="sessions/abc", attempt=2)
    assert (message.phase, message.outcome) == (pb.ATTEMPT_PHASE_ENDED, pb.ATTEMPT_OUTCOME_FAILED)
    assert (message.failure.exit_code, list(message.failure.log_tail)) == (137, ["a", "b"])
    assert (message.progress.frames, message.progress.speed, message.progress.out_time.seconds) == (5, 1.5, 1)
    assert message.progress.written_bytes == 0
    assert message.conditions[0].since_time.ToDatetime(tzinfo=UTC) == NOW
    assert message.end_time.ToDatetime(tzinfo=UTC) == NOW
    unseen = status_message(AttemptStatus(key=status.key))
    assert not unseen.HasField("failure")
    assert not unseen.HasField("running_time")
    assert unseen.outcome == pb.ATTEMPT_OUTCOME_UNSPECIFIED


def test_what_was_not_measured_or_is_not_known_stays_unset() -> None:
    measured = measurements_message(Measurements(measure_time=NOW, encoder_utilization_percent=0))
    assert measured.HasField("encoder_utilization_percent")
    assert not measured.HasField("decoder_utilization_percent")
    identity = identity_message(DeviceIdentity(id="cpu-0", kind="cpu", model="m", cores=(0, 1)))
    assert not identity.HasField("index")
    assert list(identity.cores) == [0, 1]


def test_an_artifact_s_address_is_fit_for_a_url() -> None:
    artifact = ArtifactFile(path="a b/ü.mp4", size_bytes=1, media_type="video/mp4", update_time=NOW)
    message = artifact_message("abc", artifact, final=True)
    assert message.name == "sessions/abc/artifacts/a b/ü.mp4"
    assert message.http_path == "/v1/sessions/abc/artifacts/a%20b/%C3%BC.mp4"


@pytest.mark.parametrize(("field", "count"), [("renditions", 300_000), ("outputs", 300_000)])
def test_a_plan_with_a_list_that_is_too_long_is_refused_by_its_count(field: str, count: int) -> None:
    plan = whole_plan()
    getattr(plan.transcode, field).extend([getattr(media_pb2, field[:-1].capitalize())()] * count)
    with pytest.raises(RequestFailure) as caught:
        job_from_plan(plan)
    assert [violation.field for violation in caught.value.violations] == [f"plan.transcode.{field}"]


def test_too_many_outputs_are_refused_by_their_count() -> None:
    with pytest.raises(RequestFailure) as caught:
        outputs_from_proto([media_pb2.Output()] * 300_000)
    assert [violation.field for violation in caught.value.violations] == ["session.transcode.outputs"]
