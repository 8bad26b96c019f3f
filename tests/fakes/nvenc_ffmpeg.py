"""An ffmpeg that does what NVENC, NVDEC and CUDA filters are asked for with the software of the real one.

`install` writes a program; an agent that takes it as a candidate sees cards that work, on a machine without any. It is
strict where a real card is: `nvenc_program` has how. What a card lacks may be changed while daemons run: it is read at
each start. Everything that does not mention CUDA goes to the real ffmpeg as it is.
"""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path

import imageio_ffmpeg

_SETTINGS = "nvenc-ffmpeg.json"
_STARTED = "import sys; sys.path.append(sys.argv[1]); import nvenc_program; nvenc_program.main(*sys.argv[2:])"
"""Imported, it is kept compiled; as a script it would be compiled at every start."""


def install(folder: Path, *, lacking: dict[str, list[str]] | None = None, real: str | None = None) -> Path:
    """Writes the program.

    Args:
        folder: Where; it must exist.
        lacking: GPU UUID -> what it cannot do: "h264_nvenc", "av1_nvdec"; with ":10" behind it, in 10 bits only.
        real: The ffmpeg underneath. None: the one inside imageio-ffmpeg.

    Returns:
        Its path, for `[ffmpeg] candidates`.
    """
    real = real or imageio_ffmpeg.get_ffmpeg_exe()
    settings = folder / _SETTINGS
    change(folder, lacking=lacking)
    program = folder / "nvenc-ffmpeg"
    own_folder = str(Path(__file__).resolve().parent)
    command = shlex.join([sys.executable, "-I", "-S", "-c", _STARTED, own_folder, real, str(settings)])
    # Half of what a probe tries is software: it needs no look at its arguments, which costs a start of Python.
    may_need_a_card = "*cuda* | *cuvid* | *nvenc* | *hw*"
    program.write_text(
        f'#!/bin/sh\ncase "$*" in {may_need_a_card}) exec {command} "$@" ;; esac\nexec {shlex.quote(real)} "$@"\n'
    )
    program.chmod(0o755)
    return program


def change(folder: Path, *, lacking: dict[str, list[str]] | None = None, broken: dict[str, str] | None = None) -> None:
    """Has cards be otherwise from the next start of the program on.

    Args:
        folder: Where it was installed.
        lacking: As for `install`.
        broken: GPU UUID -> the error with which everything fails that touches the card.
    """
    part = folder / f"{_SETTINGS}.part"
    part.write_text(json.dumps({"lacking": lacking or {}, "broken": broken or {}}))
    part.replace(folder / _SETTINGS)
