"""Deliveries' tests: the courier's run in virtual time, the others with real folders, processes and a real server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from delivery_rig import write_credentials

from fakes.s3_server import S3Server
from fakes.virtual_time import VirtualTimeLoop


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    virtual = item.path.name == "test_courier.py"
    return {"virtual": VirtualTimeLoop} if virtual else {"real": asyncio.new_event_loop}


@pytest.fixture(autouse=True)
def no_cloud(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of the machine's own accounts and proxies has a say."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_ENDPOINT_URL", "HTTP_PROXY", "http_proxy"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def artifacts(tmp_path: Path) -> Path:
    """The artifacts folder of an attempt."""
    folder = tmp_path / "state" / "sessions" / "s1" / "1" / "artifacts"
    folder.mkdir(parents=True)
    return folder


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """A folder of the operator's."""
    folder = tmp_path / "archive"
    folder.mkdir()
    return folder


@pytest.fixture
def other_disk() -> Iterator[Path]:
    """A folder on another file system."""
    with TemporaryDirectory(dir="/dev/shm", prefix="gpu-balancer-test-") as folder:
        yield Path(folder)


@pytest.fixture
def credentials(tmp_path: Path) -> Path:
    """A file with the server's credentials."""
    return write_credentials(tmp_path / "credentials")


@pytest.fixture
async def s3() -> AsyncIterator[S3Server]:
    """A store with one empty bucket, "recordings"."""
    async with S3Server("recordings") as server:
        yield server
