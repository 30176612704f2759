"""Bringing versions to the disk: folders first, then files, then what is gone, then files in the place of folders; conflict copies
beside their paths.

Every change goes through store/carryout, which looks again before it touches anything, keeps what was there, and is durable when
it returns. What cannot be done now says why, and is tried again.
"""

import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass

from p2psync.engine.attention import Attention
from p2psync.engine.heads import Head
from p2psync.engine.ignore import database_of
from p2psync.engine.reconcile import Agreed, Apply
from p2psync.store import carryout, naming, newfolders, paths, sqlitefile, versions
from p2psync.store.arrivals import Arrivals
from p2psync.store.beside import Beside
from p2psync.store.books import Books
from p2psync.store.chunking import describe
from p2psync.store.faults import reading
from p2psync.store.hindrances import EMPTY_AGAIN, Hindrances, NotAsSeen
from p2psync.store.jobs import Job, Worked
from p2psync.store.keptfiles import kept_name
from p2psync.store.locations import Location
from p2psync.store.newcomers import Newcomers
from p2psync.store.paths import PathView
from p2psync.store.preparing import Preparing
from p2psync.store.renaming import swaps
from p2psync.store.root import FolderGone, NameTaken, Parts, Root
from p2psync.store.scan import Fresh, seen
from p2psync.store.sharing import kept_of
from p2psync.store.snapshots import Snapshots
from p2psync.store.sources import VAULTED, Sources
from p2psync.store.staging import Sealed, discard, sweep
from p2psync.store.swap import BusyFile, ChangedMeanwhile
from p2psync.values.content import Content, File, Folder, Gone, Observed, Stamp
from p2psync.values.entry import Ref
from p2psync.values.errors import P2psyncError
from p2psync.values.names import RelPath, escaped


@dataclass(frozen=True)
class _Ready:
    """A file whose new version waits beside it."""

    job: Job
    put: carryout.Put
    state: File
    agreed: Agreed


class Applying:
    """Carries out the jobs of one mandate."""

    def __init__(self, books: Books, sources: Sources, arrivals: Arrivals) -> None:
        self._books = books
        self._sources = sources
        self._arrivals = arrivals
        self._preparing = Preparing(books, sources, arrivals)
        self._snapshots = Snapshots(books.state)
        self._beside = Beside(books, sources, self._preparing)
        self._hindrances = Hindrances(books)
        self._made: dict[Location, tuple[list[Job], list[Parts], list[Parts]]] = {}
        """The jobs that make folders, those that they made, and those that they found there."""
        self._newcomers = Newcomers(books, sources, arrivals, self._preparing, self._hindrances)

    def apply(self, jobs: Iterable[Job], worked: Worked) -> None:
        """Do what can be done of these jobs, and note it in one transaction."""
        self._beside.begin()
        done: list[PathView] = []
        phases: dict[int, list[Job]] = {}
        for job in sorted(jobs, key=_order):
            phases.setdefault(_phase(job), []).append(job)
        for phase in sorted(phases):
            ready: dict[Location, list[_Ready]] = {}
            for job in self._all_at_once(phases[phase], worked, done, ready):
                self._try(job, worked, done, ready)
            for location, files in ready.items():
                self._put(location, files, worked, done)
        if done:
            with self._books.writing() as db:
                paths.put_all(db, done)

    def _all_at_once(self, jobs: list[Job], worked: Worked, done: list[PathView], ready: "dict[Location, list[_Ready]]") -> Iterable[Job]:
        """See to the folders, and to all new files together; returns the jobs that are left to be tried one by one."""
        files = [job for job in jobs if not _makes_folder(job)]
        self._make_folders(list(filter(_makes_folder, jobs)), worked, done, ready)
        found, rest = self._newcomers.bring(files, worked)
        for job, sealed in found:
            assert isinstance(job.decision, Apply) and isinstance(job.decision.head.state, File)
            put = carryout.Put(job.parts, sealed)
            ready.setdefault(job.location, []).append(_Ready(job, put, job.decision.head.state, job.decision.agreed))
        return rest

    def _make_folders(self, jobs: list[Job], worked: Worked, done: list[PathView], ready: "dict[Location, list[_Ready]]") -> None:
        """See to the folders, and make those that are new durable together, before anything is put into them."""
        self._made.clear()
        for job in jobs:
            self._try(job, worked, done, ready)
        for location, (makers, made, found) in self._made.items():
            try:
                newfolders.keep_folders(location.open(), made, found)
            except P2psyncError:
                undone = {job.path for job in makers}
                done[:] = [view for view in done if view.path not in undone]
                for job in makers:
                    with self._hindrances.telling(job, worked):
                        raise

    def _try(self, job: Job, worked: Worked, done: list[PathView], ready: "dict[Location, list[_Ready]]") -> None:
        """Carry out one job; what only has to be put in its place is left to be put there together with others."""
        worked.attention[job.path.text] = None
        if not isinstance(job.decision, Apply) and not self._beside.concerns(job):
            self._arrivals.abandon(job.path)
            return
        with self._hindrances.telling(job, worked):
            self._beside.clear(job, worked)
        result = None
        with self._hindrances.telling(job, worked):
            result = self._one(job, worked)
        if isinstance(result, PathView):
            done.append(result)
        elif result is not None:
            ready.setdefault(job.location, []).append(result)
        with self._hindrances.telling(job, worked):
            self._beside.keep_up(job, worked)
        if not (isinstance(result, _Ready) or job.path in worked.wants or job.path in worked.again or job.path in worked.look_again):
            self._arrivals.abandon(job.path)

    def _put(self, location: Location, ready: "list[_Ready]", worked: Worked, done: list[PathView]) -> None:
        """Put whole files in their places, all of one attachment together."""
        try:
            outcomes = carryout.put_files(location.open(), [one.put for one in ready])
        except P2psyncError as e:
            outcomes = [e] * len(ready)
        for one, outcome in zip(ready, outcomes, strict=True):
            if not isinstance(outcome, BusyFile):  # it waits on, and need not be put together again
                self._arrivals.forget(one.job.path)
            if isinstance(outcome, Stamp):
                observed = seen(outcome, one.state, time.time_ns())
                done.append(PathView(one.job.path, one.job.view.disk, observed, one.agreed))
                continue
            with self._hindrances.telling(one.job, worked):
                if isinstance(outcome, ChangedMeanwhile) or one.state.content.size <= VAULTED:
                    discard(location.open(), one.put.sealed)
                raise outcome

    # ---- the three states

    def _one(self, job: Job, worked: Worked) -> "PathView | _Ready | None":
        """Carry out one job; returns the view that holds now, a file ready to be put in place, or None when nothing changed (yet)."""
        if not isinstance(job.decision, Apply):
            return None
        head, agreed = job.decision.head, job.decision.agreed
        if not isinstance(head.state, Gone) and job.view.observed is None:
            other = naming.applied(self._books.ledger.read(), job.path)
            if other is not None:
                worked.attention[job.path.text] = self._attention("name-collision", other=other)
                return None
            self._beside.make_way(job, worked)
        self._free_database(job)
        if isinstance(head.state, File):
            return self._file(job, head, head.state, agreed, worked)
        return self._folder(job, agreed) if isinstance(head.state, Folder) else self._gone(job, agreed, worked)

    def _free_database(self, job: Job) -> None:
        """See to it that what is brought to a path destroys no database, and is not destroyed by what one has left behind."""
        root, parts, observed = job.location.open(), job.parts, job.view.observed
        with suppress(FolderGone):
            with root.dir_fd(parts[:-1]) as folder:
                if sqlitefile.belongs(folder, parts[-1]):
                    raise NameTaken(path=root.shown((*parts[:-1], database_of(parts[-1]) or "")))
            if observed is not None and isinstance(observed.state, File):
                with reading(root.shown(parts)):
                    finished = self._snapshots.finish(root, parts, observed.state.content)
                if finished:
                    raise ChangedMeanwhile(path=root.shown(parts))

    def _file(self, job: Job, head: Head, state: File, agreed: Agreed, worked: Worked) -> "_Ready | PathView | None":
        root = job.location.open()
        observed = job.view.observed
        sealed = self._prepare(job, root, head, state, worked)
        if sealed is None:
            return None
        if observed is not None and isinstance(observed.state, Folder):
            if not self._remove_folder(root, job.parts):
                if state.content.size <= VAULTED:  # it is put together again when it is needed
                    discard(root, sealed)
                why = self._attention("in-the-way", location=self._shown(job))
                return self._outlive(job, job.view.agreed.refs if job.view.agreed else frozenset(), why, worked)
            observed = None
        expected = observed.stamp if observed else None
        aside = self._aside(root, observed, state)
        keeper = self._keeper(job, state.content if aside else None)
        return _Ready(job, carryout.Put(job.parts, sealed, expected, keeper, aside), state, agreed)

    def _aside(self, root: Root, old: Observed | None, new: File) -> str | None:
        """The name under which the old file stays until the vault has it; None when it has to be there first."""
        if old is None or not isinstance(old.state, File) or min(old.state.content.size, new.content.size) <= VAULTED:
            return None
        with root.dir_fd(()) as top:
            return kept_name(old.state.content.digest) if swaps(top) else None

    def _prepare(self, job: Job, root: Root, head: Head, state: File, worked: Worked) -> Sealed | None:
        try:
            return self._preparing.version(job.path, root, job.parts, head, state, worked)
        except FolderGone:  # deleted by somebody who did not know of this file, which outlives it
            newfolders.make_folders(root, job.parts[:-1])
            worked.look_again |= set(_folders_of(job.path))
            return self._preparing.version(job.path, root, job.parts, head, state, worked)

    def _folder(self, job: Job, agreed: Agreed) -> PathView:
        root = job.location.open()
        if job.view.observed is not None and isinstance(job.view.observed.state, File):
            carryout.remove_file(root, job.parts, job.view.observed.stamp, self._keeper(job))
        makers, made, found = self._made.setdefault(job.location, ([], [], []))
        made += (new := newfolders.begin_folders(root, job.parts))
        found += [] if new else [job.parts]
        makers.append(job)
        stamp = root.stamp(job.parts)
        if stamp is None or stamp.kind != "folder":
            raise ChangedMeanwhile(path=self._shown(job))
        return PathView(job.path, job.view.disk, Observed(stamp, Folder()), agreed)

    def _gone(self, job: Job, agreed: Agreed, worked: Worked) -> PathView | None:
        observed = job.view.observed
        root = job.location.open()
        if observed is not None and isinstance(observed.state, File):
            carryout.remove_file(root, job.parts, observed.stamp, self._keeper(job))
        elif observed is not None and not self._remove_folder(root, job.parts):
            return self._outlive(job, agreed.refs, self._attention("left-over", location=self._shown(job)), worked)
        return PathView(job.path, job.view.disk, None, agreed)

    def _remove_folder(self, root: Root, parts: tuple[str, ...]) -> bool:
        """Remove a folder in which nothing stands but what we may have left there."""
        if carryout.remove_folder(root, parts):
            return True
        return sweep(root, parts, kept_of(self._books)) > 0 and carryout.remove_folder(root, parts)

    def _outlive(self, job: Job, parents: frozenset[Ref], why: Attention, worked: Worked) -> PathView | None:
        """A folder cannot go: when shared files are in it that whoever decided so did not know of, it is recorded anew (as if nothing
        were agreed but ``parents``); when anything else is in it, it stays until that is gone.
        """
        if any(path != job.path for path in versions.live_paths(self._books.ledger.read(), job.path)):
            worked.todo.add(job.path)
            return PathView(job.path, job.view.disk, job.view.observed, Agreed(Gone(), parents, job.heads.refs))
        worked.attention[job.path.text] = why
        worked.again[job.path] = EMPTY_AGAIN
        return None

    def _keeper(self, job: Job, new: Content | None = None) -> carryout.Keep:
        """Put what stands at the path into the vault before it goes, but for what it shares with ``new``, if it stays on the disk so long.

        Where its stamp proves nothing yet, it is read again first.
        """
        observed = job.view.observed
        content: Content | None = None
        if observed is not None and isinstance(observed.state, File):
            content = observed.state.content

        def keep(fd: int) -> None:
            if content is not None:
                try:
                    if isinstance(observed, Fresh) and describe(fd, content.size)[0] != content:
                        raise LookupError
                    self._sources.keep(content, fd, new)
                except LookupError:
                    raise NotAsSeen(path=self._shown(job)) from None

        return keep

    # ---- details

    def _shown(self, job: Job) -> str:
        return escaped(str(job.location.root.joinpath(*job.parts)))

    def _attention(self, code: str, **facts: object) -> Attention:
        return Attention(code, self._books.now_ms(), facts)


def _makes_folder(job: Job) -> bool:
    return isinstance(job.decision, Apply) and isinstance(job.decision.head.state, Folder)


def _phase(job: Job) -> int:
    """Deletions come late, so that what moved can still be copied from where it was; a file in place of a folder comes after them."""
    state = job.decision.head.state if isinstance(job.decision, Apply) else None
    if isinstance(state, Gone):
        return 1
    observed = job.view.observed
    return 2 if isinstance(state, File) and observed is not None and isinstance(observed.state, Folder) else 0


def _order(job: Job) -> tuple[int, int, str]:
    """Folders before files, what is above before what is below; deletions the other way round."""
    depth = job.path.text.count("/")
    state = job.decision.head.state if isinstance(job.decision, Apply) else None
    if isinstance(state, Gone):
        return 0, -depth, job.path.text
    return (0 if isinstance(state, Folder) else 1), depth, job.path.text


def _folders_of(path: RelPath) -> Iterator[RelPath]:
    """The folders inside the attachment that ``path`` is in."""
    above = path.parent
    while above is not None and above.parent is not None:
        yield above
        above = above.parent
