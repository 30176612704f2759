"""Content on its way: in small portions that the other side can remember, in turns, and never lost when a disk does not take it."""

from __future__ import annotations

import errno
import random
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from p2psync.daemon import outbox, status
from p2psync.daemon.fetcher import Fetcher
from p2psync.engine import load, pages
from p2psync.engine.load import Load
from p2psync.store import ahead, apply, arrivals, preparing, seeing, sources
from p2psync.store.arrivals import Arrivals
from p2psync.store.early import Early
from p2psync.store.faults import DiskFull
from p2psync.store.jobs import Want
from p2psync.values.content import Chunk, Content, Listing
from p2psync.values.digest import content_digest
from p2psync.values.names import DeviceId, RelPath
from tests.lan.fake_lan import Lan, Machine, until

BOOKS = "Dupont SA"


async def _linked(anna: Machine, bruno: Machine) -> None:
    await anna.create(BOOKS)
    await bruno.subscribe(await anna.invite(BOOKS, "Bruno"))
    await until(lambda: bruno.office.mandates and bruno.talks(anna))


async def test_a_machine_is_never_asked_for_more_than_it_remembers(
    lan: Lan, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(load, "ITEMS", 12)
    monkeypatch.setattr(pages, "LISTS", 4)
    monkeypatch.setattr(outbox, "JOBS", 12)
    anna = lan.machine("Anna")
    bruno = lan.machine("Bruno", peers=(anna,))
    async with anna.on(), bruno.on():
        await _linked(anna, bruno)
        data = random.Random(1)
        files = {f"{number:02d}.pdf": data.randbytes(150_000).hex() for number in range(30)} | {f"{n}.txt": f"{n}" for n in range(60)}
        for name, text in files.items():
            anna.write(f"Belege/{name}", text)
        link = bruno.sees(anna)
        await anna.ask("/v1/attach", mandate=BOOKS, paths=[str(anna.place / "Belege")])
        await until(lambda: all(bruno.reads(f"{BOOKS}/Belege/{name}") == text for name, text in files.items()))
        assert bruno.sees(anna) is link
        assert link is not None and (link.turns.load.items, link.turns.load.size) == (0, 0)


async def test_a_full_disk_is_shown_until_there_is_room_and_not_asked_for_the_same_over_and_over(
    lan: Lan, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    full, tries = True, 0
    before = Arrivals.chunks

    def chunks(self: Arrivals, batch: Any) -> None:
        nonlocal tries
        tries += 1
        if full:
            raise DiskFull(path="journal.csv")
        before(self, batch)

    monkeypatch.setattr(Arrivals, "chunks", chunks)
    monkeypatch.setattr(ahead, "MOST_AHEAD", -1)
    anna = lan.machine("Anna")
    bruno = lan.machine("Bruno", peers=(anna,))
    async with anna.on(), bruno.on():
        await _linked(anna, bruno)
        await anna.ask("/v1/attach", mandate=BOOKS, paths=[str(anna.write("journal.csv", "one"))])
        await trio.sleep(100)
        assert "disk-full" in {problem["code"] for problem in status.problems(bruno.office)}
        assert 3 <= tries <= 8
        assert bruno.talks(anna)
        full = False
        await until(lambda: bruno.reads(f"{BOOKS}/journal.csv") == "one")
        assert "disk-full" not in {problem["code"] for problem in status.problems(bruno.office)}


# ---- the fetcher by itself


PATH = RelPath("journal.csv")
DATA = [b"a" * 20_000, b"b" * 20_000, b"c" * 20_000]
CHUNKS = tuple(Chunk(content_digest(data), index * 20_000, 20_000) for index, data in enumerate(DATA))
CONTENT = Content(content_digest(b"".join(DATA)), 60_000, content_digest(b"listing"))


@dataclass(eq=False)
class Peer:
    """Somebody who can be asked."""

    peer: Any
    ask_chunks: Callable[[Any], None]
    device = DeviceId(bytes(32))
    holds_all = True


class Fetching:
    """A fetcher with one peer, what it asked of it, and what it wrote."""

    def __init__(self) -> None:
        self.asked: list[Any] = []
        self.ready: list[RelPath] = []
        self.written: list[bytes] = []
        deposit: Any = SimpleNamespace(early=Early(), large=lambda paths: False)
        deposit.chunks = lambda batch: self.written.extend(data for _, data in batch)
        self.fetcher = Fetcher(DeviceId(bytes(32)), deposit, self.ready.extend, lambda error: None, lambda: None)
        load = Load()
        turns = SimpleNamespace(load=load, wait=lambda c: None, owing=lambda: None, answered=lambda: None, held_up=nullcontext)
        self.peer: Any = Peer(SimpleNamespace(turns=turns), self.asked.extend)
        self.fetcher.join(self.peer)  # type: ignore[arg-type]

    def want(self, *chunks: Chunk) -> None:
        self.fetcher.update({PATH}, {PATH: Want(CONTENT, Listing(b""), chunks)} if chunks else {})

    async def arrive(self, index: int) -> None:
        await self.fetcher.chunk(self.peer, CHUNKS[index].digest, DATA[index])


async def test_a_chunk_that_comes_after_nobody_wants_it_any_more_does_no_harm(nursery: trio.Nursery) -> None:
    fetching = Fetching()
    nursery.start_soon(fetching.fetcher.write_down)
    fetching.want(*CHUNKS)
    fetching.want(*CHUNKS[:2])
    fetching.want()
    for index in range(3):
        await fetching.arrive(index)
    await trio.testing.wait_all_tasks_blocked()
    assert fetching.written == [] and fetching.ready == []
    assert fetching.fetcher.missing == (0, 0)
    nursery.cancel_scope.cancel()


async def test_what_a_path_goes_on_wanting_is_not_asked_for_again(nursery: trio.Nursery) -> None:
    fetching = Fetching()
    nursery.start_soon(fetching.fetcher.write_down)
    fetching.want(*CHUNKS)
    await fetching.arrive(0)
    fetching.want(*CHUNKS)  # decided before the first one was written
    fetching.want(*CHUNKS[1:])
    assert fetching.asked == [chunk.digest for chunk in CHUNKS]
    assert fetching.fetcher.missing == (1, 40_000)
    await fetching.arrive(1)
    await fetching.arrive(2)
    await until(lambda: fetching.ready == [PATH])
    assert fetching.fetcher.missing == (1, 0)
    nursery.cancel_scope.cancel()


async def test_a_large_file_that_the_disk_did_not_take_is_fetched_anew(
    lan: Lan, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (sources, seeing, apply, preparing):
        monkeypatch.setattr(module, "VAULTED", 1000)
    failing, tries = True, 0

    def sync(fd: int) -> None:
        nonlocal tries
        tries += 1
        if failing:
            raise OSError(errno.EIO, "the disk did not take it")

    monkeypatch.setattr(arrivals, "sync_file", sync)
    anna = lan.machine("Anna")
    bruno = lan.machine("Bruno", peers=(anna,))
    async with anna.on(), bruno.on():
        await _linked(anna, bruno)
        text = random.Random(1).randbytes(300_000).hex()
        await anna.ask("/v1/attach", mandate=BOOKS, paths=[str(anna.write("journal.csv", text))])
        await until(lambda: "disk-failing" in {problem["code"] for problem in status.problems(bruno.office)})
        await trio.sleep(100)
        assert bruno.reads(f"{BOOKS}/journal.csv") is None
        assert 2 <= tries <= 8
        sent = anna.mandate().bytes_out
        failing = False
        await until(lambda: bruno.reads(f"{BOOKS}/journal.csv") == text)
        assert anna.mandate().bytes_out - sent >= len(text)  # nothing of what the disk may not have was counted
        assert not status.problems(bruno.office)


async def test_a_small_save_does_not_wait_for_a_large_file_that_is_being_read(
    lan: Lan, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (sources, seeing, apply, preparing):
        monkeypatch.setattr(module, "VAULTED", 1000)
    anna = lan.machine("Anna")
    bruno = lan.machine("Bruno", peers=(anna,))
    async with anna.on(), bruno.on():
        await _linked(anna, bruno)
        small, large = (anna.write(f"Belege/{name}", "one") for name in ("small.txt", "large.db"))
        await anna.ask("/v1/attach", mandate=BOOKS, paths=[str(anna.place / "Belege")])
        await until(lambda: bruno.reads(f"{BOOKS}/Belege/large.db") == "one")
        text = random.Random(1).randbytes(300_000).hex()
        reading = trio.Event()
        mandate = anna.mandate()
        read_next = mandate.look.seeing.apart.read_next  # type: ignore[union-attr]
        with monkeypatch.context() as patched:
            patched.setattr(mandate.look.seeing.apart, "read_next", lambda: reading.set())
            anna.write(large, text)
            await until(reading.is_set)
            assert not mandate.idle and mandate.is_reading(RelPath("Belege"))
            anna.write(small, "two")
            await until(lambda: bruno.reads(f"{BOOKS}/Belege/small.txt") == "two")
            assert bruno.reads(f"{BOOKS}/Belege/large.db") == "one"
        assert mandate.look.seeing.apart is not None and mandate.look.seeing.apart.read_next == read_next
        mandate.rescan()
        await until(lambda: bruno.reads(f"{BOOKS}/Belege/large.db") == text)
        assert (await anna.wait())["agreed"]


async def test_every_link_goes_on_once_what_came_over_all_of_them_is_written(
    nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("p2psync.daemon.inbox.BUFFER", 30_000)
    fetching = Fetching()
    fetching.want(*CHUNKS)
    async with trio.open_nursery() as links:
        for index in range(3):  # as many links read beside each other, and two wait
            links.start_soon(fetching.arrive, index)
        await trio.testing.wait_all_tasks_blocked()
        assert len(links.child_tasks) == 2
        nursery.start_soon(fetching.fetcher.write_down)
        with trio.fail_after(5):
            await until(lambda: not links.child_tasks)
    assert len(fetching.written) == 3
    nursery.cancel_scope.cancel()
