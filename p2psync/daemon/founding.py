"""Mandates come to a machine: founded here, shared, or joined with a ticket. Each act is refused as a whole or done as a whole."""

import pwd
from pathlib import Path
from typing import TYPE_CHECKING, Any

import trio

from p2psync.daemon.attachments import described
from p2psync.daemon.waiting import until
from p2psync.edge.caller import Caller
from p2psync.store import attaching
from p2psync.store.mandatefolder import check_place, default_place, make_folder
from p2psync.values.errors import BadName, UserError
from p2psync.values.names import escaped, label
from p2psync.values.ticket import Ticket

if TYPE_CHECKING:
    from p2psync.daemon.mandate import Mandate
    from p2psync.daemon.office import Office

SUBSCRIBE_S = 15.0
"""How long a subscription is waited for; afterwards it goes on by itself."""


class NameTaken(UserError):
    """There is a mandate “{name}” on this machine already. Choose another name; nothing was changed."""


class AlreadyRegistered(UserError):
    """The mandate “{name}” of this ticket is open on this machine already. The ticket is for another machine; nothing was changed."""


def full_name(caller: Caller) -> str:
    """The person behind a user account: the name in its entry, or the account's own."""
    try:
        gecos = pwd.getpwuid(caller.uid).pw_gecos.partition(",")[0].strip()
        return label(gecos or caller.user or f"user {caller.uid}")
    except (KeyError, BadName):
        return label(caller.user or f"user {caller.uid}")


async def create(
    office: "Office", name: str, wanted: list[Path], folder: Path | None, person: str | None, caller: Caller
) -> dict[str, Any]:
    """Found a mandate, local to this machine, with files attached; ``person`` is its owner's name, by default the caller's."""
    name = label(name, 128)
    person = full_name(caller) if person is None else label(person)
    if any(books.name.casefold() == name.casefold() for books in office.books()):
        raise NameTaken(name=escaped(name))
    place = await trio.to_thread.run_sync(_folder, office, name, folder)
    books = await trio.to_thread.run_sync(office.home.found, name, person, office.device_name, office.platform, place)
    try:
        _, found = (
            await trio.to_thread.run_sync(attaching.attach, books, office.books(), office.config.home, wanted, caller.user)
            if wanted
            else ([], [])
        )
    except BaseException:
        await trio.to_thread.run_sync(office.home.abandon, books)
        raise
    await trio.to_thread.run_sync(make_folder, place)
    mandate = await office.open(books)
    shown = ", ".join(f"“{n}”" for n, _ in found)
    attached = f" with {shown}{await described(found)}" if found else ""
    return {
        "message": f"The mandate “{name}” was created{attached}.",
        "mandate": {"id": mandate.id.hex(), "name": name},
        "folder": str(place),
    }


async def share(office: "Office", mandate: "Mandate") -> dict[str, Any]:
    """Make a mandate known to its members on the network, and joinable."""
    name = mandate.books.name
    if mandate.books.shared:
        return {"message": f"“{name}” is shared already."}
    attaching.check_may_write(mandate.books)
    await trio.to_thread.run_sync(mandate.books.ledger.put, "shared", b"1")
    office.members_changed()
    office.changed(mandate.id)
    return {"message": f"“{name}” is shared: it can now be joined with a ticket."}


async def subscribe(office: "Office", text: str, folder: Path | None, person: str | None) -> dict[str, Any]:
    """Use a ticket: the mandate opens here as soon as any of its members is reachable."""
    ticket = Ticket.parse(text.encode())
    if ticket.mandate in office.mandates:
        raise AlreadyRegistered(name=escaped(ticket.name))
    if ticket.invite not in office.joinings:
        ticket.check_time(office.now_ms())
        name = label(ticket.invitation.facts.label if person is None else person)
        place = await trio.to_thread.run_sync(_folder, office, ticket.name, folder)
        joining = await trio.to_thread.run_sync(
            office.home.begin_joining, ticket, text.encode(), name, office.device_name, office.platform, place
        )
        event = office.begin_joining(joining)
    else:
        joining = office.joinings[ticket.invite]
        event = office.begin_joining(joining)
    with trio.move_on_after(SUBSCRIBE_S):
        await event.wait()
    refusal = office.refusals.pop(ticket.invite, None)
    mandate = office.mandates.get(ticket.mandate)
    facts = {"mandate": {"id": ticket.mandate.hex(), "name": ticket.name}, "folder": str(joining.folder), "opened": mandate is not None}
    if mandate is not None:
        with trio.move_on_after(5):
            await until(office, lambda: mandate.books.me is not None and mandate.idle)
        return {"message": f"“{ticket.name}” is open on this machine.", **facts}
    if refusal is not None:
        raise refusal
    return {
        "message": f"No machine of “{ticket.name}” answers yet. It opens here by itself as soon as one of them, for instance that of"
        f" {ticket.issuer_name}, is on and in the same network.",
        **facts,
    }


def _folder(office: "Office", name: str, asked: Path | None) -> Path:
    """Where the files of a mandate appear on this machine; checked, not made."""
    folder = asked or default_place(name, office.config.folders)
    check_place(folder, office.config.home, office.books())
    return folder
