"""What an idle minute costs follows from how many machines there are, not from how many mandates they share."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import pytest
import trio
from trio.testing import MockClock

from p2psync.daemon.resting import GROWN, Resting
from p2psync.edge.link import Link
from p2psync.engine import messages as m
from p2psync.engine.encoding import Message
from p2psync.store import memory
from tests.lan.fake_lan import Lan, Machine, until

MIB = 1024 * 1024
PERSONS = ("Anna", "Bruno")
MINUTES = 8
"""Everything is surveyed each ten minutes, which is work."""


@asynccontextmanager
async def office(lan: Lan, mandates: int) -> AsyncIterator[list[Machine]]:
    """Two machines that are linked and share so many mandates, and to which nothing is left to do."""
    machines: list[Machine] = []
    async with AsyncExitStack() as on:
        for person in PERSONS:
            machines.append(lan.machine(person, peers=tuple(machines)))
            await on.enter_async_context(machines[-1].on())
        anna, *others = machines
        for name in map(str, range(mandates)):
            await anna.create(name, anna.write(f"{name}.csv", name))
            for one in others:
                await one.subscribe(await anna.invite(name, one.person))
        pairs = [(one, other) for one in machines for other in machines if one is not other]
        await until(lambda: all(len(one.office.mandates) == mandates for one in machines))
        await until(lambda: all(one.talks(other) for one, other in pairs))
        await trio.sleep(60)
        yield machines


class Steps(trio.abc.Instrument):
    """Counts how often any task goes on."""

    def __init__(self) -> None:
        self.count = 0

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self.count += 1


async def cost(lan: Lan, mandates: int, monkeypatch: pytest.MonkeyPatch) -> tuple[Counter[type[Message]], int]:
    """What is said, and how often anything wakes, in an idle while."""
    said: Counter[type[Message]] = Counter()
    send, steps = Link.send, Steps()

    async def count(self: Link, *messages: Message) -> None:
        said.update(map(type, messages))
        await send(self, *messages)

    async with office(lan, mandates):
        with monkeypatch.context() as patch:
            patch.setattr(Link, "send", count)
            trio.lowlevel.add_instrument(steps)
            await trio.sleep(60 * MINUTES)
            trio.lowlevel.remove_instrument(steps)
    return said, steps.count


async def test_many_mandates_say_no_more_than_one_and_wake_nobody(
    lan: Lan, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    said, steps = await cost(lan, 1, monkeypatch)
    lan.machines.clear()
    lan.place = lan.place / "again"
    said_of_many, steps_of_many = await cost(lan, 3, monkeypatch)
    assert set(said) == set(said_of_many) == {m.Ping, m.Pong}
    links = len(PERSONS) * (len(PERSONS) - 1) // 2
    assert said.total() <= links * MINUTES * 6 * 4, "each side asks and answers once in ten seconds, at most"
    assert said_of_many.total() <= said.total() + 4 * links
    assert steps_of_many <= 1.02 * steps


async def test_memory_is_given_back_when_it_has_grown_and_nothing_is_going_on(
    lan: Lan, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken, given = [100 * MIB], list[int]()

    def give_back() -> None:
        given.append(taken[0])
        taken[0] = 60 * MIB

    monkeypatch.setattr(memory, "resident", lambda: taken[0])
    monkeypatch.setattr(memory, "give_back", give_back)
    async with office(lan, 1) as (anna, _):
        resting = Resting(anna.office)
        await resting.look()
        assert not given  # it may only be pausing
        await resting.look()
        assert given == [100 * MIB]
        taken[0] += GROWN
        for _ in range(3):
            await resting.look()
        assert len(given) == 1
        taken[0] += 1
        anna.mandate().rescan()
        await resting.look()
        assert len(given) == 1
        await until(lambda: anna.mandate().idle)
        await resting.look()
        await resting.look()
        assert len(given) == 2
        anna.write("0.csv", "saved after that")
        await until(lambda: anna.mandate().idle)
