"""The uses of one invitation: who joined with it, which members saw that, and who counts when too many did.

A ticket cannot be kept from being used twice by two members who do not hear of each other; it can be made harmless and loud. A guest
counts while fewer guests than the invitation has uses were admitted **without knowing** of it. So of two who used a ticket for one,
the second admitted in the knowledge of the first does not count; two admitted in ignorance of each other are **contested**, and neither
counts until an owner says who (docs/protocol.md, “Contested joins”). No more count than there are uses: knowing is a partial order, so
among those who count there is one that none of the others was admitted in knowledge of, and they are fewer than the uses.

Everything here is a function of the records in a causal past; no clock and no order of arrival plays a part.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import TypeAlias

from p2psync.values.lineage import Invitation
from p2psync.values.names import DeviceId, RecordId
from p2psync.values.record import Record

Log: TypeAlias = tuple[DeviceId, bytes]
Past: TypeAlias = Mapping[Log, int] | None
"""A causal past: for each log, its last record in it. None stands for everything that is known."""

MAX_JOINS = 40
"""Joins kept for one invitation: twice the uses that one can have."""


def in_past(record: Record, past: Past) -> bool:
    """Whether ``record`` is in that causal past."""
    return past is None or past.get(record.log, 0) >= record.seq


class Standing(Enum):
    """How a guest stands with an invitation."""

    UNSEEN = "no member admitted it"
    COUNTS = "it is a participant"
    CONTESTED = "others used the same ticket, admitted by members who did not know of each other"
    LATE = "the ticket was used up, and who admitted it could know"


@dataclass(frozen=True, slots=True)
class Testimony:
    """A member's WITNESS record: that it saw ``guest`` join, and of which other guests it knew then."""

    record: Record
    guest: DeviceId
    time_ms: int
    knew: frozenset[DeviceId]


@dataclass(frozen=True, slots=True)
class Claims:
    """All joins that claim one invitation, by record id, with the members' testimonies of them.

    Of several testimonies in one log the first is kept: the later ones knew at least as much, and so can change nothing.
    """

    invitation: Invitation
    joins: Mapping[RecordId, Record] = field(default_factory=dict)
    testimonies: Mapping[tuple[RecordId, Log], Testimony] = field(default_factory=dict)

    def with_join(self, join: Record) -> "Claims":
        """One more join."""
        return replace(self, joins={**self.joins, join.id: join})

    def with_witness(self, record: Record, join: RecordId, time_ms: int, past: Past) -> "Claims":
        """One more testimony, made in this ``past``, of a join that is known."""
        key = (join, record.log)
        if key in self.testimonies:
            return self
        guest = self.joins[join].device
        knew = frozenset(seen.guest for seen in self.testimonies.values() if in_past(seen.record, past)) - {guest}
        return replace(self, testimonies={**self.testimonies, key: Testimony(record, guest, time_ms, knew)})

    def admitted(self, past: Past = None) -> dict[DeviceId, list[Testimony]]:
        """The guests that a member admitted in this past, each with the testimonies, whether they count or not."""
        found: dict[DeviceId, list[Testimony]] = {}
        for seen in self.testimonies.values():
            if in_past(seen.record, past):
                found.setdefault(seen.guest, []).append(seen)
        return found

    def standing(self, guest: DeviceId, past: Past = None) -> Standing:
        """How ``guest`` stands with this invitation, in this past."""
        admitted = self.admitted(past)
        uses = self.invitation.facts.max_uses
        if guest not in admitted or self.invitation.needs_approval:
            return Standing.UNSEEN
        if sum(_unaware(guest, seen) for other, seen in admitted.items() if other != guest) < uses:
            return Standing.COUNTS
        late = all(len(seen.knew) >= uses for seen in admitted[guest])
        return Standing.LATE if late else Standing.CONTESTED


def _unaware(guest: DeviceId, testimonies: list[Testimony]) -> bool:
    """Whether some member testified for another guest without knowing of ``guest``."""
    return any(guest not in seen.knew for seen in testimonies)
