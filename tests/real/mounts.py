"""Real disks for a test: small ones, read-only ones, ones that vanish. Needs root; everything is taken away again at the end."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

READY = sys.platform == "linux" and os.geteuid() == 0 and all(map(shutil.which, ("mount", "umount", "mkfs.ext4")))
"""Whether file systems can be mounted here."""


class Mounts:
    """What was mounted, and is to go again."""

    def __init__(self) -> None:
        self._points: list[Path] = []

    def small(self, point: Path, size: str) -> Path:
        """An empty file system of this size ("1m")."""
        point.mkdir(parents=True, exist_ok=True)
        return self._mount(point, "-t", "tmpfs", "-o", f"size={size},mode=700", "tmpfs")

    def bound(self, point: Path, disk: Path) -> Path:
        """The folder ``disk``, as the file system that it would be if it were a disk of its own."""
        point.mkdir(parents=True, exist_ok=True)
        disk.mkdir(parents=True, exist_ok=True)
        return self._mount(point, "--bind", str(disk))

    def image(self, point: Path, image: Path, megabytes: int = 48) -> Path:
        """An ext4 in the file ``image``, made when there is none."""
        point.mkdir(parents=True, exist_ok=True)
        if not image.exists():
            with image.open("wb") as file:
                file.truncate(megabytes << 20)
            _call("mkfs.ext4", "-q", "-E", "lazy_itable_init=1,nodiscard", str(image))
        return self._mount(point, "-o", "loop,errors=remount-ro", str(image))

    def abort(self, point: Path) -> None:
        """What ext4 does by itself when its disk fails: no write goes through from now on, whatever is open."""
        _call("mount", "-o", "remount,abort", str(point))

    def again(self, point: Path, options: str) -> None:
        """Remount with other options: ``ro``, ``rw``, ``size=2m``."""
        _call("mount", "-o", f"remount,{options}", str(point))

    def vanish(self, point: Path) -> None:
        """As a disk that is pulled out: gone from the tree at once, whatever is open in it."""
        _call("umount", "--lazy", str(point))
        self._points.remove(point)

    def take_off(self, point: Path) -> None:
        """Unmount what nobody uses any more."""
        _call("umount", str(point))
        self._points.remove(point)

    def close(self) -> None:
        """Unmount everything."""
        for point in reversed(self._points):
            subprocess.run(["umount", "--lazy", str(point)], check=False, capture_output=True)
        self._points.clear()

    def _mount(self, point: Path, *words: str) -> Path:
        _call("mount", *words, str(point))
        self._points.append(point)
        return point


def _call(*words: str) -> None:
    done = subprocess.run(words, check=False, capture_output=True, text=True)
    assert done.returncode == 0, f"{' '.join(words)}: {done.stderr}"
