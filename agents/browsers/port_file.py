"""Files in which a display's programs say on which port they listen."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

PROXY_PORT_FILE = "egress-port"
"""Name of the egress proxy's, in a display's work folder."""

_FILE_BYTES = 4096
_PORT = re.compile(rb"(\d{1,5})\n")


def read_port(path: Path) -> int | None:
    """Reads the port that stands in the first line. None: there is no such file yet, or no port in it.

    The display's user could put anything there: no link is followed, and no more read than a port takes.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        match = _PORT.match(os.read(descriptor, _FILE_BYTES))
    except OSError:
        return None
    finally:
        os.close(descriptor)
    return int(match[1]) if match and 0 < int(match[1]) < 65536 else None
