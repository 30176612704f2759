"""Choosing versions: conflicts and their resolution, history, and bringing an old version back."""

import time
from pathlib import Path
from typing import NamedTuple

from p2psync.engine.heads import Head, Heads
from p2psync.engine.reconcile import Agreed
from p2psync.store import checking, copies, listings, paths, retaining, versions
from p2psync.store.attaching import check_may_write
from p2psync.store.books import Books
from p2psync.store.sources import Sources
from p2psync.store.versions import Version
from p2psync.values.content import Content, File, Listing
from p2psync.values.entry import Act, Entry, Op, entry_for
from p2psync.values.errors import BadPath, UserError
from p2psync.values.names import DeviceId, RelPath, escaped
from p2psync.values.record import Record


class NoConflict(UserError):
    """There is no conflict about “{name}” in “{mandate}”. “p2psync conflicts” lists those there are."""


class NoSuchVersion(UserError):
    """“{name}” has no version “{version}”. “p2psync history” lists the versions."""


class VersionIsDeletion(UserError):
    """Version {version} of “{name}” is its deletion, so that there is nothing to bring back. Take an earlier one; nothing was changed."""


class NotOneOf(UserError):
    """In the conflict about “{name}”, {mine} of the versions are yours and {theirs} are not, so that “{keep}” does not say which. Give one
    as “p2psync conflicts” prints it.
    """


class AmbiguousVersion(UserError):
    """More than one version of “{name}” begins with “{version}”. Give more of its letters."""


class NoSuchFile(UserError):
    """“{name}” is not in “{mandate}”, and never was. “p2psync status” and “p2psync history” show the names."""


class VersionNotHere(UserError):
    """That version of “{name}” is not on this machine any more, and no machine that is online has it. Try again when {person}’s machine
    is on.
    """


class VersionDropped(UserError):
    """That version of “{name}” was let go on this machine by its policy ({when}), and no machine that is online has it. Try again when
    another one is on; its policy may have kept it.
    """


class Standing(NamedTuple):
    """One version in a conflict: where it is on this machine."""

    version: Version
    head: Head
    here: bool
    copy: Path | None


def known_path(books: Books, name: str) -> RelPath:
    """The path that a person calls ``name``. Raises: NoSuchFile."""
    try:
        path = RelPath(name)
    except BadPath:
        path = None
    if path is None or not versions.history(books.ledger.read(), path):
        raise NoSuchFile(name=escaped(name), mandate=escaped(books.name))
    return path


def standing(books: Books, path: RelPath, heads: Heads) -> list[Standing]:
    """The versions in the conflict about ``path``, the one that stands at the path first."""
    db = books.ledger.read()
    view = paths.get(db, path)
    beside = {copy.digest: copy for copy in copies.of_path(db, path)}
    location = books.locations().get(RelPath(path.top))
    found = []
    for head in (heads.winner, *heads.others):
        here = view is not None and view.agreed is not None and head.ref in view.agreed.refs
        copy = beside.get(head.state.content.digest) if isinstance(head.state, File) else None
        where = location.root.joinpath(*copy.disk) if copy and location else None
        found.append(Standing(versions.version_of(db, head.ref), head, here, where))
    return found


def resolve(books: Books, name: str, keep: str, by: str) -> tuple[list[Record], set[RelPath]]:
    """Record the choice between the versions of a conflict, for everybody.

    ``keep`` is "mine" (this machine's), "theirs" (somebody else's), "both" (each under a name of its own) or the name of a version.

    Raises:
        NoConflict, NoSuchVersion, AmbiguousVersion, NotOneOf, OnlyRead.
    """
    check_may_write(books)
    path = known_path(books, name)
    with books.writing() as db:
        heads = versions.heads(db, path)
        if not heads.others:
            raise NoConflict(name=escaped(name), mandate=escaped(books.name))
        everything = standing(books, path, heads)
        chosen = everything[0].head if keep == "both" else _choose(books, everything, keep, name)
        entries = [_again(books, path, chosen, heads, Act.RESOLVE, by)]
        touched = {path}
        if keep == "both":
            for other in everything[1:]:
                made = _on_its_own(books, path, other, by)
                entries += made
                touched |= {entry.path for entry in made}
        return [record for record, _ in books.record(entries)], touched


def _choose(books: Books, everything: list[Standing], keep: str, name: str) -> Head:
    mine = [one.head for one in everything if one.version.device == books.keys.device]
    theirs = [one.head for one in everything if one.version.device != books.keys.device]
    if keep == "mine" and len(mine) == 1:
        return mine[0]
    if keep == "theirs" and len(theirs) == 1:
        return theirs[0]
    if keep in ("mine", "theirs"):
        raise NotOneOf(name=escaped(name), mine=len(mine), theirs=len(theirs), keep=keep)
    found = [one.head for one in everything if one.version.short.startswith(keep.lower())]
    if len(found) != 1:
        raise (AmbiguousVersion if found else NoSuchVersion)(name=escaped(name), version=escaped(keep))
    return found[0]


def _again(books: Books, path: RelPath, head: Head, heads: Heads, act: Act, by: str) -> Entry:
    """The content of ``head`` as a new version that supersedes all heads."""
    old = versions.entry(books.ledger.read(), head.ref)
    mtime = old.mtime_ns if old else 0
    return entry_for(path, head.state, mtime_ns=mtime, parents=tuple(sorted(heads.refs)), act=act, by=by)


def _on_its_own(books: Books, path: RelPath, other: Standing, by: str) -> list[Entry]:
    """The entries that give a version of a conflict a name of its own: that of its copy."""
    intro = books.roster.intro(other.version.device)
    person = intro.person if intro else other.version.device.hex()[:8]
    name = copies.copy_name(path.name, person, other.version.time_ms)
    single = path.parent is None
    if other.copy is not None:
        name = other.copy.name
    own = RelPath.from_disk(*path.parts[:-1], name)
    content = entry_for(own, other.head.state, mtime_ns=other.version.entry.mtime_ns, act=Act.RESOLVE, by=by)
    return [Entry(Op.ATTACH_FILE, own, act=Act.ATTACH, by=by), content] if single else [content]


def restore(books: Books, name: str, version: str | None, by: str) -> tuple[list[Record], set[RelPath]]:
    """Bring a version back, as the newest one for everybody.

    Without a ``version`` it is the one that should stand there: for a file that vanished, or was changed by a reader.

    Raises:
        NoSuchFile, NoSuchVersion, AmbiguousVersion, VersionIsDeletion, OnlyRead.
    """
    path = known_path(books, name)
    chosen = _with_content(books, path, version)
    with books.writing() as db:
        heads = versions.heads(db, path)
        view = paths.get(db, path)
        if version is None or (chosen.head and len(heads.all) == 1):
            if view is not None:  # what stands there counts as agreed, so that the version takes its place
                if path in checking.damaged(books):
                    view = checking.as_it_is(books, view)
                here = view.observed
                agreed = None if here is None else Agreed(here.state, frozenset(), frozenset())
                paths.put(db, paths.PathView(path, view.disk, here, agreed))
            return [], {path}
        check_may_write(books)
        head = Head(chosen.ref, chosen.entry.state, mtime_ns=chosen.entry.mtime_ns)
        records = [record for record, _ in books.record([_again(books, path, head, heads, Act.RESTORE, by)])]
        if view is not None and view.observed is None:
            paths.put(db, paths.PathView(path, view.disk, None, None))
        return records, {path}


def content_of(books: Books, name: str, version: str | None) -> Content:
    """What a version holds, wherever its bytes may be.

    Raises:
        NoSuchFile, NoSuchVersion, AmbiguousVersion, VersionIsDeletion.
    """
    content = _with_content(books, known_path(books, name), version).entry.content
    assert content is not None
    return content


def bytes_of(books: Books, sources: Sources, name: str, version: str | None) -> Listing:
    """The chunks of a version, all of which are on this machine.

    Raises:
        NoSuchFile, NoSuchVersion, AmbiguousVersion, VersionIsDeletion, VersionNotHere, VersionDropped.
    """
    path = known_path(books, name)
    chosen = _with_content(books, path, version)
    content = chosen.entry.content
    listing = listings.get(books.ledger.read(), content) if content and sources.complete(content) else None
    if listing is None:
        at_ms = retaining.dropped(books.ledger.read(), content.digest) if content else None
        if at_ms is not None:
            raise VersionDropped(name=path, when=time.strftime("%Y-%m-%d", time.localtime(at_ms / 1000)))
        raise VersionNotHere(name=path, person=person_of(books, chosen.device))
    return listing


def _with_content(books: Books, path: RelPath, name: str | None) -> Version:
    chosen = _version(books, path, name)
    if chosen.entry.content is None:
        raise VersionIsDeletion(name=path, version=chosen.short)
    return chosen


def _version(books: Books, path: RelPath, name: str | None) -> Version:
    db = books.ledger.read()
    if name is None:
        heads = versions.heads(db, path)
        if not heads.all:
            raise NoSuchVersion(name=path, version="")
        return versions.version_of(db, heads.winner.ref)
    found = [v for v in versions.history(db, path) if v.entry.path == path and not v.entry.attaches and v.short.startswith(name.lower())]
    if len(found) != 1:
        raise (AmbiguousVersion if found else NoSuchVersion)(name=path, version=escaped(name))
    return found[0]


def person_of(books: Books, device: DeviceId) -> str:
    """Who works on a device, as it last introduced itself."""
    intro = books.roster.intro(device)
    return intro.person if intro else device.hex()[:8]
