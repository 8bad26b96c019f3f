"""MP4 files that end anywhere: what can be made playable by cutting something off."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from session_rig import FFMPEG

from agents.sessions.media_bytes import media_bytes
from agents.sessions.torn_files import mend_file

pytestmark = pytest.mark.process


@pytest.fixture(scope="module")
def fragments(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four seconds in fragments of one, as live files are written."""
    path = tmp_path_factory.mktemp("fragments") / "film.mp4"
    sources = ["-f", "lavfi", "-i", "testsrc2=s=64x36:r=25:d=4", "-f", "lavfi", "-i", "sine=d=4"]
    coding = ["-c:v", "libx264", "-preset", "ultrafast", "-g", "25", "-c:a", "aac"]
    flags = ["-movflags", "+frag_keyframe+delay_moov+default_base_moof", "-frag_duration", "1000000"]
    subprocess.run([FFMPEG, "-v", "error", *sources, *coding, *flags, str(path)], check=True, stdin=subprocess.DEVNULL)
    return path


def frames_in(path: Path) -> int:
    """Counts pictures, whatever the decoder says of the end. 0: it is no file to it."""
    argv = [FFMPEG, "-v", "quiet", "-i", str(path), "-map", "0:v:0", "-f", "framemd5", "-"]
    done = subprocess.run(argv, check=False, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    return sum(not line.startswith("#") for line in done.stdout.splitlines())


def boxes_of(content: bytes) -> list[tuple[int, int, bytes]]:
    """Gives where each box begins and ends, and its type."""
    found, at = [], 0
    while at < len(content):
        length = int.from_bytes(content[at : at + 4])
        found.append((at, at + length, content[at + 4 : at + 8]))
        at += length
    return found


def test_a_file_that_ends_anywhere_plays_up_to_about_its_last_second(fragments: Path, tmp_path: Path) -> None:
    content = fragments.read_bytes()
    boxes = boxes_of(content)
    media = [(begin, end) for begin, end, kind in boxes if kind == b"mdat"]
    cut = tmp_path / "cut.mp4"
    for length in range(media[0][1], len(content), len(content) // 60):
        cut.write_bytes(content[:length])
        mend_file(str(cut), None)
        whole = sum(end <= length for _, end in media)
        assert frames_in(cut) >= 24 * whole, f"of {whole} fragments that are there"
        assert not mend_file(str(cut), None), "nothing more is cut off"
    indexes = [(begin, end) for begin, end, kind in boxes if kind == b"moof"]
    begin, end = indexes[-1]
    cut.write_bytes(content[: (begin + end) // 2])
    assert frames_in(cut) == 0, "this would not test it"
    assert mend_file(str(cut), None)
    assert (cut.stat().st_size, frames_in(cut) > 0) == (begin, True)


@pytest.mark.parametrize("content", [b"", b"moof", bytes(4000), b"\x00\x00\x10\x00moof", b"G" * 188])
def test_what_is_no_mp4_is_left_alone(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.mp4"
    path.write_bytes(content)
    assert not mend_file(str(path), None)
    assert path.read_bytes() == content
    (tmp_path / "link.mp4").symlink_to(path)
    assert not mend_file(str(tmp_path / "link.mp4"), None)
    assert not mend_file(str(tmp_path / "missing.mp4"), None)


def copy_of(path: Path, *, suffix: str) -> Path:
    """Copies what ffmpeg reads of a file, as joining does."""
    copy = path.with_name(f"copy{suffix}")
    argv = [FFMPEG, "-v", "quiet", "-y", "-fflags", "+discardcorrupt", "-copyts", "-i", str(path), "-map", "0"]
    subprocess.run([*argv, "-c", "copy", str(copy)], check=True, stdin=subprocess.DEVNULL)
    return copy


def missing_in(copy: Path, path: Path) -> int:
    """Tells by how many bytes a copy has too little."""
    there, has = media_bytes(str(path), None), media_bytes(str(copy), None)
    assert there
    assert has
    return max(0, there - has)


def test_a_copy_of_a_file_that_ends_anywhere_has_all_its_media(fragments: Path, tmp_path: Path) -> None:
    content = fragments.read_bytes()
    first = next(end for _, end, kind in boxes_of(content) if kind == b"mdat")
    cut = tmp_path / "cut.mp4"
    for length in range(first, len(content), len(content) // 20):
        for filling in (b"", bytes(5000)):
            cut.write_bytes(content[:length] + filling)
            mend_file(str(cut), None)
            assert missing_in(copy_of(cut, suffix=".mp4"), cut) == 0, (length, filling)
    for length in (first + 4, len(content) - 30):
        cut.write_bytes(content[:length])
        assert missing_in(copy_of(cut, suffix=".mp4"), cut) == 0, "within the head of a box, and within the last one"


def test_what_stands_behind_a_hole_is_missing_in_a_copy(fragments: Path, tmp_path: Path) -> None:
    content = fragments.read_bytes()
    begin, end = [(begin, end) for begin, end, kind in boxes_of(content) if kind == b"moof"][2]
    holed = tmp_path / "holed.mp4"
    holed.write_bytes(content[:begin] + bytes(end - begin) + content[end:])
    copy = copy_of(holed, suffix=".mp4")
    assert frames_in(copy) == 50, "ffmpeg itself has nothing against it"
    assert missing_in(copy, holed) > len(content) // 3


@pytest.mark.parametrize("suffix", [".mkv", ".ts"])
def test_of_other_containers_it_is_not_known_how_much_they_hold(fragments: Path, suffix: str) -> None:
    assert media_bytes(str(copy_of(fragments, suffix=suffix)), None) is None
