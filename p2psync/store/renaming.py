"""Two renames that POSIX lacks, in one place for every platform: never over something, and two names swapped in one step.

Linux: ``renameat2(2)``; macOS: ``renameatx_np(2)``. Disks that know neither (FAT in part, many network disks) get the nearest thing.
Windows has the first (``MoveFileEx`` without MOVEFILE_REPLACE_EXISTING) and not the second.
"""

import ctypes
import errno
import os
import secrets
import sys
from contextlib import suppress

from p2psync.values.names import PREFIX

_libc = ctypes.CDLL(None, use_errno=True)
_rename = getattr(_libc, "renameatx_np" if sys.platform == "darwin" else "renameat2", None)
if _rename is not None:
    _rename.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint)
_NEW, _SWAP = (4, 2) if sys.platform == "darwin" else (1, 2)

_UNKNOWN = {errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP}


def rename_new(folder: int, old: str, target: int, new: str) -> None:
    """Renames ``old`` in the open ``folder`` to ``new`` in the open folder ``target``, where nothing may stand yet.

    Raises:
        FileExistsError: something does; nothing was changed. OSError: as for ``rename``.
    """
    if _call(folder, old, target, new, _NEW):
        return
    try:
        os.link(old, new, src_dir_fd=folder, dst_dir_fd=target, follow_symlinks=False)
    except OSError as error:
        if error.errno not in _UNKNOWN | {errno.EPERM, errno.EMLINK}:
            raise
        # The disk knows no second names either, or it is a folder.
        if _stands(target, new):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), new) from None
        # RACE: what somebody puts under the new name right now is lost. Only on disks with neither of the two.
        os.rename(old, new, src_dir_fd=folder, dst_dir_fd=target)
        return
    os.unlink(old, dir_fd=folder)


def swap(folder: int, one: str, target: int, other: str) -> bool:
    """Swaps what stands under two names, in one step; False, and nothing done, where the disk cannot.

    Raises:
        OSError: as for ``rename``; ``FileNotFoundError`` when one of the two is not there.
    """
    return _call(folder, one, target, other, _SWAP)


def swaps(folder: int) -> bool:
    """Whether names in the open ``folder`` can be swapped; tried with two files of ours."""
    names = [f"{PREFIX}-{secrets.token_hex(16)}.gone" for _ in range(2)]
    try:
        for name in names:
            os.close(os.open(name, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600, dir_fd=folder))
        return swap(folder, names[0], folder, names[1])
    except OSError:
        return False
    finally:
        for name in names:
            with suppress(OSError):
                os.unlink(name, dir_fd=folder)


def _stands(folder: int, name: str) -> bool:
    try:
        os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def _call(folder: int, old: str, target: int, new: str, how: int) -> bool:
    if _rename is None:
        return False
    if _rename(folder, os.fsencode(old), target, os.fsencode(new), how) == 0:
        return True
    code = ctypes.get_errno()
    if code in _UNKNOWN:
        return False
    raise OSError(code, os.strerror(code), old, None, new)
