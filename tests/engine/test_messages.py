"""Messages: every kind there and back, the frozen bytes of each, and everything that is none."""

import dataclasses
import json
import time
import tracemalloc
from pathlib import Path
from typing import Any

import msgpack  # type: ignore[import-untyped]
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from p2psync.engine import messages as m
from p2psync.engine.encoding import KINDS, MAX_CONTROL, Message, UnknownMessage, limit_of, unpack_message
from p2psync.engine.messages import CloseCode, LogHead, LogRange
from p2psync.values.digest import Digest
from p2psync.values.errors import Malformed, PeerError
from p2psync.values.keys import Secret
from p2psync.values.names import DeviceId, MandateId, RecordId
from p2psync.values.record import MAX_RECORD

GOLDEN = Path(__file__).parents[1] / "data" / "messages-1.json"


def numbers(bits: int, least: int = 0) -> st.SearchStrategy[int]:
    return st.integers(least, 2**bits - 1)


def exact(size: int) -> st.SearchStrategy[bytes]:
    return st.binary(min_size=size, max_size=size)


def words(limit: int) -> st.SearchStrategy[str]:
    return st.text(st.characters(exclude_categories=["Cs"]), max_size=limit).filter(lambda text: len(text.encode()) <= limit)


def tuples(each: st.SearchStrategy[Any], most: int = 6) -> st.SearchStrategy[tuple[Any, ...]]:
    return st.lists(each, max_size=most).map(tuple)


HANDLE, ID, RAW = numbers(16), exact(32), st.binary(max_size=300)
HEAD = st.builds(LogHead, ID.map(DeviceId), exact(8), numbers(64, 1), ID.map(RecordId))
RANGE = st.tuples(ID, exact(8), numbers(64, 1), numbers(64, 1)).map(
    lambda t: LogRange(DeviceId(t[0]), t[1], min(t[2], t[3]), max(t[2], t[3]))
)
ADDRESS = st.tuples(exact(4) | exact(16), numbers(16, 1))
PAGES = st.tuples(numbers(16), numbers(16)).filter(lambda pair: pair[0] != pair[1]).map(sorted)
EACH: dict[type[Message], st.SearchStrategy[Message]] = {
    m.Hello: st.builds(
        m.Hello, numbers(8), numbers(8), numbers(32), numbers(64), st.integers(0, 40).flatmap(lambda n: exact(16 * n)), words(32)
    ),
    m.Close: st.builds(m.Close, numbers(8), words(200)),
    m.Ping: st.builds(m.Ping, exact(8)),
    m.Pong: st.builds(m.Pong, exact(8)),
    m.Open: st.builds(m.Open, HANDLE, exact(16)),
    m.Join: st.builds(m.Join, tuples(RAW), RAW, RAW),
    m.Welcome: st.builds(m.Welcome, ID.map(MandateId), tuples(st.tuples(numbers(32), ID.map(Secret))), tuples(HEAD)),
    m.Pending: st.builds(m.Pending),
    m.Refused: st.builds(m.Refused, numbers(8)),
    m.Introduce: st.builds(m.Introduce, ID.map(MandateId), tuples(RAW)),
    m.Who: st.builds(m.Who, ID.map(MandateId)),
    m.Heads: st.builds(m.Heads, HANDLE, tuples(HEAD)),
    m.Want: st.builds(m.Want, HANDLE, tuples(RANGE)),
    m.Records: st.builds(m.Records, HANDLE, tuples(RAW)),
    m.Keys: st.builds(m.Keys, HANDLE, numbers(32), ID.map(Secret)),
    m.WantChunks: st.builds(m.WantChunks, HANDLE, tuples(ID.map(Digest))),
    m.Chunk: st.builds(m.Chunk, HANDLE, ID.map(Digest), st.binary(max_size=2000)),
    m.NoChunk: st.builds(m.NoChunk, HANDLE, ID.map(Digest)),
    m.ForkProof: st.builds(m.ForkProof, HANDLE, RAW, RAW),
    m.WantListing: st.builds(m.WantListing, HANDLE, ID.map(Digest), numbers(16)),
    m.Listing: PAGES.flatmap(
        lambda pages: st.builds(m.Listing, HANDLE, ID.map(Digest), st.just(pages[0]), st.just(pages[1]), st.binary(max_size=2000))
    ),
    m.Held: st.builds(m.Held, HANDLE, ID, numbers(64), numbers(64)),
    m.Whereabouts: st.builds(m.Whereabouts, HANDLE, tuples(st.tuples(ID.map(DeviceId), tuples(ADDRESS)))),
    m.NoListing: st.builds(m.NoListing, HANDLE, ID.map(Digest)),
    m.Have: st.builds(m.Have, HANDLE, tuples(ID.map(Digest))),
    m.ListingChange: st.builds(m.ListingChange, HANDLE, ID.map(Digest), ID.map(Digest), numbers(32), numbers(32), st.binary(max_size=2000)),
}
ANY_MESSAGE = st.one_of(*EACH.values())


def test_every_kind_is_tried_here() -> None:
    assert set(EACH) == set(KINDS.values())


@pytest.mark.parametrize("kind", EACH, ids=lambda kind: kind.__name__)
def test_every_message_comes_back_as_it_was(kind: type[Message]) -> None:
    @given(EACH[kind])
    @settings(max_examples=30)
    def check(message: Message) -> None:
        body = message.pack()
        assert len(body) <= limit_of(body[:2]) <= max(MAX_CONTROL, m.MAX_CHUNK_DATA + 64)
        assert unpack_message(body) == message

    check()


def test_the_frozen_bytes() -> None:
    """One message of each kind, as it was when the protocol was written down; it changes only when the protocol does."""
    frozen = json.loads(GOLDEN.read_text())
    assert {type(message).__name__: message.pack().hex() for message in samples()} == frozen
    assert [unpack_message(bytes.fromhex(text)) for text in frozen.values()] == samples()


def samples() -> list[Message]:
    id_, handle = bytes(range(32)), 258
    mandate, device, digest, record = MandateId(id_), DeviceId(id_), Digest(id_), RecordId(id_[::-1])
    head, wanted = LogHead(device, b"incarnat", 2**40, record), LogRange(device, b"incarnat", 1, 300)
    return [
        m.Hello(1, 1, 0, 1_700_000_000_000, bytes(range(16)) * 2, "p2psync 1.0"),
        m.Close(CloseCode.UPGRADE, "mise à jour"),
        m.Ping(b"question"),
        m.Pong(b"question"),
        m.Open(handle, bytes(range(16))),
        m.Join((b"genesis", b"grant", b"invite"), b"device", b"join"),
        m.Welcome(mandate, ((0, Secret(id_)), (1, Secret(id_[::-1]))), (head,)),
        m.Pending(),
        m.Refused(m.Refusal.STALE),
        m.Introduce(mandate, (b"join", b"witness")),
        m.Who(mandate),
        m.Heads(handle, (head, head)),
        m.Want(handle, (wanted,)),
        m.Records(handle, (b"one", b"another")),
        m.Keys(handle, 7, Secret(id_)),
        m.WantChunks(handle, (digest, digest)),
        m.Chunk(handle, digest, b"content"),
        m.NoChunk(handle, digest),
        m.ForkProof(handle, b"one", b"other"),
        m.WantListing(handle, digest, 3),
        m.Listing(handle, digest, 3, 4, b"thirty-six bytes for each of a chunk"),
        m.Held(handle, id_, 3, 2**33),
        m.Whereabouts(handle, ((device, ((bytes([192, 168, 1, 7]), 22088), (id_[:16], 1))),)),
        m.NoListing(handle, digest),
        m.Have(handle, (digest, digest)),
        m.ListingChange(handle, digest, Digest(id_[::-1]), 16_000, 70_000, b"thirty-six bytes for each of a chunk"),
    ]


def test_the_largest_of_each_kind_fits_its_limit() -> None:
    id_, record = bytes(32), bytes(MAX_RECORD)
    head = LogHead(DeviceId(id_), bytes(8), 2**64 - 1, RecordId(id_))
    largest: list[Message] = [
        m.Hello(255, 255, 2**32 - 1, 2**64 - 1, bytes(16 * 1024), "x" * 32),
        m.Close(255, "é" * 100),
        m.Welcome(MandateId(id_), ((2**32 - 1, Secret(id_)),) * 64, (head,) * 1024),
        m.Heads(65535, (head,) * 1024),
        m.Want(65535, (LogRange(DeviceId(id_), bytes(8), 2**64 - 1, 2**64 - 1),) * 1024),
        m.Records(65535, (bytes(65_500),) * 4),
        m.WantChunks(65535, (Digest(id_),) * 256),
        m.Chunk(65535, Digest(id_), bytes(1024 * 1024)),
        m.ForkProof(65535, record, record),
        m.Listing(65535, Digest(id_), 65534, 65535, bytes(256 * 1024)),
        m.ListingChange(65535, Digest(id_), Digest(id_), 2**32 - 1, 2**32 - 1, bytes(64 * 1024)),
        m.Whereabouts(65535, ((DeviceId(id_), ((bytes(16), 65535),) * 8),) * 256),
        m.Have(65535, (Digest(id_),) * 1024),
    ]
    for message in largest:
        assert unpack_message(message.pack()) == message


@pytest.mark.parametrize(
    "message",
    [
        m.Close(256),
        m.Close(0, "x" * 201),
        m.Ping(b"short"),
        m.Hello(1, 1, 0, 0, b"not sixteen", "p2psync"),
        m.Heads(65536, ()),
        m.Introduce(MandateId(bytes(32)), (bytes(60_000), bytes(6_000))),
        m.Records(1, (bytes(60_000),) * 5),
        m.WantChunks(1, (Digest(bytes(32)),) * 257),
        m.Chunk(1, Digest(bytes(32)), bytes(1024 * 1024 + 1)),
        m.Whereabouts(1, ((DeviceId(bytes(32)), ((b"12345", 1),)),)),
    ],
)
def test_we_do_not_say_what_others_would_refuse(message: Message) -> None:
    with pytest.raises(ValueError, match=type(message).__name__):
        message.pack()


@pytest.mark.parametrize("size", [0, 1, 255, 256, 65_535, 65_536, 262_144])
def test_content_is_packed_alike_without_being_copied(size: int) -> None:
    content = bytes(size)
    for message in (m.Chunk(7, Digest(b"d" * 32), content), m.Listing(300, Digest(b"l" * 32), 0, 1, content)):
        head, body = message.parts()
        assert head + body == message.pack()
        assert body is content


def test_content_that_is_too_long_is_not_packed_in_parts_either() -> None:
    with pytest.raises(ValueError, match="Listing"):
        m.Listing(1, Digest(b"l" * 32), 0, 1, bytes(m.LISTING_PAGE + 1)).parts()


def test_ranges_and_pages_that_cannot_be() -> None:
    with pytest.raises(Malformed):
        LogRange(DeviceId(bytes(32)), bytes(8), 2, 1)
    with pytest.raises(Malformed):
        m.Listing(1, Digest(bytes(32)), 4, 4, b"")


def test_secrets_do_not_show() -> None:
    key = Secret(b"never to be shown in any log at.")
    for message in (m.Keys(1, 2, key), m.Welcome(MandateId(bytes(32)), ((0, key),), ())):
        shown = repr(unpack_message(message.pack()))
        assert "secret" in shown
        assert "never" not in shown


def test_a_kind_that_we_do_not_know_has_an_error_of_its_own() -> None:
    for number in set(range(128)) - set(KINDS):
        with pytest.raises(UnknownMessage, match=str(number)):
            unpack_message(msgpack.packb([number, 1, 2]))


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(0, 2**64 - 1) | st.binary(max_size=40) | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=5),
    max_leaves=20,
)
ALIEN = st.floats() | st.integers(-(2**63), -1) | st.dictionaries(st.text(max_size=3), st.none(), max_size=2)


def taken_or_refused(body: bytes) -> None:
    try:
        message = unpack_message(body)
    except (Malformed, UnknownMessage):
        return
    assert message.pack() == body or isinstance(message, m.BULK)


@given(st.binary(max_size=200))
def test_any_bytes_are_taken_or_refused(body: bytes) -> None:
    taken_or_refused(body)


@given(st.sampled_from(sorted(KINDS)), st.lists(PLAIN | ALIEN, max_size=8))
def test_any_fields_are_taken_or_refused(number: int, fields: list[Any]) -> None:
    taken_or_refused(msgpack.packb([number, *fields]))


@given(ANY_MESSAGE, st.data())
def test_any_field_changed_to_anything_is_taken_or_refused(message: Message, data: st.DataObject) -> None:
    plain = msgpack.unpackb(message.pack())
    plain[data.draw(st.integers(0, len(plain) - 1))] = data.draw(PLAIN | ALIEN)
    taken_or_refused(msgpack.packb(plain))


@given(ANY_MESSAGE, st.data())
def test_any_byte_changed_is_taken_or_refused(message: Message, data: st.DataObject) -> None:
    body = bytearray(message.pack())
    body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    taken_or_refused(bytes(body))
    taken_or_refused(bytes(body[: data.draw(st.integers(0, len(body)))]))


@given(ANY_MESSAGE.filter(lambda message: not isinstance(message, m.BULK)))
def test_a_control_message_has_one_encoding(message: Message) -> None:
    plain = msgpack.unpackb(message.pack())
    longer = b"\xdc" + len(plain).to_bytes(2, "big") + b"".join(map(msgpack.packb, plain))
    with pytest.raises(Malformed):
        unpack_message(longer)
    with pytest.raises(Malformed):
        unpack_message(message.pack() + b"\0")


ARRAY32 = b"\xdd"
BOMBS = {
    "a million empty lists": b"\x93\x14\x01" + ARRAY32 + (90_000).to_bytes(4, "big") + b"\x90" * 90_000,
    "four thousand million announced": b"\x93\x14\x01" + ARRAY32 + b"\xff\xff\xff\xff",
    "nested without end": b"\x93\x14\x01" + b"\x91" * 90_000,
    "maps": b"\x93\x14\x01" + ARRAY32 + (90_000).to_bytes(4, "big") + b"\x80" * 90_000,
    "extensions": b"\x93\x14\x01\xd6\xff\0\0\0\0",
    "far too long": m.Ping(b"question").pack() + bytes(2**22),
    "records by the thousand": b"\x93\x16\x01" + ARRAY32 + (130_000).to_bytes(4, "big") + b"\xc4\0" * 130_000,
}


@pytest.mark.parametrize("body", BOMBS.values(), ids=BOMBS)
def test_bombs_cost_little(body: bytes) -> None:
    tracemalloc.start()
    began = time.process_time()
    with pytest.raises(Malformed):
        unpack_message(body)
    spent, peak = time.process_time() - began, tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20 * 2**20
    assert spent < 1


def test_all_messages_are_frozen_values() -> None:
    for kind in KINDS.values():
        assert dataclasses.is_dataclass(kind)
        assert kind.__dataclass_params__.frozen
        assert kind.__doc__
    with pytest.raises(PeerError):
        limit_of(b"")
