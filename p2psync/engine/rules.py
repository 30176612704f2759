"""Who may say what: every machine judges every record by its author's role in the record's own causal past.

So the verdict on a record is the same everywhere and for ever, whatever arrives in which order; what is not accepted is dropped, and
nothing can be built on it. A correct program never signs what these rules drop. The one exception to "the same everywhere" are the
bounds on strangers (``FULL``), which only a member that floods the others can reach.
"""

from collections.abc import Callable
from enum import StrEnum
from typing import TYPE_CHECKING

from p2psync.engine.claims import MAX_JOINS, Past, in_past
from p2psync.values.acts import DeviceIntro, Grant, JoinClaim, Role, Witness, body_of
from p2psync.values.errors import Malformed
from p2psync.values.lineage import Invitation
from p2psync.values.names import DeviceId
from p2psync.values.record import ROOT_INCARNATION, Kind, Record
from p2psync.values.relayed import Relayed

if TYPE_CHECKING:
    from p2psync.engine.membership import Roster

MAX_DEVICES = 256
"""Devices of a mandate, strangers that were never admitted included."""
MAX_LOGS = 32
"""Logs of one device: a new one is opened only after a restore, or to use another ticket."""


class Verdict(StrEnum):
    """Whether a record is accepted, or the reason why it is dropped."""

    ACCEPT = "accept"
    MALFORMED = "its body does not fit its kind"
    STRANGER = "its author was no participant"
    ROLE = "its author's role does not allow it"
    OUT_OF_PLACE = "it stands where such a record cannot stand"
    OTHER_MANDATE = "it belongs to another mandate"
    UNKNOWN_DEVICE = "it is about a device that has not introduced itself"
    UNKNOWN_JOIN = "it admits a join that its author had not seen"
    UNPROVED = "its invitation is not that of an owner"
    NOT_INVITED = "its invitation is for another device, or did not sign it"
    TOO_LATE = "it admits a guest after the invitation expired"
    OWN_JOIN = "it admits its own author"
    FULL = "there are too many of its kind"

    @property
    def accepted(self) -> bool:
        """Whether the record may be kept."""
        return self is Verdict.ACCEPT


NEEDS: dict[Kind, Role] = {
    Kind.GRANT: Role.OWNER,
    Kind.INVITE: Role.OWNER,
    Kind.WITNESS: Role.READER,
    Kind.REVOKE: Role.OWNER,
    Kind.WITHDRAW: Role.OWNER,
    Kind.APPROVE: Role.OWNER,
    Kind.ROTATE: Role.OWNER,
    Kind.CHANGE: Role.EDITOR,
    Kind.RECEIPT: Role.READER,
    Kind.RESUME: Role.READER,
    Kind.TEAM: Role.OWNER,
}
"""The role that the author of a record must have. GENESIS, DEVICE and JOIN need none: they have rules of their own."""

ROOT_MAY = {Kind.GRANT, Kind.REVOKE}
"""What the root key signs after the genesis: it is kept in a safe, for the day on which no owner is left."""


def judge(roster: "Roster", record: Record, past: Past) -> Verdict:
    """The verdict on ``record``, whose causal past is ``past``; all that is in it must be in ``roster`` already."""
    if record.kind == Kind.GENESIS:
        return Verdict.OUT_OF_PLACE
    if record.mandate != roster.mandate:
        return Verdict.OTHER_MANDATE
    try:
        said = None if record.kind == Kind.CHANGE else body_of(record)
    except Malformed:
        return Verdict.MALFORMED
    return _authority(roster, record, said, past) or _RULES.get(record.kind, _nothing_more)(roster, record, said, past)


def _authority(roster: "Roster", record: Record, said: object, past: Past) -> Verdict | None:
    """Why the author may not say that, by its role."""
    needed = NEEDS.get(record.kind)
    if needed is None:
        return None
    if record.device == roster.genesis.root:
        return None if record.kind in ROOT_MAY and record.incarnation == ROOT_INCARNATION else Verdict.ROLE
    role = roster.role_in_past(record.device, past)
    if role is None:
        return Verdict.STRANGER
    leaves = isinstance(said, Relayed) and said.kind == Kind.REVOKE and said.subject == record.device
    return None if role >= needed or leaves else Verdict.ROLE


def _nothing_more(roster: "Roster", record: Record, said: object, past: Past) -> Verdict:
    return Verdict.ACCEPT


def _device(roster: "Roster", record: Record, said: object, past: Past) -> Verdict:
    """A device introduces itself at the very beginning of a log, be it a stranger or not."""
    if not isinstance(said, DeviceIntro) or record.seq != 1 or record.log in roster.logs or record.device == roster.genesis.root:
        return Verdict.OUT_OF_PLACE
    own = [log for log in roster.logs if log[0] == record.device]
    if len(own) >= MAX_LOGS or (not own and len({log[0] for log in roster.logs}) >= MAX_DEVICES):
        return Verdict.FULL
    return Verdict.ACCEPT


def _join(roster: "Roster", record: Record, said: object, past: Past) -> Verdict:
    """A join stands right behind the introduction that its invitation signed, and brings its own proof."""
    intro = roster.logs.get(record.log)
    if not isinstance(said, JoinClaim) or record.seq != 2 or intro is None or record.prev != intro.id:
        return Verdict.OUT_OF_PLACE
    try:
        invitation = roster.founding.proves(said.carried)
    except Malformed:
        return Verdict.UNPROVED
    facts = invitation.facts
    if facts.invite != said.invite:
        return Verdict.UNPROVED
    if facts.for_device not in (None, record.device) or not said.is_signed_by(facts.public_key, intro):
        return Verdict.NOT_INVITED
    claims = roster.claims.get(invitation.record)
    return Verdict.FULL if claims and len(claims.joins) >= MAX_JOINS else Verdict.ACCEPT


def _witness(roster: "Roster", record: Record, said: object, past: Past) -> Verdict:
    """A member admits somebody else, whose join it had seen, before the invitation expired."""
    if not isinstance(said, Witness) or (claims := roster.claims_with(said.join)) is None:
        return Verdict.UNKNOWN_JOIN
    join = claims.joins[said.join]
    if not in_past(join, past):
        return Verdict.UNKNOWN_JOIN
    if join.device == record.device:
        return Verdict.OWN_JOIN
    return Verdict.TOO_LATE if said.time_ms > claims.invitation.facts.not_after_ms else Verdict.ACCEPT


def _grant(roster: "Roster", record: Record, said: object, past: Past) -> Verdict:
    """A role is given to a device that its author had seen introduced; the root key is no device."""
    known = isinstance(said, Grant) and _introduced(roster, said.device, past)
    return Verdict.ACCEPT if known else Verdict.UNKNOWN_DEVICE


def _invite(roster: "Roster", record: Record, said: object, past: Past) -> Verdict:
    """An invitation is open for a bounded time."""
    try:
        Invitation.read(record)
    except Malformed:
        return Verdict.MALFORMED
    return Verdict.ACCEPT


def _introduced(roster: "Roster", device: DeviceId, past: Past) -> bool:
    return any(log[0] == device and in_past(intro, past) for log, intro in roster.logs.items())


_RULES: dict[Kind, Callable[["Roster", Record, object, Past], Verdict]] = {
    Kind.DEVICE: _device,
    Kind.JOIN: _join,
    Kind.WITNESS: _witness,
    Kind.GRANT: _grant,
    Kind.INVITE: _invite,
}
