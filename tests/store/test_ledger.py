"""The ledger: one durable transaction or none, and a sentence for a file that cannot be read."""

from __future__ import annotations

import sqlite3
import stat
import threading
from pathlib import Path

import pytest

from p2psync.store.ledger import Ledger, LedgerDamaged, LedgerTooNew


def test_a_new_ledger_is_for_its_owner_alone(tmp_path: Path) -> None:
    Ledger(tmp_path / "ledger.db").close()
    assert stat.S_IMODE((tmp_path / "ledger.db").stat().st_mode) == 0o600


def test_what_was_put_is_found_again(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.db")
    assert ledger.get("folder") is None
    ledger.put("folder", b"/books")
    ledger.put("folder", b"/other")
    assert ledger.get("folder") == b"/other"
    ledger.close()
    ledger = Ledger(tmp_path / "ledger.db")
    assert ledger.get("folder") == b"/other"
    ledger.close()


def test_an_exception_undoes_the_whole_transaction_nested_blocks_included(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.db")
    with pytest.raises(KeyboardInterrupt), ledger.write():
        ledger.put("one", b"1")
        with ledger.write():
            ledger.put("two", b"2")
        raise KeyboardInterrupt
    assert ledger.get("one") is None and ledger.get("two") is None
    ledger.put("three", b"3")
    assert ledger.get("three") == b"3"
    ledger.close()


def test_what_is_not_committed_is_not_seen_by_readers(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.db")
    with ledger.write():
        ledger.put("one", b"1")
        assert ledger.get("one") is None
    assert ledger.get("one") == b"1"
    ledger.close()


def test_one_thread_writes_after_the_other(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.db")
    ledger.put("count", b"0")

    def add() -> None:
        for _ in range(20):
            with ledger.write() as db:
                (value,) = db.execute("SELECT value FROM meta WHERE key = 'count'").fetchone()
                ledger.put("count", str(int(value) + 1).encode())

    threads = [threading.Thread(target=add) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert ledger.get("count") == b"80"
    ledger.close()


def test_reading_cannot_write(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.db")
    with pytest.raises(sqlite3.OperationalError):
        ledger.read().execute("DELETE FROM meta")
    ledger.close()


def test_a_ledger_of_a_newer_program_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    Ledger(path).close()
    db = sqlite3.connect(path)
    db.execute("PRAGMA user_version = 99")
    db.close()
    before = path.read_bytes()
    with pytest.raises(LedgerTooNew, match="newer p2psync"):
        Ledger(path)
    assert path.read_bytes() == before


@pytest.mark.parametrize("content", [b"no database at all " * 100, b"SQLite format 3\0" + b"\xff" * 4096])
def test_a_damaged_file_is_said_to_be_and_left_alone(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "ledger.db"
    path.write_bytes(content)
    with pytest.raises(LedgerDamaged, match="cannot be read"):
        Ledger(path)
    assert path.read_bytes() == content


def test_a_ledger_that_is_a_folder_is_said_to_be_unreadable(tmp_path: Path) -> None:
    (tmp_path / "ledger.db").mkdir()
    with pytest.raises(LedgerDamaged):
        Ledger(tmp_path / "ledger.db")


def test_the_ledger_is_durable_and_has_its_tables(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.db")
    assert ledger.read().execute("PRAGMA journal_mode").fetchone() == ("wal",)
    with ledger.write() as db:
        assert db.execute("PRAGMA synchronous").fetchone() == (2,)
    tables = {row[0] for row in ledger.read().execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    assert {"meta", "records", "entries", "places", "paths", "copies", "listings", "chunks", "addresses", "met"} <= tables
    ledger.close()


def test_a_ledger_of_the_first_versions_gets_what_it_lacks(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    Ledger(path).close()
    with sqlite3.connect(path) as db:
        for table in ("days", "dropped", "damaged"):
            db.execute(f"DROP TABLE {table}")
    db.close()
    ledger = Ledger(path)
    for table in ("days", "dropped", "damaged"):
        assert ledger.read().execute(f"SELECT count(*) FROM {table}").fetchone() == (0,)
    ledger.close()
