"""The authority file is what X servers and their clients read."""

from __future__ import annotations

import pytest

from agents.displays.x_authority import AuthorityUnreadableError, authority_file, cookie_of, new_cookie


def test_an_entry_holds_for_every_display_and_names_the_usual_protocol() -> None:
    cookie = bytes(range(16))
    assert authority_file(cookie) == b"\xff\xff" + b"\0\0" + b"\0\0" + b"\0\x12MIT-MAGIC-COOKIE-1" + b"\0\x10" + cookie


def test_the_cookie_can_be_read_back() -> None:
    cookie = new_cookie()
    assert cookie_of(authority_file(cookie)) == cookie


def test_no_two_cookies_are_the_same() -> None:
    assert len({new_cookie() for _ in range(100)}) == 100


@pytest.mark.parametrize("content", [b"", b"short", bytes(100), authority_file(bytes(16)) + b"x"])
def test_what_is_no_file_of_ours_is_refused(content: bytes) -> None:
    with pytest.raises(AuthorityUnreadableError, match="Cannot read an X authority file"):
        cookie_of(content)
