"""Conflict copies: while a path is in conflict, every version but the one at the path stands beside it under a name of its own.

Where a copy is to stand is written down before it is put there, so that after a crash it is known for what it is, and made when it is
missing. When the conflict is over a copy goes, unless somebody has it open, changed it, or it has become a file of its own.
"""

import os

from p2psync.engine.attention import Attention
from p2psync.engine.heads import Head
from p2psync.store import carryout, copies, versions
from p2psync.store.books import Books
from p2psync.store.chunking import describe
from p2psync.store.copies import Copy
from p2psync.store.faults import reading
from p2psync.store.jobs import BUSY_AGAIN, Job, Worked
from p2psync.store.locations import Location
from p2psync.store.preparing import Preparing
from p2psync.store.root import Root
from p2psync.store.sources import Sources
from p2psync.store.staging import discard
from p2psync.store.swap import BusyFile, ChangedMeanwhile
from p2psync.values.content import Content, File, Gone, Stamp
from p2psync.values.digest import Digest
from p2psync.values.errors import BadPath
from p2psync.values.names import RelPath


class Beside:
    """The conflict copies of one mandate on this disk."""

    def __init__(self, books: Books, sources: Sources, preparing: Preparing) -> None:
        self._books = books
        self._sources = sources
        self._preparing = preparing
        self._some = True

    def begin(self) -> None:
        """A pass begins: are there any copies? Hardly ever, and then nothing is asked for each path."""
        self._some = copies.some(self._books.ledger.read())

    def concerns(self, job: Job) -> bool:
        """Whether there is, or is to be, a copy beside this path, as far as can be told at once."""
        return self._some or bool(job.heads.others)

    def clear(self, job: Job, worked: Worked) -> None:
        """Take away the copies of versions that are in conflict no more, or now stand at the path itself."""
        if not self._some:
            return
        wanted = _wanted(job)
        for copy in copies.of_path(self._books.ledger.read(), job.path):
            if copy.digest not in wanted and self._is_done(job, copy, worked):
                with self._books.writing() as db:
                    copies.forget(db, copy.ref)

    def keep_up(self, job: Job, worked: Worked) -> None:
        """Have a copy of every other version of a conflict."""
        wanted = _wanted(job)
        if not wanted:
            return
        known = worked.attention.get(job.path.text)
        if known is None or known.code == "fetching":  # what is still to come changes nothing in what there is to choose
            people = sorted({self._person(head) for head in job.heads.all if isinstance(head.state, File)})
            worked.attention[job.path.text] = Attention("conflict", self._books.now_ms(), {"people": " and ".join(people)})
        standing = {copy.digest: copy for copy in copies.of_path(self._books.ledger.read(), job.path)}
        root = job.location.open()
        for digest, head in wanted.items():
            copy = standing.get(digest)
            if copy is None or root.stamp(copy.disk) is None:
                self._make(job, root, head, copy, worked)

    def make_way(self, job: Job, worked: Worked) -> None:
        """A shared file is to stand where a copy does: the copy goes, and is made anew under another name."""
        if not self._some:
            return
        place = job.location.root.joinpath(*job.parts)
        for copy in copies.everything(self._books.ledger.read()):
            location = self._books.locations().get(RelPath(copy.path.top))
            if location is None or location.root.joinpath(*copy.disk) != place:
                continue
            root = location.open()
            stamp = root.stamp(copy.disk)
            if stamp is not None:
                self._remove(root, copy, stamp)
            with self._books.writing() as db:
                copies.forget(db, copy.ref)
            worked.todo.add(copy.path)

    def _make(self, job: Job, root: Root, head: Head, copy: Copy | None, worked: Worked) -> None:
        assert isinstance(head.state, File)
        parts = copy.disk if copy is not None else self._free_name(job, root, head)
        sealed = self._preparing.version(job.path, root, parts, head, head.state, worked)
        if sealed is None:
            return
        if copy is None:
            self._some = True
            with self._books.writing() as db:
                copies.put(db, Copy(head.ref, job.path, parts, head.state.content.digest))
        try:
            carryout.put_file(root, parts, sealed, None)
        except ChangedMeanwhile:  # something else has taken the name
            discard(root, sealed)
            with self._books.writing() as db:
                copies.forget(db, copy.ref if copy else head.ref)
            worked.todo.add(job.path)

    def _free_name(self, job: Job, root: Root, head: Head) -> tuple[str, ...]:
        version = versions.version_of(self._books.ledger.read(), head.ref)
        taken = {copy.disk for copy in copies.everything(self._books.ledger.read())}
        person = self._person(head)
        for attempt in range(1, 1000):
            parts = (*job.parts[:-1], copies.copy_name(job.parts[-1], person, version.time_ms, attempt))
            if parts not in taken and root.stamp(parts) is None and not self._is_shared(_own(job.location, parts)):
                break
        return parts

    def _is_shared(self, path: RelPath | None) -> bool:
        heads = versions.heads(self._books.ledger.read(), path).all if path is not None else ()
        return any(not isinstance(head.state, Gone) for head in heads)

    # ---- when it is over

    def _is_done(self, job: Job, copy: Copy, worked: Worked) -> bool:
        """Whether nothing is left to do about a copy that is not wanted any more."""
        root = job.location.open()
        stamp = root.stamp(copy.disk)
        own = None if job.location.single else _own(job.location, copy.disk)
        heir = own or RelPath.from_disk(copy.disk[-1])
        heads = versions.heads(self._books.ledger.read(), heir)
        if any(isinstance(head.state, File) and head.state.content.digest == copy.digest for head in heads.all):
            worked.look_again.add(heir)  # it has become a file of its own
        elif stamp is not None:
            try:
                if not self._remove(root, copy, stamp) and own is not None:
                    worked.look_again.add(own)
            except (BusyFile, ChangedMeanwhile):
                worked.again[job.path] = BUSY_AGAIN
                return False
        if heads.all:
            worked.todo.add(heir)
        return True

    def _remove(self, root: Root, copy: Copy, stamp: Stamp) -> bool:
        """Remove a copy; False when it is not what was put there."""
        entry = versions.entry(self._books.ledger.read(), copy.ref)
        content = entry.content if entry else None
        if content is None or stamp.kind != "file" or stamp.size != content.size or not self._holds(root, copy, content):
            return False

        def keep(fd: int) -> None:
            try:
                self._sources.keep(content, fd)
            except LookupError:
                raise ChangedMeanwhile(path=root.shown(copy.disk)) from None

        carryout.remove_file(root, copy.disk, stamp, keep)
        return True

    def _holds(self, root: Root, copy: Copy, content: Content) -> bool:
        try:
            fd = root.open_read(copy.disk)
        except (FileNotFoundError, BlockingIOError):
            raise ChangedMeanwhile(path=root.shown(copy.disk)) from None
        try:
            with reading(root.shown(copy.disk)):
                return describe(fd, content.size)[0] == content
        finally:
            os.close(fd)

    def _person(self, head: Head) -> str:
        device = versions.version_of(self._books.ledger.read(), head.ref).device
        intro = self._books.roster.intro(device)
        return intro.person if intro else device.hex()[:8]


def _own(location: Location, disk: tuple[str, ...]) -> RelPath | None:
    """The path that a file with these names below the root of an attachment would be shared under, if it can be."""
    try:
        return RelPath.from_disk(*disk) if location.single else RelPath.from_disk(location.name.text, *disk)
    except BadPath:
        return None


def _wanted(job: Job) -> dict[Digest, Head]:
    return {head.state.content.digest: head for head in job.heads.others if isinstance(head.state, File)}
