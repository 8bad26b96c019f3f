"""What `transcode` does: check the local places, submit, wait, fetch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gpu_balancer.cli.complaints import complain_of_end
from gpu_balancer.cli.exit_codes import ExitCode
from gpu_balancer.cli.following import follow
from gpu_balancer.cli.interrupts import ask_for_wish, tell_how_to_go_on
from gpu_balancer.cli.job import make_job
from gpu_balancer.cli.results import fetch_results
from gpu_balancer.cli.session_words import session_state
from gpu_balancer.cli.submitting import complain_of_refusal, tell_detached
from gpu_balancer.cli.transfers import shown_upload
from gpu_balancer.client.deliveries import check_places
from gpu_balancer.client.names import short_name
from gpu_balancer.client.session_requests import has_ended
from gpu_balancer.client.upload_words import session_of_file
from gpu_balancer.runtime.failures import RequestFailure
from gpu_balancer.v1 import session_pb2

if TYPE_CHECKING:
    from gpu_balancer.cli.invocation import Invocation
    from gpu_balancer.cli.job import Job
    from gpu_balancer.cli.job_options import InputOptions, OutputOptions, RenditionOptions, SessionOptions
    from gpu_balancer.cli.screen import Screen
    from gpu_balancer.client import Client
    from gpu_balancer.v1.session_pb2 import Session


def transcode(
    invocation: Invocation,
    given: InputOptions,
    made: RenditionOptions,
    out: OutputOptions,
    session: SessionOptions,
    *,
    detach: bool,
) -> ExitCode:
    """Runs a transcode to its end, or with detach only starts it."""
    screen = invocation.screen()
    with invocation.client() as client:
        job = make_job(given, made, out, session, ladder=client.profile_renditions)
        if not detach:
            check_places(job.delivery.fetches, overwrite=out.overwrite, source=job.source_file)
            if len(job.delivery.fetches) > 1:
                screen.note(f"Writing {', '.join(fetch.target.name for fetch in job.delivery.fetches)}")
        try:
            created = _submit(screen, client, job)
        except RequestFailure as failure:
            return complain_of_refusal(screen, client, job.session, failure)
        if detach:
            tell_detached(
                screen, created, leaves_artifacts=bool(job.delivery.outputs) or not job.session.transcode.outputs
            )
            return ExitCode.OK
        ended, interrupted = follow(screen, client, created, on_interrupt=ask_for_wish)
        if not has_ended(ended):
            tell_how_to_go_on(screen, ended)
            return ExitCode.INTERRUPTED
        ended = session_of_file(ended, job.source_file)
        if invocation.json:
            screen.document(ended)
        return _finish(screen, client, job, ended, interrupted=interrupted, overwrite=out.overwrite)


def _submit(screen: Screen, client: Client, job: Job) -> Session:
    name = job.source_file.name if job.source_file is not None else ""
    with shown_upload(screen, name) as progress:
        return client.submit(job.session, on_upload=progress)


def _finish(
    screen: Screen, client: Client, job: Job, ended: Session, *, interrupted: bool, overwrite: bool
) -> ExitCode:
    """Fetches what an ended session left, or tells why there is nothing."""
    if ended.state != session_pb2.SESSION_STATE_SUCCEEDED and not interrupted:
        return complain_of_end(ended)
    if not ended.attempt:
        # It was stopped while it waited: there is nothing to fetch.
        screen.note(f"{short_name(ended.name)}: {session_state(ended.state)}")
        client.discard_upload(ended)
        return ExitCode.INTERRUPTED
    code = fetch_results(
        screen,
        client,
        ended,
        job.delivery,
        overwrite=overwrite,
        leaves_artifacts=not job.session.transcode.outputs,
    )
    client.discard_upload(ended)
    return ExitCode.INTERRUPTED if interrupted else code
