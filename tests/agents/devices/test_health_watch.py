"""The watch over a GPU's health: a thread on the fake library, the event loop beside it, and what is kept."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from agents.devices.health_store import HealthStore
from agents.devices.health_watch import HealthTimes, HealthWatch
from agents.devices.identity import DeviceIdentity
from agents.devices.nvml_health import GpuHealthEye
from agents.health.device_health import HEALTHY, Engine
from agents.health.reading import Reading
from agents.health.record import Probed
from fakes.nvml_library import GPU_IS_LOST, FakeGpu, FakeNvml
from gpu_balancer.runtime.clock import SystemClock
from gpu_balancer.runtime.task_guard import TaskGuard

L4 = FakeGpu(uuid="GPU-00000000-0000-0000-0000-000000000001")
IDENTITY = DeviceIdentity(id=L4.uuid, kind="nvidia", model=L4.name)
NEVER = 10**6
QUICK = HealthTimes(
    interval_s=0.05, barred_interval_s=0.05, tick_s=0.02, patience_ticks=NEVER, first_patience_ticks=NEVER
)
"""Never takes a busy machine for a driver that hangs."""
IMPATIENT = replace(QUICK, patience_ticks=20, first_patience_ticks=20)
BOTH = frozenset(Engine)


class Watched:
    """A watch and a way to await what it sees."""

    def __init__(self, folder: Path, eye: object | None = None, times: HealthTimes = QUICK) -> None:
        self.watch = HealthWatch(
            IDENTITY,
            eye or GpuHealthEye(IDENTITY, control_node=folder / "none"),  # type: ignore[arg-type]
            store=HealthStore(folder / "health.json"),
            clock=SystemClock(),
            changed=self._changed,
            times=times,
        )
        self._news = asyncio.Event()

    def _changed(self) -> None:
        self._news.set()

    @property
    def told(self) -> tuple[str, str]:
        return self.watch.health.state.value, self.watch.health.reason

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(60):
            while not condition():
                self._news.clear()
                await self._news.wait()

    async def probe_passed(self, *, by_operator: bool = False) -> None:
        now_s = SystemClock().monotonic_s()
        await self.watch.note_probe(Probed(begin_s=now_s, passed=True, working_engines=BOTH, by_operator=by_operator))


@asynccontextmanager
async def watching(folder: Path, eye: object | None = None, times: HealthTimes = QUICK) -> AsyncIterator[Watched]:
    """Runs a watch."""
    watched = Watched(folder, eye, times)
    async with TaskGuard("test") as tasks:
        tasks.spawn_eternal(watched.watch.run(), name="health")
        yield watched


async def becomes(condition: Callable[[], object]) -> None:
    """Waits for what another thread does."""
    for _ in range(6000):
        if condition():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it did not become true within a minute")


async def kept(folder: Path, reason: str | None) -> None:
    """Waits until a reason is kept in the state folder. None: until nothing is."""

    def is_kept() -> bool:
        fault = HealthStore(folder / "health.json").load().kept
        return (fault.fault.reason if fault else None) == reason

    await becomes(is_kept)


async def test_an_error_of_the_driver_is_seen_without_waiting_for_a_look(fake_nvml: FakeNvml, tmp_path: Path) -> None:
    fake_nvml.describe([L4])
    eye = ListenedTo(GpuHealthEye(IDENTITY, control_node=tmp_path / "none"))
    never_again = HealthTimes(interval_s=3600, barred_interval_s=3600, tick_s=0.02, patience_ticks=NEVER)
    async with watching(tmp_path, eye, never_again) as watched:
        await asyncio.to_thread(eye.listening.wait)
        fake_nvml.report(L4.uuid, 46)
        await watched.until(lambda: watched.told == ("unhealthy", "XID_46"))


class ListenedTo:
    """An eye that says when it listens, and that ends its waits when told."""

    def __init__(self, eye: GpuHealthEye) -> None:
        self._eye = eye
        self.listening = threading.Event()
        self.closed = False

    def look(self) -> Reading:
        return self._eye.look()

    def wait(self, seconds: float) -> tuple[int, ...] | None:
        self.listening.set()
        # In slices, or the thread would outlive its test by an hour.
        while (xids := self._eye.wait(min(seconds, 0.1))) == ():
            if seconds < 1:
                break
        return xids

    def close(self) -> None:
        self._eye.close()
        self.closed = True


async def test_a_card_that_is_lost_stays_lost_over_a_new_agent_until_an_operators_probe(
    fake_nvml: FakeNvml, tmp_path: Path
) -> None:
    fake_nvml.describe([L4])
    async with watching(tmp_path) as watched:
        fake_nvml.fall_off_the_bus(L4.uuid)
        await watched.until(lambda: watched.told[0] == "lost")
        first = watched.watch.health
        await kept(tmp_path, first.reason)
    fake_nvml.change(L4.uuid, errors={})
    async with watching(tmp_path) as watched:
        assert (watched.watch.health.reason, watched.watch.health.since_time) == (first.reason, first.since_time)
        await becomes(lambda: not watched.watch.hopeless)
        await watched.probe_passed()
        assert watched.told[0] == "lost"
        await watched.probe_passed(by_operator=True)
        assert watched.watch.health == HEALTHY
        await kept(tmp_path, None)
    async with watching(tmp_path) as watched:
        assert watched.watch.health == HEALTHY


async def test_an_engine_that_is_out_of_use_is_so_for_the_next_agent_too(fake_nvml: FakeNvml, tmp_path: Path) -> None:
    fake_nvml.describe([L4])
    eye = ListenedTo(GpuHealthEye(IDENTITY, control_node=tmp_path / "none"))
    async with watching(tmp_path, eye) as watched:
        await asyncio.to_thread(eye.listening.wait)
        fake_nvml.report(L4.uuid, 47)
        fake_nvml.report(L4.uuid, 47)
        await watched.until(lambda: watched.told == ("degraded", "ENCODER_OUT_OF_USE"))
        await becomes((tmp_path / "health.json").exists)
    async with watching(tmp_path) as watched:
        assert watched.watch.health.faulty_engines == {Engine.ENCODE}
        await watched.probe_passed()
        assert watched.watch.health == HEALTHY


async def test_the_driver_is_let_go_while_the_card_takes_no_sessions(fake_nvml: FakeNvml, tmp_path: Path) -> None:
    """Else nobody could reset it."""
    fake_nvml.describe([L4])
    eye = Counted(GpuHealthEye(IDENTITY, control_node=tmp_path / "none"))
    async with watching(tmp_path, eye) as watched:
        fake_nvml.change(L4.uuid, recovery_action=1)
        await watched.until(lambda: watched.told == ("unhealthy", "RECOVERY_ACTION"))
        await becomes(lambda: eye.closed >= 3)
        assert watched.watch.hopeless
        fake_nvml.change(L4.uuid, recovery_action=0)
        await watched.until(lambda: "golden probe" in watched.watch.health.message)
        assert not watched.watch.hopeless
        await watched.probe_passed()
        assert watched.watch.health == HEALTHY


async def test_a_card_is_listened_to_before_it_is_back(fake_nvml: FakeNvml, tmp_path: Path) -> None:
    """What it reports in the first moment would else be lost."""
    fake_nvml.describe([L4])
    eye = ListenedTo(GpuHealthEye(IDENTITY, control_node=tmp_path / "none"))
    async with watching(tmp_path, eye, replace(QUICK, barred_interval_s=3600)) as watched:
        await asyncio.to_thread(eye.listening.wait)
        fake_nvml.report(L4.uuid, 46)
        await watched.until(lambda: watched.told == ("unhealthy", "XID_46"))
        await becomes(lambda: eye.closed)
        await watched.probe_passed()
        assert watched.watch.health == HEALTHY
        fake_nvml.report(L4.uuid, 119)
        await watched.until(lambda: watched.told == ("unhealthy", "XID_119"))


async def test_a_card_whose_driver_hangs_after_its_probe_is_not_back(fake_nvml: FakeNvml, tmp_path: Path) -> None:
    fake_nvml.describe([L4])
    times = replace(QUICK, barred_interval_s=3600, take_again_s=0.1)
    eye = ListenedTo(GpuHealthEye(IDENTITY, control_node=tmp_path / "none"))
    async with watching(tmp_path, eye, times) as watched:
        await asyncio.to_thread(eye.listening.wait)
        fake_nvml.report(L4.uuid, 46)
        await becomes(lambda: eye.closed)
        fake_nvml.change(L4.uuid, hangs=("nvmlDeviceGetFieldValues",))
        await watched.probe_passed()
        assert watched.told == ("unhealthy", "XID_46")
        fake_nvml.change(L4.uuid, hangs=())


class Counted:
    """An eye that counts how often it was closed."""

    def __init__(self, eye: GpuHealthEye) -> None:
        self._eye = eye
        self.look, self.wait = eye.look, eye.wait
        self.closed = 0

    def close(self) -> None:
        self.closed += 1
        self._eye.close()


async def test_a_driver_that_hangs_is_unhealthy_while_the_loop_goes_on_and_when_it_answers_a_probe_is_due(
    fake_nvml: FakeNvml, tmp_path: Path
) -> None:
    fake_nvml.describe([L4])
    async with watching(tmp_path, times=IMPATIENT) as watched:
        fake_nvml.change(L4.uuid, hangs=("nvmlDeviceGetFieldValues",))
        await watched.until(lambda: watched.told == ("unhealthy", "DRIVER_HANGS"))
        assert watched.watch.hopeless
        fake_nvml.change(L4.uuid, hangs=())
        await watched.until(lambda: "golden probe" in watched.watch.health.message)
        await watched.probe_passed()
        assert watched.watch.health == HEALTHY


async def test_an_agent_ends_although_its_driver_hangs(fake_nvml: FakeNvml, tmp_path: Path) -> None:
    fake_nvml.describe([L4])
    async with asyncio.timeout(60):
        async with watching(tmp_path, times=IMPATIENT) as watched:
            fake_nvml.change(L4.uuid, hangs=("*",))
            await watched.until(lambda: watched.told == ("unhealthy", "DRIVER_HANGS"))
    (thread,) = [thread for thread in threading.enumerate() if thread.name == "gpu health"]
    assert thread.daemon
    fake_nvml.change(L4.uuid, hangs=())
    await asyncio.to_thread(thread.join)


@pytest.mark.parametrize(
    "content", [b"", b"[", b"[]", b'{"version": 2}', b'{"version": 1, "kept": {"state": "ok"}, "engines_out": {}}']
)
async def test_a_file_that_cannot_be_read_is_nothing_kept(fake_nvml: FakeNvml, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "health.json").write_bytes(content)
    fake_nvml.describe([FakeGpu(uuid=L4.uuid, errors={"*": GPU_IS_LOST})])
    async with watching(tmp_path) as watched:
        assert watched.watch.health == HEALTHY
        await watched.until(lambda: watched.told == ("lost", "GPU_LOST"))
        await kept(tmp_path, "GPU_LOST")
