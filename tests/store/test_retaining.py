"""What the history lets go of, and what it never does, whatever happens in between."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from p2psync.engine.retention import Policy
from p2psync.store import apply, attaching, calendar, preparing, resolving, retaining, seeing, sources, versions
from p2psync.store.calendar import DAY_S
from p2psync.store.listings import chunks_of
from p2psync.store.retaining import Kept
from p2psync.values.content import CHUNK_MAX, Content, File
from p2psync.values.digest import Digest, content_digest
from p2psync.values.names import RelPath
from tests.lan.desks import Desk, two_desks
from tests.lan.kill import killing

SHORT = Policy(2, 3, 0)
NAME = RelPath("compta.cre")


@pytest.fixture
def desks(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Desk, Desk]]:
    with two_desks(monkeypatch) as (anna, marie):
        anna.folder.mkdir()
        book(anna).write_bytes(data(0))
        anna.attach(book(anna))
        marie.learn(anna)
        marie.settle(anna)
        yield anna, marie


def book(desk: Desk) -> Path:
    return desk.folder / "compta.cre"


def data(number: int) -> bytes:
    """Two chunks at least, of which only the first is the same in all versions."""
    return bytes(CHUNK_MAX) + b"version %d " % number * 9000


def save(desk: Desk, number: int) -> Digest:
    book(desk).write_bytes(data(number))
    desk.settle()
    return content_digest(data(number))


def has(desk: Desk, content: Digest) -> bool:
    chunks = chunks_of(desk.books.ledger.read(), content)
    return desk.books.vault.has(chunks) == chunks


def collect(desk: Desk, policy: Policy = SHORT, spared: frozenset[Digest] = frozenset()) -> int:
    """Let go of what may go; twice, since what was put a moment ago stays for one more time."""
    gone = 0
    for _ in range(3):
        kept = retaining.derive(desk.books, policy)
        retaining.let_go(desk.books, kept)
        desk.books.vault.collecting()
        after: Digest | None = None
        while True:
            removed = retaining.collect(desk.books, kept, spared, after, 2)
            gone, after = gone + removed.chunks, removed.after
            if after is None:
                break
    return gone


def days_pass(desk: Desk, days: int) -> None:
    calendar.count(desk.books, DAY_S)
    calendar.count(desk.books, (days - 1) * DAY_S)


def test_what_may_go_goes_and_the_rest_stays(desks: tuple[Desk, Desk]) -> None:
    anna, _ = desks
    first = [save(anna, n) for n in (1, 2)]
    days_pass(anna, 1)
    second = [save(anna, n) for n in (3, 4)]
    days_pass(anna, 1)
    assert collect(anna) == 0
    assert retaining.derive(anna.books, SHORT).unneeded == frozenset()
    days_pass(anna, 2)
    assert collect(anna) > 0
    assert [has(anna, one) for one in (*first, *second)] == [False, True, True, True]
    db = anna.books.ledger.read()
    assert retaining.dropped(db, first[0]) == anna.clock and retaining.dropped(db, first[1]) is None
    days_pass(anna, 50)
    collect(anna)
    assert [has(anna, one) for one in (*first, *second)] == [False, False, False, True]
    assert len(versions.history(db, NAME)) == 6  # what was said stays said
    assert collect(anna) == 0


def test_a_clock_that_jumps_lets_nothing_go(desks: tuple[Desk, Desk]) -> None:
    anna, marie = desks
    calendar.count(anna.books, None)
    made = [save(anna, n) for n in (1, 2, 3)]
    for clock in (anna.clock + 10 * 365 * DAY_S * 1000, 1):
        anna.clock = marie.clock = clock
        anna.restart()
        calendar.count(anna.books, None)
        collect(anna)
        assert all(has(anna, one) for one in made)
    book(marie).write_bytes(data(9))  # signed by somebody who lives in 1970
    marie.learn(anna)
    marie.settle(anna)
    anna.learn(marie)
    anna.settle(marie)
    collect(anna)
    assert all(has(anna, one) for one in made)


def test_no_side_of_a_conflict_goes_before_or_after_it_is_resolved(desks: tuple[Desk, Desk]) -> None:
    anna, marie = desks
    sides = [save(anna, 1), save(marie, 2)]
    anna.learn(marie)
    anna.settle(marie)
    assert anna.conflicts() == {"compta.cre"}
    days_pass(anna, 5000)
    collect(anna)
    assert all(anna.sources.complete(c) for c in _contents(anna, sides))
    anna.resolve("compta.cre", "mine")
    anna.settle()
    days_pass(anna, 5000)
    save(anna, 3)
    days_pass(anna, 5000)
    collect(anna)
    assert all(has(anna, side) for side in sides)
    assert not has(anna, content_digest(data(0)))


def _contents(desk: Desk, digests: list[Digest]) -> list[Content]:
    found = [v.entry.content for v in versions.history(desk.books.ledger.read(), NAME)]
    return [c for c in found if c is not None and c.digest in digests]


def test_a_deleted_file_and_a_detached_one_keep_their_last_version(desks: tuple[Desk, Desk]) -> None:
    anna, _ = desks
    last = save(anna, 1)
    attaching.detach(anna.books, "compta.cre", "")
    anna.todo.add(NAME)
    anna.settle()
    days_pass(anna, 9000)
    collect(anna)
    assert has(anna, last)
    assert len(resolving.bytes_of(anna.books, anna.sources, "compta.cre", None)) > 1


def test_what_is_spared_and_what_has_just_been_put_stays(desks: tuple[Desk, Desk]) -> None:
    anna, _ = desks
    old = save(anna, 1)
    save(anna, 2)
    days_pass(anna, 90)
    assert collect(anna, spared=frozenset({old, content_digest(data(0))})) == 0
    piece = b"put a moment ago, and not in the ledger yet"
    kept = retaining.derive(anna.books, SHORT)
    anna.books.vault.collecting()
    anna.books.vault.keep([(content_digest(piece), piece)])
    present = next(iter(chunks_of(anna.books.ledger.read(), old) - chunks_of(anna.books.ledger.read(), content_digest(data(2)))))
    again = anna.books.vault.get(present)
    assert again is not None
    anna.books.vault.keep([(present, again)])  # it was there, and somebody counts on it now
    retaining.collect(anna.books, kept, (), None, 512)
    anna.books.vault.collecting()
    retaining.collect(anna.books, kept, (), None, 512)
    assert anna.books.vault.has([content_digest(piece), present]) == {content_digest(piece), present}
    anna.books.vault.collecting()
    retaining.collect(anna.books, kept, (), None, 512)
    assert not anna.books.vault.has([content_digest(piece), present])


def test_an_older_decision_counts_no_more(desks: tuple[Desk, Desk]) -> None:
    """Between deciding and collecting somebody brings the old version back."""
    anna, _ = desks
    old = save(anna, 1)
    save(anna, 2)
    days_pass(anna, 90)
    kept = retaining.derive(anna.books, SHORT)
    assert old in kept.unneeded
    version = next(v for v in versions.history(anna.books.ledger.read(), NAME) if v.entry.content and v.entry.content.digest == old)
    resolving.restore(anna.books, "compta.cre", version.short, "")
    with pytest.raises(LookupError):
        retaining.collect(anna.books, kept, (), None, 512)
    collect(anna)
    assert has(anna, old)


def test_what_a_file_was_seen_to_hold_since_stays(desks: tuple[Desk, Desk]) -> None:
    anna, _ = desks
    old = save(anna, 1)
    save(anna, 2)
    days_pass(anna, 90)
    kept = retaining.derive(anna.books, SHORT)
    with sqlite3.connect(anna.books.ledger.path) as db:
        db.execute("UPDATE paths SET digest = ? WHERE path = ?", (old, NAME.text))
    db.close()
    for _ in range(3):
        anna.books.vault.collecting()
        retaining.collect(anna.books, kept, (), None, 512)
    assert has(anna, old)


def test_a_version_that_comes_back_is_no_longer_said_to_be_gone(desks: tuple[Desk, Desk]) -> None:
    anna, _ = desks
    old = save(anna, 1)
    save(anna, 2)
    days_pass(anna, 90)
    collect(anna)
    assert retaining.dropped(anna.books.ledger.read(), old)
    save(anna, 1)
    collect(anna)
    assert has(anna, old) and not retaining.dropped(anna.books.ledger.read(), old)


def test_killed_at_any_step_nothing_needed_is_lost_and_the_rest_goes_next_time(desks: tuple[Desk, Desk]) -> None:
    anna, _ = desks

    def history() -> Kept:
        for n in range(3):
            save(anna, number * 10 + n)
        days_pass(anna, 90)
        return retaining.derive(anna.books, SHORT)

    number = 1
    history()
    with killing() as counted:
        collect(anna)
    steps = counted.steps
    assert {"remove", "commit"} <= set(steps)
    for at in range(len(steps)):
        for after in (False, True):
            number += 1
            kept = history()
            with killing(at, after=after):
                collect(anna)
            anna.restart()
            calendar.count(anna.books, None)
            assert all(has(anna, one) for one in kept.needed), (at, after)
            collect(anna)
            assert not any(has(anna, one) for one in kept.unneeded), (at, after)
            assert anna.sources.complete(_head(anna).content)


def _head(desk: Desk) -> File:
    state = versions.heads(desk.books.ledger.read(), NAME).winner.state
    assert isinstance(state, File)
    return state


def test_a_large_file_that_is_overwritten_in_place_is_kept_by_those_who_had_it(
    desks: tuple[Desk, Desk], monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (sources, seeing, apply, preparing):
        monkeypatch.setattr(module, "VAULTED", 1000)
    anna, marie = desks
    old = save(anna, 1)
    marie.learn(anna)
    marie.settle(anna)
    (content,) = _contents(anna, [old])
    assert anna.sources.complete(content) and not has(anna, old)
    save(anna, 2)
    assert not anna.sources.complete(content)
    marie.learn(anna)
    marie.settle(anna)
    assert has(marie, old) and marie.sources.complete(content)


def test_room_is_given_back_or_used_again(desks: tuple[Desk, Desk]) -> None:
    anna, _ = desks
    book(anna).write_bytes(os.urandom(3_000_000))
    anna.settle()
    save(anna, 2)
    days_pass(anna, 90)
    vault = anna.books.vault
    before, used = vault.size, vault.used
    with vault._reader() as db:
        assert [db.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_size", "auto_vacuum")] == [16384, 2]
    collect(anna)
    assert vault.used < used - 2_900_000 and vault.size == before
    turns = 1
    while vault.shrink(500_000):
        turns += 1
    assert turns < 10
    assert vault.size == vault.used < before - 2_500_000
