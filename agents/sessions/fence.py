"""The fence of a session on this host: a lock file that says which attempt may write its outputs, and who does.

Every process that writes an attempt's outputs holds the file locked: its programs, which inherit the lock, and an agent
for as long as it moves or joins files. So a newer attempt begins only when nothing of an older one can write any more,
whoever has launched that and whether or not its agent can be asked: one that was stopped for an hour and goes on finds
another attempt's number in the file, and touches nothing.

A file of the host, not a lease that the balancer renews: sessions outlive the balancer, and a lease would end them when
nobody but the balancer is away (docs/decisions/0012-a-fence-per-host.md).
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Self

from agents.lock_holders import has_open, is_held, kill, kill_holders, lockers
from agents.sessions.fence_file import (
    FenceEntry,
    is_current,
    lock_alone,
    lock_shared,
    locked_entry,
    open_fence,
    opened_fence,
    read_entry,
    write_entry,
)
from agents.sessions.folder import is_session_id
from gpu_balancer.runtime.failures import Reason, RequestFailure
from gpu_balancer.runtime.ids import random_id

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

    from agents.sessions.attempt import AttemptKey
    from gpu_balancer.runtime.clock import Clock

_ROOT = 0
_ROOT_MODE = 0o700
_GENERATION = ".generation"
_TRIED_EVERY_S = 0.02
_TRIES = 250
"""5 s: what is killed is gone long before, unless it waits for a disk."""
_PATIENT_TRIES = 100
"""2 s that an older attempt's agent has to be done with its outputs, before it is killed like everything else."""
_RETRY_AFTER = timedelta(seconds=1)
_STALE_AFTER = timedelta(days=1)


class FencedError(Exception):
    """The attempt may not touch its outputs: a newer one has them, its session was deleted, or nobody can tell."""

    def __init__(self, message: str, *, untold: bool = False) -> None:
        """Takes the reason.

        Args:
            message: For people.
            untold: Whether nobody can tell, because the fence cannot be used. Later that may be otherwise.
        """
        super().__init__(message)
        self.untold = untold


class FenceHold:
    """A fence held, shared, for one attempt. A context manager; who inherits the descriptor goes on holding it."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        os.close(self.descriptor)


class Fences:
    """All fences of a host, as one of its agents uses them. Every method blocks."""

    def __init__(self, root: Path, clock: Clock) -> None:
        """Looks at nothing yet.

        Args:
            root: Folder of the fences, which all agents of the host share. Made when it is needed.
            clock: Tells how old a fence is.
        """
        self._root = root
        self._clock = clock

    def generation(self) -> str:
        """Names this life of the folder: another one when it was lost, with a reboot for instance.

        Raises:
            OSError: When the folder cannot be used.
        """
        self._make_root()
        path = self._root / _GENERATION
        if not path.exists():
            nascent = path.with_name(random_id(".new-"))
            nascent.write_text(random_id(), encoding="ascii")
            with contextlib.suppress(FileExistsError):
                os.link(nascent, path)
            nascent.unlink()
        return path.read_text(encoding="ascii")

    def take(self, key: AttemptKey, folder: Path, earlier: Sequence[Path] = ()) -> FenceHold:
        """Makes an attempt the one that may write, once nothing of an older one can any more: what lives is killed.

        Args:
            key: The attempt.
            folder: Its folder, which need not exist.
            earlier: Folders of older attempts, as far as they are known: a fence may have been lost, or never been.

        Raises:
            RequestFailure: STALE_ATTEMPT when there is a newer one; OUTPUT_FENCED when something of an older one cannot
                be ended, or there can be no fence.
        """
        try:
            self._make_root()
            for former in earlier:
                if former.parent.name == key.session and not _is_ended(former / "lock"):
                    raise _not_ended(key)
            descriptor = self._taken(key, folder)
        except OSError as error:
            message = (
                f"Cannot launch {key}: the fences of this host cannot be kept in {self._root}: {error.strerror}. Try "
                "another fence_dir in [sessions], the same for all agents of the host."
            )
            raise RequestFailure(reason=Reason.OUTPUT_FENCED, message=message, retry_after=_RETRY_AFTER) from error
        return FenceHold(descriptor)

    def prove(self, key: AttemptKey, folder: Path, *, generation: str) -> FenceHold:
        """Holds the fence for an attempt that wants to touch its outputs.

        Args:
            key: The attempt.
            folder: Its folder.
            generation: What `generation` gave when it was launched. Empty: that was before there were fences.

        Raises:
            FencedError: When it may not, or nobody can tell.
        """
        try:
            return self._held(key, FenceEntry(attempt=key.attempt, folder=str(folder)), generation)
        except OSError as error:
            message = f"Cannot touch the outputs of {key}: its fence in {self._root} cannot be used: {error.strerror}."
            raise FencedError(message, untold=True) from error

    def _held(self, key: AttemptKey, entry: FenceEntry, generation: str) -> FenceHold:
        lost = generation != self.generation()
        for _ in range(_TRIES):
            descriptor = open_fence(self._path(key.session), create=lost)
            if descriptor is None:
                raise FencedError(f"Cannot touch the outputs of {key}: the session was deleted.")
            try:
                if self._proved(descriptor, key, entry, lost=lost):
                    return FenceHold(os.dup(descriptor))
            finally:
                os.close(descriptor)
            time.sleep(_TRIED_EVERY_S)
        raise FencedError(f"Cannot touch the outputs of {key}: another attempt is taking them over.")

    def remove(self, session: str) -> None:
        """Removes a session's fence, unless something still holds it. One that is not there is no mistake."""
        with contextlib.suppress(OSError), opened_fence(self._path(session)) as descriptor:
            if descriptor is not None and lock_alone(descriptor) and is_current(descriptor, self._path(session)):
                self._path(session).unlink()

    def clear(self) -> None:
        """Removes fences that nobody needs: not held, a day old, and their attempt's folder is gone."""
        oldest_s = (self._clock.now() - _STALE_AFTER).timestamp()
        with contextlib.suppress(OSError):
            for path in tuple(self._root.iterdir()):
                if is_session_id(path.name) and path.lstat().st_mtime < oldest_s and not _is_needed(path):
                    self.remove(path.name)

    def _taken(self, key: AttemptKey, folder: Path) -> int:
        for number in range(_TRIES):
            descriptor = open_fence(self._path(key.session), create=True)
            assert descriptor is not None
            try:
                entry = _entered(descriptor, key, folder)
                alone = entry is not None and lock_alone(descriptor) and self._is_current(descriptor, key)
                if entry is not None and alone:
                    self._end_former(descriptor, key, entry)
                    return os.dup(descriptor)
            finally:
                os.close(descriptor)
            former = () if entry is None else entry.former
            _end_holders(self._path(key.session), former, patient=number < _PATIENT_TRIES)
            time.sleep(_TRIED_EVERY_S)
        raise _not_ended(key)

    def _end_former(self, descriptor: int, key: AttemptKey, entry: FenceEntry) -> None:
        """Ends what is left of older attempts, for whoever holds the fence alone; it is held beside others then."""
        if not all(_is_ended(Path(folder) / "lock") for folder in entry.former):
            raise _not_ended(key)
        with locked_entry(descriptor) as locked:
            if not locked or read_entry(descriptor) != entry:
                raise _stale(key, read_entry(descriptor))
            write_entry(descriptor, replace(entry, former=()))
        # The lock is given back for an instant here: a newer attempt may come between.
        fcntl.flock(descriptor, fcntl.LOCK_SH)
        found = read_entry(descriptor)
        if found is None or found.attempt != key.attempt or not self._is_current(descriptor, key):
            raise _stale(key, found)

    def _proved(self, descriptor: int, key: AttemptKey, entry: FenceEntry, *, lost: bool) -> bool:
        """Tells whether the fence is held for the attempt now. False: somebody has it alone just now, or removed it.

        Raises:
            FencedError: When another attempt is in it.
        """
        if not lock_shared(descriptor) or not self._is_current(descriptor, key):
            return False
        found = read_entry(descriptor)
        if found is None and lost:
            with locked_entry(descriptor) as locked:
                if locked and read_entry(descriptor) is None:
                    write_entry(descriptor, entry)
            return False
        if found is None:
            message = f"Cannot touch the outputs of {key}: its fence is damaged, so nobody can tell who has them."
            raise FencedError(message, untold=True)
        if found.attempt != entry.attempt:
            raise FencedError(f"Cannot touch the outputs of {key}: attempt {found.attempt} has them now.")
        return True

    def _path(self, session: str) -> Path:
        if not is_session_id(session):
            raise ValueError(f"Cannot use {session!r} as a session's id: it is no plain name.")
        return self._root / session

    def _is_current(self, descriptor: int, key: AttemptKey) -> bool:
        return is_current(descriptor, self._path(key.session))

    def _make_root(self) -> None:
        self._root.mkdir(mode=_ROOT_MODE, parents=True, exist_ok=True)
        # Whoever owns the folder above could put another one in its place.
        if self._root.stat().st_uid != os.geteuid() or self._root.parent.stat().st_uid not in (_ROOT, os.geteuid()):
            raise PermissionError(None, "it is somebody else's", str(self._root))


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptFence:
    """The fence of one attempt, for whoever watches over it."""

    fences: Fences
    key: AttemptKey
    folder: Path
    generation: str
    """Of the fences when it was launched."""

    def prove(self) -> FenceHold:
        """Holds the fence; see `Fences.prove`."""
        return self.fences.prove(self.key, self.folder, generation=self.generation)


def _is_needed(path: Path) -> bool:
    """Tells whether an attempt's folder is still there, as this agent sees it."""
    with opened_fence(path) as descriptor:
        entry = None if descriptor is None else read_entry(descriptor)
    return entry is not None and Path(entry.folder).exists()


def _entered(descriptor: int, key: AttemptKey, folder: Path) -> FenceEntry | None:
    """Has a fence name an attempt: from then on no older one begins to touch anything. None: somebody else writes.

    Raises:
        RequestFailure: STALE_ATTEMPT.
    """
    with locked_entry(descriptor) as locked:
        found = read_entry(descriptor)
        if found is not None and found.attempt > key.attempt:
            raise _stale(key, found)
        if not locked or (found is not None and found.attempt == key.attempt and found.folder == str(folder)):
            return found if locked else None
        former = () if found is None else (found.folder, *found.former)
        entry = FenceEntry(attempt=key.attempt, folder=str(folder), former=former)
        write_entry(descriptor, entry)
        return entry


def _end_holders(fence: Path, former: tuple[str, ...], *, patient: bool) -> None:
    """Kills who holds a fence. While one is patient, an agent, which holds no attempt's own lock, is let be."""
    for pid in lockers(fence):
        if not patient or any(has_open(pid, Path(folder) / "lock") for folder in former):
            kill(pid, fence)


def _is_ended(lock: Path) -> bool:
    """Kills who holds an attempt's own lock, a display's processes for instance. Returns whether all of them are gone.

    A folder that is not seen here has nothing that could be ended by it.
    """
    for _ in range(_TRIES):
        try:
            if not is_held(lock):
                return True
            kill_holders(lock)
        except (FileNotFoundError, NotADirectoryError, PermissionError):
            return True
        time.sleep(_TRIED_EVERY_S)
    return False


def _stale(key: AttemptKey, newer: FenceEntry | None) -> RequestFailure:
    which = "a newer attempt" if newer is None else f"attempt {newer.attempt}"
    return RequestFailure(
        reason=Reason.STALE_ATTEMPT, message=f"Cannot launch {key}: {which} of the session has begun on this host."
    )


def _not_ended(key: AttemptKey) -> RequestFailure:
    return RequestFailure(
        reason=Reason.OUTPUT_FENCED,
        message=f"Cannot launch {key}: something of an earlier attempt still holds its outputs on this host and cannot "
        "be ended. Try again.",
        retry_after=_RETRY_AFTER,
    )
