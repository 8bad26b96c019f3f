"""What `devices calibrate` does: has devices measured one by one, shows what came of it, and saves weights."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from gpu_balancer.cli.complaints import complain_of
from gpu_balancer.cli.device_views import calibration_lines
from gpu_balancer.cli.exit_codes import ExitCode
from gpu_balancer.cli.screen import Column, to_json
from gpu_balancer.cli.sound_views import sound_lines
from gpu_balancer.cli.words import clean, device_word
from gpu_balancer.runtime.failures import Reason, RequestFailure

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from gpu_balancer.cli.invocation import Invocation
    from gpu_balancer.cli.screen import Screen
    from gpu_balancer.client import Client
    from gpu_balancer.v1.device_pb2 import CalibrationProgress, Device
    from gpu_balancer.v1.device_service_pb2 import CalibrateDeviceResponse, SuggestedWeight

_COLUMNS = (
    Column(title="DEVICE"),
    Column(title="WEIGHT NOW", right=True),
    Column(title="SUGGESTED", right=True),
)
_NONE = "Nothing was calibrated."
_LEFT_OUT = (Reason.DEVICE_BUSY, Reason.NO_CAPABLE_DEVICE)
"""Why one of several devices is left out: it is busy, or has no sound that could be measured."""


def calibrate_devices(invocation: Invocation, name: str, *, save: bool = False, sound: bool = False) -> ExitCode:
    """Calibrates one device, or all when no name is given; one of several that cannot be is left out and told of.

    Args:
        invocation: How the command was called.
        name: The device. Empty: all.
        save: Writes the suggested weights into the settings file.
        sound: Measures how far sound and picture are apart in recordings instead; then there are no weights.

    Returns:
        The exit code of the last device that was left out, else OK.

    Raises:
        RequestFailure: The only device was refused, or one failed.
    """
    screen = invocation.screen()
    code = ExitCode.OK
    ended: list[CalibrateDeviceResponse] = []
    with invocation.client() as client:
        names = [name] if name else [device.name for device in client.list_devices()]
        for one in names:
            try:
                ended.append(_calibrated(screen, client, one, sound=sound))
            except RequestFailure as failure:
                if len(names) == 1 or failure.reason not in _LEFT_OUT:
                    raise
                code = complain_of(failure)
        devices = [answer.device for answer in ended]
        weights = list(ended[-1].suggested_weights) if ended else []
        if invocation.json:
            _write(screen, devices, weights)
        elif sound:
            _tell_sound(screen, devices)
        else:
            _tell(screen, devices, weights)
        if save:
            _save(screen, client, weights)
    return code


def forget_calibrations(invocation: Invocation, name: str) -> ExitCode:
    """Forgets the calibration of one device, or of all when no name is given."""
    screen = invocation.screen()
    with invocation.client() as client:
        names = [name] if name else [device.name for device in client.list_devices()]
        devices = [client.delete_calibration(one) for one in names]
    if invocation.json:
        _write(screen, devices, [])
    else:
        for device in devices:
            screen.line(f"{device_word(device.name)}: not calibrated")
    return ExitCode.OK


def _calibrated(screen: Screen, client: Client, name: str, *, sound: bool) -> CalibrateDeviceResponse:
    """Follows one calibration to its end.

    Raises:
        RequestFailure: It was refused or failed.
    """
    last = None
    with _shown(screen, name, sound=sound) as show:
        for last in client.calibrate_device(name, sound=sound):
            if last.HasField("progress"):
                show(last.progress)
    if last is None or not last.HasField("device"):
        raise RequestFailure(
            reason=Reason.AGENT_UNREACHABLE,
            message=f"Cannot calibrate {name}: it ended without a result. Try again.",
        )
    return last


def _write(screen: Screen, devices: Sequence[Device], weights: Sequence[SuggestedWeight]) -> None:
    screen.document(
        {"devices": [to_json(one) for one in devices], "suggestedWeights": [to_json(one) for one in weights]}
    )


def _tell(screen: Screen, devices: Sequence[Device], weights: Sequence[SuggestedWeight]) -> None:
    for device in devices:
        screen.facts([("device", device_word(device.name))])
        screen.facts([("calibrated", "\n".join(calibration_lines(device.calibration)))])
        screen.line()
    rows = [(device_word(one.device), str(one.present_weight), str(one.weight)) for one in weights]
    screen.table(_COLUMNS, rows, none=_NONE)


def _tell_sound(screen: Screen, devices: Sequence[Device]) -> None:
    for number, device in enumerate(devices):
        if number:
            screen.line()
        told = device.recording
        lines = sound_lines(told.sound_timing, of_pages=True) if told.HasField("sound_timing") else ()
        screen.facts([("device", device_word(device.name)), ("sound", "\n".join(lines))])
    if not devices:
        screen.note(_NONE)


def _save(screen: Screen, client: Client, weights: Sequence[SuggestedWeight]) -> None:
    path = ""
    for one in weights:
        path = client.update_device(one.device, weight=one.weight, save=True).saved_path
    if path:
        screen.note(f"Saved in {path}.")


@contextmanager
def _shown(screen: Screen, name: str, *, sound: bool) -> Iterator[Callable[[CalibrationProgress], None]]:
    """Shows how far a calibration is: a bar on a terminal, else one line at its beginning."""
    word = device_word(name)
    if not screen.lively:
        screen.note(f"Calibrating {f'the sound of {word}' if sound else f'{word}, this takes minutes'} …")
        yield lambda _: None
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
    ) as bar:
        task = bar.add_task(word, total=None, doing="")

        def show(progress: CalibrationProgress) -> None:
            bar.update(task, total=progress.step_count or None, completed=progress.step, doing=clean(progress.message))

        yield show
