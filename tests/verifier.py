"""A second reader of journals, written from docs/protocol.md alone: it shares no code and no library with p2psync.

It needs a Python with `cryptography`. ``verify`` goes through the records of one mandate in the order in which somebody kept them and
finds any that was edited, removed or moved to before what it stands on.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

KINDS = range(1, 15)
LAYOUT = [int, bytes, bytes, bytes, int, (bytes, type(None)), list, int, int, list]
"""version, mandate, device, incarnation, seq, prev, deps, time, kind, body"""

Log = tuple[bytes, bytes]


class Fault(Exception):
    """The journal is not what its authors signed."""


@dataclass(frozen=True)
class Seen:
    """One record that is what its author signed."""

    id: bytes
    founds: bytes
    mandate: bytes
    log: Log
    seq: int
    prev: bytes | None
    deps: tuple[bytes, ...]
    time_ms: int
    kind: int
    body: list[Any]


def verify(raws: Sequence[bytes], ends: Mapping[Log, tuple[int, bytes]] | None = None) -> dict[Log, tuple[int, bytes]]:
    """The last (seq, id) of each log. With ``ends``, which another member told or a receipt proves, missing tails are found too."""
    seen: dict[bytes, Seen] = {}
    last: dict[Log, tuple[int, bytes]] = {}
    mandate = None
    for number, raw in enumerate(raws):
        record = read_record(raw)
        if number == 0:
            _require(record.kind == 1 and record.seq == 1 and record.mandate == bytes(32), "the journal does not begin with a genesis")
            mandate = record.founds
        else:
            _require(record.mandate == mandate, "a record of another mandate")
        before = last.get(record.log)
        place = (before[0] + 1, before[1]) if before else (1, None)
        _require((record.seq, record.prev) == place, "a record is missing, doubled or moved in its log")
        _require(all(dep in seen for dep in record.deps), "what a record stands on is missing, or comes later")
        seen[record.id] = record
        last[record.log] = record.seq, record.id
    _require(bool(raws), "an empty journal")
    for log, end in (ends or {}).items():
        _require(last.get(log) == end, "the end of a log is missing")
    return last


def read_record(raw: bytes) -> Seen:
    """One record, its form and its signature checked."""
    _require(len(raw) <= 65536, "a record that is too long")
    outer = read_plain(raw)
    _require(type(outer) is list and [type(part) for part in outer] == [bytes, bytes] and len(outer[1]) == 64, "no record")
    envelope, signature = outer
    fields = read_plain(envelope)
    _require(type(fields) is list and len(fields) == 10, "no envelope")
    _require(
        all(type(part) in (want if type(want) is tuple else (want,)) for part, want in zip(fields, LAYOUT, strict=True)), "no envelope"
    )
    version, mandate, device, incarnation, seq, prev, deps, time_ms, kind, body = fields
    _require(version == 1 and kind in KINDS and seq >= 1 and (prev is None) == (seq == 1), "an envelope that cannot be")
    _require([len(mandate), len(device), len(incarnation), len(prev or bytes(32))] == [32, 32, 8, 32], "a field of another size")
    _require(len(deps) <= 32 and all(type(dep) is bytes and len(dep) == 32 for dep in deps), "wrong dependencies")
    _require(deps == sorted(set(deps)), "dependencies out of order")
    prefix = b"p2psync/1 genesis\0" if kind == 1 else b"p2psync/1 record\0"
    try:
        Ed25519PublicKey.from_public_bytes(device).verify(signature, prefix + envelope)
    except (InvalidSignature, ValueError):
        raise Fault("a wrong signature") from None
    log = device, incarnation
    ids = _hash(envelope, b"p2psync1-record-"), _hash(envelope, b"p2psync1-mandate")
    return Seen(ids[0], ids[1], mandate, log, seq, prev, tuple(deps), time_ms, kind, body)


def read_plain(data: bytes) -> Any:
    """The value that ``data`` encodes in msgpack, if it is the one shortest encoding of that value."""
    value, end = _value(data, 0, 0)
    _require(end == len(data), "bytes after the end")
    return value


def _value(data: bytes, at: int, depth: int) -> tuple[Any, int]:
    _require(at < len(data), "cut short")
    _require(depth <= 10, "nested too deeply")
    first, at = data[at], at + 1
    if first <= 0x7F:
        return first, at
    if 0x90 <= first <= 0x9F:
        return _array(data, at, first & 15, depth)
    if 0xA0 <= first <= 0xBF:
        return _text(data, at, first & 31)
    if first in (0xC0, 0xC2, 0xC3):
        return {0xC0: None, 0xC2: False, 0xC3: True}[first], at
    if 0xC4 <= first <= 0xC6:
        size, at = _number(data, at, 1 << (first - 0xC4), [0, 1 << 8, 1 << 16])
        _require(at + size <= len(data), "cut short")
        return data[at : at + size], at + size
    if 0xCC <= first <= 0xCF:
        return _number(data, at, 1 << (first - 0xCC), [1 << 7, 1 << 8, 1 << 16, 1 << 32])
    if 0xD9 <= first <= 0xDB:
        size, at = _number(data, at, 1 << (first - 0xD9), [32, 1 << 8, 1 << 16])
        return _text(data, at, size)
    if 0xDC <= first <= 0xDD:
        size, at = _number(data, at, 2 << (first - 0xDC), [0, 16, 1 << 16])
        return _array(data, at, size, depth)
    raise Fault("a type that is not used")


def _number(data: bytes, at: int, width: int, least: list[int]) -> tuple[int, int]:
    _require(at + width <= len(data), "cut short")
    number = int.from_bytes(data[at : at + width], "big")
    _require(number >= least[width.bit_length() - 1], "not the shortest form")
    return number, at + width


def _text(data: bytes, at: int, size: int) -> tuple[str, int]:
    _require(at + size <= len(data), "cut short")
    try:
        return data[at : at + size].decode("utf-8"), at + size
    except UnicodeDecodeError:
        raise Fault("text that is not UTF-8") from None


def _array(data: bytes, at: int, size: int, depth: int) -> tuple[list[Any], int]:
    values = []
    for _ in range(size):
        value, at = _value(data, at, depth + 1)
        values.append(value)
    return values, at


def _hash(envelope: bytes, person: bytes) -> bytes:
    return hashlib.blake2b(envelope, digest_size=32, person=person).digest()


def _require(condition: bool, why: str) -> None:
    if not condition:
        raise Fault(why)
