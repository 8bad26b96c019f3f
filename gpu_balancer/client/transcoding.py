"""The whole way in one call: submit, upload what the daemon cannot read, wait, fetch the results."""

from __future__ import annotations

from contextlib import aclosing
from pathlib import Path
from typing import TYPE_CHECKING

from gpu_balancer.client.deliveries import Delivery, check_places, file_delivery, hls_delivery, names_folder
from gpu_balancer.client.device_requests import BalancerRequests, DeviceRequests
from gpu_balancer.client.downloads import ArtifactRequests, place_of
from gpu_balancer.client.session_requests import SessionRequests, has_ended
from gpu_balancer.client.specs import input_uri, local_file, make_renditions, to_duration
from gpu_balancer.client.trace_requests import TraceRequests
from gpu_balancer.client.uploads import UploadRequests
from gpu_balancer.runtime.failures import Reason, RequestFailure
from gpu_balancer.v1 import media_pb2, session_pb2

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Mapping, Sequence
    from datetime import timedelta

    from gpu_balancer.v1.session_pb2 import Artifact, Session
    from gpu_balancer.v1.session_service_pb2 import PlanSessionResponse

_UPLOAD_HELPS = frozenset({Reason.INPUT_NOT_ALLOWED, Reason.INPUT_NOT_FOUND})
# Players read playlists first: they are fetched last, so that they never name a segment that is not there yet.
_PLAYLIST_SUFFIX = ".m3u8"


class TranscodingRequests(
    SessionRequests, TraceRequests, DeviceRequests, BalancerRequests, UploadRequests, ArtifactRequests
):
    """Every call of the contract, and what is made of several of them."""

    async def transcode(  # noqa: PLR0913 - the one call that a script needs, keyword-only after the first
        self,
        source: str | os.PathLike[str] | media_pb2.Input,
        *,
        renditions: Sequence[str | media_pb2.Rendition] = (),
        profile: str = "",
        outputs: Sequence[media_pb2.Output] = (),
        save_to: str | os.PathLike[str] | None = None,
        overwrite: bool = False,
        wait: bool = True,
        priority: session_pb2.Priority.ValueType = session_pb2.PRIORITY_UNSPECIFIED,
        labels: Mapping[str, str] | None = None,
        max_duration: timedelta | None = None,
        max_wait: timedelta | None = None,
        preemptible: bool = False,
        reserved_speed: float | None = None,
        allow_software_encode: bool = False,
        on_change: Callable[[Session], object] | None = None,
    ) -> Session:
        """Transcodes a file, URL or ingest.

        A local file that the daemon may not read is uploaded first.

        Args:
            source: A path, a URL, or the contract's `Input` for everything else.
            renditions: Spelled `[NAME=]SIZE[:CODEC[:RATE]]`, such as "1280x720:hevc:2.5M", or messages. Empty: the
                profile's, or without a profile one H.264 rendition of the input's size.
            profile: Name of a ladder of the daemon's settings. Excludes renditions.
            outputs: Where renditions go, besides save_to. Empty, and no save_to: one MP4 artifact per rendition.
            save_to: A local file (.mp4, .mkv, .ts) or folder (HLS) to fetch the result to; see `file_delivery`. Needs
                wait.
            overwrite: Replaces existing local files.
            wait: Waits for the end. Otherwise returns as soon as the session is placed, or queued.
            priority: LIVE or BATCH. Unspecified: follows from the input.
            labels: The caller's own notes.
            max_duration: Stops the session after this much time of running. None: never.
            max_wait: Lets the session wait this long for a device when none has room; the daemon's settings may allow
                less. After it the session is FAILED with QUEUE_TIMEOUT. None: it is refused at once.
            preemptible: Lets the session be stopped, its files thrown away, and queued again when LIVE work needs its
                room. For BATCH only.
            reserved_speed: Speed that is kept free for the session whatever else comes, in times real time, 0.01 to
                1,000. Only for work that is not bound to real time. None: what its device has left, at most real time.
            allow_software_encode: Lets a GPU without a fitting encoder leave encoding to the host's cores.
            on_change: Is told the session after each change while waiting.

        Returns:
            The session; with wait, its final state, which may be FAILED or CANCELLED. Files are fetched when it
            SUCCEEDED.

        Raises:
            ValueError: When a spelling is wrong, or options exclude one another.
            OSError: When save_to cannot be written, or the input cannot be read for an upload.
            RequestFailure: When the daemon refuses.
        """
        if save_to is not None and not wait:
            raise ValueError("Cannot save a result without waiting for it. Try wait=True, or leave out save_to.")
        given = source if isinstance(source, media_pb2.Input) else media_pb2.Input(uri=input_uri(source))
        ladder = await self._ladder(renditions, profile)
        delivery = Delivery()
        if save_to is not None:
            names = [rendition.id for rendition in ladder]
            delivery = hls_delivery(save_to) if names_folder(save_to) else file_delivery(save_to, names)
            check_places(delivery.fetches, overwrite=overwrite, source=local_file(given))
        session = session_pb2.Session(
            transcode=media_pb2.TranscodeSpec(
                input=given,
                profile=profile,
                renditions=() if profile else ladder,
                outputs=(*outputs, *delivery.outputs),
                allow_software_encode=allow_software_encode,
            ),
            priority=priority,
            labels=labels or {},
            max_duration=to_duration(max_duration),
            max_wait=to_duration(max_wait),
            preemptible=preemptible,
            reserved_speed=reserved_speed,
        )
        session = await self.submit(session)
        if not wait:
            return session
        session = await self.wait(session, on_change=on_change)
        if session.state == session_pb2.SESSION_STATE_SUCCEEDED:
            await self.fetch(session, delivery, overwrite=overwrite)
        return session

    async def _ladder(
        self, renditions: Sequence[str | media_pb2.Rendition], profile: str
    ) -> Sequence[media_pb2.Rendition]:
        if not profile:
            return make_renditions(renditions or ("source",))
        if renditions:
            raise ValueError("Cannot use a profile and renditions together. Try one of them.")
        return await self.profile_renditions(profile)

    async def profile_renditions(self, profile: str) -> Sequence[media_pb2.Rendition]:
        """Gives the renditions of a ladder of the daemon's settings.

        Raises:
            RequestFailure: With PROFILE_UNKNOWN, naming those that there are.
        """
        profiles = {known.name: known.renditions for known in (await self.get_balancer()).profiles}
        if profile not in profiles:
            known_names = ", ".join(sorted(profiles)) or "none: the settings have no profiles"
            raise RequestFailure(
                reason=Reason.PROFILE_UNKNOWN,
                message=f"Cannot find the profile {profile!r}. Try one of these: {known_names}.",
            )
        return profiles[profile]

    async def submit(self, session: Session, *, on_upload: Callable[[int, int], object] | None = None) -> Session:
        """Creates a session; uploads its local input file first when the daemon may not read it itself.

        Args:
            session: What is to be done.
            on_upload: Is told the bytes sent and the bytes in all, possibly on another thread.
        """
        try:
            return await self.create_session(session)
        except RequestFailure as refusal:
            uploaded = await self._uploaded(session, refusal, on_upload)
        return await self.create_session(uploaded)

    async def plan(
        self, session: Session, *, on_upload: Callable[[int, int], object] | None = None
    ) -> PlanSessionResponse:
        """Plans a session; uploads its local input file as `submit` does, so that submitting it later need not."""
        try:
            return await self.plan_session(session)
        except RequestFailure as refusal:
            uploaded = await self._uploaded(session, refusal, on_upload)
        return await self.plan_session(uploaded)

    async def _uploaded(
        self, session: Session, refusal: RequestFailure, on_upload: Callable[[int, int], object] | None
    ) -> Session:
        """Uploads the session's input, or raises the refusal when that would not help."""
        file = local_file(session.transcode.input)
        if file is None or refusal.reason not in _UPLOAD_HELPS:
            raise refusal
        size_bytes, limit_bytes = file.stat().st_size, (await self.get_balancer()).max_upload_bytes
        if 0 < limit_bytes < size_bytes:
            raise RequestFailure(
                reason=Reason.UPLOAD_TOO_LARGE,
                message=f"Cannot upload {file}, which the daemon may not read itself: it has {size_bytes:,} bytes and "
                f"the daemon takes {limit_bytes:,}. Try to put it under one of the daemon's input roots.",
            ) from refusal
        upload = await self.upload_file(file, progress=on_upload)
        changed = session_pb2.Session()
        changed.CopyFrom(session)
        changed.transcode.input.upload = upload.name
        return changed

    async def discard_upload(self, session: Session) -> None:
        """Removes the upload that an ended session used, unless another session uses it too."""
        name = session.transcode.input.upload
        if not name or not has_ended(session):
            return
        try:
            await self.delete_upload(name)
        except RequestFailure as failure:
            if failure.reason not in (Reason.UPLOAD_IN_USE, Reason.UPLOAD_NOT_FOUND):
                raise

    async def fetch(
        self,
        session: Session,
        delivery: Delivery,
        *,
        overwrite: bool = False,
        on_download: Callable[[Artifact, int, int], object] | None = None,
    ) -> list[Path]:
        """Fetches what a delivery names from a session's artifacts; what the session did not leave is left out.

        Args:
            session: The session, best ended.
            delivery: What to fetch, and where to.
            overwrite: Replaces existing files.
            on_download: Is told the artifact, its bytes done and its bytes in all.

        Returns:
            The files written.
        """
        wanted: list[tuple[Artifact, Path]] = []
        async with aclosing(self.list_artifacts(session.name)) as artifacts:
            async for artifact in artifacts:
                for fetch in delivery.fetches:
                    if fetch.whole_folder and artifact.path.startswith(f"{fetch.artifact_path}/"):
                        wanted.append((artifact, place_of(artifact, fetch.target, below=fetch.artifact_path)))
                    elif artifact.path == fetch.artifact_path:
                        wanted.append((artifact, fetch.target))
        return await self._download_all(wanted, overwrite=overwrite, on_download=on_download)

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
            wanted = [(artifact, place_of(artifact, Path(folder))) async for artifact in artifacts]
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
