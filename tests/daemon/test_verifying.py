"""What a disk has damaged is named, and put right where that can be done; nothing damaged is ever taken for somebody's work."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from p2psync.daemon.caretaker import Caretaker
from p2psync.daemon.verifying import VerifyRuns
from p2psync.engine.attention import Attention
from p2psync.engine.retention import DEFAULT
from p2psync.store import retaining
from p2psync.values.digest import content_digest
from tests.lan.fake_lan import Lan, Machine, until

BOOKS = "Dupont SA"
HERE = f"{BOOKS}/a.cre"


async def _office(lan: Lan, texts: list[str]) -> tuple[Machine, Machine]:
    """Anna and Bruno, both on, in a mandate with one file that Anna saved once for each text."""
    anna = lan.machine("Anna")
    return anna, lan.machine("Bruno", peers=(anna,))


async def _save(anna: Machine, bruno: Machine, texts: list[str]) -> None:
    file = anna.write("files/a.cre", texts[0])
    await anna.create(BOOKS, file)
    await bruno.subscribe(await anna.invite(BOOKS, "Bruno"))
    for text in texts:
        anna.write("files/a.cre", text)
        with trio.fail_after(60):
            while bruno.reads(HERE) != text:
                await trio.sleep(0.05)


async def verify(machine: Machine, mandate: str | None = None) -> dict[str, Any]:
    """What a whole verification tells."""
    if not getattr(machine, "verifies", False):
        machine.office._nursery.start_soon(machine.office.verifying.run)
        machine.verifies = True  # type: ignore[attr-defined]
    await machine.ask("/v1/verify", mandate=mandate)
    await until(lambda: not machine.office.verifying.running)
    return machine.office.verifying.told()


def damage_chunk(machine: Machine, text: str) -> None:
    """As a disk does: some bytes of one chunk are others."""
    _change(machine.mandate().books.vault.path, "UPDATE chunk SET stored = zeroblob(length(stored)) WHERE digest = ?", _digest(text))


def damage_file(machine: Machine, path: str, data: bytes) -> None:
    """As a disk does: the bytes are others, and nothing else about the file is."""
    where = machine.place / path
    where.write_bytes(data)
    stamp = os.stat(where)
    times = (stamp.st_mtime_ns, stamp.st_ctime_ns)
    _change(machine.mandate().books.ledger.path, "UPDATE paths SET mtime_ns = ?, ctime_ns = ?, fresh = 0 WHERE path = 'a.cre'", *times)


def _digest(text: str) -> bytes:
    return content_digest(text.encode())


def _change(database: Path, statement: str, *values: object) -> None:
    with closing(sqlite3.connect(database)) as db, db:
        db.create_function("flipped", 1, lambda data: data[:-20] + bytes([data[-20] ^ 1]) + data[-19:])
        assert db.execute(statement, values).rowcount == 1


async def test_all_is_well(lan: Lan, autojump_clock: MockClock) -> None:
    anna, bruno = await _office(lan, [])
    async with anna.on(), bruno.on():
        await _save(anna, bruno, ["one", "two"])
        await until(lambda: anna.mandate().idle)
        told = await verify(anna)
        assert told["findings"] == [] and told["running"] is False
        assert (told["files"], told["chunks"]) == (1, 2) and told["records"] >= 5 and told["done"] == len("onetwotwo")


async def test_a_vault_that_cannot_be_read_ends_neither_the_verification_nor_the_daemon(
    lan: Lan, autojump_clock: MockClock, expect_errors: set[str]
) -> None:
    anna = lan.machine("Anna")
    async with anna.on():
        await anna.create(BOOKS, *(anna.write(f"files/{n}.cre", f"{n}") for n in range(300)))
        await until(lambda: anna.mandate().idle)
        vault = anna.mandate().books.vault.path
        with closing(sqlite3.connect(vault)) as db:
            db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        with vault.open("r+b") as file:
            file.seek(16384)
            file.write(b"\xff" * (vault.stat().st_size - 16384))
        told = await verify(anna)
        assert any(finding["kind"] == "disk" and "vault.db" in finding["message"] for finding in told["findings"]), told
        assert told["files"] == 300
        verified = (await anna.status())["mandates"][0]["verified"]
        assert verified["findings"] == len(told["findings"]) and verified["when_ms"] > 0


async def test_a_damaged_piece_of_the_history_is_named_and_fetched_again(lan: Lan, autojump_clock: MockClock) -> None:
    anna, bruno = await _office(lan, [])
    async with anna.on(), bruno.on():
        await _save(anna, bruno, ["one", "two"])
        damage_chunk(anna, "one")
        (found,) = (await verify(anna, BOOKS))["findings"]
        assert found["kind"] == "chunk" and found["name"] == "a.cre" and found["mended"] and found["mandate"] == BOOKS
        assert "“a.cre”, version " in found["message"] and "by Anna" in found["message"] and "fetched again" in found["message"]
        assert anna.mandate().books.vault.get(content_digest(b"one")) == b"one"
        assert (await verify(anna))["findings"] == []


async def test_it_is_mended_from_the_file_when_that_has_it(lan: Lan, autojump_clock: MockClock) -> None:
    anna = lan.machine("Anna")
    async with anna.on():
        await anna.create(BOOKS, anna.write("files/a.cre", "one"))
        await until(lambda: anna.mandate().idle)
        damage_chunk(anna, "one")
        (found,) = (await verify(anna))["findings"]
        assert found["mended"] and anna.mandate().books.vault.get(content_digest(b"one")) == b"one"


async def test_what_nobody_has_is_said_until_somebody_comes(lan: Lan, autojump_clock: MockClock) -> None:
    anna, bruno = await _office(lan, [])
    async with anna.on():
        async with bruno.on():
            await _save(anna, bruno, ["one", "two"])
        await until(lambda: not anna.mandate().conversations)
        damage_chunk(anna, "one")
        (found,) = (await verify(anna))["findings"]
        assert not found["mended"] and "no machine that is online has it" in found["message"] and "Verify again" in found["action"]
        async with bruno.on():
            await until(lambda: anna.talks(bruno))
            (found,) = (await verify(anna))["findings"]
            assert found["mended"]


async def test_a_damaged_file_is_named_and_not_sent_and_the_good_version_put_back_when_a_person_says_so(
    lan: Lan, autojump_clock: MockClock
) -> None:
    anna, bruno = await _office(lan, [])
    async with anna.on(), bruno.on():
        await _save(anna, bruno, ["one", "good"])
        await until(lambda: anna.mandate().idle)
        await trio.sleep(30)
        damage_file(anna, "files/a.cre", b"g0od")
        damage_chunk(anna, "good")
        found = {finding["kind"]: finding for finding in (await verify(anna))["findings"]}
        assert found["chunk"]["mended"]
        assert not found["file"]["mended"] and "the disk has damaged it" in found["file"]["message"]
        assert "The good version is in the history" in found["file"]["message"]
        assert "p2psync restore 'Dupont SA' a.cre" in found["file"]["action"]
        attachment = (await anna.status())["mandates"][0]["attachments"][0]
        assert (attachment["state"], attachment["code"]) == ("error", "damaged-file")
        times = os.stat(anna.place / "files/a.cre")
        (anna.place / "files/a.cre").chmod(0o640)  # which nobody would take for a save
        os.utime(anna.place / "files/a.cre", ns=(times.st_atime_ns, times.st_mtime_ns))
        anna.watcher.hear(anna.place / "files/a.cre")
        await trio.sleep(10)
        assert anna.mandate().attention.with_code("damaged-file")
        assert bruno.reads(HERE) == "good" and anna.reads("files/a.cre") == "g0od"
        before = len(anna.mandate().books.journal.ends)
        anna.mandate().attention.clear()  # as after a restart
        caretaker = trio.CancelScope()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_within, caretaker, Caretaker(anna.office).run)
            await until(lambda: anna.mandate().attention.with_code("damaged-file"))
            await anna.ask("/v1/restore", mandate=BOOKS, name="a.cre", version=None)
            await until(lambda: anna.reads("files/a.cre") == "good")
            await until(lambda: not anna.mandate().attention)
            caretaker.cancel()
        assert len(anna.mandate().books.journal.ends) == before and (await anna.wait())["agreed"]
        assert (await verify(anna))["findings"] == []
        rows = (await anna.ask("/v1/wait", timeout_s=5))["waiting_for"]
        assert rows == [] and bruno.reads(HERE) == "good"


async def _within(scope: trio.CancelScope, work: Any) -> None:
    with scope:
        await work()


async def test_what_is_being_written_is_no_damage(lan: Lan, autojump_clock: MockClock) -> None:
    anna = lan.machine("Anna")
    async with anna.on():
        await anna.create(BOOKS, anna.write("files/a.cre", "one"))
        await trio.sleep(30)
        (anna.place / "files/a.cre").write_text("saved, and the watcher has not told yet")
        told = await verify(anna)
        assert told["findings"] == [] and told["files"] == 0
        saved = content_digest(b"saved, and the watcher has not told yet")
        await until(lambda: saved in retaining.derive(anna.mandate().books, DEFAULT).needed)  # it was looked at instead


@pytest.mark.parametrize(
    ("statement", "why"),
    [
        ("UPDATE records SET raw = flipped(raw) WHERE n = (SELECT max(n) FROM records)", "not what its author"),
        ("UPDATE records SET raw = zeroblob(length(raw)) WHERE n = 2", "not what its author"),
        ("DELETE FROM records WHERE n = (SELECT max(n) - 1 FROM records)", "removed, or put in"),
        ("UPDATE entries SET digest = zeroblob(32) WHERE n = (SELECT max(n) FROM entries)", "the index of versions"),
        ("UPDATE records SET seq = seq + 1 WHERE n = (SELECT max(n) FROM records)", "another name"),
    ],
)
async def test_a_journal_that_somebody_changed_is_told(lan: Lan, autojump_clock: MockClock, statement: str, why: str) -> None:
    anna = lan.machine("Anna")
    async with anna.on():
        await anna.create(BOOKS, anna.write("files/a.cre", "one"))
        for text in ("two", "three"):
            anna.write("files/a.cre", text)
            await trio.sleep(10)
        _change(anna.mandate().books.ledger.path, statement)
        findings = (await verify(anna))["findings"]
        assert any(finding["kind"] == "journal" and why in finding["message"] for finding in findings), findings
        assert not any(finding["mended"] for finding in findings)


async def test_one_verification_at_a_time_and_work_goes_on(lan: Lan, autojump_clock: MockClock) -> None:
    anna, bruno = await _office(lan, [])
    async with anna.on(), bruno.on():
        await _save(anna, bruno, ["one"])
        anna.office.verifying.begin(anna.mandate())
        anna.office.verifying.begin(anna.mandate())
        with pytest.raises(VerifyRuns, match="Dupont SA"):
            anna.office.verifying.begin(None)
        anna.office._nursery.start_soon(anna.office.verifying.run)
        for n in range(5):
            anna.write("files/a.cre", f"version {n}")
            await trio.sleep(1)
        await until(lambda: bruno.reads(HERE) == "version 4" and not anna.office.verifying.running)
        assert anna.office.verifying.told()["findings"] == []


async def test_a_newer_version_that_waits_for_a_file_ends_the_reading_of_it(lan: Lan, autojump_clock: MockClock) -> None:
    anna = lan.machine("Anna")
    async with anna.on():
        await anna.create(BOOKS, anna.write("files/a.cre", "one"))
        await until(lambda: anna.mandate().idle)
        anna.mandate().attention["a.cre"] = Attention("open-here", 0)
        told = await verify(anna)
        assert (told["files"], told["findings"]) == (0, [])


async def test_a_conflict_copy_that_holds_something_else_is_named(lan: Lan, autojump_clock: MockClock) -> None:
    anna, bruno = await _office(lan, [])
    async with anna.on():
        async with bruno.on():
            await _save(anna, bruno, ["one"])
        bruno.write(HERE, "by Bruno")
        anna.write("files/a.cre", "by Anna")
        await until(lambda: anna.mandate().idle)
        async with bruno.on():
            await until(lambda: list((anna.place / "files").glob("a (Bruno*.cre")))
            await until(lambda: anna.mandate().idle)
            assert (await verify(anna))["findings"] == []
            (copy,) = (anna.place / "files").glob("a (Bruno*.cre")
            assert copy.read_text() == "by Bruno"
            copy.write_text("by a bad disk")
            (found,) = (await verify(anna))["findings"]
    assert (found["kind"], found["name"], found["mended"]) == ("copy", "a.cre", False)
    assert str(copy) in found["message"] and "by Bruno: somebody worked on it, or the disk" in found["message"]
    assert copy.read_text() == "by a bad disk"
