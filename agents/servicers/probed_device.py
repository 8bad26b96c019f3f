"""The agent's device as it is known now: what it is, what the golden probe said of it, and how well it is.

The probe runs behind the server, so that the agent answers at once; who is to launch before it has ended is told to try
again. One probe runs at a time: whoever asks for another meanwhile waits for its own turn.
"""

from __future__ import annotations

import asyncio
import logging
import os
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

from agents.health.device_health import Engine
from agents.health.record import Probed
from agents.pipelines.capability import PipelineDevice
from agents.pipelines.job import Direction, VideoCodec
from gpu_balancer.runtime.failures import Reason, RequestFailure

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from agents.devices.golden_probe import ProbeResult
    from agents.devices.health_watch import HealthWatch
    from agents.devices.identity import DeviceIdentity
    from agents.health.device_health import DeviceHealth
    from agents.pipelines.capability import Capability, FfmpegBuild
    from gpu_balancer.runtime.clock import Clock

_LOG = logging.getLogger(__name__)
_RETRY = timedelta(seconds=1)
_Proved = tuple[Direction, VideoCodec, int]
"""A format that an engine codes, with its bit depth."""
_ENGINES = {Direction.DECODE: Engine.DECODE, Direction.ENCODE: Engine.ENCODE}


class ProbedDevice:
    """What is known of the device."""

    def __init__(
        self,
        identity: DeviceIdentity,
        probe: Callable[[bool], Awaitable[tuple[DeviceIdentity, ProbeResult]]],
        *,
        changed: Callable[[], None],
        clock: Clock,
        health_watch: HealthWatch | None = None,
    ) -> None:
        """Knows nothing but the identity yet.

        Args:
            identity: What it is.
            probe: Looks at the device and runs the golden probe; True tries everything again, whatever is kept.
            changed: Called when more is known.
            clock: Tells when a probe began.
            health_watch: Watches the device. None: nobody does, as with cores.
        """
        self.identity = identity
        self._probe = probe
        self._changed = changed
        self._clock = clock
        self.health_watch = health_watch
        """Watches it; run by who makes the device. None: nobody does."""
        self._result: ProbeResult | None = None
        self._proved: frozenset[_Proved] = frozenset()
        """What its engines were seen to do, at any time: only when they do all of it again are they back in use."""
        self._proved_with: object = None
        self._turn = asyncio.Lock()
        self._measured_fault: str | None = None

    @property
    def probed(self) -> bool:
        """Whether the golden probe has ended."""
        return self._result is not None

    @property
    def ffmpeg_builds(self) -> tuple[FfmpegBuild, ...]:
        """The ffmpeg programs found, in order of preference."""
        return () if self._result is None else self._result.ffmpeg_builds

    @property
    def capabilities(self) -> tuple[Capability, ...]:
        """Outcomes of the golden probe; what needs an engine that is out of use does not work now."""
        tried = () if self._result is None else self._result.capabilities
        health = self.health
        if health is None or not health.faulty_engines:
            return tried
        return tuple(
            replace(one, works=False, message=health.engines_message)
            if one.works and one.hardware and _ENGINES[one.direction] in health.faulty_engines
            else one
            for one in tried
        )

    @property
    def health(self) -> DeviceHealth | None:
        """How well the driver says it is. None: nobody watches it."""
        return None if self.health_watch is None else self.health_watch.health

    @property
    def barred(self) -> bool:
        """Whether its health keeps sessions away."""
        return self.health is not None and self.health.state.bars

    @property
    def fault_message(self) -> str | None:
        """Why it cannot work at all. None: nothing stands in the way."""
        if self._measured_fault is not None:
            return self._measured_fault
        return None if self._result is None else self._result.fault_message

    async def probe(self, *, refresh: bool, by_operator: bool = False) -> None:
        """Runs the golden probe.

        Args:
            refresh: Tries everything again, whatever is kept. Only then can it clear what is held against the device.
            by_operator: Whether an operator asked for it: then it can clear a loss, too.

        Raises:
            RequestFailure: When its results cannot be kept; DEVICE_UNHEALTHY when the driver says that the device
                cannot work, unless an operator wants it tried all the same.
        """
        watch = self.health_watch
        if refresh and not by_operator and watch is not None and watch.hopeless:
            # Runs on it would only be in the way of whoever resets it.
            raise RequestFailure(reason=Reason.DEVICE_UNHEALTHY, message=watch.health.message)
        async with self._turn:
            begin_s = self._clock.monotonic_s()
            try:
                self.identity, result = await self._probe(refresh)
            except OSError as error:
                raise RequestFailure(
                    reason=Reason.DISK_FULL,
                    message=f"Cannot probe {self.identity.id}: {error.strerror}: {error.filename}. Try freeing space.",
                ) from error
            self._remember(self.identity, result)
            self._result = result
            if refresh:
                await self._clear(result, begin_s, by_operator=by_operator)
        works = sum(capability.works for capability in self.capabilities)
        _LOG.info("Probed %s: %d of %d work", self.identity.id, works, len(self.capabilities))
        if self.fault_message:
            _LOG.error("%s", self.fault_message)
        self._changed()

    def note_fault(self, message: str | None) -> None:
        """Notes that measuring found the device unable to work, or able again (None)."""
        if message != self._measured_fault:
            self._measured_fault = message
            if message:
                _LOG.error("%s", message)
            self._changed()

    async def _clear(self, result: ProbeResult, begin_s: float, *, by_operator: bool) -> None:
        if self.health_watch is None:
            return
        own = _proved_by(result)
        missing = {_ENGINES[direction] for direction, _, _ in self._proved - own}
        await self.health_watch.note_probe(
            Probed(
                begin_s=begin_s,
                passed=result.fault_message is None and bool(own),
                working_engines=frozenset(_ENGINES[direction] for direction, _, _ in own) - missing,
                by_operator=by_operator,
            )
        )

    def _remember(self, identity: DeviceIdentity, result: ProbeResult) -> None:
        """Adds to what the device's engines were seen to do; another driver or ffmpeg begins anew."""
        program = (identity.driver_version, result.ffmpeg_builds)
        if program != self._proved_with:
            self._proved_with, self._proved = program, frozenset()
        self._proved |= _proved_by(result)

    def pipeline_device(self) -> PipelineDevice:
        """Gives the device as pipelines see it.

        Raises:
            RequestFailure: NO_DEVICE_READY while the probe runs, DEVICE_UNHEALTHY when the device cannot work.
        """
        health = self.health
        fault = health.message if health is not None and health.state.bars else self.fault_message
        if fault is not None:
            raise RequestFailure(reason=Reason.DEVICE_UNHEALTHY, message=fault)
        if self._result is None:
            why = f"Cannot use {self.identity.id} yet: it is being probed. Try again in a second."
            raise RequestFailure(reason=Reason.NO_DEVICE_READY, message=why, retry_after=_RETRY)
        return PipelineDevice(
            kind=self.identity.kind,
            id=self.identity.id,
            core_count=max(len(self.identity.cores) or len(os.sched_getaffinity(0)), 1),
            capabilities=self.capabilities,
            ffmpeg_builds=self._result.ffmpeg_builds,
        )

    def ffmpeg(self) -> str:
        """Gives the ffmpeg that inputs are looked at with: the first build found.

        Raises:
            RequestFailure: NO_DEVICE_READY while it is not known, or when there is none.
        """
        builds = self.ffmpeg_builds
        if not builds:
            why = self.fault_message or f"Cannot use {self.identity.id} yet: it is being probed. Try again in a second."
            raise RequestFailure(reason=Reason.NO_DEVICE_READY, message=why, retry_after=_RETRY)
        return builds[0].path


def _proved_by(result: ProbeResult) -> frozenset[_Proved]:
    return frozenset(
        (one.direction, one.codec, one.bit_depth) for one in result.capabilities if one.works and one.hardware
    )
