"""A small version that is new here, written beside its place in one go: whole, dressed and closed.

What ``staging`` does for a version that comes piece by piece takes a dozen calls of the system; of ten thousand small files each call
counts. The promises are the same: nothing stands at the user's name, the bytes are those that the digest vouches for, and the name is
one that is swept away when it is left behind.
"""

import os
import secrets
from contextlib import suppress

from p2psync.engine.heads import Head
from p2psync.store import carryout
from p2psync.store.staging import Sealed, staged_name
from p2psync.values.content import File

OWN_END = f"-{secrets.token_hex(4)}.part"
"""How the names end under which this process writes: what it then renames, it need not be told of (edge/observer)."""
_MAKE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


def write_beside(folder: int, around: os.stat_result, parts: tuple[str, ...], head: Head, data: bytes) -> Sealed | None:
    """Writes the version ``head``, of the bytes ``data``, that will be the new file at ``parts``, into the open ``folder`` that it is to be
    in, whose status is ``around``. The digest of ``data`` is the content's, as the vault has just seen.

    None when it is of another size: the author announced what does not belong together.

    Raises:
        OSError: nothing is left behind.
    """
    state = head.state
    assert isinstance(state, File)
    content = state.content
    if len(data) != content.size:
        return None
    name = staged_name(content.digest, parts[-1], OWN_END)
    fd = _made(folder, name, carryout.new_mode(around))
    try:
        _write(fd, data)
        now = os.fstat(fd)
        sealed = Sealed(parts[:-1], name, now.st_ino, content, state.executable, head.mtime_ns, dressed=True)
        carryout.dress(fd, sealed, now, around)
    except BaseException:
        with suppress(OSError):
            os.unlink(name, dir_fd=folder)
        raise
    finally:
        os.close(fd)
    return sealed


def _made(folder: int, name: str, mode: int) -> int:
    try:
        return os.open(name, _MAKE, mode, dir_fd=folder)
    except FileExistsError:  # left by an earlier run, or somebody's who wants it to be overwritten
        os.unlink(name, dir_fd=folder)
        return os.open(name, _MAKE, mode, dir_fd=folder)


def _write(fd: int, data: bytes) -> None:
    left = memoryview(data)
    while left:
        left = left[os.write(fd, left) :]
