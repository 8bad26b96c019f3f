"""NVIDIA GPUs as the driver's management library (NVML) tells of them.

Real cards leave calls out: data-centre cards without NVENC, cards under MIG, boards with unified memory. So every call
stands alone, and one that is not supported is an unknown value, not a failure. Three things are told apart because
their cures differ: no NVML or no driver (simply no GPUs), one lost card, and a container that lost all its cards at
once. Keys are UUIDs: an NVML index is neither stable nor a CUDA ordinal.

Calls block, and on a sick card for seconds: call from a thread, never from the event loop.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import pynvml

from agents.devices.identity import DeviceIdentity
from agents.devices.measurements import DeviceFault, Measurements
from agents.devices.nvml_processes import ForeignUse, read_foreign_use
from agents.devices.own_processes import own_processes
from agents.health.driver_words import CONTAINER_MESSAGE, error_fault
from gpu_balancer.hardware import model_row

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

    from gpu_balancer.runtime.clock import Clock

T = TypeVar("T")

_BYTES_PER_MIB = 1024 * 1024
_ABSENT = frozenset({pynvml.NVML_ERROR_LIBRARY_NOT_FOUND, pynvml.NVML_ERROR_DRIVER_NOT_LOADED})
UNKNOWN_VALUE = frozenset(
    {
        pynvml.NVML_ERROR_NOT_SUPPORTED,
        pynvml.NVML_ERROR_NO_PERMISSION,
        pynvml.NVML_ERROR_FUNCTION_NOT_FOUND,
        pynvml.NVML_ERROR_INVALID_ARGUMENT,
        pynvml.NVML_ERROR_ARGUMENT_VERSION_MISMATCH,
        pynvml.NVML_ERROR_NO_DATA,
        pynvml.NVML_ERROR_NOT_READY,
        pynvml.NVML_ERROR_DEPRECATED,
        pynvml.NVML_ERROR_NOT_FOUND,
    }
)
"""Errors by which a query says that this card or driver does not tell."""
_ARCHITECTURES = {
    pynvml.NVML_DEVICE_ARCH_KEPLER: "Kepler",
    pynvml.NVML_DEVICE_ARCH_MAXWELL: "Maxwell",
    pynvml.NVML_DEVICE_ARCH_PASCAL: "Pascal",
    pynvml.NVML_DEVICE_ARCH_VOLTA: "Volta",
    pynvml.NVML_DEVICE_ARCH_TURING: "Turing",
    pynvml.NVML_DEVICE_ARCH_AMPERE: "Ampere",
    pynvml.NVML_DEVICE_ARCH_ADA: "Ada",
    pynvml.NVML_DEVICE_ARCH_HOPPER: "Hopper",
    10: "Blackwell",  # named only in newer bindings
}


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuInspection:
    """The GPUs of a machine and what stood in the way of seeing more."""

    gpus: tuple[DeviceIdentity, ...]
    """In NVML's order."""
    faults: tuple[str, ...] = ()
    """Sentences for the operator about GPUs that are there and cannot be used."""


def inspect_gpus() -> GpuInspection:
    """Looks at every GPU that NVML shows.

    Returns:
        The GPUs. None at all where there is no NVML library or no loaded driver: that is no fault.
    """
    try:
        with _library():
            driver = _unless_failed(lambda: _text(pynvml.nvmlSystemGetDriverVersion()))
            return _inspect_all(int(pynvml.nvmlDeviceGetCount()), driver)
    except pynvml.NVMLError as error:
        if error.value in _ABSENT:
            return GpuInspection(gpus=())
        return GpuInspection(gpus=(), faults=(_system_fault(error),))


def list_gpus() -> tuple[DeviceIdentity, ...]:
    """Lists the GPUs that can be told by UUID, in NVML's order; none where there is no NVML."""
    return inspect_gpus().gpus


class GpuMeter:
    """Measures one GPU over and over. Holds NVML open, because opening it can take seconds; close it at the end."""

    def __init__(self, identity: DeviceIdentity, *, clock: Clock) -> None:
        """Opens nothing yet: the first measurement does."""
        self._identity = identity
        self._clock = clock
        self._open = False
        self._sampled_us = 0

    def measure(self, sessions: Collection[int] = ()) -> Measurements:
        """Reads the card once. Blocks.

        Args:
            sessions: Process ids of the live sessions' first processes.

        Returns:
            What is known; a call that the card does not support leaves None.

        Raises:
            DeviceFault: When the card does not answer: it is lost, say, or gone from this container.
        """
        try:
            handle = self._handle()
            return self._read(handle, sessions)
        except pynvml.NVMLError as error:
            self.close()  # the next measurement starts anew: a card may come back after a reset
            raise DeviceFault(_fault(f"GPU {self._identity.id}", error)) from error

    def close(self) -> None:
        """Lets NVML go. May be called twice."""
        if self._open:
            self._open = False
            _shut_down()

    def _handle(self) -> Any:
        if not self._open:
            pynvml.nvmlInit()
            self._open = True
        return pynvml.nvmlDeviceGetHandleByUUID(self._identity.id.encode())

    def _read(self, handle: Any, sessions: Collection[int]) -> Measurements:
        reading = _Reading()
        foreign = self._foreign_use(handle, sessions)
        measurements = Measurements(
            measure_time=self._clock.now(),
            encoder_utilization_percent=reading.take(lambda: pynvml.nvmlDeviceGetEncoderUtilization(handle)[0]),
            decoder_utilization_percent=reading.take(lambda: pynvml.nvmlDeviceGetDecoderUtilization(handle)[0]),
            compute_utilization_percent=reading.take(lambda: pynvml.nvmlDeviceGetUtilizationRates(handle).gpu),
            memory_used_mib=reading.take(lambda: pynvml.nvmlDeviceGetMemoryInfo(handle).used // _BYTES_PER_MIB),
            encoder_sessions=reading.take(lambda: pynvml.nvmlDeviceGetEncoderStats(handle)[0]),
            temperature_celsius=reading.take(lambda: _temperature_celsius(handle)),
            foreign_encoder_sessions=foreign.encoder_sessions,
            foreign_encoder_utilization_percent=foreign.encoder_percent,
            foreign_decoder_utilization_percent=foreign.decoder_percent,
            foreign_memory_used_mib=foreign.memory_mib,
        )
        reading.require_an_answer()
        return measurements

    def _foreign_use(self, handle: Any, sessions: Collection[int]) -> ForeignUse:
        own = own_processes(sessions)
        if own is None:
            return ForeignUse()
        use, self._sampled_us = read_foreign_use(handle, own, live=bool(sessions), since_us=self._sampled_us)
        return use


class _Reading:
    """Several queries of one card. "Unknown Error" on one of them is a quirk of the card; on all, the card is gone."""

    def __init__(self) -> None:
        self._answered = False
        self._unknown_error: pynvml.NVMLError | None = None

    def take(self, query: Callable[[], int]) -> int | None:
        try:
            value = _unless_unsupported(query)
        except pynvml.NVMLError as error:
            if error.value != pynvml.NVML_ERROR_UNKNOWN:
                raise
            self._unknown_error = error
            return None
        self._answered = self._answered or value is not None
        return None if value is None else int(value)

    def require_an_answer(self) -> None:
        if self._unknown_error is not None and not self._answered:
            raise self._unknown_error


def _inspect_all(count: int, driver: str | None) -> GpuInspection:
    gpus: list[DeviceIdentity] = []
    errors: list[tuple[str, pynvml.NVMLError]] = []
    for index in range(count):
        try:
            gpus.append(_inspect(index, driver))
        except pynvml.NVMLError as error:
            errors.append((f"GPU number {index}", error))
    unknown = [error for _, error in errors if error.value == pynvml.NVML_ERROR_UNKNOWN]
    if count > 1 and len(unknown) == count:
        return GpuInspection(gpus=(), faults=(CONTAINER_MESSAGE,))
    return GpuInspection(gpus=tuple(gpus), faults=tuple(_fault(name, error) for name, error in errors))


def _inspect(index: int, driver: str | None) -> DeviceIdentity:
    handle = pynvml.nvmlDeviceGetHandleByIndex(index)
    uuid = _text(pynvml.nvmlDeviceGetUUID(handle))
    # With its UUID the card can be named, so whatever else it does not tell leaves a gap only: its agent measures it
    # next and says what is wrong, which a card missing from the list could not.
    model = _unless_failed(lambda: _text(pynvml.nvmlDeviceGetName(handle))) or "unknown NVIDIA GPU"
    row = model_row(model)
    architecture = _unless_failed(lambda: _ARCHITECTURES.get(pynvml.nvmlDeviceGetArchitecture(handle)))
    memory = _unless_failed(lambda: pynvml.nvmlDeviceGetMemoryInfo(handle))
    return DeviceIdentity(
        id=uuid,
        kind="nvidia",
        model=model,
        architecture=architecture or (None if row is None else row.architecture),
        pci_address=_unless_failed(lambda: _pci_address(handle)),
        index=index,
        driver_version=driver,
        memory_total_mib=None if memory is None else memory.total // _BYTES_PER_MIB,
        encoder_engines=None if row is None else row.encoder_engines,
        decoder_engines=None if row is None else row.decoder_engines,
        video_clock_mhz=_unless_failed(lambda: int(pynvml.nvmlDeviceGetMaxClockInfo(handle, pynvml.NVML_CLOCK_VIDEO))),
        table_model=None if row is None else row.model,
    )


def _pci_address(handle: Any) -> str:
    # From the numbers, not from busId: older drivers print a domain of four digits, newer ones of eight.
    pci = pynvml.nvmlDeviceGetPciInfo(handle)
    return f"{pci.domain:08x}:{pci.bus:02x}:{pci.device:02x}.0"


def _temperature_celsius(handle: Any) -> int:
    # The call that replaces this one is missing in drivers before R575, and this one still works in later ones.
    return int(pynvml.nvmlDeviceGetTemperature(handle, pynvml.NVML_TEMPERATURE_GPU))


def _system_fault(error: pynvml.NVMLError) -> str:
    if error.value == pynvml.NVML_ERROR_UNKNOWN:
        return CONTAINER_MESSAGE
    return _fault("any GPU", error)


def _fault(name: str, error: pynvml.NVMLError) -> str:
    return error_fault(int(error.value), str(error)).message.replace("use it", f"use {name}", 1)


def _unless_unsupported(query: Callable[[], T]) -> T | None:
    try:
        return query()
    except pynvml.NVMLError as error:
        if error.value in UNKNOWN_VALUE:
            return None
        raise


def _unless_failed(query: Callable[[], T]) -> T | None:
    try:
        return query()
    except pynvml.NVMLError:
        return None


def _text(value: str | bytes) -> str:
    # nvidia-ml-py gives str or bytes, depending on its version.
    return value.decode(errors="replace") if isinstance(value, bytes) else value


@contextmanager
def _library() -> Iterator[None]:
    pynvml.nvmlInit()
    try:
        yield
    finally:
        _shut_down()


def _shut_down() -> None:
    try:
        pynvml.nvmlShutdown()
    except pynvml.NVMLError:
        return  # nothing can be done about a library that does not close, and nothing depends on it
