"""Watches the health of a GPU for as long as its agent runs, whether or not anybody listens.

A thread looks at the card every second and listens for the driver's errors in between; everything it sees is handed to
the event loop, where the record is kept. The loop never waits for the thread, because a sick driver answers late or
never: that it does not answer is itself something seen. The thread is a daemon, so that not even the agent's end waits.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Protocol, TypeVar

from agents.devices.health_store import kept_content
from agents.health.device_health import DeviceHealth, HealthState
from agents.health.record import (
    HealthRecord,
    Moment,
    Probed,
    after_probe,
    after_reading,
    after_silence,
    after_xid,
    health_of,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from agents.devices.health_store import HealthStore
    from agents.devices.identity import DeviceIdentity
    from agents.health.reading import Reading
    from gpu_balancer.runtime.clock import Clock

T = TypeVar("T")

_LOG = logging.getLogger(__name__)
_LEVELS = {
    HealthState.OK: logging.INFO,
    HealthState.DEGRADED: logging.WARNING,
    HealthState.UNHEALTHY: logging.ERROR,
    HealthState.LOST: logging.ERROR,
}


class HealthEye(Protocol):
    """Looks at a device and listens to its driver.

    MUST be used by one thread at a time. `look` and `wait` may block for ever; they MUST NOT raise.
    """

    def look(self) -> Reading:
        """Looks once."""
        ...

    def wait(self, seconds: float) -> tuple[int, ...] | None:
        """Waits for the driver's errors and gives their XIDs. None: it cannot, and has not waited."""
        ...

    def close(self) -> None:
        """Lets go of the driver; the next look takes it again."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class HealthTimes:
    """How often to look, and how patient to be. Seconds."""

    interval_s: float = 1.0
    """Between two looks."""
    barred_interval_s: float = 2.0
    """The same while the device takes no sessions. The driver is let go in between, so that the card can be reset."""
    tick_s: float = 0.5
    """Between two checks that the driver answers."""
    patience_ticks: int = 7
    """Checks in a row without an answer after which the driver counts as silent. Counted, not measured: a machine that
    is too busy to check is too busy to answer."""
    first_patience_ticks: int = 60
    """The same before the first answer: a driver that wakes its cards takes its time."""
    take_again_s: float = 30.0
    """For the driver to be taken and asked once when a golden probe has passed."""


class HealthWatch:
    """Keeps the record of one device's health."""

    def __init__(
        self,
        identity: DeviceIdentity,
        eye: HealthEye,
        *,
        store: HealthStore,
        clock: Clock,
        changed: Callable[[], None],
        times: HealthTimes | None = None,
    ) -> None:
        """Begins with what was kept. Blocks for the disk.

        Args:
            identity: The device.
            eye: Looks at it.
            store: Keeps what bars sessions.
            clock: Tells when.
            changed: Called in the event loop when the health is another.
            times: How often to look. None: the usual.
        """
        self._identity = identity
        self._eye = eye
        self._store = store
        self._clock = clock
        self._changed = changed
        self._times = times or HealthTimes()
        self._record = store.load()
        self._health = health_of(self._record)
        self._saved = kept_content(self._record)
        self._answer_count = 0
        self._in_call = False
        self._stopping = threading.Event()
        self._awake = threading.Event()
        """Ends a pause of the thread."""
        self._watching = False
        self._holds = False
        """Whether the thread keeps the driver although the device is out of use."""
        self._awaiting_look: list[asyncio.Future[None]] = []

    @property
    def health(self) -> DeviceHealth:
        """How well the device is."""
        return self._health

    @property
    def hopeless(self) -> bool:
        """Whether no probe can bring the device back now: the driver itself says that it cannot work."""
        return self._record.present is not None

    async def note_probe(self, probed: Probed) -> None:
        """Notes the end of a golden probe that tried everything again; returns when what follows from it holds.

        A device that was out of use is back only once its driver is listened to again and a look has shown nothing:
        what is reported in the first moment of its use would else be lost.
        """
        if self._health.state.bars and self._watching and not await self._listened_to():
            return
        self._take(after_probe(self._record, probed))

    async def _listened_to(self) -> bool:
        """Has the driver taken again and kept, and gives whether that was done in time."""
        looked = asyncio.get_running_loop().create_future()
        self._awaiting_look.append(looked)
        self._holds = True
        self._awake.set()
        try:
            async with asyncio.timeout(self._times.take_again_s):
                await looked
        except TimeoutError:
            return False
        finally:
            self._awaiting_look.remove(looked)
            self._holds = bool(self._awaiting_look)
        return True

    async def run(self) -> None:
        """Watches until cancelled."""
        loop = asyncio.get_running_loop()
        thread = threading.Thread(target=self._look_on, args=(loop,), name="gpu health", daemon=True)
        thread.start()
        self._watching = True
        try:
            await self._keep_record()
        finally:
            self._watching = False
            self._stopping.set()
            self._awake.set()

    async def _keep_record(self) -> None:
        """Saves what must be kept, and notices a driver that does not answer."""
        answered, ticks = 0, 0
        while True:
            await asyncio.sleep(self._times.tick_s)
            await self._save()
            ticks = ticks + 1 if self._in_call and self._answer_count == answered else 0
            answered = self._answer_count
            patience = self._times.patience_ticks if answered else self._times.first_patience_ticks
            if ticks >= patience:
                seconds = ticks * self._times.tick_s
                self._take(after_silence(self._record, seconds, self._now()))

    async def _save(self) -> None:
        record, content = self._record, kept_content(self._record)
        if content == self._saved:
            return
        try:
            await asyncio.to_thread(self._store.save, record)
        except OSError as error:
            _LOG.warning("Cannot keep what is wrong with %s over a restart: %s", self._identity.id, error)
            return  # and tries again
        self._saved = content

    def _take(self, record: HealthRecord) -> None:
        self._record = record
        before, self._health = self._health, health_of(record)
        if self._health != before:
            state = self._health.state
            told = self._health.message or "nothing is known against it any more"
            _LOG.log(_LEVELS[state], "Device %s is %s: %s", self._identity.id, state.value, told)
            self._changed()

    def _now(self) -> Moment:
        return Moment(time=self._clock.now(), monotonic_s=self._clock.monotonic_s())

    def saw(self, reading: Reading, *, held: bool = False) -> None:
        """Notes a look.

        Args:
            reading: What it showed.
            held: Whether the driver is held since, and so listened to.
        """
        self._take(after_reading(self._record, reading, self._now()))
        for looked in self._awaiting_look if held else ():
            if not looked.done():
                looked.set_result(None)

    def heard(self, xid: int) -> None:
        """Notes an error that the driver reported."""
        _LOG.warning("The driver of %s reports XID %d", self._identity.id, xid)
        self._take(after_xid(self._record, xid, self._now()))

    # ------------------------------------------------------------------------------------------------ in the thread

    def _look_on(self, loop: asyncio.AbstractEventLoop) -> None:
        while not self._stopping.is_set():
            held = self._holds
            reading = self._called(self._eye.look)
            if not _in_loop(loop, partial(self.saw, reading, held=held)):
                break
            if self._health.state.bars and not held:
                self._called(self._eye.close)
                self._pause(self._times.barred_interval_s)
                continue
            xids = self._called(lambda: self._eye.wait(self._times.interval_s))
            if xids is None:
                self._pause(self._times.interval_s)
            for xid in xids or ():
                _in_loop(loop, partial(self.heard, xid))
        self._called(self._eye.close)

    def _pause(self, seconds: float) -> None:
        self._awake.wait(seconds)
        self._awake.clear()

    def _called(self, call: Callable[[], T]) -> T:
        self._in_call = True
        result = call()
        self._answer_count += 1
        self._in_call = False
        return result


def _in_loop(loop: asyncio.AbstractEventLoop, call: Callable[[], None]) -> bool:
    """Has something done in the loop's thread. False: there is no loop any more."""
    try:
        loop.call_soon_threadsafe(call)
    except RuntimeError:
        return False
    return True
