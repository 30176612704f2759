"""Cutting a file into chunks where its content says so, and hashing it, in one pass and in a few MiB of memory.

FastCDC (Xia et al., USENIX ATC 2016, in the 2020 variant, two bytes at a time) as pyfastcdc implements it, with normalised chunking of
level 1 and the gear table of the reference; the parameters in values/content.py and the cuts pinned by the golden test belong to the
protocol. The file is read, never mapped: it may be truncated underneath us, and a mapped file would then kill the process.
"""

import os
from collections.abc import Callable, Iterator
from typing import TypeAlias

import blake3
from pyfastcdc import FastCDC

from p2psync.values.content import CHUNK_AVERAGE, CHUNK_MAX, CHUNK_MIN, Chunk, Content, Listing
from p2psync.values.digest import Digest, content_digest

Sink: TypeAlias = Callable[[Chunk, bytes], None]
"""Takes each chunk with its bytes, in the order of the file."""

_CUTTER = FastCDC(CHUNK_AVERAGE, min_size=CHUNK_MIN, max_size=CHUNK_MAX, normalized_chunking=1, seed=0)
_BUFFER = 2 * 1024 * 1024
"""Bytes read at once: eight chunks of the largest size, small enough for the cache of the processor."""


def describe(fd: int, size: int, sink: Sink | None = None) -> tuple[Content, Listing]:
    """The content of the open file and its chunks, read from the beginning to the end.

    ``size`` in bytes is what the file is expected to have; it may have another one by now, and what was really read counts.
    Whoever calls compares the stamp before and after: a file that changes while it is read gives a content that never existed.

    Raises:
        OSError: it cannot be read.
    """
    whole = blake3.blake3()
    chunks: list[Chunk] = []
    for chunk, data in cuts(fd, size):
        whole.update(data)
        chunks.append(chunk)
        if sink is not None:
            sink(chunk, bytes(data))
    digest = Digest(whole.digest())
    listing = Listing.of(chunks)
    end = chunks[-1].offset + chunks[-1].size if chunks else 0
    return Content(digest, end, digest if len(chunks) <= 1 else listing.digest), listing


def cuts(fd: int, size: int) -> Iterator[tuple[Chunk, memoryview]]:
    """Each chunk of the open file with its bytes, which are good until the next one is asked for; ``size`` as in ``describe``.

    Raises:
        OSError: it cannot be read.
    """
    room = memoryview(bytearray(min(size + 1, _BUFFER)))
    begin = 0  # of the bytes in room, as an offset in the file
    held = 0
    while True:
        read = _fill(fd, room[held:], begin + held)
        held += read
        ended = held < len(room)
        used = 0
        for piece in _CUTTER.cut_buf(room[:held]) if held else ():
            if not ended and held - used < CHUNK_MAX:
                break  # more bytes might move this cut
            data = room[used : used + piece.length]
            yield Chunk(content_digest(data), begin + used, piece.length), data
            used += piece.length
        if ended:
            return
        begin, held = begin + used, held - used
        room = _moved(room, used, held)


def _fill(fd: int, room: memoryview, offset: int) -> int:
    """Reads into ``room`` until it is full or the file ends; the number of bytes."""
    filled = 0
    while filled < len(room):
        read = os.preadv(fd, [room[filled:]], offset + filled)
        if read == 0:
            break
        filled += read
    return filled


def _moved(room: memoryview, used: int, held: int) -> memoryview:
    """``room`` with the ``held`` bytes behind ``used`` at its front; a larger one when the file has grown beyond what was expected."""
    if len(room) < _BUFFER:
        larger = memoryview(bytearray(_BUFFER))
        larger[:held] = room[used : used + held]
        return larger
    room[:held] = room[used : used + held]
    return room
