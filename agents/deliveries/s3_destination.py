"""Copies in a bucket of an S3-compatible store.

A copy counts when the store, asked again after the upload, has an object of the right size whose ETag is the digest of
our bytes; where its ETag is no digest (objects that the store encrypts with keys of its own), the object is read back
and compared. Objects carry the SHA-256 of their bytes as metadata: so one that we wrote and that is not right may be
written over, and nothing else ever is.
"""

from __future__ import annotations

import mimetypes
import re
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agents.deliveries.names import check_session, marked_with_attempt, path_parts
from agents.deliveries.s3_connection import S3Connection
from agents.deliveries.s3_credentials import read_credentials
from agents.deliveries.source import Digest, digest_of
from agents.deliveries.status import DeliveryFailure, SourceLost

if TYPE_CHECKING:
    from agents.deliveries.destination import Parcel
    from gpu_balancer.runtime.recording_sections import DestinationSettings

_SMALLEST_PART_BYTES = 5 * 1024 * 1024
_MOST_PARTS = 10_000
_ODD_PREFIX = re.compile(r"/.*|.*//.*|(?:.*/)?\.{1,2}(?:/.*)?")
"""Prefixes whose keys stores and tools disagree about."""


class S3Destination:
    """A bucket of the operator's."""

    def __init__(self, settings: DestinationSettings) -> None:
        """Takes the settings; connects at the first copy."""
        self._settings = settings
        self._idle: list[S3Connection] = []
        self._lock = threading.Lock()

    def deliver(self, parcel: Parcel, called_off: threading.Event) -> str:
        """See `Destination`."""
        with parcel.source.opened() as file:
            connection = self._connection()
            try:
                location = _Transfer(parcel, file, connection, self._account(), called_off).deliver(self._keys(parcel))
            except SourceLost:
                self._put_back(connection, called_off)
                raise
            except DeliveryFailure as failure:
                # A process that a store has confused may as well begin anew.
                connection.close()
                where = f"s3://{self._settings.bucket}"
                text = f"Cannot copy {parcel.path} to {where}: {str(failure).rstrip('.')}."
                raise DeliveryFailure(text, permanent=failure.permanent) from failure
            except BaseException:
                connection.close()
                raise
            self._put_back(connection, called_off)
        return f"s3://{self._settings.bucket}/{location}"

    def rest(self) -> None:
        """Ends the processes that wait for the next copy."""
        with self._lock:
            resting, self._idle = self._idle, []
        for connection in resting:
            connection.close()

    def _connection(self) -> S3Connection:
        with self._lock:
            if self._idle:
                return self._idle.pop()
        return S3Connection()

    def _put_back(self, connection: S3Connection, called_off: threading.Event) -> None:
        with self._lock:
            # Looked at under the lock, and set before the last `rest`: so that takes all there are.
            if not called_off.is_set():
                self._idle.append(connection)
                return
        connection.close()

    def _keys(self, parcel: Parcel) -> tuple[str, str]:
        """Gives the key of a copy, and the one for when that is taken."""
        prefix = self._settings.prefix
        if _ODD_PREFIX.fullmatch(prefix):
            raise DeliveryFailure(
                f"the prefix {prefix!r} makes no plain key. Try one such as studio-1/", permanent=True
            )
        path = "/".join((check_session(parcel.session), *path_parts(parcel.path)))
        return prefix + path, prefix + marked_with_attempt(path, parcel.attempt)

    def _account(self) -> dict[str, str]:
        settings = self._settings
        account = {"bucket": settings.bucket or "", "region": settings.region}
        if settings.endpoint is not None:
            account["endpoint"] = settings.endpoint.rstrip("/")
        if settings.credentials_file is not None:
            account |= read_credentials(Path(settings.credentials_file))
        return account


class _Transfer:
    """One copy on its way."""

    def __init__(
        self,
        parcel: Parcel,
        file: int,
        connection: S3Connection,
        account: dict[str, str],
        called_off: threading.Event,
    ) -> None:
        self._parcel = parcel
        self._file = file
        self._connection = connection
        self._account = account
        self._called_off = called_off
        self._part_bytes = max(_SMALLEST_PART_BYTES, -(-parcel.source.size_bytes // (_MOST_PARTS - 1)))
        self._known_digest: Digest | None = None

    def deliver(self, keys: tuple[str, str]) -> str:
        """Makes the copy under the first key that holds nothing else. Returns the key."""
        for key in keys:
            found = self._order("head", key)
            if found["found"]:
                if self._is_ours(key, found):
                    return key
                if found["noted_sha256"] != self._digest.sha256:
                    continue
            self._upload(key)
            return key
        raise DeliveryFailure(
            f"{keys[0]} and {keys[1]} hold other bytes. Try to move those objects away", permanent=True
        )

    def _upload(self, key: str) -> None:
        answer = self._order(
            "put",
            key,
            file=self._file,
            size_bytes=self._parcel.source.size_bytes,
            part_bytes=self._part_bytes,
            sha256=self._digest.sha256,
            media_type=mimetypes.types_map.get(Path(key).suffix.lower(), "application/octet-stream"),
        )
        if answer.get("source_changed"):
            raise SourceLost(f"Cannot copy {self._parcel.path}: it was changed while it was copied.")
        found = self._order("head", key)
        if not found["found"]:
            raise DeliveryFailure("the store took the object and does not have it")
        if not self._is_ours(key, found):
            raise DeliveryFailure("the store has other bytes than were sent")

    def _is_ours(self, key: str, found: dict[str, Any]) -> bool:
        size = self._parcel.source.size_bytes
        if found["size_bytes"] != size:
            return False
        if found["etag"] in self._digest.etags:
            return True
        kept = self._order("digest", key, size_bytes=size)
        return bool(kept["sha256"] == self._digest.sha256)

    @property
    def _digest(self) -> Digest:
        """Digests of the artifact, read when they are first needed: not while the store is away."""
        if self._known_digest is None:
            self._known_digest = digest_of(self._file, part_bytes=self._part_bytes, called_off=self._called_off)
            self._parcel.source.check(self._file)
        return self._known_digest

    def _order(self, verb: str, key: str, *, file: int | None = None, **fields: object) -> dict[str, Any]:
        return self._connection.order(verb, self._called_off, file=file, account=self._account, key=key, **fields)
