"""The options of each audio encoder."""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING

from agents.pipelines.job import AudioCodec
from agents.pipelines.pipeline_error import PipelineError, PipelineErrorReason

if TYPE_CHECKING:
    from datetime import timedelta

    from agents.pipelines.job import AudioRendition
    from agents.pipelines.video_encoders import Options

_AAC_RATES_HZ = (7350, 8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000, 64000, 88200, 96000)
_OPUS_RATES_HZ = (8000, 12000, 16000, 24000, 48000)
_OPUS_LAYOUTS = ("mono", "stereo", "3.0", "quad", "5.0", "5.1", "6.1", "7.1")
"""By number of channels, from 1. ffmpeg's own choice for 3 and 4 is none that Opus takes."""
# Sound that was lost on the way in becomes silence, so that what follows stays with its pictures.
_IN_TIME = "aresample=async=1"
# What is captured has the clock of the picture; a sound server's own is followed by stretching, by 1 % at most. Filling
# and cutting alone would let it stray by up to a tenth of a second.
_CAPTURED_IN_TIME = "aresample=async=480"


def audio_options(
    audio: AudioRendition, *, field: str, captured_delay: timedelta | None = None, stretch: Fraction = Fraction(1)
) -> Options:
    """Gives the options of a sound that is encoded.

    Args:
        audio: What is asked for: AAC or Opus.
        field: Path of it in the job, for errors.
        captured_delay: For sound that is captured beside a picture: by how much it is delayed against that; negative:
            brought forward. None: for any other sound, which keeps its times.
        stretch: How many times as long captured sound is made, as its pictures are.

    Returns:
        Options of one stream; "c" comes first.

    Raises:
        PipelineError: When the encoder has no such sample rate.
    """
    rates = _OPUS_RATES_HZ if audio.codec is AudioCodec.OPUS else _AAC_RATES_HZ
    if audio.sample_rate_hz not in rates:
        raise PipelineError(
            reason=PipelineErrorReason.UNSUPPORTED,
            field=f"{field}.sample_rate_hz",
            message=f"Cannot encode {audio.codec} at {audio.sample_rate_hz} samples per second: the format has no "
            f"such rate. Try one of {', '.join(map(str, rates))}.",
        )
    opus = audio.codec is AudioCodec.OPUS
    common = (("b", str(audio.bit_rate_bps)), ("ar", str(audio.sample_rate_hz)))
    if audio.channels is None:
        layout, count = "aformat=channel_layouts=stereo|mono", None
    elif opus:
        layout, count = f"aformat=channel_layouts={_OPUS_LAYOUTS[audio.channels - 1]}", None
    else:
        layout, count = None, audio.channels
    in_time = _IN_TIME if captured_delay is None else _captured_in_time(captured_delay, stretch)
    filters = ",".join(filter(None, (in_time, layout)))
    channels = (("ac", str(count)),) if count else ()
    return (("c", "libopus" if opus else "aac"), *common, *channels, ("filter", filters))


def _captured_in_time(delay: timedelta, stretch: Fraction) -> str:
    """Moves captured sound against its picture, and has both begin together: silence goes in front, or some is cut."""
    times = f"PTS*{float(stretch):.9f}" if stretch != 1 else "PTS"
    times += f"{delay.total_seconds():+.6f}/TB" if delay else ""
    shift = f"asetpts={times}," if times != "PTS" else ""
    # Once filled and stretched, its samples are its times: what `aresample` makes of them goes backwards at times.
    return f"{shift}atrim=start=0,{_CAPTURED_IN_TIME}:first_pts=0,asetpts=N/SR/TB"
