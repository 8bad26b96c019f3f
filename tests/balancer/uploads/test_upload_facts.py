"""What was written down of an upload, damaged: it is no upload then, and never a balancer that cannot start."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from balancer.uploads.upload_folder import UploadFolder, create_folder, read_folder


def facts_with(**changes: object) -> bytes:
    """Facts of an upload of a folder, some of them other than they should be."""
    facts = {"version": 1, "file_name": "in.mp4", "size_bytes": 10, "request_id": None}
    return json.dumps({**facts, "create_time": "2026-03-01T12:00:00+00:00", **changes}).encode()


@pytest.mark.parametrize(
    "facts",
    [
        b"",
        b"\xff\xfe",
        b"[" * 100_000,
        b"1" * 5000,
        b"[]",
        facts_with(file_name=7),
        facts_with(file_name="\ud800.mp4"),
        facts_with(size_bytes="10"),
        facts_with(request_id=[]),
        facts_with(create_time=7),
        facts_with(create_time="noon"),
        facts_with(create_time="2026-03-01T12:00:00"),
    ],
    ids=range(12),
)
def test_facts_that_cannot_be_read_are_no_upload(tmp_path: Path, facts: bytes) -> None:
    create_time = datetime(2026, 3, 1, 12, tzinfo=UTC)
    made = UploadFolder(
        id="u", path=tmp_path / "u", file_name="in.mp4", size_bytes=10, request_id=None, create_time=create_time
    )
    create_folder(made)
    (made.path / "upload.json").write_bytes(facts_with())
    read = read_folder(made.path)
    assert read is not None
    assert (read.file_name, read.size_bytes, read.create_time) == ("in.mp4", 10, create_time)
    (made.path / "upload.json").write_bytes(facts)
    assert read_folder(made.path) is None
