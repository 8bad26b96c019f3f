"""What a client asks about sessions. Each is a call of SessionService; streams go on after a cut."""

from __future__ import annotations

from contextlib import aclosing
from typing import TYPE_CHECKING

from gpu_balancer.client import methods
from gpu_balancer.client.names import device_name, session_name
from gpu_balancer.client.requests import Requests, new_request_id
from gpu_balancer.runtime.failures import Reason, RequestFailure
from gpu_balancer.v1 import session_pb2, session_service_pb2

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Iterable, Mapping, Sequence

    from gpu_balancer.v1.placement_pb2 import Placement
    from gpu_balancer.v1.session_pb2 import Artifact, Session

ENDED_STATES = frozenset(
    {session_pb2.SESSION_STATE_SUCCEEDED, session_pb2.SESSION_STATE_FAILED, session_pb2.SESSION_STATE_CANCELLED}
)
"""States that never change again."""


def has_ended(session: Session) -> bool:
    """Tells whether a session is in one of its final states."""
    return session.state in ENDED_STATES


def session_filter(
    states: Iterable[session_pb2.SessionState.ValueType] = (),
    device: str | None = None,
    labels: Mapping[str, str] | None = None,
) -> session_service_pb2.SessionFilter:
    """Makes a filter. What is left out does not narrow.

    Args:
        states: Any of these states.
        device: On this device; `devices/x` or `x`.
        labels: With all of these labels.
    """
    return session_service_pb2.SessionFilter(
        states=states, device=device_name(device) if device else "", labels=labels or {}
    )


class SessionRequests(Requests):
    """The calls of SessionService."""

    async def create_session(self, session: Session, request_id: str | None = None) -> Session:
        """Has a session placed and started.

        Args:
            session: What is to be done; output-only fields are ignored.
            request_id: A name under which repeating the request gives the same session. None: a new one, so that this
                call may be repeated after a cut but another one makes another session.

        Returns:
            The session as stored, STARTING, or QUEUED when no device has room and its `max_wait` lets it wait.

        Raises:
            RequestFailure: When it is refused; without room with each device's refusal in `details`, QUEUE_FULL when
                too many sessions wait already.
        """
        request = session_service_pb2.CreateSessionRequest(session=session, request_id=request_id or new_request_id())
        return (await self._call(methods.CREATE_SESSION, request)).session

    async def get_session(self, name: str) -> Session:
        """Gives a session by name.

        Args:
            name: `sessions/x` or `x`.

        Raises:
            RequestFailure: With SESSION_NOT_FOUND when there is none.
        """
        request = session_service_pb2.GetSessionRequest(name=session_name(name))
        return (await self._call(methods.GET_SESSION, request)).session

    async def list_sessions(
        self, selection: session_service_pb2.SessionFilter | None = None, *, page_size: int = 0
    ) -> AsyncGenerator[Session, None]:
        """Gives sessions, newest first, page after page as they are taken.

        Args:
            selection: Which ones, as `session_filter` makes it. None: all.
            page_size: Sessions per page, up to 1,000. 0: the daemon's choice.
        """
        page_token = ""
        while True:
            request = session_service_pb2.ListSessionsRequest(
                page_size=page_size, page_token=page_token, filter=selection
            )
            page = await self._call(methods.LIST_SESSIONS, request)
            for session in page.sessions:
                yield session
            if not (page_token := page.next_page_token):
                return

    async def watch_session(self, name: str, *, after_revision: int = 0) -> AsyncGenerator[Session, None]:
        """Gives a session as it is, then after each change; ends after the final one. Goes on after a cut.

        Args:
            name: `sessions/x` or `x`.
            after_revision: Leaves out what was seen already. 0: begins with the present state.
        """
        revision = after_revision

        def following() -> session_service_pb2.WatchSessionRequest:
            return session_service_pb2.WatchSessionRequest(name=session_name(name), after_revision=revision)

        while True:
            async with aclosing(self._resumed(methods.WATCH_SESSION, following)) as answers:
                async for answer in answers:
                    if answer.session.revision > revision or revision == 0:
                        revision = answer.session.revision
                        yield answer.session
                    if has_ended(answer.session):
                        return
            # A daemon that ends in good order closes its streams without an error.
            session = await self.get_session(name)
            if session.revision > revision:
                revision = session.revision
                yield session
            if has_ended(session):
                return
            await self._connection.pause(self._stream_policy.first_delay)

    async def watch_sessions(
        self, selection: session_service_pb2.SessionFilter | None = None, *, resume_token: str = ""
    ) -> AsyncGenerator[session_service_pb2.WatchSessionsResponse, None]:
        """Gives all sessions that match, then each change, without end. Goes on after a cut.

        Args:
            selection: Which ones, as `session_filter` makes it. None: all.
            resume_token: That of the last change seen. Empty: begins with all present sessions.
        """
        token = resume_token

        def following() -> session_service_pb2.WatchSessionsRequest:
            return session_service_pb2.WatchSessionsRequest(filter=selection, resume_token=token)

        while True:
            async with aclosing(self._resumed(methods.WATCH_SESSIONS, following)) as answers:
                async for answer in answers:
                    token = answer.resume_token or token
                    yield answer
            await self._connection.pause(self._stream_policy.first_delay)

    async def stop_session(self, name: str) -> Session:
        """Asks a session to complete its outputs and end. Asking again changes nothing.

        Returns:
            The session, STOPPING or ended.
        """
        request = session_service_pb2.StopSessionRequest(name=session_name(name))
        return (await self._call(methods.STOP_SESSION, request)).session

    async def delete_session(self, name: str) -> None:
        """Removes an ended session and its artifacts.

        Raises:
            RequestFailure: With SESSION_NOT_ENDED while it lives, SESSION_NOT_FOUND when there is none.
        """
        request = session_service_pb2.DeleteSessionRequest(name=session_name(name))
        await self._call(methods.DELETE_SESSION, request, gone=Reason.SESSION_NOT_FOUND)

    async def plan_session(self, session: Session) -> session_service_pb2.PlanSessionResponse:
        """Tells where a session would go, and why, without starting it."""
        return await self._call(methods.PLAN_SESSION, session_service_pb2.PlanSessionRequest(session=session))

    async def explain(self, name: str) -> Sequence[Placement]:
        """Tells why a session went where it went.

        Args:
            name: `sessions/x` or `x`.

        Returns:
            The decision of each of its attempts, oldest first; of a session that was queued, also the refusal that
            sent it there.

        Raises:
            RequestFailure: With SESSION_NOT_FOUND when there is none.
        """
        request = session_service_pb2.ExplainSessionRequest(name=session_name(name))
        return (await self._call(methods.EXPLAIN_SESSION, request)).placements

    async def read_session_log(
        self, name: str, *, tail_lines: int | None = None, follow: bool = False
    ) -> AsyncGenerator[str, None]:
        """Gives the lines of a session's log, secrets redacted.

        Args:
            name: `sessions/x` or `x`.
            tail_lines: Begins with this many last lines. None: all.
            follow: Goes on as lines are written, until the session ends.

        Raises:
            RequestFailure: When the stream is cut after its first line; lines have no numbers to go on from.
        """
        request = session_service_pb2.ReadSessionLogRequest(
            name=session_name(name), tail_lines=tail_lines, follow=follow
        )
        retries = self._retries(self._retry_policy)
        given = False
        while True:
            try:
                async with aclosing(self._connection.stream(methods.READ_SESSION_LOG, request)) as answers:
                    async for answer in answers:
                        given = self._was_there = True
                        for line in answer.lines:
                            yield line
            except RequestFailure as failure:
                if given:
                    raise
                await self._wait_or_raise(failure, retries)
            else:
                return

    async def list_artifacts(self, name: str, *, page_size: int = 0) -> AsyncGenerator[Artifact, None]:
        """Gives a session's artifacts by path, page after page as they are taken."""
        page_token = ""
        while True:
            request = session_service_pb2.ListArtifactsRequest(
                parent=session_name(name), page_size=page_size, page_token=page_token
            )
            page = await self._call(methods.LIST_ARTIFACTS, request)
            for artifact in page.artifacts:
                yield artifact
            if not (page_token := page.next_page_token):
                return

    async def wait(self, session: Session | str, *, on_change: Callable[[Session], object] | None = None) -> Session:
        """Waits until a session has ended. Its time in the queue, if any, is part of that: `max_wait` bounds it.

        Args:
            session: The session or its name.
            on_change: Is told the session as it is, then after each change, the final one included.

        Returns:
            The session, SUCCEEDED, FAILED (its `failure` says why) or CANCELLED.
        """
        name = session if isinstance(session, str) else session.name
        latest: Session | None = None
        async with aclosing(self.watch_session(name)) as changes:
            async for latest in changes:
                if on_change is not None:
                    on_change(latest)
        if latest is None:  # pragma: no cover - the stream begins with the present state
            raise RequestFailure(reason=Reason.INTERNAL, message=f"Cannot wait for {name}: the daemon told nothing.")
        return latest
