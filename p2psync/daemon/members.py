"""Who takes part: tickets are made and looked at, and roles given."""

import shlex
from typing import TYPE_CHECKING, Any

from p2psync.engine.concerns import told
from p2psync.engine.invitation import draft, ticket_for
from p2psync.values.acts import Grant, Role
from p2psync.values.errors import UserError
from p2psync.values.keys import Secret
from p2psync.values.names import InviteId, escaped, label
from p2psync.values.record import Kind
from p2psync.values.ticket import Ticket

if TYPE_CHECKING:
    from p2psync.daemon.mandate import Mandate
    from p2psync.daemon.office import Office


class NotShared(UserError):
    """“{mandate}” is local to this machine, so nobody can join it. Share it first: {command}"""


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


_A = {Role.READER: "a reader", Role.EDITOR: "an editor", Role.OWNER: "an owner"}


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
        {
            "id": i.facts.invite.hex()[:16],
            "for": i.facts.label,
            "role": i.facts.role.name.lower(),
            "expires_ms": i.facts.not_after_ms,
            **told("ticket-open", machine=f"the machine of {escaped(i.facts.label)}", since_ms=i.issued_ms, person=escaped(i.facts.label)),
        }
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
