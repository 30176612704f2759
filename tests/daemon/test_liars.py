"""A member that lies, floods or keeps silent costs its own link, is named, and holds up nobody else."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
from trio.testing import MockClock

from p2psync.daemon import conversation, outbox
from p2psync.engine import messages as m
from p2psync.engine import parking
from p2psync.values.content import Chunk, Content, Listing
from p2psync.values.digest import Digest, content_digest
from p2psync.values.entry import Act, Entry, Op
from p2psync.values.names import DeviceId, RecordId, RelPath
from p2psync.values.packing import pack
from p2psync.values.record import Kind, Record
from tests.lan.fake_lan import Lan, Machine, noting, until
from tests.lan.puppet import HANDLE, Puppet

BOOKS = "Dupont SA"


@asynccontextmanager
async def office(lan: Lan, *others: str, role: str = "editor") -> AsyncIterator[tuple[Machine, Puppet]]:
    """Anna, who founded the mandate, is on; Mallory, who takes part with this role, does as the test says. Others may come too."""
    anna = lan.machine("Anna")
    async with anna.on():
        await anna.create(BOOKS, anna.write("journal.csv", "one"))
        mallory = lan.machine("Mallory", peers=(anna,))
        async with mallory.on():
            ticket = await anna.ask("/v1/invite", mandate=BOOKS, role=role, **{"for": "Mallory"})
            await mallory.subscribe(str(ticket["ticket"]))
            await until(lambda: mallory.reads(f"{BOOKS}/journal.csv") == "one")
        puppet = Puppet(lan, mallory)
        try:
            yield anna, puppet
        finally:
            puppet.close()


def change(puppet: Puppet, *entries: Entry, seq: int | None = None, prev: RecordId | None = None) -> Record:
    """A change signed by the puppet, at the end of its log or at this place in it."""
    journal, log = puppet.books.journal, (puppet.home.device, puppet.books.secret.incarnation)
    end = journal.ends[log]
    deps = [e.id for other, e in journal.ends.items() if other != log]
    return Record.sign(
        puppet.home.keys.signing,
        mandate=puppet.books.mandate,
        incarnation=log[1],
        seq=seq or end.seq + 1,
        prev=prev or end.id,
        deps=deps,
        time_ms=0,
        kind=Kind.CHANGE,
        body=[entry.pack() for entry in entries],
    )


def save(data: bytes, name: str = "new.csv", listing: Digest | None = None, size: int | None = None) -> tuple[Entry, Entry]:
    """The entries that attach a file with this content."""
    content = Content(content_digest(data), len(data) if size is None else size, listing or content_digest(data))
    return Entry(Op.ATTACH_FILE, RelPath(name), act=Act.ATTACH), Entry(Op.FILE, RelPath(name), content)


def problems(machine: Machine) -> set[str]:
    from p2psync.daemon import status

    return {problem["code"] for problem in status.problems(machine.office)}


# ---- records


async def test_a_reader_that_signs_a_change_is_left_and_named(lan: Lan, autojump_clock: MockClock) -> None:
    async with office(lan, role="reader") as (anna, mallory):
        async with mallory.calling(anna):
            await mallory.say(m.Records(HANDLE, (change(mallory, *save(b"x")).raw,)))
            assert await mallory.is_left() == m.CloseCode.ROLE
        assert "machine-left" in problems(anna)
        assert "Mallory" in str(next(e for e in anna.office.problems.values()))
        assert "new.csv" not in {a.text for a in anna.mandate().books.attachments()}
        async with mallory.calling(anna, opened=False):
            await mallory.say(m.Hello(1, 1, 0, 0, b"", "puppet"))
            assert await mallory.is_left() == m.CloseCode.BUSY
        await trio.sleep(120)
        async with mallory.calling(anna):
            await trio.sleep(120)
            assert mallory.over is None
        assert "machine-left" not in problems(anna)


async def test_an_honest_machine_is_not_blamed_for_what_another_parked(lan: Lan, autojump_clock: MockClock) -> None:
    """The bad record waits for a good one, which somebody else brings along."""
    async with office(lan, role="reader") as (anna, mallory):
        bruno = lan.machine("Bruno", peers=(anna,))
        async with bruno.on():
            await bruno.subscribe(await anna.invite(BOOKS, "Bruno"))
            await until(lambda: bruno.office.mandates and bruno.talks(anna))
            lan.unplugged.add(bruno.address)
            bruno.write(f"{BOOKS}/journal.csv", "two")
            await until(lambda: bruno.mandate().idle and len(bruno.mandate().books.journal.ends[_own(bruno)].past) > 1)
            await trio.sleep(60)
            needed = bruno.mandate().books.journal.ends[_own(bruno)].id
            bad = Record.sign(
                mallory.home.keys.signing,
                mandate=mallory.books.mandate,
                incarnation=mallory.books.secret.incarnation,
                seq=3,
                prev=mallory.books.journal.ends[mallory.home.device, mallory.books.secret.incarnation].id,
                deps=[needed],
                time_ms=0,
                kind=Kind.CHANGE,
                body=[entry.pack() for entry in save(b"x")],
            )
            async with mallory.calling(anna):
                await mallory.say(m.Records(HANDLE, (bad.raw,)))
                await trio.sleep(1)
                assert mallory.over is None
                bruno.plug()
                assert await mallory.is_left() == m.CloseCode.ROLE
            await until(lambda: anna.reads("journal.csv") == "two")
            assert anna.talks(bruno)
            assert [e.facts["machine"] for e in anna.office.problems.values()] == [anna.office.machine(mallory.home.device)]


def _own(machine: Machine) -> tuple[DeviceId, bytes]:
    return machine.office.device, machine.mandate().books.secret.incarnation


async def test_numbers_that_no_database_takes_are_refused(lan: Lan, autojump_clock: MockClock) -> None:
    async with office(lan) as (anna, mallory):
        async with mallory.calling(anna):
            await mallory.say(m.Want(HANDLE, (m.LogRange(DeviceId(bytes(32)), bytes(8), 2**64 - 1, 2**64 - 1),)))
            await trio.sleep(1)
            assert mallory.over is None
            await mallory.say(m.Records(HANDLE, (_with_number(mallory, time_ms=2**64 - 1),)))
            assert await mallory.is_left() == m.CloseCode.PROTOCOL
        anna.write("journal.csv", "two")
        await until(lambda: anna.mandate().idle)


def _with_number(puppet: Puppet, time_ms: int) -> bytes:
    good = change(puppet, *save(b"x"))
    device, prev = good.device, good.prev
    envelope = pack([1, good.mandate, device, good.incarnation, good.seq, prev, list(good.deps), time_ms, int(good.kind), list(good.body)])
    return pack([envelope, puppet.home.keys.signing.sign(b"p2psync/1 record\0" + envelope).signature])


async def test_records_whose_ground_never_comes_take_a_bounded_place(
    lan: Lan, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parking, "EACH", 5)
    async with office(lan) as (anna, mallory):
        async with mallory.calling(anna):
            for seq in range(10, 30):
                raw = change(mallory, *save(b"x"), seq=seq, prev=RecordId(bytes([seq]) * 32)).raw
                await mallory.say(m.Records(HANDLE, (raw, raw)))
            await trio.sleep(1)
            assert len(anna.mandate().books._parking) == 5
            assert mallory.over is None
        await until(lambda: not anna.office.links)
        await anna.mandate().intake.accept([], None)
        assert len(anna.mandate().books._parking) == 0


async def test_records_that_overtake_each_other_are_taken_when_the_last_has_come(lan: Lan, autojump_clock: MockClock) -> None:
    async with office(lan) as (anna, mallory):
        log = (mallory.home.device, mallory.books.secret.incarnation)
        first = change(mallory, *save(b"x"))
        second = change(mallory, save(b"y")[1], seq=first.seq + 1, prev=first.id)
        third = change(mallory, save(b"z")[1], seq=first.seq + 2, prev=second.id)
        async with mallory.calling(anna):
            for record in (third, second, first):
                await mallory.say(m.Records(HANDLE, (record.raw,)))
            await until(lambda: anna.mandate().books.journal.ends[log].id == third.id)


async def test_heads_that_never_come_do_not_keep_others_from_being_asked(lan: Lan, autojump_clock: MockClock) -> None:
    async with office(lan) as (anna, mallory):
        bruno = lan.machine("Bruno", peers=(anna,))
        async with bruno.on():
            await bruno.subscribe(await anna.invite(BOOKS, "Bruno"))
            await until(lambda: bruno.office.mandates and bruno.talks(anna))
            lan.unplugged.add(bruno.address)
            bruno.write(f"{BOOKS}/journal.csv", "two")
            await trio.sleep(60)
            log = _own(bruno)
            async with mallory.calling(anna):
                for _ in range(3):
                    await mallory.say(m.Heads(HANDLE, (m.LogHead(*log, 10**9, RecordId(bytes(32))),)))
                await mallory.hears(m.Want)
                bruno.plug()
                await until(lambda: anna.talks(bruno))
                since = trio.current_time()
                await until(lambda: anna.reads("journal.csv") == "two")
                assert trio.current_time() - since < 2 * conversation.ANSWER_S


# ---- content


async def test_a_chunk_that_never_comes_is_asked_of_somebody_else(lan: Lan, autojump_clock: MockClock) -> None:
    async with office(lan) as (anna, mallory), mallory.calling(anna):
        await mallory.say(m.Records(HANDLE, (change(mallory, *save(b"the data")).raw,)))
        asked = await mallory.hears(m.WantChunks)
        assert asked.ids == (content_digest(b"the data"),)
        since = trio.current_time()
        await until(lambda: "no-answer" in problems(anna))
        assert 55 < trio.current_time() - since < 75
        assert anna.mandate().fetcher.nobody_has("new.csv")
        await until(lambda: mallory.count(m.WantChunks) == 2, "it is asked again after a while")
        await mallory.say(m.Chunk(HANDLE, asked.ids[0], b"the data"))
        await until(lambda: anna.reads(f"{BOOKS}/new.csv") == "the data")
        assert "no-answer" not in problems(anna)


async def test_a_chunk_that_is_another_one_is_the_last_word(lan: Lan, autojump_clock: MockClock) -> None:
    async with office(lan) as (anna, mallory):
        async with mallory.calling(anna):
            await mallory.say(m.Records(HANDLE, (change(mallory, *save(b"the data")).raw,)))
            asked = await mallory.hears(m.WantChunks)
            await mallory.say(m.Chunk(HANDLE, asked.ids[0], b"other data"))
            assert await mallory.is_left() == m.CloseCode.PROTOCOL
        assert "machine-left" in problems(anna)


async def test_pages_without_end_are_refused(lan: Lan, autojump_clock: MockClock) -> None:
    async with office(lan) as (anna, mallory), mallory.calling(anna):
        entries = save(b"the data", listing=Digest(bytes(32)), size=10_000_000)
        await mallory.say(m.Records(HANDLE, (change(mallory, *entries).raw,)))
        await mallory.hears(m.WantListing)
        await mallory.say(m.Listing(HANDLE, Digest(bytes(32)), 0, 65535, bytes(10)))
        assert await mallory.is_left() == m.CloseCode.PROTOCOL


# ---- floods


async def test_answers_without_a_question_leave_nothing_behind(lan: Lan, autojump_clock: MockClock) -> None:
    async with office(lan) as (anna, mallory), mallory.calling(anna):
        for number in range(200):
            digest = Digest(number.to_bytes(32, "big"))
            await mallory.say(m.NoChunk(HANDLE, digest))
            await mallory.say(m.NoListing(HANDLE, digest))
            await mallory.say(m.Chunk(HANDLE, content_digest(b"%d" % number), b"%d" % number))
        await trio.sleep(1)
        assert mallory.over is None
        (peer,) = anna.office.links.values()
        assert peer.turns.load.items == 0
        (known,) = anna.mandate().fetcher._transfer._peers.values()
        assert not known.lacks


async def test_the_proof_of_membership_is_given_once(lan: Lan, autojump_clock: MockClock) -> None:
    async with office(lan) as (anna, mallory), mallory.calling(anna):
        for _ in range(100):
            await mallory.say(m.Who(anna.mandate().id))
        await trio.sleep(1)
        assert mallory.count(m.Introduce) == 1


async def test_who_makes_us_say_more_than_it_takes_is_left(lan: Lan, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox, "MOST", 20_000)
    async with office(lan) as (anna, mallory), mallory.calling(anna):
        (peer,) = anna.office.links.values()
        lan.unplugged.add(anna.address)
        for _ in range(30):
            peer.say(m.Heads(0, ()))
        assert not peer._outbox.full
        for _ in range(100):
            peer.say(m.Heads(0, ()))
        await until(lambda: not anna.office.links)


async def test_who_asks_for_more_than_it_may_is_left(lan: Lan, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch) -> None:
    async with office(lan) as (anna, mallory):
        monkeypatch.setattr(outbox, "JOBS", 0)
        async with mallory.calling(anna):
            await mallory.say(m.WantListing(HANDLE, Digest(bytes(32)), 0))
            assert await mallory.is_left() == m.CloseCode.TOO_MUCH


async def test_news_is_held_back_from_who_is_slow_and_told_afterwards(
    lan: Lan, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox, "CROWDED", -1)
    anna = lan.machine("Anna")
    bruno = lan.machine("Bruno", peers=(anna,))
    async with anna.on(), bruno.on():
        await anna.create(BOOKS, anna.write("journal.csv", "one"))
        await bruno.subscribe(await anna.invite(BOOKS, "Bruno"))
        await until(lambda: bruno.reads(f"{BOOKS}/journal.csv") == "one")
        with noting(conversation.Conversation, "catch_up") as caught_up:
            anna.write("journal.csv", "two")
            await until(lambda: bruno.reads(f"{BOOKS}/journal.csv") == "two")
        assert caught_up


async def test_a_list_that_does_not_make_up_its_content_is_fetched_twice_and_no_more(
    lan: Lan, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("sources", "seeing", "apply", "preparing"):
        monkeypatch.setattr(f"p2psync.store.{module}.VAULTED", 1000)
    async with office(lan) as (anna, mallory), mallory.calling(anna):
        pieces = [bytes([number]) * 50_000 for number in range(4)]
        listing = Listing.of([Chunk(content_digest(piece), 50_000 * at, 50_000) for at, piece in enumerate(pieces)])
        chunks = {content_digest(piece): piece for piece in pieces}
        await mallory.say(m.Records(HANDLE, (change(mallory, *save(b"other", listing=listing.digest, size=200_000)).raw,)))
        given: list[Digest] = []
        answered = 0
        with trio.move_on_after(200):
            while True:
                await trio.sleep(0.1)
                asked, answered = mallory.heard[answered:], len(mallory.heard)
                for message in asked:
                    if isinstance(message, m.WantListing):
                        await mallory.say(m.Listing(HANDLE, message.listing, 0, 1, listing.packed))
                    for digest in message.ids if isinstance(message, m.WantChunks) else ():
                        given.append(digest)
                        await mallory.say(m.Chunk(HANDLE, digest, chunks[digest]))
        assert len(given) == 2 * len(chunks)
        assert mallory.over is None and anna.reads(f"{BOOKS}/new.csv") is None
