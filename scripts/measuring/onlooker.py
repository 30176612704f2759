"""Reads one file over and over, as a program that has been told to look would, and prints what stands there whenever that changes.

Run as a program of its own (onlooker.py PATH), so that its clock is not held up by the bench. A line: the instant (time.monotonic(), s)
and the digest of the whole content, or "absent". It opens the file only when its time, size or inode has changed or is still fresh:
a file that somebody has open must not be replaced, and an onlooker that always holds it would be measuring itself.
"""

from __future__ import annotations

import hashlib
import sys
import time
from pathlib import Path

FRESH_S = 0.05
"""Within one tick of the clock a file can change twice and keep its time; so it is read again until its time is that old."""
PAUSE_S = 0.0005


def main(path: Path) -> None:
    """Look until standard output is closed."""
    seen, said, until = (0, 0, 0, 0), "", 0.0
    while True:
        now = time.monotonic()
        stamp = _stamp(path)
        if stamp != seen:
            seen, until = stamp, now + FRESH_S
        if now < until and (what := _digest(path)) != said:
            said = what
            print(f"{time.monotonic():.6f} {what}", flush=True)
        time.sleep(PAUSE_S)


def _stamp(path: Path) -> tuple[int, int, int, int]:
    try:
        found = path.stat()
    except FileNotFoundError:
        return (-1, 0, 0, 0)
    return found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def _digest(path: Path) -> str:
    try:
        return hashlib.sha1(path.read_bytes()).hexdigest()
    except FileNotFoundError:
        return "absent"


if __name__ == "__main__":
    main(Path(sys.argv[1]))
