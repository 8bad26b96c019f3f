"""Artifacts by HTTP: types, ranges, validators, slow and vanishing readers."""

from __future__ import annotations

import asyncio

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from balancer.web.byte_ranges import ByteRange, Span, matches_any, parse_range, span_of
from fakes.web_house import WebHouse

DATA = bytes(range(256)) * 4096
NAME = "hls/720p/index.m3u8"


@pytest.fixture(autouse=True)
def _artifacts(house: WebHouse) -> None:
    house.agent.artifacts = {"film.mp4": DATA, NAME: b"#EXTM3U\n", "empty.mp4": b""}


async def test_a_file_is_given_whole_with_what_it_is(house: WebHouse) -> None:
    answer = await house.get("film.mp4")
    assert answer.status_code == 200
    assert answer.content == DATA
    assert answer.headers["content-length"] == str(len(DATA))
    assert answer.headers["accept-ranges"] == "bytes"
    assert answer.headers["content-type"] == "video/mp4"
    assert answer.headers["content-disposition"] == "inline; filename*=UTF-8''film.mp4"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["last-modified"] == "Tue, 01 Jan 2030 12:00:00 GMT"
    assert answer.headers["cache-control"] == "private, max-age=3600"
    assert not any(name.startswith("access-control") for name in answer.headers)
    assert "server" not in answer.headers


@pytest.mark.parametrize(
    ("path", "media_type"),
    [
        ("a.m3u8", "application/vnd.apple.mpegurl"),
        ("a.ts", "video/mp2t"),
        ("a.m4s", "video/iso.segment"),
        ("init.MP4", "video/mp4"),
        ("a.mkv", "video/x-matroska"),
        ("evil.html", "application/octet-stream"),
        ("evil.svg", "application/octet-stream"),
        ("none", "application/octet-stream"),
    ],
)
async def test_types_follow_from_the_extension_and_nothing_is_ever_a_page(
    house: WebHouse, path: str, media_type: str
) -> None:
    house.agent.artifacts[path] = b"<script>"
    assert (await house.get(path)).headers["content-type"] == media_type


async def test_odd_names_come_through(house: WebHouse) -> None:
    house.agent.artifacts["a b/ü%?#.mp4"] = b"x"
    answer = await house.get("a%20b/%C3%BC%25%3F%23.mp4")
    assert answer.content == b"x"
    assert answer.headers["content-disposition"] == "inline; filename*=UTF-8''%C3%BC%25%3F%23.mp4"


@pytest.mark.parametrize(
    ("header", "first", "end"),
    [
        ("bytes=0-0", 0, 1),
        ("bytes=100-199", 100, 200),
        ("bytes=300000-", 300_000, len(DATA)),
        ("bytes=-1000", len(DATA) - 1000, len(DATA)),
        ("bytes=-99999999", 0, len(DATA)),
        (f"bytes={len(DATA) - 1}-99999999", len(DATA) - 1, len(DATA)),
        ("Bytes = 5 - 9", 5, 10),
    ],
)
async def test_a_range_is_given_alone(house: WebHouse, header: str, first: int, end: int) -> None:
    answer = await house.get("film.mp4", range=header)
    assert answer.status_code == 206
    assert answer.content == DATA[first:end]
    assert answer.headers["content-range"] == f"bytes {first}-{end - 1}/{len(DATA)}"
    assert answer.headers["content-length"] == str(end - first)


async def test_a_range_reads_no_more_than_it_gives(house: WebHouse) -> None:
    await house.get("film.mp4", range="bytes=100-199")
    assert house.agent.sent_bytes == 100


@pytest.mark.parametrize("header", [f"bytes={len(DATA)}-", "bytes=99999999-", "bytes=9999999999999999999-", "bytes=-0"])
async def test_a_range_of_nothing_is_refused_with_the_size(house: WebHouse, header: str) -> None:
    answer = await house.get("film.mp4", range=header)
    assert answer.status_code == 416
    assert answer.headers["content-range"] == f"bytes */{len(DATA)}"
    assert answer.json()["error"]["reason"] == "RANGE_INVALID"
    assert house.agent.open_streams == 0


@pytest.mark.parametrize("header", ["bytes=0-1,5-9", "bytes=9-5", "lines=0-1", "bytes=", "bytes=a-b", "bytes=--5"])
async def test_a_range_that_is_none_gives_the_whole(house: WebHouse, header: str) -> None:
    answer = await house.get("film.mp4", range=header)
    assert (answer.status_code, len(answer.content)) == (200, len(DATA))


async def test_an_empty_file_is_given_and_has_no_range(house: WebHouse) -> None:
    answer = await house.get("empty.mp4")
    assert (answer.status_code, answer.content, answer.headers["content-length"]) == (200, b"", "0")
    assert (await house.get("empty.mp4", range="bytes=0-")).status_code == 416


async def test_head_tells_all_but_the_bytes(house: WebHouse) -> None:
    answer = await house.client.head("/v1/sessions/session-1/artifacts/film.mp4")
    assert (answer.status_code, answer.content) == (200, b"")
    assert answer.headers["content-length"] == str(len(DATA))
    assert answer.headers["etag"] == (await house.get("film.mp4")).headers["etag"]
    assert house.agent.open_streams == 0


async def test_a_known_file_is_not_sent_again(house: WebHouse) -> None:
    tag = (await house.get("film.mp4")).headers["etag"]
    house.agent.sent_bytes = 0
    answer = await house.get("film.mp4", if_none_match=f'"x", W/{tag}')
    assert (answer.status_code, answer.content) == (304, b"")
    assert house.agent.open_streams == 0
    head = await house.client.head("/v1/sessions/session-1/artifacts/film.mp4", headers={"if-none-match": tag})
    assert head.status_code == 304
    house.agent.artifacts["film.mp4"] += b"more"
    assert (await house.get("film.mp4", if_none_match=tag)).status_code == 200


async def test_a_range_goes_on_only_in_the_very_same_file(house: WebHouse) -> None:
    tag = (await house.get("film.mp4")).headers["etag"]
    answer = await house.get("film.mp4", range="bytes=5-9", if_range=tag)
    assert (answer.status_code, answer.content) == (206, DATA[5:10])
    house.agent.artifacts["film.mp4"] = DATA[::-1] + b"x"
    answer = await house.get("film.mp4", range="bytes=5-9", if_range=tag)
    assert (answer.status_code, answer.content) == (200, DATA[::-1] + b"x")


async def test_a_growing_file_has_a_weak_validator_that_joins_no_ranges(house: WebHouse) -> None:
    house.agent.final = False
    answer = await house.get(NAME)
    assert answer.headers["cache-control"] == "no-cache"
    tag = answer.headers["etag"]
    assert tag.startswith("W/")
    assert (await house.get(NAME, range="bytes=0-1", if_range=tag)).status_code == 200
    assert (await house.get(NAME, range="bytes=0-1")).status_code == 206
    assert (await house.get(NAME, if_none_match=tag)).status_code == 304


async def test_artifacts_are_listed_in_the_contracts_json(house: WebHouse) -> None:
    answer = await house.client.get("/v1/sessions/session-1/artifacts/")
    listed = answer.json()["artifacts"]
    assert [one["path"] for one in listed] == ["empty.mp4", "film.mp4", NAME]
    assert listed[1] == {
        "name": "sessions/session-1/artifacts/film.mp4",
        "path": "film.mp4",
        "sizeBytes": str(len(DATA)),
        "mediaType": "video/mp4",
        "updateTime": "2030-01-01T12:00:00Z",
        "final": True,
        "httpPath": "/v1/sessions/session-1/artifacts/film.mp4",
    }
    fetched = await house.client.get(listed[1]["httpPath"])
    assert fetched.content == DATA


async def test_what_is_not_there_is_told_by_its_stable_reason(house: WebHouse) -> None:
    answer = await house.get("nope.mp4")
    assert (answer.status_code, answer.json()["error"]["reason"]) == (404, "ARTIFACT_NOT_FOUND")
    for path in ("/v1/sessions/nope/artifacts/", "/v1/sessions/nope/artifacts/film.mp4"):
        answer = await house.client.get(path)
        assert (answer.status_code, answer.json()["error"]["reason"]) == (404, "SESSION_NOT_FOUND")
    house.agent.reachable = False
    answer = await house.get("film.mp4")
    assert (answer.status_code, answer.json()["error"]["reason"]) == (503, "AGENT_UNREACHABLE")
    assert (await house.client.get("/v1/sessions/session-1/artifacts/")).status_code == 503


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS"])
async def test_nothing_can_be_changed(house: WebHouse, method: str) -> None:
    answer = await house.client.request(method, "/v1/sessions/session-1/artifacts/film.mp4")
    assert answer.status_code == 405
    assert not any(name.startswith("access-control") for name in answer.headers)


async def test_an_agent_that_dies_meanwhile_ends_the_connection_too_early(house: WebHouse) -> None:
    house.agent.cut_after_bytes = 256 * 1024
    with pytest.raises(httpx.RemoteProtocolError):
        await house.get("film.mp4")


async def test_a_file_that_becomes_shorter_meanwhile_ends_the_connection_too_early(
    house: WebHouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = house.agent._artifact

    def larger(path: str) -> object:
        artifact = told(path)
        artifact.size_bytes += 5
        return artifact

    monkeypatch.setattr(house.agent, "_artifact", larger)
    with pytest.raises(httpx.RemoteProtocolError):
        await house.get("film.mp4")


async def test_a_reader_that_goes_away_ends_the_agents_stream(house: WebHouse) -> None:
    house.agent.artifacts["big.mp4"] = bytes(256 * 1024 * 1024)
    async with house.client.stream("GET", "/v1/sessions/session-1/artifacts/big.mp4") as answer:
        await anext(answer.aiter_raw(1024))
        assert house.agent.open_streams == 1
    await house.agent.stream_closed.wait()
    assert house.agent.open_streams == 0
    assert house.agent.sent_bytes < 64 * 1024 * 1024


async def test_a_slow_reader_holds_the_agent_back(house: WebHouse) -> None:
    house.agent.artifacts["big.mp4"] = bytes(256 * 1024 * 1024)
    async with house.client.stream("GET", "/v1/sessions/session-1/artifacts/big.mp4") as answer:
        await anext(answer.aiter_raw(1024))
        sent = -1
        while sent != house.agent.sent_bytes:
            sent = house.agent.sent_bytes
            # Others are served meanwhile, which gives the stream every chance to run on.
            await asyncio.gather(*(house.get(NAME) for _ in range(20)))
            sent += 20 * 8
        assert sent < 64 * 1024 * 1024


@given(st.integers(0, 100), st.integers(0, 120), st.one_of(st.none(), st.integers(0, 120)))
def test_a_span_lies_inside_the_file_and_begins_where_asked(size: int, first: int, last: int | None) -> None:
    wanted = parse_range(f"bytes={first}-{'' if last is None else last}")
    if last is not None and last < first:
        assert wanted is None
        return
    assert wanted == ByteRange(first=first, last=last)
    span = span_of(wanted, size)
    if first >= size:
        assert span is None
    else:
        end = size if last is None else min(size, last + 1)
        assert span == Span(offset=first, length=end - first)


def test_validators_are_compared_without_weakness_and_star_matches_all() -> None:
    assert matches_any('W/"a", "b"', '"b"')
    assert matches_any('"a"', 'W/"a"')
    assert matches_any("*", '"a"')
    assert not matches_any('"a"', '"ab"')
