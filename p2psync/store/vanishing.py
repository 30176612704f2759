"""What is no longer there: believed when it has been gone for a moment, is still gone then, and is not too much (engine/safety).

Absence by itself deletes nothing. An attachment in which too much vanished, or whose folder is not the one that it was, is halted;
that is kept in the ledger and lasts until everything is back or a person has confirmed it, and nothing else ends it.
"""

from time import monotonic

from p2psync.engine.attention import Attention
from p2psync.engine.safety import must_halt
from p2psync.store import paths, versions
from p2psync.store.books import Books
from p2psync.store.locations import Location
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


class Vanishing:
    """What is missed in the attachments of one mandate; used by one thread at a time."""

    def __init__(self, books: Books) -> None:
        self._books = books
        self._missed: dict[RelPath, dict[Spot, float]] = {}
        self._confirmed: dict[RelPath, set[Spot]] = {}
        self._believed: dict[RelPath, list[float]] = {}
        self._appeared: dict[RelPath, float] = {}

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
            self._books.place(Location(location.name, location.kind, location.path, root.identity, None))
        self._missed.pop(location.name, None)
        self._confirmed.pop(location.name, None)

    def judge(self, root: Root, location: Location, looked: Looked) -> None:
        """After a look, which was one at the whole attachment if it is halted or its folder another one: what is to be believed."""
        missed = self._missed.get(location.name, {})
        if missed and (quiet := monotonic() - max(missed.values())) < GONE_FOR:
            looked.again[next(iter(missed))] = GONE_FOR - quiet + 0.01
            return
        views = self._still_gone(root, location, looked)
        if views and not location.single and self._halts(root, location, views, looked):
            return
        self._believe(location, views, looked)
        if not location.single and (location.halted or root.identity != location.identity):
            self._resume(root, location, looked)

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
        if code != location.halted:
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

    def _resume(self, root: Root, location: Location, looked: Looked) -> None:
        """Nothing is missed: this folder is the one from now on, and what could not be decided meanwhile is decided."""
        self._books.place(Location(location.name, location.kind, location.path, root.identity, None))
        looked.attention[location.name.text] = None
        looked.todo |= paths.unsettled(self._books.ledger.read(), location.name)
