"""An upload by the name of the file that it is: the daemon knows only its own copy, and says so in what goes wrong."""

from __future__ import annotations

import dataclasses
import re
from typing import TYPE_CHECKING

from gpu_balancer.client.names import short_name
from gpu_balancer.v1 import session_pb2

if TYPE_CHECKING:
    from pathlib import Path

    from gpu_balancer.runtime.failures import RequestFailure
    from gpu_balancer.v1.session_pb2 import Session


def named_for_file(text: str, upload: str, file: Path) -> str:
    """Puts a file's path in the place of its upload's path or name.

    Args:
        text: A message or a line of a log.
        upload: Name of the upload, `uploads/x`.
        file: The local file that was uploaded.
    """
    # The daemon keeps an upload as {folder}/{id}/data{.suffix}.
    name = re.escape(short_name(upload))
    return re.sub(
        rf"[^\s'\"(]*(?<![A-Za-z0-9]){name}(?![A-Za-z0-9])(?:/data(?:\.[A-Za-z0-9]+)?)?", lambda _: str(file), text
    )


def failure_of_file(failure: RequestFailure, upload: str, file: Path) -> RequestFailure:
    """Gives a refusal in which the upload is called by its file."""
    violations = tuple(
        dataclasses.replace(one, description=named_for_file(one.description, upload, file))
        for one in failure.violations
    )
    return dataclasses.replace(failure, message=named_for_file(failure.message, upload, file), violations=violations)


def session_of_file(session: Session, file: Path | None) -> Session:
    """Gives a session in whose failure the upload is called by its file.

    Args:
        session: A session.
        file: The local file that it was made for. None: there is none.
    """
    upload = session.transcode.input.upload
    if file is None or not upload or not session.HasField("failure"):
        return session
    told = session_pb2.Session()
    told.CopyFrom(session)
    told.failure.message = named_for_file(session.failure.message, upload, file)
    del told.failure.log_tail[:]
    told.failure.log_tail.extend(named_for_file(line, upload, file) for line in session.failure.log_tail)
    return told
