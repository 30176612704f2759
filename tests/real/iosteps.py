"""The I/O steps of a real daemon, counted from outside: killed (SIGKILL) before, after or in the middle of any one, or made to fail.

No fault point is compiled in anywhere: a library that is built when a test needs it (iosteps.c) stands between the daemon and the C
library, SQLite's calls included, and shares a page of memory with the harness. A step is one call that changes something below the
folders given; ``tests/real/test_kill_points`` compares what is counted with what strace sees.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import shutil
import subprocess
import tempfile
import zlib
from enum import IntEnum
from functools import cache
from pathlib import Path
from typing import NamedTuple

SOURCE = Path(__file__).with_name("iosteps.c")
COMPILER = next((found for name in ("cc", "gcc", "clang") if (found := shutil.which(name))), None)
MISSING = (
    None if COMPILER and os.name == "posix" and hasattr(os, "memfd_create") else "needs Linux and a C compiler (cc), for the LD_PRELOAD"
)
"""Why it cannot be done here, or None."""


class How(IntEnum):
    """What happens at the chosen step."""

    BEFORE = 0
    AFTER = 1
    HALF = 2
    """Half of what was to be written is; a call that writes nothing is done."""
    FAIL = 3


KINDS = {
    "write": ("write", "pwrite64", "copy_file_range"),
    "open": ("open",),
    "truncate": ("ftruncate",),
    "fsync": ("fsync", "fdatasync", "syncfs"),
    "rename": ("rename", "renameat", "renameat2"),
    "link": ("link", "linkat", "symlink"),
    "unlink": ("unlink", "unlinkat", "rmdir"),
    "mkdir": ("mkdir", "mkdirat"),
    "attributes": ("chmod", "fchmod", "fchmodat", "fchown", "utimensat"),
}
"""What calls do, in the words of the tables; an open is a step where it makes the file or empties it."""
_KIND = {call: kind for kind, calls in KINDS.items() for call in calls}


class Step(NamedTuple):
    """One call: its number from 1, its name, and the path it was about."""

    number: int
    call: str
    path: str

    @property
    def kind(self) -> str:
        """One of ``KINDS``."""
        return _KIND[self.call]

    def shown(self, machine: str) -> str:
        """As in a table: the call and where below the folder of the ``machine``, with what is different every time left out."""
        where = self.path.partition(f"/{machine}/")[2] or self.path
        return f"{self.call:9} {'/'.join(_anonymous(part) for part in where.split('/'))}"


def _anonymous(part: str) -> str:
    if len(part) == 64:
        return "<id>"
    for beginning, end in ((".p2psync-", ".part"), (".p2psync-", ".gone"), (".p2psync-", ".new"), (".new-", "")):
        if part.startswith(beginning) and part.endswith(end):
            return f"{beginning}…{end}"
    return part


class _Page(ctypes.Structure):
    _fields_ = [(name, ctypes.c_uint) for name in ("armed", "count", "at", "how", "code")] + [("only", ctypes.c_char * (4096 - 20))]


class Steps:
    """The steps of the daemon that is started with ``environment``; ``name`` tells its files below ``place`` from others'."""

    def __init__(self, place: Path, name: str, *below: Path) -> None:
        self._file, self._log = place / f"{name}.page", place / f"{name}.steps"
        self._file.write_bytes(bytes(ctypes.sizeof(_Page)))
        with self._file.open("r+b") as file:
            self._shared = mmap.mmap(file.fileno(), 0)
        self._page = _Page.from_buffer(self._shared)
        self.environment = {
            "LD_PRELOAD": str(library()),
            "IOSTEPS_BELOW": ":".join(map(str, below)),
            "IOSTEPS_PAGE": str(self._file),
            "IOSTEPS_LOG": str(self._log),
        }

    def begin(self, at: int = 0, how: How = How.BEFORE) -> None:
        """Count from now on, from 1; at the step ``at`` (0: none) the process is killed."""
        self._page.armed = 0
        self._log.write_bytes(b"")
        self._page.count, self._page.at, self._page.how, self._page.only = 0, at, how, b""
        self._page.armed = 1

    def fail(self, below: Path, code: int) -> None:
        """From now on, whatever reads or changes something at or below a path fails with ``code`` (errno)."""
        self._page.armed = 0
        self._page.count, self._page.at, self._page.how, self._page.code, self._page.only = 0, 0, How.FAIL, code, os.fsencode(below)
        self._page.armed = 1

    def end(self) -> list[Step]:
        """Count no more; the steps since ``begin``."""
        self._page.armed = 0
        lines = self._log.read_text(errors="surrogateescape").splitlines() if self._log.exists() else []
        parsed = [line.split(" ", 2) for line in lines]
        return sorted(Step(int(number), call, path) for number, call, path in parsed)

    @property
    def count(self) -> int:
        """Steps since ``begin``."""
        return int(self._page.count)


@cache
def library() -> Path:
    """The library, built once for each state of its source."""
    if MISSING or COMPILER is None:
        raise RuntimeError(MISSING)
    built = Path(tempfile.gettempdir()) / f"p2psync-iosteps-{os.geteuid()}-{zlib.crc32(SOURCE.read_bytes()):08x}.so"
    if not built.exists():
        new = built.with_suffix(f".{os.getpid()}")
        subprocess.run([COMPILER, "-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o", str(new), str(SOURCE), "-ldl"], check=True)
        new.rename(built)
    return built
