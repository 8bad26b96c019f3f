"""Profiles of the settings in the contract's words. They are translated once per settings, not once per session."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from balancer.settings.profiles import parse_frame_rate
from gpu_balancer.v1 import media_pb2

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from balancer.settings.profiles import AudioSettings, ProfileSettings, RenditionSettings


class KnownProfiles:
    """The ladders of the settings in force."""

    def __init__(self, settings: Callable[[], Mapping[str, ProfileSettings]]) -> None:
        """Begins without having looked.

        Args:
            settings: Gives the ladders of the settings in force; another mapping after each reload.
        """
        self._settings = settings
        self._seen: Mapping[str, ProfileSettings] | None = None
        self._translated: Mapping[str, Sequence[media_pb2.Rendition]] = {}

    def now(self) -> Mapping[str, Sequence[media_pb2.Rendition]]:
        """Gives every ladder by its name. The messages are shared: they MUST NOT be changed."""
        profiles = self._settings()
        if profiles is not self._seen:
            self._seen = profiles
            self._translated = {
                name: tuple(rendition_to_proto(rendition) for rendition in profile.renditions)
                for name, profile in profiles.items()
            }
        return self._translated


def rendition_to_proto(settings: RenditionSettings) -> media_pb2.Rendition:
    """Makes the message of a rendition; what the settings leave open stays open."""
    rendition = media_pb2.Rendition(id=settings.id)
    if settings.video == "passthrough":
        rendition.passthrough.SetInParent()
    elif settings.video == "encode":
        rendition.encode.CopyFrom(_encoding(settings))
    if settings.audio is not None:
        rendition.audio.CopyFrom(_audio(settings.audio))
    return rendition


def _encoding(settings: RenditionSettings) -> media_pb2.VideoEncoding:
    encoding = media_pb2.VideoEncoding(
        width=settings.width,
        height=settings.height,
        max_bit_rate_bps=settings.max_bit_rate_bps,
        bit_depth=settings.bit_depth,
        low_latency=settings.low_latency,
    )
    if settings.bit_rate_bps is not None:
        encoding.bit_rate_bps = settings.bit_rate_bps
    if settings.quality is not None:
        encoding.quality = settings.quality
    if settings.codec is not None:
        encoding.codec = media_pb2.VideoCodec.Value(f"VIDEO_CODEC_{settings.codec.upper()}")
    if settings.fit is not None:
        encoding.fit = media_pb2.Fit.Value(f"FIT_{settings.fit.upper()}")
    if settings.speed is not None:
        encoding.speed = media_pb2.EncodingSpeed.Value(f"ENCODING_SPEED_{settings.speed.upper()}")
    if settings.frame_rate is not None:
        encoding.frame_rate.numerator, encoding.frame_rate.denominator = parse_frame_rate(settings.frame_rate)
    if settings.keyframe_interval_s is not None:
        encoding.keyframe_interval.FromTimedelta(timedelta(seconds=settings.keyframe_interval_s))
    return encoding


def _audio(settings: AudioSettings) -> media_pb2.AudioRendition:
    return media_pb2.AudioRendition(
        codec=media_pb2.AudioCodec.Value(f"AUDIO_CODEC_{settings.codec.upper()}"),
        bit_rate_bps=settings.bit_rate_bps,
        channels=settings.channels,
        sample_rate_hz=settings.sample_rate_hz,
    )
