"""Where the pieces of a file stand that could not be made of them."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING

from agents.sessions.private_files import is_private

if TYPE_CHECKING:
    from agents.pipelines.recording_files import FinishStep
    from agents.sessions.folder import AttemptFolder


def salvage(step: FinishStep, folder: AttemptFolder) -> list[str]:
    """Puts the pieces themselves where a file should be that could not be made. Returns where they are now."""
    final = Path(step.final_path) if step.move is None else folder.artifacts / Path(step.final_path).name
    places = []
    for number, piece in enumerate(step.takes, start=1):
        if is_private(piece, step.move):
            places.append(piece)  # it stays: beside where it was to be
            continue
        place = final if len(step.takes) == 1 else final.with_name(f"{final.stem}.part-{number}{final.suffix}")
        if Path(piece).parent == final.parent:
            place = Path(piece)  # a part that is called one already
        with contextlib.suppress(OSError):
            place.parent.mkdir(parents=True, exist_ok=True)
            Path(piece).replace(place)
            places.append(str(place.relative_to(folder.artifacts)))
    return places
