"""Who has a file open: noticed whatever way it was opened, never ourselves, and never a reason to hang or to die."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from p2psync.store import openfiles
from p2psync.store.openfiles import Lease, OpenBy, descriptor, held, is_open
from p2psync.store.root import LinkInTheWay, NoPlainFile, Root
from tests.visitor import let_in

from .conftest import NOBODY, Holder

pytestmark = pytest.mark.usefixtures("no_leaked_descriptors")


@pytest.fixture
def root(tmp_path: Path) -> Root:
    (tmp_path / "books").mkdir()
    (tmp_path / "books" / "a").write_text("book")
    return Root(tmp_path / "books")


@pytest.mark.parametrize("how", ["r", "w", "m"])
def test_a_program_that_has_it_open_is_named(root: Root, held_open: Holder, how: str) -> None:
    assert is_open(root, ("a",)) is None
    with held_open(root.path / "a", how) as program:
        found = is_open(root, ("a",))
    assert found is not None
    assert found.who is not None
    assert f"(process {program.pid} of " in found.who
    assert str(found).startswith("open in python")
    assert is_open(root, ("a",)) is None


def test_open_under_another_name_is_open(root: Root, held_open: Holder) -> None:
    os.link(root.path / "a", root.path / "b")
    with held_open(root.path / "b"):
        assert is_open(root, ("a",)) == OpenBy(None, None, "open")


def test_nothing_is_open_where_nothing_stands(root: Root) -> None:
    assert is_open(root, ("none",)) is None
    assert is_open(root, ("none", "a")) is None


def test_links_and_folders_are_no_files(root: Root) -> None:
    (root.path / "link").symlink_to(root.path / "a")
    (root.path / "sub").mkdir()
    with pytest.raises(NoPlainFile):
        is_open(root, ("sub",))
    (root.path / "linked").symlink_to(root.path / "sub")
    with pytest.raises(LinkInTheWay):
        is_open(root, ("linked", "a"))


def test_we_ourselves_do_not_count(root: Root, held_open: Holder) -> None:
    own = root.open_read(("a",))
    try:
        found = is_open(root, ("a",))
        assert found is None or "p2psync itself" in str(found.who)  # the second where some process hides what it has open
        with held_open(root.path / "a") as program:
            found = is_open(root, ("a",))
            assert found is not None
            assert str(program.pid) in str(found.who)
    finally:
        os.close(own)


def test_while_it_is_unclear_whether_it_is_only_we_it_counts_as_open(root: Root, forked: Callable[..., Any]) -> None:
    let_in(root.path)
    os.chown(root.path / "a", NOBODY, NOBODY)

    def look() -> Any:
        here = Root(root.path)
        own = here.open_read(("a",))
        first = is_open(here, ("a",))
        os.close(own)
        return first, is_open(here, ("a",))

    reading, closed = forked(look, uid=NOBODY)
    assert "p2psync itself" in str(reading)
    assert closed is None


def test_another_users_file_is_open_when_it_can_be_seen_and_otherwise_unknown(
    root: Root, forked: Callable[..., Any], held_open: Holder
) -> None:
    let_in(root.path)
    with held_open(root.path / "a"):
        assert forked(lambda: is_open(Root(root.path), ("a",)), uid=NOBODY) is None

    def holding_it_in_a_child() -> Any:
        command = ["/bin/sh", "-c", 'exec 3<"$0"; echo; read rest', str(root.path / "a")]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as program:
            assert program.stdout is not None
            program.stdout.readline()
            found = is_open(Root(root.path), ("a",))
            program.communicate(b"")
        return found

    found = forked(holding_it_in_a_child, uid=NOBODY)
    assert "sh (process" in str(found)


def test_whoever_opens_it_meanwhile_waits_and_we_live_on(root: Root) -> None:
    fd = root.open_read(("a",))
    try:
        with held(fd) as lease:
            assert lease is Lease.GRANTED
            reader = subprocess.Popen(["cat", root.path / "a"], stdout=subprocess.PIPE)
            while _state(reader.pid) != "waits in open":
                time.sleep(0.001)
            # The kernel has told us by now that somebody waits, with a signal that would end a process by default.
            assert reader.poll() is None
        assert reader.communicate() == (b"book", None)
        assert descriptor(fd, "a") is None
    finally:
        os.close(fd)


def _state(pid: int) -> str:
    """Whether the program has come to the point where it waits in the kernel for our lease (`cat` has nothing else to wait for)."""
    comm, _, rest = Path(f"/proc/{pid}/stat").read_text().partition(") ")
    return "waits in open" if comm.endswith("(cat") and rest[0] in "SD" else "on its way"


def test_somebodys_own_lease_is_a_sign_of_use(root: Root) -> None:
    code = """
import fcntl, os, signal, sys
signal.signal(signal.SIGIO, signal.SIG_IGN)
fd = os.open(sys.argv[1], os.O_RDONLY)
fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_WRLCK)
print(flush=True)
sys.stdin.read()
"""
    with subprocess.Popen([sys.executable, "-S", "-c", code, root.path / "a"], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as samba:
        assert samba.stdout is not None
        samba.stdout.readline()
        assert is_open(root, ("a",)) == OpenBy(None, None, "open")
        samba.communicate(b"")
    assert is_open(root, ("a",)) is None


def test_libreoffice_says_who_and_since_when(root: Root) -> None:
    (root.path / ".~lock.a#").write_text(r"Müller\, Anna,anna,kiosk,24.11.2026 09:12,file:///home/anna/.config/libreoffice/4;")
    found = is_open(root, ("a",))
    since = int(datetime(2026, 11, 24, 9, 12).timestamp() * 1000)
    assert found == OpenBy("LibreOffice by Müller, Anna on kiosk", since, "lock file", ".~lock.a#")


@pytest.mark.parametrize(
    ("text", "who"),
    [
        (b",anna,kiosk,nonsense,;", "LibreOffice by anna on kiosk"),
        (b"", "LibreOffice"),
        (b"\xff\xfe,\x1b[31m,;", "LibreOffice by \ufffd\ufffd"),
        (b"a,b,\x1b[31mc,;", "LibreOffice by a on \\u001b[31mc"),
        (b"\\", "LibreOffice"),
        (b"x" * 5_000, "LibreOffice by " + "x" * 1024),
    ],
)
def test_a_strange_lock_file_still_locks_and_cannot_hurt(root: Root, text: bytes, who: str) -> None:
    (root.path / ".~lock.a#").write_bytes(text)
    os.utime(root.path / ".~lock.a#", ns=(10**18, 10**18))
    assert is_open(root, ("a",)) == OpenBy(who, 10**12, "lock file", ".~lock.a#")


@pytest.mark.parametrize("name", ["~$Budget.docx", "~$udget.docx", "~$dget.docx"])
def test_office_says_who(root: Root, name: str) -> None:
    (root.path / "Budget.docx").write_text("x")
    owner = b"\x04Ann\xe9".ljust(55, b" ") + "\x04Anné".encode("utf-16-le")
    (root.path / name).write_bytes(owner.ljust(162, b"\0"))
    found = is_open(root, ("Budget.docx",))
    assert found is not None
    assert (found.who, found.how, found.lock) == ("Anné", "lock file", name)


def test_a_lock_file_that_a_crash_left_on_this_machine_locks_no_more(root: Root, monkeypatch: pytest.MonkeyPatch) -> None:
    lock = root.path / ".~lock.a#"
    running: list[bool] = []
    monkeypatch.setattr(openfiles, "_runs", lambda *programs: bool(running))
    lock.write_text(f",anna,{os.uname().nodename},24.11.2026 09:12,file:///home/anna/.config/libreoffice/4;")
    assert is_open(root, ("a",)) is None
    running.append(True)
    assert is_open(root, ("a",)) is not None
    running.clear()
    with lock.open():  # somebody is at it: this one was not left behind
        assert is_open(root, ("a",)) is not None
    lock.write_text(",anna,elsewhere,24.11.2026 09:12,file:///home/anna/.config/libreoffice/4;")
    assert is_open(root, ("a",)) is not None, "of another machine nobody can tell from here"


def test_what_runs_on_this_machine(forked: Callable[..., Any]) -> None:
    own = Path("/proc/self/comm").read_text().strip()
    assert openfiles._runs(own)
    assert not openfiles._runs("no-such-program")


@pytest.mark.parametrize(("how", "expected"), [("r", False), ("w", True), ("m", False), ("wm", True)])
def test_who_writes_is_told_from_who_reads(root: Root, held_open: Holder, how: str, expected: bool) -> None:
    fd = root.open_read(("a",))
    try:
        assert not openfiles.written(fd, "a", fresh=True)
        with held_open(root.path / "a", how):
            assert openfiles.written(fd, "a", fresh=True) == expected
        assert not openfiles.written(fd, "a", fresh=True)
    finally:
        os.close(fd)


def test_without_leases_whoever_has_open_what_is_fresh_may_be_writing(
    root: Root, held_open: Holder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(openfiles, "_take_lease", lambda fd, for_reading=False: Lease.UNKNOWN)
    fd = root.open_read(("a",))
    try:
        with held_open(root.path / "a", "w"):
            assert openfiles.written(fd, "a", fresh=True)
            assert not openfiles.written(fd, "a", fresh=False), "looking at all processes takes too long for every old file"
        assert not openfiles.written(fd, "a", fresh=True)
    finally:
        os.close(fd)


def test_a_strange_office_lock_file_still_locks(root: Root) -> None:
    for text in (b"", b"\xff", b"\x00"):
        (root.path / "~$a").write_bytes(text)
        found = is_open(root, ("a",))
        assert found is not None
        assert found.who == "an Office program"


def test_a_folder_or_a_link_is_no_lock_file(root: Root) -> None:
    (root.path / ".~lock.a#").mkdir()
    (root.path / "~$a").symlink_to("a")
    assert is_open(root, ("a",)) is None


def test_a_name_that_leaves_no_room_for_a_lock_file(root: Root) -> None:
    shutil.copy(root.path / "a", root.path / ("x" * 255))
    assert is_open(root, ("x" * 255,)) is None


def test_without_leases_the_descriptors_speak(root: Root, held_open: Holder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openfiles, "_take_lease", lambda fd, **how: Lease.UNKNOWN)
    assert is_open(root, ("a",)) is None
    with held_open(root.path / "a", "m") as program:
        found = is_open(root, ("a",))
    assert found is not None
    assert str(program.pid) in str(found.who)
