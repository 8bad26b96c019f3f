"""The whole way in one call: submit, upload what the daemon cannot read, wait, fetch the results."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from gpu_balancer.client.deliveries import Delivery, check_places, file_delivery, hls_delivery, names_folder
from gpu_balancer.client.fetching import FetchingRequests
from gpu_balancer.client.ladders import LadderRequests
from gpu_balancer.client.session_requests import has_ended
from gpu_balancer.client.specs import input_uri, local_file, local_path, to_duration
from gpu_balancer.client.upload_words import failure_of_file, session_of_file
from gpu_balancer.client.uploads import UploadRequests
from gpu_balancer.runtime.failures import Reason, RequestFailure
from gpu_balancer.v1 import media_pb2, session_pb2

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Mapping, Sequence
    from datetime import timedelta

    from gpu_balancer.v1.session_pb2 import Session
    from gpu_balancer.v1.session_service_pb2 import PlanSessionResponse

_UPLOAD_HELPS = frozenset({Reason.INPUT_NOT_ALLOWED, Reason.INPUT_NOT_FOUND})


class TranscodingRequests(FetchingRequests, LadderRequests, UploadRequests):
    """What is made of the calls about sessions and uploads for a transcode."""

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
        restart: session_pb2.RestartPolicy | None = None,
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
            restart: What becomes of it when an attempt ends short of its work, see docs/restarts.md. None: what the
                daemon's settings say.
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
        ladder = await self._ladder(renditions, profile, default="source")
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
            restart=restart,
        )
        session = await self.submit(session)
        if not wait:
            return session
        session = await self.wait(session, on_change=on_change)
        if session.state == session_pb2.SESSION_STATE_SUCCEEDED:
            await self.fetch(session, delivery, overwrite=overwrite)
        return session_of_file(session, local_file(given))

    async def submit(self, session: Session, *, on_upload: Callable[[int, int], object] | None = None) -> Session:
        """Creates a session; uploads its local input file first when the daemon may not read it itself.

        Args:
            session: What is to be done.
            on_upload: Is told the bytes sent and the bytes in all, possibly on another thread.
        """
        try:
            return await self.create_session(session)
        except RequestFailure as refusal:
            uploaded, file = await self._uploaded(session, refusal, on_upload)
        try:
            return await self.create_session(uploaded)
        except RequestFailure as refusal:
            raise failure_of_file(refusal, uploaded.transcode.input.upload, file) from refusal

    async def plan(
        self, session: Session, *, on_upload: Callable[[int, int], object] | None = None
    ) -> PlanSessionResponse:
        """Plans a session; uploads its local input file as `submit` does, so that submitting it later need not."""
        try:
            return await self.plan_session(session)
        except RequestFailure as refusal:
            uploaded, file = await self._uploaded(session, refusal, on_upload)
        try:
            return await self.plan_session(uploaded)
        except RequestFailure as refusal:
            raise failure_of_file(refusal, uploaded.transcode.input.upload, file) from refusal

    async def _uploaded(
        self, session: Session, refusal: RequestFailure, on_upload: Callable[[int, int], object] | None
    ) -> tuple[Session, Path]:
        """Uploads the session's input, or raises why that would not help.

        Returns:
            The session with the upload for its input, and the file.
        """
        path = local_path(session.transcode.input)
        if path is None or refusal.reason not in _UPLOAD_HELPS:
            raise refusal
        file = local_file(session.transcode.input)
        if file is None:
            raise _nowhere(path, refusal) from refusal
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
        return changed, file

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


def _nowhere(path: Path, refusal: RequestFailure) -> RequestFailure:
    """Says what the daemon cannot know: that there is no such file here either, which it could be sent.

    A daemon on another machine may have one, outside its roots; so what it said is told too.
    """
    what = "it is a folder" if path.is_dir() else "there is no such file here"
    if path.exists() and not path.is_dir():
        what = "it is no regular file"
    theirs = "may not read one" if refusal.reason is Reason.INPUT_NOT_ALLOWED else "finds none"
    return RequestFailure(
        reason=Reason.INPUT_NOT_FOUND,
        message=f"Cannot read {path}: {what}, and the daemon {theirs} of that name. Try another path.",
    )
