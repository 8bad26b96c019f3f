"""Pages of short lists that are asked for whole: devices, artifacts. A token names the last item given."""

from __future__ import annotations

import base64
import binascii
from typing import TYPE_CHECKING, TypeVar

from gpu_balancer.runtime.failures import Reason, Violation, invalid

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

Item = TypeVar("Item")

DEFAULT_PAGE_SIZE = 100
MAX_PAGE_SIZE = 1_000


def page_of(
    items: Sequence[Item], key: Callable[[Item], str], *, page_size: int, page_token: str
) -> tuple[Sequence[Item], str]:
    """Takes one page.

    Args:
        items: All of them, in an order that does not change from page to page.
        key: Names an item, unlike all others.
        page_size: At most this many; more than 1,000 counts as 1,000. 0: 100.
        page_token: The previous page's. Empty: the first page.

    Returns:
        The page, and the token of the next one; it is empty on the last page.

    Raises:
        RequestFailure: PAGE_TOKEN_INVALID when the token is none, or what it names is gone.
    """
    size = min(page_size or DEFAULT_PAGE_SIZE, MAX_PAGE_SIZE)
    begin = 0
    if page_token:
        last = _decoded(page_token)
        begin = next((place + 1 for place, item in enumerate(items) if key(item) == last), 0)
        if begin == 0:
            raise _refused("names what is gone; begin again without a token")
    page = items[begin : begin + size]
    more = begin + size < len(items)
    return page, _encoded(key(page[-1])) if more else ""


def _encoded(key: str) -> str:
    return base64.urlsafe_b64encode(key.encode()).decode().rstrip("=")


def _decoded(token: str) -> str:
    try:
        return base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True).decode()
    except (binascii.Error, ValueError):
        raise _refused("is not one that an earlier answer gave") from None


def _refused(problem: str) -> Exception:
    return invalid(Violation(field="page_token", description=problem), reason=Reason.PAGE_TOKEN_INVALID)
