"""One small file replaced as a whole: after a crash at any moment it holds the old bytes or the new ones, never a mixture.

After borg's ``SaveFile``. For files of our own home; the user's files go through ``carryout``.
"""

import os
import tempfile
from contextlib import suppress
from pathlib import Path

from p2psync.store.durable import sync_file, sync_folder
from p2psync.store.faults import writing
from p2psync.values.names import PREFIX


def save(path: Path, data: bytes, mode: int = 0o600) -> None:
    """Replaces the file at ``path`` by ``data``, durably; the file then has exactly this ``mode``.

    Raises:
        DiskFull, CannotWrite, DiskFailing: the file is as it was before.
    """
    with writing(path):
        fd, name = tempfile.mkstemp(prefix=f"{PREFIX}-", suffix=".new", dir=path.parent)
        try:
            with open(fd, "wb") as file:
                file.write(data)
                file.flush()
                os.fchmod(fd, mode)
                sync_file(fd)
            os.replace(name, path)
        except BaseException:
            with suppress(OSError):
                os.unlink(name)
            raise
        sync_parent(path)


def sync_parent(path: Path) -> None:
    """Returns when the name ``path``, or its absence, is on the disk itself. Raises: OSError."""
    fd = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        sync_folder(fd)
    finally:
        os.close(fd)
