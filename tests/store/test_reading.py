"""Chunks that are asked for come many at a time, in the order in which they were asked for, and none that is not what it claims to be."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator

import pytest

from p2psync.store import apply, listings, preparing, reading, seeing, sources, versions
from p2psync.values.content import Chunk, File
from p2psync.values.digest import Digest, content_digest
from p2psync.values.names import RelPath
from tests.lan.desks import Desk, fast_place, fast_vanishing

LARGE = random.Random(3).randbytes(3_000_000)


@pytest.fixture
def desk(monkeypatch: pytest.MonkeyPatch) -> Iterator[Desk]:
    """A desk on which files of more than 1,000 bytes count as large, with one such file."""
    fast_vanishing(monkeypatch)
    for module in (sources, seeing, apply, preparing):
        monkeypatch.setattr(module, "VAULTED", 1000)
    with fast_place() as place:
        desk = Desk(place / "anna", "Anna").found()
        desk.folder.mkdir()
        (desk.folder / "large.db").write_bytes(LARGE)
        (desk.folder / "small.txt").write_bytes(b"a small one")
        for name in ("large.db", "small.txt"):
            desk.attach(desk.folder / name)
        yield desk
        desk.arrivals.close()
        desk.books.close()


def chunks(desk: Desk) -> list[Chunk]:
    db = desk.books.ledger.read()
    state = versions.heads(db, RelPath("large.db")).winner.state
    assert isinstance(state, File)
    listing = listings.get(db, state.content)
    assert listing is not None
    return list(listing)


def read(desk: Desk, ids: list[Digest]) -> list[tuple[Digest, bytes | None]]:
    return [one for piece in desk.sources.pieces(ids) for one in piece]


def expected(wanted: list[Chunk]) -> list[tuple[Digest, bytes | None]]:
    return [(chunk.digest, LARGE[chunk.offset : chunk.offset + chunk.size]) for chunk in wanted]


def test_any_order_comes_as_it_was_asked_for(desk: Desk) -> None:
    wanted = chunks(desk)
    for _ in range(5):
        assert read(desk, [chunk.digest for chunk in wanted]) == expected(wanted)
        random.Random(1).shuffle(wanted)
    twice = [wanted[0], wanted[0], wanted[1]]
    assert read(desk, [chunk.digest for chunk in twice]) == expected(twice)


def test_what_follows_each_other_comes_with_one_read_and_no_more_than_fits(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    pread = os.pread
    monkeypatch.setattr(os, "pread", lambda fd, size, offset: (sizes.append(size), pread(fd, size, offset))[1])
    wanted = chunks(desk)
    found = next(desk.sources.pieces([chunk.digest for chunk in wanted]))
    assert len(sizes) == 1
    assert reading.AT_ONCE // 2 < sizes[0] == sum(len(data or b"") for _, data in found) <= reading.AT_ONCE


def test_what_is_in_the_vault_and_what_is_nowhere_comes_among_the_rest(desk: Desk) -> None:
    small, nothing, wanted = content_digest(b"a small one"), content_digest(b"never seen"), chunks(desk)
    ids = [wanted[0].digest, small, wanted[1].digest, nothing, wanted[2].digest]
    one, two, three = expected(wanted[:3])
    assert read(desk, ids) == [one, (small, b"a small one"), two, (nothing, None), three]


def test_what_changed_since_it_was_seen_is_not_there_and_its_neighbours_are(desk: Desk) -> None:
    wanted = chunks(desk)
    with (desk.folder / "large.db").open("r+b") as file:
        file.seek(wanted[2].offset + 5)
        file.write(b"something else")
    changed = [(digest, None if digest == wanted[2].digest else data) for digest, data in expected(wanted)]
    assert read(desk, [chunk.digest for chunk in wanted]) == changed


def test_a_file_that_is_gone_has_nothing(desk: Desk) -> None:
    wanted = chunks(desk)
    (desk.folder / "large.db").unlink()
    assert read(desk, [chunk.digest for chunk in wanted]) == [(chunk.digest, None) for chunk in wanted]
