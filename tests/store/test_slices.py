"""So much that is new that one look does not take it all on: it goes on where it was, and what was seen is recorded meanwhile."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator

import pytest

from p2psync.store import attaching, look, paths, slices
from p2psync.store.spots import Looked, Spot
from p2psync.values.entry import Op
from p2psync.values.names import RelPath
from tests.lan.desks import Desk, exchange, tree, two_desks
from tests.store.test_newcomers import write_many

RECUS = RelPath("recus")
SLICE = 40


@pytest.fixture
def desks(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Desk, Desk]]:
    monkeypatch.setattr(slices, "AT_ONCE", SLICE)
    with two_desks(monkeypatch) as (anna, marie):
        (anna.files / "recus").mkdir(parents=True)
        anna.attach(anna.files / "recus")
        exchange(anna, marie)
        yield anna, marie


def spots_of(desk: Desk) -> set[Spot]:
    return desk.look.survey(RECUS, Looked())


def recorded_by(desk: Desk) -> list[str]:
    rows = desk.books.ledger.read().execute(f"SELECT path FROM entries WHERE head = 1 AND op = {int(Op.FILE)} ORDER BY path")
    return [row[0] for row in rows]


def test_what_one_look_saw_is_recorded_before_the_next(desks: tuple[Desk, Desk]) -> None:
    anna, marie = desks
    texts = write_many(anna.files / "recus", 150)
    spots, recorded = spots_of(anna), list[int]()
    while spots or anna.look.unseen:
        found = anna.look.look(spots)
        assert len(found.todo) <= SLICE
        recorded.append(len(anna.work.work(found.todo).records))
        spots = set()
    assert len(recorded) == 4 and all(recorded)  # 150 files, 3 folders, and 3 in them
    order = [row[0] for row in anna.books.ledger.read().execute("SELECT path FROM entries WHERE attaches = 0 ORDER BY n")]
    assert all(RelPath(path).parent in (RECUS, *map(RelPath, order[:at])) for at, path in enumerate(order))
    exchange(anna, marie)
    assert tree(marie.folder / "recus") == texts


def test_one_look_does_not_go_through_all_that_waits(desks: tuple[Desk, Desk], monkeypatch: pytest.MonkeyPatch) -> None:
    anna, _ = desks
    write_many(anna.files / "recus", 200)
    monkeypatch.setattr(look, "LOT", 10)
    anna.look.look(spots_of(anna))
    asked: list[RelPath] = []

    def get_all(db: sqlite3.Connection, wanted: list[RelPath]) -> dict[RelPath, paths.PathView]:
        asked.extend(wanted)
        return {}

    monkeypatch.setattr(paths, "get_all", get_all)
    anna.look.look(set())
    assert anna.look.unseen and 0 < len(asked) <= SLICE + 10


def test_what_is_known_is_looked_at_all_the_same(desks: tuple[Desk, Desk]) -> None:
    anna, _ = desks
    old = write_many(anna.files / "recus", 100)
    anna.settle()
    for name in old:
        (anna.files / "recus" / name).write_text(f"{name} was changed")
    (anna.files / "recus" / "00 new").mkdir()
    write_many(anna.files / "recus" / "00 new", 100)
    found = anna.look.look(spots_of(anna))
    assert {f"recus/{name}" for name in old} <= {path.text for path in found.todo}
    assert anna.look.unseen == {RECUS}


def test_a_folder_that_was_moved_is_not_missed_while_half_of_it_was_seen(desks: tuple[Desk, Desk]) -> None:
    anna, _ = desks
    texts = write_many(anna.files / "recus", 200)
    anna.settle()
    for number in range(4):
        (anna.files / "recus" / f"{number}").rename(anna.files / "recus" / f"moved {number}")
    everything = anna.settle()
    assert anna.books.locations()[RECUS].halted is None and not any(everything.attention.values())
    assert recorded_by(anna) == sorted(f"recus/moved {name}" for name in texts)


def test_a_folder_that_goes_meanwhile_is_gone(desks: tuple[Desk, Desk]) -> None:
    anna, _ = desks
    texts = write_many(anna.files / "recus", 100)
    anna.look.look(spots_of(anna))
    (anna.files / "recus").rename(anna.files / "away")
    found = anna.look.look(set())
    assert not anna.look.unseen and found.attention["recus"] is not None
    (anna.files / "away").rename(anna.files / "recus")
    anna.settle()
    assert recorded_by(anna) == sorted(f"recus/{name}" for name in texts)


def test_what_is_attached_for_the_first_time_needs_no_look_at_the_whole(desks: tuple[Desk, Desk]) -> None:
    anna, _ = desks
    clients = anna.files / "clients"
    clients.mkdir()
    write_many(clients, 100)
    attaching.attach(anna.books, [], anna.home.path, [clients], "")
    found = anna.look.look(anna.look.survey(RelPath("clients"), Looked()))
    assert len(found.todo) == SLICE and anna.work.work(found.todo).records
    attaching.detach(anna.books, "clients", "")
    anna.settle()
    attaching.attach(anna.books, [], anna.home.path, [clients], "")
    assert anna.books.locations()[RelPath("clients")].identity is None  # what was recorded before is compared as a whole
