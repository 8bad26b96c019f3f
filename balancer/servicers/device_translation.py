"""Devices in the contract's words. What is unknown is unset, never 0."""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING

from balancer.domain.device import DeviceKind, Dimension, Direction
from balancer.domain.drain import DrainMode
from balancer.domain.offers import RATES
from balancer.domain.workload import EncodingSpeed
from balancer.servicers.calibration_translation import calibration_message
from balancer.servicers.contract_words import SPEED_NUMBERS, VIDEO_CODEC_NUMBERS
from balancer.servicers.names import device_name
from gpu_balancer.v1 import device_pb2, placement_pb2, recording_pb2

if TYPE_CHECKING:
    from balancer.device_entry import DeviceEntry
    from balancer.domain.device import Capability, DeviceIdentity, RecordingAbility, SoundTiming
    from balancer.domain.drain import DeviceDrain
    from balancer.domain.health import DeviceHealth
    from balancer.domain.ledger import Ledger
    from balancer.domain.workload import VideoCodec
    from balancer.ports.agent_client import Measurements

_KINDS = {DeviceKind.NVIDIA: device_pb2.DEVICE_KIND_NVIDIA, DeviceKind.CPU: device_pb2.DEVICE_KIND_CPU}
_DIRECTIONS = {
    Direction.DECODE: device_pb2.CODING_DIRECTION_DECODE,
    Direction.ENCODE: device_pb2.CODING_DIRECTION_ENCODE,
}

_DRAIN_MODES = {DrainMode.WAIT: device_pb2.DRAIN_MODE_WAIT, DrainMode.MOVE: device_pb2.DRAIN_MODE_MOVE}


def device_to_proto(
    entry: DeviceEntry, ledger: Ledger, *, highest_weight: int, headroom: Fraction = Fraction(1)
) -> device_pb2.Device:
    """Makes the message of a device.

    Args:
        entry: All that is known of it.
        ledger: What is booked.
        highest_weight: Of all devices; load is weighted by it.
        headroom: Share of what is used over time that may be booked.

    Returns:
        The device; its weighted load is unset when its weight is 0.
    """
    device_id = entry.identity.id
    weight = entry.weight
    device = device_pb2.Device(
        name=device_name(device_id),
        identity=_identity(entry.identity),
        ffmpeg_builds=[
            device_pb2.FfmpegBuild(path=build.path, version=build.version, candidate=build.candidate)
            for build in entry.ffmpeg_builds
        ],
        capabilities=[_capability(capability) for capability in entry.capabilities],
        weight=weight,
        weight_source=entry.weight_source.value,
        state=device_pb2.DeviceState.Value(f"DEVICE_STATE_{entry.state.name}"),
        state_message=entry.state_message,
        loads=_loads(entry, ledger, headroom),
        rates=_rates(entry),
        weighted_load=ledger.cost(device_id) * highest_weight // weight if weight else None,
        session_count=ledger.session_count(device_id),
        revision=entry.revision,
        agent_version=entry.agent_version,
    )
    if entry.quarantine is not None:
        device.quarantine.failure_count = entry.quarantine.failure_count
        device.quarantine.message = entry.quarantine.message
        if entry.quarantine_retry_time is not None:
            device.quarantine.retry_time.FromDatetime(entry.quarantine_retry_time)
    if entry.drain is not None:
        device.drain.CopyFrom(_drain(entry.drain))
    if entry.health is not None:
        device.health.CopyFrom(_health(entry.health))
    if entry.calibration is not None:
        device.calibration.CopyFrom(calibration_message(entry.calibration))
    if entry.recording is not None:
        device.recording.CopyFrom(_recording(entry.recording, entry.ready_display_count))
    if entry.measurements is not None:
        device.measurements.CopyFrom(_measurements(entry.measurements))
    return device


def _drain(drain: DeviceDrain) -> device_pb2.DeviceDrain:
    told = device_pb2.DeviceDrain(
        mode=_DRAIN_MODES[drain.mode], session_count=drain.session_count, stopped_count=drain.stopped_count
    )
    told.start_time.FromDatetime(drain.start_time)
    if drain.deadline_time is not None:
        told.deadline.FromDatetime(drain.deadline_time)
    return told


def _health(health: DeviceHealth) -> device_pb2.DeviceHealth:
    message = device_pb2.DeviceHealth(
        state=device_pb2.HealthState.Value(f"HEALTH_STATE_{health.state.name}"),
        reason=health.reason,
        message=health.message,
        xid=health.xid,
        faulty_engines=[_DIRECTIONS[direction] for direction in health.faulty_engines],
    )
    if health.since_time is not None:
        message.since_time.FromDatetime(health.since_time)
    return message


def _recording(ability: RecordingAbility, ready_display_count: int) -> recording_pb2.RecordingAbility:
    message = recording_pb2.RecordingAbility(
        available=ability.available,
        fault_message=ability.fault_message,
        display_count=ability.display_count,
        ready_display_count=ready_display_count,
        browser=ability.browser or "",
        applications=sorted(ability.applications),
        largest_width=ability.largest_width,
        largest_height=ability.largest_height,
    )
    if ability.sound_timing is not None:
        message.sound_timing.CopyFrom(_sound_timing(ability.sound_timing))
    return message


def _sound_timing(timing: SoundTiming) -> recording_pb2.SoundTiming:
    message = recording_pb2.SoundTiming(delay_source=timing.delay_source)
    message.delay.FromTimedelta(timing.delay)
    if timing.film_offset is not None:
        message.film_offset.FromTimedelta(timing.film_offset)
    if timing.drawing_offset is not None:
        message.drawing_offset.FromTimedelta(timing.drawing_offset)
    if timing.heard_drawing_offset is not None:
        message.heard_drawing_offset.FromTimedelta(timing.heard_drawing_offset)
    if timing.measurement_time is not None:
        message.measurement_time.FromDatetime(timing.measurement_time)
    return message


def _identity(identity: DeviceIdentity) -> device_pb2.DeviceIdentity:
    return device_pb2.DeviceIdentity(
        id=identity.id,
        kind=_KINDS[identity.kind],
        model=identity.model,
        architecture=identity.architecture or "",
        pci_address=identity.pci_address or "",
        index=identity.index,
        driver_version=identity.driver_version or "",
        memory_total_mib=identity.memory_total_mib,
        encoder_engines=identity.encoder_engines,
        decoder_engines=identity.decoder_engines,
        cores=identity.cores,
        video_clock_mhz=identity.video_clock_mhz,
        table_model=identity.table_model or "",
    )


def _capability(capability: Capability) -> device_pb2.Capability:
    return device_pb2.Capability(
        codec=VIDEO_CODEC_NUMBERS[capability.codec],
        direction=_DIRECTIONS[capability.direction],
        bit_depth=capability.bit_depth,
        implementation=capability.implementation,
        works=capability.works,
        hardware=capability.hardware,
        message=capability.message,
        ffmpeg=capability.ffmpeg,
    )


def _loads(entry: DeviceEntry, ledger: Ledger, headroom: Fraction) -> list[device_pb2.DimensionLoad]:
    """Gives every dimension in which the device is limited or loaded, in the contract's order."""
    device_id, limits = entry.identity.id, entry.capacity.limits
    used, foreign, yielding = ledger.used(device_id), ledger.foreign(device_id), ledger.yielding(device_id)
    explanations = entry.capacity.explanations
    loads = []
    for dimension in Dimension:
        if dimension not in limits and not used.get(dimension):
            continue
        source = entry.capacity.sources.get(dimension)
        loads.append(
            device_pb2.DimensionLoad(
                dimension=_dimension(dimension),
                used=used.get(dimension, 0) - foreign.get(dimension, 0),
                capacity=limits.get(dimension),
                source=source.value if source else "",
                foreign=foreign.get(dimension),
                yielding=yielding.get(dimension, 0),
                bookable=_bookable(dimension, limits[dimension], headroom) if dimension in limits else None,
                explanation=explanations.get(dimension, ""),
            )
        )
    return loads


def _bookable(dimension: Dimension, limit: int, headroom: Fraction) -> int:
    return limit * headroom.numerator // headroom.denominator if dimension in RATES else limit


def _rates(entry: DeviceEntry) -> list[device_pb2.DeviceRate]:
    """Gives the rates of whatever the device was not seen to fail at."""
    capacity = entry.capacity
    return [
        *(
            device_pb2.DeviceRate(
                direction=device_pb2.CODING_DIRECTION_DECODE,
                codec=VIDEO_CODEC_NUMBERS[codec],
                pixels_per_second=rate,
                source=capacity.decode_sources[codec].value if codec in capacity.decode_sources else "",
            )
            for codec, rate in capacity.decode_rates.items()
            if _may(entry, codec, Direction.DECODE)
        ),
        *(
            device_pb2.DeviceRate(
                direction=device_pb2.CODING_DIRECTION_ENCODE,
                codec=VIDEO_CODEC_NUMBERS[codec],
                speed=SPEED_NUMBERS[EncodingSpeed(speed)],
                pixels_per_second=rate,
                source=capacity.encode_sources[codec, speed].value if capacity.encode_sources else "",
            )
            for (codec, speed), rate in capacity.encode_rates.items()
            if _may(entry, codec, Direction.ENCODE)
        ),
    ]


def _may(entry: DeviceEntry, codec: VideoCodec, direction: Direction) -> bool:
    own = entry.identity.kind is DeviceKind.NVIDIA
    tried = [
        one.works
        for one in entry.capabilities
        if one.codec is codec and one.direction is direction and one.hardware is own
    ]
    return not tried or any(tried)


def _dimension(dimension: Dimension) -> placement_pb2.Dimension.ValueType:
    return placement_pb2.Dimension.Value(f"DIMENSION_{dimension.name}")


def _measurements(measurements: Measurements) -> device_pb2.DeviceMeasurements:
    message = device_pb2.DeviceMeasurements(
        encoder_utilization_percent=measurements.encoder_utilization_percent,
        decoder_utilization_percent=measurements.decoder_utilization_percent,
        compute_utilization_percent=measurements.compute_utilization_percent,
        memory_used_mib=measurements.memory_used_mib,
        encoder_sessions=measurements.encoder_sessions,
        temperature_celsius=measurements.temperature_celsius,
        foreign_encoder_sessions=measurements.foreign_encoder_sessions,
        foreign_encoder_utilization_percent=measurements.foreign_encoder_utilization_percent,
        foreign_decoder_utilization_percent=measurements.foreign_decoder_utilization_percent,
        foreign_memory_used_mib=measurements.foreign_memory_used_mib,
        foreign_compute_utilization_percent=measurements.foreign_compute_utilization_percent,
    )
    if measurements.measure_time is not None:
        message.measure_time.FromDatetime(measurements.measure_time)
    return message
