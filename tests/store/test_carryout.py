"""One step on the user's files: what stood there is what was expected, is kept, and is replaced as a whole or not at all."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from p2psync.store import carryout, openfiles, renaming, swap
from p2psync.store.carryout import (
    BusyFile,
    ChangedMeanwhile,
    NameTaken,
    Put,
    StagedGone,
    move_aside,
    put_file,
    put_files,
    remove_file,
    remove_folder,
)
from p2psync.store.chunking import describe
from p2psync.store.durable import sync_disk
from p2psync.store.faults import CannotWrite
from p2psync.store.newfolders import make_folders
from p2psync.store.root import FolderGone, LinkInTheWay, Root, RootGone, stamp_at
from p2psync.store.scan import observe
from p2psync.store.staging import Sealed, Staging, sweep
from p2psync.values.content import Observed, Stamp
from p2psync.values.errors import BadName
from tests.visitor import let_in

from .conftest import NOBODY, Holder, read_only

pytestmark = pytest.mark.usefixtures("no_leaked_descriptors")

OLD, NEW = b"old version", b"the new version"


@pytest.fixture
def root(tmp_path: Path) -> Root:
    (tmp_path / "books").mkdir()
    return Root(tmp_path / "books")


@pytest.fixture
def book(root: Root) -> Path:
    path = root.path / "book"
    path.write_bytes(OLD)
    return path


def sealed(root: Root, data: bytes, *parts: str, executable: bool = False, mtime_ns: int | None = None) -> Sealed:
    with (root.path.parent / "source").open("w+b") as file:
        file.write(data)
        file.flush()
        content, listing = describe(file.fileno(), len(data))
    with Staging(root, parts[:-1], content, listing, name=parts[-1]) as staging:
        for chunk in listing:
            staging.place([(chunk.digest, data[chunk.offset : chunk.offset + chunk.size])])
        return staging.seal(executable, mtime_ns)


def stamp(root: Root, *parts: str) -> Stamp:
    found = root.stamp(parts)
    assert found is not None
    return found


class Vault(list[bytes]):
    """Keeps whole old files, as the callback of whoever calls does."""

    def keep(self, fd: int) -> None:
        self.append(os.pread(fd, 1000, 0))


def leftovers(root: Root) -> list[str]:
    return [name for name in os.listdir(root.path) if name.startswith(".p2psync")]


@contextmanager
def just_before(monkeypatch: pytest.MonkeyPatch, module: Any, name: str, what: Callable[[], object]) -> Iterator[None]:
    """Something else happens on this machine right before the system call ``name``."""
    real = getattr(module, name)
    happened: list[bool] = []

    def disturbed(*arguments: Any, **named: Any) -> Any:
        if not happened:
            happened.append(True)
            what()
        return real(*arguments, **named)

    with monkeypatch.context() as patched:
        patched.setattr(module, name, disturbed)
        yield
    assert happened


# ---- putting


def test_a_new_file(root: Root) -> None:
    now = put_file(root, ("a",), sealed(root, NEW, "a"), None)
    assert (root.path / "a").read_bytes() == NEW
    assert now == stamp(root, "a")
    assert leftovers(root) == []


def test_a_replaced_file_was_kept_first(root: Root, book: Path) -> None:
    vault = Vault()
    now = put_file(root, ("book",), sealed(root, NEW, "book"), stamp(root, "book"), vault.keep)
    assert book.read_bytes() == NEW
    assert vault == [OLD]
    assert now == stamp(root, "book")
    assert leftovers(root) == []
    assert isinstance(observe(root, ("book",), None, time.time_ns()), Observed)


def test_permissions_and_owner_are_those_of_the_old_file(root: Root, book: Path) -> None:
    book.chmod(0o640)
    if os.geteuid() == 0:
        os.chown(book, 1234, 5678)
    put_file(root, ("book",), sealed(root, NEW, "book", executable=True), stamp(root, "book"))
    status = book.stat()
    assert stat.S_IMODE(status.st_mode) == 0o750
    if os.geteuid() == 0:
        assert (status.st_uid, status.st_gid) == (1234, 5678)
    put_file(root, ("book",), sealed(root, OLD, "book"), stamp(root, "book"))
    assert stat.S_IMODE(book.stat().st_mode) == 0o640


@pytest.mark.parametrize(
    ("folder", "group", "before", "after"),
    [
        (0o2770, "", 0o644, 0o664),  # their own group may read it: it may write it now, as the owner could
        (0o2770, "", 0o600, 0o660),
        (0o2770, "", 0o740, 0o770),
        (0o2750, "", 0o640, 0o640),  # the group shares nothing here
        (0o0770, "other", 0o640, 0o640),  # the file has another group than the folder
    ],
)
def test_whoever_saved_a_file_can_save_it_again(
    root: Root, book: Path, monkeypatch: pytest.MonkeyPatch, folder: int, group: str, before: int, after: int
) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can give the old file to somebody else")
    os.chown(root.path, -1, 5678)
    root.path.chmod(folder)
    os.chown(book, NOBODY, 5678)
    book.chmod(before)

    def refuse(*_: object) -> None:  # as for whoever is not root
        raise PermissionError(errno.EPERM, "not yours to give")

    monkeypatch.setattr(os, "fchown", refuse)
    put_file(root, ("book",), sealed(root, NEW, "book", executable=before == 0o740), stamp(root, "book"))
    status = book.stat()
    assert (status.st_uid, stat.S_IMODE(status.st_mode)) == (os.geteuid(), after)
    assert (status.st_gid == 5678) == (not group)


@pytest.mark.parametrize(("folder", "plain", "executable"), [(0o755, 0o644, 0o755), (0o700, 0o600, 0o700), (0o2770, 0o660, 0o770)])
def test_a_new_file_lets_in_whom_the_folder_lets_in(root: Root, folder: int, plain: int, executable: int) -> None:
    root.path.chmod(folder)
    put_file(root, ("a",), sealed(root, NEW, "a"), None)
    put_file(root, ("b",), sealed(root, OLD, "b", executable=True), None)
    assert stat.S_IMODE((root.path / "a").stat().st_mode) == plain
    assert stat.S_IMODE((root.path / "b").stat().st_mode) == executable
    assert stamp(root, "b").executable


def test_it_bears_the_time_of_its_author(root: Root) -> None:
    assert put_file(root, ("a",), sealed(root, NEW, "a", mtime_ns=10**18), None).mtime_ns == 10**18
    put_file(root, ("b",), sealed(root, NEW, "b", mtime_ns=2**64 - 1), None)  # a time that no disk can store


def test_a_read_only_file_is_replaced_too(root: Root, book: Path) -> None:
    book.chmod(0o444)
    put_file(root, ("book",), sealed(root, NEW, "book"), stamp(root, "book"))
    assert book.read_bytes() == NEW
    assert stat.S_IMODE(book.stat().st_mode) == 0o444


# ---- looking again


@pytest.mark.parametrize("change", ["append", "rewrite", "replace", "chmod", "remove", "folder", "link"])
def test_changed_since_the_plan(root: Root, book: Path, change: str) -> None:
    expected = stamp(root, "book")
    new = sealed(root, NEW, "book")
    changed(book, change)
    before = snapshot(book)
    vault = Vault()
    with pytest.raises(ChangedMeanwhile):
        put_file(root, ("book",), new, expected, vault.keep)
    with pytest.raises(ChangedMeanwhile):
        remove_file(root, ("book",), expected, vault.keep)
    assert snapshot(book) == before
    assert vault == []
    if change not in ("remove", "folder", "link"):
        put_file(root, ("book",), new, stamp(root, "book"), vault.keep)  # the version still waits
        assert book.read_bytes() == NEW


def changed(book: Path, change: str) -> None:
    if change == "append":
        with book.open("ab") as file:
            file.write(b"!")
    elif change == "rewrite":
        book.write_bytes(OLD.upper())
    elif change == "chmod":
        book.chmod(0o755)
    else:
        book.unlink()
        if change == "replace":
            book.write_bytes(OLD)
        elif change == "folder":
            book.mkdir()
        elif change == "link":
            book.symlink_to("/etc/hostname")


def snapshot(path: Path) -> object:
    if not path.is_file() or path.is_symlink():
        return path.exists(), path.is_dir(), path.is_symlink()
    return path.read_bytes(), path.stat().st_ino


def test_something_stands_where_nothing_was(root: Root) -> None:
    new = sealed(root, NEW, "a")
    (root.path / "a").write_bytes(b"made here meanwhile")
    with pytest.raises(ChangedMeanwhile):
        put_file(root, ("a",), new, None)
    assert (root.path / "a").read_bytes() == b"made here meanwhile"
    assert len(leftovers(root)) == 1


def test_something_comes_to_stand_there_at_the_last_moment(root: Root, monkeypatch: pytest.MonkeyPatch) -> None:
    new = sealed(root, NEW, "a")
    with just_before(monkeypatch, swap, "rename_new", lambda: (root.path / "a").write_bytes(b"just now")), pytest.raises(ChangedMeanwhile):
        put_file(root, ("a",), new, None)
    assert (root.path / "a").read_bytes() == b"just now"


@pytest.mark.parametrize("swapping", [True, False])
def test_it_changes_while_it_is_kept(root: Root, book: Path, monkeypatch: pytest.MonkeyPatch, swapping: bool) -> None:
    if not swapping:
        monkeypatch.setattr(renaming, "_rename", None)

    def save(fd: int) -> None:
        book.write_bytes(b"a save during the copy")

    new = sealed(root, NEW, "book")
    with pytest.raises(ChangedMeanwhile):
        put_file(root, ("book",), new, stamp(root, "book"), save)
    assert book.read_bytes() == b"a save during the copy"


def test_a_save_by_rename_at_the_last_moment_is_not_lost(root: Root, book: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the last look and the rename there is nothing but the swap itself, and it can be taken back."""

    def save() -> None:
        (root.path / "tmp").write_bytes(b"saved at the last moment")
        (root.path / "tmp").rename(book)

    new = sealed(root, NEW, "book")
    with just_before(monkeypatch, swap, "swap", save), pytest.raises(ChangedMeanwhile):
        put_file(root, ("book",), new, stamp(root, "book"))
    assert book.read_bytes() == b"saved at the last moment"
    put_file(root, ("book",), new, stamp(root, "book"))
    assert book.read_bytes() == NEW


def test_a_save_into_the_old_file_right_after_the_swap_is_not_lost(root: Root, book: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever waited for our lease has the old file: it goes back to its name, and the newcomer waits."""
    opened: list[int] = []
    new = sealed(root, NEW, "book")
    descriptor = openfiles.descriptor

    def late(fd: int, name: str) -> Any:
        if name.startswith(".p2psync") and not opened:
            opened.append(os.open(root.path / name, os.O_WRONLY))
            os.pwrite(opened[0], b"late", 0)
        return descriptor(fd, name)

    monkeypatch.setattr(openfiles, "descriptor", late)
    with pytest.raises((ChangedMeanwhile, BusyFile)):
        put_file(root, ("book",), new, stamp(root, "book"))
    os.close(opened[0])
    assert book.read_bytes() == b"lateversion"[: len(OLD)]
    monkeypatch.undo()
    put_file(root, ("book",), new, stamp(root, "book"))
    assert book.read_bytes() == NEW


def test_the_new_version_is_never_shown_while_somebody_waits_for_the_old(root: Root, book: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Swapping and swapping back would show a reader the new version and then the old one again."""
    new, real, swaps = sealed(root, NEW, "book"), swap._look_and_do, []
    reader = threading.Thread(target=book.read_bytes)

    def waited_for(fd: int, *rest: Any) -> Any:
        reader.start()
        while not openfiles.awaited(fd):
            time.sleep(0.001)
        return real(fd, *rest)

    monkeypatch.setattr(swap, "_look_and_do", waited_for)
    monkeypatch.setattr(swap, "swap", lambda *names: swaps.append(names))
    with pytest.raises(BusyFile):
        put_file(root, ("book",), new, stamp(root, "book"))
    reader.join()
    assert (swaps, book.read_bytes()) == ([], OLD)


def test_saves_over_the_new_version_before_it_is_taken_back_win(root: Root, book: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A save displaced by the swap, and another one on top of the new version: the last one stays at the name."""
    saves = iter([b"first save", b"second save"])

    def save() -> None:
        (root.path / "tmp").write_bytes(next(saves))
        (root.path / "tmp").rename(book)

    new, real = sealed(root, NEW, "book"), renaming.swap
    calls: list[Any] = []

    def disturbed(*arguments: Any) -> bool:
        calls.append(arguments)
        if len(calls) <= 2:
            save()
        return real(*arguments)

    monkeypatch.setattr(swap, "swap", disturbed)
    with pytest.raises(ChangedMeanwhile):
        put_file(root, ("book",), new, stamp(root, "book"))
    assert book.read_bytes() == b"second save"


def test_the_stamp_is_of_what_was_put_and_not_of_a_save_right_after_it(root: Root, book: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise that save would count as what the others sent, and never be recorded."""
    new = sealed(root, NEW, "book")
    expected = stamp(root, "book")
    looks: list[bool] = []

    def late(folder: int, name: str) -> Stamp | None:
        if name == "book" and book.read_bytes() == NEW and not looks:
            looks.append(True)
            book.write_bytes(b"edited at once!")
        return stamp_at(folder, name)

    monkeypatch.setattr(carryout, "stamp_at", late)
    now = put_file(root, ("book",), new, expected)
    assert looks
    assert now != stamp(root, "book")


# ---- hands off open files


@pytest.mark.parametrize("how", ["r", "w", "m"])
def test_an_open_file_is_left_alone_and_the_newcomer_waits(root: Root, book: Path, held_open: Holder, how: str) -> None:
    new, expected, vault = sealed(root, NEW, "book"), stamp(root, "book"), Vault()
    inode = book.stat().st_ino
    with held_open(book, how) as program:
        with pytest.raises(BusyFile, match="waits until it is closed") as caught:
            put_file(root, ("book",), new, expected, vault.keep)
        assert str(program.pid) in str(caught.value.by.who)
        with pytest.raises(BusyFile):
            remove_file(root, ("book",), expected, vault.keep)
        with pytest.raises(BusyFile):
            move_aside(root, ("book",), "aside", expected)
    assert (book.read_bytes(), book.stat().st_ino, vault) == (OLD, inode, [])
    put_file(root, ("book",), new, expected, vault.keep)
    assert book.read_bytes() == NEW


def test_a_lock_file_counts(root: Root, book: Path) -> None:
    (root.path / ".~lock.book#").write_text(",anna,kiosk,24.11.2026 09:12,;")
    with pytest.raises(BusyFile, match="open in LibreOffice by anna on kiosk"):
        put_file(root, ("book",), sealed(root, NEW, "book"), stamp(root, "book"))


def test_a_program_that_opens_it_during_the_keeping_is_noticed(root: Root, book: Path) -> None:
    programs = []

    def keep(fd: int) -> None:
        program = subprocess.Popen(["/bin/sh", "-c", 'exec 3<"$0"; echo; read rest', book], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        programs.append(program)
        assert program.stdout is not None
        program.stdout.readline()

    try:
        with pytest.raises(BusyFile):
            put_file(root, ("book",), sealed(root, NEW, "book"), stamp(root, "book"), keep)
        assert book.read_bytes() == OLD
    finally:
        programs[0].communicate(b"\n")


# ---- refusals of the system


def test_a_folder_that_became_a_link_is_not_followed(root: Root, tmp_path: Path) -> None:
    (root.path / "sub").mkdir()
    new = sealed(root, NEW, "sub", "a")
    (tmp_path / "outside").mkdir()
    (root.path / "sub").rename(root.path / "moved")
    (root.path / "sub").symlink_to(tmp_path / "outside")
    with pytest.raises(LinkInTheWay):
        put_file(root, ("sub", "a"), new, None)
    with pytest.raises(LinkInTheWay):
        make_folders(root, ("sub", "x"))
    assert os.listdir(tmp_path / "outside") == []


def test_folders_and_roots_that_vanish_are_named(root: Root) -> None:
    (root.path / "sub").mkdir()
    new = sealed(root, NEW, "sub", "a")
    (root.path / "sub").rename(root.path / "moved")
    with pytest.raises(FolderGone):
        put_file(root, ("sub", "a"), new, None)
    root.path.rename(root.path.with_name("away"))
    with pytest.raises(RootGone):
        put_file(root, ("sub", "a"), new, None)


def test_a_staged_version_that_vanished_or_was_exchanged_is_fetched_again(root: Root, book: Path) -> None:
    new = sealed(root, NEW, "book")
    (name,) = leftovers(root)
    (root.path / name).rename(root.path / "moved")
    with pytest.raises(StagedGone):
        put_file(root, ("book",), new, stamp(root, "book"))
    (root.path / name).write_bytes(NEW)
    with pytest.raises(StagedGone):
        put_file(root, ("book",), new, stamp(root, "book"))
    assert book.read_bytes() == OLD


def test_a_read_only_disk(small_disk: Path) -> None:
    root = Root(small_disk)
    (small_disk / "book").write_bytes(OLD)
    new, expected = sealed(root, NEW, "book"), stamp(root, "book")
    read_only(small_disk)
    for act in (
        lambda: put_file(root, ("book",), new, expected),
        lambda: remove_file(root, ("book",), expected),
        lambda: move_aside(root, ("book",), "aside", expected),
        lambda: make_folders(root, ("sub",)),
    ):
        with pytest.raises(CannotWrite, match="read-only"):
            act()
    assert (small_disk / "book").read_bytes() == OLD


def test_a_folder_that_may_not_be_written_into(root: Root, book: Path, forked: Callable[..., Any]) -> None:
    let_in(root.path)
    book.chmod(0o644)
    expected = stamp(root, "book")

    def remove() -> str:
        try:
            remove_file(Root(root.path), ("book",), expected)
        except CannotWrite as error:
            return str(error)
        return "removed"

    assert forked(remove, uid=NOBODY).endswith("the permissions do not allow it. Give p2psync's account the right to write there.")
    assert book.read_bytes() == OLD


# ---- many at once


def test_many_files_each_succeed_or_fail_by_themselves(root: Root, book: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (root.path / "sub").mkdir()
    (root.path / "taken").write_text("made here")
    order: list[str] = []
    monkeypatch.setattr(carryout, "sync_file", lambda fd: order.append("sync"))
    monkeypatch.setattr(carryout, "sync_folder", lambda fd: order.append("folder"))
    monkeypatch.setattr(carryout, "put_new", lambda *where: (order.append("rename"), swap.put_new(*where))[1])
    monkeypatch.setattr(carryout, "put_over", lambda *where: (order.append("rename"), swap.put_over(*where))[1])
    puts = [Put(("sub", f"{number}"), sealed(root, b"%d" % number, "sub", f"{number}")) for number in range(50)]
    puts += [
        Put(("book",), sealed(root, NEW, "book"), stamp(root, "book"), lambda fd: order.append("keep")),
        Put(("taken",), sealed(root, NEW, "taken")),
    ]
    outcomes = put_files(root, puts, kept=lambda: order.append("kept"))
    assert [type(outcome) for outcome in outcomes] == [Stamp] * 51 + [ChangedMeanwhile]
    assert [(root.path / "sub" / f"{number}").read_bytes() for number in range(50)] == [b"%d" % number for number in range(50)]
    assert book.read_bytes() == NEW
    assert (root.path / "taken").read_text() == "made here"
    assert order == ["sync"] * 52 + ["keep", "kept"] + ["rename"] * 52 + ["folder"] * 2
    assert len(leftovers(root)) == 1


def test_hundreds_of_files_are_made_durable_as_one(root: Root, monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    monkeypatch.setattr(carryout, "sync_disk", lambda fd: (order.append("disk"), sync_disk(fd))[1])
    monkeypatch.setattr(carryout, "put_new", lambda *where: (order.append("rename"), swap.put_new(*where))[1])
    for number in range(3):
        (root.path / str(number)).mkdir()
    puts = [Put((str(number % 3), str(number)), sealed(root, b"%d" % number, str(number % 3), str(number))) for number in range(90)]
    assert all(isinstance(outcome, Stamp) for outcome in put_files(root, puts))
    assert order.count("rename") == 90
    assert order.index("rename") == order.count("disk") in (1, 3)  # three times where the disk cannot do it


def test_files_of_equal_content_in_one_folder(root: Root) -> None:
    outcomes = put_files(root, [Put((name,), sealed(root, b"", name)) for name in "abc"])
    assert all(isinstance(outcome, Stamp) for outcome in outcomes)
    assert sorted(os.listdir(root.path)) == ["a", "b", "c"]


def test_nothing_is_renamed_when_what_was_kept_cannot_be_made_durable(root: Root, book: Path) -> None:
    def fails() -> None:
        raise CannotWrite(path="vault", why="of a test", action="")

    with pytest.raises(CannotWrite):
        put_files(root, [Put(("book",), sealed(root, NEW, "book"), stamp(root, "book")), Put(("a",), sealed(root, NEW, "a"))], kept=fails)
    assert book.read_bytes() == OLD
    assert not (root.path / "a").exists()


def test_a_keeper_that_fails_keeps_the_file(root: Root, book: Path) -> None:
    def fails(fd: int) -> None:
        raise CannotWrite(path="vault", why="of a test", action="")

    for act in (
        lambda: put_file(root, ("book",), sealed(root, NEW, "book"), stamp(root, "book"), fails),
        lambda: remove_file(root, ("book",), stamp(root, "book"), fails),
    ):
        with pytest.raises(CannotWrite, match="vault"):
            act()
    assert book.read_bytes() == OLD


# ---- removing, moving aside, folders


def test_a_removed_file_was_kept_first(root: Root, book: Path) -> None:
    vault = Vault()
    remove_file(root, ("book",), stamp(root, "book"), vault.keep)
    assert os.listdir(root.path) == []
    assert vault == [OLD]


def test_a_save_just_when_it_is_removed_is_not_lost(root: Root, book: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def save() -> None:
        (root.path / "tmp").write_bytes(b"saved at the last moment")
        (root.path / "tmp").rename(book)

    expected = stamp(root, "book")
    with just_before(monkeypatch, swap, "rename_new", save), pytest.raises(ChangedMeanwhile):
        remove_file(root, ("book",), expected)
    assert book.read_bytes() == b"saved at the last moment"
    assert leftovers(root) == []


def test_two_saves_just_when_it_is_removed_are_both_there(root: Root, book: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def save(text: bytes) -> None:
        (root.path / "tmp").write_bytes(text)
        (root.path / "tmp").rename(book)

    real = renaming.rename_new
    calls: list[Any] = []

    def disturbed(*arguments: Any) -> None:
        calls.append(arguments)
        if len(calls) <= 2:
            save(b"save %d" % len(calls))
        real(*arguments)

    monkeypatch.setattr(swap, "rename_new", disturbed)
    with pytest.raises(ChangedMeanwhile):
        remove_file(root, ("book",), stamp(root, "book"))
    assert {path.read_bytes() for path in root.path.iterdir()} == {b"save 1", b"save 2"}
    assert book.read_bytes() == b"save 2"
    assert leftovers(root) == []


@pytest.mark.parametrize("swapping", [True, False])
def test_moving_aside_never_overwrites(root: Root, book: Path, monkeypatch: pytest.MonkeyPatch, swapping: bool) -> None:
    if not swapping:
        monkeypatch.setattr(renaming, "_rename", None)
    (root.path / "taken").write_text("x")
    with pytest.raises(NameTaken, match="taken” already"):
        move_aside(root, ("book",), "taken", stamp(root, "book"))
    with pytest.raises(BadName):
        move_aside(root, ("book",), "../out", stamp(root, "book"))
    moved = move_aside(root, ("book",), "book (Anna)", stamp(root, "book"))
    assert moved == stamp(root, "book (Anna)")
    assert sorted(os.listdir(root.path)) == ["book (Anna)", "taken"]


def test_folders(root: Root, book: Path) -> None:
    make_folders(root, ("a", "b"))
    make_folders(root, ("a", "b"))
    with pytest.raises(NameTaken):
        make_folders(root, ("book", "b"))
    assert not remove_folder(root, ("a",))
    assert remove_folder(root, ("a", "b"))
    assert remove_folder(root, ("a",))
    assert remove_folder(root, ("a",))
    with pytest.raises(CannotWrite):
        remove_folder(root, ("book",))
    assert os.listdir(root.path) == ["book"]


# ---- without the swap, and after a crash


def test_without_a_swap_it_is_an_ordinary_rename(root: Root, book: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(renaming, "_rename", None)
    vault = Vault()
    put_file(root, ("book",), sealed(root, NEW, "book"), stamp(root, "book"), vault.keep)
    put_file(root, ("a",), sealed(root, NEW, "a"), None)
    assert (book.read_bytes(), (root.path / "a").read_bytes(), vault, leftovers(root)) == (NEW, NEW, [OLD], [])


STEPS = ("open", "fchmod", "fsync", "link", "rename", "unlink", "close", "stat", "fstat")


@pytest.mark.parametrize("act", ["replace", "new", "remove"])
def test_killed_at_any_step_the_path_is_whole_and_the_next_try_succeeds(
    tmp_path: Path, forked: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, act: str
) -> None:
    for kill_at in range(200):
        place = tmp_path / str(kill_at) / "books"
        place.mkdir(parents=True)
        root = Root(place)
        if act != "new":
            (place / "book").write_bytes(OLD)
        try:
            forked(lambda root=root, kill_at=kill_at: _dies_at(kill_at, root, act))  # type: ignore[misc]
            break
        except ChildProcessError:
            pass
        now = (place / "book").read_bytes() if (place / "book").exists() else None
        assert now in {"replace": (OLD, NEW), "new": (None, NEW), "remove": (OLD, None)}[act]
        if act != "new" and now != OLD:
            assert (place.parent / "vault").read_bytes() == OLD
        sweep(root, (), set())
        _do(root, act)
        assert (place / "book").exists() is (act != "remove")
        assert os.listdir(place) == ([] if act == "remove" else ["book"])
    assert 10 < kill_at < 199


def _do(root: Root, act: str) -> None:
    def keep(fd: int) -> None:
        (root.path.parent / "vault").write_bytes(os.pread(fd, 1000, 0))

    expected = root.stamp(("book",))
    if act != "remove":
        put_file(root, ("book",), sealed(root, NEW, "book"), expected, keep)
        assert (root.path / "book").read_bytes() == NEW
    elif expected is not None:
        remove_file(root, ("book",), expected, keep)


def _dies_at(step: int, root: Root, act: str) -> None:
    """Carries out the act in a process that is killed before its system call number ``step``."""
    calls = iter(range(10**6))

    def mortal(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            if next(calls) == step:
                os.kill(os.getpid(), 9)
            return real(*arguments, **named)

        return call

    for name in STEPS:
        setattr(os, name, mortal(getattr(os, name)))
    renaming._call = mortal(renaming._call)
    _do(root, act)


# ---- everything at once


SAVES = {
    "by rename": """
    with open(sys.argv[1] + ".tmp", "w") as file:
        file.write(text)
    os.rename(file.name, sys.argv[1])
""",
    "in place": """
    with open(sys.argv[1], "w") as file:
        file.write(text)
    time.sleep(random.random() * 0.002)
""",
}


@pytest.mark.parametrize("way", SAVES)
def test_a_busy_office_loses_no_save(root: Root, book: Path, way: str) -> None:
    """A program saves again and again, and versions arrive all the while: its last save is at the name, or it was kept."""
    code = f"import os, random, sys, time\nfor number in range(300):\n    text = f'save {{number:04}}'{SAVES[way]}"
    kept: set[bytes] = set()
    puts = refused = 0
    with subprocess.Popen([sys.executable, "-S", "-c", code, book]) as program:
        while program.poll() is None:
            vault = Vault()
            try:
                put_file(root, ("book",), sealed(root, b"remote %d" % puts, "book"), root.stamp(("book",)), vault.keep)
                puts += 1
                kept.update(vault)
            except (ChangedMeanwhile, BusyFile, StagedGone):
                refused += 1
    assert book.read_bytes() == b"save 0299" or b"save 0299" in kept
    assert kept <= {OLD, *(b"save %04d" % number for number in range(300)), *(b"remote %d" % number for number in range(puts))}
    assert puts + refused > 0
