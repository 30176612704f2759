"""Bringing versions to the disk: folders first, then files, then what is gone; conflict copies beside their paths.

Every change goes through store/carryout, which looks again before it touches anything, keeps what was there, and is durable when
it returns. What cannot be done now says why, and is tried again.
"""

import os
import time
from collections.abc import Iterable
from dataclasses import dataclass

from p2psync.engine.attention import Attention
from p2psync.engine.heads import Head
from p2psync.engine.reconcile import Agreed, Apply
from p2psync.store import carryout, copies, listings, paths, versions
from p2psync.store.arrivals import Arrivals
from p2psync.store.books import Books
from p2psync.store.chunking import describe
from p2psync.store.copies import Copy
from p2psync.store.faults import DiskFull
from p2psync.store.jobs import Job, Want, Worked
from p2psync.store.locations import Location
from p2psync.store.openfiles import OpenBy
from p2psync.store.paths import PathView
from p2psync.store.root import FolderGone, Root, RootGone
from p2psync.store.scan import seen
from p2psync.store.sources import VAULTED, Sources
from p2psync.store.staging import Sealed, Staging
from p2psync.store.swap import BusyFile, ChangedMeanwhile
from p2psync.values.content import Content, File, Folder, Gone, Listing, Observed, Stamp
from p2psync.values.errors import P2psyncError, UserError
from p2psync.values.names import RelPath, escaped

BUSY_AGAIN = 0.5
"""Seconds until a file that is open in a program is tried again."""
FAULT_AGAIN = 20.0
"""Seconds until a full or forbidden disk is tried again."""

RESERVED_SHARE = 20
RESERVED = 1024 * 1024 * 1024
"""A twentieth of the disk, at most 1 GiB of it, is left free by what arrives."""

EMPTY_AGAIN = 1.0
"""Seconds until a folder that is to give way to a file is looked at again."""

_LAST = 3
"""Deletions come after everything else, so that what moved can still be copied from where it was."""


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

    def apply(self, jobs: Iterable[Job], worked: Worked) -> None:
        """Do what can be done of these jobs, and note it in one transaction."""
        done: list[PathView] = []
        files: dict[Location, list[_Ready]] = {}
        ordered = sorted(jobs, key=_order)
        for job in [job for job in ordered if _order(job)[0] < _LAST]:
            self._try(job, worked, done, files)
        for location, ready in files.items():
            self._put(location, ready, worked, done)
        for job in [job for job in ordered if _order(job)[0] == _LAST]:
            self._try(job, worked, done, files)
        if done:
            with self._books.writing() as db:
                for view in done:
                    paths.put(db, view)

    def _try(self, job: Job, worked: Worked, done: list[PathView], files: "dict[Location, list[_Ready]]") -> None:
        worked.attention[job.path.text] = None
        try:
            result = self._one(job, worked)
        except P2psyncError as e:
            self._failed(job, e, worked)
            return
        if isinstance(result, PathView):
            done.append(result)
        elif result is not None:
            files.setdefault(job.location, []).append(result)

    def _put(self, location: Location, ready: "list[_Ready]", worked: Worked, done: list[PathView]) -> None:
        """Put whole files in their places, all of one attachment together."""
        try:
            outcomes = carryout.put_files(Root(location.root), [one.put for one in ready])
        except P2psyncError as e:
            outcomes = [e] * len(ready)
        for one, outcome in zip(ready, outcomes, strict=True):
            if not isinstance(outcome, BusyFile):  # it waits on, and need not be put together again
                self._arrivals.forget(one.job.path)
            if isinstance(outcome, Stamp):
                observed = seen(outcome, one.state, time.time_ns())
                done.append(PathView(one.job.path, one.job.view.disk, observed, one.agreed))
            else:
                self._failed(one.job, outcome, worked)

    def _failed(self, job: Job, error: P2psyncError, worked: Worked) -> None:
        """Say why a path is not what it is to be, and when it is tried again."""
        match error:
            case BusyFile():
                self._busy(job, error, worked)
            case ChangedMeanwhile():
                worked.look_again.add(job.path)
            case FolderGone():
                worked.todo |= {job.path.parent} if job.path.parent else set()
                worked.again[job.path] = 1.0
            case RootGone():
                worked.attention[job.location.name.text] = self._attention("missing-root", location=job.location.root)
            case UserError():
                facts = {"why": error.facts.get("why", error), "do": error.facts.get("action", "")}
                worked.attention[job.path.text] = self._attention("unwritable", **facts)
                worked.again[job.path] = FAULT_AGAIN
            case _:
                worked.again[job.path] = 1.0

    def _one(self, job: Job, worked: Worked) -> "PathView | _Ready | None":
        """Carry out one job; returns the views that hold now, a file ready to be put in place, or None when nothing changed (yet)."""
        result: PathView | _Ready | None = None
        if isinstance(job.decision, Apply):
            head, agreed = job.decision.head, job.decision.agreed
            if not isinstance(head.state, Gone) and self._collides(job, worked):
                return None
            if isinstance(head.state, File):
                result = self._file(job, head, head.state, agreed, worked)
            elif isinstance(head.state, Folder):
                result = self._folder(job, agreed)
            else:
                result = self._gone(job, agreed, worked)
        self._copies(job, worked)
        return result

    # ---- the three states

    def _file(self, job: Job, head: Head, state: File, agreed: Agreed, worked: Worked) -> "_Ready | None":
        root = Root(job.location.root)
        observed = job.view.observed
        if observed is not None and isinstance(observed.state, Folder):
            if not carryout.remove_folder(root, job.parts):  # what is in it may be about to go
                worked.attention[job.path.text] = self._attention("in-the-way", location=self._shown(job))
                worked.again[job.path] = EMPTY_AGAIN
                return None
            observed = None
        sealed = self._prepare(job.path, root, job.parts, head, state, worked)
        if sealed is None:
            return None
        expected = observed.stamp if observed else None
        return _Ready(job, carryout.Put(job.parts, sealed, expected, self._keeper(job)), state, agreed)

    def _folder(self, job: Job, agreed: Agreed) -> PathView:
        root = Root(job.location.root)
        if job.view.observed is not None and isinstance(job.view.observed.state, File):
            carryout.remove_file(root, job.parts, job.view.observed.stamp, self._keeper(job))
        root.make_folders(job.parts)
        stamp = root.stamp(job.parts)
        if stamp is None or stamp.kind != "folder":
            raise ChangedMeanwhile(path=self._shown(job))
        return PathView(job.path, job.view.disk, Observed(stamp, Folder()), agreed)

    def _gone(self, job: Job, agreed: Agreed, worked: Worked) -> PathView | None:
        observed = job.view.observed
        root = Root(job.location.root)
        if observed is not None and isinstance(observed.state, File):
            carryout.remove_file(root, job.parts, observed.stamp, self._keeper(job))
        elif observed is not None and not carryout.remove_folder(root, job.parts):
            # Something that the others do not know of is in it: the folder stays, and is recorded anew.
            worked.todo.add(job.path)
            return PathView(job.path, job.view.disk, observed, agreed)
        return PathView(job.path, job.view.disk, None, agreed)

    def _collides(self, job: Job, worked: Worked) -> bool:
        """Whether another path that some file system would take for this one has the better right to be here."""
        if job.view.observed is not None:
            return False
        db = self._books.ledger.read()
        other = versions.namesake(db, job.path)
        if other is None:
            return False
        theirs = versions.heads(db, other)
        here = paths.get(db, other)
        if (here is None or here.observed is None) and theirs.all and job.heads.winner.ref < theirs.winner.ref:
            return False
        worked.attention[job.path.text] = self._attention("name-collision", other=other)
        return True

    # ---- getting a content together

    def _prepare(self, path: RelPath, root: Root, parts: tuple[str, ...], head: Head, state: File, worked: Worked) -> Sealed | None:
        """The version of ``head``, whole and beside its place; None when something of it is still to be fetched."""
        entry = versions.entry(self._books.ledger.read(), head.ref)
        mtime = entry.mtime_ns if entry else None
        listing = listings.get(self._books.ledger.read(), state.content)
        if listing is None:
            self._want(path, Want(state.content, None), worked)
            return None
        if state.content.size <= VAULTED:
            return self._prepare_small(path, root, parts, state, listing, mtime, worked)
        sealed = self._arrivals.sealed(path, state.content)
        if sealed is not None:
            return sealed
        self._check_room(root, parts, state.content)
        staging, missing = self._arrivals.staging(path, root, parts, state.content, listing)
        if missing:
            self._want(path, Want(state.content, listing, tuple(missing)), worked)
            return None
        sealed = staging.seal(state.executable, mtime)
        self._arrivals.finished(path, sealed)
        return sealed

    def _check_room(self, root: Root, parts: tuple[str, ...], content: Content) -> None:
        """A large version is not begun when it would fill the disk. Raises: DiskFull."""
        free, whole = root.space(parts[:-1])
        if free - self._arrivals.remaining(content) < min(whole // RESERVED_SHARE, RESERVED):
            raise DiskFull(path=root.shown(parts))

    def _prepare_small(
        self, path: RelPath, root: Root, parts: tuple[str, ...], state: File, listing: Listing, mtime: int | None, worked: Worked
    ) -> Sealed | None:
        missing = self._sources.gather(listing)
        if missing:
            self._arrivals.expect_small(missing)
            self._want(path, Want(state.content, listing, tuple(missing)), worked)
            return None
        with Staging(root, parts[:-1], state.content, listing, name=parts[-1]) as staging:
            chunks = list(listing)
            for index in staging.missing():
                data = self._books.vault.get(chunks[index].digest)
                if data is not None:
                    staging.put(index, data)
            if not staging.complete():  # a chunk of the vault turned out to be damaged
                worked.todo.add(path)
                return None
            return staging.seal(state.executable, mtime)

    def _want(self, path: RelPath, want: Want, worked: Worked) -> None:
        worked.wants[path] = want
        worked.attention[path.text] = self._attention("fetching")

    def _keeper(self, job: Job) -> carryout.Keep:
        """Put what stands at the path into the vault before it goes."""
        content: Content | None = None
        if job.view.observed is not None and isinstance(job.view.observed.state, File):
            content = job.view.observed.state.content

        def keep(fd: int) -> None:
            if content is not None:
                try:
                    self._sources.keep(content, fd)
                except LookupError:
                    raise ChangedMeanwhile(path=self._shown(job)) from None

        return keep

    # ---- conflict copies

    def _copies(self, job: Job, worked: Worked) -> None:
        """Have every other version of a conflict beside its path, and no copy of what is none any more."""
        db = self._books.ledger.read()
        standing = {copy.digest: copy for copy in copies.of_path(db, job.path)}
        wanted = {head.state.content.digest: head for head in job.heads.others if isinstance(head.state, File)}
        for digest, copy in standing.items():
            if digest not in wanted:
                self._drop_copy(job, copy, worked)
        if not wanted:
            return
        people = sorted({self._person(head) for head in job.heads.all if isinstance(head.state, File)})
        for digest, head in wanted.items():
            if digest not in standing:
                self._make_copy(job, head, worked)
        if worked.attention.get(job.path.text) is None:
            worked.attention[job.path.text] = self._attention("conflict", people=" and ".join(people))

    def _make_copy(self, job: Job, head: Head, worked: Worked) -> None:
        assert isinstance(head.state, File)
        root = Root(job.location.root)
        version = versions.version_of(self._books.ledger.read(), head.ref)
        for attempt in range(1, 100):
            name = copies.copy_name(job.parts[-1], self._person(head), version.time_ms, attempt)
            parts = (*job.parts[:-1], name)
            if root.stamp(parts) is None:
                break
        sealed = self._prepare(job.path, root, parts, head, head.state, worked)
        if sealed is None:
            return
        carryout.put_file(root, parts, sealed, None, None)
        with self._books.writing() as db:
            copies.put(db, Copy(head.ref, job.path, parts, head.state.content.digest))

    def _drop_copy(self, job: Job, copy: Copy, worked: Worked) -> None:
        """The conflict is over: take the copy away, unless somebody changed it or it has become a file of its own."""
        root = Root(job.location.root)
        stamp = root.stamp(copy.disk)
        own = None if job.location.single else RelPath.from_disk(job.location.name.text, *copy.disk)
        heir = own if own is not None else RelPath.from_disk(copy.disk[-1])
        with self._books.writing() as db:
            copies.forget(db, copy.ref)
        if any(not isinstance(head.state, Gone) for head in versions.heads(self._books.ledger.read(), heir).all):
            worked.look_again.add(heir)
        elif stamp is not None and not self._remove_copy(root, copy, stamp) and own is not None:
            worked.look_again.add(own)

    def _remove_copy(self, root: Root, copy: Copy, stamp: Stamp) -> bool:
        entry = versions.entry(self._books.ledger.read(), copy.ref)
        if entry is None or entry.content is None:
            return False
        content = entry.content

        def keep(fd: int) -> None:
            if os.fstat(fd).st_size != content.size:
                raise LookupError
            self._sources.keep(content, fd)

        try:
            if not self._still(root, copy, content):
                return False
            carryout.remove_file(root, copy.disk, stamp, keep)
        except (BusyFile, ChangedMeanwhile, LookupError):
            return False
        return True

    def _still(self, root: Root, copy: Copy, content: Content) -> bool:
        fd = root.open_read(copy.disk)
        try:
            return describe(fd, content.size)[0] == content
        finally:
            os.close(fd)

    def _person(self, head: Head) -> str:
        device = versions.version_of(self._books.ledger.read(), head.ref).device
        intro = self._books.roster.intro(device)
        return intro.person if intro else device.hex()[:8]

    # ---- what to say

    def _busy(self, job: Job, busy: BusyFile, worked: Worked) -> None:
        opened = busy.facts["by"]
        assert isinstance(opened, OpenBy)
        who = opened.who
        by = f" by {who}" if who else ""
        if opened.since_ms:
            by += time.strftime(" since %H:%M", time.localtime(opened.since_ms / 1000))
        worked.attention[job.path.text] = Attention("open-here", self._books.now_ms(), {"by": by}, who)
        worked.again[job.path] = BUSY_AGAIN

    def _shown(self, job: Job) -> str:
        return escaped(str(job.location.root.joinpath(*job.parts)))

    def _attention(self, code: str, **facts: object) -> Attention:
        return Attention(code, self._books.now_ms(), facts)


def _order(job: Job) -> tuple[int, int, str]:
    depth = job.path.text.count("/")
    state = job.decision.head.state if isinstance(job.decision, Apply) else None
    if isinstance(state, Gone):
        return _LAST, -depth, job.path.text
    return (0 if isinstance(state, Folder) else 1), depth, job.path.text
