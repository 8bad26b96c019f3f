"""Outcomes of the golden probe kept between starts, so that an agent is ready at once when nothing has changed.

The key names everything that an outcome follows from: device, driver, ffmpeg as a file, and trial. Only what will not
change by itself is kept: success, and the failures by which a card or a build says that it cannot. "Out of memory", a
missing library or a deadline are tried again, because an operator or the next minute may cure them.
"""

from __future__ import annotations

import json
import logging
import re
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from gpu_balancer.runtime.durable_file import write_durably

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from agents.devices.identity import DeviceIdentity

_LOG = logging.getLogger(__name__)
_VERSION = 1
_LASTING_FAILURE = re.compile(
    r"no capable devices found|unsupported device|not supported|unsupported|does ?n.t support|does not support"
    r"|lacking required capabilities|unknown (?:encoder|decoder)|(?:encoder|decoder) \S+ not found"
    r"|incompatible pixel format|invalid or unsupported|impossible to convert|no such filter",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialOutcome:
    """How a trial went with one ffmpeg on one device."""

    works: bool
    message: str = ""
    """Why not. Empty when it works."""
    implementation: str | None = None
    """Name of the decoder that ffmpeg took by itself. None: as the trial names it."""

    @property
    def lasting(self) -> bool:
        """Whether another try of the same on the same would end alike."""
        return self.works or _LASTING_FAILURE.search(self.message) is not None


class ProbeStore:
    """A file of outcomes. One that cannot be read, or is of another version, counts as empty. Blocks for the disk."""

    def __init__(self, path: Path) -> None:
        """Reads nothing yet.

        Args:
            path: The file; its folder must exist.
        """
        self._path = path

    def load(self) -> dict[str, TrialOutcome]:
        """Reads every outcome by its key."""
        try:
            content = json.loads(self._path.read_bytes())
            if content["version"] != _VERSION:
                return {}
            outcomes = {key: TrialOutcome(**outcome) for key, outcome in content["outcomes"].items()}
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            # RecursionError: JSON nested deeper than Python reads.
            _LOG.warning("Cannot read %s: %s. Everything is tried anew", self._path, type(error).__name__)
            return {}
        if not all(map(_well_formed, outcomes.values())):
            _LOG.warning("Cannot read %s: an outcome is damaged. Everything is tried anew", self._path)
            return {}
        return outcomes

    def save(self, outcomes: Mapping[str, TrialOutcome]) -> None:
        """Replaces the file by the lasting ones among some outcomes.

        Raises:
            OSError: When the folder is missing, not writable or full.
        """
        kept = {key: asdict(outcome) for key, outcome in sorted(outcomes.items()) if outcome.lasting}
        text = json.dumps({"version": _VERSION, "outcomes": kept}, indent=1)
        write_durably(self._path, text.encode())


def _well_formed(outcome: TrialOutcome) -> bool:
    implementation = outcome.implementation
    named = implementation is None or isinstance(implementation, str)
    return isinstance(outcome.works, bool) and isinstance(outcome.message, str) and named


def outcome_key(identity: DeviceIdentity, build_fingerprint: str, trial_name: str) -> str:
    """Names everything that an outcome follows from."""
    driver = identity.driver_version or identity.model
    return "|".join([identity.id, driver, build_fingerprint, trial_name])
