"""Whom to dial, and when: everybody who takes part in a shared mandate and is not linked, wherever they may be.

Hints come from mDNS, from where members were last met, from what members say of each other, from tickets and from --peer. Each is only
tried: who is there is for the handshake to say. Nothing beyond the chosen networks is ever dialled, each address at most once in a while.
"""

import logging
import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import trio

from p2psync.daemon import admission
from p2psync.daemon.peer import Peer
from p2psync.edge.discovery import Discovery, Seen
from p2psync.edge.interfaces import reachable, select
from p2psync.edge.link import Link, connect
from p2psync.engine.backoff import Backoff
from p2psync.engine.beacon import recognise
from p2psync.engine.hello import Gate
from p2psync.store import addresses
from p2psync.values.errors import PeerError, UserError
from p2psync.values.keys import GuestKeys, Secret, gate_key
from p2psync.values.names import DeviceId, InviteId, MandateId

if TYPE_CHECKING:
    from p2psync.daemon.office import Office

log = logging.getLogger(__name__)

AT_ONCE = 4
"""Dials under way at the same time."""
EVERY_S = 30.0
"""All hints are gone through at least so often."""
CONNECT_S = 5.0
_LONGEST_S = 120.0
_SEEN = 512


@dataclass(frozen=True, slots=True)
class Candidate:
    """One address to try, at which gate, and whom we hope to find there (None: it will turn out)."""

    host: str
    port: int
    gate: Gate
    device: DeviceId | None = None


class Dialer:
    """Dials for one office."""

    def __init__(self, office: "Office", discovery: Discovery | None) -> None:
        self._office = office
        self._discovery = discovery
        self._heard: dict[str, Seen] = {}
        self._known: dict[tuple[str, int], DeviceId] = {}
        self._rest: dict[tuple[str, int], tuple[Backoff, float]] = {}
        self._busy: set[tuple[str, int]] = set()
        self._limit = trio.Semaphore(AT_ONCE)

    async def listen(self) -> None:
        """Take what mDNS hears, for ever."""
        assert self._discovery is not None
        while True:
            for seen in await self._discovery.seen():
                self._heard.pop(seen.instance, None)
                self._heard[seen.instance] = seen
                for host in seen.addresses:
                    self._rest.pop((host, seen.port), None)
            while len(self._heard) > _SEEN:
                del self._heard[next(iter(self._heard))]
            self._office.wake_dialer.set()

    async def dial(self) -> None:
        """Go through the candidates whenever something changed, and every so often, for ever."""
        async with trio.open_nursery() as nursery:
            while True:
                self._office.wake_dialer = trio.Event()
                soonest = EVERY_S
                for candidate in self._candidates():
                    where = (candidate.host, candidate.port)
                    wait = self._rest[where][1] - trio.current_time() if where in self._rest else 0.0
                    if where in self._busy or self._is_linked(candidate, where):
                        continue
                    if wait > 0:
                        soonest = min(soonest, wait)
                        continue
                    self._busy.add(where)
                    nursery.start_soon(self._try, candidate)
                with trio.move_on_after(max(soonest, 0.05)):
                    await self._office.wake_dialer.wait()

    def _is_linked(self, candidate: Candidate, where: tuple[str, int]) -> bool:
        device = candidate.device or self._known.get(where)
        return candidate.gate.kind == "member" and device is not None and device in self._office.links

    # ---- candidates

    def _candidates(self) -> Iterator[Candidate]:
        """Every hint at hand; the same address may come at several gates, of which the first is tried."""
        office = self._office
        mandates = office.shared_mandates()
        yield from self._from_tickets()
        yield from self._from_announcements()
        for mandate in mandates:
            gate = mandate.gate()
            db = mandate.books.ledger.read()
            for device in mandate.books.roster.members():
                if device != office.device and device not in office.links:
                    for host, port in addresses.of(db, device):
                        yield Candidate(host, port, gate, device)
        for host, port in office.config.peers:
            for mandate in mandates:
                if (host, port) not in self._known or self._known[host, port] not in office.links:
                    yield Candidate(host, port, mandate.gate())

    def _from_tickets(self) -> Iterator[Candidate]:
        for joining in list(self._office.joinings.values()):
            ticket = joining.ticket
            gate = Gate.for_guests(ticket.mandate, ticket.invite, GuestKeys.of(ticket.gate))
            for hint in ticket.hints:
                yield Candidate(hint.host, hint.port, gate)
            for host, port in self._office.config.peers:
                yield Candidate(host, port, gate)

    def _from_announcements(self) -> Iterator[Candidate]:
        for seen in list(self._heard.values()):
            gates = self._gates_of(seen)
            for host in seen.addresses:
                for gate in gates:
                    yield Candidate(host, seen.port, gate)

    def _gates_of(self, seen: Seen) -> list[Gate]:
        office = self._office
        mandates = {mandate.id: mandate for mandate in office.shared_mandates()}
        members = [(id_, mandate.group_keys().announcement) for id_, mandate in mandates.items()]
        joining = {MandateId(j.ticket.mandate): j for j in office.joinings.values()}
        members += [(id_, GuestKeys.of(j.ticket.gate).announcement) for id_, j in joining.items()]

        def guest_keys(invite: InviteId) -> Iterator[tuple[MandateId, Secret]]:
            for id_, mandate in mandates.items():
                secret = mandate.books.secret.group[-1][1]
                yield id_, GuestKeys.of(gate_key(secret, id_, invite)).announcement

        found = recognise(seen.txt, members, guest_keys, port=seen.port, now_ms=office.now_ms())
        gates = [mandates[id_].gate() for id_ in found.mandates if id_ in mandates]
        for id_, invite in found.guests:
            keys = GuestKeys.of(gate_key(mandates[id_].books.secret.group[-1][1], id_, invite))
            gates.insert(0, Gate.for_guests(id_, invite, keys))
        return gates

    # ---- one try

    async def _try(self, candidate: Candidate) -> None:
        where = (candidate.host, candidate.port)
        try:
            async with self._limit:
                link = await self._connect(candidate)
            if link is None:
                self._failed(where)
            else:
                await self._talk(link, candidate)
        finally:
            self._busy.discard(where)
            self._office.wake_dialer.set()

    async def _connect(self, candidate: Candidate) -> Link | None:
        host = reachable(candidate.host, select(self._office.config.interfaces))
        if host is None and (candidate.host, candidate.port) in self._office.config.peers:
            host = candidate.host
        if host is None:
            return None
        try:
            with trio.move_on_after(CONNECT_S):
                stream = await trio.open_tcp_stream(host, candidate.port)
                return await connect(stream, self._office.home.keys, candidate.gate, nonce=self._office.nonce)
        except (OSError, PeerError) as e:
            log.debug("no link to %s port %d: %s", host, candidate.port, e)
        return None

    async def _talk(self, link: Link, candidate: Candidate) -> None:
        where = (candidate.host, candidate.port)
        try:
            if candidate.gate.kind == "guest":
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(link.keep_alive)
                    await meet_guest(self._office, link)
                    nursery.cancel_scope.cancel()
                self._failed(where)
            else:
                peer = Peer(self._office, link, dialled=where)
                peer.on_known = lambda device: self._linked(where, device)
                await peer.run()
                self._rest.pop(where, None)
        except* (PeerError, UserError) as e:
            log.debug("the link to %s port %d ended: %s", *where, e.exceptions)
            self._failed(where)
        finally:
            with trio.CancelScope(shield=True, deadline=trio.current_time() + 3):
                await link.close()

    def _linked(self, where: tuple[str, int], device: DeviceId) -> None:
        self._known[where] = device
        self._rest.pop(where, None)

    def _failed(self, where: tuple[str, int]) -> None:
        backoff = self._rest[where][0] if where in self._rest else Backoff(first=1.0, longest=_LONGEST_S)
        self._rest[where] = (backoff, trio.current_time() + backoff.failed(random.random()))


async def meet_guest(office: "Office", link: Link) -> None:
    """Behind the gate of an invitation: we ask when the ticket is ours, and answer when the mandate is. Raises: PeerError."""
    invite = link.gate.invite
    joining = office.joinings.get(invite) if invite is not None else None
    if joining is None:
        await admission.admit(office, link)
        return
    try:
        await admission.ask(office, link, joining)
    except admission.OfficeStale as e:
        office.refusals[joining.ticket.invite] = e
    except UserError as e:
        office.end_joining(joining.ticket.invite, e)
