"""The golden probe: finds out by doing what a device can do, with which ffmpeg.

A listed encoder is not a working encoder, the newest ffmpeg may need a newer driver than there is, and cards of one
family differ. So everything is tried for real for one second, candidate by candidate, until an ffmpeg gives right
pictures. Where no single ffmpeg does all that any of them does, everything is tried with every one: a session runs in
one ffmpeg, so which one it takes depends on all that it needs. Trials are bounded in time and number at once; a card
whose driver hangs costs two deadlines, not one for each trial.
"""

from __future__ import annotations

import asyncio
import itertools
import shutil
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from agents.bounded_program import ProgramRun, run_bounded
from agents.devices.ffmpeg_builds import FfmpegSearch, FoundBuild, find_ffmpeg_builds
from agents.devices.probe_store import ProbeStore, TrialOutcome, outcome_key
from agents.devices.probe_trials import (
    Trial,
    compare_arguments,
    encode_arguments,
    failure_line,
    judge_comparison,
    sample_trial,
    trials_of,
)
from agents.pipelines.capability import Capability, FfmpegBuild
from agents.pipelines.job import Direction
from gpu_balancer.runtime.task_guard import TaskGuard

if TYPE_CHECKING:
    from collections.abc import Sequence

    from agents.devices.identity import DeviceIdentity

_TRIALS_AT_ONCE = 2
_MOST_HUNG_HARDWARE_TRIALS = 2
_SESSION_TRIES = 3
_SESSION_RETRY_S = 1.0
_STORE_NAME = "probe.json"
_WORK_NAME = "probe-work"


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeResult:
    """What a device was proved to do."""

    ffmpeg_builds: tuple[FfmpegBuild, ...]
    """In order of preference."""
    capabilities: tuple[Capability, ...]
    """Hardware first. The same thing may be there in hardware and in software, and for several builds; what works with
    none of them is there once."""
    fault_message: str | None
    """Why the device cannot work at all. None: it can."""


async def probe_device(
    identity: DeviceIdentity,
    candidates: Sequence[str],
    *,
    state_folder: Path,
    trial_timeout: timedelta = timedelta(seconds=20),
    refresh: bool = False,
) -> ProbeResult:
    """Finds out what a device can do, from kept outcomes where nothing has changed.

    Args:
        identity: The device.
        candidates: ffmpeg programs, best first: "bundled" or absolute paths.
        state_folder: The agent's own folder, which exists. Outcomes are kept there, and samples while it runs.
        trial_timeout: How long one run may take.
        refresh: Tries again what the device does, whatever is kept. On a GPU, software that went well is not in
            question and stays believed: it follows from the ffmpeg alone.

    Returns:
        What every trial came to, failed ones too.

    Raises:
        OSError: When the state folder is not writable or full.
    """
    search = await find_ffmpeg_builds(candidates, for_cuda=identity.kind == "nvidia")
    store = ProbeStore(state_folder / _STORE_NAME)
    kept = await asyncio.to_thread(store.load)
    if refresh:
        kept = _not_in_question(identity, search, kept)
    work = state_folder / _WORK_NAME
    await asyncio.to_thread(_make_empty, work)  # whatever an agent killed in the middle has left is gone with this
    try:
        async with TaskGuard("golden-probe") as guard:
            probe = _Probe(identity, search, work=work, timeout=trial_timeout, kept=kept, guard=guard)
            capabilities = await probe.capabilities(trials_of(identity.kind) if search.found else ())
    finally:
        await asyncio.to_thread(shutil.rmtree, work, ignore_errors=True)
    if probe.outcomes != kept:
        await asyncio.to_thread(store.save, probe.outcomes)
    return ProbeResult(
        ffmpeg_builds=tuple(found.build for found in search.found),
        capabilities=capabilities,
        fault_message=search.fault_message or _device_fault(identity, capabilities),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Encoded:
    """What an encoder made of the test picture, or why there is nothing."""

    path: Path | None
    message: str = ""


class _Probe:
    """One probing of one device: shares samples between trials and bounds how many run at once."""

    def __init__(
        self,
        identity: DeviceIdentity,
        search: FfmpegSearch,
        *,
        work: Path,
        timeout: timedelta,
        kept: dict[str, TrialOutcome],
        guard: TaskGuard,
    ) -> None:
        self.outcomes: dict[str, TrialOutcome] = {}
        self._identity = identity
        self._builds = search.found
        self._work = work
        self._timeout = timeout
        self._kept = kept
        self._guard = guard
        self._places = asyncio.Semaphore(_TRIALS_AT_ONCE)
        self._nvenc = asyncio.Lock()  # encoder sessions are few, and other agents of the host probe as well
        self._samples: dict[str, asyncio.Task[_Encoded]] = {}
        self._file_numbers = itertools.count()
        self._hung_hardware_trials = 0

    async def capabilities(self, trials: Sequence[Trial]) -> tuple[Capability, ...]:
        """Tries everything with as many builds as matter."""
        tasks = [self._guard.spawn(self._first_that_works(trial), name=trial.name) for trial in trials]
        first = [await task for task in tasks]
        if len({found.fingerprint for found in first if found is not None}) > 1:
            more = [
                self._guard.spawn(self._outcome(trial, found), name=f"{trial.name} with {found.build.path}")
                for trial in trials
                for found in self._builds
                if self._key(trial, found) not in self.outcomes
            ]
            for task in more:
                await task
        return tuple(capability for trial in trials for capability in self._told(trial))

    async def _first_that_works(self, trial: Trial) -> FoundBuild | None:
        for found in self._builds:
            if (await self._outcome(trial, found)).works:
                return found
        return None

    async def _outcome(self, trial: Trial, found: FoundBuild) -> TrialOutcome:
        key = self._key(trial, found)
        outcome = self._kept.get(key) or await self._try(trial, found)
        self.outcomes[key] = outcome
        return outcome

    def _key(self, trial: Trial, found: FoundBuild) -> str:
        return outcome_key(self._identity, found.fingerprint, trial.name)

    def _told(self, trial: Trial) -> list[Capability]:
        """Gives the builds with which a trial went well; where there is none, why not."""
        tried = [(found, outcome) for found in self._builds if (outcome := self.outcomes.get(self._key(trial, found)))]
        if works := [_capability(trial, found, outcome) for found, outcome in tried if outcome.works]:
            return works
        failures: dict[str, str] = {}
        for found, outcome in tried:
            failures.setdefault(outcome.message, found.build.version)  # the same from every build is said once
        told = [f"{version}: {message}" for message, version in failures.items()] if len(failures) > 1 else failures
        return [_capability(trial, self._builds[0], TrialOutcome(works=False, message="; ".join(told)))]

    async def _try(self, trial: Trial, found: FoundBuild) -> TrialOutcome:
        if trial.direction is Direction.DECODE:
            return await self._try_decode(trial, found)
        if not trial.hardware:
            return await self._judge_encoded(trial, found, await self._encoded_once(trial, found))
        async with self._nvenc:
            for _ in range(_SESSION_TRIES - 1):
                encoded = await self._encode(trial, found)
                if "out of memory" not in encoded.message:
                    break
                await asyncio.sleep(_SESSION_RETRY_S)
            else:
                encoded = await self._encode(trial, found)
        return await self._judge_encoded(trial, found, encoded)

    async def _try_decode(self, trial: Trial, found: FoundBuild) -> TrialOutcome:
        sample = await self._sample(trial)
        if sample.path is None:
            return TrialOutcome(works=False, message=f"no ffmpeg could make a sample: {sample.message}")
        nvdec = trial if trial.hardware else None
        run = await self._run(found, compare_arguments(str(sample.path), nvdec=nvdec), trial)
        verdict = judge_comparison(run.exit_code, run.output)
        implementation = None if trial.hardware else verdict.decoder
        return TrialOutcome(works=verdict.ok, message=verdict.message, implementation=implementation)

    async def _judge_encoded(self, trial: Trial, found: FoundBuild, encoded: _Encoded) -> TrialOutcome:
        if encoded.path is None:
            return TrialOutcome(works=False, message=encoded.message)
        run = await self._run(found, compare_arguments(str(encoded.path)), None)
        verdict = judge_comparison(run.exit_code, run.output)
        if verdict.ok and trial.bit_depth > 8 and not verdict.ten_bit:
            return TrialOutcome(works=False, message="10-bit encoding is not supported: it gave 8 bits")
        if not verdict.ok and "ecoder" in verdict.message and "not found" in verdict.message:
            return TrialOutcome(works=True)  # a build may encode what it cannot decode; then nobody here can tell
        message = "" if verdict.ok else f"what it encoded {verdict.message}"
        return TrialOutcome(works=verdict.ok, message=message)

    async def _sample(self, trial: Trial) -> _Encoded:
        """Gives a stream of a format from the first build that can make one."""
        encoder = sample_trial(trial.codec, trial.bit_depth)
        encoded = _Encoded(path=None, message="there is no ffmpeg")
        for found in self._builds:
            encoded = await self._encoded_once(encoder, found)
            if encoded.path is not None:
                break
        return encoded

    async def _encoded_once(self, trial: Trial, found: FoundBuild) -> _Encoded:
        """Encodes, or takes what was encoded for another trial: a software encoder's output is a decoder's sample."""
        key = f"{self._builds.index(found)}-{trial.name}"
        if key not in self._samples:
            self._samples[key] = self._guard.spawn(self._encode(trial, found), name=key)
        return await self._samples[key]

    async def _encode(self, trial: Trial, found: FoundBuild) -> _Encoded:
        path = self._work / f"{next(self._file_numbers)}.mkv"
        run = await self._run(found, encode_arguments(trial, str(path)), trial)
        if run.exit_code != 0:
            return _Encoded(path=None, message=failure_line(run.exit_code, run.output))
        return _Encoded(path=path)

    async def _run(self, found: FoundBuild, arguments: list[str], trial: Trial | None) -> ProgramRun:
        hardware = trial is not None and trial.hardware
        env = {"CUDA_VISIBLE_DEVICES": self._identity.id} if hardware else {}
        async with self._places:
            if hardware and self._hung_hardware_trials >= _MOST_HUNG_HARDWARE_TRIALS:
                return ProgramRun(exit_code=1, output="[error] not tried: the device hung in trials before this one")
            try:
                run = await run_bounded([found.build.path, *arguments], timeout=self._timeout, env=env)
            except OSError as error:
                return ProgramRun(exit_code=1, output=f"[error] {found.build.path} cannot be started: {error}")
            if run.timed_out and hardware:
                self._hung_hardware_trials += 1
            return run


def _capability(trial: Trial, found: FoundBuild, outcome: TrialOutcome) -> Capability:
    return Capability(
        codec=trial.codec,
        direction=trial.direction,
        bit_depth=trial.bit_depth,
        implementation=outcome.implementation or trial.implementation,
        works=outcome.works,
        hardware=trial.hardware,
        ffmpeg=found.build.path,
        message=outcome.message,
    )


def _device_fault(identity: DeviceIdentity, capabilities: tuple[Capability, ...]) -> str | None:
    own = [capability for capability in capabilities if capability.hardware == (identity.kind == "nvidia")]
    if not own or any(capability.works for capability in own):
        return None
    what = "encode or decode with GPU" if identity.kind == "nvidia" else "encode or decode on"
    cure = (
        "its driver with nvidia-smi and, in a container, NVIDIA_DRIVER_CAPABILITIES=compute,video"
        if identity.kind == "nvidia"
        else "another ffmpeg in [ffmpeg] candidates"
    )
    return f"Cannot {what} {identity.id}: {own[0].message}. Try {cure}."


def _not_in_question(
    identity: DeviceIdentity, search: FfmpegSearch, kept: dict[str, TrialOutcome]
) -> dict[str, TrialOutcome]:
    """Picks the outcomes that a device that is in question has no part in."""
    if identity.kind == "cpu":
        return {}
    software = [trial.name for trial in trials_of(identity.kind) if not trial.hardware]
    keys = {outcome_key(identity, found.fingerprint, name) for found in search.found for name in software}
    return {key: outcome for key, outcome in kept.items() if key in keys and outcome.works}


def _make_empty(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(mode=0o700)
