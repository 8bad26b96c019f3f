"""What a calibration says of a device, and when it says nothing any more."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest
from domain.devices import cpu, gpu_identity, nvenc

from balancer.calibrations import calibration_from_text, calibration_text
from balancer.domain import core_rates
from balancer.domain.calibration import Calibration, CalibrationFigure, why_outdated
from balancer.domain.capacity import ENGINE, CapacityOverride, capacity_of
from balancer.domain.device import Dimension, FigureSource
from balancer.domain.workload import EncodingSpeed, VideoCodec

H264, HEVC, AV1, VP9 = VideoCodec.H264, VideoCodec.HEVC, VideoCodec.AV1, VideoCodec.VP9
FAST, FASTEST, BALANCED, THOROUGH = (speed.value for speed in (
    EncodingSpeed.FAST, EncodingSpeed.FASTEST, EncodingSpeed.BALANCED, EncodingSpeed.THOROUGH))  # fmt: skip
CPU = cpu(2).identity


def encoded(codec: VideoCodec, speed: EncodingSpeed, pixels: int | None, problem: str = "") -> CalibrationFigure:
    return CalibrationFigure(
        dimension=Dimension.ENCODE, codec=codec, speed=speed, pixels_per_second=pixels, problem=problem
    )


def calibration(*figures: CalibrationFigure, driver: str | None = None) -> Calibration:
    return Calibration(
        end_time=datetime(2030, 5, 4, 12, tzinfo=UTC),
        ffmpeg_path="/opt/ffmpeg",
        ffmpeg_version="9.0.2",
        ffmpeg_candidate="bundled",
        driver_version=driver,
        model="CPU",
        core_count=2,
        figures=figures,
    )


DECODED = CalibrationFigure(dimension=Dimension.DECODE, codec=H264, pixels_per_second=400_000_000)
SCALED = CalibrationFigure(dimension=Dimension.SCALE, pixels_per_second=800_000_000)


def test_a_measured_rate_is_the_devices_divided_by_its_cores() -> None:
    measured = calibration(DECODED, SCALED, encoded(H264, EncodingSpeed.FAST, 90_000_000))
    capacity = capacity_of(CPU, (), None, measured)
    assert capacity.decode_rates[H264] == 200_000_000
    assert capacity.encode_rates[H264, FAST] == 45_000_000
    assert capacity.scale_rate == 400_000_000
    assert capacity.sources == {Dimension.CORES: FigureSource.CALIBRATION}
    assert capacity.limits == {Dimension.CORES: 2 * ENGINE}
    told = capacity.explanations[Dimension.CORES]
    assert told == (
        "2 cores; of each core calibrated on 2030-05-04 with ffmpeg 9.0.2: decoding H.264 200 million pixels/s, "
        "encoding H.264 fast 45 million pixels/s, scaling 400 million pixels/s."
    )


def test_what_was_not_measured_keeps_its_proportion_to_the_nearest_that_was() -> None:
    measured = calibration(
        DECODED,
        encoded(H264, EncodingSpeed.FAST, 98_000_000 * 2),
        encoded(HEVC, EncodingSpeed.FAST, 16_000_000 * 3 * 2),
        encoded(HEVC, EncodingSpeed.THOROUGH, None, "the time was up"),
    )
    rates = capacity_of(CPU, (), None, measured).encode_rates
    plain = core_rates.ENCODE_RATES
    assert rates[H264, BALANCED] == 2 * plain[H264, BALANCED], "its own format's nearest speed"
    assert rates[HEVC, THOROUGH] == 3 * plain[HEVC, THOROUGH]
    assert rates[AV1, FAST] == 2 * plain[AV1, FAST], "H.264, when nothing of its own format was measured"
    assert capacity_of(CPU, (), None, measured).decode_rates[VP9] == core_rates.DECODE_RATES[VP9] * 4 // 3


def test_settings_win_over_a_calibration_which_still_gives_the_proportions() -> None:
    measured = calibration(
        encoded(H264, EncodingSpeed.FAST, 80_000_000), encoded(H264, EncodingSpeed.THOROUGH, 20_000_000)
    )
    told = CapacityOverride(encode_pixels_per_second=200_000_000)
    capacity = capacity_of(CPU, (), told, measured)
    assert capacity.encode_rates[H264, FAST] == 100_000_000
    assert capacity.encode_rates[H264, THOROUGH] == 25_000_000
    assert capacity.encode_sources[H264, FAST] is FigureSource.SETTINGS
    assert capacity.decode_sources[H264] is FigureSource.DEFAULT
    assert capacity.sources == {Dimension.CORES: FigureSource.SETTINGS}


def test_a_gpu_keeps_its_engines_and_gets_their_speed() -> None:
    measured = calibration(SCALED, encoded(H264, EncodingSpeed.FAST, 2_000_000_000))
    capacity = capacity_of(gpu_identity("NVIDIA L4"), nvenc(H264), None, measured)
    assert capacity.limits[Dimension.ENCODE] == 2 * ENGINE
    assert capacity.encode_rates[H264, FAST] == 1_000_000_000
    assert capacity.sources[Dimension.ENCODE] is FigureSource.CALIBRATION
    assert capacity.sources[Dimension.DECODE] is FigureSource.TABLE
    assert (capacity.limits[Dimension.SCALE], capacity.scale_rate) == (800_000_000, 800_000_000)
    assert (
        "2 encoder engines; calibrated on 2030-05-04 with ffmpeg 9.0.2: H.264 fast 2,000 million"
        in (capacity.explanations[Dimension.ENCODE])
    )


def test_engines_that_do_not_work_stay_without_speed_whatever_was_measured() -> None:
    measured = calibration(encoded(H264, EncodingSpeed.FAST, 2_000_000_000))
    capacity = capacity_of(gpu_identity("NVIDIA L4"), nvenc(H264, works=False), None, measured)
    assert capacity.limits[Dimension.ENCODE] == 0
    assert capacity.explanations[Dimension.ENCODE] == "Table row L4, but no encoder engine was seen to work."


def test_every_capacity_says_where_it_is_from() -> None:
    capacity = capacity_of(gpu_identity("NVIDIA L4", clock_mhz=2040), (), CapacityOverride(encoder_sessions=3))
    assert capacity.explanations[Dimension.ENCODE] == (
        "Table row L4: 2 encoder engines; H.264 fast 647 frames/s at 2415 MHz, scaled to 2040 MHz."
    )
    assert capacity.explanations[Dimension.ENCODER_SESSIONS] == "The settings say so."
    assert capacity.explanations.keys() == capacity.limits.keys()
    unknown = capacity_of(gpu_identity("NVIDIA Unheard Of"), (), None)
    assert unknown.explanations[Dimension.DECODE].startswith("Unknown model: 1 decoder engine is assumed; H.264 462")
    assert set(unknown.encode_sources.values()) == {FigureSource.DEFAULT}


def test_a_calibration_that_does_not_count_is_named() -> None:
    told = capacity_of(CPU, (), None, None, ignored="the ffmpeg was 9.0 (bundled) and is 9.1")
    assert told.explanations[Dimension.CORES].endswith(
        " There is a calibration, which does not count: the ffmpeg was 9.0 (bundled) and is 9.1."
    )


@pytest.mark.parametrize(
    ("changes", "ffmpegs", "told"),
    [
        ({}, [("bundled", "9.0.2"), ("/usr/bin/ffmpeg", "5.1")], ""),
        ({}, None, ""),
        ({}, [("bundled", "9.1")], "the ffmpeg was 9.0.2 (bundled) and is 9.1"),
        ({}, [], "the ffmpeg was 9.0.2 (bundled) and is gone"),
        ({"cores": (0, 1, 2)}, None, "the device had 2 cores and has 3"),
        ({"model": "Other"}, None, "the processor was CPU and is Other"),
    ],
)
def test_a_calibration_counts_while_the_device_is_as_it_was(
    changes: dict[str, object], ffmpegs: list[tuple[str, str]] | None, told: str
) -> None:
    assert why_outdated(calibration(DECODED), replace(CPU, **changes), ffmpegs) == told  # type: ignore[arg-type]


def test_a_calibration_of_another_driver_does_not_count() -> None:
    identity = replace(gpu_identity("NVIDIA L4"), driver_version="575.2")
    assert why_outdated(calibration(driver="570.1"), identity, None) == "the driver was 570.1 and is 575.2"
    assert why_outdated(calibration(driver="575.2"), identity, None) == ""


def test_a_calibration_is_kept_as_text_and_read_back() -> None:
    made = calibration(DECODED, SCALED, encoded(H264, EncodingSpeed.FAST, None, "no"), driver="570.1")
    assert calibration_from_text(calibration_text(made)) == made


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"version": 2}', '{"version": 1, "figures": [], "end_time": "x"}'])
def test_what_is_no_calibration_is_refused(text: str) -> None:
    with pytest.raises((ValueError, KeyError, TypeError)):
        calibration_from_text(text)
