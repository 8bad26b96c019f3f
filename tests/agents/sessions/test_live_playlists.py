"""The master playlists of live HLS, with real ffmpeg, and what is left in the folder in the end."""

from __future__ import annotations

import re
import subprocess
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from session_rig import FFMPEG, Rigs
from test_attempt_continuation import begun, counts_of, killed, live_job, runs_of, stopped, until

from agents.pipelines.command import HlsPresentation
from agents.pipelines.hls import own_playlist, playlist_before
from agents.pipelines.job import (
    AudioCodec,
    AudioRendition,
    HlsOutput,
    HlsSegmentFormat,
    Job,
    Rendition,
    VideoEncoding,
    VideoPassthrough,
)
from agents.pipelines.playlists import parse_playlist
from agents.sessions.live_playlists import LivePlaylists, keep_earlier

pytestmark = pytest.mark.process

_VARIANT = re.compile(r"#EXT-X-STREAM-INF:(.*)\n([\w-]+)/index\.m3u8")


def hls_of(path: Path | str, segments: HlsSegmentFormat = HlsSegmentFormat.FMP4) -> HlsOutput:
    return HlsOutput(id="hls", path=str(path), segment_format=segments, segment_duration=timedelta(seconds=1))


def ladder(job: Job) -> Job:
    """Two renditions of constant quality with the same sound."""
    (first,) = job.renditions
    assert isinstance(first.video, VideoEncoding)
    return replace(job, renditions=(first, replace(first, id="small", video=replace(first.video, height=18))))


def variants_of(master: Path) -> dict[str, str]:
    """Reads what is told of each variant; every one is there and has a rate."""
    found = {name: told for told, name in _VARIANT.findall(master.read_text() if master.exists() else "")}
    for name, told in found.items():
        assert re.search(r"(^|,)BANDWIDTH=[1-9]\d*", told), told
        assert (master.parent / name / "index.m3u8").stat().st_size
    return found


def rate_of(told: str) -> int:
    return int(re.findall(r"(?:^|,)BANDWIDTH=(\d+)", told)[0])


def is_measured(variants: dict[str, str]) -> bool:
    return bool(variants) and all("AVERAGE-BANDWIDTH=" in told for told in variants.values())


def hidden_in(folder: Path) -> list[str]:
    return [str(path.relative_to(folder)) for path in folder.rglob(".*")]


@pytest.mark.parametrize("segments", list(HlsSegmentFormat))
async def test_a_master_is_whole_and_measured_from_the_first_attempt_over_a_kill_to_the_end(
    rigs: Rigs, others: Rigs, counting: Path, tmp_path: Path, segments: HlsSegmentFormat
) -> None:
    out = tmp_path / "show"
    first, second = (ladder(live_job(counting, hls_of(out, segments), attempt=attempt)) for attempt in (1, 2))
    master = out / "master.m3u8"
    async with rigs.start() as rig, others.start() as other:
        await begun(rig, first)
        await until(lambda: is_measured(variants_of(master)))
        live = variants_of(master)
        assert {"90p", "small"} <= live.keys()
        assert all("RESOLUTION=" in live[name] and "CODECS=" in live[name] for name in ("90p", "small"))
        lost = await killed(rig, first)
        assert variants_of(master).keys() == live.keys()
        await begun(other, second, lost)
        playlist = out / "90p" / "index.m3u8"
        await until(lambda: "segment-2_00000" in playlist.read_text())
        assert hidden_in(out)
        await stopped(other, second)
    ended = variants_of(master)
    assert is_measured(ended)
    assert ended.keys() == live.keys()
    assert hidden_in(out) == []
    assert [run[0] for run in runs_of(counts_of(master))] == [0, 0]
    own, sound = (heaviest(out / name) for name in ("90p", "audio"))
    assert own < rate_of(ended["90p"]) < 2 * (own + sound)


def heaviest(folder: Path) -> float:
    """Measures segments of about the target one by one, as the peak is made of."""
    found = parse_playlist((folder / "index.m3u8").read_text())
    assert found is not None
    rates = []
    for segment in found.segments:
        seconds = float(segment.tags[-1].removeprefix("#EXTINF:").rstrip(","))
        if seconds >= 0.5:
            rates.append((folder / segment.uri).stat().st_size * 8 / seconds)
    return max(rates)


@pytest.fixture
def unrated(counting: Path, tmp_path: Path) -> Path:
    """Pictures in a container that does not tell their rate."""
    path = tmp_path / "counting.mkv"
    copying = [FFMPEG, "-v", "error", "-i", str(counting), "-map", "0:v", "-c", "copy", str(path)]
    subprocess.run(copying, check=True, stdin=subprocess.DEVNULL)
    return path


async def test_what_is_copied_without_a_rate_is_named_while_live(rigs: Rigs, unrated: Path) -> None:
    job = live_job(unrated, hls_of("hls"))
    copied = Rendition(id="copy", video=VideoPassthrough(), audio=AudioRendition(codec=AudioCodec.NONE))
    job = replace(job, renditions=(copied,), facts=replace(job.facts, has_audio=False))
    async with rigs.start() as rig:
        await begun(rig, job)
        master = rig.folder(job).artifacts / "hls" / "master.m3u8"
        await until(lambda: is_measured(variants_of(master)))
        assert "RESOLUTION=64x36" in variants_of(master)["copy"]
        assert 'CODECS="avc1.' in variants_of(master)["copy"]
        await stopped(rig, job)
    assert variants_of(master).keys() == {"copy"}


def presentation(folder: Path, part: int | None = 2) -> HlsPresentation:
    return HlsPresentation(folder=str(folder), variants=("a",), window=None, part=part)


def written(path: Path, *segments: str, ended: bool = False) -> None:
    lines = ["#EXTM3U", "#EXT-X-VERSION:3", "#EXT-X-TARGETDURATION:1", "#EXT-X-MEDIA-SEQUENCE:0"]
    for name in segments:
        (path.parent / name).write_bytes(bytes(188))
        lines += ["#EXTINF:1.000000,", name]
    path.write_text("\n".join([*lines, *(["#EXT-X-ENDLIST"] if ended else [])]) + "\n")


@pytest.fixture
def continued(tmp_path: Path) -> Path:
    """The folder of a presentation with which a second attempt has gone on."""
    (tmp_path / "a").mkdir()
    written(tmp_path / "a" / "index.m3u8", "one.ts")
    keep_earlier([presentation(tmp_path)])
    written(tmp_path / "a" / own_playlist("index.m3u8", 2), "two.ts")
    (tmp_path / own_playlist("master.m3u8", 2)).write_text("#EXTM3U\n")
    return tmp_path


@pytest.mark.parametrize("gone", [("own",), ("before",), ("own", "before")])
def test_an_agent_that_is_killed_while_it_tidies_loses_nothing(continued: Path, gone: tuple[str, ...]) -> None:
    """Whatever of it is gone already: the playlist stays, also for an attempt that goes on after all."""
    own = continued / "a" / own_playlist("index.m3u8", 2)
    before = continued / "a" / playlist_before(2)
    kept = {"own": (own, own.read_bytes()), "before": (before, before.read_bytes())}
    LivePlaylists([presentation(continued)]).end()
    assert hidden_in(continued) == []
    whole = (continued / "a" / "index.m3u8").read_text()
    assert [line for line in whole.splitlines() if line.endswith(".ts")] == ["one.ts", "two.ts"]
    assert whole.endswith("#EXT-X-ENDLIST\n")
    for name, (path, content) in kept.items():
        if name not in gone:
            path.write_bytes(content)
    keep_earlier([presentation(continued, part=3)])
    opened = (continued / "a" / "index.m3u8").read_text()
    assert opened == (continued / "a" / playlist_before(3)).read_text() == whole.replace("#EXT-X-ENDLIST\n", "")
    (continued / "a" / "index.m3u8").write_text(whole)
    (continued / "a" / playlist_before(3)).unlink()
    LivePlaylists([presentation(continued)]).end()
    assert (continued / "a" / "index.m3u8").read_text() == whole
    assert hidden_in(continued) == []


def test_segments_that_were_torn_are_left_out_by_who_goes_on_and_at_the_end(tmp_path: Path) -> None:
    """ffmpeg lists what a full disk kept from being written, whichever way the attempt ended."""
    (tmp_path / "a").mkdir()
    playlist = tmp_path / "a" / "index.m3u8"
    written(playlist, "one.ts", "torn.ts", "two.ts")
    (tmp_path / "a" / "torn.ts").write_bytes(b"")
    keep_earlier([presentation(tmp_path)])
    before = parse_playlist((tmp_path / "a" / playlist_before(2)).read_text())
    assert before is not None
    assert [(one.uri, one.discontinuity) for one in before.segments] == [("one.ts", False), ("two.ts", True)]
    written(tmp_path / "a" / own_playlist("index.m3u8", 2), "three.ts", "half.ts")
    (tmp_path / "a" / "half.ts").write_bytes(bytes(100))
    LivePlaylists([presentation(tmp_path)]).end()
    whole = parse_playlist(playlist.read_text())
    assert whole is not None
    assert ([one.uri for one in whole.segments], whole.ended) == (["one.ts", "two.ts", "three.ts"], True)
    LivePlaylists([presentation(tmp_path)]).end()
    assert parse_playlist(playlist.read_text()) == whole


def test_what_a_full_disk_cut_of_an_attempts_own_playlist_takes_nothing_from_players(continued: Path) -> None:
    """It took a page of it, so it looks whole."""
    index, own = continued / "a" / "index.m3u8", continued / "a" / own_playlist("index.m3u8", 2)
    written(own, "two.ts", "three.ts")
    live = LivePlaylists([presentation(continued)])
    live.update()
    listed = index.read_text()
    written(own, "two.ts")
    live.update()
    assert index.read_text() == listed
    LivePlaylists([presentation(continued)]).end()
    assert index.read_text() == f"{listed}#EXT-X-ENDLIST\n"


def test_a_launch_that_is_repeated_leaves_no_playlist_ended(continued: Path) -> None:
    """An agent was killed between keeping what there is and saying that it goes on."""
    index = continued / "a" / "index.m3u8"
    LivePlaylists([presentation(continued)]).end()
    whole = index.read_text()
    keep_earlier([presentation(continued, part=3)])
    index.write_text(whole)
    keep_earlier([presentation(continued, part=3)])
    assert index.read_text() == whole.replace("#EXT-X-ENDLIST\n", "")


def test_only_what_attempts_write_aside_is_taken_away_and_links_are_not_followed(tmp_path: Path) -> None:
    made, elsewhere = tmp_path / "show", tmp_path / "elsewhere"
    made.mkdir()
    elsewhere.mkdir()
    for name in (".index-2.m3u8", ".index-2.m3u8.tmp", ".index-before-12.m3u8", ".master-2.m3u8"):
        (elsewhere / name).touch()
        (made / name).touch()
    for name in (".index.m3u8.abcdefgh.part", ".mine", ".index-x.m3u8", "film-2.m3u8"):
        (made / name).touch()
    (made / "a").symlink_to(elsewhere)
    with pytest.raises(OSError, match="a"):
        LivePlaylists([presentation(made, part=None)]).end()
    assert sorted(path.name for path in made.iterdir()) == [".index-x.m3u8", ".mine", "a", "film-2.m3u8"]
    assert len(list(elsewhere.iterdir())) == 4
