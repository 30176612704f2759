"""Files that the command line writes for a person: theirs, never over another one, and whole or not there at all."""

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from p2psync.values.errors import UserError

_WHY = {
    errno.ENOENT: "there is no such file",
    errno.EISDIR: "it is a folder",
    errno.ENOTDIR: "something above it is a file",
    errno.EACCES: "you may not do that there",
    errno.EROFS: "the disk is write-protected",
    errno.ENOSPC: "the disk is full",
}


def reason(error: OSError) -> str:
    """What the system refused, in the middle of a sentence."""
    return _WHY.get(error.errno or 0) or (error.strerror or str(error)).lower()


@contextlib.contextmanager
def new_file(path: Path, mode: int, *, taken: type[UserError], unwritable: type[UserError]) -> Iterator[BinaryIO]:
    """A new file at ``path`` with at most this ``mode``, durable at the end, removed again when the block fails.

    Raises:
        UserError: ``taken`` (path) when something stands there, ``unwritable`` (path, why) when it cannot be written.
    """
    try:
        file = os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode), "wb")
    except FileExistsError:
        raise taken(path=path) from None
    except OSError as e:
        raise unwritable(path=path, why=f"there is no folder “{path.parent}”" if e.errno == errno.ENOENT else reason(e)) from None
    try:
        with file:
            yield file
            file.flush()
            os.fsync(file.fileno())
    except BaseException as e:
        path.unlink(missing_ok=True)
        if isinstance(e, OSError):
            raise unwritable(path=path, why=reason(e)) from None
        raise
