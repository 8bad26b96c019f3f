"""What keeps a GPU from taking sessions, kept over restarts of its agent and of the machine.

A card that fell off the bus and is back after a reboot looks well; that it was lost must not be forgotten by that. A
file that cannot be read counts as empty, with a warning: what still is wrong the driver says again.
"""

from __future__ import annotations

import json
import logging
import math
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from agents.health.device_health import Engine, Fault, HealthState
from agents.health.record import EngineOut, HealthRecord, Since
from gpu_balancer.runtime.durable_file import write_durably

if TYPE_CHECKING:
    from pathlib import Path

_LOG = logging.getLogger(__name__)
_VERSION = 1
_EARLIER_S = -math.inf
"""Before anything that this process does."""


class HealthStore:
    """A file of what is held against a GPU. Blocks for the disk."""

    def __init__(self, path: Path) -> None:
        """Reads nothing yet.

        Args:
            path: The file; its folder must exist.
        """
        self._path = path

    def load(self) -> HealthRecord:
        """Reads what was kept."""
        try:
            content = json.loads(self._path.read_bytes())
            if content["version"] != _VERSION:
                raise ValueError("it is of another version")
            return HealthRecord(
                kept=None if content["kept"] is None else _since(content["kept"]),
                engines_out={Engine(name): _engine_out(out) for name, out in content["engines_out"].items()},
            )
        except FileNotFoundError:
            return HealthRecord()
        except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            # RecursionError: JSON nested deeper than Python reads.
            _LOG.warning("Cannot read %s: %s: %s. Its device begins anew", self._path, type(error).__name__, error)
            return HealthRecord()

    def save(self, record: HealthRecord) -> None:
        """Replaces the file.

        Raises:
            OSError: When the folder is missing, not writable or full.
        """
        write_durably(self._path, json.dumps(kept_content(record), indent=1).encode())


def kept_content(record: HealthRecord) -> dict[str, Any]:
    """Gives what of a record is kept: equal ones need not be written again."""
    kept = record.kept
    return {
        "version": _VERSION,
        "kept": kept
        and {
            "state": kept.fault.state.value,
            "reason": kept.fault.reason,
            "message": kept.fault.message,
            "xid": kept.fault.xid,
            "since_time": kept.since_time.isoformat(),
        },
        "engines_out": {
            engine.value: {"xid": out.xid, "since_time": out.since_time.isoformat()}
            for engine, out in sorted(record.engines_out.items())
        },
    }


def _since(value: dict[str, Any]) -> Since:
    fault = Fault(
        state=HealthState(value["state"]), reason=str(value["reason"]), message=str(value["message"]), xid=value["xid"]
    )
    if not (fault.xid is None or isinstance(fault.xid, int)) or not fault.state.bars:
        raise ValueError("what it keeps is none of what is kept")
    return Since(fault=fault, since_time=_time(value["since_time"]), since_s=_EARLIER_S)


def _engine_out(value: dict[str, Any]) -> EngineOut:
    return EngineOut(xid=int(value["xid"]), since_time=_time(value["since_time"]), since_s=_EARLIER_S)


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text).astimezone(UTC)
