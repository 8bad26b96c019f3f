"""DeviceService: shows devices, weights them, closes them, has them tried again and measured."""

from __future__ import annotations

from contextlib import aclosing
from datetime import timedelta
from typing import TYPE_CHECKING, Protocol, cast

from balancer.device_registry import MAX_WEIGHT
from balancer.domain.calibration import CalibrationProgress
from balancer.domain.drain import DrainMode
from balancer.servicers.calibration_translation import calibration_progress
from balancer.servicers.device_translation import device_to_proto
from balancer.servicers.names import device_name
from balancer.servicers.paging import page_of
from balancer.servicers.violations import DAY, Violations
from balancer.servicers.watch_places import WatchLimits, WatchPlaces
from gpu_balancer.v1 import device_pb2
from gpu_balancer.v1 import device_service_pb2 as pb
from gpu_balancer.v1.device_service_pb2_grpc import DeviceServiceServicer

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Sequence
    from pathlib import Path

    from balancer.calibrations import Calibrations
    from balancer.device_drains import DeviceDrains
    from balancer.device_entry import DeviceEntry
    from balancer.device_registry import DeviceRegistry
    from balancer.domain.ids import DeviceId
    from balancer.session_engine import SessionEngine
    from gpu_balancer.v1.device_pb2 import Device


_MODES: dict[int, DrainMode] = {
    device_pb2.DRAIN_MODE_UNSPECIFIED: DrainMode.WAIT,
    device_pb2.DRAIN_MODE_WAIT: DrainMode.WAIT,
    device_pb2.DRAIN_MODE_MOVE: DrainMode.MOVE,
}
_LONGEST_PATIENCE = 366 * DAY


class OperatorProbes(Protocol):
    """Probes devices for operators."""

    async def probe_for_operator(self, device_id: DeviceId) -> None:
        """Has a device tried again; raises RequestFailure when its agent cannot."""
        ...


class Reloaded(Protocol):
    """What a reload did."""

    @property
    def version(self) -> int:
        """Number of the settings now in force."""
        ...

    @property
    def changes(self) -> Sequence[str]:
        """What changed, a sentence each."""
        ...

    @property
    def restart_keys(self) -> Sequence[str]:
        """Keys that changed in the file but apply only after a restart."""
        ...


class SettingsReloader(Protocol):
    """Reads the settings file again, and writes weights into it."""

    @property
    def version(self) -> int:
        """Number of the settings in force."""
        ...

    async def reload(self) -> Reloaded:
        """Applies the whole file; raises SETTINGS_REFUSED and changes nothing when something in it is wrong."""
        ...

    async def save_weight(self, device_id: DeviceId, weight: int) -> Path:
        """Writes a weight into the file and puts it in force; raises SETTINGS_REFUSED when it cannot."""
        ...


class DeviceServicer(DeviceServiceServicer):
    """Answers clients about devices. Names may be ids, indexes, PCI addresses or the beginning of an id."""

    def __init__(
        self,
        registry: DeviceRegistry,
        *,
        engine: SessionEngine,
        probes: OperatorProbes,
        settings: SettingsReloader,
        calibrations: Calibrations,
        drains: DeviceDrains,
        watch_limits: WatchLimits | None = None,
    ) -> None:
        """Makes the servicer.

        Args:
            registry: The devices.
            engine: Tells what is booked on them.
            probes: Try them again.
            settings: Reads and writes the settings file.
            calibrations: Measures devices and keeps what came of it.
            drains: Closes and empties devices.
            watch_limits: Numbers of watches at most. None: the usual ones.
        """
        self._registry = registry
        self._engine = engine
        self._probes = probes
        self._settings = settings
        self._calibrations = calibrations
        self._drains = drains
        self._watches = WatchPlaces("WatchDevices", (watch_limits or WatchLimits()).devices)

    async def ListDevices(self, request: pb.ListDevicesRequest, _context: object) -> pb.ListDevicesResponse:  # noqa: N802
        """Gives a page of devices in device order."""
        page, token = page_of(
            self._registry.entries(),
            lambda entry: entry.identity.id,
            page_size=request.page_size,
            page_token=request.page_token,
        )
        return pb.ListDevicesResponse(devices=[self._told(entry) for entry in page], next_page_token=token)

    async def GetDevice(self, request: pb.GetDeviceRequest, _context: object) -> pb.GetDeviceResponse:  # noqa: N802
        """Gives one device."""
        return pb.GetDeviceResponse(device=self._told(self._registry.find(request.name)))

    async def WatchDevices(  # noqa: N802
        self, _request: pb.WatchDevicesRequest, _context: object
    ) -> AsyncIterator[pb.WatchDevicesResponse]:
        """Gives every device, then each change."""
        with self._watches.place():
            async with aclosing(cast("AsyncGenerator[DeviceEntry, None]", self._registry.watch())) as entries:
                async for entry in entries:
                    yield pb.WatchDevicesResponse(device=self._told(entry))

    async def UpdateDevice(  # noqa: N802
        self, request: pb.UpdateDeviceRequest, _context: object
    ) -> pb.UpdateDeviceResponse:
        """Changes a weight, or closes or opens a device; all of it is checked before anything is changed."""
        device_id = self._registry.find(request.name).identity.id
        found = Violations()
        if request.HasField("weight"):
            found.check_range("weight", request.weight, 0, MAX_WEIGHT)
        elif request.save:
            found.add("save", "must be given with a weight: only weights are kept in the settings file")
        found.refuse()
        saved_path = ""
        if request.save:
            saved_path = str(await self._settings.save_weight(device_id, request.weight))
        elif request.HasField("weight"):
            self._registry.set_weight(device_id, request.weight)
        if request.HasField("cordoned"):
            await self._drains.set_cordoned(device_id, cordoned=request.cordoned)
        return pb.UpdateDeviceResponse(device=self._told(self._registry.find(device_id)), saved_path=saved_path)

    async def DrainDevice(self, request: pb.DrainDeviceRequest, _context: object) -> pb.DrainDeviceResponse:  # noqa: N802
        """Closes a device and begins to empty it."""
        device_id = self._registry.find(request.name).identity.id
        found, patience = Violations(), None
        found.check_enum("mode", request.mode, _MODES)
        if request.HasField("deadline"):
            patience = found.check_duration("deadline", request.deadline, 0, _LONGEST_PATIENCE)
        found.refuse()
        await self._drains.drain(
            device_id,
            _MODES[request.mode],
            None if patience is None else timedelta(microseconds=patience // 1000),
        )
        return pb.DrainDeviceResponse(device=self._told(self._registry.find(device_id)))

    async def ProbeDevice(self, request: pb.ProbeDeviceRequest, _context: object) -> pb.ProbeDeviceResponse:  # noqa: N802
        """Has a device tried again by its agent."""
        device_id = self._registry.find(request.name).identity.id
        await self._probes.probe_for_operator(device_id)
        return pb.ProbeDeviceResponse(device=self._told(self._registry.find(device_id)))

    async def CalibrateDevice(  # noqa: N802
        self, request: pb.CalibrateDeviceRequest, _context: object
    ) -> AsyncIterator[pb.CalibrateDeviceResponse]:
        """Has a device measured by its agent and places by what came of it, or has its sound measured."""
        device_id = self._registry.find(request.name).identity.id
        begin = self._calibrations.calibrate_sound if request.sound else self._calibrations.calibrate
        async with aclosing(begin(device_id)) as news:
            async for told in news:
                if isinstance(told, CalibrationProgress):
                    yield pb.CalibrateDeviceResponse(progress=calibration_progress(told))
        # After the end, so that the device is told as it is when it takes sessions again.
        device = self._told(self._registry.find(device_id))
        weights = [] if request.sound else self._suggested_weights()
        yield pb.CalibrateDeviceResponse(device=device, suggested_weights=weights)

    async def DeleteCalibration(  # noqa: N802
        self, request: pb.DeleteCalibrationRequest, _context: object
    ) -> pb.DeleteCalibrationResponse:
        """Forgets a device's calibration."""
        device_id = self._registry.find(request.name).identity.id
        await self._calibrations.forget(device_id)
        return pb.DeleteCalibrationResponse(device=self._told(self._registry.find(device_id)))

    async def ReloadSettings(  # noqa: N802
        self, _request: pb.ReloadSettingsRequest, _context: object
    ) -> pb.ReloadSettingsResponse:
        """Has the settings file read again."""
        outcome = await self._settings.reload()
        return pb.ReloadSettingsResponse(
            settings_version=outcome.version, changes=outcome.changes, restart_keys=outcome.restart_keys
        )

    def _told(self, entry: DeviceEntry) -> Device:
        highest = max(other.weight for other in self._registry.entries())
        headroom = self._engine.rules.settings.headroom
        return device_to_proto(entry, self._engine.ledger, highest_weight=highest, headroom=headroom)

    def _suggested_weights(self) -> list[pb.SuggestedWeight]:
        suggested = self._registry.suggested_weights()
        return [
            pb.SuggestedWeight(
                device=device_name(entry.identity.id), weight=suggested[entry.identity.id], present_weight=entry.weight
            )
            for entry in self._registry.entries()
        ]
