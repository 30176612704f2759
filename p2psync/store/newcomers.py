"""Small files that are new here, many at once: what is needed to know is asked for all of them together.

Only what is plain is done here: a file of one piece, of which the journal knows one version, at a path where nothing was seen, under
a name that is like no other. Whatever is not is left to store/apply, which looks at each path by itself and does the same.
"""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from p2psync.engine.attention import Attention
from p2psync.engine.heads import Head
from p2psync.engine.ignore import database_of
from p2psync.engine.reconcile import Apply
from p2psync.store import copies, space, versions
from p2psync.store.arrivals import Arrivals
from p2psync.store.books import Books
from p2psync.store.faults import reading, write_fault
from p2psync.store.hindrances import Hindrances
from p2psync.store.jobs import Job, Want, Worked
from p2psync.store.locations import Location
from p2psync.store.preparing import Preparing
from p2psync.store.root import FolderGone, Folders
from p2psync.store.smallfile import write_beside
from p2psync.store.sources import Sources
from p2psync.store.space import Space
from p2psync.store.staging import Sealed
from p2psync.values.content import EMPTY, Chunk, Content, File, Listing
from p2psync.values.digest import Digest
from p2psync.values.errors import P2psyncError
from p2psync.values.names import RecordId, RelPath

_LOT = 8 * 1024 * 1024
"""Bytes of contents that are in memory at a time."""


class _New(NamedTuple):
    """A new file of one piece: its job, its version, what that holds, and its names below the root."""

    job: Job
    head: Head
    content: Content
    parts: tuple[str, ...]

    @property
    def chunk(self) -> Chunk:
        return Chunk(self.content.digest, 0, self.content.size)


class Newcomers:
    """Brings the plain ones among the new files of one mandate beside their places, or has them fetched."""

    def __init__(self, books: Books, sources: Sources, arrivals: Arrivals, preparing: Preparing, hindrances: Hindrances) -> None:
        self._books = books
        self._sources = sources
        self._arrivals = arrivals
        self._preparing = preparing
        self._hindrances = hindrances

    def bring(self, jobs: list[Job], worked: Worked) -> tuple[list[tuple[Job, Sealed]], list[Job]]:
        """The jobs whose version now waits beside its place, and those that are to be looked at one by one; the others are seen to."""
        plain, rest = self._sort_out(jobs)
        found: list[tuple[Job, Sealed]] = []
        by_place: dict[Location, list[_New]] = {}
        for new in plain:
            by_place.setdefault(new.job.location, []).append(new)
        for location, group in by_place.items():
            try:
                root = location.open()
            except P2psyncError:
                rest += [new.job for new in group]
                continue
            with root.folders() as folders:
                for lot in _lots(group):
                    self._bring(folders, lot, found, rest, worked)
        return found, rest

    # ---- what is plain?

    def _sort_out(self, jobs: list[Job]) -> tuple[list[_New], list[Job]]:
        db = self._books.ledger.read()
        likely: list[_New] = []
        rest: list[Job] = []
        for job in jobs:
            new = _looks_plain(job)
            if new is not None and self._preparing.is_small(new.content):
                likely.append(new)
            else:
                rest.append(job)
        around = _folders_around(new.job.path for new in likely)
        alike = {path.text for path in versions.with_namesakes(db, [*(new.job.path for new in likely), *around.values()])}
        beside = self._copies() if likely else set()
        plain: list[_New] = []
        for new in likely:
            is_alike = alike and any(text in alike for text in _way_to(new.job.path.text))
            if is_alike or (beside and new.job.location.root.joinpath(*new.parts) in beside):
                rest.append(new.job)
            else:
                plain.append(new)
        return plain, rest

    def _copies(self) -> set[Path]:
        """Where conflict copies stand."""
        places = self._books.locations()
        found = [(places.get(RelPath(copy.path.top)), copy.disk) for copy in copies.everything(self._books.ledger.read())]
        return {location.root.joinpath(*disk) for location, disk in found if location is not None}

    # ---- from the vault, or from others

    def _bring(self, folders: Folders, lot: list[_New], found: list[tuple[Job, Sealed]], rest: list[Job], worked: Worked) -> None:
        wanted = {new.content.digest for new in lot if new.content.size}
        held = self._books.vault.get_all(wanted)
        here = self._sources.elsewhere(wanted - held.keys())
        nowhere = wanted - held.keys() - here
        lacking = [new for new in lot if new.content.digest in nowhere]
        held |= self._come_early(folders, lacking)
        held[EMPTY.digest] = b""
        around: dict[tuple[str, ...], os.stat_result] = {}
        for new in lot:
            data = held.get(new.content.digest)
            if data is None:
                if new.content.digest not in nowhere:
                    rest.append(new.job)
                continue
            worked.attention[new.job.path.text] = None
            try:
                sealed = self._write(folders, around, new, data)
            except P2psyncError:
                with self._hindrances.telling(new.job, worked):
                    raise
            else:
                if sealed is None:
                    rest.append(new.job)
                else:
                    found.append((new.job, sealed))
        self._fetch(folders, [new for new in lacking if new.content.digest not in held], rest, worked)

    def _come_early(self, folders: Folders, lacking: list[_New]) -> dict[Digest, bytes]:
        """What has come unasked of what is lacking, and is in the vault now."""
        if not lacking or not self._arrivals.early:
            return {}
        try:
            self._check_room(folders, lacking)
            still = self._arrivals.take_early([new.chunk for new in lacking])
        except P2psyncError:
            return {}
        return self._books.vault.get_all({new.content.digest for new in lacking} - {chunk.digest for chunk in still})

    def _write(self, folders: Folders, around: dict[tuple[str, ...], os.stat_result], new: _New, data: bytes) -> Sealed | None:
        """The version beside its place; None when its folder is not there, or it is not what its author announced."""
        above = new.parts[:-1]
        try:
            folder = folders(above)
            if above not in around:
                around[above] = os.fstat(folder)
            return write_beside(folder, around[above], new.parts, new.head, data)
        except FolderGone:
            return None
        except OSError as error:
            raise write_fault(error, folders.root.shown(new.parts)) from error

    def _fetch(self, folders: Folders, lacking: list[_New], rest: list[Job], worked: Worked) -> None:
        """Have what is nowhere here fetched, where there is room for all of it; who finds none has it said for each path."""
        try:
            self._check_room(folders, lacking)
        except P2psyncError:
            rest += [new.job for new in lacking]
            return
        authors: dict[RecordId, Attention] = {}
        self._arrivals.expect_small(new.chunk for new in lacking)
        for new in lacking:
            path, author = new.job.path, new.head.ref.record
            worked.wants.setdefault(path, Want(new.content, Listing.single(new.content), (new.chunk,)))
            if author not in authors:
                authors[author] = self._preparing.fetching(new.head)
            worked.attention[path.text] = authors[author]

    def _check_room(self, folders: Folders, lacking: list[_New]) -> None:
        """Raises: SpaceShort and other errors of a disk."""
        coming: dict[tuple[str, ...], int] = {}
        for new in lacking:
            coming[new.parts[:-1]] = coming.get(new.parts[:-1], 0) + new.content.size
        if coming:
            space.of(self._books.state).check(self._books.state, sum(coming.values()))
        for parts, size in coming.items():
            with reading(folders.root.shown(parts)):
                status = os.fstatvfs(_nearest(folders, parts))
            Space(status.f_bavail * status.f_frsize, status.f_blocks * status.f_frsize).check(folders.root.shown(parts), size)


def _nearest(folders: Folders, parts: tuple[str, ...]) -> int:
    """The folder at ``parts``, or the one in which it is still to be made."""
    try:
        return folders(parts)
    except FolderGone:
        return _nearest(folders, parts[:-1])


def _looks_plain(job: Job) -> _New | None:
    if not isinstance(job.decision, Apply) or job.location.single or job.view.observed is not None or len(job.heads.all) != 1:
        return None
    head, parts = job.decision.head, job.parts
    if not isinstance(head.state, File) or database_of(parts[-1]) is not None:
        return None
    content = head.state.content
    return _New(job, head, content, parts) if content.listing == content.digest else None


def _folders_around(paths: Iterable[RelPath]) -> dict[str, RelPath]:
    """The folders that these paths are in, without the attached ones."""
    found: dict[str, RelPath] = {}
    for path in paths:
        for text in _way_to(path.text.rpartition("/")[0]):
            if text not in found:
                found[text] = RelPath(text)
    return found


def _way_to(text: str) -> Iterator[str]:
    """A path and the folders that it is in, innermost first, without the attached one."""
    while "/" in text:
        yield text
        text = text.rpartition("/")[0]


def _lots(news: Iterable[_New]) -> Iterator[list[_New]]:
    lot: list[_New] = []
    size = 0
    for new in news:
        lot.append(new)
        size += new.content.size
        if size >= _LOT:
            yield lot
            lot, size = [], 0
    if lot:
        yield lot
