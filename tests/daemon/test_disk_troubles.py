"""Disks in trouble, as the status tells them: what cannot be written down is a problem with its reason, and none once it works again."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from p2psync.daemon import status
from p2psync.edge.watcher import WatchLimit
from p2psync.store.books import Books
from p2psync.store.faults import DiskFailing, DiskFull
from p2psync.store.journal import Journal
from p2psync.store.vault import Vault
from tests.lan.fake_lan import Lan, Machine, until

BOOKS = "Dupont SA"


def said(machine: Machine) -> str:
    return " ".join(problem["message"] for problem in status.problems(machine.office))


async def test_records_that_cannot_be_written_down_are_a_problem(
    lan: Lan, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    anna = lan.machine("Anna")
    bruno = lan.machine("Bruno", peers=(anna,))
    async with anna.on(), bruno.on():
        await anna.create(BOOKS, anna.write("journal.csv", "one"))
        await bruno.subscribe(await anna.invite(BOOKS, "Bruno"))
        await until(lambda: bruno.reads(f"{BOOKS}/journal.csv") == "one")

        def full(books: Books, *_: object) -> None:
            assert books is bruno.mandate().books
            raise DiskFull(path="ledger.db")

        with monkeypatch.context() as patched:
            patched.setattr(Books, "accept", full)
            anna.write("journal.csv", "two")
            await until(lambda: "“ledger.db” is full" in said(bruno))
            assert not said(anna)
        await until(lambda: bruno.reads(f"{BOOKS}/journal.csv") == "two")
        assert not said(bruno)


async def test_a_failing_disk_of_the_home_is_no_fault_of_the_file_and_no_problem_once_it_is_well(
    lan: Lan, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    anna = lan.machine("Anna")
    async with anna.on():
        await anna.create(BOOKS, anna.write("journal.csv", "one"))
        await until(lambda: anna.mandate().idle)

        def failing(vault: Vault, *_: object) -> int:
            raise DiskFailing(path=vault.path, why="disk I/O error")

        with monkeypatch.context() as patched:
            patched.setattr(Vault, "keep", failing)
            anna.write("journal.csv", "two")
            await until(lambda: "vault.db" in said(anna) and "disk I/O error" in said(anna))
            assert not dict(anna.mandate().attention.items())
            await trio.sleep(20)
        await until(lambda: not said(anna))
        assert trio.current_time() < 100  # it need not be steady for a minute first
        await until(lambda: anna.mandate().agrees_here)


async def test_what_the_watcher_does_not_hear_is_found_within_a_minute(lan: Lan, autojump_clock: MockClock) -> None:
    anna = lan.machine("Anna")
    async with anna.on():
        path = anna.write("Belege/one.txt", "one")
        await anna.create(BOOKS, path.parent)
        await until(lambda: anna.mandate().idle)
        await trio.sleep(45)
        anna.watcher.fail(WatchLimit(limit=3, what="folders at once", setting="max_user_watches", better=6))
        path.write_text("saved unheard")
        records = anna.mandate().books.journal.view()
        with trio.fail_after(65):
            await until(lambda: anna.mandate().books.journal.view() != records)


async def test_records_that_could_not_be_read_when_they_were_asked_for_come_later(
    lan: Lan, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody else has them, and nothing new is said: whoever lacks them begins anew (seed 2302885)."""
    anna = lan.machine("Anna")
    bruno = lan.machine("Bruno", peers=(anna,))
    async with anna.on():
        await anna.create(BOOKS, anna.write("journal.csv", "one"))
        async with bruno.on():
            await bruno.subscribe(await anna.invite(BOOKS, "Bruno"))
            await until(lambda: bruno.reads(f"{BOOKS}/journal.csv") == "one")
        before = anna.mandate().books.journal.view()
        anna.write("journal.csv", "two")
        await until(lambda: anna.mandate().books.journal.view() != before)
        asked = []

        def failing(journal: Journal, *_: object) -> None:
            asked.append(journal)
            raise DiskFailing(path="ledger.db", why="disk I/O error")

        async with bruno.on():
            with monkeypatch.context() as patched:
                patched.setattr(Journal, "tails", failing)
                await until(lambda: bool(asked))
            await until(lambda: bruno.reads(f"{BOOKS}/journal.csv") == "two")
            assert not said(anna)
