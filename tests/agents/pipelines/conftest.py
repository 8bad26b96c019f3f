"""Media to transcode, and the ffmpeg programs to do it with."""

from __future__ import annotations

from pathlib import Path

import imageio_ffmpeg
import pytest
from pipeline_programs import run_ffmpeg, run_program

_TESTSRC = "testsrc2=size=320x180:rate=25:duration=2"
_SINE = "sine=frequency=440:duration=2"
_X264 = ("-c:v", "libx264", "-preset", "ultrafast", "-g", "25", "-pix_fmt", "yuv420p")


@pytest.fixture(scope="session")
def new_ffmpeg() -> str:
    """The bundled ffmpeg."""
    return imageio_ffmpeg.get_ffmpeg_exe()


@pytest.fixture(scope="session")
def old_ffmpeg() -> str:
    """Debian's ffmpeg 5.1."""
    path = Path("/usr/bin/ffmpeg")
    if not path.exists() or "ffmpeg version 5.1" not in run_program(str(path), "-version").stdout:
        pytest.skip("there is no ffmpeg 5.1 here")
    return str(path)


@pytest.fixture(scope="session")
def media(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the inputs of the golden cases."""
    folder = tmp_path_factory.mktemp("media")
    both = ("-f", "lavfi", "-i", _TESTSRC, "-f", "lavfi", "-i", _SINE)
    _make(*both, *_X264, "-c:a", "aac", str(folder / "clip.mp4"))
    _make("-f", "lavfi", "-i", _TESTSRC, *_X264, str(folder / "silent.mp4"))
    _make("-f", "lavfi", "-i", _TESTSRC, *_X264[:-1], "yuv422p10le", str(folder / "deep.mkv"))
    _make("-display_rotation", "90", "-i", str(folder / "clip.mp4"), "-c", "copy", str(folder / "turned.mp4"))
    oblong = ("-vf", "scale=352:288,setsar=16/11", "-c:v", "mpeg2video", "-c:a", "mp2")
    _make(*both, *oblong, str(folder / "oblong.ts"))
    return folder


def _make(*arguments: str) -> None:
    done = run_ffmpeg("-loglevel", "error", "-y", *arguments)
    assert done.returncode == 0, done.stderr
