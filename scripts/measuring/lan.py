"""Machines on one network, made of network namespaces: each network has a bridge in a namespace of its own, so that the real one is
untouched and no two networks can hear each other."""

from __future__ import annotations

import contextlib
import json
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass

INTERFACE = "lan0"
LETTERS = "abcdefghijklmnopqrstuvwxyz"


@dataclass(frozen=True)
class Desk:
    """One machine: the namespace to run in, its address, and the switch that it is plugged into."""

    name: str
    namespace: str
    address: str
    switch: str

    def command(self, *words: str) -> list[str]:
        """The command that runs `words` on this machine; the process keeps its id (`ip netns exec` executes in place)."""
        return ["ip", "netns", "exec", self.namespace, *words]

    def wire_bytes(self) -> tuple[int, int]:
        """Bytes that this machine has sent and received so far, Ethernet headers included, as its socket on the switch counts them."""
        shown = subprocess.run(
            ["ip", "-n", self.switch, "-s", "-j", "link", "show", f"to-{self.name}"], check=True, capture_output=True, text=True
        ).stdout
        counted = json.loads(shown)[0]["stats64"]
        return counted["rx"]["bytes"], counted["tx"]["bytes"]


@contextlib.contextmanager
def lan(name: str, members: int = 2, rate: str = "") -> Iterator[tuple[Desk, ...]]:
    """`members` desks, joined, each link shaped to `rate` (as tc writes it, "1gbit"; empty: unshaped); gone again at the end."""
    switch = f"bench-{name}-switch"
    desks = tuple(
        Desk(letter, f"bench-{name}-{letter}", f"10.213.0.{number}", switch) for number, letter in enumerate(LETTERS[:members], start=1)
    )
    _remove(desks, switch)
    try:
        _ip("netns", "add", switch)
        _ip("-n", switch, "link", "add", "bridge", "type", "bridge", "mcast_snooping", "0")
        _ip("-n", switch, "link", "set", "bridge", "up")
        for desk in desks:
            _plug_in(desk)
            if rate:
                _shape(desk.namespace, INTERFACE, rate)
                _shape(switch, f"to-{desk.name}", rate)
        yield desks
    finally:
        _remove(desks, switch)


def _plug_in(desk: Desk) -> None:
    _ip("netns", "add", desk.namespace)
    # Without duplicate address detection an IPv6 address is usable at once, and W7 measures the programs, not the kernel.
    subprocess.run(desk.command("sysctl", "-qw", "net.ipv6.conf.default.accept_dad=0"), check=False)
    _ip("-n", desk.switch, "link", "add", f"to-{desk.name}", "type", "veth", "peer", "name", INTERFACE, "netns", desk.namespace)
    _ip("-n", desk.switch, "link", "set", f"to-{desk.name}", "master", "bridge", "up")
    _ip("-n", desk.namespace, "link", "set", "lo", "up")
    _ip("-n", desk.namespace, "address", "add", f"{desk.address}/24", "broadcast", "+", "dev", INTERFACE)
    _ip("-n", desk.namespace, "link", "set", INTERFACE, "up")


def _shape(namespace: str, interface: str, rate: str) -> None:
    bucket = ("rate", rate, "burst", "1mb", "latency", "20ms")
    subprocess.run(["tc", "-n", namespace, "qdisc", "add", "dev", interface, "root", "tbf", *bucket], check=True)


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True)


def _remove(desks: tuple[Desk, ...], switch: str) -> None:
    for namespace in (*(desk.namespace for desk in desks), switch):
        subprocess.run(["ip", "netns", "delete", namespace], check=False, capture_output=True)
