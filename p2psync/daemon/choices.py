"""What people choose between versions: conflicts and their resolution, the history, and what is brought back from it."""

from collections.abc import AsyncGenerator
from functools import partial
from typing import TYPE_CHECKING, Any

from p2psync.daemon import attachments
from p2psync.daemon.recalling import recall
from p2psync.edge.http import Download
from p2psync.store import resolving, retaining, versions
from p2psync.values.content import File
from p2psync.values.entry import Act
from p2psync.values.names import RelPath

if TYPE_CHECKING:
    from p2psync.daemon.mandate import Mandate
    from p2psync.daemon.office import Office


def conflicts(office: "Office", mandate: "Mandate") -> list[dict[str, Any]]:
    """The conflicts of a mandate, each with its versions."""
    books = mandate.books
    rows = []
    for path, heads in sorted(versions.conflicted(books.ledger.read()).items()):
        shown = [
            {
                "version": one.version.short,
                "person": mandate.person(one.version.device),
                "device": _device_name(mandate, one.version),
                "when_ms": one.version.time_ms,
                "size": one.head.state.content.size if isinstance(one.head.state, File) else 0,
                "here": one.here,
                "mine": one.version.device == office.device,
                "copy": str(one.copy) if one.copy else None,
            }
            for one in resolving.standing(books, path, heads)
        ]
        rows.append({"mandate": books.name, "name": path.text, "versions": shown})
    return rows


def _device_name(mandate: "Mandate", version: versions.Version) -> str:
    intro = mandate.books.roster.intro(version.device)
    return intro.device_name if intro else version.device.hex()[:8]


async def resolve(mandate: "Mandate", name: str, keep: str, by: str) -> dict[str, Any]:
    """Record the choice between the versions of a conflict, for everybody."""

    def work() -> set[RelPath]:
        records, touched = resolving.resolve(mandate.books, name, keep, by)
        mandate.note_new(records)
        return touched

    mandate.retry(await mandate.between_rounds(work))
    kept = {"mine": "your version", "theirs": "the other version", "both": "both versions"}.get(keep, f"version {keep}")
    return {"message": f"The conflict about “{name}” is resolved for everybody: {kept} {'were' if keep == 'both' else 'was'} kept."}


def history(mandate: "Mandate", name: str | None) -> list[dict[str, Any]]:
    """The versions of a file, or of everything, the latest first."""
    books = mandate.books
    path = resolving.known_path(books, name) if name else None
    db = books.ledger.read()
    rows = []
    for version in versions.history(db, path)[:2000]:
        entry = version.entry
        kept = entry.content is not None and mandate.sources.complete(entry.content)
        rows.append(
            {
                "version": version.short,
                "name": entry.path.text,
                "person": mandate.person(version.device),
                "device": _device_name(mandate, version),
                "when_ms": version.time_ms,
                "size": entry.content.size if entry.content else None,
                "act": _act(version),
                "by": entry.by,
                "current": version.head and not entry.attaches,
                "kept": kept,
                "dropped_ms": None if kept or entry.content is None else retaining.dropped(db, entry.content.digest),
            }
        )
    return rows


def _act(version: versions.Version) -> str:
    return Act(version.entry.act).name.lower()


async def content(mandate: "Mandate", name: str, version: str | None) -> Download:
    """The bytes of a version, for the client to write wherever it may."""
    listing = await mandate.in_thread(partial(resolving.bytes_of, mandate.books, mandate.sources, name, version))

    async def pieces() -> AsyncGenerator[bytes, None]:
        for chunk in listing:
            data = await mandate.in_thread(partial(mandate.sources.chunk, chunk.digest))
            if data is None:  # gone since, with the file that held it
                return
            yield data

    return Download(listing.size, pieces())


async def recalled(mandate: "Mandate", name: str, version: str | None) -> dict[str, Any]:
    """Have a version on this machine, from others if need be, so that its bytes can be had or brought back."""
    wanted = await mandate.in_thread(partial(resolving.content_of, mandate.books, name, version))
    await recall(mandate, wanted)
    listing = await mandate.in_thread(partial(resolving.bytes_of, mandate.books, mandate.sources, name, version))
    return {"message": f"That version of “{name}” is on this machine.", "size": listing.size}


async def restore(mandate: "Mandate", name: str, version: str | None, by: str) -> dict[str, Any]:
    """Bring a version back."""

    halted = next((n for n, location in mandate.books.locations().items() if n.text == name and location.halted), None)
    if halted is not None and version is None:
        mandate.retry(await mandate.between_rounds(partial(attachments.bring_back, mandate, halted)))
        mandate.attention.pop(halted.text, None)  # it is halted no more, though not all of it may be there yet
        mandate.look_over({halted})
        return {"message": f"“{name}” is brought back on this machine to what is shared."}

    if version is not None:
        await recalled(mandate, name, version)

    def work() -> set[RelPath]:
        records, touched = resolving.restore(mandate.books, name, version, by)
        mandate.note_new(records)
        return touched

    mandate.retry(await mandate.between_rounds(work))
    which = f"version {version}" if version else "the shared version"
    before = "what stood there before is in the history" if mandate.books.may_write else "what you had changed in it was never shared"
    return {"message": f"“{name}” is brought back to {which}; {before}."}
