"""What may be typed about devices."""

from __future__ import annotations

from functools import partial
from typing import Annotated

import typer

from gpu_balancer.cli.completions import complete_device
from gpu_balancer.cli.exit_codes import ExitCode
from gpu_balancer.cli.invocation import HeadingsOption, Invocation, JsonOption, Misuse, command

devices_app = typer.Typer(
    help="Show devices; weight, close and test them.", invoke_without_command=True, rich_markup_mode=None
)

DeviceArgument = Annotated[
    str,
    typer.Argument(
        metavar="DEVICE",
        help="A device's name, index, PCI address or the beginning of its UUID.",
        autocompletion=complete_device,
    ),
]
DevicesArgument = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="DEVICE…",
        help="Names, indexes, PCI addresses or beginnings of UUIDs.",
        autocompletion=complete_device,
        show_default=False,
    ),
]
AllOption = Annotated[bool, typer.Option("--all", help="All devices.")]
VerboseOption = Annotated[bool, typer.Option("--verbose", "-v", help="Show more.")]


def register(app: typer.Typer) -> None:
    """Registers `devices` and its sub-commands."""
    app.add_typer(devices_app, name="devices")


@devices_app.callback()
def devices(
    context: typer.Context,
    verbose: VerboseOption = False,
    headings_: HeadingsOption = False,
    json_: JsonOption = False,
    address_: Annotated[str | None, typer.Option("--address", metavar="ADDRESS", help="The daemon.")] = None,
) -> None:
    """Show devices; weight, close and test them."""
    given: Invocation = context.find_root().obj or Invocation()
    invocation = Invocation(
        address=address_ or given.address, json=json_ or given.json, headings=headings_ or given.headings
    )
    context.find_root().obj = invocation
    if context.invoked_subcommand is None:
        from gpu_balancer.cli.device_actions import list_devices
        from gpu_balancer.cli.invocation import guarded

        raise typer.Exit(guarded(partial(list_devices, invocation, verbose=verbose)))


@command(devices_app, "show", tables=True)
def show(invocation: Invocation, device: DeviceArgument) -> None:
    """Show everything about one device."""
    from gpu_balancer.cli.device_actions import show_device

    show_device(invocation, device)


@command(devices_app, "set-weight")
def set_weight(
    invocation: Invocation,
    device: DeviceArgument,
    weight: Annotated[int, typer.Argument(min=0, max=10_000, help="100 = the best device; 0 takes no new session.")],
    save: Annotated[bool, typer.Option("--save", help="Write it into the settings file too, comments kept.")] = False,
) -> None:
    """Change a device's weight."""
    from gpu_balancer.cli.device_actions import set_weight as set_it

    set_it(invocation, device, weight=weight, save=save)


@command(devices_app, "cordon")
def cordon(invocation: Invocation, devices: DevicesArgument = None, every: AllOption = False) -> None:
    """Close devices to new sessions; those on them run on. It holds until they are opened again."""
    from gpu_balancer.cli.drain_actions import close_devices

    close_devices(invocation, devices or [], every=every, cordoned=True)


@command(devices_app, "uncordon")
def uncordon(invocation: Invocation, devices: DevicesArgument = None, every: AllOption = False) -> None:
    """Open devices to new sessions again, which ends a drain."""
    from gpu_balancer.cli.drain_actions import close_devices

    close_devices(invocation, devices or [], every=every, cordoned=False)


@command(devices_app, "drain", short_help="Close devices to new sessions and empty them.")
def drain(
    invocation: Invocation,
    devices: DevicesArgument = None,
    every: AllOption = False,
    move: Annotated[
        bool,
        typer.Option(
            "--move/--wait", help="Have sessions go on on other devices, or wait until they end by themselves."
        ),
    ] = False,
    deadline: Annotated[
        str | None,
        typer.Option("--deadline", metavar="TIME", help="Stop what is left after this time, outputs completed."),
    ] = None,
    detach: Annotated[bool, typer.Option("--detach", help="Do not wait until they are empty.")] = False,
) -> ExitCode:
    """Close devices to new sessions and empty them; they stay closed until `devices uncordon`.

    Shows how far it is until they are empty; Ctrl-C leaves that to the daemon. Ends with 1 when the deadline stopped
    sessions.
    """
    from gpu_balancer.cli.drain_actions import drain_devices

    return drain_devices(invocation, devices or [], every=every, move=move, deadline=deadline, detach=detach)


@command(devices_app, "probe", tables=True, short_help="Try again what a device can do, for real.")
def probe(invocation: Invocation, device: DeviceArgument) -> None:
    """Try again what a device can do, by really encoding and decoding."""
    from gpu_balancer.cli.device_actions import probe_device

    probe_device(invocation, device)


@command(devices_app, "calibrate", tables=True, short_help="Measure by real runs how much a device carries.")
def calibrate(
    invocation: Invocation,
    device: Annotated[
        str,
        typer.Argument(
            metavar="[DEVICE]",
            help="A device's name, index, PCI address or the beginning of its UUID. Default: all, one by one.",
            autocompletion=complete_device,
            show_default=False,
        ),
    ] = "",
    save: Annotated[bool, typer.Option("--save", help="Write the suggested weights into the settings file.")] = False,
    forget: Annotated[bool, typer.Option("--forget", help="Forget the calibration instead.")] = False,
    sound: Annotated[
        bool, typer.Option("--sound", help="Measure how far sound and picture are apart in recordings instead.")
    ] = False,
) -> ExitCode:
    """Measure by real runs how much a device carries, and place by it from then on.

    A device is measured only while it has no session, and takes none meanwhile: up to 2 minutes on cores, 8 on a GPU.
    With --sound it takes one, and recordings have their sound delayed accordingly from then on.
    """
    from gpu_balancer.cli.calibration_actions import calibrate_devices, forget_calibrations

    if sound and (forget or save):
        raise Misuse(
            "Cannot save or forget what is measured with --sound: the agent keeps it until it measures again. Try "
            "sound_delay_ms in [recordings] of the settings, which overrides what was measured."
        )
    if forget and save:
        raise Misuse("Cannot save weights and forget the calibration in one go. Try one of --save and --forget.")
    if forget:
        return forget_calibrations(invocation, device)
    return calibrate_devices(invocation, device, save=save, sound=sound)
