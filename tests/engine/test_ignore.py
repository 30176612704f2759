"""Lock files and half-saved work stay here; a book of accounts never does."""

from __future__ import annotations

import pytest

from p2psync.engine.ignore import database_of, halves_of, is_by_work, lock_names


@pytest.mark.parametrize(
    "name",
    [
        ".p2psync-0123.part",
        ".P2Psync",
        ".~lock.Bilan 2026.ods#",
        "~$Bilan.xlsx",
        "~$nuel.docx",
        "~WRD0001.tmp",
        ".#notes.txt",
        ".notes.txt.swp",
        ".goutputstream-A1B2C3",
        ".nfs000000000012d687000000a1",
        ".fuse_hidden0000000600000001",
        ".DS_Store",
        "._Bilan.xlsx",
        "Thumbs.db",
        "desktop.ini",
    ],
)
def test_by_work(name: str) -> None:
    assert is_by_work(name)


@pytest.mark.parametrize(
    "name",
    [
        "Bilan.xlsx",
        "compta.db",
        "compta.db-wal",
        "grand-journal",
        "2026-journal",
        "banque.2026-journal",
        "lock.txt",
        "~Archiv",
        "$~x",
        ".hidden",
        "x.tmp",
        "swap.swp",
        "p2psync.txt",
        ".~lock.x",
        "a\n.DS_Store",
        "",
    ],
)
def test_shared(name: str) -> None:
    assert not is_by_work(name)


def test_lock_files_of_a_name_are_by_work() -> None:
    names = lock_names("Manuel.docx")
    assert names == (".~lock.Manuel.docx#", "~$Manuel.docx", "~$anuel.docx", "~$nuel.docx")
    assert all(map(is_by_work, names))


def test_a_name_tells_which_database_it_might_belong_to() -> None:
    assert all(database_of(name) == "compta.db" for name in (*halves_of("compta.db"), "compta.db-shm"))
    assert database_of("grand-journal") == "grand"
    assert [database_of(name) for name in ("-wal", "wal", "compta.db", "compta.db-wals", "")] == [None] * 5
