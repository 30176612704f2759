"""What is no longer there: believed when it has been gone for a moment, is still gone then, and is not too much (engine/safety).

Absence by itself deletes nothing. An attachment in which too much vanished, or whose folder is not the one that it was, is halted;
that is kept in the ledger and lasts until everything is back or a person has confirmed it, and nothing else ends it.
"""

from dataclasses import replace
from time import monotonic

from p2psync.engine.attention import Attention
from p2psync.engine.safety import must_halt
from p2psync.store import paths, versions
from p2psync.store.books import Books
from p2psync.store.locations import Location
from p2psync.store.older import OLDER, is_emptied, is_older
from p2psync.store.paths import PathView
from p2psync.store.root import Root
from p2psync.store.spots import Looked, Spot
from p2psync.values.content import File
from p2psync.values.errors import P2psyncError
from p2psync.values.names import RelPath

GONE_FOR = 1.2
"""Seconds that something must be gone, and nothing more vanish beside it, before that is believed."""
TOGETHER = 60.0
"""What vanishes one by one within so many seconds counts as vanishing at once."""
_REMEMBERED = 10_000
"""Files of which it is remembered that they have only just appeared."""


def now() -> float:
    """The clock, in seconds, by which moments are counted here and in store/setbacks."""
    return monotonic()


class Vanishing:
    """What is missed in the attachments of one mandate; used by one thread at a time."""

    def __init__(self, books: Books) -> None:
        self._books = books
        self._missed: dict[RelPath, dict[Spot, float]] = {}
        self._confirmed: dict[RelPath, set[Spot]] = {}
        self._believed: dict[RelPath, list[float]] = {}
        self._appeared: dict[RelPath, float] = {}
        self._brought_back: set[RelPath] = set()

    def missed(self, location: Location) -> set[Spot]:
        """What is missed in an attachment and not believed to be gone (yet)."""
        return set(self._missed.get(location.name, ()))

    def miss(self, location: Location, spot: Spot) -> None:
        """Nothing stands at this spot, where something was."""
        self._missed.setdefault(location.name, {}).setdefault(spot, monotonic())

    def appeared(self, path: RelPath) -> None:
        """A file is there that was not: what programs make and take away again does not count as trickling away."""
        self._appeared.pop(path, None)
        self._appeared[path] = now = monotonic()
        while len(self._appeared) > _REMEMBERED or next(iter(self._appeared.values())) < now - TOGETHER:
            del self._appeared[next(iter(self._appeared))]

    def found(self, location: Location, spot: Spot) -> None:
        """Something stands there (again)."""
        if (missed := self._missed.get(location.name)) is not None:
            missed.pop(spot, None)

    def is_brought_back(self, location: Location) -> bool:
        """Whether a person has asked for it, and it was not looked at since."""
        return location.name in self._brought_back

    def is_confirmed(self, location: Location) -> bool:
        """Whether a person has said so of this attachment, and it was not looked at since."""
        return location.name in self._confirmed

    def confirm(self, location: Location) -> None:
        """A person says that what is missed now is meant to be gone; what is missed later is another matter."""
        self._confirmed[location.name] = self.missed(location)

    def bring_back(self, root: Root, location: Location) -> None:
        """A person says that what is missed was not meant to go: it counts as never seen here, so that it is put there again."""
        db = self._books.ledger.read()
        views = [view for view in (paths.get(db, spot.path) for spot in self.missed(location)) if view is not None]
        with self._books.writing() as writer:
            for view in views:
                paths.put(writer, PathView(view.path, view.disk))
            halted = OLDER if location.halted == OLDER else None
            self._books.place(Location(location.name, location.kind, location.path, root.identity, halted))
        self._missed.pop(location.name, None)
        self._confirmed.pop(location.name, None)
        if halted is None:
            self._brought_back.add(location.name)

    def judge(self, root: Root, location: Location, looked: Looked) -> None:
        """After a look, which was one at the whole attachment if it is halted or its folder another one: what is to be believed."""
        missed = self._missed.get(location.name, {})
        if missed and (quiet := monotonic() - max(missed.values())) < GONE_FOR:
            looked.again[next(iter(missed))] = GONE_FOR - quiet + 0.01
            return
        views = self._still_gone(root, location, looked)
        if views and not location.single and self._halts(root, location, views, looked):
            return
        if location.name in self._brought_back:
            self._brought_back.discard(location.name)
            looked.attention[location.name.text] = None
        confirmed = location.name in self._confirmed
        self._believe(location, views, looked)
        if location.single or (location.halted in (None, OLDER) and root.identity == location.identity):
            return
        if confirmed or not self._is_wrong(root, location, looked):
            self._resume(root, location, looked, confirmed)

    def _still_gone(self, root: Root, location: Location, looked: Looked) -> list[PathView]:
        """The views of what is missed, looked at once more: what came back without our hearing of it is no longer missed."""
        views = []
        for spot in self.missed(location):
            view = paths.get(self._books.ledger.read(), spot.path)
            if view is None or view.observed is None or view.disk != spot.disk:  # spelled otherwise by now
                self.found(location, spot)
                continue
            try:
                gone = root.stamp(location.parts(spot.disk)) is None
            except P2psyncError:
                gone = False
            if gone:
                views.append(view)
            else:
                self.found(location, spot)
                looked.again[spot] = 0.0
        return views

    def _halts(self, root: Root, location: Location, views: list[PathView], looked: Looked) -> bool:
        db = self._books.ledger.read()
        confirmed = self._confirmed.get(location.name, set())
        doubtful = [v for v in views if Spot(v.path, v.disk) not in confirmed and versions.is_live(db, v.path)]
        changed = root.identity != location.identity
        known = paths.count_files(db, location.name)
        gone = len(doubtful) if changed else len(self._deleted(doubtful, views))
        recent = self._recently(location)
        if not must_halt(gone, known, recent, root_changed=changed) and not (location.halted and doubtful):
            return False
        code = "root-replaced" if changed else "many-deletions"
        facts = {"count": gone, "total": known, "location": location.path}
        looked.attention[location.name.text] = Attention(code, self._books.now_ms(), facts)
        if code != location.halted != OLDER:
            self._books.place(Location(location.name, location.kind, location.path, location.identity, code))
        return True

    def _deleted(self, views: list[PathView], gone: list[PathView]) -> list[RelPath]:
        """Those of ``views`` that are files whose bytes were not seen anywhere else meanwhile: a rename is no deletion."""
        db, lost = self._books.ledger.read(), {view.path for view in gone}
        files = [(view.path, view.observed.state) for view in views if view.observed and isinstance(view.observed.state, File)]
        return [path for path, file in files if all(other.path in lost for other in paths.holding(db, file.content.digest))]

    def _recently(self, location: Location) -> int:
        """How many files that had been there for longer were believed to be gone within the last moments."""
        times = [at for at in self._believed.get(location.name, ()) if monotonic() - at < TOGETHER]
        self._believed[location.name] = times
        return len(times)

    def _believe(self, location: Location, views: list[PathView], looked: Looked) -> None:
        if views:
            if location.name not in self._confirmed:
                now = monotonic()
                lasting = [path for path in self._deleted(views, views) if now - self._appeared.get(path, -TOGETHER) >= TOGETHER]
                self._believed.setdefault(location.name, []).extend([now] * len(lasting))
            with self._books.writing() as db:
                for view in views:
                    paths.put(db, PathView(view.path, view.disk, None, view.agreed))
        self._missed.pop(location.name, None)
        self._confirmed.pop(location.name, None)
        looked.todo |= {view.path for view in views}

    def _has_older(self, location: Location) -> bool:
        db = self._books.ledger.read()
        views = [paths.get(db, path) for path in paths.unsettled(db, location.name)]
        return any(is_emptied(view) or is_older(db, view, whenever=True) for view in views if view is not None)

    def _is_wrong(self, root: Root, location: Location, looked: Looked) -> bool:
        """Whether nothing is missed in a folder that was put in the place of another, and most of what is in it is something else.

        Or it is one of the other attached folders.
        """
        if location.identity in (None, root.identity):
            return False
        db = self._books.ledger.read()
        views = [view for path in paths.unsettled(db, location.name) if (view := paths.get(db, path)) and _other_file(view)]
        strange = [view for view in views if not is_emptied(view) and not is_older(db, view, whenever=True)]
        known = paths.count_files(db, location.name)
        taken = any(other.identity == root.identity for other in self._books.locations().values() if other.name != location.name)
        if 2 * len(strange) <= known and not taken:
            return False
        facts = {"count": len(strange), "total": known, "location": location.path}
        looked.attention[location.name.text] = Attention("root-differs", self._books.now_ms(), facts)
        self._books.place(replace(location, halted="root-differs"))
        return True

    def _resume(self, root: Root, location: Location, looked: Looked, confirmed: bool) -> None:
        """Nothing is missed: this folder is the one from now on, and what could not be decided meanwhile is decided.

        Older versions in a folder that was put in the place of another wait for a person, however few they are.
        """
        asked = not confirmed and location.identity not in (None, root.identity) and self._has_older(location)
        self._books.place(replace(location, identity=root.identity, halted=OLDER if asked else None))
        looked.attention[location.name.text] = None
        looked.todo |= paths.unsettled(self._books.ledger.read(), location.name)


def _other_file(view: PathView) -> bool:
    """Whether a file with other bytes stands where one was agreed."""
    seen, agreed = view.observed and view.observed.state, view.agreed and view.agreed.state
    return isinstance(seen, File) and isinstance(agreed, File) and seen.content != agreed.content
