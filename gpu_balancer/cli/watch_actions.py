"""What `watch` does: one session to its end, or all sessions until somebody has seen enough."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gpu_balancer.cli.complaints import complain_of_end
from gpu_balancer.cli.exit_codes import ExitCode
from gpu_balancer.cli.screen import make_table
from gpu_balancer.cli.session_progress import SessionProgress
from gpu_balancer.cli.session_views import COLUMNS, session_row
from gpu_balancer.cli.session_words import session_state
from gpu_balancer.client.names import short_name
from gpu_balancer.client.session_requests import has_ended
from gpu_balancer.v1 import session_pb2, session_service_pb2

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from gpu_balancer.cli.invocation import Invocation
    from gpu_balancer.cli.screen import Screen
    from gpu_balancer.v1.session_pb2 import Session
    from gpu_balancer.v1.session_service_pb2 import WatchSessionsResponse

_ENDED_SHOWN = 10


def watch_one(invocation: Invocation, name: str) -> ExitCode:
    """Watches a session; the exit code tells how it ended."""
    screen = invocation.screen()
    latest: Session | None = None
    with invocation.client() as client:
        if invocation.json:
            for latest in client.watch_session(name):
                screen.record(latest)
        else:
            with SessionProgress(screen) as progress:
                for latest in client.watch_session(name):
                    progress.show(latest)
    assert latest is not None  # the stream begins with the present state
    if latest.state == session_pb2.SESSION_STATE_SUCCEEDED:
        if not invocation.json:
            screen.line(f"{short_name(latest.name)}: {session_state(latest.state)}")
        return ExitCode.OK
    return complain_of_end(latest)


def watch_all(invocation: Invocation) -> None:
    """Watches all sessions without end."""
    screen = invocation.screen()
    with invocation.client() as client:
        changes = client.watch_sessions()
        if invocation.json:
            for change in changes:
                screen.record(change)
        elif screen.terminal:
            _show_live(screen, changes)
        else:
            if screen.headings:
                print("\t".join(("CHANGE", *(column.title for column in COLUMNS))), flush=True)
            for line in change_lines(changes):
                print(line, flush=True)


def change_lines(changes: Iterable[WatchSessionsResponse]) -> Iterator[str]:
    """Gives a line with tabs for each change; lines before "synced" tell the present state."""
    for change in changes:
        kind = session_service_pb2.SessionChangeType.Name(change.type).removeprefix("SESSION_CHANGE_TYPE_").lower()
        if change.type == session_service_pb2.SESSION_CHANGE_TYPE_UPDATED:
            yield "\t".join((kind, *session_row(change.session)))
        elif change.type == session_service_pb2.SESSION_CHANGE_TYPE_REMOVED:
            yield f"{kind}\t{short_name(change.session.name)}"
        else:
            yield kind


class SessionBoard:
    """The sessions that a watch knows of. `take` is its one door."""

    def __init__(self) -> None:
        """Knows none."""
        self._sessions: dict[str, Session] = {}

    def take(self, change: WatchSessionsResponse) -> None:
        """Takes a change in."""
        if change.type == session_service_pb2.SESSION_CHANGE_TYPE_RESET:
            self._sessions.clear()
        elif change.type == session_service_pb2.SESSION_CHANGE_TYPE_REMOVED:
            self._sessions.pop(change.session.name, None)
        elif change.type == session_service_pb2.SESSION_CHANGE_TYPE_UPDATED:
            self._sessions[change.session.name] = change.session

    def shown(self, height: int) -> list[Session]:
        """Gives the sessions to show, newest first: live ones, then a few that have ended."""
        newest = sorted(self._sessions.values(), key=lambda one: one.create_time.ToNanoseconds(), reverse=True)
        living = [session for session in newest if not has_ended(session)]
        ended = [session for session in newest if has_ended(session)]
        return (living + ended[:_ENDED_SHOWN])[: max(1, height)]


def _show_live(screen: Screen, changes: Iterable[WatchSessionsResponse]) -> None:
    from rich.live import Live
    from rich.text import Text

    board = SessionBoard()
    console = screen.console
    with Live(Text("No sessions yet."), console=console, auto_refresh=False) as live:
        for change in changes:
            board.take(change)
            shown = board.shown(console.height - 3)
            if change.type == session_service_pb2.SESSION_CHANGE_TYPE_RESET or not shown:
                continue
            live.update(make_table(COLUMNS, [session_row(one) for one in shown], width=console.width), refresh=True)
