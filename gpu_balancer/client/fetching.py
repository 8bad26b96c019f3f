"""Fetching what a session left to where it was wanted, and seeing that it is what the agent wrote."""

from __future__ import annotations

import hashlib
from contextlib import aclosing
from pathlib import Path
from typing import TYPE_CHECKING

from gpu_balancer.client.deliveries import place_inside
from gpu_balancer.client.downloads import ArtifactRequests
from gpu_balancer.client.session_requests import SessionRequests
from gpu_balancer.runtime.failures import Reason, RequestFailure

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Container, Sequence

    from gpu_balancer.client.deliveries import Delivery, Fetch
    from gpu_balancer.v1.session_pb2 import Artifact, Session

# Players read playlists first: they are fetched last, so that they never name a segment that is not there yet.
_PLAYLIST_SUFFIX = ".m3u8"


class FetchingRequests(SessionRequests, ArtifactRequests):
    """What is made of listing and reading artifacts."""

    async def fetch(
        self,
        session: Session,
        delivery: Delivery,
        *,
        overwrite: bool = False,
        on_download: Callable[[Artifact, int, int], object] | None = None,
    ) -> list[Path]:
        """Fetches what a delivery names from a session's artifacts; what the session did not leave is left out.

        Of a file that stayed in parts, the parts are fetched, beside where the file was to go: `out.part1.mp4`.

        Args:
            session: The session, best ended.
            delivery: What to fetch, and where to.
            overwrite: Replaces existing files.
            on_download: Is told the artifact, its bytes done and its bytes in all.

        Returns:
            The files written.
        """
        async with aclosing(self.list_artifacts(session.name)) as artifacts:
            found = [artifact async for artifact in artifacts]
        paths = {artifact.path for artifact in found}
        wanted = [
            (artifact, place)
            for artifact in found
            for fetch in delivery.fetches
            if (place := _place(artifact.path, fetch, paths)) is not None
        ]
        return await self._download_all(wanted, overwrite=overwrite, on_download=on_download)

    async def check_files(self, session: Session, delivery: Delivery) -> dict[Path, str]:
        """Compares fetched files with the SHA-256 in the report of a recording.

        Args:
            session: The session, ended.
            delivery: What was fetched, and where to.

        Returns:
            The files that were compared and agree, with their sums. What the report does not tell of, or what was not
            fetched, is left out.

        Raises:
            RequestFailure: With INTERNAL when one does not agree. It stays where it is.
            OSError: When one cannot be read.
        """
        checked: dict[Path, str] = {}
        for told in session.recording_report.files:
            places = [fetch.place_of(told.path) or fetch.part_place_of(told.path) for fetch in delivery.fetches]
            for place in places:
                if place is None or not told.sha256 or not await self._connection.work(place.is_file):
                    continue
                found = await self._connection.work(lambda place=place: _sha256(place))  # type: ignore[misc]
                if found != told.sha256.lower():
                    raise RequestFailure(
                        reason=Reason.INTERNAL,
                        message=f"Cannot trust {place}: its SHA-256 is {found}, and the agent wrote {told.sha256}. "
                        f"Try to fetch {told.path} of {session.name} again.",
                    )
                checked[place] = found
        return checked

    async def download_artifacts(
        self,
        session: str,
        folder: str | os.PathLike[str],
        *,
        overwrite: bool = False,
        on_download: Callable[[Artifact, int, int], object] | None = None,
    ) -> list[Path]:
        """Fetches every artifact of a session into a folder, sub-folders kept.

        Args:
            session: Name of the session.
            folder: The local folder; made when its own folder exists.
            overwrite: Replaces existing files.
            on_download: Is told the artifact, its bytes done and its bytes in all.

        Returns:
            The files written.
        """
        async with aclosing(self.list_artifacts(session)) as artifacts:
            wanted = [(artifact, place_inside(Path(folder), artifact.path)) async for artifact in artifacts]
        return await self._download_all(wanted, overwrite=overwrite, on_download=on_download)

    async def _download_all(
        self,
        wanted: Sequence[tuple[Artifact, Path]],
        *,
        overwrite: bool,
        on_download: Callable[[Artifact, int, int], object] | None,
    ) -> list[Path]:
        places: list[Path] = []
        for artifact, place in sorted(wanted, key=lambda one: one[0].path.endswith(_PLAYLIST_SUFFIX)):

            def progress(done_bytes: int, total_bytes: int, artifact: Artifact = artifact) -> None:
                if on_download is not None:
                    on_download(artifact, done_bytes, total_bytes)

            place.parent.mkdir(parents=True, exist_ok=True)
            places.append(await self.download_artifact(artifact, place, overwrite=overwrite, progress=progress))
        return places


def _place(artifact_path: str, fetch: Fetch, there: Container[str]) -> Path | None:
    place = fetch.place_of(artifact_path)
    if place is None and fetch.artifact_path not in there:
        return fetch.part_place_of(artifact_path)
    return place


def _sha256(place: Path) -> str:
    with place.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()
