"""Closes devices to new sessions and empties them, over restarts of the balancer, until they are opened again.

What was asked for is kept in the store beside other findings, and is in force at once, whether the store takes it or
not: who closes a device has a reason. Time is measured on a clock that never jumps; the wall clock is only asked how
much of a deadline is left after a restart.

Sessions are moved a few at a time, each only once there is room for it elsewhere, which is kept for it. Nothing here
ever ends a session that nobody moves, before its operator's deadline.
"""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Protocol

import structlog

from balancer.domain.drain import DeviceDrain, DrainMode, Staying, moving_failure, staying, stopping_failure, told
from balancer.domain.ids import DeviceId
from balancer.domain.session import SessionState
from balancer.domain.session_events import StopRequested
from balancer.ports.session_store import StoreError, StoreFullError
from gpu_balancer.runtime.failures import Reason, RequestFailure

if TYPE_CHECKING:
    from collections.abc import Mapping

    from balancer.device_registry import DeviceRegistry
    from balancer.domain.ids import SessionId
    from balancer.domain.ledger import Ledger
    from balancer.domain.session import Failure, SessionRecord
    from balancer.domain.session_events import SessionEvent
    from gpu_balancer.runtime.clock import Clock

_log = structlog.stdlib.get_logger(__name__)

_KEY = "closed/"
_VERSION = 1
_LIVE = (SessionState.STARTING, SessionState.RUNNING)


class DrainedSessions(Protocol):
    """What is needed of the engine."""

    @property
    def findings(self) -> Mapping[str, str]:
        """What is kept, by key."""
        ...

    @property
    def ledger(self) -> Ledger:
        """What is booked."""
        ...

    async def keep_finding(self, key: str, text: str | None) -> None:
        """Keeps a finding, or forgets it (None); raises StoreError when it cannot."""
        ...

    def current(self, session_id: SessionId) -> SessionRecord | None:
        """Gives a session as it is now. None: there is none."""
        ...

    def live(self, device_id: DeviceId) -> tuple[SessionRecord, ...]:
        """Gives the device's sessions that have not ended."""
        ...

    def post(self, session_id: SessionId, event: SessionEvent) -> object:
        """Takes an event."""
        ...

    def move(self, session_id: SessionId, failure: Failure) -> bool:
        """Has a session go on elsewhere; tells whether there is room for it."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class DrainTimes:
    """How fast devices are emptied."""

    look_every: timedelta = timedelta(milliseconds=500)
    moving_at_once: int = 4
    """Sessions on the way at most, of all devices together: each is a start of programs somewhere."""
    longest_way: timedelta = timedelta(seconds=15)
    """After which one that has not begun to run elsewhere keeps nobody else waiting."""


@dataclass(slots=True)
class _Emptying:
    """One drain."""

    drain: DeviceDrain
    deadline_s: float | None
    """On a clock that never jumps. None: never."""
    stopped: set[SessionId] = field(default_factory=set)


class DeviceDrains:
    """The one who closes and empties devices."""

    def __init__(
        self, *, registry: DeviceRegistry, engine: DrainedSessions, clock: Clock, times: DrainTimes | None = None
    ) -> None:
        """Begins with every device open.

        Args:
            registry: Told of what is closed.
            engine: Keeps it, knows what runs, moves and stops it.
            clock: Tells when the time is over.
            times: How fast devices are emptied. None: as usual.
        """
        self._registry = registry
        self._engine = engine
        self._clock = clock
        self._times = times or DrainTimes()
        self._drains: dict[DeviceId, _Emptying] = {}
        self._ways: dict[SessionId, float] = {}
        """When sessions were sent on their way that are not known to run again."""
        self._asked = asyncio.Event()

    def load(self) -> None:
        """Closes what is kept as closed; once, when the store has been read. What cannot be read is closed only."""
        for key, text in self._engine.findings.items():
            if not key.startswith(_KEY):
                continue
            device_id = DeviceId(key.removeprefix(_KEY))
            try:
                drain = drain_from_text(text)
            except (ValueError, KeyError, TypeError) as error:
                _log.warning("a kept drain cannot be read; its device stays closed", key=key, problem=str(error))
                drain = None
            self._registry.set_cordoned(device_id, cordoned=True)
            if drain is not None:
                self._enter(device_id, drain, drain.left(self._clock.now()))

    async def set_cordoned(self, device_id: DeviceId, *, cordoned: bool) -> None:
        """Closes a device to new sessions, or opens it again, which ends its drain. Asking again changes nothing.

        Raises:
            RequestFailure: STORE_UNAVAILABLE or DISK_FULL: it is so now, but not after a restart.
        """
        self._registry.set_cordoned(device_id, cordoned=cordoned)
        if not cordoned:
            self._drains.pop(device_id, None)
        await self._keep(device_id, "close" if cordoned else "open")

    async def drain(self, device_id: DeviceId, mode: DrainMode, patience: timedelta | None) -> None:
        """Closes a device and begins to empty it; asked again, the new mode and deadline hold.

        Args:
            device_id: A known device.
            mode: How.
            patience: After which what is left is stopped. None: never.

        Raises:
            RequestFailure: As for `set_cordoned`.
        """
        now, known = self._clock.now(), self._drains.get(device_id)
        drain = DeviceDrain(
            mode=mode,
            start_time=known.drain.start_time if known is not None and known.drain.session_count else now,
            deadline_time=None if patience is None else now + patience,
            patience=patience,
        )
        self._enter(device_id, drain, patience)
        await self._keep(device_id, "drain")

    async def run(self) -> None:
        """Empties devices until cancelled."""
        while True:
            if not self._drains:
                self._asked.clear()
                await self._asked.wait()
            await self._look()
            await asyncio.sleep(self._times.look_every.total_seconds())

    def _enter(self, device_id: DeviceId, drain: DeviceDrain, left: timedelta | None) -> None:
        deadline_s = None if left is None else self._clock.monotonic_s() + left.total_seconds()
        emptying = self._drains[device_id] = _Emptying(drain, deadline_s)
        self._tell(device_id, emptying, ())
        self._asked.set()

    async def _look(self) -> None:
        now_s = self._clock.monotonic_s()
        self._forget_arrived(now_s)
        for device_id, emptying in tuple(self._drains.items()):
            over = emptying.deadline_s is not None and now_s >= emptying.deadline_s
            if over:
                stayers: list[Staying] = []
                stopped = self._stop(device_id, emptying)
            else:
                stayers = self._move(device_id, now_s) if emptying.drain.mode is DrainMode.MOVE else []
                stopped = False
            self._tell(device_id, emptying, stayers)
            if stopped:
                await self._keep_quietly(device_id)

    def _move(self, device_id: DeviceId, now_s: float) -> list[Staying]:
        """Sends sessions on their way; tells why others stay."""
        stayers, failure, refused = [], moving_failure(device_id), set()
        for record in self._engine.live(device_id):
            why = staying(record)
            if why is None and record.workload not in refused and len(self._ways) < self._times.moving_at_once:
                if self._engine.move(record.id, failure):
                    self._ways[record.id] = now_s
                    continue
                refused.add(record.workload)
            if why is None and record.workload in refused:
                why = Staying.NO_ROOM
            if why is not None:
                stayers.append(why)
            if record.moving is not None:
                # After a restart of ours no room is kept for it any more.
                self._engine.move(record.id, record.moving)
        return stayers

    def _stop(self, device_id: DeviceId, emptying: _Emptying) -> bool:
        """Ends what is left, its outputs completed; tells whether anybody was left."""
        left = [one.id for one in self._engine.live(device_id) if one.state in _LIVE and one.id not in emptying.stopped]
        for session_id in left:
            self._engine.post(session_id, StopRequested(failure=stopping_failure(device_id)))
        if left:
            _log.warning("the deadline of a drain is over; stopping what is left", device=device_id, sessions=len(left))
            emptying.stopped.update(left)
            emptying.drain = replace(emptying.drain, stopped_count=emptying.drain.stopped_count + len(left))
        return bool(left)

    def _tell(self, device_id: DeviceId, emptying: _Emptying, stayers: list[Staying] | tuple[()]) -> None:
        # Those that have ended hold nothing, but something of them runs until their parts are joined.
        settling = sum(record.settling is not None for record in self._engine.live(device_id))
        count, before = self._engine.ledger.session_count(device_id) + settling, emptying.drain
        emptying.drain = replace(before, session_count=count, message=told(before.mode, count, stayers))
        if before.session_count and not count:
            _log.info("a device was emptied", device=device_id, stopped=before.stopped_count)
        self._registry.set_drain(device_id, emptying.drain)

    def _forget_arrived(self, now_s: float) -> None:
        longest_s = self._times.longest_way.total_seconds()
        for session_id, sent_s in tuple(self._ways.items()):
            record = self._engine.current(session_id)
            there = record is None or record.state.final or record.state is SessionState.RUNNING
            if there or now_s - sent_s >= longest_s:
                del self._ways[session_id]

    async def _keep(self, device_id: DeviceId, what: str) -> None:
        try:
            await self._engine.keep_finding(f"{_KEY}{device_id}", self._text(device_id))
        except StoreError as error:
            raise RequestFailure(
                reason=Reason.DISK_FULL if isinstance(error, StoreFullError) else Reason.STORE_UNAVAILABLE,
                message=f"Cannot {what} device {device_id} for good: that could not be kept. It holds until the "
                "balancer starts again. Try again when the balancer's store works; its log says what is wrong.",
            ) from error

    async def _keep_quietly(self, device_id: DeviceId) -> None:
        try:
            await self._engine.keep_finding(f"{_KEY}{device_id}", self._text(device_id))
        except StoreError as error:
            _log.warning("how a drain went is not kept over a restart", device=device_id, problem=str(error))

    def _text(self, device_id: DeviceId) -> str | None:
        entry, emptying = self._registry.get(device_id), self._drains.get(device_id)
        if emptying is None and (entry is None or not entry.cordoned):
            return None
        return drain_text(emptying.drain if emptying is not None else None)


def drain_text(drain: DeviceDrain | None) -> str:
    """Writes as JSON that a device is closed, and how it is being emptied. None: it is only closed."""
    value: dict[str, object] = {"version": _VERSION}
    if drain is not None:
        value["drain"] = {
            "mode": drain.mode.value,
            "start_time": drain.start_time.isoformat(),
            "deadline_time": None if drain.deadline_time is None else drain.deadline_time.isoformat(),
            "patience_s": None if drain.patience is None else drain.patience.total_seconds(),
            "stopped_count": drain.stopped_count,
        }
    return json.dumps(value, separators=(",", ":"))


def drain_from_text(text: str) -> DeviceDrain | None:
    """Reads what `drain_text` wrote.

    Raises:
        ValueError: It is something else, or of another version.
        KeyError: Something is missing in it.
        TypeError: Something has another form.
    """
    value = json.loads(text)
    if value["version"] != _VERSION:
        raise ValueError("it is of another version")
    drain = value.get("drain")
    if drain is None:
        return None
    deadline, patience_s = drain["deadline_time"], drain["patience_s"]
    return DeviceDrain(
        mode=DrainMode(drain["mode"]),
        start_time=datetime.fromisoformat(drain["start_time"]).astimezone(UTC),
        deadline_time=None if deadline is None else datetime.fromisoformat(deadline).astimezone(UTC),
        patience=None if patience_s is None else timedelta(seconds=patience_s),
        stopped_count=int(drain["stopped_count"]),
    )
