"""Looking at the disk: what changed since the ledger last saw it, and what is no longer there.

The watcher's events are hints and the survey is the truth. What vanished is for store/vanishing to believe.
"""

import math
import os
from collections.abc import Iterable, Iterator, Set
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from p2psync.engine.attention import Attention
from p2psync.engine.ignore import database_of, is_by_work
from p2psync.store import checking, listings, naming, paths, sqlitefile, versions
from p2psync.store.books import Books
from p2psync.store.lasting import make_lasting
from p2psync.store.ledger import LOT
from p2psync.store.locating import composed, copies_in
from p2psync.store.locations import Location
from p2psync.store.paths import PathView
from p2psync.store.root import FolderGone, Root, RootGone
from p2psync.store.scan import Nothing, Skipped, is_unchanged, walk
from p2psync.store.seeing import UNREADABLE_AGAIN, Reading, Seeing, noting, why_and_do
from p2psync.store.slices import Slices
from p2psync.store.spots import Looked, Spot
from p2psync.store.vanishing import Vanishing
from p2psync.values.content import File, Listing, Observed, Stamp
from p2psync.values.errors import BadPath, P2psyncError, UserError
from p2psync.values.names import RelPath

ABSENT_AGAIN = 5.0
"""Seconds until an attachment whose folder is not there is looked for again."""


def _as_permitted(seen: Observed, known: Observed | None) -> Observed:
    """What was seen, with the permission as it is agreed where the disk only shows what it always shows (FAT, many network disks).

    Only when a file's permission is seen to change has a person changed it.
    """
    if known is None or not isinstance(seen.state, File) or not isinstance(known.state, File):
        return seen
    if seen.stamp.executable != known.stamp.executable or seen.state.executable == known.state.executable:
        return seen
    return replace(seen, state=replace(seen.state, executable=known.state.executable))


class Look:
    """The eyes of one mandate; used by one thread at a time."""

    def __init__(self, books: Books) -> None:
        self._books = books
        self._vanishing = Vanishing(books)
        self._absent: set[RelPath] = set()
        self._owed: set[RelPath] = set()
        """What is to be decided about after a look at an attachment whose folder is there, and is the right one."""
        self._told: dict[str, Attention | None] = {}
        """What a look between two rounds found, which the next round is to know."""
        self._wrong: dict[RelPath, tuple[int, int]] = {}
        self._walked: dict[tuple[RelPath, tuple[str, ...]], Stamp] = {}
        """The folders that were gone through since the last look, with the stamp that each had before."""
        self._slices = Slices()
        self.seeing = Seeing(books)

    # ---- the survey of a whole attachment, by stamps alone

    def survey(self, name: RelPath, looked: Looked) -> set[Spot]:
        """The spots of an attachment whose stamps are not those that the ledger knows; the rest of it is as it was."""
        location = self._books.locations()[name]
        whole = Spot(name, ())
        if location.single:
            return {whole}
        try:
            root = Root(location.path)
            found = self._survey_below(root, location, (), looked)
        except (RootGone, UserError):
            self._walked.clear()
            return {whole}
        return found | {whole} if self._in_doubt(root, location) else found

    def _in_doubt(self, root: Root, location: Location) -> bool:
        """Whether only a look at the whole attachment can tell how things stand."""
        changed = root.identity != location.identity or location.name in self._absent or self._vanishing.is_brought_back(location)
        return not location.single and (changed or (location.halted is not None and not self._vanishing.missed(location)))

    def _survey_below(self, root: Root, location: Location, below: tuple[str, ...], looked: Looked) -> set[Spot]:
        """The spots below a folder whose stamps are not those that are known. Raises: RootGone, UserError.

        Below a folder in the attachment, which was heard of, an equal stamp is enough: what it does not prove yet, a survey of all reads.
        """
        top = RelPath.from_disk(location.name.text, *below)
        known = dict(paths.stamps_below(self._books.ledger.read(), top, fresh=bool(below)))
        known.pop("/".join(below), None)
        ours, missed = copies_in(self._books, location), self._vanishing.missed(location)
        found: set[Spot] = set()
        try:
            for seen in walk(root, below, is_by_work):
                shown = "/".join(seen.parts)
                if composed(seen.parts) in ours:
                    continue
                if isinstance(seen, Skipped):
                    self._skip(location, seen, looked)
                    self._walked.pop((location.name, seen.parts), None)
                    known = {disk: stamp for disk, stamp in known.items() if disk != shown and not disk.startswith(shown + "/")}
                    continue
                if seen.stamp.kind == "folder":
                    self._walked[location.name, seen.parts] = seen.stamp
                if known.pop(shown, None) == seen.stamp and not seen.more:
                    if missed:
                        self._vanishing.found(location, Spot(RelPath.from_disk(location.name.text, *seen.parts), seen.parts))
                    continue
                try:
                    found.add(Spot(RelPath.from_disk(location.name.text, *seen.parts), seen.parts))
                except BadPath as e:  # only as a whole: too long, or too deep
                    self._skip(location, Skipped(seen.parts, str(e), by_name=True), looked)
        except FolderGone:
            pass  # just now, and all that was in it: what is known of it is looked at
        except UserError as e:
            if not below:
                raise
            self._skip(location, Skipped(below, str(e)), looked)
            looked.todo.discard(top)
            return set()
        return found | {_spot(location, disk) for disk in known}

    def _skip(self, location: Location, seen: Skipped, looked: Looked) -> None:
        code = "bad-name" if seen.by_name else "unreadable"
        looked.attention["/".join((location.name.text, *seen.parts))] = self._attention(code, **why_and_do(seen.reason))

    def look_at_unfit(self, where: Path, fault: BadPath, looked: Looked) -> None:
        """Note something whose name cannot be shared, or that it is no longer there."""
        for location in self._books.locations().values():
            if location.path in where.parents:
                shown = "/".join((location.name.text, *where.relative_to(location.path).parts))
                looked.attention[shown] = self._attention("bad-name", **why_and_do(fault)) if os.path.lexists(where) else None

    # ---- the look at single spots

    def look(self, spots: Iterable[Spot]) -> Looked:
        """Read what stands at these spots, note it in the ledger, and say what has to be decided."""
        looked = Looked()
        looked.attention, self._told = self._told, {}
        everything = self._books.locations()
        by_name: dict[RelPath, set[Spot]] = {}
        for spot in spots:
            by_name.setdefault(RelPath(spot.path.top), set()).add(spot)
        for name in self.unseen:
            by_name.setdefault(name, set())
        for name, group in by_name.items():
            location, (rest, most) = everything.get(name), self._slices.take(name)
            if location is not None:
                self._look_in(location, group, rest, most, looked)
        due = {path for path in self._owed if RelPath(path.top) not in self._absent | self._wrong.keys()}
        self._owed -= due
        looked.todo |= due
        if not self.unseen:
            self._walked.clear()
        return looked

    @property
    def unseen(self) -> Set[RelPath]:
        """The attachments of which so much is new that the next look goes on with it."""
        return self._slices.unseen

    def _look_in(self, location: Location, spots: set[Spot], rest: list[Spot], most: int, looked: Looked) -> None:
        try:
            root = Root(location.root)
            if self._is_still_wrong(root, location, spots):
                looked.again[Spot(location.name, ())] = ABSENT_AGAIN
                return
            if self._in_doubt(root, location):  # which finds the rest again
                self._look_at_all(root, location, spots | {Spot(location.name, ())}, [], looked, math.inf)
            else:
                self._look_at_all(root, location, spots, rest, looked, most)
            if location.name in self.unseen:
                return
        except RootGone:
            self._note_absent(location, spots, self._attention("missing-root", location=location.root), looked)
            return
        except UserError as e:
            self._note_absent(location, spots, self._attention("unreadable", **why_and_do(e)), looked)
            return
        if location.name in self._absent:  # it is back
            self._absent.discard(location.name)
            looked.attention.setdefault(location.name.text, None)
            looked.todo |= paths.unsettled(self._books.ledger.read(), location.name)
        self._vanishing.judge(root, location, looked)
        self._wrong.pop(location.name, None)
        if not location.single and self._books.locations()[location.name].identity != root.identity:
            self._wrong[location.name] = root.identity or (0, 0)
            looked.again.setdefault(Spot(location.name, ()), ABSENT_AGAIN)
            self._put_off(location, looked)

    def _is_still_wrong(self, root: Root, location: Location, spots: set[Spot]) -> bool:
        """Whether there is no more to be seen than that the folder is the wrong one that it was at the last look."""
        nothing_else = spots == {Spot(location.name, ())} and not self._vanishing.is_confirmed(location)
        return nothing_else and location.identity != root.identity == self._wrong.get(location.name)

    def _note_absent(self, location: Location, spots: set[Spot], why: Attention, looked: Looked) -> None:
        looked.attention[location.name.text] = why
        looked.again[Spot(location.name, ())] = ABSENT_AGAIN
        self._absent.add(location.name)
        self._put_off(location, looked)
        self._owed |= {spot.path for spot in spots}  # whoever asked for a look at it waits until it is decided about

    def _put_off(self, location: Location, looked: Looked) -> None:
        """What was not noted is not decided about either, or it would count as in order; nor what may be of another folder."""
        later = {path for path in looked.todo if path.top == location.name.text}
        looked.todo -= later
        self._owed |= later

    def _look_at_all(self, root: Root, location: Location, spots: set[Spot], rest: list[Spot], looked: Looked, most: float) -> None:
        """Look at these spots and what they lead to; at what nothing is known of, the ``rest`` (last first) included, until there are
        about ``most`` notes, and leave the others for the next look.
        """
        notes: dict[RelPath, PathView] = {}
        lists: list[tuple[File, Listing]] = []
        left: list[Spot] = []
        self._went: set[tuple[str, ...]] = set()
        self.seeing.begin()
        ours = copies_in(self._books, location)
        queue, done = _last_first(spots), set(spots)
        with root.folders() as self._folders:
            while queue or (rest and len(notes) < most):
                source = queue or rest
                lot = source[: -LOT - 1 : -1]
                del source[-LOT:]
                self._views = paths.get_all(self._books.ledger.read(), [spot.path for spot in lot])
                self._alike = versions.with_namesakes(self._books.ledger.read(), [spot.path for spot in lot], gone=True)
                for spot in lot:
                    if len(notes) >= most and spot.disk and spot.path not in self._views:
                        left.append(spot)
                    elif composed(spot.disk) not in ours:
                        fresh = self._look_at(root, location, spot, looked, notes, lists) - done
                        done |= fresh
                        queue.extend(_last_first(fresh))
        if left or rest:
            self._slices.leave(location.name, _last_first([*rest, *left]) if left else rest)
        self._make_lasting(root, location, notes, looked)
        self.seeing.keep_copies()
        with noting(), self._books.writing() as db:
            for file, listing in lists:
                listings.put(db, file.content, listing)
            paths.put_all(db, notes.values())

    def _make_lasting(self, root: Root, location: Location, notes: dict[RelPath, PathView], looked: Looked) -> None:
        """Have what was seen survive a power cut, before it is written down; what cannot is left as it was, and told."""
        views = {location.parts(view.disk): view for view in notes.values()}
        around = {view.disk[:-1]: view for view in notes.values()}
        folders = {parts for view in around.values() for parts in self._new_around(root, location, view)}
        for parts, why in make_lasting(root, [*folders, *views, *self.seeing.logs], self._went).items():
            if parts in views:
                view = views[parts]
                del notes[view.path]
                looked.todo.discard(view.path)
                looked.attention["/".join((location.name.text, *view.disk))] = self._attention("unreadable", **why_and_do(why))
                looked.again[Spot(view.path, view.disk)] = UNREADABLE_AGAIN

    def _new_around(self, root: Root, location: Location, view: PathView) -> Iterator[tuple[str, ...]]:
        """The folders that a file is in and that were not seen before, or were others of the same name."""
        disk, above = view.disk[:-1], view.path.parent
        while disk and above is not None:
            parts, stands = location.parts(disk), None
            known = paths.get(self._books.ledger.read(), above)
            with suppress(P2psyncError):  # what cannot be told now is told by the look at it
                stands = root.stamp(parts)
            if known and known.observed and stands and known.observed.stamp.inode == stands.inode:
                return
            yield parts
            disk, above = disk[:-1], above.parent

    def _look_at(
        self, root: Root, location: Location, spot: Spot, looked: Looked, notes: dict[RelPath, PathView], lists: list[tuple[File, Listing]]
    ) -> set[Spot]:
        """Look at one spot; returns further spots that this one makes worth a look."""
        if not spot.disk and not location.single:
            return self._survey_below(root, location, (), looked)
        view = notes.get(spot.path) or self._views.get(spot.path) or PathView(spot.path, spot.disk)
        known = view.observed if view.disk == spot.disk else None
        database = self._database(root, location, spot)
        if database is not None and view.observed is None:
            return set() if spot.disk[-1].endswith("-shm") else {database}  # the index of a log says nothing, and reading moves it
        reading = Reading()
        shown = "/".join((location.name.text, *spot.disk))
        seen = self.seeing.see(self._folders, location, spot, known, reading, looked)
        if seen is None:
            return set()
        if isinstance(seen, Observed) and checking.is_known_damage(self._books, view, seen):
            looked.attention[spot.path.text] = self._attention("damaged-file")
            return set()
        looked.attention[shown] = looked.attention[spot.path.text] = None
        if isinstance(seen, Nothing) or (view.observed is None and self._is_anothers(root, location, spot, seen)):
            return self._note_nothing(location, view, spot, looked)
        if view.observed is not None and view.disk != spot.disk and root.stamp(location.parts(view.disk)) is not None:
            # Two spellings of one name, side by side: told under the one that is not the path's own, which is in order.
            other = shown if shown != spot.path.text else "/".join((location.name.text, *view.disk))
            looked.attention[other] = self._attention("name-collision", other=spot.path)
            return set()
        self._vanishing.found(location, spot)
        looked.todo.add(spot.path)
        if view.observed is None:
            self._vanishing.appeared(spot.path)
        seen = _as_permitted(seen, view.observed)
        if seen != view.observed or view.disk != spot.disk:
            notes[spot.path] = PathView(spot.path, spot.disk, seen, view.agreed)
        if reading.chunks and isinstance(seen.state, File):
            lists.append((seen.state, Listing.of(reading.chunks)))
        if seen.stamp.kind != "folder" or is_unchanged(view.observed, seen.stamp) or self._has_walked(location, spot, seen.stamp):
            return set()
        return self._survey_below(root, location, spot.disk, looked)

    def _has_walked(self, location: Location, spot: Spot, stamp: Stamp) -> bool:
        """Whether this folder was gone through just now, and nothing came or went in it since."""
        return self._walked.get((location.name, spot.disk)) == stamp

    def _is_anothers(self, root: Root, location: Location, spot: Spot, seen: Observed) -> bool:
        """Whether the disk shows at a new spot only what stands under another name, from which it does not tell this one apart."""
        if not spot.disk or spot.path not in self._alike or not naming.shown_for(self._books.ledger.read(), spot.path, seen.stamp):
            return False
        try:
            with root.dir_fd(location.parts(spot.disk)[:-1]) as folder:
                return spot.disk[-1] not in os.listdir(folder)
        except (OSError, P2psyncError):
            return True  # it is looked at again when the folder can be read

    def _database(self, root: Root, location: Location, spot: Spot) -> Spot | None:
        """The spot of the database that what stands at ``spot`` is only a part of."""
        name = database_of(spot.disk[-1]) if spot.disk else None
        if name is None:
            return None
        try:
            with root.dir_fd(location.parts(spot.disk)[:-1]) as folder:
                if not sqlitefile.belongs(folder, spot.disk[-1]):
                    return None
            return Spot(RelPath.from_disk(location.name.text, *spot.disk[:-1], name), (*spot.disk[:-1], name))
        except (OSError, P2psyncError):  # what stands there then says itself why it cannot be looked at
            return None

    def _note_nothing(self, location: Location, view: PathView, spot: Spot, looked: Looked) -> set[Spot]:
        if view.disk != spot.disk:
            looked.attention["/".join((location.name.text, *view.disk))] = None
            return set()  # the path is spelled otherwise by now
        if view.observed is None:
            looked.todo.add(spot.path)
            return set()
        self._vanishing.miss(location, spot)
        self._went.add(location.parts(spot.disk))
        below = paths.below(self._books.ledger.read(), spot.path)
        return {Spot(v.path, v.disk) for v in below if v.observed is not None and v.path != spot.path}

    def bring_back(self, name: RelPath) -> set[RelPath]:
        """A person says that what is gone by now was not meant to go: the paths to decide about. Raises: RootGone, UserError."""
        location = self._books.locations()[name]
        root = Root(location.path)
        self._look_between(location)
        self._vanishing.bring_back(root, location)
        return paths.unsettled(self._books.ledger.read(), name)

    def confirm(self, name: RelPath) -> set[Spot]:
        """A person says that what is gone by now is meant to be gone: the spots to look at again."""
        location = self._books.locations()[name]
        self._look_between(location)
        self._vanishing.confirm(location)
        return {Spot(name, ()), *self._vanishing.missed(location)}

    def _look_between(self, location: Location) -> None:
        """Look at an attachment between two rounds, of which the next one takes in what comes of it."""
        found = self.look({Spot(location.name, ()), *self._vanishing.missed(location)})
        self._owed |= found.todo
        self._told = found.attention

    # ---- details

    def _attention(self, code: str, **facts: object) -> Attention:
        return Attention(code, self._books.now_ms(), facts)


def _last_first(spots: Iterable[Spot]) -> list[Spot]:
    """A stack from which folders come before what is in them."""
    return sorted(spots, key=lambda spot: spot.disk, reverse=True)


def _spot(location: Location, disk: str) -> Spot:
    """The spot of what the ledger knows under these names below an attached folder, separated by slashes; none for the folder itself."""
    names = tuple(disk.split("/")) if disk else ()
    return Spot(RelPath.from_disk(location.name.text, *names), names)
