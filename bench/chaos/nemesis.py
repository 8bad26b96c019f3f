"""Carries out planned acts on a house, undoes what lasts when its time is over, and heals everything in the end."""

from __future__ import annotations

import os
import signal
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, TypeVar

from bench.chaos.history import Act, Snapshot
from bench.chaos.observer import session_view
from bench.chaos.work import KINDS
from gpu_balancer import Client, RequestFailure, RetryPolicy

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from bench.chaos.history import History, SeenProcess
    from bench.chaos.house import House
    from bench.chaos.plan import PlannedAct
    from bench.chaos.small_disks import SmallDisk
    from bench.chaos.work import Work
    from gpu_balancer.v1 import session_pb2

T = TypeVar("T")

_HURRIED = RetryPolicy(patience=timedelta(0))
_MOST_SESSIONS = 10
"""That live at once: more would measure the machine."""
_FARTHEST_S = 86_400.0
"""That the daemons' clock is set forwards or back: a day is less than anything is kept for."""
_MOVING_DRAINS = 0.7
"""Share of drains that move sessions, as against those that wait for them."""
_SETTLE_S = 60.0
_PASSING_STATES = frozenset({"QUEUED", "STARTING", "STOPPING"})
_PASSING = frozenset({"STALLED", "UNREACHABLE", "RESTARTING", "MOVING"})
"""Conditions of a session that is on its way to another state: somebody is going to do something about it."""
_GOES_ON_S = 4.0
"""In which whatever runs has told of further frames: progress comes every second, on a busy machine later."""


@dataclass(slots=True, kw_only=True)
class _Lasting:
    due_s: float
    began_s: float
    kind: str
    target: str
    undo: Callable[[], object]


class Nemesis:
    """Does harm to one house. Nothing that it does lasts beyond `heal`."""

    def __init__(
        self,
        house: House,
        history: History,
        work: Work,
        *,
        disks: Sequence[SmallDisk] = (),
        restart: session_pb2.RestartPolicy | None = None,
    ) -> None:
        """Prepares.

        Args:
            house: The victim.
            history: Gets every act.
            work: Makes further sessions.
            disks: That may be filled: the outputs', the state folder's. Without them, acts of that kind are left out.
            restart: The policy of sessions that it makes.
        """
        self._house, self._history, self._work, self._restart = house, history, work, restart
        self._disks = {disk.kind: disk for disk in disks}
        self._lasting: list[_Lasting] = []
        self._clients = ThreadPoolExecutor(16, "client")
        self._client = Client(house.address, retry_policy=_HURRIED, stream_policy=_HURRIED)
        self.skipped = 0
        """Acts that had no victim, or one that suffered already."""

    def run(self, acts: Iterable[PlannedAct]) -> int:
        """Carries acts out, each in its time; gives how many were done."""
        began_s, done = time.monotonic(), 0
        for act in acts:
            self._wait_until(began_s + act.at_s)
            if self._carry_out(act):
                done += 1
            else:
                self.skipped += 1
        return done

    def heal(self) -> None:
        """Undoes all that lasts and waits until every device is ready again."""
        for lasting in list(self._lasting):
            self._undo(lasting)
        self._house.heal()
        self._clients.shutdown()
        if self._house.process is None or self._house.process.poll() is not None:
            self._house.start()
        self._house.await_serving()
        self._house.await_known()
        with self._house.client() as client:
            for device in client.list_devices():
                client.update_device(device.name, cordoned=False)
                if device.name.removeprefix("devices/") in (self._house.gpus.ids if self._house.gpus else ()):
                    with suppress(RequestFailure):
                        client.probe_device(device.name)
        self._house.await_adopted(frozenset(), timeout_s=_SETTLE_S)

    def await_settled(self) -> None:
        """Waits until no session is on its way anywhere, as long as that may take, and watches for a while."""
        deadline_s = time.monotonic() + _SETTLE_S
        with self._house.client() as client:
            while time.monotonic() < deadline_s:
                views = [session_view(session) for session in client.list_sessions()]
                if not any(view.state in _PASSING_STATES or _PASSING.intersection(view.conditions) for view in views):
                    break
                time.sleep(0.2)
            self._look(client)
            time.sleep(_GOES_ON_S)
            self._look(client)

    def _look(self, client: Client) -> None:
        views = tuple(session_view(session) for session in client.list_sessions())
        self._history.healed.append(Snapshot(at_s=time.monotonic(), sessions=views, devices=()))

    def close(self) -> None:
        """Lets go of its connections."""
        self._clients.shutdown(wait=False, cancel_futures=True)
        self._client.close()

    def _wait_until(self, then_s: float) -> None:
        while True:
            now_s = time.monotonic()
            due = [lasting for lasting in self._lasting if lasting.due_s <= now_s]
            for lasting in due:
                self._undo(lasting)
            if now_s >= then_s:
                return
            soonest_s = min((lasting.due_s for lasting in self._lasting), default=then_s)
            time.sleep(max(0.0, min(then_s, soonest_s) - time.monotonic()))

    def _carry_out(self, act: PlannedAct) -> bool:
        return {
            "kill balancer": self._kill_balancer,
            "stop balancer": self._stop_balancer,
            "kill agent": self._kill_agent,
            "stop agent": self._stop_agent,
            "cut agent": self._cut_agent,
            "hold agent": self._cut_agent,
            "kill program": self._kill_processes,
            "kill shim": self._kill_processes,
            "kill shim and program": self._kill_processes,
            "stop program": self._stop_program,
            "cordon": self._close_device,
            "drain": self._close_device,
            "fill outputs": self._fill,
            "fill state": self._fill,
            "xid": self._strike,
            "set clock": self._set_clock,
            "hang up": self._hang_up,
            "create": self._create,
            "stop session": self._stop_session,
        }[act.kind](act)

    def _kill_balancer(self, act: PlannedAct) -> bool:
        if self._suffers("balancer"):
            return False
        self._house.kill_balancer()
        self._last(act, "balancer", self._house.start)
        return True

    def _stop_balancer(self, act: PlannedAct) -> bool:
        if self._suffers("balancer"):
            return False
        self._house.signal_balancer(signal.SIGSTOP)
        self._last(act, "balancer", lambda: self._house.signal_balancer(signal.SIGCONT))
        return True

    def _kill_agent(self, act: PlannedAct) -> bool:
        device = _one_of(sorted(self._house.devices), act)
        if device is None or self._house.signal_agent(device, signal.SIGKILL) is None:
            return False
        self._once(act, device)
        return True

    def _stop_agent(self, act: PlannedAct) -> bool:
        device = _one_of(sorted(self._house.devices), act)
        if device is None or self._suffers(device):
            return False
        pid = self._house.signal_agent(device, signal.SIGSTOP)
        if pid is None:
            return False
        self._last(act, device, lambda: _send(pid, signal.SIGCONT))
        return True

    def _cut_agent(self, act: PlannedAct) -> bool:
        device = _one_of(sorted(self._house.relays), act)
        if device is None or self._suffers(device):
            return False
        relay = self._house.relays[device]
        (relay.hold if act.kind == "hold agent" else relay.cut)()
        self._last(act, device, relay.mend)
        return True

    def _kill_processes(self, act: PlannedAct) -> bool:
        there = self._programs()
        victim = _one_of(there, act)
        if victim is None:
            return False
        attempt = [one for one in self._house.sighter.look().processes if one.session == victim.session]
        for process in attempt:
            if act.kind == "kill shim and program" or process.program is (act.kind == "kill program"):
                _send(process.pid, signal.SIGKILL)
        self._once(act, victim.session)
        return True

    def _stop_program(self, act: PlannedAct) -> bool:
        victim = _one_of(self._programs(), act)
        if victim is None or self._suffers(victim.session):
            return False
        _send(victim.pid, signal.SIGSTOP)
        self._last(act, victim.session, lambda: _send(victim.pid, signal.SIGCONT))
        return True

    def _close_device(self, act: PlannedAct) -> bool:
        device = _one_of(sorted(self._house.devices), act)
        if device is None or self._suffers(f"doors of {device}"):
            return False
        move = act.victim * 1000 % 1 < _MOVING_DRAINS
        if act.kind == "drain":
            self._ask(lambda: self._client.drain_device(device, move=move))
        else:
            self._ask(lambda: self._client.update_device(device, cordoned=True))
        # A balancer that is dead just then opens them when all is healed.
        self._last(
            act,
            f"doors of {device}",
            lambda: self._ask(lambda: self._client.update_device(device, cordoned=False)),
        )
        return True

    def _fill(self, act: PlannedAct) -> bool:
        disk = self._disks.get(act.kind)
        if disk is None or self._suffers(act.kind):
            return False
        disk.fill()
        self._last(act, act.kind, disk.empty)
        return True

    def _strike(self, act: PlannedAct) -> bool:
        gpus = self._house.gpus
        gpu = _one_of(gpus.ids, act) if gpus else None
        if gpus is None or gpu is None or self._suffers(f"driver of {gpu}"):
            return False
        gpus.strike(gpu, gpus.xids[int(act.victim * 1000) % len(gpus.xids)])
        self._last(act, f"driver of {gpu}", lambda: self._mend_gpu(gpu))
        return True

    def _mend_gpu(self, gpu: str) -> None:
        if self._house.gpus is not None:
            self._house.gpus.mend(gpu)
        self._ask(lambda: self._client.probe_device(gpu))

    def _set_clock(self, act: PlannedAct) -> bool:
        clock = self._house.clock
        if clock is None or self._suffers("clock"):
            return False
        clock.set_by((2 * act.victim - 1) * _FARTHEST_S)
        self._last(act, "clock", lambda: clock.set_by(0))
        return True

    def _hang_up(self, act: PlannedAct) -> bool:
        """Begins to watch and goes away in the middle of it."""
        leaving = Client(self._house.address, retry_policy=_HURRIED, stream_policy=_HURRIED)
        self._ask(lambda: deque(leaving.watch_sessions(), maxlen=0))
        self._last(act, "a client", leaving.close)
        return True

    def _create(self, act: PlannedAct) -> bool:
        if len({process.session for process in self._programs()}) >= _MOST_SESSIONS:
            return False
        kind = KINDS[int(act.victim * len(KINDS))]
        self._ask(lambda: self._work.create(self._client, kind, self._restart))
        self._once(act, kind)
        return True

    def _stop_session(self, act: PlannedAct) -> bool:
        asked = _one_of(self._work.asked, act)
        if asked is None:
            return False
        self._ask(lambda: self._client.stop_session(asked.name))
        self._once(act, asked.name)
        return True

    def _ask(self, request: Callable[[], object]) -> None:
        """Has a client ask, whether anybody answers or not; nothing here waits for it."""

        def asked() -> None:
            with suppress(RequestFailure, ValueError):
                request()

        self._clients.submit(asked)

    def _programs(self) -> list[SeenProcess]:
        there = [process for process in self._house.sighter.look().processes if process.program]
        return sorted(there, key=lambda process: (process.session, process.attempt))

    def _suffers(self, target: str) -> bool:
        return any(lasting.target == target for lasting in self._lasting)

    def _once(self, act: PlannedAct, target: str = "") -> None:
        now_s = time.monotonic()
        self._history.acts.append(Act(at_s=now_s, until_s=now_s, kind=act.kind, target=target))

    def _last(self, act: PlannedAct, target: str, undo: Callable[[], object]) -> None:
        now_s = time.monotonic()
        self._lasting.append(
            _Lasting(due_s=now_s + act.lasting_s, began_s=now_s, kind=act.kind, target=target, undo=undo)
        )

    def _undo(self, lasting: _Lasting) -> None:
        self._lasting.remove(lasting)
        lasting.undo()
        self._history.acts.append(
            Act(at_s=lasting.began_s, until_s=time.monotonic(), kind=lasting.kind, target=lasting.target)
        )


def _one_of(there: Sequence[T], act: PlannedAct) -> T | None:
    return there[int(act.victim * len(there))] if there else None


def _send(pid: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, number)
