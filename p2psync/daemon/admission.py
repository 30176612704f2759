"""Joining by ticket, both sides of it: the guest asks, any member admits, and the mandate opens on the guest's machine.

Both happen behind the gate of one invitation, where nothing else can be said.
"""

from typing import TYPE_CHECKING

import trio

from p2psync.edge.link import Link
from p2psync.engine import messages as m
from p2psync.engine.invitation import Admission, Refusal, check_welcome, consider_join
from p2psync.store import addresses
from p2psync.store.home import Joining
from p2psync.values.errors import Malformed, PeerError, UserError
from p2psync.values.record import Kind, Record

if TYPE_CHECKING:
    from p2psync.daemon.mandate import Mandate
    from p2psync.daemon.office import Office

FRESH_MS = 72 * 3600 * 1000
"""A machine that met nobody for longer does not know whether a ticket was used elsewhere."""


class TicketUsed(UserError):
    """This ticket was already used. If it was not by you, tell {issuer} at once; ask for a new one."""


class TicketNotAccepted(UserError):
    """The other members do not accept this ticket: {why}. Ask {issuer} for a new one."""


class OfficeStale(UserError):
    """The machine that answered has met no other member for three days, so it cannot admit you. Switch on another machine of the office."""


_WHY = {
    Refusal.UNKNOWN: "it does not belong to their mandate",
    Refusal.EXPIRED: "it has expired",
    Refusal.REVOKED: "it was withdrawn",
    Refusal.WRONG_DEVICE: "it was made for another machine",
    Refusal.CLOCK: "the clocks of the two machines differ too much; set the right time",
    Refusal.APPROVAL: "an owner would have to approve it",
    Refusal.FULL: "the mandate has too many participants",
}


async def ask(office: "Office", link: Link, joining: Joining) -> None:
    """As a guest, over a link through the gate of our ticket: ask to be admitted; the mandate is open when this returns.

    Raises:
        UserError: refused, with the reason. PeerError: nothing came of it; another member may be tried.
    """
    ticket = joining.ticket
    await link.send(m.Join(ticket.chain, joining.device.raw, joining.join.raw))
    answer = await link.receive()
    match answer:
        case m.Welcome():
            check_welcome(ticket, answer.mandate, answer.keys)
            await office.opened(joining, answer.keys)
        case m.Refused(code=Refusal.USED):
            raise TicketUsed(issuer=ticket.issuer_name)
        case m.Refused(code=Refusal.STALE):
            raise OfficeStale()
        case m.Refused(code=code):
            why = _WHY.get(Refusal(code), "they give no reason") if code in Refusal.__members__.values() else "they give no reason"
            raise TicketNotAccepted(why=why, issuer=ticket.issuer_name)
        case _:
            raise Malformed(why="no answer to the ticket")


async def admit(office: "Office", link: Link) -> None:
    """As a member, over a link through the gate of an invitation to one of our mandates: hear the guest and answer. Raises: PeerError."""
    mandate = office.mandates[link.gate.mandate]
    request = await link.receive()
    if not isinstance(request, m.Join):
        raise Malformed(why="a guest that does not ask")
    device, join = Record.parse(request.device), Record.parse(request.join)
    answer = await mandate.between_rounds(lambda: _decide(office, mandate, link, device, join))
    if isinstance(answer, Refusal):
        office.note_refusal(mandate, answer)
        await link.send(m.Refused(int(answer)))
        return
    secret = mandate.books.secret
    ends = mandate.books.journal.ends
    heads = tuple(m.LogHead(*log, end.seq, end.id) for log, end in sorted(ends.items()))
    await link.send(m.Welcome(mandate.id, secret.group, heads))
    with trio.move_on_after(m.CloseCode.BYE + 2.0):
        try:
            await link.receive()
        except PeerError:
            return


def _decide(office: "Office", mandate: "Mandate", link: Link, device: Record, join: Record) -> Admission | Refusal:
    books = mandate.books
    now = office.now_ms()
    met = addresses.last_met(books.ledger.read()) | {conversation.device: now for conversation in list(mandate.conversations)}
    fresh = any(now - seen < FRESH_MS for other, seen in met.items() if other != join.device)
    answer = consider_join(books.roster, device, join, me=office.device, peer_key=link.peer_key, now_ms=now, fresh=fresh)
    if isinstance(answer, Refusal) or answer.witness is None:
        return answer
    with books.writing():
        accepted = books.accept([device.raw, join.raw])
        if accepted.alarms or accepted.early:
            return Refusal.UNKNOWN
        witness = books.act(Kind.WITNESS, answer.witness.pack())
    mandate.note_new([*accepted.new, witness])
    return answer
