"""The network interfaces of this machine: which of them belong to an office's network, their addresses, and when that changes.

Without names, every *real LAN interface* is taken: one that is up, can multicast, and is neither the loopback nor made by software
that builds networks inside the machine or across the Internet (containers, virtual machines, VPNs), where announcing is useless or a leak.
An interface that is named is taken whatever it is, as soon as it exists and has an address.
"""

import contextlib
import fcntl
import re
import socket
import struct
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface, IPv6Address, IPv6Interface, ip_address, ip_interface
from typing import Self, TypeAlias

import ifaddr
import trio

Address: TypeAlias = IPv4Interface | IPv6Interface

_MADE_BY_SOFTWARE = re.compile(
    r"docker\d*|br-[0-9a-f]+|veth.*|cni.*|flannel.*|cali.*|podman\d*|lxcbr\d*|lxdbr\d*|incusbr\d*"  # containers
    r"|virbr.*|vnet\d*|vmnet\d*|vboxnet\d*|ifb\d*|dummy\d*"  # virtual machines, traffic shaping
    r"|tun.*|tap.*|utun\d*|wg.*|tailscale.*|zt.*|ppp\d*|nebula.*|ipsec\d*|awdl\d*|llw\d*"  # VPNs and links from machine to machine
)
_UP, _LOOPBACK, _POINT_TO_POINT, _MULTICAST = 0x1, 0x8, 0x10, 0x1000
_SIOCGIFFLAGS = 0x8913

_RTMGRP_LINK, _RTMGRP_IPV4_IFADDR, _RTMGRP_IPV6_IFADDR = 0x1, 0x10, 0x100

_QUIET_S = 0.5
"""A change is told when nothing more has changed for so long: plugging in a cable makes a dozen messages."""

_AT_LATEST_S = 3.0
"""…and told after so long in any case."""

_POLL_S = 5.0


@dataclass(frozen=True, slots=True)
class Interface:
    """One network interface: its name, its index in the kernel, and its addresses with their networks."""

    name: str
    index: int
    addresses: tuple[Address, ...]

    @property
    def hosts(self) -> tuple[str, ...]:
        """The addresses as text that a socket takes: ``192.0.2.7``, ``fe80::1%eth0``."""
        return tuple(f"{own.ip}%{self.name}" if own.version == 6 and own.ip.is_link_local else str(own.ip) for own in self.addresses)

    @property
    def announced(self) -> tuple[str, ...]:
        """The addresses that are told to the neighbours: IPv4, and IPv6 of the link alone; without its zone, which means nothing there."""
        return tuple(str(own.ip) for own in self.addresses if own.version == 4 or own.ip.is_link_local)


def select(names: tuple[str, ...] | None) -> list[Interface]:
    """The interfaces of these ``names``, or all real LAN interfaces; those without an address are left out. Sorted by name."""
    found: dict[str, set[Address]] = {}
    for adapter in ifaddr.get_adapters():
        name = adapter.nice_name.partition(":")[0]  # eth0:1 is a label that an address of eth0 may carry
        found.setdefault(name, set()).update(map(_address, adapter.ips))
    chosen = [name for name in sorted(found) if (_is_real(name, found[name]) if names is None else name in names)]
    return [Interface(name, index, tuple(sorted(found[name], key=_order))) for name in chosen if found[name] and (index := _index(name))]


def reachable(host: str, interfaces: Iterable[Interface]) -> str | None:
    """``host`` as an address to dial, when it is directly connected to one of ``interfaces``; None when it is not.

    So a forged announcement makes nobody dial beyond the LAN, nor to this machine itself unless its loopback was chosen. An address of
    the link (fe80::…) is given the zone it lacks when there is only one it can have.
    """
    text, _, zone = host.partition("%")
    try:
        address = ip_address(text)
    except ValueError:
        return None
    if address.is_multicast or address.is_unspecified:
        return None
    if isinstance(address, IPv6Address) and address.is_link_local:
        return _with_zone(address, zone, interfaces)
    return str(address) if any(_connects(own, address) for interface in interfaces for own in interface.addresses) else None


class NetworkWatch:
    """Tells when interfaces or addresses change: at once from the kernel on Linux, by looking every few seconds elsewhere.

    A context manager. Changes that come before ``changed`` is called are not lost.
    """

    def __init__(self) -> None:
        self._kernel = _route_socket()
        self._seen = _snapshot()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._kernel is not None:
            self._kernel.close()

    async def changed(self) -> None:
        """Return when something has changed and then stayed the same for half a second, or kept changing for three."""
        if self._kernel is None:
            while (now := _snapshot()) == self._seen:
                await trio.sleep(_POLL_S)
            self._seen = now
            return
        await self._message()
        with trio.move_on_after(_AT_LATEST_S):
            quiet = False
            while not quiet:
                with trio.move_on_after(_QUIET_S) as silence:
                    await self._message()
                quiet = silence.cancelled_caught

    async def _message(self) -> None:
        assert self._kernel is not None
        await trio.lowlevel.wait_readable(self._kernel)
        with contextlib.suppress(OSError):  # ENOBUFS: there were more changes than fit, which is a change too
            self._kernel.recv(65536)


def _route_socket() -> socket.socket | None:
    """The kernel's announcements of changed links and addresses (rtnetlink(7)); None where there are none to be had."""
    if sys.platform != "linux":
        return None
    with contextlib.suppress(OSError):  # a sandbox may forbid AF_NETLINK
        kernel = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK, socket.NETLINK_ROUTE)
        kernel.bind((0, _RTMGRP_LINK | _RTMGRP_IPV4_IFADDR | _RTMGRP_IPV6_IFADDR))
        return kernel
    return None


def _snapshot() -> frozenset[tuple[str, str]]:
    return frozenset((adapter.nice_name, str(ip.ip)) for adapter in ifaddr.get_adapters() for ip in adapter.ips)


def _address(ip: ifaddr.IP) -> Address:
    return ip_interface(f"{ip.ip if isinstance(ip.ip, str) else ip.ip[0]}/{ip.network_prefix}")


def _order(address: Address) -> tuple[int, int]:
    return address.version, int(address)


def _index(name: str) -> int:
    with contextlib.suppress(OSError):  # gone in the meantime
        return socket.if_nametoindex(name)
    return 0


def _is_real(name: str, addresses: set[Address]) -> bool:
    if _MADE_BY_SOFTWARE.fullmatch(name) or any(address.ip.is_loopback for address in addresses):
        return False
    return sys.platform != "linux" or _flags(name) & (_UP | _MULTICAST | _LOOPBACK | _POINT_TO_POINT) == _UP | _MULTICAST


def _flags(name: str) -> int:
    """What the kernel says of an interface (netdevice(7)); 0 when it is gone."""
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        answer = fcntl.ioctl(any_socket, _SIOCGIFFLAGS, struct.pack("16sh14x", name.encode()[:15], 0))
        return int(struct.unpack("16xH14x", answer)[0])
    return 0


def _connects(own: Address, address: IPv4Address | IPv6Address) -> bool:
    """Is ``address`` that of a machine in the network of ``own``?"""
    if own.version != address.version or address not in own.network:
        return False
    return own.version == 6 or own.network.prefixlen > 30 or address not in (own.network.network_address, own.network.broadcast_address)


def _with_zone(address: IPv6Address, zone: str, interfaces: Iterable[Interface]) -> str | None:
    linked = [i for i in interfaces if any(own.version == 6 and own.ip.is_link_local for own in i.addresses)]
    fitting = [i.name for i in linked if zone in (str(i.index), i.name)] if zone else [i.name for i in linked]
    return f"{IPv6Address(int(address))}%{fitting[0]}" if len(fitting) == 1 else None
