"""The devices as the balancer knows them: what their agents told, what the operator said, what was measured.

It is the one mutating door for devices. Every change makes a new frozen `DeviceEntry` with a higher revision; placement
reads `views()`, which is rebuilt only when something that placement looks at has changed, so that measurements at 1 Hz
cost a decision nothing.
"""

from __future__ import annotations

import asyncio
import re
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from balancer.device_entry import DeviceEntry
from balancer.domain.calibration import why_outdated
from balancer.domain.capacity import CapacityOverride, capacity_of, default_weights, with_displays
from balancer.domain.device import DeviceCapacity, DeviceIdentity, DeviceKind, DeviceState, DeviceView, FigureSource
from balancer.settings.device_entries import DeviceNames, entry_fits, pci_spellings
from gpu_balancer.runtime.failures import Reason, RequestFailure, Violation

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Collection, Iterator, Sequence
    from datetime import datetime

    from balancer.domain.calibration import Calibration
    from balancer.domain.device import SoundTiming
    from balancer.domain.drain import DeviceDrain
    from balancer.domain.ids import DeviceId
    from balancer.domain.quarantine import Quarantine
    from balancer.ports.agent_client import AgentReport, Measurements

MAX_WEIGHT = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceRule:
    """What one entry of the settings says of the devices that it fits."""

    kind: DeviceKind
    """A CPU device is called by its name, a GPU in any of the ways of `entry_fits`."""
    match: str
    weight: int | None = None
    """None: follows from capacity."""
    override: CapacityOverride | None = None
    """Capacity figures that replace the table's. None: none do."""

    def fits(self, identity: DeviceIdentity) -> bool:
        """Whether the rule is about this device."""
        if self.kind is not identity.kind:
            return False
        return self.match == identity.id if self.kind is DeviceKind.CPU else entry_fits(self.match, names_of(identity))


class DeviceRegistry:
    """Keeps the devices in the order in which they were first seen: NVML's, or the settings'."""

    def __init__(self, rules: Sequence[DeviceRule] = ()) -> None:
        """Begins without devices.

        Args:
            rules: What the settings say; the first rule that fits a device counts.
        """
        self._rules = tuple(rules)
        self._entries: dict[DeviceId, DeviceEntry] = {}
        self._operator_weights: dict[DeviceId, int] = {}
        self._calibrations: dict[DeviceId, Calibration] = {}
        self._closed: dict[DeviceId, DeviceDrain | None] = {}
        self._views: tuple[DeviceView, ...] | None = None
        self._last_views: tuple[DeviceView, ...] = ()
        self._watchers: set[_Watcher] = set()

    def expect(self, identity: DeviceIdentity) -> None:
        """Enters a device whose agent is being started."""
        if identity.id not in self._entries:
            self._enter(identity)

    def update_agent(self, report: AgentReport) -> None:
        """Takes what an agent tells of itself and its device."""
        identity = report.identity
        known = self._entries.get(identity.id)
        if known is None or known.identity != identity:
            known = self._enter(identity)
        self._change(
            known,
            ffmpeg_builds=report.ffmpeg_builds,
            capabilities=report.capabilities,
            agent_version=report.version,
            probed=report.probed,
            reachable=True,
            silence_message="",
            fault_message=report.fault_message,
            recording=report.recording,
            health=report.health,
        )
        self._reweigh()
        entry = self._entries[identity.id]
        if entry.ready_display_count != report.ready_display_count:
            # It comes and goes with each recording, and is no reason to make the views anew.
            told = replace(entry, ready_display_count=report.ready_display_count, revision=entry.revision + 1)
            self._put(told)

    def update_measurements(self, device_id: DeviceId, measurements: Measurements) -> None:
        """Takes what was measured on a device. Placement does not look at it."""
        entry = self._entries[device_id]
        self._put(replace(entry, measurements=measurements, revision=entry.revision + 1))

    def mark_unreachable(self, device_id: DeviceId, message: str) -> None:
        """Notes that a device's agent does not answer."""
        self._change(self._entries[device_id], reachable=False, silence_message=message, measurements=None)

    def mark_reachable(self, device_id: DeviceId) -> None:
        """Notes that a device's agent answers again."""
        entry = self._entries[device_id]
        if not entry.reachable:
            self._change(entry, reachable=True, silence_message="")

    def set_weight(self, device_id: DeviceId, weight: int) -> DeviceEntry:
        """Gives a device another weight until the next reload or start.

        Raises:
            RequestFailure: The weight is out of bounds, or no device would have a weight any more.
        """
        self._check_weight(device_id, weight)
        self._operator_weights[device_id] = weight
        self._reweigh()
        return self._entries[device_id]

    def set_cordoned(self, device_id: DeviceId, *, cordoned: bool) -> None:
        """Closes a device to new sessions, or opens it again, which ends its drain; also one that is not here yet."""
        if cordoned:
            self._closed.setdefault(device_id, None)
        else:
            self._closed.pop(device_id, None)
        self._apply_closed(device_id)

    def set_drain(self, device_id: DeviceId, drain: DeviceDrain) -> None:
        """Closes a device to new sessions and tells how far it is with being emptied; also one that is not here yet."""
        self._closed[device_id] = drain
        self._apply_closed(device_id)

    def set_quarantine(self, device_id: DeviceId, quarantine: Quarantine | None, retry_time: datetime | None) -> None:
        """Puts a device aside because sessions failed on it, or lets it back; one that is not known is left alone."""
        entry = self._entries.get(device_id)
        if entry is not None:
            self._change(entry, quarantine=quarantine, quarantine_retry_time=retry_time)

    def set_shared_fault(self, device_ids: Collection[DeviceId], message: str) -> None:
        """Says of some devices, and of no others, that one fault took them all."""
        for device_id, entry in tuple(self._entries.items()):
            self._change(entry, shared_fault=message if device_id in device_ids else "")

    def set_calibration(self, device_id: DeviceId, calibration: Calibration | None) -> None:
        """Places by a calibration from now on, also of a device that is not here yet. None: by what is published."""
        if calibration is None:
            self._calibrations.pop(device_id, None)
        else:
            self._calibrations[device_id] = calibration
        self._reweigh()

    def set_calibrating(self, device_id: DeviceId, *, calibrating: bool) -> None:
        """Notes that a device is being calibrated, and so takes no session, or is no longer."""
        self._change(self._entries[device_id], calibrating=calibrating)

    def set_sound_timing(self, device_id: DeviceId, timing: SoundTiming) -> None:
        """Takes what was measured of a device's sound; without effect where its agent has not told what it records."""
        entry = self._entries[device_id]
        if entry.recording is not None:
            self._change(entry, recording=replace(entry.recording, sound_timing=timing))

    def suggested_weights(self) -> dict[DeviceId, int]:
        """Gives the weights that devices would have by capacity alone, in device order."""
        return default_weights({entry.identity.id: entry.capacity for entry in self._entries.values()})

    def apply_rules(self, rules: Sequence[DeviceRule]) -> None:
        """Takes new settings: weights set by hand since are forgotten, sessions stay where they are."""
        self._rules = tuple(rules)
        self._operator_weights.clear()
        self._reweigh()

    def views(self) -> tuple[DeviceView, ...]:
        """Gives every device as placement sees it, in device order."""
        if self._views is None:
            before = {view.id: view for view in self._last_views}
            self._views = self._last_views = tuple(
                _view_of(entry, before.get(entry.identity.id)) for entry in self._entries.values()
            )
        return self._views

    def entries(self) -> tuple[DeviceEntry, ...]:
        """Gives every device in device order."""
        return tuple(self._entries.values())

    def get(self, device_id: DeviceId) -> DeviceEntry | None:
        """Gives a device by its id, or None."""
        return self._entries.get(device_id)

    def find(self, text: str) -> DeviceEntry:
        """Finds a device by what a person calls it.

        Args:
            text: "devices/{id}", an id, an index, a PCI address, or the beginning of an id.

        Raises:
            RequestFailure: DEVICE_NOT_FOUND, or DEVICE_AMBIGUOUS when several fit.
        """
        wanted = text.removeprefix("devices/")
        exact = [entry for entry in self._entries.values() if entry.identity.id == wanted]
        found = exact or [entry for entry in self._entries.values() if wanted and _called(entry.identity, wanted)]
        if len(found) == 1:
            return found[0]
        known = ", ".join(self._entries) or "none"
        if not found:
            raise RequestFailure(
                reason=Reason.DEVICE_NOT_FOUND,
                message=f"Cannot find device {wanted!r}: no device is called so. Try one of: {known}.",
            )
        several = ", ".join(entry.identity.id for entry in found)
        raise RequestFailure(
            reason=Reason.DEVICE_AMBIGUOUS,
            message=f"Cannot tell which device {wanted!r} is: {several} all fit. Try a longer name.",
            violations=(Violation(field="name", description="fits several devices"),),
        )

    async def watch(self) -> AsyncIterator[DeviceEntry]:
        """Gives every device, then each change; a slow watcher gets the latest state of each changed device."""
        with self._subscription() as watcher:
            watcher.changed.update(dict.fromkeys(self._entries))
            while True:
                for device_id in tuple(watcher.changed):
                    del watcher.changed[device_id]
                    yield self._entries[device_id]
                if not watcher.changed:
                    watcher.awake.clear()
                    await watcher.awake.wait()

    async def await_first_probe(self) -> None:
        """Returns once every known device has been probed, or was given up as unreachable or unfit."""
        with self._subscription() as watcher:
            while any(entry.state is DeviceState.PROBING for entry in self._entries.values()):
                watcher.awake.clear()
                await watcher.awake.wait()

    @contextmanager
    def _subscription(self) -> Iterator[_Watcher]:
        watcher = _Watcher()
        self._watchers.add(watcher)
        try:
            yield watcher
        finally:
            self._watchers.discard(watcher)

    def _enter(self, identity: DeviceIdentity) -> DeviceEntry:
        known = self._entries.get(identity.id)
        revision = known.revision + 1 if known is not None else 1
        entry = DeviceEntry(
            identity=identity,
            capacity=capacity_of(identity, (), None),
            weight=0,
            weight_source=FigureSource.CAPACITY,
            revision=revision,
            calibrating=known is not None and known.calibrating,
            # What was said of the device holds, whatever else its agent turns out to know of it.
            cordoned=identity.id in self._closed,
            drain=self._closed.get(identity.id),
            quarantine=known.quarantine if known is not None else None,
            quarantine_retry_time=known.quarantine_retry_time if known is not None else None,
            health=known.health if known is not None else None,
            shared_fault=known.shared_fault if known is not None else "",
        )
        self._put(entry)
        self._reweigh()
        return self._entries[identity.id]

    def _apply_closed(self, device_id: DeviceId) -> None:
        entry = self._entries.get(device_id)
        if entry is not None:
            self._change(entry, cordoned=device_id in self._closed, drain=self._closed.get(device_id))

    def _capacity(self, entry: DeviceEntry) -> DeviceCapacity:
        identity = entry.identity
        rule = self._rule(identity)
        override = rule.override if rule else None
        calibration, outdated = self._calibrations.get(identity.id), ""
        if calibration is not None:
            ffmpegs = [(build.candidate, build.version) for build in entry.ffmpeg_builds] if entry.probed else None
            outdated = why_outdated(calibration, identity, ffmpegs)
        counting = None if outdated else calibration
        capacity = capacity_of(identity, entry.capabilities, override, counting, ignored=outdated)
        return with_displays(capacity, entry.recording)

    def _rule(self, identity: DeviceIdentity) -> DeviceRule | None:
        return next((rule for rule in self._rules if rule.fits(identity)), None)

    def _reweigh(self) -> None:
        """Sets every capacity, then every weight from what the operator did, else the settings, else capacity."""
        for entry in tuple(self._entries.values()):
            calibration = self._calibrations.get(entry.identity.id)
            self._change(entry, capacity=self._capacity(entry), calibration=calibration)
        computed = self.suggested_weights()
        for device_id, entry in tuple(self._entries.items()):
            rule = self._rule(entry.identity)
            if device_id in self._operator_weights:
                weight, source = self._operator_weights[device_id], FigureSource.OPERATOR
            elif rule is not None and rule.weight is not None:
                weight, source = rule.weight, FigureSource.SETTINGS
            else:
                weight, source = computed[device_id], FigureSource.CAPACITY
            self._change(entry, weight=weight, weight_source=source)

    def _check_weight(self, device_id: DeviceId, weight: int) -> None:
        if not 0 <= weight <= MAX_WEIGHT:
            problem = f"must be 0 to {MAX_WEIGHT}, not {weight}"
        elif weight == 0 and not any(
            entry.weight for other_id, entry in self._entries.items() if other_id != device_id
        ):
            problem = "would leave no device with a weight, so that no session could be placed; cordon it instead"
        else:
            return
        raise RequestFailure(
            reason=Reason.INVALID_REQUEST,
            message=f"Cannot set the weight of {device_id}: it {problem}.",
            violations=(Violation(field="weight", description=problem),),
        )

    def _change(self, entry: DeviceEntry, **fields: object) -> None:
        entry = self._entries[entry.identity.id]
        changed = replace(entry, **fields)  # type: ignore[arg-type]
        if changed != entry:
            self._views = None
            self._put(replace(changed, revision=entry.revision + 1))

    def _put(self, entry: DeviceEntry) -> None:
        if entry.identity.id not in self._entries:
            self._views = None
        self._entries[entry.identity.id] = entry
        for watcher in self._watchers:
            watcher.changed[entry.identity.id] = None
            watcher.awake.set()


class _Watcher:
    """Which devices changed since a watcher last looked, in order."""

    def __init__(self) -> None:
        self.changed: dict[DeviceId, None] = {}
        self.awake = asyncio.Event()


def _view_of(entry: DeviceEntry, before: DeviceView | None) -> DeviceView:
    """Makes a device's view; the very one that was there before when nothing about it is another."""
    view = DeviceView(
        identity=entry.identity,
        state=entry.state,
        state_message=entry.state_message,
        weight=entry.weight,
        capabilities=entry.capabilities,
        capacity=entry.capacity,
        ffmpeg_paths=tuple(build.path for build in entry.ffmpeg_builds),
        recording=entry.recording,
    )
    return before if before is not None and before == view else view


def names_of(identity: DeviceIdentity) -> DeviceNames:
    """Gives all that a settings entry may call a device."""
    return DeviceNames(
        id=identity.id,
        is_cpu=identity.kind is DeviceKind.CPU,
        model=identity.model,
        pci_address=identity.pci_address,
        index=identity.index,
        cores=identity.cores,
    )


def _called(identity: DeviceIdentity, wanted: str) -> bool:
    lowered = wanted.lower()
    if identity.index is not None and re.fullmatch(r"\d+", wanted):
        return int(wanted) == identity.index
    if identity.pci_address and lowered in pci_spellings(identity.pci_address):
        return True
    return identity.id.lower().startswith(lowered) and identity.kind is DeviceKind.NVIDIA
