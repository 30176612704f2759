"""Who is linked is not dialled any more, at none of its addresses; and where nobody answers, one try stands for all mandates."""

from __future__ import annotations

import os

import pytest
import trio
from trio.testing import MockClock

from p2psync.edge.discovery import Seen
from p2psync.engine.beacon import ENTROPY, announcement
from tests.lan.fake_lan import PORT, Lan, Machine, until

DEAD = "10.0.0.99"


def announced(machine: Machine, *addresses: str) -> Seen:
    """What a machine announces by mDNS."""
    keys = [mandate.group_keys().announcement for mandate in machine.office.shared_mandates()]
    txt = announcement(keys, [], port=PORT, now_ms=machine.office.now_ms(), entropy=os.urandom(ENTROPY))
    return Seen("4711", addresses, PORT, txt)


def tries_of(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Where a machine tries to connect from now on."""
    tried: list[str] = []
    before = machine.dialer._open_stream

    async def open_stream(host: str, port: int) -> trio.abc.Stream:
        tried.append(host)
        return await before(host, port)

    monkeypatch.setattr(machine.dialer, "_open_stream", open_stream)
    return tried


async def test_a_linked_machine_is_dialled_at_no_other_of_its_addresses(
    lan: Lan, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    anna = lan.machine("Anna")
    bruno = lan.machine("Bruno", peers=(anna,))
    async with anna.on(), bruno.on():
        for name in ("one", "two", "three"):
            await anna.create(name)
            await bruno.subscribe(await anna.invite(name, "Bruno"))
        await until(lambda: len(bruno.office.mandates) == 3 and bruno.talks(anna))
        tried = tries_of(bruno, monkeypatch)
        bruno.dialer._hear(announced(anna, anna.address, DEAD))
        bruno.office.wake_dialer.set()
        await trio.sleep(300)
        assert tried.count(anna.address) <= 1, "to find out who it is"
        assert tried.count(DEAD) <= 2, "only until that is known"


async def test_where_nobody_is_reached_one_try_stands_for_all_mandates(
    lan: Lan, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    anna = lan.machine("Anna")
    async with anna.on():
        for number in range(5):
            await anna.create(str(number))
        tried = tries_of(anna, monkeypatch)
        anna.dialer._hear(announced(anna, DEAD))
        anna.office.wake_dialer.set()
        await trio.sleep(600)
        assert 5 <= len(tried) <= 15, "twice as late each time, up to two minutes, and not once for each mandate"
