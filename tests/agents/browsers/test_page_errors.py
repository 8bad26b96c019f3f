"""What failed navigations mean."""

from __future__ import annotations

import pytest

from agents.browsers.page_errors import navigation_fault, refusal_fault


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        ("ERR_NAME_NOT_RESOLVED", "PAGE_UNREACHABLE"),
        ("ERR_CONNECTION_REFUSED", "PAGE_UNREACHABLE"),
        ("ERR_TOO_MANY_REDIRECTS", "PAGE_UNREACHABLE"),
        ("ERR_NEVER_HEARD_OF", "PAGE_UNREACHABLE"),
        ("ERR_CERT_AUTHORITY_INVALID", "PAGE_CERTIFICATE"),
        ("ERR_CERT_DATE_INVALID", "PAGE_CERTIFICATE"),
        ("ERR_UNSAFE_REDIRECT", "PAGE_NOT_ALLOWED"),
        ("ERR_PROXY_CONNECTION_FAILED", "BROWSER_FAILED"),
    ],
)
def test_each_net_error_has_a_reason(error: str, reason: str) -> None:
    fault = navigation_fault("http://x/", f"Page.goto: net::{error} at http://user:secret@x/")
    assert fault.reason == reason
    assert error in str(fault)
    assert "secret" not in str(fault)
    assert str(fault).startswith("Cannot open http://x/: ")
    assert ". Try " in str(fault)


def test_what_is_no_net_error_is_unreachable() -> None:
    assert navigation_fault("http://x/", "something else").reason == "PAGE_UNREACHABLE"


def test_each_refusal_of_the_proxy_has_a_reason() -> None:
    private = refusal_fault("http://x/", "private")
    unresolved = refusal_fault("http://x/", "unresolved")
    assert private is not None
    assert private.reason == "PAGE_NOT_ALLOWED"
    assert unresolved is not None
    assert unresolved.reason == "PAGE_UNREACHABLE"
    assert refusal_fault("http://x/", "") is None
