"""No secret of a URL is shown, and what is no secret stays readable."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpu_balancer.runtime.redaction import Redactor, redact_text, redact_url, url_secrets


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("/srv/media/film.mp4", "/srv/media/film.mp4"),
        ("file:///srv/media/film.mp4", "file:///srv/media/film.mp4"),
        ("https://example.com/live/index.m3u8?start=5", "https://example.com/live/index.m3u8?start=5"),
        ("https://user:word@example.com/a", "https://***@example.com/a"),
        ("rtsp://admin:p@ss@10.0.0.5:554/stream1", "rtsp://***@10.0.0.5:554/stream1"),
        ("https://example.com/a?token=abc&quality=7", "https://example.com/a?token=***&quality=7"),
        ("https://example.com/a?X-Amz-Signature=abc;b=1", "https://example.com/a?X-Amz-Signature=***;b=1"),
        ("https://example.com/a?to%6ben=abc", "https://example.com/a?to%6ben=***"),
        ("https://example.com/a#access_token=abc", "https://example.com/a#access_token=***"),
        ("rtmp://live.example.com/app/stream-key", "rtmp://live.example.com/app/***"),
        (
            "rtmps://live.example.com:443/rtmp/FB-1-2?s_bl=1&a=Ab",
            "rtmps://live.example.com:443/rtmp/***?s_bl=***&a=***",
        ),
        ("rtmp://example.com/app/instance/key", "rtmp://example.com/app/***"),
        ("rtmp://example.com/onlykey", "rtmp://example.com/***"),
        ("rtmp://example.com/app/", "rtmp://example.com/app/"),
        ("RTMP://example.com/app/key", "RTMP://example.com/app/***"),
        ("srt://h:9000?passphrase=verysecret&latency=200", "srt://h:9000?passphrase=***&latency=200"),
        ("srt://h:9000?streamid=publish:abc&mode=caller", "srt://h:9000?streamid=***&mode=caller"),
        ("srt://[::1]:9000?mode=caller", "srt://[::1]:9000?mode=caller"),
        ("rtmp://user:pa/ss@host/app/key", "rtmp://***"),
        ("https://[broken/a?key=abc", "https://[broken/a?key=***"),
    ],
)
def test_a_url_shows_what_helps_and_hides_what_is_secret(url: str, shown: str) -> None:
    assert redact_url(url) == shown


def test_secrets_are_found_as_written_and_decoded() -> None:
    assert set(url_secrets("rtsp://me:p%40ss@h/s?token=a%20b")) == {
        "me:p%40ss", "me:p@ss", "p%40ss", "p@ss", "a%20b", "a b",
    }  # fmt: skip
    assert url_secrets("rtmp://h/app/inst/key") == ("inst/key", "key")
    assert url_secrets("/srv/a.mp4") == ()


def test_urls_inside_a_sentence_keep_the_sentence() -> None:
    text = "Error opening 'rtmp://h/app/key': refused (see https://u:p@h/doc), then srt://h:1?passphrase=abc."
    assert redact_text(text) == (
        "Error opening 'rtmp://h/app/***': refused (see https://***@h/doc), then srt://h:1?passphrase=***."
    )


def test_a_known_secret_is_hidden_wherever_it_stands() -> None:
    redactor = Redactor(url_secrets("rtmp://h/app/abcd-efgh-ijkl"))
    assert redactor.redact("[rtmp] publishing abcd-efgh-ijkl to app") == "[rtmp] publishing *** to app"
    assert redactor.redact("xabcd-efgh-ijklx") == "x***x"


def test_a_short_secret_is_hidden_as_a_word_only() -> None:
    redactor = Redactor(["live", ""])
    assert redactor.redact("live is not alive, key=live") == "*** is not alive, key=***"


def test_the_longest_of_overlapping_secrets_is_hidden_whole() -> None:
    assert Redactor(["secretsecret", "secretsecret-and-more"]).redact("secretsecret-and-more") == "***"


def test_without_secrets_a_line_stays() -> None:
    assert Redactor(()).redact("frame= 25 fps=25") == "frame= 25 fps=25"


_SECRETS = st.text("abcdefghijklmnopqrstuvwxyzABC0123456789_-", min_size=12, max_size=30)


@given(_SECRETS, st.sampled_from(["rtmp://h/app/{}", "rtmps://h:443/a/b/{}?x=1", "http://u:{}@h/x", "srt://h:1?passphrase={}",
                                  "https://h/p?a=1&api_key={}", "rtmp://h/app?{}", "rtsp://{}@h/s"]))  # fmt: skip
def test_no_secret_survives_in_any_of_its_places(secret: str, template: str) -> None:
    url = template.format(secret)
    assert secret not in redact_url(url)
    assert secret not in redact_text(f"Cannot open {url}: refused")
    assert any(secret in found for found in url_secrets(url))


@given(st.text())
def test_no_text_is_too_strange(text: str) -> None:
    assert isinstance(redact_url(text), str)
    assert isinstance(redact_text(f"a://{text}"), str)
    assert isinstance(Redactor([text]).redact(text), str)
