"""A member of ours that does as it is told: it has a place in the membership and keys, and says whatever a test wants it to say."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import trio

from p2psync.edge.link import Link, LinkClosed, connect
from p2psync.engine import messages as m
from p2psync.engine.encoding import Message
from p2psync.store.books import Books
from p2psync.store.home import Home
from p2psync.values.digest import blake2b
from p2psync.values.keys import GroupKeys
from tests.lan.fake_lan import Lan, Machine

HANDLE = 7


class Puppet:
    """Uses the state of ``machine``, which took part and is off now. ``heard`` are the messages that came, in order."""

    def __init__(self, lan: Lan, machine: Machine) -> None:
        self.lan, self.address = lan, machine.address
        self.home = Home(machine.place / "state", lambda: 1_800_000_000_000)
        (state,) = self.home.mandates()
        self.books: Books = self.home.open(state)
        self.heard: list[Message] = []
        self.link: Link
        self.over: LinkClosed | None = None

    @asynccontextmanager
    async def calling(self, host: Machine, *, opened: bool = True) -> AsyncIterator[Puppet]:
        """Linked to ``host`` within the block; both have ``opened`` the mandate, if that is wanted."""
        self.heard, self.over = [], None
        stream = await self.lan.dial_from(self.address)(host.address, 22088)
        self.link = await connect(stream, self.home.keys, host.mandate().gate(), nonce=os.urandom)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.link.keep_alive)
            nursery.start_soon(self._listen)
            if opened:
                await self.greet()
            yield self
            nursery.cancel_scope.cancel()

    async def _listen(self) -> None:
        try:
            while True:
                self.heard.append(await self.link.receive())
        except LinkClosed as over:
            self.over = over

    async def greet(self) -> None:
        """Say hello and open the mandate."""
        await self.say(m.Hello(1, 1, 0, 0, b"", "puppet"))
        await self.hears(m.Hello)
        token = blake2b(self.link.channel + b"\1", b"p2psync1-session", key=self._keys().session, size=16)
        await self.say(m.Open(HANDLE, token))
        await self.hears(m.Open)

    def _keys(self) -> GroupKeys:
        return GroupKeys.of(self.books.secret.group[-1][1], self.books.mandate)

    async def say(self, message: Message) -> None:
        await self.link.send(message)

    async def hears(self, kind: type[Message], holds: Callable[[Any], bool] = lambda message: True) -> Any:
        """The first message of this kind for which something holds, once it has come."""
        while True:
            found = next((message for message in self.heard if isinstance(message, kind) and holds(message)), None)
            if found is not None:
                return found
            if self.over is not None:
                raise self.over
            await trio.sleep(0.01)

    async def is_left(self) -> m.CloseCode | None:
        """The code with which the other side said goodbye, once it has."""
        while self.over is None:
            await trio.sleep(0.01)
        return m.CloseCode(self.over.said.code) if self.over.said else None

    def count(self, kind: type[Message]) -> int:
        return sum(isinstance(message, kind) for message in self.heard)

    def close(self) -> None:
        self.books.close()
