"""What `devices cordon`, `uncordon` and `drain` do.

A drain is the daemon's: this command only shows how far it is, and may leave at any time.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from gpu_balancer.cli.error_text import complain
from gpu_balancer.cli.exit_codes import ExitCode
from gpu_balancer.cli.invocation import Misuse
from gpu_balancer.cli.typed_times import typed_duration
from gpu_balancer.cli.words import clean, device_state, device_word
from gpu_balancer.v1 import device_service_pb2

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from gpu_balancer.cli.invocation import Invocation
    from gpu_balancer.cli.screen import Screen
    from gpu_balancer.client import Client
    from gpu_balancer.v1.device_pb2 import Device


def close_devices(invocation: Invocation, names: Sequence[str], *, every: bool, cordoned: bool) -> None:
    """Closes devices to new sessions, or opens them again."""
    screen = invocation.screen()
    with invocation.client() as client:
        meant = _meant(client, names, every=every)
        devices = [client.update_device(name, cordoned=cordoned).device for name in meant]
    if invocation.json:
        screen.document(device_service_pb2.ListDevicesResponse(devices=devices))
        return
    for device in devices:
        screen.line(f"{device_word(device.name)}: {device_state(device.state)}")


def drain_devices(
    invocation: Invocation, names: Sequence[str], *, every: bool, move: bool, deadline: str | None, detach: bool
) -> ExitCode:
    """Empties devices and shows how far that is until they are empty, unless it is to be left to the daemon."""
    screen = invocation.screen()
    length = typed_duration("--deadline", deadline, from_zero=True)
    with invocation.client() as client:
        meant = _meant(client, names, every=every)
        if len(meant) > 1:
            # All are closed before the first is emptied, or its sessions would be moved to the next one.
            for name in meant:
                client.update_device(name, cordoned=True)
        patience = None if length is None else length.ToTimedelta()
        devices = {name: client.drain_device(name, move=move, deadline=patience) for name in meant}
        if detach:
            _tell(screen, list(devices.values()))
            return ExitCode.OK
        try:
            _follow(screen, client, devices)
        except KeyboardInterrupt:
            _tell_how_to_go_on(screen, list(devices.values()))
            return ExitCode.INTERRUPTED
    _tell(screen, list(devices.values()))
    return _code_of(list(devices.values()))


def _meant(client: Client, names: Sequence[str], *, every: bool) -> list[str]:
    """Gives the full names of the devices that are meant, each once; one that is not known refuses all of them."""
    if every and names:
        raise Misuse("Cannot take names beside --all. Try one of both.")
    if not every and not names:
        raise Misuse("Cannot tell which devices are meant. Try their names, or --all.")
    if every:
        return [device.name for device in client.list_devices()]
    return list(dict.fromkeys(client.get_device(name).name for name in names))


def _follow(screen: Screen, client: Client, devices: dict[str, Device]) -> None:
    """Shows how far devices are until each is empty or was opened again; keeps their latest state in `devices`."""
    if not any(map(_left, devices.values())):
        return
    with _shown(screen) as show:
        for device in devices.values():
            show(device)
        for device in client.watch_devices():
            if device.name in devices:
                devices[device.name] = device
                show(device)
            if not any(map(_left, devices.values())):
                return


def _left(device: Device) -> int:
    """Gives how many sessions a drain still waits for."""
    return device.drain.session_count if device.HasField("drain") else 0


def _tell(screen: Screen, devices: Sequence[Device]) -> None:
    if screen.json:
        screen.document(device_service_pb2.ListDevicesResponse(devices=devices))
        return
    for device in devices:
        screen.line(f"{device_word(device.name)}: {_words(device)}")


def _words(device: Device) -> str:
    if not device.HasField("drain"):
        return f"{device_state(device.state)}, its drain was ended"
    left, stopped = device.drain.session_count, device.drain.stopped_count
    told = f"{device_state(device.state)}, {left} sessions left" if left else "empty"
    return f"{told}, {stopped} stopped at the deadline" if stopped else told


def _code_of(devices: Sequence[Device]) -> ExitCode:
    opened = [device_word(device.name) for device in devices if not device.HasField("drain")]
    if opened:
        return complain(
            f"Cannot empty {', '.join(opened)}: somebody opened what was being emptied.", ExitCode.SESSION_FAILED
        )
    stopped = sum(device.drain.stopped_count for device in devices)
    return ExitCode.SESSION_FAILED if stopped else ExitCode.OK


def _tell_how_to_go_on(screen: Screen, devices: Sequence[Device]) -> None:
    left = [device_word(device.name) for device in devices if _left(device)]
    count = sum(map(_left, devices))
    screen.note(f"The daemon goes on without this command; {count} session{'' if count == 1 else 's'} left.")
    screen.note("  See it:  gpu-balancer devices")
    screen.note(f"  End it:  gpu-balancer devices uncordon {' '.join(left)}")


@contextmanager
def _shown(screen: Screen) -> Iterator[Callable[[Device], None]]:
    """Shows how far drains are: a bar for each device on a terminal, else a line whenever something changes."""
    if not screen.lively:
        told: dict[str, str] = {}

        def say(device: Device) -> None:
            if told.get(device.name) != device.state_message:
                told[device.name] = device.state_message
                screen.note(f"{device_word(device.name)}: {clean(device.state_message)}")

        yield say
        return
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
    from rich.table import Column as RichColumn

    with Progress(
        TextColumn("{task.description}", table_column=RichColumn(no_wrap=True), markup=False),
        BarColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[doing]}", table_column=RichColumn(no_wrap=True), markup=False),
        console=screen.side_console,
        transient=True,
    ) as bars:
        tasks = {}

        def show(device: Device) -> None:
            if device.name not in tasks:
                tasks[device.name] = bars.add_task(device_word(device.name), total=_left(device), doing="")
            task = tasks[device.name]
            total = max(bars.tasks[bars.task_ids.index(task)].total or 0, _left(device))
            bars.update(task, total=total, completed=total - _left(device), doing=clean(device.state_message))

        yield show
