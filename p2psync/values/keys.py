"""Secret keys, which never show themselves: a device's three seeds and what is derived from a mandate's secret.

A device has one key to sign (Ed25519), one for transport (X25519, generated and never converted, see the Noise specification §14)
and one for sealed tickets (X25519).
"""

from dataclasses import dataclass
from functools import cached_property

from nacl.public import PrivateKey
from nacl.signing import SigningKey

from p2psync.values.digest import kdf
from p2psync.values.names import DeviceId, InviteId, MandateId


class Secret(bytes):
    """Bytes that print as “<secret>”, so that no log, exception or debugger line carries them."""

    def __repr__(self) -> str:
        return "<secret>"

    __str__ = __repr__


@dataclass(frozen=True)
class DeviceKeys:
    """The three seeds of a device, 32 bytes each."""

    sign_seed: Secret
    transport_seed: Secret
    box_seed: Secret

    @cached_property
    def signing(self) -> SigningKey:
        """The Ed25519 key that signs records."""
        return SigningKey(bytes(self.sign_seed))

    @cached_property
    def device(self) -> DeviceId:
        """The public name of this device: its Ed25519 key."""
        return DeviceId(bytes(self.signing.verify_key))

    @cached_property
    def transport_public(self) -> bytes:
        """The static X25519 key of the handshake, 32 bytes."""
        return bytes(PrivateKey(bytes(self.transport_seed)).public_key)

    @cached_property
    def box_public(self) -> bytes:
        """The X25519 key that tickets can be sealed to, 32 bytes."""
        return bytes(PrivateKey(bytes(self.box_seed)).public_key)


@dataclass(frozen=True)
class GroupKeys:
    """What the members of a mandate derive from its secret ``K_g`` of one generation; each is 32 bytes."""

    psk: Secret
    announcement: Secret
    hello: Secret
    session: Secret

    @classmethod
    def of(cls, secret: Secret, mandate: MandateId) -> "GroupKeys":
        """The keys of members of ``mandate`` under the group secret ``secret``."""
        contexts = (b"p2psync1-man-psk", b"p2psync1-man-dsc", b"p2psync1-man-hel", b"p2psync1-man-ses")
        return cls(*(Secret(kdf(secret, context, mandate)) for context in contexts))


@dataclass(frozen=True)
class GuestKeys:
    """What both the bearer of a ticket and the members derive for one invitation; each is 32 bytes."""

    psk: Secret
    announcement: Secret
    hello: Secret

    @classmethod
    def of(cls, gate: Secret) -> "GuestKeys":
        """The keys behind the gate key ``P`` that a ticket carries."""
        return cls(*(Secret(kdf(gate, context)) for context in (b"p2psync1-inv-psk", b"p2psync1-inv-dsc", b"p2psync1-inv-hel")))


def gate_key(secret: Secret, mandate: MandateId, invite: InviteId) -> Secret:
    """``P``, the gate key of one invitation: members derive it, the guest finds it in the ticket."""
    return Secret(kdf(secret, b"p2psync1-inv-pre", mandate, invite))


def invitation_key(seed: Secret) -> SigningKey:
    """The Ed25519 key of an invitation, from the seed ``S`` in the ticket."""
    return SigningKey(kdf(seed, b"p2psync1-inv-sig"))


def commitment(secret: Secret, root: bytes, generation: int) -> bytes:
    """What the journal publishes of a group secret, so that a newcomer can tell the right one: 32 bytes."""
    return kdf(secret, b"p2psync1-keycomm", root, generation.to_bytes(4, "big"))
