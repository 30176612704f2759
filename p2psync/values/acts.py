"""What the records of membership say: the bodies of the kinds 1 to 6 (docs/protocol.md, “Records”).

Each body is a frozen value that cannot be wrong: making a bad one raises ``Malformed``, whether it came from a peer or from us. What
only says that it is well formed says nothing about whether its author may say it: engine/rules judges that.

Names in signed bodies are checked only by rules that no Unicode version changes, so that every machine judges a record alike
for ever; ``names.label`` is stricter about names that are given here, and ``names.escaped`` makes any fit to be shown.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, TypeAlias

from nacl.exceptions import CryptoError
from nacl.signing import SigningKey, VerifyKey

from p2psync.values.errors import Malformed
from p2psync.values.names import DeviceId, InviteId, MandateId, RecordId
from p2psync.values.packing import Plain, exactly, fields
from p2psync.values.record import NO_MANDATE, ROOT_INCARNATION, Kind, Record
from p2psync.values.relayed import Relayed

MAX_NAME = 64
"""Bytes of the name of a person, a device or an invitation."""
MAX_MANDATE_NAME = 128
MAX_USES = 20
MAX_CARRIED = 15
"""Records that a join brings along; with the genesis they are the 16 of a ticket."""
APPROVAL = 1
"""The flag of an invitation whose guests an owner must approve. Nobody is admitted by one yet."""


class Role(IntEnum):
    """What a participant may do, each including what stands before it."""

    READER = 0
    EDITOR = 1
    OWNER = 2


@dataclass(frozen=True, slots=True)
class Genesis:
    """The founding of a mandate: its first name, its root key, its first owner and the commitment of its first group secret."""

    name: str
    root: bytes
    owner: DeviceId
    commitment: bytes
    created_ms: int

    def __post_init__(self) -> None:
        said(self.name, MAX_MANDATE_NAME)
        for key in (self.root, self.owner, self.commitment):
            exactly(key, 32)

    def pack(self) -> list[Plain]:
        """The plain array."""
        return [self.name, self.root, self.owner, self.commitment, self.created_ms]

    @classmethod
    def unpack(cls, body: object) -> "Genesis":
        """Reads what ``pack`` makes. Raises: Malformed."""
        return cls(*fields(body, str, bytes, bytes, bytes, int))

    def signed(self, root: SigningKey) -> Record:
        """The genesis record, whose ``founds`` is the id of the mandate."""
        return Record.sign(
            root,
            mandate=NO_MANDATE,
            incarnation=ROOT_INCARNATION,
            seq=1,
            prev=None,
            deps=(),
            time_ms=self.created_ms,
            kind=Kind.GENESIS,
            body=self.pack(),
        )

    @classmethod
    def read(cls, record: Record) -> "Genesis":
        """What a genesis record says, checked to be one.

        Raises:
            Malformed: it is no genesis, or not signed by the root key that it names.
        """
        place = (record.kind, record.mandate, record.incarnation, record.seq, record.deps)
        if place != (Kind.GENESIS, NO_MANDATE, ROOT_INCARNATION, 1, ()):
            raise Malformed(why="no genesis of a mandate")
        genesis = cls.unpack(record.body)
        if genesis.root != record.device:
            raise Malformed(why="a genesis that its root key did not sign")
        return genesis


@dataclass(frozen=True, slots=True)
class DeviceIntro:
    """A device introduces itself: whose it is, what it is called, and its public keys for transport and sealed tickets."""

    person: str
    device_name: str
    transport: bytes
    box: bytes
    platform: str

    def __post_init__(self) -> None:
        said(self.person, MAX_NAME)
        said(self.device_name, MAX_NAME)
        said(self.platform, 16, empty=True)
        exactly(self.transport, 32)
        exactly(self.box, 32)

    def pack(self) -> list[Plain]:
        """The plain array."""
        return [self.person, self.device_name, self.transport, self.box, self.platform]

    @classmethod
    def unpack(cls, body: object) -> "DeviceIntro":
        """Reads what ``pack`` makes. Raises: Malformed."""
        return cls(*fields(body, str, str, bytes, bytes, str))


@dataclass(frozen=True, slots=True)
class Grant:
    """An owner gives a device that has introduced itself a role. Grants only ever raise a role."""

    device: DeviceId
    role: Role

    def __post_init__(self) -> None:
        exactly(self.device, 32)

    def pack(self) -> list[Plain]:
        """The plain array."""
        return [self.device, int(self.role)]

    @classmethod
    def unpack(cls, body: object) -> "Grant":
        """Reads what ``pack`` makes. Raises: Malformed."""
        device, role = fields(body, bytes, int)
        return cls(device, _role(role))


@dataclass(frozen=True, slots=True)
class Invite:
    """An invitation: ``public_key`` lets in ``max_uses`` devices with ``role``, never as owners, until ``not_after_ms``."""

    invite: InviteId
    public_key: bytes
    role: Role
    not_after_ms: int
    max_uses: int
    flags: int
    for_device: DeviceId | None
    label: str

    def __post_init__(self) -> None:
        exactly(self.invite, 16)
        exactly(self.public_key, 32)
        said(self.label, MAX_NAME, empty=True)
        if self.role > Role.EDITOR:
            raise Malformed(why="an invitation to be an owner")
        if not 1 <= self.max_uses <= MAX_USES or self.flags > 255:
            raise Malformed(why="an invitation for too many, or with unknown flags")
        if self.for_device is not None:
            exactly(self.for_device, 32)

    def pack(self) -> list[Plain]:
        """The plain array."""
        facts: list[Plain] = [self.invite, self.public_key, int(self.role), self.not_after_ms, self.max_uses, self.flags]
        return [*facts, self.for_device, self.label]

    @classmethod
    def unpack(cls, body: object) -> "Invite":
        """Reads what ``pack`` makes. Raises: Malformed."""
        invite, key, role, not_after, uses, flags, device, label = fields(body, bytes, bytes, int, int, int, int, (bytes, type(None)), str)
        return cls(invite, key, _role(role), not_after, uses, flags, device, label)


@dataclass(frozen=True, slots=True)
class JoinClaim:
    """A guest claims one use of an invitation.

    ``signature`` is the invitation key's over the mandate and the guest's device record, which the claim stands right behind in the
    guest's log. ``carried`` are the grants down to the issuer and the record of the invitation, as in the ticket: the claim proves
    itself to members who have never heard of the invitation, and depends on no record that they might lack.
    """

    invite: InviteId
    signature: bytes
    carried: tuple[bytes, ...]

    def __post_init__(self) -> None:
        exactly(self.invite, 16)
        exactly(self.signature, 64)
        if not 1 <= len(self.carried) <= MAX_CARRIED:
            raise Malformed(why=f"a join with {len(self.carried)} records")

    @classmethod
    def signed(cls, key: SigningKey, invite: InviteId, mandate: MandateId, device: Record, carried: Sequence[bytes]) -> "JoinClaim":
        """The claim of the guest that introduced itself in the record ``device``; ``key`` is the invitation's."""
        return cls(invite, key.sign(_claimed(mandate, device)).signature, tuple(carried))

    def is_signed_by(self, public_key: bytes, device: Record) -> bool:
        """Whether the invitation with this key let in the guest of the record ``device``."""
        try:
            VerifyKey(public_key).verify(_claimed(device.mandate, device), self.signature)
        except (CryptoError, ValueError, TypeError):
            return False
        return True

    def pack(self) -> list[Plain]:
        """The plain array."""
        return [self.invite, self.signature, list(self.carried)]

    @classmethod
    def unpack(cls, body: object) -> "JoinClaim":
        """Reads what ``pack`` makes. Raises: Malformed."""
        invite, signature, carried = fields(body, bytes, bytes, list)
        return cls(invite, signature, tuple(_bytes(raw) for raw in carried))


@dataclass(frozen=True, slots=True)
class Witness:
    """A member admits a guest: it saw the join, in time or not by its own clock (ms since 1970)."""

    join: RecordId
    time_ms: int

    def __post_init__(self) -> None:
        exactly(self.join, 32)

    def pack(self) -> list[Plain]:
        """The plain array."""
        return [self.join, self.time_ms]

    @classmethod
    def unpack(cls, body: object) -> "Witness":
        """Reads what ``pack`` makes. Raises: Malformed."""
        return cls(*fields(body, bytes, int))


Body: TypeAlias = Genesis | DeviceIntro | Grant | Invite | JoinClaim | Witness | Relayed


def body_of(record: Record) -> Body:
    """What a record says. The entries of a CHANGE are not looked at here (values/entry).

    Raises:
        Malformed: its body does not fit its kind.
    """
    read = _READ.get(record.kind)
    return read(record.body) if read else Relayed.read(record)


def said(text: str, limit: int, *, empty: bool = False) -> str:
    """``text`` as a name in a signed body: at most ``limit`` bytes of UTF-8, no control characters. Raises: Malformed."""
    if not (text or empty) or len(text.encode()) > limit or any(ord(c) < 32 or ord(c) == 127 for c in text):
        raise Malformed(why="a name that is empty, too long or not printable")
    return text


_READ: dict[Kind, Callable[[Sequence[Any]], Body]] = {
    Kind.GENESIS: Genesis.unpack,
    Kind.DEVICE: DeviceIntro.unpack,
    Kind.GRANT: Grant.unpack,
    Kind.INVITE: Invite.unpack,
    Kind.JOIN: JoinClaim.unpack,
    Kind.WITNESS: Witness.unpack,
}


def _claimed(mandate: MandateId, device: Record) -> bytes:
    return b"p2psync/1 join\0" + mandate + device.id


def _role(number: int) -> Role:
    if number not in Role.__members__.values():
        raise Malformed(why="an unknown role")
    return Role(number)


def _bytes(value: object) -> bytes:
    if type(value) is not bytes:
        raise Malformed(why="bytes were expected")
    return value
