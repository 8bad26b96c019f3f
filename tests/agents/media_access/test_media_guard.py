"""The guard of files and URLs."""

from __future__ import annotations

import os
import socket
from ipaddress import ip_address
from pathlib import Path

import pytest

from agents.media_access import addresses, guard
from agents.media_access.guard import guard_input_file, guard_url
from agents.public_addresses import Address
from gpu_balancer.runtime.failures import Reason, RequestFailure
from gpu_balancer.runtime.settings_sections import InputSettings

PUBLIC_ONLY = InputSettings()
ANYWHERE = InputSettings(allow_private_networks=True)


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[str]]:
    """A resolver that knows the names a test puts in here, and nothing else."""
    known: dict[str, list[str]] = {}

    async def resolve(host: str, port: int) -> tuple[Address, ...]:
        if host not in known:
            raise addresses.UnresolvedHostError("Name or service not known")
        return tuple(ip_address(text) for text in known[host])

    monkeypatch.setattr(guard, "resolve", resolve)
    return known


async def refusal(url: str, settings: InputSettings = PUBLIC_ONLY) -> RequestFailure:
    with pytest.raises(RequestFailure) as caught:
        await guard_url(url, settings)
    assert [violation.field for violation in caught.value.violations] == ["session.transcode.input.uri"]
    return caught.value


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1/a.mp4",
        "http://0x7f.1/a.mp4",
        "http://2130706433/a.mp4",
        "https://127.1:8443/a.mp4",
        "http://[::1]/a.mp4",
        "http://[::ffff:127.0.0.1]/a.mp4",
        "http://localhost/a.mp4",
        "rtmp://localhost/live/key",
        "rtsp://127.0.0.1:554/stream",
        "srt://127.0.0.1:9000",
        "http://169.254.169.254/latest/meta-data/",
        "http://0/a.mp4",
        "http://user:secret@127.0.0.1/a.mp4",
    ],
)
async def test_private_addresses_are_refused_however_they_are_written(url: str) -> None:
    failure = await refusal(url)
    assert failure.reason is Reason.INPUT_NOT_ALLOWED
    assert "not public" in failure.message
    assert "secret" not in failure.message


async def test_private_addresses_may_be_allowed() -> None:
    guarded = await guard_url("http://127.0.0.1:8080/a.mp4", ANYWHERE)
    assert (guarded.host, guarded.port) == ("127.0.0.1", 8080)


async def test_one_private_address_among_public_ones_is_enough_to_refuse(names: dict[str, list[str]]) -> None:
    names["both.example"] = ["1.1.1.1", "10.0.0.1"]
    assert "10.0.0.1" in (await refusal("https://both.example/a.mp4")).message


async def test_a_public_host_passes_with_its_addresses(names: dict[str, list[str]]) -> None:
    names["media.example"] = ["1.1.1.1", "2606:4700:4700::1111"]
    guarded = await guard_url("https://media.example/a.mp4", PUBLIC_ONLY)
    assert guarded.port == 443
    assert [str(address) for address in guarded.addresses] == names["media.example"]


async def test_a_public_address_of_this_machine_itself_is_refused(
    names: dict[str, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    names["self.example"] = ["1.2.3.4"]
    monkeypatch.setattr(guard, "own_addresses", lambda: frozenset({ip_address("1.2.3.4")}))
    assert (await refusal("https://self.example/a.mp4")).reason is Reason.INPUT_NOT_ALLOWED


async def test_a_host_that_cannot_be_found_is_unreachable_not_forbidden(names: dict[str, list[str]]) -> None:
    failure = await refusal("https://nowhere.example/a.mp4?token=hunter2secret")
    assert failure.reason is Reason.INPUT_UNREACHABLE
    assert "nowhere.example cannot be found" in failure.message
    assert "hunter2secret" not in failure.message


@pytest.mark.parametrize(
    "url",
    [
        "ftp://1.1.1.1/a.mp4",
        "concat:/etc/passwd|/etc/hosts",
        "crypto+http://1.1.1.1/a",
        "data:text/plain,hello",
        "gopher://1.1.1.1/",
        "tcp://1.1.1.1:80",
        "pipe:0",
        "unix:/run/x",
        "subfile,,start,0,end,9,,:/etc/passwd",
        "",
    ],
)
async def test_only_protocols_of_the_settings_are_spoken(url: str) -> None:
    failure = await refusal(url)
    assert failure.reason is Reason.INPUT_NOT_ALLOWED
    assert "one of file, http" in failure.message


@pytest.mark.parametrize(
    "url",
    [
        "http:///a.mp4",
        "http://1.1.1.1\\@127.0.0.1/a.mp4",
        "http://1.1.1.1 127.0.0.1/a.mp4",
        "http://1.1.1.1/\n127.0.0.1",
        "http://1.1.1.1/\x00",
        "http://１.1.1.1/a.mp4",
        "http://[fe80::1%25eth0]/a.mp4",
        "http://1.1.1.1:99999/a.mp4",
        "http://[1.1.1.1/a.mp4",
        "http://1.1.1.1/" + "a" * 5000,
        "rtmp://1.1.1.1/live listen=1",
        "srt://1.1.1.1",
        "srt://1.1.1.1:9000?mode=listener",
        "srt://1.1.1.1:9000?mode=rendezvous",
        "srt://1.1.1.1:9000?latency=20&mode=caller&mode=listener",
        "srt://:9000",
    ],
)
async def test_urls_that_parsers_read_differently_or_that_listen_are_refused(url: str) -> None:
    assert (await refusal(url, ANYWHERE)).reason is Reason.INPUT_NOT_ALLOWED


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A root with one media file in it."""
    folder = tmp_path / "media"
    folder.mkdir()
    (folder / "a film.mp4").write_bytes(b"media")
    return folder


@pytest.mark.parametrize("form", ["{}", "file://{}", "file://localhost{}", "file:{}"])
async def test_a_file_under_a_root_is_found_in_every_form(root: Path, form: str) -> None:
    path = root / "a film.mp4"
    shown = str(path) if form == "{}" else str(path).replace(" ", "%20")
    assert await guard_input_file(form.format(shown), [str(root)]) == str(path)


async def test_a_link_inside_the_root_to_a_file_inside_is_followed(root: Path) -> None:
    (root / "link.mp4").symlink_to(root / "a film.mp4")
    assert await guard_input_file(str(root / "link.mp4"), [str(root)]) == str(root / "a film.mp4")


async def test_a_root_that_is_itself_a_link_is_a_root(root: Path, tmp_path: Path) -> None:
    (tmp_path / "alias").symlink_to(root)
    found = await guard_input_file(str(tmp_path / "alias" / "a film.mp4"), [str(tmp_path / "alias")])
    assert found == str(root / "a film.mp4")


async def file_refusal(path: object, root: Path) -> RequestFailure:
    with pytest.raises(RequestFailure) as caught:
        await guard_input_file(str(path), [str(root)])
    assert [violation.field for violation in caught.value.violations] == ["session.transcode.input.uri"]
    return caught.value


async def test_nothing_outside_the_roots_is_read_or_told_of(root: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("x")
    (root / "link").symlink_to(secret)
    (root / "folder").symlink_to(tmp_path)
    outside = [
        secret,
        tmp_path / "not-there",
        root / "link",
        root / "folder" / "secret",
        root / ".." / "secret",
        f"{root}-beside/x",
        f"file://{secret}",
        f"file://{root}/%2e%2e/secret",
    ]
    for path in outside:
        failure = await file_refusal(path, root)
        assert failure.reason is Reason.INPUT_NOT_ALLOWED, path
        assert "input roots only" in failure.message


@pytest.mark.parametrize("end", ["/", "//", "/.", "/./"])
async def test_a_file_with_a_slash_at_its_end_is_not_there(root: Path, end: str) -> None:
    for path in [f"{root}/a film.mp4{end}", f"file://{root}/a%20film.mp4{end}"]:
        assert (await file_refusal(path, root)).reason is Reason.INPUT_NOT_FOUND, path
    folder = await file_refusal(f"{root}{end}", root)
    assert (folder.reason, "it is a folder" in folder.message) == (Reason.INPUT_UNREADABLE, True)


async def test_without_roots_no_file_is_read(root: Path) -> None:
    with pytest.raises(RequestFailure, match="which are: none"):
        await guard_input_file(str(root / "a film.mp4"), [])


async def test_what_is_no_readable_media_file_is_told_apart(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (root / "empty.mp4").touch()
    os.mkfifo(root / "pipe")
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(root / "socket"))
    cases = {
        "not-there.mp4": (Reason.INPUT_NOT_FOUND, "no such file"),
        "a film.mp4/x": (Reason.INPUT_NOT_FOUND, "no such file"),
        "empty.mp4": (Reason.INPUT_UNREADABLE, "it is empty"),
        "": (Reason.INPUT_UNREADABLE, "it is a folder"),
        "pipe": (Reason.INPUT_UNREADABLE, "no regular file"),
        "socket": (Reason.INPUT_UNREADABLE, "cannot be opened"),
        "x" * 300: (Reason.INPUT_UNREADABLE, "cannot be opened"),
    }
    for name, (reason, words) in cases.items():
        failure = await file_refusal(root / name, root)
        assert (failure.reason, words in failure.message) == (reason, True), failure.message
    listener.close()

    def refuse(*_arguments: object) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(guard.os, "open", refuse)
    failure = await file_refusal(root / "a film.mp4", root)
    assert (failure.reason, "may not read it" in failure.message) == (Reason.INPUT_UNREADABLE, True)


@pytest.mark.parametrize("uri", ["file://elsewhere/a.mp4", "file:a.mp4", "file:///a.mp4?x", "file:///a%00b", "/a\nb"])
async def test_a_file_url_that_is_no_path_of_this_machine_is_refused(root: Path, uri: str) -> None:
    assert (await file_refusal(uri, root)).reason is Reason.INPUT_UNREADABLE


async def test_a_device_is_no_file() -> None:
    failure = await file_refusal("/dev/null", Path("/dev"))
    assert "no regular file" in failure.message
