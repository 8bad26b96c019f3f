"""What is told and fetched when a recording has ended: its report, or what is left of one that failed."""

from __future__ import annotations

from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

from gpu_balancer.cli.recording_views import report_facts
from gpu_balancer.cli.results import tell_places
from gpu_balancer.cli.transfers import shown_downloads
from gpu_balancer.cli.words import clean, device_word
from gpu_balancer.client.deliveries import Delivery, Fetch
from gpu_balancer.client.names import short_name
from gpu_balancer.client.recording_specs import FAILURE_ARTIFACTS
from gpu_balancer.runtime.failures import RequestFailure

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gpu_balancer.cli.screen import Screen
    from gpu_balancer.client import Client
    from gpu_balancer.v1.session_pb2 import Session


def tell_report(screen: Screen, ended: Session, checked: Mapping[Path, str]) -> None:
    """Writes what became of a recording: on a terminal with the result, else beside it, so that pipes get paths alone.

    Args:
        screen: Where to.
        ended: The session.
        checked: Files whose SHA-256 is what the agent wrote, with it.
    """
    if screen.json:
        return
    facts = [
        *report_facts(ended.recording_report, whole=False),
        ("device", device_word(ended.device) if ended.device else ""),
        ("sha256", _sum_words(checked)),
    ]
    if screen.terminal:
        screen.facts(facts)
    else:
        for name, value in facts:
            if value:
                screen.note(f"{name}: {value}")


def _sum_words(checked: Mapping[Path, str]) -> str:
    """Tells that fetched files are what the agent wrote."""
    if not checked:
        return ""
    if len(checked) == 1:
        # A terminal of 80 columns has room for no longer word behind it.
        return f"{next(iter(checked.values()))} agrees"
    return f"agrees for {len(checked)} files"


def fetch_remains(screen: Screen, client: Client, failed: Session, delivery: Delivery, *, overwrite: bool) -> None:
    """Fetches what a recording that failed left: what was recorded until then, how its page looked, what it logged.

    The failure is told already, so what goes wrong here is told and nothing more.
    """
    name = short_name(failed.name)
    artifacts = {one.path: one.size_bytes for one in client.list_artifacts(failed.name)}
    recorded = Delivery(
        fetches=tuple(
            fetch
            for fetch in delivery.fetches
            if any(
                size_bytes and (fetch.place_of(path) or fetch.part_place_of(path))
                for path, size_bytes in artifacts.items()
            )
        )
    )
    clues = tuple(
        Fetch(artifact_path=path, target=_free_place(_clue_place(delivery, name, path)), whole_folder=False)
        for path in FAILURE_ARTIFACTS
        if artifacts.get(path)
    )
    try:
        with shown_downloads(screen) as progress:
            places = client.fetch(failed, recorded, overwrite=overwrite, on_download=progress)
            found = client.fetch(failed, Delivery(fetches=clues), on_download=progress)
    except (OSError, RequestFailure) as error:
        screen.note(f"What it left could not be fetched: {error}")
        screen.note(f"It stays with the agent: gpu-balancer artifacts {name} --download DIR")
        return
    tell_places(screen, recorded, places)
    if places:
        screen.note("That is what was recorded until it failed.")
    for clue in clues:
        if clue.target in found:
            what = "How it looked then" if clue.artifact_path.endswith(".png") else "What its page logged"
            screen.note(f"{what}: {clean(str(clue.target))}")
    if artifacts and not places and not found:
        screen.note(f"What it left stays with the agent: gpu-balancer artifacts {name} --download DIR")


def _clue_place(delivery: Delivery, session: str, artifact_path: str) -> Path:
    """Tells where a clue goes: beside the output, by its name; without one here, by the session's."""
    if delivery.fetches:
        output = delivery.fetches[0].target
        return output.with_name(f"{output.stem}.{artifact_path}")
    return Path.cwd() / f"{session}.{artifact_path}"


def _free_place(place: Path) -> Path:
    """Tells a place where nothing is yet: clues of an earlier try are not replaced."""
    if not place.exists():
        return place
    names = (place.with_name(f"{place.stem}-{number}{place.suffix}") for number in count(2))
    return next(name for name in names if not name.exists())
