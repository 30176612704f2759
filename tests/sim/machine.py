"""One machine of a simulated office: a whole daemon on its own disk, its clock, its watcher and its cable; it can be killed at any step.

It is composed as daemon/run composes it, with the status socket and the operating system's watcher left out: requests go straight to
``Control``, and the watcher hears what the programs of ``people`` do, except when it is deaf.
"""

from __future__ import annotations

import os
import random
import sqlite3
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import trio

from p2psync.daemon import run
from p2psync.daemon.config import Config
from p2psync.daemon.control import Control
from p2psync.daemon.dialer import Dialer
from p2psync.daemon.mandate import Mandate
from p2psync.daemon.office import Office
from p2psync.edge.caller import Caller
from p2psync.edge.http import Reply, Request
from p2psync.store.home import Home
from p2psync.store.lock import HomeLock
from p2psync.store.witness import Witness
from p2psync.values.errors import UserError
from tests.lan.fake_lan import PORT, Door, FakeWatcher
from tests.sim import same
from tests.sim.disk import Disk, Killed, Traits
from tests.sim.net import Announcer, Net

RESTART_S = 3.0
"""After so long the service manager starts a daemon again that ended by itself."""


class Machine:
    """The machine of ``person`` at ``address``. ``office`` and ``control`` are there while its daemon runs."""

    def __init__(self, net: Net, place: Path, person: str, address: str, chance: random.Random, traits: Traits) -> None:
        self.net, self.person, self.address, self.chance = net, person, address, chance
        self.place = place / person
        self.files = self.place / "files"
        self.files.mkdir(parents=True)
        self.disk = Disk(self.place, chance, traits)
        self.disk.now_ns = self.now_ns
        self.disk.seconds = same.monotonic
        self.skew_ns = 0
        self.power_cuts = 0
        self.deaf = False
        self.door: Door | None = None
        self.announcer: Announcer | None = None
        self.watcher = FakeWatcher()
        self.office: Office
        self.control: Control
        self.is_off = True
        self.in_repair = trio.Lock()
        self._scope: trio.CancelScope | None = None
        self.started = trio.Event()
        self.ended = trio.Event()
        self.failures: list[str] = []
        net.machines[address] = self

    def now_ns(self) -> int:
        """The wall clock of this machine."""
        return same.true_ns() + self.skew_ns

    # ---- on and off

    async def live(self) -> None:
        """One life of the daemon, from its start until it is stopped or killed."""
        same.skew.set(lambda: self.skew_ns)
        same.boot.set(lambda: self.power_cuts)
        self.is_off = False
        self.watcher, self.door = FakeWatcher(), Door()
        self.started, self.ended = trio.Event(), trio.Event()
        try:
            with trio.CancelScope() as self._scope:
                await self._serve()
        except* Killed:
            self.net.reset(self.address)
        except* UserError as refused:  # it says so and ends; the service manager tries again
            self.failures.append(str(refused.exceptions))
        finally:
            self.door, self.announcer, self._scope = None, None, None
            self.is_off = True
            self.ended.set()

    async def _serve(self) -> None:
        state = self.place / "state"
        state.mkdir(mode=0o700, exist_ok=True)
        assert self.door is not None
        with HomeLock(state):
            home = Home(state, Office.now_ms, os.urandom, Witness(self.place / "witness", self.person.encode()))
            async with trio.open_nursery() as nursery:
                self.office = Office(self._config(state), home, self.watcher, nursery)  # type: ignore[arg-type]
                self.office.device_name = f"{self.person}-pc"
                self.office.port = PORT
                self.control = Control(self.office)
                self.announcer = Announcer(self.net, self.address, nursery)
                self.office.announce = partial(self.announcer.announce, partial(run._announcement, self.office))
                await run.open_mandates(self.office, home)
                nursery.start_soon(run.open_later, self.office, home)
                nursery.start_soon(run.route_changes, self.office, self.watcher)  # type: ignore[arg-type]
                nursery.start_soon(run.serve_peers, self.office, [self.door], nursery, trio.CancelScope())
                dialer = Dialer(self.office, self.announcer, self.net.dial_from(self.address))  # type: ignore[arg-type]
                nursery.start_soon(dialer.dial)
                nursery.start_soon(dialer.listen)
                self.office.announce()
                self.started.set()
                await trio.sleep_forever()

    async def stop(self) -> None:
        """Say goodbye and end, as on SIGTERM."""
        if self._scope is not None:
            self.office.stopping = True
            with trio.move_on_after(3):
                async with trio.open_nursery() as nursery:
                    for peer in list(self.office.links.values()):
                        nursery.start_soon(peer.close)
            if self._scope is not None:
                self._scope.cancel()
            await self.ended.wait()

    def _config(self, state: Path) -> Config:
        return Config(state, state / "socket", (None, PORT), (self.address,), (), True, self.place / "mandates")

    # ---- the person in front of it

    async def ask(self, method: str, path: str, *, body: dict[str, object] | None = None, **more: object) -> dict[str, Any]:
        """One request to the status socket; what it answers, or ``{"refused": sentence}``."""
        caller = Caller(os.getuid(), os.getgid(), os.getpid(), self.person)
        clock = same.skew.set(lambda: self.skew_ns)  # whatever the daemon begins on our behalf goes by its clock
        try:
            reply = await self.control.handle(Request(method, path, {}, {**(body or {}), **more}, caller))
        except UserError as error:
            return {"refused": str(error)}
        except Killed:  # in the middle of what it was asked to do: nobody answers, and its other tasks are gone as well
            self.net.reset(self.address)
            if self._scope is not None:
                self._scope.cancel()
            return {"refused": "the daemon has ended"}
        except sqlite3.ProgrammingError:
            if self.mandate is not None:
                raise
            return {"refused": "the daemon is about to end"}  # whoever asks at that moment gets no answer
        finally:
            same.skew.reset(clock)
        assert isinstance(reply, Reply) and isinstance(reply.body, dict)
        return dict(reply.body)

    @property
    def mandate(self) -> Mandate | None:
        """The one mandate, when it is open here, in a daemon that lives."""
        found = list(self.office.mandates.values()) if not self.is_off and not self.disk.dead and self.started.is_set() else []
        return found[0] if found else None

    def locations(self) -> dict[str, Path]:
        """Where each attachment lies here, by its name; as the ledger says, and empty while the daemon is off."""
        mandate = self.mandate
        return {} if mandate is None else {name.text: place.path for name, place in mandate.books.locations().items()}

    def hear(self, path: Path, kind: str) -> None:
        """The operating system tells the watcher that something happened to ``path``."""
        if not self.deaf:
            with suppress(AttributeError):
                self.watcher.hear(path, kind)
