"""A folder is promised to a mandate only when it can be had, and trying it leaves nothing behind."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from p2psync.store.attaching import PathUnfit
from p2psync.store.mandatefolder import (
    FolderAroundTaken,
    FolderOwn,
    FolderTaken,
    FolderUnusable,
    check_place,
    default_place,
    make_folder,
)
from p2psync.values.errors import UserError


@pytest.fixture
def other(tmp_path: Path) -> Any:
    """The books of a mandate that has folders already."""
    (tmp_path / "dupont/in").mkdir(parents=True)
    (tmp_path / "desk").mkdir()
    attached = SimpleNamespace(path=tmp_path / "desk", single=False)
    file = SimpleNamespace(path=tmp_path / "free/file.txt", single=True)
    return SimpleNamespace(name="Dupont SA", folder=tmp_path / "dupont", locations=lambda: {"desk": attached, "file.txt": file})


@pytest.mark.parametrize(
    ("place", "error"),
    [
        ("free", None),
        ("free/new/deep", None),
        ("dupont", FolderTaken),
        ("dupont/in/deep", FolderTaken),
        ("desk", FolderTaken),
        ("link", FolderTaken),
        ("link/new", FolderTaken),
        (".", FolderOwn),
        ("state", FolderOwn),
        ("state/mandates", FolderOwn),
        ("file", FolderUnusable),
        ("file/new", FolderUnusable),
        ("x" * 300, FolderUnusable),
        ("\udcff", PathUnfit),
    ],
)
def test_a_place_is_checked_and_nothing_is_left_of_the_trial(tmp_path: Path, other: Any, place: str, error: type[UserError] | None) -> None:
    (tmp_path / "free").mkdir()
    (tmp_path / "state").mkdir()
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to(tmp_path / "dupont")
    before = sorted(tmp_path.rglob("*"))
    if error is None:
        check_place(tmp_path / place, tmp_path / "state", [other])
    else:
        with pytest.raises(error, match="nothing was changed"):
            check_place(tmp_path / place, tmp_path / "state", [other])
    assert sorted(tmp_path.rglob("*")) == before


def test_a_folder_around_that_of_another_mandate(tmp_path: Path, other: Any) -> None:
    with pytest.raises(FolderAroundTaken, match=r"contains “.*dupont” of the mandate “Dupont SA”"):
        check_place(tmp_path, tmp_path.parent / "state", [other])


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_may_not_be_written_to(tmp_path: Path) -> None:
    (tmp_path / "shut").mkdir(mode=0o500)
    for place in ("shut", "shut/new"):
        with pytest.raises(FolderUnusable, match="may not write"):
            check_place(tmp_path / place, tmp_path / "state", [])


def test_what_is_made_is_told(tmp_path: Path) -> None:
    assert make_folder(tmp_path / "a/b") == [tmp_path / "a", tmp_path / "a/b"]
    assert make_folder(tmp_path / "a/b") == []


@pytest.mark.parametrize(
    ("name", "folder"), [("Dupont SA", "Dupont SA"), ("A/B: C?", "A-B- C-"), ("Müller & Cie.", "Müller & Cie"), ("...", "mandate")]
)
def test_a_mandates_own_folder_has_its_name_as_every_system_can_store_it(name: str, folder: str) -> None:
    assert default_place(name, Path("/f")) == Path("/f") / folder
