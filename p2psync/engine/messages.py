"""What two machines say to each other once the channel stands (docs/protocol.md, “Session messages”).

Fields and their limits are the dataclasses below (engine/encoding makes bytes of them). Handles are the sender's: ``Open`` declares
one, and what that sender says later about the mandate carries it.
"""

from dataclasses import dataclass
from enum import IntEnum
from typing import Annotated

from p2psync.engine.encoding import Message, message
from p2psync.engine.shapes import blob, exactly, group, many, secret, struct, unsigned, utf8
from p2psync.values.digest import Digest
from p2psync.values.errors import Malformed
from p2psync.values.keys import Secret
from p2psync.values.listingchange import MOST as LISTING_CHANGE
from p2psync.values.names import DeviceId, MandateId, RecordId
from p2psync.values.record import MAX_RECORD

PROTOCOL = 1
LISTING_CHANGES = 1
"""Feature bit: understands ListingChange."""
MAX_UNPROVEN = 64 * 1024
"""Bytes of what a stranger behind a right gate may say about itself."""
MAX_CHUNK_DATA, LISTING_PAGE = 1024 * 1024, 256 * 1024
MAX_LOGS, MAX_DEVICES, MAX_IDS = 1024, 256, 1024
HEARS_HAVE = 2
"""The feature bit of who understands :class:`Have`."""


class CloseCode(IntEnum):
    """Why a side says goodbye."""

    BYE = 0
    PROTOCOL = 1
    UNSUPPORTED = 2
    REVOKED = 3
    ROLE = 4
    BUSY = 5
    UPGRADE = 6
    TOO_MUCH = 7


class Refusal(IntEnum):
    """Why a guest is not admitted."""

    UNKNOWN_MANDATE = 1
    EXPIRED = 2
    USED = 3
    REVOKED = 4
    STALE = 5
    WRONG_DEVICE = 6
    CLOCK = 7


Handle = Annotated[int, unsigned(16)]
Device = Annotated[DeviceId, exactly(32)]
Mandate = Annotated[MandateId, exactly(32)]
ChunkId = Annotated[Digest, exactly(32)]
ListingId = Annotated[Digest, exactly(32)]
Incarnation = Annotated[bytes, exactly(8)]
Cookie = Annotated[bytes, exactly(8)]
Raw = Annotated[bytes, blob(MAX_RECORD)]
"""A record as its bytes; whoever takes it parses it."""
Seq = Annotated[int, unsigned(64, least=1)]
ADDRESS = group(exactly(4, 16), unsigned(16, least=1))


@dataclass(frozen=True, slots=True)
class LogHead:
    """The last record somebody holds of one log: its sequence number and its id."""

    device: Device
    incarnation: Incarnation
    seq: Seq
    id: Annotated[RecordId, exactly(32)]


@dataclass(frozen=True, slots=True)
class LogRange:
    """The records from ``first`` to ``last``, both included, of one log."""

    device: Device
    incarnation: Incarnation
    first: Seq
    last: Seq

    def __post_init__(self) -> None:
        if self.first > self.last:
            raise Malformed(why="a range that ends before it begins")


Logs = Annotated[tuple[LogHead, ...], many(struct(LogHead), MAX_LOGS)]


@message(0)
class Hello(Message):
    """The first thing each side says to one that it knows for a member.

    The protocol spoken and the highest one known, feature bits, the own clock in ms since 1970 (a difference is shown, nothing depends
    on it), 16-byte tokens of the own mandates among noise, and name and version of the program.
    """

    proto: Annotated[int, unsigned(8)]
    max_proto: Annotated[int, unsigned(8)]
    features: Annotated[int, unsigned(32)]
    now_ms: Annotated[int, unsigned(64)]
    tokens: Annotated[bytes, blob(MAX_LOGS * 16, step=16)]
    software: Annotated[str, utf8(32)]


@message(1)
class Close(Message):
    """Goodbye: the last thing a side says. ``text`` is never shown unescaped."""

    code: Annotated[int, unsigned(8)]
    text: Annotated[str, utf8(200)] = ""


@message(2)
class Ping(Message):
    """Are you there?"""

    cookie: Cookie


@message(3)
class Pong(Message):
    """I am, with the cookie of the question."""

    cookie: Cookie


@message(4)
class Open(Message):
    """From now on ``handle`` means the mandate of this token, which was among those of the other's Hello."""

    handle: Handle
    token: Annotated[bytes, exactly(16)]


@message(10, MAX_UNPROVEN)
class Join(Message):
    """A guest asks to be admitted: the records that prove its invitation, its device record and its join record."""

    chain: Annotated[tuple[bytes, ...], many(blob(MAX_RECORD), 16)]
    device: Raw
    join: Raw


@message(11)
class Welcome(Message):
    """The guest is admitted: the mandate's secrets by generation, and what there is to fetch."""

    mandate: Mandate
    keys: Annotated[tuple[tuple[int, Secret], ...], many(group(unsigned(32), secret()), 64)]
    heads: Logs


@message(12)
class Pending(Message):
    """An owner has to agree first."""


@message(13)
class Refused(Message):
    """The guest is not admitted; ``code`` is one of :class:`Refusal`."""

    code: Annotated[int, unsigned(8)]


@message(14, MAX_UNPROVEN)
class Introduce(Message):
    """The records that prove the sender's membership of ``mandate``."""

    mandate: Mandate
    records: Annotated[tuple[bytes, ...], many(blob(MAX_RECORD), 64)]


@message(15)
class Who(Message):
    """I do not know your key; prove your membership of ``mandate``."""

    mandate: Mandate


@message(20)
class Heads(Message):
    """What the sender holds of the journal."""

    handle: Handle
    logs: Logs


@message(21)
class Want(Message):
    """Send me these records."""

    handle: Handle
    ranges: Annotated[tuple[LogRange, ...], many(struct(LogRange), MAX_LOGS)]


@message(22)
class Records(Message):
    """Records, whole, in an order in which each can be taken."""

    handle: Handle
    records: Annotated[tuple[bytes, ...], many(blob(MAX_RECORD), 1024)]


@message(23)
class Keys(Message):
    """The mandate's secret of a later generation."""

    handle: Handle
    generation: Annotated[int, unsigned(32)]
    key: Annotated[Secret, secret()]


@message(24)
class WantChunks(Message):
    """Send me these chunks, in this order."""

    handle: Handle
    ids: Annotated[tuple[Digest, ...], many(exactly(32), 256)]


@message(25, MAX_CHUNK_DATA + 64)
class Chunk(Message):
    """One chunk."""

    handle: Handle
    id: ChunkId
    data: Annotated[bytes, blob(MAX_CHUNK_DATA)]


@message(26)
class NoChunk(Message):
    """I do not have this chunk, or not any more."""

    handle: Handle
    id: ChunkId


@message(27)
class ForkProof(Message):
    """Two records of one device with the same number: it exists twice, or was restored."""

    handle: Handle
    first: Raw
    second: Raw


@message(28)
class WantListing(Message):
    """Send me this page of the chunk list with this digest."""

    handle: Handle
    listing: ListingId
    page: Annotated[int, unsigned(16)]


@message(29, LISTING_PAGE + 64)
class Listing(Message):
    """Page ``page`` of ``pages`` of a chunk list, as packed bytes."""

    handle: Handle
    listing: ListingId
    page: Annotated[int, unsigned(16)]
    pages: Annotated[int, unsigned(16, least=1)]
    data: Annotated[bytes, blob(LISTING_PAGE)]

    def __post_init__(self) -> None:
        if self.page >= self.pages:
            raise Malformed(why="a page beyond the last")


@message(30)
class Held(Message):
    """My disk still lacks so many files and bytes of the view with this digest; none when it agrees with it."""

    handle: Handle
    view: Annotated[bytes, exactly(32)]
    files: Annotated[int, unsigned(64)]
    bytes: Annotated[int, unsigned(64)]


@message(31)
class Whereabouts(Message):
    """Where other members of the mandate were last met, as IP address in network order and port: hints, to be tried like any other."""

    handle: Handle
    members: Annotated[tuple[tuple[DeviceId, tuple[tuple[bytes, int], ...]], ...], many(group(exactly(32), many(ADDRESS, 8)), MAX_DEVICES)]


@message(32)
class NoListing(Message):
    """I do not have this chunk list."""

    handle: Handle
    listing: ListingId


@message(33)
class Have(Message):
    """I have these chunks now, of contents that I do not have all of: you asked me for some that I lacked."""

    handle: Handle
    ids: Annotated[tuple[Digest, ...], many(exactly(32), MAX_IDS)]


@message(34)
class ListingChange(Message):
    """The chunk list ``listing`` begins with ``before`` chunks of the list ``known``, ends with ``after`` of them, and between is ``data``.

    Only to a side whose Hello says that it understands it.
    """

    handle: Handle
    listing: ListingId
    known: ListingId
    before: Annotated[int, unsigned(32)]
    after: Annotated[int, unsigned(32)]
    data: Annotated[bytes, blob(LISTING_CHANGE)]


BULK = (Chunk, Listing)
"""Messages that carry content, and are not padded."""
