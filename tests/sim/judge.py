"""What must hold at every instant on every machine, and once all is quiet; found from the disks and the records, never from the engine.

A breach is an ``AssertionError`` whose text names the invariant of the product's list (I1 …) and the machine.
"""

from __future__ import annotations

import sqlite3
from functools import cache, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from p2psync.engine.ignore import is_by_work
from p2psync.values.digest import content_digest
from p2psync.values.entry import Act, Entry, Op, Ref, entries_of
from p2psync.values.record import Kind, Record
from tests.sim.people import PLAIN_NAMES, SINGLES, Known, People, fold
from tests.sim.real import real

if TYPE_CHECKING:
    from tests.sim.machine import Machine

Tree = dict[str, bytes | None]


class Breach(AssertionError):
    """An invariant does not hold."""


class Judge:
    """Watches one machine's attached files, step by step."""

    def __init__(self, people: People, known: Known) -> None:
        self.people, self.known, self.machine = people, known, people.machine
        self.seen: Tree = {}
        self.by_daemon: set[str] = set()
        self._judged_at = -1
        self._aside: dict[str, bytes] = {}
        self._new_folders: set[str] = set()
        """Folders that the daemon made in its last step: what cannot be made to last is taken away again."""
        self.exempt: set[str] = set()
        """Names of plain files whose last save a power cut or a restored backup may have taken back: nobody can tell what was seen."""

    # ---- what stands there

    def tree(self) -> Tree:
        """The attached files as they stand: names to contents, None for folders; conflict copies and work in progress left out."""
        found: Tree = {}
        for top, place in self.people.look_up().items():
            if str(place) in self.machine.disk.away:  # what people know to be away is not gone
                found |= {name: content for name, content in self.seen.items() if name.split("/")[0] == top}
                continue
            for name, content in self.machine.disk.tree(str(place), top).items():
                if not _is_work(name):
                    found[name] = content
        return found

    def by_people(self) -> None:
        """People did something: what is there now is as they want it."""
        now = self.tree()
        for name in now.keys() | self.seen.keys():
            if now.get(name, self) != self.seen.get(name, self):
                self.by_daemon.discard(name)
        self.seen = now
        self.known.folders |= {name for name, content in now.items() if content is None}

    def after_step(self, step: str) -> None:
        """The daemon did something below its files: whatever changed was its doing."""
        if self._judged_at == self.machine.disk.changes:
            return
        self._judged_at = self.machine.disk.changes
        now = self.tree()
        if (mandate := self.machine.mandate) is not None and mandate.look.seeing.uncopied:
            self.known.only_on_disk |= {content for content in now.values() if content}
        self._check_aside(now, step)
        for name in sorted(now.keys() | self.seen.keys()):
            before, after = self.seen.get(name, self), now.get(name, self)
            if before == after:
                continue
            if isinstance(before, bytes):
                self._taken(name, before, after if isinstance(after, bytes) else None, step)
            elif before is None and after is self and name not in self.known.removed | self._new_folders:
                raise Breach(f"I5 {self.machine.person}: the folder {name} went, which nobody deleted ({step})")
            if isinstance(after, bytes) and after not in self.known.whole:
                raise Breach(f"I1 {self.machine.person}: {name} holds what nobody wrote, {after[:60]!r} ({step})")
            if isinstance(after, bytes) and not self.known.was_put(name, after, casefold=self.machine.disk.traits.casefold):
                raise Breach(f"I9 {self.machine.person}: {name} holds what nobody saved under that name, {after[:60]!r} ({step})")
            self.by_daemon.add(name)
        self._new_folders = {name for name, content in now.items() if content is None and name not in self.seen}
        self.seen = now

    def _taken(self, name: str, before: bytes, after: bytes | None, step: str) -> None:
        if self.people.where(name) in self.people.open:
            raise Breach(f"I6 {self.machine.person}: {name} is open and was touched ({step})")
        if after is None and name not in self.known.removed | self.known.folders:  # a folder takes the place of a file
            raise Breach(f"I5 {self.machine.person}: {name} went, which nobody deleted ({step})")
        if before and not self._is_recorded(before):
            self._aside[name] = before

    def _check_aside(self, now: Tree, step: str) -> None:
        """A save that came while its file was being replaced stands aside for a moment; then it is back, or recorded."""
        for name, content in list(self._aside.items()):
            place = self.people.where(name)
            near = {} if place is None else self.machine.disk.tree(str(place.parent), "")
            if now.get(name) == content or self._is_recorded(content):
                del self._aside[name]
            elif content not in near.values():
                raise Breach(f"I2 {self.machine.person}: {name} was replaced before it was recorded, {content[:60]!r} ({step})")

    def _is_recorded(self, content: bytes) -> bool:
        mandate = self.machine.mandate
        if mandate is None:
            return True  # the end of a life: judged by what is found afterwards
        db = mandate.books.ledger.read()
        try:
            return db.execute("SELECT 1 FROM entries WHERE digest = ?", (content_digest(content),)).fetchone() is not None
        except sqlite3.ProgrammingError:  # closed: the same
            return True

    def after_power_cut(self) -> None:
        """What a program had not made durable may be torn or gone; what the daemon put there may not."""
        now = self.tree()
        self._check_claims(now)
        for name, content in now.items():
            if isinstance(content, bytes) and content not in self.known.whole:
                if name in self.by_daemon:
                    raise Breach(f"I3 {self.machine.person}: after the power cut {name} is torn, {content[:60]!r}")
                self.known.whole.add(content)
                self.known.note_put(self.machine.person, name, content)
        for name in now.keys() | self.seen.keys():
            if now.get(name, self) != self.seen.get(name, self):
                self.exempt.add(name)
                if isinstance(now.get(name), bytes) and name not in self.by_daemon:
                    self.known.note_put(self.machine.person, name, now[name])  # type: ignore[arg-type]
                if name not in now and name not in self.by_daemon:
                    self.known.removed.add(name)
        self.seen = now

    def after_death(self) -> None:
        """The daemon is gone: what it put in place and had no time to note is taken for what people had before."""
        claimed = self._claims()
        for name in PLAIN_NAMES & self.by_daemon:
            content = self.seen.get(name)
            if content is not None and claimed.get(name) != content_digest(content):
                self.exempt.add(name)

    def _check_claims(self, now: Tree) -> None:
        """I3: a plain file that the ledger says to be there is there, whatever else of it was not durable."""
        claimed = self._claims()
        for name in PLAIN_NAMES - self.known.inexact - self.exempt:
            before, after = self.seen.get(name), now.get(name)
            if before and before != after and claimed.get(name) == content_digest(before):
                raise Breach(f"I3 {self.machine.person}: {name} was recorded, and the power cut took it back, {before[:60]!r}")

    def _claims(self) -> dict[str, bytes]:
        """What the ledger of the daemon, which is not running, says to be agreed and to stand there: the digests of files."""
        claimed: dict[str, bytes] = {}
        mandates = self.machine.place / "state" / "mandates"
        for name in real.listdir(mandates):
            db = real.connect(mandates / name / "ledger.db")
            claimed |= db.execute("SELECT path, digest FROM paths WHERE digest = agreed_digest").fetchall()
            db.close()
        return claimed


# ---- what the journals say


def recorded_by_nobody(judges: list[Judge], known: Known) -> None:
    """I5, I12: whatever a machine recorded as saved or deleted was put there or taken away by a person at that machine."""
    for judge in judges:
        mandate = judge.machine.mandate
        assert mandate is not None
        own = bytes(mandate.books.keys.device)
        rows = mandate.books.ledger.read().execute(
            "SELECT e.path, e.op, e.digest, e.act FROM entries e JOIN records r ON r.id = e.record WHERE r.device = ? AND e.attaches = 0",
            (own,),
        )
        put = {(fold(name), content_digest(content)) for name, content in known.put.get(judge.machine.person, set())}
        removed = {fold(name) for name in known.removed}
        for path, op, digest, act in rows.fetchall():
            if act not in (Act.SAVE, Act.DELETE):
                continue
            if op == Op.FILE and (fold(path), digest) not in put:
                whose = next((content for content in known.whole if content_digest(content) == digest), b"?")
                raise Breach(f"I5 {judge.machine.person}: recorded a save of {path} that nobody made there, {_short(whose)!r}")
            if op == Op.GONE and fold(path) not in removed:
                raise Breach(f"I5 {judge.machine.person}: recorded a deletion of {path} that nobody made")


# ---- at the end


def ended(judge: Judge) -> dict[str, frozenset[bytes | None]]:
    """What stands at each path of a machine (None: a folder), and of each conflict the digests of its versions."""
    return {name: frozenset((content,)) for name, content in judge.seen.items()} | {
        f"{path}, in conflict": frozenset(digests) for path, digests in conflicts(judge.machine).items()
    }


def agreement(judges: list[Judge]) -> None:
    """L1: the same files everywhere, the same conflicts, the same journal."""
    first = judges[0]
    for judge in judges:
        judge.seen = judge.tree()
    names = sorted(set().union(*(judge.seen for judge in judges)))
    folds = [fold(name) for name in names]
    alike = {name for name in names if any(fold(part) in folds and folds.count(fold(part)) > 1 for part in _parents(name))}
    for judge in judges:
        for name in alike:  # one of them is shown, and not written where the other stands
            judge.seen.pop(name, None)
        if judge.seen != first.seen:
            differing = {name for name in judge.seen.keys() | first.seen.keys() if judge.seen.get(name, "-") != first.seen.get(name, "-")}
            shown = {name: (_short(judge.seen.get(name, "-")), _short(first.seen.get(name, "-"))) for name in sorted(differing)}
            raise Breach(f"L1 {judge.machine.person} and {first.machine.person} differ in {shown}")
        if conflicts(judge.machine) != conflicts(first.machine):
            raise Breach(
                f"I8 {judge.machine.person}: conflicts {conflicts(judge.machine)}, {first.machine.person}: {conflicts(first.machine)}"
            )


def _short(content: object) -> object:
    return content[:30] if isinstance(content, bytes) else content


@cache
def _is_work(name: str) -> bool:
    return any(is_by_work(part) or " (" in part or part.startswith("~wrd") for part in name.split("/"))


def _parents(name: str) -> list[str]:
    parts = name.split("/")
    return ["/".join(parts[: count + 1]) for count in range(len(parts))]


def conflicts(machine: Machine) -> dict[str, set[bytes]]:
    """Of each path whose heads hold different bytes: their digests; found from all signed records and what they say to supersede."""
    mandate = machine.mandate
    assert mandate is not None
    view = mandate.books.journal.view()
    if view not in _conflicts:
        _conflicts.clear()
        rows = mandate.books.ledger.read().execute("SELECT raw FROM records")
        entries = [said for (raw,) in rows for said in _said(bytes(raw))]
        over = {(parent, entry.path) for _, entry in entries for parent in entry.parents}
        heads: dict[str, set[bytes]] = {}
        for ref, entry in entries:
            if (ref, entry.path) not in over and entry.content is not None:
                heads.setdefault(entry.path.text, set()).add(bytes(entry.content.digest))
        _conflicts[view] = {path: digests for path, digests in heads.items() if len(digests) > 1}
    return _conflicts[view]


_conflicts: dict[bytes, dict[str, set[bytes]]] = {}
"""Those of the journal that was judged last, by what names it."""


@lru_cache(20_000)
def _said(raw: bytes) -> tuple[tuple[Ref, Entry], ...]:
    """What one record says of paths."""
    record = Record.parse(raw)
    entries = entries_of(record.body) if record.kind == Kind.CHANGE else []
    return tuple((Ref(record.id, number), entry) for number, entry in enumerate(entries) if entry is not None and not entry.attaches)


def copies_shown(judges: list[Judge]) -> None:
    """I8: on every machine each version of a conflict stands at the path or beside it."""
    for judge in judges:
        beside = {content_digest(c) for top, place in judge.people.places.items() for c in _all_near(judge, place) if c is not None}
        there = judge.tree()
        folds = {fold(name) for name in there}
        for path, digests in conflicts(judge.machine).items():
            if path not in there and fold(path) in folds:  # another name stands here: this one waits for a person
                continue
            if missing := digests - {bytes(one) for one in beside}:
                raise Breach(f"I8 {judge.machine.person}: {len(missing)} versions of {path} are in conflict and not shown")


def _all_near(judge: Judge, place: Path) -> list[bytes | None]:
    return list(judge.machine.disk.tree(str(place.parent if place.name in SINGLES else place), place.name).values())


def exact_conflicts(judges: list[Judge], known: Known) -> None:
    """I8: a plain file is in conflict exactly when two versions of it were made without knowing of each other, and differ."""
    exempt = known.inexact.union(*(judge.exempt for judge in judges))
    found = conflicts(judges[0].machine)
    for name in sorted(PLAIN_NAMES):
        if name in exempt or name not in known.versions:
            continue
        expected = {bytes(content_digest(leaf)) for leaf in known.leaves(name)}
        shown = found.get(name, set())
        if len(expected) > 1 and shown != expected:
            raise Breach(f"I8 {name}: {len(expected)} versions were made without knowing of each other, {len(shown)} are in conflict")
        if len(expected) == 1 and shown:
            raise Breach(f"I8 {name}: a conflict, though whoever saved last knew of all the others")


def nothing_lost(judges: list[Judge], known: Known) -> None:
    """I2: every version that a journal names can be had from some machine; every current one, where a backup forgot what came after it."""
    excused = {bytes(content_digest(content)) for content in known.only_on_disk}
    for size in (size for digest, size in lost(judges, current=known.is_restored).items() if digest not in excused):
        raise Breach(f"I2 a recorded version of {size} bytes is lost")


def lost(judges: list[Judge], *, current: bool) -> dict[bytes, int]:
    """The versions (only the ``current`` ones) that journals name and that cannot be had from any machine: digests to sizes in bytes."""
    only = " AND head = 1" if current else ""
    digests: dict[bytes, int] = {}
    for judge in judges:
        mandate = judge.machine.mandate
        assert mandate is not None
        rows = mandate.books.ledger.read().execute(f"SELECT DISTINCT digest, size FROM entries WHERE digest IS NOT NULL AND size > 0{only}")
        digests |= {bytes(digest): size for digest, size in rows}
    held = {bytes(content_digest(content)) for judge in judges for content in judge.seen.values() if content}
    return {
        digest: size for digest, size in digests.items() if digest not in held and not any(_has(judge.machine, digest) for judge in judges)
    }


def _has(machine: Machine, digest: bytes) -> bool:
    mandate = machine.mandate
    assert mandate is not None
    db: sqlite3.Connection = mandate.books.ledger.read()
    chunks = [bytes(chunk) for (chunk,) in db.execute("SELECT chunk FROM chunks WHERE content = ?", (digest,))] or [digest]
    return all(mandate.sources.chunk(chunk) is not None for chunk in chunks)  # type: ignore[arg-type]


def answers(status: dict[str, object], person: str) -> None:
    """L2: whatever is not in order says what, why and what to do."""
    for mandate in status["mandates"]:  # type: ignore[attr-defined]
        for attachment in mandate["attachments"]:
            if attachment["state"] not in ("synced", "sending") and not attachment["reason"]:
                raise Breach(f"L2 {person}: {attachment['name']} is {attachment['state']} and nothing says why")


def leftovers(machine: Machine) -> list[Path]:
    """What of our own work stands about among people's files."""
    return [path for path in machine.place.rglob(".p2psync*") if "state" not in path.parts and path.suffix in (".part", ".gone")]
