"""Asks how things stand while a program works: status must answer quickly whatever goes on."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator

from measuring.session import Figures, Session

EVERY_S = 0.05


@contextlib.contextmanager
def asked(session: Session, work: str) -> Iterator[Figures]:
    """Figures that are filled at the end: how long each answer took while the block ran, both desks asked in turn."""
    figures: Figures = {}
    if "ask" not in session.peer.works:
        yield figures
        return
    over = threading.Event()
    times: list[float] = []
    silent: list[float] = []

    def keep_asking() -> None:
        while not over.is_set():
            for desk in session.peer.desks:
                start = time.monotonic()
                (times if session.peer.ask(desk) else silent).append(time.monotonic() - start)
                over.wait(EVERY_S)

    asking = threading.Thread(target=keep_asking, daemon=True)
    asking.start()
    try:
        yield figures
    finally:
        over.set()
        asking.join()
        figures[f"{work} status answers, s"] = times
        figures[f"{work} status unanswered"] = [len(silent)]
