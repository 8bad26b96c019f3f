"""Calibrations in the contract's words."""

from __future__ import annotations

from typing import TYPE_CHECKING

from balancer.servicers.contract_words import SPEED_NUMBERS, VIDEO_CODEC_NUMBERS
from gpu_balancer.v1 import device_pb2, placement_pb2

if TYPE_CHECKING:
    from balancer.domain.calibration import Calibration, CalibrationFigure, CalibrationProgress


def calibration_progress(progress: CalibrationProgress) -> device_pb2.CalibrationProgress:
    """Makes the message of how far a calibration is."""
    return device_pb2.CalibrationProgress(step=progress.step, step_count=progress.step_count, message=progress.message)


def calibration_message(calibration: Calibration) -> device_pb2.DeviceCalibration:
    """Makes the message of a calibration."""
    message = device_pb2.DeviceCalibration(
        ffmpeg=device_pb2.FfmpegBuild(
            path=calibration.ffmpeg_path,
            version=calibration.ffmpeg_version,
            candidate=calibration.ffmpeg_candidate,
        ),
        driver_version=calibration.driver_version or "",
        figures=[_figure(figure) for figure in calibration.figures],
    )
    message.calibration_time.FromDatetime(calibration.end_time)
    return message


def _figure(figure: CalibrationFigure) -> device_pb2.CalibrationFigure:
    message = device_pb2.CalibrationFigure(
        dimension=placement_pb2.Dimension.Value(f"DIMENSION_{figure.dimension.name}"),
        pixels_per_second=figure.pixels_per_second or 0,
        streams=figure.streams,
        stream_width=figure.stream_width,
        stream_height=figure.stream_height,
        problem=figure.problem,
    )
    if figure.codec is not None:
        message.codec = VIDEO_CODEC_NUMBERS[figure.codec]
    if figure.speed is not None:
        message.speed = SPEED_NUMBERS[figure.speed]
    return message
