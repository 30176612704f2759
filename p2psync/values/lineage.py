"""How an invitation descends from the founding of its mandate: genesis, grants down to the issuer, the invitation.

Roles are never lowered by a grant, so these few records prove, without the rest of the journal, that the issuer was an owner. (That an
owner was revoked later is known to members alone, and theirs to judge.) A ticket shows the guest this proof; the guest's join shows
it to the members.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from p2psync.values.acts import MAX_CARRIED, Genesis, Grant, Invite, Role
from p2psync.values.errors import Malformed
from p2psync.values.names import DeviceId, MandateId, RecordId
from p2psync.values.record import Kind, Record

LONGEST_MS = 90 * 24 * 3600 * 1000
"""An invitation is open for 90 days at most, by the clock of its issuer."""


@dataclass(frozen=True, slots=True)
class Invitation:
    """An invitation as its issuer recorded it."""

    record: RecordId
    issuer: DeviceId
    issued_ms: int
    facts: Invite

    @classmethod
    def read(cls, record: Record) -> "Invitation":
        """What an INVITE record says; whether its author may invite is another question.

        Raises:
            Malformed: it is none, or open for longer than an invitation may be.
        """
        if record.kind != Kind.INVITE:
            raise Malformed(why="no invitation")
        facts = Invite.unpack(record.body)
        if not 0 < facts.not_after_ms - record.time_ms <= LONGEST_MS:
            raise Malformed(why="an invitation that is open for too long")
        return cls(record.id, record.device, record.time_ms, facts)

    @property
    def needs_approval(self) -> bool:
        """Whether an owner would have to approve its guests, or it asks for something else that we do not know."""
        return bool(self.facts.flags)


@dataclass(frozen=True, slots=True)
class Founding:
    """A mandate and what founded it: the root of every proof."""

    mandate: MandateId
    genesis: Genesis

    @classmethod
    def read(cls, record: Record) -> "Founding":
        """What a genesis record founds. Raises: Malformed."""
        return cls(record.founds, Genesis.read(record))

    def proves(self, carried: Sequence[bytes]) -> Invitation:
        """The invitation that ends ``carried``, a list of raw records: grants of ownership, each by an owner, then the invitation.

        Raises:
            Malformed: it is not exactly that, for this mandate.
        """
        if not 1 <= len(carried) <= MAX_CARRIED:
            raise Malformed(why=f"an invitation proved by {len(carried)} records")
        *grants, last = (self._own(raw) for raw in carried)
        owners = {self.genesis.owner}
        for record in grants:
            if record.kind != Kind.GRANT or record.device not in (*owners, self.genesis.root):
                raise Malformed(why="a grant that no owner signed")
            grant = Grant.unpack(record.body)
            if grant.role != Role.OWNER:
                raise Malformed(why="a grant that makes no owner")
            owners.add(grant.device)
        if last.device not in owners:
            raise Malformed(why="an invitation that no owner signed")
        return Invitation.read(last)

    def _own(self, raw: bytes) -> Record:
        record = Record.parse(raw)
        if record.mandate != self.mandate:
            raise Malformed(why="a record of another mandate")
        return record
