"""Many new files at once: they cross while the rest is still being looked at, and what else is saved does not wait for their end."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from p2psync.daemon import agenda
from p2psync.store import slices
from p2psync.values.names import RelPath
from tests.lan.fake_lan import Lan, Machine, until

BOOKS = "Dupont SA"
FILES = 120


@pytest.fixture(autouse=True)
def small_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (slices, agenda):
        monkeypatch.setattr(module, "AT_ONCE", 10)


def _names(there: Machine) -> set[str]:
    return {path.name for path in (there.place / BOOKS).rglob("*.txt")}


async def test_they_cross_while_the_rest_is_looked_at(lan: Lan, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch) -> None:
    anna = lan.machine("Anna")
    bruno = lan.machine("Bruno", peers=(anna,))
    async with anna.on(), bruno.on():
        await anna.create(BOOKS, anna.write("Belege/zz.txt", "one").parent)
        await bruno.subscribe(await anna.invite(BOOKS, "Bruno"))
        await until(lambda: bruno.reads(f"{BOOKS}/Belege/zz.txt") == "one")
        here, halfway, gate = anna.mandate(), list[int](), trio.Event()
        wait_for_work = here._wait_for_work

        async def wait() -> None:
            await wait_for_work()
            if here.look.unseen and not halfway:
                await gate.wait()

        monkeypatch.setattr(here, "_wait_for_work", wait)
        for number in range(FILES):
            anna.write(f"Belege/new/{number:03}.txt", f"file {number}")
        anna.write("Belege/zz.txt", "two")
        await until(lambda: len(_names(bruno)) > 5)
        halfway.append(len(_names(bruno)))
        assert not here.idle and here.held(0) is None
        assert bruno.reads(f"{BOOKS}/Belege/zz.txt") == "two"
        gate.set()
        await until(lambda: all(bruno.reads(f"{BOOKS}/Belege/new/{number:03}.txt") == f"file {number}" for number in range(FILES)))
        assert halfway[0] < FILES // 2
        assert (await anna.wait())["agreed"] and not here.look.unseen and not here.is_reading(RelPath("Belege"))


@pytest.mark.parametrize(("few", "first"), [(8, "new ones"), (2, "all")])
def test_what_is_to_be_fetched_is_asked_for_before_what_has_come_is_put_in_its_place(few: int, first: str) -> None:
    whole, new = {RelPath(f"a/{n}") for n in range(8)}, {RelPath(f"b/{n}") for n in range(few)}
    waiting = agenda.Agenda()
    waiting.complete(whole)
    waiting.decide(new)
    chosen = waiting.take(0, ()).paths
    assert chosen == new if first == "new ones" else whole < chosen  # a few need no round of their own
