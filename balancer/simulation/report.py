"""What a comparison says: JSON for programs, rows for people, and the answer as a sentence. It writes nothing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from balancer.domain.device import DeviceView
from balancer.simulation.comparison import Comparison
from balancer.simulation.fleet import plain_name
from balancer.simulation.outcome import ReplayResult

_WORTH_TELLING = 0.005
"""Share of sessions or of their time by which another policy must do better to be named."""

COLUMNS = (
    "policy",
    "served",
    "refused",
    "waited",
    "wait mean/longest",
    "below real time",
    "load variation",
    "of one device",
    "sustainable",
    "moves",
    "preempted",
    "dead tries",
)


def document(comparison: Comparison) -> dict[str, object]:
    """Makes the JSON document. Keys and units are stable; figures that were not asked for are null."""
    trace, rules = comparison.trace, comparison.rules
    return {
        "version": 1,
        "trace": {"title": trace.title, "sessions": len(trace.sessions), "duration_s": trace.end_s},
        "devices": [_device_document(comparison, view) for view in comparison.fleet.views],
        "rules": {
            "admission": rules.settings.admission,
            "headroom": float(rules.settings.headroom),
            "queue": rules.queue is not None,
            "from_s": rules.from_s,
            "seed": comparison.seed,
            "failures": [
                {"device": one.device_id, "time_s": one.time_s, "duration_s": one.duration_s} for one in rules.failures
            ],
        },
        "policies": [_result_document(result) for result in comparison.results],
        "answer": answer(comparison),
    }


def _device_document(comparison: Comparison, view: DeviceView) -> dict[str, object]:
    return {
        "id": view.id,
        "name": comparison.fleet.names.get(view.id, view.id),
        "model": view.identity.model,
        "weight": view.weight,
        "capacity": {dimension.name.lower(): limit for dimension, limit in view.capacity.limits.items()},
    }


def _result_document(result: ReplayResult) -> dict[str, object]:
    return {
        "policy": result.policy,
        "offered": result.offered,
        "completed": result.completed,
        "placed_at_once": result.placed_at_once,
        "refused": result.refused,
        "refused_by_rule": dict(result.refused_by_rule),
        "expired": result.expired,
        "lost": result.lost,
        "queued": result.queued,
        "mean_wait_s": _rounded(result.mean_wait_s),
        "longest_wait_s": _rounded(result.longest_wait_s),
        "moves": result.moves,
        "preemptions": result.preemptions,
        "dead_first_tries": result.dead_first_tries,
        "session_s": _rounded(result.session_s),
        "real_time_session_s": _rounded(result.real_time_s),
        "below_real_time_session_s": _rounded(result.below_real_time_s),
        "lowest_speed": _rounded(result.lowest_speed, 4),
        "work_pixels": round(result.work_pixels),
        "work_share_of_pool": _rounded(result.work_share_of_pool, 4),
        "load_spread_pixels_per_second": round(result.spread_pixels_per_second),
        "load_variation": _rounded(result.load_variation, 4),
        "sustainable_load": _rounded(result.sustainable_load, 4),
        "devices": [
            {
                "id": device.device_id,
                "sessions": device.session_count,
                "mean_busy": _rounded(device.mean_busy, 4),
                "highest_busy": _rounded(device.highest_busy, 4),
                "highest_busy_s": _rounded(device.highest_busy_time_s),
            }
            for device in result.devices
        ],
    }


def rows(comparison: Comparison) -> Iterator[tuple[str, ...]]:
    """Gives a word for each column, by policy."""
    for result in comparison.results:
        waits = "-"
        if result.mean_wait_s is not None and result.longest_wait_s is not None:
            waits = f"{duration_words(result.mean_wait_s)} / {duration_words(result.longest_wait_s)}"
        yield (
            result.policy,
            f"{result.completed:,} of {result.offered:,}",
            str(result.unserved) + _rules(result),
            str(result.queued),
            waits,
            _percent(result.below_real_time_share),
            "-" if result.load_variation is None else f"{result.load_variation:.2f}",
            "-" if result.work_share_of_pool is None else _percent(result.work_share_of_pool),
            "-" if result.sustainable_load is None else f"{result.sustainable_load:.2f}x",
            str(result.moves),
            str(result.preemptions),
            str(result.dead_first_tries),
        )


def answer(comparison: Comparison) -> str:
    """Answers, for the first policy, whether the devices hold the trace; and for another one when it does better."""
    first = comparison.results[0]
    devices = device_words(comparison.fleet.views)
    if not first.offered:
        return "Nothing was asked of the devices: the trace has no session."
    held = not first.unserved and not first.below_real_time_s
    one = len(comparison.fleet.views) == 1
    holds = ("holds" if one else "hold") if held else ("does not hold" if one else "do not hold")
    verdict = f"{devices} {holds} this trace under {first.policy}: "
    words = [verdict + _served_words(first)]
    busiest = max(first.devices, key=lambda device: device.highest_busy)
    if busiest.highest_busy_time_s is not None:
        words.append(
            f"The fullest moment was {clock_words(busiest.highest_busy_time_s)} into it, "
            f"with {_percent(busiest.highest_busy)} of {busiest.name} in use."
        )
    if first.sustainable_load is not None:
        words.append(f"{'It sustains' if one else 'They sustain'} {first.sustainable_load:.2f} times its sessions.")
    best = min(comparison.results, key=_trouble)
    if _trouble(best) < _trouble(first) - _WORTH_TELLING:
        words.append(f"{best.policy} does better: {_served_words(best)}")
    return " ".join(words)


def device_words(views: Sequence[DeviceView]) -> str:
    """Names devices: "These 4 devices (2 L4, A10, T4)"."""
    models = [plain_name(view.identity.model) for view in views]
    counted = [
        f"{models.count(model)} {model}" if models.count(model) > 1 else model for model in dict.fromkeys(models)
    ]
    shown = ", ".join(counted[:6]) + (", …" if len(counted) > 6 else "")
    return f"The {len(views):,} devices ({shown})" if len(views) > 1 else f"The one device ({shown})"


def clock_words(seconds: float) -> str:
    """Writes a time since the beginning: "5:42 h"."""
    minutes = round(seconds / 60)
    return f"{minutes // 60}:{minutes % 60:02} h"


def duration_words(seconds: float) -> str:
    """Writes a length of time: "8 s", "3 min", "1:20 h"."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else clock_words(seconds)


def _trouble(result: ReplayResult) -> float:
    return result.unserved_share + result.below_real_time_share


def _served_words(result: ReplayResult) -> str:
    if not result.unserved:
        words = f"all {result.offered:,} sessions were served"
    else:
        words = (
            f"{result.unserved:,} of {result.offered:,} sessions ({_percent(result.unserved_share)}) were not served"
        )
        times = result.unserved_times_s
        if times:
            low, high = times[len(times) // 20], times[-1 - len(times) // 20]
            words += f", most of them between {clock_words(low)} and {clock_words(high)}"
    if result.queued and result.longest_wait_s is not None:
        words += f", {result.queued:,} waited, {duration_words(result.longest_wait_s)} at most"
    if result.below_real_time_s:
        words += f", and {_percent(result.below_real_time_share)} of their time was below real time"
        words += f", down to {result.lowest_speed:.2f}x"
    else:
        words += ", and none was below real time"
    return words + "."


def _rules(result: ReplayResult) -> str:
    told = [f"{rule} {count}" for rule, count in result.refused_by_rule.items()]
    told += [f"{word} {count}" for word, count in (("expired", result.expired), ("lost", result.lost)) if count]
    return f" ({', '.join(told)})" if told else ""


def _percent(share: float) -> str:
    if share and share < 0.0005:
        return "< 0.1 %"
    return f"{100 * share:.1f} %"


def _rounded(value: float | None, digits: int = 3) -> float | None:
    return None if value is None else round(value, digits)
