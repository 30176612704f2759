"""Who may work on a mandate: the roster, a pure function of the accepted records.

Records are fed in causal order, each with its causal past. Every causal order of the same records gives an equal roster: what is kept
is keyed by what it is about, and what is said of a device depends on pasts alone. A roster never changes; each record gives another.

A device is a participant when it is the first owner, when an owner granted it a role, or when an invitation let it in and it counts
(engine/claims). Its role is the highest of these: grants only raise, only a revocation takes away.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

from p2psync.engine.claims import Claims, Log, Past, Standing, in_past
from p2psync.engine.rules import Verdict, judge
from p2psync.values.acts import DeviceIntro, Genesis, Grant, JoinClaim, Role, Witness
from p2psync.values.lineage import Founding, Invitation
from p2psync.values.names import DeviceId, InviteId, MandateId, RecordId
from p2psync.values.record import Kind, Record

MAX_OPEN = 64
"""Open invitations of a mandate: each is a gate that a listener answers at."""


@dataclass(frozen=True, slots=True)
class Member:
    """A participant: a person on a device. ``transport`` and ``box`` are X25519 keys; ``since_ms`` is a clock's word, for people."""

    device: DeviceId
    person: str
    device_name: str
    role: Role
    transport: bytes
    box: bytes
    since_ms: int


@dataclass(frozen=True)
class Roster:
    """What the accepted records say about membership.

    ``logs`` are the introductions by the log that each begins; ``intros`` those of a device that no later one of it replaced;
    ``grants`` are by device and record; ``invites`` and ``claims`` by the record of the invitation.
    """

    founding: Founding
    record: Record
    logs: Mapping[Log, Record] = field(default_factory=dict)
    intros: Mapping[DeviceId, Mapping[RecordId, Record]] = field(default_factory=dict)
    grants: Mapping[DeviceId, Mapping[RecordId, Record]] = field(default_factory=dict)
    invites: Mapping[RecordId, Invitation] = field(default_factory=dict)
    claims: Mapping[RecordId, Claims] = field(default_factory=dict)

    @classmethod
    def of(cls, genesis: Record) -> "Roster":
        """The roster that a genesis founds. Raises: Malformed."""
        return cls(Founding.read(genesis), genesis)

    @property
    def mandate(self) -> MandateId:
        """The mandate."""
        return self.founding.mandate

    @property
    def genesis(self) -> Genesis:
        """What founded it."""
        return self.founding.genesis

    @property
    def name(self) -> str:
        """The name that the mandate was founded with."""
        return self.genesis.name

    @property
    def owner(self) -> DeviceId:
        """The device that founded the mandate."""
        return self.genesis.owner

    @property
    def owners(self) -> str:
        """The people who own it, as a sentence names those to ask: “Anna or Bruno”."""
        people = sorted({member.person for member in self.members().values() if member.role == Role.OWNER})
        return " or ".join(people) or "its owner"

    def judge(self, record: Record, past: Past) -> Verdict:
        """Whether ``record``, with this causal past (all of it fed already), is accepted. It is not added."""
        return judge(self, record, past)

    def knows(self, record: Record) -> bool:
        """Whether this introduction or join was fed already."""
        intro = self.logs.get(record.log)
        return (intro is not None and intro.id == record.id) or self.claims_with(record.id) is not None

    def with_record(self, record: Record, past: Past) -> "Roster":
        """The roster after a record that was accepted; the same one when the record is not about membership."""
        if record.kind == Kind.DEVICE:
            return self._with_intro(record, past)
        if record.kind == Kind.GRANT:
            device = Grant.unpack(record.body).device
            return replace(self, grants={**self.grants, device: {**self.grants.get(device, {}), record.id: record}})
        if record.kind == Kind.INVITE:
            return replace(self, invites={**self.invites, record.id: Invitation.read(record)})
        if record.kind == Kind.JOIN:
            invitation = self.founding.proves(JoinClaim.unpack(record.body).carried)
            claims = self.claims.get(invitation.record, Claims(invitation))
            return self._with_claims(claims.with_join(record))
        if record.kind == Kind.WITNESS:
            witness = Witness.unpack(record.body)
            seen = self.claims_with(witness.join)
            return self._with_claims(seen.with_witness(record, witness.join, witness.time_ms, past)) if seen else self
        return self

    def role_in_past(self, device: DeviceId, past: Past) -> Role | None:
        """The role of a device as that causal past shows it, or None for a stranger. The root key is no device."""
        if device == self.owner:
            return Role.OWNER
        granted = [Grant.unpack(grant.body).role for grant in self.grants.get(device, {}).values() if in_past(grant, past)]
        joined = [claims.invitation.facts.role for claims in self._claims_of(device) if claims.standing(device, past) == Standing.COUNTS]
        return max(granted + joined, default=None)

    def role_of(self, device: DeviceId) -> Role | None:
        """The role of a device now, or None for a stranger."""
        return self.role_in_past(device, None)

    def members(self) -> Mapping[DeviceId, Member]:
        """The participants now. (An owner is none before its own log has begun.)"""
        return self._members

    def by_transport(self, key: bytes) -> Member | None:
        """The participant that holds this static key.

        Should two claim the same one, which a member that admits a guest over the network makes impossible, it is the one with the
        higher role, then the smaller id: only one of them can hold it.
        """
        return self._by_transport.get(key)

    def intro(self, device: DeviceId) -> DeviceIntro | None:
        """How a device, participant or not, last introduced itself; of two introductions that did not know of each other, one for all."""
        intros = self.intros.get(device)
        return DeviceIntro.unpack(intros[min(intros)].body) if intros else None

    def machine(self, device: DeviceId) -> str:
        """How a device is called to people: “Bruno (salon)”; unknown ones by the beginning of their id."""
        intro = self.intro(device)
        return f"{intro.person} ({intro.device_name})" if intro else device.hex()[:8]

    def invitation(self, invite: InviteId) -> Invitation | None:
        """The invitation with this id, from its own record or from a join that brought it along."""
        known = [*self.invites.values(), *(claims.invitation for claims in self.claims.values())]
        found = [invitation for invitation in known if invitation.facts.invite == invite]
        return min(found, key=lambda invitation: invitation.record, default=None)

    def uses(self, invite: InviteId) -> dict[DeviceId, Standing]:
        """How each guest stands whom a member admitted with this invitation."""
        return {
            guest: claims.standing(guest)
            for claims in self.claims.values()
            if claims.invitation.facts.invite == invite
            for guest in claims.admitted()
        }

    def is_open(self, invitation: Invitation, now_ms: int) -> bool:
        """Whether an invitation may still let a guest in."""
        facts = invitation.facts
        return now_ms <= facts.not_after_ms and not invitation.needs_approval and len(self.uses(facts.invite)) < facts.max_uses

    def open_invites(self, now_ms: int) -> tuple[Invitation, ...]:
        """The invitations that may still let a guest in, at most 64: those that stay open longest."""
        found = [invitation for invitation in self.invites.values() if self.is_open(invitation, now_ms)]
        return tuple(sorted(found, key=lambda one: (-one.facts.not_after_ms, one.record))[:MAX_OPEN])

    def answers(self, invite: InviteId, now_ms: int) -> bool:
        """Whether to hear a guest at the gate of this invitation: yes until it is known to have expired.

        A guest whose invitation nobody here heard of brings it along, and could not have its gate's key from anybody but a member; one
        whose ticket is used up is told so, and one that was admitted may have missed it.
        """
        known = self.invitation(invite)
        return known is None or now_ms <= known.facts.not_after_ms

    def contested(self) -> dict[InviteId, tuple[DeviceId, ...]]:
        """Invitations that more devices used than they were made for, without their hosts knowing: none of these devices takes part."""
        found = {}
        for claims in self.claims.values():
            guests = [guest for guest in claims.admitted() if claims.standing(guest) == Standing.CONTESTED and self.role_of(guest) is None]
            if guests:
                found[claims.invitation.facts.invite] = tuple(sorted(guests))
        return found

    def claims_with(self, join: RecordId) -> Claims | None:
        """The claims that a join is among."""
        return next((claims for claims in self.claims.values() if join in claims.joins), None)

    def _claims_of(self, device: DeviceId) -> list[Claims]:
        return [self.claims[invitation] for invitation in self._claimed.get(device, ())]

    def _with_claims(self, claims: Claims) -> "Roster":
        return replace(self, claims={**self.claims, claims.invitation.record: claims})

    def _with_intro(self, record: Record, past: Past) -> "Roster":
        standing = {old: intro for old, intro in self.intros.get(record.device, {}).items() if not in_past(intro, past)}
        intros = {**self.intros, record.device: {**standing, record.id: record}}
        return replace(self, logs={**self.logs, record.log: record}, intros=intros)

    @cached_property
    def _claimed(self) -> dict[DeviceId, list[RecordId]]:
        found: dict[DeviceId, list[RecordId]] = {}
        for invitation, claims in self.claims.items():
            for guest in claims.admitted():
                found.setdefault(guest, []).append(invitation)
        return found

    @cached_property
    def _members(self) -> dict[DeviceId, Member]:
        found = {}
        for device in sorted(self.intros):
            role, intro = self.role_of(device), self.intro(device)
            if role is not None and intro is not None:
                names = (intro.person, intro.device_name, role, intro.transport, intro.box)
                found[device] = Member(device, *names, self._since(device))
        return found

    @cached_property
    def _by_transport(self) -> dict[bytes, Member]:
        ranked = sorted(self._members.values(), key=lambda member: (member.role, [-byte for byte in member.device]))
        return {member.transport: member for member in ranked}

    def _since(self, device: DeviceId) -> int:
        if device == self.owner:
            return self.genesis.created_ms
        granted = [grant.time_ms for grant in self.grants.get(device, {}).values()]
        seen = [one.time_ms for claims in self._claims_of(device) for one in claims.admitted().get(device, ())]
        return min(granted + seen)
