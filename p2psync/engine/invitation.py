"""Inviting and joining, step by step and without I/O (docs/protocol.md, “Joining”): owner, guest, member, and the guest again."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

from p2psync.engine.claims import Claims, Log, Standing
from p2psync.engine.introduction import lineage
from p2psync.engine.membership import MAX_OPEN, Roster
from p2psync.engine.rules import MAX_DEVICES, Verdict
from p2psync.values.acts import DeviceIntro, Genesis, Invite, JoinClaim, Role, Witness
from p2psync.values.errors import Malformed, PeerError, UserError
from p2psync.values.keys import DeviceKeys, Secret, commitment, gate_key, invitation_key
from p2psync.values.lineage import LONGEST_MS
from p2psync.values.names import DeviceId, InviteId, MandateId, label
from p2psync.values.record import Kind, Record
from p2psync.values.ticket import Hint, Ticket

CLOCK_MARGIN_MS = 26 * 3600 * 1000
"""How far before an invitation's making a member's clock may stand for its word on the expiry to be worth anything."""


class OnlyOwnersInvite(UserError):
    """Only an owner of “{mandate}” can invite. Ask {owners} to do it, or to make you an owner."""


class TooManyInvitations(UserError):
    """“{mandate}” has {count} open invitations, and more are not possible. Wait until some are used or have expired."""


class TermsNotPossible(UserError):
    """Such a ticket cannot be made: {why}. No ticket was made."""


class WrongWelcome(PeerError):
    """The machine that answered does not belong to the mandate of this ticket."""


@dataclass(frozen=True)
class Draft:
    """An invitation about to be recorded, and the secret that signs its join; keep it nowhere but in the ticket."""

    invite: Invite
    seed: Secret


def draft(
    roster: Roster,
    me: DeviceId,
    *,
    for_name: str,
    now_ms: int,
    lasts_ms: int,
    invite: InviteId,
    seed: Secret,
    role: Role = Role.EDITOR,
    max_uses: int = 1,
    for_device: DeviceId | None = None,
) -> Draft:
    """An invitation that this device may record; ``invite`` (16 bytes) and ``seed`` (32) are random, times in ms.

    Raises:
        OnlyOwnersInvite, TooManyInvitations, TermsNotPossible, BadName: as they say.
    """
    if roster.role_of(me) != Role.OWNER:
        raise OnlyOwnersInvite(mandate=roster.name, owners=roster.owners)
    if len(roster.open_invites(now_ms)) >= MAX_OPEN:
        raise TooManyInvitations(mandate=roster.name, count=MAX_OPEN)
    if not 0 < lasts_ms <= LONGEST_MS:
        raise TermsNotPossible(why="it can be open for 90 days at most")
    if role == Role.OWNER:
        raise TermsNotPossible(why="a ticket makes no owners; promote the participant afterwards")
    try:
        public = bytes(invitation_key(seed).verify_key)
        facts = Invite(invite, public, role, now_ms + lasts_ms, max_uses, 0, for_device, label(for_name))
    except Malformed as e:
        raise TermsNotPossible(why=e.facts["why"]) from None
    return Draft(facts, seed)


def ticket_for(
    roster: Roster, invitation: Record, keys: DeviceKeys, drafted: Draft, secret: Secret, hints: Sequence[Hint], *, name: str, now_ms: int
) -> bytes:
    """The text of the ticket for an invitation that was recorded; ``secret`` is the mandate's group secret, ``name`` its present name.

    Raises:
        TooManyOwnersBetween: see ``lineage``.
    """
    mine = roster.intro(keys.device)
    if mine is None:
        raise ValueError("the issuer has not introduced itself")
    return Ticket.mint(
        keys.signing,
        chain=lineage(roster, invitation),
        seed=drafted.seed,
        gate=gate_key(secret, roster.mandate, drafted.invite.invite),
        name=name,
        device_name=mine.device_name,
        person=mine.person,
        hints=hints,
        created_ms=now_ms,
    )


def introduce(
    keys: DeviceKeys, mandate: MandateId, incarnation: bytes, person: str, device_name: str, platform: str, now_ms: int
) -> Record:
    """The record with which a device begins its log; names are given ones. Raises: BadName."""
    intro = DeviceIntro(label(person), label(device_name), keys.transport_public, keys.box_public, platform[:16])
    return Record.sign(
        keys.signing,
        mandate=mandate,
        incarnation=incarnation,
        seq=1,
        prev=None,
        deps=(),
        time_ms=now_ms,
        kind=Kind.DEVICE,
        body=intro.pack(),
    )


def make_join(ticket: Ticket, keys: DeviceKeys, device: Record, now_ms: int) -> Record:
    """The guest's JOIN, which comes right after its introduction ``device`` in a log that is new for each ticket."""
    claim = JoinClaim.signed(invitation_key(ticket.seed), ticket.invite, ticket.mandate, device, ticket.chain[1:])
    return Record.sign(
        keys.signing,
        mandate=ticket.mandate,
        incarnation=device.incarnation,
        seq=2,
        prev=device.id,
        deps=(),
        time_ms=now_ms,
        kind=Kind.JOIN,
        body=claim.pack(),
    )


class Refusal(IntEnum):
    """Why a guest is not admitted, as the code of a REFUSED message."""

    UNKNOWN = 1
    EXPIRED = 2
    USED = 3
    REVOKED = 4
    STALE = 5
    WRONG_DEVICE = 6
    CLOCK = 7
    APPROVAL = 8
    FULL = 9


@dataclass(frozen=True)
class Admission:
    """A guest may come in: record its two records where they are new, then ``witness``, then say WELCOME. No witness: it is in already."""

    witness: Witness | None


def consider_join(
    roster: Roster, device: Record, join: Record, *, me: DeviceId, peer_key: bytes, now_ms: int, fresh: bool
) -> Admission | Refusal:
    """What a member answers to a guest's two records; ``peer_key`` is the static key that the guest proved.

    ``fresh`` says that this machine met another participant within 72 hours, so that it would know if the ticket had been used.

    Raises:
        Malformed: the records are not a join at all; the link is to be closed.
    """
    refused = _misfit(roster, device, join, peer_key)
    if refused is not None:
        return refused
    past: dict[Log, int] = {device.log: 1}
    after = roster if roster.knows(device) else roster.with_record(device, past)
    if not after.knows(join):
        verdict = after.judge(join, past)
        if verdict in _REFUSALS:
            return _REFUSALS[verdict]
        if not verdict.accepted:
            raise Malformed(why=verdict.value)
        after = after.with_record(join, past)
    claims = after.claims_with(join.id)
    if claims is not None and claims.standing(join.device) != Standing.COUNTS:
        return _terms(roster, claims, join, me, now_ms, fresh) or Admission(Witness(join.id, now_ms))
    return Admission(None)


def check_welcome(ticket: Ticket, mandate: MandateId, keys: Sequence[tuple[int, Secret]]) -> Secret:
    """The mandate's group secret from a WELCOME, which lists (generation, secret); the journal that follows is checked like any other.

    Raises:
        WrongWelcome: it is another mandate, or not the secret that the genesis committed to, which is the only generation so far.
    """
    secrets = [secret for generation, secret in keys if generation == 0]
    if mandate != ticket.mandate or len(keys) != 1 or not secrets or not is_secret_of(ticket.founding.genesis, secrets[0]):
        raise WrongWelcome()
    return secrets[0]


def is_secret_of(genesis: Genesis, secret: Secret) -> bool:
    """Whether ``secret`` is the group secret of generation 0 that the genesis committed to."""
    return commitment(secret, genesis.root, 0) == genesis.commitment


def _misfit(roster: Roster, device: Record, join: Record, peer_key: bytes) -> Refusal | None:
    if (device.kind, join.kind) != (Kind.DEVICE, Kind.JOIN) or join.log != device.log or join.deps or device.deps:
        raise Malformed(why="no join of a guest")
    if device.mandate != roster.mandate or join.mandate != roster.mandate:
        return Refusal.UNKNOWN
    if DeviceIntro.unpack(device.body).transport != peer_key:
        raise Malformed(why="an introduction of another device")
    holder = roster.by_transport(peer_key)
    if holder is not None and holder.device != device.device:
        return Refusal.WRONG_DEVICE
    verdict = Verdict.ACCEPT if roster.knows(device) else roster.judge(device, {})
    if verdict == Verdict.FULL or len(roster.members()) >= MAX_DEVICES:
        return Refusal.FULL
    if not verdict.accepted:
        raise Malformed(why=verdict.value)
    return None


def _terms(roster: Roster, claims: Claims, join: Record, me: DeviceId, now_ms: int, fresh: bool) -> Refusal | None:
    """Why the invitation, though genuine, admits nobody now."""
    facts = claims.invitation.facts
    others = set(claims.admitted()) - {join.device}
    alone = set(roster.members()) <= {me}
    if claims.invitation.needs_approval:
        return Refusal.APPROVAL
    if len(others) >= facts.max_uses:
        return Refusal.USED
    if now_ms > facts.not_after_ms:
        return Refusal.EXPIRED
    if now_ms + CLOCK_MARGIN_MS < claims.invitation.issued_ms:
        return Refusal.CLOCK
    if not (fresh or alone or claims.invitation.issuer == me):
        return Refusal.STALE
    return None


_REFUSALS = {
    Verdict.UNPROVED: Refusal.UNKNOWN,
    Verdict.NOT_INVITED: Refusal.WRONG_DEVICE,
    Verdict.FULL: Refusal.FULL,
}
