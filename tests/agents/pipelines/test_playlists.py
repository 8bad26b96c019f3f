"""HLS playlists over attempts, as values."""

from __future__ import annotations

from datetime import timedelta

from hypothesis import given
from hypothesis import strategies as st

from agents.pipelines.parts import PartNumber, parse_parameters, part_name, part_number
from agents.pipelines.playlists import Playlist, end_of, join_playlists, parse_playlist, write_playlist

WRITTEN = """\
#EXTM3U
#EXT-X-VERSION:7
#EXT-X-TARGETDURATION:2
#EXT-X-MEDIA-SEQUENCE:0
#EXT-X-PLAYLIST-TYPE:EVENT
#EXT-X-INDEPENDENT-SEGMENTS
#EXT-X-MAP:URI="init.mp4"
#EXTINF:2.000000,
segment_00000.m4s
#EXTINF:1.040000,
segment_00001.m4s
#EXT-X-ENDLIST
"""


def parsed(text: str) -> Playlist:
    found = parse_playlist(text)
    assert found is not None
    return found


def of(name: str, count: int, *, left: int = 0, ended: bool = False) -> Playlist:
    """A playlist of segments of one second, of which so many have left."""
    lines = ["#EXTM3U", "#EXT-X-VERSION:3", "#EXT-X-TARGETDURATION:1", f"#EXT-X-MEDIA-SEQUENCE:{left}"]
    for number in range(left, left + count):
        lines += ["#EXTINF:1.0,", f"{name}-{number}.ts"]
    return parsed("\n".join([*lines, *(["#EXT-X-ENDLIST"] if ended else [])]))


def uris(playlist: Playlist) -> list[str]:
    return [segment.uri for segment in playlist.segments]


def test_what_ffmpeg_writes_is_written_again_as_it_was() -> None:
    assert write_playlist(parsed(WRITTEN)) == WRITTEN
    assert end_of(parsed(WRITTEN)) == timedelta(seconds=3.04)


def test_a_text_that_is_no_playlist_is_none() -> None:
    assert parse_playlist("") is None
    assert parse_playlist("\0\0") is None


def test_a_later_attempt_comes_behind_a_discontinuity_with_a_header_of_its_own() -> None:
    later = parsed(WRITTEN.replace("init.mp4", "init-2.mp4").replace("segment_", "segment-2_"))
    text = write_playlist(join_playlists(parsed(WRITTEN), later, window=None))
    assert text.splitlines()[6:] == [
        '#EXT-X-MAP:URI="init.mp4"',
        "#EXTINF:2.000000,",
        "segment_00000.m4s",
        "#EXTINF:1.040000,",
        "segment_00001.m4s",
        "#EXT-X-DISCONTINUITY",
        '#EXT-X-MAP:URI="init-2.mp4"',
        "#EXTINF:2.000000,",
        "segment-2_00000.m4s",
        "#EXTINF:1.040000,",
        "segment-2_00001.m4s",
        "#EXT-X-ENDLIST",
    ]


def test_an_attempt_that_nothing_came_before_stands_alone() -> None:
    assert join_playlists(Playlist(), of("b", 3), window=2) == of("b", 3)


def test_the_window_slides_over_the_discontinuity() -> None:
    before = of("a", 3, left=5)
    joined = [join_playlists(before, of("b", count), window=3) for count in (1, 2, 3)]
    assert [uris(one) for one in joined] == [
        ["a-6.ts", "a-7.ts", "b-0.ts"],
        ["a-7.ts", "b-0.ts", "b-1.ts"],
        ["b-0.ts", "b-1.ts", "b-2.ts"],
    ]
    assert [one.media_sequence for one in joined] == [6, 7, 8]
    assert [one.discontinuity_sequence for one in joined] == [0, 0, 0]
    assert joined[2].segments[0].discontinuity
    slid = join_playlists(before, of("b", 3, left=2), window=3)
    assert uris(slid) == ["b-2.ts", "b-3.ts", "b-4.ts"]
    assert (slid.media_sequence, slid.discontinuity_sequence) == (10, 1)


@given(
    lengths=st.lists(st.integers(min_value=0, max_value=8), min_size=1, max_size=5),
    window=st.integers(min_value=1, max_value=5),
)
def test_numbers_only_rise_and_name_the_same_segments(lengths: list[int], window: int) -> None:
    """However many attempts, and however long each: a number never means two segments, and none comes twice."""
    before, known = Playlist(), dict[int, str]()
    sequence = discontinuities = 0
    for attempt, length in enumerate(lengths):
        joined = before
        for made in range(1, length + 1):
            left = max(made - window, 0)
            joined = join_playlists(before, of(f"a{attempt}", made - left, left=left), window=window)
            assert len(joined.segments) <= window
            assert joined.media_sequence >= sequence
            assert joined.discontinuity_sequence >= discontinuities
            sequence, discontinuities = joined.media_sequence, joined.discontinuity_sequence
            for number, uri in enumerate(uris(joined), start=sequence):
                assert known.setdefault(number, uri) == uri
        before = joined
    assert len(set(known.values())) == len(known) == sum(lengths)


def test_parts_are_known_by_their_names() -> None:
    assert part_name("out/film.mp4", PartNumber(attempt=2)) == "out/film.part2.mp4"
    assert part_name("out/film.mp4", PartNumber(attempt=2, take=3)) == "out/film.part2-3.mp4"
    assert part_number("film.part2-3.mp4", "film.mp4") == PartNumber(attempt=2, take=3)
    assert part_number("film.part10.mp4", "film.mp4") == PartNumber(attempt=10)
    for name in ("film.mp4", "film.part0.mp4", "film.part1.mkv", "other.part1.mp4", "film.part1-0.mp4"):
        assert part_number(name, "film.mp4") is None
    assert PartNumber(attempt=2) < PartNumber(attempt=2, take=1) < PartNumber(attempt=10)


def test_files_are_alike_by_what_their_headers_tell() -> None:
    told = "#software: Lavf{}\n#tb 0: 1/12800\n#extradata 0,      38, c5e2\n#codec_id 0: h264\n#dimensions 0: 320x180\n"
    assert parse_parameters(told.format(60)) == parse_parameters(told.format(61)) != ()
    assert parse_parameters(told) != parse_parameters(told.replace("c5e2", "ffff"))
    assert parse_parameters("Invalid data found") == ()
