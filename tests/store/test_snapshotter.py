"""The program that lets SQLite read a database for us: what it writes, and how it ends."""

from __future__ import annotations

import os
import shutil
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from p2psync.store import snapshotter
from p2psync.store.snapshotter import BUSY, DONE, FAILED, NO_DATABASE, main


@pytest.fixture
def umask() -> Iterator[None]:
    before = os.umask(0)
    os.umask(before)
    yield
    os.umask(before)


pytestmark = pytest.mark.usefixtures("umask")


def opened(path: Path, mode: str) -> sqlite3.Connection:
    books = sqlite3.connect(path, isolation_level=None)
    books.execute(f"PRAGMA journal_mode = {mode}")
    books.execute("PRAGMA synchronous = OFF")
    books.execute("PRAGMA wal_autocheckpoint = 50")
    books.execute("CREATE TABLE entries (id INTEGER PRIMARY KEY, text)")
    return books


@pytest.mark.parametrize("page_size", [512, 4096, 65536])
@pytest.mark.parametrize("mode", ["WAL", "DELETE"])
def test_a_snapshot_has_the_bytes_that_the_file_will_have(tmp_path: Path, mode: str, page_size: int) -> None:
    with closing(sqlite3.connect(tmp_path / "books")) as books:
        books.execute(f"PRAGMA page_size = {page_size}")
        books.execute("VACUUM")
    books = opened(tmp_path / "books", mode)
    for number in range(120):  # tables come and go, the file grows and shrinks, the log is begun anew
        books.execute("INSERT INTO entries (text) VALUES (?)", ("x" * 700,))
        if number % 30 == 0:
            books.execute(f"CREATE TABLE other{number} AS SELECT * FROM entries")
        if number % 30 == 29:
            books.execute(f"DROP TABLE other{number - 29}")
            books.execute("DELETE FROM entries WHERE id % 2")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir() if not path.name.endswith("-shm")}
    assert main(["backup", str(tmp_path / "books"), str(tmp_path / "copy")]) == DONE
    after = {path.name: path.read_bytes() for path in tmp_path.iterdir() if not path.name.endswith("-shm")}
    snapshot = after.pop("copy")
    assert after == before
    books.close()
    assert (tmp_path / "books").read_bytes() == snapshot


def test_no_moment_to_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshotter, "_LOCKED_S", 0.05)
    with closing(opened(tmp_path / "books", "DELETE")) as books:
        books.execute("BEGIN EXCLUSIVE")
        real = sqlite3.connect
        monkeypatch.setattr(sqlite3, "connect", lambda *words, **how: real(*words, **(how | {"timeout": 0.0})))
        assert main(["backup", str(tmp_path / "books"), str(tmp_path / "copy")]) == BUSY


def test_others_write_all_the_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between two steps somebody writes, every time: the steps grow until one is enough, or it is given up."""
    with closing(opened(tmp_path / "books", "DELETE")) as books:
        books.executemany("INSERT INTO entries (text) VALUES (?)", [("x" * 900,)] * 200)
        monkeypatch.setattr(time, "sleep", lambda _s: books.execute("INSERT INTO entries (text) VALUES ('new')"))
        monkeypatch.setattr(snapshotter, "STEPS", ((5, 0.05),))
        assert main(["backup", str(tmp_path / "books"), str(tmp_path / "copy")]) == BUSY
        monkeypatch.setattr(snapshotter, "STEPS", ((20, 0.05), (21, 0.05), (10_000, 1.0)))
        assert main(["backup", str(tmp_path / "books"), str(tmp_path / "copy")]) == DONE
        with closing(sqlite3.connect(tmp_path / "copy")) as copy:
            assert copy.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


def test_what_is_no_database(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "books").write_bytes(b"SQLite format 3\0" + b"x" * 5000)
    assert main(["backup", str(tmp_path / "books"), str(tmp_path / "copy")]) == NO_DATABASE
    assert main(["recover", str(tmp_path / "books")]) == NO_DATABASE
    assert main(["recover", str(tmp_path / "none")]) == FAILED
    assert "unable to open" in capsys.readouterr().err


def test_what_is_left_in_a_log_is_written_back(tmp_path: Path) -> None:
    with closing(opened(tmp_path / "books", "WAL")) as books:
        books.execute("INSERT INTO entries (text) VALUES ('new')")
        (tmp_path / "crashed").mkdir()
        for end in ("", "-wal"):
            shutil.copyfile(tmp_path / f"books{end}", tmp_path / "crashed" / f"books{end}")
    assert main(["recover", str(tmp_path / "crashed" / "books")]) == DONE
    assert [path.name for path in (tmp_path / "crashed").iterdir()] == ["books"]
    assert (tmp_path / "crashed" / "books").read_bytes() == (tmp_path / "books").read_bytes()
