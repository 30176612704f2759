"""Tickets: what they carry, what they survive, and that nothing but the very ticket that was signed is ever accepted."""

from __future__ import annotations

import dataclasses
import json
import random
import re
import time
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nacl.signing import SigningKey

from p2psync.values.acts import APPROVAL, Invite, Role
from p2psync.values.armour import MAX_TEXT, armoured, bared
from p2psync.values.digest import fingerprint
from p2psync.values.errors import Malformed
from p2psync.values.keys import gate_key, invitation_key
from p2psync.values.lineage import LONGEST_MS
from p2psync.values.names import InviteId
from p2psync.values.packing import pack, unpack
from p2psync.values.record import Kind
from p2psync.values.ticket import (
    Hint,
    NotATicket,
    Ticket,
    TicketDamaged,
    TicketExpired,
    TicketForged,
    TicketNeedsApproval,
    TicketProtected,
    TicketRefused,
    TicketTooNew,
)
from tests.office import DAY, NOW, Office, seed

GOLDEN = Path(__file__).parents[1] / "data" / "ticket-1.txt"
HINTS = (Hint(bytes([192, 168, 1, 20]), 22088), Hint(bytes.fromhex("fe80" + "00" * 13 + "01"), 22088))


def office_with_ticket(**terms) -> tuple[Office, bytes]:
    office = Office("Dupont & Söhne SA")
    return office, office.invite(office.owner, hints=HINTS, for_name="Gîta", **terms)


OFFICE, TEXT = office_with_ticket()
RAW = bared(TEXT)
BODY = unpack(RAW[12:-64], MAX_TEXT)


def signed(body: list, key: SigningKey | None = None, head: bytes = b"P2PSYNCT\1\0") -> bytes:
    """A ticket file around any body, with a checksum and a signature that are right."""
    packed = pack(body)
    raw = head + len(packed).to_bytes(2, "big") + packed
    return armoured(raw + (key or OFFICE.owner.keys.signing).sign(b"p2psync/1 ticket\0" + raw).signature)


def with_field(index: int, value) -> list:
    return [*BODY[:index], value, *BODY[index + 1 :]]


def test_a_ticket_says_what_was_put_into_it() -> None:
    ticket = Ticket.parse(TEXT)
    assert (ticket.mandate, ticket.name, ticket.role) == (OFFICE.mandate, "Dupont & Söhne SA", Role.EDITOR)
    assert (ticket.issuer, ticket.issuer_name) == (OFFICE.owner.id, "Olga (pc-olga)")
    assert ticket.hints == HINTS
    assert ticket.invitation.facts.label == "Gîta"
    assert bytes(invitation_key(ticket.seed).verify_key) == ticket.invitation.facts.public_key
    assert ticket.gate == gate_key(OFFICE.secret, OFFICE.mandate, ticket.invite)
    assert ticket.chain[0] == OFFICE.genesis.raw
    assert bytes(OFFICE.secret) not in RAW


def test_the_file_is_text_that_says_what_to_do_with_it() -> None:
    lines = TEXT.decode("ascii").splitlines()
    assert lines[0] == "This file is a key to a shared mandate. Open it with p2psync; then erase it."
    assert (lines[2], lines[-1]) == ("-----BEGIN P2PSYNC TICKET-----", "-----END P2PSYNC TICKET-----")
    assert max(map(len, lines[3:-1])) == 64
    assert len(TEXT) < 3000


def test_the_secrets_never_show() -> None:
    ticket = Ticket.parse(TEXT)
    shown = json.dumps(ticket.inspection(NOW)) + repr(ticket)
    for secret in (ticket.seed, ticket.gate):
        assert bytes(secret).hex() not in shown
        assert repr(bytes(secret))[2:-1] not in shown
    assert ticket.inspection(NOW) == {
        "mandate": {"id": OFFICE.mandate.hex(), "name": "Dupont & Söhne SA", "fingerprint": fingerprint(ticket.root)},
        "issuer": {"device": OFFICE.owner.id.hex(), "name": "pc-olga", "person": "Olga", "proved": True},
        "invite": ticket.invite.hex(),
        "for": "Gîta",
        "role": "editor",
        "created_ms": NOW,
        "expires_ms": NOW + 7 * DAY,
        "expired": False,
        "uses": 1,
        "for_device": None,
        "protection": "none",
        "addresses": ["192.168.1.20:22088", "[fe80::1]:22088"],
    }


def test_names_are_escaped_where_they_are_shown() -> None:
    ticket = Ticket.parse(signed(with_field(1, "Dup\u202eont")))
    assert ticket.inspection(NOW)["mandate"]["name"] == "Dup\\u202eont"  # type: ignore[index]


def test_it_expires() -> None:
    ticket = Ticket.parse(TEXT)
    ticket.check_time(NOW + 7 * DAY)
    with pytest.raises(TicketExpired, match=r"expired on 2025-10-16 08:53 UTC\. Ask Olga \(pc-olga\) for a new one\."):
        ticket.check_time(NOW + 7 * DAY + 1)


WAYS = {
    "CRLF": lambda text: text.replace(b"\n", b"\r\n"),
    "old Mac line ends": lambda text: text.replace(b"\n", b"\r"),
    "byte order mark": lambda text: b"\xef\xbb\xbf" + text,
    "quoted once": lambda text: re.sub(rb"(?m)^", b"> ", text),
    "quoted thrice": lambda text: re.sub(rb"(?m)^", b">>> ", text),
    "spaces at the ends": lambda text: text.replace(b"\n", b"  \t\n"),
    "indented": lambda text: re.sub(rb"(?m)^", b"    ", text),
    "empty lines between": lambda text: text.replace(b"\n", b"\n\n"),
    "no last line end": lambda text: text.rstrip(),
    "all of it, in a letter": lambda text: (
        b"\xef\xbb\xbfHello,\r\n" + re.sub(rb"(?m)^", b"> ", text).replace(b"\n", b" \r\n") + b"\xff\xfe bye"
    ),
    "lines of another width": lambda text: re.sub(rb"(?m)^([A-Za-z0-9+/=]{40})([A-Za-z0-9+/=]+)$", rb"\1\n\2", text),
}


@pytest.mark.parametrize("way", WAYS)
def test_the_text_survives_its_way(way: str) -> None:
    assert Ticket.parse(WAYS[way](TEXT)) == Ticket.parse(TEXT)


@pytest.mark.parametrize(
    ("text", "error"),
    [
        (b"", NotATicket),
        (b"PK\3\4 some other file", NotATicket),
        (bytes(MAX_TEXT + 1), NotATicket),
        (TEXT + bytes(MAX_TEXT), NotATicket),
        (TEXT[: len(TEXT) // 2], TicketDamaged),
        (TEXT.replace(b"END", b"FIN"), TicketDamaged),
        (b"-----BEGIN P2PSYNC TICKET-----\n-----END P2PSYNC TICKET-----", TicketDamaged),
        (b"-----BEGIN P2PSYNC TICKET-----\nAAAA\n-----END P2PSYNC TICKET-----", TicketDamaged),
        (b"-----END P2PSYNC TICKET-----\nAAAA\n-----BEGIN P2PSYNC TICKET-----", TicketDamaged),
        (TEXT.replace(b"BEGIN", b"BEGUN"), TicketDamaged),
        (TEXT.replace(b"\n", b"\n\xc3\xa9").replace(b"\xc3\xa9-", b"-"), TicketDamaged),
        (TEXT.replace(b"\n-----END", b"!\n-----END"), TicketDamaged),
        (armoured(b""), TicketDamaged),
        (armoured(b"P2PSYNCT"), TicketDamaged),
        (armoured(b"ELSEWHAT" + RAW[8:]), TicketDamaged),
        (armoured(RAW[:8] + b"\2" + RAW[9:]), TicketTooNew),
        (armoured(RAW[:9] + b"\1" + RAW[10:]), TicketProtected),
        (armoured(RAW[:9] + b"\2" + RAW[10:]), TicketProtected),
        (armoured(RAW[:9] + b"\3" + RAW[10:]), TicketForged),
        (armoured(RAW[:10] + b"\0\0" + RAW[12:]), TicketForged),
        (armoured(RAW + b"\0"), TicketForged),
        (armoured(RAW[:-64] + bytes(64)), TicketForged),
    ],
)
def test_what_is_wrong_is_said(text: bytes, error: type[TicketRefused]) -> None:
    with pytest.raises(error) as caught:
        Ticket.parse(text)
    assert type(caught.value) is error
    assert str(caught.value).endswith(".")


FORGED = {
    "another mandate": with_field(0, bytes(32)),
    "an empty name": with_field(1, ""),
    "another root key": with_field(2, bytes(32)),
    "another invitation": with_field(3, bytes(16)),
    "another seed": with_field(4, bytes(32)),
    "a short gate key": with_field(5, bytes(31)),
    "another issuer": with_field(6, [OFFICE.device("mallory").id, *BODY[6][1:]]),
    "a role it was not made for": with_field(7, 0),
    "a role no ticket gives": with_field(7, 2),
    "a later end": with_field(8, NOW + 8 * DAY),
    "more uses": with_field(9, 2),
    "approval dropped": with_field(10, 4),
    "a device": with_field(11, bytes(32)),
    "nine addresses": with_field(12, [HINTS[0].pack()] * 9),
    "an address on the Internet": with_field(12, [[bytes([8, 8, 8, 8]), 53]]),
    "a multicast address": with_field(12, [[bytes([224, 0, 0, 251]), 5353]]),
    "an IPv6 address on the Internet": with_field(12, [[bytes.fromhex("2001") + bytes(14), 1]]),
    "port 0": with_field(12, [[HINTS[0].address, 0]]),
    "an address of five bytes": with_field(12, [[bytes(5), 1]]),
    "made after its end": with_field(13, NOW + 7 * DAY),
    "made long before": with_field(13, NOW + 7 * DAY - LONGEST_MS - 1),
    "no proof": with_field(14, []),
    "no invitation": with_field(14, BODY[14][:1]),
    "no genesis": with_field(14, BODY[14][1:]),
    "seventeen records": with_field(14, [*BODY[14][:1], *BODY[14][1:] * 16]),
    "text for a record": with_field(14, ["genesis", "invitation"]),
    "a field more": [*BODY, None],
    "nothing": [],
}


@pytest.mark.parametrize("what", FORGED)
@pytest.mark.parametrize("by", ["its issuer", "somebody"])
def test_a_ticket_must_fit_its_invitation_whoever_signs(what: str, by: str) -> None:
    key = OFFICE.owner.keys.signing if by == "its issuer" else OFFICE.device("mallory").keys.signing
    with pytest.raises(TicketForged):
        Ticket.parse(signed(FORGED[what], key))


def test_only_the_issuer_can_sign_it() -> None:
    with pytest.raises(TicketForged, match="a wrong signature"):
        Ticket.parse(signed(BODY, OFFICE.device("mallory").keys.signing))
    assert Ticket.parse(signed(BODY)) == Ticket.parse(TEXT)


def test_an_editor_makes_no_ticket_that_is_believed() -> None:
    office = Office()
    anna = office.admit("anna")
    facts = Invite(InviteId(bytes(16)), bytes(invitation_key(seed("x")).verify_key), Role.EDITOR, NOW + DAY, 1, 0, None, "x")
    record = office.say(anna, Kind.INVITE, facts.pack())
    with pytest.raises(Malformed):
        Ticket.mint(
            anna.keys.signing,
            chain=[office.genesis.raw, record.raw],
            seed=seed("x"),
            gate=seed("y"),
            name="n",
            device_name="d",
            person="p",
            hints=(),
            created_ms=NOW,
        )


def test_a_promoted_owner_makes_tickets_that_prove_their_promotion() -> None:
    office = Office()
    anna = office.admit("anna")
    office.promote(office.owner, anna)
    office.meet(office.owner, anna)
    ticket = Ticket.parse(office.invite(anna))
    assert ticket.issuer == anna.id
    assert len(ticket.chain) == 3


def test_one_that_needs_approval_is_named_as_such() -> None:
    office = Office()
    facts = Invite(InviteId(bytes(16)), bytes(invitation_key(seed("x")).verify_key), Role.EDITOR, NOW + DAY, 1, APPROVAL, None, "x")
    record = office.say(office.owner, Kind.INVITE, facts.pack())
    with pytest.raises(TicketNeedsApproval, match="Ask p"):
        Ticket.mint(
            office.owner.keys.signing,
            chain=[office.genesis.raw, record.raw],
            seed=seed("x"),
            gate=seed("y"),
            name="n",
            device_name="d",
            person="p",
            hints=(),
            created_ms=NOW,
        )


@pytest.mark.parametrize("name", ["", "x" * 129, "x" * 20_000, "a\nb"])
def test_a_name_that_no_mandate_has_is_not_put_into_a_ticket(name: str) -> None:
    ticket = Ticket.parse(TEXT)
    with pytest.raises(TicketForged):
        Ticket.mint(
            OFFICE.owner.keys.signing,
            chain=ticket.chain,
            seed=ticket.seed,
            gate=ticket.gate,
            name=name,
            device_name="d",
            person="p",
            hints=(),
            created_ms=NOW,
        )


def test_it_ends_with_the_year_9999() -> None:
    office = Office()
    far = 253_402_300_799_000
    with pytest.raises(TicketForged, match="too long"):
        office.invite(office.owner, now=far - 1)
    Ticket.parse(office.invite(office.owner, now=far - 2 * DAY, lasts=DAY)).check_time(NOW)


def mutated(dice: random.Random) -> bytes:
    """The ticket with one to four accidents or forgeries, the checksum repaired in half of the cases."""
    data = bytearray(RAW if (repaired := dice.random() < 0.5) else TEXT)
    for _ in range(dice.randint(1, 4)):
        at = dice.randrange(len(data))
        how = dice.randrange(6)
        if how == 0:
            data[at] ^= 1 << dice.randrange(8)
        elif how == 1:
            data[at] = dice.randrange(256)
        elif how == 2:
            del data[at : at + dice.randint(1, 40)]
        elif how == 3:
            data[at:at] = dice.randbytes(dice.randint(1, 40))
        elif how == 4:
            data[at:at] = data[dice.randrange(len(data)) :][: dice.randint(1, 200)]
        else:
            data = data[: at + 1]
        if not data:
            break
    return armoured(bytes(data)) if repaired else bytes(data)


def test_2000_mutated_tickets_are_refused_by_name_or_say_the_very_same() -> None:
    dice, genuine, seen = random.Random(20251008), Ticket.parse(TEXT), set()
    tracemalloc.start()
    slowest = 0.0
    for _ in range(2000):
        text = mutated(dice)
        begun = time.thread_time()
        try:
            assert Ticket.parse(text) == genuine  # a changed space or note line changes nothing
            seen.add("genuine")
        except TicketRefused as error:
            seen.add(type(error).__name__)
        slowest = max(slowest, time.thread_time() - begun)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert seen >= {"genuine", "NotATicket", "TicketDamaged", "TicketForged"}
    assert slowest < 0.25  # about 1 ms; the bound is for a machine that is busy
    assert peak < 20 * 1024 * 1024


def test_every_bit_flipped_with_the_checksum_repaired_is_refused() -> None:
    for at in range(0, len(RAW) * 8, 7):
        data = bytearray(RAW)
        data[at // 8] ^= 1 << at % 8
        with pytest.raises(TicketRefused):
            Ticket.parse(armoured(bytes(data)))


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=400))
def test_any_bytes_are_refused(data: bytes) -> None:
    for text in (data, armoured(data), armoured(b"P2PSYNCT\1\0" + data)):
        with pytest.raises(TicketRefused):
            Ticket.parse(text)


BOMBS = {
    "a list that claims four thousand million items": b"\xdd\xff\xff\xff\xff",
    "text that claims four thousand million bytes": b"\xdb\xff\xff\xff\xff",
    "ten thousand levels": b"\x91" * 10_000,
    "ten thousand empty lists": b"\xdc\x27\x10" + b"\x90" * 10_000,
    "a map": b"\x81\x01\x01",
    "a time stamp": b"\x91\xd6\xff\0\0\0\0",
    "no number": b"\x91\xcb\x7f\xf8\0\0\0\0\0\0",
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_a_bomb_in_a_ticket_is_refused(bomb: str) -> None:
    raw = b"P2PSYNCT\1\0" + len(BOMBS[bomb]).to_bytes(2, "big") + BOMBS[bomb]
    with pytest.raises(TicketForged):
        Ticket.parse(armoured(raw + bytes(64)))


def test_golden_ticket() -> None:
    """The bytes of version 1: a ticket made once must stay readable, and be made again alike from the same facts."""
    assert TEXT.decode() == GOLDEN.read_text()
    assert dataclasses.asdict(Ticket.parse(GOLDEN.read_bytes()))["created_ms"] == NOW
