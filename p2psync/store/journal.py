"""The journal of one mandate: its records, chained per log, accepted in causal order, kept whole.

A log is (device, incarnation). The vector {log: last record} says what a member has; two members compare theirs and send each other
the missing tails in the order in which they accepted them, which is a causal order. Each record is kept with its causal past, so
that "did its author know that?" is a comparison of numbers.
"""

import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

from nacl.signing import SigningKey

from p2psync.store.ledger import Ledger
from p2psync.values.digest import blake2b
from p2psync.values.errors import PeerError
from p2psync.values.names import DeviceId, MandateId, RecordId
from p2psync.values.packing import Plain, pack, unpack
from p2psync.values.record import MAX_DEPS, MAX_NUMBER, Kind, Record

Log: TypeAlias = tuple[DeviceId, bytes]
Past: TypeAlias = dict[Log, int]
"""For each log, the last record of it that is in the causal past."""

_PAST_LIMIT = 1 << 20


class End(NamedTuple):
    """The last record of a log, and all that it knew (itself included)."""

    seq: int
    id: RecordId
    past: Past


class Forked(PeerError):
    """Two different records claim the same place in one machine's log."""


class Unfit(PeerError):
    """A record does not fit the log that it claims to continue."""


@dataclass(frozen=True)
class Early:
    """A record cannot be judged yet: the record with the id ``needs`` has not arrived."""

    record: Record
    needs: RecordId


class Journal:
    """The records in ``ledger``. ``ends`` mirrors what is committed: change it only through ``appended``."""

    def __init__(self, ledger: Ledger, mandate: MandateId) -> None:
        self.ledger = ledger
        self.mandate = mandate
        self.ends: dict[Log, End] = {}
        self._moves = 0
        self._view: tuple[int, bytes] = (-1, b"")
        self.reload()

    def reload(self) -> None:
        """Read the ends of all logs from the ledger again."""
        rows = self.ledger.read().execute(
            "SELECT device, incarnation, seq, id, past FROM records r"
            " WHERE seq = (SELECT max(seq) FROM records s WHERE s.device = r.device AND s.incarnation = r.incarnation)"
        )
        self.ends = {(DeviceId(d), i): End(seq, RecordId(id_), unpack_past(past)) for d, i, seq, id_, past in rows}
        self._moves += 1

    def knows(self, db: sqlite3.Connection, record: RecordId) -> bool:
        """Whether the record is in the journal."""
        return db.execute("SELECT 1 FROM records WHERE id = ?", (record,)).fetchone() is not None

    def at(self, log: Log, seq: int) -> RecordId | None:
        """The record that stands at this place, or None."""
        query = "SELECT id FROM records WHERE device = ? AND incarnation = ? AND seq = ?"
        row = self.ledger.read().execute(query, (*log, min(seq, MAX_NUMBER))).fetchone()
        return None if row is None else RecordId(row[0])

    def fits(self, db: sqlite3.Connection, record: Record) -> Past | Early | None:
        """The causal past of a record that comes next in its log, itself included; None when it is known already.

        Raises:
            Forked: another record is at its place.
            Unfit: it belongs to another mandate, or continues something else than its log's end.
        """
        if record.mandate != self.mandate and record.kind != Kind.GENESIS:
            raise Unfit()
        at = db.execute("SELECT id FROM records WHERE device = ? AND incarnation = ? AND seq = ?", (*record.log, record.seq)).fetchone()
        if at is not None:
            if at[0] != record.id:
                raise Forked()
            return None
        past: Past = {}
        for needed in [*record.deps, *([record.prev] if record.prev else [])]:
            row = db.execute("SELECT past, device, incarnation, seq FROM records WHERE id = ?", (needed,)).fetchone()
            if row is None:
                return Early(record, needed)
            if needed == record.prev and (DeviceId(row[1]), row[2], row[3] + 1) != (*record.log, record.seq):
                raise Unfit()
            merge(past, unpack_past(row[0]))
        past[record.log] = record.seq
        return past

    def insert(self, db: sqlite3.Connection, record: Record, past: Past) -> None:
        """Write a record that fits. Call ``appended`` once the transaction is through."""
        db.execute(
            "INSERT INTO records (id, device, incarnation, seq, kind, time_ms, past, raw) VALUES (?,?,?,?,?,?,?,?)",
            (record.id, *record.log, record.seq, record.kind, record.time_ms, _pack_past(past), record.raw),
        )

    def appended(self, record: Record, past: Past) -> None:
        """Remember that ``record`` is the end of its log."""
        end = self.ends.get(record.log)
        if end is None or end.seq < record.seq:
            self.ends[record.log] = End(record.seq, record.id, past)
            self._moves += 1

    def compose(
        self, key: SigningKey, incarnation: bytes, kind: Kind, body: Sequence[Plain], time_ms: int, newer: Mapping[Log, End]
    ) -> tuple[Record, Past]:
        """The next record of our own log, not written yet; ``newer`` are the ends of logs that are written and not committed."""
        log = (DeviceId(bytes(key.verify_key)), incarnation)
        ends = {**self.ends, **newer}
        end = ends.get(log)
        past = dict(end.past) if end else {}
        deps = _frontier(ends, log, past)
        for dep in deps:
            merge(past, dep.past)
        seq = end.seq + 1 if end else 1
        past[log] = seq
        record = Record.sign(
            key,
            mandate=self.mandate,
            incarnation=incarnation,
            seq=seq,
            prev=end.id if end else None,
            deps=[dep.id for dep in deps],
            time_ms=time_ms,
            kind=kind,
            body=body,
        )
        return record, past

    def of_kinds(self, *kinds: Kind) -> list[tuple[Record, Past]]:
        """All records of these kinds, in the order of acceptance, each with its past."""
        marks = ",".join("?" * len(kinds))
        rows = self.ledger.read().execute(f"SELECT raw, past FROM records WHERE kind IN ({marks}) ORDER BY n", kinds)
        return [(Record.parse(raw), unpack_past(past)) for raw, past in rows]

    def get(self, record: RecordId) -> Record | None:
        """One record, or None."""
        row = self.ledger.read().execute("SELECT raw FROM records WHERE id = ?", (record,)).fetchone()
        return None if row is None else Record.parse(row[0])

    def tails(self, ranges: dict[Log, tuple[int, int]], limit: int, after: int = 0) -> tuple[list[bytes], int]:
        """The records in these ranges (log → first, last), in causal order, at most ``limit`` bytes; and where to go on (0: done)."""
        db = self.ledger.read()
        starts = [
            db.execute("SELECT n FROM records WHERE device = ? AND incarnation = ? AND seq = ?", (*log, min(first, MAX_NUMBER))).fetchone()
            for log, (first, _) in ranges.items()
        ]
        start = max(after, min((row[0] for row in starts if row), default=0) - 1)
        taken: list[bytes] = []
        for n, device, incarnation, seq, raw in db.execute(
            "SELECT n, device, incarnation, seq, raw FROM records WHERE n > ? ORDER BY n", (start,)
        ):
            first, last = ranges.get((DeviceId(device), incarnation), (1, 0))
            if not first <= seq <= last:
                continue
            limit -= len(raw) + 5
            if taken and limit < 0:
                return taken, after
            taken.append(raw)
            after = n
        return taken, 0

    def view(self) -> bytes:
        """32 bytes that are equal for two members exactly when their journals are."""
        moves = self._moves  # read first: what comes meanwhile, in another thread, makes this one out of date
        known, view = self._view
        if known != moves:
            packed = pack([[*log, end.seq, end.id] for log, end in sorted(self.ends.items())])
            view = blake2b(packed, b"p2psync1-view---")
            self._view = moves, view
        return view


def merge(into: Past, other: Past) -> None:
    """Add to the past ``into`` all that is in ``other``."""
    for log, seq in other.items():
        if into.get(log, 0) < seq:
            into[log] = seq


def past_of(db: sqlite3.Connection, record: RecordId) -> tuple[Log, int, Past]:
    """Where a record that is in the journal stands, and all that its author knew."""
    device, incarnation, seq, past = db.execute("SELECT device, incarnation, seq, past FROM records WHERE id = ?", (record,)).fetchone()
    return (DeviceId(device), incarnation), seq, unpack_past(past)


def _frontier(ends: Mapping[Log, End], log: Log, past: Past) -> list[End]:
    """The ends of other logs that nothing else leads to: what a new record must name to have seen all that we have."""
    news = [(other, end) for other, end in ends.items() if other != log and past.get(other, 0) < end.seq]
    tops = [end for other, end in news if not any(e is not end and e.past.get(other, 0) >= end.seq for _, e in news)]
    # Of too many, those that knew most: they are the likeliest to carry what this record stands on.
    return sorted(tops, key=lambda end: (-sum(end.past.values()), end.id))[:MAX_DEPS]


def _pack_past(past: Past) -> bytes:
    return pack([[*log, seq] for log, seq in sorted(past.items())])


def unpack_past(data: bytes) -> Past:
    """The causal past that the ledger keeps with a record."""
    return {(DeviceId(device), incarnation): seq for device, incarnation, seq in unpack(data, _PAST_LIMIT)}
