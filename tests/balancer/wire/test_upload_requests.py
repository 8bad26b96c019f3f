"""Uploads over a real wire."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from balancer.domain.ids import SessionId
from balancer.domain.session_events import AttemptOutcome, AttemptPhase, AttemptReported
from fakes.balancer_house import MAX_UPLOAD_BYTES, BalancerHouse, failure_of
from fakes.session_texts import session
from gpu_balancer.runtime.failures import Reason
from gpu_balancer.v1 import session_service_pb2
from gpu_balancer.v1 import upload_service_pb2 as pb

CHUNK = 128 * 1024


async def begun(house: BalancerHouse, size_bytes: int, request_id: str = "") -> pb.Upload:
    upload = pb.Upload(file_name="my film.mp4", size_bytes=size_bytes)
    answer = await house.upload.CreateUpload(pb.CreateUploadRequest(upload=upload, request_id=request_id))
    return answer.upload


def bytes_at(path: str) -> bytes:
    return Path(path).read_bytes()


async def parts(name: str, data: bytes, offset: int = 0, chunk: int = CHUNK) -> AsyncIterator[pb.WriteUploadRequest]:
    yield pb.WriteUploadRequest(name=name, offset_bytes=offset, data=data[:chunk])
    for start in range(chunk, len(data), chunk):
        yield pb.WriteUploadRequest(data=data[start : start + chunk])


async def test_a_file_is_sent_in_pieces_and_becomes_an_input(house: BalancerHouse) -> None:
    data = bytes(range(256)) * 2048
    upload = await begun(house, len(data))
    assert (upload.file_name, upload.received_bytes, upload.complete) == ("my film.mp4", 0, False)
    answer = await house.upload.WriteUpload(parts(upload.name, data))
    assert answer.upload.complete
    assert answer.upload.HasField("expire_time")
    text = f'transcode {{ input {{ upload: "{upload.name}" }} renditions {{ encode {{}} }} }}'
    request = session_service_pb2.CreateSessionRequest(session=session(text))
    created = (await house.sessions.CreateSession(request)).session
    assert created.transcode.input.upload == upload.name
    assert bytes_at(house.uploads.resolve_input(house.agent.probed[0]).uri) == data
    delete = pb.DeleteUploadRequest(name=upload.name)
    assert (await failure_of(house.upload.DeleteUpload(delete))).reason is Reason.UPLOAD_IN_USE
    done = AttemptReported(attempt=1, phase=AttemptPhase.ENDED, outcome=AttemptOutcome.COMPLETED)
    await house.engine.apply(SessionId(created.name.removeprefix("sessions/")), done)
    await house.upload.DeleteUpload(delete)
    assert (await failure_of(house.upload.DeleteUpload(delete))).reason is Reason.UPLOAD_NOT_FOUND


async def test_a_cut_upload_goes_on_at_what_was_received(house: BalancerHouse) -> None:
    upload = await begun(house, 10)
    await house.upload.WriteUpload(parts(upload.name, b"0123"))
    received = (await house.upload.GetUpload(pb.GetUploadRequest(name=upload.name))).upload.received_bytes
    assert received == 4
    answer = await house.upload.WriteUpload(parts(upload.name, b"456789", offset=received))
    assert answer.upload.complete


async def test_the_same_request_gives_the_same_upload(house: BalancerHouse) -> None:
    assert (await begun(house, 10, "once")).name == (await begun(house, 10, "once")).name


@pytest.mark.parametrize(
    ("upload", "reason", "field"),
    [
        (pb.Upload(size_bytes=MAX_UPLOAD_BYTES + 1), Reason.UPLOAD_TOO_LARGE, "upload.size_bytes"),
        (pb.Upload(file_name="x" * 2000), Reason.INVALID_REQUEST, "upload.file_name"),
    ],
)
async def test_a_bad_upload_is_refused_by_its_field(
    house: BalancerHouse, upload: pb.Upload, reason: Reason, field: str
) -> None:
    failure = await failure_of(house.upload.CreateUpload(pb.CreateUploadRequest(upload=upload)))
    assert failure.reason is reason
    assert failure.violations[0].field == field
    assert list(house.uploads.folder.iterdir()) == []


async def changing_name(name: str) -> AsyncIterator[pb.WriteUploadRequest]:
    yield pb.WriteUploadRequest(name=name, data=b"0")
    yield pb.WriteUploadRequest(name="uploads/other", data=b"1")


async def nothing() -> AsyncIterator[pb.WriteUploadRequest]:
    return
    yield


async def test_a_bad_stream_is_refused_by_its_field(house: BalancerHouse) -> None:
    upload = await begun(house, 1_000_000)
    for requests, reason, field in (
        (nothing(), Reason.INVALID_REQUEST, "name"),
        (parts("", b"0"), Reason.INVALID_REQUEST, "name"),
        (parts("uploads/../x", b"0"), Reason.INVALID_REQUEST, "name"),
        (changing_name(upload.name), Reason.INVALID_REQUEST, "name"),
        (parts(upload.name, bytes(CHUNK + 1), offset=1, chunk=CHUNK + 1), Reason.INVALID_REQUEST, "data"),
        (parts(upload.name, b"0", offset=0), Reason.UPLOAD_OFFSET_WRONG, "offset_bytes"),
    ):
        failure = await failure_of(house.upload.WriteUpload(requests))
        assert (failure.reason, failure.violations[0].field) == (reason, field)
    missing = await failure_of(house.upload.WriteUpload(parts("uploads/none", b"0")))
    assert missing.reason is Reason.UPLOAD_NOT_FOUND
