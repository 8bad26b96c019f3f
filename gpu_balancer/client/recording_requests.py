"""What a client asks about recordings: making one, letting it rest, making it longer, looking at it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gpu_balancer.client import methods
from gpu_balancer.client.deliveries import Delivery, check_places, file_delivery, hls_delivery, names_folder
from gpu_balancer.client.fetching import FetchingRequests
from gpu_balancer.client.ladders import LadderRequests
from gpu_balancer.client.names import session_name
from gpu_balancer.client.recording_specs import (
    DEFAULT_RENDITION,
    check_duration,
    make_capture,
    make_gate,
    make_spec,
    make_watermark,
)
from gpu_balancer.client.specs import to_duration
from gpu_balancer.v1 import recording_pb2, session_pb2, session_service_pb2

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Mapping, Sequence
    from datetime import timedelta

    from gpu_balancer.v1 import media_pb2
    from gpu_balancer.v1.session_pb2 import Session

_LEFT_FILES = (session_pb2.SESSION_STATE_SUCCEEDED, session_pb2.SESSION_STATE_CANCELLED)


class RecordingRequests(FetchingRequests, LadderRequests):
    """The calls of SessionService about recordings, and a whole recording in one call."""

    async def record(  # noqa: PLR0913 - the one call that a script needs, keyword-only after the first
        self,
        source: str | recording_pb2.PageSource | recording_pb2.ApplicationSource,
        *,
        size: str | tuple[int, int] | None = None,
        fps: str | float | None = None,
        duration: timedelta | None = None,
        gate: str | None = None,
        gate_timeout: timedelta | None = None,
        end_signal: str = "",
        stop_on_silence: timedelta | None = None,
        stop_on_idle: timedelta | None = None,
        show_cursor: bool = False,
        sound: bool = True,
        renditions: Sequence[str | media_pb2.Rendition] = (),
        profile: str = "",
        outputs: Sequence[media_pb2.Output] = (),
        watermark: str | recording_pb2.Watermark | None = None,
        thumbnail_interval: timedelta | None = None,
        destinations: Sequence[str] = (),
        save_to: str | os.PathLike[str] | None = None,
        overwrite: bool = False,
        wait: bool = True,
        labels: Mapping[str, str] | None = None,
        max_wait: timedelta | None = None,
        restart: session_pb2.RestartPolicy | None = None,
        allow_software_encode: bool = False,
        request_id: str | None = None,
        on_change: Callable[[Session], object] | None = None,
    ) -> Session:
        """Records a web page, or an application of the operator's.

        Args:
            source: The URL of a page; the contract's `PageSource` for a page with options such as cookies, headers or
                a locale; its `ApplicationSource` for an application.
            size: Of the display: "1280x720", "720p" (16:9), or width and height in pixels, even. None: 1280x720.
            fps: Pictures per second, 1 to 120: 30, "29.97" or "30000/1001". None: 30.
            duration: Ends it after so much recorded time, 1 s to 366 days; pauses do not count. None: it goes on until
                it is stopped, or a stop rule ends it.
            gate: What is awaited before the first picture: "immediately", "paint", "network-idle", "selector:CSS",
                "signal[:WORD]", or "window" for an application. None: "paint", or "window".
            gate_timeout: How long that is awaited, 0.1 s to 10 min. None: 30 s.
            end_signal: A console message of the page that ends it. Empty: "END_RECORDING".
            stop_on_silence: Ends it after so long without sound, 1 s to 24 h. None: silence does not matter.
            stop_on_idle: Ends it after so long without a change in the picture, 1 s to 24 h. None: it does not matter.
            show_cursor: Shows the mouse pointer.
            sound: Records sound.
            renditions: Spelled `[NAME=]SIZE[:CODEC[:RATE]]`, such as "1280x720:hevc:2.5M", or messages. Empty: the
                profile's, or without a profile one H.264 rendition of the display's size.
            profile: Name of a ladder of the daemon's settings. Excludes renditions.
            outputs: Where renditions go, besides save_to. Empty, and no save_to: one MP4 artifact per rendition.
            watermark: A picture over every frame, "PATH[:CORNER]" or a message; the path is the daemon's, under its
                input roots. None: none.
            thumbnail_interval: Leaves a JPEG artifact each so much time, 1 s to 1 h. None: none.
            destinations: Names of the operator's destinations to which every artifact is copied at the end.
            save_to: A local file (.mp4, .mkv, .ts) or folder (HLS) to fetch the result to; see `file_delivery`. Needs
                wait.
            overwrite: Replaces existing local files.
            wait: Waits for the end. Otherwise returns as soon as the session is placed, or queued.
            labels: The caller's own notes.
            max_wait: Lets the session wait this long for a device when none has room; the daemon's settings may allow
                less. After it the session is FAILED with QUEUE_TIMEOUT. None: it is refused at once.
            restart: What becomes of it when an attempt ends short of its work, see docs/restarts.md. None: what the
                daemon's settings say.
            allow_software_encode: Lets a GPU without a fitting encoder leave encoding to the host's cores.
            request_id: A name under which repeating the request gives the same session. None: a new one.
            on_change: Is told the session after each change while waiting.

        Returns:
            The session; with wait, its final state, which may be FAILED or CANCELLED. Its `recording_report` has the
            figures. Files are fetched, and compared with the SHA-256 in the report, when it SUCCEEDED or was stopped.

        Raises:
            ValueError: When a spelling is wrong, or options exclude one another.
            OSError: When save_to cannot be written.
            RequestFailure: When the daemon refuses, or a fetched file is not what the agent wrote.
        """
        if save_to is not None and not wait:
            raise ValueError("Cannot save a result without waiting for it. Try wait=True, or leave out save_to.")
        check_duration(duration)
        spec = make_spec(source)
        rest = recording_pb2.RecordingSpec(
            capture=make_capture(size, fps, show_cursor=show_cursor, sound=sound),
            start_gate=make_gate(gate, gate_timeout, of_page=spec.HasField("page")),
            stop_rules=recording_pb2.StopRules(
                end_signal=end_signal, silence=to_duration(stop_on_silence), idle=to_duration(stop_on_idle)
            ),
            profile=profile,
            watermark=make_watermark(watermark) if isinstance(watermark, str) else watermark,
            thumbnail_interval=to_duration(thumbnail_interval),
            destinations=destinations,
            allow_software_encode=allow_software_encode,
        )
        spec.MergeFrom(rest)
        ladder = await self._ladder(renditions, profile, default=DEFAULT_RENDITION)
        delivery = _delivery_of(save_to, ladder, overwrite=overwrite)
        spec.renditions.extend(() if profile else ladder)
        spec.outputs.extend((*outputs, *delivery.outputs))
        asked = session_pb2.Session(recording=spec, labels=labels or {}, restart=restart)
        _bound(asked, duration, max_wait)
        session = await self.create_session(asked, request_id)
        if not wait:
            return session
        return await self._fetched(await self.wait(session, on_change=on_change), delivery, overwrite=overwrite)

    async def _fetched(self, ended: Session, delivery: Delivery, *, overwrite: bool) -> Session:
        """Fetches what an ended recording left, and sees that it is what the agent wrote."""
        if ended.state in _LEFT_FILES:
            await self.fetch(ended, delivery, overwrite=overwrite)
            await self.check_files(ended, delivery)
        return ended

    async def pause(self, name: str) -> Session:
        """Lets a recording rest: its files show no gap, and its duration does not count on. Asking again does nothing.

        Args:
            name: `sessions/x` or `x`.

        Returns:
            The session; its condition PAUSED may follow a moment later.

        Raises:
            RequestFailure: When it does not record now.
        """
        request = session_service_pb2.PauseSessionRequest(name=session_name(name))
        return (await self._call(methods.PAUSE_SESSION, request)).session

    async def resume(self, name: str) -> Session:
        """Goes on recording after a pause. Asking again does nothing."""
        request = session_service_pb2.ResumeSessionRequest(name=session_name(name))
        return (await self._call(methods.RESUME_SESSION, request)).session

    async def extend(self, name: str, duration: timedelta | None) -> Session:
        """Gives a recording another duration, counted from its first frame; pauses do not count.

        Args:
            name: `sessions/x` or `x`.
            duration: The new one, 1 s to 366 days. One that has passed already ends the recording. None: without a
                bound.

        Raises:
            ValueError: When the duration is outside these bounds.
            RequestFailure: When there is no such recording, or it has ended.
        """
        check_duration(duration)
        request = session_service_pb2.ExtendSessionRequest(name=session_name(name), max_duration=to_duration(duration))
        return (await self._call(methods.EXTEND_SESSION, request)).session

    async def snapshot(self, name: str, *, width: int | None = None) -> session_service_pb2.SnapshotSessionResponse:
        """Takes a picture of a recording's display now.

        Args:
            name: `sessions/x` or `x`.
            width: Width of the picture in pixels, 16 to 8192; the height follows. None: the display's.

        Returns:
            The picture as PNG, and when it was taken.

        Raises:
            RequestFailure: When it does not show anything now.
        """
        request = session_service_pb2.SnapshotSessionRequest(name=session_name(name), width=width)
        return await self._call(methods.SNAPSHOT_SESSION, request)


def _delivery_of(
    save_to: str | os.PathLike[str] | None, ladder: Sequence[media_pb2.Rendition], *, overwrite: bool
) -> Delivery:
    """Plans where the result goes locally, and sees that it may go there."""
    if save_to is None:
        return Delivery()
    names = [rendition.id for rendition in ladder]
    delivery = hls_delivery(save_to) if names_folder(save_to) else file_delivery(save_to, names)
    check_places(delivery.fetches, overwrite=overwrite)
    return delivery


def _bound(session: Session, duration: timedelta | None, max_wait: timedelta | None) -> None:
    """Says how long a session may run and wait. None: without a bound, or not at all."""
    if duration is not None:
        session.max_duration.FromTimedelta(duration)
    if max_wait is not None:
        session.max_wait.FromTimedelta(max_wait)
