"""The works of many bytes: W1 a new file, W4 a change inside it, W5 an insertion, W8 a receiver that is killed half way."""

from __future__ import annotations

import os
import random
import time
from pathlib import Path

from measuring.asking import asked
from measuring.peer import until
from measuring.session import MIB, Figures, Session, Size, arrived, fill


def big_file(session: Session, size: Size) -> Figures:
    """W1: one new file appears in the folder at once (renamed into it); until it stands on the other side."""
    prepared = session.scratch / "big.bin"
    fill(prepared, size.big_mib)
    with asked(session, "W1") as answers, session.costs() as costs:
        start = time.monotonic()
        prepared.rename(session.here / prepared.name)
        session.peer.notice()
        took = arrived(session.there / prepared.name, size.big_mib * MIB) - start
        session.peer.settle()
    return {"W1 a new big file, s": [took], **costs.figures("W1"), **answers}


def changed_inside(session: Session, size: Size) -> Figures:
    """W4: 4 KiB are overwritten in place in the middle of a big file; until they stand on the other side."""
    path, there = _base(session, "big.bin", size.big_mib)
    data, offset = random.randbytes(4096), path.stat().st_size // 2 + 12_345
    os.sync()
    with session.costs() as costs:
        with path.open("r+b") as file:
            file.seek(offset)
            file.write(data)
        start = time.monotonic()
        session.peer.notice()
        until(lambda: _read(there, offset, len(data)) == data, 300, "the change arrives", 0.002)
        took = time.monotonic() - start
        session.peer.settle()
    return {"W4 4 KiB changed inside the big file, s": [took], **costs.figures("W4")}


def inserted(session: Session, size: Size) -> Figures:
    """W5: 1 KiB is inserted near the start of a file, which is saved by rename; until it stands on the other side."""
    path, there = _base(session, "inserted.bin", size.inserted_mib)
    longer = session.scratch / "longer.bin"
    with path.open("rb") as old, longer.open("wb") as new:
        new.write(old.read(4096) + random.randbytes(1024))
        while block := old.read(MIB):
            new.write(block)
        new.flush()
        os.fsync(new.fileno())
    with session.costs() as costs:
        start = time.monotonic()
        longer.rename(path)
        session.peer.notice()
        took = arrived(there, size.inserted_mib * MIB + 1024) - start
        session.peer.settle()
    return {"W5 1 KiB inserted, s": [took], **costs.figures("W5")}


def killed(session: Session, size: Size) -> Figures:
    """W8: the receiver is killed when half of a new big file has crossed, and started again at once; until the file stands there."""
    prepared = session.scratch / "killed.bin"
    fill(prepared, size.big_mib)
    whole, receiver = size.big_mib * MIB, session.peer.desks[1]
    before = receiver.wire_bytes()[1]
    prepared.rename(session.here / prepared.name)
    session.peer.notice()
    until(lambda: receiver.wire_bytes()[1] - before > whole // 2, 300, "half of the file crosses", 0.01)
    session.peer.kill(receiver)
    start = time.monotonic()
    session.peer.start(receiver)
    took = arrived(session.there / prepared.name, whole) - start
    session.peer.settle()
    resent = receiver.wire_bytes()[1] - before - whole
    return {"W8 from the kill until the file stands, s": [took], "W8 received beyond its size, MiB": [resent / MIB]}


def _base(session: Session, name: str, mib: int) -> tuple[Path, Path]:
    """The file `name` as it stands on both sides, brought there first when it does not."""
    here, there = session.here / name, session.there / name
    if not here.exists():
        prepared = session.scratch / name
        fill(prepared, mib)
        prepared.rename(here)
        session.peer.notice()
        arrived(there, mib * MIB)
        session.peer.settle()
        time.sleep(1.5)  # a program that trusts times must be able to tell the next save from this one
    return here, there


def _read(path: Path, offset: int, length: int) -> bytes:
    try:
        with path.open("rb") as file:
            return os.pread(file.fileno(), length, offset)
    except FileNotFoundError:
        return b""
