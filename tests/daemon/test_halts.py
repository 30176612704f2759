"""What waits for a person, with whole machines: seen as the watcher tells of it, shown with commands, and gone on with by those."""

from __future__ import annotations

import os
import shutil
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from p2psync.daemon.attachments import NothingHalted, OtherFolder
from p2psync.store import vanishing
from p2psync.store.look import ABSENT_AGAIN
from tests.lan.desks import fast_place
from tests.lan.fake_lan import Lan, Machine, no_threads, until

BOOKS = "Dupont SA"


@pytest.fixture
def lan(monkeypatch: pytest.MonkeyPatch) -> Iterator[Lan]:
    no_threads(monkeypatch)
    monkeypatch.setattr(vanishing, "monotonic", trio.current_time)  # the clock of the run, so that a moment costs nothing
    with fast_place() as place:
        yield Lan(place, monkeypatch)


@asynccontextmanager
async def office(lan: Lan) -> AsyncIterator[tuple[Machine, Machine, Path]]:
    """Anna and Bruno with a folder of 20 receipts in their second version, the first ones in a folder beside."""
    anna = lan.machine("Anna")
    bruno = lan.machine("Bruno", peers=(anna,))
    async with anna.on(), bruno.on():
        for n in range(20):
            write(anna, f"recus/{n}.pdf", f"{n} 1", 1_700_000_000)
        await anna.create(BOOKS, anna.place / "recus")
        await bruno.subscribe(await anna.invite(BOOKS, "Bruno"))
        assert (await bruno.wait())["agreed"]
        shutil.copytree(anna.place / "recus", anna.place / "backup")
        for n in range(20):
            write(anna, f"recus/{n}.pdf", f"{n} 2", 1_750_000_000)
        assert (await anna.wait())["agreed"] and (await bruno.wait())["agreed"]
        assert texts(bruno) == [f"{n} 2" for n in range(20)]
        yield anna, bruno, anna.place / "recus"


def write(machine: Machine, path: str, text: str, when: int) -> None:
    where = machine.write(path, text)
    os.utime(where, (when, when))


def texts(machine: Machine) -> list[str | None]:
    return [machine.reads(f"{BOOKS}/recus/{n}.pdf") for n in range(20)]


async def shown(machine: Machine) -> dict[str, Any]:
    (attachment,) = (await machine.status())["mandates"][0]["attachments"]
    return dict(attachment)


async def becomes(machine: Machine, code: str | None) -> dict[str, Any]:
    for _ in range(900):
        if (found := await shown(machine))["code"] == code:
            return found
        await trio.sleep(1)
    raise AssertionError(f"{found} instead of {code}")


@pytest.mark.parametrize("then", ["restore", "confirm"])
async def test_a_backup_that_is_put_back_file_by_file(lan: Lan, autojump_clock: MockClock, then: str) -> None:
    async with office(lan) as (anna, bruno, folder):
        for n in range(15):
            shutil.copy2(anna.place / "backup" / f"{n}.pdf", folder / f"{n}.pdf")
            anna.watcher.hear(folder / f"{n}.pdf")
            await trio.sleep(0.3)
        found = await becomes(anna, "older-copies")
        assert found["state"] == "halted" and "15 of 20" in found["reason"]
        assert found["commands"] == [f"p2psync {word} 'Dupont SA' recus" for word in ("restore", "confirm")]
        assert not (await anna.wait(5))["agreed"]
        assert texts(bruno) == [f"{n} 2" for n in range(20)]
        await anna.ask(f"/v1/{then}", mandate=BOOKS, name="recus")
        await becomes(anna, None)
        assert (await anna.wait())["agreed"] and (await bruno.wait())["agreed"]
        expected = [f"{n} {1 if then == 'confirm' and n < 15 else 2}" for n in range(20)]
        assert texts(bruno) == expected == [anna.reads(f"recus/{n}.pdf") for n in range(20)]
        with pytest.raises(NothingHalted):
            await anna.ask("/v1/confirm", mandate=BOOKS, name="recus")


async def test_the_folder_of_another_client_is_neither_shared_nor_replaced(lan: Lan, autojump_clock: MockClock) -> None:
    async with office(lan) as (anna, bruno, folder):
        folder.rename(anna.place / "away")
        folder.mkdir()
        for n in range(20):
            write(anna, f"recus/{n}.pdf", f"{n} of another client", 1_760_000_000)
        found = await becomes(anna, "root-differs")
        assert "20 of 20" in found["reason"] and found["commands"] == ["p2psync confirm 'Dupont SA' recus"]
        with pytest.raises(OtherFolder):
            await anna.ask("/v1/restore", mandate=BOOKS, name="recus")
        bruno.write(f"{BOOKS}/recus/3.pdf", "3 by Bruno")
        await trio.sleep(60)
        assert anna.reads("recus/3.pdf") == "3 of another client" and texts(bruno)[4] == "4 2"
        shutil.rmtree(folder)
        (anna.place / "away").rename(folder)
        anna.watcher.doubt(folder)
        await becomes(anna, None)
        assert (await anna.wait())["agreed"] and anna.reads("recus/3.pdf") == "3 by Bruno"


@pytest.mark.parametrize("heard", [True, False])
async def test_a_folder_that_is_unmounted_comes_back_by_itself(lan: Lan, autojump_clock: MockClock, heard: bool) -> None:
    async with office(lan) as (anna, bruno, folder):
        folder.rename(anna.place / "away")
        folder.mkdir()
        if heard:
            anna.watcher.doubt(folder)
        found = await becomes(anna, "root-replaced")
        assert "20 of 20" in found["reason"]
        bruno.write(f"{BOOKS}/recus/3.pdf", "3 by Bruno")
        await trio.sleep(vanishing.TOGETHER)
        assert texts(bruno)[:5] == ["0 2", "1 2", "2 2", "3 by Bruno", "4 2"] and not any(folder.iterdir())
        folder.rmdir()
        (anna.place / "away").rename(folder)
        await trio.sleep(ABSENT_AGAIN + 1)  # nobody hears of a mount
        await becomes(anna, None)
        await until(lambda: anna.reads("recus/3.pdf") == "3 by Bruno")
        assert (await anna.wait())["agreed"] and (await bruno.wait())["agreed"]


@pytest.mark.parametrize("then", ["restore", "confirm"])
@pytest.mark.parametrize("how", ["emptied", "another folder"])
async def test_what_vanished_is_brought_back_or_deleted_for_everybody(lan: Lan, autojump_clock: MockClock, how: str, then: str) -> None:
    async with office(lan) as (anna, bruno, folder):
        if how == "another folder":
            folder.rename(anna.place / "away")
            folder.mkdir()
        else:
            for path in list(folder.iterdir()):
                path.unlink()
        anna.watcher.doubt(folder)
        await becomes(anna, "many-deletions" if how == "emptied" else "root-replaced")
        await anna.ask(f"/v1/{then}", mandate=BOOKS, name="recus")
        await becomes(anna, None)
        assert (await anna.wait())["agreed"] and (await bruno.wait())["agreed"]
        assert texts(bruno) == [anna.reads(f"recus/{n}.pdf") for n in range(20)]
        assert texts(bruno) == [None if then == "confirm" else f"{n} 2" for n in range(20)]
