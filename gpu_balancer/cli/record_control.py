"""What the commands about a recording that runs do."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from gpu_balancer.cli.invocation import Misuse, spelled
from gpu_balancer.cli.session_words import is_paused, phase_words, recorded_time
from gpu_balancer.cli.words import clean, clock, size
from gpu_balancer.client.names import short_name
from gpu_balancer.client.recording_spelling import parse_extension

if TYPE_CHECKING:
    from gpu_balancer.cli.invocation import Invocation
    from gpu_balancer.cli.screen import Screen
    from gpu_balancer.client import Client
    from gpu_balancer.v1.session_pb2 import Session


def pause(invocation: Invocation, name: str) -> None:
    """Lets a recording rest."""
    with invocation.client() as client:
        session = client.pause(name)
    # It rests at the end of a fragment, a moment after it was asked to.
    _tell(invocation.screen(), session, "paused" if is_paused(session) else "is being paused", at=_at(session))


def resume(invocation: Invocation, name: str) -> None:
    """Goes on with a recording."""
    with invocation.client() as client:
        session = client.resume(name)
    words = "is being resumed" if is_paused(session) else phase_words(session)
    _tell(invocation.screen(), session, words, at=_at(session))


def extend(invocation: Invocation, name: str, duration: str | None) -> None:
    """Gives a recording another length: the whole one, so much more, or None for no bound."""
    with invocation.client() as client:
        session = client.extend(name, None) if duration is None else _extended(client, name, duration)
    bound = f"ends after {clock(session.max_duration)}" if session.HasField("max_duration") else "goes on until stopped"
    _tell(invocation.screen(), session, f"{phase_words(session)}, {bound}")


def _extended(client: Client, name: str, duration: str) -> Session:
    with spelled("the time"):
        told = parse_extension(duration)
    if not told.added:
        return client.extend(name, told.length)
    present = client.get_session(name)
    if not present.HasField("max_duration"):
        raise Misuse(f"Cannot add {duration} to {short_name(name)}: it has no bound. Try a time without +.")
    with spelled("the time"):
        return client.extend(name, present.max_duration.ToTimedelta() + told.length)


def _at(session: Session) -> str:
    return f" at {recorded_time(session)}" if session.HasField("progress") else ""


def _tell(screen: Screen, session: Session, words: str, *, at: str = "") -> None:
    if screen.json:
        screen.document(session)
    else:
        screen.line(f"{short_name(session.name)}: {words}{at}")


def snapshot(invocation: Invocation, name: str, *, output: str | None, width: int | None, overwrite: bool) -> None:
    """Takes a picture of a recording's display, and writes it to a file or to standard output."""
    screen = invocation.screen()
    if output == "-" and (screen.json or screen.terminal):
        raise Misuse("Cannot write a picture there: a terminal or JSON takes text. Try -o FILE.png.")
    place = Path(output or f"{short_name(name)}.png").expanduser().absolute()
    if output != "-" and not overwrite and place.exists():
        raise FileExistsError(f"Cannot write {place}: it exists. Try another name, or -y to replace it.")
    with invocation.client() as client:
        taken = client.snapshot(name, width=width)
    if output == "-":
        sys.stdout.buffer.write(taken.image)
        return
    _write(place, taken.image)
    if screen.json:
        time = taken.snapshot_time.ToJsonString()
        screen.document({"path": str(place), "sizeBytes": str(len(taken.image)), "snapshotTime": time})
    else:
        words = f"Wrote {clean(str(place))} ({size(len(taken.image))})"
        screen.line(words if screen.terminal else str(place))


def _write(place: Path, image: bytes) -> None:
    """Writes a whole file or none."""
    if not place.parent.is_dir():
        raise NotADirectoryError(f"Cannot write {place}: there is no folder {place.parent}. Try to make it first.")
    descriptor, part = tempfile.mkstemp(prefix=f".{place.name}.", suffix=".part", dir=place.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(image)
        # As any new file of the user's, not as a temporary one.
        mask = os.umask(0)
        os.umask(mask)
        Path(part).chmod(0o666 & ~mask)
        Path(part).replace(place)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            Path(part).unlink()
        raise
