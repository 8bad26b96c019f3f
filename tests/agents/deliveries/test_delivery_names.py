"""Names of copies, artifacts as they are read, and the file of credentials."""

from __future__ import annotations

import hashlib
import os
import threading
from pathlib import Path

import pytest
from delivery_rig import write, write_credentials
from hypothesis import given
from hypothesis import strategies as st

from agents.deliveries.names import check_session, marked_with_attempt, path_parts
from agents.deliveries.s3_credentials import read_credentials
from agents.deliveries.source import digest_of, look_at
from agents.deliveries.status import CalledOff, DeliveryFailure, SourceLost


@pytest.mark.parametrize("path", ["", "/etc/passwd", "../x", "a/../../x", "a//b", "a/", ".", "a\0b", "a\nb", "\udc80"])
def test_a_path_that_leads_out_is_none(path: str) -> None:
    with pytest.raises(ValueError, match=r"path|Unicode"):
        path_parts(path)


@pytest.mark.parametrize("session", ["", ".", "..", "a/b", "-a", "a" * 64, "a\n"])
def test_a_session_that_could_not_name_a_folder_is_refused(session: str) -> None:
    with pytest.raises(ValueError, match="no session's id"):
        check_session(session)


def test_a_path_longer_than_stores_keep_is_refused() -> None:
    with pytest.raises(ValueError, match="too long"):
        path_parts("a" * 241)
    with pytest.raises(ValueError, match="too long"):
        path_parts("/".join(["a" * 200] * 5))


@given(st.lists(st.text(min_size=1, max_size=20), min_size=1, max_size=4))
def test_parts_never_hold_a_slash_or_lead_upwards(names: list[str]) -> None:
    try:
        parts = path_parts("/".join(names))
    except ValueError:
        return
    assert all(part not in ("", ".", "..") and "/" not in part and "\0" not in part for part in parts)


@pytest.mark.parametrize(
    ("path", "marked"),
    [
        ("recording.mp4", "recording.attempt-2.mp4"),
        ("hls/720p/seg.00001.ts", "hls/720p/seg.00001.attempt-2.ts"),
        ("log", "log.attempt-2"),
        (".hidden", ".hidden.attempt-2"),
    ],
)
def test_the_mark_of_an_attempt_keeps_folder_and_extension(path: str, marked: str) -> None:
    assert marked_with_attempt(path, 2) == marked


def test_a_link_among_artifacts_is_not_followed(artifacts: Path, tmp_path: Path) -> None:
    secret = write(tmp_path, "secret/key", b"secret")
    (artifacts / "link").symlink_to(secret)
    (artifacts / "folder").symlink_to(secret.parent)
    with pytest.raises(SourceLost, match="it is a link"):
        look_at(artifacts, "link")
    with pytest.raises(SourceLost):
        look_at(artifacts, "folder/key")


def test_what_is_no_file_is_not_copied_and_does_not_hang(artifacts: Path) -> None:
    os.mkfifo(artifacts / "pipe")
    with pytest.raises(SourceLost, match="no regular file"):
        look_at(artifacts, "pipe")


def test_a_file_that_was_written_to_is_lost(artifacts: Path) -> None:
    place = write(artifacts, "a.mp4", b"one")
    source = look_at(artifacts, "a.mp4")
    place.write_bytes(b"three")
    with pytest.raises(SourceLost, match="was changed"), source.opened():
        pass


def test_digests_have_the_etag_of_parts_as_amazon_makes_it(artifacts: Path) -> None:
    content = os.urandom(2_500_000)
    place = write(artifacts, "a.mp4", content)
    with place.open("rb") as file:
        digest = digest_of(file.fileno(), part_bytes=1_000_000, called_off=threading.Event())
    parts = [hashlib.md5(content[start : start + 1_000_000]).digest() for start in range(0, 2_500_000, 1_000_000)]
    assert digest.sha256 == hashlib.sha256(content).hexdigest()
    assert digest.etags == {hashlib.md5(content).hexdigest(), hashlib.md5(b"".join(parts)).hexdigest() + "-3"}


def test_reading_ends_when_it_is_called_off(artifacts: Path) -> None:
    called_off = threading.Event()
    called_off.set()
    with write(artifacts, "a.mp4", b"one").open("rb") as file, pytest.raises(CalledOff):
        digest_of(file.fileno(), part_bytes=10, called_off=called_off)


def test_credentials_are_read(credentials: Path) -> None:
    assert read_credentials(credentials).keys() == {"access_key_id", "secret_access_key"}


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o601])
def test_credentials_that_others_may_reach_are_refused(credentials: Path, mode: int) -> None:
    credentials.chmod(mode)
    with pytest.raises(DeliveryFailure, match="chmod 600") as refused:
        read_credentials(credentials)
    assert refused.value.permanent


@pytest.mark.parametrize(
    "text", ["access_key_id = topsecret", "topsecret", "access_key_id: topsecret\n", "password = topsecret"]
)
def test_a_refusal_of_credentials_tells_nothing_of_them(tmp_path: Path, text: str) -> None:
    path = write_credentials(tmp_path / "credentials")
    path.write_text(text)
    with pytest.raises(DeliveryFailure, match="Cannot use the credentials") as refused:
        read_credentials(path)
    assert "topsecret" not in str(refused.value)


def test_missing_credentials_are_told(tmp_path: Path) -> None:
    with pytest.raises(DeliveryFailure, match="No such file"):
        read_credentials(tmp_path / "nowhere")
