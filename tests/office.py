"""An office in memory for tests: devices that sign records, know what they were told, and carry tickets about. No disk, no network."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from nacl.signing import SigningKey

from p2psync.engine.claims import Log
from p2psync.engine.invitation import Admission, Refusal, consider_join, draft, introduce, make_join, ticket_for
from p2psync.engine.membership import Roster
from p2psync.engine.rules import Verdict
from p2psync.values.acts import Genesis, Grant, Role
from p2psync.values.keys import DeviceKeys, Secret, commitment
from p2psync.values.names import DeviceId, InviteId, RecordId
from p2psync.values.packing import Plain
from p2psync.values.record import Kind, Record
from p2psync.values.ticket import Hint, Ticket

NOW = 1_760_000_000_000
DAY = 24 * 3600 * 1000
Vector = dict[Log, int]


def seed(*words: object) -> Secret:
    """32 bytes that are always the same for the same words."""
    return Secret(hashlib.sha256(repr(words).encode()).digest())


@dataclass
class Device:
    """One machine: its keys, its present log, and the ids of the records that it knows."""

    name: str
    keys: DeviceKeys
    logs: int = 0
    known: set[RecordId] = field(default_factory=set)

    @property
    def id(self) -> DeviceId:
        return self.keys.device

    @property
    def log(self) -> Log:
        return self.id, self.logs.to_bytes(8, "big")


class Office:
    """One mandate and all who have to do with it. ``records`` are all that were ever signed, in an order that is causal."""

    def __init__(self, name: str = "Dupont SA", tag: str = "") -> None:
        self.tag = tag
        self.root = SigningKey(bytes(seed(tag, "root")))
        self.secret = seed(tag, "group secret")
        self.root_device = Device("root", DeviceKeys(seed(tag, "root"), seed(tag, "-"), seed(tag, "-")))
        self.records: dict[RecordId, Record] = {}
        self.pasts: dict[RecordId, Vector] = {}
        self.devices: dict[str, Device] = {}
        self.minted = 0
        owner = self.device("olga")
        root_key = bytes(self.root.verify_key)
        self.genesis = Genesis(name, root_key, owner.id, commitment(self.secret, root_key, 0), NOW).signed(self.root)
        self.mandate = self.genesis.founds
        self.owner = owner
        self._keep(self.genesis)
        self.tell(owner, [self.genesis.id])
        self.begin(owner)

    def device(self, name: str) -> Device:
        """The device with this name; it is a stranger until it joins."""
        if name not in self.devices:
            keys = DeviceKeys(*(seed(self.tag, name, use) for use in ("sign", "transport", "box")))
            self.devices[name] = Device(name, keys)
        return self.devices[name]

    def begin(self, device: Device, now: int = NOW) -> Record:
        """A new log of this device begins, with its introduction."""
        device.logs += 1
        person, incarnation = device.name.capitalize(), device.log[1]
        intro = introduce(
            device.keys, self.mandate, incarnation=incarnation, person=person, device_name=f"pc-{device.name}", platform="test", now_ms=now
        )
        self._keep(intro)
        device.known.add(intro.id)
        return intro

    def say(
        self, device: Device, kind: Kind, body: Sequence[Plain], now: int = NOW, deps: Iterable[RecordId] | None = None, new: bool = False
    ) -> Record:
        """The next record of this device, which knows what it has been told (or only ``deps``)."""
        if new:
            device.logs += 1
        log = device.log
        own = [record for record in self.records.values() if record.log == log]
        known = self.ends(device.known) if deps is None else list(deps)
        record = Record.sign(
            device.keys.signing,
            mandate=self.mandate,
            incarnation=log[1],
            seq=len(own) + 1,
            prev=own[-1].id if own else None,
            deps=sorted({dep for dep in known if self.records[dep].log != log}),
            time_ms=now,
            kind=kind,
            body=body,
        )
        self._keep(record)
        device.known |= {record.id}
        return record

    def tell(self, device: Device, records: Iterable[RecordId]) -> None:
        """``device`` hears of records, and of all that they stand on."""
        for record in records:
            past = self.pasts[record]
            device.known |= {one.id for one in self.records.values() if past.get(one.log, 0) >= one.seq}

    def meet(self, one: Device, other: Device) -> None:
        """Two devices tell each other everything."""
        one.known |= other.known
        other.known |= one.known

    def roster(self, device: Device) -> Roster:
        """The roster as this device sees it."""
        return self.evaluate([record for record in self.records.values() if record.id in device.known])[0]

    def evaluate(self, records: Iterable[Record]) -> tuple[Roster, dict[RecordId, Verdict]]:
        """The roster from records in causal order, and the verdict on each that was judged; what stands on a dropped one is not."""
        roster = Roster.of(self.genesis)
        verdicts: dict[RecordId, Verdict] = {self.genesis.id: Verdict.ACCEPT}
        for record in records:
            needed = {*record.deps, *([record.prev] if record.prev else [])}
            if record.id in verdicts or not all(verdicts.get(one, Verdict.FULL).accepted for one in needed):
                continue
            verdicts[record.id] = roster.judge(record, self.pasts[record.id])
            if verdicts[record.id].accepted:
                roster = roster.with_record(record, self.pasts[record.id])
        return roster, verdicts

    def verdict(self, record: Record) -> Verdict:
        """The verdict of whoever knows everything; on the record alone when what it stands on was dropped already."""
        roster, verdicts = self.evaluate(self.records.values())
        return verdicts.get(record.id) or roster.judge(record, self.pasts[record.id])

    def invite(self, issuer: Device, now: int = NOW, lasts: int = 7 * DAY, hints: Sequence[Hint] = (), **terms: object) -> bytes:
        """A ticket's text, as an honest owner makes it; the owner alone knows of it so far."""
        self.minted += 1
        roster = self.roster(issuer)
        given = {"for_name": "Guest", **terms}
        invite, secret = InviteId(bytes(seed(self.tag, "invite", self.minted))[:16]), seed(self.tag, "ticket", self.minted)
        drafted = draft(roster, issuer.id, now_ms=now, lasts_ms=lasts, invite=invite, seed=secret, **given)  # type: ignore[arg-type]
        record = self.say(issuer, Kind.INVITE, drafted.invite.pack(), now)
        return ticket_for(roster, record, issuer.keys, drafted, self.secret, hints, name=roster.name, now_ms=now)

    def ask(self, guest: Device, ticket: bytes | Ticket, now: int = NOW) -> tuple[Record, Record]:
        """The two records with which a guest asks to be let in."""
        known = ticket if isinstance(ticket, Ticket) else Ticket.parse(ticket)
        intro = self.begin(guest, now)
        join = make_join(known, guest.keys, intro, now)
        self._keep(join)
        guest.known.add(join.id)
        return intro, join

    def consider(self, host: Device, asked: tuple[Record, Record], now: int = NOW, fresh: bool = True) -> Admission | Refusal:
        """What a member answers; when it admits, the guest learns all that the member knows."""
        intro, join = asked
        guest = next(device for device in self.devices.values() if device.id == intro.device)
        answer = consider_join(self.roster(host), intro, join, me=host.id, peer_key=guest.keys.transport_public, now_ms=now, fresh=fresh)
        if isinstance(answer, Admission):
            host.known |= {intro.id, join.id}
            if answer.witness:
                self.say(host, Kind.WITNESS, answer.witness.pack(), now)
            self.meet(host, guest)
        return answer

    def join(self, guest: Device, ticket: bytes, host: Device, now: int = NOW, fresh: bool = True) -> Admission | Refusal:
        """A guest uses a ticket at a member."""
        return self.consider(host, self.ask(guest, ticket, now), now, fresh)

    def admit(self, name: str, role: Role = Role.EDITOR, host: Device | None = None) -> Device:
        """A new participant, invited by the owner."""
        guest, at = self.device(name), host or self.owner
        if host:
            self.meet(self.owner, host)
        assert isinstance(self.join(guest, self.invite(self.owner, role=role), at), Admission)
        return guest

    def promote(self, by: Device, device: Device, role: Role = Role.OWNER) -> Record:
        """A grant."""
        return self.say(by, Kind.GRANT, Grant(device.id, role).pack())

    def change(self, device: Device, **how: object) -> Record:
        """A change of some file; what it says is not for membership to read."""
        return self.say(device, Kind.CHANGE, [["some entry"]], **how)  # type: ignore[arg-type]

    def ends(self, known: Iterable[RecordId]) -> list[RecordId]:
        """The records among these that no other of them stands on."""
        mine = [self.records[one] for one in known]
        under = {(log, seq) for one in mine for log, seq in self.pasts[one.id].items() if log != one.log}
        last: dict[Log, Record] = {}
        for one in mine:
            if one.log not in last or last[one.log].seq < one.seq:
                last[one.log] = one
        return [one.id for log, one in last.items() if not any(other == log and seq >= one.seq for other, seq in under)][:32]

    def _keep(self, record: Record) -> None:
        past: Vector = {record.log: record.seq}
        for needed in [*record.deps, *([record.prev] if record.prev else [])]:
            for log, seq in self.pasts[needed].items():
                past[log] = max(past.get(log, 0), seq)
        self.records[record.id] = record
        self.pasts[record.id] = past
