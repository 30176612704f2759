"""The books of one mandate on this machine: its journal, ledger, vault, members and secret, opened together.

Everything here blocks and may be called from any thread. What is accepted or recorded is durable when the call returns; only then
may it be told to anybody.
"""

import os
import sqlite3
import threading
from collections import deque
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from p2psync.engine.membership import Member, Roster
from p2psync.engine.parking import Parking
from p2psync.engine.rules import Verdict
from p2psync.store import keyring, locations, paths, versions
from p2psync.store.journal import Early, End, Forked, Journal, Log, Past, past_of
from p2psync.store.ledger import Ledger
from p2psync.store.locations import Location
from p2psync.store.vault import Vault
from p2psync.store.witness import Seen, Witness
from p2psync.values.acts import Role
from p2psync.values.entry import MAX_ENTRIES, Entry, Op, entries_of
from p2psync.values.errors import Malformed, PeerError, UserError
from p2psync.values.keys import DeviceKeys
from p2psync.values.names import RecordId, RelPath
from p2psync.values.packing import Plain, pack
from p2psync.values.record import Kind, Record

MAX_LOGS, MAX_LOGS_EACH = 1000, 32
"""Logs of a mandate, and of one device: what one message of heads can name, with room to spare."""
_BODY = 56 * 1024
"""Bytes of entries in one record; the rest of its 64 KiB is for the envelope."""

MEMBERSHIP = (
    Kind.GENESIS,
    Kind.DEVICE,
    Kind.GRANT,
    Kind.INVITE,
    Kind.JOIN,
    Kind.WITNESS,
    Kind.REVOKE,
    Kind.WITHDRAW,
    Kind.APPROVE,
    Kind.ROTATE,
)


class NotTaken(PeerError):
    """A record was left out: {why}."""


class NoRoom(PeerError):
    """A record was left out: {why}."""


class JournalLost(UserError):
    """The journal in {path} is lost, so this machine no longer knows who takes part. Move that folder away and subscribe again with a
    new ticket.
    """


@dataclass
class Accepted:
    """What came of records that arrived.

    ``new`` ones in order and the paths they ``touched``; those that are ``early``; ``alarms``: who sent what no honest machine would have
    passed on, and why it was not taken; ``full``: why honest ones had to be left out; ``forks``; and the ``fault`` that ended the reading.
    """

    new: list[Record] = field(default_factory=list)
    touched: set[RelPath] = field(default_factory=set)
    early: list[Record] = field(default_factory=list)
    alarms: list[tuple[Hashable, str]] = field(default_factory=list)
    full: list[str] = field(default_factory=list)
    forks: list[Record] = field(default_factory=list)
    fault: Malformed | None = None

    @property
    def whole(self) -> bool:
        """Whether all of it was taken, or was known."""
        return not (self.early or self.alarms or self.full or self.forks or self.fault)


@dataclass
class _Pending:
    """What a transaction learnt and is not yet durable."""

    db: sqlite3.Connection
    roster: Roster | None
    made: list[tuple[Record, Past]] = field(default_factory=list)
    ends: dict[Log, End] = field(default_factory=dict)
    rewound: bool = False


class Books:
    """The books kept in the directory ``state``, on behalf of the device ``keys``; ``now_ms`` tells the wall clock, ``nonce`` gives
    random bytes, and the ``witness`` is told how far the own log goes.
    """

    def __init__(
        self,
        state: Path,
        keys: DeviceKeys,
        now_ms: Callable[[], int],
        nonce: Callable[[int], bytes] = os.urandom,
        witness: Witness | None = None,
    ) -> None:
        self.state = state
        self.keys = keys
        self.now_ms = now_ms
        self.nonce = nonce
        self._witness = witness
        self.secret = keyring.load_mandate(state / "secret")
        self.mandate = self.secret.mandate
        self.ledger = Ledger(state / "ledger.db")
        try:
            self.vault = Vault(state / "vault.db")
        except BaseException:
            self.ledger.close()
            raise
        self.journal = Journal(self.ledger, self.mandate)
        self._roster: Roster | None = None
        self.positions: dict[bytes, int] = {}
        self._lock = threading.RLock()
        self._pending: _Pending | None = None
        self._parking: Parking[Hashable] = Parking()
        self._departed: deque[Hashable] = deque()
        self._flooded = self.ledger.get("flooded") is not None
        self._locations: dict[RelPath, Location] | None = None
        self._moved = False
        self._shared = False
        self._reload()

    def _reload(self) -> None:
        for record, past in self.journal.of_kinds(*MEMBERSHIP):
            self._roster = Roster.of(record) if self._roster is None else self._roster.with_record(record, _before(record, past))
        self._mark_position()

    def close(self) -> None:
        """Close the files; nothing may be called any more."""
        self.ledger.close()
        self.vault.close()

    def rest(self) -> None:
        """Let go of what is only kept for speed: nothing is going on."""
        self.ledger.rest()
        self.vault.rest()

    # ---- who and where

    @property
    def roster(self) -> Roster:
        """Who takes part."""
        if self._roster is None:
            raise JournalLost(path=self.state)
        return self._roster

    @property
    def name(self) -> str:
        """The name of the mandate."""
        return self.roster.name

    @property
    def me(self) -> Member | None:
        """This machine's participant, or None while its admission has not arrived."""
        return self.roster.members().get(self.keys.device)

    @property
    def may_write(self) -> bool:
        """Whether this machine's changes count."""
        return self.me is not None and self.me.role >= Role.EDITOR

    @property
    def shared(self) -> bool:
        """Whether the mandate may be found and joined by others."""
        if not self._shared:  # once and for all
            self._shared = self.ledger.get("shared") == b"1"
        return self._shared

    @property
    def folder(self) -> Path:
        """Where attachments of others appear on this machine."""
        return Path((self.ledger.get("folder") or b"").decode())

    def locations(self) -> dict[RelPath, Location]:
        """The attachments that have a place on this disk. Not to be changed: see ``place`` and ``unplace``."""
        if self._locations is None:
            self._locations = locations.get_all(self.ledger.read())
        return self._locations

    def place(self, location: Location) -> None:
        """An attachment has this place on this disk from now on."""
        with self.writing() as db:
            locations.put(db, location)
            self._moved = True

    def unplace(self, name: RelPath) -> None:
        """An attachment has no place on this disk any more, and what was seen there is forgotten."""
        with self.writing() as db:
            locations.forget(db, name)
            paths.forget(db, name)
            self._moved = True

    def attachments(self) -> dict[RelPath, Op]:
        """What the journal says is attached: name → ATTACH_FILE or ATTACH_FOLDER."""
        return versions.attachments(self.ledger.read())

    @property
    def own_log(self) -> Log:
        """The log that this machine writes."""
        return self.keys.device, self.secret.incarnation

    # ---- writing down

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """One transaction over ledger and journal; what was learnt in it is remembered only once it is durable."""
        with self._lock:
            if self._pending is not None:
                yield self._pending.db
                return
            try:
                with self.ledger.write() as db:
                    self._pending = _Pending(db, self._roster)
                    yield db
                self._remember(self._pending)
            finally:
                self._pending = None
                if self._moved:
                    self._moved, self._locations = False, None

    def _remember(self, pending: "_Pending") -> None:
        self._roster = pending.roster
        for record, past in pending.made:
            self.journal.appended(record, past)
        if pending.rewound:
            self._roster = None
            self.journal.reload()
            self._reload()
        elif pending.made:
            self._mark_position()
        if self._witness is not None and any(record.log == self.own_log for record, _ in pending.made):
            end = self.journal.ends[self.own_log]
            self._witness.note(self.mandate, self.keys.device, Seen(self.secret.incarnation, end.seq, end.id))

    def record(self, entries: Sequence[Entry]) -> list[tuple[Record, list[Entry]]]:
        """Sign and keep ``entries`` in as few records as they need; returns each record with its entries."""
        batches = _batches(entries)
        with self.writing():
            return [(self.act(Kind.CHANGE, body, batch), batch) for batch, body in batches]

    def act(self, kind: Kind, body: Sequence[Plain], entries: Sequence[Entry] | None = None) -> Record:
        """Sign and keep one record; ``entries`` are those that its ``body`` says, where they are at hand.

        Raises:
            PeerError: the roster does not let this device say that.
        """
        with self.writing() as db:
            pending = self._pending
            assert pending is not None
            record, past = self.journal.compose(self.keys.signing, self.secret.incarnation, kind, body, self.now_ms(), pending.ends)
            self._insert(db, record, past, pending, entries)
        return record

    def rewound(self, log: Log, seq: int) -> None:
        """From within ``writing``: the records of ``log`` after the one with this number were taken out of the journal."""
        assert self._pending is not None
        row = self._pending.db.execute("SELECT id FROM records WHERE device = ? AND incarnation = ? AND seq = ?", (*log, seq)).fetchone()
        self._pending.ends[log] = End(seq, RecordId(row[0]), past_of(self._pending.db, RecordId(row[0]))[2])
        self._pending.rewound = True

    def accept(self, raws: Iterable[bytes], owner: Hashable = None) -> Accepted:
        """Take records from another member: each is verified, judged and kept, or left out.

        Reading ends at the first that is not well formed (``Accepted.fault``); those before it are kept. What is early is parked in the
        name of ``owner``, if there is one, and taken as soon as what it stands on has come, from whomever.
        """
        found = Accepted()
        records: list[Record] = []
        try:
            records.extend(map(Record.parse, raws))
        except Malformed as e:
            found.fault = e
        with self.writing() as db:
            while self._departed:
                self._parking.left(self._departed.popleft())
            due = deque((record, owner) for record in records)
            while due:
                record, by = due.popleft()
                if self._take(db, record, by, found):
                    due.extend(self._parking.waiting_for(record.id))
        return found

    def left(self, owner: Hashable) -> None:
        """Have what was parked in this name forgotten, with the next records that come. Never waits."""
        self._departed.append(owner)

    def _take(self, db: sqlite3.Connection, record: Record, owner: Hashable, found: Accepted) -> bool:
        """Whether the record is new in the journal now."""
        assert self._pending is not None
        try:
            past = self.journal.fits(db, record)
            if isinstance(past, Early):
                found.early.append(record)
                if owner is not None:
                    self._parking.park(record, past.needs, owner)
            elif past is not None:
                found.touched |= self._insert(db, record, past, self._pending)
                found.new.append(record)
                return True
        except Forked:
            found.forks.append(record)
        except NoRoom as e:
            found.full.append(str(e))
            self._note_flood(db)
        except PeerError as e:
            if self._flooded:  # what was left out may be why this one cannot stand here, and nobody's fault
                found.full.append(str(e))
            else:
                found.alarms.append((owner, str(e)))
        return False

    def _note_flood(self, db: sqlite3.Connection) -> None:
        if not self._flooded:
            self._flooded = True
            db.execute("INSERT OR REPLACE INTO meta VALUES ('flooded', x'31')")

    def _insert(
        self, db: sqlite3.Connection, record: Record, past: Past, pending: "_Pending", entries: Sequence[Entry | None] | None = None
    ) -> set[RelPath]:
        if record.seq == 1:
            self._check_logs(record, pending)
        if pending.roster is None:
            if record.kind != Kind.GENESIS or record.founds != self.mandate:
                raise NotTaken(why="nothing can be judged before the genesis of this mandate")
            pending.roster = Roster.of(record)
        else:
            before = _before(record, past)
            verdict = pending.roster.judge(record, before)
            if not verdict.accepted:
                raise (NoRoom if verdict is Verdict.FULL else NotTaken)(why=verdict.value)
            pending.roster = pending.roster.with_record(record, before)
        if entries is None:
            entries = entries_of(record.body) if record.kind == Kind.CHANGE else []
        self.journal.insert(db, record, past)
        pending.made.append((record, past))
        pending.ends[record.log] = End(record.seq, record.id, past)
        return versions.insert(db, record, past, entries)

    def _check_logs(self, record: Record, pending: "_Pending") -> None:
        """A machine opens a log when it joins or was restored; one that opens them by the hundred means harm. Raises: NoRoom."""
        logs = {*self.journal.ends, *pending.ends}
        if len(logs) >= MAX_LOGS or sum(device == record.device for device, _ in logs) >= MAX_LOGS_EACH:
            raise NoRoom(why="its author, or everybody together, has opened too many logs")

    # ---- how far others are

    def _mark_position(self) -> None:
        """Remember after how many records the journal had the view it has now, to place what others say they hold."""
        self.positions[self.journal.view()] = self._last_n()
        while len(self.positions) > 1000:
            del self.positions[next(iter(self.positions))]

    def _last_n(self) -> int:
        return int(self.ledger.read().execute("SELECT coalesce(max(n), 0) FROM entries").fetchone()[0])

    def knows(self, record: RecordId) -> bool:
        """Whether the journal has this record."""
        return self.journal.knows(self.ledger.read(), record)


def _before(record: Record, past: Past) -> Past:
    """The past of a record without the record itself."""
    return {**past, record.log: record.seq - 1}


def _batches(entries: Sequence[Entry]) -> list[tuple[list[Entry], list[Plain]]]:
    """As many entries together as a record takes, and what is signed of them."""
    batches: list[tuple[list[Entry], list[Plain]]] = []
    size = _BODY
    for entry in entries:
        plain = entry.pack()
        cost = len(pack(plain))
        if size + cost > _BODY or len(batches[-1][0]) == MAX_ENTRIES:
            batches.append(([], []))
            size = 0
        batches[-1][0].append(entry)
        batches[-1][1].append(plain)
        size += cost
    return batches
