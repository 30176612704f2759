"""Two machines on one network, made of network namespaces: a bridge in a namespace of its own, so that the real network is untouched."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass

SWITCH = "p2psync-lan"
INTERFACE = "lan0"


@dataclass(frozen=True)
class Desk:
    """One of the two machines: the namespace to run in, and its address."""

    name: str
    namespace: str
    address: str

    def command(self, *words: str) -> list[str]:
        """The command that runs `words` on this machine; the process keeps its id (`ip netns exec` executes in place)."""
        return ["ip", "netns", "exec", self.namespace, *words]


DESKS = (Desk("a", "p2psync-a", "10.213.0.1"), Desk("b", "p2psync-b", "10.213.0.2"))


@contextlib.contextmanager
def lan() -> Iterator[tuple[Desk, Desk]]:
    """Both desks, joined; gone again at the end, however it ends."""
    _remove()
    try:
        _ip("netns", "add", SWITCH)
        _ip("-n", SWITCH, "link", "add", "bridge", "type", "bridge", "mcast_snooping", "0")
        _ip("-n", SWITCH, "link", "set", "bridge", "up")
        for desk in DESKS:
            _plug_in(desk)
        yield DESKS
    finally:
        _remove()


def _plug_in(desk: Desk) -> None:
    _ip("netns", "add", desk.namespace)
    # Without duplicate address detection an IPv6 address is usable at once, and W7 measures us, not the kernel.
    subprocess.run(desk.command("sysctl", "-qw", "net.ipv6.conf.default.accept_dad=0"), check=False)
    _ip("-n", SWITCH, "link", "add", f"to-{desk.name}", "type", "veth", "peer", "name", INTERFACE, "netns", desk.namespace)
    _ip("-n", SWITCH, "link", "set", f"to-{desk.name}", "master", "bridge", "up")
    _ip("-n", desk.namespace, "link", "set", "lo", "up")
    _ip("-n", desk.namespace, "address", "add", f"{desk.address}/24", "dev", INTERFACE)
    _ip("-n", desk.namespace, "link", "set", INTERFACE, "up")


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True)


def _remove() -> None:
    for namespace in (*(desk.namespace for desk in DESKS), SWITCH):
        subprocess.run(["ip", "netns", "delete", namespace], check=False, capture_output=True)
