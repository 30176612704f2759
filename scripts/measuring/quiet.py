"""The works of small things: W2 many files, W6 nothing at all, W7 a start."""

from __future__ import annotations

import os
import random
import subprocess
import time
from pathlib import Path

from measuring.asking import asked
from measuring.peer import until
from measuring.session import Figures, Session, Size


def many_files(session: Session, size: Size) -> Figures:
    """W2: a folder of small files appears at once; until the other side has them all."""
    prepared = session.scratch / "many"
    names = make_many(prepared, size.small_files, 4096)
    os.sync()
    awaited = [session.there / "many" / name for name in names]

    def all_there() -> bool:
        while awaited and awaited[-1].exists():
            awaited.pop()
        return not awaited

    with asked(session, "W2") as answers, session.costs() as costs:
        start = time.monotonic()
        prepared.rename(session.here / "many")
        session.peer.notice()
        until(all_there, 900, "the small files arrive", 0.005)
        took = time.monotonic() - start
        session.peer.settle()
    return {"W2 files of 4 KiB, s": [took], **costs.figures("W2"), **answers}


def make_many(folder: Path, count: int, size: int) -> list[Path]:
    """Make `count` files of `size` random bytes, a hundred to a folder; their names below `folder`."""
    names = [Path(f"{number // 100:04}", f"{number:06}.dat") for number in range(count)]
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(random.randbytes(size))
    return names


def idle(session: Session, size: Size) -> Figures:
    """W6: nothing happens; what that costs in a minute. All programs are idle at the same time, each on its own network."""
    session.peer.settle()
    time.sleep(3)
    with session.costs() as costs:
        time.sleep(size.idle_s)
    minutes = size.idle_s / 60
    return {
        "W6 idle minute, CPU s per side": [cpu / minutes for cpu in costs.cpu],
        "W6 idle, RSS MiB per side": costs.rss,
        "W6 idle minute, on the wire, KiB": [costs.wire / 1024 / minutes],
    }


def starts(session: Session, size: Size) -> Figures:
    """W7: all are started at the same moment, on new ports; until each says that the others are on the line."""
    times = []
    for _ in range(size.starts):
        session.peer.stop()
        start = time.monotonic()
        for desk in session.peer.desks:
            session.peer.start(desk)
        until(lambda: all(session.peer.connected(desk) for desk in session.peer.desks), 90, "all are connected again", 0.01)
        times.append(time.monotonic() - start)
    return {"W7 start until connected by local discovery, s": times}


def commands(session: Session, size: Size) -> Figures:
    """`p2psync status` as a person types it, the start of the interpreter included."""
    desk, times = session.peer.desks[0], []
    environment = os.environ | session.peer.environment(desk)
    for _ in range(10):
        start = time.monotonic()
        subprocess.run([session.peer.program, "status"], cwd=session.peer.place(desk), env=environment, check=False, capture_output=True)
        times.append(time.monotonic() - start)
    return {"status from a shell, s": times}
