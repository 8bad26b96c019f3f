"""Which playlists may not be gone on with."""

from __future__ import annotations

from pathlib import Path

import pytest

from agents.pipelines.command import HlsPresentation
from agents.recordings.torn_playlists import find_torn_playlist

WHOLE = "#EXTM3U\n#EXT-X-TARGETDURATION:4\n#EXTINF:4.0,\nsegment_00000.m4s\n"


def presentation(folder: Path, *names: str, part: int | None = None) -> HlsPresentation:
    made = folder / "hls"
    (made / "720p").mkdir(parents=True)
    for name in names:
        (made / "720p" / name).write_bytes(b"film")
    return HlsPresentation(folder=str(made), variants=("720p",), window=None, part=part)


@pytest.mark.parametrize("text", ["", "garbage\n", "#EXTM3U\n", WHOLE[:-5]])
@pytest.mark.parametrize("suffix", ["m4s", "ts"])
def test_a_playlist_that_lists_nothing_of_what_there_is_is_torn(tmp_path: Path, text: str, suffix: str) -> None:
    made = presentation(tmp_path, f"segment_00000.{suffix}", f"segment_00001.{suffix}")
    path = tmp_path / "hls" / "720p" / "index.m3u8"
    assert find_torn_playlist([made]) == path, "there is none"
    path.write_text(text)
    assert find_torn_playlist([made]) == path
    path.write_text(WHOLE)
    assert find_torn_playlist([made]) is None


def test_an_ffmpeg_that_was_killed_before_its_first_playlist_may_be_followed(tmp_path: Path) -> None:
    made = presentation(tmp_path, "segment_00000.m4s", "segment_00001.m4s.tmp", "init.mp4")
    assert find_torn_playlist([made]) is None
    assert find_torn_playlist([]) is None


def test_a_continuing_attempt_goes_by_its_own_playlist(tmp_path: Path) -> None:
    own = ("segment-2_00000.ts", "segment-2_00001.ts")
    made = presentation(tmp_path, "segment_00000.ts", "segment_00001.ts", *own, part=2)
    path = tmp_path / "hls" / "720p" / ".index-2.m3u8"
    assert find_torn_playlist([made]) == path
    path.write_text(WHOLE)
    assert find_torn_playlist([made]) is None
