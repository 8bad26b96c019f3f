"""Guards the balancer against the policy of a stranger: whatever that does, a session is placed, and soon.

The stranger's code runs in a thread of its own, one for each policy, and everything that it does to an object of its
own (comparing, printing, looking things up in it) is done there too. The loop waits for an answer for a bounded time.
Measurements, which come about once a second from each device, are not waited for: a slow policy gets the latest of each
device when it comes to it.
When the answer is none, or none that can be used, the default policy decides, once; a policy that does not answer at
all is out of use from then on, and its thread is abandoned: nobody waits for it, not even at the exit. It cannot be
stopped, though: one that keeps the processor, or holds the interpreter's lock, still harms the daemon.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Final, TypeVar

import structlog

from balancer.adapters.policy_worker import PolicyWorker, called, short_line
from balancer.domain.policies import Choice, Fallback, IndifferentPolicy, Policy

if TYPE_CHECKING:
    from balancer.domain.decision import PlacementSettings
    from balancer.domain.device import DeviceView, Utilization
    from balancer.domain.ids import DeviceId, SessionId
    from balancer.domain.policies import Candidate
    from balancer.domain.workload import Workload
    from gpu_balancer.runtime.clock import Clock

_log = structlog.get_logger(__name__)

SAME_FAULT_PAUSE: Final = timedelta(minutes=1)
"""Between two log lines of one kind of fault."""
_LOOK_TIMEOUT = timedelta(seconds=1)
"""For seeing which hooks a policy has, once: nothing is urgent then."""
_SCORE_BITS = 63
"""Scores travel as signed 64-bit numbers."""
_HOOKS: Final = (
    "on_settings",
    "on_devices",
    "on_measured",
    "on_session_created",
    "on_session_placed",
    "on_session_ended",
)

_Value = TypeVar("_Value")


class FaultKind(StrEnum):
    """What a policy can do wrong."""

    RAISED = "raised"
    WRONG_ANSWER = "wrong_answer"
    """Anything but a `Choice`."""
    UNKNOWN_DEVICE = "unknown_device"
    """A device that was not to choose from."""
    ABSURD_SCORES = "absurd_scores"
    """Scores that are no whole numbers, or beyond 63 bits."""
    HUNG = "hung"
    """No answer in time. It is out of use from then on."""
    OUT_OF_USE = "out_of_use"
    """It hung before, so it was not asked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Fault:
    kind: FaultKind
    told: str
    """A sentence about the policy, which it does not name: "It raised …"."""


class GuardedPolicy:
    """A policy of a stranger with the default behind it. Implements `Policy` and `FallingBack`."""

    def __init__(
        self,
        policy: Policy,
        worker: PolicyWorker,
        *,
        name: str,
        timeout: timedelta,
        default: Policy,
        on_fault: Callable[[str, FaultKind], None],
        clock: Clock,
    ) -> None:
        """Begins with a policy that was told nothing.

        Args:
            policy: The stranger's, made in the worker's thread.
            worker: Where it is called.
            name: As in the settings; decisions and metrics go by it.
            timeout: How long a call may take.
            default: Decides where the policy cannot. It is trusted.
            on_fault: Called with the name and the kind of each fault, for the metric. May be set anew: a policy is
                made before it is known who counts.
            clock: Tells when a fault was logged last.
        """
        self._policy = policy
        self._worker: PolicyWorker | None = worker
        self._name = name
        self._timeout = timeout
        self._default = default
        self.on_fault = on_fault
        self._clock = clock
        self._fallback: Fallback | None = None
        self._logged: dict[FaultKind, tuple[float, int]] = {}
        listens = worker.ask(lambda: frozenset(hook for hook in _HOOKS if _listens(policy, hook)), _LOOK_TIMEOUT)
        self._heard = listens.value if listens is not None and listens.error is None else frozenset(_HOOKS)

    @property
    def name(self) -> str:
        """Its name in the settings."""
        return self._name

    @property
    def fallback(self) -> Fallback | None:
        """Who decided instead of the policy the last time, and why. None: it decided itself."""
        return self._fallback

    def on_settings(self, settings: PlacementSettings) -> None:
        """Tells both policies."""
        self._default.on_settings(settings)
        self._tell("on_settings", settings)

    def on_devices(self, devices: Sequence[DeviceView]) -> None:
        """Tells both policies."""
        self._default.on_devices(devices)
        self._tell("on_devices", tuple(devices))

    def on_measured(self, device_id: DeviceId, utilization: Utilization) -> None:
        """Tells both policies, the stranger's when it comes to it."""
        self._default.on_measured(device_id, utilization)
        policy = self._policy
        if "on_measured" in self._heard and self._worker is not None:
            self._worker.note(device_id, lambda: called(policy.on_measured, device_id, utilization))
            self._count_failed_notes(self._worker)

    def on_session_created(self, session_id: SessionId, workload: Workload) -> None:
        """Tells both policies."""
        self._default.on_session_created(session_id, workload)
        self._tell("on_session_created", session_id, workload)

    def on_session_placed(self, session_id: SessionId, device_id: DeviceId, workload: Workload) -> None:
        """Tells both policies."""
        self._default.on_session_placed(session_id, device_id, workload)
        self._tell("on_session_placed", session_id, device_id, workload)

    def on_session_ended(self, session_id: SessionId) -> None:
        """Tells both policies."""
        self._default.on_session_ended(session_id)
        self._tell("on_session_ended", session_id)

    def choose(self, candidates: Sequence[Candidate], workload: Workload) -> Choice:
        """Has the policy choose, or the default where it cannot; `fallback` tells which."""
        given = tuple(candidates)
        choice = self._asked("choose", lambda: _checked(called(self._policy.choose, given, workload), given))
        if isinstance(choice, _Fault):
            self._fallback = Fallback(policy=self._default.name, fault=choice.told)
            return self._default.choose(candidates, workload)
        self._fallback = None
        return choice

    def _tell(self, hook: str, *told: object) -> None:
        if hook in self._heard and self._worker is not None:
            self._asked(hook, lambda: called(getattr(self._policy, hook), *told))

    def _asked(self, call_name: str, call: Callable[[], _Value | _Fault]) -> _Value | _Fault:
        """Calls the policy; a fault is counted, logged, and given back."""
        if self._worker is None:
            fault = _Fault(kind=FaultKind.OUT_OF_USE, told=self._out_of_use("It hung before"))
            self.on_fault(self._name, fault.kind)
            return fault
        worker = self._worker
        answer = worker.ask(call, self._timeout)
        self._count_failed_notes(worker)
        if answer is None:
            self._worker = None
            waited_ms = self._timeout // timedelta(milliseconds=1)
            fault = _Fault(kind=FaultKind.HUNG, told=self._out_of_use(f"It did not answer within {waited_ms} ms"))
        elif answer.error is not None:
            fault = _Fault(kind=FaultKind.RAISED, told=f"It raised {answer.told}.")
        elif isinstance(answer.value, _Fault):
            fault = answer.value
        else:
            return answer.value
        self._count(fault, call_name)
        return fault

    def _count_failed_notes(self, worker: PolicyWorker) -> None:
        for failed in worker.failures():
            self._count(_Fault(kind=FaultKind.RAISED, told=f"It raised {failed.told}."), "on_measured")

    def _count(self, fault: _Fault, call_name: str) -> None:
        self.on_fault(self._name, fault.kind)
        self._log(fault, call_name)

    def _out_of_use(self, reason: str) -> str:
        return f"{reason}, and is out of use until the settings are read again."

    def _log(self, fault: _Fault, call_name: str) -> None:
        """Writes a line, unless there was one of that kind a moment ago; the next one tells how many were not."""
        now_s = self._clock.monotonic_s()
        logged_s, kept_back = self._logged.get(fault.kind, (None, 0))
        if logged_s is not None and now_s - logged_s < SAME_FAULT_PAUSE.total_seconds():
            self._logged[fault.kind] = (logged_s, kept_back + 1)
            return
        self._logged[fault.kind] = (now_s, 0)
        _log.error(
            "placement policy at fault; the default decides",
            policy=self._name,
            call=call_name,
            kind=fault.kind.value,
            problem=fault.told,
            default=self._default.name,
            alike_not_logged=kept_back,
        )


def _listens(policy: Policy, hook: str) -> bool:
    """Whether there is anything to be told: hooks that were only inherited do nothing. None of them is a must."""
    own = getattr(policy, hook, None)
    return own is not None and getattr(own, "__func__", own) is not getattr(IndifferentPolicy, hook)


def _checked(choice: object, candidates: Sequence[Candidate]) -> Choice | _Fault:
    """Makes sure that a choice is one, and copies it: nothing of the stranger's leaves his thread."""
    if not isinstance(choice, Choice):
        return _Fault(kind=FaultKind.WRONG_ANSWER, told=f"It answered with {_kind_of(choice)}, not with a Choice.")
    chosen = next((one.view.id for one in candidates if one.view.id == choice.device_id), None)
    if chosen is None:
        told = f"It chose {short_line(repr(choice.device_id))}, which is no candidate."
        return _Fault(kind=FaultKind.UNKNOWN_DEVICE, told=told)
    given: object = choice.scores
    if not isinstance(given, Mapping):
        told = f"It gave scores as {_kind_of(given)}, not as a mapping."
        return _Fault(kind=FaultKind.ABSURD_SCORES, told=told)
    scores: dict[DeviceId, int] = {}
    for device_id in [one.view.id for one in candidates]:
        if device_id not in given:
            continue
        score = given[device_id]
        if type(score) is not int or score.bit_length() > _SCORE_BITS:
            told = f"It gave {device_id} the score {_number(score)}, which is no whole number of at most 63 bits."
            return _Fault(kind=FaultKind.ABSURD_SCORES, told=told)
        scores[device_id] = score
    return Choice(device_id=chosen, scores=scores)


def _kind_of(value: object) -> str:
    return "nothing" if value is None else f"a {type(value).__name__}"


def _number(score: object) -> str:
    """Tells a score. Very long numbers take very long to write out."""
    return f"of {score.bit_length()} bits" if type(score) is int else short_line(repr(score))
