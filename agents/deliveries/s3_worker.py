"""A process that speaks with one S3-compatible store for an agent, and ends with it.

obstore is not loaded into the agent: its memory is not given back after an upload, and a runtime that is still at work
when Python ends aborts the whole process. Here both are harmless. This file is run as a program, so it imports nothing
of this project. It takes one order at a time from the socket that is its standard input, a line of JSON, with the open
file to be uploaded beside it, and answers with a line. When the socket closes it is gone at once, whatever it was at.

It must never say what credentials it was given.
"""

from __future__ import annotations

import hashlib
import json
import os
import queue
import re
import socket
import sys
import threading
from contextlib import suppress
from datetime import timedelta
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

    from obstore.store import S3Store

_LONGEST_ORDER_BYTES = 64 * 1024
_DIGEST_METADATA = "sha256"
_READ_BACK_BYTES = 4 * 1024 * 1024
_PARTS_AT_ONCE = 2
_CLIENT_OPTIONS = {"connect_timeout": timedelta(seconds=10), "timeout": timedelta(minutes=5)}
# The agent tries again too, but a whole upload of a thousand parts must not fail of a single busy answer.
_RETRIES = {
    "max_retries": 3,
    "retry_timeout": timedelta(minutes=2),
    "backoff": {"init_backoff": timedelta(milliseconds=100), "max_backoff": timedelta(seconds=5), "base": 2},
}


class SourceChanged(Exception):
    """The file does not have the bytes that it had a moment ago."""


def head(store: S3Store, order: dict[str, Any]) -> dict[str, Any]:
    """Tells size, ETag and noted digest of an object; `found` is false when there is none."""
    try:
        result = store.get(order["key"], options={"head": True})
    except FileNotFoundError as error:
        if "NoSuchBucket" in str(error):
            raise
        return {"found": False}
    etag = (result.meta["e_tag"] or "").strip('"')
    noted = {name.lower(): value for name, value in result.attributes.items()}.get(_DIGEST_METADATA, "")
    return {"found": True, "size_bytes": result.meta["size"], "etag": etag, "noted_sha256": noted}


def put(store: S3Store, order: dict[str, Any], file: int) -> dict[str, Any]:
    """Uploads a file, in parts when it is larger than one. It does not appear when it changes meanwhile."""
    attributes = {"Content-Type": order["media_type"], _DIGEST_METADATA: order["sha256"]}
    part_bytes = order["part_bytes"]
    if order["size_bytes"] <= part_bytes:
        store.put(order["key"], b"".join(_parts(file, order)), attributes=attributes, use_multipart=False)
        return {}
    store.put(
        order["key"],
        _parts(file, order),
        attributes=attributes,
        use_multipart=True,
        chunk_size=part_bytes,
        max_concurrency=_PARTS_AT_ONCE,
    )
    return {}


def digest(store: S3Store, order: dict[str, Any]) -> dict[str, Any]:
    """Reads an object back, a range at a time, and tells the SHA-256 of its bytes."""
    whole, size = hashlib.sha256(), order["size_bytes"]
    for start in range(0, size, _READ_BACK_BYTES):
        whole.update(store.get_range(order["key"], start=start, end=min(start + _READ_BACK_BYTES, size)))
    return {"sha256": whole.hexdigest()}


def _parts(file: int, order: dict[str, Any]) -> Iterator[bytes]:
    """Gives a file's parts, the last one only when all of them together are what was announced."""
    whole, offset = hashlib.sha256(), 0
    while part := os.pread(file, order["part_bytes"], offset):
        offset += len(part)
        whole.update(part)
        if offset >= order["size_bytes"] and whole.hexdigest() != order["sha256"]:
            raise SourceChanged
        yield part
    if offset != order["size_bytes"]:
        raise SourceChanged


def explain(error: Exception, secrets: tuple[str, ...]) -> dict[str, Any]:
    """Says in a line what a store answered, and whether only an operator can mend it."""
    text, _, debug = str(error).partition("\n\nDebug source")
    code = re.search(r"<Code>([^<]*)</Code>", text)
    told = re.search(r"<Message>([^<]*)</Message>", text)
    status = re.search(r"\b([45]\d\d) [A-Z][A-Za-z ]+", text)
    cause = re.search(r'(?:message|error): "([^"]+)"', debug)
    if code:
        message = f"{code[1]}: {told[1]}" if told and told[1] != code[1] else code[1]
    elif status:
        message = f"the store answered {status[0].strip()}"
    else:
        message = _without_figures(text) + (f": {cause[1]}" if cause else "")
    for secret in secrets:
        message = message.replace(secret, "***") if secret else message
    refused = status is not None and status[1][0] == "4" and status[1] not in ("408", "409", "429")
    permanent = refused or isinstance(error, FileNotFoundError | PermissionError) or _names_permanent(error)
    return {"message": message[:500], "permanent": permanent}


def _without_figures(text: str) -> str:
    """Drops times and counts that only the library's authors understand."""
    told = re.sub(r"\s+", " ", text).removeprefix("Generic S3 error: ")
    return re.sub(r" in [\d.]+(?:[µnm]?s|min)\b|, after \d+ retries|, max_retries: \d+|, retry_timeout: \w+", "", told)


def _names_permanent(error: Exception) -> bool:
    names = ("PermissionDenied", "Unauthenticated", "InvalidPath", "NotSupported", "UnknownConfigurationKey")
    return type(error).__name__.removesuffix("Error") in names


def open_store(account: dict[str, str]) -> S3Store:
    """Makes a client for a bucket.

    Args:
        account: bucket, region and, where given, endpoint, access_key_id, secret_access_key, session_token.
    """
    from obstore.store import S3Store

    config: Any = account
    client_options: Any = {**_CLIENT_OPTIONS, "allow_http": account.get("endpoint", "").startswith("http://")}
    retry_config: Any = _RETRIES
    return S3Store(config=config, client_options=client_options, retry_config=retry_config)


def carry_out(order: dict[str, Any], file: int | None, stores: dict[str, S3Store]) -> dict[str, Any]:
    """Does one order. Whatever the library raises becomes an answer."""
    account = order["account"]
    secrets = tuple(account.get(name, "") for name in ("access_key_id", "secret_access_key", "session_token"))
    try:
        name = json.dumps(account, sort_keys=True)
        if name not in stores:
            stores.clear()
            stores[name] = open_store(account)
        store = stores[name]
        if order["verb"] == "put" and file is not None:
            return put(store, order, file)
        return head(store, order) if order["verb"] == "head" else digest(store, order)
    except SourceChanged:
        return {"source_changed": True}
    except ImportError:
        missing = "obstore is not installed: try pip install 'gpu-balancer[s3]'"
        return {"failure": {"message": missing, "permanent": True}}
    except Exception as error:  # noqa: BLE001 - a stranger's errors, told to the agent
        return {"failure": explain(error, secrets)}


def _receive(channel: socket.socket, orders: queue.SimpleQueue[tuple[dict[str, Any], int | None]]) -> None:
    """Takes orders; ends the process when there can be no more, also in the middle of an upload."""
    received, files = b"", []
    try:
        while True:
            data, descriptors, _, _ = socket.recv_fds(channel, _LONGEST_ORDER_BYTES, 1)
            if not data:
                break
            files += descriptors
            received += data
            while b"\n" in received:
                line, received = received.split(b"\n", 1)
                orders.put((json.loads(line), files.pop(0) if files else None))
    except ConnectionResetError:
        pass  # the end, too: of an agent that was killed before it read the last answer
    finally:
        os._exit(0)


def main() -> int:
    """Serves until the socket closes."""
    channel = socket.socket(fileno=sys.stdin.fileno())
    orders: queue.SimpleQueue[tuple[dict[str, Any], int | None]] = queue.SimpleQueue()
    threading.Thread(target=_receive, args=(channel, orders), daemon=True).start()
    os.nice(5)
    stores: dict[str, S3Store] = {}
    while True:
        order, file = orders.get()
        answer = carry_out(order, file, stores)
        if file is not None:
            os.close(file)
        with suppress(ConnectionError):  # the other thread hears of it too
            channel.sendall(json.dumps(answer).encode() + b"\n")


if __name__ == "__main__":
    sys.exit(main())
