"""Devices of a simulation: from TOML, from a balancer's JSON, and as one pool."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from traces import L4, T4, fleet

from balancer.domain.capacity import capacity_of
from balancer.domain.device import Dimension, RecordingAbility
from balancer.domain.workload import VideoCodec
from balancer.simulation.devices_file import DevicesFileError, read_fleet
from balancer.simulation.fleet import pooled
from balancer.simulation.report import device_words
from gpu_balancer.v1 import device_pb2, media_pb2, placement_pb2, recording_pb2

EXAMPLE = Path(__file__).resolve().parents[3] / "config/examples/devices.toml"


def test_the_example_can_be_used() -> None:
    found = read_fleet(EXAMPLE)
    assert device_words(found.views) == "The 4 devices (T4, A10, 2 L4)"
    assert list(found.names.values()) == ["T4", "A10", "L4 #1", "L4 #2"]
    assert [view.weight for view in found.views] == [46, 47, 100, 100]


def test_capacities_follow_from_the_model_and_keys_replace_them(tmp_path: Path) -> None:
    path = tmp_path / "devices.toml"
    path.write_text(
        """
        [host]
        cores = 12
        [[devices]]
        model = "NVIDIA L4"
        weight = 70
        encode_pixels_per_second = 500_000_000
        encoder_sessions = 5
        [[devices]]
        name = "spare cores"
        cores = 4
        memory_mib = 2048
        """
    )
    found = read_fleet(path)
    card, cores = found.views
    assert card.weight == 70
    assert card.capacity.limits[Dimension.ENCODER_SESSIONS] == 5
    assert card.capacity.limits[Dimension.DECODE] == 4_000_000
    assert cores.capacity.limits == {Dimension.CORES: 4_000_000, Dimension.MEMORY: 2048}
    assert found.host_capacity == {Dimension.CORES: 12_000_000}
    assert found.names[cores.id] == "spare cores"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "devices: is missing"),
        (
            "[[devices]]\nmodel = 'NVIDIA L5'",
            "line 2: devices[0].model: must be a model of the tables, not 'NVIDIA L5'",
        ),
        ("[[devices]]\nmodel = 'L4'\ncores = 3", "must have either model"),
        ("[[devices]]\nweight = 3", "must have either model"),
        ("[[devices]]\nmodel = 'L4'\nweight = -1", "line 3: devices[0].weight"),
        ("[[devices]]\nmodel = 'L4'\nweight = nan", "devices[0].weight: must be a whole number"),
        ("[[devices]]\nmodel = 'L4'\nweight = 0", "weights of 0"),
        ("[[devices]]\nmodel = 'L4'\ncount = 0", "devices[0].count"),
        ("[[devices]]\nmodel = 'L4'\ncount = 9000\n[[devices]]\nmodel = 'L4'\ncount = 9000", "at most 10,000 devices"),
        ("[[devices]]\nmodel = 'L4'\nencode_pixels_per_second = 1e99", "encode_pixels_per_second"),
        ("[[devices]]\nmodle = 'L4'", "modle"),
        ("[[devices]\n", "line 1"),
        ('{"devices": []}', 'no list of "devices"'),
        ('{"devices": [{}]}', "devices[0].identity is no JSON object"),
        ('{"devices": [{"identity": {"id": "a"}}]}', "no kind of device"),
        ('{"devices":\n [}', "line 2: it is no JSON"),
    ],
)
def test_devices_that_cannot_be_are_refused_with_their_place(tmp_path: Path, text: str, told: str) -> None:
    path = tmp_path / "devices"
    path.write_text(text)
    with pytest.raises(DevicesFileError) as caught:
        read_fleet(path)
    assert str(path) in str(caught.value)
    assert told in str(caught.value)


def test_a_balancers_json_gives_its_capacities_and_rates(tmp_path: Path) -> None:
    from google.protobuf.json_format import MessageToDict

    device = device_pb2.Device(
        name="devices/GPU-7",
        identity=device_pb2.DeviceIdentity(
            id="GPU-7", kind=device_pb2.DEVICE_KIND_NVIDIA, model="NVIDIA L4", table_model="L4", memory_total_mib=23034
        ),
        weight=66,
        state=device_pb2.DEVICE_STATE_CORDONED,
        capabilities=[
            device_pb2.Capability(
                codec=media_pb2.VIDEO_CODEC_H264,
                direction=device_pb2.CODING_DIRECTION_ENCODE,
                bit_depth=8,
                works=True,
                hardware=True,
            )
        ],
        loads=[
            device_pb2.DimensionLoad(dimension=placement_pb2.DIMENSION_ENCODE, capacity=2_000_000, used=17),
            device_pb2.DimensionLoad(dimension=placement_pb2.DIMENSION_SCALE, capacity=3_000_000_000),
            device_pb2.DimensionLoad(dimension=placement_pb2.DIMENSION_ENCODER_SESSIONS, used=3),
        ],
        rates=[
            device_pb2.DeviceRate(
                direction=device_pb2.CODING_DIRECTION_ENCODE,
                codec=media_pb2.VIDEO_CODEC_H264,
                speed=media_pb2.ENCODING_SPEED_FAST,
                pixels_per_second=1_111_111_111,
                source="calibration",
            )
        ],
        recording=recording_pb2.RecordingAbility(
            available=True,
            display_count=4,
            largest_width=1920,
            largest_height=1080,
            sound_timing=recording_pb2.SoundTiming(delay_source="calibration"),
        ),
    )
    path = tmp_path / "devices.json"
    path.write_text(json.dumps({"devices": [MessageToDict(device, always_print_fields_with_no_presence=True)]}))
    (view,) = read_fleet(path).views
    assert (view.id, view.weight, view.state.value) == ("GPU-7", 66, "ready")
    assert view.capacity.limits == {Dimension.ENCODE: 2_000_000, Dimension.SCALE: 3_000_000_000}
    assert view.recording == RecordingAbility(available=True, display_count=4, largest_width=1920, largest_height=1080)
    assert view.capacity.scale_rate == 3_000_000_000
    assert view.capacity.encode_rates[VideoCodec.H264, "p3"] == 1_111_111_111
    table = capacity_of(view.identity, view.capabilities, None)
    assert view.capacity.encode_rates[VideoCodec.HEVC, "p5"] == table.encode_rates[VideoCodec.HEVC, "p5"]


def test_a_device_of_an_earlier_balancer_records_as_its_cores_and_memory_allow(tmp_path: Path) -> None:
    path = tmp_path / "devices.json"
    identity = {"kind": "DEVICE_KIND_CPU", "id": "cpu-0", "cores": [0, 1]}
    path.write_text(json.dumps({"devices": [{"identity": identity, "weight": 100}]}))
    (view,) = read_fleet(path).views
    assert view.recording is not None
    assert view.recording.available
    assert Dimension.DISPLAYS not in view.capacity.limits


@pytest.mark.parametrize("begin", ["[{", "[ {", "\n[\n  {"])
def test_a_list_of_devices_is_known_for_json_however_it_is_laid_out(tmp_path: Path, begin: str) -> None:
    path = tmp_path / "devices.json"
    path.write_text(f'{begin}"identity": {{"kind": "DEVICE_KIND_CPU", "id": "cpu-0", "cores": [0]}}, "weight": 100}}]')
    assert [view.id for view in read_fleet(path).views] == ["cpu-0"]


def test_a_balancers_json_with_a_key_twice_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "devices.json"
    path.write_text('{"devices": [{"weight": 1, "weight": 2}]}')
    with pytest.raises(DevicesFileError, match='has the key "weight" more than once'):
        read_fleet(path)


def test_one_pooled_device_has_the_pixels_of_all_engines_together() -> None:
    mixed = fleet(T4, L4)
    (pool,) = pooled(mixed).views
    card, large = mixed.views
    one, two = card.capacity.encode_rates[VideoCodec.H264, "p3"], large.capacity.encode_rates[VideoCodec.H264, "p3"]
    assert pool.capacity.encode_rates[VideoCodec.H264, "p3"] == one + 2 * two
    # Only the L4 encodes AV1.
    av1 = large.capacity.encode_rates[VideoCodec.AV1, "p3"]
    assert pool.capacity.encode_rates[VideoCodec.AV1, "p3"] == 2 * av1
    assert pool.capacity.limits[Dimension.SCALE] == 4_000_000_000
