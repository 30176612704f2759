"""Two and three machines whose records and chunks are carried by hand: what the store does with them, on a real disk."""

import os
import shutil

import pytest

from tests.lan.desks import Desk, fast_vanishing, tree


@pytest.fixture
def anna(tmp_path):
    desk = Desk(tmp_path / "anna", "Anna").found()
    desk.files = tmp_path / "anna" / "files"
    desk.files.mkdir(parents=True)
    yield desk
    desk.arrivals.close()
    desk.books.close()


@pytest.fixture
def marie(tmp_path, anna):
    desk = Desk(tmp_path / "marie", "Marie").join(anna, anna.invite("Marie"))
    yield desk
    desk.arrivals.close()
    desk.books.close()


def exchange(*desks):
    for _ in range(2):
        for one in desks:
            for other in desks:
                if one is not other:
                    one.learn(other)
            one.settle(*[d for d in desks if d is not one])


def test_a_guest_is_a_member_once_it_has_learnt_of_its_admission(anna, marie):
    assert {m.person for m in marie.books.roster.members().values()} == {"Anna", "Marie"}
    assert marie.books.may_write


def test_an_attached_file_appears_on_the_other_machine(anna, marie):
    book = anna.files / "compta.cre"
    book.write_text("1")
    anna.attach(book)
    exchange(anna, marie)
    assert tree(marie.folder) == {"compta.cre": "1"}


def test_an_edit_crosses_both_ways(anna, marie):
    book = anna.files / "compta.cre"
    book.write_text("1")
    anna.attach(book)
    exchange(anna, marie)
    (marie.folder / "compta.cre").write_text("2, by Marie")
    marie.settle()
    exchange(anna, marie)
    assert book.read_text() == "2, by Marie"
    assert not anna.conflicts() and not marie.conflicts()


def test_a_folder_with_empty_ones_appears(anna, marie):
    receipts = anna.files / "recus"
    (receipts / "2026" / "vide").mkdir(parents=True)
    (receipts / "2026" / "a.pdf").write_text("a")
    (receipts / "b.pdf").write_text("b")
    anna.attach(receipts)
    exchange(anna, marie)
    assert tree(marie.folder) == {"recus/2026/a.pdf": "a", "recus/b.pdf": "b"}
    assert (marie.folder / "recus/2026/vide").is_dir()


def test_concurrent_edits_are_a_conflict_and_both_survive(anna, marie):
    book = anna.files / "compta.cre"
    book.write_text("1")
    anna.attach(book)
    exchange(anna, marie)
    book.write_text("by Anna")
    (marie.folder / "compta.cre").write_text("by Marie")
    anna.settle()
    marie.settle()
    exchange(anna, marie)
    assert anna.conflicts() == marie.conflicts() == {"compta.cre"}
    assert sorted(tree(anna.files).values()) == sorted(tree(marie.folder).values()) == ["by Anna", "by Marie"]
    assert book.read_text() == (marie.folder / "compta.cre").read_text()


@pytest.mark.parametrize("keep", ["mine", "theirs", "both"])
def test_a_conflict_is_resolved_for_everybody(anna, marie, keep):
    book = anna.files / "compta.cre"
    book.write_text("1")
    anna.attach(book)
    exchange(anna, marie)
    book.write_text("by Anna")
    (marie.folder / "compta.cre").write_text("by Marie")
    anna.settle()
    marie.settle()
    exchange(anna, marie)
    anna.resolve("compta.cre", keep)
    anna.settle()
    exchange(anna, marie)
    assert not anna.conflicts() and not marie.conflicts()
    expected = {"mine": ["by Anna"], "theirs": ["by Marie"], "both": ["by Anna", "by Marie"]}[keep]
    assert sorted(tree(anna.files).values()) == expected
    assert sorted(tree(marie.folder).values()) == expected
    assert len(anna.attached()) == (2 if keep == "both" else 1)


def test_the_same_bytes_never_conflict(anna, marie):
    book = anna.files / "compta.cre"
    book.write_text("1")
    anna.attach(book)
    exchange(anna, marie)
    book.write_text("same")
    (marie.folder / "compta.cre").write_text("same")
    anna.settle()
    marie.settle()
    exchange(anna, marie)
    assert not anna.conflicts() and not marie.conflicts()


def test_renames_in_a_folder_send_no_content(anna, marie, monkeypatch):
    fast_vanishing(monkeypatch)
    receipts = anna.files / "recus"
    receipts.mkdir()
    for number in range(30):
        (receipts / f"{number}.pdf").write_text(f"receipt {number}")
    anna.attach(receipts)
    exchange(anna, marie)
    marie.fetched = 0
    (receipts / "2026").mkdir()
    for number in range(30):
        (receipts / f"{number}.pdf").rename(receipts / "2026" / f"r{number}.pdf")
    anna.settle()
    exchange(anna, marie)
    assert tree(marie.folder / "recus") == tree(receipts)
    assert len(tree(receipts)) == 30
    assert marie.fetched == 0


def test_a_deletion_in_a_folder_is_recorded_and_can_be_undone(anna, marie, monkeypatch):
    fast_vanishing(monkeypatch)
    receipts = anna.files / "recus"
    receipts.mkdir()
    for name in "abc":
        (receipts / name).write_text(name)
    anna.attach(receipts)
    exchange(anna, marie)
    (receipts / "b").unlink()
    anna.settle()
    exchange(anna, marie)
    assert tree(marie.folder / "recus") == {"a": "a", "c": "c"}


def test_a_single_file_that_vanishes_is_missing_and_stays_elsewhere(anna, marie, monkeypatch):
    fast_vanishing(monkeypatch)
    book = anna.files / "compta.cre"
    book.write_text("1")
    anna.attach(book)
    exchange(anna, marie)
    book.unlink()
    worked = anna.settle()
    exchange(anna, marie)
    attention = worked.attention["compta.cre"]
    assert attention is not None and attention.code == "missing-file"
    assert (marie.folder / "compta.cre").read_text() == "1"


def test_many_deletions_halt(anna, marie, monkeypatch):
    fast_vanishing(monkeypatch)
    receipts = anna.files / "recus"
    receipts.mkdir()
    for number in range(40):
        (receipts / f"{number}.pdf").write_text(f"receipt {number}")
    anna.attach(receipts)
    exchange(anna, marie)
    for number in range(20):
        (receipts / f"{number}.pdf").unlink()
    worked = anna.settle()
    attention = worked.attention["recus"]
    assert attention is not None and attention.code == "many-deletions"
    exchange(anna, marie)
    assert len(tree(marie.folder / "recus")) == 40


def test_another_folder_in_its_place_deletes_nothing(anna, marie, monkeypatch):
    fast_vanishing(monkeypatch)
    receipts = anna.files / "recus"
    receipts.mkdir()
    (receipts / "a").write_text("a")
    anna.attach(receipts)
    exchange(anna, marie)
    os.rename(receipts, anna.files / "elsewhere")
    receipts.mkdir()
    worked = anna.settle()
    assert worked.attention["recus"] is not None
    exchange(anna, marie)
    assert tree(marie.folder / "recus") == {"a": "a"}
    assert tree(receipts) == {}
    receipts.rmdir()
    os.rename(anna.files / "elsewhere", receipts)
    (receipts / "b").write_text("b")
    anna.settle()
    exchange(anna, marie)
    assert tree(marie.folder / "recus") == {"a": "a", "b": "b"}


def test_detaching_deletes_nothing(anna, marie):
    from p2psync.store import attaching

    book = anna.files / "compta.cre"
    book.write_text("1")
    anna.attach(book)
    exchange(anna, marie)
    attaching.detach(anna.books, "compta.cre", "")
    exchange(anna, marie)
    assert anna.attached() == marie.attached() == {}
    assert book.read_text() == (marie.folder / "compta.cre").read_text() == "1"
    book.write_text("2")
    anna.settle()
    exchange(anna, marie)
    assert (marie.folder / "compta.cre").read_text() == "1"
    anna.attach(book)
    exchange(anna, marie)
    assert (marie.folder / "compta.cre").read_text() == "2"
    assert not marie.conflicts()


def test_a_large_file_is_resumed_after_a_kill(anna, marie):
    book = anna.files / "archive.bin"
    book.write_bytes(os.urandom(70 * 1024 * 1024))
    anna.attach(book)
    marie.learn(anna)
    worked = marie.settle()
    want = worked.wants[next(iter(worked.wants))]
    assert want.listing is None
    marie.settle(anna, patience=0)
    assert (marie.folder / "archive.bin").read_bytes() == book.read_bytes()


def test_everything_is_found_again_after_a_restart(anna, marie):
    book = anna.files / "compta.cre"
    book.write_text("1")
    anna.attach(book)
    marie.learn(anna)
    marie.restart()
    marie.settle(anna)
    assert (marie.folder / "compta.cre").read_text() == "1"
    shutil.rmtree(marie.folder)
    worked = marie.settle(anna)
    assert any(a and a.code in ("missing-root", "missing-file") for a in worked.attention.values())
    exchange(anna, marie)
    assert book.read_text() == "1"
