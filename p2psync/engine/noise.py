"""The Noise handshake (noiseprotocol.org, revision 34) in the one suite that p2psync speaks: 25519, ChaChaPoly, BLAKE2b.

There is one pattern, XXpsk0: both sides have static keys that the other learns, and a shared secret goes in before anything else,
so that the first message already has a tag which only its holders can make. The pattern is a parameter because the published test
vectors are for its relatives. No I/O here, and no randomness: the ephemeral secret is an argument, used for one handshake only.

Keys are agreed on by libsodium; what travels is sealed by OpenSSL, which does it in less than half the time (64 KiB: 3.2 against 1.3 GB/s).
"""

import hashlib
import hmac
from collections.abc import Sequence
from typing import NamedTuple, TypeAlias

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from nacl.bindings import crypto_scalarmult, crypto_scalarmult_base
from nacl.exceptions import CryptoError

from p2psync.values.errors import PeerError

Pattern: TypeAlias = tuple[tuple[str, ...], ...]
"""The tokens of each handshake message, the initiator's first, then in turn."""

NAME = b"Noise_XXpsk0_25519_ChaChaPoly_BLAKE2b"
XXPSK0: Pattern = (("psk", "e"), ("e", "ee", "s", "es"), ("s", "se"))

TAG = 16
"""Bytes that encryption adds."""

KEY = 32
"""Bytes of a public key."""

MAX_MESSAGE = 65535
"""Bytes of one Noise message, handshake or transport."""

_LAST = 2**64 - 1
"""The nonce that is reserved for making the next key (§4.2)."""


class NotAuthentic(PeerError):
    """What the other side sent was altered on the way, or it does not hold the right key."""


class NonceExhausted(PeerError):
    """The link carried as many messages as one key may; a new handshake is due."""


class KeyPair(NamedTuple):
    """An X25519 key: 32 secret bytes, and 32 public ones."""

    secret: bytes
    public: bytes


class Cipher:
    """A key and the number of messages it has sealed or opened (CipherState, §5.1)."""

    __slots__ = ("_aead", "_key", "count")

    def __init__(self, key: bytes) -> None:
        self._take(key)
        self.count = 0

    def seal(self, plaintext: bytes, associated: bytes = b"") -> bytes:
        """``plaintext`` encrypted and 16 bytes longer; ``associated`` is authenticated with it.

        Raises:
            NonceExhausted: after 2**64 - 1 messages.
        """
        sealed = self._aead.encrypt(self._nonce(), plaintext, associated)
        self.count += 1
        return sealed

    def open(self, sealed: bytes | memoryview, associated: bytes = b"") -> bytes:
        """The plaintext that was sealed; a failure counts nothing.

        Raises:
            NotAuthentic: it is not what the other side sealed as its next message.
            NonceExhausted: after 2**64 - 1 messages.
        """
        nonce = self._nonce()
        if len(sealed) < TAG:
            raise NotAuthentic
        try:
            plaintext = self._aead.decrypt(nonce, sealed, associated)
        except InvalidTag:
            raise NotAuthentic from None
        self.count += 1
        return plaintext

    def rekey(self) -> None:
        """Go on with a new key from which the old one cannot be found (§4.2); the count goes on too."""
        nonce = _LAST << 32
        self._take(self._aead.encrypt(nonce.to_bytes(12, "little"), bytes(32), b"")[:32])

    def _take(self, key: bytes) -> None:
        self._key, self._aead = key, ChaCha20Poly1305(key)

    def _nonce(self) -> bytes:
        if self.count >= _LAST:
            raise NonceExhausted
        return (self.count << 32).to_bytes(12, "little")


class Split(NamedTuple):
    """What a finished handshake leaves: a cipher for each direction, the other's static key, and the hash that names the channel."""

    sealer: Cipher
    opener: Cipher
    peer_key: bytes
    channel: bytes


class Handshake:
    """One side of one handshake (HandshakeState, §5.3): write and read by turns, then ``split``.

    Args:
        initiator: Whether this side writes the first message.
        static: The key that this side proves.
        ephemeral: 32 random bytes, never used before.
        psks: The shared secrets, 32 bytes each, in the order in which the pattern asks for them.
        prologue: What both sides must have seen alike before.
        name: The protocol's name, hashed into everything; belongs to ``pattern``.
    """

    def __init__(
        self,
        *,
        initiator: bool,
        static: KeyPair,
        ephemeral: bytes,
        psks: Sequence[bytes],
        prologue: bytes,
        pattern: Pattern = XXPSK0,
        name: bytes = NAME,
    ) -> None:
        self._initiator = initiator
        self._static = static
        self._ephemeral = ephemeral
        self._psks = list(psks)
        self._to_come = list(enumerate(pattern))
        self._with_psk = any("psk" in tokens for tokens in pattern)
        self._peer_static = self._peer_ephemeral = b""
        self._state = _Symmetric(name, prologue)

    def write(self, payload: bytes = b"") -> bytes:
        """Our next message.

        Raises:
            NotAuthentic: the other's key is one of the few that would make the secret known to everybody.
        """
        out = []
        for token in self._tokens(writing=True):
            if token == "e":
                public = crypto_scalarmult_base(self._ephemeral)
                self._mix_ephemeral(public)
                out.append(public)
            elif token == "s":
                out.append(self._state.seal(self._static.public))
            else:
                self._mix(token)
        out.append(self._state.seal(payload))
        return b"".join(out)

    def read(self, message: bytes) -> bytes:
        """The payload of the other's next message. After an error the handshake is spent.

        Raises:
            NotAuthentic: it was altered, or made with other keys or another prologue.
        """
        for token in self._tokens(writing=False):
            if token == "e":
                self._peer_ephemeral, message = _cut(message, KEY)
                self._mix_ephemeral(self._peer_ephemeral)
            elif token == "s":
                sealed, message = _cut(message, KEY + (TAG if self._state.cipher else 0))
                self._peer_static = self._state.open(sealed)
            else:
                self._mix(token)
        return self._state.open(message)

    def split(self) -> Split:
        """The ciphers of the finished handshake."""
        if self._to_come:
            raise RuntimeError("the handshake is not finished")
        first, second = self._state.split()
        sealer, opener = (first, second) if self._initiator else (second, first)
        return Split(sealer, opener, self._peer_static, self._state.hash)

    def _tokens(self, *, writing: bool) -> tuple[str, ...]:
        if not self._to_come or (self._to_come[0][0] % 2 == 0) == (self._initiator != writing):
            raise RuntimeError("it is not this side's turn")
        return self._to_come.pop(0)[1]

    def _mix_ephemeral(self, public: bytes) -> None:
        self._state.mix_hash(public)
        if self._with_psk:
            self._state.mix_key(public)

    def _mix(self, token: str) -> None:
        if token == "psk":
            self._state.mix_key_and_hash(self._psks.pop(0))
            return
        mine, theirs = tuple(token) if self._initiator else tuple(token[::-1])
        secret = self._ephemeral if mine == "e" else self._static.secret
        try:
            self._state.mix_key(crypto_scalarmult(secret, self._peer_ephemeral if theirs == "e" else self._peer_static))
        except CryptoError:  # libsodium refuses the points of low order
            raise NotAuthentic from None


class _Symmetric:
    """What both sides have mixed so far (SymmetricState, §5.2)."""

    def __init__(self, name: bytes, prologue: bytes) -> None:
        self.hash = name.ljust(64, b"\0") if len(name) <= 64 else hashlib.blake2b(name).digest()
        self._chain = self.hash
        self.cipher: Cipher | None = None
        self.mix_hash(prologue)

    def mix_hash(self, data: bytes) -> None:
        self.hash = hashlib.blake2b(self.hash + data).digest()

    def mix_key(self, material: bytes) -> None:
        self._chain, key = _hkdf(self._chain, material, 2)
        self.cipher = Cipher(key[:32])

    def mix_key_and_hash(self, material: bytes) -> None:
        self._chain, hashed, key = _hkdf(self._chain, material, 3)
        self.mix_hash(hashed)
        self.cipher = Cipher(key[:32])

    def seal(self, plaintext: bytes) -> bytes:
        sealed = self.cipher.seal(plaintext, self.hash) if self.cipher else plaintext
        self.mix_hash(sealed)
        return sealed

    def open(self, sealed: bytes) -> bytes:
        plaintext = self.cipher.open(sealed, self.hash) if self.cipher else sealed
        self.mix_hash(sealed)
        return plaintext

    def split(self) -> tuple[Cipher, Cipher]:
        first, second = _hkdf(self._chain, b"", 2)
        return Cipher(first[:32]), Cipher(second[:32])


def _hkdf(chain: bytes, material: bytes, outputs: int) -> list[bytes]:
    secret = hmac.digest(chain, material, hashlib.blake2b)
    made = [b""]
    for number in range(1, outputs + 1):
        made.append(hmac.digest(secret, made[-1] + bytes([number]), hashlib.blake2b))
    return made[1:]


def _cut(message: bytes, size: int) -> tuple[bytes, bytes]:
    if len(message) < size:
        raise NotAuthentic
    return message[:size], message[size:]
