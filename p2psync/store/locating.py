"""Which path of a mandate a place on the disk is, and where on the disk a path is."""

import unicodedata
from pathlib import Path

from p2psync.engine.ignore import halves_of, is_by_work
from p2psync.store import copies, paths
from p2psync.store.books import Books
from p2psync.store.locations import Location
from p2psync.store.spots import Spot
from p2psync.values.names import RelPath


def locate(books: Books, where: Path) -> Spot | None:
    """The spot that a path on the disk is, or None when it is none of ours (our own work, a lock file, a conflict copy).

    Raises:
        BadPath: it is inside an attached folder, but its name cannot be shared.
    """
    half = None
    for location in books.locations().values():
        if location.single:
            if where == location.path:
                return Spot(location.name, ())
            if where.parent == location.path.parent and where.name in halves_of(location.path.name):
                half = Spot(location.name, ())
        elif (disk := names_below(location.path, where)) is not None:
            if any(map(is_by_work, disk)) or composed(disk) in copies_in(books, location):
                return None
            return Spot(RelPath.from_disk(location.name.text, *disk), disk)
    return half


def names_below(folder: Path, where: Path) -> tuple[str, ...] | None:
    """The names from ``folder`` to a path in it, none for the folder itself; None for what is not in it."""
    around, place = str(folder), str(where)
    if place == around:
        return ()
    around = around.rstrip("/") + "/"
    return tuple(place[len(around) :].split("/")) if place.startswith(around) else None


def spell(books: Books, path: RelPath) -> Spot:
    """The spot of a path that may be new here: its nearest known folder as the disk spells it, the rest as it travels."""
    view = paths.get(books.ledger.read(), path)
    if view is not None:
        return Spot(path, view.disk)
    parent = path.parent
    return Spot(path, ()) if parent is None else Spot(path, (*spell(books, parent).disk, path.name))


def copies_in(books: Books, location: Location) -> set[tuple[str, ...]]:
    """The conflict copies that stand in an attached folder, which are no files of their own; their names ``composed``."""
    everything = () if location.single or not copies.some(books.ledger.read()) else copies.everything(books.ledger.read())
    return {composed(copy.disk) for copy in everything if copy.path.top == location.name.text}


def composed(names: tuple[str, ...]) -> tuple[str, ...]:
    """Names in one form (NFC), whichever a disk has given them."""
    return names if all(map(str.isascii, names)) else tuple(unicodedata.normalize("NFC", name) for name in names)
