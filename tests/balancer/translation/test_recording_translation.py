"""What recordings cost, what of them is told, and what never is."""

from __future__ import annotations

from base64 import b64encode
from dataclasses import replace
from datetime import timedelta

import pytest

from balancer.domain.session import Failure, MeasuredUse, Priority, SessionState
from balancer.domain.workload import CaptureTask, CostFactors, EncodingSpeed, Workload
from balancer.servicers.control_requests import with_duration
from balancer.servicers.session_secrets import redacted_argv
from balancer.servicers.session_translation import (
    PreparedSession,
    planned_to_proto,
    prepare_recording,
    prepare_session,
    session_to_proto,
    upload_of,
)
from balancer.servicers.session_validation import draft_session
from fakes.session_records import session_record
from fakes.session_texts import PROFILES, session
from gpu_balancer.runtime.failures import RequestFailure
from gpu_balancer.v1 import recording_pb2, session_pb2

FACTORS = CostFactors()
PAGE = 'page { url: "https://example.org/" }'
SECRETS = {
    "url": "urlsecret1",
    "query": "querysecret2",
    "header": "headersecret3",
    "cookie": "cookiesecret4",
    "password": "passwordsecret5",
    "key": "keysecret6",
}
SECRETIVE = f"""
page {{
  url: "https://me:{SECRETS["url"]}@example.org/?token={SECRETS["query"]}&size=5"
  headers {{ key: "Authorization" value: "Bearer {SECRETS["header"]}" }}
  cookies {{ name: "sid" value: "{SECRETS["cookie"]}" }}
  basic_auth {{ username: "me" password: "{SECRETS["password"]}" }}
}}
renditions {{ id: "hd" encode {{}} }}
outputs {{ push {{ url: "rtmp://live.example.org/app/{SECRETS["key"]}" }} }}
"""


def prepared(inside: str, around: str = "") -> PreparedSession:
    return prepare_recording(draft_session(session(f"recording {{ {inside} }} {around}"), PROFILES))


def workload_of(inside: str) -> Workload:
    return prepared(inside).workload


def test_a_recording_decodes_nothing_and_encodes_what_it_captures() -> None:
    made = prepared(PAGE)
    work = made.workload
    assert work.decode is None
    assert work.scale_pixels_per_second == work.upload_bits_per_second == 0
    assert work.capture == CaptureTask(width=1280, height=720, pixels_per_second=27_648_000, browser=True, sound=True)
    (task,) = work.encodes
    assert (task.width, task.height, task.pixels_per_second) == (1280, 720, 27_648_000)
    assert task.speed is EncodingSpeed.FASTEST
    assert work.real_time
    assert (made.priority, made.session.priority) == (Priority.LIVE, session_pb2.PRIORITY_LIVE)
    assert not made.preemptible


def test_an_application_is_named_in_its_workload() -> None:
    capture = workload_of('application { name: "clock" } capture { without_sound: true }').capture
    assert capture is not None
    assert (capture.browser, capture.sound, capture.application) == (False, False, "clock")


def test_renditions_of_other_sizes_and_rates_are_scaled_from_the_display() -> None:
    work = workload_of(
        f"{PAGE} capture {{ width: 1920 height: 1080 frame_rate {{ numerator: 60 denominator: 1 }} }}"
        " renditions { encode {} } renditions { encode { height: 720 } }"
        " renditions { encode { frame_rate { numerator: 30 denominator: 1 } } } renditions { audio {} }"
    )
    sizes = [(task.width, task.height, task.pixels_per_second) for task in work.encodes]
    assert sizes == [(1920, 1080, 124_416_000), (1280, 720, 55_296_000), (1920, 1080, 62_208_000)]
    assert work.scale_pixels_per_second == 55_296_000 + 62_208_000


def test_a_size_that_follows_from_the_display_and_cannot_be_made_is_refused() -> None:
    with pytest.raises(RequestFailure) as caught:
        prepared(f"{PAGE} capture {{ width: 3840 height: 64 }} renditions {{ encode {{ width: 64 }} }}")
    assert [one.field for one in caught.value.violations] == ["session.recording.renditions[0].encode.height"]
    assert "display" in caught.value.message


@pytest.mark.parametrize(
    ("encoding", "audio", "bits"),
    [
        ("max_bit_rate_bps: 4000000 bit_rate_bps: 3000000", "", 4_128_000),
        ("bit_rate_bps: 3000000", "audio { bit_rate_bps: 96000 }", 4_596_000),
        ("", "audio { codec: AUDIO_CODEC_NONE }", 2_764_800),
    ],
)
def test_what_is_pushed_is_booked_at_its_peak(encoding: str, audio: str, bits: int) -> None:
    rendition = f'renditions {{ id: "hd" encode {{ {encoding} }} {audio} }}'
    push = 'outputs { push { url: "rtmp://example.org/app/key" } }'
    assert workload_of(f"{PAGE} {rendition} {push}").upload_bits_per_second == bits
    assert workload_of(
        f'{PAGE} {rendition} {push} outputs {{ file {{ path: "x.mp4" }} }}{push}'
    ).upload_bits_per_second == (2 * bits)


def test_what_a_transcode_passes_on_is_booked_by_its_size() -> None:
    draft = draft_session(
        session(
            'transcode { input { uri: "/srv/in.mp4" native_rate: true declared_facts { width: 1920 height: 1080'
            " frame_rate { numerator: 30 denominator: 1 } video_codec: VIDEO_CODEC_H264 } }"
            ' renditions { id: "source" passthrough {} audio { codec: AUDIO_CODEC_COPY } }'
            ' outputs { push { url: "srt://example.org:9000" } } }'
        ),
        PROFILES,
    )
    made = prepare_session(draft, draft.session.transcode.input.declared_facts)
    assert made.workload.upload_bits_per_second == 6_220_800 + 128_000


def test_no_secret_is_told_but_every_one_is_kept() -> None:
    made = prepared(SECRETIVE)
    failure = Failure(
        reason="PAGE_UNREACHABLE",
        message=f"Cannot open https://me:{SECRETS['url']}@example.org/: {SECRETS['header']} was refused.",
        log_tail=(*SECRETS.values(), b64encode(f"me:{SECRETS['password']}".encode()).decode()),
    )
    record = session_record(payload=made.payload, workload=made.workload, state=SessionState.FAILED, failure=failure)
    for told in (session_to_proto(record, FACTORS), planned_to_proto(made)):
        text = str(told)
        assert [name for name, secret in SECRETS.items() if secret in text] == []
        assert "me:" not in told.recording.page.url
        assert "size=5" in told.recording.page.url
        assert told.recording.page.headers["Authorization"] == "***"
        assert told.recording.page.cookies[0].value == "***"
        assert told.recording.page.cookies[0].name == "sid"
        assert (told.recording.page.basic_auth.username, told.recording.page.basic_auth.password) == ("me", "***")
    assert list(session_to_proto(record, FACTORS).failure.log_tail) == ["***"] * 7
    for secret in SECRETS.values():
        assert secret.encode() in made.payload
    assert redacted_argv(made.session, iter([f"-u={SECRETS['cookie']}"])) == ["-u=***"]


def test_the_report_and_what_was_measured_are_told() -> None:
    made = prepared(PAGE)
    report = recording_pb2.RecordingReport(captured_frames=90, end_cause="SILENCE")
    used = MeasuredUse(cores=700_000, memory_mib=650, measured_time=timedelta(seconds=15))
    record = session_record(
        payload=made.payload,
        workload=made.workload,
        recording_report=report.SerializeToString(),
        measured_use=used,
    )
    told = session_to_proto(record, FACTORS)
    assert told.recording_report == report
    assert (told.measured_use.cores, told.measured_use.memory_mib) == (700_000, 650)
    assert told.measured_use.measured_time.ToTimedelta() == used.measured_time
    assert (told.workload.capture.width, told.workload.capture.height, told.workload.capture.browser) == (
        1280,
        720,
        True,
    )
    assert told.workload.capture.pixels_per_second == 27_648_000
    untold = session_to_proto(replace(record, recording_report=None, measured_use=None), FACTORS)
    assert not untold.HasField("recording_report")
    assert not untold.HasField("measured_use")


def test_a_recording_reads_no_upload() -> None:
    assert upload_of(prepared(PAGE).payload) is None


def test_the_bound_of_time_is_changed_in_what_is_kept() -> None:
    payload = prepared(SECRETIVE, "max_duration { seconds: 60 }").payload
    longer = session_pb2.Session.FromString(with_duration(payload, timedelta(minutes=5)))
    assert longer.max_duration.ToTimedelta() == timedelta(minutes=5)
    assert longer.recording == session_pb2.Session.FromString(payload).recording
    assert not session_pb2.Session.FromString(with_duration(payload, None)).HasField("max_duration")
