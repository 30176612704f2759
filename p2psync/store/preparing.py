"""Getting a version together beside its place, from what is on this machine; what is not is wanted from others."""

from contextlib import suppress

from p2psync.engine.attention import Attention
from p2psync.engine.heads import Head
from p2psync.store import openfiles, space, versions
from p2psync.store.arrivals import Arrivals
from p2psync.store.books import Books
from p2psync.store.jobs import Want, Worked
from p2psync.store.root import Root
from p2psync.store.sources import VAULTED, Sources
from p2psync.store.staging import Sealed, Staging, WrongWhole
from p2psync.store.swap import BusyFile
from p2psync.values.content import Content, File, Listing
from p2psync.values.errors import P2psyncError, UserError
from p2psync.values.names import RelPath


class Preparing:
    """Puts the versions of one mandate together."""

    def __init__(self, books: Books, sources: Sources, arrivals: Arrivals) -> None:
        self._books = books
        self._sources = sources
        self._arrivals = arrivals

    def version(self, path: RelPath, root: Root, parts: tuple[str, ...], head: Head, state: File, worked: Worked) -> Sealed | None:
        """The version ``head`` of ``path``, whole and beside ``parts``; None when something of it is still to be fetched.

        Raises:
            BusyFile: what stands there is open. SpaceShort: it would have to be fetched, and there is no room.
            RootGone, FolderGone, LinkInTheWay, DiskFull, CannotWrite, DiskFailing.
        """
        sealed = self._put_together(path, root, parts, head, state, worked)
        known = worked.attention.get(path.text)
        if sealed is None and path in worked.wants and not (known and known.code == "conflict"):
            worked.attention[path.text] = self.fetching(head)
        return sealed

    def _put_together(self, path: RelPath, root: Root, parts: tuple[str, ...], head: Head, state: File, worked: Worked) -> Sealed | None:
        mtime = head.mtime_ns
        listing = self._arrivals.listing_of(state.content)
        if listing is None:
            space.of(self._books.state).check(self._books.state)
            self._want(path, Want(state.content, None), worked)
            return None
        if self.is_small(state.content):
            return self._small(path, root, parts, state, listing, mtime, worked)
        return self._large(path, root, parts, state, listing, mtime, worked)

    def _small(
        self, path: RelPath, root: Root, parts: tuple[str, ...], state: File, listing: Listing, mtime: int | None, worked: Worked
    ) -> Sealed | None:
        missing = self._sources.gather(listing)
        if missing:
            space.of(self._books.state).check(self._books.state, sum(chunk.size for chunk in missing))
            space.Space(*root.space(parts[:-1])).check(root.shown(parts), state.content.size)
            missing = self._arrivals.take_early(missing)
        if missing:
            self._arrivals.expect_small(missing)
            self._want(path, Want(state.content, listing, tuple(missing)), worked)
            return None
        here = root.stamp(parts)
        if here and here.kind == "file" and (by := openfiles.is_open(root, parts)):
            raise BusyFile(path=root.shown(parts), by=by)  # instead of being put together every moment, in vain
        with Staging(root, parts[:-1], state.content, listing, name=parts[-1]) as staging:
            try:
                self._from_vault(staging, listing)
            except UserError:  # for which the disk has no room: what others have room for must not lack it
                with suppress(P2psyncError):
                    staging.abandon()
                raise
            if not staging.complete():  # a chunk of the vault turned out to be damaged
                worked.todo.add(path)
                return None
            return staging.seal(state.executable, mtime)

    def _from_vault(self, staging: Staging, listing: Listing) -> None:
        chunks = list(listing)
        for index in staging.missing():
            data = self._books.vault.get(chunks[index].digest)
            if data is not None:
                staging.put(index, data)

    def _large(
        self, path: RelPath, root: Root, parts: tuple[str, ...], state: File, listing: Listing, mtime: int | None, worked: Worked
    ) -> Sealed | None:
        sealed = self._arrivals.sealed(path, parts, state.content)
        if sealed is not None:
            return sealed
        self._check_room(root, parts, state.content)
        staging, missing = self._arrivals.staging(path, root, parts, state.content, listing)
        if missing and self._arrivals.is_wrong(state.content):
            raise WrongWhole(path=root.shown(parts))
        if missing:
            self._want(path, Want(state.content, listing, tuple(missing)), worked)
            return None
        try:
            sealed = staging.seal(state.executable, mtime)
        except WrongWhole:
            self._arrivals.was_wrong(path, state.content)
            raise
        self._arrivals.finished(path, parts, sealed)
        return sealed

    def _check_room(self, root: Root, parts: tuple[str, ...], content: Content) -> None:
        """A large version is not begun when it would fill the disk. Raises: SpaceShort."""
        space.Space(*root.space(parts[:-1])).check(root.shown(parts), self._arrivals.remaining(content))

    def _want(self, path: RelPath, want: Want, worked: Worked) -> None:
        """What is to stand at the path itself is fetched first, then the other versions of a conflict, one by one."""
        worked.wants.setdefault(path, want)

    def is_small(self, content: Content) -> bool:
        """Whether this content goes through the vault on its way."""
        return content.size <= VAULTED

    def fetching(self, head: Head) -> Attention:
        """Who made what is being fetched, and on which machine: what waits for it is on this one."""
        author, roster = versions.version_of(self._books.ledger.read(), head.ref).device, self._books.roster
        intro = roster.intro(author)
        facts: dict[str, object] = {"people": intro.person if intro else author.hex()[:8], "author": roster.machine(author)}
        return Attention("fetching", self._books.now_ms(), facts)
