"""Recordings as clients ask for them: every mistake with its field, and what is filled in."""

from __future__ import annotations

import pytest

from balancer.servicers.recording_rules import RecordingRules, recording_rules
from balancer.servicers.session_validation import draft_session
from balancer.settings import BalancerSettings
from fakes.session_texts import PROFILES, session
from gpu_balancer.runtime.failures import Reason, RequestFailure
from gpu_balancer.runtime.settings_file import parse_settings
from gpu_balancer.v1 import media_pb2, recording_pb2, session_pb2

SPEC = "session.recording"
PAGE = 'page { url: "https://example.org/" }'
CLOCK = 'application { name: "clock" }'
RULES = RecordingRules(destinations=frozenset({"archive", "bucket"}))
COOKIE = f"{SPEC}.page.cookies[0]"
DURATION = "{ seconds: 5 }"


def drafted(inside: str, around: str = "", rules: RecordingRules = RULES) -> session_pb2.Session:
    """Checks a recording."""
    return draft_session(session(f"recording {{ {inside} }} {around}"), PROFILES, rules=rules).session


def refused(inside: str, around: str = "", rules: RecordingRules = RULES) -> RequestFailure:
    with pytest.raises(RequestFailure) as caught:
        drafted(inside, around, rules)
    return caught.value


def page(inside: str) -> str:
    return f'page {{ url: "https://example.org/" {inside} }}'


def with_page(inside: str) -> str:
    return f"{PAGE} {inside}"


WRONG: dict[str, tuple[str, str]] = {
    "no source": ("", SPEC),
    "no url": ("page {}", f"{SPEC}.page.url"),
    "a word for a url": ('page { url: "example.org" }', f"{SPEC}.page.url"),
    "a scheme that is not allowed": ('page { url: "file:///etc/passwd" }', f"{SPEC}.page.url"),
    "a script for a url": ('page { url: "javascript:alert(1)" }', f"{SPEC}.page.url"),
    "another scheme": ('page { url: "ftp://example.org/" }', f"{SPEC}.page.url"),
    "a url without slashes": ('page { url: "https:example.org" }', f"{SPEC}.page.url"),
    "a url without a host": ('page { url: "http:///x" }', f"{SPEC}.page.url"),
    "a url with a space": ('page { url: "https://example.org/a b" }', f"{SPEC}.page.url"),
    "a url with a line": ('page { url: "https://example.org/\\n" }', f"{SPEC}.page.url"),
    "a port that is none": ('page { url: "https://example.org:0/" }', f"{SPEC}.page.url"),
    "a long url": (f'page {{ url: "https://example.org/{"x" * 4096}" }}', f"{SPEC}.page.url"),
    "a small scale": (page("device_scale_factor: 0.49"), f"{SPEC}.page.device_scale_factor"),
    "a large scale": (page("device_scale_factor: 4.1"), f"{SPEC}.page.device_scale_factor"),
    "no number for a scale": (page("device_scale_factor: nan"), f"{SPEC}.page.device_scale_factor"),
    "a locale that is none": (page('locale: "de_DE"'), f"{SPEC}.page.locale"),
    "a timezone that is none": (page('timezone: "../etc"'), f"{SPEC}.page.timezone"),
    "a timezone in lower case": (page('timezone: "europe/berlin"'), f"{SPEC}.page.timezone"),
    "a header for a proxy": (page('headers { key: "Proxy-Authorization" value: "c" }'), f"{SPEC}.page.headers"),
    "a secure cookie that is not": (page('cookies { name: "__Secure-a" value: "b" }'), f"{COOKIE}.secure"),
    "a host's cookie for a path": (
        page('cookies { name: "__Host-a" value: "b" secure: true path: "/x" }'),
        f"{COOKIE}.name",
    ),
    "a user agent of two lines": (page('user_agent: "a\\nb"'), f"{SPEC}.page.user_agent"),
    "a header's name with a space": (page('headers { key: "a b" value: "c" }'), f"{SPEC}.page.headers"),
    "a header that the browser says": (page('headers { key: "Host" value: "c" }'), f"{SPEC}.page.headers"),
    "cookies as a header": (page('headers { key: "cookie" value: "c" }'), f"{SPEC}.page.headers"),
    "a header of two lines": (page('headers { key: "X" value: "a\\r\\nHost: b" }'), f"{SPEC}.page.headers['X']"),
    "a header twice": (
        page('headers { key: "X-A" value: "a" } headers { key: "x-a" value: "b" }'),
        f"{SPEC}.page.headers",
    ),
    "33 headers": (
        page("".join(f'headers {{ key: "X-{n}" value: "a" }}' for n in range(33))),
        f"{SPEC}.page.headers",
    ),
    "a cookie without a name": (page('cookies { value: "a" }'), f"{COOKIE}.name"),
    "a cookie's name with an equals sign": (page('cookies { name: "a=b" }'), f"{COOKIE}.name"),
    "a cookie's value with a semicolon": (page('cookies { name: "a" value: "b;c" }'), f"{COOKIE}.value"),
    "a cookie's domain with a path": (page('cookies { name: "a" domain: "example.org/x" }'), f"{COOKIE}.domain"),
    "a cookie's path without a slash": (page('cookies { name: "a" path: "x" }'), f"{COOKIE}.path"),
    "65 cookies": (page('cookies { name: "a" } ' * 65), f"{SPEC}.page.cookies"),
    "no user": (page('basic_auth { password: "a" }'), f"{SPEC}.page.basic_auth.username"),
    "a user with a colon": (page('basic_auth { username: "a:b" }'), f"{SPEC}.page.basic_auth.username"),
    "a long password": (
        page(f'basic_auth {{ username: "a" password: "{"x" * 1025}" }}'),
        f"{SPEC}.page.basic_auth.password",
    ),
    "a long script": (page(f'init_script: "{"x" * 65_537}"'), f"{SPEC}.page.init_script"),
    "a color scheme that is none": (page("color_scheme: 7"), f"{SPEC}.page.color_scheme"),
    "no application's name": ("application {}", f"{SPEC}.application.name"),
    "a program for an application": ('application { name: "/bin/sh" }', f"{SPEC}.application.name"),
    "a display of nothing": (with_page("capture { width: 0 }"), f"{SPEC}.capture.width"),
    "a tiny display": (with_page("capture { height: 62 }"), f"{SPEC}.capture.height"),
    "a huge display": (with_page("capture { width: 20000 }"), f"{SPEC}.capture.width"),
    "an odd display": (with_page("capture { width: 1279 }"), f"{SPEC}.capture.width"),
    "a rate of nothing": (
        with_page("capture { frame_rate { numerator: 0 denominator: 1 } }"),
        f"{SPEC}.capture.frame_rate",
    ),
    "a rate without seconds": (
        with_page("capture { frame_rate { numerator: 30 } }"),
        f"{SPEC}.capture.frame_rate.denominator",
    ),
    "a high rate": (
        with_page("capture { frame_rate { numerator: 121 denominator: 1 } }"),
        f"{SPEC}.capture.frame_rate",
    ),
    "a gate that is none": (with_page("start_gate { kind: 9 }"), f"{SPEC}.start_gate.kind"),
    "a window of a page": (with_page("start_gate { kind: START_GATE_KIND_FIRST_WINDOW }"), f"{SPEC}.start_gate.kind"),
    "the paint of an application": (
        f"{CLOCK} start_gate {{ kind: START_GATE_KIND_FIRST_CONTENTFUL_PAINT }}",
        f"{SPEC}.start_gate.kind",
    ),
    "no selector": (with_page("start_gate { kind: START_GATE_KIND_SELECTOR }"), f"{SPEC}.start_gate.selector"),
    "a selector without its gate": (with_page('start_gate { selector: "#x" }'), f"{SPEC}.start_gate.selector"),
    "a signal without its gate": (with_page('start_gate { signal: "GO" }'), f"{SPEC}.start_gate.signal"),
    "a signal of two lines": (
        with_page('start_gate { kind: START_GATE_KIND_CONSOLE_SIGNAL signal: "G\\nO" }'),
        f"{SPEC}.start_gate.signal",
    ),
    "a short gate": (with_page("start_gate { timeout { nanos: 1 } }"), f"{SPEC}.start_gate.timeout"),
    "a long gate": (with_page("start_gate { timeout { seconds: 601 } }"), f"{SPEC}.start_gate.timeout"),
    "an application's console": (f'{CLOCK} stop_rules {{ end_signal: "X" }}', f"{SPEC}.stop_rules.end_signal"),
    "short silence": (with_page("stop_rules { silence { nanos: 5 } }"), f"{SPEC}.stop_rules.silence"),
    "silence without sound": (
        with_page("capture { without_sound: true } stop_rules { silence { seconds: 5 } }"),
        f"{SPEC}.stop_rules.silence",
    ),
    "long idleness": (with_page("stop_rules { idle { seconds: 86401 } }"), f"{SPEC}.stop_rules.idle"),
    "a profile and renditions": (
        with_page('profile: "ladder-h264" renditions { encode {} }'),
        f"{SPEC}.profile",
    ),
    "an unknown profile": (with_page('profile: "nope"'), f"{SPEC}.profile"),
    "a profile that passes through": (with_page('profile: "copy"'), f"{SPEC}.profile"),
    "passthrough": (with_page("renditions { passthrough {} }"), f"{SPEC}.renditions[0]"),
    "copied sound": (
        with_page("renditions { encode {} audio { codec: AUDIO_CODEC_COPY } }"),
        f"{SPEC}.renditions[0]",
    ),
    "sound of a silent recording": (
        with_page("capture { without_sound: true } renditions { encode {} audio { codec: AUDIO_CODEC_AAC } }"),
        f"{SPEC}.renditions[0].audio",
    ),
    "only sound of a silent recording": (
        with_page("capture { without_sound: true } renditions { audio {} }"),
        f"{SPEC}.renditions[0]",
    ),
    "an odd rendition": (with_page("renditions { encode { width: 641 } }"), f"{SPEC}.renditions[0].encode.width"),
    "17 renditions": (with_page("renditions { encode {} } " * 17), f"{SPEC}.renditions"),
    "an output of nothing": (with_page("outputs {}"), f"{SPEC}.outputs[0]"),
    "an output that leads out": (with_page('outputs { file { path: "../x.mp4" } }'), f"{SPEC}.outputs[0].file.path"),
    "a push by http": (with_page('outputs { push { url: "http://example.org/" } }'), f"{SPEC}.outputs[0].push.url"),
    "an output among the thumbnails": (
        with_page(f'outputs {{ file {{ path: "thumbnails/x.mp4" }} }} thumbnail_interval {DURATION}'),
        f"{SPEC}.outputs[0].file.path",
    ),
    "a relative watermark": (with_page('watermark { path: "logo.png" }'), f"{SPEC}.watermark.path"),
    "a watermark that is no picture": (with_page('watermark { path: "/srv/media/x.mp4" }'), f"{SPEC}.watermark.path"),
    "a corner that is none": (with_page('watermark { path: "/x.png" corner: 9 }'), f"{SPEC}.watermark.corner"),
    "a wide margin": (with_page('watermark { path: "/x.png" margin: 4097 }'), f"{SPEC}.watermark.margin"),
    "an invisible watermark": (with_page('watermark { path: "/x.png" opacity: 0 }'), f"{SPEC}.watermark.opacity"),
    "no number for opacity": (with_page('watermark { path: "/x.png" opacity: nan }'), f"{SPEC}.watermark.opacity"),
    "too many thumbnails": (with_page("thumbnail_interval { nanos: 5 }"), f"{SPEC}.thumbnail_interval"),
    "an unknown destination": (with_page('destinations: "nowhere"'), f"{SPEC}.destinations[0]"),
    "a destination twice": (with_page('destinations: ["archive", "archive"]'), f"{SPEC}.destinations[1]"),
    "nine destinations": (with_page('destinations: "archive" ' * 9), f"{SPEC}.destinations"),
}


@pytest.mark.parametrize(("inside", "field"), WRONG.values(), ids=list(WRONG))
def test_a_mistake_is_told_with_its_field(inside: str, field: str) -> None:
    failure = refused(inside)
    assert failure.reason in (Reason.INVALID_REQUEST, Reason.PROFILE_UNKNOWN)
    assert [violation.field for violation in failure.violations] == [field], failure.message


@pytest.mark.parametrize(
    ("around", "field"),
    [
        ("priority: PRIORITY_BATCH", "session.priority"),
        ("preemptible: true", "session.preemptible"),
        ("reserved_speed: 2", "session.reserved_speed"),
        ("max_duration { seconds: 0 }", "session.max_duration"),
        ("max_duration { seconds: 40000000 }", "session.max_duration"),
    ],
)
def test_a_recording_is_in_real_time_and_has_an_end_that_can_be(around: str, field: str) -> None:
    assert [violation.field for violation in refused(PAGE, around).violations] == [field]


def test_all_mistakes_are_told_at_once() -> None:
    failure = refused(
        'page { url: "ftp://x/" locale: "?" } capture { width: 1 } start_gate { selector: "#x" }'
        ' renditions { passthrough {} } watermark { path: "x" } destinations: "y"',
        "priority: PRIORITY_BATCH",
    )
    assert len(failure.violations) == 8


def test_a_mistake_never_repeats_a_secret() -> None:
    secret = "hunter2secret"
    failure = refused(
        f'page {{ url: "https://me:{secret}@:0/?token={secret}" headers {{ key: "X" value: "{secret}\\n" }}'
        f' cookies {{ name: "a" value: "{secret};" }} basic_auth {{ username: "" password: "{secret}\\n" }} }}'
    )
    assert len(failure.violations) == 5
    assert secret not in failure.message


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:8080/x?y=1#z",
        "HTTPS://example.org",
        "https://me:secret@example.org/",
        "http://[::1]/",
    ],
)
def test_pages_of_the_web_are_taken(url: str) -> None:
    assert drafted(f'page {{ url: "{url}" }}').recording.page.url == url


@pytest.mark.parametrize("url", ["file:///srv/page.html", "data:text/html,<h1>hello you</h1>"])
def test_other_schemes_are_taken_where_the_operator_allows_them(url: str) -> None:
    text = f'page {{ url: "{url}" }}'
    assert refused(text).violations[0].field == f"{SPEC}.page.url"
    allowing = RecordingRules(url_schemes=("http", "file", "data"))
    assert drafted(text, rules=allowing).recording.page.url == url


@pytest.mark.parametrize("url", ["file://host/x", "file:x", "file:///a b"])
def test_files_are_named_by_absolute_paths(url: str) -> None:
    assert refused(f'page {{ url: "{url}" }}', rules=RecordingRules(url_schemes=("file",)))


def test_the_operators_bound_of_displays_counts() -> None:
    settings = parse_settings(
        "[recordings]\nlargest_width = 1280\nlargest_height = 720\n"
        '[[destinations]]\nname = "archive"\nkind = "folder"\npath = "/srv"',
        BalancerSettings,
        source="a test",
    )
    rules = recording_rules(settings)
    assert rules == RecordingRules(largest_width=1280, largest_height=720, destinations=frozenset({"archive"}))
    assert drafted(PAGE, rules=rules)
    fields = [one.field for one in refused(with_page("capture { width: 1282 height: 722 }"), rules=rules).violations]
    assert fields == [f"{SPEC}.capture.width", f"{SPEC}.capture.height"]


def test_a_page_alone_is_filled_in() -> None:
    spec = drafted(PAGE).recording
    assert (spec.capture.width, spec.capture.height) == (1280, 720)
    assert spec.capture.frame_rate == media_pb2.FrameRate(numerator=30, denominator=1)
    assert spec.start_gate.kind == recording_pb2.START_GATE_KIND_FIRST_CONTENTFUL_PAINT
    assert spec.start_gate.timeout.seconds == 30
    assert spec.stop_rules.end_signal == "END_RECORDING"
    assert (spec.page.locale, spec.page.device_scale_factor) == ("en-US", 1.0)
    (rendition,) = spec.renditions
    assert (rendition.id, rendition.encode.width, rendition.encode.height) == ("720p", 1280, 720)
    assert rendition.encode.codec == media_pb2.VIDEO_CODEC_H264
    assert rendition.encode.speed == media_pb2.ENCODING_SPEED_FASTEST
    assert rendition.encode.keyframe_interval.seconds == 2
    assert rendition.audio.codec == media_pb2.AUDIO_CODEC_AAC
    (output,) = spec.outputs
    assert (output.file.path, output.file.container) == ("recording.mp4", media_pb2.CONTAINER_MP4)
    assert list(output.renditions) == ["720p"]


def test_an_application_is_awaited_by_its_window() -> None:
    spec = drafted(CLOCK).recording
    assert spec.start_gate.kind == recording_pb2.START_GATE_KIND_FIRST_WINDOW
    assert spec.stop_rules.end_signal == ""


def test_a_console_signal_has_a_usual_word() -> None:
    spec = drafted(with_page("start_gate { kind: START_GATE_KIND_CONSOLE_SIGNAL }")).recording
    assert spec.start_gate.signal == "START_RECORDING"


def test_a_profile_is_encoded_as_fast_as_may_be_and_each_rendition_gets_a_file() -> None:
    spec = drafted(with_page('profile: "ladder-h264"')).recording
    assert {rendition.encode.speed for rendition in spec.renditions} == {media_pb2.ENCODING_SPEED_FASTEST}
    assert [output.file.path for output in spec.outputs] == [f"{one.id}.mp4" for one in spec.renditions]
    assert len(spec.outputs) > 1
    assert spec.profile == ""


def test_a_speed_that_was_asked_for_is_kept() -> None:
    spec = drafted(with_page("renditions { encode { height: 360 speed: ENCODING_SPEED_BALANCED } }")).recording
    assert spec.renditions[0].encode.speed == media_pb2.ENCODING_SPEED_BALANCED


def test_a_silent_recording_has_no_sound_in_any_rendition() -> None:
    spec = drafted(with_page('capture { without_sound: true } profile: "ladder-h264"')).recording
    assert {rendition.audio.codec for rendition in spec.renditions} == {media_pb2.AUDIO_CODEC_NONE}


def test_a_watermark_is_filled_in() -> None:
    watermark = drafted(with_page('watermark { path: "/srv/logo.PNG" }')).recording.watermark
    assert (watermark.corner, watermark.margin, watermark.opacity) == (recording_pb2.CORNER_BOTTOM_RIGHT, 16, 1.0)


def test_what_is_filled_in_is_taken_again_as_it_is() -> None:
    first = drafted(with_page('renditions { encode {} } destinations: "bucket" watermark { path: "/x.png" }'))
    assert draft_session(first, PROFILES, rules=RULES).session == first


def test_neither_spec_is_a_mistake() -> None:
    with pytest.raises(RequestFailure) as caught:
        draft_session(session_pb2.Session(), PROFILES)
    assert "session.recording" in caught.value.message
