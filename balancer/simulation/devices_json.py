"""A device of the contract's JSON, as `gpu-balancer devices --json` prints it, as placement sees it.

64-bit numbers are text there, as the JSON of protocol buffers has them. What a balancer does not tell, such as rates
that are the tables' own, is found as the daemon finds it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, NoReturn

from balancer.domain.capacity import capacity_of
from balancer.domain.device import (
    Capability,
    DeviceCapacity,
    DeviceIdentity,
    DeviceKind,
    DeviceState,
    DeviceView,
    Dimension,
    Direction,
    FigureSource,
    RecordingAbility,
)
from balancer.domain.ids import DeviceId
from balancer.domain.workload import EncodingSpeed, VideoCodec
from balancer.simulation.fleet import RECORDS_ALL
from balancer.simulation.strict_json import named

_KINDS = {"DEVICE_KIND_NVIDIA": DeviceKind.NVIDIA, "DEVICE_KIND_CPU": DeviceKind.CPU}
_DIRECTIONS = {"CODING_DIRECTION_DECODE": Direction.DECODE, "CODING_DIRECTION_ENCODE": Direction.ENCODE}
_SPEEDS = {f"ENCODING_SPEED_{speed.name}": speed for speed in EncodingSpeed}
_CODECS = {f"VIDEO_CODEC_{codec.name}": codec for codec in VideoCodec}
_DIMENSIONS = {f"DIMENSION_{dimension.name}": dimension for dimension in Dimension}
_MOST = 2**63


class DevicesJsonError(Exception):
    """A device that cannot be read. The message says which and what is wrong."""


def view_of_json(place: int, device: object) -> DeviceView:
    """Makes a device of its JSON, READY whatever its state was, and empty.

    Args:
        place: Its place in the list, from 0, for messages.
        device: A `Device` of the contract.

    Raises:
        DevicesJsonError: Something in it cannot be.
    """
    fields = _Fields(f"devices[{place}]", device)
    identity = _identity(fields.inner("identity"))
    capabilities = tuple(_capabilities(fields))
    capacity = capacity_of(identity, capabilities, None)
    limits = dict(_limits(fields))
    if limits:
        capacity = replace(capacity, limits=limits, sources=dict.fromkeys(limits, FigureSource.SETTINGS))
    if identity.kind is DeviceKind.NVIDIA and Dimension.SCALE in limits:
        capacity = replace(capacity, scale_rate=max(1, limits[Dimension.SCALE]))
    return DeviceView(
        identity=identity,
        state=DeviceState.READY,
        state_message="",
        weight=fields.whole("weight", most=10_000),
        capabilities=capabilities,
        capacity=_with_rates(capacity, fields),
        recording=_recording(fields),
    )


def _recording(fields: _Fields) -> RecordingAbility:
    """Reads what it records; of a device of an earlier program that is not told."""
    if not fields.has("recording"):
        return RECORDS_ALL
    told = fields.inner("recording")
    return RecordingAbility(
        available=told.flag("available"),
        fault_message=told.text("faultMessage"),
        display_count=told.optional("displayCount") or 0,
        browser=told.text("browser") or None,
        largest_width=told.optional("largestWidth") or 0,
        largest_height=told.optional("largestHeight") or 0,
    )


def _identity(fields: _Fields) -> DeviceIdentity:
    kind = _KINDS.get(fields.text("kind"))
    device_id = fields.text("id")
    if kind is None or not device_id:
        fields.refuse("has no kind of device, or no id")
    return DeviceIdentity(
        id=DeviceId(device_id),
        kind=kind,
        model=fields.text("model"),
        architecture=fields.text("architecture") or None,
        pci_address=fields.text("pciAddress") or None,
        memory_total_mib=fields.optional("memoryTotalMib"),
        encoder_engines=fields.optional("encoderEngines"),
        decoder_engines=fields.optional("decoderEngines"),
        cores=tuple(range(len(fields.items("cores")))),
        video_clock_mhz=fields.optional("videoClockMhz"),
        table_model=fields.text("tableModel") or None,
    )


def _capabilities(fields: _Fields) -> Iterator[Capability]:
    for one in fields.objects("capabilities"):
        codec, direction = _CODECS.get(one.text("codec")), _DIRECTIONS.get(one.text("direction"))
        if codec is not None and direction is not None:
            yield Capability(
                codec=codec,
                direction=direction,
                bit_depth=one.whole("bitDepth", most=64),
                works=one.flag("works"),
                hardware=one.flag("hardware"),
                implementation=one.text("implementation"),
                ffmpeg=one.text("ffmpeg"),
            )


def _limits(fields: _Fields) -> Iterator[tuple[Dimension, int]]:
    for one in fields.objects("loads"):
        dimension, limit = _DIMENSIONS.get(one.text("dimension")), one.optional("capacity")
        if dimension is not None and limit is not None:
            yield dimension, limit


def _with_rates(capacity: DeviceCapacity, fields: _Fields) -> DeviceCapacity:
    decode_rates, encode_rates = dict(capacity.decode_rates), dict(capacity.encode_rates)
    for one in fields.objects("rates"):
        codec, direction = _CODECS.get(one.text("codec")), _DIRECTIONS.get(one.text("direction"))
        rate, speed = one.whole("pixelsPerSecond", most=_MOST), _SPEEDS.get(one.text("speed"))
        if codec is None or direction is None or not rate:
            continue
        if direction is Direction.DECODE:
            decode_rates[codec] = rate
        elif speed is not None:
            encode_rates[codec, speed.value] = rate
    return replace(capacity, decode_rates=decode_rates, encode_rates=encode_rates)


class _Fields:
    """The fields of one message. What is absent has its default, as in the contract."""

    def __init__(self, where: str, given: object) -> None:
        self._where = where
        if not isinstance(given, dict):
            self.refuse("is no JSON object")
        self._given: Mapping[str, Any] = given

    def refuse(self, told: str) -> NoReturn:
        raise DevicesJsonError(f"{self._where} {told}. Try the output of gpu-balancer devices --json.")

    def has(self, key: str) -> bool:
        return key in self._given

    def inner(self, key: str) -> _Fields:
        return _Fields(f"{self._where}.{key}", self._given.get(key))

    def items(self, key: str) -> list[object]:
        value = self._given.get(key, [])
        if not isinstance(value, list):
            self.refuse(f"has {named(key)} that is no list")
        return value

    def objects(self, key: str) -> list[_Fields]:
        return [_Fields(f"{self._where}.{key}[{place}]", one) for place, one in enumerate(self.items(key))]

    def text(self, key: str) -> str:
        value = self._given.get(key, "")
        if not isinstance(value, str):
            self.refuse(f"has {named(key)} that is no text")
        return value

    def flag(self, key: str) -> bool:
        return self._given.get(key, False) is True

    def optional(self, key: str) -> int | None:
        return self.whole(key, most=_MOST) if key in self._given else None

    def whole(self, key: str, *, most: int) -> int:
        value = self._given.get(key, 0)
        is_digits = isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 20
        number = int(value) if is_digits else value
        if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number <= most:
            self.refuse(f"has {named(key)} that is no whole number from 0 to {most:,}")
        return number
