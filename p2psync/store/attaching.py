"""Attaching and detaching: what may become part of a mandate on this machine, and what must not.

A path belongs to one attachment of one mandate at most; nothing of p2psync's own is shared; names that another system could not
store are refused here, where a person can still choose another one.
"""

import os
import stat
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path

from p2psync.engine.ignore import database_of, is_by_work
from p2psync.engine.reconcile import Agreed
from p2psync.store import paths, sqlitefile, versions
from p2psync.store.books import Books
from p2psync.store.faults import read_fault
from p2psync.store.lasting import make_place_lasting
from p2psync.store.locations import Location
from p2psync.store.paths import PathView
from p2psync.store.root import FolderGone, Root, RootGone
from p2psync.values.content import Gone
from p2psync.values.entry import Act, Entry, Op
from p2psync.values.errors import BadPath, UserError
from p2psync.values.names import PREFIX, RelPath, escaped
from p2psync.values.record import Record


class NothingThere(UserError):
    """There is nothing at “{path}”. Check the name; nothing was changed."""


class NoFileOrFolder(UserError):
    """“{path}” is {what}, and only files and folders can be attached. Attach the file or folder itself; nothing was changed."""


class NameUnfit(UserError):
    """“{name}” cannot be attached under that name: {why}. Rename it, then attach it; nothing was changed."""


class PathUnfit(UserError):
    """“{path}” cannot be used: one of its names is not valid Unicode. Rename that folder; nothing was changed."""


class ByWork(UserError):
    """“{name}” is a file that a program makes for itself while it works, and is never shared. Attach the document itself; nothing was
    changed.
    """


class AlreadyAttached(UserError):
    """“{path}” is already attached to “{mandate}”{as_name}. Nothing was changed."""


class ClaimedElsewhere(UserError):
    """“{path}” belongs to the mandate “{mandate}” already, and a file can be in one mandate only. Detach it there first; nothing was
    changed.
    """


class ContainsAttached(UserError):
    """“{path}” contains “{inner}”, which is attached to “{mandate}” already. Detach that first, or attach another folder; nothing was
    changed.
    """


class NamedTwice(UserError):
    """“{path}” is named twice. Name it once; nothing was changed."""


class NamedInside(UserError):
    """“{inner}” is inside “{outer}”, which you named as well. Name only one of them; nothing was changed."""


class OwnFolder(UserError):
    """“{path}” belongs to what p2psync keeps for itself, or contains it, and that is never shared. Attach something else; nothing was
    changed.
    """


class NameOnlyDiffers(UserError):
    """“{name}” and the attached “{other}” differ only by case or accents; on some machines they would be one file. Rename one; nothing
    was changed.
    """


class NotAttached(UserError):
    """Nothing called “{name}” is attached to “{mandate}”. “p2psync status” shows the names."""


class InsideAttached(UserError):
    """“{name}” is part of the attached folder “{top}” and cannot be taken out alone. Detach “{top}”, or move the file to another folder."""


class OnlyRead(UserError):
    """Your role in “{mandate}” is reader, which does not allow that. Ask {owners} for the role of editor; nothing was changed."""


def attach(
    books: Books, others: Iterable[Books], home: Path, wanted: list[Path], by: str
) -> tuple[list[Record], list[tuple[RelPath, Path]]]:
    """Attach these paths to the mandate, all or none; returns the records, and the names they are attached under.

    Raises:
        UserError: one of them cannot be attached, with the reason.
    """
    check_may_write(books)
    attached = {name: books.folder / name.text for name in books.attachments()}
    attached |= _places(books)
    found: list[tuple[RelPath, Path]] = []
    for path in wanted:
        _kind(path)
        _check_own(path, home)
        _check_whole(path)
        _check_claims(path, books, others, [place for _, place in found])
        name = _name_for(path, attached)
        check_text(path)
        attached[name] = path
        found.append((name, path))
        _check_readable(path)
        make_place_lasting(path)
    with books.writing() as db:
        entries = []
        for name, path in found:
            single = _kind(path) == "file"
            parents = tuple(sorted(ref for ref, _ in versions.attachment_heads(db, name)))
            entries.append(Entry(Op.ATTACH_FILE if single else Op.ATTACH_FOLDER, name, parents=parents, act=Act.ATTACH, by=by))
            if name in books.locations():  # of an earlier attachment of that name, which nothing was done about yet
                books.unplace(name)
            taken_up = _take_up(books, name)
            identity = None if single or taken_up else Root(path).identity
            books.place(Location(name, "file" if single else "folder", path, identity))
        records = [record for record, _ in books.record(entries)]
    return records, found


def _take_up(books: Books, name: RelPath) -> bool:
    """What was recorded under the name before it was detached is what the new content supersedes; whether there is any."""
    found = False
    with books.writing() as db:
        for path in [name, *versions.live_paths(db, name)]:
            heads = versions.heads(db, path)
            found = found or bool(heads.all)
            if heads.all and paths.get(db, path) is None:
                disk = path.parts[1:]
                paths.put(db, PathView(path, disk, None, Agreed(Gone(), heads.refs, frozenset())))
    return found


COUNTED = 50_000
"""Files that are counted right after they were attached; whoever attaches more is told that there are more."""


def amount(places: Iterable[Path]) -> tuple[int, int, bool]:
    """How many files are at these places or in these folders, their bytes, and whether all were counted. A look, and no more."""
    files = size = 0
    for place in places:
        found = [str(place)] if not place.is_dir() else (os.path.join(at, name) for at, _, names in os.walk(place) for name in names)
        for name in found:
            if files == COUNTED:
                return files, size, False
            if not is_by_work(os.path.basename(name)):
                with suppress(OSError):
                    status = os.lstat(name)
                    files, size = files + stat.S_ISREG(status.st_mode), size + status.st_size * stat.S_ISREG(status.st_mode)
    return files, size, True


def detach(books: Books, name: str, by: str) -> list[Record]:
    """Take an attachment out for everybody; nothing is deleted on any disk.

    Raises:
        NotAttached, OnlyRead.
    """
    check_may_write(books)
    path = attached_name(books, name)
    with books.writing() as db:
        parents = tuple(sorted(ref for ref, _ in versions.attachment_heads(db, path)))
        return [record for record, _ in books.record([Entry(Op.DETACH, path, parents=parents, act=Act.DETACH, by=by)])]


def attached_name(books: Books, name: str) -> RelPath:
    """The attachment that a person calls ``name``. Raises: NotAttached."""
    try:
        path = RelPath(name)
    except BadPath:
        path = None
    if path is None or path not in books.attachments():
        top = RelPath(path.top) if path is not None else None
        if path is not None and top in books.attachments() and versions.heads(books.ledger.read(), path).all:
            raise InsideAttached(name=path, top=top)
        raise NotAttached(name=escaped(name), mandate=escaped(books.name))
    return path


def check_may_write(books: Books) -> None:
    """Raises: OnlyRead when this machine's changes would not count."""
    if not books.may_write:
        raise OnlyRead(mandate=escaped(books.name), owners=books.roster.owners)


def check_text(path: Path) -> None:
    """Raises: PathUnfit when the path is not Unicode, so that it could not be written down or shown."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        raise PathUnfit(path=escaped(str(path))) from None


_WHAT = {
    stat.S_IFLNK: "a link",
    stat.S_IFIFO: "a pipe between programs",
    stat.S_IFSOCK: "a door between programs",
    stat.S_IFBLK: "a device",
    stat.S_IFCHR: "a device",
}


def _kind(path: Path) -> str:
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        raise NothingThere(path=escaped(str(path))) from None
    except OSError as e:
        raise read_fault(e, path) from e
    if stat.S_ISREG(mode):
        return "file"
    if stat.S_ISDIR(mode):
        return "folder"
    raise NoFileOrFolder(path=escaped(str(path)), what=_WHAT.get(stat.S_IFMT(mode), "something else"))


def _check_readable(path: Path) -> None:
    try:
        os.close(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC))
    except OSError as e:
        raise read_fault(e, path) from e


def _check_own(path: Path, home: Path) -> None:
    real, own = Path(os.path.realpath(path)), Path(os.path.realpath(home))
    if real == own or own in real.parents or real in own.parents:
        raise OwnFolder(path=escaped(str(path)))


def _check_claims(path: Path, books: Books, others: Iterable[Books], also: list[Path]) -> None:
    real = Path(os.path.realpath(path.parent)) / path.name
    claims = [(other, name, place) for other in [books, *others] for name, place in _places(other).items()]
    for other, name, place in claims:
        claimed = Path(os.path.realpath(place.parent)) / place.name
        here = escaped(other.name)
        if claimed == real and other is books:
            raise AlreadyAttached(path=escaped(str(path)), mandate=here, as_name=f" as “{name}”" if name.text != path.name else "")
        if claimed == real or claimed in real.parents:
            if other is books:
                raise AlreadyAttached(path=escaped(str(path)), mandate=here, as_name=f", inside “{name}”")
            raise ClaimedElsewhere(path=escaped(str(path)), mandate=here)
        if real in claimed.parents:
            raise ContainsAttached(path=escaped(str(path)), inner=escaped(str(place)), mandate=here)
    for earlier in also:
        named = Path(os.path.realpath(earlier.parent)) / earlier.name
        if named == real:
            raise NamedTwice(path=escaped(str(path)))
        if real in named.parents or named in real.parents:
            outer, inner = (path, earlier) if real in named.parents else (earlier, path)
            raise NamedInside(inner=escaped(str(inner)), outer=escaped(str(outer)))


def _places(books: Books) -> dict[RelPath, Path]:
    """Where the attachments are on this disk; what was just detached has no claim to its place any more."""
    attached = books.attachments()
    return {name: location.path for name, location in books.locations().items() if name in attached}


def _name_for(path: Path, attached: Mapping[RelPath, Path]) -> RelPath:
    """The name of the file or folder itself, or, when one in another folder bears it already, that with a number."""
    name = _fit(path.name, path.name)
    for number in range(2, 1000):
        other = attached.get(name)
        if other is None:
            break
        if other.parent == path.parent:  # one beside the other, in two spellings of Unicode that look the same
            raise NameOnlyDiffers(name=escaped(path.name), other=escaped(other.name))
        stem, dot, ending = path.name.rpartition(".")
        name = _fit(path.name, f"{stem} ({number}).{ending}" if stem and dot else f"{path.name} ({number})")
    namesake = next((other for other in attached if other.fold == name.fold and other != name), None)
    if namesake is not None:
        raise NameOnlyDiffers(name=name, other=namesake)
    return name


def _check_whole(path: Path) -> None:
    """Raises: ByWork: it is only a part of a database."""
    if database_of(path.name) is None:
        return
    try:
        with Root(path.parent).dir_fd(()) as folder:
            part = sqlitefile.belongs(folder, path.name)
    except (RootGone, FolderGone):
        return
    if part:
        raise ByWork(name=escaped(path.name))


def _fit(own: str, name: str) -> RelPath:
    if is_by_work(own) and not own.startswith(PREFIX):
        raise ByWork(name=escaped(own))
    try:
        return RelPath.from_disk(name)
    except BadPath as e:
        raise NameUnfit(name=escaped(own), why=e.facts["why"]) from None
