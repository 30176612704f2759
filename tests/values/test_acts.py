"""Bodies of records: what is well formed, what is not, and that a bad one cannot be made."""

from __future__ import annotations

import pytest
from nacl.signing import SigningKey

from p2psync.values.acts import DeviceIntro, Genesis, Grant, Invite, JoinClaim, Role, Witness, body_of
from p2psync.values.errors import Malformed
from p2psync.values.lineage import LONGEST_MS, Founding, Invitation
from p2psync.values.names import DeviceId, InviteId, MandateId, RecordId
from p2psync.values.packing import Plain
from p2psync.values.record import NO_MANDATE, Kind, Record
from p2psync.values.relayed import Relayed
from tests.office import NOW, Office

KEY = SigningKey(bytes(32))
B32, B64 = bytes(range(32)), bytes(64)
I16 = InviteId(bytes(range(16)))
D = DeviceId(B32)


def record(kind: Kind, body: list[Plain]) -> Record:
    return Record.sign(KEY, mandate=MandateId(B32), incarnation=bytes(8), seq=1, prev=None, deps=(), time_ms=NOW, kind=kind, body=body)


GOOD = [
    (Kind.GENESIS, Genesis("Müller & Söhne", B32, D, B32, NOW)),
    (Kind.DEVICE, DeviceIntro("Olga", "pc-olga", B32, B32, "")),
    (Kind.GRANT, Grant(D, Role.OWNER)),
    (Kind.INVITE, Invite(I16, B32, Role.EDITOR, NOW, 20, 0, None, "")),
    (Kind.INVITE, Invite(I16, B32, Role.READER, NOW, 1, 1, D, "x" * 64)),
    (Kind.JOIN, JoinClaim(I16, B64, (b"one", b"two"))),
    (Kind.WITNESS, Witness(RecordId(B32), NOW)),
]


@pytest.mark.parametrize(("kind", "body"), GOOD, ids=lambda value: type(value).__name__)
def test_a_body_comes_back_as_it_went(kind, body) -> None:
    assert body_of(record(kind, body.pack())) == body


BAD: list[tuple[Kind, list[Plain], str]] = [
    (Kind.GENESIS, ["", B32, B32, B32, 1], "no name"),
    (Kind.GENESIS, ["x" * 129, B32, B32, B32, 1], "name too long"),
    (Kind.GENESIS, ["x", B32, B32, B32], "a field missing"),
    (Kind.GENESIS, ["x", B32, B32, B32, True], "a boolean for a number"),
    (Kind.DEVICE, ["", "pc", B32, B32, "linux"], "no person"),
    (Kind.DEVICE, ["Olga", "p\nc", B32, B32, "linux"], "a control character"),
    (Kind.DEVICE, ["Olga", "pc\x7f", B32, B32, "linux"], "a delete character"),
    (Kind.DEVICE, ["Olga", "pc", B32[:31], B32, "linux"], "a short key"),
    (Kind.DEVICE, ["Olga", "pc", B32, B32, "x" * 17], "platform too long"),
    (Kind.DEVICE, ["Ol", "é" * 33, B32, B32, ""], "66 bytes of name"),
    (Kind.GRANT, [B32, 3], "an unknown role"),
    (Kind.GRANT, [B32[:5], 1], "a short device"),
    (Kind.INVITE, [I16, B32, 2, 9, 1, 0, None, "x"], "a ticket for an owner"),
    (Kind.INVITE, [I16, B32, 1, 9, 0, 0, None, "x"], "no use"),
    (Kind.INVITE, [I16, B32, 1, 9, 21, 0, None, "x"], "too many uses"),
    (Kind.INVITE, [I16, B32, 1, 9, 1, 256, None, "x"], "flags beyond a byte"),
    (Kind.INVITE, [I16, B32, 1, 9, 1, 0, B64, "x"], "a long device"),
    (Kind.INVITE, [B32, B32, 1, 9, 1, 0, None, "x"], "a long id"),
    (Kind.JOIN, [I16, B64, []], "nothing carried"),
    (Kind.JOIN, [I16, B64, [b""] * 16], "too much carried"),
    (Kind.JOIN, [I16, B64, ["text"]], "text carried"),
    (Kind.JOIN, [I16, B32, [b""]], "a short signature"),
    (Kind.WITNESS, [B32], "no time"),
    (Kind.REVOKE, [B32, [], 0], "no log cut"),
    (Kind.REVOKE, [B32, [[bytes(7), 1]], 0], "a short incarnation"),
    (Kind.REVOKE, [B32, ["x"], 0], "a cut that is no pair"),
    (Kind.WITHDRAW, [B32], "a long id"),
    (Kind.APPROVE, [B32, 1], "a number for a yes"),
    (Kind.ROTATE, [0, B32, None], "generation 0 is the genesis's"),
    (Kind.ROTATE, [2**32, B32, None], "a generation beyond u32"),
    (Kind.ROTATE, [1, B32, b""], "a short reason"),
    (Kind.RECEIPT, [], "no log"),
    (Kind.RECEIPT, [[B32, bytes(8), 1]], "no id"),
    (Kind.RESUME, [[bytes(8), 1, B64]], "a long id"),
    (Kind.TEAM, [[]], "a list"),
    (Kind.TEAM, ["x"] * 17, "too much"),
]


@pytest.mark.parametrize(("kind", "body", "why"), BAD, ids=[f"{kind.name.lower()}: {why}" for kind, _, why in BAD])
def test_a_bad_body_is_refused(kind: Kind, body: list[Plain], why: str) -> None:
    with pytest.raises(Malformed):
        body_of(record(kind, body))


RELAYED: list[tuple[Kind, list[Plain]]] = [
    (Kind.REVOKE, [B32, [[bytes(8), 7]], 1]),
    (Kind.WITHDRAW, [I16]),
    (Kind.APPROVE, [B32, True]),
    (Kind.ROTATE, [1, B32, None]),
    (Kind.ROTATE, [1, B32, B32]),
    (Kind.RECEIPT, [[B32, bytes(8), 1, B32]]),
    (Kind.RESUME, [[bytes(8), 1, B32]]),
    (Kind.TEAM, ["rename", "Dupont & fils SA"]),
    (Kind.CHANGE, [["read elsewhere"]]),
]


@pytest.mark.parametrize(("kind", "body"), RELAYED, ids=lambda value: value.name if isinstance(value, Kind) else "")
def test_bodies_that_nothing_acts_on_yet_are_kept(kind: Kind, body: list[Plain]) -> None:
    assert body_of(record(kind, body)) == Relayed(kind, D if kind == Kind.REVOKE else None)


@pytest.mark.parametrize("kind", Kind)
@pytest.mark.parametrize("body", [[], [None], [0], [b""], [[[]]], ["x", 1, None, b"", [], True, 0, 0]])
def test_any_body_is_read_or_refused(kind: Kind, body: list[Plain]) -> None:
    try:
        body_of(record(kind, body))
    except Malformed:
        pass


def test_a_genesis_commits_the_mandate_to_all_that_is_in_it() -> None:
    root = bytes(KEY.verify_key)
    one = Genesis("Dupont SA", root, D, B32, NOW).signed(KEY)
    other = Genesis("Dupont SA", root, D, B64[:32], NOW).signed(KEY)
    assert Genesis.read(one).name == "Dupont SA"
    assert one.founds != other.founds
    assert bytes(one.founds) != bytes(one.id)


def test_what_is_no_genesis_founds_nothing() -> None:
    genesis = Genesis("Dupont SA", bytes(KEY.verify_key), D, B32, NOW)
    of_other_root = Genesis("Dupont SA", B32, D, B32, NOW)
    with pytest.raises(Malformed):
        Genesis.read(of_other_root.signed(KEY))
    common = {"incarnation": bytes(8), "seq": 1, "prev": None, "deps": (), "time_ms": NOW, "kind": Kind.GENESIS, "body": genesis.pack()}
    for change in ({"mandate": MandateId(B32)}, {"incarnation": b"\1" * 8}, {"deps": (RecordId(B32),)}, {"seq": 2, "prev": RecordId(B32)}):
        with pytest.raises(Malformed):
            Genesis.read(Record.sign(KEY, **{"mandate": NO_MANDATE, **common, **change}))  # type: ignore[arg-type]
    with pytest.raises(Malformed):
        Genesis.read(record(Kind.DEVICE, DeviceIntro("a", "b", B32, B32, "").pack()))


def test_a_join_is_signed_for_one_introduction_in_one_mandate() -> None:
    intro = record(Kind.DEVICE, DeviceIntro("Gita", "pc", B32, B32, "").pack())
    other = record(Kind.DEVICE, DeviceIntro("Gita", "pc2", B32, B32, "").pack())
    claim = JoinClaim.signed(KEY, I16, intro.mandate, intro, [b"x"])
    assert claim.is_signed_by(bytes(KEY.verify_key), intro)
    assert not claim.is_signed_by(bytes(KEY.verify_key), other)
    assert not claim.is_signed_by(B32, intro)
    assert not claim.is_signed_by(bytes(32), intro)  # a point of small order


def test_an_invitation_is_open_for_90_days_at_most() -> None:
    facts: list[Plain] = [I16, B32, 1, NOW + LONGEST_MS, 1, 0, None, "x"]
    assert Invitation.read(record(Kind.INVITE, [*facts])).issued_ms == NOW
    for too_late in (NOW + LONGEST_MS + 1, NOW, NOW - 1):
        with pytest.raises(Malformed):
            Invitation.read(record(Kind.INVITE, [*facts[:3], too_late, *facts[4:]]))


def test_what_is_carried_proves_the_issuer_or_nothing() -> None:
    office = Office()
    anna, berta = office.admit("anna"), office.admit("berta")
    grant = office.promote(office.owner, anna)
    office.meet(office.owner, anna)
    further = office.promote(anna, berta)
    office.meet(anna, berta)
    facts = Invite(I16, B32, Role.EDITOR, NOW + 1, 1, 0, None, "x").pack()
    by_owner, by_anna, by_berta = (office.say(device, Kind.INVITE, facts) for device in (office.owner, anna, berta))
    proves = Founding.read(office.genesis).proves
    for chain in ([by_owner], [grant, by_anna], [grant, further, by_berta], [grant, by_owner]):
        assert proves([one.raw for one in chain]).issuer == chain[-1].device
    editor = office.promote(office.owner, berta, Role.EDITOR)
    foreign = Office(tag="other")
    theirs = foreign.say(foreign.owner, Kind.INVITE, facts)
    for chain in (
        [],
        [grant],
        [by_anna],
        [further, by_berta],
        [further, grant, by_berta],
        [by_anna, grant],
        [editor, by_berta],
        [theirs],
        [grant] * 15 + [by_anna],
        [by_owner, by_owner],
    ):
        with pytest.raises(Malformed):
            proves([one.raw for one in chain])
