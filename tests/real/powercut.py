"""A power cut, nearly: a machine's disk is an ext4 in a file, of which is left what had reached that file when the process was killed.

Nothing is written back by itself (``commit=600``), so that only what the daemon made durable is there: the file is copied while the file
system is mounted and unsynced, and the copy is mounted in its place, its journal replayed. Needs root and a free loop device.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import ClassVar

READY = sys.platform == "linux" and all(map(shutil.which, ("losetup", "mkfs.ext4", "mount", "umount")))
"""Whether it can be tried here."""

_MEGABYTES = 192


_ATTEMPTS = 20
"""The system may go on writing for a moment after the kill, and what is copied meanwhile is no moment of the disk: it is copied again."""


class LoopDisk:
    """The disk mounted at ``point``."""

    _OPTIONS: ClassVar = ["-o", "commit=600,nobarrier,noatime"]

    def __init__(self, point: Path) -> None:
        self._point, self._image = point, point.with_suffix(".img")
        point.mkdir(parents=True)
        with self._image.open("wb") as file:
            file.truncate(_MEGABYTES << 20)
        _call("mkfs.ext4", "-q", "-E", "lazy_itable_init=0,lazy_journal_init=0,nodiscard", str(self._image))
        self._device = _call("losetup", "--find", "--show", str(self._image)).strip()
        _call("mount", *self._OPTIONS, self._device, str(point))

    def settle(self) -> None:
        """All that was written so far is on the disk: what is cut is what comes now."""
        _call("sync", "--file-system", str(self._point))

    def cut(self) -> None:
        """Have the disk as it is at this moment without what is only in memory; nobody uses it any more."""
        left = self._image.with_name(f"{self._image.stem}-left.img")
        for _ in range(_ATTEMPTS):
            before = self._written()
            _call("cp", "--sparse=always", "--reflink=auto", str(self._image), str(left))
            if self._written() == before:
                break
        else:
            raise OSError(f"{self._image} was written to during each of {_ATTEMPTS} copies: no power cut")
        _call("umount", str(self._point))
        _call("losetup", "--detach", self._device)
        left.replace(self._image)
        _call("losetup", self._device, str(self._image))  # the same number: to the daemon it is the same disk
        _call("mount", *self._OPTIONS, self._device, str(self._point))

    def _written(self) -> str:
        """Writes that the device has done, and sectors written."""
        fields = Path("/sys/block", Path(self._device).name, "stat").read_text().split()
        return f"{fields[4]} {fields[6]}"

    def close(self) -> None:
        """Unmount it, and let the device go."""
        subprocess.run(["umount", "--lazy", str(self._point)], check=False, capture_output=True)
        subprocess.run(["losetup", "--detach", self._device], check=False, capture_output=True)


def _call(*words: str) -> str:
    done = subprocess.run(words, check=False, capture_output=True, text=True)
    if done.returncode:
        raise OSError(f"{' '.join(words)}: {done.stderr}")
    return done.stdout
