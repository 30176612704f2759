"""The network of a simulated office: it delays, it is cut, it lets cables hang, and announcements come late, twice or not at all."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

import trio

from p2psync.edge.discovery import Announcement, Seen
from tests.lan.fake_lan import PORT, knock

if TYPE_CHECKING:
    from tests.sim.machine import Machine

ARP_S = 3.0
"""So long the neighbours are asked for an address before a system gives up."""
_BUFFER = 256 * 1024
"""Bytes that a system takes for a connection whose other side is silent."""


class Wire:
    """One connection: ``hung`` from when a cable is out (nothing arrives, nobody is told), ``over`` when a system ended it."""

    def __init__(self, net: Net, caller: str, host: str) -> None:
        self.net, self.caller, self.host = net, caller, host
        self.hung = self.over = False
        self.delay_s = net.delay_s()
        one, other = _End(self, host), _End(self, caller)
        one.other, other.other = other, one
        self.ends = (one, other)

    def reset(self) -> None:
        """Both sides are told at once."""
        self.over = True
        for end in self.ends:
            end.arrived.set()

    @property
    def hangs(self) -> bool:
        """Whether what is sent gets lost; for ever, once it has happened."""
        self.hung = self.hung or (bool(self.net.parted) and self.net.is_parted(self.caller, self.host))
        return self.hung


class _End(trio.abc.Stream):
    """One end of a wire. What is sent while it hangs is swallowed, up to what a system would buffer, and nothing arrives."""

    def __init__(self, wire: Wire, address: str) -> None:
        self.wire = wire
        self.peer_address = (address, PORT)
        self.other: _End
        self.arrived = trio.Event()
        self._data = bytearray()
        self._ended = self._closed = False
        self._swallowed = 0

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        if self.wire.delay_s:
            await trio.sleep(self.wire.delay_s)
        else:
            await trio.lowlevel.checkpoint()
        self._check()
        if self.wire.hangs:
            self._swallowed += len(data)
            if self._swallowed > _BUFFER:
                await trio.sleep_forever()
            return
        if self.other._closed:
            raise trio.BrokenResourceError("broken pipe")
        self.wire.net.sent += len(data)
        self.other._data += data
        self.other.arrived.set()

    def _check(self) -> None:
        if self._closed:
            raise trio.ClosedResourceError("this end was closed here")
        if self.wire.over:
            raise trio.BrokenResourceError("connection reset by peer")

    async def wait_send_all_might_not_block(self) -> None:
        await trio.lowlevel.checkpoint()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        self._check()
        if self._data or self._ended:
            await trio.lowlevel.checkpoint()
        while not (self._data or self._ended):
            self.arrived = trio.Event()
            await self.arrived.wait()
            self._check()
        if self.wire.hangs:
            await trio.sleep_forever()
        taken = bytes(self._data[:max_bytes])
        del self._data[: len(taken)]
        return taken

    async def aclose(self) -> None:
        if not self._closed:
            self._closed = True
            self.arrived.set()
            if not self.wire.hangs:  # else the other side does not hear of it
                self.other._ended = True
                self.other.arrived.set()
        await trio.lowlevel.checkpoint()


class Net:
    """The cables between machines. ``parted`` are pairs of addresses between which nothing goes."""

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance
        self.machines: dict[str, Machine] = {}
        self.wires: list[Wire] = []
        self.parted: set[frozenset[str]] = set()
        self.slow = False
        self.sent = 0

    def delay_s(self) -> float:
        """How long what is sent over a new wire takes, in s."""
        return self.chance.choice([0.0, 0.0, 0.001, 0.02, 0.5]) if self.slow else 0.0

    def is_parted(self, one: str, other: str) -> bool:
        """Whether nothing goes between two addresses now."""
        return frozenset((one, other)) in self.parted

    def part(self, one: str, other: str) -> None:
        """Pull a cable: connections hang."""
        self.parted.add(frozenset((one, other)))
        for wire in self.wires:
            _ = wire.hangs

    def mend(self) -> None:
        """Put all cables back; the connections that hung are found dead by their ends."""
        self.parted.clear()

    def reset(self, address: str) -> None:
        """All connections of a machine are reset, as when its process is gone."""
        for wire in self.wires:
            if address in (wire.caller, wire.host) and not wire.hangs:
                wire.reset()
        self.wires = [wire for wire in self.wires if address not in (wire.caller, wire.host)]

    def dial_from(self, caller: str) -> Callable[[str, int], Awaitable[trio.abc.Stream]]:
        """What a machine opens connections with."""

        async def open_stream(host: str, port: int) -> trio.abc.Stream:
            await trio.lowlevel.checkpoint()
            machine = self.machines.get(host)
            if machine is None or self.is_parted(caller, host) or machine.is_off:
                await trio.sleep(ARP_S)
                raise OSError("no route to host")
            wire = await knock(machine.door, lambda: Wire(self, caller, host))
            self.wires.append(wire)
            return wire.ends[0]

        return open_stream


class Announcer:
    """mDNS of one machine: what it announces reaches the others sooner or later, some of it twice, and old ones after new ones."""

    def __init__(self, net: Net, address: str, nursery: trio.Nursery) -> None:
        self.net, self.address, self._nursery = net, address, nursery
        self.problem = None
        self._count = 0
        self._seen: list[Seen] = []
        self._arrived = trio.Event()

    def announce(self, make: Callable[[], Announcement | None]) -> None:
        """Announce what ``make`` returns."""
        self._nursery.start_soon(self._announce, make)

    async def _announce(self, make: Callable[[], Announcement | None]) -> None:
        chance = self.net.chance
        await trio.sleep(chance.choice([0.0, 0.0, 0.1, 1.0]))
        made = make()
        if made is None:
            return
        self._count += 1
        seen = Seen(f"{self.address} {self._count} {chance.random()}", (self.address,), made.port, made.txt)
        for other in list(self.net.machines.values()):
            for _ in range(chance.choice([1, 1, 1, 2, 0])):
                self._nursery.start_soon(self._deliver, other.address, seen, chance.choice([0.0, 0.0, 0.2, 3.0]))

    async def _deliver(self, address: str, seen: Seen, delay_s: float) -> None:
        await trio.sleep(delay_s)
        other = self.net.machines[address].announcer
        if other is not None and address != self.address and not self.net.is_parted(address, self.address):
            other._seen.append(seen)
            other._arrived.set()

    async def seen(self) -> tuple[Seen, ...]:
        """What was heard since the last time."""
        await self._arrived.wait()
        self._arrived = trio.Event()
        heard, self._seen = tuple(self._seen), []
        return heard
