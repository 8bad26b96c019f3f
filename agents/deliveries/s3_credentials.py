"""Reads the file of an S3 destination's credentials, and refuses one that others could read."""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path

from agents.deliveries.status import DeliveryFailure

_LINE = re.compile(r"\s*([a-z_]+)\s*=\s*(\S+)\s*")
_REQUIRED = frozenset({"access_key_id", "secret_access_key"})
_KNOWN = _REQUIRED | {"session_token"}
_LARGEST_BYTES = 16 * 1024


def read_credentials(path: Path) -> dict[str, str]:
    """Reads lines such as `access_key_id = AKIA…`; blank ones and ones that begin with # are left out.

    Args:
        path: The file. It is read again for every copy, so that new credentials need no restart.

    Returns:
        access_key_id, secret_access_key and, when given, session_token.

    Raises:
        DeliveryFailure: When it cannot be read, can be read by others, or is not of this form. The message never has
            anything of its content.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as file:
            facts = os.fstat(descriptor)
            content = file.read(_LARGEST_BYTES) if stat.S_ISREG(facts.st_mode) else b""
    except OSError as error:
        raise _refused(path, f"{error.strerror}. Try to let the agent's user read it") from error
    if stat.S_IMODE(facts.st_mode) & 0o077:
        raise _refused(path, f"other users may read or change it. Try chmod 600 {path}")
    if facts.st_uid not in (0, os.geteuid()):
        raise _refused(path, "it belongs to another user. Try to give it to the agent's")
    found: dict[str, str] = {}
    for number, line in enumerate(content.decode(errors="replace").splitlines(), start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        match = _LINE.fullmatch(line)
        if match is None or match[1] not in _KNOWN or match[1] in found:
            raise _refused(path, f"line {number} is not understood. Try access_key_id = …, secret_access_key = …")
        found[match[1]] = match[2]
    if missing := _REQUIRED - found.keys():
        raise _refused(path, f"it lacks {' and '.join(sorted(missing))}. Try to add it")
    return found


def _refused(path: Path, reason: str) -> DeliveryFailure:
    return DeliveryFailure(f"Cannot use the credentials in {path}: {reason}.", permanent=True)
