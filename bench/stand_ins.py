"""What a machine may lack that benchmarks want: GPUs that fall ill when told to, and a wall clock that can be set.

Both are the tests' own (`tests/fakes`), built with a C compiler. Nothing of the machine itself is changed: the clock is
that of the benchmark's daemons alone.
"""

from __future__ import annotations

import asyncio
import sys
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agents.health.xids import XID_TABLE, XidOutcome, xid_row

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_TESTS = Path(__file__).resolve().parents[1] / "tests"
_SICK = "cuInit(0) failed -> CUDA_ERROR_UNKNOWN: unknown error"
_GPU_IS_LOST = 15


def _tests_importable() -> None:
    for folder in (_TESTS, _TESTS / "process"):
        if str(folder) not in sys.path:
            sys.path.append(str(folder))


class StandInGpus:
    """GPUs of one house: a driver library that tells of them, and an ffmpeg that does their work in software."""

    def __init__(self, folder: Path, models: Mapping[str, str], *, lacking: Sequence[str]) -> None:
        """Makes them, well.

        Args:
            folder: For what they are made of.
            models: Name of each one's model, by its UUID.
            lacking: What they cannot, as `fakes.nvenc_ffmpeg` takes it: the less they can, the sooner a probe of
                theirs ends.

        Raises:
            RuntimeError: When there is no C compiler.
        """
        _tests_importable()
        from fakes import nvenc_ffmpeg
        from fakes.nvml_library import FakeGpu, FakeNvml

        self._folder, self._change = folder, nvenc_ffmpeg.change
        self.ids = tuple(models)
        self.xids = tuple(sorted(xid for row in XID_TABLE for xid in row.xids))
        self._lacking = {gpu: list(lacking) for gpu in models}
        self._broken: dict[str, str] = {}
        self.program = nvenc_ffmpeg.install(folder, lacking=self._lacking)
        self._nvml: Any = FakeNvml.build(folder)
        self._nvml.describe(
            [FakeGpu(uuid=gpu, bus=number, name=model) for number, (gpu, model) in enumerate(models.items(), 1)]
        )

    @property
    def environment(self) -> Mapping[str, str]:
        """Variables under which daemons see them."""
        environment: Mapping[str, str] = self._nvml.environment
        return environment

    def keep_probe_results(self, agents: Path) -> None:
        """Writes down what a golden probe of them finds, so that they are ready at once.

        Args:
            agents: The folder of the agents' state folders.
        """
        _tests_importable()
        from gpu_fleet import fingerprint_of, kept_outcomes

        from agents.devices.probe_store import ProbeStore

        fingerprint = asyncio.run(fingerprint_of(self.program))
        for gpu in self._nvml.gpus:
            folder = agents / gpu.uuid
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            ProbeStore(folder / "probe.json").save(kept_outcomes(gpu, fingerprint, self._lacking[gpu.uuid]))

    def strike(self, gpu: str, xid: int, *, times: int = 1, works: bool = False) -> None:
        """Has the driver report an XID of one.

        Args:
            gpu: Which.
            xid: The number.
            times: How often it is reported.
            works: Whether its engines work on. Otherwise they fail until it is mended.
        """
        if not works:
            self.break_engines(gpu)
        for _ in range(times):
            self._nvml.report(
                gpu, xid, **({"errors": {"*": _GPU_IS_LOST}} if xid_row(xid).outcome is XidOutcome.LOST else {})
            )

    def break_engines(self, gpu: str, message: str = _SICK) -> None:
        """Makes all that one does in hardware fail with ffmpeg's words for it, until it is mended."""
        self._broken[gpu] = message
        self._change(self._folder, lacking=self._lacking, broken=self._broken)

    def tell(self, gpu: str, **fields: Any) -> None:
        """Has the driver tell something else of one: fields of `fakes.nvml_library.FakeGpu`."""
        self._nvml.change(gpu, **fields)

    def mend(self, gpu: str) -> None:
        """Makes one well again; whoever put it aside must probe it."""
        self._broken.pop(gpu, None)
        self._change(self._folder, lacking=self._lacking, broken=self._broken)
        self._nvml.change(gpu, errors={}, events=(), hangs=(), recovery_action=0, uncorrected_errors=0)


class HouseClock:
    """The wall clock of a house's daemons."""

    def __init__(self, folder: Path) -> None:
        """Makes it, right.

        Args:
            folder: For what it is made of.

        Raises:
            RuntimeError: When there is no C compiler.
        """
        _tests_importable()
        from fakes.settable_clock import SettableClock

        self._clock = SettableClock(folder)

    @property
    def environment(self) -> Mapping[str, str]:
        """Variables under which daemons have it."""
        environment: Mapping[str, str] = self._clock.environment
        return environment

    def set_by(self, seconds: float) -> None:
        """Sets it this far off the machine's."""
        self._clock.set_by(timedelta(seconds=seconds))


def stand_in_gpus(folder: Path, models: Mapping[str, str], *, lacking: Sequence[str]) -> StandInGpus | None:
    """Makes GPUs as `StandInGpus` does. None: none are wanted, or nothing can be compiled here."""
    with suppress(RuntimeError):
        return StandInGpus(folder, models, lacking=lacking) if models else None
    return None


def house_clock(folder: Path) -> HouseClock | None:
    """Makes a clock. None: nothing can be compiled here."""
    with suppress(RuntimeError):
        return HouseClock(folder)
    return None
