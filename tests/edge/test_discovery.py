"""Machines find each other by mDNS: here two or three of them on the loopback of this one, with real packets."""

import os
import socket
import struct
import threading
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from functools import partial

import pytest
import trio
from zeroconf import DNSAddress, DNSIncoming, DNSOutgoing, DNSPointer, DNSService, DNSText  # type: ignore[attr-defined]

from p2psync.edge import discovery as discovery_module
from p2psync.edge import responder as responder_module
from p2psync.edge.discovery import Announcement, CannotDiscover, Discovery, NoNetwork, Seen
from p2psync.edge.interfaces import select
from p2psync.edge.responder import Responder


def txt(marker: bytes) -> bytes:
    """A record that no stranger announces."""
    value = b"x=" + marker + b"-%d" % os.getpid()
    return bytes([len(value)]) + value


class Names:
    """Names in a known order instead of random ones: 00000100, 0000000000000101, …"""

    def __init__(self, first: int) -> None:
        self.next = first

    def __call__(self, size: int) -> bytes:
        self.next += 1
        return (os.getpid() * 65536 + self.next).to_bytes(8, "big")[-size:]


async def until_seen(discovery: Discovery, record: bytes) -> Seen:
    with trio.fail_after(10):
        while True:
            for seen in await discovery.seen():
                if seen.txt == record:
                    return seen


@pytest.fixture(autouse=True)
def hurry(monkeypatch):
    monkeypatch.setattr(discovery_module, "_PAUSE_S", 0.05)


@pytest.fixture
async def here(nursery):
    discovery = Discovery(("lo",))
    await nursery.start(discovery.run)
    return discovery


@pytest.fixture
async def there(nursery):
    discovery = Discovery(("lo",))
    await nursery.start(discovery.run)
    return discovery


async def test_two_daemons_on_one_machine_find_each_other(here, there):
    here.announce(lambda: Announcement(txt(b"here"), 1001))
    there.announce(lambda: Announcement(txt(b"there"), 1002))
    found = await until_seen(here, txt(b"there"))
    assert (found.addresses, found.port) == (("127.0.0.1",), 1002)
    assert (await until_seen(there, txt(b"here"))).port == 1001
    assert here.problem is None
    assert [interface.name for interface in here.interfaces] == ["lo"]


async def test_who_listens_hears_it_within_milliseconds(here, there):
    there.announce(lambda: Announcement(txt(b"ready"), 1001))
    await until_seen(here, txt(b"ready"))
    here.announce(lambda: Announcement(txt(b"hello"), 1002))
    began = trio.current_time()
    await until_seen(there, txt(b"hello"))
    assert trio.current_time() - began < 0.3


async def test_who_comes_later_asks(here, nursery):
    here.announce(lambda: Announcement(txt(b"first"), 1001))
    second = Discovery(("lo",))
    with trio.move_on_after(0.7):  # the announcements of the first are over
        await here.seen()
    await nursery.start(second.run)
    await until_seen(second, txt(b"first"))


async def test_nobody_sees_itself_nor_the_same_thing_twice(here, there):
    here.announce(lambda: Announcement(txt(b"here"), 1001))
    there.announce(lambda: Announcement(txt(b"there"), 1002))
    await until_seen(here, txt(b"there"))
    again = []
    with trio.move_on_after(1.2):
        while True:
            again += [seen for seen in await here.seen() if seen.txt in (txt(b"here"), txt(b"there"))]
    assert again == []


async def test_a_new_announcement_reaches_the_others_under_new_names(here, there):
    here.announce(lambda: Announcement(txt(b"one"), 1001))
    one = await until_seen(there, txt(b"one"))
    here.announce(lambda: Announcement(txt(b"two"), 1001))
    two = await until_seen(there, txt(b"two"))
    assert one.instance != two.instance


async def test_a_burst_of_acts_is_one_announcement(here, there):
    made = []

    def make(n: int) -> Announcement:
        made.append(n)
        return Announcement(txt(b"%d" % n), 1001)

    for n in range(50):
        here.announce(partial(make, n))
    await until_seen(there, txt(b"49"))
    assert made == [49]


async def test_it_is_renewed_by_itself(nursery, there, monkeypatch):
    monkeypatch.setattr(discovery_module, "_RENEW_S", 0.5)
    monkeypatch.setattr(discovery_module, "_REPEAT_S", 0.1)
    here, count = Discovery(("lo",)), iter(range(100))
    here.announce(lambda: Announcement(txt(b"renewed-%d" % next(count)), 1001))
    await nursery.start(here.run)
    await until_seen(there, txt(b"renewed-1"))


@dataclass
class Heard:
    """One record in one packet, as anybody on the network can hear it."""

    name: str
    type: int
    ttl: int
    packet: int


class Wire:
    """Everything that is sent by mDNS over the loopback."""

    def __init__(self) -> None:
        self.packets: list[bytes] = []
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        self.socket.bind(("224.0.0.251", 5353))
        group = socket.inet_aton("224.0.0.251") + socket.inet_aton("127.0.0.1")
        self.socket.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, group)
        self.socket.setblocking(False)

    async def listen(self) -> None:
        while True:
            await trio.lowlevel.wait_readable(self.socket)
            self.packets.append(self.socket.recv(9000))

    def of(self, *names: str) -> list[Heard]:
        """The records that speak of one of these names, in the order in which they were sent."""
        found = []
        for number, packet in enumerate(self.packets):
            message = DNSIncoming(packet)
            for record in message.answers() if message.is_response() else []:
                if any(name in f"{record.name} {getattr(record, 'alias', '')}" for name in names):
                    found.append(Heard(f"{record.name} {getattr(record, 'alias', '')}", record.type, int(record.ttl), number))
        return found


@pytest.fixture
async def wire(nursery) -> AsyncIterator[Wire]:
    wire = Wire()
    with wire.socket:
        nursery.start_soon(wire.listen)
        yield wire
        nursery.cancel_scope.cancel()


async def wait_for(condition) -> None:
    with trio.fail_after(10):
        while not condition():
            await trio.sleep(0.01)


async def test_what_is_on_the_air_is_short_lived_random_and_taken_back(nursery, wire):
    names = Names(0x100)
    here = Discovery(("lo",), nonce=names)
    first, host = names.__class__(0x100)(4).hex(), f"{os.getpid() * 65536 + 0x102:016x}"
    second = f"{(os.getpid() * 65536 + 0x103) % 2**32:08x}"
    here.announce(lambda: Announcement(txt(b"one"), 1001))
    await nursery.start(here.run)
    await wait_for(lambda: len(wire.of(first)) >= 3)
    here.announce(lambda: Announcement(txt(b"two"), 1001))
    await wait_for(lambda: len([heard for heard in wire.of(first) if heard.ttl == 0]) >= 9)
    here.stop()
    await wait_for(lambda: len([heard for heard in wire.of(second) if heard.ttl == 0]) >= 9)

    records = wire.of(first, host)
    assert {heard.type for heard in records} >= {1, 12, 16, 33}  # A, PTR, TXT, SRV
    assert {heard.ttl for heard in records} == {120, 0}
    new_name_at = wire.of(second)[0].packet
    goodbye_at = next(heard.packet for heard in records if heard.ttl == 0)
    assert new_name_at < goodbye_at
    assert all(heard.ttl == 0 for heard in records if heard.packet >= goodbye_at)
    hosts = {socket.gethostname().encode(), socket.getfqdn().encode()} - {b"localhost"}
    assert not [packet for packet in wire.packets if any(name in packet for name in hosts if len(name) > 3)]


async def test_after_its_goodbye_a_name_is_never_heard_again(wire):
    names = f"{(os.getpid() * 65536 + 0x401) % 2**32:08x}", f"{(os.getpid() * 65536 + 0x402) % 2**32:08x}"
    responder = await trio.to_thread.run_sync(Responder, select(("lo",)), lambda seen: None)
    try:
        for name in names:  # the second comes while the library still repeats the first
            await trio.to_thread.run_sync(responder.announce, txt(b"fast"), 1001, name, 2 * name)
        await wait_for(lambda: len({heard.packet for heard in wire.of(names[1])}) >= 3)
        ttls = [heard.ttl for heard in wire.of(names[0])]
        assert ttls == sorted(ttls, reverse=True)
        assert ttls[-1] == 0
    finally:
        await trio.to_thread.run_sync(responder.close)


async def test_nothing_shared_is_nothing_announced(nursery, wire):
    here = Discovery(("lo",), nonce=Names(0x200))
    name = f"{(os.getpid() * 65536 + 0x201) % 2**32:08x}"
    shared: list[Announcement | None] = [Announcement(txt(b"shared"), 1001)]
    here.announce(lambda: shared[-1])
    await nursery.start(here.run)
    await wait_for(lambda: wire.of(name))
    shared.append(None)
    here.announce(lambda: shared[-1])
    await wait_for(lambda: wire.of(name)[-1].ttl == 0)


async def test_it_is_repeated_before_it_is_forgotten(nursery, wire, monkeypatch):
    monkeypatch.setattr(discovery_module, "_REPEAT_S", 0.1)
    here = Discovery(("lo",), nonce=Names(0x300))
    name = f"{(os.getpid() * 65536 + 0x301) % 2**32:08x}"
    here.announce(lambda: Announcement(txt(b"again"), 1001))
    await nursery.start(here.run)
    await wait_for(lambda: len({heard.packet for heard in wire.of(name)}) > 6)
    assert {heard.ttl for heard in wire.of(name)} == {120}


SERVICE = "_p2psync._tcp.local."


def packet(instance: str, record: bytes, *, address="127.0.0.1", port=1001, ttl=120, type_=SERVICE) -> bytes:
    """What a stranger can make up."""
    out = DNSOutgoing(0x8400)
    name, host = f"{instance}.{type_}", f"host-{instance}.local."
    out.add_answer_at_time(DNSPointer(type_, 12, 1, ttl, name), 0)
    out.add_answer_at_time(DNSService(name, 33, 0x8001, ttl, 0, 0, port, host), 0)
    out.add_answer_at_time(DNSText(name, 16, 0x8001, ttl, record), 0)
    out.add_answer_at_time(DNSAddress(host, 1, 0x8001, ttl, socket.inet_aton(address)), 0)
    return out.packets()[0]


class Receiver:
    """A responder of which the packets of strangers are put into the library's hands."""

    def __init__(self) -> None:
        self.seen: list[Seen] = []
        self.responder = Responder(select(("lo",)), self.seen.append)

    def hears(self, *packets: bytes) -> list[Seen]:
        """What is told on hearing these."""
        self.seen.clear()
        protocol = self.responder._zeroconf.engine.protocols[0]

        async def receive() -> None:
            for data in packets:
                protocol.datagram_received(data, ("127.0.0.1", 5353))

        self.responder._run(receive())
        ours = ("f00d", "aaaa")
        return [seen for seen in self.seen if seen.instance.startswith(ours)]


@pytest.fixture
def receiver():
    receiver = Receiver()
    yield receiver
    receiver.responder.close()


def test_a_foreign_announcement_is_read_as_it_is(receiver):
    assert receiver.hears(packet("f00d0001", b"\x03v=1")) == [Seen("f00d0001", ("127.0.0.1",), 1001, b"\x03v=1")]
    assert receiver.hears(packet("f00d0001", b"\x03v=1", ttl=121)) == []
    assert receiver.hears(packet("f00d0001", b"\x03v=2")) == [Seen("f00d0001", ("127.0.0.1",), 1001, b"\x03v=2")]


def test_who_says_goodbye_and_comes_back_is_told_again(receiver):
    assert receiver.hears(packet("f00d0001", b"\x03v=1"))
    receiver.hears(packet("f00d0001", b"\x03v=1", ttl=0))
    assert receiver.hears(packet("f00d0001", b"\x03v=1", ttl=119))


@pytest.mark.parametrize(
    "hostile",
    [
        packet("f00d0001", b"\x03v=1", address="192.0.2.1"),
        packet("f00d0001", b"\x03v=1", address="224.0.0.251"),
        packet("f00d0001", b"\x03v=1", address="8.8.8.8"),
        packet("f00d0001", b"\x03v=1", port=0),
        packet("f00d0001", b"\xff" * 1400),
        packet("F00D0001", b"\x03v=1"),
        packet("f00d000", b"\x03v=1"),
        packet("f00d0001x", b"\x03v=1"),
        packet("f00d0001", b"\x03v=1", type_="_ipp._tcp.local."),
        packet("f00d0001.f00d0002", b"\x03v=1"),
        packet("f00d\u00e9", b"\x03v=1"),
        packet("f00d0001", b"\x03v=1")[:-9],
        b"",
        b"\x84" * 12,
        os.urandom(500),
        b"\0\0\x84\0" + b"\0\0\xff\xff\0\0\0\0" + b"\xc0\x0c" * 300,
    ],
)
def test_hostile_packets_tell_nothing_and_break_nothing(receiver, hostile):
    assert receiver.hears(hostile) == []
    assert receiver.hears(packet("aaaa0001", b"\x03v=1"))


def test_an_announcement_in_two_packets_is_told_when_it_is_whole(receiver):
    whole = DNSIncoming(packet("f00d0001", b"\x03v=1")).answers()
    packets = []
    for record in whole:
        out = DNSOutgoing(0x8400)
        out.add_answer_at_time(record, 0)
        packets += out.packets()
    assert len(receiver.hears(*packets[:-1])) == 0
    assert len(receiver.hears(packets[-1])) == 1


def test_a_flood_is_bounded_and_what_was_passed_over_is_told_later(receiver, monkeypatch):
    monkeypatch.setattr(responder_module, "_LOOK_AGAIN_S", 1.05)
    flood = [packet(f"f00d{n:04x}", b"\x03v=1") for n in range(1000)]
    began = time.monotonic()
    told = len(receiver.hears(*flood))
    assert told <= responder_module.MAX_A_SECOND * (1 + int(time.monotonic() - began) + 1)
    assert len(receiver.responder._told) <= responder_module.MAX_PEERS
    deadline = time.monotonic() + 5
    while len(receiver.seen) <= told and time.monotonic() < deadline:
        time.sleep(0.05)
    assert len(receiver.seen) > told


def test_only_the_latest_machines_are_remembered(receiver, monkeypatch):
    monkeypatch.setattr(responder_module, "MAX_A_SECOND", 10**6)
    receiver.hears(*(packet(f"f00d{n:04x}", b"\x03v=1") for n in range(600)))
    assert len(receiver.responder._told) == responder_module.MAX_PEERS


async def test_without_a_network_the_status_says_so(nursery):
    here = Discovery(("none0", "none1"))
    here.announce(lambda: Announcement(txt(b"nobody"), 1001))
    await nursery.start(here.run)
    await wait_for(lambda: here.problem)
    assert isinstance(here.problem, NoNetwork)
    assert "none0, none1" in str(here.problem)


async def test_when_mdns_fails_the_status_says_so_and_it_is_tried_again(nursery, there, monkeypatch):
    monkeypatch.setattr(discovery_module, "_RETRY_S", 0.05)
    broken = True

    def responder(*args):
        if broken:
            raise OSError(98, "Address already in use")
        return Responder(*args)

    monkeypatch.setattr(discovery_module, "Responder", responder)
    here = Discovery(("lo",))
    here.announce(lambda: Announcement(txt(b"after all"), 1001))
    await nursery.start(here.run)
    await wait_for(lambda: here.problem)
    assert isinstance(here.problem, CannotDiscover)
    assert "Address already in use" in str(here.problem)
    broken = False
    await until_seen(there, txt(b"after all"))
    assert here.problem is None


async def test_when_the_library_s_thread_ends_it_is_replaced(nursery, there, monkeypatch):
    monkeypatch.setattr(discovery_module, "_RETRY_S", 0.05)
    monkeypatch.setattr(discovery_module, "_REPEAT_S", 0.05)
    here, count = Discovery(("lo",)), iter(range(100))
    here.announce(lambda: Announcement(txt(b"life-%d" % next(count)), 1001))
    await nursery.start(here.run)
    await until_seen(there, txt(b"life-0"))
    assert here._responder
    loop = here._responder._loop
    loop.call_soon_threadsafe(loop.stop)
    await until_seen(there, txt(b"life-1"))


@pytest.mark.parametrize("after", [0, 0.0005, 0.002, 0.005, 0.02, 0.1, 0.5])
async def test_it_can_be_cancelled_at_any_moment_and_leaves_no_thread(after):
    before = set(threading.enumerate())
    with trio.move_on_after(after):
        here = Discovery(("lo",))
        here.announce(lambda: Announcement(txt(b"short"), 1001))
        await here.run()
    left = [thread.name for thread in set(threading.enumerate()) - before if not thread.name.startswith("Trio thread")]
    assert left == []


async def test_a_stop_does_not_wait_for_a_thread_that_hangs(nursery, monkeypatch):
    monkeypatch.setattr(discovery_module, "_GOODBYE_S", 0.2)
    here, done = Discovery(("lo",)), trio.Event()
    hang = threading.Event()

    async def run(task_status):
        await here.run(task_status=task_status)
        done.set()

    await nursery.start(run)
    await wait_for(lambda: here._responder and here._responder.alive)
    assert here._responder
    here._responder._loop.call_soon_threadsafe(hang.wait)
    here.stop()
    with trio.fail_after(2):
        await done.wait()
    hang.set()


async def test_the_goodbye_takes_a_quarter_of_a_second():
    here = Discovery(("lo",))
    here.announce(lambda: Announcement(txt(b"bye"), 1001))
    async with trio.open_nursery() as nursery:
        await nursery.start(here.run)
        await wait_for(lambda: here._responder and here._responder._mine)
        began = trio.current_time()
        here.stop()
    assert trio.current_time() - began < 1


def test_strangers_on_interfaces_that_were_not_chosen_are_kept_out(receiver):
    readers = receiver.responder._zeroconf.engine.readers
    everything = [reader.sock.getsockopt(socket.IPPROTO_IP, 49) for reader in readers]
    assert struct.pack("i", 0) not in everything
    assert set(everything) == {0}
