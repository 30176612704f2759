"""The books of a mandate: all of a transaction or nothing, in memory as on the disk; whatever arrives is judged before it is kept."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from p2psync.store import locations, paths, versions
from p2psync.store.books import Books, JournalLost, NotTaken
from p2psync.store.locations import Location
from p2psync.store.paths import PathView
from p2psync.values.acts import Role
from p2psync.values.content import EMPTY, File, Gone
from p2psync.values.entry import Act, Entry, Op, Ref, entry_for
from p2psync.values.errors import PeerError
from p2psync.values.names import DeviceId, RecordId, RelPath
from p2psync.values.record import Kind, Record
from tests.lan.desks import Desk

A = RelPath("recus/a")
SAVED = File(EMPTY)


def saved(path: RelPath = A, *parents: Ref) -> Entry:
    return entry_for(path, SAVED, parents=parents)


@pytest.fixture
def anna(tmp_path: Path) -> Iterator[Desk]:
    desk = Desk(tmp_path / "anna", "Anna").found()
    yield desk
    desk.books.close()


@pytest.fixture
def marie(tmp_path: Path, anna: Desk) -> Iterator[Desk]:
    desk = Desk(tmp_path / "marie", "Marie").join(anna, anna.invite("Marie"))
    yield desk
    desk.books.close()


@pytest.fixture
def reader(tmp_path: Path, anna: Desk) -> Iterator[Desk]:
    desk = Desk(tmp_path / "luc", "Luc").join(anna, anna.invite("Luc", Role.READER))
    yield desk
    desk.books.close()


def all_of(books: Books) -> list[bytes]:
    return books.journal.tails({log: (1, end.seq) for log, end in books.journal.ends.items()}, 1 << 30)[0]


def seen(books: Books) -> tuple[object, ...]:
    """All that the books say of themselves: once from memory, once from the disk."""
    db = books.ledger.read()
    tables = ("meta", "records", "entries", "places", "paths", "copies", "listings")
    kept = {table: db.execute(f"SELECT * FROM {table}").fetchall() for table in tables}
    members = sorted(books.roster.members())
    return books.journal.view(), books.journal.ends, members, books.attachments(), books.locations(), kept


# ---- one transaction


def test_a_transaction_that_fails_leaves_memory_and_disk_as_they_were(anna: Desk) -> None:
    books = anna.books
    books.record([saved()])
    before = seen(books)
    with pytest.raises(ZeroDivisionError), books.writing() as db:
        books.record([saved(RelPath("recus/b"))])
        anna.invite("Marie")
        books.place(Location(RelPath("recus"), "folder", Path("/nowhere")))
        paths.put(db, PathView(A, ("a",)))
        raise ZeroDivisionError
    assert seen(books) == before
    again = anna.home.open(books.state)
    assert seen(again)[:5] == before[:5]
    again.close()


def test_what_fails_in_the_middle_of_a_batch_leaves_nothing_of_it(anna: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    books = anna.books
    before = seen(books)
    real, calls = versions.insert, 0

    def failing(*args: object) -> set[RelPath]:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise OSError("the disk is gone")
        return real(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(versions, "insert", failing)
    entries = [saved(RelPath(f"recus/{number}")) for number in range(700)]
    with pytest.raises(OSError, match="the disk is gone"):
        books.record(entries)
    assert seen(books) == before
    monkeypatch.undo()
    assert [record.seq for record, _ in books.record(entries)] == [2, 3, 4]


def test_the_log_goes_on_where_it_was_after_a_failure(anna: Desk, marie: Desk) -> None:
    with pytest.raises(ZeroDivisionError), anna.books.writing():
        anna.books.record([saved()])
        raise ZeroDivisionError
    anna.books.record([saved()])
    marie.learn(anna)
    assert marie.books.journal.view() == anna.books.journal.view()


def test_records_that_fail_to_arrive_arrive_on_the_next_try(anna: Desk, marie: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    anna.books.record([saved()])
    before = seen(marie.books)
    monkeypatch.setattr(versions, "insert", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        marie.books.accept(all_of(anna.books))
    assert seen(marie.books) == before
    monkeypatch.undo()
    assert marie.books.accept(all_of(anna.books)).touched == {A}


def test_nothing_is_remembered_of_a_commit_that_failed(anna: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    before = seen(anna.books)
    with pytest.raises(sqlite3.OperationalError), anna.books.writing() as db:
        anna.books.record([saved()])
        db.execute("ROLLBACK")  # as SQLite itself does when the disk is full
    assert seen(anna.books) == before


# ---- recording


def test_many_entries_go_into_as_few_records_as_they_need(anna: Desk) -> None:
    made = anna.books.record([saved(RelPath(f"recus/{number}")) for number in range(600)])
    assert [len(entries) for _, entries in made] == [256, 256, 88]
    assert all(len(record.raw) <= 64 * 1024 for record, _ in made)


def test_long_entries_go_into_more_records(anna: Desk) -> None:
    long = RelPath("/".join(["recus", *(f"{letter}" * 200 for letter in "abcd")]))
    made = anna.books.record([Entry(Op.FOLDER, long / f"{number}") for number in range(256)])
    assert len(made) > 1 and all(len(record.raw) <= 64 * 1024 for record, _ in made)


def test_nothing_to_record_makes_no_record(anna: Desk) -> None:
    before = anna.books.journal.view()
    assert anna.books.record([]) == []
    assert anna.books.journal.view() == before


# ---- what arrives


def test_what_was_accepted_once_is_known(anna: Desk, marie: Desk) -> None:
    anna.books.record([saved()])
    first = marie.books.accept(all_of(anna.books))
    assert [record.kind for record in first.new] == [Kind.CHANGE] and first.touched == {A} and first.whole
    again = marie.books.accept(all_of(anna.books))
    assert not again.new and not again.touched and again.whole


def test_garbage_ends_the_reading_and_what_came_before_it_is_kept(anna: Desk, marie: Desk) -> None:
    (one, _), (other, _) = anna.books.record([saved()])[0], anna.books.record([saved(RelPath("recus/b"))])[0]
    accepted = marie.books.accept([one.raw, os.urandom(100), other.raw])
    assert [record.id for record in accepted.new] == [one.id]
    assert accepted.fault is not None and not accepted.whole
    assert marie.books.knows(one.id) and not marie.books.knows(other.id)


@pytest.mark.parametrize("spoil", ["bit", "cut", "more", "nothing"])
def test_a_record_that_was_touched_is_not_taken(anna: Desk, marie: Desk, spoil: str) -> None:
    ((record, _),) = anna.books.record([saved()])
    raw = record.raw
    bad = {"bit": raw[:50] + bytes([raw[50] ^ 1]) + raw[51:], "cut": raw[:-1], "more": raw + b"\0", "nothing": b""}[spoil]
    before = seen(marie.books)
    assert marie.books.accept([bad]).fault is not None
    assert seen(marie.books) == before


def test_a_record_that_comes_too_early_waits_for_what_it_stands_on(anna: Desk, marie: Desk) -> None:
    records = [anna.books.record([saved(RelPath(f"recus/{n}"))])[0][0] for n in range(3)]
    early = marie.books.accept([records[2].raw, records[1].raw], owner="anna's link")
    assert early.early == [records[2], records[1]] and not early.new
    accepted = marie.books.accept([records[0].raw], owner="luc's link")
    assert [record.id for record in accepted.new] == [record.id for record in records]


def test_what_a_link_that_is_gone_had_parked_is_forgotten(anna: Desk, marie: Desk) -> None:
    first, second = (anna.books.record([saved(RelPath(f"recus/{n}"))])[0][0] for n in range(2))
    marie.books.accept([second.raw], owner="anna's link")
    marie.books.left("anna's link")
    assert [record.id for record in marie.books.accept([first.raw]).new] == [first.id]


def test_the_change_of_a_reader_is_left_out(anna: Desk, reader: Desk) -> None:
    change, _ = reader.books.journal.compose(
        reader.books.keys.signing, reader.books.secret.incarnation, Kind.CHANGE, [saved().pack()], 0, {}
    )
    before = seen(anna.books)
    accepted = anna.books.accept([change.raw], owner="luc's link")
    assert not accepted.new and len(accepted.alarms) == 1 and accepted.alarms[0][0] == "luc's link"
    assert seen(anna.books) == before
    with pytest.raises(NotTaken):
        reader.books.record([saved()])
    assert not reader.books.may_write


def test_the_record_of_a_stranger_is_left_out(anna: Desk, tmp_path: Path) -> None:
    stranger = Desk(tmp_path / "eve", "Eve").found()
    genesis = Record.parse(all_of(anna.books)[0])
    forged = Record.sign(
        stranger.home.keys.signing,
        mandate=anna.books.mandate,
        incarnation=b"incarnat",
        seq=1,
        prev=None,
        deps=[genesis.id],
        time_ms=0,
        kind=Kind.CHANGE,
        body=[saved().pack()],
    )
    assert anna.books.accept([forged.raw]).alarms
    assert anna.books.accept(all_of(stranger.books)).alarms, "nor those of another mandate"
    assert set(anna.books.roster.members()) == {anna.home.device}
    stranger.books.close()


def test_a_fork_is_reported_and_changes_nothing(anna: Desk, marie: Desk, tmp_path: Path) -> None:
    twin, _ = anna.books.journal.compose(
        anna.books.keys.signing, anna.books.secret.incarnation, Kind.CHANGE, [saved(RelPath("recus/twin")).pack()], 0, {}
    )
    anna.books.record([saved()])
    marie.books.accept(all_of(anna.books))
    before = seen(marie.books)
    assert marie.books.accept([twin.raw]).forks == [twin]
    assert seen(marie.books) == before


BAD_PATHS = [
    "../../etc/passwd",
    "/etc/passwd",
    "recus//a",
    "recus/./a",
    "recus/con",
    "recus/a\\b",
    "recus/.p2psync-x",
    "recus/a\0b",
    "a/" * 40,
]


@pytest.mark.parametrize("path", BAD_PATHS)
def test_entries_with_bad_paths_are_left_out_and_their_record_is_kept(anna: Desk, marie: Desk, path: str) -> None:
    """The record is part of a chain, and of what everybody signs on top of: it stays whole, as others have it."""
    bad = list(saved().pack())  # type: ignore[arg-type]
    bad[1] = path
    record = anna.books.act(Kind.CHANGE, [bad, saved().pack()])
    marie.learn(anna)
    assert marie.books.journal.view() == anna.books.journal.view()
    for desk in (anna, marie):
        heads = versions.heads(desk.books.ledger.read(), A)
        assert [head.ref for head in heads.all] == [Ref(record.id, 1)], "entries keep their numbers"
        assert {v.entry.path for v in versions.history(desk.books.ledger.read(), None)} == {A}


@pytest.mark.parametrize("body", [[], [[1, 2, 3]], ["text"], [[99, "recus/a", None, False, 0, [], 0, ""]], [saved().pack()] * 257])
def test_a_change_whose_body_is_none_is_left_out(anna: Desk, marie: Desk, body: list[object]) -> None:
    record, _ = anna.books.journal.compose(anna.books.keys.signing, anna.books.secret.incarnation, Kind.CHANGE, body, 0, {})  # type: ignore[arg-type]
    before = seen(marie.books)
    assert marie.books.accept([record.raw]).alarms
    assert seen(marie.books) == before


def test_numbers_at_their_limits_are_kept_or_refused_and_break_nothing(anna: Desk, marie: Desk) -> None:
    huge = list(saved().pack())  # type: ignore[arg-type]
    huge[4] = 2**64 - 1
    anna.books.act(Kind.CHANGE, [huge])
    marie.learn(anna)
    assert marie.books.journal.view() == anna.books.journal.view()
    too_large = list(saved(RelPath("recus/b")).pack())  # type: ignore[arg-type]
    too_large[2] = [EMPTY.digest, 2**64 - 1, EMPTY.listing]
    record, _ = anna.books.journal.compose(anna.books.keys.signing, anna.books.secret.incarnation, Kind.CHANGE, [too_large], 0, {})
    assert marie.books.accept([record.raw]).alarms


# ---- heads do not depend on the order of arrival


def test_what_an_entry_supersedes_must_be_in_what_its_author_knew(anna: Desk, marie: Desk, tmp_path: Path) -> None:
    """An entry that names a version which its record does not stand on supersedes nothing, whoever hears of which first."""
    luc = Desk(tmp_path / "luc", "Luc").join(anna, anna.invite("Luc"))
    marie.learn(anna)
    ((by_marie, _),) = marie.books.record([saved()])
    ((by_luc, _),) = luc.books.record([entry_for(A, Gone(), parents=(Ref(by_marie.id, 0),))])
    for raws in ([by_marie.raw, by_luc.raw], [by_luc.raw, by_marie.raw]):
        (anna if raws[0] == by_marie.raw else luc).books.accept(raws)
    luc.books.accept([by_marie.raw])
    found = [versions.heads(desk.books.ledger.read(), A).refs for desk in (anna, luc)]
    assert found[0] == found[1] == {Ref(by_marie.id, 0), Ref(by_luc.id, 0)}
    luc.books.close()


# ---- the rest


def test_a_journal_that_is_lost_says_so(anna: Desk) -> None:
    state = anna.books.state
    anna.books.close()
    for name in ("ledger.db", "ledger.db-wal", "ledger.db-shm"):
        (state / name).unlink(missing_ok=True)
    books = anna.home.open(state)
    with pytest.raises(JournalLost, match="subscribe again"):
        _ = books.roster
    books.close()
    anna.books = anna.home.open(state)


def test_a_device_says_only_what_its_role_allows(anna: Desk, reader: Desk) -> None:
    with pytest.raises(PeerError):
        reader.books.act(Kind.GRANT, [bytes(reader.home.device), int(Role.OWNER)])
    before = seen(anna.books)
    with pytest.raises(PeerError):
        anna.books.act(Kind.GRANT, [bytes(DeviceId(b"x" * 32)), int(Role.OWNER)])
    assert seen(anna.books) == before


def test_everything_is_found_again(anna: Desk, marie: Desk) -> None:
    anna.books.record([Entry(Op.ATTACH_FOLDER, RelPath("recus"), act=Act.ATTACH), saved()])
    anna.books.place(Location(RelPath("recus"), "folder", Path("/recus"), (1, 2), "many-deletions"))
    before = seen(anna.books)
    anna.restart()
    assert seen(anna.books) == before
    assert anna.books.locations() == locations.get_all(anna.books.ledger.read())
    anna.books.unplace(RelPath("recus"))
    assert anna.books.locations() == {}


def test_positions_place_what_others_say_they_hold(anna: Desk) -> None:
    before = anna.books.journal.view()
    anna.books.record([saved()])
    assert anna.books.positions[before] < anna.books.positions[anna.books.journal.view()]
    assert anna.books.knows(RecordId(bytes(32))) is False
