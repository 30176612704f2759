"""The acts of people: founding, attaching, sharing, inviting, subscribing, choosing. Each is refused as a whole or done as a whole."""

import pwd
import shlex
from collections.abc import AsyncGenerator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import trio

from p2psync.edge.caller import Caller
from p2psync.edge.http import Download
from p2psync.engine.attention import ORDER
from p2psync.engine.invitation import draft, ticket_for
from p2psync.store import attaching, resolving, resuming, versions
from p2psync.store.mandatefolder import check_place, default_place, make_folder
from p2psync.store.spots import Spot
from p2psync.values.acts import Grant, Role
from p2psync.values.content import File
from p2psync.values.entry import Act
from p2psync.values.errors import BadName, UserError
from p2psync.values.keys import Secret
from p2psync.values.names import DeviceId, InviteId, RelPath, escaped, label
from p2psync.values.record import Kind
from p2psync.values.ticket import Ticket

if TYPE_CHECKING:
    from p2psync.daemon.mandate import Mandate
    from p2psync.daemon.office import Office

MEETING_S = 10.0
"""Two machines that have just met speak of every mandate they share within this time, or of none that the other still has."""
SUBSCRIBE_S = 15.0
"""How long a subscription is waited for; afterwards it goes on by itself."""


class NameTaken(UserError):
    """There is a mandate “{name}” on this machine already. Choose another name; nothing was changed."""


class NotShared(UserError):
    """“{mandate}” is local to this machine, so nobody can join it. Share it first: {command}"""


class AlreadyRegistered(UserError):
    """The mandate “{name}” of this ticket is open on this machine already. The ticket is for another machine; nothing was changed."""


class UnknownRole(UserError):
    """There is no role “{role}”. A ticket makes an editor or a reader; an owner is made afterwards, with “p2psync promote”."""


class NoSuchParticipant(UserError):
    """Nobody called “{name}” takes part in “{mandate}”. “p2psync participants” lists who does."""


class SeveralParticipants(UserError):
    """Several participants of “{mandate}” are called “{name}”. Give the beginning of the device's fingerprint or id instead."""


class OnlyOwnersPromote(UserError):
    """Only an owner of “{mandate}” can give somebody another role. Ask {owners} to do it; nothing was changed."""


class OnlyUpwards(UserError):
    """{person} is {role} of “{mandate}”, which allows more than that. A role cannot be taken back; nothing was changed."""


class OtherFolder(UserError):
    """{location} holds other files than it did, which p2psync does not replace. Move that folder away, put an empty one in its place, and
    say this once more. Nothing was changed.
    """


class NothingHalted(UserError):
    """Nothing called “{name}” waits for a confirmation in “{mandate}”. “p2psync status” shows what does; nothing was changed."""


_A = {Role.READER: "a reader", Role.EDITOR: "an editor", Role.OWNER: "an owner"}


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
    attached = f" with {shown}" if found else ""
    return {
        "message": f"The mandate “{name}” was created{attached}.",
        "mandate": {"id": mandate.id.hex(), "name": name},
        "folder": str(place),
    }


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
    return {
        "message": f"{shown} {'is' if len(found) == 1 else 'are'} attached to “{mandate.books.name}”." + "".join(f" {r}." for r in renamed),
        "attached": [{"name": name.text, "location": str(path)} for name, path in found],
    }


async def detach(office: "Office", mandate: "Mandate", name: str, by: str) -> dict[str, Any]:
    """Take an attachment out for everybody."""
    location = mandate.books.locations().get(attaching.attached_name(mandate.books, name))

    def work() -> None:
        mandate.note_new(attaching.detach(mandate.books, name, by))

    await mandate.between_rounds(work)
    mandate.retry({RelPath(name)})
    where = f" It stays on this machine at {location.path}." if location else ""
    return {"message": f"“{name}” is detached from “{mandate.books.name}” for everybody; nothing was deleted on any disk.{where}"}


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


async def invite(office: "Office", mandate: "Mandate", person: str, role: str, lasts_s: int) -> dict[str, Any]:
    """Mint a ticket for one new participant."""
    books = mandate.books
    if not books.shared:
        raise NotShared(mandate=escaped(books.name), command=f"p2psync share {shlex.quote(books.name)}")
    if role not in ("editor", "reader"):
        raise UnknownRole(role=escaped(role))

    hints = office.own_hints()

    def work() -> tuple[bytes, int, InviteId]:
        now = office.now_ms()
        drafted = draft(
            books.roster,
            office.device,
            for_name=person,
            now_ms=now,
            lasts_ms=lasts_s * 1000,
            invite=InviteId(office.nonce(16)),
            seed=Secret(office.nonce(32)),
            role=Role[role.upper()],
        )
        record = books.act(Kind.INVITE, drafted.invite.pack())
        mandate.note_new([record])
        secret = books.secret.group[-1][1]
        text = ticket_for(books.roster, record, office.home.keys, drafted, secret, hints, name=books.name, now_ms=now)
        return text, drafted.invite.not_after_ms, drafted.invite.invite

    text, expires, invite_id = await mandate.between_rounds(work)
    return {
        "ticket": text.decode(),
        "invite": invite_id.hex(),
        "expires_ms": expires,
        "role": role,
        "message": f"A ticket for {label(person)} was made: it lets one machine into “{books.name}” as {role}.",
    }


def open_tickets(office: "Office", mandate: "Mandate") -> list[dict[str, Any]]:
    """The tickets of a mandate that can still be used."""
    return [
        {"id": i.facts.invite.hex()[:16], "for": i.facts.label, "role": i.facts.role.name.lower(), "expires_ms": i.facts.not_after_ms}
        for i in mandate.books.roster.open_invites(office.now_ms())
    ]


def inspect(office: "Office", text: str) -> dict[str, Any]:
    """What a ticket says, checked, without using it."""
    ticket = Ticket.parse(text.encode())
    facts = ticket.inspection(office.now_ms())
    facts["hints"] = facts.pop("addresses")
    facts["issuer"] = {"device": escaped(ticket.issuer_device_name), "person": escaped(ticket.issuer_person), "proved": True}
    if ticket.mandate in office.mandates:
        used = office.mandates[ticket.mandate].books.roster.uses(ticket.invite)
        who = [office.mandates[ticket.mandate].person(device) for device in used]
        facts["use"] = f"used by {', '.join(who)}" if who else "not used yet, as far as this machine knows"
        facts["subscribed"] = True
    return facts


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
            await _until(office, lambda: mandate.books.me is not None and mandate.idle)
        return {"message": f"“{ticket.name}” is open on this machine.", **facts}
    if refusal is not None:
        raise refusal
    return {
        "message": f"No machine of “{ticket.name}” answers yet. It opens here by itself as soon as one of them, for instance that of"
        f" {ticket.issuer_name}, is on and in the same network.",
        **facts,
    }


async def promote(mandate: "Mandate", name: str, role: str) -> dict[str, Any]:
    """Make a participant an owner, or a reader an editor."""
    books = mandate.books
    if role not in ("editor", "owner"):
        raise UnknownRole(role=escaped(role))
    if books.me is None or books.me.role < Role.OWNER:
        raise OnlyOwnersPromote(mandate=escaped(books.name), owners=books.roster.owners)
    found = [m for m in books.roster.members().values() if m.person.casefold() == name.casefold()]
    found = found or [m for m in books.roster.members().values() if m.device.hex().startswith(name.lower()) and len(name) >= 4]
    if not found:
        raise NoSuchParticipant(name=escaped(name), mandate=escaped(books.name))
    if len(found) > 1:
        raise SeveralParticipants(name=escaped(name), mandate=escaped(books.name))
    member, wanted = found[0], Role[role.upper()]
    if member.role == wanted:
        return {"message": f"{member.person} is {_A[wanted]} of “{books.name}” already."}
    if member.role > wanted:
        raise OnlyUpwards(person=member.person, role=_A[member.role], mandate=escaped(books.name))
    await mandate.between_rounds(lambda: mandate.note_new([books.act(Kind.GRANT, Grant(member.device, wanted).pack())]))
    return {"message": f"{member.person} is now {_A[wanted]} of “{books.name}”, on the machine {member.device_name}."}


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
    rows = []
    for version in versions.history(books.ledger.read(), path)[:2000]:
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


async def restore(mandate: "Mandate", name: str, version: str | None, by: str) -> dict[str, Any]:
    """Bring a version back."""

    halted = next((n for n, location in mandate.books.locations().items() if n.text == name and location.halted), None)
    if halted is not None and version is None:
        mandate.retry(await mandate.between_rounds(partial(_bring_back, mandate, halted)))
        mandate.look_over({halted})
        return {"message": f"“{name}” is brought back on this machine to what is shared."}

    def work() -> set[RelPath]:
        records, touched = resolving.restore(mandate.books, name, version, by)
        mandate.note_new(records)
        return touched

    mandate.retry(await mandate.between_rounds(work))
    which = f"version {version}" if version else "the shared version"
    before = "what stood there before is in the history" if mandate.books.may_write else "what you had changed in it was never shared"
    return {"message": f"“{name}” is brought back to {which}; {before}."}


def _bring_back(mandate: "Mandate", name: RelPath) -> set[RelPath]:
    location = mandate.books.locations()[name]
    if location.halted == "root-differs":
        raise OtherFolder(location=escaped(str(location.path)))
    found = mandate.work.setbacks.bring_back(location)
    return found if location.single else found | mandate.look.bring_back(name)


def _confirm(mandate: "Mandate", name: RelPath) -> set[Spot]:
    location = mandate.books.locations()[name]
    spots = set() if location.single else mandate.look.confirm(name)
    mandate.retry(mandate.work.setbacks.confirm(location))
    return spots


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
        spots = await mandate.between_rounds(partial(_confirm, mandate, one))
        mandate.look_at(spots)
        mandate.look_over({one})
    shown = ", ".join(f"“{one}”" for one in sorted(chosen))
    return {"message": f"Confirmed: {shown} is for everybody as it is here; the versions before stay in the history."}


async def wait(office: "Office", asked: "Mandate | None", timeout_s: float) -> dict[str, Any]:
    """Return when this machine and every online participant hold the same versions, of one mandate or of all."""
    with trio.move_on_after(max(timeout_s, 0)):
        await office.ready.wait()
        for mandate in _asked_for(office, asked):
            mandate.rescan()
        await _until(office, lambda: not _closed(office, asked) and all(_agreed(office, mandate) for mandate in _asked_for(office, asked)))
        return {"agreed": True, "waiting_for": []}
    missing = [line for mandate in _asked_for(office, asked) for line in _missing(office, mandate)]
    starting = [] if office.ready.is_set() else ["p2psync is still opening the mandates of this machine."]
    return {"agreed": False, "waiting_for": [*starting, *_closed(office, asked), *missing][:20]}


def _asked_for(office: "Office", asked: "Mandate | None") -> "list[Mandate]":
    return list(office.mandates.values()) if asked is None else [asked]


def _closed(office: "Office", asked: "Mandate | None") -> list[str]:
    """Of what no machine can agree because it could not be opened here; nothing when one mandate is asked for, which is open."""
    return [] if asked is not None else [str(problem) for key, problem in office.problems.items() if key.startswith("open ")]


def _agreed(office: "Office", mandate: "Mandate") -> bool:
    if mandate.books.me is None or not mandate.agrees_here or _meeting(office, mandate):
        return False
    return all(mandate.in_sync(conversation) for conversation in mandate.conversations)


def _meeting(office: "Office", mandate: "Mandate") -> "list[DeviceId]":
    """The participants that are online and have not begun to speak of this mandate: it takes them a moment."""
    talking = {conversation.device for conversation in mandate.conversations}
    soon = {device for device, peer in office.links.items() if trio.current_time() - peer.since < MEETING_S}
    return [device for device in mandate.books.roster.members() if device in soon and device not in talking]


def _missing(office: "Office", mandate: "Mandate") -> list[str]:
    """Why the machines do not agree yet, as sentences."""
    found = []
    name = mandate.books.name
    found += [f"{mandate.person(device)} has just come online." for device in _meeting(office, mandate)]
    found += [str(problem) for key, problem in office.problems.items() if key == f"mandate {mandate.id.hex()}"]
    if mandate.books.me is None:
        found.append(f"No other machine has told this one yet that it takes part in “{name}”.")
    for shown, why in sorted(mandate.attention.items(), key=lambda pair: ORDER.index(pair[1].state)):
        if mandate.is_behind(shown):
            found.append(why.reason(path=shown, mandate=name))
    found += [f"{mandate.person(c.device)} has not everything of “{name}” yet." for c in mandate.conversations if not mandate.in_sync(c)]
    if not found and not mandate.idle:
        found.append(f"“{name}” is being looked through.")
    return found


async def _until(office: "Office", condition: Any) -> None:
    with office.news.reading() as reader:
        while not condition():
            with trio.move_on_after(0.5):
                await reader.next()


def _folder(office: "Office", name: str, asked: Path | None) -> Path:
    """Where the files of a mandate appear on this machine; checked, not made."""
    folder = asked or default_place(name, office.config.folders)
    check_place(folder, office.config.home, office.books())
    return folder
