"""Has the power gone since this machine last worked on a mandate? Then a stamp proves nothing any more.

A program may have written over a file in place, and its bytes may have reached the disk before the file's new time did (``fdatasync(2)``,
the mount option ``lazytime``): such a save looks untouched for ever. So after a power cut every file counts as one that is to be read
again. Of a daemon that only was killed nothing is doubted: the system lived on and has written what it had.
"""

import logging
from pathlib import Path

from p2psync.store.books import Books

_BOOT = Path("/proc/sys/kernel/random/boot_id")
_KEY = "boot"
"""In the ledger: during which life of the system it is in use; empty once that has ended in order."""

log = logging.getLogger(__name__)


def this_boot() -> bytes:
    """What tells this life of the system from every other; empty where the platform has nothing of the kind, so that nothing is noticed."""
    try:
        return _BOOT.read_bytes().strip()
    except OSError:
        return b""


def begin(books: Books) -> bool:
    """The mandate is going to be worked on; whether the power has gone in the middle of it, so that all files are read again.

    Raises:
        DiskFull, DiskFailing.
    """
    boot, before = this_boot(), books.ledger.get(_KEY)
    if not boot or boot == before:
        return False
    with books.writing() as db:
        if before:
            db.execute("UPDATE paths SET fresh = 1 WHERE kind = 'file'")
            log.warning("this machine went off while it was at work: every file of %s is read again", books.mandate.hex()[:8])
        db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (_KEY, boot))
    return bool(before)


def end(books: Books) -> None:
    """Nobody works on the mandate any more, until ``begin``. Raises: as ``begin``."""
    if books.ledger.get(_KEY):
        books.ledger.put(_KEY, b"")
