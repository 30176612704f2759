"""Members that want the same at once take it from each other; one that lies, is slow or falls silent costs the others moments."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import pytest
import trio
from trio.testing import MockClock

from p2psync.daemon.conversation import Conversation
from p2psync.engine import load
from p2psync.engine import messages as m
from p2psync.values.digest import Digest
from tests.lan.fake_lan import Lan, Machine, until

BOOKS = "Dupont SA"
TEXT = random.Random(7).randbytes(1_200_000).hex()
RATE = 1e6
ONCE_S = len(TEXT) / RATE
OTHERS = ("Bruno", "Clara", "Dora")


@pytest.fixture(autouse=True)
def little_under_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """The file is small, so that the test is fast: so is what one link has under way."""
    monkeypatch.setattr(load, "AT_LEAST", 64 * 1024)
    monkeypatch.setattr(load, "AT_FIRST", 64 * 1024)
    monkeypatch.setattr(load, "AHEAD_S", 0.1)


@asynccontextmanager
async def office(lan: Lan) -> AsyncIterator[tuple[Machine, list[Machine]]]:
    """Anna and three more, all linked to each other; Anna has attached a large file, and sends 1 MB a second."""
    anna = lan.machine("Anna")
    others = [lan.machine(person) for person in OTHERS]
    for number, one in enumerate(others):
        one.peers = (anna, *others[:number])
    async with AsyncExitStack() as on:
        for one in (anna, *others):
            await on.enter_async_context(one.on())
        await anna.create(BOOKS, anna.write("one.csv", "one"))
        for one in others:
            await one.subscribe(await anna.invite(BOOKS, one.person))
        everybody = [anna, *others]
        await until(lambda: all(one.reads(f"{BOOKS}/one.csv") == "one" for one in others))
        await until(lambda: all(one.talks(other) for one in everybody for other in everybody if one is not other))
        lan.uplinks[anna.address] = RATE
        yield anna, others


async def seconds_until_all_have_it(anna: Machine, others: list[Machine]) -> float:
    since = trio.current_time()
    await anna.ask("/v1/attach", mandate=BOOKS, paths=[str(anna.write("large.csv", TEXT))])
    await until(lambda: all(one.reads(f"{BOOKS}/large.csv") == TEXT for one in others))
    return trio.current_time() - since


@pytest.mark.parametrize("large", [False, True], ids=["by way of the vault", "by way of staging files"])
async def test_it_leaves_the_one_who_had_it_about_once(
    lan: Lan, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch, large: bool
) -> None:
    if large:
        for module in ("sources", "apply", "preparing", "seeing", "work"):
            monkeypatch.setattr(f"p2psync.store.{module}.VAULTED", 1000)
    async with office(lan) as (anna, others):
        took = await seconds_until_all_have_it(anna, others)
        assert anna.mandate().bytes_out < 1.6 * len(TEXT), "and not three times"
        assert took < 1.8 * ONCE_S
        assert all(one.mandate().fetcher.bytes_in < 1.05 * len(TEXT) for one in others), "hardly anything came twice"


@pytest.mark.parametrize("how", ["delivers slowly", "sends other bytes"])
async def test_one_who_says_it_has_something_and_does_not_give_it_delays_nobody(
    lan: Lan, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    async with office(lan) as (anna, others):
        liar = others[0]
        serve = Conversation._serve_chunks
        lied: set[str] = set()

        async def serve_badly(self: Conversation, want: m.WantChunks) -> None:
            if self.mandate is not liar.mandate():
                await serve(self, want)
                return
            self.tell_have(everything(anna))
            lied.add(self.device.hex())
            for digest in want.ids:
                await trio.sleep(2)
                data = self.mandate.sources.chunk(digest) or self.mandate.arrivals.chunk(digest) or b""
                await self.peer.link.send_bulk(m.Chunk(self.handle, digest, b"other" if how == "sends other bytes" else data))

        monkeypatch.setattr(Conversation, "_serve_chunks", serve_badly)
        took = await seconds_until_all_have_it(anna, others[1:])
        assert len(lied) == len(others) - 1, "everybody was told that it has everything"
        assert took < 1.5 * ONCE_S + 4, "instead of a minute"
        if how == "sends other bytes":
            assert not any(one.talks(liar) for one in others[1:])


def everything(anna: Machine) -> list[Digest]:
    """The chunks of all that Anna has."""
    rows = anna.mandate().books.ledger.read().execute("SELECT chunk FROM chunks").fetchall()
    return [Digest(row[0]) for row in rows]
