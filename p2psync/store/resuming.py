"""A machine that was restored from a backup or copied goes on in a new log, and asks one question.

What it forgot of its own log others may know. To write there again would say two different things at one place, and the others could
take only one of them. So a log is left as soon as it is known that this machine does not know its end: by its witness or by the mark
of another machine when the books are opened (before anything is written), else by the first member that has more, or something else,
in it. What was written meanwhile and nobody has built on is written once more in the new log, with the same parents: both branches
stand, as any two versions that were made without knowing of each other.

A new log begins with a RESUME that names the ends of the older ones. It shows to everybody, until a person has answered on that
machine whether there is one machine or two; the answer is a RESUME too, further on in a log.
"""

import shlex
import sqlite3
from collections.abc import Sequence
from dataclasses import replace

from p2psync.store import copies, keyring, paths, versions
from p2psync.store.books import Books
from p2psync.store.journal import Log, past_of
from p2psync.store.paths import PathView
from p2psync.store.witness import Witness
from p2psync.values.entry import Entry, Ref, entries_of
from p2psync.values.errors import PeerError, UserError
from p2psync.values.names import DeviceId, RecordId, RelPath, escaped
from p2psync.values.packing import Plain
from p2psync.values.record import Kind, Record

_MOST = 64
"""Older logs that a RESUME can name."""


class ThisMachineTwice(UserError):
    """This machine was restored from a backup, or is a copy of another one: it no longer knew all that it had recorded in “{mandate}”.
    Nothing is lost or overwritten; what is recorded here now stands beside it. If no other machine works with a copy of this one's state,
    say so ({command}); if one does, stop p2psync on one of the two, move its state directory away, and subscribe there with a new ticket.
    """


class OtherMachineTwice(UserError):
    """The machine of {machine} was restored from a backup, or exists twice, in “{mandate}”. Nothing of what it recorded is lost or
    overwritten. Ask {machine} to answer the question that p2psync shows there.
    """


# ---- when the books are opened


def recognise(books: Books, witness: Witness | None) -> bool:
    """Leave the own log, if the books are not those that this machine wrote last; whether it was left. Nothing was recorded before."""
    if books.own_log not in books.journal.ends:  # a crash came between the two halves of leaving, or the ledger alone came back
        _use(books, replace(books.secret, incarnation=_last_begun(books)))
    if witness is None:
        return False
    before = books.ledger.get("machine")
    if witness.machine and before != witness.machine:
        books.ledger.put("machine", witness.machine)
    seen = witness.saw(books.mandate, books.keys.device)
    moved = bool(witness.machine) and before not in (None, witness.machine)
    lost = seen is not None and books.journal.at((books.keys.device, seen.incarnation), seen.seq) != seen.id
    return (moved or lost) and bool(leave_log(books))


def _last_begun(books: Books) -> bytes:
    """Of the own logs that the ledger knows, the one that was begun with the others in view."""
    own = [log for log in books.journal.ends if log[0] == books.keys.device]

    def known(log: Log) -> int:
        first = books.journal.at(log, 1)
        past = {} if first is None else past_of(books.ledger.read(), first)[2]
        return sum(other in past for other in own)

    return max(own, key=known)[1] if own else books.secret.incarnation


# ---- leaving a log


def leave_log(books: Books, forked: Record | None = None) -> list[Record]:
    """Go on in a new log; what stands in an own one in the place of ``forked``, and after it, is taken back and said in the new one.

    Returns the new records; none when this machine may say nothing, or has opened too many logs: then all stays as it is, and when it has
    left that log before and nothing can be taken back.
    """
    if books.me is None:
        return []
    old = books.secret
    try:
        with books.writing() as db:
            again = [] if forked is None else _taken_back(books, db, forked)
            if forked is not None and forked.log != books.own_log and not again:
                return []
            ends = _own_ends(books, forked if again else None)
            _use(books, replace(old, incarnation=books.nonce(8)))
            return [books.act(Kind.RESUME, ends), *_say_again(books, db, again)]
    except BaseException as error:
        if books.secret is not old:
            _use(books, old)
        if isinstance(error, PeerError):
            return []
        raise


def _use(books: Books, secret: keyring.MandateSecret) -> None:
    keyring.save_mandate(books.state / "secret", secret)
    books.secret = secret


def _own_ends(books: Books, forked: Record | None) -> list[Plain]:
    """The ends of the own logs, that of the one in use first; of a forked one, the last record before the fork."""
    found: list[tuple[bool, Plain]] = []
    for log, end in books.journal.ends.items():
        if log[0] == books.keys.device:
            seq = forked.seq - 1 if forked is not None and log == forked.log else end.seq
            last = books.journal.at(log, seq)
            assert last is not None
            found.append((log != books.own_log, [log[1], seq, last]))
    return [end for _, end in sorted(found, key=lambda pair: pair[0])][:_MOST]


def _taken_back(books: Books, db: sqlite3.Connection, forked: Record) -> list[Record]:
    """Take the end of an own log out of the journal, unless somebody has built on it."""
    log, first = forked.log, forked.seq
    rows = db.execute("SELECT raw FROM records WHERE device = ? AND incarnation = ? AND seq >= ? ORDER BY seq", (*log, first)).fetchall()
    records = [Record.parse(raw) for (raw,) in rows]
    others = db.execute("SELECT id FROM records WHERE NOT (device = ? AND incarnation = ?)", log).fetchall()
    if first < 2 or any(past_of(db, RecordId(one))[2].get(log, 0) >= first for (one,) in others):
        return []
    versions.take_back(db, records)
    db.execute("DELETE FROM records WHERE device = ? AND incarnation = ? AND seq >= ?", (*log, first))
    books.rewound(log, first - 1)
    return records


def _say_again(books: Books, db: sqlite3.Connection, taken: Sequence[Record]) -> list[Record]:
    """The same acts in the new log; what they were based on is what it was, and the views of this disk follow."""
    renamed: dict[RecordId, RecordId] = {}
    said = []
    for record in taken:
        body = list(record.body)
        entries = entries_of(body) if record.kind == Kind.CHANGE else []
        if entries:
            body = [raw if entry is None else _renamed(entry, renamed).pack() for raw, entry in zip(body, entries, strict=True)]
        new = books.act(record.kind, body)
        renamed[record.id] = new.id
        said.append(new)
        for entry in entries:
            if entry is not None:
                _rename_view(db, entry.path, renamed)
        copies.rename(db, record.id, new.id)
    return said


def _renamed(entry: Entry, renamed: dict[RecordId, RecordId]) -> Entry:
    return replace(entry, parents=tuple(sorted(_refs(entry.parents, renamed))))


def _refs(refs: Sequence[Ref] | frozenset[Ref], renamed: dict[RecordId, RecordId]) -> frozenset[Ref]:
    return frozenset(Ref(renamed.get(ref.record, ref.record), ref.index) for ref in refs)


def _rename_view(db: sqlite3.Connection, path: RelPath, renamed: dict[RecordId, RecordId]) -> None:
    view = paths.get(db, path)
    if view is not None and view.agreed is not None:
        agreed = replace(view.agreed, refs=_refs(view.agreed.refs, renamed), seen=_refs(view.agreed.seen, renamed))
        paths.put(db, PathView(path, view.disk, view.observed, agreed))


# ---- the question and its answer


def open_questions(books: Books) -> dict[DeviceId, str]:
    """The devices that began a log with a RESUME and where nobody has answered since; with the name of the person."""
    found: dict[DeviceId, list[Record]] = {}
    pasts = books.journal.of_kinds(Kind.RESUME)
    answers = [(record, past) for record, past in pasts if record.seq > 1]
    for record, _ in pasts:
        if record.seq == 1 and not any(a.device == record.device and past.get(record.log, 0) >= 1 for a, past in answers):
            found.setdefault(record.device, []).append(record)
    intros = {device: books.roster.intro(device) for device in found}
    return {device: intro.person if intro else device.hex()[:8] for device, intro in intros.items()}


def questions(books: Books) -> list[UserError]:
    """What is to be shown of it on this machine."""
    mandate, command = escaped(books.name), f"p2psync confirm {shlex.quote(books.name)} machine"
    return [
        ThisMachineTwice(mandate=mandate, command=command)
        if device == books.keys.device
        else OtherMachineTwice(machine=escaped(person), mandate=mandate)
        for device, person in open_questions(books).items()
    ]


def answer(books: Books) -> Record:
    """A person says that one machine works with these keys."""
    return books.act(Kind.RESUME, _own_ends(books, None))
