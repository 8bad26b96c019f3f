"""Reads what an agent tells while it calibrates its device. Pure; unset on the wire is None here."""

from __future__ import annotations

from datetime import UTC

from balancer.domain.calibration import Calibration, CalibrationFigure, CalibrationProgress
from balancer.domain.device import Dimension
from balancer.domain.workload import EncodingSpeed, VideoCodec
from gpu_balancer.v1 import agent_service_pb2, device_pb2, media_pb2, placement_pb2

_DIMENSIONS = {
    placement_pb2.DIMENSION_DECODE: Dimension.DECODE,
    placement_pb2.DIMENSION_SCALE: Dimension.SCALE,
    placement_pb2.DIMENSION_ENCODE: Dimension.ENCODE,
}
_CODECS = {
    number: VideoCodec(name.removeprefix("VIDEO_CODEC_").lower())
    for name, number in media_pb2.VideoCodec.items()
    if number != media_pb2.VIDEO_CODEC_UNSPECIFIED
}
_SPEEDS = {
    media_pb2.ENCODING_SPEED_FASTEST: EncodingSpeed.FASTEST,
    media_pb2.ENCODING_SPEED_FAST: EncodingSpeed.FAST,
    media_pb2.ENCODING_SPEED_BALANCED: EncodingSpeed.BALANCED,
    media_pb2.ENCODING_SPEED_THOROUGH: EncodingSpeed.THOROUGH,
}


def calibration_news_from_proto(
    message: agent_service_pb2.AgentServiceCalibrateDeviceResponse,
) -> CalibrationProgress | Calibration | None:
    """Reads how far a calibration is, or what came of it. None: of sound, or of a kind that is not known here."""
    match message.WhichOneof("news"):
        case "progress":
            told = message.progress
            return CalibrationProgress(step=told.step, step_count=told.step_count, message=told.message)
        case "calibration":
            return _calibration(message.calibration)
        case _:
            return None


def _calibration(message: device_pb2.DeviceCalibration) -> Calibration:
    return Calibration(
        end_time=message.calibration_time.ToDatetime(tzinfo=UTC),
        ffmpeg_path=message.ffmpeg.path,
        ffmpeg_version=message.ffmpeg.version,
        ffmpeg_candidate=message.ffmpeg.candidate,
        driver_version=message.driver_version or None,
        figures=tuple(_figure(figure) for figure in message.figures if figure.dimension in _DIMENSIONS),
    )


def _figure(message: device_pb2.CalibrationFigure) -> CalibrationFigure:
    return CalibrationFigure(
        dimension=_DIMENSIONS[message.dimension],
        codec=_CODECS.get(message.codec),
        speed=_SPEEDS.get(message.speed),
        pixels_per_second=message.pixels_per_second or None,
        streams=message.streams,
        stream_width=message.stream_width,
        stream_height=message.stream_height,
        problem=message.problem,
    )
