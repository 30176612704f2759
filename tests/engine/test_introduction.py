"""Proofs of membership: the founder's word, step by step, for somebody who knows only the genesis."""

from __future__ import annotations

import random

import pytest

from p2psync.engine import introduction
from p2psync.engine.introduction import TooManyOwnersBetween, chain_for, extended, introduced, lineage, verify_chain
from p2psync.values.acts import Grant, Role, Witness
from p2psync.values.errors import Malformed
from p2psync.values.names import MandateId
from p2psync.values.record import Kind
from p2psync.values.ticket import Ticket
from tests.office import NOW, Device, Office, seed


def crowd() -> Office:
    """An owner, guests of guests, a promoted owner with a guest of its own, one made owner by the root key."""
    office = Office()
    anna = office.admit("anna", Role.READER)
    berta = office.admit("berta", host=anna)
    office.admit("clara", host=berta)
    office.meet(office.owner, berta)
    office.promote(office.owner, berta)
    office.meet(office.owner, berta)
    office.join(office.device("doris"), office.invite(berta), office.device("clara"))
    for device in list(office.devices.values()):
        office.meet(office.owner, device)
        office.say(device, Kind.RECEIPT, [[bytes(32), bytes(8), 1, bytes(32)]])
    office.root_device.known |= office.owner.known
    office.say(office.root_device, Kind.GRANT, Grant(office.device("doris").id, Role.OWNER).pack())
    for device in (*office.devices.values(), *office.devices.values()):
        office.meet(office.root_device, device)
    return office


OFFICE = crowd()


@pytest.mark.parametrize("name", ["olga", "anna", "berta", "clara", "doris"])
def test_a_proof_shows_the_participant_and_its_role(name: str) -> None:
    device = OFFICE.device(name)
    roster = OFFICE.roster(OFFICE.owner)
    chain = chain_for(roster, device.id)
    shown = verify_chain(chain, OFFICE.mandate)
    assert shown.members()[device.id] == roster.members()[device.id]
    assert len(chain) <= 11
    assert shown.by_transport(device.keys.transport_public) is not None


def test_a_stranger_has_no_proof() -> None:
    assert chain_for(OFFICE.roster(OFFICE.owner), OFFICE.device("sam").id) == ()


@pytest.mark.parametrize("name", ["clara", "doris"])
def test_no_record_of_a_proof_can_be_left_out(name: str) -> None:
    device = OFFICE.device(name)
    chain = chain_for(OFFICE.roster(OFFICE.owner), device.id)
    for at in range(len(chain)):
        assert not proves(OFFICE, chain[:at] + chain[at + 1 :], device)


def proves(office: Office, chain: tuple[bytes, ...], device: Device) -> bool:
    try:
        return device.id in verify_chain(chain, office.mandate).members()
    except Malformed:
        return False


def test_a_proof_with_any_byte_changed_is_refused() -> None:
    dice, chain = random.Random(3), chain_for(OFFICE.roster(OFFICE.owner), OFFICE.device("clara").id)
    for at, raw in enumerate(chain):
        for _ in range(5):
            place = dice.randrange(len(raw))
            changed = raw[:place] + bytes([raw[place] ^ dice.randint(1, 255)]) + raw[place + 1 :]
            with pytest.raises(Malformed):
                verify_chain((*chain[:at], changed, *chain[at + 1 :]), OFFICE.mandate)


def test_what_is_no_proof_is_refused() -> None:
    chain = chain_for(OFFICE.roster(OFFICE.owner), OFFICE.device("clara").id)
    receipt = next(one.raw for one in OFFICE.records.values() if one.kind == Kind.RECEIPT)
    for wrong in ((), chain[1:], chain[::-1], (*chain, receipt), chain * 20, (OFFICE.genesis.raw, b"")):
        with pytest.raises(Malformed):
            verify_chain(wrong, OFFICE.mandate)
    with pytest.raises(Malformed, match="another mandate"):
        verify_chain(chain, MandateId(bytes(32)))


def test_a_member_believes_a_newcomer_by_its_proof() -> None:
    office = crowd()
    clara, anna, gita = (office.device(name) for name in ("clara", "anna", "gita"))
    office.meet(clara, office.owner)
    office.join(gita, office.invite(office.owner), clara)
    chain = chain_for(office.roster(clara), gita.id)
    roster = office.roster(anna)
    assert roster.by_transport(gita.keys.transport_public) is None
    member = introduced(roster, chain, gita.keys.transport_public)
    assert member is not None
    assert (member.device, member.role) == (gita.id, Role.EDITOR)
    assert introduced(roster, chain, seed("another key")) is None
    assert introduced(roster, (), clara.keys.transport_public) == roster.members()[clara.id]
    assert extended(roster, chain_for(roster, clara.id)) == roster  # nothing new


def test_a_proof_does_not_hide_what_the_member_knows_better() -> None:
    office = crowd()
    clara, anna = office.device("clara"), office.device("anna")
    ticket = office.invite(office.owner)
    office.join(office.device("gita"), ticket, office.owner)
    office.join(office.device("thief"), ticket, clara)
    office.meet(office.owner, anna)
    chain = chain_for(office.roster(clara), office.device("thief").id)
    assert proves(office, chain, office.device("thief"))  # to somebody who knows nothing
    assert introduced(office.roster(anna), chain, office.device("thief").keys.transport_public) is None
    office.meet(office.owner, clara)
    assert chain_for(office.roster(office.owner), office.device("thief").id) == ()


def test_a_newer_introduction_is_in_the_proof() -> None:
    office = crowd()
    clara = office.device("clara")
    keys = clara.keys
    clara.logs += 1
    office.say(clara, Kind.DEVICE, ["Clara Weiss", "laptop", keys.transport_public, keys.box_public, ""])
    roster = office.roster(clara)
    assert verify_chain(chain_for(roster, clara.id), office.mandate).members()[clara.id].person == "Clara Weiss"
    assert extended(roster, chain_for(crowd().roster(office.owner), clara.id)) == roster


def test_somebody_elses_testimony_proves_nothing() -> None:
    office = crowd()
    sam, gita = office.device("sam"), office.device("gita")
    intro = office.begin(sam)
    asked = office.ask(gita, office.invite(office.owner))
    office.tell(sam, [asked[1].id])
    false = office.say(sam, Kind.WITNESS, Witness(asked[1].id, NOW).pack())
    chain = [office.genesis.raw, *(record.raw for record in (intro, *asked, false))]
    with pytest.raises(Malformed, match="no participant"):
        verify_chain(chain, office.mandate)


def test_the_shortest_way_is_taken() -> None:
    office = Office()
    anna = office.admit("anna")
    asked = office.ask(office.device("gita"), office.invite(office.owner))
    office.meet(office.owner, anna)
    for host in (anna, office.owner):
        host.known |= {one.id for one in asked}
        office.say(host, Kind.WITNESS, Witness(asked[1].id, NOW).pack())
    office.meet(office.owner, anna)
    assert len(chain_for(office.roster(anna), office.device("gita").id)) == 4


def test_a_proof_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(introduction, "MAX_PROOF", 4)
    roster = OFFICE.roster(OFFICE.owner)
    assert chain_for(roster, OFFICE.device("anna").id) != ()
    assert chain_for(roster, OFFICE.device("clara").id) == ()


def test_a_ticket_is_bounded_in_bytes_too(monkeypatch: pytest.MonkeyPatch) -> None:
    office = Office()
    office.invite(office.owner)
    monkeypatch.setattr(introduction, "MAX_LINEAGE", 500)
    with pytest.raises(TooManyOwnersBetween):
        office.invite(office.owner)


def test_a_ticket_names_only_the_owners_in_between() -> None:
    office = Office()
    owner = office.owner
    for number in range(14):
        heir = office.admit(f"heir{number}")
        office.meet(office.owner, owner)
        office.promote(owner, heir)
        office.meet(owner, heir)
        owner = heir
    ticket = Ticket.parse(office.invite(owner))
    assert len(ticket.chain) == 16
    last = office.admit("last")
    office.meet(owner, last)
    office.promote(owner, last)
    office.meet(owner, last)
    with pytest.raises(TooManyOwnersBetween):
        office.invite(last)
    roster = office.roster(last)
    invitation = next(one for one in office.records.values() if one.kind == Kind.INVITE and one.device == office.owner.id)
    assert lineage(roster, invitation) == (office.genesis.raw, invitation.raw)
