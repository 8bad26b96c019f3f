"""Pages of sessions: newest first, stable while sessions come and go."""

from __future__ import annotations

import base64

import pytest

from balancer.domain.ids import DeviceId
from balancer.domain.session import SessionRecord, SessionState
from balancer.session_listing import SessionFilter, SessionPage, page_of
from fakes.session_records import session_record
from gpu_balancer.runtime.failures import Reason, RequestFailure

EVERY = SessionFilter()


def page(records: list[SessionRecord], wanted: SessionFilter = EVERY, *, size: int = 2, token: str = "") -> SessionPage:
    """Lists records that are given oldest first."""
    return page_of(reversed(records), wanted, page_size=size, page_token=token)


def numbers(*numbers_: int) -> list[SessionRecord]:
    return [session_record(number) for number in numbers_]


def ids(page_: SessionPage) -> list[str]:
    return [record.id.removeprefix("session-") for record in page_.records]


def test_pages_go_from_the_newest_to_the_oldest() -> None:
    records = numbers(1, 2, 3, 4, 5)
    seen, token = [], ""
    for _ in range(3):
        got = page(records, token=token)
        seen.append(ids(got))
        token = got.next_page_token
    assert seen == [["5", "4"], ["3", "2"], ["1"]]
    assert token == ""


def test_a_page_that_ends_with_the_last_session_is_the_last() -> None:
    assert page(numbers(1, 2)).next_page_token == ""


def test_sessions_that_come_and_go_neither_repeat_nor_hide_others() -> None:
    first = page(numbers(1, 2, 3, 4))
    assert ids(first) == ["4", "3"]
    second = page(numbers(1, 2, 5, 6), token=first.next_page_token)
    assert ids(second) == ["2", "1"]


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        (EVERY, ["3", "2", "1"]),
        (SessionFilter(states=frozenset({SessionState.RUNNING, SessionState.FAILED})), ["3"]),
        (SessionFilter(device_id=DeviceId("cpu-1")), ["2"]),
        (SessionFilter(labels={"team": "a"}), ["2", "1"]),
        (SessionFilter(labels={"team": "a", "job": "x"}), ["1"]),
        (SessionFilter(labels={"team": ""}), []),
        (SessionFilter(states=frozenset({SessionState.RUNNING}), labels={"team": "a"}), []),
    ],
)
def test_a_filter_narrows_by_everything_it_says(wanted: SessionFilter, found: list[str]) -> None:
    records = [
        session_record(1, labels={"team": "a", "job": "x"}),
        session_record(2, labels={"team": "a"}, device_id=DeviceId("cpu-1")),
        session_record(3, state=SessionState.RUNNING),
    ]
    assert ids(page(records, wanted, size=0)) == found


def test_a_page_holds_a_hundred_unless_asked_and_a_thousand_at_most() -> None:
    records = numbers(*range(1200))
    assert len(page(records, size=0).records) == 100
    assert len(page(records, size=5000).records) == 1000


@pytest.mark.parametrize(
    "token", ["x", "é", "AAAA", base64.urlsafe_b64encode(b"99999999999999999999.x").decode(), "-" * 100_000]
)
def test_a_token_that_nobody_gave_is_refused(token: str) -> None:
    with pytest.raises(RequestFailure) as caught:
        page(numbers(1), token=token)
    assert caught.value.reason is Reason.PAGE_TOKEN_INVALID
    assert caught.value.violations[0].field == "page_token"


def test_a_token_of_another_filter_is_refused() -> None:
    token = page(numbers(1, 2, 3)).next_page_token
    with pytest.raises(RequestFailure, match="another filter"):
        page(numbers(1, 2, 3), SessionFilter(device_id=DeviceId("cpu-0")), token=token)


def test_a_negative_page_size_is_refused() -> None:
    with pytest.raises(RequestFailure) as caught:
        page(numbers(1), size=-1)
    assert caught.value.violations[0].field == "page_size"
