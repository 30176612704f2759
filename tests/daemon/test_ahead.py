"""Small new contents travel ahead of the record that announces them; what others have already, and what is large, is asked for."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import replace
from typing import Any

import pytest
from trio.testing import MockClock

from p2psync.daemon.conversation import Conversation
from p2psync.engine import messages as m
from p2psync.store import early
from p2psync.store.ahead import MOST_AHEAD, Ahead
from p2psync.store.arrivals import Arrivals
from p2psync.values.digest import Digest
from tests.lan.fake_lan import Lan, Machine, noting, until

BOOKS = "Dupont SA"


@contextmanager
def asking() -> Iterator[list[Any]]:
    """Every request for content that anybody makes."""
    with ExitStack() as noted:
        chunks = noted.enter_context(noting(Conversation, "ask_chunks"))
        lists = noted.enter_context(noting(Conversation, "ask_listing"))
        asked: list[Any] = []
        yield asked
        asked += [*chunks, *lists]


@asynccontextmanager
async def office(lan: Lan) -> AsyncIterator[tuple[Machine, Machine]]:
    """Anna and Bruno, who share a folder and agree about what is in it."""
    anna = lan.machine("Anna")
    bruno = lan.machine("Bruno", peers=(anna,))
    async with anna.on(), bruno.on():
        await anna.create(BOOKS)
        await bruno.subscribe(await anna.invite(BOOKS, "Bruno"))
        anna.write("Buch/journal.csv", "one")
        await anna.ask("/v1/attach", mandate=BOOKS, paths=[str(anna.place / "Buch")])
        await until(lambda: bruno.reads(f"{BOOKS}/Buch/journal.csv") == "one")
        assert (await bruno.wait())["agreed"]
        yield anna, bruno


async def _saved(anna: Machine, bruno: Machine, name: str, text: str) -> None:
    anna.write(f"Buch/{name}", text)
    await until(lambda: bruno.reads(f"{BOOKS}/Buch/{name}") == text)


@pytest.mark.parametrize("size", [2, 20_000, MOST_AHEAD])
async def test_nobody_has_to_ask_for_a_small_save(lan: Lan, autojump_clock: MockClock, size: int) -> None:
    async with office(lan) as (anna, bruno):
        with asking() as asked:
            await _saved(anna, bruno, "journal.csv", random.Random(size).randbytes(size // 2).hex())
            assert (await bruno.wait())["agreed"]
        assert not asked
        assert not bruno.mandate().arrivals.early


async def test_what_is_large_is_asked_for(lan: Lan, autojump_clock: MockClock) -> None:
    async with office(lan) as (anna, bruno):
        with asking() as asked:
            await _saved(anna, bruno, "journal.csv", random.Random(1).randbytes(MOST_AHEAD).hex())
        assert asked


async def test_what_the_others_have_already_is_not_sent(lan: Lan, autojump_clock: MockClock) -> None:
    async with office(lan) as (anna, bruno):
        text = random.Random(2).randbytes(100_000).hex()
        await _saved(anna, bruno, "report.csv", text)
        before = anna.mandate().bytes_out
        await _saved(anna, bruno, "copy.csv", text)
        assert anna.mandate().bytes_out == before
        await _saved(anna, bruno, "report.csv", text[:-1])
        assert 0 < anna.mandate().bytes_out - before < 140_000  # a chunk of it, not all


async def test_what_found_no_room_is_asked_for(lan: Lan, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(early.Early.__init__, "__defaults__", (100,))
    async with office(lan) as (anna, bruno):
        with asking() as asked:
            await _saved(anna, bruno, "journal.csv", random.Random(3).randbytes(5000).hex())
        assert asked


async def test_of_a_large_save_the_change_in_its_chunk_list_goes_ahead(lan: Lan, autojump_clock: MockClock) -> None:
    async with office(lan) as (anna, bruno):
        text = random.Random(4).randbytes(400_000).hex()
        await _saved(anna, bruno, "journal.csv", text)
        with noting(Conversation, "ask_listing") as lists, noting(Conversation, "ask_chunks") as chunks:
            await _saved(anna, bruno, "journal.csv", text[:400_000] + "changed" + text[400_000:])
            assert not lists
            assert len(chunks) == 1 and len(chunks[0][0]) <= 2
        assert not bruno.mandate().arrivals.early


async def test_the_whole_list_is_asked_for_by_whoever_lacks_the_one_before_or_does_not_know_the_message(
    lan: Lan, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with office(lan) as (anna, bruno):
        text = random.Random(4).randbytes(400_000).hex()
        await _saved(anna, bruno, "journal.csv", text)
        with monkeypatch.context() as patched, noting(Conversation, "ask_listing") as lists:
            patched.setattr(Arrivals, "changed_listing", lambda *_: None)
            await _saved(anna, bruno, "journal.csv", text[:400_000] + "changed" + text[400_000:])
            assert lists
        link = anna.sees(bruno)
        assert link is not None and link.features & m.LISTING_CHANGES
        link.features = 0
        with noting(Arrivals, "changed_listing") as told, noting(Conversation, "ask_listing") as lists:
            await _saved(anna, bruno, "journal.csv", text[:400_000] + "changed again" + text[400_000:])
            assert lists and not told


@pytest.mark.parametrize("lie", ["before", "after", "between", "known"])
async def test_a_change_that_is_not_right_changes_nothing(lan: Lan, autojump_clock: MockClock, lie: str) -> None:
    async with office(lan) as (anna, bruno):
        text = random.Random(4).randbytes(400_000).hex()
        await _saved(anna, bruno, "journal.csv", text)
        with noting(Conversation, "ask_listing") as lists:
            lies: dict[str, Any] = {"before": 2**32 - 1, "after": 0, "between": b"", "known": Digest(bytes(32))}
            take = Ahead.take

            def take_wrong(self: Ahead, more: Ahead) -> None:
                take(self, replace(more, changes={one: replace(change, **{lie: lies[lie]}) for one, change in more.changes.items()}))

            with pytest.MonkeyPatch.context() as patched:
                patched.setattr(Ahead, "take", take_wrong)
                await _saved(anna, bruno, "journal.csv", text[:400_000] + "changed" + text[400_000:])
            assert lists
        assert not bruno.mandate().arrivals.early
        assert bruno.talks(anna)
