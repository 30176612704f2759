"""Two links to each other, for the tests of what goes over them."""

import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from random import Random

import pytest
import trio
import trio.testing

from p2psync.edge.link import Link, LinkClosed, accept, connect
from p2psync.engine.hello import Gate
from p2psync.engine.messages import Chunk, Heads, Hello, Open
from p2psync.values.digest import Digest
from p2psync.values.keys import DeviceKeys, GroupKeys, GuestKeys, Secret, gate_key
from p2psync.values.names import InviteId, MandateId

MANDATE, INVITE, SECRET = MandateId(b"M" * 32), InviteId(b"invitation-of-16"), Secret(b"K" * 32)
MEMBERS = Gate.for_members(MANDATE, 0, GroupKeys.of(SECRET, MANDATE))
GUESTS = Gate.for_guests(MANDATE, INVITE, GuestKeys.of(gate_key(SECRET, MANDATE, INVITE)))
ANNA, BEAT = (DeviceKeys(*(Secret(bytes([seed, part]) * 16) for part in range(3))) for seed in (1, 2))

HELLO, OPEN = Hello(1, 1, 0, 0, b"", "test"), Open(1, bytes(16))
BIG = Chunk(1, Digest(b"d" * 32), Random(7).randbytes(300_000))
FEW = Chunk(1, Digest(b"f" * 32), b"one")
SMALL = Heads(1, ())

Streams = tuple[trio.abc.Stream, trio.abc.Stream]
over_both = pytest.mark.parametrize("over", ["memory", "tcp"])


def candidates(invite: InviteId) -> Iterable[Gate]:
    """What a member answers to."""
    return [MEMBERS, *([GUESTS] if invite == INVITE else [])]


@asynccontextmanager
async def streams(over: str) -> AsyncIterator[Streams]:
    """Two ends of a stream, in memory or over the loopback interface."""
    if over == "memory":
        yield trio.testing.memory_stream_pair()
        return
    listener = (await trio.open_tcp_listeners(0, host="127.0.0.1"))[0]
    async with listener:
        client = await trio.open_tcp_stream("127.0.0.1", listener.socket.getsockname()[1])
        async with client, await listener.accept() as server:
            yield client, server


async def linked(ends: Streams, gate: Gate = MEMBERS) -> tuple[Link, Link]:
    links: list[Link] = []

    async def host() -> None:
        links.append(await accept(ends[1], BEAT, candidates, nonce=secrets.token_bytes))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(host)
        caller = await connect(ends[0], ANNA, gate, nonce=secrets.token_bytes)
    return caller, links[0]


async def said_hello(ends: Streams) -> tuple[Link, Link]:
    """Two links that have greeted each other and opened handle 1 in both directions."""
    links = await linked(ends)
    async with trio.open_nursery() as nursery:
        for sender, receiver in (links, links[::-1]):
            nursery.start_soon(sender.send, HELLO)
            assert await receiver.receive() == HELLO
        for sender, receiver in (links, links[::-1]):
            nursery.start_soon(sender.send, OPEN)
            assert await receiver.receive() == OPEN
    return links


@asynccontextmanager
async def talking(over: str = "memory") -> AsyncIterator[tuple[Link, Link]]:
    """Two links that have greeted each other; what is left of them at the end is closed."""
    async with streams(over) as ends:
        yield await said_hello(ends)


async def ending(link: Link) -> LinkClosed:
    with pytest.raises(LinkClosed) as closed:
        while True:
            await link.receive()
    return closed.value


async def refused(act: Callable[[], Awaitable[None]]) -> None:
    with pytest.raises(LinkClosed):
        await act()


async def close_both(one: Link, other: Link) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(one.close)
        nursery.start_soon(other.close)


class Recorder(trio.abc.Stream):
    """Keeps what is sent."""

    def __init__(self, wire: list[bytes]) -> None:
        self.wire = wire

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        self.wire.append(bytes(data))

    async def wait_send_all_might_not_block(self) -> None: ...

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        return b""

    async def aclose(self) -> None: ...
