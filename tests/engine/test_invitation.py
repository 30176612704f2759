"""Joining: what an owner mints, what a guest signs, what a member answers, and what the guest believes."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import pytest

from p2psync.engine import invitation
from p2psync.engine.invitation import (
    Admission,
    Refusal,
    TermsNotPossible,
    WrongWelcome,
    check_welcome,
    consider_join,
    is_secret_of,
    make_join,
)
from p2psync.values.acts import Invite, JoinClaim, Role, Witness
from p2psync.values.errors import BadName, Malformed
from p2psync.values.keys import invitation_key
from p2psync.values.names import DeviceId, InviteId, MandateId
from p2psync.values.record import Kind, Record
from p2psync.values.ticket import Ticket
from tests.office import DAY, NOW, Device, Office, seed


def office_with(*members: str) -> Office:
    office = Office()
    for name in members:
        office.admit(name)
    for device in list(office.devices.values()):
        office.meet(office.owner, device)
        office.change(device)
    return office


# The owner ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("terms", "why"),
    [
        ({"lasts": 0}, "90 days at most"),
        ({"lasts": 90 * DAY + 1}, "90 days at most"),
        ({"role": Role.OWNER}, "promote the participant afterwards"),
        ({"max_uses": 0}, "too many"),
        ({"max_uses": 21}, "too many"),
    ],
)
def test_terms_that_no_ticket_has(terms: dict, why: str) -> None:
    office = Office()
    with pytest.raises(TermsNotPossible, match=why):
        office.invite(office.owner, **terms)


def test_whom_it_is_for_is_a_name() -> None:
    office = Office()
    with pytest.raises(BadName):
        office.invite(office.owner, for_name=" ")
    ticket = Ticket.parse(office.invite(office.owner, for_name=" Gi\u0302ta "))
    assert ticket.invitation.facts.label == "Gîta"


# The guest and the member -------------------------------------------------------------------------------------------------------


def test_a_guest_joins() -> None:
    office = office_with()
    gita, ticket = office.device("gita"), office.invite(office.owner, role=Role.READER)
    intro, join = office.ask(gita, ticket)
    assert (intro.seq, join.seq, join.prev) == (1, 2, intro.id)
    assert intro.deps == join.deps == ()
    answer = office.consider(office.owner, (intro, join))
    assert answer == Admission(Witness(join.id, NOW))
    member = office.roster(gita).members()[gita.id]
    assert (member.person, member.device_name, member.role) == ("Gita", "pc-gita", Role.READER)


def test_an_invitation_that_no_member_heard_of_is_honoured_and_then_by_everybody() -> None:
    office = office_with("anna", "berta")
    anna, berta, gita = (office.device(name) for name in ("anna", "berta", "gita"))
    office.promote(office.owner, anna)
    office.meet(office.owner, anna)
    ticket = office.invite(anna)  # an owner whose promotion, too, only the ticket proves
    invite = Ticket.parse(ticket).invite
    assert office.roster(berta).invitation(invite) is None
    assert office.roster(berta).answers(invite, NOW)
    assert isinstance(office.join(gita, ticket, berta), Admission)
    known = [office.records[one].kind for one in berta.known]
    assert Kind.INVITE not in [office.records[one].kind for one in berta.known if office.records[one].device == anna.id]
    assert Kind.GRANT not in known
    office.meet(berta, office.owner)
    for device in (berta, gita, office.owner):
        assert office.roster(device).role_of(gita.id) == Role.EDITOR
    change = office.change(gita)
    office.meet(gita, berta)
    assert office.roster(berta).judge(change, office.pasts[change.id]).accepted
    assert office.roster(berta).invitation(invite) is not None


def test_a_used_ticket_is_refused_by_who_knows() -> None:
    office = office_with("anna")
    ticket = office.invite(office.owner)
    assert isinstance(office.join(office.device("gita"), ticket, office.owner), Admission)
    assert office.join(office.device("thief"), ticket, office.owner) == Refusal.USED
    office.meet(office.owner, office.device("anna"))
    assert office.join(office.device("thief"), ticket, office.device("anna")) == Refusal.USED
    assert office.roster(office.owner).role_of(office.device("thief").id) is None


def test_a_guest_that_missed_the_welcome_asks_again() -> None:
    office = office_with("anna")
    gita, anna, ticket = office.device("gita"), office.device("anna"), office.invite(office.owner)
    asked = office.ask(gita, ticket)
    assert isinstance(office.consider(office.owner, asked), Admission)
    assert office.consider(office.owner, asked) == Admission(None)
    assert office.consider(office.owner, asked, NOW + 30 * DAY) == Admission(None)
    office.meet(office.owner, anna)
    assert office.consider(anna, asked, fresh=False) == Admission(None)


def test_a_join_that_was_recorded_but_not_answered_is_considered_again() -> None:
    office = office_with()
    asked = office.ask(office.device("gita"), office.invite(office.owner))
    office.owner.known |= {one.id for one in asked}
    assert office.consider(office.owner, asked) == Admission(Witness(asked[1].id, NOW))


def test_a_guest_that_lost_its_log_uses_its_ticket_again() -> None:
    office = office_with()
    gita, ticket = office.device("gita"), office.invite(office.owner)
    assert isinstance(office.join(gita, ticket, office.owner), Admission)
    again = office.join(gita, ticket, office.owner)
    assert again == Admission(None) or isinstance(again, Admission)
    assert len(office.roster(office.owner).uses(Ticket.parse(ticket).invite)) == 1


REFUSED: dict[str, tuple[Refusal, Callable[[Office], object]]] = {
    "expired by the member's clock": (Refusal.EXPIRED, lambda office: at(office, 7 * DAY + 1)),
    "the member's clock is years behind": (Refusal.CLOCK, lambda office: at(office, -1000 * DAY)),
    "the member met nobody for days": (Refusal.STALE, lambda office: at(office, 0, fresh=False)),
    "made for another device": (Refusal.WRONG_DEVICE, lambda office: at(office, 0, for_device=office.device("other").id)),
}


def at(office: Office, later: int, fresh: bool = True, **terms) -> object:
    office.invite(office.owner)
    ticket = office.invite(office.owner, **terms)
    return office.join(office.device("gita"), ticket, office.device("anna"), NOW + later, fresh)


@pytest.mark.parametrize("why", REFUSED)
def test_why_a_guest_is_not_admitted(why: str) -> None:
    office = office_with("anna")
    code, ask = REFUSED[why]
    assert ask(office) == code
    assert office.roster(office.device("anna")).role_of(office.device("gita").id) is None


def test_up_to_the_very_end_and_with_a_clock_that_is_a_day_behind_it_is_admitted() -> None:
    for later in (7 * DAY, -DAY, 0):
        office = office_with("anna")
        assert isinstance(at(office, later), Admission)


def test_the_issuer_and_whoever_is_alone_need_not_have_met_anybody() -> None:
    office = office_with("anna")
    ticket = office.invite(office.owner)
    assert office.join(office.device("gita"), ticket, office.device("anna"), fresh=False) == Refusal.STALE
    assert isinstance(office.join(office.device("gita"), ticket, office.owner, fresh=False), Admission)
    office = office_with()
    assert isinstance(office.join(office.device("gita"), office.invite(office.owner), office.owner, fresh=False), Admission)


def test_a_guest_of_another_mandate_is_unknown() -> None:
    office, other = office_with(), Office(tag="other")
    intro, join = other.ask(other.device("gita"), other.invite(other.owner))
    gita = other.device("gita").keys
    answer = consider_join(
        office.roster(office.owner), intro, join, me=office.owner.id, peer_key=gita.transport_public, now_ms=NOW, fresh=True
    )
    assert answer == Refusal.UNKNOWN


def rogue(office: Office, by: Device, guest: Device, flags: int = 0, time_ms: int = NOW) -> tuple[Record, Record]:
    """A guest with an invitation as only its issuer's own program makes it."""
    key = invitation_key(seed("rogue"))
    facts = Invite(InviteId(bytes(16)), bytes(key.verify_key), Role.EDITOR, time_ms + DAY, 1, flags, None, "x")
    record = office.say(by, Kind.INVITE, facts.pack(), time_ms)
    intro = office.begin(guest)
    return intro, office.say(guest, Kind.JOIN, JoinClaim.signed(key, facts.invite, office.mandate, intro, [record.raw]).pack())


def test_an_invitation_by_an_editor_is_unknown() -> None:
    office = office_with("anna")
    assert office.consider(office.owner, rogue(office, office.device("anna"), office.device("gita"))) == Refusal.UNKNOWN


def test_approval_is_refused_clearly() -> None:
    office = office_with()
    assert office.consider(office.owner, rogue(office, office.owner, office.device("gita"), flags=1)) == Refusal.APPROVAL


def test_a_full_mandate_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    office = office_with("anna")
    monkeypatch.setattr(invitation, "MAX_DEVICES", 2)
    assert office.join(office.device("gita"), office.invite(office.owner), office.owner) == Refusal.FULL


def test_a_guest_must_hold_the_key_that_it_introduces() -> None:
    office = office_with("anna")
    intro, join = office.ask(office.device("gita"), office.invite(office.owner))
    roster = office.roster(office.owner)
    for key in (bytes(32), office.device("anna").keys.transport_public):
        with pytest.raises(Malformed, match="another device"):
            consider_join(roster, intro, join, me=office.owner.id, peer_key=key, now_ms=NOW, fresh=True)


def test_a_guest_does_not_get_in_with_a_participants_key() -> None:
    office = office_with("anna")
    anna, thief = office.device("anna"), office.device("thief")
    thief.keys = dataclasses.replace(thief.keys, transport_seed=anna.keys.transport_seed)
    assert office.join(thief, office.invite(office.owner), office.owner) == Refusal.WRONG_DEVICE


def test_a_log_that_begins_twice_costs_the_link() -> None:
    office = office_with()
    gita, ticket = office.device("gita"), Ticket.parse(office.invite(office.owner))
    one, _ = office.ask(gita, ticket)
    gita.logs -= 1
    other, join = office.ask(gita, ticket, NOW + 1)
    assert one.log == other.log
    roster = office.roster(office.owner)

    def consider(intro: Record) -> object:
        return consider_join(roster, intro, join, me=office.owner.id, peer_key=gita.keys.transport_public, now_ms=NOW, fresh=True)

    with pytest.raises(Malformed):
        consider(one)
    roster = roster.with_record(one, {one.log: 1})
    with pytest.raises(Malformed):
        consider(other)


def test_what_is_no_join_costs_the_link() -> None:
    office = office_with("anna")
    gita = office.device("gita")
    ticket = Ticket.parse(office.invite(office.owner))
    intro, join = office.ask(gita, ticket)
    foreign, _ = office.ask(gita, ticket)
    standing = office.say(gita, Kind.JOIN, list(join.body), deps=[office.genesis.id], new=True)
    third = office.say(gita, Kind.JOIN, list(join.body))
    unsigned = dataclasses.replace(ticket, seed=seed("no"))
    roster = office.roster(office.owner)

    def consider(intro: Record, join: Record) -> object:
        return consider_join(roster, intro, join, me=office.owner.id, peer_key=gita.keys.transport_public, now_ms=NOW, fresh=True)

    for pair in ((join, intro), (intro, intro), (foreign, join), (intro, standing), (intro, third), (office.genesis, join)):
        with pytest.raises(Malformed):
            consider(*pair)
    assert consider(foreign, make_join(unsigned, gita.keys, foreign, NOW)) == Refusal.WRONG_DEVICE
    assert isinstance(consider(intro, join), Admission)


# The guest again ----------------------------------------------------------------------------------------------------------------


def test_a_welcome_is_believed_when_it_fits_the_genesis() -> None:
    office = office_with()
    ticket = Ticket.parse(office.invite(office.owner))
    assert check_welcome(ticket, office.mandate, [(0, office.secret)]) == office.secret
    assert is_secret_of(ticket.founding.genesis, office.secret)
    for mandate, keys in (
        (MandateId(bytes(32)), [(0, office.secret)]),
        (office.mandate, [(0, seed("other"))]),
        (office.mandate, [(1, office.secret)]),
        (office.mandate, []),
        (office.mandate, [(0, office.secret), (1, seed("later"))]),
    ):
        with pytest.raises(WrongWelcome):
            check_welcome(ticket, mandate, keys)


def test_ids_are_what_they_were() -> None:
    """A guest's device is the key that it signs with, whatever its ticket says."""
    office = office_with()
    gita = office.device("gita")
    intro, join = office.ask(gita, office.invite(office.owner, for_device=gita.id))
    assert intro.device == join.device == DeviceId(bytes(gita.keys.signing.verify_key))
    assert isinstance(office.consider(office.owner, (intro, join)), Admission)
