"""Frames: whole, byte by byte and cut anywhere; parts in and out of order; padding; new keys."""

import random
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2psync.engine.encoding import UnknownMessage, limit_of
from p2psync.engine.frames import LAST, MAX_PIECE, PAD, PART, REKEY_EVERY, WHOLE, Assembly, Channel, plaintexts
from p2psync.engine.messages import Chunk, Heads, Ping
from p2psync.engine.noise import Cipher, NonceExhausted, NotAuthentic
from p2psync.values.digest import Digest
from p2psync.values.errors import Malformed, PeerError

CHUNK = Chunk(1, Digest(b"d" * 32), random.Random(5).randbytes(200_000)).pack()
PING = Ping(b"question").pack()


def pair() -> tuple[Channel, Channel]:
    there, back = b"k" * 32, b"l" * 32
    return Channel(Cipher(there), Cipher(back)), Channel(Cipher(back), Cipher(there))


def frame(kind: int, piece: bytes, padding: bytes = b"", size: int | None = None) -> bytes:
    return bytes([kind]) + (len(piece) if size is None else size).to_bytes(2, "big") + piece + padding


def sealed(*frames: bytes) -> bytes:
    """These plaintexts as ``pair()[1]`` would receive them."""
    cipher = Cipher(b"k" * 32)
    done = [cipher.seal(one) for one in frames]
    return b"".join(len(one).to_bytes(2, "big") + one for one in done)


def drained(channel: Channel) -> list[bytes | memoryview]:
    return list(iter(channel.next, None))


@given(st.data())
def test_any_messages_in_any_cut_arrive(data: st.DataObject) -> None:
    one, other = pair()
    bodies = data.draw(
        st.lists(st.sampled_from([PING, CHUNK, CHUNK[: MAX_PIECE + 1], CHUNK[:MAX_PIECE], CHUNK[: MAX_PIECE - 1]]), max_size=4)
    )
    stream = b"".join(one.seal(body, padded=data.draw(st.booleans())) for body in bodies)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    arrived = []
    for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        other.feed(stream[start:end])
        arrived += drained(other)
    assert arrived == bodies


def test_byte_by_byte() -> None:
    one, other = pair()
    stream = one.seal(PING, padded=True) + one.seal(CHUNK[:70_000], padded=False) + one.seal(PING, padded=False)
    arrived = []
    for at in range(len(stream)):
        other.feed(stream[at : at + 1])
        arrived += drained(other)
    assert arrived == [PING, CHUNK[:70_000], PING]


def test_a_cut_off_stream_gives_what_was_whole() -> None:
    one, other = pair()
    stream = one.seal(PING, padded=True) + one.seal(CHUNK, padded=False)
    other.feed(stream[:-1])
    assert drained(other) == [PING]


@pytest.mark.parametrize("size", [0, 1, MAX_PIECE - 40, MAX_PIECE - 39, MAX_PIECE, 2 * MAX_PIECE - 40, 2 * MAX_PIECE - 39, 200_000])
def test_a_message_in_two_pieces_is_framed_as_a_whole_one(size: int) -> None:
    head, body = CHUNK[:40], CHUNK[40 : 40 + size]
    assert list(plaintexts(body, head, padded=False)) == list(plaintexts(head + body, padded=False))


def test_a_frame_that_comes_in_drops_is_not_gathered_again_for_each() -> None:
    one, other = pair()
    stream = one.seal(CHUNK, padded=False)
    began = time.process_time()
    for at in range(0, len(stream), 7):
        other.feed(stream[at : at + 7])
        arrived = drained(other)
    assert arrived == [CHUNK]
    assert time.process_time() - began < 2


def test_control_messages_are_padded_and_bulk_is_not() -> None:
    for size in (0, 1, PAD - 3, PAD - 2, 1000, MAX_PIECE, MAX_PIECE + 1, 3 * MAX_PIECE):
        assert all(len(text) % PAD == 0 for text in plaintexts(bytes(size), padded=True))
        assert sum(map(len, plaintexts(bytes(size), padded=False))) == size + 3 * max(1, -(-size // MAX_PIECE))
    one, _ = pair()
    assert len(one.seal(PING, padded=True)) == len(one.seal(Ping(b"12345678").pack() * 10, padded=True)) == 2 + PAD + 16


def test_no_frame_is_longer_than_noise_allows() -> None:
    one, other = pair()
    stream = one.seal(CHUNK, padded=True)
    other.feed(stream)
    assert drained(other) == [CHUNK]
    assert max(map(len, plaintexts(CHUNK, padded=True))) + 16 <= 65535


HOSTILE = {
    "an unknown kind": [frame(3, b"x")],
    "a last part first": [frame(LAST, PING)],
    "a whole message between parts": [frame(PART, CHUNK[:10]), frame(WHOLE, PING)],
    "an empty part": [frame(PART, b"")],
    "a second part that is empty": [frame(PART, CHUNK[:10]), frame(PART, b"")],
    "a first part without a type": [frame(PART, CHUNK[:1])],
    "parts of no message": [frame(PART, b"\xc0\xc0\xc0")],
    "too long for its kind": [frame(PART, PING[:3]), frame(LAST, bytes(100))],
    "longer than it is": [frame(WHOLE, PING, size=len(PING) + 1)],
    "no room for a length": [b"\0"],
    "nothing": [b""],
    "padding that says something": [frame(WHOLE, PING, b"\0\0\1")],
}


@pytest.mark.parametrize("frames", HOSTILE.values(), ids=HOSTILE)
def test_frames_that_break_the_rules_are_refused_for_good(frames: list[bytes]) -> None:
    _, other = pair()
    other.feed(sealed(*frames))
    with pytest.raises(Malformed) as first:
        drained(other)
    other.feed(sealed(frame(WHOLE, PING)))
    with pytest.raises(Malformed) as again:
        drained(other)
    assert again.value is first.value


def test_parts_of_an_unknown_message_are_refused_by_name() -> None:
    with pytest.raises(UnknownMessage, match="99"):
        Assembly().add(frame(PART, b"\x91\x63"))


def test_no_more_is_kept_than_the_kind_of_message_may_have() -> None:
    assembly = Assembly()
    assembly.add(frame(PART, Heads(1, ()).pack()))
    for _ in range(limit_of(b"\x93\x14") // 30_000):
        assembly.add(frame(PART, bytes(30_000)))
    with pytest.raises(Malformed, match="too long"):
        assembly.add(frame(PART, bytes(30_000)))


def test_a_frame_that_cannot_hold_anything_is_refused_before_it_arrives() -> None:
    _, other = pair()
    other.feed((16).to_bytes(2, "big"))
    with pytest.raises(Malformed, match="too short"):
        other.next()


@pytest.mark.parametrize("at", [0, 1, 2, 50, 100, -1])
def test_an_altered_byte_ends_it(at: int) -> None:
    one, other = pair()
    stream = bytearray(one.seal(PING, padded=True) + one.seal(PING, padded=True))
    stream[at] ^= 1
    other.feed(bytes(stream) + bytes(70_000))
    with pytest.raises(PeerError):
        drained(other)
    with pytest.raises(PeerError):
        other.next()


def test_frames_cannot_be_dropped_swapped_or_repeated() -> None:
    one, _ = pair()
    first, second = one.seal(PING, padded=True), one.seal(PING, padded=True)
    for stream in (second, first + first, second + first):
        other = pair()[1]
        other.feed(stream)
        with pytest.raises(NotAuthentic):
            drained(other)


def test_both_directions_take_a_new_key_after_65536_frames() -> None:
    ciphers = [Cipher(b"k" * 32), Cipher(b"k" * 32), Cipher(b"l" * 32), Cipher(b"l" * 32)]
    one, other = Channel(ciphers[0], ciphers[3]), Channel(ciphers[2], ciphers[1])
    keys = [cipher._key for cipher in ciphers]
    for sender, receiver in ((one, other), (other, one)):
        for _ in range(REKEY_EVERY - 1):
            receiver.feed(sender.seal(b"", padded=False))
            assert receiver.next() == b""
    assert [cipher._key for cipher in ciphers] == keys
    for sender, receiver in ((one, other), (other, one), (one, other), (other, one)):
        receiver.feed(sender.seal(PING, padded=True))
        assert receiver.next() == PING
    assert all(cipher._key != key for cipher, key in zip(ciphers, keys, strict=True))
    assert {cipher.count for cipher in ciphers} == {REKEY_EVERY + 1}


def test_a_new_key_may_fall_in_the_middle_of_a_message() -> None:
    ciphers = [Cipher(b"k" * 32), Cipher(b"k" * 32)]
    for cipher in ciphers:
        cipher.count = REKEY_EVERY - 2
    one, other = Channel(ciphers[0], Cipher(b"l" * 32)), Channel(Cipher(b"l" * 32), ciphers[1])
    other.feed(one.seal(CHUNK, padded=False))
    assert other.next() == CHUNK
    assert ciphers[0].count > REKEY_EVERY
    assert ciphers[0]._key == ciphers[1]._key != b"k" * 32


def test_the_nonce_limit_ends_a_channel() -> None:
    cipher = Cipher(b"k" * 32)
    cipher.count = 2**64 - 1
    with pytest.raises(NonceExhausted):
        Channel(cipher, Cipher(b"l" * 32)).seal(PING, padded=True)


@given(st.binary(max_size=300))
def test_whatever_comes_in_a_frame_is_refused_or_taken(plaintext: bytes) -> None:
    _, other = pair()
    other.feed(sealed(plaintext))
    try:
        drained(other)
    except PeerError:
        pass
