"""Choosing versions: conflicts and how they end, history, and bringing an old version back."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from p2psync.store import resolving, versions
from p2psync.store.attaching import OnlyRead
from p2psync.store.resolving import AmbiguousVersion, NoConflict, NoSuchFile, NoSuchVersion, NotOneOf, VersionIsDeletion, VersionNotHere
from p2psync.values.acts import Role
from p2psync.values.names import RelPath
from tests.lan.desks import Desk, fast_place, fast_vanishing, tree

NAME = "compta.cre"


@pytest.fixture
def desks(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Desk, Desk, Desk]]:
    """Anna and Marie, and Luc who only reads; they share one file and a folder."""
    fast_vanishing(monkeypatch)
    with fast_place() as place:
        anna = Desk(place / "anna", "Anna").found()
        marie = Desk(place / "marie", "Marie").join(anna, anna.invite("Marie"))
        luc = Desk(place / "luc", "Luc").join(anna, anna.invite("Luc", Role.READER))
        anna.folder.mkdir()
        (anna.folder / "recus").mkdir()
        (anna.folder / "recus" / "a").write_text("receipt")
        (anna.folder / "recus" / "b").write_text("another")
        (anna.folder / NAME).write_text("first")
        anna.attach(anna.folder / NAME, anna.folder / "recus")
        exchange(anna, marie, luc)
        yield anna, marie, luc
        for desk in (anna, marie, luc):
            desk.arrivals.close()
            desk.books.close()


def exchange(*desks: Desk) -> None:
    for _ in range(3):
        for desk in desks:
            for other in desks:
                if other is not desk:
                    desk.learn(other)
            desk.settle(*(d for d in desks if d is not desk))


def book(desk: Desk) -> Path:
    return desk.folder / NAME


def save(desk: Desk, text: str) -> None:
    book(desk).write_text(text)
    desk.settle()


def disagree(*desks: Desk) -> None:
    for desk in desks:
        save(desk, f"by {desk.person}")
    exchange(*desks)


def versions_of(desk: Desk, name: str = NAME) -> list[str]:
    """The short names of the versions, newest first."""
    return [v.short for v in versions.history(desk.books.ledger.read(), RelPath(name)) if not v.entry.attaches]


def restore(desk: Desk, name: str, version: str | None = None) -> None:
    _, touched = resolving.restore(desk.books, name, version, "")
    desk.todo |= touched


# ---- conflicts


@pytest.mark.parametrize("resolver", [0, 1])
@pytest.mark.parametrize("keep", ["mine", "theirs"])
def test_mine_and_theirs_are_those_of_whoever_chooses(desks: tuple[Desk, Desk, Desk], resolver: int, keep: str) -> None:
    anna, marie, luc = desks
    disagree(anna, marie)
    exchange(*desks)
    chooser, other = (anna, marie) if resolver == 0 else (marie, anna)
    chooser.resolve(NAME, keep)
    exchange(*desks)
    chosen = f"by {chooser.person if keep == 'mine' else other.person}"
    assert all(book(desk).read_text() == chosen and not desk.conflicts() for desk in (anna, marie, luc))


def test_a_version_is_chosen_by_the_name_that_is_shown(desks: tuple[Desk, Desk, Desk]) -> None:
    anna, marie, _ = desks
    disagree(anna, marie)
    heads = versions.heads(anna.books.ledger.read(), RelPath(NAME))
    shown = resolving.standing(anna.books, RelPath(NAME), heads)
    assert len(shown) == 2 and shown[0].copy is None and shown[1].copy is not None and shown[1].copy.exists()
    chosen = shown[1].copy.read_text()
    anna.resolve(NAME, shown[1].version.short[:6].upper())
    exchange(*desks)
    assert all(book(desk).read_text() == chosen and not desk.conflicts() for desk in desks)


def test_standing_tells_which_version_is_at_the_path(desks: tuple[Desk, Desk, Desk]) -> None:
    anna, marie, _ = desks
    disagree(anna, marie)
    for desk in (anna, marie):
        path = RelPath(NAME)
        first, other = resolving.standing(desk.books, path, versions.heads(desk.books.ledger.read(), path))
        assert first.here and not other.here
        assert other.copy is not None and other.copy.read_text() == f"by {'Anna' if book(desk).read_text() == 'by Marie' else 'Marie'}"


def test_of_three_versions_theirs_does_not_say_which(desks: tuple[Desk, Desk, Desk]) -> None:
    anna, marie, _ = desks
    luc = Desk(anna.root.parent / "eve", "Eve").join(anna, anna.invite("Eve"))
    exchange(anna, marie, luc)
    disagree(anna, marie, luc)
    with pytest.raises(NotOneOf, match="1 of the versions are yours and 2 are not"):
        anna.resolve(NAME, "theirs")
    anna.resolve(NAME, "mine")
    exchange(anna, marie, luc)
    assert book(marie).read_text() == book(luc).read_text() == "by Anna"
    luc.books.close()


def test_keeping_both_of_a_single_file_attaches_the_other(desks: tuple[Desk, Desk, Desk]) -> None:
    anna, marie, luc = desks
    disagree(anna, marie)
    exchange(*desks)
    anna.resolve(NAME, "both")
    exchange(*desks)
    for desk in (anna, marie, luc):
        assert len(desk.attached()) == 3 and not desk.conflicts()
        assert sorted(text for name, text in tree(desk.folder).items() if "recus" not in name) == ["by Anna", "by Marie"]


def test_what_is_no_conflict_cannot_be_resolved(desks: tuple[Desk, Desk, Desk]) -> None:
    anna, marie, luc = desks
    with pytest.raises(NoConflict):
        anna.resolve(NAME, "mine")
    for unknown in ("unknown", "../etc/passwd", ""):
        with pytest.raises(NoSuchFile):
            anna.resolve(unknown, "mine")
    disagree(anna, marie)
    exchange(*desks)
    for nonsense in ("zzzz", "first"):
        with pytest.raises(NoSuchVersion):
            anna.resolve(NAME, nonsense)
    with pytest.raises(AmbiguousVersion):
        anna.resolve(NAME, "")
    with pytest.raises(OnlyRead):
        luc.resolve(NAME, "mine")
    assert anna.conflicts() == {NAME}


def test_a_save_made_without_knowing_of_the_resolution_is_a_conflict_again(desks: tuple[Desk, Desk, Desk]) -> None:
    anna, marie, _ = desks
    disagree(anna, marie)
    anna.resolve(NAME, "mine")
    anna.settle()
    save(marie, "Marie goes on")
    exchange(anna, marie)
    assert anna.conflicts() == {NAME}
    texts = {text for name, text in tree(anna.folder).items() if "recus" not in name}
    assert {"by Anna", "Marie goes on"} <= texts


# ---- bringing a version back


def test_an_old_version_comes_back_for_everybody(desks: tuple[Desk, Desk, Desk]) -> None:
    anna, marie, _ = desks
    save(anna, "second")
    exchange(*desks)
    save(marie, "third")
    exchange(*desks)
    restore(marie, NAME, versions_of(marie)[-1])
    exchange(*desks)
    assert all(book(desk).read_text() == "first" for desk in desks)
    assert len(versions_of(anna)) == 4, "nothing of the history goes"


def test_a_deleted_file_comes_back(desks: tuple[Desk, Desk, Desk]) -> None:
    anna, marie, _ = desks
    (anna.folder / "recus" / "a").unlink()
    anna.settle()
    exchange(*desks)
    assert not (marie.folder / "recus" / "a").exists()
    deletion, saved = versions_of(marie, "recus/a")
    with pytest.raises(VersionIsDeletion):
        restore(marie, "recus/a", deletion)
    with pytest.raises(VersionIsDeletion):
        restore(marie, "recus/a")
    restore(marie, "recus/a", saved)
    exchange(*desks)
    assert all((desk.folder / "recus" / "a").read_text() == "receipt" for desk in desks)


def test_a_missing_single_file_comes_back_without_a_new_version(desks: tuple[Desk, Desk, Desk]) -> None:
    anna, _, _ = desks
    book(anna).unlink()
    anna.settle()
    before = versions_of(anna)
    restore(anna, NAME)
    anna.settle()
    assert book(anna).read_text() == "first" and versions_of(anna) == before


def test_a_missing_file_in_conflict_comes_back_and_stays_in_conflict(desks: tuple[Desk, Desk, Desk]) -> None:
    """Nobody chose: the version that stands at the path is put back, and the other one is still shown."""
    anna, marie, _ = desks
    disagree(anna, marie)
    stood = book(anna).read_text()
    book(anna).unlink()
    anna.settle()
    restore(anna, NAME)
    anna.settle()
    exchange(anna, marie)
    assert book(anna).read_text() == stood
    assert anna.conflicts() == marie.conflicts() == {NAME}


def test_a_reader_takes_the_shared_version_back(desks: tuple[Desk, Desk, Desk]) -> None:
    _, _, luc = desks
    save(luc, "changed by Luc, who may not")
    assert luc.settle().records == []
    restore(luc, NAME)
    luc.settle()
    assert book(luc).read_text() == "first"
    with pytest.raises(OnlyRead):
        save(desks[0], "second")
        exchange(*desks)
        restore(luc, NAME, versions_of(luc)[-1])


def test_a_version_that_is_there_already_changes_nothing(desks: tuple[Desk, Desk, Desk]) -> None:
    anna, _, _ = desks
    before = versions_of(anna)
    restore(anna, NAME, before[0])
    assert not anna.settle().records and versions_of(anna) == before and book(anna).read_text() == "first"


def test_a_save_that_was_not_seen_yet_is_not_lost_to_a_restore(desks: tuple[Desk, Desk, Desk]) -> None:
    anna, marie, _ = desks
    save(anna, "second")
    exchange(*desks)
    book(anna).write_text("third, just saved")
    restore(anna, NAME, versions_of(anna)[-1])
    exchange(*desks)
    texts = {text for name, text in tree(marie.folder).items() if "recus" not in name}
    assert {"first", "third, just saved"} == texts and marie.conflicts() == {NAME}


def test_versions_have_names_that_can_be_shortened(desks: tuple[Desk, Desk, Desk]) -> None:
    anna, _, _ = desks
    for turn in range(20):
        save(anna, f"version {turn}")
    names = versions_of(anna)
    assert len(set(names)) == 21 and all(len(name) == 10 for name in names)
    with pytest.raises(AmbiguousVersion):
        restore(anna, NAME, "")
    with pytest.raises(NoSuchVersion):
        restore(anna, NAME, "nothing")


def test_the_bytes_of_a_version_can_be_had_while_they_are_here(desks: tuple[Desk, Desk, Desk]) -> None:
    anna, marie, _ = desks
    save(anna, "second")
    marie.learn(anna)
    listing = resolving.bytes_of(anna.books, anna.sources, NAME, versions_of(anna)[-1])
    assert b"".join(anna.sources.chunk(chunk.digest) or b"" for chunk in listing) == b"first"
    with pytest.raises(VersionNotHere, match="Anna’s machine"):
        resolving.bytes_of(marie.books, marie.sources, NAME, None)
