"""Calibrations: asked of agents, kept in the store, told to the registry, which places by them.

A device that is being calibrated takes no session, and one that has sessions is not calibrated: whatever runs beside a
measurement spoils it, and the measurement spoils whatever runs. What came of it is durable before anybody is told.
What was measured of sound is kept by the agent, which records by it, and here it is only told to the registry.
"""

from __future__ import annotations

import json
from contextlib import aclosing
from dataclasses import asdict, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, cast

import structlog

from balancer.agent_answers import forwarded, unreachable
from balancer.domain.calibration import Calibration, CalibrationFigure, CalibrationProgress
from balancer.domain.device import DeviceState, Dimension, SoundTiming
from balancer.domain.ids import DeviceId
from balancer.domain.workload import EncodingSpeed, VideoCodec
from balancer.ports.session_store import StoreError, StoreFullError
from gpu_balancer.runtime.failures import Reason, RequestFailure

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping

    from balancer.device_registry import DeviceRegistry
    from balancer.domain.ledger import Ledger
    from balancer.ports.agent_clients import AgentClients

Result = TypeVar("Result", Calibration, SoundTiming)

_log = structlog.stdlib.get_logger(__name__)

_KEY = "calibration/"
_VERSION = 1
_CALM = (DeviceState.READY, DeviceState.CORDONED)


class Findings(Protocol):
    """Keeps what was found out. The session engine is one."""

    @property
    def findings(self) -> Mapping[str, str]:
        """What is kept, by key."""
        ...

    @property
    def ledger(self) -> Ledger:
        """What is booked."""
        ...

    async def keep_finding(self, key: str, text: str | None) -> None:
        """Keeps a finding, or forgets it (None); returns when that is durable, and raises StoreError when it cannot."""
        ...


class Calibrations:
    """The one who calibrates."""

    def __init__(self, *, registry: DeviceRegistry, engine: Findings, agents: AgentClients) -> None:
        """Knows nothing yet.

        Args:
            registry: Told of calibrations.
            engine: Keeps them, and knows what runs.
            agents: Measure.
        """
        self._registry = registry
        self._engine = engine
        self._agents = agents

    def load(self) -> None:
        """Tells the registry what is kept; once, when the store has been read. What cannot be read is left out."""
        for key, text in self._engine.findings.items():
            if not key.startswith(_KEY):
                continue
            try:
                calibration = calibration_from_text(text)
            except (ValueError, KeyError, TypeError) as error:
                _log.warning("a kept calibration cannot be read", key=key, problem=str(error))
                continue
            self._registry.set_calibration(DeviceId(key.removeprefix(_KEY)), calibration)

    async def calibrate(self, device_id: DeviceId) -> AsyncGenerator[CalibrationProgress | Calibration, None]:
        """Has a device measured, keeps the result and places by it. Closing this ends it.

        Args:
            device_id: A known device.

        Yields:
            How far it is; last, and durable, what came of it.

        Raises:
            RequestFailure: DEVICE_BUSY, AGENT_UNREACHABLE, the agent's own; STORE_UNAVAILABLE or DISK_FULL when the
                result could not be kept, and then nothing has changed.
        """
        what = f"calibrate device {device_id}"
        async with aclosing(self._measured(device_id, what, Calibration)) as news:
            async for told in news:
                if isinstance(told, CalibrationProgress):
                    yield told
                    continue
                identity = self._registry.find(device_id).identity
                whole = replace(told, model=identity.model, core_count=len(identity.cores))
                await self._keep(device_id, whole, what)
                yield whole

    async def calibrate_sound(self, device_id: DeviceId) -> AsyncGenerator[CalibrationProgress | SoundTiming, None]:
        """Has a device measured for how far sound and picture are apart in its recordings. Closing this ends it.

        Args:
            device_id: A known device.

        Yields:
            How far it is; last, kept by the agent and told to the registry, what came of it.

        Raises:
            RequestFailure: DEVICE_BUSY, AGENT_UNREACHABLE, the agent's own.
        """
        what = f"calibrate the sound of device {device_id}"
        async with aclosing(self._measured(device_id, what, SoundTiming)) as news:
            async for told in news:
                if isinstance(told, SoundTiming):
                    # The agent tells all of itself too, but maybe later than the caller asks.
                    self._registry.set_sound_timing(device_id, told)
                yield told

    async def forget(self, device_id: DeviceId) -> None:
        """Forgets a device's calibration, if there is one.

        Raises:
            RequestFailure: STORE_UNAVAILABLE or DISK_FULL.
        """
        await self._keep(device_id, None, f"forget the calibration of device {device_id}")

    async def _measured(
        self, device_id: DeviceId, what: str, result: type[Result]
    ) -> AsyncGenerator[CalibrationProgress | Result, None]:
        """Has an idle device measured; it takes no session until this has ended, also by being closed.

        Args:
            device_id: A known device.
            what: What is wanted, after "Cannot ".
            result: What is measured: how much the device carries, or its sound.

        Yields:
            How far it is; last what came of it.

        Raises:
            RequestFailure: DEVICE_BUSY, AGENT_UNREACHABLE, the agent's own.
        """
        self._require_idle(device_id, what)
        agent = self._agents.get(device_id)
        if agent is None:
            raise unreachable(what)
        self._registry.set_calibrating(device_id, calibrating=True)
        try:
            async with aclosing(forwarded(agent.calibrate(sound=result is SoundTiming), what)) as news:
                async for told in news:
                    if isinstance(told, CalibrationProgress):
                        yield told
                    elif isinstance(told, result):
                        yield told
                        return
        finally:
            self._registry.set_calibrating(device_id, calibrating=False)
        raise unreachable(what)

    def _require_idle(self, device_id: DeviceId, what: str) -> None:
        entry = self._registry.find(device_id)
        count = self._engine.ledger.session_count(device_id)
        if entry.calibrating:
            why = "it is being calibrated already"
        elif entry.state not in _CALM:
            why = f"it is {entry.state.value}: {entry.state_message.rstrip('.')}"
        elif count:
            why = f"it has {count} session{'' if count == 1 else 's'}"
        else:
            return
        raise RequestFailure(
            reason=Reason.DEVICE_BUSY,
            message=f"Cannot {what}: {why}. Try again when it is idle; cordoning it keeps new sessions away.",
        )

    async def _keep(self, device_id: DeviceId, calibration: Calibration | None, what: str) -> None:
        text = None if calibration is None else calibration_text(calibration)
        try:
            await self._engine.keep_finding(f"{_KEY}{device_id}", text)
        except StoreError as error:
            full = isinstance(error, StoreFullError)
            raise RequestFailure(
                reason=Reason.DISK_FULL if full else Reason.STORE_UNAVAILABLE,
                message=f"Cannot {what}: it could not be kept. Try again when the balancer's store works; its log says "
                "what is wrong.",
            ) from error
        self._registry.set_calibration(device_id, calibration)


def calibration_text(calibration: Calibration) -> str:
    """Writes a calibration as JSON."""
    value = asdict(calibration)
    value["end_time"] = calibration.end_time.isoformat()
    for figure in value["figures"]:
        figure["dimension"] = figure["dimension"].name
    return json.dumps({"version": _VERSION, **value}, separators=(",", ":"))


def calibration_from_text(text: str) -> Calibration:
    """Reads what `calibration_text` wrote.

    Raises:
        ValueError: It is something else, or of another version.
        KeyError: Something is missing in it.
        TypeError: Something has another form.
    """
    value = cast("dict[str, Any]", json.loads(text))
    if value.pop("version") != _VERSION:
        raise ValueError("it is of another version")
    figures = tuple(_figure(figure) for figure in value.pop("figures"))
    end_time = datetime.fromisoformat(value.pop("end_time")).astimezone(UTC)
    return Calibration(end_time=end_time, figures=figures, **value)


def _figure(value: dict[str, Any]) -> CalibrationFigure:
    codec, speed = value.pop("codec"), value.pop("speed")
    return CalibrationFigure(
        dimension=Dimension[value.pop("dimension")],
        codec=None if codec is None else VideoCodec(codec),
        speed=None if speed is None else EncodingSpeed(speed),
        **value,
    )
