"""The same between machines of their own: network namespaces on one bridge, without a default route. Needs root; nothing leaves them."""

import json
import os
import queue
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(sys.platform != "linux" or os.geteuid() != 0 or not shutil.which("ip"), reason="needs root and network namespaces"),
]

PATIENCE_S = 12
PEER = Path(__file__).with_name("lan_peer.py")
EXCLUSIVE = (
    "import socket, sys; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.bind(('', 5353)); print(1, flush=True); sys.stdin.read()"
)


class Lan:
    """A switch and machines on it, each a namespace with one interface, eth0."""

    def __init__(self) -> None:
        self.switch = self.namespace("switch")
        ip("-n", self.switch, "link", "add", "br0", "type", "bridge")
        ip("-n", self.switch, "link", "set", "br0", "up")

    @staticmethod
    def namespace(name: str) -> str:
        full = f"p2ptest-{os.getpid()}-{name}"
        ip("netns", "add", full)
        ip("-n", full, "link", "set", "lo", "up")
        return full

    def machine(self, name: str, address: str = "", *, interface: str = "eth0") -> str:
        """A machine with this IPv4 address, or with that of the IPv6 link alone."""
        full = self.namespace(name)
        ip("link", "add", interface, "netns", full, "type", "veth", "peer", "name", f"to-{name}", "netns", self.switch)
        ip("-n", self.switch, "link", "set", f"to-{name}", "master", "br0", "up")
        if address:
            ip("-n", full, "address", "add", address, "dev", interface)
        ip("-n", full, "link", "set", interface, "up")
        return full


class Peer:
    """lan_peer.py, running on one of the machines."""

    def __init__(self, machine: str, name: str, interfaces: str = "eth0", program: list[str] | None = None) -> None:
        command = ["ip", "netns", "exec", machine, sys.executable, *(program or [str(PEER), name, interfaces])]
        environ = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environ)
        self.lines: queue.Queue[Any] = queue.Queue()
        self.reader = threading.Thread(target=self._read)
        self.reader.start()

    def _read(self) -> None:
        assert self.process.stdout
        for line in self.process.stdout:
            self.lines.put(json.loads(line))

    def until(self, enough: Callable[[Any], bool]) -> Any:
        while True:
            said = self.lines.get(timeout=PATIENCE_S)
            if enough(said):
                return said

    def until_sees(self, name: str) -> Any:
        return self.until(lambda said: said.get("seen") == name)

    def everything(self) -> list[Any]:
        return [self.lines.get() for _ in range(self.lines.qsize())]

    def stop(self) -> int:
        """Its exit code."""
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.close()
        code = self.process.wait(PATIENCE_S)
        self.reader.join()
        self.process.stdout.close()
        return code


@pytest.fixture
def lan() -> Iterator[Lan]:
    try:
        yield Lan()
    finally:
        listed = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=True).stdout.split()
        for name in listed:
            if name.startswith(f"p2ptest-{os.getpid()}-"):
                ip("netns", "delete", name)


@pytest.fixture
def start() -> Iterator[Callable[..., Peer]]:
    peers = []

    def start(*args: Any, **kwargs: Any) -> Peer:
        peers.append(Peer(*args, **kwargs))
        return peers[-1]

    try:
        yield start
    finally:
        codes = [peer.stop() for peer in peers]
    assert set(codes) <= {0}


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


def test_two_machines_find_each_other(lan, start):
    anna = start(lan.machine("anna", "192.0.2.1/24"), "anna")
    bert = start(lan.machine("bert", "192.0.2.2/24"), "bert")
    assert "192.0.2.2" in anna.until_sees("bert")["addresses"]
    assert "192.0.2.1" in bert.until_sees("anna")["addresses"]


def test_the_addresses_of_the_link_alone_are_enough(lan, start):
    anna = start(lan.machine("anna"), "anna")
    bert = start(lan.machine("bert"), "bert")
    for one, other in ((anna, "bert"), (bert, "anna")):
        (address,) = one.until_sees(other)["addresses"]
        assert address.startswith("fe80::")
        assert address.endswith("%eth0")


def test_an_interface_that_comes_later_is_used(lan, start):
    anna = start(lan.machine("anna", "192.0.2.1/24"), "anna")
    machine = lan.machine("bert")
    ip("-n", machine, "link", "set", "eth0", "down")
    bert = start(machine, "bert")
    bert.until(lambda said: said.get("problem") == "no-network")
    ip("-n", machine, "address", "add", "192.0.2.2/24", "dev", "eth0")
    ip("-n", machine, "link", "set", "eth0", "up")
    bert.until(lambda said: "problem" in said and said["problem"] is None)
    bert.until_sees("anna")
    anna.until(lambda said: said.get("seen") == "bert" and "192.0.2.2" in said["addresses"])


def test_on_another_network_the_names_are_others(lan, start):
    machine = lan.machine("bert", "192.0.2.2/24")
    ip("netns", "exec", machine, "sysctl", "-qw", "net.ipv6.conf.eth0.disable_ipv6=1")
    anna = start(lan.machine("anna", "192.0.2.1/24"), "anna")
    start(machine, "bert")
    first = anna.until_sees("bert")
    ip("-n", machine, "address", "flush", "dev", "eth0")
    ip("-n", machine, "address", "add", "192.0.2.77/24", "dev", "eth0")
    second = anna.until(lambda said: said.get("seen") == "bert" and "192.0.2.77" in said["addresses"])
    assert second["instance"] != first["instance"]


def test_only_the_chosen_interfaces_speak_and_hear(lan, start):
    machine = lan.machine("bert", "192.0.2.2/24")
    anna = start(lan.machine("anna", "192.0.2.1/24"), "anna")
    outward, inward, second = start(machine, "outward"), start(machine, "inward", "lo"), start(machine, "second", "lo")
    anna.until_sees("outward")
    outward.until_sees("anna")
    inward.until_sees("second")
    second.until_sees("inward")
    assert not {said.get("seen") for said in [*anna.everything(), *outward.everything()]} & {"inward", "second"}
    assert not {said.get("seen") for said in [*inward.everything(), *second.everything()]} & {"anna", "outward"}


def test_two_daemons_on_one_machine_share_its_lan(lan, start):
    machine = lan.machine("bert", "192.0.2.2/24")
    one, two = start(machine, "one"), start(machine, "two")
    assert "192.0.2.2" in one.until_sees("two")["addresses"]
    two.until_sees("one")


def test_a_port_that_another_program_keeps_to_itself_is_a_problem(lan, start):
    machine = lan.machine("bert", "192.0.2.2/24")
    start(machine, "", program=["-c", EXCLUSIVE]).lines.get(timeout=PATIENCE_S)
    bert = start(machine, "bert")
    bert.until(lambda said: said.get("problem") == "cannot-discover")
