"""The functions of the operating system as they are, for those who stand in for them."""

from __future__ import annotations

import fcntl
import io
import os
import sqlite3
from types import SimpleNamespace
from typing import Any

CALLS = (
    "open", "close", "read", "pread", "preadv", "write", "writev", "pwrite", "pwritev", "ftruncate", "truncate", "fsync", "fdatasync",
    "sendfile", "copy_file_range", "rename", "replace", "link", "symlink", "unlink", "remove", "mkdir", "rmdir", "fchmod", "chmod",
    "fchown", "chown", "utime", "stat", "lstat", "fstat", "listdir", "scandir", "readlink", "access", "statvfs", "fstatvfs",
)  # fmt: skip
real: Any = SimpleNamespace(**{name: getattr(os, name) for name in CALLS})
real.fcntl, real.flock, real.io_open, real.connect = fcntl.fcntl, fcntl.flock, io.open, sqlite3.connect
