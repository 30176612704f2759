"""The first words of a connection: greeting, hello and three Noise messages (docs/protocol.md, “Handshake”).

    host  -> caller   greeting 32
    caller -> host    id 16 | tag 16 | u16be 48 | message 1
    host  -> caller   u16be 96 | message 2
    caller -> host    u16be 64 | message 3

The tag shows that the caller holds a key of this very mandate or invitation, for this very greeting: until it is right the host says
nothing and computes no curve. Steps are classes, and a later step exists only as the result of the one before it:
``Greeting -> Answer -> Secured`` for the host, ``Knock -> Proof`` for the caller. No I/O; chance comes in as ``nonce``.
"""

import hmac
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal, TypeAlias

from p2psync.engine.noise import KEY, TAG, Cipher, Handshake, KeyPair, NotAuthentic
from p2psync.values.digest import blake2b
from p2psync.values.errors import PeerError
from p2psync.values.keys import DeviceKeys, GroupKeys, GuestKeys, Secret
from p2psync.values.names import InviteId, MandateId

GREETING_SIZE = 32
_LABEL = 16
"""Bytes of the id and of the tag."""
KNOCK_SIZE = 2 * _LABEL + 2 + KEY + TAG
ANSWER_SIZE = 2 + 2 * KEY + 2 * TAG
PROOF_SIZE = 2 + KEY + 2 * TAG
"""Exact bytes of what each step reads, so that nothing longer is ever waited for."""


class HandshakeError(PeerError):
    """The machine that was met does not belong to any mandate here: {why}."""


@dataclass(frozen=True)
class Gate:
    """One way in: the keys that let a member (of one generation of keys) or a guest (of one invitation) be heard.

    A gate is never an authority: who passed it is looked up by its static key in the signed membership. ``invite`` is the invitation
    of a guest gate and None for members; ``generation`` is that of the mandate's secret, 0 where a guest cannot know it.
    """

    mandate: MandateId
    kind: Literal["member", "guest"]
    psk: Secret
    hello_key: Secret
    invite: InviteId | None
    generation: int

    @classmethod
    def for_members(cls, mandate: MandateId, generation: int, keys: GroupKeys) -> "Gate":
        """The gate of those who hold the mandate's secret of this generation."""
        return cls(mandate, "member", keys.psk, keys.hello, None, generation)

    @classmethod
    def for_guests(cls, mandate: MandateId, invite: InviteId, keys: GuestKeys, generation: int = 0) -> "Gate":
        """The gate of one invitation, seen from either side."""
        return cls(mandate, "guest", keys.psk, keys.hello, invite, generation)

    def tag(self, greeting: bytes, label: bytes) -> bytes:
        """What proves that the caller may knock at this gate: 16 bytes."""
        return blake2b(greeting + label, b"p2psync1-hello-h", key=self.hello_key, size=_LABEL)


Candidates: TypeAlias = Callable[[InviteId], Iterable[Gate]]
"""The gates that a caller with this id may have knocked at: every member gate, and the guest gates of the open invitation of that id.

It is asked once for each caller, with the 16 bytes that it sent: random ones from a member, those of the invitation from a guest.
"""

Nonce: TypeAlias = Callable[[int], bytes]
"""So many fresh random bytes."""


@dataclass(frozen=True)
class Secured:
    """A finished handshake: through which gate, with whom, and the ciphers of the channel.

    ``peer_key`` is the other's static X25519 key, 32 bytes, proved; ``channel`` the hash of the handshake, 64 bytes, the same on both
    sides and on no other connection.
    """

    gate: Gate
    initiator: bool
    peer_key: bytes
    channel: bytes
    sealer: Cipher
    opener: Cipher


class Greeting:
    """The host's first step. ``data`` is to be sent."""

    def __init__(self, keys: DeviceKeys, nonce: Nonce) -> None:
        self._keys, self._nonce = keys, nonce
        self.data = nonce(GREETING_SIZE)

    def hear(self, knock: bytes, candidates: Candidates) -> "Answer":
        """The answer to a caller's knock (``KNOCK_SIZE`` bytes).

        Raises:
            HandshakeError: it fits no gate, or its Noise message is wrong. Nothing may be sent then.
        """
        label, tag, message = knock[:_LABEL], knock[_LABEL : 2 * _LABEL], knock[2 * _LABEL :]
        gate = self._gate(label, tag, candidates)
        noise = _noise(self._keys, gate, self._nonce, self.data + label + tag, initiator=False)
        try:
            noise.read(_unframed(message, KNOCK_SIZE - 2 * _LABEL))
            return Answer(self._keys, gate, noise)
        except NotAuthentic:
            raise HandshakeError(why="a forged first message") from None

    def _gate(self, label: bytes, tag: bytes, candidates: Candidates) -> Gate:
        for gate in candidates(InviteId(label)):
            fits = gate.invite == label if gate.kind == "guest" else True
            if fits and hmac.compare_digest(gate.tag(self.data, label), tag):
                return gate
        raise HandshakeError(why="it knocked at no gate of ours")


class Answer:
    """The host's second step, made by :meth:`Greeting.hear`. ``data`` is to be sent."""

    def __init__(self, keys: DeviceKeys, gate: Gate, noise: Handshake) -> None:
        self._keys, self._gate, self._noise = keys, gate, noise
        self.data = _framed(noise.write())

    def hear(self, proof: bytes) -> Secured:
        """The finished handshake, after the caller's last message (``PROOF_SIZE`` bytes).

        Raises:
            HandshakeError: it does not hold the keys it claims, or is this very device.
        """
        try:
            self._noise.read(_unframed(proof, PROOF_SIZE))
        except NotAuthentic:
            raise HandshakeError(why="a forged last message") from None
        return _secured(self._keys, self._gate, self._noise, initiator=False)


class Knock:
    """The caller's first step, after the host's greeting (``GREETING_SIZE`` bytes). ``data`` is to be sent."""

    def __init__(self, greeting: bytes, keys: DeviceKeys, gate: Gate, nonce: Nonce) -> None:
        self._keys, self._gate = keys, gate
        label = gate.invite if gate.invite is not None else nonce(_LABEL)
        signed = label + gate.tag(greeting, label)
        self._noise = _noise(keys, gate, nonce, greeting + signed, initiator=True)
        self.data = signed + _framed(self._noise.write())

    def hear(self, answer: bytes) -> "Proof":
        """The last step, after the host's answer (``ANSWER_SIZE`` bytes).

        Raises:
            HandshakeError: the host does not hold the keys it claims, or is this very device.
        """
        try:
            self._noise.read(_unframed(answer, ANSWER_SIZE))
            data = _framed(self._noise.write())
        except NotAuthentic:
            raise HandshakeError(why="a forged answer") from None
        return Proof(data, _secured(self._keys, self._gate, self._noise, initiator=True))


@dataclass(frozen=True)
class Proof:
    """The caller's last step, made by :meth:`Knock.hear`: ``data`` is to be sent, and the channel stands."""

    data: bytes
    secured: Secured


def _noise(keys: DeviceKeys, gate: Gate, nonce: Nonce, seen: bytes, *, initiator: bool) -> Handshake:
    return Handshake(
        initiator=initiator,
        static=KeyPair(keys.transport_seed, keys.transport_public),
        ephemeral=nonce(KEY),
        psks=[gate.psk],
        prologue=b"p2psync/1\0" + seen,
    )


def _secured(keys: DeviceKeys, gate: Gate, noise: Handshake, *, initiator: bool) -> Secured:
    end = noise.split()
    if end.peer_key == keys.transport_public:  # a reflected connection completes otherwise (“selfie”, RFC 9257)
        raise HandshakeError(why="it is this device itself")
    return Secured(gate, initiator, end.peer_key, end.channel, end.sealer, end.opener)


def _framed(message: bytes) -> bytes:
    return len(message).to_bytes(2, "big") + message


def _unframed(data: bytes, size: int) -> bytes:
    if len(data) != size or int.from_bytes(data[:2], "big") != size - 2:
        raise NotAuthentic
    return data[2:]
