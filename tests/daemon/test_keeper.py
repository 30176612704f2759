"""A mistake of ours costs a mandate its memory for a moment, and nothing else: it is watched, linked and worked on again afterwards."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from p2psync.daemon import status
from p2psync.daemon.conversation import Conversation
from p2psync.store.faults import DiskFull
from p2psync.store.work import Work
from p2psync.values.digest import Digest
from tests.lan.fake_lan import Lan, Machine, until

BOOKS = "Dupont SA"


def problems(machine: Machine) -> set[str]:
    return {problem["code"] for problem in status.problems(machine.office)}


class Fails:
    """In place of ``Work.work``: raises this error the next few times."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
        self.left = 0
        before = Work.work

        def work(hands: Work, todo: object) -> object:
            if self.left:
                self.left -= 1
                raise error
            return before(hands, todo)  # type: ignore[arg-type]

        monkeypatch.setattr(Work, "work", work)


@pytest.mark.parametrize(
    ("error", "code"), [(RuntimeError("a mistake"), "mandate-failed"), (DiskFull(path="x"), "mandate-troubled")], ids=["bug", "disk"]
)
async def test_a_mandate_that_failed_goes_on_as_if_nothing_had_been(
    lan: Lan, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch, expect_errors: set[str], error: Exception, code: str
) -> None:
    expect_errors.add("p2psync.daemon.keeper")
    fails = Fails(monkeypatch, error)
    anna = lan.machine("Anna")
    bruno = lan.machine("Bruno", peers=(anna,))
    async with anna.on(), bruno.on():
        await anna.create(BOOKS, anna.write("journal.csv", "one"))
        await bruno.subscribe(await anna.invite(BOOKS, "Bruno"))
        await until(lambda: bruno.reads(f"{BOOKS}/journal.csv") == "one")
        link, watched = bruno.sees(anna), [watch.folder for watch in anna.watcher.watched]

        fails.left = 2
        anna.write("journal.csv", "two")
        await until(lambda: code in problems(anna))
        assert not (await anna.wait(1))["agreed"]
        await until(lambda: bruno.reads(f"{BOOKS}/journal.csv") == "two")
        assert [watch.folder for watch in anna.watcher.watched] == watched
        assert bruno.sees(anna) is link and anna.talks(bruno)
        anna.write("journal.csv", "three")
        await until(lambda: bruno.reads(f"{BOOKS}/journal.csv") == "three")
        await until(lambda: code not in problems(anna))
        assert (await anna.wait())["agreed"]


async def test_what_was_being_fetched_is_fetched_after_the_mistake(
    lan: Lan, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch, expect_errors: set[str]
) -> None:
    expect_errors.add("p2psync.daemon.keeper")
    fails = Fails(monkeypatch, RuntimeError("a mistake"))
    anna = lan.machine("Anna")
    bruno = lan.machine("Bruno", peers=(anna,))
    async with anna.on(), bruno.on():
        await anna.create(BOOKS)
        await bruno.subscribe(await anna.invite(BOOKS, "Bruno"))
        await until(lambda: bruno.office.mandates and bruno.talks(anna))
        asks = Conversation.ask_chunks

        def ask_chunks(conversation: Conversation, ids: list[Digest]) -> None:
            monkeypatch.setattr(Conversation, "ask_chunks", asks)
            fails.left = 1
            asks(conversation, ids)

        monkeypatch.setattr(Conversation, "ask_chunks", ask_chunks)
        for number in range(20):
            anna.write(f"Belege/{number:02d}.txt", f"{number}" * 90_000)
        await anna.ask("/v1/attach", mandate=BOOKS, paths=[str(anna.place / "Belege")])
        await until(lambda: "mandate-failed" in problems(bruno))
        await until(lambda: all(bruno.reads(f"{BOOKS}/Belege/{number:02d}.txt") == f"{number}" * 90_000 for number in range(20)))
        assert bruno.mandate().fetcher.missing == (0, 0)
        await trio.sleep(70)
        assert (await bruno.wait())["agreed"]
