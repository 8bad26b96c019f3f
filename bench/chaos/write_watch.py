"""Who writes which output, told by the kernel for every write: fanotify, which only root may listen to.

Events that wait to be read are merged when file and process are the same, so within one batch an order may be lost; it
is never made up. A batch is what came in a tenth of a second.
"""

from __future__ import annotations

import ctypes
import os
import struct
import threading
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from bench.chaos.history import SeenWrite

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bench.chaos.history import History, SeenProcess
    from bench.chaos.sightings import Sighter

_CLOSE_ON_EXEC, _NON_BLOCKING, _UNLIMITED_QUEUE = 0x01, 0x02, 0x10
_ADD, _FILE_SYSTEM = 0x01, 0x100
_MODIFY = 0x02
_HERE = -100
_EVENT = struct.Struct("=IBBHQii")
"""Length, version, a reserved byte, length of this head, what happened, a descriptor of the file, the process."""
_BATCH_S = 0.1
_BUFFER_BYTES = 1 << 18


@contextmanager
def watching_writes(history: History, sighter: Sighter, folders: tuple[Path, ...]) -> Iterator[bool]:
    """Adds to a history whenever a program begins to write an output, or goes on after another has.

    Args:
        history: Gets them.
        sighter: Knows programs and outputs.
        folders: Where outputs are; the whole of their file systems is listened to.

    Yields:
        Whether anything is listened to: False when this user may not.
    """
    descriptor = _listen(folders)
    if descriptor is None:
        yield False
        return
    watch, ended = _Watch(history, sighter), threading.Event()

    def follow() -> None:
        while not ended.wait(_BATCH_S):
            watch.take(descriptor)

    thread = threading.Thread(target=follow, name="observe writes", daemon=True)
    thread.start()
    try:
        yield True
    finally:
        ended.set()
        thread.join()
        os.close(descriptor)


def _listen(folders: tuple[Path, ...]) -> int | None:
    library = ctypes.CDLL(None, use_errno=True)
    library.fanotify_mark.argtypes = [ctypes.c_int, ctypes.c_uint, ctypes.c_uint64, ctypes.c_int, ctypes.c_char_p]
    descriptor = int(library.fanotify_init(_CLOSE_ON_EXEC | _NON_BLOCKING | _UNLIMITED_QUEUE, os.O_RDONLY))
    if descriptor < 0:
        return None
    for folder in folders:
        if library.fanotify_mark(descriptor, _ADD | _FILE_SYSTEM, _MODIFY, _HERE, os.fsencode(folder)) < 0:
            os.close(descriptor)
            return None
    return descriptor


class _Watch:
    def __init__(self, history: History, sighter: Sighter) -> None:
        self._history, self._sighter = history, sighter
        self._programs: dict[int, SeenProcess] = {}
        self._latest: dict[str, int] = {}

    def take(self, descriptor: int) -> None:
        """Reads all events that wait."""
        while True:
            try:
                batch = os.read(descriptor, _BUFFER_BYTES)
            except BlockingIOError:
                return
            at, at_s = 0, time.monotonic()
            while at < len(batch):
                length, _, _, _, _, file, pid = _EVENT.unpack_from(batch, at)
                at += length
                if file >= 0:
                    path = ""
                    with suppress(OSError):
                        path = os.readlink(f"/proc/self/fd/{file}")  # noqa: PTH115 - thousands of them
                    os.close(file)
                    self._written(path, pid, at_s)

    def _written(self, path: str, pid: int, at_s: float) -> None:
        output = self._sighter.output_name(path)
        if not output or self._latest.get(output) == pid:
            return
        # One that has ended meanwhile is known from an earlier write, or nobody can tell whose it was.
        program = self._sighter.process(pid) or self._programs.get(pid)
        if program is None or not program.program:
            return
        self._programs[pid] = program
        self._latest[output] = pid
        self._history.writes.append(SeenWrite(at_s=at_s, output=output, pid=pid, attempt=program.attempt))
