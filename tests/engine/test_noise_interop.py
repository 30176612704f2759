"""Our handshake against two that share no code with it, live, in both roles: PyPI noiseprotocol and dissononce.

There is no published vector for the bare XXpsk0 in our suite; these two stand in for it.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import pytest
from nacl.bindings import crypto_scalarmult_base

from p2psync.engine.noise import NAME, Handshake, KeyPair, NotAuthentic, Split

noise_connection = pytest.importorskip("noise.connection")
pytest.importorskip("dissononce")

TRANSCRIPT = Path(__file__).parents[1] / "data" / "handshake-1.json"
PSK, PROLOGUE = bytes(range(32)), b"p2psync/1\0 and a greeting"
MINE, THEIRS = (KeyPair(bytes([n] * 32), crypto_scalarmult_base(bytes([n] * 32))) for n in (3, 4))


class Foreign(Protocol):
    """What a foreign implementation does, in our words."""

    channel: bytes

    def write(self, payload: bytes) -> bytes: ...
    def read(self, message: bytes) -> bytes: ...
    def seal(self, plaintext: bytes) -> bytes: ...
    def open(self, sealed: bytes) -> bytes: ...
    def rekey(self) -> None: ...


class NoiseProtocol:
    """PyPI noiseprotocol, on pyca/cryptography."""

    def __init__(self, *, initiator: bool) -> None:
        self.noise = noise_connection.NoiseConnection.from_name(NAME)
        self.noise.set_psks(PSK)
        self.noise.set_prologue(PROLOGUE)
        (self.noise.set_as_initiator if initiator else self.noise.set_as_responder)()
        self.noise.set_keypair_from_private_bytes(noise_connection.Keypair.STATIC, THEIRS.secret)
        self.noise.start_handshake()

    @property
    def channel(self) -> bytes:
        return bytes(self.noise.get_handshake_hash())

    def write(self, payload: bytes) -> bytes:
        return bytes(self.noise.write_message(payload))

    def read(self, message: bytes) -> bytes:
        return bytes(self.noise.read_message(message))

    def seal(self, plaintext: bytes) -> bytes:
        return bytes(self.noise.encrypt(plaintext))

    def open(self, sealed: bytes) -> bytes:
        return bytes(self.noise.decrypt(sealed))

    def rekey(self) -> None:
        self.noise.rekey_inbound_cipher()
        self.noise.rekey_outbound_cipher()


class Dissononce:
    """PyPI dissononce, the library of the WhatsApp client yowsup."""

    def __init__(self, *, initiator: bool) -> None:
        from dissononce.cipher.chachapoly import ChaChaPolyCipher
        from dissononce.dh.x25519.x25519 import X25519DH, PrivateKey
        from dissononce.hash.blake2b import Blake2bHash
        from dissononce.processing.handshakepatterns.interactive.XX import XXHandshakePattern
        from dissononce.processing.impl.cipherstate import CipherState
        from dissononce.processing.impl.handshakestate import HandshakeState
        from dissononce.processing.impl.symmetricstate import SymmetricState
        from dissononce.processing.modifiers.psk import PSKPatternModifier

        self.initiator = initiator
        self.symmetric = SymmetricState(CipherState(ChaChaPolyCipher()), Blake2bHash())
        self.state = HandshakeState(self.symmetric, X25519DH())
        static = X25519DH().generate_keypair(PrivateKey(THEIRS.secret))
        self.state.initialize(PSKPatternModifier(0).modify(XXHandshakePattern()), initiator, PROLOGUE, static, psks=[PSK])
        assert self.state.protocol_name.encode() == NAME
        self.ciphers: Any = None

    @property
    def channel(self) -> bytes:
        return bytes(self.symmetric.get_handshake_hash())

    def write(self, payload: bytes) -> bytes:
        out = bytearray()
        self.ciphers = self.state.write_message(payload, out)
        return bytes(out)

    def read(self, message: bytes) -> bytes:
        out = bytearray()
        self.ciphers = self.state.read_message(message, out)
        return bytes(out)

    def seal(self, plaintext: bytes) -> bytes:
        return bytes(self.ciphers[0 if self.initiator else 1].encrypt_with_ad(b"", plaintext))

    def open(self, sealed: bytes) -> bytes:
        return bytes(self.ciphers[1 if self.initiator else 0].decrypt_with_ad(b"", sealed))

    def rekey(self) -> None:
        for cipher in self.ciphers:
            # The library's own rekey() forgets to cut the new key to 32 bytes and begins to count at 0 again (§4.2, §11.3 say otherwise).
            cipher._key = cipher.cipher.rekey(cipher._key)[:32]


def met(make: Callable[..., Foreign], *, we_call: bool) -> tuple[Split, Foreign]:
    ours = Handshake(initiator=we_call, static=MINE, ephemeral=b"\x55" * 32, psks=[PSK], prologue=PROLOGUE)
    theirs = make(initiator=not we_call)
    for turn, payload in enumerate((b"", b"hidden from outsiders", b"hidden from everybody")):
        if (turn % 2 == 0) == we_call:
            assert theirs.read(ours.write(payload)) == payload
        else:
            assert ours.read(theirs.write(payload)) == payload
    return ours.split(), theirs


both_ways = pytest.mark.parametrize("we_call", [True, False], ids=["we call", "they call"])
either = pytest.mark.parametrize("make", [NoiseProtocol, Dissononce])


@either
@both_ways
def test_foreign_implementations_understand_us(make: Callable[..., Foreign], we_call: bool) -> None:
    ours, theirs = met(make, we_call=we_call)
    assert ours.peer_key == THEIRS.public
    assert ours.channel == theirs.channel
    for number in range(200):
        if number == 100:
            theirs.rekey()
            ours.sealer.rekey()
            ours.opener.rekey()
        text = b"message %d " % number * (number + 1)
        assert theirs.open(ours.sealer.seal(text)) == text
        assert ours.opener.open(theirs.seal(text)) == text
    with pytest.raises(NotAuthentic):
        ours.opener.open(ours.sealer.seal(b"reflected"))


@either
@both_ways
def test_the_longest_message_passes(make: Callable[..., Foreign], we_call: bool) -> None:
    ours, theirs = met(make, we_call=we_call)
    longest = bytes(65535 - 16)
    assert theirs.open(ours.sealer.seal(longest)) == longest
    assert ours.opener.open(theirs.seal(longest)) == longest


@pytest.mark.filterwarnings("ignore:One of ephemeral keypairs is already set:UserWarning")
def test_the_frozen_transcript_is_what_another_implementation_makes_of_it() -> None:
    frozen = {name: bytes.fromhex(text) for name, text in json.loads(TRANSCRIPT.read_text()).items() if name != "about"}
    prologue = b"p2psync/1\0" + frozen["greeting"] + frozen["knock"][:32]
    sides = []
    for role in ("caller", "host"):
        side = noise_connection.NoiseConnection.from_name(NAME)
        side.set_psks(frozen["psk"])
        side.set_prologue(prologue)
        (side.set_as_initiator if role == "caller" else side.set_as_responder)()
        side.set_keypair_from_private_bytes(noise_connection.Keypair.STATIC, frozen[f"{role} static secret"])
        side.set_keypair_from_private_bytes(noise_connection.Keypair.EPHEMERAL, frozen[f"{role} ephemeral secret"])
        side.start_handshake()
        sides.append(side)
    caller, host = sides
    for writer, reader, framed in ((caller, host, frozen["knock"][32:]), (host, caller, frozen["answer"]), (caller, host, frozen["proof"])):
        message = bytes(writer.write_message())
        assert len(message).to_bytes(2, "big") + message == framed
        reader.read_message(message)
    assert caller.get_handshake_hash() == frozen["channel"] == host.get_handshake_hash()
    for writer, name in ((caller, "to host"), (host, "to caller")):
        texts = (b"\0\0\x0c\x92\x02\xc4\x08question".ljust(256, b"\0"), b"\0\0\x08unpadded")
        sealed = [bytes(writer.encrypt(text)) for text in texts]
        assert b"".join(len(one).to_bytes(2, "big") + one for one in sealed) == frozen[name]
