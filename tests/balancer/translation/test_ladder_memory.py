"""A ladder that is known is taken as it is; with or without memory, a request gets the very same answer."""

from __future__ import annotations

from collections.abc import Iterator
from unittest.mock import Mock, patch

import pytest

from balancer.servicers import ladder_validation
from balancer.servicers.ladder_memory import LONGEST_LADDER_BYTES, LadderMemory
from balancer.servicers.profile_translation import KnownProfiles
from balancer.servicers.rendition_validation import check_renditions
from balancer.servicers.session_translation import PreparedSession, prepare_session
from balancer.servicers.session_validation import draft_session
from balancer.settings.profiles import BUILT_IN_PROFILES
from fakes.session_texts import LADDER, PROFILES, session
from gpu_balancer.runtime.failures import Reason, RequestFailure

FACTS = "declared_facts { width: 1280 height: 720 frame_rate { numerator: 30 denominator: 1 } video_codec: %s %s }"
H264 = FACTS % ("VIDEO_CODEC_H264", "duration { seconds: 60 }")
LONGER = FACTS % ("VIDEO_CODEC_H264", "duration { seconds: 61 }")
HEVC = FACTS % ("VIDEO_CODEC_HEVC", "duration { seconds: 60 }")
RUNG = "renditions { encode { height: 480 } } renditions { encode { height: 360 codec: VIDEO_CODEC_HEVC } }"
HLS = 'outputs { id: "web" hls { path: "live/film" } }'


def text(rest: str, *, uri: str = "/srv/media/film.mp4", facts: str = H264, more: str = "") -> str:
    return f'transcode {{ input {{ uri: "{uri}" {facts} {more} }} {rest} }}'


def prepared(asked: str, ladders: LadderMemory | None = None) -> PreparedSession:
    """Does what a request goes through before its admission."""
    draft = draft_session(session(asked), PROFILES, ladders)
    return prepare_session(draft, draft.session.transcode.input.declared_facts)


@pytest.fixture
def checks() -> Iterator[Mock]:
    """Counts the ladders that are checked."""
    with patch.object(ladder_validation, "check_renditions", wraps=check_renditions) as counted:
        yield counted


@pytest.mark.parametrize(
    "rest",
    [
        RUNG,
        RUNG + HLS,
        'profile: "ladder-h264"',
        'profile: "ladder-h264" outputs { renditions: "480p" file { path: "film.mp4" } }',
        "renditions { passthrough {} audio { codec: AUDIO_CODEC_COPY } }",
        RUNG + "allow_software_encode: true",
    ],
)
def test_a_known_ladder_gives_what_a_new_one_gives(rest: str, checks: Mock) -> None:
    ladders = LadderMemory()
    prepared(text(rest, uri="/srv/media/other.mp4"), ladders)
    checked = checks.call_count
    for asked in (text(rest), text(rest, facts=HEVC), text(rest, facts=LONGER, more="native_rate: true")):
        with_memory = prepared(asked, ladders)
        assert checks.call_count == checked
        without = prepared(asked)
        checked = checks.call_count
        assert with_memory == without


def test_inputs_that_differ_in_their_length_alone_share_a_workload() -> None:
    ladders = LadderMemory()
    first = prepared(text(RUNG), ladders).workload
    assert prepared(text(RUNG, facts=LONGER), ladders).workload is first
    assert prepared(text(RUNG, facts=HEVC), ladders).workload != first
    assert prepared(text(RUNG, more="native_rate: true"), ladders).workload != first


def test_ladders_that_differ_in_anything_are_checked_each(checks: Mock) -> None:
    ladders = LadderMemory()
    asked = [RUNG, RUNG + HLS, RUNG + "allow_software_encode: true", RUNG.replace("480", "482")]
    for rest in asked:
        prepared(text(rest), ladders)
    assert checks.call_count == len(asked)


def test_a_known_ladder_does_not_excuse_its_input() -> None:
    ladders = LadderMemory()
    prepared(text(RUNG), ladders)
    for asked, field in (
        (text(RUNG, uri="film.mp4"), "session.transcode.input.uri"),
        (text(RUNG, more="start_offset { seconds: 60 }"), "session.transcode.input.start_offset"),
    ):
        with pytest.raises(RequestFailure) as refused:
            prepared(asked, ladders)
        assert [violation.field for violation in refused.value.violations] == [field]
    with pytest.raises(RequestFailure) as silent:
        prepared(text(RUNG, facts='declared_facts { audio_codec: "aac" }'), ladders)
    assert silent.value.reason is Reason.INPUT_NO_VIDEO


def test_a_ladder_that_was_refused_is_refused_again_with_the_same_words() -> None:
    ladders = LadderMemory()
    told = []
    for _ in range(2):
        with pytest.raises(RequestFailure) as refused:
            prepared(text(RUNG.replace("480", "481")), ladders)
        told.append(refused.value.violations)
    assert told[0] == told[1]


def test_a_ladder_that_does_not_fit_an_input_is_refused_for_it_and_taken_for_others() -> None:
    """Narrow inputs leave no picture of that height."""
    ladders = LadderMemory()
    narrow = H264.replace("width: 1280", "width: 16").replace("height: 720", "height: 8192")
    for _ in range(2):
        prepared(text(RUNG), ladders)
        with pytest.raises(RequestFailure, match="width"):
            prepared(text(RUNG, facts=narrow), ladders)


def test_other_profiles_make_other_ladders() -> None:
    """After a reload a profile's name may stand for something else."""
    ladders, asked = LadderMemory(), session(text('profile: "ladder-h264"'))
    before = draft_session(asked, PROFILES, ladders)
    reloaded = {"ladder-h264": PROFILES["ladder-hevc"]}
    after = draft_session(asked, reloaded, ladders)
    assert after.session == draft_session(asked, reloaded).session
    assert after.session != before.session
    assert draft_session(asked, PROFILES, ladders).session == before.session


def test_a_reload_of_the_same_profiles_is_another_set_of_them() -> None:
    """What the memory goes by: `KnownProfiles` gives another mapping after each reload, and the same one until then."""
    settings = dict(BUILT_IN_PROFILES)
    profiles = KnownProfiles(lambda: settings)
    first = profiles.now()
    assert profiles.now() is first
    settings = dict(BUILT_IN_PROFILES)
    assert profiles.now() is not first


def test_what_a_request_made_of_a_known_ladder_is_its_own() -> None:
    ladders = LadderMemory()
    spoiled = draft_session(session(LADDER), PROFILES, ladders)
    spoiled.session.transcode.renditions[0].encode.height = 2
    del spoiled.session.transcode.outputs[:]
    assert draft_session(session(LADDER), PROFILES, ladders).session == draft_session(session(LADDER), PROFILES).session


def test_what_was_not_asked_for_the_longest_is_forgotten(checks: Mock) -> None:
    ladders = LadderMemory(kept_ladders=2)
    first, second, third = (RUNG.replace("480", height) for height in ("480", "482", "484"))
    for rest in (first, second, first, third):
        prepared(text(rest), ladders)
    assert checks.call_count == 3
    prepared(text(first), ladders)
    assert checks.call_count == 3
    prepared(text(second), ladders)
    assert checks.call_count == 4


def test_very_long_ladders_are_not_kept(checks: Mock) -> None:
    ladders, folders = LadderMemory(), "/".join(["x" * 200] * 4)
    outputs = "".join(f'outputs {{ hls {{ path: "{number}/{folders}" }} }}' for number in range(12))
    assert len(outputs) > LONGEST_LADDER_BYTES
    for _ in range(2):
        prepared(text(RUNG + outputs), ladders)
    assert checks.call_count == 2
