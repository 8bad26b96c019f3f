"""Devices to place on: CPU devices of any size with the real capacity rules."""

from __future__ import annotations

from balancer.domain.capacity import capacity_of, with_displays
from balancer.domain.device import Capability, DeviceIdentity, DeviceKind, DeviceState, DeviceView, Direction
from balancer.domain.ids import DeviceId
from balancer.domain.workload import VideoCodec
from fakes.agent_client import RECORDS


def device_view(
    name: str = "cpu-0",
    *,
    core_count: int = 1000,
    weight: int = 100,
    state: DeviceState = DeviceState.READY,
    codecs: tuple[VideoCodec, ...] = (VideoCodec.H264,),
) -> DeviceView:
    """Makes a CPU device that decodes and encodes some codecs; by default it is hardly ever full."""
    identity = DeviceIdentity(
        id=DeviceId(name), kind=DeviceKind.CPU, model="a test", cores=tuple(range(core_count)), memory_total_mib=2**20
    )
    capabilities = tuple(
        Capability(codec=codec, direction=direction, bit_depth=8, works=True, hardware=False, implementation=codec)
        for codec in codecs
        for direction in Direction
    )
    return DeviceView(
        identity=identity,
        state=state,
        state_message="",
        weight=weight,
        capabilities=capabilities,
        capacity=with_displays(capacity_of(identity, capabilities, None), RECORDS),
        recording=RECORDS,
    )
