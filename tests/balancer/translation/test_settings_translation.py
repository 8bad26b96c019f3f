"""Profiles and devices in the contract's words."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from balancer.device_entry import DeviceEntry
from balancer.domain.decision import Reservation
from balancer.domain.device import Capability, DeviceIdentity, DeviceKind, Dimension, Direction, FigureSource
from balancer.domain.ids import DeviceId, SessionId
from balancer.domain.ledger import Ledger
from balancer.domain.workload import VideoCodec
from balancer.ports.agent_client import FfmpegBuild, Measurements
from balancer.servicers.device_translation import device_to_proto
from balancer.servicers.profile_translation import KnownProfiles, rendition_to_proto
from balancer.servicers.rendition_validation import check_renditions
from balancer.servicers.violations import Violations
from balancer.settings.profiles import BUILT_IN_PROFILES, AudioSettings, ProfileSettings, RenditionSettings
from fakes.device_views import device_view
from gpu_balancer.v1 import device_pb2, media_pb2, placement_pb2

GPU = DeviceId("GPU-1")


@pytest.mark.parametrize("name", BUILT_IN_PROFILES)
def test_every_profile_that_ships_can_be_asked_for(name: str) -> None:
    found = Violations()
    check_renditions(found, name, KnownProfiles(lambda: BUILT_IN_PROFILES).now()[name])
    found.refuse()


def test_every_key_of_a_profile_reaches_the_contract() -> None:
    made = rendition_to_proto(
        RenditionSettings(
            id="a",
            codec="av1",
            width=640,
            height=360,
            fit="stretch",
            frame_rate="30000/1001",
            bit_rate_bps=500_000,
            max_bit_rate_bps=600_000,
            keyframe_interval_s=0.5,
            bit_depth=10,
            speed="thorough",
            low_latency=True,
            audio=AudioSettings(codec="opus", bit_rate_bps=64_000, channels=2, sample_rate_hz=24_000),
        )
    )
    expected = media_pb2.Rendition(id="a")
    expected.encode.codec = media_pb2.VIDEO_CODEC_AV1
    expected.encode.width, expected.encode.height = 640, 360
    expected.encode.fit = media_pb2.FIT_STRETCH
    expected.encode.frame_rate.numerator, expected.encode.frame_rate.denominator = 30000, 1001
    expected.encode.bit_rate_bps, expected.encode.max_bit_rate_bps = 500_000, 600_000
    expected.encode.keyframe_interval.nanos = 500_000_000
    expected.encode.bit_depth = 10
    expected.encode.speed = media_pb2.ENCODING_SPEED_THOROUGH
    expected.encode.low_latency = True
    expected.audio.codec = media_pb2.AUDIO_CODEC_OPUS
    expected.audio.bit_rate_bps, expected.audio.channels, expected.audio.sample_rate_hz = 64_000, 2, 24_000
    assert made == expected


def test_a_profile_may_leave_everything_open() -> None:
    made = rendition_to_proto(RenditionSettings(id="a"))
    assert made.WhichOneof("video") == "encode"
    assert made.encode == media_pb2.VideoEncoding()
    assert not made.HasField("audio")
    assert rendition_to_proto(RenditionSettings(id="a", quality=30)).encode.quality == 30
    assert rendition_to_proto(RenditionSettings(id="a", video="passthrough")).WhichOneof("video") == "passthrough"
    assert rendition_to_proto(RenditionSettings(id="a", video="none")).WhichOneof("video") is None


def test_profiles_change_with_the_settings() -> None:
    settings: dict[str, ProfileSettings] = dict(BUILT_IN_PROFILES)
    profiles = KnownProfiles(lambda: settings)
    assert profiles.now() is profiles.now()
    settings = {"mine": ProfileSettings(renditions=(RenditionSettings(id="a"),))}
    assert list(profiles.now()) == ["mine"]


def entry(**fields: object) -> DeviceEntry:
    view = device_view("GPU-1", core_count=4)
    values: dict[str, object] = {
        "identity": DeviceIdentity(id=GPU, kind=DeviceKind.NVIDIA, model="NVIDIA L4"),
        "capacity": view.capacity,
        "weight": 50,
        "weight_source": FigureSource.SETTINGS,
        "revision": 3,
        "probed": True,
        "reachable": True,
    }
    return DeviceEntry(**{**values, **fields})  # type: ignore[arg-type]


def booked() -> Ledger:
    ledger = Ledger()
    ledger.book(
        SessionId("a"),
        Reservation(
            device_id=GPU,
            cost_pixels_per_second=1_000,
            device_amounts={Dimension.ENCODER_SESSIONS: 2},
            host_amounts={},
        ),
    )
    return ledger


def test_what_is_unknown_of_a_device_is_unset() -> None:
    told = device_to_proto(entry(), Ledger(), highest_weight=100)
    assert not told.HasField("measurements")
    for field in ("index", "memory_total_mib", "encoder_engines", "decoder_engines", "video_clock_mhz"):
        assert not told.identity.HasField(field)  # type: ignore[arg-type]


def test_a_measured_zero_is_not_unknown() -> None:
    measurements = Measurements(encoder_utilization_percent=0, measure_time=datetime(2030, 1, 1, tzinfo=UTC))
    told = device_to_proto(entry(measurements=measurements), Ledger(), highest_weight=100).measurements
    assert told.HasField("encoder_utilization_percent")
    assert told.encoder_utilization_percent == 0
    assert not told.HasField("temperature_celsius")
    assert told.measure_time.ToDatetime(UTC) == measurements.measure_time


def test_everything_that_is_known_of_a_device_is_told() -> None:
    identity = DeviceIdentity(
        id=GPU,
        kind=DeviceKind.NVIDIA,
        model="NVIDIA L4",
        architecture="Ada",
        pci_address="00000000:65:00.0",
        index=0,
        driver_version="570.1",
        memory_total_mib=24_000,
        encoder_engines=2,
        decoder_engines=4,
        video_clock_mhz=2_000,
        table_model="L4",
    )
    capability = Capability(
        codec=VideoCodec.AV1,
        direction=Direction.ENCODE,
        bit_depth=10,
        works=True,
        hardware=True,
        implementation="av1_nvenc",
        message="",
        ffmpeg="/usr/bin/ffmpeg",
    )
    build = FfmpegBuild(path="/usr/bin/ffmpeg", version="9.0.2", candidate="bundled")
    told = device_to_proto(
        entry(identity=identity, capabilities=(capability,), ffmpeg_builds=(build,), cordoned=True),
        booked(),
        highest_weight=100,
    )
    assert told.name == "devices/GPU-1"
    assert (told.identity.pci_address, told.identity.index, told.identity.table_model) == ("00000000:65:00.0", 0, "L4")
    assert told.identity.HasField("index")
    assert told.capabilities[0].codec == media_pb2.VIDEO_CODEC_AV1
    assert told.capabilities[0].direction == device_pb2.CODING_DIRECTION_ENCODE
    assert told.ffmpeg_builds[0].version == "9.0.2"
    assert (told.weight, told.weight_source, told.revision) == (50, "settings", 3)
    assert told.state == device_pb2.DEVICE_STATE_CORDONED
    assert told.state_message
    assert (told.weighted_load, told.session_count) == (2_000, 1)


def test_loads_are_told_where_a_device_is_limited_or_loaded() -> None:
    loads = {load.dimension: load for load in device_to_proto(entry(), booked(), highest_weight=100).loads}
    assert placement_pb2.DIMENSION_CORES in loads
    assert loads[placement_pb2.DIMENSION_CORES].used == 0
    assert loads[placement_pb2.DIMENSION_CORES].capacity == 4_000_000
    assert loads[placement_pb2.DIMENSION_CORES].source == "default"
    sessions = loads[placement_pb2.DIMENSION_ENCODER_SESSIONS]
    assert sessions.used == 2
    assert not sessions.HasField("capacity")
    assert placement_pb2.DIMENSION_DECODE not in loads


def test_a_device_without_weight_has_no_weighted_load() -> None:
    assert not device_to_proto(entry(weight=0), booked(), highest_weight=100).HasField("weighted_load")
