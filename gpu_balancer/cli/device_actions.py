"""What the commands about devices do."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gpu_balancer.cli.device_views import CAPABILITY_COLUMNS, COLUMNS, capability_rows, device_facts, device_row, notes
from gpu_balancer.cli.words import device_word
from gpu_balancer.v1 import device_service_pb2

if TYPE_CHECKING:
    from gpu_balancer.cli.invocation import Invocation
    from gpu_balancer.cli.screen import Screen
    from gpu_balancer.v1.device_pb2 import Device

_NONE = "There are no devices."


def list_devices(invocation: Invocation, *, verbose: bool) -> None:
    """Shows all devices."""
    screen = invocation.screen()
    with invocation.client() as client:
        devices = list(client.list_devices())
    if invocation.json:
        screen.document(device_service_pb2.ListDevicesResponse(devices=devices))
    elif verbose and devices:
        for number, device in enumerate(devices):
            if number:
                screen.line()
            _show(screen, device)
    else:
        screen.table(COLUMNS, [device_row(device) for device in devices], none=_NONE)
        if screen.terminal:
            for note in notes(devices):
                screen.note(note)


def show_device(invocation: Invocation, name: str) -> None:
    """Shows everything about a device."""
    screen = invocation.screen()
    with invocation.client() as client:
        device = client.get_device(name)
    if invocation.json:
        screen.document(device)
    else:
        _show(screen, device)


def _show(screen: Screen, device: Device) -> None:
    screen.facts(list(device_facts(device)))
    if device.capabilities:
        screen.table(CAPABILITY_COLUMNS, capability_rows(device), none="")


def set_weight(invocation: Invocation, name: str, *, weight: int, save: bool = False) -> None:
    """Changes a device's weight."""
    screen = invocation.screen()
    with invocation.client() as client:
        answer = client.update_device(name, weight=weight, save=save)
    if invocation.json:
        screen.document(answer)
        return
    device = answer.device
    screen.line(f"{device_word(device.name)}: weight {device.weight}")
    if answer.saved_path:
        screen.note(f"Saved in {answer.saved_path}.")
    else:
        screen.note("It holds until the next reload or start of the daemon; --save would keep it.")


def probe_device(invocation: Invocation, name: str) -> None:
    """Runs the golden probe again."""
    screen = invocation.screen()
    if not invocation.json:
        screen.note("Encoding and decoding with every codec, this may take a minute …")
    with invocation.client() as client:
        device = client.probe_device(name)
    if invocation.json:
        screen.document(device)
    else:
        _show(screen, device)
