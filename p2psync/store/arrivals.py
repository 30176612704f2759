"""What arrives from other machines, written down: chunks of small contents into the vault, those of large ones into their staging file.

Both are durable enough to be found again after a crash: the vault by its commit, a staging file by the digests of what is in it.
"""

import os
import threading
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from typing import TypeAlias

from p2psync.store import listings, space
from p2psync.store.books import Books
from p2psync.store.durable import sync_file
from p2psync.store.early import Early
from p2psync.store.faults import writing
from p2psync.store.locations import Location
from p2psync.store.reading import files_with
from p2psync.store.root import Root
from p2psync.store.sources import read_at
from p2psync.store.staging import Sealed, Staging, discard
from p2psync.values.content import Chunk, Content, Listing
from p2psync.values.digest import Digest, content_digest
from p2psync.values.errors import Malformed, P2psyncError, UserError
from p2psync.values.listingchange import ListingChange
from p2psync.values.names import RelPath

_Place: TypeAlias = tuple[RelPath, tuple[str, ...]]
"""A path, and where below its root a version of it is to stand: at the path itself, or beside it as a conflict copy."""


class Arrivals:
    """The chunks that are expected for one mandate, and where they go. Used by the rounds and by the fetcher, each in its thread."""

    def __init__(self, books: Books) -> None:
        self._books = books
        self.early = Early()
        self._lock = threading.Lock()
        self._small: set[Digest] = set()
        self._large: dict[Digest, set[_Place]] = {}
        self._stagings: dict[_Place, Staging] = {}
        self._sealed: dict[_Place, tuple[Root, Sealed]] = {}
        self._wrong: Counter[Content] = Counter()

    def chunks(self, batch: list[tuple[Digest, bytes]]) -> None:
        """Write down chunks that arrived, whose digests were checked.

        Raises:
            SpaceShort: nothing was written, so that what else is on its way is no longer asked for.
            DiskFull, CannotWrite, DiskFailing: what was written stays.
        """
        if any(digest in self._small for digest, _ in batch):
            space.of(self._books.state).check(self._books.state)
        with self._lock:
            pieces: dict[_Place, list[tuple[Digest, bytes]]] = {}
            for digest, data in batch:
                for place in self._large.get(digest, ()):
                    pieces.setdefault(place, []).append((digest, data))
            for place, those in pieces.items():
                self._stagings[place].place(those)
        small = [(digest, data) for digest, data in batch if digest in self._small]
        if small:
            self._books.vault.keep(small)
            self._small.difference_update(digest for digest, _ in small)

    def large(self, paths: Iterable[RelPath]) -> bool:
        """Whether any of these paths has a staging file."""
        return any(path == one for path in paths for one, _ in list(self._stagings))

    def sync(self, paths: Iterable[RelPath]) -> None:
        """Have the staging files for these paths on the disk; one that the disk did not take is begun anew.

        Raises:
            DiskFull, CannotWrite, DiskFailing.
        """
        with self._lock:
            those = [(place, staging, staging.descriptor()) for place, staging in self._stagings.items() if place[0] in paths]
        for place, staging, fd in those:
            try:
                with writing(staging.root.shown(place[1])):
                    sync_file(fd)
            except UserError:
                with self._lock:
                    if self._stagings.get(place) is staging:
                        self._abandon(place)  # what of it is on the disk, nobody knows
                raise
            finally:
                os.close(fd)

    def chunk(self, digest: Digest) -> bytes | None:
        """The bytes of a chunk of a large version that is not in its place yet; None when there is none, or none that can be read."""
        for staging in list(self._stagings.values()):  # without the lock: what is being filled may take long
            if (data := staging.chunk(digest)) is not None:
                return data
        waiting = {sealed.content.digest: (root, sealed) for root, sealed in list(self._sealed.values())}
        for content, offset, size in listings.containing(self._books.ledger.read(), digest) if waiting else ():
            if content in waiting:
                root, sealed = waiting[content]
                data = read_at(root, (*sealed.folder, sealed.name), offset, size)
                if data is not None and content_digest(data) == digest:
                    return data
        return None

    def listing(self, content: Content, listing: Listing) -> None:
        """Write down a chunk list that arrived and was checked."""
        with self._books.writing() as db:
            listings.put(db, content, listing)

    def listing_of(self, content: Content) -> Listing | None:
        """The chunk list of a content: known here, or come unasked and then known from now on."""
        known = listings.get(self._books.ledger.read(), content)
        if known is not None or (packed := self.early.take(content.listing)) is None:
            return known
        with suppress(Malformed):  # it was made for another content
            listing = Listing.received(packed, content)
            self.listing(content, listing)
            return listing
        return None

    def changed_listing(self, listing: Digest, change: ListingChange) -> None:
        """What a chunk list has changed against another was told: hold the list for a while, if the other is known and it is right."""
        with self._books.ledger.reading():
            packed = listings.packed_listing(self._books.ledger.read(), change.known)
        if packed is not None:
            with suppress(Malformed):
                new = change.applied(Listing(packed))
                if new.digest == listing:
                    self.early.put(listing, new.packed)

    def take_early(self, chunks: Iterable[Chunk]) -> list[Chunk]:
        """Put into the vault what has come unasked of ``chunks``; returns the others. Raises: DiskFull, CannotWrite, DiskFailing."""
        come, still = list[tuple[Digest, bytes]](), list[Chunk]()
        for chunk in chunks:
            data = self.early.take(chunk.digest)
            if data is None:
                still.append(chunk)
            else:
                come.append((chunk.digest, data))
        if come:
            self._books.vault.keep(come)
        return still

    def expect_small(self, chunks: Iterable[Chunk]) -> None:
        """These chunks, when they arrive, belong into the vault."""
        self._small.update(chunk.digest for chunk in chunks)

    def staging(self, path: RelPath, root: Root, parts: tuple[str, ...], content: Content, listing: Listing) -> tuple[Staging, list[Chunk]]:
        """The staging file for a large content that is to stand at ``parts``, filled with all that is on this machine; what it lacks.

        Raises:
            RootGone, FolderGone, LinkInTheWay, DiskFull, CannotWrite, DiskFailing.
        """
        with self._lock:
            place = path, parts
            staging = self._stagings.get(place)
            if staging is not None and staging.content != content:
                self._abandon(place)
                staging = None
            if staging is None:
                self._discard(place)
                staging = Staging(root, parts[:-1], content, listing, name=parts[-1])
                self._stagings[place] = staging
                self._fill(staging, listing)
            chunks = list(listing)
            missing = list({chunks[index].digest: chunks[index] for index in staging.missing()}.values())
            for chunk in missing:
                self._large.setdefault(chunk.digest, set()).add(place)
            return staging, missing

    def remaining(self, content: Content) -> int:
        """Bytes of a content that its staging file still lacks; all of them when there is none open."""
        with self._lock:
            found = next((s for s in self._stagings.values() if s.content == content), None)
            return content.size if found is None else content.size - found.have()

    def was_wrong(self, path: RelPath, content: Content) -> None:
        """All chunks of ``content`` were there for ``path``, and did not make it up."""
        self._wrong[content] += 1
        self.abandon(path)

    def is_wrong(self, content: Content) -> bool:
        """Whether it came out wrong twice, so that its chunk list is at fault: no more of it is fetched until the next start."""
        return self._wrong[content] > 1

    def finished(self, path: RelPath, parts: tuple[str, ...], sealed: Sealed) -> None:
        """The staging file for ``parts`` was sealed; it waits beside its place."""
        with self._lock:
            root = self._stagings[path, parts].root
            self._drop((path, parts))
            self._sealed[path, parts] = root, sealed

    def sealed(self, path: RelPath, parts: tuple[str, ...], content: Content) -> Sealed | None:
        """The whole version of a large content that waits for its place at ``parts``, if there is one."""
        _, found = self._sealed.get((path, parts), (None, None))
        return found if found is not None and found.content == content else None

    def forget(self, path: RelPath) -> None:
        """What waited beside ``path`` went into its place, or is not good any more."""
        for place in [place for place in self._sealed if place[0] == path]:
            del self._sealed[place]

    def abandon(self, path: RelPath) -> None:
        """Nothing is wanted for ``path`` any more: what was begun for it is removed."""
        if not self._stagings and not self._sealed:
            return
        with self._lock:
            for place in [place for place in self._stagings if place[0] == path]:
                self._abandon(place)
            for place in [place for place in self._sealed if place[0] == path]:
                self._discard(place)

    def close(self) -> None:
        """Close the staging files; what is in them is found again."""
        with self._lock:
            for place in list(self._stagings):
                self._drop(place)

    def _abandon(self, place: _Place) -> None:
        staging = self._stagings[place]
        self._drop(place)
        with suppress(P2psyncError):  # what cannot be removed is swept away later
            staging.abandon()

    def _discard(self, place: _Place) -> None:
        root, sealed = self._sealed.pop(place, (None, None))
        if root is not None and sealed is not None:
            discard(root, sealed)

    def _drop(self, place: _Place) -> None:
        self._stagings.pop(place).close()
        self._large = {digest: places - {place} for digest, places in self._large.items() if places != {place}}

    def _fill(self, staging: Staging, listing: Listing) -> None:
        """Take from the files of this mandate and from the vault what they have."""
        chunks = list(listing)
        missing = [chunks[index].digest for index in staging.missing()]
        for content in dict.fromkeys([staging.content.digest, *listings.having(self._books.ledger.read(), missing)]):
            self._fill_from(staging, content)
        lacking = staging.missing()
        held = self._books.vault.has({chunks[index].digest for index in lacking})
        for index in lacking:
            if chunks[index].digest in held and (data := self._books.vault.get(chunks[index].digest)) is not None:
                staging.put(index, data)

    def _fill_from(self, staging: Staging, digest: Digest) -> None:
        listing = self._listing_of(digest)
        if listing is not None:
            for location, parts in files_with(self._books, digest):
                if self._copy(staging, location, parts, listing):
                    return

    def _copy(self, staging: Staging, location: Location, parts: tuple[str, ...], listing: Listing) -> bool:
        try:
            fd = Root(location.root).open_read(parts)
        except (OSError, P2psyncError):
            return False
        try:
            return staging.fill_from(fd, listing) > 0
        finally:
            os.close(fd)

    def _listing_of(self, digest: Digest) -> Listing | None:
        row = self._books.ledger.read().execute("SELECT packed FROM listings WHERE content = ?", (digest,)).fetchone()
        return None if row is None else Listing(row[0])
