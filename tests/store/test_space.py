"""Room on real disks: what is left is known, and the reserve is room for what has to be written when there is no other."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Any

import pytest

from p2psync.store import paths, space, versions
from p2psync.store.faults import DiskFull
from p2psync.store.seeing import NotNoted
from p2psync.store.space import Reserve, Space, SpaceShort
from p2psync.store.spots import Spot
from p2psync.store.vault import Vault
from p2psync.values.digest import content_digest
from p2psync.values.names import RelPath
from tests.lan.desks import Desk, fast_place


def test_a_disk_is_asked_through_what_is_there_already(tmp_path: Path) -> None:
    there = os.statvfs(tmp_path)
    assert space.of(tmp_path / "not/made/yet").total == space.of(tmp_path).total == there.f_blocks * there.f_frsize
    assert list(space.disks([tmp_path, tmp_path, tmp_path / "none"])) == [tmp_path]


def test_somebody_fills_the_disk_and_the_reserve_is_what_can_still_be_written(small_disk: Path) -> None:
    reserve = Reserve(small_disk)
    assert reserve.keep_up() and reserve.keep_up()
    with (small_disk / "a film").open("wb", buffering=0) as film, pytest.raises(OSError, match="No space"):
        while True:
            film.write(bytes(4096))
    with pytest.raises(OSError, match="No space"):
        (small_disk / "ledger").write_bytes(bytes(8192))
    assert not reserve.keep_up()
    (small_disk / "ledger").write_bytes(bytes(8192))
    assert not reserve.keep_up()
    (small_disk / "a film").unlink()
    assert reserve.keep_up() and reserve.held


def test_what_is_refused_says_how_much_is_left(tmp_path: Path) -> None:
    Space(60 * 10**9, 10**12).check(tmp_path, 10**9)
    with pytest.raises(SpaceShort, match=r"has only 40.0 GB left of 1.0 TB, and below 50.0 GB p2psync fetches nothing"):
        Space(40 * 10**9, 10**12).check(tmp_path)
    with pytest.raises(SpaceShort):
        Space(60 * 10**9, 10**12).check(tmp_path, 11 * 10**9)
    assert [space.said(n) for n in (0, 999, 1000, 123_456, 5 * 10**15)] == ["0 B", "999 B", "1.0 KB", "123 KB", "5000 TB"]


def test_what_is_left_at_the_end_is_for_the_ledger_and_not_for_the_vault(small_disk: Path) -> None:
    vault = Vault(small_disk / "vault.db")
    with contextlib.closing(vault):
        first, second = os.urandom(10_000), os.urandom(10_000)
        vault.keep([(content_digest(first), first)])
        left = space.of(small_disk)
        (small_disk / "a film").write_bytes(bytes(left.free - left.reserve // 2))
        before = space.of(small_disk).free
        with pytest.raises(DiskFull):
            vault.keep([(content_digest(second), second)])
        assert space.of(small_disk).free == before > 0
        assert vault.keep([(content_digest(first), first)]) == 0 and vault.get(content_digest(first)) == first


def test_a_save_that_could_not_be_written_down_is_said_not_to_be_until_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    with fast_place() as place:
        anna = Desk(place / "anna", "Anna").found()
        anna.folder.mkdir()
        book = anna.folder / "compta.cre"
        book.write_text("one")
        anna.attach(book)
        book.write_text("two")
        full = True
        real = paths.put_all

        def put(*args: Any) -> None:
            if full:
                raise DiskFull(path="ledger.db")
            real(*args)

        monkeypatch.setattr(paths, "put_all", put)
        with pytest.raises(NotNoted, match="is full"):  # a trouble of the mandate, which begins anew
            anna.look.look({Spot(RelPath("compta.cre"), ())})
        full = False
        anna.settle()
        assert len(versions.history(anna.books.ledger.read(), RelPath("compta.cre"))) == 3
        anna.arrivals.close()
        anna.books.close()
