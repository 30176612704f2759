"""What may become part of a mandate and what must not: each refusal is a sentence, and then nothing was changed."""

from __future__ import annotations

import os
import socket
import unicodedata
from collections.abc import Iterator
from pathlib import Path

import pytest

from p2psync.store import attaching, versions
from p2psync.store.attaching import (
    AlreadyAttached,
    ByWork,
    ClaimedElsewhere,
    ContainsAttached,
    InsideAttached,
    NamedInside,
    NamedTwice,
    NameOnlyDiffers,
    NameUnfit,
    NoFileOrFolder,
    NotAttached,
    NothingThere,
    OnlyRead,
    OwnFolder,
    PathUnfit,
)
from p2psync.store.books import Books
from p2psync.values.acts import Role
from p2psync.values.entry import Op, entries_of
from p2psync.values.errors import UserError
from p2psync.values.names import RelPath
from tests.lan.desks import Desk, fast_place


@pytest.fixture
def place() -> Iterator[Path]:
    with fast_place() as path:
        yield path


@pytest.fixture
def anna(place: Path) -> Iterator[Desk]:
    desk = Desk(place / "anna", "Anna").found()
    (place / "files").mkdir()
    yield desk
    desk.arrivals.close()
    desk.books.close()


@pytest.fixture
def files(place: Path, anna: Desk) -> Path:
    return place / "files"


@pytest.fixture
def other(anna: Desk, place: Path) -> Iterator[Books]:
    """Another mandate on the same machine."""
    books = anna.home.found("Martin SA", "Anna", "anna-pc", "linux", place / "others")
    yield books
    books.close()


def attach(desk: Desk, *paths: Path, others: tuple[Books, ...] = ()) -> list[str]:
    _, found = attaching.attach(desk.books, others, desk.home.path, list(paths), "anna")
    return [name.text for name, _ in found]


def made(path: Path, text: str = "x") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def refused(desk: Desk, error: type[UserError], *paths: Path, others: tuple[Books, ...] = ()) -> str:
    before = desk.books.journal.view(), desk.books.locations(), desk.books.attachments()
    with pytest.raises(error) as caught:
        attach(desk, *paths, others=others)
    assert (desk.books.journal.view(), desk.books.locations(), desk.books.attachments()) == before
    sentence = str(caught.value)
    assert sentence[0].isupper() or sentence[0] == "“"
    assert sentence.endswith(".") and "{" not in sentence
    return sentence


# ---- what may


def test_files_and_folders_are_attached_under_their_names(anna: Desk, files: Path) -> None:
    (files / "recus").mkdir()
    assert attach(anna, made(files / "compta.cre"), files / "recus") == ["compta.cre", "recus"]
    assert anna.attached() == {"compta.cre": Op.ATTACH_FILE, "recus": Op.ATTACH_FOLDER}
    places = {name.text: (location.kind, location.path) for name, location in anna.books.locations().items()}
    assert places == {"compta.cre": ("file", files / "compta.cre"), "recus": ("folder", files / "recus")}


def test_who_asked_is_in_the_journal(anna: Desk, files: Path) -> None:
    attach(anna, made(files / "compta.cre"))
    ((_, entry),) = versions.attachment_heads(anna.books.ledger.read(), RelPath("compta.cre"))
    assert entry.by == "anna"


def test_files_of_one_name_in_two_folders_are_told_apart_by_a_number(anna: Desk, files: Path) -> None:
    assert attach(anna, *(made(files / year / "compta.cre") for year in ("2024", "2025", "2026"))) == [
        "compta.cre",
        "compta (2).cre",
        "compta (3).cre",
    ]


def test_a_name_in_another_normal_form_travels_in_the_one(anna: Desk, files: Path) -> None:
    decomposed = unicodedata.normalize("NFD", "reçus.cre")
    assert attach(anna, made(files / decomposed)) == ["reçus.cre"]
    assert next(iter(anna.books.locations().values())).path.name == decomposed


def test_an_empty_file_and_an_empty_folder_may_be_attached(anna: Desk, files: Path) -> None:
    (files / "vide").mkdir()
    assert attach(anna, made(files / "vide.txt", ""), files / "vide") == ["vide.txt", "vide"]


# ---- what must not


def test_all_or_none(anna: Desk, files: Path) -> None:
    refused(anna, NothingThere, made(files / "a"), files / "nothing", made(files / "b"))


def test_what_is_no_file_and_no_folder(anna: Desk, files: Path) -> None:
    made(files / "a")
    (files / "link").symlink_to(files / "a")
    assert "a link" in refused(anna, NoFileOrFolder, files / "link")
    (files / "dangling").symlink_to(files / "nothing")
    refused(anna, NoFileOrFolder, files / "dangling")
    os.mkfifo(files / "pipe")
    assert "a pipe" in refused(anna, NoFileOrFolder, files / "pipe")
    with socket.socket(socket.AF_UNIX) as door:
        door.bind(str(files / "door"))
        assert "a door" in refused(anna, NoFileOrFolder, files / "door")


@pytest.mark.parametrize("name", ["con.txt", "a:b", "trailing.", "a\u200bb", "tab\t", "what?", "back\\slash"])
def test_names_that_another_system_could_not_store(anna: Desk, files: Path, name: str) -> None:
    assert "Rename it" in refused(anna, NameUnfit, made(files / name))


@pytest.mark.parametrize("name", ["~$Bilan.xlsx", ".~lock.a.ods#", ".DS_Store", "~wrd0001.tmp"])
def test_what_programs_leave_beside_a_file(anna: Desk, files: Path, name: str) -> None:
    refused(anna, ByWork, made(files / name))


def test_a_part_of_a_database_is_not_attached_without_it(anna: Desk, files: Path) -> None:
    made(files / "compta").write_bytes(b"SQLite format 3\0")
    made(files / "grand").write_text("no database")
    refused(anna, ByWork, made(files / "compta-wal"))
    assert attach(anna, made(files / "grand-journal")) == ["grand-journal"]


def test_our_own_names_are_not_shared(anna: Desk, files: Path) -> None:
    refused(anna, NameUnfit, made(files / ".p2psync-x"))


def test_a_name_that_is_no_unicode(anna: Desk, files: Path) -> None:
    undecodable = files / os.fsdecode(b"caf\xe9.txt")
    refused(anna, NameUnfit, made(undecodable))
    refused(anna, PathUnfit, made(files / os.fsdecode(b"dossier \xe9") / "a.txt"))


def test_the_state_directory_and_what_is_around_and_in_it(anna: Desk, place: Path) -> None:
    refused(anna, OwnFolder, anna.home.path)
    refused(anna, OwnFolder, anna.home.path / "device.key")
    refused(anna, OwnFolder, place)
    (place / "link to it").symlink_to(anna.home.path.parent)
    refused(anna, OwnFolder, place / "link to it" / "state" / "mandates")


def test_nothing_is_attached_twice(anna: Desk, files: Path) -> None:
    book = made(files / "recus" / "compta.cre")
    attach(anna, files / "recus")
    assert "already attached" in refused(anna, AlreadyAttached, files / "recus")
    assert "inside “recus”" in refused(anna, AlreadyAttached, book)
    refused(anna, ContainsAttached, files)
    (files.parent / "way round").symlink_to(files)
    refused(anna, AlreadyAttached, files.parent / "way round" / "recus")


def test_nothing_is_named_twice(anna: Desk, files: Path) -> None:
    book = made(files / "recus" / "a")
    refused(anna, NamedTwice, book, book)
    (files.parent / "way round").symlink_to(files)
    refused(anna, NamedTwice, book, files.parent / "way round" / "recus" / "a")
    assert refused(anna, NamedInside, book, files / "recus") == refused(anna, NamedInside, files / "recus", book)


def test_a_file_is_in_one_mandate_only(anna: Desk, files: Path, other: Books) -> None:
    made(files / "recus" / "a")
    attaching.attach(other, [anna.books], anna.home.path, [files / "recus"], "")
    for path in (files / "recus", files / "recus" / "a"):
        assert "Martin SA" in refused(anna, ClaimedElsewhere, path, others=(other,))
    assert "Martin SA" in refused(anna, ContainsAttached, files, others=(other,))
    assert attach(anna, made(files / "b"), others=(other,)) == ["b"]


def test_names_that_differ_only_by_case_or_accents(anna: Desk, files: Path) -> None:
    attach(anna, made(files / "2025" / "Compta.cre"))
    refused(anna, NameOnlyDiffers, made(files / "2026" / "compta.cre"))
    refused(anna, NameOnlyDiffers, made(files / "é"), made(files / unicodedata.normalize("NFD", "é")))
    refused(anna, NameOnlyDiffers, made(files / "straße"), made(files / "strasse"))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_what_cannot_be_read(anna: Desk, files: Path) -> None:
    made(files / "a").chmod(0)
    refused(anna, UserError, files / "a")


def test_a_reader_attaches_and_detaches_nothing(anna: Desk, files: Path, place: Path) -> None:
    attach(anna, made(files / "compta.cre"))
    luc = Desk(place / "luc", "Luc").join(anna, anna.invite("Luc", Role.READER))
    luc.settle(anna)
    assert "Ask Anna" in refused(luc, OnlyRead, made(files / "b"))
    with pytest.raises(OnlyRead):
        attaching.detach(luc.books, "compta.cre", "")
    luc.arrivals.close()
    luc.books.close()


# ---- detaching and attaching again


def test_what_is_not_attached_cannot_be_detached(anna: Desk, files: Path) -> None:
    made(files / "recus" / "a")
    anna.attach(files / "recus")
    for name in ("nothing", "../recus", "", "recus/b"):
        with pytest.raises(NotAttached):
            attaching.detach(anna.books, name, "")
    with pytest.raises(InsideAttached, match="recus"):
        attaching.detach(anna.books, "recus/a", "")
    assert anna.attached() == {"recus": Op.ATTACH_FOLDER}


def test_detaching_leaves_the_files_and_frees_the_name(anna: Desk, files: Path) -> None:
    anna.attach(made(files / "2025" / "compta.cre", "old"))
    attaching.detach(anna.books, "compta.cre", "anna")
    anna.settle()
    assert (files / "2025" / "compta.cre").read_text() == "old"
    assert anna.attached() == {} and anna.books.locations() == {}
    anna.attach(made(files / "2026" / "compta.cre", "new"))
    assert anna.attached() == {"compta.cre": Op.ATTACH_FILE} and not anna.conflicts()


def test_an_attachment_outlives_a_detach_that_did_not_know_of_it(anna: Desk, files: Path, place: Path) -> None:
    marie = Desk(place / "marie", "Marie").join(anna, anna.invite("Marie"))
    anna.attach(made(files / "compta.cre"))
    marie.learn(anna)
    attaching.detach(anna.books, "compta.cre", "")
    attaching.detach(marie.books, "compta.cre", "")
    attach(anna, files / "compta.cre")
    for one, another in ((anna, marie), (marie, anna)):
        one.learn(another)
    assert anna.attached() == marie.attached() == {"compta.cre": Op.ATTACH_FILE}
    marie.arrivals.close()
    marie.books.close()


def test_what_was_detached_a_moment_ago_is_attached_again(anna: Desk, files: Path) -> None:
    anna.attach(made(files / "compta.cre", "old"))
    attaching.detach(anna.books, "compta.cre", "")
    assert attach(anna, files / "compta.cre") == ["compta.cre"]
    anna.settle()
    assert anna.attached() == {"compta.cre": Op.ATTACH_FILE} and not anna.conflicts()


def test_another_folder_under_a_name_that_was_just_detached_deletes_nothing(anna: Desk, files: Path) -> None:
    for name in "abc":
        made(files / "2025" / "recus" / name)
    anna.attach(files / "2025" / "recus")
    attaching.detach(anna.books, "recus", "")
    made(files / "2026" / "recus" / "d")
    attach(anna, files / "2026" / "recus")
    worked = anna.settle()
    assert not any(entry.op == Op.GONE for record in worked.records for entry in entries_of(record.body) if entry)
    assert "d" in os.listdir(files / "2026" / "recus")
    assert sorted(os.listdir(files / "2025" / "recus")) == ["a", "b", "c"]
