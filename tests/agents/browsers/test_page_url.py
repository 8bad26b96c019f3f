"""Which URLs may be recorded, and whom a page's secrets are for."""

from __future__ import annotations

import pytest

from agents.browsers.page import PageFault
from agents.browsers.page_url import guard_page_url, origin_of, own_headers, page_secrets, plain_url
from agents.pipelines.recording import BasicAuth, Cookie, PageSource

WEB = ("http", "https")


@pytest.mark.parametrize(
    "url",
    [
        "http://example.org",
        "https://example.org:8443/a?b=c#d",
        "HTTPS://EXAMPLE.org/",
        "http://[2001:db8::1]:8080/",
        "http://user:pass@example.org/",
        "https://example.org/a b",
        "https://bücher.example/",
    ],
)
def test_web_pages_may_be_recorded(url: str) -> None:
    guard_page_url(url, WEB)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "example.org",
        "/etc/passwd",
        "file:///etc/passwd",
        "data:text/html,x",
        "javascript:alert(1)",
        "chrome://version",
        "about:blank",
        "view-source:http://example.org/",
        "devtools://devtools/bundled/inspector.html",
        "blob:http://example.org/1",
        "ftp://example.org/",
        "ws://example.org/",
        " http://example.org/",
        "ht\ntp://example.org/",
        "http://",
        "http:///path",
        "http://:80/",
        "http://exa mple.org/",
        "http://example.org\\@10.0.0.1/",
        "http://example.org:99999/",
        "http://example.org:x/",
        "http://[::1/",
        "http://exa%00mple.org/",
        "http://example.org/\x00",
        "http://example.org/" + "a" * 5000,
    ],
)
def test_anything_else_may_not(url: str) -> None:
    with pytest.raises(PageFault) as caught:
        guard_page_url(url, WEB)
    assert caught.value.reason == "PAGE_NOT_ALLOWED"


@pytest.mark.parametrize("url", ["chrome://version", "javascript:alert(1)", "about:blank", "view-source:http://x/"])
def test_what_the_operator_allows_allows_nothing_else(url: str) -> None:
    guard_page_url("file:///srv/page.html", ("file", "data"))
    guard_page_url("data:text/html," + "a" * 10_000, ("file", "data"))
    with pytest.raises(PageFault):
        guard_page_url(url, ("http", "https", "file", "data"))


def test_a_file_of_another_host_is_none() -> None:
    with pytest.raises(PageFault):
        guard_page_url("file://other/srv/page.html", ("file",))


def test_a_refusal_shows_no_secret() -> None:
    with pytest.raises(PageFault) as caught:
        guard_page_url("gopher://me:hunter2secret@example.org/?token=abcdefghij", WEB)
    assert "hunter2secret" not in str(caught.value)
    assert "abcdefghij" not in str(caught.value)


def test_an_origin_is_scheme_host_and_port() -> None:
    assert origin_of("https://Example.org/a") == origin_of("https://example.org:443/b")
    assert origin_of("https://example.org/") != origin_of("http://example.org/")
    assert origin_of("https://example.org/") != origin_of("https://example.org:8443/")
    assert origin_of("data:text/html,x") is None


def test_credentials_go_along_as_a_header() -> None:
    basic = "Basic dXNlcjpwQHNz"
    source = PageSource(url="http://user:p%40ss@example.org/a", headers={"X-Key": "k"})
    assert own_headers(source) == {"X-Key": "k", "Authorization": basic}
    assert plain_url(source.url) == "http://example.org/a"
    given = PageSource(url="http://example.org/", basic_auth=BasicAuth(username="user", password="p@ss"))
    assert own_headers(given) == {"Authorization": basic}


def test_every_secret_is_known_to_the_log() -> None:
    source = PageSource(
        url="http://example.org/",
        headers={"X-Key": "header-secret"},
        cookies=(Cookie(name="id", value="cookie-secret"),),
        basic_auth=BasicAuth(username="user", password="auth-secret"),
    )
    assert {"header-secret", "cookie-secret", "auth-secret"} <= set(page_secrets(source))
