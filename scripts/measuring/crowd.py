"""The works of many machines: W9 a file for everybody at once, W11 many mandates that rest."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

from measuring.ours import P2psync
from measuring.peer import until
from measuring.session import MIB, Figures, OpenSession, Session, Size, arrived, confirm_same, fill

SETTLING_S = 5


def everybody(open_session: OpenSession, size: Size) -> Figures:
    """W9: a new file reaches one other member, then as big a one all the others at once; whoever has a part can pass it on."""
    with open_session(2) as session:
        alone, _ = _spread(session, size.inserted_mib)
    with open_session(size.crowd) as session:
        together, copies = _spread(session, size.inserted_mib)
        confirm_same(session)
    return {
        "W9 a file to one other, s": [alone],
        "W9 the file to all others at once, s": [together],
        "W9 ratio": [together / alone],
        "W9 sent by the first member, copies": [copies],
    }


def resting(open_session: OpenSession, size: Size) -> Figures:
    """W11: an idle minute of some members with one mandate, and with many."""
    figures: Figures = {}
    with open_session(size.members) as session:
        peer = session.peer
        assert isinstance(peer, P2psync)
        figures |= _rest(session, "one mandate", size)
        start = time.monotonic()
        with ThreadPoolExecutor(4) as together:
            list(together.map(peer.add_mandate, [f"Client {number}" for number in range(2, size.mandates + 1)]))
        until(lambda: all(peer.connected(desk) for desk in peer.desks), 300, "all members of all mandates meet", 0.2)
        figures["W11 making them with all members, s"] = [time.monotonic() - start]
        return figures | _rest(session, "many mandates", size)


def _spread(session: Session, mib: int) -> tuple[float, float]:
    """Seconds until a new file stands everywhere, and how many times its size the first member sent."""
    prepared = session.scratch / "everybody.bin"
    fill(prepared, mib)
    sent = -session.peer.desks[0].wire_bytes()[0]
    start = time.monotonic()
    prepared.rename(session.here / prepared.name)
    took = max(arrived(folder / prepared.name, mib * MIB) for folder in session.folders[1:]) - start
    session.peer.settle()
    sent += session.peer.desks[0].wire_bytes()[0]
    return took, sent / (mib * MIB)


def _rest(session: Session, label: str, size: Size) -> Figures:
    session.peer.settle()
    time.sleep(SETTLING_S)
    with session.costs() as costs:
        time.sleep(size.idle_s)
    minutes = size.idle_s / 60
    return {
        f"W11 idle, {label}: CPU s per member, minute": [cpu / minutes for cpu in costs.cpu],
        f"W11 idle, {label}: wire KiB, one member, minute": [costs.wire / 1024 / minutes],
        f"W11 idle, {label}: RSS MiB per member": costs.rss,
    }
