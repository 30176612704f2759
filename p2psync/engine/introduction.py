"""Proofs of membership: the few records that show somebody who knows only the genesis, or has an older journal, who is a participant.

A proof walks from the founder to the device. Each step is what made one device a participant: its introduction, and a grant or a join
with the testimony of somebody who stands before it in the walk. The proof is no journal (logs in it have gaps), so it is judged as if
each record had been made in the knowledge of those before it; whoever has the journal judges by that as soon as it arrives.
"""

from collections.abc import Iterator, Sequence
from typing import TypeAlias

from p2psync.engine.claims import Standing
from p2psync.engine.membership import Member, Roster
from p2psync.values.acts import MAX_CARRIED, Grant, Role
from p2psync.values.errors import Malformed, UserError
from p2psync.values.names import DeviceId, MandateId
from p2psync.values.record import Kind, Record

MAX_PROOF = 64
"""Records of a proof."""
MAX_LINEAGE = 10 * 1024
"""Bytes of the records in a ticket, which with their base64 are to fit its 16 KiB of text."""
_PROVES = {Kind.DEVICE, Kind.GRANT, Kind.JOIN, Kind.WITNESS}

_Node: TypeAlias = tuple[DeviceId, bool]
"""A device, and whether it is proved to be an owner."""


class TooManyOwnersBetween(UserError):
    """Too many owners stand between the founder of this mandate and this device. Let an earlier owner make the invitation."""


def lineage(roster: Roster, invitation: Record) -> tuple[bytes, ...]:
    """The chain of a ticket for an INVITE record: genesis, grants down to its author, itself; raw.

    Raises:
        TooManyOwnersBetween: it would be longer than a ticket's may be.
    """
    way = _walk(roster).get((invitation.device, True))
    if way is None:
        raise ValueError("an invitation by no owner")
    grants = [record.raw for record in way if record.kind == Kind.GRANT]
    chain = (roster.record.raw, *grants, invitation.raw)
    if len(chain) > MAX_CARRIED + 1 or sum(map(len, chain)) > MAX_LINEAGE:
        raise TooManyOwnersBetween()
    return chain


def chain_for(roster: Roster, device: DeviceId) -> tuple[bytes, ...]:
    """The records, at most 64, that prove ``device`` a participant to somebody who knows only the genesis; raw, to be read in order.

    Empty for a stranger, and where the proof would be longer.
    """
    ways = _walk(roster)
    way = ways.get((device, roster.role_of(device) == Role.OWNER)) or ways.get((device, False))
    if way is None or device not in roster.members():
        return ()
    chain = dict.fromkeys(record.raw for record in (roster.record, *way, _introduction(roster, device)))
    return tuple(chain) if len(chain) <= MAX_PROOF else ()


def verify_chain(records: Sequence[bytes], mandate: MandateId) -> Roster:
    """What a proof shows of ``mandate`` to somebody who knows nothing else.

    Raises:
        Malformed: it does not begin with the genesis of this mandate, or a record in it does not stand.
    """
    if not records:
        raise Malformed(why="an empty proof")
    roster = Roster.of(Record.parse(records[0]))
    if roster.mandate != mandate:
        raise Malformed(why="the genesis of another mandate")
    return extended(roster, records[1:])


def extended(roster: Roster, records: Sequence[bytes]) -> Roster:
    """``roster`` as it would be with the records of a proof, which are judged as the newest of all. To be asked, not to be kept.

    Raises:
        Malformed: it is too long, or a record in it does not stand.
    """
    if len(records) > MAX_PROOF:
        raise Malformed(why=f"a proof of {len(records)} records")
    for raw in records:
        record = Record.parse(raw)
        if record.id == roster.record.id or roster.knows(record):
            continue
        if record.kind not in _PROVES:
            raise Malformed(why="a record that proves nothing")
        verdict = roster.judge(record, None)
        if not verdict.accepted:
            raise Malformed(why=f"a proof with a record that does not stand: {verdict.value}")
        roster = roster.with_record(record, None)
    return roster


def introduced(roster: Roster, records: Sequence[bytes], transport: bytes) -> Member | None:
    """Who the holder of a static key is, by what is known here and by the proof it gives; None when that makes it no participant.

    Raises:
        Malformed: the proof is not well formed.
    """
    return roster.by_transport(transport) or extended(roster, records).by_transport(transport)


def _walk(roster: Roster) -> dict[_Node, list[Record]]:
    """For each device that can be proved a participant (or an owner), the shortest row of records that does."""
    ways: dict[_Node, list[Record]] = {(roster.owner, True): [], (roster.owner, False): []}
    steps = list(_steps(roster))
    found = True
    while found:
        found = False
        for before, after, records in steps:
            start = [] if before is None else ways.get(before)
            if start is None:
                continue
            way = list({record.id: record for record in (*start, *records)}.values())
            if after not in ways or len(way) < len(ways[after]):
                ways[after] = way
                found = True
    return ways


def _steps(roster: Roster) -> Iterator[tuple[_Node | None, _Node, list[Record]]]:
    """Each step of a proof: from whom (None: the root key), to whom, and the records that take it."""
    for device, grants in roster.grants.items():
        for grant in grants.values():
            by = None if grant.device == roster.genesis.root else (grant.device, True)
            step = [_introduction(roster, device), grant]
            yield by, (device, False), step
            if Grant.unpack(grant.body).role == Role.OWNER:
                yield by, (device, True), step
    for claims in roster.claims.values():
        for (join, _), seen in claims.testimonies.items():
            if claims.standing(seen.guest) == Standing.COUNTS:
                record = claims.joins[join]
                yield (seen.record.device, False), (seen.guest, False), [roster.logs[record.log], record, seen.record]


def _introduction(roster: Roster, device: DeviceId) -> Record:
    """The one that ``roster.intro`` shows."""
    intros = roster.intros[device]
    return intros[min(intros)]
