"""The record: the signed, chained unit of the journal (docs/protocol.md, “Records”).

    raw      = msgpack([envelope: bin, signature: bin64])
    envelope = msgpack([1, mandate, device, incarnation, seq, prev, deps, time, kind, body])
    id       = BLAKE2b-256(envelope)

A record parses only if its signature is right and its encoding the canonical one. Whether its author may say what it says is
for engine/membership to judge; whether it fits the journal, for store/journal.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

from nacl.exceptions import CryptoError
from nacl.signing import SigningKey, VerifyKey

from p2psync.values.digest import blake2b
from p2psync.values.errors import Malformed
from p2psync.values.names import DeviceId, MandateId, RecordId
from p2psync.values.packing import Plain, exactly, fields, pack, unpack

MAX_RECORD = 64 * 1024
"""Bytes of a whole record."""
MAX_DEPS = 32
MAX_NUMBER = 2**63 - 1
"""The largest sequence number and time: what a database keeps as an integer."""
NO_MANDATE = MandateId(bytes(32))
"""The mandate field of a genesis, which cannot contain its own hash."""
ROOT_INCARNATION = bytes(8)
_VERSION = 1


class Kind(IntEnum):
    """What a record does. The kinds from REVOKE to ROTATE, RECEIPT, RESUME and TEAM travel and are kept; nothing acts on them yet."""

    GENESIS = 1
    DEVICE = 2
    GRANT = 3
    INVITE = 4
    JOIN = 5
    WITNESS = 6
    REVOKE = 7
    WITHDRAW = 8
    APPROVE = 9
    ROTATE = 10
    CHANGE = 11
    RECEIPT = 12
    RESUME = 13
    TEAM = 14


@dataclass(frozen=True, slots=True)
class Record:
    """One signed act of one device.

    ``seq`` counts from 1 in each log (device, incarnation); ``prev`` is the record before it there; ``deps`` are the records of other
    logs that its author knew and nothing else of the journal led to (sorted, at most 32); ``time_ms`` is its author's clock, which
    decides nothing; ``body`` is the plain array that belongs to ``kind``.
    """

    mandate: MandateId
    device: DeviceId
    incarnation: bytes
    seq: int
    prev: RecordId | None
    deps: tuple[RecordId, ...]
    time_ms: int
    kind: Kind
    body: Sequence[Any]
    id: RecordId
    raw: bytes

    @classmethod
    def sign(
        cls,
        key: SigningKey,
        *,
        mandate: MandateId,
        incarnation: bytes,
        seq: int,
        prev: RecordId | None,
        deps: Sequence[RecordId],
        time_ms: int,
        kind: Kind,
        body: Sequence[Plain],
    ) -> "Record":
        """A new record signed with ``key``, whose public half is the device.

        Raises:
            ValueError: it would be larger than a record may be; the caller cuts its body.
        """
        device = bytes(key.verify_key)
        envelope = pack([_VERSION, mandate, device, incarnation, seq, prev, sorted(deps), time_ms, int(kind), body])
        raw = pack([envelope, key.sign(_prefix(kind) + envelope).signature])
        if len(raw) > MAX_RECORD or len(deps) > MAX_DEPS:
            raise ValueError(f"a record of {len(raw)} bytes with {len(deps)} dependencies")
        return cls.parse(raw)

    @classmethod
    def parse(cls, raw: bytes) -> "Record":
        """The record that ``raw`` encodes, its signature verified.

        Raises:
            Malformed: too long, not canonical, an unknown kind, a wrong signature.
        """
        outer = fields(unpack(raw, MAX_RECORD), bytes, bytes)
        envelope, signature = outer[0], exactly(outer[1], 64)
        version, mandate, device, incarnation, seq, prev, deps, time_ms, kind, body = fields(
            unpack(envelope, MAX_RECORD), int, bytes, bytes, bytes, int, (bytes, type(None)), list, int, int, list
        )
        if version != _VERSION or kind not in Kind.__members__.values():
            raise Malformed(why="a record of a kind that this version does not know")
        if not 1 <= seq <= MAX_NUMBER or (prev is None) != (seq == 1) or len(deps) > MAX_DEPS:
            raise Malformed(why="a record that is not chained")
        if time_ms > MAX_NUMBER:
            raise Malformed(why="a time that is none")
        known = [exactly(dep, 32) for dep in deps]
        if sorted(set(known)) != known:
            raise Malformed(why="dependencies out of order")
        _verify(exactly(device, 32), _prefix(kind) + envelope, signature)
        return cls(
            mandate=MandateId(exactly(mandate, 32)),
            device=DeviceId(device),
            incarnation=exactly(incarnation, 8),
            seq=seq,
            prev=None if prev is None else RecordId(exactly(prev, 32)),
            deps=tuple(RecordId(dep) for dep in known),
            time_ms=time_ms,
            kind=Kind(kind),
            body=body,
            id=RecordId(blake2b(envelope, b"p2psync1-record-")),
            raw=raw,
        )

    @property
    def log(self) -> tuple[DeviceId, bytes]:
        """The log that the record is in: (device, incarnation)."""
        return self.device, self.incarnation

    @property
    def founds(self) -> MandateId:
        """The id of the mandate that this genesis founds: a hash of its envelope."""
        envelope: bytes = unpack(self.raw, MAX_RECORD)[0]
        return MandateId(blake2b(envelope, b"p2psync1-mandate"))


def _prefix(kind: int) -> bytes:
    return b"p2psync/1 genesis\0" if kind == Kind.GENESIS else b"p2psync/1 record\0"


def _verify(device: bytes, message: bytes, signature: bytes) -> None:
    try:
        VerifyKey(device).verify(message, signature)
    except (CryptoError, ValueError, TypeError):
        raise Malformed(why="a wrong signature") from None
