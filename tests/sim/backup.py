"""Backups as operators make and restore them: names, contents, permissions and times, and no knowledge of anything else."""

from __future__ import annotations

import os
import shutil
from typing import TypeAlias

Backup: TypeAlias = "dict[str, tuple[int, int, bytes | None]]"
"""Paths below the root to their mode, time (ns) and content; None for a folder."""


def taken(root: str) -> Backup:
    """A backup of all below ``root``."""
    found: Backup = {}
    for folder, folders, names in os.walk(root):
        for name in (*folders, *names):
            path = f"{folder}/{name}"
            status = os.lstat(path)
            found[path[len(root) + 1 :]] = (status.st_mode & 0o7777, status.st_mtime_ns, None if name in folders else _read(path))
    return found


def put(backup: Backup, root: str, only: str) -> None:
    """Replaces all below the folder ``only`` of ``root`` by what the backup has there."""
    top = f"{root}/{only}" if only else root
    for name in os.listdir(top) if os.path.isdir(top) else ():
        path = f"{top}/{name}"
        shutil.rmtree(path) if os.path.isdir(path) else os.unlink(path)
    for name, (mode, mtime, data) in backup.items():
        if only and name != only and not name.startswith(only + "/"):
            continue
        path = f"{root}/{name}"
        if data is None:
            os.makedirs(path, exist_ok=True)
        else:
            with open(path, "wb") as file:
                file.write(data)
        os.chmod(path, mode)
        os.utime(path, ns=(mtime, mtime))


def _read(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()
