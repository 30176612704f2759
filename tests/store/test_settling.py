"""When a file that a program works on is read: not in the middle of a save, and whatever happens, never half of it."""

from __future__ import annotations

import mmap
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from p2psync.engine import pauses
from p2psync.engine.settle import LONGEST, QUIET
from p2psync.store.root import Folders, Root
from p2psync.store.scan import Changing, Fresh, observe, observe_in
from p2psync.values.content import Observed
from tests.lan.desks import Desk, fast_place

from .conftest import Holder

OLD = (1_700_000_000_000_000_000, 1_700_000_000_000_000_000)


@pytest.fixture
def anna() -> Iterator[Desk]:
    with fast_place() as place:
        yield Desk(place / "anna", "Anna").found()


@pytest.fixture
def book(anna: Desk) -> Path:
    anna.folder.mkdir(parents=True, exist_ok=True)
    (anna.folder / "book").write_text("save 0, which is long enough")
    os.utime(anna.folder / "book", ns=OLD)
    anna.attach(anna.folder / "book")
    return anna.folder / "book"


def versions_of(desk: Desk) -> int:
    return int(desk.books.ledger.read().execute("SELECT count(*) FROM entries WHERE attaches = 0").fetchone()[0])


def said(desk: Desk) -> tuple[str, str]:
    """What one look says of the book, at once."""
    attention = desk.settle(patience=0.0).attention["book"]
    return (attention.code, attention.reason()) if attention else ("", "")


def test_a_program_in_the_middle_of_a_save_is_waited_for(anna: Desk, book: Path, held_open: Holder) -> None:
    with held_open(book, "w"):
        assert said(anna) == ("", "")
        book.write_text("save 1, of which one half")
        assert said(anna)[0] == "still-written"
        with book.open("a") as file:
            file.write(" and the other")
        assert said(anna)[0] == "still-written"
        assert versions_of(anna) == 1
        began = time.monotonic()
        anna.settle()
        assert time.monotonic() - began < QUIET + 0.5
        assert versions_of(anna) == 2
    anna.settle()
    assert versions_of(anna) == 2


def test_whole_seconds_say_little_of_the_last_write(anna: Desk, book: Path, held_open: Holder, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = time.time_ns() // 1_000_000_000 * 1_000_000_000 - 1_000_000_000
    monkeypatch.setattr("p2psync.store.root._kept", lambda time_ns: shown)
    with held_open(book, "w"):
        book.write_text("save 1, of which one half")
        assert said(anna)[0] == "still-written", "it was written to this very moment, whatever its time seems to say"
        assert versions_of(anna) == 1
        anna.settle()
        assert versions_of(anna) == 2


def test_after_the_longest_wait_it_is_read_between_two_writes(
    anna: Desk, book: Path, held_open: Holder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pauses, "LONGEST", 0.2)
    with held_open(book, "w"):
        for number in range(12):
            book.write_text(f"save {number}, which is long enough")
            time.sleep(0.05)
            anna.settle(patience=0.0)
        assert 2 <= versions_of(anna) <= 5
    assert LONGEST > QUIET


def test_one_that_changes_whenever_it_is_read_is_never_sent_and_its_program_is_named(
    anna: Desk, book: Path, held_open: Holder, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = observe_in

    def torn(folders: Folders, parts: tuple[str, ...], *rest: object) -> object:
        if parts == ("book",) and real(folders, parts, *rest) != Changing(unread=True):  # type: ignore[arg-type]
            return Changing()
        return real(folders, parts, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(pauses, "TORN_AGAIN", 0.001)
    monkeypatch.setattr("p2psync.store.seeing.NAMED_AFTER", 0.0)
    with monkeypatch.context() as patched, held_open(book, "r") as program:
        patched.setattr("p2psync.store.seeing.observe_in", torn)
        codes = []
        for number in range(4):
            book.write_text(f"save {number}, which is long enough")
            codes.append(said(anna))
            time.sleep(0.01)
        assert [code for code, _ in codes] == ["still-written", "still-written", "never-pauses", "never-pauses"]
        assert f"(process {program.pid} of " in codes[-1][1]
        assert versions_of(anna) == 1
    anna.settle()
    assert versions_of(anna) == 2
    assert said(anna) == ("", "")


def test_a_disk_with_whole_seconds_by_another_clock_hides_no_save(anna: Desk, book: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hour_ns = 3_600_000_000_000
    monkeypatch.setattr("p2psync.store.root._kept", lambda time_ns: 1_000_000_000)  # all of this happens within one step
    monkeypatch.setattr("p2psync.store.seeing.FRESH_NS", hour_ns)
    for number in range(1, 5):
        with book.open("r+") as file:
            file.write(f"save {number}, which is")
        anna.settle()
        assert versions_of(anna) == 1 + number
    anna.look.seeing._coarse = {spot: (stamp, since - 2 * hour_ns / 1e9) for spot, (stamp, since) in anna.look.seeing._coarse.items()}
    anna.settle()
    assert not anna.look.seeing._coarse


def test_what_was_emptied_is_given_a_moment_to_be_written(anna: Desk, book: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("p2psync.store.vanishing.GONE_FOR", 0.0)
    book.write_text("")
    assert said(anna)[0] == "still-written"
    book.write_text("save 1, which is long enough")
    anna.settle(patience=0.0)
    assert versions_of(anna) == 2
    book.write_text("")
    anna.settle()
    assert versions_of(anna) == 3, "an empty file is a version, if it stays empty"


def test_the_last_write_through_a_mapping_is_read_at_the_close_though_the_stamp_stays(tmp_path: Path) -> None:
    """A page that was written to once is written to again without anybody noticing, until the system has put it on the disk."""
    book = tmp_path / "book"
    book.write_bytes(bytes(4096))
    root = Root(tmp_path)
    fd = os.open(book, os.O_RDWR)
    with mmap.mmap(fd, 4096) as mapped:
        os.close(fd)
        mapped[0] = 1
        os.utime(book, ns=OLD)
        first = observe(root, ("book",), None, time.time_ns())
        assert isinstance(first, Fresh)
        mapped[0] = 2
    second = observe(root, ("book",), first, time.time_ns())
    assert isinstance(second, Observed) and not isinstance(second, Fresh)
    assert second.stamp == first.stamp
    assert second.state != first.state
