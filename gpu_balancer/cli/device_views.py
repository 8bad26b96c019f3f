"""How devices look."""

from __future__ import annotations

from datetime import UTC
from typing import TYPE_CHECKING

from gpu_balancer.cli.screen import Column
from gpu_balancer.cli.sound_views import sound_lines
from gpu_balancer.cli.words import (
    UNKNOWN,
    clean,
    count,
    device_state,
    device_word,
    dimension,
    encoding_speed,
    video_codec,
)
from gpu_balancer.client.names import short_name
from gpu_balancer.v1 import device_pb2, placement_pb2

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from gpu_balancer.v1 import recording_pb2
    from gpu_balancer.v1.device_pb2 import Device

COLUMNS = (
    Column(title="DEVICE"),
    Column(title="MODEL", shrinks=True),
    Column(title="STATE", states=True),
    Column(title="WEIGHT", right=True),
    Column(title="FROM", optional=True),
    Column(title="SESS", right=True),
    Column(title="LOAD", right=True),
    Column(title="BUSY"),
    Column(title="ENCODES", optional=True),
    Column(title="DECODES", optional=True, shrinks=True),
)
"""Columns of the table of devices."""

_MILLIONTHS = (placement_pb2.DIMENSION_DECODE, placement_pb2.DIMENSION_ENCODE, placement_pb2.DIMENSION_CORES)
_LARGE = (placement_pb2.DIMENSION_SCALE, placement_pb2.DIMENSION_UPLOAD)


def device_row(device: Device) -> tuple[str, ...]:
    """Gives a device's row of the table."""
    return (
        device_word(device.name),
        model_words(device),
        device_state(device.state),
        str(device.weight),
        device.weight_source or UNKNOWN,
        str(device.session_count),
        count(device.weighted_load) if device.HasField("weighted_load") else UNKNOWN,
        busy_words(device.measurements) or UNKNOWN,
        codec_words(device, device_pb2.CODING_DIRECTION_ENCODE),
        codec_words(device, device_pb2.CODING_DIRECTION_DECODE),
    )


def notes(devices: Sequence[Device]) -> Iterator[str]:
    """Tells why devices do not take sessions, or should be looked at; what holds of several is said once."""
    told: dict[tuple[str, str], list[str]] = {}
    for device in devices:
        if device.state_message:
            said = (device_state(device.state), clean(device.state_message))
        elif device.health.state == device_pb2.HEALTH_STATE_DEGRADED:
            said = ("to be looked at", clean(device.health.message))
        else:
            continue
        told.setdefault(said, []).append(device_word(device.name))
    for (what, why), names in told.items():
        yield f"{', '.join(names)} {'is' if len(names) == 1 else 'are'} {what}: {why}"


def model_words(device: Device) -> str:
    """Names a device's model without what every model of its maker begins with."""
    model = clean(device.identity.model).removeprefix("NVIDIA ").strip()
    return model or UNKNOWN


def busy_words(measured: device_pb2.DeviceMeasurements) -> str:
    """Tells the busy shares that are known."""
    shares = []
    if measured.HasField("encoder_utilization_percent"):
        shares.append(f"enc {measured.encoder_utilization_percent}%")
    if measured.HasField("decoder_utilization_percent"):
        shares.append(f"dec {measured.decoder_utilization_percent}%")
    if not shares and measured.HasField("compute_utilization_percent"):
        shares.append(f"{measured.compute_utilization_percent}%")
    return " ".join(shares)


def codec_words(device: Device, direction: int) -> str:
    """Names the codecs that were seen to work, with 10 where 10 bits do.

    Of a GPU those of its own engines; a codec that only the cores of its host do has a *.
    """
    depths: dict[str, dict[bool, set[int]]] = {}
    for one in device.capabilities:
        if one.direction == direction and one.works:
            own = one.hardware or device.identity.kind != device_pb2.DEVICE_KIND_NVIDIA
            depths.setdefault(video_codec(one.codec), {}).setdefault(own, set()).add(one.bit_depth)
    words = [
        f"{codec}{'/10' if 10 in seen.get(True, seen.get(False, ())) else ''}{'' if True in seen else '*'}"
        for codec, seen in depths.items()
    ]
    return " ".join(words) or UNKNOWN


def load_words(load: device_pb2.DimensionLoad) -> str:
    """Tells one dimension's load and capacity with its unit."""
    number = load.dimension
    if number in _MILLIONTHS:
        unit = "cores" if number == placement_pb2.DIMENSION_CORES else "engines"
        used, has = f"{load.used / 1e6:.2f}", f"{load.capacity / 1e6:.2f} {unit}"
    elif number == placement_pb2.DIMENSION_SCALE:
        used, has = count(load.used), f"{count(load.capacity)} px/s"
    elif number == placement_pb2.DIMENSION_UPLOAD:
        used, has = count(load.used), f"{count(load.capacity)}bit/s"
    elif number == placement_pb2.DIMENSION_MEMORY:
        used, has = str(load.used), f"{load.capacity} MiB"
    else:
        used, has = str(load.used), str(load.capacity)
    limit = f"of {has}" if load.HasField("capacity") else "without a limit"
    told = f"{dimension(number)}: {used} {limit}" + (f" ({load.source})" if load.source else "")
    if load.foreign:
        told += f", {_amount(number, load.foreign)} more taken by others"
    if load.yielding:
        told += f", {_amount(number, load.yielding)} of it gives way to live work"
    return told


def _amount(number: int, amount: int) -> str:
    if number in _MILLIONTHS:
        return f"{amount / 1e6:.2f}"
    return count(amount) if number in _LARGE else str(amount)


def rate_lines(device: Device) -> Iterator[str]:
    """Tells how fast one engine or core is, a line for each format and direction."""
    lines: dict[tuple[str, str], list[str]] = {}
    for rate in device.rates:
        encodes = rate.direction == device_pb2.CODING_DIRECTION_ENCODE
        what = f"{'encode' if encodes else 'decode'} {video_codec(rate.codec)}"
        speed = f"{encoding_speed(rate.speed)} " if encodes else ""
        lines.setdefault((what, rate.source), []).append(f"{speed}{count(rate.pixels_per_second)}")
    part = "core" if device.identity.kind == device_pb2.DEVICE_KIND_CPU else "engine"
    for (what, source), speeds in lines.items():
        yield f"{what}: {', '.join(speeds)} px/s per {part}" + (f" ({source})" if source else "")


def calibration_lines(calibration: device_pb2.DeviceCalibration) -> Iterator[str]:
    """Tells what a calibration found, the whole device's figures."""
    when = calibration.calibration_time.ToDatetime(tzinfo=UTC)
    driver = f", driver {calibration.driver_version}" if calibration.driver_version else ""
    yield f"{when:%Y-%m-%d %H:%M} UTC with ffmpeg {clean(calibration.ffmpeg.version)}{driver}"
    for figure in calibration.figures:
        words = [dimension(figure.dimension)]
        words += [video_codec(figure.codec)] if figure.codec else []
        words += [encoding_speed(figure.speed)] if figure.speed else []
        told = []
        if figure.pixels_per_second:
            shape = f"{figure.stream_width}x{figure.stream_height}"
            told.append(f"{count(figure.pixels_per_second)} px/s, {figure.streams} side by side of {shape}")
        told += [clean(figure.problem)] if figure.problem else []
        yield f"{' '.join(words)}: {'; '.join(told)}"


def health_words(health: device_pb2.DeviceHealth) -> str:
    """Tells how well a device is, since when and why; a reason's name is what docs and metrics call it."""
    words = device_pb2.HealthState.Name(health.state).removeprefix("HEALTH_STATE_")
    if health.reason:
        words += f" {clean(health.reason)}"
    if health.HasField("since_time"):
        words += f" since {health.since_time.ToDatetime(tzinfo=UTC):%Y-%m-%d %H:%M:%S} UTC"
    if health.faulty_engines:
        engines = [
            "encoders" if one == device_pb2.CODING_DIRECTION_ENCODE else "decoders" for one in health.faulty_engines
        ]
        words += f", {' and '.join(engines)} out of use"
    return f"{words}: {clean(health.message)}" if health.message else words


def device_facts(device: Device) -> Iterator[tuple[str, str]]:
    """Gives everything about a device, name by name; what is unknown has no value."""
    identity, measured = device.identity, device.measurements
    yield "device", short_name(device.name)
    yield (
        "model",
        " ".join(filter(None, (clean(identity.model), f"({identity.architecture})" if identity.architecture else ""))),
    )
    yield "state", " ".join(filter(None, (device_state(device.state), clean(device.state_message))))
    yield "health", health_words(device.health) if device.HasField("health") else ""
    yield "weight", f"{device.weight} (from {device.weight_source or 'nowhere'})"
    yield "PCI address", identity.pci_address
    yield "index", str(identity.index) if identity.HasField("index") else ""
    yield "driver", identity.driver_version
    yield "cores", _core_words(identity.cores)
    yield "memory", _memory_words(device)
    yield "engines", _engine_words(identity)
    yield "table row", identity.table_model
    yield "agent", clean(device.agent_version)
    yield "recording", "\n".join(_recording_lines(device.recording)) if device.HasField("recording") else ""
    yield "sessions", str(device.session_count)
    yield "load", f"{count(device.weighted_load)} px/s, weighted" if device.HasField("weighted_load") else ""
    yield "booked", "\n".join(load_words(load) for load in device.loads)
    yield (
        "capacity",
        "\n".join(
            f"{dimension(load.dimension)}: {clean(load.explanation)}" for load in device.loads if load.explanation
        ),
    )
    yield "speeds", "\n".join(rate_lines(device))
    yield "calibrated", "\n".join(calibration_lines(device.calibration)) if device.HasField("calibration") else ""
    yield "busy", busy_words(measured)
    yield "encoder sessions", str(measured.encoder_sessions) if measured.HasField("encoder_sessions") else ""
    yield "temperature", f"{measured.temperature_celsius} °C" if measured.HasField("temperature_celsius") else ""
    yield "ffmpeg", "\n".join(f"{build.version}  {build.path} ({build.candidate})" for build in device.ffmpeg_builds)


CAPABILITY_COLUMNS = (
    Column(title="CODEC"),
    Column(title="DOES"),
    Column(title="BITS", right=True),
    Column(title="WORKS"),
    Column(title="BY"),
    Column(title="WITH"),
    Column(title="FFMPEG", optional=True),
    Column(title="WHY NOT", shrinks=True),
)
"""Columns of the table of what was tried on a device."""


def capability_rows(device: Device) -> list[tuple[str, ...]]:
    """Gives a row for each thing that was tried, with the versions of all builds in which it works."""
    versions = {build.path: build.version for build in device.ffmpeg_builds}
    builds: dict[tuple[str, ...], list[str]] = {}
    for one in device.capabilities:
        row = (
            video_codec(one.codec),
            "encode" if one.direction == device_pb2.CODING_DIRECTION_ENCODE else "decode",
            str(one.bit_depth),
            "yes" if one.works else "no",
            "device" if one.hardware else "host",
            one.implementation,
            "" if one.works else " ".join(clean(one.message).split()),
        )
        builds.setdefault(row, []).append(versions.get(one.ffmpeg, one.ffmpeg) if one.works else "")
    return [(*row[:-1], " ".join(with_build), row[-1]) for row, with_build in builds.items()]


def _recording_lines(ability: recording_pb2.RecordingAbility) -> Iterator[str]:
    """Tells what a device records, or why it records nothing."""
    if not ability.available:
        yield f"no: {clean(ability.fault_message) or 'no reason was given'}"
        return
    largest = f" of {ability.largest_width}x{ability.largest_height} at most" if ability.largest_width else ""
    yield f"{ability.display_count} displays{largest}, {ability.ready_display_count} ready now"
    yield f"pages with {clean(ability.browser)}" if ability.browser else "no pages: no browser was found"
    if ability.applications:
        yield f"applications: {', '.join(clean(name) for name in ability.applications)}"
    if not ability.HasField("sound_timing"):
        yield "no sound: no sound server was found"
        return
    first, *more = sound_lines(ability.sound_timing, of_pages=bool(ability.browser))
    yield f"sound {first}"
    yield from more


def _core_words(cores: Sequence[int]) -> str:
    """Writes core numbers as ranges, "0-3, 8" for instance."""
    ranges: list[list[int]] = []
    for core in sorted(cores):
        if ranges and core == ranges[-1][1] + 1:
            ranges[-1][1] = core
        else:
            ranges.append([core, core])
    return ", ".join(str(first) if first == last else f"{first}-{last}" for first, last in ranges)


def _memory_words(device: Device) -> str:
    has = device.identity.memory_total_mib if device.identity.HasField("memory_total_mib") else None
    used = device.measurements.memory_used_mib if device.measurements.HasField("memory_used_mib") else None
    if has is None:
        return "" if used is None else f"{used} MiB used"
    return f"{has} MiB" if used is None else f"{used} of {has} MiB used"


def _engine_words(identity: device_pb2.DeviceIdentity) -> str:
    parts = []
    if identity.HasField("encoder_engines"):
        parts.append(f"{identity.encoder_engines} to encode")
    if identity.HasField("decoder_engines"):
        parts.append(f"{identity.decoder_engines} to decode")
    if identity.HasField("video_clock_mhz"):
        parts.append(f"{identity.video_clock_mhz} MHz")
    return ", ".join(parts)
