"""“p2psync doctor”, asked of the daemon itself: what it knows of its network, its port, its eyes, its clock and its disks."""

import os
from functools import partial
from typing import TYPE_CHECKING, Any

import trio

from p2psync import __version__
from p2psync.daemon.problems import CLOCK_OFF_MS, problems
from p2psync.edge import echo
from p2psync.edge.watcher import WatchLimit
from p2psync.engine.findings import finding
from p2psync.store import surroundings
from p2psync.values.amounts import count

if TYPE_CHECKING:
    from p2psync.daemon.office import Office


async def checkup(office: "Office") -> dict[str, Any]:
    """All findings, in the order in which a person would ask."""
    addresses = [str(own.ip) for interface in office.interfaces() for own in interface.addresses if own.version == 4]
    places = [office.config.home, *(location.root for books in office.books() for location in books.locations().values())]
    findings = [_daemon(), _network(office)]
    findings.append(await _mdns(office, addresses))
    findings.append(await _port(office, [office.config.only_host] if office.config.only_host else addresses))
    findings.append(_firewall(office, set(addresses)))
    findings += await trio.to_thread.run_sync(_watching, office)
    findings += _clocks(office)
    findings += await trio.to_thread.run_sync(surroundings.of_disks, places)
    findings.append(await trio.to_thread.run_sync(surroundings.of_home, office.config.home))
    found = len(problems(office))
    findings.append(finding("problems", count=count(found, "problem")) if found else finding("no-problems"))
    return {"ok": all(one["ok"] for one in findings), "findings": findings}


def _daemon() -> dict[str, Any]:
    how = surroundings.started_as()
    if how is None:
        return finding("by-hand", version=__version__, pid=os.getpid())
    return finding("service", version=__version__, pid=os.getpid(), how=how)


def _network(office: "Office") -> dict[str, Any]:
    interfaces = office.interfaces()
    if not interfaces:
        named = office.config.interfaces
        return finding("no-network", which=f" by {', '.join(named)}" if named else "")
    shown = ", ".join(f"{i.name} ({', '.join(str(own.ip) for own in i.addresses if own.version == 4) or 'IPv6'})" for i in interfaces)
    own = all(address.ip.is_loopback for i in interfaces for address in i.addresses)
    return finding("network-own", interfaces=shown) if own else finding("network", interfaces=shown)


async def _mdns(office: "Office", addresses: list[str]) -> dict[str, Any]:
    discovery = office.discovery
    if discovery is None:
        return finding("mdns-off")
    if discovery.problem is not None:
        return finding("mdns-fails", why=discovery.problem.cause, do=discovery.problem.action)
    if not office.shared_mandates() and not office.joinings:
        return finding("mdns-silent")
    instance = discovery.instance
    if instance is None:
        return finding("mdns-starting")
    heard = await trio.to_thread.run_sync(echo.asks, instance, addresses)
    deaf = [address for address in addresses if address not in heard]
    return finding("mdns-unheard", interfaces=", ".join(deaf)) if deaf else finding("mdns", interfaces=", ".join(addresses))


async def _port(office: "Office", addresses: list[str]) -> dict[str, Any]:
    open_ = await trio.to_thread.run_sync(partial(echo.answers, addresses, office.port))
    shut = [address for address in addresses if address not in open_]
    return finding("port-shut", port=office.port, addresses=", ".join(shut)) if shut else _open(office.port, addresses)


def _open(port: int, addresses: list[str]) -> dict[str, Any]:
    return finding("port", port=port, addresses=", ".join(addresses) or "no address, since there is no network")


def _firewall(office: "Office", own: set[str]) -> dict[str, Any]:
    """What can be told of a firewall without being root: whether anybody ever came through it."""
    others = any(device != office.device for books in office.books() for device in books.roster.members())
    outside = [host for host in office.reached_by if host not in own and not host.startswith("127.")]
    if outside:
        return finding("reached", port=office.port, address=outside[-1])
    if own and all(address.startswith("127.") for address in own):
        return finding("own-only", port=office.port)
    if not others:
        return finding("not-needed", port=office.port)
    called = len([peer for peer in office.links.values() if peer.link.initiator])
    links = f"; the {count(called, 'connection')} that there are were made by this machine" if called else ""
    return finding("never-reached", port=office.port, links=links)


def _watching(office: "Office") -> list[dict[str, Any]]:
    problem = office.watcher.problem
    if isinstance(problem, WatchLimit):
        return [finding("watch-limit", why=problem.cause, do=problem.action)]
    faults = {watch.folder: watch.fault for mandate in office.mandates.values() for watch in mandate.watching.all() if watch.fault}
    found = [finding("unwatched", path=folder, why=fault.lower()) for folder, fault in sorted(faults.items())]
    return found or [surroundings.of_watches(surroundings.watches())]


def _clocks(office: "Office") -> list[dict[str, Any]]:
    off = {office.machine(device): abs(peer.clock_off_ms) for device, peer in office.links.items()}
    found = [finding("clock-off", machine=name, minutes=ms // 60_000) for name, ms in sorted(off.items()) if ms > CLOCK_OFF_MS]
    if found or not off:
        return found or [finding("clock-alone")]
    return [finding("clock", machines=", ".join(sorted(off)))]
