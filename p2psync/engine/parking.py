"""Records that came before what they stand on: kept, within bounds, until that has come.

Whoever sent one answers for it, however late it can be judged: each is kept with its ``owner``, and what one sender may park is
bounded by itself, so that a member which sends things that nothing ever completes takes no room from the others.
"""

from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from p2psync.values.names import RecordId
from p2psync.values.record import Record

MOST, MOST_BYTES = 10_000, 64 * 1024 * 1024
EACH, EACH_BYTES = 2_000, 16 * 1024 * 1024
"""Records and their bytes: of a mandate, and of one sender."""

Owner = TypeVar("Owner", bound=Hashable)


@dataclass
class _Room:
    records: int = 0
    size: int = 0

    def add(self, record: Record, sign: int = 1) -> None:
        self.records += sign
        self.size += sign * len(record.raw)


@dataclass
class Parking(Generic[Owner]):
    """What is parked of one mandate, by the record that it waits for first."""

    _waiting: dict[RecordId, dict[RecordId, tuple[Record, Owner]]] = field(default_factory=dict)
    _known: set[RecordId] = field(default_factory=set)
    _all: _Room = field(default_factory=_Room)
    _each: dict[Owner, _Room] = field(default_factory=dict)

    def park(self, record: Record, needs: RecordId, owner: Owner) -> bool:
        """Keep ``record`` until ``needs`` has come; False when there is no room for it, or it is here already."""
        room = self._each.get(owner, _Room())
        if record.id in self._known or self._all.records >= MOST or room.records >= EACH:
            return False
        if self._all.size + len(record.raw) > MOST_BYTES or room.size + len(record.raw) > EACH_BYTES:
            return False
        self._waiting.setdefault(needs, {})[record.id] = (record, owner)
        self._known.add(record.id)
        self._each[owner] = room
        room.add(record)
        self._all.add(record)
        return True

    def waiting_for(self, came: RecordId) -> list[tuple[Record, Owner]]:
        """What waited for the record that came, with its owners; it is not parked any more."""
        found = list(self._waiting.pop(came, {}).values())
        for record, owner in found:
            self._gone(record, owner)
        return found

    def left(self, owner: Owner) -> None:
        """Forget what this sender parked."""
        if owner not in self._each:
            return
        for needs, records in list(self._waiting.items()):
            for id_, (record, by) in list(records.items()):
                if by == owner:
                    del records[id_]
                    self._gone(record, owner)
            if not records:
                del self._waiting[needs]

    def _gone(self, record: Record, owner: Owner) -> None:
        self._known.discard(record.id)
        self._all.add(record, -1)
        room = self._each[owner]
        room.add(record, -1)
        if not room.records:
            del self._each[owner]

    def __len__(self) -> int:
        return self._all.records
