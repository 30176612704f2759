"""One round's work: decide about each path that something happened to, and carry the decisions out.

Recording comes first and in one transaction, so that what a person saved is safe and can be told; then what only has to be
remembered; then the disk, one path at a time, each looked at again before it is touched (store/carryout, store/apply).
"""

import sqlite3
from collections.abc import Iterable
from contextlib import suppress

from p2psync.engine.attention import Attention
from p2psync.engine.heads import Heads
from p2psync.engine.reconcile import Adopt, Agreed, Apply, Missing, Nothing, Record, reconcile
from p2psync.store import copies, paths, versions
from p2psync.store.apply import Applying
from p2psync.store.arrivals import Arrivals
from p2psync.store.books import Books
from p2psync.store.faults import write_fault
from p2psync.store.jobs import Job, Worked
from p2psync.store.locations import Location
from p2psync.store.paths import PathView
from p2psync.store.root import Root, RootGone
from p2psync.store.sources import Sources
from p2psync.store.staging import sweep
from p2psync.values.content import File, Folder, Gone
from p2psync.values.entry import Act, Entry, Op, Ref, entry_for
from p2psync.values.errors import P2psyncError, UserError
from p2psync.values.names import RelPath

PASSES = 8
"""Passes of one round; a path that needs more than a few would be a mistake of ours, and waits for the next round."""


class Work:
    """The hands of one mandate; used by one thread at a time."""

    def __init__(self, books: Books, sources: Sources, arrivals: Arrivals) -> None:
        self._books = books
        self._applying = Applying(books, sources, arrivals)

    def unfinished(self) -> set[RelPath]:
        """The paths whose heads are not what is agreed here: where a start goes on."""
        rows = self._books.ledger.read().execute(
            "SELECT e.path FROM entries e LEFT JOIN paths p ON p.path = e.path WHERE e.head = 1 AND e.attaches = 0"
            " AND (p.agreed_op IS NULL OR p.agreed_op != e.op OR p.agreed_digest IS NOT e.digest OR p.digest IS NOT e.digest)"
        )
        found = {RelPath(row[0]) for row in rows}
        unplaced = set(self._books.attachments()) - set(self._books.locations())
        return found | unplaced | {copy.path for copy in copies.everything(self._books.ledger.read())}

    def sweep(self) -> None:
        """Remove what an earlier run left beside the files: staging files of versions that are not wanted any more."""
        db = self._books.ledger.read()
        wanted = {
            head.state.content.digest for path in self.unfinished() for head in versions.heads(db, path).all if isinstance(head.state, File)
        }
        for location in self._books.locations().values():
            below = paths.below(db, location.name)
            folders = (
                [()]
                if location.single
                else [(), *(view.disk for view in below if view.observed and isinstance(view.observed.state, Folder))]
            )
            for folder in folders:
                with suppress(P2psyncError):
                    sweep(Root(location.root), folder, wanted)

    def work(self, todo: Iterable[RelPath]) -> Worked:
        """Decide about these paths and do what was decided, as far as it can be done now."""
        worked = Worked()
        self._place(worked)
        waiting = set(todo) | worked.todo
        worked.todo = set()
        for _ in range(PASSES):
            if not waiting:
                break
            worked.done |= waiting
            jobs = self._decide(waiting, worked)
            self._applying.apply(jobs, worked)
            waiting, worked.todo = worked.todo, set()
        worked.todo = waiting
        return worked

    # ---- where attachments are

    def _place(self, worked: Worked) -> None:
        """Give each attachment a place on this disk, and let go of what was detached."""
        attached, placed = self._books.attachments(), self._books.locations()
        for name in placed.keys() - attached.keys():
            self._books.unplace(name)
            worked.attention.update({name.text: None})
            worked.placed.add(name)
        for name in attached.keys() - placed.keys():
            try:
                self._make_place(name, attached[name])
            except (UserError, RootGone) as e:
                worked.attention[name.text] = self._attention("unwritable", why=e, do="")
                continue
            worked.placed.add(name)
            worked.todo |= set(versions.live_paths(self._books.ledger.read(), name)) | {name}

    def _make_place(self, name: RelPath, op: Op) -> None:
        db = self._books.ledger.read()
        beside = next((copy for copy in copies.everything(db) if copy.disk[-1:] == (name.text,)), None)
        where = self._books.folder / name.text
        if beside is not None and op == Op.ATTACH_FILE and (owner := self._books.locations().get(RelPath(beside.path.top))):
            where = owner.root.joinpath(*beside.disk)
        try:
            self._books.folder.mkdir(parents=True, exist_ok=True)
            if op == Op.ATTACH_FOLDER:
                where.mkdir(exist_ok=True)
        except OSError as e:
            raise write_fault(e, where) from e
        single = op == Op.ATTACH_FILE
        identity = None if single else Root(where).identity
        self._books.place(Location(name, "file" if single else "folder", where, identity))

    # ---- deciding

    def _decide(self, todo: set[RelPath], worked: Worked) -> list[Job]:
        placed = self._books.locations()
        db = self._books.ledger.read()
        jobs: list[Job] = []
        entries: list[tuple[PathView, Entry]] = []
        adopted: list[PathView] = []
        folds: dict[str, RelPath] = {}
        for path in sorted(todo, key=lambda p: p.text):
            location = placed.get(RelPath(path.top))
            if location is None or not self._is_there(location, worked):
                continue
            view = paths.get(db, path) or PathView(path, self._spell(db, path))
            heads = versions.heads(db, path)
            observed = view.observed.state if view.observed else None
            agreed = view.agreed or self._recognised(db, path, observed)
            decision = reconcile(observed, agreed, heads, single=location.single)
            match decision:
                case Record():
                    self._to_record(view, decision, heads, location, entries, folds, worked)
                case Missing():
                    worked.attention[path.text] = self._attention("missing-file", location=location.path)
                case Adopt(agreed):
                    adopted.append(PathView(path, view.disk, view.observed, agreed))
                    jobs.append(Job(adopted[-1], heads, location, decision))
                case Apply() | Nothing():
                    jobs.append(Job(view, heads, location, decision))
        self._record(entries, adopted, worked)
        return jobs

    def _recognised(self, db: sqlite3.Connection, path: RelPath, observed: File | Folder | None) -> Agreed | None:
        """Where nothing was ever agreed, but an earlier version of this very path stands there: that is what it was made from."""
        if not isinstance(observed, File):
            return None
        ref = versions.superseded(db, path, observed.content)
        return None if ref is None else Agreed(observed, frozenset((ref,)), frozenset((ref,)))

    def _is_there(self, location: Location, worked: Worked) -> bool:
        """Whether the attachment's folder is really there: otherwise nothing is concluded from what is not in it."""
        try:
            root = Root(location.root)
        except (RootGone, UserError):
            worked.attention[location.name.text] = self._attention("missing-root", location=location.root)
            return False
        return location.single or (root.identity == location.identity and location.halted != "root-replaced")

    def _spell(self, db: sqlite3.Connection, path: RelPath) -> tuple[str, ...]:
        parent = path.parent
        if parent is None:
            return ()
        above = paths.get(db, parent)
        return (*(above.disk if above else self._spell(db, parent)), path.name)

    def _to_record(
        self,
        view: PathView,
        decision: Record,
        heads: Heads,
        location: Location,
        entries: list[tuple[PathView, Entry]],
        folds: dict[str, RelPath],
        worked: Worked,
    ) -> None:
        path = view.path
        if not self._books.may_write:
            worked.attention[path.text] = self._attention("reader")
            return
        new = not heads.all or isinstance(heads.winner.state, Gone)
        other = folds.setdefault(path.fold, path)
        if new and not isinstance(decision.state, Gone):
            namesake = versions.namesake(self._books.ledger.read(), path) or (other if other != path else None)
            if namesake is not None:
                worked.attention[path.text] = self._attention("name-collision", other=namesake)
                return
        if location.halted and isinstance(decision.state, Gone):
            return
        mtime = view.observed.stamp.mtime_ns if view.observed and isinstance(decision.state, File) else 0
        act = Act.DELETE if isinstance(decision.state, Gone) else Act.SAVE
        entries.append((view, entry_for(path, decision.state, mtime_ns=max(mtime, 0), parents=decision.parents, act=act)))

    def _record(self, entries: list[tuple[PathView, Entry]], adopted: list[PathView], worked: Worked) -> None:
        """Write the journal and what is agreed in one transaction: the one durable write between a save and its announcement."""
        if not entries and not adopted:
            return
        entries.sort(key=lambda pair: (pair[1].op == Op.GONE, pair[0].path.text))
        views = {entry.path: view for view, entry in entries}
        with self._books.writing() as db:
            for view in adopted:
                paths.put(db, view)
            for record, made in self._books.record([entry for _, entry in entries]):
                worked.records.append(record)
                for index, entry in enumerate(made):
                    view, ref = views[entry.path], Ref(record.id, index)
                    heads = versions.heads(db, entry.path)
                    paths.put(db, PathView(view.path, view.disk, view.observed, Agreed(entry.state, frozenset((ref,)), heads.refs)))
        worked.todo |= {path for path in views if len(versions.heads(self._books.ledger.read(), path).all) > 1}
        for path in views:
            worked.attention[path.text] = None

    def _attention(self, code: str, **facts: object) -> Attention:
        return Attention(code, self._books.now_ms(), facts)
