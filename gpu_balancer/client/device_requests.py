"""What a client asks about devices and about the daemon itself."""

from __future__ import annotations

from contextlib import aclosing
from typing import TYPE_CHECKING

from gpu_balancer.client import methods
from gpu_balancer.client.names import device_name
from gpu_balancer.client.requests import Requests
from gpu_balancer.runtime.failures import RequestFailure
from gpu_balancer.v1 import balancer_service_pb2, device_pb2, device_service_pb2

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from datetime import timedelta

    from gpu_balancer.v1.device_pb2 import Device


class DeviceRequests(Requests):
    """The calls of DeviceService. A device's name is `devices/x` or `x`; x may be an index, a PCI address or the
    beginning of a UUID when it fits one device only.
    """

    async def list_devices(self, *, page_size: int = 0) -> AsyncGenerator[Device, None]:
        """Gives devices in device order, page after page as they are taken."""
        page_token = ""
        while True:
            request = device_service_pb2.ListDevicesRequest(page_size=page_size, page_token=page_token)
            page = await self._call(methods.LIST_DEVICES, request)
            for device in page.devices:
                yield device
            if not (page_token := page.next_page_token):
                return

    async def get_device(self, name: str) -> Device:
        """Gives a device.

        Raises:
            RequestFailure: With DEVICE_NOT_FOUND or DEVICE_AMBIGUOUS.
        """
        request = device_service_pb2.GetDeviceRequest(name=device_name(name))
        return (await self._call(methods.GET_DEVICE, request)).device

    async def watch_devices(self) -> AsyncGenerator[Device, None]:
        """Gives every device, then each change, without end. After a cut it begins again with every device."""
        while True:
            stream = self._resumed(methods.WATCH_DEVICES, device_service_pb2.WatchDevicesRequest)
            async with aclosing(stream) as answers:
                async for answer in answers:
                    yield answer.device
            await self._connection.pause(self._stream_policy.first_delay)

    async def update_device(
        self, name: str, *, weight: int | None = None, cordoned: bool | None = None, save: bool = False
    ) -> device_service_pb2.UpdateDeviceResponse:
        """Changes a device's weight, or closes it to new sessions, which survives restarts.

        Args:
            name: The device.
            weight: The new weight, 0 to 10,000; 0 takes no new session. None: unchanged.
            cordoned: Whether it is closed to new sessions; False ends a drain too. None: unchanged.
            save: Writes the weight into the settings file too, comments kept.

        Returns:
            The device after the change, and the file written.
        """
        request = device_service_pb2.UpdateDeviceRequest(
            name=device_name(name), weight=weight, cordoned=cordoned, save=save
        )
        return await self._call(methods.UPDATE_DEVICE, request)

    async def drain_device(self, name: str, *, move: bool = False, deadline: timedelta | None = None) -> Device:
        """Closes a device to new sessions and empties it; returns at once. Asked again, the new wishes hold.

        `Device.drain` tells how far it is; `update_device(name, cordoned=False)` ends it.

        Args:
            name: The device.
            move: Has its sessions go on on other devices, where there is room. Else they end by themselves.
            deadline: After which what is left is stopped, outputs completed. None: never.

        Returns:
            The device, draining, or cordoned when it was empty.
        """
        mode = device_pb2.DRAIN_MODE_MOVE if move else device_pb2.DRAIN_MODE_WAIT
        request = device_service_pb2.DrainDeviceRequest(name=device_name(name), mode=mode)
        if deadline is not None:
            request.deadline.FromTimedelta(deadline)
        return (await self._call(methods.DRAIN_DEVICE, request)).device

    async def probe_device(self, name: str) -> Device:
        """Runs the golden probe again, which may take minutes, and gives the device with new capabilities."""
        request = device_service_pb2.ProbeDeviceRequest(name=device_name(name))
        return (await self._call(methods.PROBE_DEVICE, request)).device

    async def calibrate_device(
        self, name: str, *, sound: bool = False
    ) -> AsyncGenerator[device_service_pb2.CalibrateDeviceResponse, None]:
        """Has a device measured by real runs, which takes minutes; it takes no session meanwhile.

        It begins with the first look at what this yields. Leaving early ends it, and nothing is kept. It is not tried
        again after a cut.

        Args:
            name: The device.
            sound: Measures how far sound and picture are apart in its recordings of pages instead, in less than a
                minute. They have their sound delayed accordingly from then on, unless the settings give a delay.

        Yields:
            How far it is; last the device, and the weights that follow from capacity; for sound without weights.

        Raises:
            RequestFailure: With DEVICE_BUSY while it has sessions or is being calibrated; with NO_CAPABLE_DEVICE for
                sound where it cannot be measured.
        """
        request = device_service_pb2.CalibrateDeviceRequest(name=device_name(name), sound=sound)
        try:
            async with aclosing(self._connection.stream(methods.CALIBRATE_DEVICE, request)) as answers:
                async for answer in answers:
                    self._was_there = True
                    yield answer
        except RequestFailure as failure:
            raise self._absent(failure) or failure from None

    async def delete_calibration(self, name: str) -> Device:
        """Forgets a device's calibration, and gives the device without it."""
        request = device_service_pb2.DeleteCalibrationRequest(name=device_name(name))
        return (await self._call(methods.DELETE_CALIBRATION, request)).device

    async def reload_settings(self) -> device_service_pb2.ReloadSettingsResponse:
        """Has the settings file read again and applied.

        Raises:
            RequestFailure: With SETTINGS_REFUSED when the file has a mistake; nothing of it is applied then.
        """
        return await self._call(methods.RELOAD_SETTINGS, device_service_pb2.ReloadSettingsRequest())


class BalancerRequests(Requests):
    """The calls of BalancerService."""

    async def get_balancer(self) -> balancer_service_pb2.GetBalancerResponse:
        """Tells what runs and with which settings."""
        return await self._call(methods.GET_BALANCER, balancer_service_pb2.GetBalancerRequest())

    async def shutdown(self, *, stop_sessions: bool = False) -> balancer_service_pb2.ShutdownResponse:
        """Ends the daemon.

        Args:
            stop_sessions: Stops every session first, outputs completed. Otherwise they run on with their agents.

        Returns:
            What was stopped and what still runs.
        """
        return await self._call(methods.SHUTDOWN, balancer_service_pb2.ShutdownRequest(stop_sessions=stop_sessions))
