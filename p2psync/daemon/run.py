"""The daemon: how its tasks are nested, how it starts and how it stops.

    lock > home > [ status socket ] > [ watcher, discovery, listener, dialer ] > [ one keeper per mandate, one task per link ]

Stop: say so, take no new connections, goodbye to the peers, leave the network, let each mandate finish the step it is at, unlink the
socket, release the lock. What was not written down by then was never said to anybody.
"""

import errno
import gc
import logging
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import trio

from p2psync import __version__
from p2psync.daemon.caretaker import Caretaker
from p2psync.daemon.config import Config
from p2psync.daemon.control import Control
from p2psync.daemon.dialer import Dialer, meet_guest
from p2psync.daemon.lastresort import INTERRUPTED, LastResort
from p2psync.daemon.mandate import Mandate
from p2psync.daemon.office import Office
from p2psync.daemon.peer import Peer
from p2psync.edge.discovery import Announcement, Discovery
from p2psync.edge.interfaces import select
from p2psync.edge.link import Link, accept
from p2psync.edge.listener import serve as listen_for_peers
from p2psync.edge.meeting import address_of
from p2psync.edge.notify import Notifier
from p2psync.edge.socket import serve as serve_socket
from p2psync.edge.watcher import Changes, Watcher
from p2psync.engine.beacon import ENTROPY, announcement
from p2psync.store.faults import writing
from p2psync.store.home import Home
from p2psync.store.lock import HomeLock
from p2psync.store.witness import Witness
from p2psync.values.errors import P2psyncError, PeerError, UserError
from p2psync.values.names import InviteId, escaped

log = logging.getLogger(__name__)

SWITCH_S = 0.001
"""Seconds until a thread that works has to let the others have a turn: the one that answers must not wait for five that hash and sort."""
COLLECT_AFTER = 10_000
"""New objects after which Python looks for what nobody holds any more. The 700 it would take cost a tenth of the time where files come by
the thousand: nearly all of what is made then is held, or let go of by itself."""
GOODBYE_S = 3.0
"""Seconds that a stop gives to goodbyes."""
OPEN_AGAIN_S = 30.0
"""Between two tries to open a mandate that could not be opened."""
_LISTEN_AGAIN_S = 30.0


class PortTaken(UserError):
    """The port {port} on {host} is in use by another program. Choose another one with --listen, for instance --listen :0 for any free
    one.
    """


class CannotListen(UserError):
    """Other machines cannot reach this one on {host} port {port}: {why}. Choose another address with --listen."""


class InterfaceMissing(UserError):
    """This machine has no network interface “{name}” with an address at the moment, so that nobody is found there. Plug it in, or start
    p2psync with another --interface.
    """


class CannotOpen(UserError):
    """The mandate kept in {path} cannot be opened ({why}). The others are not affected; please report it."""


class NotHere(PeerError):
    """Somebody called over a network that was not chosen."""


_WHY = {
    errno.EADDRNOTAVAIL: "this machine does not have that address",
    errno.EACCES: "ports below 1024 are for the system alone",
    errno.EAFNOSUPPORT: "this machine has no addresses of that kind",
}


def main(config: Config) -> int:
    """Run a daemon in the foreground until SIGTERM or SIGINT; its exit code.

    Raises:
        UserError: it cannot start, with the reason.
    """
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    logging.getLogger("p2psync").setLevel(os.environ.get("P2PSYNC_LOG", "WARNING").upper())
    sys.setswitchinterval(SWITCH_S)
    gc.freeze()  # what was imported stays
    gc.set_threshold(COLLECT_AFTER, 10, 10)
    last_resort = LastResort(config.socket)
    try:
        trio.run(partial(_run, config, last_resort))
    except KeyboardInterrupt:
        return INTERRUPTED
    except BaseExceptionGroup as group:
        raise _reason(group) from group
    finally:
        last_resort.call_off()
    return 0


def _reason(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The one sentence for a person in a group of errors, or the group itself."""
    found, _ = group.split(UserError)
    error: BaseException = found or group
    while isinstance(error, BaseExceptionGroup) and found is not None:
        error = error.exceptions[0]
    return error


async def _run(config: Config, last_resort: LastResort) -> None:
    notifier = Notifier()
    with writing(config.home):
        config.home.mkdir(mode=0o700, parents=True, exist_ok=True)
    with HomeLock(config.home):
        home = Home(config.home, Office.now_ms, witness=Witness.here(config.witness) if config.witness else None)
        async with trio.open_nursery() as nursery:
            stop = trio.Event()
            await nursery.start(_signals, stop, last_resort)
            nursery.start_soon(notifier.keep_alive)
            await _serve(config, home, nursery, notifier, stop)
            nursery.cancel_scope.cancel()


async def _serve(config: Config, home: Home, outer: trio.Nursery, notifier: Notifier, stop: trio.Event) -> None:
    watcher = Watcher()
    await outer.start(watcher.run)
    async with trio.open_nursery() as nursery:
        office = Office(config, home, watcher, nursery)
        await outer.start(partial(serve_socket, config.socket, Control(office).handle, group=config.group))
        listeners = await _listen(config)
        office.port = _port_of(listeners)
        discovery = Discovery(config.interfaces) if config.mdns else None
        office.discovery = discovery
        if discovery is not None:
            office.announce = partial(discovery.announce, partial(_announcement, office))
        await open_mandates(office, home)
        nursery.start_soon(open_later, office, home)
        nursery.start_soon(route_changes, office, watcher)
        listening = trio.CancelScope()
        nursery.start_soon(serve_peers, office, listeners, nursery, listening)
        dialer = Dialer(office, discovery)
        nursery.start_soon(dialer.dial)
        nursery.start_soon(dialer.follow_network)
        if discovery is not None:
            await outer.start(discovery.run)
            nursery.start_soon(dialer.listen)
            office.announce()
        nursery.start_soon(_report_problems, office, discovery)
        nursery.start_soon(Caretaker(office).run)
        nursery.start_soon(office.verifying.run)
        count = len(office.mandates)
        notifier.ready(f"{count} mandate{'' if count == 1 else 's'}, port {office.port}")
        print(f"p2psync {__version__} is running: socket {config.socket}, port {office.port}", file=sys.stderr, flush=True)
        await stop.wait()
        notifier.stopping()
        office.stopping = True
        listening.cancel()
        await _say_goodbye(office)
        if discovery is not None:
            discovery.stop()
        nursery.cancel_scope.cancel()


async def _signals(stop: trio.Event, last_resort: LastResort, *, task_status: trio.TaskStatus[None]) -> None:
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        task_status.started()
        async for _ in signals:
            if stop.is_set():  # somebody is impatient
                last_resort.leave(INTERRUPTED)
            stop.set()
            last_resort.begin()


async def open_mandates(office: Office, home: Home) -> None:
    """Open every mandate; one that cannot be opened is a problem of its own, and no reason to leave the others closed."""
    for state in home.mandates():
        await _open(office, home, state)
    office.ready.set()


async def open_later(office: Office, home: Home) -> None:
    """Try again and again to open what could not be opened, for ever: a disk may be well again."""
    while True:
        await trio.sleep(OPEN_AGAIN_S)
        with suppress(UserError):  # the home cannot be listed: another time
            for state in home.mandates():
                if f"open {state.name}" in office.problems:
                    await _open(office, home, state)


async def _open(office: Office, home: Home, state: Path) -> None:
    key = f"open {state.name}"
    try:
        books = await trio.to_thread.run_sync(home.open, state)
        _ = books.roster
        await office.open(books)
        office.problems.pop(key, None)
    except UserError as e:
        office.problems[key] = e
    except Exception as mistake:
        log.exception("a mandate cannot be opened")
        office.problems[key] = CannotOpen(path=state, why=mistake)


async def _listen(config: Config) -> list[trio.SocketListener]:
    """Sockets on the given address, or on every address: which networks may come in is decided when somebody does."""
    host, port = config.listen
    hosts = [host] if host else ["0.0.0.0", "::"]
    if host is None and config.interfaces == ("lo",):
        hosts = ["127.0.0.1"]
    found: list[trio.SocketListener] = []
    for one in hosts:
        try:
            found += await trio.open_tcp_listeners(port, host=one)
            port = port or found[0].socket.getsockname()[1]
        except OSError as e:
            if found and one == "::":  # no IPv6 here
                continue
            for listener in found:
                await listener.aclose()
            if e.errno == errno.EADDRINUSE or "in use" in str(e):
                raise PortTaken(port=port, host=one) from None
            raise CannotListen(port=port, host=one, why=_WHY.get(e.errno or 0, e.strerror or e)) from None
    return found


def _port_of(listeners: list[trio.SocketListener]) -> int:
    return int(listeners[0].socket.getsockname()[1])


def _announcement(office: Office) -> Announcement | None:
    shared = office.shared_mandates()
    guests = office.guests()
    if not shared and not guests:
        return None
    keys = [mandate.group_keys().announcement for mandate in shared]
    txt = announcement(keys, guests, port=office.port, now_ms=office.now_ms(), entropy=office.nonce(ENTROPY))
    return Announcement(txt, office.port)


async def route_changes(office: Office, watcher: Watcher) -> None:
    """Hand what the watcher hears to the mandates that it is about."""
    while True:
        changes = await watcher.changes()
        for mandate, share in _shares(office, changes).items():
            await mandate.heard(share)


def _shares(office: Office, changes: Changes) -> dict[Mandate, Changes]:
    """What of the changes is about which mandate."""
    owners: dict[str, list[Mandate]] = {}
    found: dict[Mandate, tuple[set[Path], set[Path]]] = {}
    for mandate in office.mandates.values():
        places = mandate.books.locations().values()
        if changes.refused or any(location.root in changes.doubt for location in places):
            found[mandate] = (set(), set())
        for location in places:
            owners.setdefault(str(location.path), []).append(mandate)
    for index, paths in enumerate((changes.touched, changes.closed)):
        for where in paths:
            for mandate in [owner for place in _way_to(str(where)) for owner in owners.get(place, ())]:
                found.setdefault(mandate, (set(), set()))[index].add(where)
    return {mandate: Changes(frozenset(touched), frozenset(closed), changes.doubt) for mandate, (touched, closed) in found.items()}


def _way_to(place: str) -> Iterator[str]:
    """A path and the folders that it is in, innermost first; as text, since there may be thousands at once."""
    while place:
        yield place
        place = place.rpartition("/")[0]


async def serve_peers(office: Office, listeners: Sequence[Any], nursery: trio.Nursery, scope: trio.CancelScope) -> None:
    """Let other machines in until ``scope`` is cancelled; the links live in ``nursery``."""

    async def greet(stream: Any) -> Link:
        if not _is_served(office, stream):
            await trio.aclose_forcefully(stream)
            raise NotHere()
        if (address := address_of(stream)) is not None:
            office.note_reached(address[0].partition("%")[0].removeprefix("::ffff:"))
        return await accept(stream, office.home.keys, lambda label: office.gates(InviteId(label)), nonce=office.nonce)

    async def talk(link: Link) -> None:
        if link.gate.kind == "guest":
            async with trio.open_nursery() as inner:
                inner.start_soon(link.keep_alive)
                await meet_guest(office, link)
                inner.cancel_scope.cancel()
        else:
            await Peer(office, link).run()

    async def quietly(link: Link) -> None:
        try:
            await talk(link)
        except* P2psyncError as ended:
            log.debug("a link ended: %s", ended.exceptions)

    with scope:
        await listen_for_peers(listeners, greet, quietly, handler_nursery=nursery)


def _is_served(office: Office, stream: Any) -> bool:
    """Whether a connection came over one of the chosen interfaces. A stream of another kind comes from a test."""
    if not isinstance(stream, trio.SocketStream):
        return True
    try:
        host, _, *more = stream.socket.getsockname()
    except OSError:  # it has gone already
        return False
    return office.serves(host, more[1] if len(more) > 1 else 0)


async def _report_problems(office: Office, discovery: Discovery | None) -> None:
    """Keep what is wrong with mDNS, the watcher and the interfaces that were named among the problems of the status."""
    while True:
        there = {interface.name for interface in select(office.config.interfaces)}
        lost = next((name for name in office.config.interfaces or () if name not in there), None)
        missing = InterfaceMissing(name=escaped(lost)) if lost is not None else None
        found = discovery.problem if discovery else None
        for key, problem in (("discovery", found), ("watcher", office.watcher.problem), ("interface", missing)):
            if problem is None:
                office.problems.pop(key, None)
            else:
                office.problems[key] = problem
        await trio.sleep(2)


async def _say_goodbye(office: Office) -> None:
    with trio.move_on_after(GOODBYE_S):
        async with trio.open_nursery() as nursery:
            for peer in list(office.links.values()):
                nursery.start_soon(peer.close)
