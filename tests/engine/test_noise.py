"""The Noise handshake against the published vectors, and against everything that must not pass.

The vectors belong to third parties and are not part of the project: P2PSYNC_NOISE_VECTORS names the directory that holds
them (the JSON files of cacophony and snow); without it those tests are skipped.
"""

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest
from nacl.bindings import crypto_aead_chacha20poly1305_ietf_encrypt, crypto_scalarmult_base

from p2psync.engine.noise import Cipher, Handshake, KeyPair, NonceExhausted, NotAuthentic, Pattern, Split

INTERACTIVE = {
    "NN": (("e",), ("e", "ee")),
    "NX": (("e",), ("e", "ee", "s", "es")),
    "XN": (("e",), ("e", "ee"), ("s", "se")),
    "XX": (("e",), ("e", "ee", "s", "es"), ("s", "se")),
    "IN": (("e", "s"), ("e", "ee", "se")),
    "IX": (("e", "s"), ("e", "ee", "se", "s", "es")),
}
"""The fundamental patterns in which nobody knows anybody's key beforehand; XX is the one that matters here."""


def pattern_of(name: str) -> Pattern | None:
    found = re.fullmatch(r"Noise_([NXI]{2})((?:\+?psk\d)*)_25519_ChaChaPoly_BLAKE2b", name)
    if not found or found[1] not in INTERACTIVE:
        return None
    messages = [list(tokens) for tokens in INTERACTIVE[found[1]]]
    for place in map(int, re.findall(r"\d", found[2])):
        messages[max(place - 1, 0)].insert(0 if place == 0 else len(messages[place - 1]), "psk")
    return tuple(map(tuple, messages))


def published() -> list[Any]:
    folder = os.environ.get("P2PSYNC_NOISE_VECTORS")
    if not folder:
        return [pytest.param(None, marks=pytest.mark.skip(reason="P2PSYNC_NOISE_VECTORS is not set"))]
    vectors = [(path.stem, vector) for path in sorted(Path(folder).glob("*.json")) for vector in json.loads(path.read_text())["vectors"]]
    return [pytest.param(v, id=f"{stem}-{v['protocol_name']}") for stem, v in vectors if pattern_of(v["protocol_name"])]


def key(hexadecimal: str) -> KeyPair:
    secret = bytes.fromhex(hexadecimal) if hexadecimal else bytes([9] * 32)
    return KeyPair(secret, crypto_scalarmult_base(secret))


def side(vector: dict[str, Any], role: str) -> Handshake:
    pattern = pattern_of(vector["protocol_name"])
    assert pattern
    return Handshake(
        initiator=role == "init",
        static=key(vector.get(f"{role}_static", "")),
        ephemeral=bytes.fromhex(vector[f"{role}_ephemeral"]),
        psks=[bytes.fromhex(psk) for psk in vector.get(f"{role}_psks", [])],
        prologue=bytes.fromhex(vector[f"{role}_prologue"]),
        pattern=pattern,
        name=vector["protocol_name"].encode(),
    )


@pytest.mark.parametrize("vector", published())
def test_published_vectors(vector: dict[str, Any]) -> None:
    sides = [side(vector, "init"), side(vector, "resp")]
    rounds = len(pattern_of(vector["protocol_name"]) or ())
    ends: list[Split] = []
    for turn, message in enumerate(vector["messages"]):
        payload, sealed = bytes.fromhex(message["payload"]), bytes.fromhex(message["ciphertext"])
        writer, reader = turn % 2, 1 - turn % 2
        if turn < rounds:
            assert sides[writer].write(payload) == sealed
            assert sides[reader].read(sealed) == payload
        else:
            ends = ends or [one.split() for one in sides]
            assert ends[writer].sealer.seal(payload) == sealed
            assert ends[reader].opener.open(sealed) == payload
    ends = ends or [one.split() for one in sides]
    assert ends[0].channel == ends[1].channel
    assert ends[0].channel.hex() == vector.get("handshake_hash", ends[0].channel.hex())


def both(*, psk: bytes = b"k" * 32, other_psk: bytes = b"k" * 32, prologue: bytes = b"p", other: bytes = b"p") -> list[Handshake]:
    return [
        Handshake(initiator=True, static=key("11" * 32), ephemeral=b"\x21" * 32, psks=[psk], prologue=prologue),
        Handshake(initiator=False, static=key("12" * 32), ephemeral=b"\x22" * 32, psks=[other_psk], prologue=other),
    ]


def agreed() -> tuple[Split, Split]:
    caller, host = both()
    host.read(caller.write())
    caller.read(host.write())
    host.read(caller.write())
    return caller.split(), host.split()


def test_both_sides_learn_each_other_and_share_the_channel() -> None:
    caller, host = agreed()
    assert (caller.peer_key, host.peer_key) == (key("12" * 32).public, key("11" * 32).public)
    assert caller.channel == host.channel
    assert len(caller.channel) == 64
    assert host.opener.open(caller.sealer.seal(b"there")) == b"there"
    assert caller.opener.open(host.sealer.seal(b"and back")) == b"and back"


def test_the_messages_have_the_sizes_of_the_protocol() -> None:
    caller, host = both()
    first = caller.write()
    host.read(first)
    second = host.write()
    caller.read(second)
    assert (len(first), len(second), len(caller.write())) == (48, 96, 64)


@pytest.mark.parametrize("number", range(3))
def test_every_altered_byte_fails(number: int) -> None:
    size = (48, 96, 64)[number]
    for at in range(size):
        sides = both()
        for turn in range(number):
            sides[1 - turn % 2].read(sides[turn % 2].write())
        message = bytearray(sides[number % 2].write())
        assert len(message) == size
        message[at] ^= 0x80
        with pytest.raises(NotAuthentic):
            sides[1 - number % 2].read(bytes(message))


@pytest.mark.parametrize("size", [0, 1, 31, 32, 47, 49])
def test_a_first_message_of_another_length_fails(size: int) -> None:
    caller, host = both()
    with pytest.raises(NotAuthentic):
        host.read((caller.write() + b"\0")[:size])


@pytest.mark.parametrize("changed", [{"other": b"q"}, {"other": b""}, {"other_psk": b"l" * 32}], ids=["prologue", "no prologue", "psk"])
def test_another_prologue_or_psk_fails_at_the_first_message(changed: dict[str, bytes]) -> None:
    caller, host = both(**changed)
    with pytest.raises(NotAuthentic):
        host.read(caller.write())


def test_refusing_a_forged_first_message_costs_no_curve_operation(monkeypatch: pytest.MonkeyPatch) -> None:
    caller, host = both(other_psk=b"l" * 32)
    first = caller.write()
    for name in ("crypto_scalarmult", "crypto_scalarmult_base"):
        monkeypatch.delattr(f"p2psync.engine.noise.{name}")
    with pytest.raises(NotAuthentic):
        host.read(first)


@pytest.mark.parametrize("point", ["00" * 32, "01" + "00" * 31, "ec" + "ff" * 30 + "7f"])
def test_points_of_low_order_fail(point: str, monkeypatch: pytest.MonkeyPatch) -> None:
    caller, host = both()
    with monkeypatch.context() as forged:
        forged.setattr("p2psync.engine.noise.crypto_scalarmult_base", lambda _: bytes.fromhex(point))
        host.read(caller.write())
    with pytest.raises(NotAuthentic):
        host.write()


def test_nobody_acts_out_of_turn() -> None:
    caller, host = both()
    for act in (host.write, lambda: caller.read(bytes(48)), caller.split, host.split):
        with pytest.raises(RuntimeError):
            act()
    first = caller.write()
    with pytest.raises(RuntimeError):
        caller.write()
    with pytest.raises(NotAuthentic):
        host.read(first[:-1] + b"\0")
    with pytest.raises(RuntimeError):  # a spent handshake stays spent
        host.read(first)


def test_messages_open_once_and_in_order_only() -> None:
    caller, host = agreed()
    first, second = caller.sealer.seal(b"1"), caller.sealer.seal(b"2")
    with pytest.raises(NotAuthentic):
        host.opener.open(second)
    assert host.opener.open(first) == b"1"
    with pytest.raises(NotAuthentic):
        host.opener.open(first)
    with pytest.raises(NotAuthentic):  # nor is what went the other way accepted back
        caller.opener.open(second)
    assert host.opener.open(second) == b"2"


def test_the_last_nonce_is_never_used() -> None:
    sealer, opener = Cipher(b"k" * 32), Cipher(b"k" * 32)
    sealer.count = opener.count = 2**64 - 2
    sealed = sealer.seal(b"the very last")
    assert opener.open(sealed) == b"the very last"
    with pytest.raises(NonceExhausted):
        sealer.seal(b"one too many")
    with pytest.raises(NonceExhausted):
        opener.open(sealed)


def test_a_new_key_keeps_the_count_and_closes_the_past() -> None:
    sealer, opener = Cipher(b"k" * 32), Cipher(b"k" * 32)
    old = sealer.seal(b"before")
    sealer.rekey()
    new = sealer.seal(b"after")
    assert sealer.count == 2
    assert opener.open(old) == b"before"
    with pytest.raises(NotAuthentic):
        opener.open(new)
    opener.rekey()
    assert opener.open(new) == b"after"


@pytest.mark.parametrize("size", [0, 1, 63, 64, 65, 4096, 65_519])
def test_another_library_seals_to_the_same_bytes(size: int) -> None:
    secret, plaintext = bytes(range(32)), bytes(range(251)) * 262
    cipher = Cipher(secret)
    for count in range(3):
        nonce = bytes(4) + count.to_bytes(8, "little")
        expected = crypto_aead_chacha20poly1305_ietf_encrypt(plaintext[:size], b"beside", nonce, secret)
        assert cipher.seal(plaintext[:size], b"beside") == expected


def test_another_library_makes_the_same_new_key() -> None:
    secret = bytes(range(32))
    cipher = Cipher(secret)
    cipher.rekey()
    last = bytes(4) + (2**64 - 1).to_bytes(8, "little")
    renewed = crypto_aead_chacha20poly1305_ietf_encrypt(bytes(32), b"", last, secret)[:32]
    assert cipher.seal(b"x") == crypto_aead_chacha20poly1305_ietf_encrypt(b"x", b"", bytes(12), renewed)
