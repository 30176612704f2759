"""The link: messages both ways, cancelled at any moment, in time, and altered by nobody."""

import random

import pytest
import trio
import trio.testing

from p2psync.edge.link import SEND_WITHIN, Link, LinkClosed
from p2psync.engine.encoding import Message
from p2psync.engine.messages import MAX_UNPROVEN, Chunk, Close, Heads, Hello, Introduce, Ping, Records, Who
from p2psync.engine.noise import NotAuthentic
from p2psync.engine.session import LocalError
from p2psync.values.errors import Malformed, PeerError
from tests.edge.links import BIG, FEW, MANDATE, SMALL, Recorder, close_both, ending, linked, over_both, refused, said_hello, talking


@over_both
async def test_messages_arrive_in_order_both_ways(over: str) -> None:
    async with talking(over) as (one, other):
        messages: list[Message] = [SMALL, Records(1, (b"r" * 60_000,) * 4), SMALL, Records(1, (b"s",)), Records(1, (b"t" * 60_000,) * 2)]
        async with trio.open_nursery() as nursery:
            for sender, receiver in ((one, other), (other, one)):

                async def say(sender: Link = sender) -> None:
                    for message in messages:
                        await sender.send(message)

                nursery.start_soon(say)
                assert [await receiver.receive() for _ in messages] == messages
        assert one.bytes_out == other.bytes_in
        assert other.bytes_out == one.bytes_in > 300_000
        await close_both(one, other)


@over_both
async def test_bulk_in_both_directions_at_once_while_pings_are_answered(over: str) -> None:
    async with talking(over) as links:
        count = 40

        async def give(link: Link) -> None:
            for number in range(count):
                await link.send_bulk(BIG)
                if number % 8 == 0:
                    await link.send(Ping(bytes(8)))

        async def take(link: Link) -> None:
            assert [await link.receive() for _ in range(count)] == [BIG] * count

        with trio.fail_after(20):
            async with trio.open_nursery() as alive:
                for link in links:
                    alive.start_soon(link.keep_alive)
                async with trio.open_nursery() as nursery:
                    for link in links:
                        nursery.start_soon(give, link)
                        nursery.start_soon(take, link)
                alive.cancel_scope.cancel()


async def test_a_small_message_waits_for_one_big_one_at_most() -> None:
    streams = trio.testing.lockstep_stream_pair()  # nothing is buffered: a send lasts until it was read
    one, other = await said_hello(streams)
    arrived: list[type[Message]] = []
    async with trio.open_nursery() as nursery:
        for _ in range(6):
            nursery.start_soon(one.send_bulk, BIG)
        await trio.testing.wait_all_tasks_blocked()
        for _ in range(3):
            nursery.start_soon(one.send, SMALL)
        await trio.testing.wait_all_tasks_blocked()
        arrived += [type(await other.receive()) for _ in range(9)]
    assert arrived[:4] == [Chunk, Heads, Heads, Heads]
    assert arrived[4:] == [Chunk] * 5


async def test_a_small_content_ahead_of_its_record_waits_for_one_piece_of_bulk_at_most() -> None:
    streams = trio.testing.lockstep_stream_pair()
    one, other = await said_hello(streams)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(one.send_bulk, *[BIG] * 6)
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(one.send, FEW)
        await trio.testing.wait_all_tasks_blocked()
        arrived = [await other.receive() for _ in range(7)]
    assert arrived == [BIG, FEW, *[BIG] * 5]


@pytest.mark.parametrize("seed", range(10))
async def test_receive_may_be_cancelled_at_any_moment(seed: int, autojump_clock: trio.testing.MockClock) -> None:
    client, server = trio.testing.memory_stream_pair()
    one, other = await said_hello((client, server))
    chance = random.Random(seed)
    wire: list[bytes] = []
    messages: list[Message] = [Records(1, (chance.randbytes(chance.choice([10, 300, 3000])),)) for _ in range(40)] + [BIG]

    async def slowly() -> None:
        """What ``one`` says reaches ``other`` in pieces, one piece a second."""
        data = b"".join(wire)
        while data:
            size = chance.choice([1, 2, 100, 1000, 50_000])
            await client.send_all(data[:size])
            data = data[size:]
            await trio.sleep(1)

    one._stream = Recorder(wire)
    for message in messages:
        await one.send(message)
    received: list[Message] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(slowly)
        while len(received) < len(messages):
            with trio.move_on_after(chance.choice([0, 0.5, 1, 1.5])):
                received.append(await other.receive())
    assert received == messages


async def test_a_send_that_is_cancelled_half_way_ends_the_link() -> None:
    async with talking("tcp") as (one, other):

        async def pour() -> None:
            while True:
                await one.send(BIG)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(pour)
            await trio.testing.wait_all_tasks_blocked(0.05)
            nursery.cancel_scope.cancel()
        with pytest.raises(LinkClosed, match="cut off"):
            await one.send(SMALL)
        assert "cut off" in str(await ending(one))
        assert (await ending(other)).said is None


async def test_a_send_that_is_cancelled_before_its_turn_harms_nothing() -> None:
    one, other = await said_hello(trio.testing.lockstep_stream_pair())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(one.send, BIG)
        await trio.testing.wait_all_tasks_blocked()
        with trio.move_on_after(0):
            await one.send(SMALL)
        with trio.CancelScope() as scope:
            scope.cancel()
            await one.send(BIG)
        nursery.start_soon(one.send, SMALL)
        assert await other.receive() == BIG
        assert await other.receive() == SMALL


async def test_a_peer_that_takes_nothing_is_given_up(autojump_clock: trio.testing.MockClock) -> None:
    one, _ = await said_hello(trio.testing.lockstep_stream_pair())
    began = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(refused, lambda: one.send(SMALL))
        nursery.start_soon(refused, lambda: one.send(SMALL))  # whoever waits behind it learns it at the same time
        assert "took nothing" in str(await ending(one))
    assert trio.current_time() - began == SEND_WITHIN


async def test_somebody_unknown_may_say_so_much_and_no_more() -> None:
    one, other = await linked(trio.testing.memory_stream_pair())
    proof = Introduce(MANDATE, (bytes(50_000),))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(one.send, proof)
        assert await other.receive() == proof
        nursery.start_soon(one.send, Who(MANDATE))
        assert await other.receive() == Who(MANDATE)
        nursery.start_soon(one.send, proof)
        with pytest.raises(Malformed, match="not known yet"):
            await other.receive()
    assert MAX_UNPROVEN < 2 * 50_000


async def test_a_hello_may_follow_the_longest_introduction() -> None:
    one, other = await linked(trio.testing.memory_stream_pair())
    messages: list[Message] = [Introduce(MANDATE, (bytes(65_490),)), Hello(1, 1, 0, 0, bytes(16 * 1024), "test")]
    async with trio.open_nursery() as nursery:
        for message in messages:
            nursery.start_soon(one.send, message)
            assert await other.receive() == message


async def test_a_mistake_of_ours_is_no_fault_of_the_peer() -> None:
    one, other = await linked(trio.testing.memory_stream_pair())
    with pytest.raises(LocalError):
        await one.send(SMALL)
    with pytest.raises(ValueError, match="Close"):
        await other.send(Close(300))
    await one.close()
    assert "without a goodbye" in str(await ending(other))


async def test_an_altered_byte_on_the_way_ends_the_link() -> None:
    client, server = trio.testing.memory_stream_pair()
    one, other = await said_hello((client, server))
    wire: list[bytes] = []
    one._stream = Recorder(wire)
    await one.send(SMALL)
    await client.send_all(wire[0][:-1] + bytes([wire[0][-1] ^ 1]))
    with pytest.raises(NotAuthentic):
        await other.receive()
    with pytest.raises(PeerError):
        await other.receive()
