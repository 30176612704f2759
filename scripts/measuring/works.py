"""The works that are timed (W1, W2, W3, W6, W7) and the limits of disk and network that they are to be read against.

Each work takes a running, paired `Session` and returns figures: name -> samples. No work passes or fails on a time; what fails is a
byte that differs.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from measuring.peers import GaveUp, Peer, until
from measuring.process import Use, forget_peak, use_of

MIB = 1 << 20
Figures = dict[str, list[float]]


@dataclass(frozen=True)
class Size:
    """How much of each work."""

    big_mib: int
    small_files: int
    saves: int
    idle_s: float
    starts: int


FULL = Size(big_mib=1024, small_files=10_000, saves=10, idle_s=60, starts=3)
QUICK = Size(big_mib=256, small_files=2_000, saves=10, idle_s=15, starts=2)


@dataclass(frozen=True)
class Session:
    """A pair that is running: the program, the shared folder on either side, a scratch folder on the same disk."""

    peer: Peer
    here: Path
    there: Path
    scratch: Path


def big_file(session: Session, size: Size) -> Figures:
    """W1: one new file appears in the folder at once (renamed into it); until it has its full size on the other side."""
    name = "big.bin"
    prepared = session.scratch / name
    _fill(prepared, size.big_mib)
    with Costs(session.peer) as costs:
        start = time.monotonic()
        prepared.rename(session.here / name)
        until(lambda: _size(session.there / name) == size.big_mib * MIB, 600, "the big file arrives", 0.005)
        took = time.monotonic() - start
        session.peer.settle()
    return {f"W1 one file of {size.big_mib} MiB, s": [took], **costs.figures("W1")}


def many_files(session: Session, size: Size) -> Figures:
    """W2: a folder of small files appears at once; until the other side has them all."""
    prepared = session.scratch / "many"
    for number in range(size.small_files):
        path = prepared / f"{number // 100:03}" / f"{number:05}.dat"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(random.randbytes(4096))
    os.sync()
    with Costs(session.peer) as costs:
        start = time.monotonic()
        prepared.rename(session.here / "many")
        until(lambda: _count(session.there / "many") == size.small_files, 600, "the small files arrive", 0.05)
        took = time.monotonic() - start
        session.peer.settle()
    return {f"W2 {size.small_files} files of 4 KiB, s": [took], **costs.figures("W2")}


def saves(session: Session, size: Size) -> Figures:
    """W3: a file of 20 KiB is saved again and again; from close() until its new bytes are read on the other side."""
    figures: Figures = {}
    for label, save in (("W3a saved in place, s", _save_in_place), ("W3b saved by rename, s", _save_by_rename)):
        path = session.here / f"{save.__name__.strip('_')}.xlsx"
        watched = Watched(session.there / path.name)
        times = []
        for number in range(size.saves + 1):
            data = number.to_bytes(4, "big") + random.randbytes(20 * 1024 - 4)
            save(path, data)
            took = watched.seconds_until(data)
            if number:  # the first save makes the file
                times.append(took)
            time.sleep(random.uniform(0.6, 1.2))
        figures[label] = times
        figures[f"{label[:3]} torn or absent when read"] = [watched.torn + watched.absent]
        session.peer.settle()
    return figures


def idle(session: Session, size: Size) -> Figures:
    """W6: nothing happens; what that costs in a minute."""
    session.peer.settle()
    time.sleep(3)
    with Costs(session.peer) as costs:
        time.sleep(size.idle_s)
    per_minute = [cpu * 60 / size.idle_s for cpu in costs.cpu]
    return {"W6 idle minute, CPU s per side": per_minute, "W6 RSS, MiB per side": [use.rss_mib for use in costs.after]}


def starts(session: Session, size: Size) -> Figures:
    """W7: both are started at the same moment, on new ports; until each says that the other is online."""
    times = []
    for _ in range(size.starts):
        session.peer.stop()
        start = time.monotonic()
        for desk in session.peer.desks:
            session.peer.start(desk)
        until(lambda: all(session.peer.connected(desk) for desk in session.peer.desks), 60, "both are connected again", 0.01)
        times.append(time.monotonic() - start)
    return {"W7 start until connected by mDNS, s": times}


WORKS: dict[str, Callable[[Session, Size], Figures]] = {"W7": starts, "W3": saves, "W2": many_files, "W6": idle, "W1": big_file}


def limits(session: Session, size: Size) -> Figures:
    """What this disk and this network do at best: no program can be faster than these."""
    path = session.scratch / "limit.bin"
    block = random.randbytes(MIB)
    start = time.monotonic()
    with path.open("wb") as file:
        for _ in range(size.big_mib):
            file.write(block)
        file.flush()
        os.fsync(file.fileno())
    wrote = time.monotonic() - start
    path.unlink()
    start = time.monotonic()
    for number in range(500):
        _save_durably(session.scratch / f"limit-{number % 10}", random.randbytes(4096))
    return {
        f"limit: write and fsync {size.big_mib} MiB, s": [wrote],
        "limit: write, fsync and rename 4 KiB, ms": [(time.monotonic() - start) * 2],
        "limit: plain TCP between the desks, MB/s": [_tcp_speed(session.peer)],
    }


def differences(session: Session) -> list[str]:
    """The names below the folder whose bytes are not the same on both sides; empty when all is well."""
    here, there = ({path.relative_to(side): path for path in _files(side)} for side in (session.here, session.there))
    return sorted(str(name) for name in here.keys() | there.keys() if not _same(here.get(name), there.get(name)))


class Costs:
    """`with Costs(peer) as costs:` what both processes use inside the block, the sender's first."""

    def __init__(self, peer: Peer) -> None:
        self.pids = peer.pids()
        self.before: list[Use] = []
        self.after: list[Use] = []

    def __enter__(self) -> Costs:
        for pid in self.pids:
            forget_peak(pid)
        self.before = [use_of(pid) for pid in self.pids]
        return self

    def __exit__(self, *_: object) -> None:
        self.after = [use_of(pid) for pid in self.pids]

    @property
    def cpu(self) -> list[float]:
        """CPU seconds of each side."""
        return [after.cpu_s - before.cpu_s for before, after in zip(self.before, self.after, strict=True)]

    def figures(self, work: str) -> Figures:
        """As rows of the table."""
        (cpu_a, cpu_b), (peak_a, peak_b) = self.cpu, [use.peak_mib for use in self.after]
        return {
            f"{work} CPU of the sender, s": [cpu_a],
            f"{work} CPU of the receiver, s": [cpu_b],
            f"{work} peak RSS of the sender, MiB": [peak_a],
            f"{work} peak RSS of the receiver, MiB": [peak_b],
        }


class Watched:
    """A file on the other side, read as a program would read it, with what it must never be counted."""

    def __init__(self, path: Path) -> None:
        self.path, self.last, self.torn, self.absent = path, b"", 0, 0

    def seconds_until(self, data: bytes, limit_s: float = 60) -> float:
        """Read until `data` stands there; whatever else stands there but the version before is counted as torn."""
        start = time.monotonic()
        while (now := self._read()) != data:
            if time.monotonic() - start > limit_s:
                raise GaveUp(f"a save of {self.path.name} did not arrive within {limit_s:g} s")
            if self.last:
                self.absent += now is None
                self.torn += now is not None and now != self.last
            time.sleep(0.0005)
        self.last = data
        return time.monotonic() - start

    def _read(self) -> bytes | None:
        try:
            return self.path.read_bytes()
        except FileNotFoundError:
            return None


def _save_in_place(path: Path, data: bytes) -> None:
    path.write_bytes(data)


def _save_by_rename(path: Path, data: bytes) -> None:
    beside = path.with_name(f"{path.stem}-{random.getrandbits(32):08x}.tmp")
    beside.write_bytes(data)
    beside.rename(path)


def _save_durably(path: Path, data: bytes) -> None:
    beside = path.with_suffix(".new")
    with beside.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    beside.rename(path)


def _fill(path: Path, mib: int) -> None:
    """Random bytes throughout, so that nothing can be left out as a repetition."""
    with path.open("wb") as file:
        for _ in range(mib):
            file.write(random.randbytes(MIB))
        file.flush()
        os.fsync(file.fileno())


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return -1


def _count(folder: Path) -> int:
    try:
        return sum(1 for _ in _files(folder))
    except FileNotFoundError:
        return 0


def _files(folder: Path) -> Iterator[Path]:
    """The files below `folder`, without those that are still in the making (`.p2psync…`)."""
    for where, _, names in os.walk(folder):
        yield from (Path(where, name) for name in names if not name.startswith(".p2psync"))


def _same(one: Path | None, other: Path | None) -> bool:
    if one is None or other is None:
        return False
    with one.open("rb") as first, other.open("rb") as second:
        while True:
            data = first.read(MIB)
            if data != second.read(MIB):
                return False
            if not data:
                return True


RECEIVER = """
import socket, sys
with socket.create_server((sys.argv[1], 9)) as listener:
    print("listening", flush=True)
    connection, _ = listener.accept()
    while connection.recv(1 << 20):
        pass
    connection.send(b"!")
"""
SENDER = """
import socket, sys, time
connection = socket.create_connection((sys.argv[1], 9))
block = bytes(1 << 20)
start = time.monotonic()
for _ in range(256):
    connection.sendall(block)
connection.shutdown(socket.SHUT_WR)
connection.recv(1)
print(256 * (1 << 20) / 1e6 / (time.monotonic() - start))
"""


def _tcp_speed(peer: Peer) -> float:
    sender, receiver = peer.desks
    listen = subprocess.Popen(receiver.command(sys.executable, "-c", RECEIVER, receiver.address), stdout=subprocess.PIPE, text=True)
    try:
        assert listen.stdout is not None
        listen.stdout.readline()
        sent = subprocess.run(sender.command(sys.executable, "-c", SENDER, receiver.address), capture_output=True, text=True, check=True)
        return float(sent.stdout)
    finally:
        listen.kill()
        listen.communicate()
