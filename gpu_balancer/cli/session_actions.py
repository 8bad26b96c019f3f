"""What the commands about existing sessions do."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from gpu_balancer.cli.invocation import spelled
from gpu_balancer.cli.placement_views import placement_facts, show_placement
from gpu_balancer.cli.session_views import (
    ARTIFACT_COLUMNS,
    COLUMNS,
    artifact_row,
    copy_lines,
    session_facts,
    session_row,
)
from gpu_balancer.cli.session_words import session_state
from gpu_balancer.cli.transfers import shown_downloads
from gpu_balancer.cli.words import clean, device_word, moment
from gpu_balancer.client.names import short_name
from gpu_balancer.client.session_requests import session_filter
from gpu_balancer.client.spelling import parse_label
from gpu_balancer.v1 import session_pb2, session_service_pb2

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gpu_balancer.cli.invocation import Invocation
    from gpu_balancer.cli.screen import Screen
    from gpu_balancer.v1.session_pb2 import Artifact


def list_sessions(
    invocation: Invocation, *, states: Sequence[str], device: str | None, labels: Sequence[str], limit: int
) -> None:
    """Lists sessions, newest first; 0 as limit means all."""
    screen = invocation.screen()
    with spelled("--label"):
        wanted_labels = dict(parse_label(label) for label in labels)
    wanted_states = [session_pb2.SessionState.Value(f"SESSION_STATE_{state.upper()}") for state in states]
    with invocation.client() as client:
        # One more than shown tells whether there are more.
        found = client.list_sessions(
            session_filter(wanted_states, device, wanted_labels), page_size=min(limit + 1, 1000) if limit else 1000
        )
        sessions = list(islice(found, limit + 1 if limit else None))
        found.close()
    more = bool(limit) and len(sessions) > limit
    shown = sessions[:limit] if limit else sessions
    if invocation.json:
        screen.document(session_service_pb2.ListSessionsResponse(sessions=shown))
    else:
        screen.table(COLUMNS, [session_row(session) for session in shown], none="There are no such sessions.")
    if more:
        screen.note(f"There are more than these {limit}; --limit 0 lists all.")


def show_session(invocation: Invocation, name: str) -> None:
    """Shows everything about a session."""
    screen = invocation.screen()
    with invocation.client() as client:
        session = client.get_session(name)
    if invocation.json:
        screen.document(session)
    else:
        screen.facts(list(session_facts(session)))


def explain_session(invocation: Invocation, name: str) -> None:
    """Shows every decision that was made for a session, oldest first."""
    screen = invocation.screen()
    with invocation.client() as client:
        placements = client.explain(name)
    if invocation.json:
        screen.document(session_service_pb2.ExplainSessionResponse(placements=placements))
        return
    if not placements:
        screen.note(f"No decision is kept of {short_name(name)}.")
    for number, placement in enumerate(placements):
        if number:
            screen.line()
        outcome = device_word(placement.device) if placement.device else "no device took it"
        screen.heading(f"Attempt {placement.attempt}: {outcome}, {moment(placement.decision_time)}")
        show_placement(screen, placement, with_needs=True)
        screen.line()
        screen.facts([fact for fact in placement_facts(placement) if fact[0] != "device"])


def show_log(invocation: Invocation, name: str, *, follow: bool, tail_lines: int | None) -> None:
    """Writes a session's log as it comes."""
    screen = invocation.screen()
    with invocation.client() as client:
        for line in client.read_session_log(name, tail_lines=tail_lines, follow=follow):
            if invocation.json:
                screen.record(session_service_pb2.ReadSessionLogResponse(lines=[line]))
            else:
                print(clean(line) if screen.terminal else line, flush=follow)


def stop_session(invocation: Invocation, name: str) -> None:
    """Asks a session to end."""
    screen = invocation.screen()
    with invocation.client() as client:
        session = client.stop_session(name)
    if invocation.json:
        screen.document(session)
    else:
        screen.line(f"{short_name(session.name)}: {session_state(session.state)}")


def delete_session(invocation: Invocation, name: str) -> None:
    """Removes an ended session."""
    screen = invocation.screen()
    with invocation.client() as client:
        client.delete_session(name)
    if invocation.json:
        screen.document(session_service_pb2.DeleteSessionResponse())
    else:
        screen.line(f"{short_name(name)}: deleted")


def show_artifacts(invocation: Invocation, name: str, *, download: str | None, overwrite: bool) -> None:
    """Lists a session's artifacts, or fetches them."""
    screen = invocation.screen()
    with invocation.client() as client:
        artifacts = list(client.list_artifacts(name))
        if download is not None:
            folder = Path(download).expanduser()
            with shown_downloads(screen) as progress, spelled("--download"):
                places = client.download_artifacts(name, folder, overwrite=overwrite, on_download=progress)
            for place in () if invocation.json else places:
                screen.line(str(place))
    if invocation.json:
        screen.document(session_service_pb2.ListArtifactsResponse(artifacts=artifacts))
    elif download is None:
        _show_artifact_table(screen, artifacts)


def _show_artifact_table(screen: Screen, artifacts: Sequence[Artifact]) -> None:
    """Shows artifacts; on a terminal without the column of copies when there are none."""
    copied = any(artifact.deliveries for artifact in artifacts) or not screen.terminal
    columns = ARTIFACT_COLUMNS if copied else ARTIFACT_COLUMNS[:-1]
    rows = [artifact_row(one)[: len(columns)] for one in artifacts]
    screen.table(columns, rows, none="The session has left no artifacts yet.")
    for line in copy_lines(artifacts):
        screen.note(line)
