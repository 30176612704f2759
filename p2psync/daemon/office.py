"""Everything that this machine takes part in: its mandates, its links to other machines, the tickets it is using.

The office is what the other tasks ask: through which gates somebody may come in, whose key that is, which mandates are shared. It owns
no task; daemon/run gives it its nursery.
"""

import logging
import os
import platform
import socket
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import trio

from p2psync.daemon.config import Config
from p2psync.daemon.keeper import keep
from p2psync.daemon.mandate import Mandate
from p2psync.daemon.peer import Peer
from p2psync.edge.interfaces import select
from p2psync.edge.watcher import Watcher
from p2psync.engine.beacon import Guest
from p2psync.engine.hello import Gate
from p2psync.engine.invitation import Refusal
from p2psync.store import addresses
from p2psync.store.books import Books
from p2psync.store.home import Home, Joining
from p2psync.values.errors import UserError
from p2psync.values.hint import Hint
from p2psync.values.keys import GuestKeys, Secret, gate_key
from p2psync.values.names import DeviceId, InviteId, MandateId

log = logging.getLogger(__name__)

TOGETHER_S = 5.0
"""Two links between the same devices that begin within this time were dialled at once from both ends."""


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
        self.refusals: dict[InviteId, UserError] = {}
        self.problems: dict[str, UserError] = {}
        self.wake_dialer = trio.Event()
        self.announce: Callable[[], None] = lambda: None
        self._nursery = nursery
        self._scopes: dict[MandateId, trio.CancelScope] = {}
        self._listeners: set[trio.MemorySendChannel[MandateId | None]] = set()
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

    def shared_mandates(self) -> list[Mandate]:
        """The mandates that may be spoken of, those that changed last first."""
        return [mandate for mandate in self.mandates.values() if mandate.books.shared]

    async def opened(self, joining: Joining, keys: Iterable[tuple[int, Secret]]) -> None:
        """A ticket was accepted: the mandate opens here."""
        async with self._opening:  # two members may have let us in at the same time
            if joining.ticket.mandate not in self.mandates:
                books = await trio.to_thread.run_sync(self.home.joined, joining, tuple(keys))
                await self.open(books)
        self.end_joining(joining.ticket.invite, None)

    def begin_joining(self, joining: Joining) -> trio.Event:
        """Use a ticket from now on; the event is set when it was accepted or refused."""
        self.joinings[joining.ticket.invite] = joining
        self.refusals.pop(joining.ticket.invite, None)
        event = self.opened_invites[joining.ticket.invite] = trio.Event()
        self.members_changed()
        return event

    def end_joining(self, invite: InviteId, refusal: UserError | None) -> None:
        """A ticket is not in use any more."""
        self.joinings.pop(invite, None)
        self.home.end_joining(invite)
        if refusal is not None:
            self.refusals[invite] = refusal
        if invite in self.opened_invites:
            self.opened_invites.pop(invite).set()
        self.announce()

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
        """A link has found out whom it leads to; of two to the same device one stays.

        Raises:
            Superfluous: this one goes.
        """
        old = self.links.get(peer.device)
        if old is not None and old is not peer:
            together = peer.since - old.since < TOGETHER_S
            if (together and old.link.channel < peer.link.channel) or (not together and peer.link.initiator):
                raise Superfluous()
            self._nursery.start_soon(old.close, "another link is used")
        self.links[peer.device] = peer
        for mandate in self.shared_mandates():
            if peer.device in mandate.books.roster.members():
                self._note_met(mandate, peer)
        self.changed(None)

    def _note_met(self, mandate: Mandate, peer: Peer) -> None:
        with mandate.books.ledger.write() as db:
            addresses.met(db, peer.device, self.now_ms())
            if peer.dialled is not None:
                addresses.note(db, peer.device, *peer.dialled, self.now_ms())

    def unregister(self, peer: Peer) -> None:
        """A link is over."""
        self._bytes_before[0] += peer.link.bytes_in
        self._bytes_before[1] += peer.link.bytes_out
        if self.links.get(peer.device) is peer:
            del self.links[peer.device]
            for mandate in self.shared_mandates():
                if peer.device in mandate.books.roster.members():
                    self._note_met(mandate, peer)
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
        host, _ = self.config.listen
        hosts = [host] if host else [str(own.ip) for i in select(self.config.interfaces) for own in i.addresses if own.version == 4]
        packed = [socket.inet_pton(socket.AF_INET6 if ":" in h else socket.AF_INET, h) for h in hosts]
        return tuple(Hint(address, self.port) for address in packed if Hint.is_fit(address) and self.port)[:8]

    # ---- whoever watches

    def changed(self, mandate: MandateId | None) -> None:
        """Tell those who watch that the status may have changed."""
        for listener in list(self._listeners):
            try:
                listener.send_nowait(mandate)
            except trio.WouldBlock:
                continue
            except trio.BrokenResourceError:
                self._listeners.discard(listener)

    def watch(self) -> trio.MemoryReceiveChannel[MandateId | None]:
        """A channel that tells of changes; close it when done."""
        send, receive = trio.open_memory_channel[MandateId | None](64)
        self._listeners.add(send)
        return receive

    def state_folders(self) -> list[Path]:
        """Where p2psync keeps its own data."""
        return [self.config.home]


class Superfluous(UserError):
    """There is another link to that machine already."""
