"""Small files that are new here, many at once: what is needed to know is asked for all of them together.

Only what is plain is done here: a file of one piece, of which the journal knows one version, at a path where nothing was seen, under
a name that is like no other. Whatever is not is left to store/apply, which looks at each path by itself and does the same.
"""

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

from p2psync.engine.attention import Attention
from p2psync.engine.heads import Head
from p2psync.engine.ignore import database_of
from p2psync.engine.reconcile import Apply
from p2psync.store import copies, space, versions
from p2psync.store.arrivals import Arrivals
from p2psync.store.books import Books
from p2psync.store.faults import reading
from p2psync.store.jobs import Job, Want, Worked
from p2psync.store.locations import Location
from p2psync.store.preparing import Preparing
from p2psync.store.root import FolderGone, Folders
from p2psync.store.smallfile import write_beside
from p2psync.store.sources import Sources
from p2psync.store.space import Space
from p2psync.store.staging import Sealed
from p2psync.values.content import Chunk, Content, File, Listing
from p2psync.values.digest import Digest
from p2psync.values.errors import P2psyncError
from p2psync.values.names import RecordId, RelPath

_LOT = 8 * 1024 * 1024
"""Bytes of contents that are in memory at a time."""

Telling = Callable[[Job, Worked], AbstractContextManager[None]]
"""Says of a job what went wrong with it inside (store/apply)."""


class Newcomers:
    """Brings the plain ones among the new files of one mandate beside their places, or has them fetched."""

    def __init__(self, books: Books, sources: Sources, arrivals: Arrivals, preparing: Preparing, telling: Telling) -> None:
        self._books = books
        self._sources = sources
        self._arrivals = arrivals
        self._preparing = preparing
        self._telling = telling

    def bring(self, jobs: list[Job], worked: Worked) -> tuple[list[tuple[Job, Sealed]], list[Job]]:
        """The jobs whose version now waits beside its place, and those that are to be looked at one by one; the others are seen to."""
        plain, rest = self._sort_out(jobs)
        found: list[tuple[Job, Sealed]] = []
        by_place: dict[Location, list[Job]] = {}
        for job in plain:
            by_place.setdefault(job.location, []).append(job)
        for location, group in by_place.items():
            try:
                root = location.open()
            except P2psyncError:
                rest += group
                continue
            with root.folders() as folders:
                for lot in _lots(group):
                    self._bring(folders, lot, found, rest, worked)
        return found, rest

    # ---- what is plain?

    def _sort_out(self, jobs: list[Job]) -> tuple[list[Job], list[Job]]:
        db = self._books.ledger.read()
        likely: list[Job] = []
        rest: list[Job] = []
        for job in jobs:
            (likely if _looks_plain(job) and self._preparing.is_small(_content(job)) else rest).append(job)
        around = _folders_around(job.path for job in likely)
        alike = {path.text for path in versions.with_namesakes(db, [*(job.path for job in likely), *around.values()])}
        beside = self._copies() if likely else set()
        plain: list[Job] = []
        for job in likely:
            is_alike = alike and any(text in alike for text in _way_to(job.path.text))
            stands_beside = beside and job.location.root.joinpath(*job.parts) in beside
            (rest if is_alike or stands_beside else plain).append(job)
        return plain, rest

    def _copies(self) -> set[Path]:
        """Where conflict copies stand."""
        places = self._books.locations()
        found = [(places.get(RelPath(copy.path.top)), copy.disk) for copy in copies.everything(self._books.ledger.read())]
        return {location.root.joinpath(*disk) for location, disk in found if location is not None}

    # ---- from the vault, or from others

    def _bring(self, folders: Folders, lot: list[Job], found: list[tuple[Job, Sealed]], rest: list[Job], worked: Worked) -> None:
        wanted = {_content(job).digest for job in lot if _content(job).size}
        held = self._books.vault.get_all(wanted)
        here = self._sources.elsewhere(wanted - held.keys())
        nowhere = wanted - held.keys() - here
        lacking = [job for job in lot if _content(job).digest in nowhere]
        held |= self._come_early(folders, lacking)
        for job in lot:
            content = _content(job)
            if content.size and content.digest not in held:
                if content.digest in here:
                    rest.append(job)
                continue
            worked.attention[job.path.text] = None
            with self._telling(job, worked):
                sealed = self._write(folders, job, held.get(content.digest, b""))
                if sealed is None:
                    rest.append(job)
                else:
                    found.append((job, sealed))
        self._fetch(folders, [job for job in lacking if _content(job).digest not in held], rest, worked)

    def _come_early(self, folders: Folders, lacking: list[Job]) -> dict[Digest, bytes]:
        """What has come unasked of what is lacking, and is in the vault now."""
        if not lacking or not self._arrivals.early:
            return {}
        try:
            self._check_room(folders, lacking)
            still = self._arrivals.take_early([_chunk(job) for job in lacking])
        except P2psyncError:
            return {}
        return self._books.vault.get_all({_content(job).digest for job in lacking} - {chunk.digest for chunk in still})

    def _write(self, folders: Folders, job: Job, data: bytes) -> Sealed | None:
        shown = folders.root.shown(job.parts)
        try:
            folder = folders(job.parts[:-1])
        except FolderGone:
            return None
        return write_beside(folder, os.fstat(folder), job.parts, shown, _head(job), data)

    def _fetch(self, folders: Folders, lacking: list[Job], rest: list[Job], worked: Worked) -> None:
        """Have what is nowhere here fetched, where there is room for all of it; who finds none has it said for each path."""
        try:
            self._check_room(folders, lacking)
        except P2psyncError:
            rest += lacking
            return
        authors: dict[RecordId, Attention] = {}
        for job in lacking:
            head, content = _head(job), _content(job)
            self._arrivals.expect_small([_chunk(job)])
            worked.wants.setdefault(job.path, Want(content, Listing.single(content), (_chunk(job),)))
            if head.ref.record not in authors:
                authors[head.ref.record] = self._preparing.fetching(head)
            worked.attention[job.path.text] = authors[head.ref.record]

    def _check_room(self, folders: Folders, lacking: list[Job]) -> None:
        """Raises: SpaceShort and other errors of a disk."""
        coming: dict[tuple[str, ...], int] = {}
        for job in lacking:
            coming[job.parts[:-1]] = coming.get(job.parts[:-1], 0) + _content(job).size
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


def _looks_plain(job: Job) -> bool:
    if not isinstance(job.decision, Apply) or job.location.single or job.view.observed is not None or len(job.heads.all) != 1:
        return False
    state = job.decision.head.state
    return isinstance(state, File) and state.content.listing == state.content.digest and database_of(job.parts[-1]) is None


def _head(job: Job) -> Head:
    assert isinstance(job.decision, Apply)
    return job.decision.head


def _content(job: Job) -> Content:
    state = _head(job).state
    assert isinstance(state, File)
    return state.content


def _chunk(job: Job) -> Chunk:
    return Chunk(_content(job).digest, 0, _content(job).size)


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


def _lots(jobs: Iterable[Job]) -> Iterator[list[Job]]:
    lot: list[Job] = []
    size = 0
    for job in jobs:
        lot.append(job)
        size += _content(job).size
        if size >= _LOT:
            yield lot
            lot, size = [], 0
    if lot:
        yield lot
