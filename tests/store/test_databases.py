"""SQLite databases that a program works on: what is sent is what SQLite says they hold, and nothing is brought to them that would hurt."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from p2psync.store.snapshots import Snapshots
from tests.lan.desks import Desk, fast_place

PROGRAM = """
import json, sqlite3, sys
books = sqlite3.connect(sys.argv[1], isolation_level=None)
for line in sys.stdin:
    print(json.dumps([list(row) for row in books.execute(line)]), flush=True)
"""


class Program:
    """An accounting program that has its database open, in a process of its own, as locks and logs are."""

    def __init__(self, path: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-S", "-c", PROGRAM, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def __call__(self, *statements: str) -> Any:
        said = "[]"
        assert self.process.stdin is not None and self.process.stdout is not None
        for statement in statements:
            self.process.stdin.write(statement + "\n")
            self.process.stdin.flush()
            said = self.process.stdout.readline()
        return json.loads(said)

    def crash(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.close()

    def close(self) -> None:
        self.process.communicate()


@contextmanager
def working(path: Path, *statements: str) -> Iterator[Program]:
    path.parent.mkdir(parents=True, exist_ok=True)
    program = Program(path)
    try:
        program(*statements)
        yield program
    finally:
        program.close()


def made(path: Path, mode: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with closing(sqlite3.connect(path, isolation_level=None)) as books:
        books.execute(f"PRAGMA journal_mode = {mode}")
        books.execute("CREATE TABLE entries (id INTEGER PRIMARY KEY, amount)")
        books.executemany("INSERT INTO entries (amount) VALUES (?)", [("x" * 300,)] * 200)
    return path


def rows(path: Path) -> int:
    """The rows of a database that is alone, in a copy: looking at it makes files beside it."""
    copy = path.with_name(path.name + ".looked-at")
    shutil.copyfile(path, copy)
    try:
        with closing(sqlite3.connect(copy)) as books:
            assert books.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
            return int(books.execute("SELECT count(*) FROM entries").fetchone()[0])
    finally:
        for left in path.parent.glob(copy.name + "*"):
            left.unlink()


@pytest.fixture
def place() -> Iterator[Path]:
    with fast_place() as place:
        yield place


@pytest.fixture
def anna(place: Path) -> Desk:
    return Desk(place / "anna", "Anna").found()


@pytest.fixture
def luc(place: Path, anna: Desk) -> Desk:
    return Desk(place / "luc", "Luc").join(anna, anna.invite("Luc"))


def meet(*desks: Desk) -> None:
    for one in desks:
        for other in desks:
            if one is not other:
                one.learn(other)
        one.settle(*(other for other in desks if other is not one), patience=15.0)  # a slow snapshot is rested from for as long


def versions_of(desk: Desk, name: str) -> int:
    return int(desk.books.ledger.read().execute("SELECT count(*) FROM entries WHERE path = ? AND attaches = 0", (name,)).fetchone()[0])


INSERT = "INSERT INTO entries (amount) VALUES ('new')"


LONG = "INSERT INTO entries VALUES ('" + "x" * 1000 + "')"


@pytest.mark.parametrize("mode", ["WAL", "DELETE", "TRUNCATE", "PERSIST"])
def test_what_a_program_saved_is_sent_while_it_has_the_database_open(anna: Desk, luc: Desk, mode: str) -> None:
    books = made(anna.folder / "books", mode)
    with working(books, f"PRAGMA journal_mode = {mode}", INSERT) as program:
        before = sorted(os.listdir(anna.folder))
        anna.attach(books)
        meet(luc, anna)
        assert rows(luc.folder / "books") == 201
        assert os.listdir(luc.folder) == ["books"]
        program(INSERT)
        meet(anna, luc)
        assert rows(luc.folder / "books") == 202
        assert sorted(os.listdir(anna.folder)) == before
        assert program("SELECT count(*) FROM entries") == [[202]]
        known = versions_of(anna, "books")
    meet(anna, luc)
    assert versions_of(anna, "books") == known, "closing it changed nothing, so there is nothing to send"
    assert (luc.folder / "books").read_bytes() == books.read_bytes()


@pytest.mark.parametrize("number", [1, 500])
def test_what_is_larger_than_the_file_that_it_is_in(anna: Desk, luc: Desk, number: int) -> None:
    """A log that was never written back: the file itself has a page or two."""
    with working(anna.folder / "books", "PRAGMA journal_mode = WAL", "CREATE TABLE entries (text)", *[LONG] * number):
        assert (anna.folder / "books").stat().st_size <= 4096
        anna.attach(anna.folder / "books")
        meet(luc, anna)
        assert rows(luc.folder / "books") == number
    meet(anna, luc)
    assert versions_of(anna, "books") == 1


@pytest.mark.parametrize("mode", ["WAL", "DELETE"])
def test_opening_and_reading_makes_no_version(anna: Desk, mode: str) -> None:
    books = made(anna.folder / "books", mode)
    anna.attach(books)
    for _ in range(2):
        with working(books, "SELECT count(*) FROM entries"):
            anna.settle()
        anna.settle()
    assert versions_of(anna, "books") == 1
    anna.restart()
    with working(books, "SELECT count(*) FROM entries"):
        anna.settle()
    assert versions_of(anna, "books") == 1


def test_a_transaction_that_is_not_finished_is_not_sent(anna: Desk, luc: Desk) -> None:
    books = made(anna.folder / "books", "DELETE")
    anna.attach(books)
    with working(books, "PRAGMA cache_size = 2", "BEGIN", *[INSERT] * 200) as program:
        assert (anna.folder / "books-journal").exists()
        anna.settle(patience=0.0)
        meet(luc)
        assert versions_of(anna, "books") == 1
        program("COMMIT")
        meet(anna, luc)
        assert rows(luc.folder / "books") == 400
        assert versions_of(anna, "books") == 2


@pytest.mark.parametrize("mode", ["WAL", "DELETE"])
def test_what_a_crashed_program_left_is_taken_along_and_then_replaced_as_a_whole(anna: Desk, luc: Desk, mode: str) -> None:
    books = made(anna.folder / "books", mode)
    anna.attach(books)
    meet(luc, anna)
    with closing(sqlite3.connect(luc.folder / "books", isolation_level=None)) as theirs:
        theirs.execute("DELETE FROM entries WHERE id <= 100")
    program = Program(books)
    program(INSERT) if mode == "WAL" else program("PRAGMA cache_size = 2", "BEGIN", *[INSERT] * 200)
    program.crash()
    left = sorted(os.listdir(anna.folder))
    assert len(left) > 1
    anna.settle()
    assert sorted(os.listdir(anna.folder)) == left, "looking does not touch it"
    meet(luc, anna, luc, anna)
    if mode == "WAL":  # what was saved before the crash is one version, what Luc saved the other
        assert anna.conflicts() == luc.conflicts() == {"books"}
        anna.resolve("books", "theirs")
        meet(anna, luc)
    assert anna.conflicts() == luc.conflicts() == set()
    assert os.listdir(anna.folder) == ["books"]
    assert books.read_bytes() == (luc.folder / "books").read_bytes()
    assert rows(books) == 100
    assert versions_of(anna, "books") == versions_of(luc, "books")


def test_killed_while_what_a_crashed_program_left_is_being_finished(anna: Desk, luc: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between SQLite's recovery and the replacement: the same version stands there, and there is nothing new to tell."""

    class Killed(BaseException):
        pass

    books = made(anna.folder / "books", "WAL")
    anna.attach(books)
    program = Program(books)
    program(INSERT)
    program.crash()
    meet(anna, luc, anna)
    with closing(sqlite3.connect(luc.folder / "books", isolation_level=None)) as theirs:
        theirs.execute("DELETE FROM entries WHERE id <= 100")
    luc.settle()
    finish = Snapshots.finish

    def killed(*args: Any) -> bool:
        if finish(*args):
            raise Killed
        return False

    with monkeypatch.context() as patched, pytest.raises(Killed):
        patched.setattr(Snapshots, "finish", killed)
        meet(anna, luc)
    assert rows(books) == 201
    assert os.listdir(anna.folder) == ["books"]
    anna.restart()
    meet(anna, luc)
    assert rows(books) == 101
    assert versions_of(anna, "books") == 3
    assert anna.conflicts() == set()


def test_what_an_earlier_run_left_of_a_snapshot_is_removed(anna: Desk) -> None:
    left = anna.books.state / "snapshot-x"
    left.mkdir()
    (left / "database").write_text("half of it")
    anna.restart()
    assert not left.exists()


def test_a_large_database_is_not_copied_all_the_time(anna: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("p2psync.store.snapshots._SHARE", 1000)
    books = made(anna.folder / "books", "WAL")
    with working(books, INSERT) as program:
        anna.attach(books)
        program(INSERT)
        attention = anna.settle(patience=0.0).attention["books"]
        assert attention is not None and attention.code == "still-written"
        assert versions_of(anna, "books") == 1
    anna.settle()
    assert versions_of(anna, "books") == 2, "when it is closed it is a file like any other"


def test_rows_that_are_only_in_a_log_are_never_replaced_unseen(anna: Desk, luc: Desk) -> None:
    """The stamp of the database is as it was when it was last looked at; only its log has grown since."""
    books = made(anna.folder / "books", "WAL")
    anna.attach(books)
    meet(luc, anna)
    with closing(sqlite3.connect(luc.folder / "books", isolation_level=None)) as theirs:
        theirs.execute("DELETE FROM entries WHERE id <= 100")
    luc.settle()
    anna.settle()
    program = Program(books)
    program(INSERT)
    program.crash()
    anna.learn(luc)
    anna.work.work(anna.todo)  # without a look at the disk before it
    assert rows_with_log(books) == 201
    meet(anna, luc)
    assert anna.conflicts() == {"books"}


def rows_with_log(path: Path) -> int:
    """The rows of a database with its log, as the next program to open them would see them."""
    copy = path.with_name("looked-at")
    for end in ("", "-wal"):
        shutil.copyfile(f"{path}{end}", f"{copy}{end}")
    try:
        with closing(sqlite3.connect(copy)) as books:
            return int(books.execute("SELECT count(*) FROM entries").fetchone()[0])
    finally:
        for left in path.parent.glob("looked-at*"):
            left.unlink()


def test_a_version_waits_while_a_program_has_the_database_open(anna: Desk, luc: Desk) -> None:
    books = made(anna.folder / "books", "WAL")
    anna.attach(books)
    meet(luc, anna)
    with closing(sqlite3.connect(luc.folder / "books", isolation_level=None)) as theirs:
        theirs.execute("DELETE FROM entries WHERE id <= 100")
    with working(books, "SELECT count(*) FROM entries") as program:
        luc.settle()
        anna.learn(luc)
        attention = anna.settle(luc, patience=0.2).attention["books"]
        assert attention is not None and attention.code == "open-here"
        assert program("SELECT count(*) FROM entries") == [[200]]
    meet(anna, luc)
    assert rows(books) == 100


def test_nothing_is_put_beside_the_log_of_a_database_that_is_gone(anna: Desk, luc: Desk) -> None:
    books = made(anna.folder / "books", "WAL")
    anna.attach(books)
    with closing(sqlite3.connect(luc.folder / "books", isolation_level=None)) as theirs:
        theirs.execute("PRAGMA journal_mode = WAL")
        theirs.execute("CREATE TABLE other (x)")
        theirs.execute("INSERT INTO other VALUES (1)")
        shutil.copyfile(luc.folder / "books-wal", luc.folder / "kept")
    (luc.folder / "books").unlink()
    (luc.folder / "kept").rename(luc.folder / "books-wal")
    luc.learn(anna)
    attention = luc.settle(anna).attention["books"]
    assert attention is not None and attention.code == "in-the-way"
    assert "books-wal" in attention.reason()
    assert os.listdir(luc.folder) == ["books-wal"]
    (luc.folder / "books-wal").rename(luc.root / "elsewhere")
    luc.settle(anna)
    assert rows(luc.folder / "books") == 200


def test_in_a_folder_the_parts_of_a_database_are_no_files_of_their_own(anna: Desk, luc: Desk) -> None:
    folder = anna.files / "client"
    folder.mkdir(parents=True)
    (folder / "grand").write_text("no database")
    for name in ("grand-journal", "grand-wal", "lone.db-wal"):
        (folder / name).write_text("a file like any other")
    made(folder / "books", "WAL")
    with working(folder / "books", INSERT):
        anna.attach(folder)
        meet(luc, anna)
    assert sorted(os.listdir(luc.folder / "client")) == ["books", "grand", "grand-journal", "grand-wal", "lone.db-wal"]
    assert rows(luc.folder / "client" / "books") == 201


def test_a_change_in_the_log_alone_is_seen_by_a_survey(anna: Desk) -> None:
    folder = anna.files / "client"
    made(folder / "books", "WAL")
    with working(folder / "books") as program:
        anna.attach(folder)
        stamp = (folder / "books").stat()
        program(INSERT)
        anna.restart()
        anna.settle()
        assert (folder / "books").stat() == stamp
    assert versions_of(anna, "client/books") == 2


def test_without_a_program_it_is_a_file_like_any_other(anna: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("p2psync.store.snapshots._sqlite", lambda *words: pytest.fail("SQLite was asked"))
    anna.attach(made(anna.folder / "books", "WAL"))
    assert versions_of(anna, "books") == 1


def test_a_file_that_only_looks_like_a_database(anna: Desk, held_open: Callable[..., AbstractContextManager[Any]]) -> None:
    books = anna.folder / "books"
    books.parent.mkdir(parents=True)
    books.write_bytes(b"SQLite format 3\0" + os.urandom(5000))
    with held_open(books):
        anna.attach(books)
        assert versions_of(anna, "books") == 1
