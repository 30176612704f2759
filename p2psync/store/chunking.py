"""Cutting a file into chunks where its content says so, and hashing it, in one pass and in a few MiB of memory.

FastCDC (Xia et al., USENIX ATC 2016, in the 2020 variant, two bytes at a time) as pyfastcdc implements it, with normalised chunking of
level 1 and the gear table of the reference; the parameters in values/content.py and the cuts pinned by the golden test belong to the
protocol. The file is read, never mapped: it may be truncated underneath us, and a mapped file would then kill the process.
"""

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from typing import NamedTuple, TypeAlias

import blake3
from pyfastcdc import FastCDC

from p2psync.values.content import CHUNK_AVERAGE, CHUNK_MAX, CHUNK_MIN, Chunk, Content, Listing
from p2psync.values.digest import Digest, content_digest

Sink: TypeAlias = Callable[[Chunk, memoryview], None]
"""Takes each chunk with its bytes, in the order of the file; the bytes are good until it returns."""

_CUTTER = FastCDC(CHUNK_AVERAGE, min_size=CHUNK_MIN, max_size=CHUNK_MAX, normalized_chunking=1, seed=0)
_BLOCK = 2 * 1024 * 1024
"""Bytes read at once: eight chunks of the largest size, small enough for the cache of the processor."""
_AHEAD = 16 * 1024 * 1024
"""A file of this size is worth a second thread, which reads on and hashes the whole while the first one cuts and hashes the chunks."""


class _Block(NamedTuple):
    """Bytes that were read one after the other: ``room`` from ``head`` on; before that there is room for what is left of those before."""

    room: memoryview
    head: int
    ended: bool


def describe(fd: int, size: int, sink: Sink | None = None) -> tuple[Content, Listing]:
    """The content of the open file and its chunks, read from the beginning to the end.

    ``size`` in bytes is what the file is expected to have; it may have another one by now, and what was really read counts.
    Whoever calls compares the stamp before and after: a file that changes while it is read gives a content that never existed.

    Raises:
        OSError: it cannot be read.
    """
    if 0 < size < CHUNK_MIN and (piece := os.pread(fd, size + 1, 0)) and len(piece) == size:
        return _described(piece, sink)
    whole = blake3.blake3()
    packed: list[bytes] = []
    end = 0
    for chunk, data in _cuts(_blocks(fd, size, whole.update)):
        packed.append(chunk.digest + chunk.size.to_bytes(4, "big"))
        end = chunk.offset + chunk.size
        if sink is not None:
            sink(chunk, data)
    listing = Listing(b"".join(packed))
    digest = Digest(whole.digest())
    return Content(digest, end, digest if len(packed) <= 1 else listing.digest), listing


def _described(piece: bytes, sink: Sink | None) -> tuple[Content, Listing]:
    """As ``describe`` of a file that is too small to be cut, and was read as a whole."""
    digest = content_digest(piece)
    if sink is not None:
        sink(Chunk(digest, 0, len(piece)), memoryview(piece))
    content = Content(digest, len(piece), digest)
    return content, Listing.single(content)


def _cuts(blocks: Iterator[_Block]) -> Iterator[tuple[Chunk, memoryview]]:
    """Each chunk with its bytes, which are good until the next one is asked for."""
    offset = 0
    rest = memoryview(b"")
    for room, head, ended in blocks:
        room[head - len(rest) : head] = rest
        held, used = room[head - len(rest) :], 0
        for piece in _CUTTER.cut_buf(held) if held else ():
            if not ended and len(held) - used < CHUNK_MAX:
                break  # more bytes might move this cut
            data = held[used : used + piece.length]
            yield Chunk(content_digest(data), offset, piece.length), data
            used, offset = used + piece.length, offset + piece.length
        rest = held[used:]


def _blocks(fd: int, size: int, whole: Callable[[memoryview], object]) -> Iterator[_Block]:
    """The file block after block, each of which ``whole`` has had; one is good until the next but one is asked for."""
    blocks = _read_blocks(fd, size, whole)
    if size < _AHEAD:
        yield from blocks
        return
    with ThreadPoolExecutor(1) as helper:
        coming = helper.submit(next, blocks)
        while not (block := coming.result()).ended:
            coming = helper.submit(next, blocks)
            yield block
        yield block


def _read_blocks(fd: int, size: int, whole: Callable[[memoryview], object]) -> Iterator[_Block]:
    """As ``_blocks``; the last one is the only one that ends the file. Of three rooms one is being read, one cut, one left behind."""
    rooms: list[memoryview] = []
    at = 0
    for number in count():
        head, most = (CHUNK_MAX, _BLOCK) if number or size >= _BLOCK else (0, size + 1)  # one more, to see that it ends there
        if number < 3 or len(rooms[number % 3]) != head + most:
            rooms[number % 3 : number % 3 + 1] = [memoryview(bytearray(head + most))]
        room = rooms[number % 3]
        read = _fill(fd, room[head:], at)
        whole(room[head : head + read])
        at += read
        yield _Block(room[: head + read], head, read < most)
        if read < most:
            return


def _fill(fd: int, room: memoryview, offset: int) -> int:
    """Reads into ``room`` until it is full or the file ends; the number of bytes."""
    filled = 0
    while filled < len(room):
        read = os.preadv(fd, [room[filled:]], offset + filled)
        if read == 0:
            break
        filled += read
    return filled
