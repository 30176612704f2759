"""What troubles this machine as a whole, or keeps it from another: the ``problems`` of the status.

Each names the machine, the mandate and the file where there is one, the reason by code and sentence, since when, and the next action.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, TypeVar

from p2psync.daemon.troubles import Troubles
from p2psync.engine.attention import THIS_MACHINE
from p2psync.engine.concerns import CONCERNS, told
from p2psync.store import resuming
from p2psync.store.space import SpaceShort, said
from p2psync.values.errors import UserError
from p2psync.values.names import escaped

if TYPE_CHECKING:
    from p2psync.daemon.mandate import Mandate
    from p2psync.daemon.office import Office

CLOCK_OFF_MS = 5 * 60 * 1000
"""Clocks that differ by more are worth a word, though nothing depends on them."""
REFUSED_MS = 24 * 3600 * 1000
"""A ticket that was refused while nobody waited for it is told of for so long."""

K = TypeVar("K")


def problems(office: "Office") -> list[dict[str, Any]]:
    """All of them: code, message, action, commands, machine, mandate, file, since (ms since 1970, or None), person (does it need one?)."""
    office.forget_refusals(REFUSED_MS)
    found = [row | _room(office, office.problems[key]) for key, row in zip(office.problems, _errors(office.problems), strict=True)]
    found += [row | {"person": True} for row in _errors(office.refusals)]
    for mandate in office.mandates.values():
        found += list(_errors(mandate.troubles, mandate.books.name))
        found += [_question(error, mandate.books.name) for error in resuming.questions(mandate.books)]
        found += list(_contested(mandate))
    for invite, joining in office.joinings.items():
        ticket = joining.ticket
        why = told("joining", machine=ticket.issuer_name, since_ms=office.joining_since(invite), mandate=ticket.name)
        found.append(_row(why, ticket.name))
    return found + list(_of_links(office))


def _errors(troubles: Troubles[K], mandate: str | None = None) -> Iterator[dict[str, Any]]:
    for key, error in troubles.items():
        yield {
            "code": error.code,
            "message": error.cause,
            "action": error.action,
            "commands": [],
            "machine": str(error.facts.get("machine", THIS_MACHINE)),
            "mandate": mandate or _text(error, "mandate"),
            "file": _text(error, "path"),
            "since": troubles.since(key),
            "person": mandate is not None or str(key).startswith("open "),
        }


def _room(office: "Office", error: UserError) -> dict[str, str]:
    """What may be done about a disk that is short of room, when the histories are on it: nothing of them goes without a person's word."""
    if not isinstance(error, SpaceShort) or error.facts["place"] != escaped(str(office.home.path)):
        return {}
    taken = sum(mandate.books.vault.size for mandate in office.mandates.values())
    action = (
        f"The histories of this machine take {said(taken)} of it, kept by the policy: {office.config.keep}. To keep less, start p2psync"
        " with shorter spans (p2psync run --keep 30d,1y,10y)."
    )
    return {"action": action}


def _question(error: UserError, mandate: str) -> dict[str, Any]:
    """What a machine that was restored or copied asks."""
    machine = str(error.facts.get("machine", THIS_MACHINE))
    said = {"code": error.code, "message": error.cause, "action": error.action, "commands": []}
    return said | {"machine": machine, "mandate": mandate, "file": None, "since": None, "person": True}


def _text(error: UserError, fact: str) -> str | None:
    return str(error.facts[fact]) if fact in error.facts else None


def _contested(mandate: "Mandate") -> Iterator[dict[str, Any]]:
    for devices in mandate.books.roster.contested().values():
        machines = ", ".join(sorted(mandate.books.roster.machine(device) for device in devices))
        yield _row(told("ticket-contested", machine=machines, mandate=mandate.books.name, count=len(devices)), mandate.books.name)


def _of_links(office: "Office") -> Iterator[dict[str, Any]]:
    for device, peer in office.links.items():
        machine = office.machine(device)
        if abs(peer.clock_off_ms) > CLOCK_OFF_MS:
            yield _row(told("clock-differs", machine=machine, minutes=abs(peer.clock_off_ms) // 60_000))
        if peer.turns.load.resting:
            yield _row(told("no-answer", machine=machine))


def _row(why: dict[str, Any], mandate: str | None = None) -> dict[str, Any]:
    person = CONCERNS[why["code"]].person
    return {"message": why["reason"], **why, "mandate": mandate, "file": None, "person": person}
