"""Find the other machines of the local network, and be found: a hint for whom to dial, never more.

``Discovery`` keeps a responder (mDNS) on the interfaces that were chosen, moves it when they change, and gives the announcement a new
nonce and new names when the network changes and every hour, so that a laptop is not followed from one place to the next by them.
What goes wrong is a ``problem`` for the status to show; sessions do not depend on any of this.
"""

import random
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import trio

from p2psync.edge.bridge import Bridge
from p2psync.edge.interfaces import Interface, NetworkWatch, select
from p2psync.edge.responder import MAX_PEERS, Responder, Seen
from p2psync.values.errors import UserError

__all__ = ["Announcement", "CannotDiscover", "Discovery", "NoNetwork", "Seen"]

_RENEW_S = 3600.0
_REPEAT_S = 100.0
"""Less than the 120 s after which others forget us."""

_RETRY_S = 30.0
_PAUSE_S = 1.0
"""Between two new announcements at least: a burst of acts makes one."""

_GOODBYE_S = 3.0
"""A stop waits no longer for the goodbye."""


class NoNetwork(UserError):
    """This machine is on no network{which}, so it finds no other machine and none finds it. Connect it; p2psync goes on by itself."""


class CannotDiscover(UserError):
    """Machines on the network are not found by themselves, because mDNS does not work here: {why}.
    Those whose address is known are reached all the same; “p2psync run --peer HOST:PORT” makes one known.
    """


@dataclass(frozen=True, slots=True)
class Announcement:
    """What to announce: the raw TXT record (engine/beacon) and the port on which we listen."""

    txt: bytes
    port: int


class Discovery:
    """mDNS on the interfaces of these ``names`` (None: every real LAN interface); made in trio, served by ``run``.

    ``problem`` says why it does not work at the moment, or is None. ``interfaces`` are those in use.
    """

    def __init__(self, names: tuple[str, ...] | None, *, nonce: Callable[[int], bytes] = secrets.token_bytes) -> None:
        self.problem: UserError | None = None
        self.interfaces: tuple[Interface, ...] = ()
        self._names = names
        self._nonce = nonce
        self._seen: Bridge[Seen] = Bridge(MAX_PEERS)
        self._make: Callable[[], Announcement | None] | None = None
        self._responder: Responder | None = None
        self._wake = trio.Event()
        self._network_changed = False
        self._stale = False
        self._renew_at = 0.0
        self._scope: trio.CancelScope | None = None

    @property
    def instance(self) -> str | None:
        """The name under which this machine is announced at the moment, or None."""
        return self._responder.instance if self._responder is not None else None

    def announce(self, make: Callable[[], Announcement | None]) -> None:
        """Announce what ``make`` returns, now and with every renewal; None announces nothing. Returns at once; call it again after changes.

        ``make`` is called in trio, with a new nonce to be put in each time.
        """
        self._make = make
        self._stale = True
        self._wake.set()

    async def seen(self) -> tuple[Seen, ...]:
        """What was heard since the last time, without repetition and without our own; waits for at least one. For one task."""
        return (await self._seen.drain()).items

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Keep discovery going until it is cancelled or ``stop`` is called; says goodbye then, for at most three seconds.

        Started at once: the network may take its time.
        """
        with trio.CancelScope() as self._scope, NetworkWatch() as network:
            try:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._notice, network)
                    task_status.started()
                    await self._keep()
            finally:
                await self._close()

    def stop(self) -> None:
        """Let ``run`` say goodbye and return."""
        if self._scope is not None:
            self._scope.cancel()

    async def _notice(self, network: NetworkWatch) -> None:
        while True:
            await network.changed()
            self._network_changed = True
            self._wake.set()

    async def _keep(self) -> None:
        while True:
            self._wake = trio.Event()
            try:
                await self._follow()
                await self._speak()
            except OSError as e:
                self.problem = CannotDiscover(why=e.strerror or str(e))
                await self._close()
            with trio.move_on_after(_RETRY_S if self.problem else _REPEAT_S):
                await self._wake.wait()

    async def _follow(self) -> None:
        """Have the responder where the interfaces are."""
        before, self.interfaces = self.interfaces, tuple(select(self._names))
        changed = _addresses(before) != _addresses(self.interfaces)
        moved, self._network_changed = self._network_changed or changed, False
        self._stale |= changed
        if not self.interfaces:
            self.problem = NoNetwork(which=f" by {', '.join(self._names)}" if self._names else "")
            await self._close()
        elif self._responder is None:
            self._responder = await trio.to_thread.run_sync(Responder, self.interfaces, self._seen.put)
            self._stale = True
        elif moved:
            if changed:  # the old names are not carried to another network, not even by a goodbye
                await self._ask(self._responder.withdraw, _addresses(before) <= _addresses(self.interfaces))
            await self._ask(self._responder.move, self.interfaces)

    async def _speak(self) -> None:
        """Announce anew when that is due, else repeat."""
        if self._responder is None:
            return
        if not self._responder.alive:
            raise OSError("no interface takes multicast packets")
        self.problem = None
        if not self._stale and trio.current_time() < self._renew_at:
            await self._ask(self._responder.repeat)
        elif self._make is not None:
            self._stale = False
            self._renew_at = trio.current_time() + _RENEW_S * random.uniform(0.9, 1.1)
            if (wanted := self._make()) is None:
                await self._ask(self._responder.withdraw, True)
            else:
                await self._ask(self._responder.announce, wanted.txt, wanted.port, self._nonce(4).hex(), self._nonce(8).hex())
            await trio.sleep(_PAUSE_S)

    async def _ask(self, work: Callable[..., None], *args: object) -> None:
        await trio.to_thread.run_sync(partial(work, *args))

    async def _close(self) -> None:
        responder, self._responder = self._responder, None
        if responder is not None:
            with trio.CancelScope(shield=True, deadline=trio.current_time() + _GOODBYE_S):
                await trio.to_thread.run_sync(responder.close, abandon_on_cancel=True)


def _addresses(interfaces: tuple[Interface, ...]) -> set[tuple[str, object]]:
    return {(interface.name, address) for interface in interfaces for address in interface.addresses}
