"""One identity, one machine: one that was restored or copied is recognised before anything is overwritten, and is asked once."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager

import pytest
import trio
from trio.testing import MockClock

from p2psync.store import versions
from p2psync.store.witness import Witness
from p2psync.values.names import RelPath
from tests.lan.desks import fast_place
from tests.lan.fake_lan import Lan, Machine, no_threads, until

BOOKS = "Dupont SA"


@pytest.fixture
def lan(monkeypatch: pytest.MonkeyPatch) -> Iterator[Lan]:
    no_threads(monkeypatch)
    with fast_place() as place:
        yield Lan(place, monkeypatch)


async def agreeing(anna: Machine, bruno: Machine) -> None:
    files = [anna.write(f"{name}.csv", f"{name} 1") for name in ("journal", "bilan", "salaires")]
    await anna.create(BOOKS, *files)
    await bruno.subscribe(await anna.invite(BOOKS, "Bruno"))
    await until(lambda: bruno.reads(f"{BOOKS}/salaires.csv") == "salaires 1")
    assert (await bruno.wait())["agreed"]


async def saved(anna: Machine, name: str, text: str, *others: Machine) -> None:
    anna.write(f"{name}.csv", text)
    await until(lambda: texts(anna, name)[0] == text)
    await until(lambda: all(other.reads(f"{BOOKS}/{name}.csv") == text for other in others))


def texts(machine: Machine, name: str) -> list[str]:
    """The recorded versions of a file, the latest first."""
    mandate = machine.mandate()
    found = versions.history(mandate.books.ledger.read(), RelPath(f"{name}.csv"))
    chunks = [mandate.sources.chunk(v.entry.content.digest) for v in found if v.entry.content]
    return [data.decode() if data else "?" for data in chunks]


async def asked(machine: Machine) -> set[str]:
    return {problem["code"] for problem in (await machine.status())["problems"]}


@contextmanager
def backup_of(machine: Machine) -> Iterator[None]:
    """What is kept of its state now comes back at the end of the block: the machine is off then."""
    state, kept = machine.place / "state", machine.place / "backup"
    shutil.copytree(state, kept)
    yield
    shutil.rmtree(state)
    kept.rename(state)


async def same_journals(*machines: Machine) -> None:
    await until(lambda: len({m.mandate().books.journal.view() for m in machines}) == 1)


@pytest.mark.parametrize("witness", [True, False])
async def test_a_restored_state_records_offline_and_both_branches_survive(lan: Lan, autojump_clock: MockClock, witness: bool) -> None:
    anna = lan.machine("Anna")
    bruno = lan.machine("Bruno", peers=(anna,))
    anna.witness = Witness(lan.place / "witness") if witness else None
    async with bruno.on():
        async with anna.on():
            await agreeing(anna, bruno)
        with backup_of(anna):
            async with anna.on():
                await saved(anna, "journal", "journal 2", bruno)
                await saved(anna, "bilan", "bilan 2", bruno)
                await saved(anna, "bilan", "bilan 3", bruno)
        (anna.place / "bilan.csv").write_text("bilan 1, and what Anna saves after the restore")
        anna.unplug()
        async with anna.on():
            await until(lambda: texts(anna, "bilan")[0] == "bilan 1, and what Anna saves after the restore")
            await saved(anna, "salaires", "salaires 2, offline")
            assert ("this-machine-twice" in await asked(anna)) == witness
            anna.plug()
            await until(lambda: anna.talks(bruno))
            await until(lambda: bruno.reads(f"{BOOKS}/salaires.csv") == "salaires 2, offline")
            await same_journals(anna, bruno)
            assert (await anna.wait())["agreed"] and (await bruno.wait())["agreed"]
            for machine in (anna, bruno):
                assert {"bilan 1", "bilan 3", "bilan 1, and what Anna saves after the restore"} < set(texts(machine, "bilan"))
                assert set(texts(machine, "journal")) == {"journal 1", "journal 2"}
                assert (await machine.status())["mandates"][0]["conflicts"] == 1  # bilan, and nothing else
            assert "bilan 2" in texts(bruno, "bilan")  # a backup forgets what was only in the history
            assert anna.reads("journal.csv") == bruno.reads(f"{BOOKS}/journal.csv") == "journal 2"
            assert await asked(anna) == {"this-machine-twice"} and await asked(bruno) == {"other-machine-twice"}
            await anna.ask("/v1/confirm", mandate=BOOKS, name="machine")
            await same_journals(anna, bruno)
            assert not await asked(anna) and not await asked(bruno)
        async with anna.on():
            await same_journals(anna, bruno)
            assert not await asked(anna)


@pytest.mark.parametrize("files", ["newer", "as old"])
async def test_a_restored_state_that_meets_the_others_before_anything_is_saved(lan: Lan, autojump_clock: MockClock, files: str) -> None:
    anna = lan.machine("Anna")
    bruno = lan.machine("Bruno", peers=(anna,))
    async with bruno.on():
        async with anna.on():
            await agreeing(anna, bruno)
        with backup_of(anna):
            async with anna.on():
                await saved(anna, "journal", "journal 2", bruno)
                bruno.write(f"{BOOKS}/bilan.csv", "bilan 2, by Bruno")
                await until(lambda: anna.reads("bilan.csv") == "bilan 2, by Bruno")
        if files == "as old":
            for name in ("journal", "bilan"):
                (anna.place / f"{name}.csv").write_text(f"{name} 1")
        async with anna.on():
            await until(lambda: anna.talks(bruno))
            await same_journals(anna, bruno)
            assert (await anna.wait())["agreed"] and (await bruno.wait())["agreed"]
            for machine in (anna, bruno):
                assert (await machine.status())["mandates"][0]["conflicts"] == 0
            assert anna.reads("journal.csv") == bruno.reads(f"{BOOKS}/journal.csv") == "journal 2"
            assert anna.reads("bilan.csv") == bruno.reads(f"{BOOKS}/bilan.csv") == "bilan 2, by Bruno"
            assert await asked(anna) == {"this-machine-twice"} and await asked(bruno) == {"other-machine-twice"}


@pytest.mark.parametrize("offline", [True, False])
async def test_what_the_others_went_on_from_while_the_ledger_came_back_older_than_the_disk(
    lan: Lan, autojump_clock: MockClock, offline: bool
) -> None:
    anna = lan.machine("Anna")
    bruno = lan.machine("Bruno", peers=(anna,))
    async with bruno.on():
        async with anna.on():
            await agreeing(anna, bruno)
        with backup_of(anna):
            async with anna.on():
                await saved(anna, "journal", "journal 2", bruno)
            bruno.write(f"{BOOKS}/journal.csv", "journal 3, by Bruno")
            assert (await bruno.wait())["agreed"]
        if offline:
            anna.unplug()
        async with anna.on():
            if offline:
                await until(lambda: texts(anna, "journal")[0] == "journal 2")  # taken for a save of today
                anna.plug()
            await until(lambda: anna.talks(bruno))
            await until(lambda: anna.reads("journal.csv") == "journal 3, by Bruno")
            await same_journals(anna, bruno)
            assert (await anna.wait())["agreed"] and (await bruno.wait())["agreed"]
            for machine in (anna, bruno):
                assert (await machine.status())["mandates"][0]["conflicts"] == 0
            assert bruno.reads(f"{BOOKS}/journal.csv") == "journal 3, by Bruno"
            await saved(anna, "journal", "journal 2", bruno)  # and now it is one
            assert (await bruno.status())["mandates"][0]["conflicts"] == 0


async def test_two_machines_of_one_state_that_work_at_the_same_time(lan: Lan, autojump_clock: MockClock) -> None:
    """Copied as a whole disk is, so that nothing on the machines tells one from the other: the colleague does."""
    anna = lan.machine("Anna")
    bruno = lan.machine("Bruno", peers=(anna,))
    async with bruno.on():
        async with anna.on():
            await agreeing(anna, bruno)
        shutil.copytree(anna.place / "state", anna.place / "clone")
        anna.unplug()
        async with anna.on():
            await saved(anna, "journal", "journal 2, on the one")
            anna.plug()
            await same_journals(anna, bruno)
        (anna.place / "state").rename(anna.place / "one")
        (anna.place / "clone").rename(anna.place / "state")
        (anna.place / "journal.csv").write_text("journal 2, on the other")
        async with anna.on():
            await until(lambda: anna.talks(bruno))
            await same_journals(anna, bruno)
            assert await asked(anna) == {"this-machine-twice"} and await asked(bruno) == {"other-machine-twice"}
            for machine in (anna, bruno):
                assert {"journal 2, on the one", "journal 2, on the other"} < set(texts(machine, "journal"))
                assert (await machine.status())["mandates"][0]["conflicts"] == 1
            await saved(anna, "bilan", "bilan 2", bruno)
        (anna.place / "state").rename(anna.place / "clone")
        (anna.place / "one").rename(anna.place / "state")
        async with anna.on():
            await same_journals(anna, bruno)
            assert await asked(anna) == {"this-machine-twice"}  # the first one is told as well
            await saved(anna, "salaires", "salaires 2", bruno)
            own = [log for log in anna.mandate().books.journal.ends if log[0] == anna.office.device]
            assert len(own) == 2  # and the two do not drive each other into ever new logs


@pytest.mark.parametrize("marked", [True, False])
async def test_two_machines_of_one_state_that_are_on_together(lan: Lan, autojump_clock: MockClock, marked: bool) -> None:
    """They take each other's link to the colleague away, and yet all that either saves reaches everybody; all three are told."""
    anna = lan.machine("Anna")
    bruno = lan.machine("Bruno", peers=(anna,))
    copy = lan.machine("Anna's copy", peers=(bruno,))
    anna.witness = Witness(lan.place / "witness", b"this machine" if marked else b"")
    copy.witness = Witness(lan.place / "other witness", b"another machine" if marked else b"")
    async with bruno.on():
        async with anna.on():
            await agreeing(anna, bruno)
        shutil.copytree(anna.place / "state", copy.place / "state")
        with closing(sqlite3.connect(next(copy.place.glob("state/mandates/*/ledger.db")))) as ledger, ledger:
            for name in ("journal", "bilan", "salaires"):
                shutil.copy2(anna.place / f"{name}.csv", copy.place / f"{name}.csv")
                ledger.execute("UPDATE places SET location = ? WHERE name = ?", (str(copy.place / f"{name}.csv"), f"{name}.csv"))
        async with anna.on(), copy.on():
            for number in range(2, 6):
                anna.write("journal.csv", f"journal {number}")
                copy.write("salaires.csv", f"salaires {number}")
                await trio.sleep(20)
            await until(lambda: bruno.reads(f"{BOOKS}/journal.csv") == "journal 5")
            await until(lambda: bruno.reads(f"{BOOKS}/salaires.csv") == "salaires 5")
            await until(lambda: copy.reads("journal.csv") == "journal 5" and anna.reads("salaires.csv") == "salaires 5")
            for machine in (anna, copy):
                assert "this-machine-twice" in await asked(machine)
                own = [log for log in machine.mandate().books.journal.ends if log[0] == machine.office.device]
                assert 2 <= len(own) <= 3
            assert "other-machine-twice" in await asked(bruno)
            assert (await bruno.status())["mandates"][0]["conflicts"] == 0


async def test_two_branches_that_both_got_about_are_shown_and_overwrite_nothing(lan: Lan, autojump_clock: MockClock) -> None:
    """A disk image put back, work offline, and first met by one who knows nothing of the other branch: two colleagues hold either."""
    anna = lan.machine("Anna")
    bruno = lan.machine("Bruno", peers=(anna,))
    zoe = lan.machine("Zoe", peers=(anna,))
    async with zoe.on(), bruno.on():
        async with anna.on():
            await agreeing(anna, bruno)
            await zoe.subscribe(await anna.invite(BOOKS, "Zoe"))
            await until(lambda: zoe.reads(f"{BOOKS}/salaires.csv") == "salaires 1")
            assert (await zoe.wait())["agreed"] and (await bruno.wait())["agreed"]
        with backup_of(anna):
            zoe.unplug()
            async with anna.on():
                await saved(anna, "journal", "journal 2, before the restore", bruno)
        bruno.unplug()
        zoe.plug()
        (anna.place / "journal.csv").write_text("journal 2, after the restore")
        async with anna.on():
            await until(lambda: zoe.reads(f"{BOOKS}/journal.csv") == "journal 2, after the restore")
            zoe.write(f"{BOOKS}/bilan.csv", "bilan 2, by Zoe")
            await until(lambda: anna.reads("bilan.csv") == "bilan 2, by Zoe")
            bruno.plug()
            await until(lambda: anna.talks(bruno))
            await trio.sleep(120)
            assert "this-machine-twice" in await asked(anna)
            assert "machine-twice" in await asked(bruno)
            assert bruno.reads(f"{BOOKS}/journal.csv") == "journal 2, before the restore"
            assert zoe.reads(f"{BOOKS}/journal.csv") == anna.reads("journal.csv") == "journal 2, after the restore"
            assert zoe.reads(f"{BOOKS}/bilan.csv") == "bilan 2, by Zoe"


@pytest.mark.parametrize("lost", ["ledger.db", "all of the state"])
async def test_a_state_that_is_lost_deletes_nothing_and_is_made_again_with_a_ticket(lan: Lan, autojump_clock: MockClock, lost: str) -> None:
    anna = lan.machine("Anna")
    bruno = lan.machine("Bruno", peers=(anna,))
    bruno.witness = Witness(lan.place / "witness", b"this machine")
    async with anna.on():
        async with bruno.on():
            await agreeing(anna, bruno)
        everything = {name: anna.reads(f"{name}.csv") for name in ("journal", "bilan", "salaires")}
        (books,) = (bruno.place / "state" / "mandates").iterdir()
        if lost == "ledger.db":
            for file in books.glob("ledger.db*"):
                file.unlink()
            async with bruno.on():
                assert "journal-lost" in await asked(bruno)
                await trio.sleep(120)
                assert {name: bruno.reads(f"{BOOKS}/{name}.csv") for name in everything} == everything
            shutil.move(books, bruno.place / "moved away, as the sentence says")
        else:
            shutil.rmtree(bruno.place / "state")
        (bruno.place / BOOKS / "bilan.csv").write_text("bilan 2, by Bruno, never recorded")
        async with bruno.on():
            await bruno.subscribe(await anna.invite(BOOKS, "Bruno"))
            await until(lambda: bruno.talks(anna))
            await same_journals(anna, bruno)
            assert (await anna.wait())["agreed"] and (await bruno.wait())["agreed"]
            assert (await anna.status())["mandates"][0]["conflicts"] == (await bruno.status())["mandates"][0]["conflicts"] == 1
            assert set(texts(anna, "bilan")) == {"bilan 1", "bilan 2, by Bruno, never recorded"}
            assert anna.reads("journal.csv") == bruno.reads(f"{BOOKS}/journal.csv") == "journal 1"
            assert not await asked(anna) and not await asked(bruno)
            await saved(anna, "journal", "journal 2", bruno)


async def test_a_history_that_is_lost_costs_the_older_versions_and_nothing_else(lan: Lan, autojump_clock: MockClock) -> None:
    anna = lan.machine("Anna")
    bruno = lan.machine("Bruno", peers=(anna,))
    zoe = lan.machine("Zoe", peers=(anna,))
    async with bruno.on(), anna.on():
        await agreeing(anna, bruno)
        await saved(anna, "journal", "journal 2", bruno)
    (books,) = (anna.place / "state" / "mandates").iterdir()
    for file in books.glob("vault.db*"):
        file.unlink()
    async with anna.on(), zoe.on():
        assert texts(anna, "journal") == ["journal 2", "?"]
        await zoe.subscribe(await anna.invite(BOOKS, "Zoe"))
        await until(lambda: zoe.reads(f"{BOOKS}/journal.csv") == "journal 2")
        async with bruno.on():
            await same_journals(anna, bruno, zoe)
            assert (await zoe.wait())["agreed"] and (await anna.wait())["agreed"]
            assert not await asked(anna)


async def test_a_start_like_any_other_asks_nothing_and_opens_no_log(lan: Lan, autojump_clock: MockClock) -> None:
    anna = lan.machine("Anna")
    bruno = lan.machine("Bruno", peers=(anna,))
    anna.witness = Witness(lan.place / "witness", b"this machine")
    async with bruno.on():
        async with anna.on():
            await agreeing(anna, bruno)
        for day in range(3):
            anna.unplug()
            async with anna.on():
                await saved(anna, "journal", f"journal of day {day}")
                anna.plug()
                await same_journals(anna, bruno)
                assert (await bruno.wait())["agreed"] and bruno.reads(f"{BOOKS}/journal.csv") == f"journal of day {day}"
                assert not await asked(anna) and not await asked(bruno)
                assert len([log for log in anna.mandate().books.journal.ends if log[0] == anna.office.device]) == 1


async def test_a_state_that_was_copied_to_another_machine(lan: Lan, autojump_clock: MockClock) -> None:
    """Both work on, one after the other and beside each other; nobody overwrites anything, and all are told."""
    anna = lan.machine("Anna")
    bruno = lan.machine("Bruno", peers=(anna,))
    copy = lan.machine("Anna's laptop", peers=(bruno,))
    anna.witness = Witness(lan.place / "witness", b"this machine")
    copy.witness = Witness(lan.place / "other witness", b"another machine")
    async with bruno.on():
        async with anna.on():
            await agreeing(anna, bruno)
        shutil.copytree(anna.place / "state", copy.place / "state")
        async with anna.on():
            await saved(anna, "journal", "journal 2", bruno)
        async with copy.on():  # its files are those at the places of Anna's: the same disk, here
            assert await asked(copy) == {"this-machine-twice"}
            await until(lambda: copy.talks(bruno))
            await same_journals(copy, bruno)
            assert await asked(bruno) == {"other-machine-twice"}
        async with anna.on():
            await same_journals(anna, bruno)
            assert await asked(anna) == {"this-machine-twice"} and await asked(bruno) == {"other-machine-twice"}
            await saved(anna, "journal", "journal 3", bruno)
            await anna.ask("/v1/confirm", mandate=BOOKS, name="machine")
            await same_journals(anna, bruno)
            assert not await asked(anna) and not await asked(bruno)
            assert (await bruno.status())["mandates"][0]["conflicts"] == 0
    await trio.lowlevel.checkpoint()
