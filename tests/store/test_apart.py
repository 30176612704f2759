"""Large files are read beside the rounds: what was found counts for the stamp it was read under, once, and every fault is told."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from p2psync.store import apart
from p2psync.store.apart import Apart, Failed, Known, Torn
from p2psync.store.chunking import describe
from p2psync.store.root import Root, stamp_of
from p2psync.store.spots import Spot
from p2psync.values.content import Stamp
from p2psync.values.names import RelPath

SPOT = Spot(RelPath("books/large.db"), ("large.db",))
DATA = os.urandom(300_000)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "large.db"
    path.write_bytes(DATA)
    return path


def stamp(file: Path) -> Stamp:
    return stamp_of(os.stat(file))


def ask(reads: Apart, file: Path) -> object:
    return reads.found(SPOT, Root(file.parent), ("large.db",), stamp(file))


def test_what_is_asked_for_is_read_once_and_told_once(file: Path) -> None:
    reads = Apart()
    assert reads.read_next() is None
    assert ask(reads, file) is None and ask(reads, file) is None
    assert reads.busy and reads.is_reading(RelPath("books")) and not reads.is_reading(RelPath("large.db"))
    began = time.time_ns()
    assert reads.read_next() == SPOT
    assert reads.read_next() is None and not reads.busy
    found = ask(reads, file)
    with file.open("rb") as opened:
        content, listing = describe(opened.fileno(), len(DATA))
    assert isinstance(found, Known)
    assert (found.stamp, found.content, found.listing) == (stamp(file), content, listing)
    assert began <= found.at_ns <= time.time_ns()
    assert ask(reads, file) is None and reads.busy


def test_what_was_found_under_another_stamp_does_not_count(file: Path) -> None:
    reads = Apart()
    ask(reads, file)
    reads.read_next()
    file.write_bytes(DATA + b"more")
    assert ask(reads, file) is None
    assert reads.read_next() == SPOT
    found = ask(reads, file)
    assert isinstance(found, Known) and found.content.size == len(DATA) + 4


def _write(file: Path) -> None:
    with file.open("ab") as opened:
        opened.write(b"more")


@pytest.mark.parametrize("change", [_write, lambda file: os.truncate(file, 5)], ids=["written", "truncated"])
def test_a_file_that_changes_while_it_is_read_is_torn(file: Path, monkeypatch: pytest.MonkeyPatch, change: Callable[[Path], None]) -> None:
    def meanwhile(fd: int, size: int) -> object:
        change(file)
        return describe(fd, size)

    monkeypatch.setattr(apart, "describe", meanwhile)
    reads = Apart()
    ask(reads, file)
    reads.read_next()
    assert isinstance(ask(reads, file), Torn)
    assert ask(reads, file) is None


def test_what_the_disk_does_not_give_or_take_is_told_and_tried_again(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(fd: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    reads = Apart()
    with monkeypatch.context() as patched:
        patched.setattr(apart, "sync_known", failing)
        ask(reads, file)
        reads.read_next()
    found = ask(reads, file)
    assert isinstance(found, Failed) and "Input/output error" in found.reason
    assert ask(reads, file) is None
    reads.read_next()
    assert isinstance(ask(reads, file), Known)


def test_a_disk_that_makes_no_promises_keeps_nothing_from_being_read(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(fd: int) -> None:
        raise OSError(errno.EINVAL, "Invalid argument")

    monkeypatch.setattr("p2psync.store.lasting.sync_file", unknown)
    reads = Apart()
    ask(reads, file)
    reads.read_next()
    assert isinstance(ask(reads, file), Known)


def test_one_that_is_gone_when_its_turn_comes_is_looked_at_again(file: Path) -> None:
    reads = Apart()
    ask(reads, file)
    file.unlink()
    assert reads.read_next() == SPOT and not reads.busy
