"""A fake `libnvidia-ml.so.1` for tests: any list of unequal GPUs, told to the real nvidia-ml-py.

In the test's own process `preload` puts it where the bindings find it; for a daemon, `environment` is added to its
variables. `describe` may be called at any time: the library reads the description at every call.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import shutil
import subprocess
import tempfile
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

NOT_SUPPORTED = 3
GPU_IS_LOST = 15
RESET_REQUIRED = 16
LIBRARY_VERSION_MISMATCH = 18
UNKNOWN_ERROR = 999

TURING, AMPERE, ADA, HOPPER, BLACKWELL = 6, 7, 8, 9, 10

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
    processes: tuple[FakeProcess, ...] = ()
    errors: Mapping[str, int] = field(default_factory=dict)
    """NVML symbol -> error code it returns. "*": every call about the card; "recovery_action": that field alone."""


class FakeNvml:
    """The built library and the description it reads."""

    def __init__(self, *, library_folder: Path, config_path: Path) -> None:
        self.library_folder = library_folder
        self.config_path = config_path

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
        lines = [f"driver_version = {driver_version}", f"errors = {_errors_text(errors or {})}"]
        for gpu in gpus:
            lines.append("[gpu]")
            for gpu_field in fields(gpu):
                lines.append(f"{gpu_field.name} = {_text(getattr(gpu, gpu_field.name))}")
        part = self.config_path.with_suffix(".part")
        part.write_text("\n".join(lines) + "\n")
        part.replace(self.config_path)

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
