"""The modelled disk beneath a simulated machine, and how it comes between the product and the system. See ``device`` for the model.

``interposed`` replaces functions of ``os``, ``open``, ``sqlite3.connect``, leases and the two renames that ``store/renaming`` makes by
ctypes; what belongs to no disk goes straight through. One thread only.
"""

from __future__ import annotations

import builtins
import errno
import fcntl
import io
import os
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from p2psync.store import renaming
from tests.sim.backup import Backup
from tests.sim.databases import connecting
from tests.sim.device import WRITEBACK_S, Disk, Killed, Traits
from tests.sim.kernel import Kernel
from tests.sim.programs import Processes
from tests.sim.real import CALLS, real
from tests.sim.streams import opening

__all__ = ["CALLS", "WRITEBACK_S", "Backup", "Disk", "Killed", "Traits", "interposed"]


@contextmanager
def interposed(disks: Iterable[Disk]) -> Iterator[None]:
    """Within the block these disks are what the product, and everybody else, works on."""
    found = list(disks)
    for number, disk in enumerate(found):
        disk.device = 0x1001 + number
    kernel = Kernel(found)
    patches = _patches(kernel)
    saved = [(owner, name, getattr(owner, name)) for owner, name, _ in patches]
    for owner, name, value in patches:
        setattr(owner, name, value)
    try:
        yield
    finally:
        for owner, name, value in saved:
            setattr(owner, name, value)
        for disk in found:
            for path in list(disk.programs):
                disk.closed(Path(path))
        for fd, held in kernel.fds.items():
            if held.life != held.disk.life:
                with suppress(OSError):
                    real.close(fd)


def _patches(kernel: Kernel) -> list[tuple[Any, str, Any]]:
    processes = Processes(kernel)
    patches: list[tuple[Any, str, Any]] = [(os, name, getattr(kernel, name)) for name in CALLS if name not in ("replace", "remove")]
    patches += [(os, "replace", kernel.rename), (os, "remove", kernel.unlink)]
    patches += [(os, name, getattr(processes, name)) for name in ("listdir", "readlink", "stat")]
    opened = processes.opening(opening(kernel))
    patches += [(io, "open", opened), (builtins, "open", opened), (fcntl, "fcntl", processes.fcntl)]
    return [*patches, (sqlite3, "connect", connecting(kernel)), (renaming, "_call", _renaming(kernel, renaming._call))]


def _renaming(kernel: Kernel, call: Any) -> Any:
    """``renameat2``, as store/renaming asks for it."""

    def renamed(folder: int, old: str, target: int, new: str, how: int) -> bool:
        one, other = kernel.of(old, folder), kernel.of(new, target)
        if one is None or other is None:
            return bool(call(folder, old, target, new, how))
        disk, swaps = one.disk, how == renaming._SWAP
        if disk.traits.no_swap if swaps else disk.traits.no_noreplace:
            return False
        disk.step("swap" if swaps else "rename", f"{one.whole} -> {other.below()}")
        if swaps:
            done = kernel.swapped(one, other, lambda: bool(call(folder, one.name, target, other.name, how)))
        else:
            if one.status() is not None and other.status() is not None:
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), old, None, new)
            kernel.renamed(one, other)
            done = True
        disk.done()
        return done

    return renamed
