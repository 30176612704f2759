"""Bodies of records that are kept and relayed while nothing acts on them yet: only their shape is looked at.

They are revocation, withdrawal, approval, rotation, receipt, resumption and the acts of an owner on the mandate as a whole. The body
of a CHANGE is not looked at here: its entries are read where they are used (values/entry).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from p2psync.values.errors import Malformed
from p2psync.values.names import DeviceId
from p2psync.values.packing import exactly, fields
from p2psync.values.record import Kind, Record

_MAX_INCARNATIONS = 64
_MAX_LOGS = 1024


@dataclass(frozen=True, slots=True)
class Relayed:
    """A body whose shape is right. ``subject`` is the device that a revocation is about."""

    kind: Kind
    subject: DeviceId | None = None

    @classmethod
    def read(cls, record: Record) -> "Relayed":
        """The body of a record of one of these kinds. Raises: Malformed."""
        check = _SHAPES.get(record.kind)
        if check:
            check(record.body)
        return cls(record.kind, DeviceId(record.body[0]) if record.kind == Kind.REVOKE else None)


def _revoke(body: Sequence[Any]) -> None:
    device, cuts, _reason = fields(body, bytes, list, int)
    exactly(device, 32)
    for cut in _few(cuts, _MAX_INCARNATIONS):
        incarnation, _seq = fields(cut, bytes, int)
        exactly(incarnation, 8)


def _withdraw(body: Sequence[Any]) -> None:
    exactly(fields(body, bytes)[0], 16)


def _approve(body: Sequence[Any]) -> None:
    exactly(fields(body, bytes, bool)[0], 32)


def _rotate(body: Sequence[Any]) -> None:
    generation, commitment, because = fields(body, int, bytes, (bytes, type(None)))
    exactly(commitment, 32)
    if not 0 < generation < 2**32 or (because is not None and len(because) != 32):
        raise Malformed(why="a rotation without its place")


def _receipt(body: Sequence[Any]) -> None:
    for end in _few(body, _MAX_LOGS):
        device, incarnation, _seq, last = fields(end, bytes, bytes, int, bytes)
        exactly(device, 32)
        exactly(incarnation, 8)
        exactly(last, 32)


def _resume(body: Sequence[Any]) -> None:
    for end in _few(body, _MAX_INCARNATIONS):
        incarnation, _seq, last = fields(end, bytes, int, bytes)
        exactly(incarnation, 8)
        exactly(last, 32)


def _team(body: Sequence[Any]) -> None:
    if any(type(value) is list for value in _few(body, 16)):
        raise Malformed(why="a list in a team record")


def _few(values: Sequence[Any], limit: int) -> Sequence[Any]:
    if not 1 <= len(values) <= limit:
        raise Malformed(why=f"{len(values)} parts where 1 to {limit} are allowed")
    return values


_SHAPES: dict[Kind, Callable[[Sequence[Any]], None]] = {
    Kind.REVOKE: _revoke,
    Kind.WITHDRAW: _withdraw,
    Kind.APPROVE: _approve,
    Kind.ROTATE: _rotate,
    Kind.RECEIPT: _receipt,
    Kind.RESUME: _resume,
    Kind.TEAM: _team,
}
