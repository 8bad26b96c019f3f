"""Artifacts as local files: written beside their place, made durable, then put in place in one step.

A part file's name follows from the artifact's name, size and time, so that a second run of the same command goes on
where the first one ended and can never join halves of different files.
"""

from __future__ import annotations

import errno
import hashlib
import os
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from gpu_balancer.client import methods
from gpu_balancer.client.requests import Requests
from gpu_balancer.runtime.failures import Reason, RequestFailure
from gpu_balancer.v1 import session_service_pb2

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

    from gpu_balancer.v1.session_pb2 import Artifact


class ArtifactRequests(Requests):
    """Reading artifacts and writing them to local files."""

    async def read_artifact(
        self, name: str, *, offset_bytes: int = 0, limit_bytes: int | None = None
    ) -> AsyncGenerator[bytes, None]:
        """Gives the bytes of an artifact, going on after a cut.

        Args:
            name: `sessions/x/artifacts/path`.
            offset_bytes: First byte.
            limit_bytes: At most this many bytes, above 0. None: to the end.

        Raises:
            RequestFailure: With ARTIFACT_NOT_FOUND, or RANGE_INVALID when the offset is behind the end.
        """
        async with aclosing(self._artifact_stream(name, offset_bytes, limit_bytes)) as answers:
            async for answer in answers:
                if answer.data:
                    yield answer.data

    async def _artifact_stream(
        self, name: str, offset_bytes: int, limit_bytes: int | None
    ) -> AsyncGenerator[session_service_pb2.ReadArtifactResponse, None]:
        done_bytes = 0

        def following() -> session_service_pb2.ReadArtifactRequest:
            return session_service_pb2.ReadArtifactRequest(
                name=name,
                offset_bytes=offset_bytes + done_bytes,
                limit_bytes=0 if limit_bytes is None else limit_bytes - done_bytes,
            )

        end_bytes = None if limit_bytes is None else offset_bytes + limit_bytes
        async with aclosing(self._resumed(methods.READ_ARTIFACT, following)) as answers:
            async for answer in answers:
                done_bytes += len(answer.data)
                if answer.HasField("artifact") and answer.artifact.final:
                    end_bytes = min(answer.artifact.size_bytes, end_bytes or answer.artifact.size_bytes)
                yield answer
                # A cut after the last byte must not be followed by a request for nothing.
                if end_bytes is not None and offset_bytes + done_bytes >= end_bytes:
                    return

    async def download_artifact(
        self,
        artifact: Artifact | str,
        target: str | os.PathLike[str],
        *,
        overwrite: bool = False,
        progress: Callable[[int, int], object] | None = None,
    ) -> Path:
        """Writes an artifact to a local file, going on where an earlier try ended.

        Args:
            artifact: The artifact or its name, `sessions/x/artifacts/path`.
            target: The file to be made. Its folder must exist.
            overwrite: Replaces an existing file.
            progress: Is told the bytes done and the bytes in all, now and then.

        Returns:
            The path of the file, complete and on disk.

        Raises:
            FileExistsError: When there is such a file and it may not be replaced.
            OSError: When the file cannot be written.
            RequestFailure: When the artifact cannot be read.
        """
        place = Path(target)
        if not overwrite and await self._connection.work(place.exists):
            raise FileExistsError(errno.EEXIST, "Cannot write the artifact: the file exists", str(place))
        name = artifact if isinstance(artifact, str) else artifact.name
        while not await self._try_download(name, place, progress):
            pass
        return place

    async def _try_download(self, name: str, place: Path, progress: Callable[[int, int], object] | None) -> bool:
        """Downloads once. Returns False when the artifact changed meanwhile and must be read from its beginning."""
        work = self._connection.work
        described = await self._describe(name)
        part = await work(lambda: _open_part(place, described))
        try:
            if not (described.final and part.written_bytes == described.size_bytes) and not await self._fill(
                part, described, progress
            ):
                await work(part.discard)
                return False
            if described.final and part.written_bytes != described.size_bytes:
                await work(part.discard)
                raise RequestFailure(
                    reason=Reason.RANGE_INVALID,
                    message=f"Cannot use {name}: {part.written_bytes} bytes came instead of {described.size_bytes}.",
                )
            await work(part.put_in_place)
        except OSError:
            # A full disk should not stay full of a file that cannot be completed.
            await work(part.discard)
            raise
        finally:
            await work(part.close)
        return True

    async def _fill(self, part: _Part, described: Artifact, progress: Callable[[int, int], object] | None) -> bool:
        """Writes what is missing. Returns False when the artifact is no longer the one described."""
        stream = self._artifact_stream(described.name, part.written_bytes, None)
        async with aclosing(stream) as answers:
            async for answer in answers:
                if answer.HasField("artifact") and _differs(answer.artifact, described):
                    return False
                await self._connection.work(partial(part.write, answer.data))
                if progress is not None:
                    progress(part.written_bytes, max(part.written_bytes, described.size_bytes))
        return True

    async def _describe(self, name: str) -> Artifact:
        """Asks what an artifact is: the first answer of a stream says so."""
        request = session_service_pb2.ReadArtifactRequest(name=name, limit_bytes=1)
        async with aclosing(self._resumed(methods.READ_ARTIFACT, lambda: request)) as answers:
            async for answer in answers:
                if answer.HasField("artifact"):
                    return answer.artifact
        raise RequestFailure(
            reason=Reason.ARTIFACT_NOT_FOUND, message=f"Cannot read {name}: the daemon did not say what it is."
        )


@dataclass(slots=True, kw_only=True)
class _Part:
    """An artifact on its way to its place."""

    file: BinaryIO
    path: Path
    place: Path
    written_bytes: int

    def write(self, data: bytes) -> None:
        self.file.write(data)
        self.written_bytes += len(data)

    def put_in_place(self) -> None:
        """Makes the bytes durable before the name, so that a power cut leaves no empty file of the right name."""
        self.file.flush()
        os.fsync(self.file.fileno())
        self.path.replace(self.place)
        folder = os.open(self.place.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def discard(self) -> None:
        self.path.unlink(missing_ok=True)

    def close(self) -> None:
        self.file.close()


def _open_part(place: Path, artifact: Artifact) -> _Part:
    """Opens the artifact's part file at its end; one of an unfinished artifact begins anew."""
    identity = artifact.name
    if artifact.final:
        identity += f"\0{artifact.size_bytes}\0{artifact.update_time.ToNanoseconds()}"
    path = place.with_name(f".{place.name}.{hashlib.sha256(identity.encode()).hexdigest()[:12]}.part")
    file = path.open("ab" if artifact.final else "wb")
    if file.tell() > artifact.size_bytes:
        file.truncate(0)
    return _Part(file=file, path=path, place=place, written_bytes=file.seek(0, os.SEEK_END))


def _differs(artifact: Artifact, described: Artifact) -> bool:
    """Tells whether bytes of a final artifact would join those of another. A growing one only ever grows."""
    if not described.final:
        return False
    return (artifact.size_bytes, artifact.update_time) != (described.size_bytes, described.update_time)
