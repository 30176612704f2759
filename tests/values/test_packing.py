"""The door for msgpack: what comes in is small, plain and canonical, or refused, in bounded time and memory."""

from __future__ import annotations

import time
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from p2psync.values.errors import Malformed
from p2psync.values.packing import MAX_DEPTH, exactly, fields, pack, unpack

LIMIT = 64 * 1024

plain = st.recursive(
    st.none() | st.booleans() | st.integers(0, 2**64 - 1) | st.text(max_size=40) | st.binary(max_size=300),
    lambda below: st.lists(below, max_size=5),
    max_leaves=20,
)


@settings(max_examples=100, deadline=None)
@given(st.lists(plain, max_size=5))
def test_plain_values_come_back(value: list) -> None:
    packed = pack(value)
    if depth(value) > MAX_DEPTH:
        with pytest.raises(Malformed, match="deep"):
            unpack(packed, 1 << 20)
    else:
        assert unpack(packed, 1 << 20) == value


def depth(value: object) -> int:
    """How many lists stand inside one another."""
    return 1 + max(map(depth, value), default=0) if isinstance(value, list) else 0


@pytest.mark.parametrize(
    ("value", "packed"),
    [
        ([], "90"),
        (
            [0, 127, 128, 255, 256, 65535, 65536, 2**32, 2**64 - 1],
            "99007fcc80ccffcd0100cdffffce00010000cf0000000100000000cfffffffffffffffff",
        ),
        ([None, False, True], "93c0c2c3"),
        (["é", b"\xff", [["x"]]], "93a2c3a9c401ff9191a178"),
        ([bytes(256)], "91c50100" + "00" * 256),
        ([0] * 16, "dc0010" + "00" * 16),
    ],
)
def test_golden_encodings(value: list, packed: str) -> None:
    assert pack(value).hex() == packed
    assert unpack(bytes.fromhex(packed), LIMIT) == value


NOT_PLAIN = {
    "nothing": b"",
    "no array": b"\xc0",
    "a number": b"\x01",
    "an empty map": b"\x80",
    "a map": b"\x81\xa1a\x01",
    "a map inside": b"\x91\x80",
    "a map with equal keys": b"\x91\x82\xa1a\x01\xa1a\x02",
    "a negative number": b"\x91\xff",
    "a very negative number": b"\x91\xd3\x80" + bytes(7),
    "a float": b"\x91\xcb\x3f\xf0" + bytes(6),
    "half a float": b"\x91\xca\x3f\x80\0\0",
    "no number": b"\x91\xcb\x7f\xf8" + bytes(6),
    "infinity": b"\x91\xcb\x7f\xf0" + bytes(6),
    "a time stamp of 4 bytes": b"\x91\xd6\xff\0\0\0\1",
    "a time stamp of 8 bytes": b"\x91\xd7\xff" + bytes(8),
    "a time stamp of 12 bytes": b"\x91\xc7\x0c\xff" + bytes(12),
    "an impossible time stamp": b"\x91\xd7\xff" + b"\xff" * 8,
    "a time stamp too short": b"\x91\xd4\xff\0",
    "extension 0": b"\x91\xd4\0\0",
    "extension 127, empty": b"\x91\xc7\0\x7f",
    "the type that never was": b"\x91\xc1",
    "text that is not UTF-8": b"\x91\xa1\xff",
    "a surrogate in text": b"\x91\xa3\xed\xa0\x80",
    "overlong text": b"\x91\xa2\xc0\x80",
    "bytes after the end": b"\x90\xc0",
    "cut short": b"\x92\x01",
    "text cut short": b"\x91\xa5abc",
}


@pytest.mark.parametrize("what", NOT_PLAIN)
@pytest.mark.parametrize("canonical", [True, False])
def test_what_is_not_plain_is_refused(what: str, canonical: bool) -> None:
    with pytest.raises(Malformed):
        unpack(NOT_PLAIN[what], LIMIT, canonical=canonical)


LONGER = {
    "a small number in a byte": b"\x91\xcc\x01",
    "a byte in two": b"\x91\xcd\0\xff",
    "two bytes in four": b"\x91\xce\0\0\xff\xff",
    "four bytes in eight": b"\x91\xcf\0\0\0\0\xff\xff\xff\xff",
    "a positive signed number": b"\x91\xd0\x01",
    "a long array head": b"\xdc\0\1\x01",
    "a very long array head": b"\xdd\0\0\0\1\x01",
    "short text with a long head": b"\x91\xd9\1a",
    "short bytes with a long head": b"\x91\xc5\0\1a",
    "inside": b"\x91\x91\x91\xcc\x01",
}


@pytest.mark.parametrize("what", LONGER)
def test_a_second_encoding_of_the_same_value_is_refused(what: str) -> None:
    with pytest.raises(Malformed, match="canonical"):
        unpack(LONGER[what], LIMIT)
    unpack(LONGER[what], LIMIT, canonical=False)


BOMBS = {
    "an array that claims 2^32 - 1": b"\xdd\xff\xff\xff\xff",
    "an array that claims 65,535": b"\xdc\xff\xff",
    "text that claims 2^32 - 1": b"\x91\xdb\xff\xff\xff\xff",
    "bytes that claim 2^32 - 1": b"\x91\xc6\xff\xff\xff\xff",
    "an extension that claims 2^32 - 1": b"\x91\xc9\xff\xff\xff\xff\x01",
    "a map that claims 2^32 - 1": b"\xdf\xff\xff\xff\xff",
    "arrays that each claim 2^32 - 1": b"\xdd\xff\xff\xff\xff" * 5000,
    "10 levels": b"\x91" * 10 + b"\x90",
    "500 levels": b"\x91" * 500 + b"\x90",
    "1,500 levels": b"\x91" * 1500 + b"\x90",
    "64 Ki levels": b"\x91" * (LIMIT - 1) + b"\x90",
    "64 Ki empty maps": b"\xdc\xff\xf0" + b"\x80" * 0xFFF0,
    "nested maps": b"\x81" * 1000,
    "more than the limit": b"\xc4" * (LIMIT + 1),
}


@pytest.mark.parametrize("what", BOMBS)
def test_bombs_do_not_go_off(what: str) -> None:
    tracemalloc.start()
    begun = time.thread_time()
    with pytest.raises(Malformed):
        unpack(BOMBS[what], LIMIT)
    spent, (_, peak) = time.thread_time() - begun, tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert spent < 0.5
    assert peak < 16 * 1024 * 1024


def test_the_most_that_fits_costs_a_bounded_multiple() -> None:
    data = b"\xdc\xff\xf0" + b"\x90" * 0xFFF0
    tracemalloc.start()
    assert len(unpack(data, LIMIT)) == 0xFFF0
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 16 * 1024 * 1024


def test_too_many_items_over_all_levels_are_refused() -> None:
    inner = b"\xdc\xff\xff" + b"\x00" * 0xFFFF
    with pytest.raises(Malformed, match="items"):
        unpack(b"\x92" + inner + inner, 1 << 20)


@settings(max_examples=500, deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    try:
        value = unpack(data, 100)
    except Malformed:
        return
    assert pack(value) == data
    assert len(data) <= 100


@pytest.mark.parametrize("value", [[True, "a", None], [1, b"a", None], [1, "a"], [1, "a", None, None], (1, "a", None), "abc", None])
def test_fields_have_exactly_their_kinds(value: object) -> None:
    assert fields([1, "a", None], int, str, (bytes, type(None))) == [1, "a", None]
    with pytest.raises(Malformed):
        fields(value, int, str, (bytes, type(None)))


@pytest.mark.parametrize("value", [b"a", "ab", None, bytearray(b"ab")])
def test_bytes_have_exactly_their_size(value: object) -> None:
    assert exactly(b"ab", 2) == b"ab"
    with pytest.raises(Malformed):
        exactly(value, 2)
