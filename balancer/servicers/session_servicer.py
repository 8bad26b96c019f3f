"""SessionService: translates, asks the engine or an agent, and translates back. It decides nothing.

A session is checked, then looked at by an agent where its client did not say what it is, then admitted. A request that
was answered before gets the same answer before anybody is asked: its input may be gone by now, and its outputs there.
"""

from __future__ import annotations

from contextlib import aclosing
from dataclasses import replace
from typing import TYPE_CHECKING, cast

import structlog

from balancer.admission import Admission, PlacementRefused
from balancer.decision_text import UnreadableDecision, decision_from_text, shortened
from balancer.domain.restart import LOSSES_ONLY
from balancer.feed_watcher import FeedReset, FeedSynced, SessionRemoved, SessionUpdated
from balancer.servicers.contract_words import SESSION_STATES
from balancer.servicers.control_requests import max_duration_of, snapshot_width_of
from balancer.servicers.ladder_memory import LadderMemory
from balancer.servicers.names import artifact_of, check_request_id, device_id_of, session_id_of, session_name
from balancer.servicers.paging import page_of
from balancer.servicers.placement_translation import placement_detail, placement_to_proto
from balancer.servicers.session_specs import is_recording
from balancer.servicers.session_trace_export import exported_trace, span_of
from balancer.servicers.session_translation import (
    planned_to_proto,
    prepare_recording,
    prepare_session,
    session_to_proto,
    tell_session,
)
from balancer.servicers.session_validation import MAX_LABELS, draft_session
from balancer.servicers.upload_servicer import check_upload
from balancer.servicers.violations import Violations
from balancer.servicers.watch_places import WatchLimits, WatchPlaces
from balancer.session_listing import MAX_PAGE_SIZE, SessionFilter
from gpu_balancer.runtime.clock import SystemClock
from gpu_balancer.runtime.failures import RequestFailure, Violation, invalid
from gpu_balancer.v1 import session_service_pb2 as pb
from gpu_balancer.v1.session_service_pb2_grpc import SessionServiceServicer

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable

    from balancer.change_feed import FeedItem
    from balancer.domain.ids import SessionId
    from balancer.domain.restart import RestartRule
    from balancer.domain.session import SessionRecord
    from balancer.ports.session_tracer import SessionTracer
    from balancer.recording_controls import RecordingControls
    from balancer.servicers.media_questions import MediaQuestions
    from balancer.servicers.profile_translation import KnownProfiles
    from balancer.servicers.recording_rules import RecordingRules
    from balancer.servicers.session_translation import PreparedSession
    from balancer.servicers.session_validation import SessionDraft
    from balancer.session_engine import SessionEngine
    from balancer.session_files import SessionFiles
    from balancer.uploads import UploadStore
    from gpu_balancer.v1.placement_pb2 import Placement
    from gpu_balancer.v1.session_pb2 import Session

_log = structlog.stdlib.get_logger(__name__)

_MAX_FILTER_STATES = 32
"""More than there are; a client may name one twice."""

_MAX_PLANNED_VERDICTS = 512
"""Of a plan over more devices only the verdicts that mattered are told: nobody reads ten thousand, and an answer has a
size."""


async def _at_once() -> None:
    """Holds nothing back."""


class SessionServicer(SessionServiceServicer):
    """Answers clients about sessions."""

    def __init__(  # noqa: PLR0913 - what it speaks to, each by its name
        self,
        engine: SessionEngine,
        *,
        questions: MediaQuestions,
        files: SessionFiles,
        uploads: UploadStore,
        profiles: KnownProfiles,
        tracer: SessionTracer,
        controls: RecordingControls,
        opened: Callable[[], Awaitable[None]] = _at_once,
        rules: RecordingRules | None = None,
        restart: Callable[[], RestartRule] = lambda: LOSSES_ONLY,
        watch_limits: WatchLimits | None = None,
    ) -> None:
        """Makes the servicer.

        Args:
            engine: Places and keeps sessions.
            questions: Asks agents what inputs are and whether outputs may be written.
            files: Reads what sessions leave.
            uploads: Tells whether an upload can be read.
            profiles: The ladders of the settings in force.
            tracer: Begins traces.
            controls: Pause, extend and look at recordings.
            opened: Holds new sessions back while the balancer does not know yet what its agents run.
            rules: What the settings say of recordings. None: what they say where nothing is given.
            restart: Gives what the settings in force say of restarts.
            watch_limits: Numbers of watches at most. None: the usual ones.
        """
        self._engine = engine
        self._questions = questions
        self._files = files
        self._uploads = uploads
        self._profiles = profiles
        self._tracer = tracer
        self._controls = controls
        self._opened = opened
        self._rules = rules
        self._restart = restart
        self._ladders = LadderMemory()
        limits = watch_limits or WatchLimits()
        self._watches_of_one = WatchPlaces("WatchSession", limits.one_session)
        self._watches_of_all = WatchPlaces("WatchSessions", limits.all_sessions)

    # ------------------------------------------------------------------------------------------------ asking for

    async def CreateSession(  # noqa: N802
        self, request: pb.CreateSessionRequest, _context: object
    ) -> pb.CreateSessionResponse:
        """Checks, looks at the input, admits."""
        check_request_id(request.request_id)
        draft = self._draft(request.session)
        await self._opened()
        record = await self._earlier(request.request_id, draft)
        if record is None:
            try:
                record = await self._admitted(await self._prepared(draft), request.request_id, draft.digest)
            except RequestFailure:
                # Another try may have been admitted meanwhile, and made the outputs that this one found taken.
                if (record := await self._earlier(request.request_id, draft)) is None:
                    raise
        # Told in its place: to copy a session takes as long as to tell of it.
        response = pb.CreateSessionResponse()
        tell_session(response.session, record, self._engine.rules.settings.factors, with_ingest_url=True)
        return response

    async def _earlier(self, request_id: str, draft: SessionDraft) -> SessionRecord | None:
        """A retry must not fail where its first try has made the outputs, or where the input has gone since."""
        if not request_id or not self._questions.needs_agent(draft):
            return None
        return await self._engine.answered(request_id, draft.digest)

    async def PlanSession(  # noqa: N802
        self, request: pb.PlanSessionRequest, _context: object
    ) -> pb.PlanSessionResponse:
        """Does as CreateSession does up to the admission, and tells the decision."""
        draft = self._draft(request.session)
        prepared = await self._prepared(draft)
        decision = self._engine.plan(prepared.workload)
        if len(decision.verdicts) > _MAX_PLANNED_VERDICTS:
            decision = shortened(decision)
        response = pb.PlanSessionResponse(placement=placement_to_proto(decision), session=planned_to_proto(prepared))
        if decision.device_id is not None:
            response.argv.extend(await self._questions.command_for(decision.device_id, prepared.session))
        return response

    def _draft(self, given: Session) -> SessionDraft:
        return draft_session(given, self._profiles.now(), self._ladders, rules=self._rules)

    async def _prepared(self, draft: SessionDraft) -> PreparedSession:
        if is_recording(draft.session):
            await self._questions.check_watermark(draft)
            await self._questions.check_outputs(draft)
            return prepare_recording(draft, self._restart())
        check_upload(self._uploads, draft.session.transcode.input)
        facts = await self._questions.facts_of(draft)
        await self._questions.check_outputs(draft)
        return prepare_session(draft, facts, self._restart())

    async def _admitted(self, prepared: PreparedSession, request_id: str, digest: str) -> SessionRecord:
        traceparent = self._tracer.begin()
        admission = Admission(
            payload=prepared.payload,
            workload=prepared.workload,
            priority=prepared.priority,
            labels=dict(prepared.session.labels),
            max_wait=prepared.max_wait,
            preemptible=prepared.preemptible,
            request_id=request_id or None,
            request_digest=digest if request_id else None,
            traceparent=traceparent,
            restart=prepared.restart,
            resumable=prepared.resumable,
            max_duration=prepared.max_duration,
        )
        try:
            record = await self._engine.admit(admission)
        except PlacementRefused as refused:
            self._tracer.abandon(traceparent, refused.reason.name)
            raise replace(refused, details=(placement_detail(refused.decision),)) from refused
        except RequestFailure as failure:
            self._tracer.abandon(traceparent, failure.reason.name)
            raise
        if record.traceparent != traceparent:
            # Two requests with one id came at once; the other's trace is the session's.
            self._tracer.abandon(traceparent, "REQUEST_REPEATED")
        return record

    # -------------------------------------------------------------------------------------------------- looking at

    async def GetSession(self, request: pb.GetSessionRequest, _context: object) -> pb.GetSessionResponse:  # noqa: N802
        """Gives one session."""
        record = self._engine.get(session_id_of(request.name))
        return pb.GetSessionResponse(session=self._told(record, with_ingest_url=True))

    async def ExplainSession(  # noqa: N802
        self, request: pb.ExplainSessionRequest, _context: object
    ) -> pb.ExplainSessionResponse:
        """Tells the decisions that were made for a session, oldest first."""
        session_id = session_id_of(request.name)
        lines = await self._engine.decisions(session_id)
        placements = [placement for line in lines if (placement := _explained(line, session_id)) is not None]
        return pb.ExplainSessionResponse(placements=placements)

    async def ListSessions(  # noqa: N802
        self, request: pb.ListSessionsRequest, _context: object
    ) -> pb.ListSessionsResponse:
        """Gives a page of sessions, newest first."""
        wanted = _filter(request.filter)
        page = self._engine.list(wanted, page_size=request.page_size, page_token=request.page_token)
        return pb.ListSessionsResponse(
            sessions=[self._told(record) for record in page.records], next_page_token=page.next_page_token
        )

    async def ExportTrace(  # noqa: N802
        self, request: pb.ExportTraceRequest, _context: object
    ) -> AsyncIterator[pb.ExportTraceResponse]:
        """Streams what was asked for and when."""
        wanted, (start, end) = _filter(request.filter), span_of(request)
        async for answer in exported_trace(
            lambda token: self._engine.list(wanted, page_size=MAX_PAGE_SIZE, page_token=token),
            start=start,
            end=end,
            now=SystemClock().now(),
        ):
            yield answer

    async def WatchSession(  # noqa: N802
        self, request: pb.WatchSessionRequest, _context: object
    ) -> AsyncIterator[pb.WatchSessionResponse]:
        """Gives a session's changes until its end."""
        session_id = session_id_of(request.name)
        changes = self._engine.changes.watch_session(session_id, after_revision=request.after_revision)
        with self._watches_of_one.place():
            async with aclosing(cast("AsyncGenerator[SessionRecord, None]", changes)) as records:
                async for record in records:
                    yield pb.WatchSessionResponse(session=self._told(record, with_ingest_url=True))

    async def WatchSessions(  # noqa: N802
        self, request: pb.WatchSessionsRequest, _context: object
    ) -> AsyncIterator[pb.WatchSessionsResponse]:
        """Gives the changes of all sessions that match, for ever."""
        wanted = _filter(request.filter)
        changes = self._engine.changes.watch_sessions(matches=wanted.matches, resume_token=request.resume_token)
        with self._watches_of_all.place():
            async with aclosing(cast("AsyncGenerator[FeedItem, None]", changes)) as items:
                async for item in items:
                    yield self._change(item)

    def _change(self, item: FeedItem) -> pb.WatchSessionsResponse:
        match item:
            case SessionUpdated():
                return pb.WatchSessionsResponse(
                    type=pb.SESSION_CHANGE_TYPE_UPDATED,
                    session=self._told(item.record),
                    resume_token=item.resume_token,
                )
            case SessionRemoved():
                response = pb.WatchSessionsResponse(type=pb.SESSION_CHANGE_TYPE_REMOVED, resume_token=item.resume_token)
                response.session.name = session_name(item.session_id)
                return response
            case FeedSynced():
                return pb.WatchSessionsResponse(type=pb.SESSION_CHANGE_TYPE_SYNCED, resume_token=item.resume_token)
            case FeedReset():
                return pb.WatchSessionsResponse(type=pb.SESSION_CHANGE_TYPE_RESET)

    # ------------------------------------------------------------------------------------------------------ ending

    async def StopSession(  # noqa: N802
        self, request: pb.StopSessionRequest, _context: object
    ) -> pb.StopSessionResponse:
        """Asks a session to end."""
        return pb.StopSessionResponse(session=self._told(await self._engine.stop(session_id_of(request.name))))

    async def PauseSession(  # noqa: N802
        self, request: pb.PauseSessionRequest, _context: object
    ) -> pb.PauseSessionResponse:
        """Lets a recording rest."""
        return pb.PauseSessionResponse(session=self._told(await self._controls.pause(session_id_of(request.name))))

    async def ResumeSession(  # noqa: N802
        self, request: pb.ResumeSessionRequest, _context: object
    ) -> pb.ResumeSessionResponse:
        """Goes on recording."""
        return pb.ResumeSessionResponse(session=self._told(await self._controls.resume(session_id_of(request.name))))

    async def ExtendSession(  # noqa: N802
        self, request: pb.ExtendSessionRequest, _context: object
    ) -> pb.ExtendSessionResponse:
        """Gives a recording another bound of time."""
        record = await self._controls.extend(session_id_of(request.name), max_duration_of(request))
        return pb.ExtendSessionResponse(session=self._told(record))

    async def SnapshotSession(  # noqa: N802
        self, request: pb.SnapshotSessionRequest, _context: object
    ) -> pb.SnapshotSessionResponse:
        """Takes a picture of a recording's display."""
        snapshot = await self._controls.snapshot(session_id_of(request.name), width=snapshot_width_of(request))
        response = pb.SnapshotSessionResponse(image=snapshot.image)
        response.snapshot_time.FromDatetime(snapshot.snapshot_time)
        return response

    async def DeleteSession(  # noqa: N802
        self, request: pb.DeleteSessionRequest, _context: object
    ) -> pb.DeleteSessionResponse:
        """Removes an ended session with its files."""
        await self._engine.delete(session_id_of(request.name))
        return pb.DeleteSessionResponse()

    # -------------------------------------------------------------------------------------------- what it leaves

    async def ReadSessionLog(  # noqa: N802
        self, request: pb.ReadSessionLogRequest, _context: object
    ) -> AsyncIterator[pb.ReadSessionLogResponse]:
        """Streams a session's log."""
        tail_lines = request.tail_lines if request.HasField("tail_lines") else None
        log = self._files.log(session_id_of(request.name), tail_lines=tail_lines, follow=request.follow)
        async with aclosing(log) as pieces:
            async for lines in pieces:
                yield pb.ReadSessionLogResponse(lines=lines)

    async def ListArtifacts(  # noqa: N802
        self, request: pb.ListArtifactsRequest, _context: object
    ) -> pb.ListArtifactsResponse:
        """Gives a page of a session's artifacts."""
        artifacts = await self._files.artifacts(session_id_of(request.parent, field="parent"))
        page, token = page_of(
            artifacts, lambda artifact: artifact.path, page_size=request.page_size, page_token=request.page_token
        )
        return pb.ListArtifactsResponse(artifacts=page, next_page_token=token)

    async def ReadArtifact(  # noqa: N802
        self, request: pb.ReadArtifactRequest, _context: object
    ) -> AsyncIterator[pb.ReadArtifactResponse]:
        """Streams an artifact or a range of it."""
        session_id, path = artifact_of(request.name)
        artifact = self._files.artifact(
            session_id, path, offset_bytes=request.offset_bytes, limit_bytes=request.limit_bytes
        )
        async with aclosing(artifact) as pieces:
            async for piece in pieces:
                told = piece.artifact if piece.HasField("artifact") else None
                yield pb.ReadArtifactResponse(artifact=told, data=piece.data)

    def _told(self, record: SessionRecord, *, with_ingest_url: bool = False) -> Session:
        return session_to_proto(record, self._engine.rules.settings.factors, with_ingest_url=with_ingest_url)


def _explained(line: str, session_id: SessionId) -> Placement | None:
    """Reads one decision. None: it cannot be read, which costs that decision alone."""
    try:
        decision, attempt, decision_time = decision_from_text(line)
    except UnreadableDecision as error:
        _log.warning("a decision cannot be read and is left out", session_id=session_id, error=str(error))
        return None
    return placement_to_proto(decision, attempt=attempt, decision_time=decision_time)


def _filter(told: pb.SessionFilter) -> SessionFilter:
    """Reads which sessions are meant.

    Raises:
        RequestFailure: INVALID_REQUEST for a state or a device that cannot be, or for more than any session has.
    """
    found = Violations()
    found.check_count("filter.states", told.states, _MAX_FILTER_STATES)
    found.check_count("filter.labels", told.labels, MAX_LABELS)
    found.refuse()
    unknown = next((number for number in told.states if number not in SESSION_STATES), None)
    if unknown is not None:
        names = ", ".join(state.name for state in SESSION_STATES.values())
        raise invalid(Violation(field="filter.states", description=f"must be among {names}; {unknown} is not"))
    return SessionFilter(
        states=frozenset(SESSION_STATES[number] for number in told.states),
        device_id=device_id_of(told.device, field="filter.device") if told.device else None,
        labels=dict(told.labels),
    )
