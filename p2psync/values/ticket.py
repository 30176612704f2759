"""The ticket: a signed invitation, and the two secrets that let its bearer in (docs/protocol.md, “Tickets”).

    raw  = "P2PSYNCT" | u8 version 1 | u8 protection 0 | u16be length | body | signature 64
    body = msgpack([mandate, name, root, invite, S, P, [issuer, issuer's name, person], role, not after, uses, flags, for device,
                    hints, created, chain])
    signature = Ed25519(issuer, "p2psync/1 ticket\\0" || everything before it)

S makes the key that signs one join, P opens the gate of this one invitation; no key of the mandate is inside, and nothing in it
makes an owner. A ticket parses only if it proves all it says: genesis, grants and invitation are in it, and its issuer signed it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from nacl.exceptions import CryptoError
from nacl.signing import SigningKey, VerifyKey

from p2psync.values.acts import MAX_CARRIED, MAX_MANDATE_NAME, MAX_NAME, Role, said
from p2psync.values.armour import MAX_TEXT, NotATicket, TicketDamaged, TicketRefused, armoured, bared
from p2psync.values.digest import fingerprint
from p2psync.values.errors import Malformed
from p2psync.values.hint import MAX_HINTS, Hint
from p2psync.values.keys import Secret, invitation_key
from p2psync.values.lineage import LONGEST_MS, Founding, Invitation
from p2psync.values.names import DeviceId, InviteId, MandateId, escaped
from p2psync.values.packing import Plain, exactly, fields, pack, unpack
from p2psync.values.record import Record

__all__ = ["Hint", "NotATicket", "Ticket", "TicketDamaged", "TicketExpired", "TicketForged", "TicketRefused"]

_MAGIC = b"P2PSYNCT"
_VERSION = 1
_HEAD = 12
_SIGNATURE = 64
_END_OF_TIME_MS = 253_402_300_799_000
"""The last second of the year 9999."""


class TicketForged(TicketRefused):
    """This ticket does not hold what its issuer signed: {why}. Do not use it, and tell the person who gave it to you."""


class TicketTooNew(TicketRefused):
    """This ticket was made by a newer version of p2psync. Update p2psync on this machine, and use it then."""


class TicketProtected(TicketRefused):
    """This ticket is protected by {how}, which this version of p2psync cannot open. Ask for a ticket without, handed over in person."""


class TicketNeedsApproval(TicketRefused):
    """An owner would have to approve who uses this ticket, which this version of p2psync cannot ask for. Ask {issuer} for another one."""


class TicketExpired(TicketRefused):
    """This ticket expired on {when}. Ask {issuer} for a new one."""


@dataclass(frozen=True)
class Ticket:
    """What a ticket says, all of it proved. Times in ms since 1970; ``chain`` are raw records: genesis, grants, invitation."""

    name: str
    seed: Secret = field(repr=False)
    gate: Secret = field(repr=False)
    issuer_device_name: str
    issuer_person: str
    hints: tuple[Hint, ...]
    created_ms: int
    chain: tuple[bytes, ...] = field(repr=False)
    founding: Founding
    invitation: Invitation

    @classmethod
    def mint(
        cls,
        key: SigningKey,
        *,
        chain: Sequence[bytes],
        seed: Secret,
        gate: Secret,
        name: str,
        device_name: str,
        person: str,
        hints: Sequence[Hint],
        created_ms: int,
    ) -> bytes:
        """The text of a ticket file for the invitation that ends ``chain``; ``key`` is the issuer's, ``device_name`` and ``person`` too.

        Raises:
            Malformed: ``chain`` does not prove the invitation.
            TicketRefused: the facts do not fit each other, as for any ticket that is read.
        """
        founding, invitation = _proved(chain)
        facts = invitation.facts
        terms: list[Plain] = [int(facts.role), facts.not_after_ms, facts.max_uses, facts.flags, facts.for_device]
        issuer: list[Plain] = [invitation.issuer, device_name, person]
        whose: list[Plain] = [founding.mandate, name, founding.genesis.root, facts.invite, bytes(seed), bytes(gate), issuer]
        body = pack([*whose, *terms, [hint.pack() for hint in hints], created_ms, list(chain)])
        if len(body) > MAX_TEXT:
            raise TicketForged(why="it is too long")
        signed = _MAGIC + bytes([_VERSION, 0]) + len(body).to_bytes(2, "big") + body
        text = armoured(signed + key.sign(_prefixed(signed)).signature)
        cls.parse(text)
        return text

    @classmethod
    def parse(cls, text: bytes) -> "Ticket":
        """The ticket in the text of a file. Only its expiry is not looked at: ``check_time`` does that.

        Raises:
            NotATicket, TicketDamaged, TicketForged, TicketTooNew, TicketProtected, TicketNeedsApproval: as they say.
        """
        signed, signature = _opened(bared(text))
        try:
            body = unpack(signed[_HEAD:], MAX_TEXT)
            ticket = cls._read(body)
            VerifyKey(ticket.issuer).verify(_prefixed(signed), signature)
        except Malformed as e:
            raise TicketForged(why=e.facts["why"]) from None
        except (CryptoError, ValueError, TypeError):
            raise TicketForged(why="a wrong signature") from None
        if ticket.invitation.needs_approval:
            raise TicketNeedsApproval(issuer=ticket.issuer_name)
        return ticket

    @classmethod
    def _read(cls, body: list[Any]) -> "Ticket":
        mandate, name, root, invite, seed, gate, issuer, role, not_after, uses, flags, device, hints, created, chain = fields(
            body, bytes, str, bytes, bytes, bytes, bytes, list, int, int, int, int, (bytes, type(None)), list, int, list
        )
        issuer_id, device_name, person = fields(issuer, bytes, str, str)
        if len(hints) > MAX_HINTS:
            raise Malformed(why="too many addresses")
        founding, invitation = _proved(chain)
        ticket = cls(
            name=said(name, MAX_MANDATE_NAME),
            seed=Secret(exactly(seed, 32)),
            gate=Secret(exactly(gate, 32)),
            issuer_device_name=said(device_name, MAX_NAME),
            issuer_person=said(person, MAX_NAME),
            hints=tuple(Hint.unpack(hint) for hint in hints),
            created_ms=created,
            chain=tuple(chain),
            founding=founding,
            invitation=invitation,
        )
        if (mandate, root) != (founding.mandate, founding.genesis.root):
            raise Malformed(why="it names another mandate than its genesis")
        if (issuer_id, invite, role, not_after, uses, flags, device) != ticket._terms:
            raise Malformed(why="it names other terms than its invitation")
        if bytes(invitation_key(ticket.seed).verify_key) != invitation.facts.public_key:
            raise Malformed(why="its key is not that of its invitation")
        if not created < invitation.facts.not_after_ms <= min(created + LONGEST_MS, _END_OF_TIME_MS):
            raise Malformed(why="it is open for too long")
        return ticket

    @property
    def _terms(self) -> tuple[object, ...]:
        facts = self.invitation.facts
        return self.issuer, facts.invite, int(facts.role), facts.not_after_ms, facts.max_uses, facts.flags, facts.for_device

    @property
    def mandate(self) -> MandateId:
        """The mandate that the ticket is for."""
        return self.founding.mandate

    @property
    def root(self) -> bytes:
        """The public root key of the mandate, 32 bytes."""
        return self.founding.genesis.root

    @property
    def issuer(self) -> DeviceId:
        """The owner's device that made the invitation."""
        return self.invitation.issuer

    @property
    def issuer_name(self) -> str:
        """The issuer as people know it: person and device, fit to be shown."""
        return escaped(f"{self.issuer_person} ({self.issuer_device_name})")

    @property
    def invite(self) -> InviteId:
        """The invitation's id."""
        return self.invitation.facts.invite

    @property
    def role(self) -> Role:
        """What its bearer may become."""
        return self.invitation.facts.role

    def check_time(self, now_ms: int) -> None:
        """Raises TicketExpired when the ticket is too old, by the clock ``now_ms``."""
        if now_ms > self.invitation.facts.not_after_ms:
            raise TicketExpired(when=_moment(self.invitation.facts.not_after_ms), issuer=self.issuer_name)

    def inspection(self, now_ms: int) -> dict[str, object]:
        """What may be shown of the ticket: signed or derived facts, fit for a terminal, and neither of its secrets."""
        facts = self.invitation.facts
        return {
            "mandate": {"id": self.mandate.hex(), "name": escaped(self.name), "fingerprint": fingerprint(self.root)},
            "issuer": {
                "device": self.issuer.hex(),
                "name": escaped(self.issuer_device_name),
                "person": escaped(self.issuer_person),
                "proved": True,
            },
            "invite": facts.invite.hex(),
            "for": escaped(facts.label),
            "role": facts.role.name.lower(),
            "created_ms": self.created_ms,
            "expires_ms": facts.not_after_ms,
            "expired": now_ms > facts.not_after_ms,
            "uses": facts.max_uses,
            "for_device": facts.for_device.hex() if facts.for_device else None,
            "protection": "none",
            "addresses": [str(hint) for hint in self.hints],
        }


def _opened(raw: bytes) -> tuple[bytes, bytes]:
    if raw[:8] != _MAGIC or len(raw) < _HEAD + _SIGNATURE:
        raise TicketDamaged()
    version, protection = raw[8], raw[9]
    if version != _VERSION:
        raise TicketTooNew()
    if protection in (1, 2):
        raise TicketProtected(how="a passphrase" if protection == 1 else "being made for one device")
    signed, signature = raw[:-_SIGNATURE], raw[-_SIGNATURE:]
    if protection or len(signed) != _HEAD + int.from_bytes(raw[10:12], "big"):
        raise TicketForged(why="its parts do not fit")
    return signed, signature


def _proved(chain: Sequence[Any]) -> tuple[Founding, Invitation]:
    if not 2 <= len(chain) <= MAX_CARRIED + 1 or any(type(raw) is not bytes for raw in chain):
        raise Malformed(why="it does not prove its issuer")
    founding = Founding.read(Record.parse(chain[0]))
    return founding, founding.proves(chain[1:])


def _prefixed(signed: bytes) -> bytes:
    return b"p2psync/1 ticket\0" + signed


def _moment(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%d %H:%M UTC")
