"""What a file holds, described by digests: the whole, its chunks, and what a disk was seen to hold at a path.

Files are cut by FastCDC (Xia et al., USENIX ATC 2016, in the 2020 variant) with the parameters below, which belong to the protocol.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, TypeAlias

from p2psync.values.digest import Digest, content_digest
from p2psync.values.errors import Malformed

CHUNK_MIN = 16 * 1024
CHUNK_AVERAGE = 64 * 1024
CHUNK_MAX = 256 * 1024

REF = 36
"""Bytes of one chunk in a listing: its digest and its size as u32be."""

MAX_LISTING = 64 * 1024 * 1024
"""Bytes of a listing: enough for a file of about 120 GiB."""
MAX_SIZE = MAX_LISTING // REF * CHUNK_MAX
"""Bytes of the largest file that a listing can describe."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """One piece of a file: its BLAKE3 digest, where it begins and how many bytes it has."""

    digest: Digest
    offset: int
    size: int


@dataclass(frozen=True, slots=True)
class Content:
    """The whole content of a file: BLAKE3 of its bytes, its size in bytes, and the digest of its listing.

    A file of one chunk (or of none) has no listing of its own: ``listing`` is then its digest.
    """

    digest: Digest
    size: int
    listing: Digest


EMPTY = Content(content_digest(b""), 0, content_digest(b""))


@dataclass(frozen=True, slots=True)
class Listing:
    """The chunks of one content, in order, as packed bytes (36 for each chunk)."""

    packed: bytes

    @classmethod
    def of(cls, chunks: list[Chunk]) -> "Listing":
        """The listing of these chunks, which must be in order and without gaps."""
        return cls(b"".join(chunk.digest + chunk.size.to_bytes(4, "big") for chunk in chunks))

    @classmethod
    def single(cls, content: Content) -> "Listing":
        """The listing of a content that is one chunk, or none: it follows from the content itself."""
        return cls(content.digest + content.size.to_bytes(4, "big") if content.size else b"")

    @classmethod
    def received(cls, packed: bytes, content: Content) -> "Listing":
        """A listing that came from another machine, checked to be the one ``content`` names.

        Raises:
            Malformed: it is another one, or its chunks do not add up to the content.
        """
        listing = cls(packed)
        if content_digest(packed) != content.listing or len(packed) % REF:
            raise Malformed(why="a chunk list that is not the one asked for")
        if any(not 0 < chunk.size <= CHUNK_MAX for chunk in listing) or listing.size != content.size:
            raise Malformed(why="a chunk list that does not add up")
        return listing

    @property
    def digest(self) -> Digest:
        """BLAKE3 of the packed bytes."""
        return content_digest(self.packed)

    @property
    def size(self) -> int:
        """Bytes of the whole content."""
        return sum(int.from_bytes(self.packed[at + 32 : at + 36], "big") for at in range(0, len(self.packed), REF))

    def __len__(self) -> int:
        return len(self.packed) // REF

    def __iter__(self) -> Iterator[Chunk]:
        offset = 0
        for at in range(0, len(self.packed), REF):
            size = int.from_bytes(self.packed[at + 32 : at + 36], "big")
            yield Chunk(Digest(self.packed[at : at + 32]), offset, size)
            offset += size


@dataclass(frozen=True, slots=True)
class File:
    """A path holds a file with this content; ``executable`` is the one permission that travels."""

    content: Content
    executable: bool = False


@dataclass(frozen=True, slots=True)
class Folder:
    """A path holds a folder."""


@dataclass(frozen=True, slots=True)
class Gone:
    """A path holds nothing any more, by a recorded act."""


State: TypeAlias = File | Folder | Gone
"""What a version says a path holds. Two states are equal when the bytes are."""


@dataclass(frozen=True, slots=True)
class Stamp:
    """What ``lstat`` tells cheaply about a path; equal stamps that are old enough mean equal bytes (see engine/settle).

    ``size`` in bytes, times in nanoseconds since 1970, ``kind`` of what stands there.
    """

    kind: Literal["file", "folder", "other"]
    size: int
    mtime_ns: int
    ctime_ns: int
    inode: int
    executable: bool

    @property
    def but_for_ctime(self) -> tuple[object, ...]:
        """All but ``ctime_ns``, to be compared: a rename moves that one."""
        return self.kind, self.size, self.mtime_ns, self.inode, self.executable


@dataclass(frozen=True, slots=True)
class Observed:
    """What the disk was last seen to hold at a path: its stamp and, from reading it, its state."""

    stamp: Stamp
    state: File | Folder
