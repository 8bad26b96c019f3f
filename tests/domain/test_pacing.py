"""How fast files may run beside live work."""

from __future__ import annotations

from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from balancer.domain.device import Dimension
from balancer.domain.ids import SessionId
from balancer.domain.pacing import PacedSession, speed_limits

CORES, ENCODE, MEMORY = Dimension.CORES, Dimension.ENCODE, Dimension.MEMORY
TENTH = Fraction(1, 10)


def session(name: str, *, live: bool = False, least: Fraction = TENTH, **amounts: int) -> PacedSession:
    return PacedSession(
        session_id=SessionId(name),
        real_time=live,
        amounts={Dimension[dimension]: amount for dimension, amount in amounts.items()},
        least_speed=least,
    )


def test_files_alone_run_as_fast_as_they_go() -> None:
    files = [session("a", CORES=9), session("b", CORES=9)]
    assert speed_limits(files, {CORES: 10}) == {"a": None, "b": None}


def test_live_work_alone_is_never_held() -> None:
    assert speed_limits([session("a", live=True, CORES=1)], {CORES: 10}) == {}


def test_files_share_what_live_work_leaves_at_one_speed() -> None:
    sessions = [session("live", live=True, CORES=40), session("a", CORES=20), session("b", CORES=10)]
    assert speed_limits(sessions, {CORES: 100}) == {"a": 2, "b": 2}


def test_the_scarcest_dimension_sets_the_speed_and_memory_does_not() -> None:
    sessions = [
        session("live", live=True, CORES=40, ENCODE=90, MEMORY=100),
        session("a", CORES=20, ENCODE=20, MEMORY=500),
    ]
    assert speed_limits(sessions, {CORES: 100, ENCODE: 100, MEMORY: 100}) == {"a": Fraction(1, 2)}


def test_a_dimension_that_live_work_does_not_use_holds_nobody() -> None:
    sessions = [session("live", live=True, ENCODE=90), session("a", CORES=1000)]
    assert speed_limits(sessions, {CORES: 100, ENCODE: 100}) == {"a": None}


def test_nobody_is_held_below_what_is_kept_free_for_it() -> None:
    sessions = [
        session("live", live=True, CORES=95),
        session("a", CORES=100),
        session("b", least=Fraction(2), CORES=1),
    ]
    assert speed_limits(sessions, {CORES: 100}) == {"a": TENTH, "b": 2}


def test_who_is_owed_more_gets_that_and_the_others_share_the_rest() -> None:
    sessions = [
        session("live", live=True, CORES=40),
        session("owed", least=Fraction(4), CORES=10),
        session("a", CORES=20),
    ]
    assert speed_limits(sessions, {CORES: 100}) == {"owed": 4, "a": 1}


@given(
    st.lists(st.tuples(st.integers(1, 100), st.integers(1, 40)), min_size=1, max_size=6),
    st.integers(0, 100),
)
def test_together_files_never_take_more_than_is_left_unless_they_are_owed_it(
    files: list[tuple[int, int]], taken: int
) -> None:
    sessions = [session("live", live=True, CORES=taken)]
    sessions += [
        session(f"f{number}", least=Fraction(least, 20), CORES=amount) for number, (amount, least) in enumerate(files)
    ]
    limits = speed_limits(sessions, {CORES: 100})
    owed = sum(amount * Fraction(least, 20) for amount, least in files)
    used = sum(amount * (limits[SessionId(f"f{number}")] or 0) for number, (amount, _) in enumerate(files))
    assert used <= max(owed, 100 - taken)
    for number, (_, least) in enumerate(files):
        limit = limits[SessionId(f"f{number}")]
        assert limit is not None
        assert limit >= Fraction(least, 20)
