"""A fake `libnvidia-ml.so.1` for tests: any list of unequal GPUs, told to the real nvidia-ml-py.

In the test's own process `preload` puts it where the bindings find it; for a daemon, `environment` is added to its
variables. `describe` may be called at any time: the library reads the description at every call. `report` has the
driver report an error of a card, once, and `change` has it tell something else of it.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import shutil
import subprocess
import tempfile
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

NOT_SUPPORTED = 3
GPU_IS_LOST = 15
RESET_REQUIRED = 16
DRIVER_NOT_LOADED = 9
LIBRARY_VERSION_MISMATCH = 18
UNKNOWN_ERROR = 999

TURING, AMPERE, ADA, HOPPER, BLACKWELL = 6, 7, 8, 9, 10

XID_EVENT, DOUBLE_BIT_EVENT, RECOVERY_EVENT = 0x8, 0x2, 0x8000
"""Types of events."""
THERMAL_SLOWDOWN, POWER_BRAKE = 0x40, 0x80
"""Reasons for clocks that are held down, both by the hardware."""

_SOURCE = Path(__file__).parent / "nvml" / "fake_nvml.c"
_CONFIG_VARIABLE = "FAKE_NVML_CONFIG"
_LIBRARY = "libnvidia-ml.so.1"


@dataclass(frozen=True, slots=True, kw_only=True)
class FakeProcess:
    """A process that uses a card."""

    pid: int
    encoder_utilization: int = 0
    decoder_utilization: int = 0
    encoder_sessions: int = 0
    memory_bytes: int = 256 << 20
    draws: bool = False

    def __str__(self) -> str:
        engines = f"{self.encoder_utilization}/{self.decoder_utilization}/{self.encoder_sessions}"
        return f"{self.pid}/{engines}/{self.memory_bytes}/{int(self.draws)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class FakeEvent:
    """Something that the driver reports of a card, once."""

    number: int
    type: int
    data: int

    def __str__(self) -> str:
        return f"{self.number}/{self.type}/{self.data}"


@dataclass(frozen=True, slots=True, kw_only=True)
class FakeGpu:
    """One card, as its driver tells of it. Architecture numbers are NVML's."""

    uuid: str
    name: str = "NVIDIA L4"
    architecture: int = ADA
    domain: int = 0
    bus: int = 0x65
    device: int = 0
    memory_total_bytes: int = 24 << 30
    memory_used_bytes: int = 0
    video_clock_mhz: int = 1770
    encoder_utilization: int = 0
    decoder_utilization: int = 0
    gpu_utilization: int = 0
    encoder_sessions: int = 0
    temperature: int = 40
    recovery_action: int = 0
    uncorrected_errors: int = 0
    remap_pending: int = 0
    remap_failed: int = 0
    retired_pending: int = 0
    clock_reasons: int = 0
    slowdown_temperature: int = 90
    """0: it does not tell, as newer cards."""
    shutdown_temperature: int = 95
    supported_events: int = 0xFF9F
    """As an H100 has them."""
    events: tuple[FakeEvent, ...] = ()
    hangs: tuple[str, ...] = ()
    """NVML symbols that do not return. "*": every call about the card."""
    processes: tuple[FakeProcess, ...] = ()
    errors: Mapping[str, int] = field(default_factory=dict)
    """NVML symbol -> error code it returns. "*": every call about the card; "recovery_action": that field alone."""


class FakeNvml:
    """The built library and the description it reads."""

    def __init__(self, *, library_folder: Path, config_path: Path) -> None:
        self.library_folder = library_folder
        self.config_path = config_path
        self.gpus: tuple[FakeGpu, ...] = ()
        """As described last."""
        self._driver_version = ""
        self._event_number = 0

    @classmethod
    def build(cls, folder: Path) -> FakeNvml:
        """Compiles the library, once per version of its source and user, and describes no GPU in `folder`."""
        fake = cls(library_folder=_built_library_folder(), config_path=folder / "fake-nvml.conf")
        fake.describe([])
        return fake

    def describe(
        self,
        gpus: Sequence[FakeGpu],
        *,
        driver_version: str = "570.124.06",
        errors: Mapping[str, int] | None = None,
    ) -> None:
        """Replaces the whole description at once; `errors` are those of calls about the whole machine."""
        self.gpus, self._driver_version = tuple(gpus), driver_version
        lines = [f"driver_version = {driver_version}", f"errors = {_errors_text(errors or {})}"]
        for gpu in gpus:
            lines.append("[gpu]")
            for gpu_field in fields(gpu):
                lines.append(f"{gpu_field.name} = {_text(getattr(gpu, gpu_field.name))}")
        part = self.config_path.with_suffix(".part")
        part.write_text("\n".join(lines) + "\n")
        part.replace(self.config_path)

    def change(self, uuid: str, **fields: object) -> None:
        """Has the driver tell something else of one card from now on."""
        gpus = [replace(gpu, **fields) if gpu.uuid == uuid else gpu for gpu in self.gpus]  # type: ignore[arg-type]
        self.describe(gpus, driver_version=self._driver_version)

    def report(self, uuid: str, xid: int, **fields: object) -> None:
        """Has the driver report an XID of one card, and tell what follows from it in the same moment."""
        self._event_number += 1
        event = FakeEvent(number=self._event_number, type=XID_EVENT, data=xid)
        (gpu,) = [gpu for gpu in self.gpus if gpu.uuid == uuid]
        self.change(uuid, events=(*gpu.events, event)[-32:], **fields)

    def fall_off_the_bus(self, uuid: str) -> None:
        """Has a card be lost as a real one is: one XID, and every call about it fails from then on."""
        self.report(uuid, 79, errors={"*": GPU_IS_LOST})

    @property
    def environment(self) -> dict[str, str]:
        """Variables under which another process finds this library and its description."""
        paths = [str(self.library_folder), *filter(None, [os.environ.get("LD_LIBRARY_PATH")])]
        return {"LD_LIBRARY_PATH": ":".join(paths), _CONFIG_VARIABLE: str(self.config_path)}

    def preload(self) -> Mapping[str, str]:
        """Loads it into this process, where the bindings then find it by its name.

        Returns:
            The variable to set for as long as its GPUs shall be seen; without it the library knows no driver.
        """
        ctypes.CDLL(str(self.library_folder / _LIBRARY), mode=ctypes.RTLD_GLOBAL)
        return {_CONFIG_VARIABLE: str(self.config_path)}


def _text(value: object) -> str:
    if isinstance(value, tuple):
        return " ".join(map(str, value))
    return _errors_text(value) if isinstance(value, dict) else str(value)


def _errors_text(errors: Mapping[str, int]) -> str:
    return " ".join(f"{symbol}:{code}" for symbol, code in errors.items())


def _built_library_folder() -> Path:
    digest = hashlib.sha256(_SOURCE.read_bytes()).hexdigest()[:16]
    folder = Path(tempfile.gettempdir()) / f"gpu-balancer-fake-nvml-{os.getuid()}-{digest}"
    library = folder / _LIBRARY
    if not library.exists():
        compiler = shutil.which("cc") or shutil.which("gcc")
        if compiler is None:
            raise RuntimeError("Cannot build the fake NVML library: no C compiler. Try installing gcc.")
        folder.mkdir(mode=0o700, exist_ok=True)
        part = folder / f"{_LIBRARY}.{os.getpid()}"
        options = ["-std=c11", "-D_GNU_SOURCE", "-Wall", "-Wextra", "-Werror", "-O1", "-shared", "-fPIC"]
        name = f"-Wl,-soname,{_LIBRARY}"  # under which the loader knows it once it is loaded
        subprocess.run([compiler, *options, name, "-o", str(part), str(_SOURCE)], check=True)
        part.replace(library)
    return folder
