"""Whom to dial, and when: everybody who takes part in a shared mandate and is not linked, wherever they may be.

Hints come from mDNS, from where members were last met, from what members say of each other, from tickets and from --peer. Each is only
tried: who is there is for the handshake to say. Nothing beyond the chosen networks is ever dialled, each address at most once in a while.
"""

import logging
import random
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias, TypeVar

import trio

from p2psync.daemon import admission
from p2psync.daemon.peer import Peer
from p2psync.edge.discovery import Discovery, Seen
from p2psync.edge.interfaces import NetworkWatch, reachable
from p2psync.edge.link import Link, connect
from p2psync.engine.backoff import Backoff
from p2psync.engine.beacon import recognise
from p2psync.engine.hello import Gate
from p2psync.values.errors import P2psyncError, PeerError, UserError
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
STEADY_S = 20.0
"""After a link that lasted so long the next try is made at once, after a shorter one as after a failure."""
APART_S = 1.0
"""Between two tries of one address at least, however often it is announced."""
_LONGEST_S = 120.0
_LONGEST_MET_S = 30.0
"""The longest wait between two tries: of an address that somebody told us, and of one where a member was met or that the user named."""
_SEEN = 512
_PLACES = 2048
_BREATH = 0.02
"""Between two times that all hints are gone through: what happens meanwhile is taken together."""

K = TypeVar("K")
V = TypeVar("V")


@dataclass(frozen=True, slots=True)
class Candidate:
    """One address to try, at which gate, and whom we hope to find there (None: it will turn out). ``met``: it is more than hearsay."""

    host: str
    port: int
    gate: Gate
    device: DeviceId | None = None
    met: bool = False

    @property
    def door(self) -> tuple[str, MandateId, InviteId | None]:
        """The gate's name."""
        return self.gate.kind, self.gate.mandate, self.gate.invite

    @property
    def any_door(self) -> tuple[str, bool]:
        """For when nobody was reached at the address, whatever the gate."""
        return "any", self.met


Place: TypeAlias = tuple[str, int]
OpenStream: TypeAlias = Callable[[str, int], Awaitable[trio.abc.Stream]]


class Dialer:
    """Dials for one office. ``open_stream`` connects to a host and port, and is another one in tests."""

    def __init__(self, office: "Office", discovery: Discovery | None, open_stream: OpenStream = trio.open_tcp_stream) -> None:
        self._office = office
        self._discovery = discovery
        self._open_stream = open_stream
        self._heard: dict[str, Seen] = {}
        self._gates: dict[str, list[Gate]] = {}
        self._gates_for: object = None
        self._known: dict[Place, DeviceId] = {}
        self._rest: dict[Place, dict[object, tuple[Backoff, float]]] = {}
        self._tried: dict[Place, float] = {}
        self._busy: set[Place] = set()
        self._standing: set[tuple[Place, str]] = set()
        self._dialling = 0

    async def listen(self) -> None:
        """Take what mDNS hears, for ever."""
        assert self._discovery is not None
        while True:
            for seen in await self._discovery.seen():
                self._hear(seen)
            _keep_latest(self._heard, _SEEN)
            self._office.wake_dialer.set()

    def _hear(self, seen: Seen) -> None:
        """An announcement: whoever listens there has taken back what was announced for it before, and is worth another try."""
        places = {(host, seen.port) for host in seen.addresses}
        if seen.instance not in self._heard:  # it may be another machine than the one that was there before
            for where in places:
                self._known.pop(where, None)
        self._gates.pop(seen.instance, None)
        self._heard = {name: old for name, old in self._heard.items() if not places & {(host, old.port) for host in old.addresses}}
        self._heard[seen.instance] = seen
        for where in places:
            self._rest.pop(where, None)

    async def follow_network(self) -> None:
        """When the network changes, everybody is worth another try at once; for ever."""
        with NetworkWatch() as network:
            while True:
                await network.changed()
                self._rest.clear()
                self._office.wake_dialer.set()

    async def dial(self) -> None:
        """Go through the candidates whenever something changed, and every so often, for ever."""
        async with trio.open_nursery() as nursery:
            while True:
                self._office.wake_dialer = trio.Event()
                soonest = EVERY_S if self._office.stopping else self._dial_some(nursery)
                with trio.move_on_after(soonest):
                    await self._office.wake_dialer.wait()
                await trio.sleep(_BREATH)

    def _dial_some(self, nursery: trio.Nursery) -> float:
        """Dial the first few that may be dialled now; seconds until the next may be, if nothing happens before."""
        soonest = EVERY_S
        for candidate in self._candidates():
            if self._dialling >= AT_ONCE:  # whoever is done wakes us
                break
            where = (candidate.host, candidate.port)
            if where in self._busy or (where, candidate.gate.kind) in self._standing or self._is_linked(candidate, where):
                continue
            wait = self._due(candidate) - trio.current_time()
            if wait > 0:
                soonest = min(soonest, wait)
                continue
            self._busy.add(where)
            self._dialling += 1
            nursery.start_soon(self._try, candidate)
        return soonest

    def _due(self, candidate: Candidate) -> float:
        where = (candidate.host, candidate.port)
        rests = self._rest.get(where, {})
        rested = max(rests[door][1] if door in rests else 0.0 for door in (candidate.door, candidate.any_door))
        return max(rested, self._tried.get(where, -APART_S) + APART_S)

    def _is_linked(self, candidate: Candidate, where: Place) -> bool:
        device = candidate.device or self._known.get(where)
        return candidate.gate.kind == "member" and device is not None and device in self._office.links

    # ---- candidates

    def _candidates(self) -> Iterator[Candidate]:
        """Every hint at hand; the same address may come at several gates, which are tried one after the other."""
        office = self._office
        mandates = office.shared_mandates()
        yield from self._from_tickets()
        for host, port in office.config.peers:
            for mandate in mandates:
                yield Candidate(host, port, mandate.gate(), met=True)
        for mandate in mandates:
            for device in mandate.sightings.wanted():
                if device not in office.links:
                    for host, port in mandate.sightings.of(device):
                        yield Candidate(host, port, mandate.gate(), device, met=True)
        yield from self._from_announcements()

    def _from_tickets(self) -> Iterator[Candidate]:
        for joining in list(self._office.joinings.values()):
            ticket = joining.ticket
            gate = Gate.for_guests(ticket.mandate, ticket.invite, GuestKeys.of(ticket.gate))
            for hint in ticket.hints:
                yield Candidate(hint.host, hint.port, gate)
            for host, port in self._office.config.peers:
                yield Candidate(host, port, gate)

    def _from_announcements(self) -> Iterator[Candidate]:
        known_for = (tuple(mandate.id for mandate in self._office.shared_mandates()), tuple(self._office.joinings))
        if known_for != self._gates_for:
            self._gates, self._gates_for = {}, known_for
        for seen in list(self._heard.values()):
            if seen.instance not in self._gates:
                self._gates[seen.instance] = self._gates_of(seen)
            device = self._device_at([(host, seen.port) for host in seen.addresses])
            for host in seen.addresses:  # of one machine: who was met at one of them is at all of them
                for gate in self._gates[seen.instance]:
                    yield Candidate(host, seen.port, gate, device)

    def _device_at(self, places: list[Place]) -> DeviceId | None:
        """Who was met at one of these addresses, or is linked from there."""
        linked = (device for device, peer in self._office.links.items() if peer.dialled in places)
        return next((self._known[where] for where in places if where in self._known), None) or next(linked, None)

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
        place = ((candidate.host, candidate.port), candidate.gate.kind)
        self._standing.add(place)
        try:
            try:
                link = await self._connect(candidate)
            finally:
                self._dialling -= 1
                self._busy.discard(place[0])
                self._office.wake_dialer.set()
            if link is None:
                self._failed(candidate)
            else:
                await self._talk(link, candidate)
        except* Exception as mistakes:  # one link must not take the others with it; but it is a bug
            log.error("a link ended by a mistake of ours", exc_info=mistakes)
            self._failed(candidate)
        finally:
            self._standing.discard(place)
            self._office.wake_dialer.set()

    async def _connect(self, candidate: Candidate) -> Link | None:
        host = reachable(candidate.host, self._office.interfaces())
        if host is None and (candidate.host, candidate.port) in self._office.config.peers:
            host = candidate.host
        if host is None:
            return None
        self._tried[candidate.host, candidate.port] = trio.current_time()
        _keep_latest(self._tried, _PLACES)
        reached = False
        try:
            with trio.move_on_after(CONNECT_S):
                stream = await self._open_stream(host, candidate.port)
                reached = True
                return await connect(stream, self._office.home.keys, candidate.gate, nonce=self._office.nonce)
        except (OSError, PeerError) as e:
            log.debug("no link to %s port %d: %s", host, candidate.port, e)
        if not reached:
            self._let_rest(candidate, candidate.any_door)
        return None

    async def _talk(self, link: Link, candidate: Candidate) -> None:
        where = (candidate.host, candidate.port)
        since = trio.current_time()
        try:
            if candidate.gate.kind == "guest":
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(link.keep_alive)
                    joined = await meet_guest(self._office, link)
                    nursery.cancel_scope.cancel()
                if joined:  # the same machine is called again at once, now as a member calls
                    self._rest.pop(where, None)
                    self._tried.pop(where, None)
                else:
                    self._failed(candidate)
            else:
                peer = Peer(self._office, link, dialled=where)
                peer.on_known = lambda device: self._linked(where, device)
                await peer.run()
        except* P2psyncError as e:
            log.debug("the link to %s port %d ended: %s", *where, e.exceptions)
            if trio.current_time() - since > STEADY_S:
                self._rest.pop(where, None)
            self._failed(candidate)
        finally:
            with trio.CancelScope(shield=True, deadline=trio.current_time() + 3):
                await link.close()

    def _linked(self, where: Place, device: DeviceId) -> None:
        self._known.pop(where, None)
        self._known[where] = device
        _keep_latest(self._known, _PLACES)

    def _failed(self, candidate: Candidate) -> None:
        self._let_rest(candidate, candidate.door)

    def _let_rest(self, candidate: Candidate, door: object) -> None:
        rests = self._rest.setdefault((candidate.host, candidate.port), {})
        longest = _LONGEST_MET_S if candidate.met else _LONGEST_S
        backoff = rests[door][0] if door in rests else Backoff(first=1.0, longest=longest)
        rests[door] = (backoff, trio.current_time() + backoff.failed(random.random()))
        _keep_latest(self._rest, _PLACES)


def _keep_latest(what: dict[K, V], most: int) -> None:
    while len(what) > most:
        del what[next(iter(what))]


async def meet_guest(office: "Office", link: Link) -> bool:
    """Behind the gate of an invitation: we ask when the ticket is ours, and answer when the mandate is.

    Whether our ticket has done its work, so that we are a member now. Raises: PeerError.
    """
    invite = link.gate.invite
    joining = office.joinings.get(invite) if invite is not None else None
    if invite in office.used:  # another link was faster; the other side would wait for us to ask
        return True
    if joining is None:
        await admission.admit(office, link)
        return False
    try:
        await admission.ask(office, link, joining)
        return True
    except (admission.TicketUsed, admission.TicketNotAccepted) as e:
        office.end_joining(joining.ticket.invite, e)
    except UserError as e:  # another machine may admit us, and our disk may have room again: the ticket stays in use
        office.refusals[joining.ticket.invite] = e
    return False
