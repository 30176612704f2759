"""The roster: who may say what, who takes part, and that neither depends on the order in which records arrive."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable, Iterable

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from p2psync.engine import claims as claims_module
from p2psync.engine import membership, rules
from p2psync.engine.claims import Claims, Standing
from p2psync.engine.invitation import Admission, OnlyOwnersInvite, TooManyInvitations, ticket_for
from p2psync.engine.membership import Roster
from p2psync.engine.rules import Verdict
from p2psync.values.acts import Grant, Invite, JoinClaim, Role, Witness
from p2psync.values.errors import Malformed
from p2psync.values.keys import invitation_key
from p2psync.values.lineage import Founding, Invitation
from p2psync.values.names import DeviceId, InviteId, RecordId
from p2psync.values.packing import Plain
from p2psync.values.record import Kind, Record
from p2psync.values.ticket import Ticket
from tests.office import DAY, NOW, Device, Office, Vector, seed


def staffed() -> Office:
    """An office with an owner, an editor and a reader who all know everything, and a stranger."""
    office = Office()
    office.admit("eddie")
    office.admit("rita", Role.READER)
    everybody_meets(office)
    office.begin(office.device("sam"))
    return office


def everybody_meets(office: Office) -> None:
    for _ in range(2):
        for device in office.devices.values():
            if device.known:
                office.meet(office.owner, device)


def roles(office: Office, device: Device | None = None) -> dict[str, str]:
    """Who takes part with which role, as ``device`` (or whoever knows everything) sees it."""
    roster = office.roster(device) if device else office.evaluate(office.records.values())[0]
    return {member.person.lower(): member.role.name for member in roster.members().values()}


def witness(office: Office, host: Device, asked: tuple[Record, Record], now: int = NOW, blind: bool = False) -> Record:
    """A member that admits a guest whatever it knows; ``blind``: and that claims to know nothing but the join."""
    intro, join = asked
    host.known |= {intro.id, join.id}
    return office.say(host, Kind.WITNESS, Witness(join.id, now).pack(), now, deps=[join.id] if blind else None)


# Who takes part -----------------------------------------------------------------------------------------------------------------


def test_the_founder_is_the_first_owner() -> None:
    office = Office()
    roster = office.roster(office.owner)
    member = roster.members()[office.owner.id]
    assert (member.person, member.device_name, member.role, member.since_ms) == ("Olga", "pc-olga", Role.OWNER, NOW)
    assert roster.by_transport(office.owner.keys.transport_public) == member
    assert (roster.mandate, roster.name, roster.owner) == (office.mandate, "Dupont SA", office.owner.id)
    assert Roster.of(office.genesis).members() == {}  # its own log has not begun


def test_a_mandate_begins_with_a_genesis() -> None:
    office = Office()
    with pytest.raises(Malformed):
        Roster.of(office.records[next(reversed(office.records))])
    assert office.roster(office.owner).judge(office.genesis, {}) == Verdict.OUT_OF_PLACE


def test_guests_become_participants_with_the_role_of_their_ticket() -> None:
    office = staffed()
    assert roles(office) == {"olga": "OWNER", "eddie": "EDITOR", "rita": "READER"}
    rita = office.roster(office.owner).members()[office.device("rita").id]
    assert (rita.transport, rita.box) == (office.device("rita").keys.transport_public, office.device("rita").keys.box_public)


def test_nobody_takes_part_whom_no_member_admitted() -> None:
    office = Office()
    office.ask(office.device("gita"), office.invite(office.owner))
    assert roles(office) == {"olga": "OWNER"}


def test_any_member_admits_readers_too() -> None:
    office = staffed()
    rita = office.device("rita")
    ticket = office.invite(office.owner)
    assert isinstance(office.join(office.device("gita"), ticket, rita), Admission)
    assert roles(office, rita)["gita"] == "EDITOR"


def test_a_guest_is_a_member_for_the_guests_it_admits() -> None:
    office = Office()
    host = office.owner
    for number in range(5):
        host = office.admit(f"guest{number}", Role.READER, host)
    assert len(roles(office)) == 6


def test_grants_raise_and_never_lower() -> None:
    office = staffed()
    rita = office.device("rita")
    office.promote(office.owner, rita, Role.EDITOR)
    assert roles(office)["rita"] == "EDITOR"
    office.promote(office.owner, rita, Role.READER)
    assert roles(office)["rita"] == "EDITOR"
    office.promote(office.owner, rita, Role.OWNER)
    office.meet(office.owner, rita)
    office.promote(rita, office.device("eddie"))
    assert roles(office) == {"olga": "OWNER", "eddie": "OWNER", "rita": "OWNER"}


def test_the_root_key_makes_owners_and_does_nothing_else() -> None:
    office = staffed()
    root, eddie = office.root_device, office.device("eddie")
    office.meet(eddie, office.device("sam"))
    root.known |= eddie.known
    grant = office.say(root, Kind.GRANT, Grant(eddie.id, Role.OWNER).pack())
    assert office.verdict(grant).accepted
    assert roles(office)["eddie"] == "OWNER"
    for kind, body in BODIES.items():
        expected = Verdict.ACCEPT if kind in (Kind.GRANT, Kind.REVOKE) else Verdict.ROLE
        assert office.verdict(office.say(root, kind, body(office))) == expected
    assert office.verdict(office.say(root, Kind.REVOKE, BODIES[Kind.REVOKE](office), new=True)) == Verdict.ROLE
    intro = office.begin(Device("root", dataclasses.replace(root.keys), logs=5))
    assert office.verdict(intro) == Verdict.OUT_OF_PLACE


# Who may say what ---------------------------------------------------------------------------------------------------------------

BODIES: dict[Kind, Callable[[Office], list[Plain]]] = {
    Kind.GRANT: lambda office: Grant(office.device("sam").id, Role.READER).pack(),
    Kind.INVITE: lambda office: Invite(InviteId(bytes(16)), bytes(32), Role.EDITOR, NOW + DAY, 1, 0, None, "x").pack(),
    Kind.REVOKE: lambda office: [office.device("eddie").id, [[bytes(8), 1]], 0],
    Kind.WITHDRAW: lambda office: [bytes(16)],
    Kind.APPROVE: lambda office: [bytes(32), True],
    Kind.ROTATE: lambda office: [1, bytes(32), None],
    Kind.CHANGE: lambda office: [["an entry"]],
    Kind.RECEIPT: lambda office: [[bytes(32), bytes(8), 1, bytes(32)]],
    Kind.RESUME: lambda office: [[bytes(8), 1, bytes(32)]],
    Kind.TEAM: lambda office: ["rename", "Dupont SA"],
}

MAY = {
    "olga": set(BODIES),
    "eddie": {Kind.CHANGE, Kind.RECEIPT, Kind.RESUME, Kind.REVOKE},  # REVOKE: of itself
    "rita": {Kind.RECEIPT, Kind.RESUME},
    "sam": set(),
}


@pytest.mark.parametrize("kind", BODIES, ids=lambda kind: kind.name)
@pytest.mark.parametrize("author", MAY)
def test_who_may_say_what(author: str, kind: Kind) -> None:
    office = staffed()
    office.meet(office.owner, office.device("sam"))
    record = office.say(office.device(author), kind, BODIES[kind](office))
    refused = Verdict.STRANGER if author == "sam" else Verdict.ROLE
    assert office.verdict(record) == (Verdict.ACCEPT if kind in MAY[author] else refused)


def test_a_reader_that_writes_is_refused_by_everybody() -> None:
    office = staffed()
    record = office.change(office.device("rita"))
    for device in ("olga", "eddie"):
        view = office.roster(office.device(device))
        assert view.judge(record, office.pasts[record.id]) == Verdict.ROLE


def test_the_role_is_the_one_its_author_knew_of() -> None:
    office = staffed()
    rita = office.device("rita")
    before = office.change(rita)
    office.promote(office.owner, rita, Role.EDITOR)
    assert office.verdict(before) == Verdict.ROLE
    office = staffed()
    rita = office.device("rita")
    office.promote(office.owner, rita, Role.EDITOR)
    concurrent = office.change(rita)
    assert office.verdict(concurrent) == Verdict.ROLE  # even for those who know of the grant
    office = staffed()
    rita = office.device("rita")
    office.promote(office.owner, rita, Role.EDITOR)
    office.meet(office.owner, rita)
    assert office.verdict(office.change(rita)) == Verdict.ACCEPT


def test_a_guest_that_writes_without_standing_on_its_admission_is_a_stranger() -> None:
    office = staffed()
    eddie = office.device("eddie")
    intro = office.begin(eddie)
    assert office.verdict(intro) == Verdict.ACCEPT
    assert office.verdict(office.change(eddie, deps=[])) == Verdict.STRANGER


def test_an_editor_makes_no_owner_of_itself_or_others() -> None:
    office = staffed()
    eddie = office.device("eddie")
    for target in (eddie, office.device("rita")):
        assert office.verdict(office.promote(eddie, target)) == Verdict.ROLE
    assert roles(office)["eddie"] == "EDITOR"


def test_a_grant_is_for_a_device_that_its_author_saw_introduced() -> None:
    office = staffed()
    sam = office.device("sam")
    assert office.verdict(office.promote(office.owner, sam)) == Verdict.UNKNOWN_DEVICE  # the owner has not heard of sam
    office = staffed()
    sam = office.device("sam")
    office.meet(office.owner, sam)
    assert office.verdict(office.promote(office.owner, sam, Role.READER)) == Verdict.ACCEPT
    assert roles(office)["sam"] == "READER"


def test_malformed_and_foreign_records_are_dropped() -> None:
    office, other = staffed(), Office(tag="other")
    assert office.verdict(office.say(office.owner, Kind.GRANT, ["nobody"])) == Verdict.MALFORMED
    assert office.verdict(office.say(office.device("eddie"), Kind.ROTATE, [])) == Verdict.MALFORMED
    foreign = other.change(other.owner)
    assert office.roster(office.owner).judge(foreign, other.pasts[foreign.id]) == Verdict.OTHER_MANDATE


# Introductions, joins, witnesses ------------------------------------------------------------------------------------------------


def test_a_device_introduces_itself_at_the_beginning_of_a_log() -> None:
    office = staffed()
    intro = office.begin(office.device("sam"))
    late = office.say(office.device("sam"), Kind.DEVICE, list(intro.body))
    assert office.verdict(late) == Verdict.OUT_OF_PLACE


def test_the_newest_introduction_is_the_one_that_counts() -> None:
    office = staffed()
    eddie = office.device("eddie")
    eddie.name = "eduard"
    eddie.logs += 1
    old = office.roster(office.owner).members()[eddie.id]
    body: list[Plain] = ["Eduard", "laptop", *(bytes(old.transport), bytes(old.box)), "test"]
    office.say(eddie, Kind.DEVICE, body)
    member = office.evaluate(office.records.values())[0].members()[eddie.id]
    assert (member.person, member.device_name, member.role) == ("Eduard", "laptop", Role.EDITOR)
    assert member.since_ms == old.since_ms


def test_a_transport_key_belongs_to_one_participant() -> None:
    office = staffed()
    rita, thief = office.device("rita"), office.device("thief")
    asked = with_key(office, thief, rita.keys.transport_public, office.invite(office.owner))
    witness(office, office.owner, asked)  # as no correct member does
    roster = office.evaluate(office.records.values())[0]
    assert roster.role_of(thief.id) == Role.EDITOR
    assert roster.by_transport(office.owner.keys.transport_public) == roster.members()[office.owner.id]
    assert roster.by_transport(rita.keys.transport_public) is not None
    assert roster.by_transport(bytes(32)) is None


def with_key(office: Office, guest: Device, transport: bytes, text: bytes) -> tuple[Record, Record]:
    """The two records of a guest that claims a transport key of its choice."""
    guest.logs += 1
    ticket = Ticket.parse(text)
    intro = office.say(guest, Kind.DEVICE, ["Gita", "pc", transport, bytes(32), ""])
    claim = JoinClaim.signed(invitation_key(ticket.seed), ticket.invite, ticket.mandate, intro, ticket.chain[1:])
    return intro, office.say(guest, Kind.JOIN, claim.pack())


def join_record(office: Office, guest: Device, claim: JoinClaim) -> Record:
    return office.say(guest, Kind.JOIN, claim.pack())


def test_a_join_must_be_signed_by_its_invitation_for_this_very_guest() -> None:
    office = staffed()
    ticket = Ticket.parse(office.invite(office.owner))
    other = Ticket.parse(office.invite(office.owner, for_device=office.device("rita").id))
    key, carried = invitation_key(ticket.seed), ticket.chain[1:]
    thief, gita = office.device("thief"), office.device("gita")
    theirs = office.begin(gita)

    def verdict(make: Callable[[Record], JoinClaim]) -> Verdict:
        intro = office.begin(thief)
        return office.verdict(join_record(office, thief, make(intro)))

    signed = JoinClaim.signed
    assert verdict(lambda intro: signed(key, ticket.invite, office.mandate, intro, carried)) == Verdict.ACCEPT
    assert verdict(lambda intro: signed(key, ticket.invite, office.mandate, theirs, carried)) == Verdict.NOT_INVITED
    assert verdict(lambda intro: signed(office.root, ticket.invite, office.mandate, intro, carried)) == Verdict.NOT_INVITED
    assert verdict(lambda intro: signed(key, other.invite, office.mandate, intro, carried)) == Verdict.UNPROVED
    assert verdict(lambda intro: signed(key, ticket.invite, office.mandate, intro, [b"x"])) == Verdict.UNPROVED
    assert verdict(lambda intro: signed(key, ticket.invite, office.mandate, intro, [office.genesis.raw])) == Verdict.UNPROVED
    for_rita = invitation_key(other.seed)
    assert verdict(lambda intro: signed(for_rita, other.invite, office.mandate, intro, other.chain[1:])) == Verdict.NOT_INVITED


def test_a_join_stands_right_behind_its_introduction() -> None:
    office = staffed()
    gita, ticket = office.device("gita"), Ticket.parse(office.invite(office.owner))
    intro, join = office.ask(gita, ticket)
    assert office.verdict(join) == Verdict.ACCEPT
    assert office.verdict(office.say(gita, Kind.JOIN, list(join.body))) == Verdict.OUT_OF_PLACE
    assert office.verdict(office.say(gita, Kind.JOIN, list(join.body), new=True)) == Verdict.OUT_OF_PLACE
    assert intro.seq == 1


def test_an_invitation_by_an_editor_admits_nobody() -> None:
    office = staffed()
    eddie, gita = office.device("eddie"), office.device("gita")
    key = invitation_key(seed("rogue"))
    facts = Invite(InviteId(bytes(16)), bytes(key.verify_key), Role.EDITOR, NOW + DAY, 1, 0, None, "x")
    invitation = office.say(eddie, Kind.INVITE, facts.pack())
    intro = office.begin(gita)
    join = join_record(office, gita, JoinClaim.signed(key, facts.invite, office.mandate, intro, [invitation.raw]))
    assert office.verdict(join) == Verdict.UNPROVED
    assert office.verdict(office.say(office.owner, Kind.WITNESS, Witness(join.id, NOW).pack(), deps=[])) == Verdict.UNKNOWN_JOIN
    assert "gita" not in roles(office)


def test_an_invitation_for_longer_than_90_days_is_dropped() -> None:
    office = staffed()
    facts = Invite(InviteId(bytes(16)), bytes(32), Role.EDITOR, NOW + 91 * DAY, 1, 0, None, "x")
    assert office.verdict(office.say(office.owner, Kind.INVITE, facts.pack())) == Verdict.MALFORMED


def test_strangers_and_the_guest_itself_admit_nobody() -> None:
    office = staffed()
    sam, gita = office.device("sam"), office.device("gita")
    asked = office.ask(gita, office.invite(office.owner))
    assert office.verdict(witness(office, sam, asked)) == Verdict.STRANGER
    assert office.verdict(witness(office, gita, asked)) == Verdict.STRANGER
    assert "gita" not in roles(office)
    office.begin(office.device("eddie"))
    office.meet(office.owner, office.device("eddie"))
    again = office.ask(office.device("eddie"), office.invite(office.owner))
    assert office.verdict(witness(office, office.device("eddie"), again)) == Verdict.OWN_JOIN


def test_a_join_is_admitted_only_by_who_saw_it_and_in_time() -> None:
    office = staffed()
    asked = office.ask(office.device("gita"), office.invite(office.owner))
    unseen = office.say(office.owner, Kind.WITNESS, Witness(asked[1].id, NOW).pack(), deps=[])
    assert office.verdict(unseen) == Verdict.UNKNOWN_JOIN
    assert office.verdict(witness(office, office.owner, asked, NOW + 7 * DAY + 1)) == Verdict.TOO_LATE
    assert "gita" not in roles(office)
    office = staffed()
    asked = office.ask(office.device("gita"), office.invite(office.owner))
    assert office.verdict(witness(office, office.owner, asked, NOW + 7 * DAY)) == Verdict.ACCEPT
    assert "gita" in roles(office)


def test_no_clock_but_the_hosts_decides_whether_a_guest_was_in_time() -> None:
    office = staffed()
    gita = office.device("gita")
    assert isinstance(office.join(gita, office.invite(office.owner), office.owner), Admission)
    office.say(office.owner, Kind.CHANGE, [["x"]], now=0)
    office.say(gita, Kind.CHANGE, [["x"]], now=2**63 - 1)
    assert "gita" in roles(office)


def test_an_invitation_that_needs_approval_is_kept_and_admits_nobody() -> None:
    office = staffed()
    gita, key = office.device("gita"), invitation_key(seed("approve"))
    facts = Invite(InviteId(bytes(16)), bytes(key.verify_key), Role.EDITOR, NOW + DAY, 1, 1, None, "x")
    invitation = office.say(office.owner, Kind.INVITE, facts.pack())
    intro = office.begin(gita)
    asked = intro, join_record(office, gita, JoinClaim.signed(key, facts.invite, office.mandate, intro, [invitation.raw]))
    assert office.verdict(witness(office, office.owner, asked)) == Verdict.ACCEPT
    assert "gita" not in roles(office)
    assert office.roster(office.owner).open_invites(NOW) == ()


# One use, many uses, and who counts when there were too many --------------------------------------------------------------------


def partition(uses: int = 1, hosts: int = 2) -> tuple[Office, list[Device], bytes]:
    """An office whose members have not met since a ticket was made, and the ticket."""
    office = Office()
    members = [office.owner, *(office.admit(f"host{number}") for number in range(1, hosts))]
    everybody_meets(office)
    for member in members:
        office.change(member)  # from now on nobody can deny that it knew of itself as a member
    return office, members, office.invite(office.owner, max_uses=uses)


def admit_apart(office: Office, host: Device, guest: str, ticket: bytes) -> None:
    assert isinstance(office.join(office.device(guest), ticket, host), Admission)


def test_a_ticket_used_twice_without_anybodys_knowing_lets_in_neither_and_is_loud() -> None:
    office, (olga, host), ticket = partition()
    admit_apart(office, olga, "anna", ticket)
    admit_apart(office, host, "berta", ticket)
    assert "anna" in roles(office, olga)
    assert "berta" in roles(office, host)
    office.meet(olga, host)
    roster = office.roster(olga)
    invite = Ticket.parse(ticket).invite
    assert roles(office, olga) == {"olga": "OWNER", "host1": "EDITOR"}
    assert roster.contested() == {invite: tuple(sorted(office.device(name).id for name in ("anna", "berta")))}
    assert set(roster.uses(invite).values()) == {Standing.CONTESTED}
    assert roster.by_transport(office.device("anna").keys.transport_public) is None
    assert roster.open_invites(NOW) == ()


def test_what_a_contested_guest_wrote_before_anybody_knew_stands_and_what_it_writes_after_does_not() -> None:
    office, (olga, host), ticket = partition()
    admit_apart(office, olga, "anna", ticket)
    before = office.change(office.device("anna"))
    admit_apart(office, host, "berta", ticket)
    everybody_meets(office)
    after = office.change(office.device("anna"))
    assert office.verdict(before) == Verdict.ACCEPT
    assert office.verdict(after) == Verdict.STRANGER


def test_an_owners_grant_settles_a_contest() -> None:
    office, (olga, host), ticket = partition()
    admit_apart(office, olga, "anna", ticket)
    admit_apart(office, host, "berta", ticket)
    everybody_meets(office)
    office.promote(olga, office.device("anna"), Role.EDITOR)
    assert roles(office, olga) == {"olga": "OWNER", "host1": "EDITOR", "anna": "EDITOR"}
    assert office.roster(olga).contested() == {Ticket.parse(ticket).invite: (office.device("berta").id,)}


def test_whoever_is_admitted_in_the_knowledge_of_another_does_not_harm_it() -> None:
    office, (olga, host), ticket = partition()
    admit_apart(office, olga, "anna", ticket)
    office.meet(olga, host)
    witness(office, host, office.ask(office.device("berta"), ticket))  # against the rules
    roster = office.roster(host)
    assert "anna" in roles(office, host)
    assert "berta" not in roles(office, host)
    assert roster.uses(Ticket.parse(ticket).invite)[office.device("berta").id] == Standing.LATE
    assert roster.contested() == {}


def test_two_hosts_admit_the_same_guest_and_that_is_one_use() -> None:
    office, (olga, host), ticket = partition()
    asked = office.ask(office.device("anna"), ticket)
    witness(office, olga, asked)
    witness(office, host, asked)
    again = office.ask(office.device("anna"), ticket)  # and once more after it lost its first log
    witness(office, host, again)
    office.meet(olga, host)
    assert "anna" in roles(office, olga)
    assert list(office.roster(olga).uses(Ticket.parse(ticket).invite).values()) == [Standing.COUNTS]


def test_of_many_uses_the_settled_ones_stay_when_others_are_contested() -> None:
    office, (olga, host), ticket = partition(uses=3)
    admit_apart(office, olga, "anna", ticket)
    admit_apart(office, olga, "berta", ticket)
    office.meet(olga, host)
    admit_apart(office, olga, "clara", ticket)
    admit_apart(office, host, "doris", ticket)
    office.meet(olga, host)
    assert set(roles(office, olga)) == {"olga", "host1", "anna", "berta"}
    assert len(office.roster(olga).contested()[Ticket.parse(ticket).invite]) == 2


def test_as_many_as_the_ticket_has_uses_may_come_in_apart() -> None:
    office, (olga, host), ticket = partition(uses=2)
    admit_apart(office, olga, "anna", ticket)
    admit_apart(office, host, "berta", ticket)
    office.meet(olga, host)
    assert {"anna", "berta"} <= set(roles(office, olga))


def test_a_later_blind_testimony_contests_even_a_settled_guest() -> None:
    office, (olga, host, third), ticket = partition(hosts=3)
    admit_apart(office, olga, "anna", ticket)
    office.meet(olga, host)
    late = office.ask(office.device("berta"), ticket)
    witness(office, host, late)
    assert "anna" in roles(office)
    witness(office, third, late, blind=True)
    assert set(roles(office)) == {"olga", "host1", "host2"}


def test_open_invitations() -> None:
    office = Office()
    tickets = [Ticket.parse(office.invite(office.owner, lasts=(9 - number) * DAY)) for number in range(3)]
    roster = office.roster(office.owner)
    assert [one.facts.invite for one in roster.open_invites(NOW)] == [ticket.invite for ticket in tickets]
    assert [one.facts.invite for one in roster.open_invites(NOW + 8 * DAY + 1)] == [tickets[0].invite]
    assert not roster.answers(tickets[2].invite, NOW + 8 * DAY)
    assert roster.answers(InviteId(bytes(16)), NOW)  # one that was never heard of may bring its invitation along
    office.consider(office.owner, office.ask(office.device("anna"), tickets[0]))
    roster = office.roster(office.owner)
    assert len(roster.open_invites(NOW)) == 2
    assert roster.answers(tickets[0].invite, NOW)  # whoever comes too late is told so
    invitation = roster.invitation(tickets[0].invite)
    assert invitation is not None
    assert not roster.is_open(invitation, NOW)


def test_at_most_64_invitations_are_open() -> None:
    office = Office()
    for _ in range(64):
        office.invite(office.owner)
    with pytest.raises(TooManyInvitations, match="64 open invitations"):
        office.invite(office.owner)
    facts = Invite(InviteId(bytes(16)), bytes(32), Role.EDITOR, NOW + DAY, 1, 0, None, "x")
    office.say(office.owner, Kind.INVITE, facts.pack())  # by an owner that does not keep to it
    assert len(office.roster(office.owner).open_invites(NOW)) == 64


def test_strangers_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rules, "MAX_DEVICES", 4)
    monkeypatch.setattr(rules, "MAX_LOGS", 3)
    monkeypatch.setattr(rules, "MAX_JOINS", 2)
    office = staffed()  # four devices
    ticket = office.invite(office.owner)
    assert office.verdict(office.begin(office.device("one too many"))) == Verdict.FULL
    joins = [office.ask(office.device("sam"), ticket)[1] for _ in range(2)]
    assert [office.verdict(join) for join in joins] == [Verdict.ACCEPT, Verdict.ACCEPT]
    assert office.verdict(office.begin(office.device("sam"))) == Verdict.FULL
    assert office.verdict(office.ask(office.device("rita"), ticket)[1]) == Verdict.FULL


# Random histories ---------------------------------------------------------------------------------------------------------------

NAMES = ("olga", "anna", "berta", "carl", "dora")
STEPS = ("meet", "meet", "meet", "change", "blind change", "invite", "use", "use", "use", "witness", "blind witness", "grant", "begin")
Step = tuple[str, int, int, int]


def play(steps: Iterable[Step]) -> Office:
    """A history: honest acts, and acts that no honest program signs, by whoever the dice name."""
    office = Office()
    devices = [office.owner, office.admit("anna"), office.admit("berta", Role.READER), office.device("carl"), office.device("dora")]
    for device in devices[:3]:
        office.meet(office.owner, device)
        office.say(device, Kind.RECEIPT, BODIES[Kind.RECEIPT](office))
    tickets = [invitation_by(office, office.owner, 1)]
    asked: list[tuple[Record, Record]] = []
    for what, a, b, c in steps:
        one, other = devices[a % 5], devices[b % 5]
        if what == "meet":
            office.meet(one, other)
        elif what == "begin":
            office.begin(one)
        elif not one.logs:
            continue
        elif what == "invite":
            tickets.append(invitation_by(office, one if c > 7 else office.owner, 1 + c % 2))
        elif what == "use":
            asked.append(office.ask(other, tickets[c % len(tickets)]))
            if office.roster(one).role_of(one.id) is not None:
                office.consider(one, asked[-1])
        elif what in ("witness", "blind witness") and asked:
            witness(office, one, asked[c % len(asked)], blind=what.startswith("blind"))
        elif what in ("change", "blind change"):
            office.change(one, deps=[] if what.startswith("blind") else None)
        elif what == "grant":
            office.promote(one if c > 7 else office.owner, other, Role(c % 3))
    return office


def invitation_by(office: Office, device: Device, uses: int) -> Ticket:
    """A ticket by anybody; one by somebody who is no owner proves nothing, but is signed all the same."""
    try:
        return Ticket.parse(office.invite(device, max_uses=uses))
    except OnlyOwnersInvite:
        ticket = Ticket.parse(office.invite(office.owner, max_uses=uses))
        record = office.say(device, Kind.INVITE, ticket.invitation.facts.pack())
        return dataclasses.replace(ticket, chain=(office.genesis.raw, record.raw))


def shuffled(office: Office, dice: random.Random) -> list[Record]:
    """All records in some causal order."""
    waiting, done, order = list(office.records.values()), set[RecordId](), list[Record]()
    while waiting:
        ready = [one for one in waiting if {*one.deps, *([one.prev] if one.prev else [])} <= done]
        chosen = dice.choice(ready)
        waiting.remove(chosen)
        done.add(chosen.id)
        order.append(chosen)
    return order


def naive_role(office: Office, accepted: set[RecordId], device: DeviceId, past: Vector | None) -> Role | None:
    """The rules of docs/protocol.md word by word, over sets, with nothing remembered: what the roster is to agree with."""
    cut = [one for one in office.records.values() if one.id in accepted and (past is None or past.get(one.log, 0) >= one.seq)]
    found = [Role.OWNER] if device == office.owner.id else []
    found += [Grant.unpack(one.body).role for one in cut if one.kind == Kind.GRANT and one.body[0] == device]
    joins = {one.id: one for one in cut if one.kind == Kind.JOIN}
    invitations = {one.id: Record.parse(JoinClaim.unpack(one.body).carried[-1]) for one in joins.values()}
    for invitation in {one.id: one for one in invitations.values()}.values():
        seen = [(one, joins[RecordId(one.body[0])].device) for one in cut if one.kind == Kind.WITNESS]
        seen = [(one, guest) for one, guest in seen if invitations[RecordId(one.body[0])].id == invitation.id]

        def knew(one: Record, guest: DeviceId, seen: list[tuple[Record, DeviceId]] = seen) -> bool:
            known = office.pasts[one.id]
            return any(guest == other and two.id != one.id and known.get(two.log, 0) >= two.seq for two, other in seen)

        unaware = {guest for one, guest in seen if guest != device and not knew(one, device)}
        facts = Invite.unpack(invitation.body)
        if device in {guest for _, guest in seen} and len(unaware) < facts.max_uses and not facts.flags:
            found.append(facts.role)
    return max(found, default=None)


def check_history(steps: list[Step], chance: int) -> None:
    """Any causal order gives the same verdicts and the same roster; the roster is what the rules say, in every past."""
    office, dice = play(steps), random.Random(chance)
    roster, verdicts = office.evaluate(office.records.values())
    accepted = {record for record, verdict in verdicts.items() if verdict.accepted}
    for _ in range(3):
        assert office.evaluate(shuffled(office, dice)) == (roster, verdicts)
    for device in office.devices.values():
        assert roster.role_of(device.id) == naive_role(office, accepted, device.id, None)
        view, seen = office.evaluate(one for one in shuffled(office, dice) if one.id in device.known)
        assert seen.items() <= verdicts.items()
        assert view == office.roster(device)
    for record in office.records.values():
        if record.id in verdicts and record.kind in rules.NEEDS:
            role = naive_role(office, accepted - {record.id}, record.device, office.pasts[record.id])
            assert (verdicts[record.id] in (Verdict.STRANGER, Verdict.ROLE)) == (role is None or role < rules.NEEDS[record.kind])
    for claims in roster.claims.values():
        counting = [guest for guest in claims.admitted() if claims.standing(guest) == Standing.COUNTS]
        assert len(counting) <= claims.invitation.facts.max_uses


steps = st.lists(st.tuples(st.sampled_from(STEPS), *[st.integers(0, 9)] * 3), max_size=40)
TWICE: list[Step] = [
    *[
        ("use", 0, 3, 0),
        ("use", 1, 4, 0),
        ("change", 3, 0, 0),
        ("meet", 0, 1, 0),
        ("change", 4, 0, 0),
        ("meet", 0, 4, 0),
        ("meet", 0, 3, 0),
    ],
    *[("change", 3, 0, 0), ("grant", 0, 3, 1), ("meet", 0, 3, 0), ("change", 3, 0, 0), ("meet", 0, 4, 0), ("change", 4, 0, 0)],
]
"""Two guests use one ticket in a partition, write before and after they hear of each other, and an owner settles it."""


@settings(max_examples=40, deadline=None)
@given(steps, st.integers(0, 2**32))
@example(TWICE, 1)
@example([("use", 0, 3, 0), ("use", 1, 3, 0), ("blind witness", 2, 0, 1), ("witness", 0, 0, 1), ("grant", 1, 1, 9), ("change", 2, 0, 0)], 2)
def test_any_causal_order_gives_the_same_roster(steps: list[Step], chance: int) -> None:
    check_history(steps, chance)


def test_long_histories() -> None:
    for chance in range(5):
        dice = random.Random(chance)
        check_history([(dice.choice(STEPS), dice.randrange(10), dice.randrange(10), dice.randrange(10)) for _ in range(90)], chance)


# Would the tests notice? --------------------------------------------------------------------------------------------------------

SCENARIOS: list[Callable[[], None]] = [
    test_a_reader_that_writes_is_refused_by_everybody,
    test_the_role_is_the_one_its_author_knew_of,
    test_an_editor_makes_no_owner_of_itself_or_others,
    test_a_grant_is_for_a_device_that_its_author_saw_introduced,
    test_grants_raise_and_never_lower,
    test_a_join_must_be_signed_by_its_invitation_for_this_very_guest,
    test_a_join_stands_right_behind_its_introduction,
    test_an_invitation_by_an_editor_admits_nobody,
    test_strangers_and_the_guest_itself_admit_nobody,
    test_a_join_is_admitted_only_by_who_saw_it_and_in_time,
    test_a_ticket_used_twice_without_anybodys_knowing_lets_in_neither_and_is_loud,
    test_whoever_is_admitted_in_the_knowledge_of_another_does_not_harm_it,
    test_two_hosts_admit_the_same_guest_and_that_is_one_use,
    test_of_many_uses_the_settled_ones_stay_when_others_are_contested,
    test_a_later_blind_testimony_contests_even_a_settled_guest,
    test_an_invitation_that_needs_approval_is_kept_and_admits_nobody,
    lambda: check_history(TWICE, 1),
]


def without(kind: Kind, verdict: Verdict) -> dict[Kind, object]:
    """The rules, but the rule for ``kind`` never gives ``verdict``."""
    rule = rules._RULES[kind]
    return {**rules._RULES, kind: lambda *args: Verdict.ACCEPT if rule(*args) == verdict else rule(*args)}


def any_knowledge(guest: DeviceId, testimonies: list[claims_module.Testimony]) -> bool:
    return all(guest not in seen.knew for seen in testimonies)


def last_invitation(self: Founding, carried: tuple[bytes, ...]) -> Invitation:
    return Invitation.read(Record.parse(carried[-1]))


def no_claims_in_past(self: Claims, past: claims_module.Past = None) -> dict[DeviceId, list[claims_module.Testimony]]:
    return ADMITTED(self, None)


ADMITTED = Claims.admitted
MUTANTS: dict[str, list[tuple[object, str, object]]] = {
    "readers write": [(rules, "NEEDS", {**rules.NEEDS, Kind.CHANGE: Role.READER})],
    "editors invite": [(Founding, "proves", last_invitation)],
    "editors grant": [(rules, "NEEDS", {**rules.NEEDS, Kind.GRANT: Role.EDITOR})],
    "strangers admit": [(rules, "NEEDS", {kind: role for kind, role in rules.NEEDS.items() if kind != Kind.WITNESS})],
    "what is known counts as known to the author": [
        (module, "in_past", lambda record, past: True) for module in (membership, claims_module)
    ],
    "admissions count though the author had not seen them": [(Claims, "admitted", no_claims_in_past)],
    "any signature joins": [(JoinClaim, "is_signed_by", lambda self, key, device: True)],
    "any grant is for a known device": [(rules, "_RULES", without(Kind.GRANT, Verdict.UNKNOWN_DEVICE))],
    "joins stand anywhere": [(rules, "_RULES", without(Kind.DEVICE, Verdict.OUT_OF_PLACE) | {Kind.JOIN: lambda *args: Verdict.ACCEPT})],
    "late is in time": [(rules, "_RULES", without(Kind.WITNESS, Verdict.TOO_LATE))],
    "guests admit themselves": [(rules, "_RULES", without(Kind.WITNESS, Verdict.OWN_JOIN))],
    "everybody counts": [(claims_module, "_unaware", lambda guest, testimonies: False)],
    "nobody knows of anybody": [(claims_module, "_unaware", lambda guest, testimonies: True)],
    "one testimony that knew excuses the others": [(claims_module, "_unaware", any_knowledge)],
    "flags are ignored": [(Invitation, "needs_approval", property(lambda self: False))],
}


def test_the_scenarios_pass_without_mutants() -> None:
    for scenario in SCENARIOS:
        scenario()


@pytest.mark.parametrize("mutant", MUTANTS)
def test_a_broken_rule_would_be_noticed(mutant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for owner, name, value in MUTANTS[mutant]:
        monkeypatch.setattr(owner, name, value)
    assert any(fails(scenario) for scenario in SCENARIOS)


def fails(scenario: Callable[[], None]) -> bool:
    try:
        scenario()
    except AssertionError:
        return True
    return False


def test_a_ticket_is_made_only_for_an_owners_invitation() -> None:
    office = staffed()
    eddie = office.device("eddie")
    with pytest.raises(OnlyOwnersInvite, match="Ask Olga to do it"):
        office.invite(eddie)
    record = office.say(eddie, Kind.INVITE, BODIES[Kind.INVITE](office))
    with pytest.raises(ValueError, match="no owner"):
        ticket_for(office.roster(eddie), record, eddie.keys, None, office.secret, (), name="x", now_ms=NOW)  # type: ignore[arg-type]
