"""Fetching what a session left, and telling where it is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gpu_balancer.cli.error_text import complain
from gpu_balancer.cli.exit_codes import ExitCode
from gpu_balancer.cli.session_words import session_state
from gpu_balancer.cli.transfers import shown_downloads
from gpu_balancer.cli.words import clean, size
from gpu_balancer.client.names import short_name
from gpu_balancer.runtime.failures import RequestFailure

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from gpu_balancer.cli.screen import Screen
    from gpu_balancer.client import Client
    from gpu_balancer.client.deliveries import Delivery
    from gpu_balancer.v1.session_pb2 import Session


def fetch_results(
    screen: Screen, client: Client, ended: Session, delivery: Delivery, *, overwrite: bool, leaves_artifacts: bool
) -> ExitCode:
    """Fetches what was asked for and tells where it is.

    Args:
        screen: Where to tell it.
        client: Fetches.
        ended: The session.
        delivery: What to fetch, and where to.
        overwrite: Replaces existing files.
        leaves_artifacts: Whether there are artifacts when nothing is to be fetched.

    Returns:
        SESSION_FAILED when something is missing that was to be there.
    """
    name = short_name(ended.name)
    if not delivery.fetches:
        if not screen.json:
            screen.line(f"{name}: {session_state(ended.state)}")
        if leaves_artifacts:
            screen.note(f"Its results stay with the agent: gpu-balancer artifacts {name} --download DIR")
        return ExitCode.OK
    try:
        with shown_downloads(screen) as progress:
            places = client.fetch(ended, delivery, overwrite=overwrite, on_download=progress)
    except (KeyboardInterrupt, OSError, RequestFailure):
        screen.note(
            f"The session has ended; its results stay with the agent: gpu-balancer artifacts {name} --download DIR"
        )
        raise
    tell_places(screen, delivery, places)
    if problems := _problems(delivery, places, name):
        return complain(" ".join(problems), ExitCode.SESSION_FAILED)
    return ExitCode.OK


def _problems(delivery: Delivery, places: Sequence[Path], session: str) -> list[str]:
    """Tells what was to be fetched and was not there, as sentences."""
    missing, in_parts = [], []
    for fetch in delivery.fetches:
        written = fetch.places_among(places)
        if fetch.required and not written:
            missing.append(str(fetch.target))
        elif written and not fetch.whole_folder and fetch.target not in written:
            in_parts.append(str(fetch.target))
    told = []
    if in_parts:
        told.append(f"{', '.join(in_parts)} stayed in parts. Try gpu-balancer session {session} to see why.")
    if missing:
        told.append(f"The session left nothing for {', '.join(missing)}. See gpu-balancer artifacts {session}.")
    return told


def tell_places(screen: Screen, delivery: Delivery, places: Sequence[Path]) -> None:
    """Tells what was written: each file and each part, of a folder only its name."""
    if screen.json:
        return
    for fetch in delivery.fetches:
        written = fetch.places_among(places)
        if fetch.whole_folder and written:
            total = size(sum(place.stat().st_size for place in written))
            _tell_place(screen, fetch.target, f"{total} in {len(written)} files")
        elif not fetch.whole_folder:
            for place in written:
                _tell_place(screen, place, size(place.stat().st_size))


def _tell_place(screen: Screen, place: Path, words: str) -> None:
    screen.line(f"Wrote {clean(str(place))} ({words})" if screen.terminal else str(place))
