"""Calibrations in the contract's words."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agents.devices.calibration_plan import CalibrationProgress
from agents.pipelines.recording_report import SoundTiming
from agents.servicers.recording_translation import timing_message
from agents.servicers.report_translation import build_message
from gpu_balancer.v1 import agent_service_pb2, device_pb2, media_pb2, placement_pb2

if TYPE_CHECKING:
    from agents.devices.calibration_plan import CalibrationFigure, CalibrationResult


def calibration_message(
    news: CalibrationProgress | CalibrationResult | SoundTiming,
) -> agent_service_pb2.AgentServiceCalibrateDeviceResponse:
    """Makes the message of how far a calibration is, or of what came of it."""
    if isinstance(news, CalibrationProgress):
        progress = device_pb2.CalibrationProgress(step=news.step, step_count=news.step_count, message=news.message)
        return agent_service_pb2.AgentServiceCalibrateDeviceResponse(progress=progress)
    if isinstance(news, SoundTiming):
        return agent_service_pb2.AgentServiceCalibrateDeviceResponse(sound_timing=timing_message(news))
    calibration = device_pb2.DeviceCalibration(
        ffmpeg=build_message(news.build),
        driver_version=news.driver_version or "",
        figures=[_figure_message(figure) for figure in news.figures],
    )
    calibration.calibration_time.FromDatetime(news.end_time)
    return agent_service_pb2.AgentServiceCalibrateDeviceResponse(calibration=calibration)


def _figure_message(figure: CalibrationFigure) -> device_pb2.CalibrationFigure:
    step, size = figure.step, figure.stream_size
    message = device_pb2.CalibrationFigure(
        dimension=placement_pb2.Dimension.Value(f"DIMENSION_{step.work.value}"),
        pixels_per_second=figure.pixels_per_second or 0,
        streams=figure.streams,
        stream_width=size.width if size else 0,
        stream_height=size.height if size else 0,
        problem=figure.problem,
    )
    if step.codec is not None:
        message.codec = media_pb2.VideoCodec.Value(f"VIDEO_CODEC_{step.codec.name}")
    if step.speed is not None:
        message.speed = media_pb2.EncodingSpeed.Value(f"ENCODING_SPEED_{step.speed.name}")
    return message
