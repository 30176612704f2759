"""What people do with the attachments of a mandate: put files and folders in, take them out, let a halt go on."""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import trio

from p2psync.store import attaching, resuming
from p2psync.store.spots import Spot
from p2psync.values.amounts import amount
from p2psync.values.errors import UserError
from p2psync.values.names import RelPath, escaped

if TYPE_CHECKING:
    from p2psync.daemon.mandate import Mandate
    from p2psync.daemon.office import Office


class OtherFolder(UserError):
    """{location} holds other files than it did, which p2psync does not replace; nothing was changed. Move that folder away, put an empty
    one in its place, and say this once more.
    """


class NothingHalted(UserError):
    """Nothing called “{name}” waits for a confirmation in “{mandate}”. “p2psync status” shows what does; nothing was changed."""


async def attach(office: "Office", mandate: "Mandate", wanted: list[Path], by: str) -> dict[str, Any]:
    """Attach files and folders."""
    others = [books for books in office.books() if books is not mandate.books]

    def work() -> list[tuple[RelPath, Path]]:
        records, found = attaching.attach(mandate.books, others, office.config.home, wanted, by)
        mandate.note_new(records)
        return found

    found = await mandate.between_rounds(work)
    mandate.look_over({name for name, _ in found})
    renamed = [f"{path} is called “{name}” there" for name, path in found if name != RelPath.from_disk(path.name)]
    shown = ", ".join(f"“{name}”" for name, _ in found)
    what = f"{shown} {'is' if len(found) == 1 else 'are'} attached to “{mandate.books.name}”{await described(found)}."
    return {
        "message": what + "".join(f" {r}." for r in renamed),
        "attached": [{"name": name.text, "location": str(path)} for name, path in found],
    }


async def described(found: list[tuple[RelPath, Path]]) -> str:
    """“: 12 files, 3.0 MB”, when there is a folder among what was attached."""

    def work() -> str:
        files, size, whole = attaching.amount([path for _, path in found])
        return f": {'' if whole else 'more than '}{amount(files, size)}"

    return await trio.to_thread.run_sync(work)


async def detach(office: "Office", mandate: "Mandate", name: str, by: str) -> dict[str, Any]:
    """Take an attachment out for everybody."""
    location = mandate.books.locations().get(attaching.attached_name(mandate.books, name))

    def work() -> None:
        mandate.note_new(attaching.detach(mandate.books, name, by))

    await mandate.between_rounds(work)
    mandate.retry({RelPath(name)})
    where = f" It stays on this machine at {location.path}." if location else ""
    return {"message": f"“{name}” is detached from “{mandate.books.name}” for everybody; nothing was deleted on any disk.{where}"}


def bring_back(mandate: "Mandate", name: RelPath) -> set[RelPath]:
    """What vanished or went back in a halted attachment was not meant: the paths to decide about. Raises: OtherFolder."""
    location = mandate.books.locations()[name]
    if location.halted == "root-differs":
        raise OtherFolder(location=escaped(str(location.path)))
    found = mandate.work.setbacks.bring_back(location)
    return found if location.single else found | mandate.look.bring_back(name)


def _confirm(mandate: "Mandate", name: RelPath) -> tuple[set[Spot], set[RelPath]]:
    """In a thread: the spots to look at, and the paths to decide about."""
    location = mandate.books.locations()[name]
    spots = set() if location.single else mandate.look.confirm(name)
    return spots, mandate.work.setbacks.confirm(location)


async def confirm(mandate: "Mandate", name: str) -> dict[str, Any]:
    """Go on after a halt: what vanished was meant to be deleted."""
    halted = {n for n, location in mandate.books.locations().items() if location.halted}
    chosen = halted if name == "halt" else {n for n in halted if n.text == name}
    if not chosen and name == "machine" and mandate.books.keys.device in resuming.open_questions(mandate.books):
        await mandate.between_rounds(lambda: mandate.note_new([resuming.answer(mandate.books)]))
        return {"message": f"Confirmed: one machine works with these keys in “{mandate.books.name}”; the others are told."}
    if not chosen:
        raise NothingHalted(name=escaped(name), mandate=escaped(mandate.books.name))
    for one in chosen:
        spots, paths = await mandate.between_rounds(partial(_confirm, mandate, one))
        mandate.retry(paths)
        mandate.look_at(spots)
        mandate.look_over({one})
    shown = ", ".join(f"“{one}”" for one in sorted(chosen))
    return {"message": f"Confirmed: {shown} is for everybody as it is here; the versions before stay in the history."}
