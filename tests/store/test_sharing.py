"""A large file that changes a little: at once only what the new version lacks is copied, soon the rest, and nothing is lost in between."""

from __future__ import annotations

import pytest

from p2psync.store import apply, attaching, listings, preparing, seeing, sharing, sources
from p2psync.values.content import Content
from p2psync.values.digest import Digest
from tests.lan.desks import Desk
from tests.store.test_sources import book, desks, large, save

__all__ = ["desks"]


@pytest.fixture(autouse=True)
def little_is_vaulted(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (sources, seeing, apply, preparing, sharing):
        monkeypatch.setattr(module, "VAULTED", 1000)
    monkeypatch.setattr(sharing, "PIECE", 100_000)


OLD = large(1) + large(2)
NEW = OLD[:400_000] + b"changed" + OLD[400_007:]


def ids(desk: Desk, content: Content) -> set[Digest]:
    listing = listings.get(desk.books.ledger.read(), content)
    assert listing is not None
    return {chunk.digest for chunk in listing}


def brought(anna: Desk, marie: Desk) -> None:
    """Marie has what Anna saved."""
    marie.learn(anna)
    marie.settle(anna)


def test_what_both_versions_have_is_copied_when_there_is_time(desks: tuple[Desk, Desk]) -> None:
    anna, marie = desks
    old = save(anna, OLD)
    brought(anna, marie)
    new = save(anna, NEW)
    brought(anna, marie)
    vault = marie.books.vault
    assert vault.has(ids(marie, old)) == ids(marie, old) - ids(marie, new)
    assert marie.sources.complete(old) and marie.sources.outstanding
    assert sharing.outstanding(marie.books) == [old]
    steps = list(sharing.copy(marie.books, marie.sources, old))
    assert len(steps) > 3
    book(marie).write_bytes(b"written over")
    marie.settle()
    assert vault.has(ids(marie, old)) == ids(marie, old)
    assert marie.sources.complete(old) and not marie.sources.complete(new)
    assert list(sharing.copy(marie.books, marie.sources, old)) == []


def test_what_is_written_over_before_it_was_copied_is_not_lost(desks: tuple[Desk, Desk]) -> None:
    anna, marie = desks
    old = save(anna, OLD)
    brought(anna, marie)
    save(anna, NEW)
    brought(anna, marie)
    (kept,) = marie.folder.glob(".p2psync-*.kept")
    assert kept.read_bytes() == OLD
    with book(marie).open("r+b") as file:  # as a program does that saves in place
        file.write(bytes(len(NEW)))
    marie.settle()
    assert marie.sources.complete(old)
    marie.restart()
    marie.settle()
    assert kept.exists()
    for _ in sharing.copy(marie.books, marie.sources, old):
        pass
    assert marie.books.vault.has(ids(marie, old)) == ids(marie, old)
    assert not kept.exists()


def test_a_disk_that_cannot_swap_names_has_all_of_it_copied_first(desks: tuple[Desk, Desk], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(apply, "swaps", lambda folder: False)
    anna, marie = desks
    old = save(anna, OLD)
    for text in (OLD, NEW):
        save(anna, text)
        brought(anna, marie)
    assert marie.books.vault.has(ids(marie, old)) == ids(marie, old)
    assert not list(marie.folder.glob(".p2psync-*"))


def test_what_is_detached_is_copied_before_it_goes(desks: tuple[Desk, Desk]) -> None:
    anna, marie = desks
    old = save(anna, OLD)
    for text in (OLD, NEW):
        save(anna, text)
        brought(anna, marie)
    attaching.detach(anna.books, "compta.cre", "")
    brought(anna, marie)
    assert marie.books.vault.has(ids(marie, old)) == ids(marie, old)
    assert not list(marie.folder.glob(".p2psync-*"))


def test_what_replaces_it_in_turn_keeps_what_was_still_shared(desks: tuple[Desk, Desk]) -> None:
    anna, marie = desks
    versions = [save(anna, OLD)]
    for at in (100_000, 300_000, 500_000):
        brought(anna, marie)
        text = book(anna).read_bytes()
        versions.append(save(anna, text[:at] + b"%d" % at + text[at:]))
    brought(anna, marie)
    for content in versions:
        assert marie.sources.complete(content)
    save(anna, b"small")
    brought(anna, marie)
    for content in versions:
        assert marie.books.vault.has(ids(marie, content)) == ids(marie, content)
