"""Old bytes or new ones, never a mixture."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from p2psync.store import savefile
from p2psync.store.faults import CannotWrite, DiskFull

from .conftest import read_only

pytestmark = pytest.mark.usefixtures("no_leaked_descriptors")


def test_saves_and_replaces(tmp_path: Path) -> None:
    savefile.save(tmp_path / "state", b"old")
    assert stat.S_IMODE((tmp_path / "state").stat().st_mode) == 0o600
    savefile.save(tmp_path / "state", b"new", 0o644)
    assert (tmp_path / "state").read_bytes() == b"new"
    assert stat.S_IMODE((tmp_path / "state").stat().st_mode) == 0o644
    assert os.listdir(tmp_path) == ["state"]


def test_the_bytes_are_on_the_disk_before_the_name_and_the_name_before_the_return(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    order = []
    monkeypatch.setattr(savefile, "sync_file", lambda fd: order.append("bytes"))
    monkeypatch.setattr(savefile, "sync_folder", lambda fd: order.append("name"))
    replace = os.replace
    monkeypatch.setattr(os, "replace", lambda *names: (order.append("rename"), replace(*names)))
    savefile.save(tmp_path / "state", b"new")
    assert order == ["bytes", "rename", "name"]


def test_a_full_disk_leaves_the_old_file(small_disk: Path) -> None:
    savefile.save(small_disk / "state", b"old")
    with pytest.raises(DiskFull, match="Make room"):
        savefile.save(small_disk / "state", bytes(2 * 1024 * 1024))
    assert (small_disk / "state").read_bytes() == b"old"
    assert os.listdir(small_disk) == ["state"]


def test_a_read_only_disk_is_said_to_be_one(small_disk: Path) -> None:
    savefile.save(small_disk / "state", b"old")
    read_only(small_disk)
    with pytest.raises(CannotWrite, match="mounted read-only"):
        savefile.save(small_disk / "state", b"new")
    assert (small_disk / "state").read_bytes() == b"old"


def test_a_folder_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(CannotWrite, match="a folder above it is not there"):
        savefile.save(tmp_path / "none" / "state", b"")
