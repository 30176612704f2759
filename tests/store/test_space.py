"""Room on real disks: what is left is known, and the reserve is room for what has to be written when there is no other."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from p2psync.store import space
from p2psync.store.space import Reserve, Space, SpaceShort


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
