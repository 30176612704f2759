"""The cuts are part of the protocol: two machines that cut differently send everything again."""

from __future__ import annotations

import errno
import os
import random
import tempfile
import threading
from pathlib import Path

import blake3
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pyfastcdc.py import FastCDC as PlainFastCDC

from p2psync.store import chunking
from p2psync.store.chunking import describe
from p2psync.values.content import CHUNK_AVERAGE, CHUNK_MAX, CHUNK_MIN, EMPTY, Chunk, Content, Listing
from p2psync.values.digest import content_digest

GOLDEN_CUTS = [
    0,
    68611,
    168816,
    187334,
    219488,
    300458,
    449922,
    541833,
    585970,
    640596,
    902740,
    1025925,
    1081939,
    1185098,
    1201686,
    1228571,
    1321832,
    1387981,
    1488740,
]
GOLDEN_LISTING = "527928f01c06fe74f62e5cafd2ac198370c8907f5983a26b5d52c39de9a65c6d"


def noise(size: int, seed: bytes = b"p2psync golden cuts") -> bytes:
    """Bytes that are the same everywhere and always: the output of BLAKE3 beyond its first 32 bytes."""
    return blake3.blake3(seed).digest(length=size)


def of_bytes(data: bytes, size: int | None = None) -> tuple[Content, Listing, list[tuple[Chunk, bytes]]]:
    sunk: list[tuple[Chunk, bytes]] = []
    with tempfile.TemporaryFile() as file:
        file.write(data)
        file.flush()
        content, listing = describe(
            file.fileno(), len(data) if size is None else size, lambda chunk, piece: sunk.append((chunk, bytes(piece)))
        )
        assert file.tell() == len(data)  # the position of the descriptor is the owner's
    return content, listing, sunk


def test_golden_cuts() -> None:
    content, listing, _ = of_bytes(noise(1_500_000))
    assert [chunk.offset for chunk in listing] == GOLDEN_CUTS
    assert listing.digest.hex() == GOLDEN_LISTING
    assert content == Content(content_digest(noise(1_500_000)), 1_500_000, listing.digest)


def test_golden_cuts_are_those_of_the_plain_implementation() -> None:
    data = noise(400_000)
    plain = PlainFastCDC(CHUNK_AVERAGE, min_size=CHUNK_MIN, max_size=CHUNK_MAX, normalized_chunking=1)
    assert [(piece.offset, piece.length) for piece in plain.cut_buf(data)] == [(chunk.offset, chunk.size) for chunk in of_bytes(data)[1]]


def test_zeros_are_cut_at_the_largest_size() -> None:
    sizes = [chunk.size for chunk in of_bytes(bytes(3 * CHUNK_MAX + 5))[1]]
    assert sizes == [CHUNK_MAX, CHUNK_MAX, CHUNK_MAX, 5]


def test_nothing_is_no_chunk() -> None:
    content, listing, sunk = of_bytes(b"")
    assert (content, len(listing), sunk) == (EMPTY, 0, [])


@pytest.mark.parametrize("size", [1, CHUNK_MIN, CHUNK_MIN + 1])
def test_one_chunk_needs_no_listing_of_its_own(size: int) -> None:
    content, listing, _ = of_bytes(bytes(size))
    assert content.listing == content.digest
    assert Listing.single(content) == listing


pieces = st.lists(
    st.tuples(st.integers(0, 2**32), st.sampled_from([1, 100, CHUNK_MIN, 60_000, CHUNK_MAX, 700_000]), st.booleans()), max_size=6
)


def built(parts: list[tuple[int, int, bool]]) -> bytes:
    return b"".join(bytes(size) if plain else random.Random(seed).randbytes(size) for seed, size, plain in parts)


@settings(deadline=None)
@given(pieces, st.integers(0, 3_000_000))
@example([(0, CHUNK_MAX, True)], 0)
@example([(0, 700_000, False)] * 4, 3_000_000)
def test_the_chunks_are_the_file(parts: list[tuple[int, int, bool]], expected_size: int) -> None:
    data = built(parts)
    content, listing, sunk = of_bytes(data, expected_size)
    assert b"".join(piece for _, piece in sunk) == data
    assert [chunk for chunk, _ in sunk] == list(listing)
    assert all(chunk.digest == content_digest(piece) and chunk.size == len(piece) for chunk, piece in sunk)
    assert all(CHUNK_MIN < chunk.size <= CHUNK_MAX for chunk in list(listing)[:-1])
    assert (content.digest, content.size) == (content_digest(data), len(data))
    assert listing.size == len(data)


@settings(deadline=None)
@given(pieces, st.integers(0, 3_000_000))
def test_the_cuts_do_not_depend_on_how_the_file_is_read(parts: list[tuple[int, int, bool]], expected_size: int) -> None:
    data = built(parts)
    assert of_bytes(data, expected_size)[:2] == of_bytes(data)[:2]


@pytest.mark.parametrize("expected_size", [0, 2_000_000, 5_000_000, 9_000_000])
@pytest.mark.parametrize("seed", range(3))
def test_reading_ahead_in_another_thread_changes_nothing(monkeypatch: pytest.MonkeyPatch, seed: int, expected_size: int) -> None:
    data = noise(random.Random(seed).choice([4 * chunking._BLOCK, 5_000_000, 7_654_321]), b"%d" % seed)
    alone = of_bytes(data, expected_size)
    monkeypatch.setattr(chunking, "_AHEAD", 0)
    threads = set[int]()
    fill = chunking._fill
    monkeypatch.setattr(chunking, "_fill", lambda *what: (threads.add(threading.get_ident()), fill(*what))[1])
    assert of_bytes(data, expected_size) == alone
    assert threading.get_ident() not in threads and len(threads) == 1


def test_what_cannot_be_read_is_an_error_from_either_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(fd: int, room: memoryview, offset: int) -> int:
        if offset:
            raise OSError(errno.EIO, "no more")
        return len(room)

    monkeypatch.setattr(chunking, "_fill", broken)
    for ahead in (0, 2**40):
        monkeypatch.setattr(chunking, "_AHEAD", ahead)
        with pytest.raises(OSError, match="no more"):
            describe(-1, 9_000_000)


def test_an_insertion_near_the_start_moves_few_chunks() -> None:
    data = noise(8_000_000)
    before, after = ({chunk.digest: chunk.size for chunk in of_bytes(what)[1]} for what in (data, data[:1000] + b"x" * 1024 + data[1000:]))
    assert sum(size for digest, size in after.items() if digest not in before) <= 2 * CHUNK_MAX


def test_memory_stays_bounded(tmp_path: Path) -> None:
    path = tmp_path / "large"
    with path.open("wb") as file:
        file.truncate(64 * 1024 * 1024)
    fd = os.open(path, os.O_RDONLY)
    try:
        rooms: dict[int, int] = {}
        describe(fd, 64 * 1024 * 1024, lambda chunk, data: rooms.update({id(data.obj): len(data.obj)}))  # type: ignore[arg-type]
        assert len(rooms) <= 3 and sum(rooms.values()) <= 7 * 1024 * 1024
    finally:
        os.close(fd)
