"""The network of a simulated office: it delays, it is cut, it lets cables hang, and announcements come late, twice or not at all."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import trio
import trio.testing

from p2psync.edge.discovery import Announcement, Seen
from tests.lan.fake_lan import End

if TYPE_CHECKING:
    from tests.sim.machine import Machine

ARP_S = 3.0
"""So long the neighbours are asked for an address before a system gives up."""


class Wire:
    """One connection: ``hung`` from when a cable is out (nothing arrives, nobody is told), ``reset`` when a system ends it."""

    def __init__(self, net: Net, caller: str, host: str) -> None:
        self.net, self.caller, self.host = net, caller, host
        ends = trio.testing.memory_stream_pair()
        self.hung = self.over = False
        self.delay_s = net.delay_s()
        self.ends = (_End(self, ends[0], host), _End(self, ends[1], caller))

    def reset(self) -> None:
        """Both sides are told at once."""
        self.over = True
        for end in self.ends:
            end.inner.send_stream.close()
            end.inner.receive_stream.close()

    @property
    def hangs(self) -> bool:
        """Whether what is sent gets lost; for ever, once it has happened."""
        self.hung = self.hung or self.net.is_parted(self.caller, self.host)
        return self.hung


class _End(End):
    def __init__(self, wire: Wire, inner: Any, other: str) -> None:
        super().__init__(inner, other)
        self.wire = wire
        self._closed = False

    @property
    def hangs(self) -> bool:
        """Whether the cable is out, or was since this wire began."""
        return self.wire.hangs

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await trio.sleep(self.wire.delay_s)
        if not self.hangs:
            self.wire.net.sent += len(data)
        with self._told_of_reset():
            await super().send_all(data)

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        with self._told_of_reset():
            return await super().receive_some(max_bytes)

    @contextmanager
    def _told_of_reset(self) -> Iterator[None]:
        try:
            yield
        except trio.ClosedResourceError:
            if self.wire.over and not self._closed:
                raise trio.BrokenResourceError("connection reset by peer") from None
            raise

    async def aclose(self) -> None:
        self._closed = True
        await super().aclose()


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
            if machine.door is None:
                raise OSError("connection refused")
            wire = Wire(self, caller, host)
            try:
                await machine.door.arrive.send(wire.ends[1])
            except trio.BrokenResourceError:
                raise OSError("connection refused") from None
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
