"""Why a capture failed: what ffmpeg 5.1 and 9.0 say of a display, a sound server and a watermark.

A display that goes away while it is captured is in no log: ffmpeg asks it again for ever (see `capture_input`).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from agents.pipelines.exit_reasons import FailureReason, Finding

if TYPE_CHECKING:
    from collections.abc import Sequence

_DISPLAY = re.compile(
    r"Cannot open display|Capture area .* outside the screen size|Cannot get the image data|"
    r"\[error\] (?:Error opening input file )?:\d+(?:\.\d+)?[.:]"
)
_SOUND = re.compile(
    # ffmpeg 9 names the demuxer once it is open and the source when it cannot be opened, ffmpeg 5.1 the source alone.
    r"/pulse @ 0x[0-9a-f]+\] \[error\] Error during demuxing|\[error\] Error opening input file [^/:]+\.$|"
    r"\[error\] [^/:\[\] ]+: (?:Generic error in an external library|No such process|Input/output error|"
    r"Connection refused)"
)


def find_capture_reason(log: Sequence[str], *, watermark: str | None = None) -> Finding | None:
    """Looks for a display, a sound server or a watermark that is not there.

    Args:
        log: Lines of ffmpeg's log with levels.
        watermark: The picture that is laid over the display's, as it stands in the log. None: there is none.

    Returns:
        What was found. None: it was none of them.
    """
    for line in log:
        if _DISPLAY.search(line):
            return Finding(reason=FailureReason.DISPLAY_LOST, message=_NO_DISPLAY)
    for line in log:
        if _SOUND.search(line.rstrip()):
            return Finding(reason=FailureReason.SOUND_LOST, message=_NO_SOUND)
    if watermark is not None and any("[error]" in line and watermark in line for line in log):
        return Finding(
            reason=FailureReason.INPUT_UNREADABLE, message=_NO_WATERMARK.format(path=watermark.removeprefix("file:"))
        )
    return None


_NO_DISPLAY = (
    "Cannot record the display: it is not there any more, or not as large as was asked. Try the session again; what "
    "was recorded until then is kept."
)
_NO_SOUND = (
    "Cannot record the sound: the display's sound server is not there any more. Try the session again; what was "
    "recorded until then is kept."
)
_NO_WATERMARK = (
    "Cannot lay the watermark over the picture: {path} is not there any more, or no picture. Try putting it back, then "
    "the session again; what was recorded until then is kept."
)
