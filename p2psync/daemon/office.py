"""Everything that this machine takes part in: its mandates, its links to other machines, the tickets it is using.

The office is what the other tasks ask: through which gates somebody may come in, whose key that is, which mandates are shared. It owns
no task; daemon/run gives it its nursery.
"""

import ipaddress
import logging
import math
import os
import platform
import random
import socket
import sys
import time
from collections.abc import Callable, Iterable, Iterator

import trio

from p2psync.daemon.config import Config
from p2psync.daemon.keeper import keep
from p2psync.daemon.mandate import Mandate
from p2psync.daemon.news import News
from p2psync.daemon.peer import Benched, Peer, Superfluous
from p2psync.daemon.troubles import Troubles
from p2psync.edge.discovery import Discovery
from p2psync.edge.interfaces import Interface, select
from p2psync.edge.watcher import Watcher
from p2psync.engine.backoff import Backoff
from p2psync.engine.beacon import Guest
from p2psync.engine.hello import Gate
from p2psync.engine.invitation import Refusal
from p2psync.store import addresses
from p2psync.store.books import Books
from p2psync.store.home import Home, Joining
from p2psync.values.errors import P2psyncError, PeerError, UserError
from p2psync.values.hint import Hint
from p2psync.values.keys import GuestKeys, Secret, gate_key
from p2psync.values.names import DeviceId, InviteId, MandateId, escaped

log = logging.getLogger(__name__)

TOGETHER_S = 5.0
"""Two links between the same devices that begin within this time were dialled at once from both ends."""
BENCH_S = 60.0
"""A machine that broke the rules is not talked to for about so long; one that has kept them for so long is in order again."""
REACHED = 64
"""Addresses that are remembered of those from which this machine was reached."""
LOOK_S = 5.0
"""So long the interfaces are taken to be as they were."""


class MachineLeft(UserError):
    """The machine of {machine} does not keep the rules ({why}), so this one does not listen to it for a while. Nothing of what it sent
    wrongly was taken. Have the same p2psync on both; if that does not help, somebody may misuse that machine.
    """


class Office:
    """The state that the tasks of one daemon share. ``nursery`` outlives every mandate and link."""

    def __init__(self, config: Config, home: Home, watcher: Watcher, nursery: trio.Nursery) -> None:
        self.config = config
        self.home = home
        self.watcher = watcher
        self.device: DeviceId = home.device
        self.device_name = socket.gethostname().partition(".")[0][:60] or "computer"
        self.platform = f"{sys.platform} {platform.machine()}"[:16]
        self.port = 0
        self.mandates: dict[MandateId, Mandate] = {}
        self.links: dict[DeviceId, Peer] = {}
        self.joinings: dict[InviteId, Joining] = {joining.ticket.invite: joining for joining in home.joinings()}
        self.refusals: Troubles[InviteId] = Troubles(self.now_ms)
        self._joining_since: dict[InviteId, int] = {}
        self._refused: dict[InviteId, MandateId] = {}
        self.used: set[InviteId] = set()
        self.problems: Troubles[str] = Troubles(self.now_ms)
        self.wake_dialer = trio.Event()
        self.discovery: Discovery | None = None
        self.reached_by: dict[str, int] = {}
        self.announce: Callable[[], None] = lambda: None
        self._nursery = nursery
        self._scopes: dict[MandateId, trio.CancelScope] = {}
        self.news = News()
        self.ready = trio.Event()
        self.stopping = False
        self._benched: dict[DeviceId, float] = {}
        self._blames: dict[DeviceId, Backoff] = {}
        self._looked_at = -math.inf
        self._interfaces: list[Interface] = []
        self.opened_invites: dict[InviteId, trio.Event] = {}
        self._bytes_before = [0, 0]
        self._opening = trio.Lock()

    # ---- clock and chance

    @staticmethod
    def now_ms() -> int:
        """The wall clock, ms since 1970: shown to people and written into records, never decided by."""
        return time.time_ns() // 1_000_000

    @staticmethod
    def nonce(size: int) -> bytes:
        """Fresh random bytes."""
        return os.urandom(size)

    # ---- mandates

    async def open(self, books: Books) -> Mandate:
        """Have a mandate worked on from now on."""
        mandate = Mandate(books, self.watcher, self.changed, self.members_changed)
        self.mandates[mandate.id] = mandate
        await self._nursery.start(self._keep, mandate)
        self.members_changed()
        self.changed(mandate.id)
        return mandate

    async def _keep(self, mandate: Mandate, *, task_status: trio.TaskStatus[None]) -> None:
        await keep(mandate, self.problems, task_status)

    def books(self) -> list[Books]:
        """The books of all mandates."""
        return [mandate.books for mandate in self.mandates.values()]

    def shared_mandate(self, mandate: MandateId) -> Mandate | None:
        """This mandate, if there is one here that may be spoken of."""
        found = self.mandates.get(mandate)
        return found if found is not None and found.books.shared else None

    def shared_mandates(self) -> list[Mandate]:
        """The mandates that may be spoken of, those that changed last first."""
        return [mandate for mandate in self.mandates.values() if mandate.books.shared]

    async def opened(self, joining: Joining, keys: Iterable[tuple[int, Secret]]) -> None:
        """A ticket was accepted: the mandate opens here."""
        async with self._opening:  # two members may have let us in at the same time
            if joining.ticket.mandate not in self.mandates:
                books = await trio.to_thread.run_sync(self.home.joined, joining, tuple(keys))
                with books.ledger.write() as db:  # the ticket is forgotten, but not where it led to
                    addresses.says(db, joining.ticket.issuer, [(hint.host, hint.port) for hint in joining.ticket.hints])
                await self.open(books)
        self.used.add(joining.ticket.invite)
        self.end_joining(joining.ticket.invite, None)

    def begin_joining(self, joining: Joining) -> trio.Event:
        """Use a ticket from now on; the event is set when it was accepted or refused."""
        self.joinings[joining.ticket.invite] = joining
        self._joining_since[joining.ticket.invite] = self.now_ms()
        for invite in [invite for invite in self.refusals if self._refused.get(invite) == joining.ticket.mandate]:
            self.refusals.pop(invite)  # another ticket for that mandate has taken its place
        self.refusals.pop(joining.ticket.invite, None)
        event = self.opened_invites.setdefault(joining.ticket.invite, trio.Event())
        self.members_changed()
        return event

    def end_joining(self, invite: InviteId, refusal: UserError | None) -> None:
        """A ticket is not in use any more: it was refused, or with None it has done its work."""
        joining = self.joinings.pop(invite, None)
        self.home.end_joining(invite)
        if refusal is not None:
            self.refusals[invite] = refusal
            if joining is not None:
                self._refused[invite] = joining.ticket.mandate
        else:
            self.refusals.pop(invite, None)
        if invite in self.opened_invites:
            self.opened_invites.pop(invite).set()
        self.announce()

    def joining_since(self, invite: InviteId) -> int | None:
        """Since when a ticket is in use, as far as this run knows."""
        return self._joining_since.get(invite)

    def forget_refusals(self, older_than_ms: int) -> None:
        """A ticket that was refused long ago is not worth a word any more."""
        for invite in [invite for invite in self.refusals if self.now_ms() - self.refusals.since(invite) > older_than_ms]:
            self.refusals.pop(invite)

    def note_refusal(self, mandate: Mandate, refusal: Refusal) -> None:
        """Somebody came with a ticket that is not good (any more)."""
        log.warning("a guest of %s was refused: %s", mandate.id.hex()[:8], refusal.name)

    # ---- who comes in

    def gates(self, label: InviteId) -> Iterator[Gate]:
        """The gates at which somebody who names ``label`` may knock."""
        for mandate in self.shared_mandates():
            books = mandate.books
            for generation, secret in books.secret.group:
                yield Gate.for_members(mandate.id, generation, mandate.group_keys(generation))
                if books.roster.answers(label, self.now_ms()):
                    keys = GuestKeys.of(gate_key(secret, mandate.id, label))
                    yield Gate.for_guests(mandate.id, label, keys, generation)
        joining = self.joinings.get(label)
        if joining is not None:
            yield Gate.for_guests(joining.ticket.mandate, label, GuestKeys.of(joining.ticket.gate))

    def member_with_key(self, transport: bytes) -> DeviceId | None:
        """The device with this static key, when it takes part in some mandate here."""
        for mandate in self.shared_mandates():
            member = mandate.books.roster.by_transport(transport)
            if member is not None:
                return member.device
        return None

    def guests(self) -> list[Guest]:
        """The tickets that this machine is using, for the announcement."""
        return [Guest(invite, GuestKeys.of(joining.ticket.gate).announcement) for invite, joining in self.joinings.items()]

    # ---- links

    def register(self, peer: Peer) -> None:
        """A link that both sides want is known by its device from now on; of two one stays (docs/protocol.md, “Life of a connection”).

        Who calls while it has a link keeps that one. Who is called takes the call for a sign that the other has lost the older link,
        unless it was calling itself in the same moment: then both keep the one whose channel is smaller.

        Raises:
            Superfluous: this one goes.
            Benched: it broke the rules a short while ago.
        """
        if trio.current_time() < self._benched.get(peer.device, -math.inf):
            raise Benched()
        old = self.links.get(peer.device)
        if old is not None:
            crossed = old.link.initiator and abs(peer.since - old.since) < TOGETHER_S
            if peer.link.initiator or (crossed and old.link.channel < peer.link.channel):
                raise Superfluous()
            self._nursery.start_soon(old.close, "another link is used")
        self.links[peer.device] = peer
        self._nursery.start_soon(self._forgive, peer)
        self.changed(None)

    def blame(self, peer: Peer, error: PeerError) -> None:
        """A member broke the rules: it is shown, and not talked to for a while, longer each time."""
        log.warning("%s was left: %s", self.machine(peer.device), error)
        backoff = self._blames.setdefault(peer.device, Backoff(first=BENCH_S, longest=20 * BENCH_S))
        self._benched[peer.device] = trio.current_time() + backoff.failed(random.random())
        self.problems[f"peer {peer.device.hex()}"] = MachineLeft(machine=escaped(self.machine(peer.device)), why=str(error).rstrip("."))
        self.changed(None)

    async def _forgive(self, peer: Peer) -> None:
        """One that has kept the rules for a while is in order."""
        await trio.sleep(BENCH_S)
        if self.links.get(peer.device) is peer and self._blames.pop(peer.device, None) is not None:
            self.problems.pop(f"peer {peer.device.hex()}", None)
            self.changed(None)

    def machine(self, device: DeviceId) -> str:
        """How a machine is called to people."""
        intros = (mandate.books.roster.intro(device) for mandate in self.mandates.values())
        return next((f"{intro.person} ({intro.device_name})" for intro in intros if intro is not None), device.hex()[:8])

    def note_met(self, mandate: Mandate, peer: Peer) -> None:
        """A peer takes part in a mandate, and is online at this moment."""
        device, dialled, now = peer.device, peer.dialled, self.now_ms()

        def work() -> None:
            with mandate.books.ledger.write() as db:
                addresses.met(db, device, now)
                if dialled is not None:
                    addresses.note(db, device, *dialled, now)

        self._nursery.start_soon(self._write, mandate, work)

    def note_own_word(self, mandate: Mandate, device: DeviceId, spots: list[tuple[str, int]]) -> None:
        """A peer says where it listens itself."""

        def work() -> None:
            with mandate.books.ledger.write() as db:
                addresses.says(db, device, spots)

        self._nursery.start_soon(self._write, mandate, work)

    async def _write(self, mandate: Mandate, work: Callable[[], None]) -> None:
        """Write something that is of use and no more, when the disk has time for it."""
        try:
            await mandate.in_thread(work)
        except P2psyncError as e:
            log.debug("not written: %s", e)

    def note_reached(self, host: str) -> None:
        """Somebody has opened a connection to us from this address: ``reached_by`` has the latest last, with the time (ms since 1970)."""
        self.reached_by.pop(host, None)
        self.reached_by[host] = self.now_ms()
        while len(self.reached_by) > REACHED:
            del self.reached_by[next(iter(self.reached_by))]

    def unregister(self, peer: Peer) -> None:
        """A link is over."""
        self._bytes_before[0] += peer.link.bytes_in
        self._bytes_before[1] += peer.link.bytes_out
        if self.links.get(peer.device) is peer:
            del self.links[peer.device]
            for conversation in peer.conversations.values():
                self.note_met(conversation.mandate, peer)
            self.wake_dialer.set()
            self.changed(None)

    @property
    def bytes_in(self) -> int:
        """Bytes that came over all links since the start."""
        return self._bytes_before[0] + sum(peer.link.bytes_in for peer in self.links.values())

    @property
    def bytes_out(self) -> int:
        """Bytes that went over all links since the start."""
        return self._bytes_before[1] + sum(peer.link.bytes_out for peer in self.links.values())

    def members_changed(self) -> None:
        """Somebody was admitted, or a mandate shared or opened: announce, dial and open anew."""
        self.announce()
        self.wake_dialer.set()
        for peer in list(self.links.values()):
            peer.refresh()

    def own_hints(self) -> tuple[Hint, ...]:
        """Where this machine can be reached, for tickets and peers: at most 8."""
        one = self.config.only_host
        hosts = [one] if one else [str(own.ip) for i in self.interfaces() for own in i.addresses if own.version == 4]
        packed = [socket.inet_pton(socket.AF_INET6 if ":" in h else socket.AF_INET, h) for h in hosts]
        return tuple(Hint(address, self.port) for address in packed if Hint.is_fit(address) and self.port)[:8]

    def interfaces(self) -> list[Interface]:
        """The chosen interfaces, as they were at most a few seconds ago."""
        now = trio.current_time()
        if now - self._looked_at > LOOK_S:
            self._looked_at, self._interfaces = now, select(self.config.interfaces)
        return self._interfaces

    def serves(self, local: str, zone: int = 0) -> bool:
        """Whether somebody who reached this machine at its address ``local`` came over a chosen interface (its index is ``zone``)."""
        if self.config.only_host is not None:
            return True
        ip = ipaddress.ip_address(local.partition("%")[0])
        ip = getattr(ip, "ipv4_mapped", None) or ip
        self._looked_at = -math.inf  # an address may have come this very moment
        chosen = [i for i in self.interfaces() if not (ip.is_link_local and ip.version == 6) or i.index == zone]
        return any(own.ip == ip for interface in chosen for own in interface.addresses)

    # ---- whoever watches

    def changed(self, mandate: MandateId | None) -> None:
        """Tell those who watch that the status may have changed."""
        self.news.tell(mandate)
