"""Where bytes come from and where they go: nothing is served that is not what it claims to be, and nothing is replaced that is not kept."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from p2psync.store import apply, arrivals, carryout, listings, paths, preparing, seeing, sources, versions
from p2psync.store.chunking import describe
from p2psync.store.paths import PathView
from p2psync.store.root import Root, stamp_of
from p2psync.store.scan import Fresh
from p2psync.store.versions import version_name
from p2psync.values.content import CHUNK_MAX, Content, File, Listing
from p2psync.values.digest import content_digest
from p2psync.values.errors import UserError
from p2psync.values.names import RelPath
from tests.lan.desks import Desk, two_desks

NAME = RelPath("compta.cre")


@pytest.fixture
def desks(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Desk, Desk]]:
    with two_desks(monkeypatch) as (anna, marie):
        anna.folder.mkdir()
        (anna.folder / "compta.cre").write_text("version 1")
        anna.attach(anna.folder / "compta.cre")
        marie.learn(anna)
        marie.settle(anna)
        yield anna, marie


@pytest.fixture
def little_is_vaulted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files of more than 1,000 bytes count as large."""
    for module in (sources, seeing, apply, preparing):
        monkeypatch.setattr(module, "VAULTED", 1000)


def book(desk: Desk) -> Path:
    return desk.folder / "compta.cre"


def save(desk: Desk, data: bytes) -> Content:
    book(desk).write_bytes(data)
    desk.settle()
    state = versions.heads(desk.books.ledger.read(), NAME).winner.state
    assert isinstance(state, File)
    return state.content


def large(seed: int) -> bytes:
    """Some chunks that no other seed has."""
    return b"".join(content_digest(b"%d %d" % (seed, n)) for n in range(12 * 1024))


def held(desk: Desk, data: bytes) -> bool:
    return desk.sources.chunk(content_digest(data)) == data


# ---- from where


def test_a_small_version_is_served_from_the_vault_whatever_becomes_of_the_file(desks: tuple[Desk, Desk]) -> None:
    anna, _ = desks
    save(anna, b"version 2")
    book(anna).write_bytes(b"not looked at yet")
    assert held(anna, b"version 1") and held(anna, b"version 2")
    assert not held(anna, b"not looked at yet") and anna.sources.chunk(content_digest(b"never")) is None


def test_a_large_version_is_served_from_its_file_as_long_as_it_is_that(desks: tuple[Desk, Desk], little_is_vaulted: None) -> None:
    anna, _ = desks
    data = large(1)
    content = save(anna, data)
    listing = listings.get(anna.books.ledger.read(), content)
    assert listing is not None and len(listing) > 1
    assert b"".join(anna.sources.chunk(chunk.digest) or b"" for chunk in listing) == data
    assert anna.sources.complete(content)
    chunks = list(listing)
    book(anna).write_bytes(data[: chunks[1].offset] + b"changed")
    assert anna.sources.chunk(chunks[0].digest) == data[: chunks[0].size], "what is still there is still served"
    assert all(anna.sources.chunk(chunk.digest) is None for chunk in chunks[1:])
    book(anna).unlink()
    assert anna.sources.chunk(chunks[0].digest) is None


def test_a_large_version_that_is_superseded_goes_into_the_vault_first(desks: tuple[Desk, Desk], little_is_vaulted: None) -> None:
    anna, marie = desks
    old = large(1)
    content = save(anna, old)
    for desk, other in ((marie, anna), (anna, marie)):
        desk.learn(other)
        desk.settle(other)
    assert book(marie).read_bytes() == old
    save(anna, b"short again")
    marie.learn(anna)
    marie.settle(anna)
    listing = listings.get(marie.books.ledger.read(), content)
    assert book(marie).read_bytes() == b"short again" and listing is not None
    assert b"".join(marie.books.vault.get(chunk.digest) or b"" for chunk in listing) == old


def test_what_moved_within_the_mandate_is_not_fetched(desks: tuple[Desk, Desk], little_is_vaulted: None) -> None:
    anna, marie = desks
    data = large(1)
    (anna.folder / "recus").mkdir()
    (anna.folder / "recus" / "a").write_bytes(data)
    anna.attach(anna.folder / "recus")
    marie.learn(anna)
    marie.settle(anna)
    marie.fetched = 0
    (anna.folder / "recus" / "a").rename(anna.folder / "recus" / "b")
    (anna.folder / "recus" / "c").write_bytes(b"in front" + data)
    anna.settle()
    marie.learn(anna)
    marie.settle(anna)
    assert (marie.folder / "recus" / "b").read_bytes() == data
    assert (marie.folder / "recus" / "c").read_bytes() == b"in front" + data
    assert marie.fetched <= CHUNK_MAX


# ---- before it is replaced


def test_a_file_is_not_kept_as_what_it_is_not(desks: tuple[Desk, Desk], tmp_path: Path) -> None:
    anna, _ = desks
    content = save(anna, b"version 2")
    never_seen = content_digest(b"version 9")
    (tmp_path / "other").write_bytes(b"version 8")
    with (tmp_path / "other").open("rb") as file:
        anna.sources.keep(content, file.fileno())  # all of it is in the vault, whatever the file holds
        with pytest.raises(LookupError):
            anna.sources.keep(Content(never_seen, 9, never_seen), file.fileno())
    assert not held(anna, b"version 8")


def hide_a_save(desk: Desk, data: bytes) -> None:
    """A save within the same step of the disk's clock as the one before, which on a FAT stick is two seconds: the stamp tells nothing."""
    db = desk.books.ledger.read()
    view = paths.get(db, NAME)
    assert view is not None and view.observed is not None and len(data) == view.observed.stamp.size
    book(desk).write_bytes(data)
    with desk.books.writing() as writer:
        paths.put(writer, PathView(NAME, view.disk, Fresh(stamp_of(book(desk).stat()), view.observed.state), view.agreed))


def test_a_save_that_the_stamp_does_not_tell_is_not_lost_to_a_newer_version(desks: tuple[Desk, Desk]) -> None:
    anna, marie = desks
    save(anna, b"version 2")
    marie.learn(anna)
    marie.settle(anna)
    listing = listings.get(anna.books.ledger.read(), save(anna, b"version 3"))
    assert listing is not None
    hide_a_save(marie, b"by Marie!")
    marie.learn(anna)
    marie.arrivals.expect_small(listing)
    marie.arrivals.chunks([(content_digest(b"version 3"), b"version 3")])
    worked = marie.work.work({NAME})
    assert book(marie).read_bytes() == b"by Marie!" and worked.look_again == {NAME}
    marie.settle(anna)
    assert marie.conflicts() == {"compta.cre"} and held(marie, b"by Marie!")


# ---- what arrives


def test_chunks_of_small_files_go_into_the_vault_and_unasked_ones_nowhere(desks: tuple[Desk, Desk]) -> None:
    anna, marie = desks
    content = save(anna, b"version 2")
    listing = listings.get(anna.books.ledger.read(), content)
    assert listing is not None
    pieces = [(chunk.digest, b"version 2") for chunk in listing]
    marie.arrivals.chunks(pieces)
    assert not held(marie, b"version 2"), "nobody wanted it"
    marie.arrivals.expect_small(listing)
    marie.arrivals.chunks(pieces)
    marie.arrivals.chunks(pieces)
    assert held(marie, b"version 2")


def staged(desk: Desk) -> list[Path]:
    return list(desk.folder.glob(".p2psync-*"))


def test_a_large_file_is_collected_beside_its_place_and_found_again_after_a_kill(desks: tuple[Desk, Desk], little_is_vaulted: None) -> None:
    anna, marie = desks
    data = large(1)
    content = save(anna, data)
    marie.learn(anna)
    packed = listings.packed_listing(anna.books.ledger.read(), content.listing)
    assert packed is not None
    listing = Listing.received(packed, content)
    marie.arrivals.listing(content, listing)
    root = Root(marie.folder)
    staging, missing = marie.arrivals.staging(NAME, root, ("compta.cre",), content, listing)
    assert len(missing) == len(listing) and marie.arrivals.remaining(content) == content.size
    first = missing[0]
    marie.arrivals.chunks([(first.digest, data[: first.size])])
    assert marie.arrivals.remaining(content) == content.size - first.size
    marie.restart()
    _, left = marie.arrivals.staging(NAME, root, ("compta.cre",), content, listing)
    assert len(left) == len(missing) - 1
    marie.arrivals.abandon(NAME)
    assert staged(marie) == []
    assert staging is not None


def test_a_newer_version_takes_the_place_of_one_that_is_being_fetched(desks: tuple[Desk, Desk], little_is_vaulted: None) -> None:
    anna, marie = desks
    save(anna, large(1))
    marie.learn(anna)
    marie.settle()
    save(anna, large(2))
    marie.learn(anna)
    marie.settle(anna)
    assert book(marie).read_bytes() == large(2) and staged(marie) == []


def test_a_large_version_waits_whole_while_the_file_is_open(desks: tuple[Desk, Desk], little_is_vaulted: None, held_open) -> None:
    anna, marie = desks
    save(anna, large(1))
    marie.learn(anna)
    with held_open(book(marie)):
        worked = marie.settle(anna)
        attention = worked.attention["compta.cre"]
        assert attention is not None and attention.code == "open-here"
        assert book(marie).read_bytes() == b"version 1" and len(staged(marie)) == 1
    marie.fetched = 0
    marie.settle(anna)
    assert book(marie).read_bytes() == large(1) and marie.fetched == 0 and staged(marie) == []


def test_a_disk_that_is_full_is_said_to_be_and_nothing_is_left_half_done(
    desks: tuple[Desk, Desk], monkeypatch: pytest.MonkeyPatch, little_is_vaulted: None
) -> None:
    anna, marie = desks
    save(anna, large(1))
    marie.learn(anna)
    monkeypatch.setattr(Root, "space", lambda *_: (0, 1 << 40))
    worked = marie.settle(anna)
    attention = worked.attention["compta.cre"]
    assert attention is not None and attention.code == "space-short" and "has only 0 B left" in attention.reason(path="compta.cre")
    assert book(marie).read_bytes() == b"version 1"
    monkeypatch.undo()
    marie.settle(anna)
    assert book(marie).read_bytes() == large(1)


def test_an_error_while_a_version_is_put_in_place_leaves_the_old_one(desks: tuple[Desk, Desk], monkeypatch: pytest.MonkeyPatch) -> None:
    anna, marie = desks
    save(anna, b"version 2")
    marie.learn(anna)

    def failing(fd: int) -> None:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(carryout, "sync_file", failing)
    worked = marie.settle(anna)
    assert book(marie).read_bytes() == b"version 1" and worked.attention["compta.cre"] is not None
    monkeypatch.undo()
    marie.settle(anna)
    assert book(marie).read_bytes() == b"version 2" and staged(marie) == []


def test_a_chunk_of_the_vault_that_is_damaged_is_fetched_again(desks: tuple[Desk, Desk], expect_errors: set[str]) -> None:
    anna, marie = desks
    save(anna, b"version 2")
    marie.learn(anna)
    marie.settle(anna)
    with marie.books.vault._transaction() as db:
        db.execute("UPDATE chunk SET packed = 0, stored = ? WHERE digest = ?", (b"version X", content_digest(b"version 1")))
    assert marie.sources.chunk(content_digest(b"version 1")) is None
    save(anna, b"version 1")
    marie.learn(anna)
    marie.settle(anna)
    assert book(marie).read_bytes() == b"version 1" and held(marie, b"version 1")


def test_what_is_described_is_what_is_served(desks: tuple[Desk, Desk], tmp_path: Path) -> None:
    anna, _ = desks
    (tmp_path / "x").write_bytes(large(3))
    with (tmp_path / "x").open("rb") as file:
        content, listing = describe(file.fileno(), 0)
    assert content == save(anna, large(3))
    assert anna.sources.lacking(listing) == [] and anna.sources.gather(listing) == []
    with pytest.raises(UserError):
        Root(anna.folder).open_read(("..", "anna"))
    assert arrivals.Arrivals(anna.books).remaining(content) == content.size


def test_a_large_version_that_is_here_as_a_conflict_copy_is_served_and_used(desks: tuple[Desk, Desk], little_is_vaulted: None) -> None:
    anna, marie = desks
    luc = Desk(anna.root.parent / "luc", "Luc").join(anna, anna.invite("Luc"))
    save(anna, large(1))
    save(marie, large(2))
    for desk, other in ((anna, marie), (marie, anna)):
        desk.learn(other)
        desk.settle(other)
    luc.learn(marie)
    luc.settle(marie)
    assert sorted(path.read_bytes() for path in luc.folder.iterdir() if path.is_file()) == sorted([large(1), large(2)])
    stood = book(luc).read_bytes()
    luc.fetched = 0
    (other_one,) = versions.heads(luc.books.ledger.read(), NAME).others
    luc.resolve("compta.cre", version_name(other_one.ref))
    luc.settle()
    assert book(luc).read_bytes() == (large(2) if stood == large(1) else large(1)) and luc.fetched == 0
    luc.arrivals.close()
    luc.books.close()
