"""Ends a network connection of another process, so that whoever waits there finds it at an end.

`pidfd_getfd` (Linux 5.6) lends a descriptor of a process that one may trace; shutting it down shuts down the connection
itself. The process keeps its descriptor, so nothing of it can be mixed up with another file.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import socket

_PIDFD_GETFD = 438
"""Its number on every processor (asm-generic/unistd.h, and the x86 table)."""

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long


def cut_connection(pidfd: int, descriptor: int) -> bool:
    """Shuts a connection down in both directions.

    Args:
        pidfd: Of the process.
        descriptor: The process's own number of its socket.

    Returns:
        Whether it was done. False: we may not, the kernel is too old, it is no socket, or it has ended already.
    """
    lent = _libc.syscall(_PIDFD_GETFD, ctypes.c_int(pidfd), ctypes.c_int(descriptor), ctypes.c_uint(0))
    if lent < 0:
        return False
    try:
        with contextlib.suppress(OSError), socket.socket(fileno=os.dup(lent)) as connection:
            connection.shutdown(socket.SHUT_RDWR)
            return True
    finally:
        os.close(lent)
    return False
