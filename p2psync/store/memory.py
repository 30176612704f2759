"""The memory of this process: what a burst of work needed and nobody holds any more goes back to the system when there is rest.

The C library keeps what was freed, for each thread that ever asked for some; SQLite keeps the pages that it read, for each connection.
"""

import ctypes
import os
import sqlite3
from contextlib import suppress

_trim = None
"""glibc's (malloc_trim(3)); other C libraries give back by themselves, or have nothing of the kind."""
with suppress(OSError, TypeError):  # Windows knows no “all that is loaded”
    _trim = getattr(ctypes.CDLL(None), "malloc_trim", None)


def resident() -> int:
    """Bytes of memory that this process takes; 0 where that cannot be told."""
    with suppress(OSError, ValueError, IndexError), open("/proc/self/statm", "rb") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return 0


def give_back() -> None:
    """Give back to the system what was freed. It may take some milliseconds."""
    if _trim is not None:
        _trim(0)


def let_go(idle: list[sqlite3.Connection], writer: sqlite3.Connection | None = None) -> None:
    """Close the connections of a database that wait to be used, which other threads may take or put back meanwhile; and have ``writer``,
    which stays open and which nobody uses now, forget the pages that it keeps.
    """
    with suppress(IndexError):
        while True:
            idle.pop().close()
    if writer is not None:
        writer.execute("PRAGMA shrink_memory")
