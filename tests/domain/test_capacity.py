"""How much devices carry, and by which source."""

from __future__ import annotations

from dataclasses import replace

import pytest
from domain.devices import ENCODED, cpu, gpu_identity, nvdec, nvenc

from balancer.domain.capacity import (
    ENGINE,
    GPU_SCALE_RATE,
    RESERVED_MEMORY_MIB,
    CapacityOverride,
    capacity_of,
    capacity_of_host,
    default_weights,
)
from balancer.domain.device import DeviceCapacity, DeviceIdentity, DeviceKind, Dimension, FigureSource
from balancer.domain.ids import DeviceId
from balancer.domain.workload import EncodingSpeed, VideoCodec

PIXELS = 1920 * 1080


def of(
    model: str,
    override: CapacityOverride | None = None,
    *,
    clock_mhz: int | None = None,
    memory_mib: int | None = 16384,
) -> DeviceCapacity:
    """Gives a GPU's capacity before any probe."""
    return capacity_of(gpu_identity(model, clock_mhz=clock_mhz, memory_mib=memory_mib), (), override)


def test_a_known_model_has_the_tables_engines_and_speeds() -> None:
    capacity = of("NVIDIA L4")
    assert capacity.limits[Dimension.ENCODE] == 2 * ENGINE
    assert capacity.limits[Dimension.DECODE] == 4 * ENGINE
    assert capacity.sources[Dimension.ENCODE] is FigureSource.TABLE
    assert capacity.encode_rates[VideoCodec.H264, "p3"] == 647 * PIXELS
    assert capacity.decode_rates[VideoCodec.H264] == 903 * PIXELS


def test_a_rate_is_that_of_the_slower_tuning_and_the_slower_bit_depth() -> None:
    """A workload knows neither tuning nor, for decoding, the depth's own speed."""
    capacity = of("Tesla T4")
    assert capacity.encode_rates[VideoCodec.HEVC, "p5"] == 305 * PIXELS
    assert capacity.decode_rates[VideoCodec.HEVC] == 1158 * PIXELS


def test_speeds_follow_the_cards_own_video_clock() -> None:
    assert of("Tesla P4", clock_mhz=1114).encode_rates[VideoCodec.H264, "p3"] == 398 * PIXELS * 1114 // 1708
    assert of("Tesla P4").encode_rates[VideoCodec.H264, "p3"] == 398 * PIXELS


def test_a_clock_does_not_count_where_the_reference_has_none() -> None:
    at_any_clock = of("NVIDIA GeForce RTX 5070 Ti", clock_mhz=3000)
    assert at_any_clock.encode_rates == of("NVIDIA GeForce RTX 5070 Ti").encode_rates


def test_a_card_with_an_older_generations_encoder_is_as_slow_as_that() -> None:
    turing, volta_encoder = of("Tesla T4"), of("NVIDIA GeForce GTX 1650")
    assert volta_encoder.encode_rates[VideoCodec.H264, "p3"] == 398 * PIXELS
    assert turing.encode_rates[VideoCodec.H264, "p3"] == 600 * PIXELS
    assert volta_encoder.decode_rates == turing.decode_rates


def test_hopper_decodes_like_turing_and_has_no_encoder() -> None:
    capacity = of("NVIDIA H200")
    assert capacity.limits[Dimension.ENCODE] == 0
    assert capacity.limits[Dimension.DECODE] == 7 * ENGINE
    assert capacity.decode_rates[VideoCodec.H264] == 771 * PIXELS


@pytest.mark.parametrize("model", ["NVIDIA L4", "Tesla T4", "NVIDIA GB10", "NVIDIA Unheard Of 9000"])
def test_every_format_and_speed_has_a_rate(model: str) -> None:
    """A format without a figure gets the slowest of its generation."""
    capacity = of(model)
    assert set(capacity.decode_rates) == set(VideoCodec)
    assert set(capacity.encode_rates) == {(codec, speed.value) for codec in ENCODED for speed in EncodingSpeed}
    assert min(capacity.decode_rates.values()) == capacity.decode_rates[VideoCodec.MPEG2]
    assert min((*capacity.decode_rates.values(), *capacity.encode_rates.values())) > 0


def test_an_unknown_model_gets_one_engine_of_the_slowest_generation() -> None:
    capacity = of("NVIDIA Unheard Of 9000", clock_mhz=5000)
    assert capacity.limits[Dimension.ENCODE] == ENGINE
    assert capacity.sources[Dimension.ENCODE] is FigureSource.DEFAULT
    assert capacity.encode_rates[VideoCodec.H264, "p3"] == 398 * 2 // 3 * PIXELS


def test_an_unknown_model_of_a_known_architecture_has_that_ones_speed() -> None:
    identity = replace(gpu_identity("NVIDIA GeForce RTX 4090 Laptop GPU"), architecture="Ada")
    capacity = capacity_of(identity, (), None)
    assert capacity.limits[Dimension.ENCODE] == ENGINE
    assert capacity.encode_rates[VideoCodec.H264, "p3"] == 647 * PIXELS


def test_a_probe_that_contradicts_the_table_wins() -> None:
    identity = gpu_identity("NVIDIA L4")
    broken = capacity_of(identity, nvenc(VideoCodec.H264, works=False), None)
    assert (broken.limits[Dimension.ENCODE], broken.sources[Dimension.ENCODE]) == (0, FigureSource.PROBE)
    surprising = capacity_of(gpu_identity("NVIDIA A30"), nvenc(VideoCodec.H264), None)
    assert (surprising.limits[Dimension.ENCODE], surprising.sources[Dimension.ENCODE]) == (ENGINE, FigureSource.PROBE)


def test_a_card_without_an_encoder_says_so_whatever_its_trials_said() -> None:
    """Of such a card ffmpeg says first of all that the driver is too old, which no driver cures."""
    h100 = capacity_of(gpu_identity("NVIDIA H100 80GB HBM3"), nvenc(VideoCodec.H264, works=False), None)
    assert (h100.limits[Dimension.ENCODE], h100.sources[Dimension.ENCODE]) == (0, FigureSource.TABLE)
    assert h100.explanations[Dimension.ENCODE] == "Table row H100: no encoder engine."


def test_a_probe_that_agrees_leaves_the_tables_engines() -> None:
    identity = gpu_identity("NVIDIA L4")
    capabilities = (*nvenc(VideoCodec.H264), *nvenc(VideoCodec.AV1, works=False), *nvdec(VideoCodec.H264))
    capacity = capacity_of(identity, capabilities, None)
    assert capacity.limits[Dimension.ENCODE] == 2 * ENGINE
    assert capacity.sources[Dimension.DECODE] is FigureSource.TABLE


def test_memory_is_what_the_driver_leaves_and_unlimited_when_unknown() -> None:
    assert of("NVIDIA L4", memory_mib=23034).limits[Dimension.MEMORY] == 23034 - RESERVED_MEMORY_MIB
    assert Dimension.MEMORY not in of("NVIDIA GB10", memory_mib=None).limits
    assert of("NVIDIA L4", memory_mib=100).limits[Dimension.MEMORY] == 0


def test_encoder_sessions_are_limited_only_by_settings() -> None:
    """The driver's cap on GeForce cards differs by version and counts the whole system: it is learnt, not known."""
    assert Dimension.ENCODER_SESSIONS not in of("NVIDIA GeForce RTX 4090").limits
    capped = of("NVIDIA GeForce RTX 4090", CapacityOverride(encoder_sessions=8))
    assert capped.limits[Dimension.ENCODER_SESSIONS] == 8
    assert capped.sources[Dimension.ENCODER_SESSIONS] is FigureSource.SETTINGS


def test_settings_win_over_the_table_and_other_formats_keep_their_proportion() -> None:
    plain = of("NVIDIA L4")
    told = of(
        "NVIDIA L4",
        CapacityOverride(
            decode_pixels_per_second=4_000_000_000,
            encode_pixels_per_second=2_000_000_000,
            scale_pixels_per_second=500_000_000,
            memory_mib=4096,
        ),
    )
    assert told.decode_rates[VideoCodec.H264] == 1_000_000_000
    assert told.encode_rates[VideoCodec.H264, "p3"] == 1_000_000_000
    ratio = plain.encode_rates[VideoCodec.AV1, "p7"] / plain.encode_rates[VideoCodec.H264, "p3"]
    assert told.encode_rates[VideoCodec.AV1, "p7"] == pytest.approx(1_000_000_000 * ratio, rel=1e-6)
    assert told.limits[Dimension.SCALE] == told.scale_rate == 500_000_000
    assert told.limits[Dimension.MEMORY] == 4096
    assert set(told.sources.values()) == {FigureSource.SETTINGS}
    assert plain.scale_rate == GPU_SCALE_RATE


def test_settings_win_over_a_table_without_encoder() -> None:
    told = of("NVIDIA A100-SXM4-80GB", CapacityOverride(encode_pixels_per_second=10_000_000))
    assert told.limits[Dimension.ENCODE] == ENGINE
    assert told.encode_rates[VideoCodec.H264, "p3"] == 10_000_000


def test_a_cpu_device_has_its_cores() -> None:
    capacity = cpu(4).capacity
    assert capacity.limits == {Dimension.CORES: 4 * ENGINE}
    assert capacity.sources == {Dimension.CORES: FigureSource.DEFAULT}


def test_settings_of_a_cpu_device_are_for_all_its_cores() -> None:
    override = CapacityOverride(
        decode_pixels_per_second=800_000_000,
        encode_pixels_per_second=400_000_000,
        scale_pixels_per_second=2_000_000_000,
        memory_mib=2048,
    )
    capacity = cpu(4, override=override).capacity
    assert capacity.decode_rates[VideoCodec.H264] == 200_000_000
    assert capacity.encode_rates[VideoCodec.H264, "p3"] == 100_000_000
    assert capacity.scale_rate == 500_000_000
    assert capacity.limits == {Dimension.CORES: 4 * ENGINE, Dimension.MEMORY: 2048}
    assert set(capacity.sources.values()) == {FigureSource.SETTINGS}


def test_a_cpu_device_without_known_cores_has_one() -> None:
    identity = DeviceIdentity(id=DeviceId("cpu-0"), kind=DeviceKind.CPU, model="CPU")
    assert capacity_of(identity, (), None).limits == {Dimension.CORES: ENGINE}


def test_a_host_has_its_cores() -> None:
    assert capacity_of_host(16) == {Dimension.CORES: 16 * ENGINE}


def weights(**devices: DeviceCapacity) -> dict[str, int]:
    """Gives default weights by short names."""
    found = default_weights({DeviceId(name): capacity for name, capacity in devices.items()})
    return {str(device_id): weight for device_id, weight in found.items()}


def test_weights_follow_from_what_devices_encode() -> None:
    """An L4 has two engines of 647 frames/s, a T4 one of 600."""
    found = weights(l4=of("NVIDIA L4"), t4=of("Tesla T4"), cpu=cpu(2).capacity)
    assert found == {"l4": 100, "t4": 46, "cpu": 4}


def test_weights_follow_from_decoding_where_nothing_encodes() -> None:
    assert weights(h200=of("NVIDIA H200"), a30=of("NVIDIA A30")) == {"h200": 100, "a30": 57}


def test_a_device_that_does_not_encode_among_others_that_do_still_takes_sessions() -> None:
    """A weight of 0 is an operator's decision."""
    assert weights(l4=of("NVIDIA L4"), h200=of("NVIDIA H200")) == {"l4": 100, "h200": 1}


def test_the_only_device_weighs_100_and_none_have_no_weights() -> None:
    assert weights(only=of("NVIDIA A30")) == {"only": 100}
    assert weights() == {}
