"""Conflict copies: every version of a conflict stands on every machine, under a name that nothing else bears."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from p2psync.store import copies
from p2psync.store.copies import LONGEST, copy_name, numbered
from p2psync.values.names import RelPath, component_fault
from tests.lan.desks import Desk, fast_place, fast_vanishing, tree

STAMP = "(Marie, 2027-01-15 08.00)"


@pytest.fixture(autouse=True)
def one_time_zone(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    import time

    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


# ---- names


def test_a_copy_says_whose_it_is_and_from_when() -> None:
    assert copy_name("Bilan.xlsx", "Marie", 1_800_000_000_000) == f"Bilan {STAMP}.xlsx"
    assert copy_name("Bilan.xlsx", "Marie", 1_800_000_000_000, 3) == "Bilan (Marie, 2027-01-15 08.00 3).xlsx"


@pytest.mark.parametrize(
    ("name", "copy"),
    [
        ("LISEZMOI", f"LISEZMOI {STAMP}"),
        (".env", f".env {STAMP}"),
        ("a.tar.gz", f"a.tar {STAMP}.gz"),
        ("a.", f"a {STAMP}."),
    ],
)
def test_the_ending_stays_the_ending(name: str, copy: str) -> None:
    assert copy_name(name, "Marie", 1_800_000_000_000) == copy


@pytest.mark.parametrize("name", ["é" * 127, "a" * 250 + ".xlsx", "a." + "é" * 126, "日" * 80 + ".docx"])
@pytest.mark.parametrize("person", ["Marie", "M" * 64, "A/B:C*?"])
def test_a_long_name_is_cut_to_what_every_disk_takes(name: str, person: str) -> None:
    copy = copy_name(name, person, 1_800_000_000_000, 99)
    assert len(copy.encode()) <= LONGEST
    assert component_fault(copy) is None
    assert "2027-01-15 08.00 99)" in copy


def test_numbers_go_before_the_ending() -> None:
    assert [numbered("a.txt", 2), numbered("a", 2), numbered(".env", 2)] == ["a (2).txt", "a (2)", ".env (2)"]


# ---- on disks


@pytest.fixture
def place() -> Iterator[Path]:
    with fast_place() as path:
        yield path


@pytest.fixture
def office(place: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Desk, Desk, Desk]]:
    """Three machines that share a folder with one file in it."""
    fast_vanishing(monkeypatch)
    anna = Desk(place / "anna", "Anna").found()
    marie = Desk(place / "marie", "Marie").join(anna, anna.invite("Marie"))
    luc = Desk(place / "luc", "Luc").join(anna, anna.invite("Luc"))
    (place / "anna" / "recus").mkdir()
    (place / "anna" / "recus" / "a").write_text("first")
    anna.attach(place / "anna" / "recus")
    desks = (anna, marie, luc)
    exchange(*desks)
    yield desks
    for desk in desks:
        desk.arrivals.close()
        desk.books.close()


def exchange(*desks: Desk) -> None:
    for _ in range(3):
        for desk in desks:
            for other in desks:
                if other is not desk:
                    desk.learn(other)
            desk.settle(*(d for d in desks if d is not desk))


def folder(desk: Desk) -> Path:
    return desk.books.locations()[RelPath("recus")].path


def save(desk: Desk, name: str, text: str) -> None:
    (folder(desk) / name).write_text(text)
    desk.settle()


def beside(desk: Desk) -> list[str]:
    return sorted("/".join(copy.disk) for copy in copies.everything(desk.books.ledger.read()))


def disagree(anna: Desk, marie: Desk) -> str:
    """Anna and Marie save without knowing of each other; the name of the copy that both have then."""
    save(anna, "a", "by Anna")
    save(marie, "a", "by Marie")
    exchange(anna, marie)
    assert beside(anna) == beside(marie) and len(beside(anna)) == 1
    return beside(anna)[0]


def test_every_version_stands_on_every_machine(office: tuple[Desk, Desk, Desk]) -> None:
    disagree(*office[:2])
    exchange(*office)
    for desk in office:
        assert sorted(tree(folder(desk)).values()) == ["by Anna", "by Marie"]
        assert desk.conflicts() == {"recus/a"}


def test_three_versions_make_two_copies(office: tuple[Desk, Desk, Desk]) -> None:
    for desk in office:
        save(desk, "a", f"by {desk.person}")
    exchange(*office)
    for desk in office:
        assert sorted(tree(folder(desk)).values()) == ["by Anna", "by Luc", "by Marie"]
        assert len(beside(desk)) == 2


def test_a_copy_is_no_file_of_its_own(office: tuple[Desk, Desk, Desk]) -> None:
    anna, marie, _ = office
    copy = disagree(anna, marie)
    assert not anna.settle().records
    (folder(anna) / copy).write_text("worked on in the copy")
    assert not anna.settle().records


def test_a_copy_that_somebody_threw_away_comes_back_when_the_path_is_looked_at(office: tuple[Desk, Desk, Desk]) -> None:
    anna, marie, _ = office
    copy = disagree(anna, marie)
    (folder(anna) / copy).unlink()
    anna.restart()
    anna.settle(marie)
    assert (folder(anna) / copy).exists()


@pytest.mark.parametrize("keep", ["mine", "theirs"])
def test_the_copies_go_when_the_conflict_is_over(office: tuple[Desk, Desk, Desk], keep: str) -> None:
    anna, marie, _ = office
    disagree(anna, marie)
    exchange(*office)
    anna.resolve("recus/a", keep)
    exchange(*office)
    for desk in office:
        assert tree(folder(desk)) == {"a": {"mine": "by Anna", "theirs": "by Marie"}[keep]}
        assert beside(desk) == []


def test_a_copy_that_was_worked_on_becomes_a_file_of_its_own_when_the_conflict_is_over(office: tuple[Desk, Desk, Desk]) -> None:
    anna, marie, _ = office
    copy = disagree(anna, marie)
    (folder(anna) / copy).write_text("worked on in the copy")
    marie.resolve("recus/a", "mine")
    exchange(*office)
    assert all(tree(folder(desk)) == {"a": "by Marie", copy: "worked on in the copy"} for desk in office)


def test_a_copy_that_is_open_waits_until_it_is_closed(office: tuple[Desk, Desk, Desk], held_open) -> None:
    anna, marie, _ = office
    copy = folder(anna) / disagree(anna, marie)
    anna.resolve("recus/a", "mine")
    with held_open(copy):
        anna.settle(marie)
        assert copy.exists() and beside(anna) == [copy.name]
    anna.settle(marie)
    assert not copy.exists() and beside(anna) == []


def test_keeping_both_gives_the_copy_its_name_for_good(office: tuple[Desk, Desk, Desk]) -> None:
    anna, marie, _ = office
    copy = disagree(anna, marie)
    exchange(*office)
    anna.resolve("recus/a", "both")
    exchange(*office)
    for desk in office:
        assert set(tree(folder(desk))) == {"a", copy} and sorted(tree(folder(desk)).values()) == ["by Anna", "by Marie"]
        assert beside(desk) == [] and not desk.conflicts()


def test_a_file_that_is_shared_under_the_name_of_a_copy_takes_its_place(office: tuple[Desk, Desk, Desk]) -> None:
    """Seed 165 of the busy office: the copy stood there, so that the file never came."""
    anna, marie, luc = office
    copy = disagree(anna, marie)
    save(luc, copy, "Luc's own, by chance of that name")
    exchange(*office)
    for desk in office:
        files = tree(folder(desk))
        assert files[copy] == "Luc's own, by chance of that name"
        assert sorted(files.values()) == ["Luc's own, by chance of that name", "by Anna", "by Marie"]
        assert beside(desk) == [copy.replace("08.00)", "08.00 2)")]


def test_a_copy_gets_no_name_that_is_shared_though_its_file_has_not_come_yet(office: tuple[Desk, Desk, Desk]) -> None:
    anna, marie, luc = office
    name = disagree(anna, marie)
    save(luc, name, "Luc's own")
    late = office[2]
    late.learn(anna)
    late.learn(marie)
    late.settle(anna, marie)
    assert beside(late) == [name.replace("08.00)", "08.00 2)")]
    assert (folder(late) / name).read_text() == "Luc's own"


def test_a_copy_that_was_worked_on_is_not_replaced_by_a_file_of_that_name(office: tuple[Desk, Desk, Desk]) -> None:
    anna, marie, luc = office
    copy = disagree(anna, marie)
    (folder(anna) / copy).write_text("worked on in the copy")
    save(luc, copy, "Luc's own")
    exchange(*office)
    for desk in office:
        assert {"worked on in the copy", "Luc's own", "by Anna", "by Marie"} == set(tree(folder(desk)).values())
        assert desk.conflicts() == {"recus/a", f"recus/{copy}"}


def test_the_copy_of_a_single_file_stands_in_its_folder(office: tuple[Desk, Desk, Desk]) -> None:
    anna, marie, _ = office
    book = anna.root / "books" / "compta.cre"
    book.parent.mkdir()
    book.write_text("first")
    anna.attach(book)
    exchange(*office)
    book.write_text("by Anna")
    (marie.folder / "compta.cre").write_text("by Marie")
    anna.settle()
    marie.settle()
    exchange(*office)
    assert sorted(tree(book.parent).values()) == ["by Anna", "by Marie"]
    assert len(os.listdir(book.parent)) == 2


def test_saving_again_in_a_conflict_leaves_what_stands_here(office: tuple[Desk, Desk, Desk]) -> None:
    """Who works on during a conflict does not have the file changed under their hands, nor do the others see it swapped."""
    anna, marie, luc = office
    disagree(anna, marie)
    exchange(*office)
    for turn in range(4):
        save(anna, "a", f"Anna goes on, {turn}")
        exchange(*office)
        assert all((folder(desk) / "a").read_text() == f"Anna goes on, {turn}" for desk in office)
        assert luc.conflicts() == {"recus/a"}
