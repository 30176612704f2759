"""Names that some file systems would take for one another: at most one of them is shared, and the other waits for a person.

What is in a folder that waits waits with it: half of it under the other folder's name would be worse than nothing.
"""

import sqlite3
from collections.abc import Iterable

from p2psync.store import paths, versions
from p2psync.values.content import Gone, Stamp
from p2psync.values.names import RelPath


class Naming:
    """The names that are new in one pass of work, compared with what is shared and with each other."""

    def __init__(self, db: sqlite3.Connection, new: Iterable[RelPath] = ()) -> None:
        self._db = db
        new = set(new)
        self._unlike = new - versions.with_namesakes(db, new)
        """Those of the ``new`` ones that are like no name that is shared already."""
        self._folds: dict[str, RelPath] = {}
        self._known: dict[RelPath, RelPath | None] = {}

    def recorded(self, path: RelPath) -> RelPath | None:
        """What stands in the way of recording the new ``path``, or None."""
        if path not in self._known:
            other = None if path in self._unlike else versions.namesake(self._db, path)
            self._known[path] = self._around(path) or other or self._claimed(path)
        return self._known[path]

    def _claimed(self, path: RelPath) -> RelPath | None:
        """The other path that is recorded in this very pass, if there is one; what waits itself is in nobody's way."""
        first = self._folds.setdefault(path.fold, path)
        return first if first != path else None

    def _around(self, path: RelPath) -> RelPath | None:
        """What stands in the way of a folder that ``path`` is in and that is not shared itself (yet)."""
        folder = path.parent
        if folder is None or folder.parent is None:
            return None
        if folder not in self._known and _is_live(self._db, folder):
            self._known[folder] = None
        return self.recorded(folder)


def applied(db: sqlite3.Connection, path: RelPath) -> RelPath | None:
    """What stands in the way of a version that is to come to ``path`` on this disk, where nothing stands; or None."""
    one: RelPath | None = path
    while one is not None and (one == path or one.parent is not None):
        here = paths.get(db, one)
        if here is not None and here.observed is not None:
            return None
        other = versions.namesake(db, one)
        if other is not None and _has_better_right(db, other, one):
            return other
        one = one.parent
    return None


def _has_better_right(db: sqlite3.Connection, other: RelPath, path: RelPath) -> bool:
    """Whether of two namesakes, of which ``path`` is not on this disk, the other comes first: it stands here, or by its spelling."""
    here = paths.get(db, other)
    if here is not None and here.observed is not None:
        return True
    return other.text < path.text or not versions.heads(db, path).all


def shown_for(db: sqlite3.Connection, path: RelPath, stamp: Stamp) -> RelPath | None:
    """The other name under which what has this stamp is known, where a disk that ignores case shows it for ``path`` as well; or None."""
    rows = db.execute("SELECT DISTINCT path FROM entries WHERE fold = ? AND head = 1 AND path != ?", (path.fold, path.text)).fetchall()
    views = (paths.get(db, RelPath(other)) for (other,) in rows)
    return next((view.path for view in views if view and view.observed and view.observed.stamp.inode == stamp.inode), None)


def freed(db: sqlite3.Connection, gone: Iterable[RelPath]) -> set[RelPath]:
    """The paths that ``gone`` ones may have been in the way of."""
    folds = {path.fold for path in gone}
    if not folds:
        return set()
    found = {path for path in paths.unrecorded(db) if any(fold in folds for fold in _folds_of(path))}
    for other in versions.of_folds(db, folds):
        found |= {other, *versions.live_paths(db, other)}
    return found


def _folds_of(path: RelPath) -> Iterable[str]:
    one: RelPath | None = path
    while one is not None:
        yield one.fold
        one = one.parent


def _is_live(db: sqlite3.Connection, path: RelPath) -> bool:
    heads = versions.heads(db, path)
    return bool(heads.all) and not isinstance(heads.winner.state, Gone)
