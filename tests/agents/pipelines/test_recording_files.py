"""How files of recordings are made of their takes, without running anything."""

from __future__ import annotations

from dataclasses import replace

from pipeline_cases import mp4
from pipeline_devices import NEW_FFMPEG
from take_cases import recording

from agents.pipelines.hls import ended_playlist
from agents.pipelines.input_description import parse_input_description
from agents.pipelines.job import Container, FileOutput, HlsOutput
from agents.pipelines.recording_files import (
    FinishStep,
    concat_list,
    describe_command,
    file_places,
    final_moves,
    is_playable,
    join_step,
    take_files,
)

JOB = recording(
    mp4("some/recording.mp4"),
    HlsOutput(id="hls", path="hls"),
    FileOutput(id="kept", path="/srv/out/kept.mkv", container=Container.MKV, overwrite=True),
)


def steps_of(files: dict[str, tuple[str, ...]]) -> list[FinishStep]:
    places = file_places(JOB, artifacts_dir="/a")
    return [join_step(place, files[place.output], NEW_FFMPEG.path) for place in places]


def test_each_file_output_has_a_file_per_take() -> None:
    assert take_files(JOB, (1, 3), artifacts_dir="/a") == {
        "some/recording.mp4": ("/a/.takes/1/output-0.mp4", "/a/.takes/3/output-0.mp4"),
        "kept": ("/a/.takes/1/output-2.mkv", "/a/.takes/3/output-2.mkv"),
    }


def test_one_take_is_copied_straight_into_its_file() -> None:
    files = take_files(JOB, (1,), artifacts_dir="/a")
    artifact, kept = steps_of(files)
    assert artifact.final_path == "/a/some/recording.mp4"
    assert artifact.made_path == "/a/.takes/joined/output-0.mp4"
    assert artifact.directories == ("/a/.takes/joined", "/a/some")
    assert artifact.texts == {}
    assert artifact.scratch == ()
    (command,) = artifact.commands
    assert command[command.index("-i") + 1] == "file:/a/.takes/1/output-0.mp4"
    assert command[-3:] == ("-movflags", "+faststart", "file:/a/.takes/joined/output-0.mp4")
    assert kept.move is not None
    assert kept.move.overwrite
    assert kept.made_path == kept.move.part_path == "/srv/out/.gpu-balancer-s1-2/part-2.mkv"
    assert (kept.move,) == final_moves(JOB)


def test_several_takes_are_mended_each_and_then_joined() -> None:
    files = take_files(JOB, (1, 2), artifacts_dir="/a")
    artifact, _ = steps_of(files)
    mended = ("/a/.takes/joined/output-0-1.mp4", "/a/.takes/joined/output-0-2.mp4")
    assert [command[-1] for command in artifact.commands] == [
        *(f"file:{path}" for path in mended),
        "file:/a/.takes/joined/output-0.mp4",
    ]
    assert artifact.texts == {"/a/.takes/joined/output-0.txt": concat_list(mended)}
    assert set(artifact.scratch) == {*mended, *artifact.texts}


def test_a_list_keeps_odd_paths_as_they_are() -> None:
    assert concat_list(("/a/it's 'x'.mp4",)) == "ffconcat version 1.0\nfile '/a/it'\\''s '\\''x'\\''.mp4'\n"


def test_a_take_without_streams_is_not_playable() -> None:
    assert not is_playable(parse_input_description("[error] /a.mp4: Invalid data found when processing input\n"))
    described = "Input #0, mov,mp4, from 'a':\n  Stream #0:0: Audio: aac (LC), 48000 Hz, stereo\n"
    assert is_playable(parse_input_description(described))
    assert describe_command(NEW_FFMPEG.path, "/a b.mp4")[-1] == "file:/a b.mp4"


def test_a_playlist_gets_one_end() -> None:
    text = "#EXTM3U\n#EXTINF:2.0,\nsegment_00000.ts\n"
    assert ended_playlist(text) == text + "#EXT-X-ENDLIST\n"
    assert ended_playlist(ended_playlist(text)) == ended_playlist(text)
    assert ended_playlist(text.rstrip("\n")) == ended_playlist(text)


def test_absolute_outputs_of_two_attempts_never_meet() -> None:
    other = replace(JOB, attempt=3)
    assert final_moves(other)[0].part_path != final_moves(JOB)[0].part_path
