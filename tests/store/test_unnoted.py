"""What a machine put in its place, and could not note before it was killed, is no save that was made there."""

from __future__ import annotations

import pytest

from p2psync.store import paths
from p2psync.values.names import RelPath
from tests.lan.desks import exchange, two_desks

BOOK = RelPath("compta.cre")


@pytest.fixture
def desks(monkeypatch):
    with two_desks(monkeypatch) as (anna, marie):
        anna.files.mkdir(parents=True, exist_ok=True)
        (anna.files / "compta.cre").write_text("one")
        anna.attach(anna.files / "compta.cre")
        exchange(anna, marie)
        yield anna, marie


def save(desk, text: str) -> None:
    (desk.files / "compta.cre").write_text(text)
    desk.settle()


def test_what_others_went_on_from_meanwhile_is_no_conflict(desks):
    anna, marie = desks
    noted = paths.get(marie.books.ledger.read(), BOOK)
    assert noted is not None
    save(anna, "two")
    exchange(anna, marie)
    with marie.books.writing() as db:  # as if it had been killed before it wrote that down
        paths.put(db, noted)
    save(anna, "three")
    exchange(anna, marie)
    assert (marie.folder / "compta.cre").read_text() == "three"
    assert not anna.conflicts() and not marie.conflicts()
    assert marie.books.journal.ends.keys() == anna.books.journal.ends.keys()


def test_what_was_known_before_and_is_made_again_is_a_save_of_today(desks):
    anna, marie = desks
    save(anna, "two")
    exchange(anna, marie)
    (marie.folder / "compta.cre").write_text("one")
    save(anna, "three")
    exchange(anna, marie)
    assert anna.conflicts() == marie.conflicts() == {"compta.cre"}
