"""Copies in a folder of this machine, which may be another file system or one of another machine."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

from agents.deliveries import verified_copy
from agents.deliveries.names import check_session, marked_with_attempt, path_parts
from agents.deliveries.status import DeliveryFailure
from agents.deliveries.verified_copy import SourceError, folder_below

if TYPE_CHECKING:
    import threading
    from pathlib import Path

    from agents.deliveries.destination import Parcel

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_PERMANENT = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG)


class FolderDestination:
    """A folder of the operator's. It must exist: a missing one may be a disk that is not mounted."""

    def __init__(self, root: Path) -> None:
        """Takes the folder."""
        self._root = root

    def deliver(self, parcel: Parcel, called_off: threading.Event) -> str:
        """See `Destination`."""
        with parcel.source.opened() as source:
            try:
                return self._deliver(parcel, source, called_off)
            except SourceError as error:
                raise error.cause from None
            except OSError as error:
                raise self._failure(parcel, error) from error

    def rest(self) -> None:
        """Has nothing."""

    def _deliver(self, parcel: Parcel, source: int, called_off: threading.Event) -> str:
        parts = (check_session(parcel.session), *path_parts(parcel.path))
        with folder_below(self._root, parts[:-1], mode=0o755) as folder:
            for name in (parts[-1], marked_with_attempt(parts[-1], parcel.attempt)):
                if _settle(parcel, source, name, folder, called_off=called_off):
                    return str(self._root.joinpath(*parts[:-1], name))
        raise DeliveryFailure(
            f"Cannot copy {parcel.path} to {self._root}: its name and the one with its attempt are taken by other "
            "files. Try to move those away.",
            permanent=True,
        )

    def _failure(self, parcel: Parcel, error: OSError) -> DeliveryFailure:
        hint = "Try another folder."
        if error.errno in _FULL:
            hint = "Try to make room there."
        elif error.errno == errno.ENOENT:
            hint = "Try to make the folder, or to mount its disk."
        elif error.errno in _PERMANENT:
            hint = "Try to let the agent's user write there."
        message = f"Cannot copy {parcel.path} to {self._root}: {error.strerror}. {hint}"
        return DeliveryFailure(message, permanent=error.errno in _PERMANENT)


def _settle(parcel: Parcel, source: int, name: str, folder: int, *, called_off: threading.Event) -> bool:
    """Makes a copy under a name, or finds it made. Returns whether it is there; else the name has other bytes."""
    unfinished = verified_copy.unfinished_name(path_parts(parcel.path)[-1], parcel.attempt)
    if not verified_copy.exists(name, folder):
        verified_copy.write_copy(parcel.source, source, unfinished, folder, called_off=called_off)
        try:
            verified_copy.give_name(unfinished, name, folder)
        except FileExistsError:
            pass  # by somebody else, just now: look at that
        else:
            return True
    sha256 = verified_copy.digest_of_source(source, called_off)
    size_bytes = parcel.source.size_bytes
    made = verified_copy.holds(name, folder, size_bytes=size_bytes, sha256=sha256, called_off=called_off)
    verified_copy.remove(unfinished, folder)
    if made:
        os.fsync(folder)
    return made
