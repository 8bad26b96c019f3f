"""Adds up what happened in a replay, and makes its figures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from balancer.domain.decision import Decision
from balancer.domain.device import Dimension
from balancer.domain.ids import DeviceId
from balancer.domain.ledger import Ledger
from balancer.simulation.fleet import Fleet
from balancer.simulation.meters import Sample, Totals, variation
from balancer.simulation.outcome import DeviceSummary, ReplayResult


class ReplayFault(Exception):
    """A replay lost a session or left something booked: its figures would be wrong."""


@dataclass(slots=True, kw_only=True)
class Tally:
    """Counts ends of sessions, and what happened to them on the way."""

    offered: int = 0
    completed: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    expired: int = 0
    lost: int = 0
    placed_at_once: int = 0
    queued: int = 0
    moves: int = 0
    preemptions: int = 0
    dead_first_tries: int = 0
    waits_s: list[float] = field(default_factory=list)
    begun: Counter[DeviceId] = field(default_factory=Counter)
    unserved_times_s: list[float] = field(default_factory=list)

    def end_unplaced(self, decision: Decision, now_s: float, *, placed_before: bool) -> None:
        """Counts a session that goes nowhere."""
        if placed_before:
            self.lost += 1
        else:
            self.refused[refusing_rule(decision)] += 1
        self.unserved_times_s.append(now_s)

    def end_waiting(self, now_s: float, *, placed_before: bool) -> None:
        """Counts a session that waited in vain."""
        if placed_before:
            self.lost += 1
        else:
            self.expired += 1
        self.unserved_times_s.append(now_s)

    def check(self, session_count: int, ledger: Ledger) -> None:
        """Makes sure that every session had one end and that nothing is booked any more.

        Raises:
            ReplayFault: It is not so.
        """
        ended = self.completed + self.refused.total() + self.expired + self.lost
        if not self.offered == ended == session_count:
            raise ReplayFault(
                f"Cannot trust the replay: {session_count} sessions, {self.offered} asked, {ended} ended."
            )
        left = [device_id for device_id in self.begun if ledger.used(device_id) or ledger.cost(device_id)]
        if left or ledger.host_used().get(Dimension.CORES):
            raise ReplayFault(f"Cannot trust the replay: something is still booked on {', '.join(left) or 'the host'}.")


def refusing_rule(decision: Decision) -> str:
    """Names why a session went nowhere: the rule that most devices gave, of those where waiting might have helped."""
    refusals = [verdict.refusal for verdict in decision.verdicts if verdict.refusal is not None]
    passing = [refusal for refusal in refusals if not refusal.permanent]
    rules = Counter(refusal.rule for refusal in passing or refusals)
    return rules.most_common(1)[0][0] if rules else "NO_DEVICE"


def summarized(
    fleet: Fleet, policy: str, tally: Tally, totals: Totals, samples: Sequence[Sample], from_s: float
) -> ReplayResult:
    """Makes the figures of a replay."""
    counted = [sample for sample in samples if sample.time_s >= from_s]
    spreads = [max(one.weighted_loads) - min(one.weighted_loads) for one in counted if one.weighted_loads]
    variations = [found for one in counted if (found := variation(one.weighted_loads)) is not None]
    return ReplayResult(
        policy=policy,
        offered=tally.offered,
        completed=tally.completed,
        refused=tally.refused.total(),
        expired=tally.expired,
        lost=tally.lost,
        refused_by_rule=dict(tally.refused.most_common()),
        placed_at_once=tally.placed_at_once,
        queued=tally.queued,
        mean_wait_s=_mean(tally.waits_s),
        longest_wait_s=max(tally.waits_s, default=None),
        moves=tally.moves,
        preemptions=tally.preemptions,
        dead_first_tries=tally.dead_first_tries,
        session_s=totals.session_s,
        real_time_s=totals.real_time_s,
        below_real_time_s=totals.below_real_time_s,
        lowest_speed=totals.lowest_speed,
        work_pixels=totals.work,
        spread_pixels_per_second=_mean(spreads) or 0.0,
        load_variation=_mean(variations),
        devices=tuple(_device(fleet, place, view.id, tally, counted) for place, view in enumerate(fleet.views)),
        samples=tuple(samples),
        unserved_times_s=tuple(tally.unserved_times_s),
    )


def _device(fleet: Fleet, place: int, device_id: DeviceId, tally: Tally, samples: Sequence[Sample]) -> DeviceSummary:
    shares = [(sample.busy_shares[place], -sample.time_s) for sample in samples]
    highest, time_s = max(shares, default=(0.0, 0.0))
    return DeviceSummary(
        device_id=device_id,
        name=fleet.names.get(device_id, device_id),
        session_count=tally.begun[device_id],
        mean_busy=_mean([share for share, _ in shares]) or 0.0,
        highest_busy=highest,
        highest_busy_time_s=-time_s if highest else None,
    )


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None
