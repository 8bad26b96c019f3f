"""The agent's device as it is known now: what it is, and what the golden probe said of it.

The probe runs behind the server, so that the agent answers at once; who is to launch before it has ended is told to try
again. One probe runs at a time: whoever asks for another meanwhile waits for its own turn.
"""

from __future__ import annotations

import asyncio
import logging
import os
from datetime import timedelta
from typing import TYPE_CHECKING

from agents.pipelines.capability import PipelineDevice
from gpu_balancer.runtime.failures import Reason, RequestFailure

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from agents.devices.golden_probe import ProbeResult
    from agents.devices.identity import DeviceIdentity
    from agents.pipelines.capability import Capability, FfmpegBuild

_LOG = logging.getLogger(__name__)
_RETRY = timedelta(seconds=1)


class ProbedDevice:
    """What is known of the device."""

    def __init__(
        self,
        identity: DeviceIdentity,
        probe: Callable[[bool], Awaitable[tuple[DeviceIdentity, ProbeResult]]],
        *,
        changed: Callable[[], None],
    ) -> None:
        """Knows nothing but the identity yet.

        Args:
            identity: What it is.
            probe: Looks at the device and runs the golden probe; True tries everything again, whatever is kept.
            changed: Called when more is known.
        """
        self.identity = identity
        self._probe = probe
        self._changed = changed
        self._result: ProbeResult | None = None
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
        """Outcomes of the golden probe."""
        return () if self._result is None else self._result.capabilities

    @property
    def fault_message(self) -> str | None:
        """Why it cannot work at all. None: nothing stands in the way."""
        if self._measured_fault is not None:
            return self._measured_fault
        return None if self._result is None else self._result.fault_message

    async def probe(self, *, refresh: bool) -> None:
        """Runs the golden probe.

        Args:
            refresh: Tries everything again, whatever is kept.

        Raises:
            RequestFailure: When its results cannot be kept.
        """
        async with self._turn:
            try:
                self.identity, self._result = await self._probe(refresh)
            except OSError as error:
                raise RequestFailure(
                    reason=Reason.DISK_FULL,
                    message=f"Cannot probe {self.identity.id}: {error.strerror}: {error.filename}. Try freeing space.",
                ) from error
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

    def pipeline_device(self) -> PipelineDevice:
        """Gives the device as pipelines see it.

        Raises:
            RequestFailure: NO_DEVICE_READY while the probe runs, or when the device cannot work.
        """
        fault = self.fault_message
        if self._result is None or fault is not None:
            why = fault or f"Cannot use {self.identity.id} yet: it is being probed. Try again in a second."
            raise RequestFailure(reason=Reason.NO_DEVICE_READY, message=why, retry_after=None if fault else _RETRY)
        return PipelineDevice(
            kind=self.identity.kind,
            id=self.identity.id,
            core_count=max(len(self.identity.cores) or len(os.sched_getaffinity(0)), 1),
            capabilities=self._result.capabilities,
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
