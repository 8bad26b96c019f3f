"""Looks at the health of one NVIDIA GPU through NVML, and waits for the errors that its driver reports.

Each query stands alone, because every generation leaves some out; what is unknown stays unknown. NVML is let go
whenever something is wrong: a card can be reset only while nobody holds it, and a new start shows that it is back.

Blocks, on a sick card for ever: it belongs to a thread of its own that nobody waits for.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import pynvml

from agents.devices.nvml import UNKNOWN_VALUE
from agents.health.reading import DriverError, Reading

if TYPE_CHECKING:
    from collections.abc import Callable

    from agents.devices.identity import DeviceIdentity

T = TypeVar("T")

_RECOVERY_ACTION_FIELD = 230  # NVML_FI_DEV_GET_GPU_RECOVERY_ACTION, named only in newer bindings
_XID = 0x8  # nvmlEventTypeXidCriticalError
_EVENTS = _XID | 0x2 | 0x2000 | 0x4000 | 0x8000
"""Also: uncorrected memory errors, poison that cannot be contained, a GPU that is gone, another recovery action. Of
these it is enough to know that something happened: the look that follows tells what."""
_MOST_EVENTS = 64
"""Taken in one go; a card in a storm of errors must not keep anybody from looking at it."""
_CONTROL_NODE = Path("/dev/nvidiactl")


class GpuHealthEye:
    """Looks and listens. For one thread."""

    def __init__(self, identity: DeviceIdentity, *, control_node: Path = _CONTROL_NODE) -> None:
        """Opens nothing yet: the first look does.

        Args:
            identity: The GPU.
            control_node: The driver's device file that every program opens which uses a GPU. Where it does not exist
                nothing follows from it.
        """
        self._identity = identity
        self._control_node = control_node
        self._was_permitted = False
        self._open = False
        self._events: Any = None

    def look(self) -> Reading:
        """Looks once. Never raises: an error is what there was to see."""
        if self._forbidden():
            return Reading(all_gpus_lost=True)
        try:
            return self._look()
        except pynvml.NVMLError as error:
            code, words = int(error.value), str(error)
            lost = code == pynvml.NVML_ERROR_UNKNOWN and self._all_unknown()
            self.close()
            return Reading(error=DriverError(code=code, words=words), all_gpus_lost=lost)

    def wait(self, seconds: float) -> tuple[int, ...] | None:
        """Waits for an event.

        Returns:
            The XIDs that were reported, in order; none of them when the time is over, or when something else was
            reported. None: this card cannot be listened to, and nothing was waited for.
        """
        if self._events is None:
            return None
        xids: list[int] = []
        timeout_ms = int(seconds * 1000)
        for _ in range(_MOST_EVENTS):
            try:
                event = pynvml.nvmlEventSetWait_v2(self._events, timeout_ms)
            except pynvml.NVMLError as error:
                if error.value != pynvml.NVML_ERROR_TIMEOUT:
                    # A card that is lost ends the wait at once, each time: only the look tells of it then.
                    self._forget_events()
                break
            if event.eventType == _XID:
                xids.append(int(event.eventData))
            timeout_ms = 0
        return tuple(xids)

    def close(self) -> None:
        """Lets NVML go. May be called twice."""
        self._forget_events()
        if self._open:
            self._open = False
            _ignoring_errors(pynvml.nvmlShutdown)

    def _look(self) -> Reading:
        if not self._open:
            pynvml.nvmlInit()
            self._open = True
            handle = self._handle()
            self._listen(handle)
        else:
            handle = self._handle()
        queries = _Queries()
        field = queries.take(lambda: _recovery_action(handle))
        errors = queries.take(lambda: int(pynvml.nvmlDeviceGetTotalEccErrors(handle, 1, 0)))  # uncorrected, volatile
        rows = queries.take(lambda: pynvml.nvmlDeviceGetRemappedRows(handle))
        pages = queries.take(lambda: bool(pynvml.nvmlDeviceGetRetiredPagesPendingStatus(handle)))
        reading = Reading(
            recovery_action=field,
            uncorrected_errors=errors,
            repair_pending=pages if rows is None else bool(rows[2]) or bool(pages),
            repair_failed=None if rows is None else bool(rows[3]),
            clock_reasons=queries.take(lambda: _clock_reasons(handle)),
            temperature_celsius=queries.take(lambda: int(pynvml.nvmlDeviceGetTemperature(handle, 0))),
            slowdown_celsius=queries.take(lambda: int(pynvml.nvmlDeviceGetTemperatureThreshold(handle, 1))),
            shutdown_celsius=queries.take(lambda: int(pynvml.nvmlDeviceGetTemperatureThreshold(handle, 0))),
        )
        queries.require_an_answer()
        return reading

    def _handle(self) -> Any:
        return pynvml.nvmlDeviceGetHandleByUUID(self._identity.id.encode())

    def _listen(self, handle: Any) -> None:
        try:
            wanted = _EVENTS & int(pynvml.nvmlDeviceGetSupportedEventTypes(handle))
            if not wanted & _XID:
                return
            self._events = pynvml.nvmlEventSetCreate()
            pynvml.nvmlDeviceRegisterEvents(handle, wanted, self._events)
        except pynvml.NVMLError as error:
            self._forget_events()
            if error.value not in UNKNOWN_VALUE:
                raise

    def _forget_events(self) -> None:
        events, self._events = self._events, None
        if events is not None:
            _ignoring_errors(lambda: pynvml.nvmlEventSetFree(events))

    def _forbidden(self) -> bool:
        """Whether this process may not open the driver's device file any more, as after a container lost its devices.

        What NVML holds open works on then, while nothing that is started can use a GPU.
        """
        try:
            os.close(os.open(self._control_node, os.O_RDWR | os.O_CLOEXEC))
        except PermissionError:
            return self._was_permitted
        except OSError:
            return False  # there is no such driver, or NVML tells better what is wrong with it
        self._was_permitted = True
        return False

    def _all_unknown(self) -> bool:
        """Whether every GPU, and not this one alone, answers "Unknown Error"."""
        if not self._open:
            return True  # it was said of the library as a whole
        try:
            count = int(pynvml.nvmlDeviceGetCount())
        except pynvml.NVMLError as error:
            return bool(error.value == pynvml.NVML_ERROR_UNKNOWN)
        return count > 1 and all(map(_is_unknown, range(count)))


class _Queries:
    """Several queries of one card. "Unknown Error" on one of them is a quirk of the card; on all, the card is gone."""

    def __init__(self) -> None:
        self._answered = False
        self._unknown_error: pynvml.NVMLError | None = None

    def take(self, query: Callable[[], T]) -> T | None:
        try:
            value = query()
        except pynvml.NVMLError as error:
            if error.value == pynvml.NVML_ERROR_UNKNOWN:
                self._unknown_error = error
            elif error.value not in UNKNOWN_VALUE:
                raise
            return None
        self._answered = self._answered or value is not None
        return value

    def require_an_answer(self) -> None:
        if self._unknown_error is not None and not self._answered:
            raise self._unknown_error


def _recovery_action(handle: Any) -> int | None:
    value = pynvml.nvmlDeviceGetFieldValues(handle, [_RECOVERY_ACTION_FIELD])[0]
    if value.nvmlReturn in UNKNOWN_VALUE:
        return None  # drivers before R570 do not know the field
    if value.nvmlReturn != pynvml.NVML_SUCCESS:
        raise pynvml.NVMLError(value.nvmlReturn)
    return int(value.value.uiVal)


def _clock_reasons(handle: Any) -> int:
    try:
        return int(pynvml.nvmlDeviceGetCurrentClocksEventReasons(handle))
    except pynvml.NVMLError as error:
        if error.value != pynvml.NVML_ERROR_FUNCTION_NOT_FOUND:
            raise
        return int(pynvml.nvmlDeviceGetCurrentClocksThrottleReasons(handle))  # its name before R535


def _is_unknown(index: int) -> bool:
    try:
        pynvml.nvmlDeviceGetUUID(pynvml.nvmlDeviceGetHandleByIndex(index))
    except pynvml.NVMLError as error:
        return bool(error.value == pynvml.NVML_ERROR_UNKNOWN)
    return False


def _ignoring_errors(call: Callable[[], object]) -> None:
    try:
        call()
    except pynvml.NVMLError:
        return  # nothing can be done about what does not close, and nothing depends on it
