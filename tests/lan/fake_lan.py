"""A network that is none: whole machines in one trio run, with real books on a real disk, and wires between them that a test can pull.

A ``Lan`` knows machines by their addresses (10.0.0.1, 10.0.0.2, …) and hands a caller one end of a stream and the machine that is called
the other one. A ``Machine`` is composed of the parts that daemon/run composes, mDNS and the status socket left out: requests go to its
``Control``, and what the operating system's watcher would tell it is told with ``saved``.

With ``no_threads`` all blocking work is done at once by the task that asks for it. Together with trio's ``autojump_clock`` a minute
costs nothing then, and the order in which things happen depends on the code alone.
"""

from __future__ import annotations

import contextlib
import getpass
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from ipaddress import ip_interface
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from p2psync.daemon import office as office_module
from p2psync.daemon import run
from p2psync.daemon.config import Config
from p2psync.daemon.control import Control
from p2psync.daemon.dialer import Dialer
from p2psync.daemon.mandate import Mandate
from p2psync.daemon.office import Office
from p2psync.daemon.peer import Peer
from p2psync.edge.caller import Caller
from p2psync.edge.http import Reply, Request
from p2psync.edge.interfaces import Interface
from p2psync.edge.watcher import Changes, Watch
from p2psync.store.home import Home
from p2psync.store.witness import Witness
from p2psync.values.errors import UserError

PORT = 22088
PATIENCE_S = 300.0
"""Seconds of the run's own clock that ``until`` waits."""


def no_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Do blocking work where it is asked for."""
    monkeypatch.setattr(trio.to_thread, "run_sync", in_place)


async def in_place(work: Callable[..., Any], *args: object, **_: object) -> Any:
    """Blocking work that is done by the task that asks for it, between two checkpoints."""
    await trio.lowlevel.checkpoint()
    result = work(*args)
    await trio.lowlevel.cancel_shielded_checkpoint()
    return result


class FakeWatcher:
    """A watcher that hears what it is told. ``watched`` are the folders that somebody wants to hear of."""

    def __init__(self) -> None:
        self.problem: UserError | None = None
        self.watched: list[Watch] = []
        self._heard: list[tuple[str, Path]] = []
        self._arrived = trio.Event()

    async def watch(self, folder: Path, *, recursive: bool, only: Any = None) -> Watch:
        await trio.lowlevel.checkpoint()
        watch = Watch(folder, recursive, None if only is None else frozenset(only), None)
        self.watched.append(watch)
        return watch

    async def unwatch(self, watch: Watch) -> None:
        await trio.lowlevel.checkpoint()
        self.watched = [one for one in self.watched if one is not watch]

    def hear(self, path: Path, kind: str = "closed") -> None:
        """Something happened to ``path``: ``closed`` after writing, or ``touched``. Nobody hears it who does not watch there."""
        if any(_covers(watch, path) for watch in self.watched):
            self._heard.append((kind, path))
            self._arrived.set()

    def doubt(self, folder: Path) -> None:
        """Something was missed below a folder."""
        self._heard.append(("doubt", folder))
        self._arrived.set()

    def fail(self, problem: UserError) -> None:
        """Not everything can be watched any more."""
        self.problem = problem
        self._heard.append(("refused", Path()))
        self._arrived.set()

    async def changes(self) -> Changes:
        await self._arrived.wait()
        self._arrived = trio.Event()
        heard, self._heard = self._heard, []
        of = {kind: frozenset(path for k, path in heard if k == kind) for kind in ("touched", "closed", "doubt")}
        return Changes(of["touched"] - of["closed"], of["closed"], of["doubt"], any(k == "refused" for k, _ in heard))


def _covers(watch: Watch, path: Path) -> bool:
    if watch.recursive:
        return watch.folder in path.parents
    return path.parent == watch.folder and (watch.only is None or path.name in watch.only)


class Wire:
    """One connection between two machines, which can be ``stall``-ed (nothing arrives, nobody is told) or ``cut`` (both are told)."""

    def __init__(self, lan: Lan, caller: str, host: str) -> None:
        self.caller, self.host = caller, host
        ends = trio.testing.memory_stream_pair()
        self.ends = tuple(_End(lan, self, *one) for one in zip(ends, (host, caller), (caller, host), strict=True))
        self.cut_off = False

    def stall(self) -> None:
        """As when somebody pulls the cable."""
        self.cut_off = True

    async def cut(self) -> None:
        """As when one of the systems resets the connection."""
        for end in self.ends:
            await end.inner.aclose()


class End(trio.abc.HalfCloseableStream):
    """One end of a stream; what is sent while it ``hangs`` is swallowed, up to what a system would buffer, and nothing arrives."""

    _BUFFER = 256 * 1024

    def __init__(self, inner: Any, other: str) -> None:
        self.inner = inner
        self.peer_address = (other, PORT)
        self._swallowed = 0

    @property
    def hangs(self) -> bool:
        """Whether the cable is out."""
        raise NotImplementedError

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        if not self.hangs:
            await self.inner.send_all(data)
            return
        await trio.lowlevel.checkpoint()
        self._swallowed += len(data)
        if self._swallowed > self._BUFFER:
            await trio.sleep_forever()

    async def wait_send_all_might_not_block(self) -> None:
        await trio.lowlevel.checkpoint()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        data: bytes = await self.inner.receive_some(max_bytes)
        if self.hangs:
            await trio.sleep_forever()
        return data

    async def send_eof(self) -> None:
        await self.inner.send_eof()

    async def aclose(self) -> None:
        if self.hangs:  # the other side does not hear of it
            self.inner.receive_stream.close()
            await trio.lowlevel.checkpoint()
        else:
            await self.inner.aclose()


class _End(End):
    """One end of a wire."""

    def __init__(self, lan: Lan, wire: Wire, inner: Any, other: str, own: str) -> None:
        super().__init__(inner, other)
        self.lan, self.wire, self.own = lan, wire, own
        self.sent = 0

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        if not self.hangs:
            self.sent += len(data)
        if rate := self.lan.uplinks.get(self.own):
            async with self.lan.sending.setdefault(self.own, trio.StrictFIFOLock()):
                await trio.sleep(len(data) / rate)
        await super().send_all(data)

    @property
    def hangs(self) -> bool:
        """Whether the cable is out, or was since this wire began."""
        return self.wire.cut_off or bool({self.own, self.peer_address[0]} & self.lan.unplugged)


class Door(trio.abc.Listener[Any]):
    """Where connections to one machine arrive."""

    def __init__(self) -> None:
        self.arrive, self._arrived = trio.open_memory_channel[Any](100)

    async def accept(self) -> Any:
        return await self._arrived.receive()

    async def aclose(self) -> None:
        self._arrived.close()
        await trio.lowlevel.checkpoint()


class Lan:
    """The network. ``unplugged`` are the addresses of machines whose cable is out; ``blocked`` are (caller, host) that a firewall stops;
    ``uplinks`` are the bytes a second that a machine can send, where that is limited.
    """

    def __init__(self, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.place = place
        self.machines: dict[str, Machine] = {}
        self.wires: list[Wire] = []
        self.unplugged: set[str] = set()
        self.blocked: set[tuple[str, str]] = set()
        self.uplinks: dict[str, float] = {}
        self.sending: dict[str, trio.StrictFIFOLock] = {}
        monkeypatch.setattr(office_module, "select", lambda names: [interface(names[0])])

    def machine(self, person: str, *, peers: tuple[Machine, ...] = ()) -> Machine:
        """A machine that is off; it finds ``peers`` by itself."""
        machine = Machine(self, person, f"10.0.0.{len(self.machines) + 1}", peers)
        self.machines[machine.address] = machine
        return machine

    def dial_from(self, caller: str) -> Callable[[str, int], Awaitable[trio.abc.Stream]]:
        """What a machine opens connections with."""

        async def open_stream(host: str, port: int) -> trio.abc.Stream:
            await trio.lowlevel.checkpoint()
            machine = self.machines.get(host)
            if machine is None or {caller, host} & self.unplugged or (caller, host) in self.blocked:
                await trio.sleep(3)  # so long the neighbours are asked for an address before the system gives up
                raise OSError("no route to host")
            wire = await knock(machine.door, lambda: Wire(self, caller, host))
            self.wires.append(wire)
            return wire.ends[0]

        return open_stream


async def knock(door: Door | None, lay: Callable[[], Any]) -> Any:
    """A wire, made by ``lay``, whose far end went through the door. Raises: OSError, where nobody listens."""
    if door is None:
        raise OSError("connection refused")
    wire = lay()
    try:
        await door.arrive.send(wire.ends[1])
    except trio.BrokenResourceError:
        raise OSError("connection refused") from None
    return wire


def interface(address: str) -> Interface:
    """The one network interface of the machine at this address."""
    return Interface("fake0", 1, (ip_interface(f"{address}/24"),))


class Machine:
    """One person's machine. Its files are below ``place``; ``office`` and ``control`` are there while it is ``on``."""

    def __init__(self, lan: Lan, person: str, address: str, peers: tuple[Machine, ...]) -> None:
        self.lan, self.person, self.address = lan, person, address
        self.place = lan.place / person
        self.place.mkdir(parents=True)
        self.peers = peers
        self.witness: Witness | None = None
        self.door: Door | None = None
        self.watcher = FakeWatcher()
        self.office: Office
        self.control: Control
        self.scope: trio.CancelScope | None = None
        self.ended = trio.Event()

    # ---- on and off

    @asynccontextmanager
    async def on(self) -> AsyncIterator[Machine]:
        """The machine is on within the block, and stops at its end as a daemon does."""
        async with trio.open_nursery() as nursery:
            await nursery.start(self.run)
            yield self
            await self.stop()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Be on until ``stop`` or ``kill``."""
        self.watcher, self.door, self.ended = FakeWatcher(), Door(), trio.Event()
        home = Home(self.place / "state", Office.now_ms, witness=self.witness)
        try:
            async with trio.open_nursery() as nursery:
                self.scope = nursery.cancel_scope
                self.office = Office(self._config(), home, self.watcher, nursery)  # type: ignore[arg-type]
                self.office.port = PORT
                self.control = Control(self.office)
                await run.open_mandates(self.office, home)
                nursery.start_soon(run.open_later, self.office, home)
                nursery.start_soon(run.route_changes, self.office, self.watcher)  # type: ignore[arg-type, unused-ignore]
                nursery.start_soon(run.serve_peers, self.office, [self.door], nursery, trio.CancelScope())
                self.dialer = Dialer(self.office, None, self.lan.dial_from(self.address))
                nursery.start_soon(self.dialer.dial)
                task_status.started()
                await trio.sleep_forever()
        finally:
            self.door = None
            self.ended.set()

    async def stop(self) -> None:
        """Say goodbye and end."""
        self.office.stopping = True
        with trio.move_on_after(3):
            async with trio.open_nursery() as nursery:
                for peer in list(self.office.links.values()):
                    nursery.start_soon(peer.close)
        await self._end()

    async def kill(self) -> None:
        """End as a process does that is killed: its connections are reset by the system, nobody is told a word."""
        for wire in self.lan.wires:
            if self.address in (wire.caller, wire.host):
                await wire.cut()
        await self._end()

    async def _end(self) -> None:
        assert self.scope is not None
        self.scope.cancel()
        await self.ended.wait()

    def unplug(self) -> None:
        """Pull the cable."""
        self.lan.unplugged.add(self.address)

    def plug(self) -> None:
        """Put the cable back; what was on its way is lost."""
        for wire in self.lan.wires:
            wire.cut_off = wire.cut_off or self.address in (wire.caller, wire.host)
        self.lan.unplugged.discard(self.address)

    def _config(self) -> Config:
        peers = tuple((peer.address, PORT) for peer in self.peers)
        state = self.place / "state"
        return Config(state, state / "socket", (None, PORT), (self.address,), peers, False, self.place)

    # ---- the person

    async def ask(self, path: str, **body: object) -> dict[str, Any]:
        """POST to the status socket."""
        caller = Caller(os.getuid(), os.getgid(), os.getpid(), getpass.getuser())
        reply = await self.control.handle(Request("POST", path, {}, body, caller))
        assert isinstance(reply, Reply) and isinstance(reply.body, dict)
        return dict(reply.body)

    async def status(self) -> dict[str, Any]:
        """GET the status."""
        return await self.get("/v1/status")

    async def get(self, path: str, **query: str) -> dict[str, Any]:
        """GET something else."""
        caller = Caller(os.getuid(), os.getgid(), os.getpid(), getpass.getuser())
        reply = await self.control.handle(Request("GET", path, query, {}, caller))
        assert isinstance(reply, Reply) and isinstance(reply.body, dict)
        return dict(reply.body)

    async def create(self, name: str, *files: Path) -> None:
        """Found a mandate and share it."""
        await self.ask("/v1/create", name=name, paths=[str(path) for path in files], **{"as": self.person})
        await self.ask("/v1/share", mandate=name)

    async def invite(self, name: str, person: str) -> str:
        """A ticket's text."""
        ticket = await self.ask("/v1/invite", mandate=name, **{"for": person})
        return str(ticket["ticket"])

    async def subscribe(self, ticket: str) -> None:
        """Use a ticket."""
        await self.ask("/v1/subscribe", text=ticket)

    async def wait(self, timeout_s: float = 60, name: str | None = None) -> dict[str, Any]:
        """Wait until all agree."""
        return await self.ask("/v1/wait", timeout_s=timeout_s, **({"mandate": name} if name else {}))

    def write(self, path: str | Path, data: str) -> Path:
        """Save a file as a program does, below ``place``, and have the watcher notice."""
        where = self.place / path
        where.parent.mkdir(parents=True, exist_ok=True)
        where.write_text(data)
        self.watcher.hear(where)
        return where

    def reads(self, path: str | Path) -> str | None:
        """What stands in a file below ``place``."""
        with contextlib.suppress(FileNotFoundError):
            return (self.place / path).read_text()
        return None

    # ---- inside

    def mandate(self, name: str = "") -> Mandate:
        """The mandate of that name, or the only one."""
        (found,) = [m for m in self.office.mandates.values() if not name or m.books.name == name]
        return found

    def sees(self, other: Machine) -> Peer | None:
        """The link to another machine, if there is one."""
        return self.office.links.get(other.office.device)

    def talks(self, other: Machine, name: str = "") -> bool:
        """Whether the two talk about the mandate."""
        found = [m for m in self.office.mandates.values() if not name or m.books.name == name]
        return bool(found) and all(other.office.device in {c.device for c in m.conversations} for m in found)


async def until(holds: Callable[[], object], what: str = "") -> None:
    """Wait until something holds, by the run's own clock."""
    with trio.move_on_after(PATIENCE_S):
        while not holds():
            await trio.sleep(0.05)
        return
    raise AssertionError(f"it is still not so after {PATIENCE_S:.0f} s: {what}")


@contextlib.contextmanager
def noting(owner: type, name: str) -> Iterator[list[Any]]:
    """The arguments of each call of a method within the block, which works as before."""
    calls: list[Any] = []
    before = getattr(owner, name)

    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        calls.append(args)
        return before(self, *args, **kwargs)

    setattr(owner, name, method)
    try:
        yield calls
    finally:
        setattr(owner, name, before)
