"""Looking at the disk: what changed since the ledger last saw it, and what is no longer there.

The watcher's events are hints and the survey is the truth. What vanished is believed only when it has been gone for a moment (many
programs save by taking the old file away first) and when it is not too much at once (engine/safety).
"""

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic, time_ns
from typing import NamedTuple

from p2psync.engine.attention import Attention
from p2psync.engine.ignore import is_by_work
from p2psync.engine.safety import must_halt
from p2psync.store import copies, listings, paths
from p2psync.store.books import Books
from p2psync.store.locations import Location
from p2psync.store.paths import PathView
from p2psync.store.root import Root, RootGone
from p2psync.store.scan import Changing, Fresh, Nothing, Skipped, Unreadable, observe, walk
from p2psync.store.sources import VAULTED
from p2psync.values.content import Chunk, File, Listing, Observed, Stamp
from p2psync.values.errors import BadPath
from p2psync.values.names import RelPath

GONE_FOR = 1.2
"""Seconds that something must be gone, and nothing more vanish beside it, before that is believed."""
CHANGING_AGAIN = 0.25
"""Seconds until a file that was written while it was read is looked at again."""
UNREADABLE_AGAIN = 30.0
"""Seconds until something that could not be read is tried again."""


class Spot(NamedTuple):
    """A path and how the disk spells its names below the folder of its attachment (empty for the attachment itself)."""

    path: RelPath
    disk: tuple[str, ...]


@dataclass
class Looked:
    """What a look found: paths to decide about, spots to look at again after so many seconds, and what to show or no longer show."""

    todo: set[RelPath] = field(default_factory=set)
    again: dict[Spot, float] = field(default_factory=dict)
    attention: dict[str, Attention | None] = field(default_factory=dict)


class _Reading:
    """Takes the chunks of one file as it is read: where they are, and the bytes of a file that the vault keeps."""

    def __init__(self) -> None:
        self.chunks: list[Chunk] = []
        self.pieces: list[tuple[Chunk, bytes]] = []

    def __call__(self, chunk: Chunk, data: bytes) -> None:
        self.chunks.append(chunk)
        if chunk.offset + chunk.size <= VAULTED:
            self.pieces.append((chunk, data))
        else:
            self.pieces.clear()


def _unchanged(known: Observed | None, stamp: Stamp) -> bool:
    return known is not None and known.stamp == stamp and not isinstance(known, Fresh)


class Look:
    """The eyes of one mandate; used by one thread at a time."""

    def __init__(self, books: Books) -> None:
        self._books = books
        self._vanished: dict[RelPath, dict[Spot, float]] = {}
        self._confirmed: set[RelPath] = set()
        self._keep = books.vault.keeping()

    # ---- which path is that?

    def locate(self, where: Path) -> Spot | None:
        """The spot that a path on the disk is, or None when it is none of ours (our own work, a lock file, a conflict copy).

        Raises:
            BadPath: it is inside an attached folder, but its name cannot be shared.
        """
        for location in self._books.locations().values():
            if location.single:
                if where == location.path:
                    return Spot(location.name, ())
            elif where == location.path or location.path in where.parents:
                disk = where.relative_to(location.path).parts
                if any(is_by_work(name) for name in disk) or self._is_copy(location, disk):
                    return None
                return Spot(RelPath.from_disk(location.name.text, *disk), disk)
        return None

    def spell(self, path: RelPath) -> Spot:
        """The spot of a path that may be new here: its nearest known folder as the disk spells it, the rest as it travels."""
        view = paths.get(self._books.ledger.read(), path)
        if view is not None:
            return Spot(path, view.disk)
        parent = path.parent
        return Spot(path, ()) if parent is None else Spot(path, (*self.spell(parent).disk, path.name))

    def _is_copy(self, location: Location, disk: tuple[str, ...]) -> bool:
        return any(copy.disk == disk for copy in copies.everything(self._books.ledger.read()) if copy.path.top == location.name.text)

    # ---- the survey of a whole attachment, by stamps alone

    def survey(self, name: RelPath, looked: Looked) -> set[Spot]:
        """The spots of an attachment whose stamps are not those that the ledger knows; the rest of it is as it was."""
        location = self._books.locations()[name]
        if location.single:
            return {Spot(name, ())}
        try:
            return self._survey_below(Root(location.path), location, (), looked)
        except RootGone:
            looked.attention[name.text] = self._attention("missing-root", location=location.path)
            return set()

    def _survey_below(self, root: Root, location: Location, below: tuple[str, ...], looked: Looked) -> set[Spot]:
        top = RelPath.from_disk(location.name.text, *below)
        known = {view.disk: view for view in paths.below(self._books.ledger.read(), top)}
        ours = {copy.disk for copy in copies.everything(self._books.ledger.read()) if copy.path.top == location.name.text}
        found: set[Spot] = set()
        for seen in walk(root, below, is_by_work):
            if seen.parts in ours:
                continue
            if isinstance(seen, Skipped):
                looked.attention["/".join((location.name.text, *seen.parts))] = self._attention("bad-name", why=seen.reason)
                known = {disk: view for disk, view in known.items() if disk[: len(seen.parts)] != seen.parts}
                continue
            view = known.pop(seen.parts, None)
            if view is not None and _unchanged(view.observed, seen.stamp):
                vanished = self._vanished.get(location.name)
                if vanished:
                    vanished.pop(Spot(view.path, view.disk), None)
                continue
            try:
                found.add(Spot(RelPath.from_disk(location.name.text, *seen.parts), seen.parts))
            except BadPath as e:  # only as a whole: too long, or too deep
                looked.attention["/".join((location.name.text, *seen.parts))] = self._attention("bad-name", why=e)
        found |= {Spot(view.path, view.disk) for view in known.values() if view.observed is not None and view.disk != below}
        if not below and not found and root.identity != location.identity:
            self._adopt_root(location, root)
        return found

    def _adopt_root(self, location: Location, root: Root) -> None:
        """Nothing is missing in it: another folder of the same name that holds the same is the same folder."""
        self._books.place(Location(location.name, location.kind, location.path, root.identity, None))

    # ---- the look at single spots

    def look(self, spots: Iterable[Spot]) -> Looked:
        """Read what stands at these spots, note it in the ledger, and say what has to be decided."""
        looked = Looked()
        everything = self._books.locations()
        by_name: dict[RelPath, set[Spot]] = {}
        for spot in spots:
            by_name.setdefault(RelPath(spot.path.top), set()).add(spot)
        for name, group in by_name.items():
            location = everything.get(name)
            if location is not None:
                self._look_in(location, group, looked)
        return looked

    def _look_in(self, location: Location, spots: set[Spot], looked: Looked) -> None:
        name = location.name.text
        try:
            root = Root(location.root)
        except RootGone:
            looked.attention[name] = self._attention("missing-root", location=location.root)
            return
        notes: list[PathView] = []
        lists: list[tuple[File, Listing]] = []
        queue, done = list(spots), set(spots)
        while queue:
            spot = queue.pop()
            fresh = self._look_at(root, location, spot, looked, notes, lists) - done
            done |= fresh
            queue.extend(fresh)
        self._keep.commit()
        with self._books.writing() as db:
            for file, listing in lists:
                listings.put(db, file.content, listing)
            for view in notes:
                paths.put(db, view)
        self._judge_vanished(root, location, looked)

    def _look_at(
        self, root: Root, location: Location, spot: Spot, looked: Looked, notes: list[PathView], lists: list[tuple[File, Listing]]
    ) -> set[Spot]:
        """Look at one spot; returns further spots that this one makes worth a look."""
        if not spot.disk and not location.single:
            return self._survey_below(root, location, (), looked)
        view = paths.get(self._books.ledger.read(), spot.path) or PathView(spot.path, spot.disk)
        shown = spot.path.text
        reading = _Reading()
        seen = observe(root, location.parts(spot.disk), view.observed, time_ns(), reading)
        for piece in reading.pieces:
            self._keep(*piece)
        if isinstance(seen, Changing):
            looked.again[spot] = CHANGING_AGAIN
            looked.attention[shown] = self._attention("still-written")
            return set()
        if isinstance(seen, Unreadable):
            looked.attention[shown] = self._attention("unreadable", why=seen.reason)
            looked.again[spot] = UNREADABLE_AGAIN
            return set()
        looked.attention[shown] = None
        vanished = self._vanished.setdefault(location.name, {})
        if isinstance(seen, Nothing):
            return self._note_vanished(location, view, spot, vanished, looked)
        vanished.pop(spot, None)
        looked.todo.add(spot.path)
        if seen != view.observed or view.disk != spot.disk:
            notes.append(PathView(spot.path, spot.disk, seen, view.agreed))
        if reading.chunks and isinstance(seen.state, File):
            lists.append((seen.state, Listing.of(reading.chunks)))
        if seen.stamp.kind == "folder" and not _unchanged(view.observed, seen.stamp):
            return self._survey_below(root, location, spot.disk, looked)
        return set()

    # ---- what is gone

    def _note_vanished(self, location: Location, view: PathView, spot: Spot, vanished: dict[Spot, float], looked: Looked) -> set[Spot]:
        if view.observed is None:
            looked.todo.add(spot.path)
            return set()
        vanished.setdefault(spot, monotonic())
        below = paths.below(self._books.ledger.read(), spot.path)
        return {Spot(v.path, v.disk) for v in below if v.observed is not None and v.path != spot.path}

    def _judge_vanished(self, root: Root, location: Location, looked: Looked) -> None:
        """Believe that things are gone once nothing more has vanished for a moment, unless it is too much at once."""
        vanished = self._vanished.get(location.name) or {}
        if not vanished:
            if location.halted:
                self._halt(location, None, looked)
            return
        quiet = monotonic() - max(vanished.values())
        if quiet < GONE_FOR:
            looked.again[next(iter(vanished))] = GONE_FOR - quiet + 0.01
            return
        views = [view for view in map(self._view, vanished) if view is not None]
        if not location.single and location.name not in self._confirmed and self._halts(root, location, views, looked):
            return
        self._confirmed.discard(location.name)
        with self._books.writing() as db:
            for view in views:
                paths.put(db, PathView(view.path, view.disk, None, view.agreed))
        looked.todo |= {view.path for view in views}
        vanished.clear()
        if location.halted:
            self._halt(location, None, looked)

    def _halts(self, root: Root, location: Location, views: list[PathView], looked: Looked) -> bool:
        db = self._books.ledger.read()
        gone = [v for v in views if v.observed and isinstance(v.observed.state, File) and not self._moved(v, views)]
        known = sum(1 for v in paths.below(db, location.name) if v.observed and isinstance(v.observed.state, File))
        changed = root.identity != location.identity
        if not must_halt(len(gone), known, root_changed=changed):
            return False
        facts = {"count": len(gone), "total": known, "location": location.path}
        self._halt(location, self._attention("root-replaced" if changed else "many-deletions", **facts), looked)
        return True

    def _moved(self, view: PathView, gone: list[PathView]) -> bool:
        """Whether the same bytes were seen somewhere else meanwhile: a rename is no deletion."""
        assert view.observed is not None and isinstance(view.observed.state, File)
        elsewhere = paths.holding(self._books.ledger.read(), view.observed.state.content.digest)
        lost = {v.path for v in gone}
        return any(other.path not in lost for other in elsewhere)

    def _halt(self, location: Location, why: Attention | None, looked: Looked) -> None:
        looked.attention[location.name.text] = why
        halted = why.code if why else None
        if halted != location.halted:
            self._books.place(Location(location.name, location.kind, location.path, location.identity, halted))

    def confirm(self, name: RelPath) -> set[Spot]:
        """A person says that what is gone is meant to be gone: the spots to look at again."""
        self._confirmed.add(name)
        with suppress(RootGone):
            location = self._books.locations()[name]
            self._adopt_root(location, Root(location.path))
        return set(self._vanished.get(name, ()))

    # ---- details

    def _view(self, spot: Spot) -> PathView | None:
        return paths.get(self._books.ledger.read(), spot.path)

    def _attention(self, code: str, **facts: object) -> Attention:
        return Attention(code, self._books.now_ms(), facts)
