"""What `transcode` does: check the local places, submit, wait, fetch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gpu_balancer.cli.complaints import complain_of, complain_of_end, placements_of
from gpu_balancer.cli.error_text import complain
from gpu_balancer.cli.exit_codes import ExitCode
from gpu_balancer.cli.interrupts import Wish, ask_for_wish, tell_how_to_go_on
from gpu_balancer.cli.job import make_job
from gpu_balancer.cli.session_progress import SessionProgress
from gpu_balancer.cli.transfers import shown_downloads, shown_upload
from gpu_balancer.cli.words import clean, device_word, session_state, size
from gpu_balancer.client.deliveries import check_places
from gpu_balancer.client.names import short_name
from gpu_balancer.client.session_requests import has_ended
from gpu_balancer.runtime.failures import Reason, RequestFailure
from gpu_balancer.v1 import session_pb2

if TYPE_CHECKING:
    from pathlib import Path

    from gpu_balancer.cli.invocation import Invocation
    from gpu_balancer.cli.job import Job
    from gpu_balancer.cli.job_options import InputOptions, OutputOptions, RenditionOptions, SessionOptions
    from gpu_balancer.cli.screen import Screen
    from gpu_balancer.client import Client
    from gpu_balancer.v1.placement_pb2 import Placement
    from gpu_balancer.v1.session_pb2 import Session

_WAITING_HELPS = (Reason.NO_CAPACITY, Reason.NO_DEVICE_READY)
_NO_DEVICE = (*_WAITING_HELPS, Reason.NO_CAPABLE_DEVICE, Reason.QUEUE_FULL)


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
            code = complain_of(failure, _plan_after(client, job, failure))
            if failure.reason in _WAITING_HELPS and not job.session.HasField("max_wait"):
                screen.note("With --wait-for-device 10m it would be queued instead.")
            return code
        if detach:
            _tell_detached(screen, created, job)
            return ExitCode.OK
        ended, interrupted = follow(screen, client, created)
        if not has_ended(ended):
            tell_how_to_go_on(screen, ended.name, waiting=ended.state == session_pb2.SESSION_STATE_QUEUED)
            return ExitCode.INTERRUPTED
        if invocation.json:
            screen.document(ended)
        if ended.state != session_pb2.SESSION_STATE_SUCCEEDED and not interrupted:
            return complain_of_end(ended)
        if not ended.attempt:
            # It was stopped while it waited: there is nothing to fetch.
            screen.note(f"{short_name(ended.name)}: {session_state(ended.state)}")
            client.discard_upload(ended)
            return ExitCode.INTERRUPTED
        code = _fetch(screen, client, job, ended, overwrite=out.overwrite)
        client.discard_upload(ended)
        return ExitCode.INTERRUPTED if interrupted else code


def _submit(screen: Screen, client: Client, job: Job) -> Session:
    name = job.source_file.name if job.source_file is not None else ""
    with shown_upload(screen, name) as progress:
        return client.submit(job.session, on_upload=progress)


def _plan_after(client: Client, job: Job, failure: RequestFailure) -> Placement | None:
    """Asks for the refusals that did not fit into the failure; there may be hundreds of devices."""
    if failure.reason not in _NO_DEVICE or placements_of(failure):
        return None
    try:
        return client.plan_session(job.session).placement
    except RequestFailure:
        return None


def _tell_detached(screen: Screen, created: Session, job: Job) -> None:
    if screen.json:
        screen.document(created)
    else:
        screen.line(created.name)
    if created.ingest_url:
        screen.note(f"Publish to {created.ingest_url}")
    if job.delivery.outputs or not job.session.transcode.outputs:
        # What goes elsewhere, to the daemon's own folders or to a server, is no artifact.
        screen.note(
            f"Its results stay with the agent: gpu-balancer artifacts {short_name(created.name)} --download DIR"
        )


def follow(screen: Screen, client: Client, session: Session) -> tuple[Session, bool]:
    """Shows a session until it has ended or is left running.

    Returns:
        The session as last seen, and whether Ctrl-C stopped it.
    """
    latest, stopping = session, False
    place = f"on {device_word(session.device)}" if session.device else "waits for a device"
    screen.note(f"Session {short_name(session.name)} {place}")
    while True:
        try:
            with SessionProgress(screen) as progress:
                progress.show(latest)
                for latest in client.watch_session(session.name):
                    progress.show(latest)
            return latest, stopping
        except KeyboardInterrupt:
            wish = Wish.LEAVE if stopping else ask_for_wish(screen, session.name)
        if wish is Wish.LEAVE:
            return latest, stopping
        if wish is Wish.STOP:
            latest, stopping = client.stop_session(session.name), True
            if not has_ended(latest):
                screen.note("It completes its outputs and ends; Ctrl-C leaves it to that.")


def _fetch(screen: Screen, client: Client, job: Job, ended: Session, *, overwrite: bool) -> ExitCode:
    """Fetches what was asked for and tells where it is."""
    name = short_name(ended.name)
    if not job.delivery.fetches:
        if not screen.json:
            screen.line(f"{name}: {session_state(ended.state)}")
        if not job.session.transcode.outputs:
            screen.note(f"Its results stay with the agent: gpu-balancer artifacts {name} --download DIR")
        return ExitCode.OK
    try:
        with shown_downloads(screen) as progress:
            places = client.fetch(ended, job.delivery, overwrite=overwrite, on_download=progress)
    except (KeyboardInterrupt, OSError, RequestFailure):
        screen.note(
            f"The session has ended; its results stay with the agent: gpu-balancer artifacts {name} --download DIR"
        )
        raise
    _tell_places(screen, job, places)
    missing = [
        fetch.target
        for fetch in job.delivery.fetches
        if not any(place == fetch.target or place.is_relative_to(fetch.target) for place in places)
    ]
    if missing:
        words = ", ".join(str(target) for target in missing)
        return complain(
            f"The session left nothing for {words}. See gpu-balancer artifacts {name}.", ExitCode.SESSION_FAILED
        )
    return ExitCode.OK


def _tell_places(screen: Screen, job: Job, places: list[Path]) -> None:
    """Tells what was written: each file, of an HLS presentation only its folder."""
    if screen.json:
        return
    folders = [fetch.target for fetch in job.delivery.fetches if fetch.whole_folder]
    for fetch in job.delivery.fetches:
        written = [place for place in places if place == fetch.target or place.is_relative_to(fetch.target)]
        if not written:
            continue
        total = size(sum(place.stat().st_size for place in written))
        words = f"{total} in {len(written)} files" if fetch.target in folders else total
        screen.line(f"Wrote {clean(str(fetch.target))} ({words})" if screen.terminal else str(fetch.target))
