"""Real mounts under real daemons: a disk that is unmounted and mounted again deletes nothing, and all goes on by itself."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.story.desks import Desk

pytestmark = [pytest.mark.real, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]

BOOKS = "Dupont SA"


class Disk:
    """A directory that is mounted at ``at`` and taken away again."""

    def __init__(self, place: Path) -> None:
        self._disk, self.at = place / "disk", place / "mnt"
        self._disk.mkdir()
        self.at.mkdir()

    def mount(self) -> None:
        done = subprocess.run(["mount", "--bind", self._disk, self.at], capture_output=True, check=False)
        if done.returncode:
            pytest.skip("mounting is not permitted here")

    def unmount(self) -> None:
        subprocess.run(["umount", self.at], check=True)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    disk = Disk(tmp_path)
    disk.mount()
    yield disk
    subprocess.run(["umount", "-l", disk.at], capture_output=True, check=False)


@contextlib.contextmanager
def running(*desks: Desk) -> Iterator[None]:
    try:
        yield
    finally:
        for desk in desks:
            desk.stop()


@pytest.mark.parametrize("what", ["the mount point itself", "a folder and a file below it"])
def test_a_disk_that_is_unmounted_and_mounted_again(tmp_path: Path, disk: Disk, what: str) -> None:
    folder = disk.at if what.startswith("the mount") else disk.at / "recus"
    file = disk.at / "compta.cre"
    folder.mkdir(exist_ok=True)
    for n in range(12):
        (folder / f"{n}.pdf").write_text(f"receipt {n}")
    anna, bruno = Desk("Anna", tmp_path / "Anna"), Desk("Bruno", tmp_path / "Bruno")
    with running(anna, bruno):
        anna.start("--no-mdns").answers()
        port = anna.status()["port"]
        bruno.start("--no-mdns", "--peer", f"127.0.0.1:{port}").answers()
        attached = [folder]
        if folder != disk.at:
            file.write_text("compta 1")
            attached.append(file)
        anna.does("create", BOOKS, *attached)
        anna.does("share", BOOKS)
        anna.does("invite", BOOKS, "--for", "Bruno", "-o", tmp_path / "bruno.crsync")
        bruno.does("subscribe", tmp_path / "bruno.crsync")
        theirs = bruno.place / BOOKS / folder.name
        bruno.until("all is there", lambda: (theirs / "11.pdf").exists())
        bruno.does("wait", BOOKS)
        disk.unmount()
        expected = "halted" if folder == disk.at else "missing"
        anna.until("the absence is shown", lambda: anna.attachment(BOOKS, folder.name).get("state") == expected, 20)
        if folder != disk.at:
            anna.until("the file is missed", lambda: anna.attachment(BOOKS, file.name).get("state") == "missing", 20)
        (theirs / "3.pdf").write_text("by Bruno, meanwhile")
        bruno.settled()
        assert len(list(theirs.iterdir())) == 12 and not any(disk.at.iterdir())
        disk.mount()
        anna.until("it goes on by itself", lambda: (folder / "3.pdf").read_text() == "by Bruno, meanwhile", 20)
        anna.does("wait", BOOKS)
        assert anna.attachment(BOOKS, folder.name).get("state") == "synced" and len(list(theirs.iterdir())) == 12
