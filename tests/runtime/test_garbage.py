"""Full collections, which stop a daemon for as long as it has much in mind, run seldom."""

from __future__ import annotations

import subprocess
import sys

import pytest

_PROGRAM = """
import gc
from gpu_balancer.runtime.garbage import collect_seldom

generations = []
gc.callbacks.append(lambda phase, told: generations.append(told["generation"]) if phase == "start" else None)
{call}
kept = [[number] for number in range(800_000)]

class Ring:
    pass

for _ in range(100_000):
    ring = Ring()
    ring.itself = ring
left = sum(isinstance(one, Ring) for one in gc.get_objects())
print(generations.count(2), left)
"""


def outcome(call: str) -> tuple[int, int]:
    """Counts full collections, and the rings that nobody has collected, of a program that keeps ever more."""
    program = _PROGRAM.format(call=call)
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    full, left = answer.stdout.split()
    return int(full), int(left)


@pytest.mark.process
def test_what_is_kept_is_not_walked_through_again_and_again_and_cycles_are_still_freed() -> None:
    full, left = outcome("collect_seldom()")
    assert full == 0
    assert left < 20_000
    full, _ = outcome("")
    assert full > 3, "without it, they do run"


@pytest.mark.process
def test_nothing_is_collected_while_a_program_loads_and_its_modules_are_not_looked_at_later() -> None:
    program = """
import gc
from gpu_balancer.runtime.garbage import loading

phases = []
gc.callbacks.append(lambda phase, told: phases.append(phase))
with loading():
    import pydantic
seen = len(phases)
print(seen, gc.isenabled(), gc.get_freeze_count() > 10_000)
"""
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert answer.stdout.split() == ["0", "True", "True"]


@pytest.mark.process
def test_what_was_there_before_is_looked_at_no_more() -> None:
    program = (
        "import gc; from gpu_balancer.runtime import garbage; garbage.collect_seldom(); print(gc.get_freeze_count())"
    )
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert int(answer.stdout) > 1_000
