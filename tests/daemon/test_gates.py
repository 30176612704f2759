"""One machine that is announced under several gates: the latest announcement counts, and no gate stands in the way of another."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_interface
from types import SimpleNamespace
from typing import Any

import pytest
import trio

from p2psync.daemon import dialer
from p2psync.edge.discovery import Seen
from p2psync.edge.interfaces import Interface
from p2psync.engine.beacon import ENTROPY, Guest, announcement
from p2psync.engine.hello import Gate, HandshakeError
from p2psync.values.keys import GroupKeys, GuestKeys, Secret, gate_key
from p2psync.values.names import InviteId, MandateId

NOW_MS = 1_800_000_000_000
MANDATE = MandateId(bytes(range(32)))
SECRET = Secret(bytes(range(1, 33)))
INVITE = InviteId(bytes(16))
GROUP = GroupKeys.of(SECRET, MANDATE)


def announced(name: str, *, member: bool, guest: bool) -> Seen:
    guests = [Guest(INVITE, GuestKeys.of(gate_key(SECRET, MANDATE, INVITE)).announcement)] if guest else []
    txt = announcement([GROUP.announcement] if member else [], guests, port=22088, now_ms=NOW_MS, entropy=bytes(ENTROPY))
    return Seen(name, ("192.0.2.7",), 22088, txt)


class Discovery:
    """Tells of these announcements, each by itself, and then of nothing."""

    def __init__(self, *seen: Seen) -> None:
        self._seen: Iterator[Seen] = iter(seen)

    async def seen(self) -> tuple[Seen, ...]:
        for one in self._seen:
            return (one,)
        await trio.sleep_forever()
        raise AssertionError


def office() -> Any:
    mandate = SimpleNamespace(
        id=MANDATE,
        gate=lambda: Gate.for_members(MANDATE, 0, GROUP),
        group_keys=lambda: GROUP,
        sightings=SimpleNamespace(wanted=list),
        books=SimpleNamespace(secret=SimpleNamespace(group=((0, SECRET),))),
    )
    return SimpleNamespace(
        shared_mandates=lambda: [mandate],
        config=SimpleNamespace(peers=()),
        home=SimpleNamespace(keys=None),
        interfaces=lambda: [Interface("eth0", 2, (ip_interface("192.0.2.1/24"),))],
        joinings={},
        links={},
        nonce=bytes,
        now_ms=lambda: NOW_MS,
        stopping=False,
        wake_dialer=trio.Event(),
    )


@pytest.fixture
def knocked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The gates at which was knocked, in order; nobody answers at any of them."""
    found: list[str] = []

    async def connect(stream: object, keys: object, gate: Gate, *, nonce: object) -> None:
        found.append(gate.kind)
        raise HandshakeError(why="it did not answer")

    monkeypatch.setattr(dialer, "connect", connect)
    return found


async def dial_for(seconds: float, *seen: Seen) -> None:
    async def open_stream(host: str, port: int) -> Any:
        return None

    there: Any = Discovery(*seen)
    one = dialer.Dialer(office(), there, open_stream)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(one.listen)
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(one.dial)
        await trio.sleep(seconds)
        nursery.cancel_scope.cancel()


async def test_what_was_announced_for_an_address_before_is_forgotten(autojump_clock: object, knocked: list[str]) -> None:
    await dial_for(20, announced("as-guest", member=False, guest=True), announced("as-member", member=True, guest=False))
    assert set(knocked) == {"member"}


async def test_a_gate_where_nobody_answers_does_not_keep_from_another(autojump_clock: object, knocked: list[str]) -> None:
    await dial_for(4, announced("both", member=True, guest=True))
    assert set(knocked) == {"guest", "member"}
