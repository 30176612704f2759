"""What the disk holds, believed no further than it was seen."""

from __future__ import annotations

import os
import shutil
import time
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from p2psync.store import scan
from p2psync.store.chunking import describe
from p2psync.store.root import FolderGone, Root, RootGone
from p2psync.store.scan import Changing, Found, Fresh, Nothing, Skipped, Unreadable, observe, observe_many, walk
from p2psync.values.content import Chunk, File, Folder, Observed
from p2psync.values.digest import content_digest
from tests.visitor import let_in

from .conftest import NOBODY

pytestmark = pytest.mark.usefixtures("no_leaked_descriptors")

LATER = 10 * scan.FRESH_NS


@pytest.fixture
def root(tmp_path: Path) -> Root:
    (tmp_path / "books").mkdir()
    return Root(tmp_path / "books")


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows by one whenever a file is really read."""
    counted: list[int] = []
    monkeypatch.setattr(scan, "describe", lambda fd, size, sink=None: (counted.append(fd), describe(fd, size, sink))[1])
    return counted


def observed(root: Root, *parts: str, known: Observed | None = None, after: int = LATER) -> Observed:
    """What stands there, seen when the file was no longer fresh (``after`` nanoseconds from now)."""
    found = observe(root, parts, known, time.time_ns() + after)
    assert isinstance(found, Observed), found
    return found


def test_a_file_and_a_folder(root: Root) -> None:
    (root.path / "a").write_text("book")
    (root.path / "tool").write_text("#!")
    (root.path / "tool").chmod(0o755)
    (root.path / "sub").mkdir()
    found = observed(root, "a")
    assert isinstance(found.state, File)
    assert found.state.content.digest == content_digest(b"book")
    assert not found.state.executable
    assert observed(root, "tool").state == File(observed(root, "tool").state.content, executable=True)  # type: ignore[union-attr]
    assert observed(root, "sub").state == Folder()


def test_nothing_is_said_only_of_a_folder_that_could_be_looked_into(root: Root) -> None:
    assert observe(root, ("a",), None, 0) == Nothing()
    assert observe(root, ("sub", "a"), None, 0) == Nothing()
    shutil.rmtree(root.path)
    with pytest.raises(RootGone):
        observe(root, ("a",), None, 0)


def test_an_equal_stamp_is_believed_unread(root: Root, reads: list[int]) -> None:
    (root.path / "a").write_text("book")
    first = observed(root, "a")
    assert observed(root, "a", known=first) is first
    assert len(reads) == 1


def test_a_fresh_one_is_read_again_until_it_was_read_late_enough(root: Root, reads: list[int]) -> None:
    (root.path / "a").write_text("book")
    first = observed(root, "a", after=0)
    assert isinstance(first, Fresh)
    second = observed(root, "a", known=first)
    assert not isinstance(second, Fresh)
    assert (second.stamp, second.state) == (first.stamp, first.state)
    assert observed(root, "a", known=second) is second
    assert len(reads) == 2


def test_a_rewrite_of_the_same_size_in_the_same_tick_is_found(root: Root) -> None:
    """The case in which Unison lost saves: a disk that counts whole seconds cannot tell the two."""
    path = root.path / "a"
    second = time.time_ns() // 10**9 * 10**9
    path.write_text("first!")
    os.utime(path, ns=(second, second))
    first = observed(root, "a", after=0)
    path.write_text("second")
    os.utime(path, ns=(second, second))
    # A disk of whole seconds would give an equal stamp, ctime included: so does this one now.
    stamp = root.stamp(("a",))
    assert stamp is not None
    same = type(first)(stamp, first.state)
    again = observed(root, "a", known=same)
    assert isinstance(again.state, File)
    assert again.state.content.digest == content_digest(b"second")


def test_a_rewrite_that_sets_the_time_back_is_found_by_its_ctime(root: Root) -> None:
    path = root.path / "a"
    path.write_text("first!")
    os.utime(path, ns=(10**18, 10**18))
    first = observed(root, "a", after=0)
    assert not isinstance(first, Fresh)  # whatever comes later has another mtime, or another ctime
    path.write_text("second")
    os.utime(path, ns=(10**18, 10**18))
    again = observed(root, "a", known=first)
    assert (again.stamp.size, again.stamp.mtime_ns) == (first.stamp.size, first.stamp.mtime_ns)
    assert again.state != first.state


@pytest.mark.parametrize("change", ["append", "rewrite", "replace", "remove", "truncate"])
def test_what_changes_while_it_is_read_is_changing(root: Root, change: str) -> None:
    path = root.path / "a"
    path.write_bytes(os.urandom(700_000))
    os.utime(path, ns=(10**18, 10**18))

    def disturb(chunk: Chunk, data: memoryview) -> None:
        if chunk.offset:
            return
        if change == "append":
            with path.open("ab") as file:
                file.write(b"more")
        elif change == "rewrite":
            with path.open("r+b") as file:
                file.write(b"torn")
        elif change == "truncate":
            os.truncate(path, 10)
        else:
            path.unlink()
            if change == "replace":
                path.write_bytes(b"other")

    assert observe(root, ("a",), None, time.time_ns(), disturb) == Changing()


def test_the_sink_gets_the_chunks_and_the_list_comes_once_it_is_sure(root: Root) -> None:
    data = os.urandom(500_000)
    (root.path / "a").write_bytes(data)
    pieces: list[bytes] = []
    lists = []
    with_listing = observe(
        root,
        ("a",),
        None,
        time.time_ns(),
        lambda chunk, piece: pieces.append(bytes(piece)),
        listed=lambda content, listing: lists.append((content, listing)),
    )
    assert isinstance(with_listing, Observed)
    assert isinstance(with_listing.state, File)
    assert b"".join(pieces) == data
    ((content, listing),) = lists
    assert content == with_listing.state.content
    assert content.listing == listing.digest


def test_what_cannot_be_seen_is_not_nothing(root: Root, forked: Callable[..., Any]) -> None:
    let_in(root.path)
    (root.path / "a").write_text("private")
    (root.path / "a").chmod(0o600)
    (root.path / "shut").mkdir(mode=0o700)
    (root.path / "shut" / "b").write_text("x")

    def look() -> list[Any]:
        here = Root(root.path)
        return [observe(here, ("a",), None, 0), observe(here, ("shut", "b"), None, 0), list(walk(here, ()))]

    first, second, found = forked(look, uid=NOBODY)
    assert isinstance(first, Unreadable)
    assert "right to read it" in first.reason
    assert isinstance(second, Unreadable)
    assert [(type(one).__name__, one.parts) for one in found] == [("Found", ("a",)), ("Found", ("shut",)), ("Skipped", ("shut",))]


def test_links_and_pipes_are_not_followed_nor_waited_for(root: Root) -> None:
    os.mkfifo(root.path / "pipe")
    (root.path / "link").symlink_to("/etc/hostname")
    for name in ("pipe", "link"):
        assert isinstance(observe(root, (name,), None, 0), Unreadable)
    assert [found.stamp.kind for found in walk(root, ()) if isinstance(found, Found)] == ["other", "other"]


def test_many_in_one_go(root: Root) -> None:
    wanted = []
    for folder in range(5):
        (root.path / str(folder)).mkdir()
        for number in range(40):
            (root.path / str(folder) / str(number)).write_text(f"{folder}/{number}")
            wanted.append((str(folder), str(number)))
    pieces: list[bytes] = []
    found = dict(observe_many(root, [(parts, None) for parts in wanted], time.time_ns(), lambda chunk, data: pieces.append(bytes(data))))
    assert list(found) == wanted
    assert [piece.decode() for piece in pieces] == ["/".join(parts) for parts in wanted]
    assert all(isinstance(one, Observed) for one in found.values())


def test_absence_is_not_believed_of_a_folder_that_was_exchanged_during_the_batch(root: Root) -> None:
    (root.path / "2026").mkdir()
    (root.path / "2026" / "a").write_text("a")

    def wanted() -> Any:
        yield ("2026", "a"), None
        (root.path / "2026").rename(root.path / "old")
        (root.path / "2026").mkdir()
        (root.path / "2026" / "b").write_text("b")
        yield ("2026", "b"), None

    found = dict(observe_many(root, wanted(), time.time_ns()))
    assert found["2026", "b"] == Changing()


def test_walking_gives_everything_once_folders_first(root: Root) -> None:
    for path in ("b/c/d.txt", "b/a.txt", "a.txt"):
        (root.path / path).parent.mkdir(parents=True, exist_ok=True)
        (root.path / path).write_text(path)
    (root.path / ".p2psync-0123.part").write_text("ours")
    (root.path / "b" / "~$a.txt").write_text("Anna")
    found = list(walk(root, ()))
    assert ["/".join(one.parts) for one in found] == ["a.txt", "b", "b/a.txt", "b/c", "b/c/d.txt"]
    assert all(isinstance(one, Found) and one.path.text == "/".join(one.parts) for one in found)
    assert ["/".join(one.parts) for one in walk(root, ("b", "c"))] == ["b/c/d.txt"]
    with pytest.raises(FolderGone):
        list(walk(root, ("none",)))


def test_names_that_cannot_be_shared_are_reported_with_the_reason(root: Root) -> None:
    (root.path / "aux").mkdir()
    (root.path / "aux" / "inside").write_text("")
    (root.path / "a:b").write_text("")
    with open(os.path.join(os.fsencode(root.path), b"latin-\xe9"), "wb"):
        pass
    found = list(walk(root, ()))
    assert all(isinstance(one, Skipped) for one in found)
    assert [one.parts for one in found] == [("a:b",), ("aux",), ("latin-\udce9",)]
    reasons = [one.reason for one in found if isinstance(one, Skipped)]
    assert "Windows cannot store" in reasons[0]
    assert "keeps this name for a device" in reasons[1]
    assert "not valid Unicode" in reasons[2]


def test_names_keep_the_spelling_of_the_disk(root: Root) -> None:
    decomposed = unicodedata.normalize("NFD", "Clôture")
    (root.path / decomposed).write_text("x")
    (found,) = walk(root, ())
    assert isinstance(found, Found)
    assert found.parts == (decomposed,)
    assert found.path.text == unicodedata.normalize("NFC", decomposed)


def test_a_tree_as_deep_as_disks_allow_ends(root: Root) -> None:
    deep = root.path
    for _ in range(60):
        deep = deep / "d"
        deep.mkdir()
    found = list(walk(root, ()))
    assert len(found) == 33
    assert isinstance(found[-1], Skipped)
    assert "folders deep" in found[-1].reason
