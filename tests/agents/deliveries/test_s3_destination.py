"""Copies in a bucket, by the real worker process and obstore, at a store that can be faulty."""

from __future__ import annotations

import asyncio
import hashlib
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from delivery_rig import bucket_settings, parcel, write, write_credentials

from agents.deliveries.s3_destination import S3Destination
from agents.deliveries.s3_worker import explain
from agents.deliveries.status import CalledOff, DeliveryFailure, SourceLost
from fakes.s3_server import SECRET_ACCESS_KEY, Fault, Request, S3Server

pytestmark = pytest.mark.process

MIB = 1024 * 1024


class Cloud:
    """A destination at the store."""

    def __init__(self, server: S3Server, credentials: Path, artifacts: Path) -> None:
        self.server = server
        self.artifacts = artifacts
        self.called_off = threading.Event()
        self.destination = S3Destination(bucket_settings(server, credentials, prefix="studio-1/"))

    async def deliver(self, path: str = "a.mp4", *, attempt: int = 1) -> str:
        made = parcel(self.artifacts, path, attempt=attempt)
        return await asyncio.to_thread(self.destination.deliver, made, self.called_off)

    async def refused(self, path: str = "a.mp4") -> DeliveryFailure:
        with pytest.raises(DeliveryFailure) as refused:
            await self.deliver(path)
        return refused.value

    def bodies(self) -> dict[str, bytes]:
        return {key: stored.body for key, stored in self.server.objects["recordings"].items()}


@pytest.fixture
def cloud(s3: S3Server, credentials: Path, artifacts: Path) -> Iterator[Cloud]:
    made = Cloud(s3, credentials, artifacts)
    yield made
    made.destination.rest()


def on(method: str, fault: Fault, *, times: int = 1_000) -> Callable[[Request], Fault | None]:
    """Makes a fault of the next requests with a method."""
    left = [times]

    def decide(request: Request) -> Fault | None:
        if request.method != method or left[0] == 0:
            return None
        left[0] -= 1
        return fault

    return decide


async def test_files_of_all_sizes_arrive(cloud: Cloud) -> None:
    sizes = {"empty.mp4": 0, "small.mp4": 1, "one-part.mp4": 5 * MIB, "hls/parts.ts": 11 * MIB + 7}
    contents = {path: os.urandom(size) for path, size in sizes.items()}
    for path, content in contents.items():
        write(cloud.artifacts, path, content)
        assert await cloud.deliver(path) == f"s3://recordings/studio-1/s1/{path}"
    assert cloud.bodies() == {f"studio-1/s1/{path}": content for path, content in contents.items()}
    stored = cloud.server.objects["recordings"]["studio-1/s1/hls/parts.ts"]
    assert stored.etag.endswith("-3")
    assert stored.metadata["x-amz-meta-sha256"] == hashlib.sha256(contents["hls/parts.ts"]).hexdigest()
    assert "GET" not in [request.method for request in cloud.server.requests]


@pytest.mark.parametrize("name", ["a b.mp4", "ü%20+&?#.mp4", "~'()*!.mp4", "a=b;c,d.mp4"])
async def test_odd_names_are_kept_as_they_are(cloud: Cloud, name: str) -> None:
    write(cloud.artifacts, name, b"film")
    await cloud.deliver(name)
    assert cloud.bodies() == {f"studio-1/s1/{name}": b"film"}


async def test_a_copy_that_is_there_is_found(cloud: Cloud) -> None:
    write(cloud.artifacts, "a.mp4", os.urandom(6 * MIB))
    await cloud.deliver()
    sent = len(cloud.server.requests)
    await cloud.deliver()
    assert [request.method for request in cloud.server.requests[sent:]] == ["HEAD"]


async def test_other_bytes_are_never_written_over(cloud: Cloud) -> None:
    write(cloud.artifacts, "a.mp4", b"mine")
    await cloud.deliver()
    write(cloud.artifacts, "a.mp4", b"ours")
    assert await cloud.deliver(attempt=2) == "s3://recordings/studio-1/s1/a.attempt-2.mp4"
    assert cloud.bodies() == {"studio-1/s1/a.mp4": b"mine", "studio-1/s1/a.attempt-2.mp4": b"ours"}
    write(cloud.artifacts, "a.mp4", b"more of it")
    with pytest.raises(DeliveryFailure, match="hold other bytes"):
        await cloud.deliver(attempt=2)


async def test_a_busy_answer_amid_an_upload_does_not_matter(cloud: Cloud) -> None:
    write(cloud.artifacts, "a.mp4", os.urandom(6 * MIB))
    cloud.server.fault = on("PUT", Fault.UNAVAILABLE, times=1)
    await cloud.deliver()


async def test_a_store_that_stays_busy_is_told_and_tried_again(cloud: Cloud) -> None:
    write(cloud.artifacts, "a.mp4", b"film")
    cloud.server.fault = on("PUT", Fault.UNAVAILABLE)
    failure = await cloud.refused()
    assert "SlowDown: Please reduce your request rate." in str(failure)
    assert not failure.permanent
    cloud.server.fault = lambda _: None
    await cloud.deliver()


async def test_a_refused_connection_is_told_and_tried_again(cloud: Cloud) -> None:
    write(cloud.artifacts, "a.mp4", b"film")
    await cloud.server.close()
    failure = await cloud.refused()
    assert str(failure).startswith("Cannot copy a.mp4 to s3://recordings: ")
    assert "\n" not in str(failure)
    assert not failure.permanent
    await cloud.server.open()
    await cloud.deliver()


async def test_a_connection_that_breaks_amid_an_upload_is_tried_again(cloud: Cloud) -> None:
    content = os.urandom(11 * MIB)
    write(cloud.artifacts, "a.mp4", content)
    cloud.server.fault = on("PUT", Fault.RESET)
    assert not (await cloud.refused()).permanent
    assert cloud.bodies() == {}
    cloud.server.fault = lambda _: None
    await cloud.deliver()
    assert list(cloud.bodies().values()) == [content]


@pytest.mark.parametrize("size", [4, 6 * MIB])
async def test_an_error_after_the_object_was_stored_costs_no_second_upload(cloud: Cloud, size: int) -> None:
    write(cloud.artifacts, "a.mp4", os.urandom(size))
    cloud.server.fault = on("PUT" if size == 4 else "POST", Fault.STORED_THEN_FAILED)
    if size > 4:
        begin = on("POST", Fault.STORED_THEN_FAILED)
        cloud.server.fault = lambda request: begin(request) if "uploadId" in request.query else None
    await cloud.refused()
    cloud.server.fault = lambda _: None
    sent = len(cloud.server.requests)
    await cloud.deliver()
    assert [request.method for request in cloud.server.requests[sent:]] == ["HEAD"]


@pytest.mark.parametrize("size", [4, 9 * MIB])
async def test_an_object_whose_etag_is_no_digest_is_read_back(cloud: Cloud, size: int) -> None:
    write(cloud.artifacts, "a.mp4", os.urandom(size))
    cloud.server.fault = lambda _: Fault.WRONG_ETAG
    await cloud.deliver()
    assert "GET" in cloud.server.methods("studio-1/s1/a.mp4")


async def test_an_object_that_the_store_spoilt_is_not_believed_and_written_anew(cloud: Cloud) -> None:
    content = os.urandom(1000)
    write(cloud.artifacts, "a.mp4", content)
    cloud.server.fault = on("PUT", Fault.CORRUPTED)
    failure = await cloud.refused()
    assert "other bytes than were sent" in str(failure)
    assert not failure.permanent
    cloud.server.fault = lambda _: None
    await cloud.deliver()
    assert cloud.bodies() == {"studio-1/s1/a.mp4": content}


async def test_forbidden_is_for_an_operator(cloud: Cloud) -> None:
    write(cloud.artifacts, "a.mp4", b"film")
    cloud.server.fault = on("PUT", Fault.FORBIDDEN)
    failure = await cloud.refused()
    assert "AccessDenied: Access Denied" in str(failure)
    assert failure.permanent


async def test_a_missing_bucket_is_for_an_operator(cloud: Cloud) -> None:
    del cloud.server.objects["recordings"]
    write(cloud.artifacts, "a.mp4", b"film")
    failure = await cloud.refused()
    assert "NoSuchBucket" in str(failure)
    assert failure.permanent


async def test_wrong_credentials_are_for_an_operator_and_right_ones_need_no_restart(
    cloud: Cloud, credentials: Path
) -> None:
    write(cloud.artifacts, "a.mp4", b"film")
    write_credentials(credentials, secret="another-secret")
    failure = await cloud.refused()
    assert "403" in str(failure) or "SignatureDoesNotMatch" in str(failure)
    assert "another-secret" not in str(failure)
    assert failure.permanent
    write_credentials(credentials, secret=SECRET_ACCESS_KEY)
    await cloud.deliver()


def test_what_a_store_says_is_told_without_the_credentials_in_it() -> None:
    text = "403 Forbidden: <Error><Code>InvalidAccessKeyId</Code><Message>AKIAX is not known</Message></Error>"
    told = explain(OSError(f"Generic S3 error: {text}\n\nDebug source: …"), ("AKIAX", "secret", ""))
    assert told == {"message": "InvalidAccessKeyId: *** is not known", "permanent": True}


async def test_unusable_credentials_are_told_without_asking_the_store(cloud: Cloud, credentials: Path) -> None:
    write(cloud.artifacts, "a.mp4", b"film")
    await asyncio.to_thread(credentials.chmod, 0o644)
    failure = await cloud.refused()
    assert "chmod 600" in str(failure)
    assert failure.permanent
    assert cloud.server.requests == []


@pytest.mark.parametrize("prefix", ["/a/", "a//b", "../", "a/./"])
async def test_a_prefix_that_makes_odd_keys_is_refused(
    s3: S3Server, credentials: Path, artifacts: Path, prefix: str
) -> None:
    write(artifacts, "a.mp4", b"film")
    destination = S3Destination(bucket_settings(s3, credentials, prefix=prefix))
    with pytest.raises(DeliveryFailure, match="prefix"):
        await asyncio.to_thread(destination.deliver, parcel(artifacts, "a.mp4"), threading.Event())


async def test_an_upload_that_is_called_off_ends_though_the_store_does_not_answer(cloud: Cloud) -> None:
    write(cloud.artifacts, "a.mp4", b"film")
    cloud.server.fault = on("PUT", Fault.HELD)
    upload = asyncio.ensure_future(cloud.deliver())
    await cloud.server.held.wait()
    cloud.called_off.set()
    with pytest.raises(CalledOff):
        await upload


async def test_a_file_that_changes_amid_its_upload_does_not_appear(cloud: Cloud) -> None:
    place = write(cloud.artifacts, "a.mp4", os.urandom(11 * MIB))

    def change(request: Request) -> None:
        if request.method == "POST" and "uploads" in request.query:
            with place.open("r+b") as file:
                file.seek(-1, os.SEEK_END)
                file.write(b"\0" if place.read_bytes()[-1] else b"\1")

    cloud.server.fault = change
    with pytest.raises(SourceLost, match="was changed"):
        await cloud.deliver()
    assert cloud.bodies() == {}


async def test_a_worker_that_dies_fails_the_copy_and_the_next_one_has_another(cloud: Cloud) -> None:
    write(cloud.artifacts, "a.mp4", b"film")
    cloud.server.fault = on("PUT", Fault.HELD, times=1)
    upload = asyncio.ensure_future(cloud.deliver())
    await cloud.server.held.wait()
    [worker] = _children()
    os.kill(worker, 9)
    with pytest.raises(DeliveryFailure, match="ended by signal 9"):
        await upload
    await cloud.deliver()


async def test_resting_ends_the_worker(cloud: Cloud) -> None:
    write(cloud.artifacts, "a.mp4", b"film")
    await cloud.deliver()
    assert len(_children()) == 1
    cloud.destination.rest()
    assert _children() == []


def _children() -> list[int]:
    """Lists the workers that threads of this process have started, and that live."""
    found = []
    for task in Path("/proc/self/task").iterdir():
        with suppress(FileNotFoundError):
            found += [int(text) for text in (task / "children").read_text().split()]
    return [pid for pid in found if _is_living_worker(pid)]


def _is_living_worker(pid: int) -> bool:
    """Tells whether a process is a worker. One that has ended, and is to be heard of yet, has no command line."""
    try:
        return b"s3_worker" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return False
