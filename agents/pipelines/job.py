"""A job: one attempt of a transcode session as plain values, with profile, defaults and ids already filled in.

It mirrors `proto/gpu_balancer/v1/media.proto` without knowing it, so that pipelines depend on no generated code; the
translation beside the agent's servicers makes jobs from messages. Ranges are those of the contract and are checked
where a request comes in, not again here.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum


class VideoCodec(StrEnum):
    """A video compression format."""

    H264 = "h264"
    HEVC = "hevc"
    AV1 = "av1"
    VP8 = "vp8"
    VP9 = "vp9"
    MPEG2 = "mpeg2"
    MPEG4 = "mpeg4"
    MJPEG = "mjpeg"
    OTHER = "other"
    """Any format without a name here; decoded in software."""


class AudioCodec(StrEnum):
    """What happens to sound in a rendition."""

    AAC = "aac"
    OPUS = "opus"
    COPY = "copy"
    """The input's own sound, not encoded again."""
    NONE = "none"
    """No sound."""


class Container(StrEnum):
    """A file format."""

    MP4 = "mp4"
    MKV = "mkv"
    TS = "ts"


class Direction(StrEnum):
    """A direction of coding."""

    DECODE = "decode"
    ENCODE = "encode"


class IngestProtocol(StrEnum):
    """The protocol on which an agent awaits a publisher."""

    RTMP = "rtmp"
    SRT = "srt"


class Fit(StrEnum):
    """How a picture is fitted into a width and a height."""

    CONTAIN = "contain"
    """As large as fits inside, aspect ratio kept, sides rounded to even numbers."""
    STRETCH = "stretch"
    """Exactly the asked size, aspect ratio given up."""


class EncodingSpeed(StrEnum):
    """How much work an encoder puts into a picture."""

    FASTEST = "fastest"
    FAST = "fast"
    BALANCED = "balanced"
    THOROUGH = "thorough"


class HlsSegmentFormat(StrEnum):
    """How HLS segments are packed."""

    FMP4 = "fmp4"
    TS = "ts"


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameRate:
    """A frame rate as an exact fraction, such as 30000/1001."""

    numerator: int
    """Frames; above 0."""
    denominator: int
    """Seconds; above 0."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InputFacts:
    """What is known of an input before it is decoded. None: unknown."""

    width: int | None = None
    """Pixels, as shown: after any rotation the input asks for."""
    height: int | None = None
    """Pixels, as shown: after any rotation the input asks for."""
    frame_rate: FrameRate | None = None
    video_codec: VideoCodec | None = None
    bit_depth: int | None = None
    """Bits per sample: 8, 10, 12, …"""
    chroma: str | None = None
    """Subsampling: "4:2:0", "4:2:2", "4:4:4" or "4:0:0"; "rgb" for pictures that are not YUV."""
    has_audio: bool | None = None
    audio_codec: str | None = None
    """ffmpeg's name of the sound's format, "aac" for instance. None when there is none, or unknown."""
    duration: timedelta | None = None
    """None: no known end."""
    format: str | None = None
    """ffmpeg's name of the container, "mov,mp4,m4a,3gp,3g2,mj2" for instance."""
    rotation_degrees: int | None = None
    """Clockwise turn for showing: 0, 90, 180 or 270."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UriInput:
    """A file or a stream that is fetched."""

    uri: str
    """Absolute path, file:// URL, or http, https, rtmp, rtmps, rtsp or srt URL."""
    start_offset: timedelta | None = None
    """Skips this much. None: nothing."""
    duration: timedelta | None = None
    """Ends after this much of the input. None: at its end."""
    native_rate: bool = False
    """Reads no faster than real time."""
    repeat_count: int = 0
    """Plays a file this many further times."""
    repeat_forever: bool = False
    """Plays a file over and over; then `repeat_count` does not matter."""


@dataclass(frozen=True, slots=True, kw_only=True)
class IngestInput:
    """A stream that somebody publishes to the agent, at the `ingest_url` given to `build_command`."""

    protocol: IngestProtocol
    publisher_timeout: timedelta = timedelta(seconds=60)
    """How long to await the publisher."""
    duration: timedelta | None = None
    """Ends after this much of the input. None: when the publisher leaves."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CaptureInput:
    """What a display shows, and what is heard on it: one take of a recording."""

    display: str
    """As X clients know it, ":7"."""
    width: int
    """Pixels, even; the whole display."""
    height: int
    """Pixels, even; the whole display."""
    frame_rate: FrameRate
    """Constant."""
    show_cursor: bool = False
    sound_source: str | None = None
    """What is recorded of the sound server, "output.monitor" for instance. None: there is no sound."""
    sound_delay: timedelta = timedelta()
    """By how much sound is delayed against the picture; negative: brought forward."""
    take: int = 1
    """From 1. A later take goes on with what the ones before it left of an HLS presentation."""


JobInput = UriInput | IngestInput | CaptureInput


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoEncoding:
    """An encoded version of the video. At most one of `bit_rate_bps` and `quality` is given."""

    codec: VideoCodec = VideoCodec.H264
    """H.264, HEVC or AV1."""
    width: int | None = None
    """Pixels, even. None: follows from the height and the input's aspect ratio."""
    height: int | None = None
    """Pixels, even. None: follows from the width and the input's aspect ratio."""
    fit: Fit = Fit.CONTAIN
    frame_rate: FrameRate | None = None
    """None: the input's."""
    bit_rate_bps: int | None = None
    """Average bits per second."""
    quality: int | None = None
    """Constant quality, 0 (best) to 51 for H.264 and HEVC, to 63 for AV1."""
    max_bit_rate_bps: int | None = None
    """Peak bits per second. None: 1.5 times `bit_rate_bps` when that is given, else no bound."""
    keyframe_interval: timedelta = timedelta(seconds=2)
    bit_depth: int = 8
    """8 or 10."""
    speed: EncodingSpeed = EncodingSpeed.FAST
    low_latency: bool = False
    """Gives up look-ahead and reordering for less delay."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoPassthrough:
    """The input's own video, not encoded again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AudioRendition:
    """The sound of a rendition. Whatever is asked, an input without sound gives none."""

    codec: AudioCodec = AudioCodec.AAC
    bit_rate_bps: int = 128_000
    channels: int | None = None
    """None: the input's, at most 2."""
    sample_rate_hz: int = 48_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Rendition:
    """One version of the input."""

    id: str
    """Unique in the job: letters, digits, '-' and '_', at most 40."""
    video: VideoEncoding | VideoPassthrough | None
    """None: no video."""
    audio: AudioRendition = field(default_factory=AudioRendition)


@dataclass(frozen=True, slots=True, kw_only=True)
class FileOutput:
    """A single media file; several renditions become tracks of it."""

    id: str
    """Unique in the job."""
    path: str
    """Relative: an artifact. Absolute: under the operator's output roots."""
    container: Container
    overwrite: bool = False
    """Replaces an existing file."""
    renditions: tuple[str, ...] = ()
    """Ids of the renditions that go there. Empty: all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HlsOutput:
    """An HLS presentation: one playlist per rendition, and the master playlist `master.m3u8`."""

    id: str
    """Unique in the job."""
    path: str
    """Folder. Relative: artifacts. Absolute: under the operator's output roots."""
    segment_format: HlsSegmentFormat = HlsSegmentFormat.FMP4
    segment_duration: timedelta = timedelta(seconds=4)
    """Target; a multiple of the keyframe interval."""
    dvr_window: timedelta | None = None
    """Keeps only this much behind the live edge. None: everything."""
    renditions: tuple[str, ...] = ()
    """Ids of the renditions that go there. Empty: all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PushOutput:
    """A push of one rendition to a server."""

    id: str
    """Unique in the job."""
    url: str
    """rtmp, rtmps or srt URL, with its secrets."""
    renditions: tuple[str, ...] = ()
    """The id of the rendition. Empty: all, which then must be one."""


JobOutput = FileOutput | HlsOutput | PushOutput


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """Everything that one attempt of a session has to do."""

    session: str
    """The session's id, without "sessions/"."""
    attempt: int
    """From 1."""
    input: JobInput
    facts: InputFacts
    renditions: tuple[Rendition, ...]
    """At least one."""
    outputs: tuple[JobOutput, ...]
    """At least one."""
    allow_software_encode: bool = False
    """Lets a GPU without a fitting encoder decode and scale while the host's cores encode."""
    continues: bool = False
    """Whether it goes on with what earlier attempts have made."""
    resumed_at: timedelta = timedelta()
    """Where on the timeline of its HLS it goes on."""
