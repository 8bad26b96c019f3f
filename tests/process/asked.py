"""Short ways to say what is asked of a daemon, and to see what came of it."""

from __future__ import annotations

import subprocess
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import imageio_ffmpeg

from gpu_balancer.v1 import media_pb2, session_pb2

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gpu_balancer.client import Client

FFMPEG = imageio_ffmpeg.get_ffmpeg_exe()
SUCCEEDED = session_pb2.SESSION_STATE_SUCCEEDED
FAILED = session_pb2.SESSION_STATE_FAILED
CANCELLED = session_pb2.SESSION_STATE_CANCELLED
RUNNING = session_pb2.SESSION_STATE_RUNNING
CODECS = {"h264": media_pb2.VIDEO_CODEC_H264, "hevc": media_pb2.VIDEO_CODEC_HEVC, "av1": media_pb2.VIDEO_CODEC_AV1}


def encoded(name: str = "out", codec: str = "h264", **encoding: Any) -> media_pb2.Rendition:
    """A rendition that is encoded as fast as possible."""
    encoding.setdefault("speed", media_pb2.ENCODING_SPEED_FASTEST)
    return media_pb2.Rendition(id=name, encode=media_pb2.VideoEncoding(codec=CODECS[codec], **encoding))


def with_sound(rendition: media_pb2.Rendition, codec: str, **audio: Any) -> media_pb2.Rendition:
    """The same rendition with another sound: "aac", "opus", "copy" or "none"."""
    number = media_pb2.AudioCodec.Value(f"AUDIO_CODEC_{codec.upper()}")
    rendition.audio.CopyFrom(media_pb2.AudioRendition(codec=number, **audio))
    return rendition


def to_file(path: Path | str, *renditions: str, overwrite: bool = False) -> media_pb2.Output:
    """A file output."""
    return media_pb2.Output(renditions=renditions, file=media_pb2.FileOutput(path=str(path), overwrite=overwrite))


def to_hls(
    path: Path | str, *renditions: str, segment_s: float = 1, window_s: float | None = None, transport: bool = False
) -> media_pb2.Output:
    """An HLS output."""
    hls = media_pb2.HlsOutput(path=str(path))
    hls.segment_duration.FromTimedelta(timedelta(seconds=segment_s))
    if window_s is not None:
        hls.dvr_window.FromTimedelta(timedelta(seconds=window_s))
    if transport:
        hls.segment_format = media_pb2.HLS_SEGMENT_FORMAT_TS
    return media_pb2.Output(renditions=renditions, hls=hls)


def to_push(url: str, rendition: str = "out") -> media_pb2.Output:
    """A push output."""
    return media_pb2.Output(renditions=[rendition], push=media_pb2.PushOutput(url=url))


def live_input(path: Path | str) -> media_pb2.Input:
    """A file that is read at native rate, over and over: a session that lasts."""
    return media_pb2.Input(uri=str(path), native_rate=True, repeat_forever=True)


def transcode_of(
    source: media_pb2.Input | Path | str,
    *renditions: media_pb2.Rendition,
    outputs: Sequence[media_pb2.Output] = (),
    **session: Any,
) -> session_pb2.Session:
    """A session to ask for."""
    given = source if isinstance(source, media_pb2.Input) else media_pb2.Input(uri=str(source))
    spec = media_pb2.TranscodeSpec(input=given, renditions=renditions or [encoded(height=96)], outputs=outputs)
    return session_pb2.Session(transcode=spec, **session)


def done(client: Client, asked: session_pb2.Session, folder: Path) -> tuple[session_pb2.Session, dict[str, Path]]:
    """Has a session run to its success and fetches its artifacts, by path."""
    ended = client.wait(client.submit(asked))
    assert ended.state == SUCCEEDED, ended.failure
    client.download_artifacts(ended.name, folder)
    return ended, {str(path.relative_to(folder)): path for path in sorted(folder.rglob("*")) if path.is_file()}


def await_state(client: Client, name: str, state: session_pb2.SessionState.ValueType) -> session_pb2.Session:
    """Watches a session until it has a state."""
    for seen in client.watch_session(name):
        if seen.state == state:
            return seen
    raise AssertionError(
        f"{name} ended before it was {session_pb2.SessionState.Name(state)}: {client.get_session(name)}"
    )


def make_media(path: Path, *arguments: str, size: str = "320x180", rate: str = "30", seconds: float = 1) -> Path:
    """Makes a small media file with moving content; `arguments` say how it is encoded."""
    source = f"testsrc2=size={size}:rate={rate}:duration={seconds}"
    command = [FFMPEG, "-hide_banner", "-loglevel", "error", "-y", "-f", "lavfi", "-i", source, *arguments, str(path)]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL, timeout=60)
    return path
