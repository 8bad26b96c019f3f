"""What a session is booked as, and what is told of it."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from fractions import Fraction

import pytest
from google.protobuf import text_format
from hypothesis import given
from hypothesis import strategies as st

from balancer.domain.session import Failure, Priority, QueueStanding, SessionState
from balancer.domain.workload import CostFactors, EncodingSpeed, VideoCodec
from balancer.servicers.session_secrets import redacted_argv
from balancer.servicers.session_translation import (
    PreparedSession,
    planned_to_proto,
    prepare_session,
    session_to_proto,
    upload_of,
)
from fakes.session_records import full_record, session_record
from fakes.session_texts import LADDER, draft
from gpu_balancer.pictures.sizes import PictureSize, fitted_size
from gpu_balancer.runtime.failures import Reason, RequestFailure
from gpu_balancer.v1 import media_pb2, session_pb2

FACTORS = CostFactors()
FULL_HD = "width: 1920 height: 1080 video_codec: VIDEO_CODEC_H264 frame_rate { numerator: 25 denominator: 1 }"


def facts(text: str = FULL_HD) -> media_pb2.InputFacts:
    return text_format.Parse(text, media_pb2.InputFacts())


def prepared(text: str, facts_text: str = FULL_HD) -> PreparedSession:
    return prepare_session(draft(text), facts(facts_text))


def transcode(renditions: str, source: str = 'uri: "/in.mp4"', outputs: str = "") -> str:
    return f"transcode {{ input {{ {source} }} {renditions} {outputs} }}"


def encode(fields: str = "", **more: str) -> str:
    return transcode(f"renditions {{ encode {{ {fields} }} }}", **more)


@pytest.mark.parametrize(
    ("source", "asked", "size"),
    [
        ((1920, 1080), {"width": None, "height": 720}, (1280, 720)),
        ((1920, 1080), {"width": 1280, "height": None}, (1280, 720)),
        ((1920, 1080), {"width": 854, "height": 480}, (854, 480)),
        ((1920, 1080), {"width": 1280, "height": 1280}, (1280, 720)),
        ((1080, 1920), {"width": 1280, "height": 720}, (406, 720)),
        ((1440, 1080), {"width": 1920, "height": 1080}, (1440, 1080)),
        ((640, 360), {"width": 1920, "height": 1080}, (1920, 1080)),
        ((853, 481), {"width": None, "height": None}, (854, 482)),
        ((1920, 1080), {"width": 100, "height": 700, "stretch": True}, (100, 700)),
        ((10000, 10), {"width": 1280, "height": None}, (1280, 2)),
    ],
)
def test_sizes_follow_from_what_is_asked_and_the_inputs_shape(
    source: tuple[int, int], asked: dict[str, int | None], size: tuple[int, int]
) -> None:
    assert fitted_size(PictureSize(*source), **asked) == size  # type: ignore[arg-type]


@given(
    st.integers(1, 16384),
    st.integers(1, 16384),
    st.integers(8, 8192).map(lambda half: 2 * half),
    st.integers(8, 8192).map(lambda half: 2 * half),
)
def test_a_fitted_picture_is_even_fills_one_side_and_exceeds_none(
    source_width: int, source_height: int, width: int, height: int
) -> None:
    size = fitted_size(PictureSize(source_width, source_height), width=width, height=height)
    assert size.width % 2 == size.height % 2 == 0
    assert 2 <= size.width <= width
    assert 2 <= size.height <= height
    assert size.width == width or size.height == height


def test_a_ladder_is_booked_with_one_decode_and_what_differs_from_the_input_scaled() -> None:
    workload = prepared(LADDER).workload
    assert workload.decode is not None
    assert workload.decode_pixels_per_second == 1920 * 1080 * 25
    assert [(task.width, task.height) for task in workload.encodes] == [(1920, 1080), (1280, 720), (854, 480)]
    assert workload.encode_pixels_per_second == (1920 * 1080 + 1280 * 720 + 854 * 480) * 25
    assert workload.scale_pixels_per_second == (1280 * 720 + 854 * 480) * 25
    assert not workload.real_time


def test_another_frame_rate_is_work_too() -> None:
    workload = prepared(encode("frame_rate { numerator: 50 denominator: 1 }")).workload
    assert workload.scale_pixels_per_second == workload.encode_pixels_per_second == 1920 * 1080 * 50


def test_the_same_frame_rate_in_other_figures_is_no_work() -> None:
    assert prepared(encode("frame_rate { numerator: 50 denominator: 2 }")).workload.scale_pixels_per_second == 0


def test_fractions_of_pixels_are_booked_whole() -> None:
    workload = prepared(encode(), FULL_HD.replace("25 denominator: 1", "30000 denominator: 1001")).workload
    assert workload.decode_pixels_per_second == -(-1920 * 1080 * 30000 // 1001)


@pytest.mark.parametrize("rate", ["", "frame_rate { numerator: 90000 denominator: 1 }", "frame_rate { numerator: 0 }"])
def test_an_unknown_or_absurd_input_rate_counts_as_30(rate: str) -> None:
    workload = prepared(encode(), f"width: 1280 height: 720 video_codec: VIDEO_CODEC_HEVC {rate}").workload
    assert workload.decode_pixels_per_second == 1280 * 720 * 30
    assert workload.decode is not None
    assert workload.decode.codec is VideoCodec.HEVC


def test_each_encode_is_booked_with_its_format_depth_and_speed() -> None:
    asked = encode("codec: VIDEO_CODEC_AV1 bit_depth: 10 speed: ENCODING_SPEED_THOROUGH")
    task = prepared(asked).workload.encodes[0]
    assert (task.codec, task.bit_depth, task.speed) == (VideoCodec.AV1, 10, EncodingSpeed.THOROUGH)


def test_the_inputs_depth_and_chroma_reach_the_decode() -> None:
    decode = prepared(encode(), FULL_HD + ' bit_depth: 10 chroma: "4:2:2"').workload.decode
    assert decode is not None
    assert (decode.bit_depth, decode.chroma) == (10, "4:2:2")


@pytest.mark.parametrize(
    ("told", "rotated"), [("", False), ("rotation_degrees: 0", False), ("rotation_degrees: 90", True)]
)
def test_a_turned_picture_is_told_to_placement(told: str, rotated: bool) -> None:
    decode = prepared(encode(), f"{FULL_HD} {told}").workload.decode
    assert decode is not None
    assert decode.rotated is rotated


def test_what_is_only_passed_on_is_not_decoded() -> None:
    workload = prepared(transcode("renditions { passthrough {} audio { codec: AUDIO_CODEC_COPY } }")).workload
    assert workload.decode is None
    assert workload.encodes == ()
    assert workload.scale_pixels_per_second == 0


LIVE, BATCH = Priority.LIVE, Priority.BATCH


@pytest.mark.parametrize(
    ("source", "more", "facts_text", "priority", "real_time"),
    [
        ('uri: "/in.mp4"', "", FULL_HD, BATCH, False),
        ('uri: "/in.mp4" native_rate: true', "", FULL_HD, LIVE, True),
        ('uri: "rtmp://h/a/k"', "", FULL_HD, LIVE, True),
        ('uri: "rtmp://h/a/k"', "priority: PRIORITY_BATCH", FULL_HD, BATCH, True),
        ('uri: "/in.mp4"', "priority: PRIORITY_LIVE", FULL_HD, LIVE, True),
        ('uri: "http://h/i.m3u8"', "", FULL_HD + ' format: "hls"', LIVE, True),
        ('uri: "http://h/i.m3u8"', "", FULL_HD + ' format: "hls" duration { seconds: 9 }', BATCH, False),
        ('uri: "http://h/i.mp4"', "", FULL_HD, BATCH, False),
    ],
)
def test_what_is_live_must_keep_up(
    source: str, more: str, facts_text: str, priority: Priority, real_time: bool
) -> None:
    made = prepared(encode(source=source) + more, facts_text)
    assert made.priority is priority
    assert made.workload.real_time is real_time
    assert session_pb2.Session.FromString(made.payload).priority == made.session.priority != 0


def test_an_ingest_is_live_and_taken_for_h264() -> None:
    made = prepared(
        encode(source=f"ingest {{}} declared_facts {{ {FULL_HD} }}"), FULL_HD.replace("VIDEO_CODEC_H264", "0")
    )
    assert made.priority is Priority.LIVE
    assert made.workload.decode is not None
    assert made.workload.decode.codec is VideoCodec.H264


def violations(text: str, facts_text: str = FULL_HD) -> list[str]:
    with pytest.raises(RequestFailure) as caught:
        prepared(text, facts_text)
    return [violation.field for violation in caught.value.violations]


def test_how_long_a_session_may_wait_and_whether_it_gives_way_is_told_to_the_engine() -> None:
    made = prepared(LADDER + "max_wait { seconds: 90 } preemptible: true")
    assert (made.max_wait, made.preemptible) == (timedelta(seconds=90), True)
    kept = session_pb2.Session.FromString(made.payload)
    assert (kept.max_wait.seconds, kept.preemptible) == (90, True)


@pytest.mark.parametrize("told", ["", "max_wait {}", "max_wait { nanos: 1 }"])
def test_who_does_not_say_how_long_does_not_wait(told: str) -> None:
    assert prepared(LADDER + told).max_wait is None


@pytest.mark.parametrize(
    ("told", "speed"),
    [("0.1", Fraction(1, 10)), ("1", Fraction(1)), ("2.5", Fraction(5, 2)), ("0.3333333", Fraction(1, 3))],
)
def test_a_reserved_speed_is_the_fraction_that_was_written(told: str, speed: Fraction) -> None:
    made = prepared(f"{LADDER} reserved_speed: {told}")
    assert made.workload.reserved_speed == speed
    assert not made.workload.elastic
    assert prepared(LADDER).workload == replace(made.workload, reserved_speed=None)


def test_what_turns_out_to_be_live_may_neither_give_way_nor_ask_for_a_speed() -> None:
    playlist = encode(source='uri: "http://h/i.m3u8"') + "preemptible: true reserved_speed: 2"
    assert violations(playlist, FULL_HD + ' format: "hls"') == ["session.preemptible", "session.reserved_speed"]
    on_demand = prepared(playlist, FULL_HD + ' format: "hls" duration { seconds: 9 }')
    assert (on_demand.preemptible, on_demand.workload.reserved_speed) == (True, Fraction(2))


SPEC = "session.transcode"


@pytest.mark.parametrize(
    ("text", "facts_text", "field"),
    [
        (
            encode("height: 16"),
            "width: 16 height: 9000 video_codec: VIDEO_CODEC_H264",
            f"{SPEC}.renditions[0].encode.width",
        ),
        (
            encode("height: 8000"),
            "width: 9000 height: 16 video_codec: VIDEO_CODEC_H264",
            f"{SPEC}.renditions[0].encode.width",
        ),
        (encode(), "width: 8 height: 1080 video_codec: VIDEO_CODEC_H264", f"{SPEC}.renditions[0].encode.width"),
        (encode(), "width: 16384 height: 16384 video_codec: VIDEO_CODEC_H264", f"{SPEC}.renditions[0].encode.height"),
        (
            encode(source='uri: "/in.mp4" start_offset { seconds: 10 }'),
            FULL_HD + " duration { seconds: 10 }",
            f"{SPEC}.input.start_offset",
        ),
        (
            transcode("renditions { passthrough {} }", outputs='outputs { file { path: "x.ts" } }'),
            FULL_HD.replace("H264", "VP9"),
            f"{SPEC}.outputs[0]",
        ),
        (
            transcode(
                "renditions { passthrough {} audio { codec: AUDIO_CODEC_COPY } }",
                outputs='outputs { file { path: "x.mkv" } } outputs { push { url: "rtmp://h/a/k" } }',
            ),
            FULL_HD + ' audio_codec: "vorbis"',
            f"{SPEC}.outputs[1]",
        ),
    ],
)
def test_what_does_not_fit_the_input_is_told_by_its_path(text: str, facts_text: str, field: str) -> None:
    assert field in violations(text, facts_text)


def test_what_is_unknown_of_the_input_is_not_held_against_it() -> None:
    prepared(
        transcode(
            "renditions { passthrough {} audio { codec: AUDIO_CODEC_COPY } }",
            outputs='outputs { push { url: "rtmp://h/a/k" } }',
        ),
        "width: 1280 height: 720",
    )


def test_an_input_without_video_encodes_sound_only() -> None:
    made = prepared(transcode("renditions { audio { codec: AUDIO_CODEC_OPUS } }"), 'audio_codec: "aac"')
    assert made.workload.decode is None
    with pytest.raises(RequestFailure) as caught:
        prepared(encode(), 'audio_codec: "aac"')
    assert caught.value.reason is Reason.INPUT_NO_VIDEO


SECRETS = """
transcode {
  input { uri: "https://user:hunter2secret@host/in.m3u8?token=hunter2secret" }
  renditions { encode { height: 720 } }
  outputs { push { url: "rtmp://live.example/app/hunter2secret" } }
  outputs { push { url: "srt://live.example:9000?passphrase=hunter2secret" } }
}
"""


def test_no_secret_of_a_url_is_ever_told() -> None:
    made = prepared(SECRETS)
    assert b"hunter2secret" in made.payload
    failure = Failure(reason="PUSH_FAILED", message="hunter2secret was refused", log_tail=("key hunter2secret",))
    record = replace(session_record(), payload=made.payload, failure=failure, state=SessionState.FAILED)
    told = (session_to_proto(record, FACTORS, with_ingest_url=True), planned_to_proto(made))
    for message in told:
        assert "hunter2secret" not in str(message)
        assert message.transcode.outputs[0].push.url == "rtmp://live.example/app/***"
    assert redacted_argv(made.session, iter(["-i", "https://user:hunter2secret@host/in.m3u8", "hunter2secret"])) == [
        "-i",
        "https://***@host/in.m3u8",
        "***",
    ]


def test_hiding_secrets_leaves_what_is_kept_as_it_is() -> None:
    made = prepared(SECRETS)
    planned_to_proto(made)
    assert b"hunter2secret" in made.payload


def test_everything_that_is_known_of_a_session_is_told() -> None:
    payload = prepared(LADDER).payload
    record = replace(full_record(), payload=payload)
    told = session_to_proto(record, FACTORS, with_ingest_url=True)
    assert told.name == "sessions/session-1"
    assert told.device == "devices/cpu-0"
    assert told.state == session_pb2.SESSION_STATE_FAILED
    assert (told.attempt, told.revision) == (1, 2**40)
    assert [rendition.id for rendition in told.transcode.renditions] == ["1080p", "720p", "480p"]
    assert (told.failure.reason, told.failure.exit_code, list(told.failure.log_tail)) == (
        "DISK_FULL",
        228,
        ["one", "two\u2028three"],
    )
    assert (told.progress.frames, told.progress.speed, told.progress.written_bytes) == (2**40, 1.01, 2**50)
    assert told.progress.out_time.ToTimedelta() == timedelta(days=40, microseconds=1)
    assert told.progress.total_time.ToTimedelta() == timedelta(seconds=7.5)
    assert (told.conditions[0].type, told.conditions[0].message) == ("STALLED", "No frame for 10 s.")
    assert told.running_time.ToDatetime(record.create_time.tzinfo) == record.running_time
    assert told.end_time.ToDatetime(record.create_time.tzinfo) == record.end_time
    assert told.trace_id == "0af7651916cd43dd8448eb211c80319c"
    assert told.workload.cost_pixels_per_second == 123
    assert told.input_facts.width == 1920


def test_what_is_unknown_of_a_session_is_unset() -> None:
    told = session_to_proto(session_record(payload=prepared(LADDER).payload), FACTORS)
    assert not any(told.HasField(name) for name in ("progress", "failure", "running_time", "end_time"))
    assert told.trace_id == told.ingest_url == ""


def test_a_session_that_waits_tells_its_place_and_how_long() -> None:
    standing = QueueStanding(position=3, estimated_wait=timedelta(seconds=90), message="It waits for an encoder.")
    begin = session_record().create_time
    record = session_record(
        payload=prepared(LADDER + "max_wait { seconds: 600 }").payload,
        state=SessionState.QUEUED,
        device_id=None,
        reservation=None,
        attempt=0,
        queued_time=begin,
        queue_deadline=begin + timedelta(minutes=10),
        standing=standing,
    )
    told = session_to_proto(record, FACTORS)
    assert (told.queue.position, told.queue.message) == (3, "It waits for an encoder.")
    assert told.queue.estimated_wait.seconds == 90
    assert told.queue.deadline.ToDatetime(begin.tzinfo) - told.queue.queued_time.ToDatetime(begin.tzinfo) == timedelta(
        minutes=10
    )
    unknown = session_to_proto(replace(record, standing=replace(standing, estimated_wait=None)), FACTORS)
    assert not unknown.queue.HasField("estimated_wait")
    assert not session_to_proto(replace(record, queue_deadline=None), FACTORS).queue.HasField("deadline")
    assert not session_to_proto(replace(record, state=SessionState.STARTING), FACTORS).HasField("queue")


def test_a_session_that_gives_way_tells_its_speed_and_how_often_it_was_stopped() -> None:
    record = session_record(payload=prepared(LADDER).payload)
    told = session_to_proto(replace(record, speed_limit=Fraction(3, 2), preemption_count=2), FACTORS)
    assert (told.speed_limit, told.preemption_count) == (1.5, 2)
    assert not session_to_proto(record, FACTORS).HasField("speed_limit")


def test_a_session_that_has_nothing_booked_still_tells_its_cost() -> None:
    record = session_record(payload=prepared(LADDER).payload, reservation=None)
    workload = record.workload
    cost = workload.decode_pixels_per_second + workload.scale_pixels_per_second + 5 * workload.encode_pixels_per_second
    assert session_to_proto(record, FACTORS).workload.cost_pixels_per_second == cost


@pytest.mark.parametrize(("asked", "told"), [(True, "rtmp://127.0.0.1:19350/live/key"), (False, "")])
def test_where_to_publish_is_told_to_who_asks_for_the_session_alone(asked: bool, told: str) -> None:
    record = session_record(payload=prepared(LADDER).payload, ingest_url="rtmp://127.0.0.1:19350/live/key")
    assert session_to_proto(record, FACTORS, with_ingest_url=asked).ingest_url == told


def test_an_upload_in_use_is_found_in_what_was_kept() -> None:
    assert upload_of(prepared(encode(source='upload: "uploads/abc"')).payload) == "uploads/abc"
    assert upload_of(prepared(LADDER).payload) is None
