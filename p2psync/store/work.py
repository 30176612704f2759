"""One round's work: decide about each path that something happened to, and carry the decisions out.

Recording comes first and in one transaction, so that what a person saved is safe and can be told; then what only has to be
remembered; then the disk, one path at a time, each looked at again before it is touched (store/carryout, store/apply).
"""

import os
import sqlite3
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from p2psync.engine.attention import Attention
from p2psync.engine.heads import Heads
from p2psync.engine.reconcile import Adopt, Agreed, Apply, Missing, Nothing, Record, reconcile
from p2psync.store import copies, naming, paths, reuniting, sharing, unnoted, versions
from p2psync.store.ahead import ahead_of
from p2psync.store.apply import Applying
from p2psync.store.arrivals import Arrivals
from p2psync.store.books import Books
from p2psync.store.copies import numbered
from p2psync.store.jobs import Job, Worked
from p2psync.store.locations import Location
from p2psync.store.mandatefolder import make_folder
from p2psync.store.naming import Naming
from p2psync.store.paths import PathView
from p2psync.store.root import Root, RootGone
from p2psync.store.setbacks import Setbacks
from p2psync.store.sources import VAULTED, Sources
from p2psync.store.staging import sweep
from p2psync.values.content import File, Gone, State
from p2psync.values.entry import Act, Entry, Op, Ref, entry_for
from p2psync.values.errors import P2psyncError, UserError
from p2psync.values.names import RelPath, fold

PASSES = 8
"""Passes of one round; a path that needs more than a few would be a mistake of ours, and waits for the next round."""


class Work:
    """The hands of one mandate; used by one thread at a time."""

    def __init__(self, books: Books, sources: Sources, arrivals: Arrivals) -> None:
        self._books = books
        self._arrivals = arrivals
        self._sources = sources
        self._applying = Applying(books, sources, arrivals)
        self.setbacks = Setbacks(books)

    def unfinished(self) -> set[RelPath]:
        """The paths of which the three views do not say the same: where a start goes on."""
        db = self._books.ledger.read()
        unplaced = set(self._books.attachments()) - set(self._books.locations())
        return paths.unsettled(db) | unplaced | {copy.path for copy in copies.everything(db)}

    def unsettled(self, name: RelPath) -> set[RelPath]:
        """Those of them at and below the attachment ``name``, which has its place."""
        return paths.unsettled(self._books.ledger.read(), name)

    def sweep(self) -> None:
        """Remove what an earlier run left beside the files: staging files of versions that are not wanted any more."""
        db = self._books.ledger.read()
        states = [head.state for heads in versions.heads_of(db, self.unfinished()).values() for head in heads.all]
        wanted = {state.content.digest for state in states if isinstance(state, File) and state.content.size > VAULTED}
        wanted |= sharing.kept_of(self._books)
        for location in self._books.locations().values():
            with suppress(P2psyncError):
                root = Root(location.root)
                for folder in [()] if location.single else [(), *paths.folders_below(db, location.name)]:
                    with suppress(P2psyncError):
                        sweep(root, folder, wanted)

    def work(self, todo: Iterable[RelPath]) -> Worked:
        """Decide about these paths and do what was decided, as far as it can be done now."""
        worked = Worked()
        todo = set(todo)
        fresh = self._place(worked)
        # What stands at a new place is looked at before anything is brought there.
        later = worked.todo | {path for path in todo if RelPath(path.top) in fresh}
        waiting, worked.todo = todo - later, set()
        for _ in range(PASSES):
            if not waiting:
                break
            worked.done |= waiting
            jobs = self._decide(waiting, worked)
            self._applying.apply(jobs, worked)
            gone = [job.path for job in jobs if not isinstance(job.decision, Nothing) and isinstance(job.heads.winner.state, Gone)]
            worked.todo |= naming.freed(self._books.ledger.read(), gone)
            waiting, worked.todo = worked.todo, set()
        worked.todo = waiting | later
        return worked

    # ---- where attachments are

    def _place(self, worked: Worked) -> set[RelPath]:
        """Give each attachment a place on this disk, and let go of what was detached; returns those that were given one."""
        db = self._books.ledger.read()
        attached, placed = self._books.attachments(), self._books.locations()
        if placed.keys() - attached.keys():
            sharing.finish(self._books, self._sources)
        for name in placed.keys() - attached.keys():
            within = {view.path for view in paths.below(db, name)} | set(versions.live_paths(db, name))
            for path in within:
                self._arrivals.abandon(path)
            worked.done |= within
            self._books.unplace(name)
            worked.attention.update({name.text: None})
            worked.placed.add(name)
        for name in attached.keys() & placed.keys():
            if not _fits(placed[name], attached[name]):
                worked.attention[name.text] = self._attention("two-kinds", location=placed[name].path)
        fresh = set()
        for name in attached.keys() - placed.keys():
            try:
                self._make_place(name, attached[name])
            except (UserError, RootGone) as e:
                worked.attention[name.text] = self._attention("unwritable", why=e.cause, do=e.action)
                continue
            fresh.add(name)
            worked.todo |= set(versions.live_paths(db, name)) | {name}
        worked.placed |= fresh
        return fresh

    def _make_place(self, name: RelPath, op: Op) -> None:
        single = op == Op.ATTACH_FILE
        where = (self._copy_called(name) if single else None) or self._free_place(name, single)
        make_folder(where.parent if single else where)
        self._books.place(Location(name, "file" if single else "folder", where))

    def _copy_called(self, name: RelPath) -> Path | None:
        """Where a conflict copy stands that is becoming a file of its own, under this name."""
        for copy in copies.everything(self._books.ledger.read()):
            owner = self._books.locations().get(RelPath(copy.path.top))
            if owner is not None and owner.single and fold(copy.disk[-1]) == name.fold:
                return owner.root.joinpath(*copy.disk)
        return None

    def _free_place(self, name: RelPath, single: bool) -> Path:
        """The place of this name in the mandate's folder; another one when it is part of another attachment, or something else is there."""
        taken = [os.path.realpath(location.path) for location in self._books.locations().values()]
        where = self._books.folder / name.text
        for number in range(2, 1000):
            real = os.path.realpath(where.parent) + "/" + where.name
            other_kind = where.is_symlink() or (where.is_dir() if single else where.is_file())
            if not other_kind and not any(_overlap(real, other) for other in taken):
                break
            where = self._books.folder / numbered(name.text, number)
        return where

    # ---- deciding

    def _decide(self, todo: set[RelPath], worked: Worked) -> list[Job]:
        places = self._places(todo, worked)
        db = self._books.ledger.read()
        jobs: list[Job] = []
        entries: list[tuple[PathView, Entry]] = []
        adopted: list[PathView] = []
        wanted = [path for path in sorted(todo, key=lambda p: p.text) if path.top in places and places[path.top].covers(path)]
        views, versions_of = paths.get_all(db, wanted), versions.heads_of(db, wanted)
        names = Naming(db, (path for path in wanted if not versions_of[path].all))
        spelled: dict[RelPath, tuple[str, ...]] = {}
        for path in wanted:
            location = places[path.top]
            view = views.get(path) or PathView(path, self._spell(db, path, spelled))
            heads = versions_of[path]
            if location.single:  # it leaves only by a detach, and becomes nothing else
                heads = Heads.of([head for head in heads.all if isinstance(head.state, File)])
            observed = view.observed.state if view.observed else None
            decision = reconcile(observed, self._agreed(db, view, heads), heads, single=location.single)
            match decision:
                case Record():
                    if not self.setbacks.holds(view, location):
                        self._to_record(view, decision, heads, location, entries, names, worked)
                case Missing():
                    worked.attention[path.text] = self._attention("missing-file", location=location.path)
                case Adopt(agreed):
                    adopted.append(PathView(path, view.disk, view.observed, agreed))
                    jobs.append(Job(adopted[-1], heads, location, decision))
                case Apply() | Nothing():
                    jobs.append(Job(view, heads, location, decision))
        self._record(entries, adopted, worked)
        self.setbacks.judge(places.values(), worked)
        return jobs

    def _places(self, todo: set[RelPath], worked: Worked) -> dict[str, Location]:
        """The attachments that these paths are in and that can be worked on here, by name."""
        attached, placed = self._books.attachments(), self._books.locations()
        found = {}
        for name in {RelPath(path.top) for path in todo}:
            location = placed.get(name)
            if location is None or not _fits(location, attached.get(name)):
                continue
            if self._is_there(location):
                found[name.text] = location
            elif location.halted not in ("root-replaced", "root-differs"):
                worked.absent.add(name)  # which says why, and goes on here when it is there again
        return found

    def _is_there(self, location: Location) -> bool:
        """Whether the attachment's folder is really there: otherwise nothing is concluded from what is not in it."""
        try:
            root = Root(location.root)
        except (RootGone, UserError):
            return False
        return location.single or root.identity == location.identity

    def _agreed(self, db: sqlite3.Connection, view: PathView, heads: Heads) -> Agreed | None:
        """What was agreed at a path.

        Where nothing was ever, or what was recorded before a detach has only been taken up again (store/attaching), but an earlier
        version of this very path stands there, that is what it was made from; likewise one that this machine recorded and has forgotten,
        or put in its place and could not note.
        """
        agreed, observed = view.agreed, view.observed
        if observed is None or not isinstance(observed.state, File) or not heads.all or isinstance(heads.winner.state, Gone):
            return agreed
        if agreed is not None and agreed.seen:
            if agreed.state == observed.state:
                return agreed
            ref, content = None, observed.state.content
            if reuniting.has_forgotten(self._books):
                ref = reuniting.forgotten(self._books, view.path, content, agreed.refs)
            if ref is None and not heads.refs <= agreed.seen:
                ref = unnoted.put_here(self._books, view.path, content, agreed.seen)
        else:
            ref = versions.superseded(db, view.path, observed.state.content)
        return agreed if ref is None else Agreed(observed.state, frozenset((ref,)), frozenset((ref,)))

    def _spell(self, db: sqlite3.Connection, path: RelPath, folders: dict[RelPath, tuple[str, ...]]) -> tuple[str, ...]:
        """The names of a path that is new here: those of its nearest known folder as the disk spells them, the rest as they travel."""
        parent = path.parent
        if parent is None:
            return ()
        if parent not in folders:
            above = paths.get(db, parent)
            folders[parent] = above.disk if above else self._spell(db, parent, folders)
        return (*folders[parent], path.name)

    def _to_record(
        self,
        view: PathView,
        decision: Record,
        heads: Heads,
        location: Location,
        entries: list[tuple[PathView, Entry]],
        names: Naming,
        worked: Worked,
    ) -> None:
        path = view.path
        if not self._books.may_write:
            code = "reader-new" if not heads.all or isinstance(heads.winner.state, Gone) else "reader"
            worked.attention[path.text] = self._attention(code, owners=self._books.roster.owners)
            return
        new = not heads.all or isinstance(heads.winner.state, Gone)
        namesake = names.recorded(path) if new and not isinstance(decision.state, Gone) else None
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
            paths.put_all(db, adopted)
            refs: dict[RelPath, tuple[State, Ref]] = {}
            for record, made in self._books.record([entry for _, entry in entries]):
                worked.records.append(record)
                refs |= {entry.path: (entry.state, Ref(record.id, index)) for index, entry in enumerate(made)}
            heads = versions.heads_of(db, views)
            agreed = {path: Agreed(state, frozenset((ref,)), heads[path].refs) for path, (state, ref) in refs.items()}
            paths.put_all(db, (PathView(path, view.disk, view.observed, agreed[path]) for path, view in views.items()))
        with suppress(UserError):  # then it is asked for
            worked.ahead.take(ahead_of(self._books, [entry for _, entry in entries]))
        worked.todo |= naming.freed(self._books.ledger.read(), [entry.path for _, entry in entries if entry.op == Op.GONE])
        worked.todo |= {path for path in views if len(heads[path].all) > 1}
        for path in views:
            worked.attention[path.text] = None

    def _attention(self, code: str, **facts: object) -> Attention:
        return Attention(code, self._books.now_ms(), facts)


def _fits(location: Location, op: Op | None) -> bool:
    """Whether a place is of the kind that the journal says: of a file and a folder attached under one name, one does not count."""
    return location.single == (op == Op.ATTACH_FILE)


def _overlap(one: str, other: str) -> bool:
    """Whether two places are one, or one is in the other, on any file system."""
    one, other = fold(one) + "/", fold(other) + "/"
    return one.startswith(other) or other.startswith(one)
