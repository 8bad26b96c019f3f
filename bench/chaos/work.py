"""The sessions of a house while it is broken: what is asked for, and what is left of it in the end."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from bench.analysis.decoding import Undecodable
from bench.analysis.media_file import top_boxes
from bench.chaos.film import HEIGHT, complaints_of, read_account
from bench.chaos.history import Created, OutputView
from bench.chaos.observer import session_view
from gpu_balancer import RequestFailure
from gpu_balancer.v1 import media_pb2, session_pb2

if TYPE_CHECKING:
    from pathlib import Path

    from bench.chaos.history import History, SessionView
    from bench.chaos.house import House
    from gpu_balancer import Client

_RATE = re.compile(r"[:,]BANDWIDTH=[1-9]\d*")
_NAMED = re.compile(r'#EXT-X-MEDIA:.*\bURI="([^"]+)"')
KINDS = ("mp4", "hls", "file", "shared hls", "ts", "live mp4", "live shared hls", "live file")
"""Artifacts: an MP4 file, an HLS presentation, a transport stream. Below the output root: the first two again. Those
that are live read a source that goes on without them; further attempts continue what earlier ones made."""
_LONGEST = timedelta(hours=2)
"""Of a session: should everything that ends sessions be killed, they end by themselves."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A session that was asked for."""

    name: str
    kind: str
    path: str
    """Of its output: among its artifacts, or absolute."""


def wanted(house: House, film: Path | str, kind: str, number: int) -> tuple[session_pb2.Session, str]:
    """Writes a session that reads a film in its own time, again and again.

    Args:
        house: Where it will be.
        film: Of `film.make_film`, or the URL of a live source, for a kind that is live.
        kind: One of `KINDS`.
        number: Makes the names of outputs differ.

    Returns:
        The session, and the path of its output.
    """
    path = {
        "mp4": "out.mp4",
        "ts": "out.ts",
        "hls": "out",
        "file": str(house.out_root / f"file-{number}.mp4"),
        "shared hls": str(house.out_root / f"hls-{number}"),
    }[kind.removeprefix("live ")]
    live = kind.startswith("live")
    encode = media_pb2.VideoEncoding(height=HEIGHT, speed=media_pb2.ENCODING_SPEED_FASTEST, low_latency=True)
    encode.keyframe_interval.FromTimedelta(timedelta(seconds=1))
    output = media_pb2.Output(renditions=["out"])
    if "hls" in kind:
        output.hls.path = path
        output.hls.segment_duration.FromTimedelta(timedelta(seconds=1))
    else:
        output.file.path = path
    spec = media_pb2.TranscodeSpec(
        input=media_pb2.Input(uri=str(film), native_rate=not live, repeat_forever=not live),
        renditions=[media_pb2.Rendition(id="out", encode=encode)],
        outputs=[output],
    )
    session = session_pb2.Session(transcode=spec, labels={"kind": kind})
    session.max_duration.FromTimedelta(_LONGEST)
    return session, path


class Work:
    """All sessions of one house."""

    def __init__(self, house: House, history: History, film: Path, *, live_url: str = "") -> None:
        """Begins without any.

        Args:
            house: Whose.
            history: Gets what was asked for and what is left.
            film: What every session reads.
            live_url: The same, live. Empty: kinds that are live read the film, too.
        """
        self._live_url = live_url
        self._house, self._history, self._film = house, history, film
        self._number = 0
        self.asked: list[Asked] = []

    def create(self, client: Client, kind: str, restart: session_pb2.RestartPolicy | None = None) -> Asked | None:
        """Asks for a session. None: it was refused, or nobody answered."""
        self._number += 1
        kind = kind if self._live_url else kind.removeprefix("live ")
        source = self._live_url if kind.startswith("live") else self._film
        session, path = wanted(self._house, source, kind, self._number)
        if restart is not None:
            session.restart.CopyFrom(restart)
        request_id = f"chaos-{self._number}"
        if path.startswith("/"):
            self._house.sighter.outputs[path] = path.rpartition("/")[2]
        asked_s = time.monotonic()
        try:
            name = client.create_session(session, request_id=request_id).name
        except RequestFailure:
            name = ""
        self._history.created.append(Created(asked_s=asked_s, request_id=request_id, name=name))
        if not name:
            return None
        asked = Asked(name=name, kind=kind, path=path)
        self.asked.append(asked)
        return asked

    def await_running(self, client: Client, timeout_s: float = 60.0) -> None:
        """Waits until every session that has not ended runs, all told.

        Raises:
            RuntimeError: When one does not in time.
        """
        deadline_s = time.monotonic() + timeout_s
        names = {asked.name for asked in self.asked}
        while waiting := [
            session.name
            for session in client.list_sessions()
            if session.name in names
            and session.state in (session_pb2.SESSION_STATE_QUEUED, session_pb2.SESSION_STATE_STARTING)
        ]:
            if time.monotonic() > deadline_s:
                raise RuntimeError(f"{waiting} do not run in {timeout_s:g} s.")
            time.sleep(0.05)

    def stop_all(self, client: Client, timeout_s: float = 60.0) -> None:
        """Stops every session and waits for its end; what does not end in time, the judge finds."""
        for asked in self.asked:
            client.stop_session(asked.name)
        deadline_s = time.monotonic() + timeout_s
        while not all(view.ended for view in self._views(client)) and time.monotonic() < deadline_s:
            time.sleep(0.1)

    def close(self, client: Client, scratch: Path) -> None:
        """Writes into the history how every session ended, reads what it left, and deletes it."""
        self._history.last.update({view.name: view for view in self._views(client)})
        for asked in self.asked:
            view = self._history.last.get(asked.name)
            if view is not None and view.ended:
                self._history.outputs.append(self._read(client, asked, view, scratch))
        self.delete_all(client)

    def delete_all(self, client: Client) -> None:
        """Deletes every session, with what it did not finish; finished outputs are the operator's and stay."""
        for asked in self.asked:
            try:
                client.delete_session(asked.name)
            except RequestFailure as failure:
                self._history.leftovers.append(f"{asked.name} cannot be deleted: {failure}")

    def _views(self, client: Client) -> list[SessionView]:
        return [session_view(session) for session in client.list_sessions()]

    def _read(self, client: Client, asked: Asked, view: SessionView, scratch: Path) -> OutputView:
        folder = scratch / asked.name.rpartition("/")[2]
        try:
            if not asked.path.startswith("/"):
                client.download_artifacts(asked.name, folder)
            return read_output(asked, folder / asked.path, cuts=_cuts(asked, view))
        except RequestFailure as failure:
            return _unreadable(asked, str(failure))


def read_output(asked: Asked, path: Path, *, cuts: int = 0) -> OutputView:
    """Reads an output back.

    Args:
        asked: Whose.
        path: Where it is now.
        cuts: Joints between attempts that it may have.
    """
    try:
        pieces = [_readable(asked, piece) for piece in _pieces(asked, path)]
        reads = [read_account(media) for media, _ in pieces]
    except (Undecodable, OSError, StopIteration) as error:
        return _unreadable(asked, f"{type(error).__name__} {error}")
    live = asked.kind.startswith("live")
    unplayable = masters_complaints(path) if "hls" in asked.kind else ()
    # Where a part was cut short its last picture is, too; what it shows is counted all the same.
    unbroken = [media for media, _ in pieces if not _is_part(media)]
    missing = reads[0].first if reads[0].first > 0 and not cuts and not live else 0
    return OutputView(
        session=asked.name,
        path=asked.path,
        complaints=(*(told for media in unbroken for told in complaints_of(media)), *unplayable),
        unplayable=unplayable,
        whole=all(whole for _, whole in pieces),
        frames=sum(read.frames for read in reads),
        lost=sum(read.lost for read in reads) + missing,
        repeated=sum(read.repeated for read in reads),
        backwards=sum(read.backwards for read in reads),
        unreadable=sum(read.unreadable for read in reads),
        cuts=cuts,
        breaks=sum(read.breaks for read in reads),
        continues=live,
    )


def _cuts(asked: Asked, view: SessionView) -> int:
    """Counts the joints of an output: what does not go on with an earlier attempt's has none."""
    return max(0, view.attempt - 1) if asked.kind.startswith("live") else 0


def _unreadable(asked: Asked, complaint: str) -> OutputView:
    return OutputView(
        session=asked.name,
        path=asked.path,
        complaints=(complaint,),
        unplayable=(complaint,),
        whole=False,
        continues=asked.kind.startswith("live"),
    )


def masters_complaints(folder: Path) -> tuple[str, ...]:
    """Reads every master playlist of a presentation and gives what is wrong with it.

    Args:
        folder: Of the presentation.

    Returns:
        What would keep a player from playing: none is there, one names no variant or one without its rate, or what it
        names is not there, is empty, or lists segments that are not there or are empty.
    """
    found: list[str] = []
    texts = {path: path.read_text(errors="replace") for path in _playlists(folder)}
    masters = [path for path, text in texts.items() if "#EXT-X-TARGETDURATION" not in text]
    for master in masters:
        lines = [line for line in texts[master].splitlines() if line]
        if not any(line.startswith("#EXT-X-STREAM-INF:") for line in lines):
            found.append(f"{master.name} names no variant")
        for line in lines:
            if line.startswith("#EXT-X-STREAM-INF:") and not _RATE.search(line):
                found.append(f"{master.name} tells no rate: {line}")
        named = [*_NAMED.findall(texts[master]), *(line for line in lines if not line.startswith("#"))]
        found += [
            f"{master.name} names {uri}: {trouble}"
            for uri in named
            if (trouble := _variant_trouble(master.parent / uri))
        ]
    return tuple(found) if masters else ("there is no master playlist",)


def _variant_trouble(playlist: Path) -> str:
    """Tells what is wrong with a playlist of one rendition. Empty: nothing."""
    if not playlist.is_file():
        return "it is not there"
    uris = [line for line in playlist.read_text(errors="replace").splitlines() if line and not line.startswith("#")]
    paths = [playlist.parent / uri for uri in uris]
    missing = next((path.name for path in paths if not path.is_file() or not path.stat().st_size), None)
    if missing is not None:
        return f"{missing} is not there, or empty"
    return "" if paths else "it lists nothing"


def _pieces(asked: Asked, path: Path) -> list[Path]:
    """Gives an output's files: itself, or its parts where it could not be made of them."""
    if "hls" in asked.kind:
        return [_playlist(path)]
    if path.exists():
        return [path]
    parts = sorted(path.parent.glob(f"{path.stem}.part*{path.suffix}"))
    # What failed for good has no name: it is kept under a hidden one until the session is deleted.
    found = path.parent.glob(f".gpu-balancer-{asked.name.rpartition('/')[2]}-*/*{path.suffix}")
    hidden = sorted(found, key=lambda part: (int(part.parent.name.rpartition("-")[2]), part.name))
    # What begins anew counts as its last attempt left it; earlier ones, whose agents were lost, go with the session.
    return parts or (hidden if asked.kind.startswith("live") else hidden[-1:]) or [path]


def _readable(asked: Asked, media: Path) -> tuple[Path, bool]:
    """Gives what a reader can take for a file or playlist, and whether it is whole."""
    whole = _is_part(media) or _is_whole(asked, media)
    return media if whole or "hls" not in asked.kind else _ended_playlist(media), whole


def _is_part(media: Path) -> bool:
    """Tells whether a file is a part, as an attempt left it: one that was cut short ends wherever it does."""
    return ".part" in media.name or media.parent.name.startswith(".")


def _playlist(folder: Path) -> Path:
    """Gives the playlist of the one rendition."""
    return next(path for path in _playlists(folder) if "#EXTINF" in path.read_text())


def _playlists(folder: Path) -> list[Path]:
    """Gives all playlists that players may read."""
    return [path for path in sorted(folder.rglob("*.m3u8")) if not path.name.startswith(".")]


def _ended_playlist(playlist: Path) -> Path:
    """Writes a playlist of the same with an end beside one without, for which a reader would wait for ever."""
    ended = playlist.with_name(f"ended-{playlist.name}")
    ended.write_text(f"{playlist.read_text()}\n#EXT-X-ENDLIST\n")
    return ended


def _is_whole(asked: Asked, media: Path) -> bool:
    if "hls" in asked.kind:
        return "#EXT-X-ENDLIST" in media.read_text()
    if media.suffix != ".mp4":
        return True
    # Of known end or not, once it is complete it is an ordinary file in one piece.
    kinds = top_boxes(media)
    return "moov" in kinds and "moof" not in kinds
