"""A disk that forgets: real daemons, and bytes that are changed below the file system, as no program can."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.story.desks import Desk, until

D = "Dupont SA"

pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(
        sys.platform != "linux" or os.geteuid() != 0 or not all(map(shutil.which, ("mkfs.ext4", "mount", "umount"))), reason="needs root"
    ),
]


class Disk:
    """A small disk of its own in an image, which can be taken out, spoilt, and put back."""

    def __init__(self, place: Path) -> None:
        self.image, self.place = place / "disk.img", place / "disk"
        self.place.mkdir()
        self.image.write_bytes(b"")
        os.truncate(self.image, 24 << 20)
        subprocess.run(["mkfs.ext4", "-q", "-F", "-O", "^metadata_csum", str(self.image)], check=True, capture_output=True)
        # A namespace that another test makes meanwhile takes all mounts along; of a shared one it learns that it is taken out.
        for how in (["--bind", str(self.place)], ["--make-shared"]):
            self._mount(*how)
        self.put_in()

    def put_in(self) -> None:
        self._mount("-o", "loop", str(self.image))

    def _mount(self, *how: str) -> None:
        if subprocess.run(["mount", *how, str(self.place)], capture_output=True, check=False).returncode:
            pytest.skip("mounting is not permitted here")

    def take_out(self) -> None:
        subprocess.run(["umount", str(self.place)], check=True, capture_output=True)
        until("what was read of it is forgotten", lambda: not self._devices())

    def _devices(self) -> bytes:
        return subprocess.run(["losetup", "--associated", str(self.image)], check=True, capture_output=True).stdout

    def spoil(self, data: bytes) -> int:
        """Change a byte in every place where ``data`` stands on the disk; how many places."""
        image, at, found = bytearray(self.image.read_bytes()), -1, 0
        while (at := image.find(data, at + 1)) >= 0:
            image[at + len(data) // 2] ^= 1
            found += 1
        self.image.write_bytes(image)
        return found


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    try:
        yield Disk(tmp_path)
    finally:
        while not subprocess.run(["umount", "-l", str(tmp_path / "disk")], capture_output=True, check=False).returncode:
            pass  # what is mounted there, and the place itself


def test_what_a_disk_has_damaged_is_named_and_mended_from_another_machine(tmp_path: Path, disk: Disk) -> None:
    """Anna's file and an old version in her history are spoilt; Bruno has both."""
    anna, bruno = Desk("Anna", tmp_path / "anna"), Desk("Bruno", tmp_path / "bruno")
    old, good = os.urandom(9000), os.urandom(9000)  # does not compress, so that the vault keeps it as it is
    anna.state = disk.place / "state"
    book = disk.place / "compta.cre"
    book.write_bytes(old)
    try:
        anna.start()
        bruno.start().answers()
        anna.answers().does("create", D, book, "--as", "Anna")
        anna.does("share", D)
        anna.does("invite", D, "--for", "Bruno", "-o", tmp_path / "bruno.crsync")
        bruno.does("subscribe", tmp_path / "bruno.crsync", "--folder", bruno.place / "books")
        theirs = bruno.place / "books/compta.cre"
        bruno.until("the first version", lambda: theirs.exists() and theirs.read_bytes() == old)
        book.write_bytes(good)
        os.utime(book, (1_700_000_000, 1_700_000_000))
        bruno.until("the second version", lambda: theirs.read_bytes() == good)
        anna.does("wait", D, "--timeout", "15")
        assert "Everything is in order" in anna.does("verify", D)

        anna.stop()
        disk.take_out()
        assert disk.spoil(old[2000:2600]) >= 1 and disk.spoil(good[2000:2600]) >= 2  # the history has both, the file the second
        disk.put_in()
        anna.start().answers()
        anna.until("Bruno is there", lambda: any(p["online"] and not p["self"] for p in anna.mandate(D).get("participants", ())))
        said = anna.does("verify", D, code=4)
        assert said.count("A piece of “compta.cre”, version") == 2 and said.count("it was fetched again and is in order") == 2
        assert f"“compta.cre” at {book} no longer holds what was saved" in " ".join(said.split())
        assert anna.attachment(D, "compta.cre")["code"] == "damaged-file"
        assert theirs.read_bytes() == good and book.read_bytes() != good
        assert len(bruno.get("/v1/history?mandate=Dupont+SA&name=compta.cre")["versions"]) == 3

        anna.does("restore", D, "compta.cre")
        anna.until("the good version is back", lambda: book.read_bytes() == good)
        anna.until("all is well", lambda: anna.attachment(D, "compta.cre")["state"] == "synced")
        assert "Everything is in order" in anna.does("verify")
        versions = [v for v in anna.get("/v1/history?mandate=Dupont+SA&name=compta.cre")["versions"] if v["size"] is not None]
        oldest = versions[-1]["version"]
        anna.does("restore", D, "compta.cre", "--version", oldest, "--to", tmp_path / "old.cre")
        assert (tmp_path / "old.cre").read_bytes() == old
    finally:
        anna.stop()
        bruno.stop()
