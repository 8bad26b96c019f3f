"""What sessions take of devices and hosts."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import pytest
from domain.devices import (
    ENCODED,
    capability,
    cpu,
    decode,
    encode,
    gpu,
    ladder,
    nvdec,
    nvenc,
    software_encoders,
    workload,
)
from hypothesis import given
from hypothesis import strategies as st

from balancer.domain.capacity import CapacityOverride
from balancer.domain.decision import Refusal
from balancer.domain.demand import (
    CPU_DECODE_FRAMES,
    CPU_ENCODE_FRAMES,
    CPU_SESSION_MIB,
    GPU_DECODE_FRAMES,
    GPU_ENCODE_FRAMES,
    GPU_SESSION_MIB,
    Demand,
    demand_on,
    nominal_cost,
)
from balancer.domain.device import Capability, DeviceView, Dimension, Direction
from balancer.domain.workload import CostFactors, DecodeTask, EncodingSpeed, VideoCodec, Workload

FACTORS = CostFactors()


def demand(asked: Workload, view: DeviceView, factors: CostFactors = FACTORS) -> Demand:
    """Gives what a session takes of a device that can do it."""
    answer = demand_on(asked, view, factors)
    assert isinstance(answer, Demand), answer
    return answer


def refusal(asked: Workload, view: DeviceView) -> Refusal:
    """Gives why a device cannot do it."""
    answer = demand_on(asked, view, FACTORS)
    assert isinstance(answer, Refusal), answer
    assert answer.permanent
    return answer


def test_cost_is_factors_times_pixels() -> None:
    asked = ladder()
    decoded, scaled = 1280 * 720 * 30, (854 * 480 + 640 * 360) * 30
    encoded = decoded + scaled
    assert demand(asked, gpu()).cost_pixels_per_second == decoded + scaled + 5 * encoded
    factors = CostFactors(decode=2, scale=0, encode=7)
    assert demand(asked, gpu(), factors).cost_pixels_per_second == 2 * decoded + 7 * encoded
    assert nominal_cost(asked, factors) == 2 * decoded + 7 * encoded


def test_frame_rate_counts() -> None:
    at_30 = demand(workload(encode(720)), gpu())
    at_60 = demand(workload(encode(720, frames_per_second=60)), gpu())
    assert at_60.cost_pixels_per_second == 2 * at_30.cost_pixels_per_second


@pytest.mark.parametrize("view", [gpu(), cpu()])
def test_passing_through_is_free(view: DeviceView) -> None:
    found = demand(workload(), view)
    assert found.cost_pixels_per_second == 0
    assert found.device_amounts == {}
    assert found.host_amounts == {}


def test_engine_time_is_pixels_over_the_rate_of_one_engine_rounded_up() -> None:
    view = gpu(override=CapacityOverride(encode_pixels_per_second=200_000_000, decode_pixels_per_second=400_000_000))
    found = demand(workload(encode(720), input_task=decode(720)), view)
    pixels = 1280 * 720 * 30
    assert found.device_amounts[Dimension.ENCODE] == -(-pixels * 1_000_000 // 100_000_000)
    assert found.device_amounts[Dimension.DECODE] == -(-pixels * 1_000_000 // 100_000_000)
    assert found.device_amounts[Dimension.ENCODER_SESSIONS] == 1
    assert Dimension.SCALE not in found.device_amounts


def test_a_slower_preset_takes_more_engine_time() -> None:
    times = [
        demand(workload(encode(720, speed=speed)), gpu()).device_amounts[Dimension.ENCODE] for speed in EncodingSpeed
    ]
    assert times == sorted(times)
    assert len(set(times)) == len(times)


def test_memory_is_a_program_and_the_surfaces_of_each_stream() -> None:
    found = demand(workload(encode(1080), input_task=decode(1080)), gpu())
    frame_bytes = 1920 * 1080 * 3 // 2
    surfaces = (GPU_DECODE_FRAMES + GPU_ENCODE_FRAMES) * frame_bytes
    assert found.device_amounts[Dimension.MEMORY] == GPU_SESSION_MIB + -(-surfaces // 2**20)


@pytest.mark.parametrize(
    ("size", "codec", "bit_depth", "seen_mib"),
    [
        ((1280, 720), VideoCodec.H264, 8, 584),
        ((1920, 1080), VideoCodec.H264, 8, 644),
        ((3840, 2160), VideoCodec.H264, 8, 788),
        ((3840, 2160), VideoCodec.HEVC, 10, 1226),
        ((7680, 4320), VideoCodec.HEVC, 8, 1868),
    ],
)
def test_memory_is_about_what_an_h100_was_seen_to_take(
    size: tuple[int, int], codec: VideoCodec, bit_depth: int, seen_mib: int
) -> None:
    """To decode there and to scale to three sizes, which cores encode."""
    decoders = tuple(capability(codec, Direction.DECODE, hardware=True, bit_depth=bit_depth) for codec in VideoCodec)
    view = gpu("NVIDIA H100 80GB HBM3", capabilities=(*decoders, *software_encoders(*ENCODED)))
    task = decode(size=size, codec=codec, bit_depth=bit_depth)
    found = demand(workload(encode(720), encode(480), input_task=task, allow_software_encode=True), view)
    assert 0.99 < found.device_amounts[Dimension.MEMORY] / seen_mib < 1.17


def test_surfaces_of_ten_bits_are_twice_as_large() -> None:
    view = gpu(capabilities=(capability(VideoCodec.HEVC, Direction.ENCODE, hardware=True, bit_depth=10),))
    found = demand(workload(encode(1080, codec=VideoCodec.HEVC, bit_depth=10)), view)
    surfaces = GPU_ENCODE_FRAMES * 1920 * 1080 * 3
    assert found.device_amounts[Dimension.MEMORY] == GPU_SESSION_MIB + -(-surfaces // 2**20)


def test_what_the_decoder_was_not_seen_to_decode_is_decoded_by_the_hosts_cores() -> None:
    asked = workload(encode(720), input_task=decode(720, codec=VideoCodec.OTHER))
    found = demand(asked, gpu())
    assert Dimension.DECODE not in found.device_amounts
    assert found.host_amounts[Dimension.CORES] == 460_800
    assert found.cost_pixels_per_second == 5 * asked.encode_pixels_per_second


@pytest.mark.parametrize(
    "task",
    [
        decode(chroma="4:2:2"),
        decode(chroma="4:4:4"),
        decode(bit_depth=10),
        decode(codec=VideoCodec.AV1),
        decode(size=(4098, 2304)),
        decode(size=(32, 16)),
        decode(rotated=True),
        decode(size=(853, 480)),
        decode(size=(854, 479)),
    ],
)
def test_pictures_beyond_the_decoder_are_decoded_by_the_hosts_cores(task: DecodeTask) -> None:
    found = demand(replace(ladder(), decode=task), gpu())
    assert Dimension.DECODE not in found.device_amounts
    assert Dimension.CORES in found.host_amounts


def test_unknown_subsampling_is_taken_for_the_usual_one() -> None:
    found = demand(workload(encode(), input_task=decode(chroma=None)), gpu())
    assert Dimension.DECODE in found.device_amounts


def test_a_gpu_without_fitting_encoder_is_refused_unless_software_is_allowed() -> None:
    view = gpu("NVIDIA H200", capabilities=(*nvdec(VideoCodec.H264), *software_encoders(*ENCODED)))
    refused = refusal(ladder(), view)
    assert refused.rule == "CAPABILITY"
    assert "8-bit h264" in refused.message
    assert "allow_software_encode" in refused.message, "its host could"
    found = demand(ladder(allow_software_encode=True), view)
    assert set(found.device_amounts) == {Dimension.DECODE, Dimension.SCALE, Dimension.MEMORY}
    assert found.host_amounts[Dimension.CORES] > 0
    decoded, scaled = ladder().decode_pixels_per_second, ladder().scale_pixels_per_second
    assert found.cost_pixels_per_second == decoded + scaled


def test_only_the_renditions_that_the_gpu_cannot_do_go_to_the_cores() -> None:
    view = gpu("Tesla T4", capabilities=(*nvenc(VideoCodec.H264), *software_encoders(VideoCodec.AV1)))
    found = demand(workload(encode(720), encode(480, codec=VideoCodec.AV1), allow_software_encode=True), view)
    assert found.device_amounts[Dimension.ENCODER_SESSIONS] == 1
    assert found.host_amounts[Dimension.CORES] == -(-854 * 480 * 30 // 33)
    assert found.cost_pixels_per_second == 5 * 1280 * 720 * 30


def test_allowing_software_does_not_conjure_up_an_encoder() -> None:
    view = gpu("Tesla T4", capabilities=nvenc(VideoCodec.H264))
    assert refusal(workload(encode(codec=VideoCodec.AV1), allow_software_encode=True), view).rule == "CAPABILITY"
    assert "allow_software_encode" not in refusal(workload(encode(codec=VideoCodec.AV1)), view).message


def test_a_session_that_leaves_the_gpu_idle_is_wholly_the_hosts() -> None:
    view = gpu(capabilities=software_encoders(VideoCodec.H264))
    asked = workload(encode(480), input_task=decode(720, codec=VideoCodec.OTHER), allow_software_encode=True)
    found = demand(asked, view)
    assert found.device_amounts == {}
    assert found.cost_pixels_per_second == 0
    pixels = asked.scale_pixels_per_second
    assert found.host_amounts[Dimension.CORES] == 460_800 + -(-pixels // 49) + -(-pixels // 300)


@pytest.mark.parametrize(
    ("codec", "size", "told"),
    [
        (VideoCodec.H264, (4098, 2160), "4096x4096"),
        (VideoCodec.H264, (2160, 4098), "4096x4096"),
        (VideoCodec.HEVC, (8194, 4320), "8192x8192"),
        (VideoCodec.AV1, (8194, 4320), "8192x8192"),
        (VideoCodec.H264, (128, 96), "146x50"),
        (VideoCodec.AV1, (160, 120), "192x128"),
    ],
)
def test_nvenc_is_not_asked_for_sizes_it_does_not_take(codec: VideoCodec, size: tuple[int, int], told: str) -> None:
    refused = refusal(workload(encode(codec=codec, size=size)), gpu())
    assert refused.rule == "RESOLUTION"
    assert told in refused.message
    assert f"{size[0]}x{size[1]}" in refused.message


@pytest.mark.parametrize(
    ("codec", "size"),
    [(VideoCodec.H264, (4096, 4096)), (VideoCodec.HEVC, (8192, 8192)), (VideoCodec.AV1, (192, 128))],
)
def test_nvenc_is_asked_for_sizes_up_to_its_limits(codec: VideoCodec, size: tuple[int, int]) -> None:
    demand(workload(encode(codec=codec, size=size)), gpu())


@pytest.mark.parametrize("size", [(4098, 2160), (128, 96)])
def test_a_size_beyond_the_hardware_goes_to_the_cores_if_software_is_allowed(size: tuple[int, int]) -> None:
    asked = workload(encode(720), encode(size=size), input_task=decode(720), allow_software_encode=True)
    found = demand(asked, gpu())
    assert found.device_amounts[Dimension.ENCODER_SESSIONS] == 1
    assert found.host_amounts[Dimension.CORES] == -(-size[0] * size[1] * 30 // 49)
    without = gpu(capabilities=(*nvenc(VideoCodec.H264), *nvdec(VideoCodec.H264)))
    assert refusal(asked, without).rule == "RESOLUTION"


@pytest.mark.parametrize("size", [(16386, 16), (8192, 4354)])
def test_software_encoders_have_limits_too(size: tuple[int, int]) -> None:
    assert refusal(workload(encode(size=size)), cpu()).rule == "RESOLUTION"
    view = gpu(capabilities=software_encoders(*ENCODED))
    assert refusal(workload(encode(size=size), allow_software_encode=True), view).rule == "RESOLUTION"


def by(ffmpeg: str, *capabilities: Capability) -> tuple[Capability, ...]:
    """Makes trials the outcomes of one ffmpeg."""
    return tuple(replace(one, ffmpeg=ffmpeg) for one in capabilities)


def test_a_session_runs_in_one_ffmpeg_so_its_encoders_must_be_in_one() -> None:
    apart = (*by("/new", *nvenc(VideoCodec.AV1)), *by("/old", *nvenc(VideoCodec.H264)))
    both = workload(encode(), encode(codec=VideoCodec.AV1))
    refused = refusal(both, gpu(capabilities=apart))
    assert refused.rule == "CAPABILITY"
    assert "None of its ffmpegs" in refused.message
    demand(workload(encode()), gpu(capabilities=apart))
    demand(both, gpu(capabilities=(*apart, *by("/both", *nvenc(VideoCodec.H264, VideoCodec.AV1)))))
    software_apart = (
        *by("/new", *software_encoders(VideoCodec.AV1)),
        *by("/old", *software_encoders(VideoCodec.H264)),
    )
    assert "None of its ffmpegs" in refusal(both, cpu(capabilities=software_apart)).message


def test_hardware_in_a_less_preferred_ffmpeg_comes_before_software_in_the_preferred_one() -> None:
    capabilities = (*by("/new", *software_encoders(VideoCodec.H264)), *by("/old", *nvenc(VideoCodec.H264)))
    found = demand(workload(encode(), allow_software_encode=True), gpu(capabilities=capabilities))
    assert found.host_amounts == {}
    assert found.device_amounts[Dimension.ENCODER_SESSIONS] == 1


def test_a_decoder_in_another_ffmpeg_is_no_use() -> None:
    capabilities = (*by("/new", *nvdec(VideoCodec.H264)), *by("/old", *nvenc(VideoCodec.H264)))
    found = demand(workload(encode(), input_task=decode()), gpu(capabilities=capabilities))
    assert Dimension.DECODE not in found.device_amounts
    assert Dimension.CORES in found.host_amounts


def test_the_ffmpeg_is_taken_that_leaves_least_to_the_cores() -> None:
    """The preferred one encodes there but does not decode there; the other does both."""
    capabilities = (
        *by("/new", *nvenc(VideoCodec.H264), *software_encoders(VideoCodec.AV1)),
        *by("/old", *nvenc(VideoCodec.H264), *nvdec(VideoCodec.H264)),
    )
    view = gpu(capabilities=capabilities, ffmpeg_paths=("/new", "/old"))
    found = demand(workload(encode(), input_task=decode()), view)
    assert Dimension.DECODE in found.device_amounts
    assert found.host_amounts == {}
    mixed = workload(encode(), encode(codec=VideoCodec.AV1), input_task=decode(), allow_software_encode=True)
    assert Dimension.DECODE not in demand(mixed, view).device_amounts, "only the preferred one encodes AV1"


def test_ffmpegs_are_preferred_in_the_devices_order_not_in_that_of_its_capabilities() -> None:
    """What only a less preferred one does may well be told first."""
    capabilities = (
        *by("/old", *nvenc(VideoCodec.AV1), *software_encoders(VideoCodec.H264)),
        *by("/new", *nvenc(VideoCodec.H264), *software_encoders(VideoCodec.H264)),
    )
    view = gpu(capabilities=capabilities, ffmpeg_paths=("/new", "/old"))
    assert [build.hardware_encodes for build in view.builds] == [{(VideoCodec.H264, 8)}, {(VideoCodec.AV1, 8)}]


def test_an_ffmpeg_that_cannot_decode_the_input_is_not_taken() -> None:
    decoder = capability(VideoCodec.AV1, Direction.DECODE, hardware=False)
    apart = (*by("/new", decoder), *by("/old", *nvenc(VideoCodec.H264)))
    asked = workload(encode(), input_task=decode(codec=VideoCodec.AV1))
    refused = refusal(asked, gpu(capabilities=apart))
    assert (refused.rule, "was seen to fail" in refused.message) == ("CAPABILITY", True)
    found = demand(asked, gpu(capabilities=(*apart, *by("/new", *nvenc(VideoCodec.H264)))))
    assert Dimension.CORES in found.host_amounts
    software_apart = (*by("/new", decoder), *by("/old", *software_encoders(VideoCodec.H264)))
    assert refusal(asked, cpu(capabilities=software_apart)).rule == "CAPABILITY"


@pytest.mark.parametrize("view", [gpu(capabilities=()), cpu(capabilities=())])
def test_a_device_without_capabilities_passes_through_and_encodes_nothing(view: DeviceView) -> None:
    assert demand(workload(), view).device_amounts == {}
    assert refusal(workload(encode()), view).rule == "CAPABILITY"


def test_on_a_cpu_device_everything_is_core_time_of_device_and_host() -> None:
    asked = ladder()
    found = demand(asked, cpu())
    encoded = sum(-(-task.pixels_per_second // 49) for task in asked.encodes)
    cores = encoded + -(-asked.decode_pixels_per_second // 150) + -(-asked.scale_pixels_per_second // 300)
    assert found.device_amounts[Dimension.CORES] == cores
    assert found.host_amounts == {Dimension.CORES: cores}
    assert found.cost_pixels_per_second == nominal_cost(asked, FACTORS)
    assert found.largest_amounts == {}


def test_memory_on_a_cpu_device_is_a_program_and_the_frames_it_holds() -> None:
    found = demand(workload(encode(1080), input_task=decode(1080)), cpu())
    frames = (CPU_DECODE_FRAMES + CPU_ENCODE_FRAMES[VideoCodec.H264]) * 1920 * 1080 * 3 // 2
    assert found.device_amounts[Dimension.MEMORY] == CPU_SESSION_MIB + -(-frames // 2**20)


def test_ten_bits_take_software_encoders_twice_the_time() -> None:
    eight = demand(workload(encode()), cpu()).device_amounts[Dimension.CORES]
    ten = demand(workload(encode(bit_depth=10)), cpu()).device_amounts[Dimension.CORES]
    assert Fraction(ten, eight) == pytest.approx(2, rel=1e-5)


def test_a_cpu_device_encodes_only_what_it_was_seen_to_encode() -> None:
    view = cpu(capabilities=software_encoders(VideoCodec.H264))
    refused = refusal(workload(encode(codec=VideoCodec.AV1)), view)
    assert refused.rule == "CAPABILITY"
    assert "8-bit av1" in refused.message
    assert refusal(workload(encode(codec=VideoCodec.VP9)), view).rule == "CAPABILITY"


def test_a_cpu_device_decodes_whatever_was_not_seen_to_fail() -> None:
    failed = capability(VideoCodec.AV1, Direction.DECODE, hardware=False, works=False)
    view = cpu(capabilities=(*software_encoders(VideoCodec.H264), failed))
    demand(workload(encode(), input_task=decode(codec=VideoCodec.OTHER)), view)
    refused = refusal(workload(encode(), input_task=decode(codec=VideoCodec.AV1)), view)
    assert refused.rule == "CAPABILITY"
    assert "fail" in refused.message


def test_a_decoder_that_failed_in_one_ffmpeg_and_worked_in_another_works() -> None:
    failed = capability(VideoCodec.AV1, Direction.DECODE, hardware=False, works=False)
    worked = capability(VideoCodec.AV1, Direction.DECODE, hardware=False)
    view = cpu(capabilities=(*software_encoders(VideoCodec.H264), failed, worked))
    demand(workload(encode(), input_task=decode(codec=VideoCodec.AV1)), view)


@given(
    st.lists(st.sampled_from([360, 480, 720, 1080]), max_size=5),
    st.sampled_from(list(VideoCodec)),
    st.sampled_from([gpu(), gpu("Tesla T4"), cpu()]),
    st.integers(0, 9),
)
def test_amounts_are_positive_and_rise_with_every_rendition(
    heights: list[int], codec: VideoCodec, view: DeviceView, factor: int
) -> None:
    tasks = tuple(encode(height) for height in heights)
    factors = CostFactors(encode=factor)
    less = demand(workload(*tasks, input_task=decode(codec=codec)), view, factors)
    more = demand(workload(*tasks, encode(360), input_task=decode(codec=codec)), view, factors)
    for found in (less, more):
        amounts = (*found.device_amounts.values(), *found.host_amounts.values())
        assert all(type(amount) is int and amount > 0 for amount in amounts)
    for dimension, amount in less.device_amounts.items():
        assert more.device_amounts[dimension] >= amount
    assert more.cost_pixels_per_second >= less.cost_pixels_per_second + factor * 640 * 360 * 30
