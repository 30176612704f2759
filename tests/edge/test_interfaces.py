"""Which interfaces are the office's, what is directly connected to them, and that changes are told."""

import os
import shutil
import subprocess
import sys
import textwrap
from ipaddress import ip_interface

import ifaddr
import pytest
import trio
import trio.testing

from p2psync.edge import interfaces
from p2psync.edge.interfaces import Interface, NetworkWatch, reachable, select

needs_namespaces = pytest.mark.skipif(
    sys.platform != "linux" or os.geteuid() != 0 or not shutil.which("ip"), reason="needs root and network namespaces"
)

LO = Interface("lo", 1, (ip_interface("127.0.0.1/8"), ip_interface("::1/128")))
LAN = Interface("eth0", 2, (ip_interface("192.0.2.7/24"), ip_interface("2001:db8::7/64"), ip_interface("fe80::7/64")))
WIFI = Interface("wlan0", 3, (ip_interface("198.51.100.7/24"), ip_interface("fe80::8/64")))


def adapter(name: str, *addresses: str) -> ifaddr.Adapter:
    def ip(text: str) -> ifaddr.IP:
        address, _, prefix = text.partition("/")
        return ifaddr.IP((address, 0, 0) if ":" in address else address, int(prefix), name)

    return ifaddr.Adapter(name, name, [ip(text) for text in addresses], 1)


@pytest.fixture
def machine(monkeypatch):
    """A machine with these adapters, all of them up."""

    def has(*adapters: ifaddr.Adapter) -> None:
        monkeypatch.setattr(ifaddr, "get_adapters", lambda: adapters)
        monkeypatch.setattr(interfaces, "_index", lambda name: 7)
        monkeypatch.setattr(interfaces, "_flags", lambda name: 0x49 if name == "lo" else 0x1043)

    return has


@pytest.mark.parametrize("name", ["eth0", "enp3s0", "wlan0", "br0", "bond0", "vmbr0", "en0", "bridge0", "brick"])
def test_lan_interfaces_are_taken(machine, name):
    machine(adapter("lo", "127.0.0.1/8"), adapter(name, "192.0.2.7/24"))
    assert [interface.name for interface in select(None)] == [name]


@pytest.mark.parametrize(
    "name",
    ["lo", "docker0", "br-0123456789ab", "veth12ab", "virbr0", "tun0", "tap1", "wg0", "wg-office", "tailscale0", "zt5u4uptmb", "utun3"],
)
def test_what_software_made_is_taken_only_by_name(machine, name):
    machine(adapter(name, "127.0.0.1/8" if name == "lo" else "192.0.2.7/24"))
    assert select(None) == []
    assert [interface.name for interface in select((name, "eth9"))] == [name]


def test_addresses_come_together_and_in_order(machine):
    machine(adapter("eth0", "fe80::7/64"), adapter("eth0", "192.0.2.7/24"), adapter("eth0:1", "192.0.2.8/24"), adapter("eth1"))
    (interface,) = select(None)
    assert interface.hosts == ("192.0.2.7", "192.0.2.8", "fe80::7%eth0")
    assert LAN.announced == ("192.0.2.7", "fe80::7")
    assert LO.announced == ("127.0.0.1",)


def test_the_loopback_of_this_machine():
    assert select(("lo",))[0].addresses[0] == ip_interface("127.0.0.1/8")
    assert not any(address.ip.is_loopback for interface in select(None) for address in interface.addresses)


@pytest.mark.parametrize(
    ("host", "on", "dial"),
    [
        ("192.0.2.9", [LAN], "192.0.2.9"),
        ("192.0.2.7", [LAN], "192.0.2.7"),  # another daemon on this machine
        ("2001:db8::9", [LAN], "2001:db8::9"),
        ("127.0.0.1", [LO], "127.0.0.1"),
        ("::1", [LO], "::1"),
        ("fe80::9", [LAN], "fe80::9%eth0"),
        ("fe80::9%2", [LAN, WIFI], "fe80::9%eth0"),
        ("fe80::9%wlan0", [LAN, WIFI], "fe80::9%wlan0"),
        ("fe80::9", [LAN, WIFI], None),  # it could be either
        ("fe80::9%1", [LAN, LO], None),
        ("fe80::9%7", [LAN], None),
        ("127.0.0.1", [LAN], None),
        ("::1", [LAN], None),
        ("203.0.113.5", [LAN], None),
        ("2001:db9::9", [LAN], None),
        ("192.0.2.0", [LAN], None),
        ("192.0.2.255", [LAN], None),
        ("255.255.255.255", [LAN], None),
        ("0.0.0.0", [LAN], None),
        ("::", [LAN], None),
        ("224.0.0.251", [LAN], None),
        ("ff02::fb", [LAN], None),
        ("::ffff:192.0.2.9", [LAN], None),
        ("192.0.2.9", [], None),
        ("books.example", [LAN], None),
        ("", [LAN], None),
    ],
)
def test_only_what_is_directly_connected_is_dialled(host, on, dial):
    assert reachable(host, on) == dial


async def test_without_the_kernel_s_word_changes_are_seen_by_looking(machine, monkeypatch, autojump_clock):
    monkeypatch.setattr(interfaces, "_route_socket", lambda: None)
    machine(adapter("eth0", "192.0.2.7/24"))
    with NetworkWatch() as network:
        with trio.move_on_after(60) as nothing:
            await network.changed()
        assert nothing.cancelled_caught
        machine(adapter("eth0", "192.0.2.8/24"))
        with trio.fail_after(60):
            await network.changed()


WATCHING = """
import subprocess, time, trio
from p2psync.edge.interfaces import NetworkWatch, select

def ip(*words):
    subprocess.run(["ip", *words], check=True)

async def main():
    with NetworkWatch() as network:
        with trio.move_on_after(0.8) as quiet:
            await network.changed()
        print("quiet", quiet.cancelled_caught)
        ip("link", "add", "eth7", "type", "veth", "peer", "name", "eth8")
        ip("address", "add", "192.0.2.7/24", "dev", "eth7")
        print("down", [i.name for i in select(None)])
        ip("link", "set", "eth7", "up")
        began = time.monotonic()
        with trio.fail_after(5):
            await network.changed()
        print("damped", time.monotonic() - began >= 0.4, [i.name for i in select(None)])
        async with trio.open_nursery() as nursery:
            @nursery.start_soon
            async def flap():
                while True:
                    ip("address", "add", "192.0.2.8/24", "dev", "eth7")
                    ip("address", "del", "192.0.2.8/24", "dev", "eth7")
                    await trio.sleep(0.2)
            began = trio.current_time()
            await network.changed()
            print("at latest", 2.5 < trio.current_time() - began < 4.5)
            nursery.cancel_scope.cancel()

trio.run(main)
"""


@pytest.mark.real
@needs_namespaces
def test_the_kernel_tells_of_changes_and_they_are_damped():
    inside = ["unshare", "--net", sys.executable, "-c", textwrap.dedent(WATCHING)]
    done = subprocess.run(inside, capture_output=True, text=True, timeout=30)
    assert done.stdout.splitlines() == ["quiet True", "down []", "damped True ['eth7']", "at latest True"], done.stderr


@pytest.fixture
def autojump_clock():
    return trio.testing.MockClock(autojump_threshold=0)
