"""W3: a file is saved again and again; how long until its new bytes stand on the other side, and what stood there meanwhile."""

from __future__ import annotations

import hashlib
import queue
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from measuring import onlooker
from measuring.session import MIB, Figures, Session, Size, arrived, fill

SAVED_BYTES = 20 * 1024
PATIENCE_S = 30
"""A save that is not there after so long counts as lost."""


class Onlooker:
    """`with Onlooker(path) as onlooker:` somebody reads `path` all along; `torn` and `absent` count what must never be seen."""

    def __init__(self, path: Path) -> None:
        self.known: set[str] = set()
        self.torn = self.absent = 0
        self._seen: queue.Queue[tuple[float, str]] = queue.Queue()
        self._process = subprocess.Popen([sys.executable, onlooker.__file__, str(path)], stdout=subprocess.PIPE, text=True)
        self._reader = threading.Thread(target=self._read, daemon=True)

    def __enter__(self) -> Onlooker:
        self._reader.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._reader.join()
        self._process.communicate()
        while not self._seen.empty():
            self.take()

    def wait_for(self, data: bytes) -> float | None:
        """The instant (time.monotonic()) at which `data` stood there as a whole; None when it has not after a long wait."""
        wanted = hashlib.sha1(data).hexdigest()
        self.known.add(wanted)
        while (seen := self.take()) is not None:
            when, what = seen
            if what == wanted:
                return when
        return None

    def take(self) -> tuple[float, str] | None:
        """The next thing that was seen there, and when: a digest or "absent"; None when nothing new is seen for a long time."""
        try:
            when, what = self._seen.get(timeout=PATIENCE_S)
        except queue.Empty:
            return None
        if len(self.known) > 1:  # before the first version was there, absence is what is expected
            self.absent += what == "absent"
            self.torn += what != "absent" and what not in self.known
        return when, what

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            when, what = line.split()
            self._seen.put((float(when), what))


def saves(session: Session, size: Size) -> Figures:
    """W3a, W3b: a file of 20 KiB is saved in place, then by rename; from close() (or rename) until the new bytes can be read."""
    figures: Figures = {}
    for label, save in (("W3a saved in place", _save_in_place), ("W3b saved by rename", _save_by_rename)):
        figures |= _series(session, label, save, _enough(size), 0.4)
        session.peer.settle()
    return figures


def _enough(size: Size) -> Callable[[int], bool]:
    end = time.monotonic() + size.saving_s
    return lambda done: done < size.saves and (done < 3 or time.monotonic() < end)


def saves_beside_bulk(session: Session, size: Size) -> Figures:
    """W3c: as W3b, while a big file crosses the same link."""
    bulk = session.scratch / "bulk.bin"
    fill(bulk, size.big_mib)
    target = session.there / bulk.name
    bulk.rename(session.here / bulk.name)
    figures = _series(session, "W3c saved during a bulk transfer", _save_by_rename, lambda _: not target.exists(), 0.05)
    arrived(target, size.big_mib * MIB)
    session.peer.settle()
    return figures


def _series(session: Session, label: str, save: Callable[[Path, bytes], None], more: Callable[[int], bool], pause_s: float) -> Figures:
    """Save while `more(number of saves so far)`, `pause_s` to twice that apart; the first save only makes the file."""
    path = session.here / f"{label.partition(' ')[0]}.xlsx"
    times: list[float] = []
    lost = 0
    with Onlooker(session.there / path.name) as onlooker:
        _save(session, onlooker, path, _save_by_rename)
        while more(len(times)):
            time.sleep(random.uniform(pause_s, 2 * pause_s))
            took = _save(session, onlooker, path, save)
            if took is None:
                lost += 1
            else:
                times.append(took)
    short = label.partition(" ")[0]
    seen = {"torn when read": onlooker.torn, "absent when read": onlooker.absent, "saves lost": lost}
    return {f"{label}, s": times, **{f"{short} {what}": [float(count)] for what, count in seen.items()}}


def _save(session: Session, onlooker: Onlooker, path: Path, save: Callable[[Path, bytes], None]) -> float | None:
    data = random.randbytes(SAVED_BYTES)
    save(path, data)
    saved = time.monotonic()
    session.peer.notice()
    stood = onlooker.wait_for(data)
    return None if stood is None else max(0.0, stood - saved)


def _save_in_place(path: Path, data: bytes) -> None:
    path.write_bytes(data)


def _save_by_rename(path: Path, data: bytes) -> None:
    beside = path.with_name(f"{path.stem}-{random.getrandbits(32):08x}.tmp")
    beside.write_bytes(data)
    beside.rename(path)
