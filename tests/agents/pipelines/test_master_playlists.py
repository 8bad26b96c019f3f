"""HLS master playlists as values."""

from __future__ import annotations

import re

from agents.pipelines.init_segments import InitFacts, init_facts
from agents.pipelines.master_playlists import (
    MasterPlaylist,
    Rate,
    complete_master,
    fuller_master,
    listed_segments,
    measured_rate,
    parse_master,
    told_rates,
    write_master,
)

WRITTEN = """\
#EXTM3U
#EXT-X-VERSION:7
#EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID="group_audio",NAME="audio_1",DEFAULT=YES,CHANNELS="1",URI="audio/index.m3u8"
#EXT-X-STREAM-INF:BANDWIDTH=75900,RESOLUTION=160x90,CODECS="avc1.42c00b,mp4a.40.2",AUDIO="group_audio"
a/index.m3u8
#EXT-X-STREAM-INF:BANDWIDTH=75900,CODECS="mp4a.40.2",AUDIO="group_audio"
audio/index.m3u8
"""
EMPTY = "#EXTM3U\n#EXT-X-VERSION:7\n"
URIS = ("a/index.m3u8", "audio/index.m3u8")
RATES = {URIS[0]: Rate(peak_bps=300, average_bps=200), URIS[1]: Rate(peak_bps=70, average_bps=60)}


def rates_of(master: MasterPlaylist) -> list[tuple[str, str]]:
    return re.findall(r"BANDWIDTH=(\d+),AVERAGE-BANDWIDTH=(\d+)", write_master(master))


def test_what_ffmpeg_writes_is_written_again_as_it_was() -> None:
    assert write_master(parse_master(WRITTEN)) == WRITTEN
    assert parse_master("\0").variants == parse_master(EMPTY).variants == parse_master("").variants == ()


def test_the_fuller_one_is_taken_and_the_first_of_two_alike() -> None:
    whole, empty = parse_master(WRITTEN), parse_master(EMPTY)
    assert fuller_master(whole, empty) is fuller_master(empty, whole) is whole
    other = parse_master(WRITTEN.replace("160x90", "320x180"))
    assert fuller_master(whole, other) is whole
    poor = parse_master(WRITTEN.replace("RESOLUTION=160x90,", ""))
    assert fuller_master(poor, whole) is whole


def test_pictures_take_their_sound_with_them_and_sound_alone_does_not() -> None:
    assert rates_of(told_rates(parse_master(WRITTEN), RATES, ended=False)) == [("370", "260"), ("70", "60")]


def test_a_rate_that_was_measured_only_rises_until_the_end() -> None:
    measured = told_rates(parse_master(WRITTEN), RATES, ended=False)
    less = {uri: Rate(peak_bps=10, average_bps=5) for uri in URIS}
    more = {uri: Rate(peak_bps=1000, average_bps=500) for uri in URIS}
    assert told_rates(measured, less, ended=False) == measured
    assert rates_of(told_rates(measured, more, ended=False)) == [("2000", "1000"), ("1000", "500")]
    assert rates_of(told_rates(measured, less, ended=True)) == [("20", "10"), ("10", "5")]


def test_variants_that_are_not_named_are_added_with_what_is_known_of_them() -> None:
    facts = {
        URIS[0]: InitFacts(size=(160, 90), codecs=("avc1.42c00b",)),
        URIS[1]: InitFacts(codecs=("mp4a.40.2",)),
    }
    whole = complete_master(parse_master(EMPTY), URIS, sounds={URIS[0]: URIS[1]}, facts=facts)
    assert write_master(told_rates(whole, RATES, ended=False)).splitlines() == [
        "#EXTM3U",
        "#EXT-X-VERSION:7",
        '#EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID="group_audio",NAME="audio",DEFAULT=YES,URI="audio/index.m3u8"',
        '#EXT-X-STREAM-INF:BANDWIDTH=370,AVERAGE-BANDWIDTH=260,RESOLUTION=160x90,CODECS="avc1.42c00b,mp4a.40.2",AUDIO="group_audio"',
        "a/index.m3u8",
    ]
    assert complete_master(whole, URIS, sounds={URIS[0]: URIS[1]}, facts=facts) == whole
    known = parse_master(WRITTEN)
    assert complete_master(known, URIS, sounds={URIS[0]: URIS[1]}, facts={}) == known


def test_codecs_are_told_of_all_that_a_variant_plays_or_not_at_all() -> None:
    facts = {URIS[0]: InitFacts(size=(160, 90), codecs=("avc1.42c00b",)), URIS[1]: InitFacts()}
    whole = complete_master(MasterPlaylist(), URIS, sounds={URIS[0]: URIS[1]}, facts=facts)
    assert [list(variant.attributes) for variant in whole.variants] == [["RESOLUTION", "AUDIO"]]


def test_a_variant_whose_rate_nobody_knows_is_left_out() -> None:
    whole = complete_master(MasterPlaylist(), URIS, sounds={}, facts={})
    assert [variant.uri for variant in told_rates(whole, {URIS[1]: RATES[URIS[1]]}, ended=False).variants] == [URIS[1]]


def test_the_peak_is_of_segments_in_a_row_that_take_about_the_target() -> None:
    assert measured_rate([]) is None
    assert measured_rate([(100, 0.0)]) is None
    # The last one is too short to be taken alone.
    assert measured_rate([(100, 1.0), (300, 1.0), (100, 0.1)]) == Rate(peak_bps=2909, average_bps=1905)
    assert measured_rate([(100, 1.0), (50, 0.5)]) == Rate(peak_bps=800, average_bps=800)


def test_segments_are_read_from_the_end_of_a_playlist_too() -> None:
    text = "00000.m4s\n#EXTINF:2.000000,\nsegment_00001.m4s\n#EXT-X-DISCONTINUITY\n#EXTINF:1.5,\n#EXT-X-OTHER\nb.m4s\n"
    assert listed_segments(text) == (("segment_00001.m4s", 2.0), ("b.m4s", 1.5))


def test_a_header_that_is_damaged_tells_nothing() -> None:
    assert init_facts(b"") == init_facts(b"\0\0\0\1moov") == init_facts(b"garbage" * 9) == InitFacts()
