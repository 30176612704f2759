"""“p2psync why”: collects what is so now about one name and what the journal says of it; the sentences are those of engine/story.

It reads the ledger in a thread and the state of the links beside it, and changes nothing.
"""

import os
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from p2psync.daemon import status
from p2psync.engine.attention import ORDER, THIS_MACHINE, Attention
from p2psync.engine.concerns import told
from p2psync.engine.story import Author, Happening, Heard, What, connected, everywhere, for_work, holding, told_of
from p2psync.store import addresses, journal, openfiles, paths, resolving, versions
from p2psync.store.books import Books
from p2psync.store.finding import Found, find
from p2psync.store.locations import Location
from p2psync.store.root import Root
from p2psync.store.versions import Version
from p2psync.values.entry import Op
from p2psync.values.errors import P2psyncError
from p2psync.values.names import DeviceId, RelPath, escaped

if TYPE_CHECKING:
    from p2psync.daemon.mandate import Mandate
    from p2psync.daemon.office import Office

LATEST = 20
"""So many happenings are told unless all are asked for."""
MOST = 2000
"""And so many then."""


@dataclass
class _Read:
    """What the ledger and the disk say of a name."""

    found: Found
    story: list[Version] = field(default_factory=list)
    parents: dict[str, tuple[str, ...]] = field(default_factory=dict)
    more: int = 0
    newest: int = 0
    current: tuple[Version, ...] = ()
    here: dict[str, Any] = field(default_factory=dict)
    standing: list[resolving.Standing] = field(default_factory=list)
    holds: tuple[str, ...] = ()
    altered: bool = False
    met: dict[DeviceId, int] = field(default_factory=dict)
    knew: set[DeviceId] = field(default_factory=set)


async def why(office: "Office", mandate: "Mandate", asked: str, everything: bool) -> dict[str, Any]:
    """All that is known about ``asked``: a name as the status prints it, or the whole path of a file on this disk. Raises: NotKnown."""
    await mandate.reckoning.counted()
    attention = set(mandate.attention)
    read = await mandate.in_thread(partial(_read, mandate.books, asked, attention, MOST if everything else LATEST))
    machines = _machines(office, mandate, read)
    happenings = connected([_happening(mandate, version, read) for version in read.story])
    known = {one.version: one for one in happenings}
    about = read.found.path.text if read.found.path else read.found.shown
    return {
        "mandate": {"id": mandate.id.hex(), "name": mandate.books.name},
        "name": read.found.shown,
        "asked": asked,
        "now": _now(mandate, read, machines),
        "here": read.here,
        "awaited": _awaited(mandate, read, machines),
        "machines": machines,
        "versions": [_version(mandate, one) for one in read.standing],
        "story": [told_of(one, known, about) for one in happenings],
        "more": read.more,
    }


# ---- what is read in a thread


def _read(books: Books, asked: str, attention: set[str], most: int) -> _Read:
    found = find(books, asked, attention)
    read = _Read(found)
    if found.path is None or found.kind in ("work-file", "own-file"):
        return read
    db = books.ledger.read()
    read.story = versions.latest(db, found.path, most)
    read.more = max(versions.how_many(db, found.path) - len(read.story), 0)
    parents = versions.parents(db, [version.ref for version in read.story])
    read.parents = {versions.version_name(ref): tuple(map(versions.version_name, refs)) for ref, refs in parents.items()}
    read.newest = versions.last_number(db, found.path)
    read.current = tuple(versions.version_of(db, head.ref) for head in versions.heads(db, found.path).all)
    if len(read.current) > 1:
        read.standing = resolving.standing(books, found.path, versions.heads(db, found.path))
    read.met = addresses.last_met(db)
    read.knew = {device for device in books.roster.members() if _knew(books, device, read.current)}
    view = paths.get(db, found.path)
    read.holds = tuple(sorted(map(versions.version_name, view.agreed.refs))) if view and view.agreed else ()
    read.altered = bool(view and view.agreed and view.observed and view.observed.state != view.agreed.state)
    location = books.locations().get(RelPath(found.path.top))
    if location is not None:
        disk = found.copy.disk if found.copy else location.parts(view.disk if view else found.path.parts[1:])
        read.here = _here(books, location, disk, found)
    return read


def _knew(books: Books, device: DeviceId, current: tuple[Version, ...]) -> bool:
    """Whether the last that a device recorded stands on the current version."""
    pasts = [end.past for (author, _), end in books.journal.ends.items() if author == device]
    for version in current:
        log, seq, _ = journal.past_of(books.ledger.read(), version.ref.record)
        if not any(past.get(log, 0) >= seq for past in pasts):
            return False
    return bool(current)


def _here(books: Books, location: Location, disk: tuple[str, ...], found: Found) -> dict[str, Any]:
    """Where it lies on this machine, how large it is, and whether a program holds it open."""
    where = location.root.joinpath(*disk)
    usual = books.folder.joinpath(*(found.path.parts if found.path else ()))
    here: dict[str, Any] = {"location": str(where), "elsewhere": where != usual}
    here |= dict.fromkeys(("size", "kind", "open", "open_since"))
    try:
        root = Root(location.root)
        stamp = root.stamp(disk) if disk else None
        here |= {"size": stamp.size, "kind": stamp.kind} if stamp else {"kind": "folder" if not disk and os.path.isdir(where) else None}
        opened = openfiles.is_open(root, disk) if stamp and stamp.kind == "file" else None
        if opened is not None:
            here |= {"open": str(opened), "open_since": opened.since_ms}
    except P2psyncError:
        pass  # that it is not there, or cannot be read, is among the reasons
    return here


# ---- what is so now


def _now(mandate: "Mandate", read: _Read, machines: list[dict[str, Any]]) -> dict[str, Any]:
    found = read.found
    if found.kind != "shared":
        return {"state": "deleted" if found.kind == "deleted" else "not shared", "who": None, **_not_shared(mandate, read)}
    assert found.path is not None
    noticed = _noticed(mandate, found, found.path, read.newest)
    location = mandate.books.locations().get(RelPath(found.path.top))
    shown, why = noticed if noticed else (found.shown, None)
    now = status.told_of(mandate, shown, why, location)
    if why is None:
        others = [(str(one["machine"]), bool(one["online"]), one["holds"]) for one in machines if not one["self"]]
        now["reason"] = everywhere(found.shown, others)
    return now


def _noticed(mandate: "Mandate", found: Found, path: RelPath, newest: int) -> tuple[str, Attention] | None:
    """What keeps it from being up to date: itself, something in it, or what is wrong with the folder that it is in."""
    notices = mandate.attention
    within = {shown: why for shown, why in notices.items() if shown in (found.shown, path.top) or shown.startswith(found.shown + "/")}
    if within:
        shown, why = min(within.items(), key=lambda pair: (ORDER.index(pair[1].state), pair[0]))
        return shown, status.awaited(mandate, shown, why)
    if mandate.is_reading(RelPath(path.top)) or mandate.reckoning.is_behind(found.shown):
        return found.shown, Attention("being-read", mandate.reading_since_ms())
    sending = status.sending(mandate, found.shown, newest)
    return None if sending is None else (found.shown, sending)


def _not_shared(mandate: "Mandate", read: _Read) -> dict[str, Any]:
    """Why something is not shared, or not any more."""
    found, name = read.found, mandate.books.name
    last = read.story[0] if read.story else None
    since = last.time_ms if last else None
    match found.kind:
        case "detached":
            attaching = next((version for version in read.story if version.entry.attaches), None)
            people = mandate.person(attaching.device) if attaching else ""
            return told("detached", since_ms=attaching.time_ms if attaching else since, path=found.shown, mandate=name, people=people)
        case "deleted":
            held = next((version.short for version in read.story if version.entry.content is not None), "")
            people = mandate.person(last.device) if last else ""
            return told("deleted", since_ms=since, path=found.shown, mandate=name, people=people, version=held)
        case "conflict-copy":
            author = next((version for version in read.current if found.copy and version.ref == found.copy.ref), None)
            people = mandate.person(author.device) if author else ""
            return told("conflict-copy", since_ms=since, asked=found.asked, path=found.shown, mandate=name, people=people)
        case "unfit-name":
            return told("unfit-name", path=escaped(found.shown), why=found.why)
        case "work-file":
            return told("work-file", path=escaped(found.shown), kind=for_work(found.shown.rpartition("/")[2]))
        case "own-file":
            return told("own-file", path=escaped(found.shown))
    return told("not-recorded", path=found.shown)


def _awaited(mandate: "Mandate", read: _Read, machines: list[dict[str, Any]]) -> dict[str, Any] | None:
    """What is still to come: how many bytes of how many, and who has it."""
    lack = mandate.fetcher.lack(read.found.shown)
    if lack is None:
        return None
    having = [str(one["machine"]) for one in machines if not one["self"] and one["holds"] == "current"]
    online = [str(one["machine"]) for one in machines if not one["self"] and one["online"]]
    return {"bytes": lack[0], "of": lack[1], "have_it": having, "online": online, "nobody": mandate.fetcher.nobody_has(read.found.shown)}


def _version(mandate: "Mandate", one: resolving.Standing) -> dict[str, Any]:
    """One version of a conflict, and where it stands on this machine."""
    made, copy = one.version, str(one.copy) if one.copy else None
    where = "stands in its place" if one.here else "stands beside it" if copy else "is not here yet"
    size = made.entry.content.size if made.entry.content else None
    rows = {"version": made.short, "person": mandate.person(made.device), "when_ms": made.time_ms, "size": size, "copy": copy}
    return rows | {"here": one.here, "sentence": where}


# ---- who holds what


def _machines(office: "Office", mandate: "Mandate", read: _Read) -> list[dict[str, Any]]:
    """Each participant's machine, this one first: whether it is online, and what it was last heard to hold."""
    if read.found.path is None or not read.story or read.found.kind == "detached":
        return []
    what = _what(read)
    talking = {conversation.device: conversation for conversation in mandate.conversations}
    authors = {version.device for version in read.current}
    rows = []
    for device in mandate.books.roster.members():
        own, conversation = device == office.device, talking.get(device)
        row: dict[str, Any] = {
            "machine": THIS_MACHINE if own else mandate.machine(device),
            "person": mandate.person(device),
            "self": own,
            "online": own or conversation is not None,
            "last_seen": None if own or conversation is not None else read.met.get(device),
        }
        if own:
            rows.append(row | _own(mandate, read, what))
            continue
        told, lacks = mandate.reckoning.last_heard.get(device, (None, 0))
        if conversation is not None:
            held = conversation.held
            told, lacks = (mandate.books.positions.get(held.view), held.files) if held else (None, 0)
        holds, sentence = holding(Heard(row["online"], told, lacks, read.newest, device in authors, device in read.knew, what))
        rows.append(row | {"holds": holds, "sentence": sentence})
    return sorted(rows, key=lambda row: (not row["self"], str(row["machine"]).casefold()))


def _what(read: _Read) -> What:
    """What a machine should have: a version, the deletion, or (where there are only versions of what is in it) the folder."""
    if not read.current:
        return "folder"
    return "deletion" if all(version.entry.op == Op.GONE for version in read.current) else "version"


def _own(mandate: "Mandate", read: _Read, what: What) -> dict[str, Any]:
    current = {version.short for version in read.current}
    if what == "folder":
        within = [why for shown, why in mandate.attention.items() if f"{shown}/".startswith(f"{read.found.shown}/")]
        behind = any(why.state in ("halted", "missing", "waiting", "receiving") for why in within)
        return {"holds": "older", "sentence": "has not all of it"} if behind else {"holds": "current", "sentence": "has all of it"}
    if what == "version" and read.holds and not read.here.get("kind"):
        return {"holds": "older", "sentence": "had a version of it, and nothing stands in its place now"}
    if read.altered:
        return {"holds": "older", "sentence": "has something else in its place, which is not recorded"}
    if current & set(read.holds):
        several = "has one of the versions in its place" if len(current) > 1 else "has the current version"
        return {"holds": "current", "sentence": "has deleted it too" if what == "deletion" else several}
    return {"holds": "older", "sentence": f"has version {read.holds[0]}" if read.holds else "has no version of it yet"}


def _happening(mandate: "Mandate", version: Version, read: _Read) -> Happening:
    entry, books = version.entry, mandate.books
    intro = books.roster.intro(version.device)
    device = intro.device_name if intro else version.device.hex()[:8]
    author = Author(mandate.person(version.device), device, version.device == books.keys.device)
    content = entry.content
    return Happening(
        version=version.short,
        path=entry.path.text,
        op=entry.op,
        act=entry.act,
        author=author,
        when_ms=version.time_ms,
        digest=content.digest if content else None,
        size=content.size if content else None,
        by=entry.by,
        parents=read.parents.get(version.short, ()),
    )
