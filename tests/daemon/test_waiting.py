"""`wait` tells the truth: never that all agree while something is pending, and not later than they do."""

from __future__ import annotations

import sqlite3
import time

import pytest
import trio
from trio.testing import MockClock

from p2psync.daemon import status, waiting
from p2psync.daemon.news import News
from p2psync.daemon.reckoning import Reckoning
from p2psync.engine import messages as m
from p2psync.engine.attention import Attention
from p2psync.store.apply import Applying
from p2psync.store.faults import DiskFull
from p2psync.store.home import Home
from p2psync.store.jobs import Want, Worked
from p2psync.store.look import Look
from p2psync.values.content import Chunk, Content, Listing
from p2psync.values.digest import Digest
from p2psync.values.names import MandateId, RelPath
from tests.lan.fake_lan import Lan, Machine, noting, until
from tests.lan.puppet import Puppet

BOOKS = "Dupont SA"


async def agreeing(anna: Machine, bruno: Machine) -> None:
    await anna.create(BOOKS, anna.write("journal.csv", "one"))
    await bruno.subscribe(await anna.invite(BOOKS, "Bruno"))
    await until(lambda: bruno.reads(f"{BOOKS}/journal.csv") == "one")
    assert (await bruno.wait())["agreed"]


async def test_nothing_is_agreed_while_the_mandates_are_being_opened(lan: Lan, autojump_clock: MockClock) -> None:
    anna = lan.machine("Anna")
    async with anna.on():
        anna.office.ready = trio.Event()
        said = await anna.wait(5)
        assert not said["agreed"] and "opening" in said["waiting_for"][0]


async def test_nothing_is_agreed_while_a_mandate_could_not_be_opened(
    lan: Lan, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    anna = lan.machine("Anna")
    async with anna.on():
        await anna.create(BOOKS)
    monkeypatch.setattr(Home, "open", lambda home, state: (_ for _ in ()).throw(DiskFull(path=state)))
    async with anna.on():
        said = await anna.wait(5)
        assert not said["agreed"] and "full" in said["waiting_for"][0]
        assert "disk-full" in {problem["code"] for problem in (await anna.status())["problems"]}


async def test_a_mandate_that_could_not_be_opened_is_opened_as_soon_as_it_can(
    lan: Lan, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    anna = lan.machine("Anna")
    async with anna.on():
        await anna.create(BOOKS, anna.write("journal.csv", "one"))
    broken = monkeypatch.context()
    with broken as patch:
        patch.setattr(sqlite3, "connect", lambda *_, **__: (_ for _ in ()).throw(sqlite3.OperationalError("disk I/O error")))
        starting = anna.on()
        await starting.__aenter__()
        assert [problem["person"] for problem in (await anna.status())["problems"]] == [True]
    await until(lambda: anna.office.mandates)
    assert (await anna.status())["problems"] == []
    anna.write("journal.csv", "two")
    assert (await anna.wait())["agreed"]
    await starting.__aexit__(None, None, None)


async def test_a_version_that_has_to_wait_without_a_word_is_pending_all_the_same(
    lan: Lan, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some hindrances are tried again in a second and not worth a notice; what they hinder is not there yet."""
    anna = lan.machine("Anna")
    bruno = lan.machine("Bruno", peers=(anna,))
    hindered = True
    before = Applying.apply

    def apply(hands: Applying, jobs: object, worked: Worked) -> None:
        if not hindered:
            before(hands, jobs, worked)  # type: ignore[arg-type]
            return
        for job in list(jobs):  # type: ignore[call-overload]
            worked.again[job.path] = 1.0

    async with anna.on(), bruno.on():
        await agreeing(anna, bruno)
        monkeypatch.setattr(Applying, "apply", apply)
        anna.write("journal.csv", "two")
        await trio.sleep(30)
        assert bruno.reads(f"{BOOKS}/journal.csv") == "one"
        assert not (await bruno.wait(10))["agreed"]
        assert not (await anna.wait(10))["agreed"]
        hindered = False
        assert (await anna.wait())["agreed"] and (await bruno.wait())["agreed"]
        assert bruno.reads(f"{BOOKS}/journal.csv") == "two"


async def test_a_file_whose_name_cannot_be_shared_keeps_nobody_waiting(lan: Lan, autojump_clock: MockClock) -> None:
    anna = lan.machine("Anna")
    bruno = lan.machine("Bruno", peers=(anna,))
    async with anna.on(), bruno.on():
        await agreeing(anna, bruno)
        anna.write("Belege/scan.pdf", "scan")
        anna.write("Belege/a:b.txt", "only here")
        await anna.ask("/v1/attach", mandate=BOOKS, paths=[str(anna.place / "Belege")])
        await until(lambda: bruno.reads(f"{BOOKS}/Belege/scan.pdf") == "scan")
        assert "Belege/a:b.txt" in anna.mandate().attention
        assert (await anna.wait(20))["agreed"] and (await bruno.wait(20))["agreed"]


async def test_what_cannot_be_read_and_is_nobodys_keeps_nobody_waiting(lan: Lan, autojump_clock: MockClock) -> None:
    """It is tried again every half minute, and nobody is busy with it meanwhile."""
    anna = lan.machine("Anna")
    bruno = lan.machine("Bruno", peers=(anna,))
    async with anna.on(), bruno.on():
        await agreeing(anna, bruno)
        anna.write("Belege/scan.pdf", "scan")
        (anna.place / "Belege/link").symlink_to("scan.pdf")
        await anna.ask("/v1/attach", mandate=BOOKS, paths=[str(anna.place / "Belege")])
        await until(lambda: bruno.reads(f"{BOOKS}/Belege/scan.pdf") == "scan")
        assert anna.mandate().attention["Belege/link"].code == "unreadable"
        assert (await anna.wait(20))["agreed"] and (await bruno.wait(20))["agreed"]
        (anna.place / "Belege/link").unlink()
        anna.write("Belege/link", "a file by now")
        await until(lambda: bruno.reads(f"{BOOKS}/Belege/link"))
        assert not anna.mandate().attention


async def test_who_has_just_come_is_waited_for_and_who_does_not_speak_is_not_for_ever(lan: Lan, autojump_clock: MockClock) -> None:
    anna = lan.machine("Anna")
    bruno = lan.machine("Bruno", peers=(anna,))
    async with anna.on():
        async with bruno.on():
            await agreeing(anna, bruno)
        puppet = Puppet(lan, bruno)
        async with puppet.calling(anna, opened=False):
            await puppet.say(m.Hello(1, 1, 0, 0, b"", "puppet"))
            await until(lambda: anna.office.links)
            said = await anna.wait(3)
            assert not said["agreed"] and "come online" in said["waiting_for"][0]
            assert (await anna.wait(waiting.MEETING_S))["agreed"]
        puppet.close()


# ---- the status


async def test_the_status_is_quick_while_ten_thousand_files_come_in(lan: Lan, autojump_clock: MockClock) -> None:
    anna = lan.machine("Anna")
    bruno = lan.machine("Bruno", peers=(anna,))
    async with anna.on(), bruno.on():
        await agreeing(anna, bruno)
        anna.write("Belege/scan.pdf", "scan")
        await anna.ask("/v1/attach", mandate=BOOKS, paths=[str(anna.place / "Belege")])
        await until(lambda: bruno.reads(f"{BOOKS}/Belege/scan.pdf") == "scan")
        mandate = bruno.mandate()
        wants = {RelPath(f"Belege/{number}.pdf"): _want(number) for number in range(10_000)}
        mandate.attention.take(
            {path.text: Attention("fetching", 0, {"people": "Anna"}) for path in wants}, set(), {"Belege", "journal.csv"}
        )
        mandate.fetcher.update(set(), wants)
        await mandate.reckoning.counted()
        took = []
        for _ in range(3):
            since = time.thread_time()
            said = status.status(bruno.office)
            took.append(time.thread_time() - since)
        (shown,) = [a for a in said["mandates"][0]["attachments"] if a["name"] == "Belege"]
        assert shown["state"] == "receiving" and len(shown["attention"]) == status.MOST_NOTICES
        assert min(took) < 0.1
        since = time.thread_time()
        for _ in range(100):
            mandate.changed()
        assert time.thread_time() - since < 0.1


def _want(number: int) -> Want:
    content = Content(Digest(number.to_bytes(32, "big")), 60_000, Digest(number.to_bytes(31, "big") + b"l"))
    return Want(content, Listing(b""), tuple(Chunk(Digest(bytes([part]) + number.to_bytes(31, "big")), 0, 20_000) for part in range(3)))


async def test_a_status_asked_right_after_an_act_knows_of_it(lan: Lan, autojump_clock: MockClock) -> None:
    anna = lan.machine("Anna")
    async with anna.on():
        await anna.create(BOOKS, anna.write("journal.csv", "one"))
        for number in range(3):
            await anna.ask("/v1/attach", mandate=BOOKS, paths=[str(anna.write(f"{number}.csv", "x" * number))])
            (mandate,) = (await anna.status())["mandates"]
            assert f"{number}.csv" in {a["name"] for a in mandate["attachments"]}


async def test_a_status_asked_while_another_mandate_is_opened_is_told(lan: Lan, autojump_clock: MockClock) -> None:
    anna = lan.machine("Anna")
    async with anna.on():
        await anna.create(BOOKS, anna.write("journal.csv", "one"))
        mandates = dict(anna.office.mandates)

        async def opened(reckoning: Reckoning) -> None:
            mandates[MandateId(bytes(32))] = anna.mandate()

        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(Reckoning, "counted", opened)
            await status.ready_to_tell(mandates.values())


# ---- news


async def test_a_slow_reader_misses_no_mandate_and_hears_of_each_once() -> None:
    news, one, other = News(), MandateId(bytes(32)), MandateId(bytes([1]) * 32)
    with news.reading() as reader:
        for _ in range(1000):
            news.tell(one)
        news.tell(other)
        news.tell(None)
        assert [await reader.next(), await reader.next(), await reader.next()] == [one, other, None]
        with trio.move_on_after(0):
            raise AssertionError(await reader.next())
    news.tell(one)


async def test_a_disk_that_is_away_while_a_version_waits_for_it_is_looked_for_now_and_then(lan: Lan, autojump_clock: MockClock) -> None:
    """Not again and again without a pause, which would keep a processor busy until the disk is back."""
    anna, bruno = lan.machine("Anna"), lan.machine("Bruno")
    bruno.peers = (anna,)
    async with anna.on(), bruno.on():
        await agreeing(anna, bruno)
        (bruno.place / BOOKS).rename(bruno.place / "away")
        bruno.mandate().rescan()
        anna.write("journal.csv", "two")
        with noting(Look, "look") as looks:
            await trio.sleep(60)
        assert len(looks) < 40
        (bruno.place / "away").rename(bruno.place / BOOKS)
        await until(lambda: bruno.reads(f"{BOOKS}/journal.csv") == "two")
