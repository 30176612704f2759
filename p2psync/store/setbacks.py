"""Files that go back: to a version that others have long replaced, with its old date, or to nothing at all.

One of them is a version like any other: the newer one is in the history. Many at once are more often a backup that was put back, a disk
that lost its last weeks, or a program that took the contents and left the names. They would be news for everybody; so they wait for a
person, who has the shared versions brought back or confirms what stands there (engine/safety says how many are many).

Dates decide nothing here but whether to ask.
"""

from collections.abc import Iterable
from dataclasses import replace

from p2psync.engine.attention import Attention
from p2psync.engine.reconcile import Agreed
from p2psync.engine.safety import must_halt
from p2psync.store import paths, vanishing
from p2psync.store.books import Books
from p2psync.store.jobs import Worked
from p2psync.store.locations import Location
from p2psync.store.older import OLDER, is_emptied, is_older
from p2psync.store.paths import PathView
from p2psync.values.names import RelPath


class Setbacks:
    """What went back in the attachments of one mandate and is not recorded (yet); used by one thread at a time."""

    def __init__(self, books: Books) -> None:
        self._books = books
        self._held: dict[RelPath, float] = {}
        self._released: set[RelPath] = set()
        self._recent: dict[bool, list[float]] = {}

    def holds(self, view: PathView, location: Location) -> bool:
        """Whether what stands at this path is not to be recorded before ``judge`` has said so."""
        went_back = self._went_back(view, location)
        if view.path in self._released or not went_back:
            self._released.discard(view.path)
            self._held.pop(view.path, None)
            return False
        self._held.setdefault(view.path, vanishing.now())
        return True

    def judge(self, locations: Iterable[Location], worked: Worked) -> None:
        """After all paths were decided about: release what is held in these attachments, halt them, or wait a moment longer."""
        folders = {location.name: location for location in locations if not location.single}
        for location in folders.values():
            self._judge([location], [path for path in self._held if path.top == location.name.text], worked)
        singles = [location for location in self._books.locations().values() if location.single]
        if any(location.single for location in locations):
            self._judge(singles, [location.name for location in singles if location.name in self._held], worked)

    def confirm(self, location: Location) -> set[RelPath]:
        """A person says that what stands there is meant: the paths to decide about."""
        found = {view.path for view in self._of(location)}
        self._released |= found
        return found

    def bring_back(self, location: Location) -> set[RelPath]:
        """A person wants the shared versions: what stands there counts as one of those that they replaced. The paths to decide about."""
        views = self._of(location)
        with self._books.writing() as db:
            for view in views:
                if view.observed is not None and view.agreed is not None:
                    stands = Agreed(view.observed.state, view.agreed.refs, frozenset())
                    paths.put(db, PathView(view.path, view.disk, view.observed, stands))
        return {view.path for view in views}

    # ---- details

    def _went_back(self, view: PathView, location: Location) -> bool:
        return is_emptied(view) or is_older(self._books.ledger.read(), view, whenever=location.halted == OLDER)

    def _of(self, location: Location) -> list[PathView]:
        """What went back and is not recorded, of one attachment."""
        db = self._books.ledger.read()
        views = [paths.get(db, path) for path in paths.unsettled(db, location.name)]
        return [view for view in views if view and view.path not in self._released and self._went_back(view, location)]

    def _judge(self, locations: list[Location], held: list[RelPath], worked: Worked) -> None:
        single = locations[0].single
        halted = [location for location in locations if location.halted == OLDER]
        if halted:
            self._go_on_halted(halted, worked)
        if not held or any(RelPath(path.top) == location.name for path in held for location in halted):
            return
        if (quiet := vanishing.now() - max(self._held[path] for path in held)) < vanishing.GONE_FOR:
            worked.again |= dict.fromkeys(held, vanishing.GONE_FOR - quiet + 0.01)
            return
        db = self._books.ledger.read()
        known = len(locations) if single else paths.count_files(db, locations[0].name)
        recent = [at for at in self._recent.get(single, ()) if vanishing.now() - at < vanishing.TOGETHER]
        if must_halt(len(held), known, len(recent), root_changed=False):
            for location in locations:
                if any(path.top == location.name.text for path in held):
                    self._books.place(replace(location, halted=OLDER))
                    self._show(location, len(held), known, worked)
            return
        self._recent[single] = recent + [vanishing.now()] * len(held)
        self._released |= set(held)
        worked.todo |= set(held)

    def _go_on_halted(self, halted: list[Location], worked: Worked) -> None:
        """Show what waits; what has nothing left that went back is halted no more."""
        db = self._books.ledger.read()
        waiting = {location.name: len(self._of(location)) for location in halted}
        for location in halted:
            if not waiting[location.name]:
                self._end_halt(location)
                worked.attention[location.name.text] = None
                worked.todo |= paths.unsettled(db, location.name)
            elif location.single:
                singles = [other for other in self._books.locations().values() if other.single]
                self._show(location, sum(waiting.values()), len(singles), worked)
            else:
                self._show(location, waiting[location.name], paths.count_files(db, location.name), worked)

    def _show(self, location: Location, count: int, known: int, worked: Worked) -> None:
        facts = {"count": count, "total": known, "location": location.path}
        code = "older-copy" if location.single else "older-copies"
        worked.attention[location.name.text] = Attention(code, self._books.now_ms(), facts)

    def _end_halt(self, location: Location) -> None:
        now = self._books.locations()[location.name]
        if now.halted == OLDER:
            self._books.place(replace(now, halted=None))
        for path in [path for path in self._held if path.top == location.name.text]:
            del self._held[path]
