"""W10: so many attached files that nothing may be done for each of them at every start, or at every save."""

from __future__ import annotations

import os
import time

from measuring.peer import until
from measuring.quiet import make_many
from measuring.saving import saves
from measuring.session import Figures, OpenSession, Size

LIMIT_S = 1800


def many_attached(open_session: OpenSession, size: Size) -> Figures:
    """W10: both sides hold them; both are started again, until both are up to date; then what they hold in memory, and W3."""
    with open_session(2) as session:
        peer, prepared = session.peer, session.scratch / "attached"
        names = make_many(prepared, size.attached, 1024)
        os.sync()
        start = time.monotonic()
        prepared.rename(session.here / prepared.name)
        until(lambda: all((session.there / prepared.name / name).exists() for name in names[-1:]), LIMIT_S, "the last file arrives", 0.1)
        until(lambda: all(peer.up_to_date(desk) for desk in peer.desks), LIMIT_S, "both are up to date", 0.5)
        first = time.monotonic() - start
        peer.stop()
        os.sync()
        start = time.monotonic()
        for desk in peer.desks:
            peer.start(desk)
        until(lambda: all(peer.up_to_date(desk) for desk in peer.desks), 300, "both are up to date again", 0.02)
        ready = time.monotonic() - start
        with session.costs() as costs:
            figures = saves(session, size)
    return {
        "W10 they arrive for the first time, s": [first],
        "W10 start to ready, s": [ready],
        "W10 RSS MiB per side": costs.rss,
        **{f"W10 {name}": values for name, values in figures.items()},
    }
