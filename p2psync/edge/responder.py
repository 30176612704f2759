"""mDNS by python-zeroconf, which is given a thread of its own: announce this machine, hear the others. Calls block, for a bounded time.

Three things are not as the library has them by default. Names are random, so that nothing is probed for before it is announced
(RFC 6762 §8.1 would cost 1.2 s) and the name of the computer stays at home. Only packets that arrive on the chosen interfaces are heard.
And what is heard is bounded: in bytes, in announcements a second and in machines remembered.
"""

import asyncio
import contextlib
import logging
import random
import socket
import sys
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Coroutine, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, TypeVar

import zeroconf
from zeroconf.asyncio import AsyncServiceBrowser, AsyncZeroconf

from p2psync.edge.interfaces import Interface, reachable

SERVICE = "_p2psync._tcp.local."

TTL_S = 120
"""How long others may remember us; after a crash our records are gone that soon."""

MAX_PEERS = 512
"""Announcements remembered, the latest ones: what repeats itself is told once."""

MAX_A_SECOND = 200
"""Announcements processed; each may cost a fifth of a millisecond to recognise."""

MAX_TXT = 1300
MAX_ADDRESSES = 8

_LOOK_AGAIN_S = 5.0
_PATIENCE_S = 3.0
_INSTANCE_END = "." + SERVICE

_IP_MULTICAST_ALL = 49
_IPV6_MULTICAST_ALL = 29

_log = logging.getLogger(__name__)

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Seen:
    """An announcement of another machine, or of another daemon on this one: a hint, which anybody can forge.

    ``addresses`` are directly connected ones, ready to be dialled; ``txt`` is the raw TXT record.
    """

    instance: str
    addresses: tuple[str, ...]
    port: int
    txt: bytes


@dataclass(frozen=True)
class _Announced:
    info: zeroconf.ServiceInfo
    repeating: "asyncio.Future[Any]"


class Responder:
    """One mDNS responder and browser on these ``interfaces``. ``heard`` is called in its thread and must not fail.

    Raises:
        OSError: from the constructor and every method but ``close``: the network does not let us. Close the responder then.
    """

    def __init__(self, interfaces: Sequence[Interface], heard: Callable[[Seen], None]) -> None:
        self._interfaces = tuple(interfaces)
        self._heard = heard
        self._mine: _Announced | None = None
        self._own: deque[str] = deque(maxlen=64)
        self._told: OrderedDict[str, Seen] = OrderedDict()
        self._second, self._count = 0, 0
        self._later: asyncio.TimerHandle | None = None
        started: Future[None] = Future()
        self._thread = threading.Thread(target=self._serve, args=[started], name="mDNS", daemon=True)
        self._thread.start()
        with _only_os_errors():
            try:
                started.result(_PATIENCE_S)
            finally:
                started.cancel()  # who starts too late ends at once

    @property
    def alive(self) -> bool:
        """Its thread runs, and at least one interface takes what we say."""
        return self._thread.is_alive() and bool(self._zeroconf.engine.senders)

    @property
    def instance(self) -> str | None:
        """The name that is announced, or None."""
        mine = self._mine
        return mine.info.name.removesuffix(_INSTANCE_END) if mine else None

    def announce(self, txt: bytes, port: int, instance: str, host: str) -> None:
        """Say that this machine listens on ``port``, under new names; what was announced before is taken back afterwards."""
        info = zeroconf.ServiceInfo(
            SERVICE,
            f"{instance}{_INSTANCE_END}",
            port=port,
            properties=txt,
            server=f"{host}.local.",  # the library would take the name of the instance, others take that of the computer
            host_ttl=TTL_S,
            other_ttl=TTL_S,
            parsed_addresses=[address for interface in self._interfaces for address in interface.announced],
        )
        self._run(self._announce(info))

    def repeat(self) -> None:
        """Say again what was announced, for those who missed it and before it is forgotten."""
        self._run(self._repeat())

    def withdraw(self, goodbye: bool) -> None:
        """Announce nothing any more; with ``goodbye`` others forget us at once, without it nothing is sent."""
        self._run(self._withdraw(goodbye))

    def move(self, interfaces: Sequence[Interface]) -> None:
        """Listen and speak on these interfaces from now on."""
        self._interfaces = tuple(interfaces)
        self._run(self._move(*_choice(interfaces)))

    def close(self) -> None:
        """Say goodbye and end the thread; takes about a quarter of a second."""
        with contextlib.suppress(RuntimeError):  # it has ended already
            self._loop.call_soon_threadsafe(self._ended.set)
        self._thread.join(2 * _PATIENCE_S)

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        """Have the thread do this."""
        if not self._thread.is_alive():
            work.close()
            raise OSError("the mDNS thread has ended")
        with _only_os_errors():
            return asyncio.run_coroutine_threadsafe(asyncio.wait_for(work, _PATIENCE_S), self._loop).result(2 * _PATIENCE_S)

    # What follows runs in the responder's thread.

    def _serve(self, started: "Future[None]") -> None:
        try:
            asyncio.run(self._live(started))
        except Exception as e:
            if started.done():
                _log.warning("mDNS ended: %s", e)
            else:
                started.set_exception(e)

    async def _live(self, started: "Future[None]") -> None:
        self._loop = asyncio.get_running_loop()
        self._ended = asyncio.Event()
        addresses, version = _choice(self._interfaces)
        library = AsyncZeroconf(interfaces=addresses, ip_version=version)
        self._zeroconf = library.zeroconf
        try:
            await self._zeroconf.async_wait_for_start(_PATIENCE_S)
            self._keep_to_interfaces()
            # Answers are asked for by multicast: by unicast they could reach any program that shares port 5353 on this machine.
            by_multicast = zeroconf.DNSQuestionType.QM
            browser = AsyncServiceBrowser(self._zeroconf, SERVICE, handlers=[self._changed], question_type=by_multicast)
            started.set_result(None)
            await self._ended.wait()
            await browser.async_cancel()
        finally:
            if self._mine:
                self._mine.repeating.cancel()
            await library.async_close()

    async def _announce(self, info: zeroconf.ServiceInfo) -> None:
        self._own.append(info.name)
        repeating = await self._zeroconf.async_register_service(info, cooperating_responders=True)
        old, self._mine = self._mine, _Announced(info, asyncio.ensure_future(repeating))
        await self._take_back(old, True)

    async def _repeat(self) -> None:
        if self._mine:
            self._zeroconf.async_send(self._zeroconf.generate_service_broadcast(self._mine.info, None))

    async def _withdraw(self, goodbye: bool) -> None:
        old, self._mine = self._mine, None
        await self._take_back(old, goodbye)

    async def _take_back(self, old: _Announced | None, goodbye: bool) -> None:
        if old is None:
            return
        old.repeating.cancel()  # the library would otherwise announce it once more after its goodbye
        if goodbye:
            await self._zeroconf.async_unregister_service(old.info)
        else:
            self._zeroconf.registry.async_remove(old.info)

    async def _move(self, addresses: list[str], version: zeroconf.IPVersion) -> None:
        await self._zeroconf.async_update_interfaces(addresses, version)
        self._keep_to_interfaces()

    def _keep_to_interfaces(self) -> None:
        """Linux gives a socket what any program of the machine has joined, on any interface, unless it is told not to (ip(7))."""
        for reader in self._zeroconf.engine.readers if sys.platform == "linux" else ():
            with contextlib.suppress(OSError):
                reader.sock.setsockopt(socket.IPPROTO_IP, _IP_MULTICAST_ALL, 0)
            if reader.is_ipv6:
                reader.sock.setsockopt(socket.IPPROTO_IPV6, _IPV6_MULTICAST_ALL, 0)

    def _changed(self, name: str, state_change: zeroconf.ServiceStateChange, **_: object) -> None:
        if state_change is zeroconf.ServiceStateChange.Removed:
            self._told.pop(name, None)  # whether a machine is there is the business of its link; only let it be told again
        elif self._is_instance(name) and self._within_budget():
            self._tell(name)

    def _is_instance(self, name: str) -> bool:
        label = name.removesuffix(_INSTANCE_END)
        return len(label) == len(name) - len(_INSTANCE_END) == 8 and not set(label) - set("0123456789abcdef") and name not in self._own

    def _within_budget(self) -> bool:
        second = int(time.monotonic())
        self._count = self._count + 1 if second == self._second else 1
        self._second = second
        if self._count > MAX_A_SECOND and self._later is None:
            self._later = self._loop.call_later(_LOOK_AGAIN_S, self._look_again)
        return self._count <= MAX_A_SECOND

    def _look_again(self) -> None:
        """After a flood: what was passed over is in the library's cache, and would not be told by itself."""
        self._later = None
        pointers = self._zeroconf.cache.async_entries_with_name(SERVICE)
        names = {str(getattr(pointer, "alias", "")) for pointer in pointers}
        for name in random.sample(sorted(names), min(len(names), MAX_A_SECOND)):
            self._changed(name, zeroconf.ServiceStateChange.Added)

    def _tell(self, name: str) -> None:
        info = zeroconf.ServiceInfo(SERVICE, name)
        if not info.load_from_cache(self._zeroconf) or not info.port or len(info.text) > MAX_TXT:
            return  # the rest of it comes with another packet, if it comes
        addresses = [reachable(address, self._interfaces) for address in info.parsed_scoped_addresses()[: 2 * MAX_ADDRESSES]]
        usable = tuple(sorted({address for address in addresses if address})[:MAX_ADDRESSES])
        seen = Seen(name.removesuffix(_INSTANCE_END), usable, info.port, info.text)
        if usable and self._told.get(name) != seen:
            self._told[name] = seen
            self._told.move_to_end(name)
            if len(self._told) > MAX_PEERS:
                self._told.popitem(last=False)
            self._heard(seen)


def _choice(interfaces: Sequence[Interface]) -> tuple[list[str], zeroconf.IPVersion]:
    """What zeroconf calls these interfaces: of each one IPv4 address and one IPv6 address of the link."""
    v4 = [next((str(own.ip) for own in i.addresses if own.version == 4), "") for i in interfaces]
    v6 = [next((str(own.ip) for own in i.addresses if own.version == 6 and own.ip.is_link_local), "") for i in interfaces]
    addresses = [address for address in v4 + v6 if address]
    return addresses, zeroconf.IPVersion.All if any(v4) and any(v6) else zeroconf.IPVersion.V6Only if any(v6) else zeroconf.IPVersion.V4Only


@contextlib.contextmanager
def _only_os_errors() -> Iterator[None]:
    """The library has a dozen ways to say that the network is not as it was a moment ago."""
    try:
        yield
    except (zeroconf.Error, RuntimeError, ValueError) as e:
        raise OSError(str(e) or type(e).__name__) from e
