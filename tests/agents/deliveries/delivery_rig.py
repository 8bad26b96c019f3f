"""What the tests of deliveries share: settings, parcels, and Deliveries that can be waited for."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from agents.deliveries.deliveries import Deliveries
from agents.deliveries.destination import Parcel
from agents.deliveries.source import look_at
from agents.deliveries.status import DeliveryState, DeliveryStatus
from fakes.s3_server import ACCESS_KEY_ID, SECRET_ACCESS_KEY, S3Server
from gpu_balancer.runtime.clock import Clock, SystemClock
from gpu_balancer.runtime.recording_sections import DeliverySettings, DestinationSettings
from gpu_balancer.runtime.task_guard import TaskGuard

QUICK = DeliverySettings(first_pause_s=0.01, longest_pause_s=0.05)
PENDING, DELIVERED, FAILED = DeliveryState.PENDING, DeliveryState.DELIVERED, DeliveryState.FAILED


def write_credentials(path: Path, *, secret: str = SECRET_ACCESS_KEY) -> Path:
    path.write_text(f"# of the tests\naccess_key_id = {ACCESS_KEY_ID}\nsecret_access_key = {secret}\n")
    path.chmod(0o600)
    return path


def folder_settings(path: Path, name: str = "archive") -> DestinationSettings:
    return DestinationSettings(name=name, kind="folder", path=str(path))


def bucket_settings(
    server: S3Server, credentials: Path, *, prefix: str = "", bucket: str = "recordings"
) -> DestinationSettings:
    return DestinationSettings(
        name="cloud",
        kind="s3",
        bucket=bucket,
        prefix=prefix,
        endpoint=server.url,
        credentials_file=str(credentials),
    )


def write(folder: Path, path: str, content: bytes) -> Path:
    place = folder / path
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(content)
    return place


def parcel(artifacts: Path, path: str, *, attempt: int = 1) -> Parcel:
    return Parcel(session="s1", attempt=attempt, source=look_at(artifacts, path))


def files_below(folder: Path) -> dict[str, bytes]:
    """Gives every file below a folder, hidden ones too."""
    found = [Path(where, name) for where, _, names in os.walk(folder) for name in names]
    return {str(path.relative_to(folder)): path.read_bytes() for path in found}


class Rig:
    """Deliveries at work."""

    def __init__(self) -> None:
        self.changed: list[str] = []
        self._news = asyncio.Event()
        self.deliveries: Deliveries

    def on_changed(self, session: str) -> None:
        self.changed.append(session)
        self._news.set()

    def status(self, path: str, *, session: str = "s1", index: int = 0) -> DeliveryStatus:
        return self.deliveries.of_session(session)[path][index]

    async def until(self, fact: Callable[[], bool]) -> None:
        """Waits until a fact is true, asked anew after each change."""
        while not fact():
            self._news.clear()
            await self._news.wait()

    async def until_settled(self, session: str = "s1") -> None:
        await self.until(
            lambda: all(
                status.state is not PENDING
                for statuses in self.deliveries.of_session(session).values()
                for status in statuses
            )
        )


@asynccontextmanager
async def delivering(
    root: Path,
    destinations: Sequence[DestinationSettings],
    *,
    settings: DeliverySettings = QUICK,
    clock: Clock | None = None,
) -> AsyncIterator[Rig]:
    """Deliveries as an agent has them, until the block ends."""
    rig = Rig()
    async with TaskGuard("test") as tasks:
        rig.deliveries = Deliveries(
            root, settings, destinations, tasks=tasks, clock=clock or SystemClock(), on_changed=rig.on_changed
        )
        await rig.deliveries.start()
        yield rig
