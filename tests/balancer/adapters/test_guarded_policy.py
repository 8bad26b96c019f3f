"""Whatever a stranger's policy does, a session is placed, soon, and the decision says who decided and why."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import pytest
import structlog
from domain.devices import gpu, ladder

from balancer.adapters.guarded_policy import SAME_FAULT_PAUSE, GuardedPolicy
from balancer.adapters.policy_worker import PolicyWorker
from balancer.domain.decision import PlacementSettings
from balancer.domain.device import Utilization
from balancer.domain.ids import DeviceId, SessionId
from balancer.domain.ledger import Ledger
from balancer.domain.policies import Candidate, Choice, FallingBack, IndifferentPolicy, LeastWeightedLoad
from balancer.placer import PlacementRules, Placer
from fakes.device_news import FakeDeviceNews

ONE, TWO = DeviceId("GPU-1"), DeviceId("GPU-2")
VIEWS = (gpu(device_id=ONE), gpu(device_id=TWO))
PATIENT = timedelta(seconds=30)
"""For policies that answer: however busy the machine is, they are not at fault."""
IMPATIENT = timedelta(milliseconds=20)
"""For policies that never answer."""
PATIENT_ENOUGH = timedelta(milliseconds=250)
"""For policies that answer, and then do not any more."""


class Stranger(IndifferentPolicy):
    """Chooses the second device, where the default would take the first, unless it is told to do otherwise."""

    name = "stranger"

    def __init__(self, choose: Callable[..., Any] | None = None) -> None:
        self.chosen: Callable[..., Any] = choose or (lambda candidates: Choice(device_id=TWO, scores={ONE: 2, TWO: 1}))
        self.threads: set[threading.Thread] = set()

    def choose(self, candidates: Any, workload: Any) -> Any:
        self.threads.add(threading.current_thread())
        return self.chosen(candidates)


class HandClock:
    """A clock that is moved by hand."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def monotonic_s(self) -> float:
        return self.now_s


@dataclass
class Guarded:
    """A guarded policy in a placer with two devices."""

    policy: Any
    timeout: timedelta = PATIENT
    faults: list[tuple[str, str]] = field(default_factory=list)
    clock: HandClock = field(default_factory=HandClock)

    def __post_init__(self) -> None:
        self.guard = GuardedPolicy(
            self.policy,
            PolicyWorker("ours"),
            name="ours",
            timeout=self.timeout,
            default=LeastWeightedLoad(),
            on_fault=lambda policy, kind: self.faults.append((policy, kind.value)),
            clock=self.clock,  # type: ignore[arg-type]
        )
        rules = PlacementRules(policy=self.guard, settings=PlacementSettings(), host_capacity={})
        self.placer = Placer(rules, FakeDeviceNews(*VIEWS), Ledger())

    def place(self) -> tuple[str | None, str, str]:
        decision = self.placer.place(SessionId("s"), ladder())
        return decision.device_id, decision.policy, decision.policy_fault


@pytest.fixture
def log() -> Iterator[list[Any]]:
    with structlog.testing.capture_logs() as lines:
        yield lines


def raising(error: BaseException) -> Callable[..., Any]:
    def choose(_: object) -> Any:
        raise error

    return choose


class Unspeakable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("not even this")


async def awaited(*_: object) -> Choice:
    return Choice(device_id=TWO, scores={})


class HostileScores(dict[DeviceId, int]):
    def __contains__(self, _: object) -> bool:
        raise KeyError("hostile")


def test_a_sound_policy_decides_itself_in_a_thread_of_its_own() -> None:
    house = Guarded(Stranger())
    assert house.place() == (TWO, "ours", "")
    assert house.placer.consider(ladder()).verdicts[0].score == 2
    assert [thread.name for thread in house.policy.threads] == ["policy ours"]
    assert house.faults == []
    assert isinstance(house.guard, FallingBack)
    assert not isinstance(LeastWeightedLoad(), FallingBack)


@pytest.mark.parametrize(
    ("choose", "kind", "told"),
    [
        (raising(ZeroDivisionError("by zero")), "raised", "It raised ZeroDivisionError: by zero."),
        (raising(SystemExit(3)), "raised", "It raised SystemExit: 3."),
        (raising(KeyboardInterrupt()), "raised", "It raised KeyboardInterrupt: ."),
        (raising(Unspeakable()), "raised", "It raised Unspeakable."),
        (raising(ValueError("a\n\x1b[31mb")), "raised", "It raised ValueError: a  [31mb."),
        (raising(ValueError("x" * 10**6)), "raised", f"It raised ValueError: {'x' * 188}…."),
        (awaited, "raised", "It raised TypeError: nobody awaits it; try without async."),
        (lambda _: None, "wrong_answer", "It answered with nothing, not with a Choice."),
        (lambda _: ONE, "wrong_answer", "It answered with a str, not with a Choice."),
        (lambda _: Choice(device_id=DeviceId("GPU-9"), scores={}), "unknown_device", "It chose 'GPU-9', which is no"),
        (lambda _: Choice(device_id=7, scores={}), "unknown_device", "It chose 7, which is no candidate."),  # type: ignore[arg-type]
        (lambda _: Choice(device_id=TWO, scores=[1]), "absurd_scores", "It gave scores as a list, not"),  # type: ignore[arg-type]
        (lambda _: Choice(device_id=TWO, scores={ONE: 0.5}), "absurd_scores", "It gave GPU-1 the score 0.5, which"),  # type: ignore[dict-item]
        (lambda _: Choice(device_id=TWO, scores={ONE: True}), "absurd_scores", "It gave GPU-1 the score True, which"),
        (lambda _: Choice(device_id=TWO, scores={TWO: 1 << 63}), "absurd_scores", "It gave GPU-2 the score of 64 bits"),
        (lambda _: Choice(device_id=TWO, scores={TWO: -(1 << 10**6)}), "absurd_scores", "the score of 1000001 bits"),
        (lambda _: Choice(device_id=TWO, scores=HostileScores()), "raised", "It raised KeyError: 'hostile'."),
    ],
)
def test_the_default_decides_in_place_of_a_policy_that_answers_nonsense(
    choose: Callable[..., Any], kind: str, told: str, log: list[Any]
) -> None:
    house = Guarded(Stranger(choose))
    device, policy, fault = house.place()
    assert (device, policy) == (ONE, "least_weighted_load")
    assert told in fault
    assert house.faults == [("ours", kind)]
    (line,) = log
    assert (line["log_level"], line["policy"], line["call"], line["kind"]) == ("error", "ours", "choose", kind)
    assert line["problem"] == fault
    house.policy.chosen = Stranger().chosen
    assert house.place() == (TWO, "ours", ""), "one fault costs one decision"


def test_scores_that_were_not_given_are_no_fault_and_those_of_others_are_left_out() -> None:
    house = Guarded(Stranger(lambda _: Choice(device_id=TWO, scores={TWO: 5, DeviceId("GPU-9"): 1})))
    decision = house.placer.consider(ladder())
    assert [verdict.score for verdict in decision.verdicts] == [None, 5]
    assert house.faults == []


def test_a_policy_that_hangs_is_out_of_use_from_then_on(log: list[Any]) -> None:
    released = threading.Event()
    house = Guarded(Stranger(lambda _: released.wait()), timeout=IMPATIENT)
    device, policy, fault = house.place()
    assert (device, policy) == (ONE, "least_weighted_load")
    assert fault == "It did not answer within 20 ms, and is out of use until the settings are read again."
    house.policy.chosen = Stranger().chosen
    assert house.place() == (
        ONE,
        "least_weighted_load",
        "It hung before, and is out of use until the settings are read again.",
    )
    assert house.faults == [("ours", "hung"), ("ours", "out_of_use")]
    assert [line["kind"] for line in log] == ["hung"]
    (thread,) = house.policy.threads
    released.set()
    thread.join(30)
    assert not thread.is_alive(), "an abandoned thread ends when its call does"


class Listener(Stranger):
    """Hears everything, and does as it is told then."""

    def __init__(self, then: Callable[[str], Any]) -> None:
        super().__init__()
        self.then = then
        self.heard: list[str] = []
        self.measured = threading.Event()

    def _hear(self, hook: str) -> None:
        self.heard.append(hook)
        self.then(hook)

    def on_settings(self, settings: Any) -> None:
        self._hear("on_settings")

    def on_devices(self, devices: Any) -> None:
        self._hear("on_devices")

    def on_measured(self, device_id: Any, utilization: Any) -> None:
        self.measured.set()
        self._hear("on_measured")

    def on_session_created(self, session_id: Any, workload: Any) -> None:
        self._hear("on_session_created")

    def on_session_placed(self, session_id: Any, device_id: Any, workload: Any) -> None:
        self._hear("on_session_placed")

    def on_session_ended(self, session_id: Any) -> None:
        self._hear("on_session_ended")


ALL_HOOKS = ["on_settings", "on_devices", "on_session_created", "on_session_placed", "on_measured", "on_session_ended"]


def tell_everything(house: Guarded) -> None:
    house.place()
    house.placer.measured(ONE, Utilization(encoder_percent=3))
    if isinstance(house.policy, Listener) and ("ours", "hung") not in house.faults:
        assert house.policy.measured.wait(30), "it is told of measurements when nothing else is asked"
    house.placer.ended(SessionId("s"))


def test_a_policy_hears_everything_in_order() -> None:
    house = Guarded(Listener(lambda _: None))
    tell_everything(house)
    assert house.policy.heard == ALL_HOOKS
    assert house.faults == []


def test_hooks_that_raise_are_counted_and_the_policy_still_decides(log: list[Any]) -> None:
    house = Guarded(Listener(lambda hook: 1 // 0))
    assert house.place() == (TWO, "ours", "")
    tell_everything(house)
    assert house.policy.heard == ALL_HOOKS[:4] + ALL_HOOKS[2:]
    assert {kind for _, kind in house.faults} == {"raised"}
    assert len(house.faults) == len(house.policy.heard)
    assert [(line["call"], line["alike_not_logged"]) for line in log] == [("on_settings", 0)]


def test_hooks_that_would_have_to_be_awaited_are_told_instead_of_never_running(log: list[Any]) -> None:
    class Awaited(Stranger):
        async def on_session_created(self, *_: Any) -> None:  # type: ignore[override]
            raise AssertionError

    house = Guarded(Awaited())
    assert house.place() == (TWO, "ours", "")
    assert house.faults == [("ours", "raised")]
    assert [(line["call"], line["problem"]) for line in log] == [
        ("on_session_created", "It raised TypeError: nobody awaits it; try without async.")
    ]


@pytest.mark.parametrize("hook", ALL_HOOKS)
def test_a_hook_that_hangs_puts_the_policy_out_of_use(hook: str) -> None:
    released = threading.Event()
    house = Guarded(Listener(lambda called: released.wait() if called == hook else None), timeout=PATIENT_ENOUGH)
    tell_everything(house)
    assert ("ours", "hung") in house.faults
    assert house.policy.heard[-1] == hook
    device, policy, fault = house.place()
    assert (device, policy) == (ONE, "least_weighted_load")
    assert fault.startswith("It hung before")
    released.set()


def test_measurements_are_not_waited_for_and_a_slow_policy_hears_the_latest_of_each_device() -> None:
    released = threading.Event()
    heard: list[tuple[str, int | None]] = []

    class Slow(Stranger):
        def on_measured(self, device_id: Any, utilization: Any) -> None:
            heard.append((device_id, utilization.encoder_percent))
            began.set()
            released.wait()

    began = threading.Event()
    house = Guarded(Slow())
    house.placer.measured(ONE, Utilization(encoder_percent=1))
    assert began.wait(30)
    for percent in range(2, 100):
        house.placer.measured(ONE, Utilization(encoder_percent=percent))
        house.placer.measured(TWO, Utilization(encoder_percent=percent))
    assert heard == [(ONE, 1)]
    released.set()
    while len(heard) < 3:
        assert house.place() == (TWO, "ours", "")
    assert heard[1:] == [(ONE, 99), (TWO, 99)]
    assert house.faults == []


def test_a_policy_without_the_younger_hook_is_never_told_of_measurements() -> None:
    class Older:
        name = "older"

        def choose(self, candidates: Any, workload: Any) -> Choice:
            return Choice(device_id=TWO, scores={})

        def on_settings(self, settings: Any) -> None: ...

        on_devices = on_session_ended = on_settings

        def on_session_created(self, session_id: Any, workload: Any) -> None: ...

        def on_session_placed(self, session_id: Any, device_id: Any, workload: Any) -> None: ...

    house = Guarded(Older())
    tell_everything(house)
    assert house.faults == []


def test_faults_of_one_kind_are_logged_once_a_minute_and_counted_always(log: list[Any]) -> None:
    house = Guarded(Stranger(raising(ValueError("again"))))
    for _ in range(5):
        house.place()
    house.policy.chosen = lambda _: None
    house.place()
    assert [line["kind"] for line in log] == ["raised", "wrong_answer"]
    assert len(house.faults) == 6
    house.clock.now_s += SAME_FAULT_PAUSE.total_seconds()
    house.policy.chosen = raising(ValueError("again"))
    house.place()
    assert [(line["kind"], line["alike_not_logged"]) for line in log[2:]] == [("raised", 4)]


def test_the_thread_of_a_policy_that_nobody_uses_any_more_ends() -> None:
    house = Guarded(Stranger())
    house.place()
    (thread,) = house.policy.threads
    del house.guard, house.placer
    thread.join(30)
    assert not thread.is_alive()


def test_nobody_waits_for_a_hung_policy_at_the_exit() -> None:
    program = (
        "import threading\n"
        "from datetime import timedelta\n"
        "from balancer.adapters.policy_worker import PolicyWorker\n"
        "worker = PolicyWorker('stuck')\n"
        "print(worker.ask(threading.Event().wait, timedelta(milliseconds=10)))\n"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert ended.stdout == "None\n"


def test_a_candidate_that_the_policy_gives_back_is_not_trusted_to_be_an_id() -> None:
    """What is kept is the balancer's own id, whatever it was compared with."""

    class Sly(str):
        __slots__ = ()

    house = Guarded(Stranger(lambda candidates: Choice(device_id=DeviceId(Sly(candidates[1].view.id)), scores={})))
    decision = house.placer.consider(ladder())
    assert type(decision.device_id) is str
    choice = house.guard.choose(
        (
            Candidate(
                view=VIEWS[1], cost_pixels_per_second=1, booked_pixels_per_second=0, session_count=0, highest_weight=100
            ),
        ),
        ladder(),
    )
    assert type(choice.device_id) is str
