"""The last door: no link is followed, nothing outside is reached, and an absent disk is never an empty one."""

from __future__ import annotations

import os
import shutil
import socket
import stat
import subprocess
import unicodedata
from functools import partial
from pathlib import Path

import pytest

from p2psync.store.faults import DiskFailing
from p2psync.store.newfolders import make_folders
from p2psync.store.root import FolderGone, LinkInTheWay, NameTaken, NoPlainFile, Root, RootGone
from p2psync.values.errors import BadPath, MandateError

pytestmark = pytest.mark.usefixtures("no_leaked_descriptors")


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    place = tmp_path / "outside"
    place.mkdir()
    (place / "secret").write_text("not ours")
    return place


@pytest.fixture
def root(tmp_path: Path) -> Root:
    place = tmp_path / "books"
    (place / "2026").mkdir(parents=True)
    (place / "2026" / "january.csv").write_text("1;2")
    return Root(place)


def read(root: Root, *parts: str) -> bytes:
    fd = root.open_read(parts)
    try:
        return os.pread(fd, 100, 0)
    finally:
        os.close(fd)


def test_reads_what_is_below(root: Root) -> None:
    assert read(root, "2026", "january.csv") == b"1;2"
    stamp = root.stamp(("2026", "january.csv"))
    assert stamp is not None
    assert (stamp.kind, stamp.size, stamp.executable) == ("file", 3, False)
    assert [(name, stamp.kind) for name, stamp in root.list(())] == [("2026", "folder")]


def test_a_linked_folder_is_not_entered(root: Root, outside: Path) -> None:
    (root.path / "link").symlink_to(outside)
    for touch in (root.stamp, root.open_read, partial(make_folders, root)):
        with pytest.raises(LinkInTheWay, match="link” is a link"):
            touch(("link", "secret"))
    with pytest.raises(LinkInTheWay):
        root.list(("link",))
    assert list(outside.iterdir()) == [outside / "secret"]


def test_a_linked_file_is_not_read(root: Root, outside: Path) -> None:
    (root.path / "link").symlink_to(outside / "secret")
    with pytest.raises(LinkInTheWay):
        root.open_read(("link",))
    stamp = root.stamp(("link",))
    assert stamp is not None
    assert stamp.kind == "other"


def test_a_folder_that_becomes_a_link_while_we_are_inside_is_not_followed(root: Root, outside: Path) -> None:
    with root.dir_fd(("2026",)) as folder:
        (root.path / "2026").rename(root.path / "old")
        (root.path / "2026").symlink_to(outside)
        assert os.listdir(folder) == ["january.csv"]
    with pytest.raises(LinkInTheWay):
        root.list(("2026",))


@pytest.mark.parametrize("parts", [("..", "outside", "secret"), ("2026", "..", "..", "outside"), ("", "x"), (".", "x"), ("a/../..", "x")])
def test_no_name_leads_out(root: Root, outside: Path, parts: tuple[str, ...]) -> None:
    with pytest.raises(BadPath, match="leads out"):
        root.stamp(parts)


def test_neither_pipes_nor_sockets_nor_folders_are_read(root: Root) -> None:
    os.mkfifo(root.path / "pipe")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(root.path / "socket"))
        for name in ("pipe", "socket", "2026"):
            with pytest.raises(NoPlainFile):
                root.open_read((name,))


def test_nothing_stands_in_a_folder_that_is_not_there(root: Root) -> None:
    assert root.stamp(("2027", "january.csv")) is None
    assert root.stamp(("2026", "january.csv", "sheet")) is None
    with pytest.raises(FolderGone):
        root.list(("2027",))


def test_a_root_that_vanished_is_gone_and_not_empty(root: Root) -> None:
    shutil.rmtree(root.path)
    for look in (root.stamp, root.list, root.open_read):
        with pytest.raises(RootGone, match="nothing is deleted") as caught:
            look(("2026",))
        assert isinstance(caught.value, MandateError)


def test_another_folder_in_its_place_is_not_the_root(root: Root) -> None:
    root.path.rename(root.path.with_name("moved"))
    root.path.mkdir()
    with pytest.raises(RootGone, match="another folder"):
        root.list(())


def test_an_unmounted_disk_is_gone_and_was_not_held(small_disk: Path) -> None:
    root = Root(small_disk)
    (small_disk / "a").write_text("a")
    root.list(())
    subprocess.run(["umount", str(small_disk)], check=True)  # fails when anybody has something of it open
    assert small_disk.is_dir()
    with pytest.raises(RootGone):
        root.stamp(("a",))


def test_names_stay_as_the_disk_has_them(root: Root) -> None:
    decomposed = unicodedata.normalize("NFD", "Clôture")
    (root.path / decomposed).write_text("x")
    assert decomposed in [name for name, _ in root.list(())]
    assert read(root, decomposed) == b"x"


def test_new_folders_let_in_whom_the_one_around_them_lets_in(root: Root) -> None:
    root.path.chmod(0o2775)
    make_folders(root, ("2027", "q1"))
    assert stat.S_IMODE((root.path / "2027" / "q1").stat().st_mode) & 0o777 == 0o775
    make_folders(root, ("2027", "q1"))  # again: nothing to do


def test_no_folder_is_made_over_a_file(root: Root) -> None:
    (root.path / "2026" / "note").write_text("a file where a folder is wanted")
    for parts in (("2026", "note", "x"), ("2026", "note")):
        with pytest.raises(NameTaken):
            make_folders(root, parts)
    assert sorted(os.listdir(root.path / "2026")) == ["january.csv", "note"]


def test_new_folders_are_undone_when_the_next_one_cannot_be_made(root: Root) -> None:
    with pytest.raises(Exception, match="too long"):
        make_folders(root, ("2027", "x" * 300))
    assert os.listdir(root.path) == ["2026"]


def test_a_folder_that_could_not_be_made_to_last_is_not_taken_for_one_that_does(root: Root, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file would be put into it, and both would be gone after a power cut, as if somebody had deleted them (seed 2100663)."""
    opened = Root.dir_fd

    def failing(self: Root, parts: tuple[str, ...]) -> object:
        if parts == ("2027",):
            raise DiskFailing(path="2027", why="Input/output error")
        return opened(self, parts)

    with monkeypatch.context() as patched:
        patched.setattr(Root, "dir_fd", failing)
        with pytest.raises(DiskFailing):
            make_folders(root, ("2027",))
    assert os.listdir(root.path) == ["2026"]


def test_free_room_is_told(small_disk: Path) -> None:
    free, whole = Root(small_disk).space()
    assert 0 < free <= whole == 1024 * 1024


def test_a_batch_keeps_few_folders_open(root: Root) -> None:
    for number in range(100):
        (root.path / f"f{number}").mkdir()
    before = len(os.listdir("/proc/self/fd"))
    with root.folders() as folders:
        for number in range(100):
            folders((f"f{number}",))
        assert len(os.listdir("/proc/self/fd")) - before < 80
