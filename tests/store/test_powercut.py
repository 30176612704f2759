"""After a power cut every file is read again: what a stamp says proves nothing then."""

from __future__ import annotations

import os

import pytest

from p2psync.store import powercut
from tests.lan.desks import Desk, fast_place


@pytest.fixture
def anna():
    with fast_place() as place:
        desk = Desk(place / "anna", "Anna").found()
        (desk.files / "recus").mkdir(parents=True)
        (desk.files / "recus" / "a").write_text("one")
        os.utime(desk.files / "recus" / "a", ns=(10**18, 10**18))
        desk.attach(desk.files / "recus")
        yield desk
        desk.arrivals.close()
        desk.books.close()


def life(monkeypatch: pytest.MonkeyPatch, name: bytes) -> None:
    monkeypatch.setattr(powercut, "this_boot", lambda: name)


def save_unseen(desk: Desk) -> None:
    """A save whose bytes are on the disk, and whose time is not."""
    file = desk.files / "recus" / "a"
    view = desk.books.ledger.read().execute("SELECT mtime_ns FROM paths WHERE path = 'recus/a'").fetchone()
    file.write_text("two")
    os.utime(file, ns=(view[0], view[0]))
    with desk.books.writing() as db:
        db.execute("UPDATE paths SET ctime_ns = ?, fresh = 0 WHERE path = 'recus/a'", (file.stat().st_ctime_ns,))


def test_a_save_that_looks_untouched_is_found_after_a_power_cut(anna, monkeypatch):
    life(monkeypatch, b"first")
    assert not powercut.begin(anna.books)
    save_unseen(anna)
    assert not anna.settle().records, "nothing tells it from what was there"
    life(monkeypatch, b"second")
    assert powercut.begin(anna.books)
    assert anna.settle().records


@pytest.mark.parametrize(("ended", "next_life"), [(True, b"second"), (False, b"first"), (False, b"")])
def test_nothing_is_read_again_when_it_ended_in_order_or_was_only_killed(anna, monkeypatch, ended, next_life):
    life(monkeypatch, b"first")
    powercut.begin(anna.books)
    if ended:
        powercut.end(anna.books)
    life(monkeypatch, next_life)
    assert not powercut.begin(anna.books)


def test_a_power_cut_is_noticed_each_time(anna, monkeypatch):
    for number in range(3):
        life(monkeypatch, b"%d" % number)
        assert powercut.begin(anna.books) == (number > 0)


def test_this_system_tells_its_lives_apart():
    assert powercut.this_boot() == powercut.this_boot() != b""
