"""Whole daemons on machines with GPUs that are not there: a fake driver library, and an ffmpeg in place of engines.

Probing takes seconds per card, so one daemon probes for real and the others find what such a probe leaves behind; a
test holds the two together.
"""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from daemons import RunningDaemon, daemon_running

from agents.devices.ffmpeg_builds import find_ffmpeg_builds
from agents.devices.identity import DeviceIdentity
from agents.devices.probe_store import ProbeStore, TrialOutcome, outcome_key
from agents.devices.probe_trials import Trial, trials_of
from fakes import nvenc_ffmpeg
from fakes.nvml_library import FakeGpu, FakeNvml

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

DRIVER = "570.124.06"
REFUSED = "OpenEncodeSessionEx failed: unsupported device (2): (no details)"
NO_NVENC = ("h264_nvenc", "hevc_nvenc", "av1_nvenc")
BEFORE_ADA = ("h264_nvenc:10", "av1_nvenc", "av1_nvdec")
"""What Turing and Ampere lack."""
ADA = ("h264_nvenc:10",)
H264_ALONE = (
    *("h264_nvenc:10", "hevc_nvenc", "av1_nvenc"),
    *(f"{codec}_nvdec" for codec in ("hevc", "av1", "vp8", "vp9", "mpeg2", "mpeg4")),
)
"""All but the one format, for cards that are probed often."""


def uuid(number: int) -> str:
    """A GPU's UUID."""
    return f"GPU-{number:08x}-1b5d-4e0a-9c1f-0123456789ab"


@dataclass(slots=True, kw_only=True)
class Fleet:
    """A running daemon and its GPUs."""

    daemon: RunningDaemon
    nvml: FakeNvml
    gpus: tuple[FakeGpu, ...]
    folder: Path
    lacking: dict[str, list[str]]
    """By UUID, what cards never could."""

    def describe(self, *gpus: FakeGpu) -> None:
        """Has the driver tell something else of the cards from now on."""
        self.nvml.describe(gpus, driver_version=DRIVER)

    def mend(self) -> None:
        """Has all cards do again what they can."""
        nvenc_ffmpeg.change(self.folder, lacking=self.lacking)

    def break_card(self, uuid: str, message: str) -> None:
        """Has everything fail that touches a card."""
        nvenc_ffmpeg.change(self.folder, lacking=self.lacking, broken={uuid: message})

    def break_engines(self, uuid: str, what: Sequence[str]) -> None:
        """Has a card's engines fail at what they could do before."""
        nvenc_ffmpeg.change(self.folder, lacking={**self.lacking, uuid: [*self.lacking.get(uuid, ()), *what]})


@contextlib.contextmanager
def fleet_running(
    folder: Path,
    gpus: Sequence[FakeGpu],
    settings: str,
    *,
    lacking: Mapping[str, Sequence[str]],
    probed: bool = True,
) -> Iterator[Fleet]:
    """Starts a daemon on a machine with some GPUs, and ends it.

    Args:
        folder: An empty one.
        gpus: The cards, in NVML's order.
        settings: The daemon's, without [ffmpeg].
        lacking: By UUID, what a card cannot do, as `nvenc_ffmpeg.install` takes it.
        probed: Whether the cards were probed by an earlier daemon.
    """
    program = nvenc_ffmpeg.install(folder, lacking={name: list(what) for name, what in lacking.items()})
    nvml = FakeNvml.build(folder)
    nvml.describe(gpus, driver_version=DRIVER)
    if probed:
        asyncio.run(_keep_outcomes(folder / "state", program, gpus, lacking))
    settings = f'{settings}\n[ffmpeg]\ncandidates = ["{program}"]\n'
    with daemon_running(folder, settings, nvml.environment) as daemon:
        daemon.await_serving(timeout_s=60)
        abilities = {name: list(what) for name, what in lacking.items()}
        yield Fleet(daemon=daemon, nvml=nvml, gpus=tuple(gpus), folder=folder, lacking=abilities)


def kept_outcomes(gpu: FakeGpu, fingerprint: str, lacking: Sequence[str]) -> dict[str, TrialOutcome]:
    """What a probe of a card keeps, but for the names of software decoders."""
    identity = DeviceIdentity(id=gpu.uuid, kind="nvidia", model=gpu.name, driver_version=DRIVER)
    return {
        outcome_key(identity, fingerprint, trial.name): TrialOutcome(
            works=not _lacks(trial, lacking), message=REFUSED if _lacks(trial, lacking) else ""
        )
        for trial in trials_of("nvidia")
    }


async def fingerprint_of(program: Path) -> str:
    """How kept outcomes tell a program."""
    (found,) = (await find_ffmpeg_builds([str(program)])).found
    return found.fingerprint


async def _keep_outcomes(
    state: Path, program: Path, gpus: Sequence[FakeGpu], lacking: Mapping[str, Sequence[str]]
) -> None:
    fingerprint = await fingerprint_of(program)
    for gpu in gpus:
        agent = state / "agents" / gpu.uuid
        agent.mkdir(mode=0o700, parents=True)
        ProbeStore(agent / "probe.json").save(kept_outcomes(gpu, fingerprint, lacking.get(gpu.uuid, ())))


def _lacks(trial: Trial, lacking: Sequence[str]) -> bool:
    return trial.implementation in lacking or (
        trial.bit_depth > 8 and f"{trial.implementation}:{trial.bit_depth}" in lacking
    )
