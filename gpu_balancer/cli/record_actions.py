"""What `record` does: check the local places, ask, wait, fetch, compare, report."""

from __future__ import annotations

import signal
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

from gpu_balancer.cli.complaints import complain_of_end
from gpu_balancer.cli.error_text import complain
from gpu_balancer.cli.exit_codes import ExitCode
from gpu_balancer.cli.following import follow
from gpu_balancer.cli.interrupts import stop_at_once, tell_how_to_go_on
from gpu_balancer.cli.page_options import typed_source
from gpu_balancer.cli.plan_actions import show_plan
from gpu_balancer.cli.record_report import fetch_remains, tell_report
from gpu_balancer.cli.recording_job import make_recording_job
from gpu_balancer.cli.results import fetch_results
from gpu_balancer.cli.session_words import session_state
from gpu_balancer.cli.submitting import complain_of_refusal, tell_detached
from gpu_balancer.client.deliveries import check_places
from gpu_balancer.client.names import short_name
from gpu_balancer.client.requests import new_request_id
from gpu_balancer.client.session_requests import has_ended
from gpu_balancer.runtime.failures import RequestFailure
from gpu_balancer.v1 import session_pb2

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gpu_balancer.cli.invocation import Invocation
    from gpu_balancer.cli.job_options import OutputOptions, RenditionOptions
    from gpu_balancer.cli.record_options import CaptureOptions, FinishOptions, PageOptions, SourceOptions
    from gpu_balancer.cli.recording_job import RecordingJob
    from gpu_balancer.cli.screen import Screen
    from gpu_balancer.client import Client
    from gpu_balancer.v1.session_pb2 import Session


def record(  # noqa: PLR0913 - one group of options each
    invocation: Invocation,
    source: SourceOptions,
    capture: CaptureOptions,
    page: PageOptions,
    made: RenditionOptions,
    out: OutputOptions,
    finish: FinishOptions,
    *,
    detach: bool,
    plan: bool,
    verbose: bool,
) -> ExitCode:
    """Runs a recording to its end; with detach only starts it, with plan only tells where it would go."""
    screen = invocation.screen()
    shown = typed_source(source, page)
    with invocation.client() as client:
        job = make_recording_job(
            shown, capture, made, out, finish, fetches=not detach, ladder=client.profile_renditions
        )
        if plan:
            return show_plan(screen, client.plan_session(job.session), verbose=verbose)
        if not detach:
            check_places(job.delivery.fetches, overwrite=out.overwrite)
            if len(job.delivery.fetches) > 1:
                screen.note(f"Writing {', '.join(fetch.target.name for fetch in job.delivery.fetches)}")
        with _terminated_like_interrupted():
            return _run(screen, client, job, detach=detach, overwrite=out.overwrite)


@contextmanager
def _terminated_like_interrupted() -> Iterator[None]:
    """Has SIGTERM do what Ctrl-C does: a recording that nobody watches any more might never end."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _run(screen: Screen, client: Client, job: RecordingJob, *, detach: bool, overwrite: bool) -> ExitCode:
    request_id = new_request_id()
    try:
        created = client.create_session(job.session, request_id)
    except RequestFailure as failure:
        return complain_of_refusal(screen, client, job.session, failure)
    except KeyboardInterrupt:
        # The daemon may have it already: the same request gives the same session, which can be stopped then.
        stopped = client.stop_session(client.create_session(job.session, request_id).name)
        screen.note(f"{short_name(stopped.name)}: {session_state(stopped.state)}")
        return ExitCode.INTERRUPTED
    if detach:
        # Thumbnails are artifacts whatever becomes of the rest.
        kept = bool(job.delivery.outputs) or not job.session.recording.outputs
        tell_detached(screen, created, leaves_artifacts=kept or job.session.recording.HasField("thumbnail_interval"))
        return ExitCode.OK
    ended, interrupted = follow(screen, client, created, on_interrupt=stop_at_once)
    if not has_ended(ended):
        tell_how_to_go_on(screen, ended)
        return ExitCode.INTERRUPTED
    if screen.json:
        screen.document(ended)
    code = _finish(screen, client, job, ended, overwrite=overwrite)
    if interrupted:
        return ExitCode.INTERRUPTED
    if ended.state == session_pb2.SESSION_STATE_CANCELLED:
        return complain(_why_cancelled(ended), ExitCode.SESSION_FAILED)
    return code


def _why_cancelled(ended: Session) -> str:
    if ended.recording_report.end_cause == "END_SIGNAL":
        return f"The page of session {short_name(ended.name)} logged its end signal before there was a picture."
    return f"The session {short_name(ended.name)} was stopped from elsewhere."


def _finish(screen: Screen, client: Client, job: RecordingJob, ended: Session, *, overwrite: bool) -> ExitCode:
    """Fetches what there is, compares it, and reports; or tells why there is nothing."""
    if ended.state == session_pb2.SESSION_STATE_FAILED:
        code = complain_of_end(ended)
        if ended.attempt:
            fetch_remains(screen, client, ended, job.delivery, overwrite=overwrite)
        return code
    if not ended.HasField("running_time") and not ended.recording_report.captured_frames:
        # It was stopped before its first picture: there is nothing to fetch.
        screen.note(f"{short_name(ended.name)}: {session_state(ended.state)}")
        return ExitCode.SESSION_FAILED
    code = fetch_results(
        screen,
        client,
        ended,
        job.delivery,
        overwrite=overwrite,
        leaves_artifacts=not job.session.recording.outputs,
    )
    try:
        checked = client.check_files(ended, job.delivery)
    except RequestFailure:
        tell_report(screen, ended, {})
        raise
    tell_report(screen, ended, checked)
    return code
