"""Every bad session is refused with the path of what is wrong, all mistakes at once, and nothing secret is repeated."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from balancer.servicers.rendition_validation import rendition_ids
from balancer.servicers.session_validation import draft_session
from fakes.session_texts import LADDER, PROFILES, draft, session
from gpu_balancer.runtime.failures import Reason, RequestFailure
from gpu_balancer.v1 import media_pb2

SPEC = "session.transcode"
FILE = 'uri: "/in.mp4"'
ENCODE = "renditions { encode { height: 720 } }"


def spec(*, source: str = FILE, renditions: str = ENCODE, outputs: str = "", rest: str = "") -> str:
    return f"transcode {{ input {{ {source} }} {renditions} {outputs} }} {rest}"


def encode(fields: str) -> str:
    return spec(renditions=f"renditions {{ encode {{ {fields} }} }}")


def audio(fields: str) -> str:
    return spec(renditions=f"renditions {{ encode {{ height: 720 }} audio {{ {fields} }} }}")


def output(fields: str, renditions: str = ENCODE) -> str:
    return spec(renditions=renditions, outputs=f"outputs {{ {fields} }}")


def facts(fields: str, source: str = FILE) -> str:
    return spec(source=f"{source} declared_facts {{ {fields} }}")


def refused(text: str) -> RequestFailure:
    with pytest.raises(RequestFailure) as caught:
        draft(text)
    return caught.value


INPUT = f"{SPEC}.input"
ENCODING = f"{SPEC}.renditions[0].encode"
AUDIO = f"{SPEC}.renditions[0].audio"
OUTPUT = f"{SPEC}.outputs[0]"
INGEST_FACTS = "declared_facts { width: 1280 height: 720 frame_rate { numerator: 30 denominator: 1 } }"

BAD = {
    # sizes
    "an odd width": (encode("width: 1279"), f"{ENCODING}.width"),
    "an odd height": (encode("height: 719"), f"{ENCODING}.height"),
    "no width": (encode("width: 0 height: 720"), f"{ENCODING}.width"),
    "a giant height": (encode("width: 1280 height: 100000"), f"{ENCODING}.height"),
    "a tiny side": (encode("height: 14"), f"{ENCODING}.height"),
    "too many pixels": (encode("width: 16384 height: 16384"), f"{ENCODING}.height"),
    # rates
    "a rate over 0": (encode("frame_rate { numerator: 30 }"), f"{ENCODING}.frame_rate.denominator"),
    "a rate of 0": (encode("frame_rate { denominator: 1 }"), f"{ENCODING}.frame_rate"),
    "an absurd rate": (encode("frame_rate { numerator: 100000 denominator: 1 }"), f"{ENCODING}.frame_rate"),
    "an endless fraction": (
        encode("frame_rate { numerator: 4294967295 denominator: 4294967294 }"),
        f"{ENCODING}.frame_rate",
    ),
    # formats
    "an input codec": (encode("codec: VIDEO_CODEC_VP9"), f"{ENCODING}.codec"),
    "an unknown codec": (encode("codec: 99"), f"{ENCODING}.codec"),
    "an unknown fit": (encode("fit: 9"), f"{ENCODING}.fit"),
    "an unknown speed": (encode("speed: 9"), f"{ENCODING}.speed"),
    "12 bits": (encode("bit_depth: 12"), f"{ENCODING}.bit_depth"),
    "keyframes too often": (encode("keyframe_interval { nanos: 1000 }"), f"{ENCODING}.keyframe_interval"),
    "keyframes backwards": (encode("keyframe_interval { seconds: -2 }"), f"{ENCODING}.keyframe_interval"),
    "keyframes too rarely": (encode("keyframe_interval { seconds: 61 }"), f"{ENCODING}.keyframe_interval"),
    "no bit rate": (encode("bit_rate_bps: 0"), f"{ENCODING}.bit_rate_bps"),
    "a giant bit rate": (encode("bit_rate_bps: 4000000000"), f"{ENCODING}.bit_rate_bps"),
    "a quality beyond H.264": (encode("quality: 52"), f"{ENCODING}.quality"),
    "a quality beyond AV1": (encode("codec: VIDEO_CODEC_AV1 quality: 64"), f"{ENCODING}.quality"),
    "a peak below the mean": (
        encode("bit_rate_bps: 2000000 max_bit_rate_bps: 1000000"),
        f"{ENCODING}.max_bit_rate_bps",
    ),
    "a tiny peak": (encode("max_bit_rate_bps: 1"), f"{ENCODING}.max_bit_rate_bps"),
    # sound
    "an unknown sound": (audio("codec: 9"), f"{AUDIO}.codec"),
    "a loud sound": (audio("bit_rate_bps: 600000"), f"{AUDIO}.bit_rate_bps"),
    "nine channels": (audio("channels: 9"), f"{AUDIO}.channels"),
    "no channel": (audio("channels: 0"), f"{AUDIO}.channels"),
    "a rate Opus lacks": (audio("codec: AUDIO_CODEC_OPUS sample_rate_hz: 44100"), f"{AUDIO}.sample_rate_hz"),
    "a bit rate for a copy": (audio("codec: AUDIO_CODEC_COPY bit_rate_bps: 64000"), f"{AUDIO}.bit_rate_bps"),
    "nothing at all": (spec(renditions="renditions { audio { codec: AUDIO_CODEC_NONE } }"), f"{SPEC}.renditions[0]"),
    # names and numbers of renditions
    "a name with a path": (spec(renditions='renditions { id: "../x" passthrough {} }'), f"{SPEC}.renditions[0].id"),
    "a name twice": (
        spec(renditions='renditions { id: "a" passthrough {} } renditions { id: "a" passthrough {} }'),
        f"{SPEC}.renditions[1].id",
    ),
    "17 renditions": (spec(renditions=ENCODE * 17), f"{SPEC}.renditions"),
    "no rendition": (spec(renditions=""), f"{SPEC}.renditions"),
    "profile and renditions": (spec(renditions=f'profile: "ladder-h264" {ENCODE}'), f"{SPEC}.profile"),
    "an unknown profile": (spec(renditions='profile: "nope"'), f"{SPEC}.profile"),
    # the input
    "no source": (spec(source=""), INPUT),
    "an empty source": (spec(source='uri: ""'), f"{INPUT}.uri"),
    "a relative path": (spec(source='uri: "in.mp4"'), f"{INPUT}.uri"),
    "another protocol": (spec(source='uri: "concat:/a|/b"'), f"{INPUT}.uri"),
    "a gopher": (spec(source='uri: "gopher://x/y"'), f"{INPUT}.uri"),
    "a nested protocol": (spec(source='uri: "crypto+http://x/y"'), f"{INPUT}.uri"),
    "a file of another host": (spec(source='uri: "file://host/in.mp4"'), f"{INPUT}.uri"),
    "a path with a line end": (spec(source='uri: "/in\\n.mp4"'), f"{INPUT}.uri"),
    "a URL without host": (spec(source='uri: "http:///x"'), f"{INPUT}.uri"),
    "a URL with a bad port": (spec(source='uri: "http://host:99999/x"'), f"{INPUT}.uri"),
    "a URL with a space": (spec(source='uri: "http://host/a b"'), f"{INPUT}.uri"),
    "an endless URL": (spec(source=f'uri: "http://host/{"x" * 5000}"'), f"{INPUT}.uri"),
    "an upload by its path": (spec(source='upload: "uploads/../../etc"'), f"{INPUT}.upload"),
    "a start before the start": (spec(source=f"{FILE} start_offset {{ seconds: -1 }}"), f"{INPUT}.start_offset"),
    "a duration of nothing": (spec(source=f"{FILE} duration {{}}"), f"{INPUT}.duration"),
    "a duration without end": (spec(source=f"{FILE} duration {{ seconds: 400000000000 }}"), f"{INPUT}.duration"),
    "a duration at odds": (spec(source=f"{FILE} duration {{ seconds: 1 nanos: -5 }}"), f"{INPUT}.duration"),
    "repeating a stream": (spec(source='uri: "rtmp://h/a/k" repeat_count: 2'), f"{INPUT}.repeat_count"),
    "repeating a stream for ever": (spec(source='uri: "srt://h:9" repeat_forever: true'), f"{INPUT}.repeat_forever"),
    "repeating twice": (spec(source=f"{FILE} repeat_count: 2 repeat_forever: true"), f"{INPUT}.repeat_count"),
    "repeating too often": (spec(source=f"{FILE} repeat_count: 4000000000"), f"{INPUT}.repeat_count"),
    "skipping in a stream": (spec(source='uri: "rtsp://h/a" start_offset { seconds: 1 }'), f"{INPUT}.start_offset"),
    # an ingest and declared facts
    "an ingest of unknown size": (spec(source="ingest {}"), f"{INPUT}.declared_facts.width"),
    "an ingest of unknown rate": (facts("width: 1280 height: 720", "ingest {}"), f"{INPUT}.declared_facts.frame_rate"),
    "an unknown ingest": (spec(source=f"ingest {{ protocol: 9 }} {INGEST_FACTS}"), f"{INPUT}.ingest.protocol"),
    "an impatient ingest": (
        spec(source=f"ingest {{ publisher_timeout {{ nanos: 1 }} }} {INGEST_FACTS}"),
        f"{INPUT}.ingest.publisher_timeout",
    ),
    "half a size": (facts("width: 1280"), f"{INPUT}.declared_facts"),
    "a giant input": (facts("width: 100000 height: 100000"), f"{INPUT}.declared_facts.width"),
    "a vast input": (facts("width: 16384 height: 16384"), f"{INPUT}.declared_facts"),
    "a motionless input": (facts("frame_rate { denominator: 1 }"), f"{INPUT}.declared_facts.frame_rate.numerator"),
    "an input of 11 bits": (facts("bit_depth: 11"), f"{INPUT}.declared_facts.bit_depth"),
    "an input on its edge": (facts("rotation_degrees: 45"), f"{INPUT}.declared_facts.rotation_degrees"),
    "an unknown chroma": (facts('chroma: "9:9:9"'), f"{INPUT}.declared_facts.chroma"),
    "an unknown input codec": (facts("video_codec: 77"), f"{INPUT}.declared_facts.video_codec"),
    "a strange format": (facts('format: "a\\tb"'), f"{INPUT}.declared_facts.format"),
    "an input that ends before it begins": (facts("duration { seconds: -5 }"), f"{INPUT}.declared_facts.duration"),
    # outputs
    "no kind": (output(""), OUTPUT),
    "an empty path": (output("file {}"), f"{OUTPUT}.file.path"),
    "an unknown extension": (output('file { path: "x.avi" }'), f"{OUTPUT}.file.path"),
    "an unknown container": (output('file { path: "x.mp4" container: 9 }'), f"{OUTPUT}.file.container"),
    "a path that leads out": (output('file { path: "../x.mp4" }'), f"{OUTPUT}.file.path"),
    "a path that leads out later": (output('file { path: "/srv/out/../../etc/x.mp4" }'), f"{OUTPUT}.file.path"),
    "a path with a gap": (output('file { path: "a//x.mp4" }'), f"{OUTPUT}.file.path"),
    "a hidden path": (output('file { path: ".ssh/x.mp4" }'), f"{OUTPUT}.file.path"),
    "a path with a backslash": (output('file { path: "..\\\\x.mp4" }'), f"{OUTPUT}.file.path"),
    "a path with a zero": (output('file { path: "x\\000.mp4" }'), f"{OUTPUT}.file.path"),
    "a long path": (output(f'file {{ path: "{"a/" * 600}x.mp4" }}'), f"{OUTPUT}.file.path"),
    "a long name": (output(f'file {{ path: "{"a" * 300}.mp4" }}'), f"{OUTPUT}.file.path"),
    "a path that turns around": (output('file { path: "x\u202e4pm.mp4" }'), f"{OUTPUT}.file.path"),
    "a path over two lines": (output('file { path: "x\u2028y.mp4" }'), f"{OUTPUT}.file.path"),
    "an absolute path over two lines": (output('file { path: "/srv/x\u0085y.mp4" }'), f"{OUTPUT}.file.path"),
    "an HLS path that turns around": (output('hls { path: "x\u202ey" }'), f"{OUTPUT}.hls.path"),
    "HLS by numbers": (output('hls { path: "a%05d" }'), f"{OUTPUT}.hls.path"),
    "an unknown segment": (output('hls { path: "a" segment_format: 9 }'), f"{OUTPUT}.hls.segment_format"),
    "a short segment": (output('hls { path: "a" segment_duration { nanos: 5 } }'), f"{OUTPUT}.hls.segment_duration"),
    "a segment between keyframes": (
        output('hls { path: "a" segment_duration { seconds: 3 } }'),
        f"{OUTPUT}.hls.segment_duration",
    ),
    "a window below a segment": (output('hls { path: "a" dvr_window { seconds: 2 } }'), f"{OUTPUT}.hls.dvr_window"),
    "AV1 in a transport stream": (
        output('file { path: "x.ts" }', "renditions { encode { codec: VIDEO_CODEC_AV1 } }"),
        OUTPUT,
    ),
    "AV1 over SRT": (output('push { url: "srt://h:9" }', "renditions { encode { codec: VIDEO_CODEC_AV1 } }"), OUTPUT),
    "AV1 in TS segments": (
        output(
            'hls { path: "a" segment_format: HLS_SEGMENT_FORMAT_TS }',
            "renditions { encode { codec: VIDEO_CODEC_AV1 } }",
        ),
        OUTPUT,
    ),
    "a push by HTTP": (output('push { url: "http://h/x" }'), f"{OUTPUT}.push.url"),
    "a push to nowhere": (output('push { url: "rtmp:///app/key" }'), f"{OUTPUT}.push.url"),
    "a push of two": (output('push { url: "rtmp://h/app/key" }', ENCODE * 2), f"{OUTPUT}.renditions"),
    "an unknown rendition": (output('renditions: "nope" file { path: "x.mp4" }'), f"{OUTPUT}.renditions[0]"),
    "a rendition twice": (
        output('renditions: "720p" renditions: "720p" file { path: "x.mp4" }'),
        f"{OUTPUT}.renditions[1]",
    ),
    "a rendition for nobody": (
        output('renditions: "720p" file { path: "x.mp4" }', ENCODE * 2),
        f"{SPEC}.renditions[1]",
    ),
    "a name that turns around": (output('id: "x\u202ey" file { path: "x.mp4" }'), f"{OUTPUT}.id"),
    "a rendition over two lines": (
        spec(renditions='renditions { id: "x\u2028" encode {} }'),
        f"{SPEC}.renditions[0].id",
    ),
    "a bad name": (output('id: "a b" file { path: "x.mp4" }'), f"{OUTPUT}.id"),
    "33 outputs": (
        spec(outputs="".join(f'outputs {{ file {{ path: "{n}.mp4" }} }}' for n in range(33))),
        f"{SPEC}.outputs",
    ),
    # the session
    "no spec": ("", SPEC),
    "an unknown priority": (spec(rest="priority: 9"), "session.priority"),
    "no time": (spec(rest="max_duration {}"), "session.max_duration"),
    "time backwards": (spec(rest="max_duration { seconds: -1 }"), "session.max_duration"),
    "a wait backwards": (spec(rest="max_wait { seconds: -1 }"), "session.max_wait"),
    "a wait of more than a week": (spec(rest="max_wait { seconds: 604801 }"), "session.max_wait"),
    "a wait at odds": (spec(rest="max_wait { seconds: 1 nanos: -5 }"), "session.max_wait"),
    "live work that may be stopped": (spec(rest="priority: PRIORITY_LIVE preemptible: true"), "session.preemptible"),
    "a stream that may be stopped": (spec(source='uri: "srt://h:9"', rest="preemptible: true"), "session.preemptible"),
    "no speed": (spec(rest="reserved_speed: 0"), "session.reserved_speed"),
    "a speed backwards": (spec(rest="reserved_speed: -1"), "session.reserved_speed"),
    "a crawl": (spec(rest="reserved_speed: 0.0099"), "session.reserved_speed"),
    "an absurd speed": (spec(rest="reserved_speed: 1000.1"), "session.reserved_speed"),
    "an endless speed": (spec(rest="reserved_speed: inf"), "session.reserved_speed"),
    "a speed that is none": (spec(rest="reserved_speed: nan"), "session.reserved_speed"),
    "a speed for live work": (spec(rest="priority: PRIORITY_LIVE reserved_speed: 2"), "session.reserved_speed"),
    "a speed for a stream": (spec(source='uri: "rtmp://h/a/k"', rest="reserved_speed: 2"), "session.reserved_speed"),
    "a speed at native rate": (
        spec(source=f"{FILE} native_rate: true", rest="priority: PRIORITY_BATCH reserved_speed: 1"),
        "session.reserved_speed",
    ),
    "a speed for an ingest": (
        spec(source=f"ingest {{}} {INGEST_FACTS}", rest="reserved_speed: 1"),
        "session.reserved_speed",
    ),
    "33 labels": (spec(rest="".join(f'labels {{ key: "{n}" }}' for n in range(33))), "session.labels"),
    "a label without key": (spec(rest='labels { key: "" value: "x" }'), "session.labels"),
    "a long label": (spec(rest=f'labels {{ key: "{"k" * 64}" }}'), "session.labels"),
    "a long value": (spec(rest=f'labels {{ key: "k" value: "{"v" * 256}" }}'), "session.labels['k']"),
    "a value over two lines": (spec(rest='labels { key: "k" value: "a\\nb" }'), "session.labels['k']"),
    "a value that rings": (spec(rest='labels { key: "k" value: "\\a" }'), "session.labels['k']"),
    "a value that turns around": (spec(rest='labels { key: "k" value: "a\u202eb" }'), "session.labels['k']"),
}


@pytest.mark.parametrize(("text", "field"), BAD.values(), ids=BAD.keys())
def test_what_is_wrong_is_told_by_its_path(text: str, field: str) -> None:
    failure = refused(text)
    assert failure.reason.code.name == "INVALID_ARGUMENT"
    assert field in [violation.field for violation in failure.violations]


def test_every_mistake_is_told_at_once() -> None:
    failure = refused(
        spec(
            source='uri: "rtmp://h/a" repeat_count: 1 start_offset { seconds: 5 }',
            renditions="renditions { encode { width: 3 quality: 99 } } renditions { encode { codec: 6 } }",
            outputs='outputs { renditions: "nope" file { path: "../x.mp4" } }',
            rest="priority: 9",
        )
    )
    assert [violation.field for violation in failure.violations] == [
        "session.priority",
        f"{INPUT}.start_offset",
        f"{INPUT}.repeat_count",
        f"{SPEC}.renditions[0].encode.width",
        f"{SPEC}.renditions[0].encode.quality",
        f"{SPEC}.renditions[1].encode.codec",
        f"{OUTPUT}.renditions[0]",
        f"{OUTPUT}.file.path",
        f"{SPEC}.renditions[0]",
        f"{SPEC}.renditions[1]",
    ]


def test_an_unknown_profile_has_a_reason_of_its_own_and_names_the_known_ones() -> None:
    failure = refused(spec(renditions='profile: "nope"'))
    assert failure.reason is Reason.PROFILE_UNKNOWN
    assert all(name in failure.message for name in PROFILES)


def test_an_unknown_profile_among_other_mistakes_is_one_of_them() -> None:
    assert refused(spec(renditions='profile: "nope"', rest="priority: 9")).reason is Reason.INVALID_REQUEST


@pytest.mark.parametrize(
    "text",
    [
        spec(source='uri: "gopher://user:hunter2secret@h/x"'),
        spec(source='uri: "http://user:hunter2secret@h:99999/x"'),
        spec(source='uri: "http://user:hunter2secret@/x y"'),
        output('push { url: "rtmp://h:0/app/hunter2secret" }'),
        output('push { url: "http://h/hunter2secret" }'),
    ],
)
def test_no_refusal_repeats_a_secret(text: str) -> None:
    failure = refused(text)
    assert "hunter2secret" not in failure.message
    assert all("hunter2secret" not in violation.description for violation in failure.violations)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ('file { path: "a.mp4" }', 'file { path: "a.mp4" }'),
        ('hls { path: "a" }', 'hls { path: "a" }'),
        ('hls { path: "a" }', 'file { path: "a/x.mp4" }'),
        ('file { path: "a/b/x.mp4" }', 'hls { path: "a" }'),
        ('file { path: "/srv/a.mp4" }', 'file { path: "/srv/a.mp4" }'),
    ],
)
def test_no_output_may_lie_in_the_place_of_another(one: str, other: str) -> None:
    failure = refused(spec(outputs=f"outputs {{ {one} }} outputs {{ {other} }}"))
    assert len(failure.violations) == 1
    assert failure.violations[0].field.endswith(".path")


def test_every_output_inside_another_is_named() -> None:
    paths = ('hls { path: "a" }', 'file { path: "a/x.mp4" }', 'file { path: "a/y.mp4" }', 'file { path: "ab/y.mp4" }')
    failure = refused(spec(outputs="".join(f"outputs {{ {path} }}" for path in paths)))
    assert [violation.field for violation in failure.violations] == [
        f"{SPEC}.outputs[1].file.path",
        f"{SPEC}.outputs[2].file.path",
    ]


def test_an_artifact_and_a_file_of_the_same_name_are_two() -> None:
    draft(spec(outputs='outputs { file { path: "a.mp4" } } outputs { file { path: "/a.mp4" } }'))


def test_a_segment_may_hold_several_keyframes_but_no_half() -> None:
    rendition = "renditions { encode { keyframe_interval { nanos: 500000000 } } }"
    draft(output('hls { path: "a" segment_duration { seconds: 3 } }', rendition))
    refused(output('hls { path: "a" segment_duration { seconds: 3 nanos: 250000000 } }', rendition))


GOOD = {
    "a ladder": LADDER,
    "a profile": spec(renditions='profile: "ladder-hevc"'),
    "a file URL": spec(source='uri: "file:///srv/in.mp4"'),
    "a file URL of this host": spec(source='uri: "file://localhost/srv/in.mp4"'),
    "an upload": spec(source='upload: "uploads/abc123"'),
    "a stream": spec(source='uri: "SRT://host:9000?mode=caller"'),
    "a playlist": spec(source='uri: "https://host/live/index.m3u8"'),
    "an ingest": spec(source=f"ingest {{}} {INGEST_FACTS}"),
    "a film, over and over": spec(source=f"{FILE} repeat_forever: true native_rate: true"),
    "a push of one": output('push { url: "rtmps://host/app/key" }'),
    "a push of one of several": spec(
        renditions=ENCODE * 2,
        outputs='outputs { renditions: "720p-h264" push { url: "srt://h:9" } } outputs { file { path: "a.mkv" } }',
    ),
    "HEVC over RTMP": output('push { url: "rtmp://h/a/k" }', "renditions { encode { codec: VIDEO_CODEC_HEVC } }"),
    "Opus in a transport stream": output(
        'file { path: "x.ts" }', "renditions { encode {} audio { codec: AUDIO_CODEC_OPUS } }"
    ),
    "sound alone": spec(renditions="renditions { audio { codec: AUDIO_CODEC_OPUS } }"),
    "an extension in capitals": output('file { path: "X.MP4" }'),
    "a container by name": output('file { path: "recording" container: CONTAINER_MKV }'),
    "umlauts": output('file { path: "Übung/Größe 1.mp4" }'),
    "the largest picture": encode("width: 16384 height: 8704"),
    "the smallest picture": encode("width: 16 height: 16"),
    "waiting for a week": spec(rest="max_wait { seconds: 604800 }"),
    "not waiting": spec(rest="max_wait {}"),
    "what gives way": spec(rest="preemptible: true reserved_speed: 0.01"),
    "what gives way at its own pace": spec(
        source=f"{FILE} native_rate: true", rest="priority: PRIORITY_BATCH preemptible: true"
    ),
    "the highest speed": spec(rest="priority: PRIORITY_BATCH reserved_speed: 1000"),
}


@pytest.mark.parametrize("text", GOOD.values(), ids=GOOD.keys())
def test_what_can_be_done_is_not_refused(text: str) -> None:
    draft(text)


def test_renditions_are_named_for_their_size_and_unlike_each_other() -> None:
    asked = session(
        spec(
            renditions="""
            renditions { encode { height: 720 } }
            renditions { encode { width: 1280 height: 720 codec: VIDEO_CODEC_HEVC } }
            renditions { encode { height: 720 } } renditions { encode { height: 720 } }
            renditions { encode { width: 640 } } renditions { encode {} } renditions { passthrough {} }
            renditions { passthrough {} } renditions { audio { codec: AUDIO_CODEC_AAC } }
            renditions { id: "720p-2" encode { height: 720 } }
            """
        )
    )
    assert rendition_ids(asked.transcode.renditions) == [
        "720p",
        "720p-hevc",
        "720p-h264",
        "720p-3",
        "640w",
        "source",
        "copy",
        "copy-2",
        "audio",
        "720p-2",
    ]


@given(
    st.lists(
        st.tuples(st.sampled_from(["", "720p", "720p-2", "copy", "a"]), st.sampled_from([0, 360, 720])), max_size=16
    )
)
def test_made_names_never_take_a_given_one(wanted: list[tuple[str, int]]) -> None:
    renditions = []
    for name, height in wanted:
        rendition = media_pb2.Rendition(id=name)
        if height:
            rendition.encode.height = height
        else:
            rendition.passthrough.SetInParent()
        renditions.append(rendition)
    made = rendition_ids(renditions)
    assert [got for got, (name, _) in zip(made, wanted, strict=True) if name] == [name for name, _ in wanted if name]
    given_names = {name for name, _ in wanted if name}
    fresh = [got for got, (name, _) in zip(made, wanted, strict=True) if not name]
    assert len(set(fresh)) == len(fresh)
    assert not given_names & set(fresh)


def test_what_was_left_open_is_filled_in() -> None:
    made = draft(spec(source=f"ingest {{}} {INGEST_FACTS}", outputs='outputs { hls { path: "live" } }')).session
    rendition = made.transcode.renditions[0]
    assert rendition.id == "720p"
    assert rendition.encode.codec == media_pb2.VIDEO_CODEC_H264
    assert rendition.encode.fit == media_pb2.FIT_CONTAIN
    assert rendition.encode.speed == media_pb2.ENCODING_SPEED_FAST
    assert (rendition.encode.keyframe_interval.seconds, rendition.encode.bit_depth) == (2, 8)
    assert (rendition.audio.codec, rendition.audio.bit_rate_bps) == (media_pb2.AUDIO_CODEC_AAC, 128_000)
    assert rendition.audio.sample_rate_hz == 48_000
    assert made.transcode.input.ingest.protocol == media_pb2.INGEST_PROTOCOL_RTMP
    assert made.transcode.input.ingest.publisher_timeout.seconds == 60
    output = made.transcode.outputs[0]
    assert (output.id, output.hls.segment_duration.seconds) == ("output-1", 4)
    assert output.hls.segment_format == media_pb2.HLS_SEGMENT_FORMAT_FMP4


def test_without_outputs_each_rendition_becomes_an_artifact() -> None:
    made = draft(LADDER).session.transcode
    assert [(output.id, list(output.renditions), output.file.path) for output in made.outputs] == [
        ("output-1", ["1080p"], "1080p.mp4"),
        ("output-2", ["720p"], "720p.mp4"),
        ("output-3", ["480p"], "480p.mp4"),
    ]
    assert all(output.file.container == media_pb2.CONTAINER_MP4 for output in made.outputs)


def test_a_profile_is_unfolded_and_only_what_is_sent_somewhere_is_made() -> None:
    made = draft(
        spec(renditions='profile: "ladder-h264"', outputs='outputs { renditions: "720p" file { path: "a.mp4" } }')
    )
    assert [rendition.id for rendition in made.session.transcode.renditions] == ["720p"]
    assert made.session.transcode.profile == ""


def test_what_is_given_back_can_be_asked_for_again() -> None:
    first = draft(
        spec(renditions='profile: "ladder-h264"', rest='labels { key: "a" value: "b" } max_duration { seconds: 60 }')
    )
    again = draft(str(first.session))
    assert again.session == first.session


@pytest.mark.parametrize("value", ["", "映画\u3000一", "a\u00a0b", "👨\u200d👩\u200d👧"])
def test_a_label_may_be_any_text_of_one_line(value: str) -> None:
    made = draft(spec(rest=f'labels {{ key: "title" value: "{value}" }}')).session
    assert dict(made.labels) == {"title": value}


def test_the_digest_tells_sessions_apart_and_knows_nothing_of_output_only_fields() -> None:
    plain = draft(LADDER)
    assert draft(LADDER + 'name: "sessions/x" state: SESSION_STATE_FAILED revision: 7').digest == plain.digest
    told = "queue { position: 2 } speed_limit: 0.5 preemption_count: 3"
    assert draft(LADDER + told).digest == plain.digest
    for asked in ("priority: PRIORITY_LIVE", "max_wait { seconds: 9 }", "preemptible: true", "reserved_speed: 2"):
        assert draft(LADDER + asked).digest != plain.digest
    labels = [f'labels {{ key: "{key}" value: "1" }}' for key in ("a", "b", "c")]
    assert draft(LADDER + "".join(labels)).digest == draft(LADDER + "".join(reversed(labels))).digest


def test_checking_changes_nothing_of_the_request_or_the_profiles() -> None:
    asked = session(spec(renditions='profile: "ladder-h264"'))
    before, ladder = str(asked), [str(rendition) for rendition in PROFILES["ladder-h264"]]
    draft_session(asked, PROFILES)
    assert str(asked) == before
    assert [str(rendition) for rendition in PROFILES["ladder-h264"]] == ladder
