"""Which sessions a client means, and pages of them, newest first.

A page token names the place by the creation time of the last session given, not by a count, so that sessions that come
and go meanwhile neither repeat nor hide others.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from balancer.domain.ids import DeviceId
from balancer.domain.session import SessionRecord, SessionState
from gpu_balancer.runtime.failures import Reason, Violation, invalid

DEFAULT_PAGE_SIZE = 100
MAX_PAGE_SIZE = 1000

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionFilter:
    """Which sessions are meant. What is empty does not narrow."""

    states: frozenset[SessionState] = frozenset()
    device_id: DeviceId | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    """All of these."""

    def matches(self, record: SessionRecord) -> bool:
        """Whether a session is meant."""
        if self.states and record.state not in self.states:
            return False
        if self.device_id is not None and record.device_id != self.device_id:
            return False
        return all(record.labels.get(key) == value for key, value in self.labels.items())


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionPage:
    """One page of sessions."""

    records: tuple[SessionRecord, ...]
    """Newest first."""
    next_page_token: str
    """Empty on the last page."""


def page_of(
    newest_first: Iterable[SessionRecord], wanted: SessionFilter, *, page_size: int = 0, page_token: str = ""
) -> SessionPage:
    """Takes one page of the sessions that are meant.

    Args:
        newest_first: All sessions; no two have the same creation time.
        wanted: Which ones.
        page_size: At most this many; more than 1,000 counts as 1,000. 0: 100.
        page_token: The previous page's token, of the same filter. Empty: the first page.

    Returns:
        The page.

    Raises:
        RequestFailure: PAGE_TOKEN_INVALID, or a negative page size.
    """
    if page_size < 0:
        raise invalid(Violation(field="page_size", description=f"must be 0 to {MAX_PAGE_SIZE}, not {page_size}"))
    size = min(page_size or DEFAULT_PAGE_SIZE, MAX_PAGE_SIZE)
    digest = _digest(wanted)
    before = _place(page_token, digest) if page_token else None
    found: list[SessionRecord] = []
    for record in newest_first:
        if (before is not None and record.create_time >= before) or not wanted.matches(record):
            continue
        if len(found) == size:
            return SessionPage(records=tuple(found), next_page_token=_token(found[-1].create_time, digest))
        found.append(record)
    return SessionPage(records=tuple(found), next_page_token="")


def _token(last: datetime, digest: str) -> str:
    return base64.urlsafe_b64encode(f"{(last - _EPOCH) // _MICROSECOND}.{digest}".encode()).decode().rstrip("=")


def _place(token: str, digest: str) -> datetime:
    """Finds the creation time before which a page begins."""
    try:
        text = base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True).decode("ascii")
        number, _, filter_digest = text.partition(".")
        place = _EPOCH + int(number) * _MICROSECOND
    except (binascii.Error, ValueError, OverflowError):
        raise _not_ours("is not one that an earlier answer gave") from None
    if filter_digest != digest:
        raise _not_ours("belongs to another filter; repeat the filter of the first page")
    return place


def _not_ours(problem: str) -> Exception:
    return invalid(Violation(field="page_token", description=problem), reason=Reason.PAGE_TOKEN_INVALID)


def _digest(wanted: SessionFilter) -> str:
    meant = (sorted(wanted.states), wanted.device_id, sorted(wanted.labels.items()))
    return hashlib.sha256(repr(meant).encode()).hexdigest()[:12]
