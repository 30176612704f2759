"""The link: messages both ways, cancelled at any moment, kept alive, and one reason when it ends."""

import random
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
import trio
import trio.testing

from p2psync.edge.link import GOODBYE_WITHIN, SEND_WITHIN, Link, LinkClosed, accept, connect
from p2psync.engine.encoding import Message
from p2psync.engine.hello import Gate
from p2psync.engine.messages import (
    MAX_UNPROVEN,
    Chunk,
    Close,
    CloseCode,
    Heads,
    Hello,
    Introduce,
    Join,
    Open,
    Pending,
    Ping,
    Pong,
    Records,
    Welcome,
    Who,
)
from p2psync.engine.noise import NotAuthentic
from p2psync.engine.pulse import DEAD_AFTER, PING_AFTER, PROVE_WITHIN
from p2psync.engine.session import LocalError, OutOfTurn
from p2psync.values.digest import Digest
from p2psync.values.errors import Malformed, PeerError
from p2psync.values.keys import DeviceKeys, GroupKeys, GuestKeys, Secret, gate_key
from p2psync.values.names import InviteId, MandateId

MANDATE, INVITE, SECRET = MandateId(b"M" * 32), InviteId(b"invitation-of-16"), Secret(b"K" * 32)
MEMBERS = Gate.for_members(MANDATE, 0, GroupKeys.of(SECRET, MANDATE))
GUESTS = Gate.for_guests(MANDATE, INVITE, GuestKeys.of(gate_key(SECRET, MANDATE, INVITE)))
ANNA, BEAT = (DeviceKeys(*(Secret(bytes([seed, part]) * 16) for part in range(3))) for seed in (1, 2))

HELLO, OPEN = Hello(1, 1, 0, 0, b"", "test"), Open(1, bytes(16))
BIG = Chunk(1, Digest(b"d" * 32), random.Random(7).randbytes(300_000))
SMALL = Heads(1, ())

Streams = tuple[trio.abc.Stream, trio.abc.Stream]


async def linked(streams: Streams, gate: Gate = MEMBERS) -> tuple[Link, Link]:
    links: list[Link] = []

    async def host() -> None:
        links.append(await accept(streams[1], BEAT, lambda _: [MEMBERS, GUESTS], nonce=secrets.token_bytes))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(host)
        caller = await connect(streams[0], ANNA, gate, nonce=secrets.token_bytes)
    return caller, links[0]


async def said_hello(streams: Streams) -> tuple[Link, Link]:
    """Two links that have greeted each other and opened handle 1 in both directions."""
    links = await linked(streams)
    async with trio.open_nursery() as nursery:
        for sender, receiver in (links, links[::-1]):
            nursery.start_soon(sender.send, HELLO)
            assert await receiver.receive() == HELLO
        for sender, receiver in (links, links[::-1]):
            nursery.start_soon(sender.send, OPEN)
            assert await receiver.receive() == OPEN
    return links


@pytest.fixture
async def tcp() -> AsyncIterator[Streams]:
    listener = (await trio.open_tcp_listeners(0, host="127.0.0.1"))[0]
    async with listener:
        client = await trio.open_tcp_stream("127.0.0.1", listener.socket.getsockname()[1])
        async with client, await listener.accept() as server:
            yield client, server


@pytest.fixture
async def memory() -> Streams:
    return trio.testing.memory_stream_pair()


@pytest.fixture(params=["memory", "tcp"])
async def streams(request: pytest.FixtureRequest, memory: Streams, tcp: Streams) -> Streams:
    return memory if request.param == "memory" else tcp


async def ending(link: Link) -> LinkClosed:
    with pytest.raises(LinkClosed) as closed:
        while True:
            await link.receive()
    return closed.value


async def test_messages_arrive_in_order_both_ways(streams: Streams) -> None:
    one, other = await said_hello(streams)
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


async def close_both(one: Link, other: Link) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(one.close)
        nursery.start_soon(other.close)


async def test_bulk_in_both_directions_at_once_while_pings_are_answered(streams: Streams) -> None:
    links = await said_hello(streams)
    count = 40

    async def give(link: Link) -> None:
        for number in range(count):
            await link.send(BIG)
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
            nursery.start_soon(one.send, BIG)
        await trio.testing.wait_all_tasks_blocked()
        for _ in range(3):
            nursery.start_soon(one.send, SMALL)
        await trio.testing.wait_all_tasks_blocked()
        arrived += [type(await other.receive()) for _ in range(9)]
    assert arrived[:4] == [Chunk, Heads, Heads, Heads]
    assert arrived[4:] == [Chunk] * 5


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


async def test_a_send_that_is_cancelled_half_way_ends_the_link(tcp: Streams) -> None:
    one, other = await said_hello(tcp)

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


async def test_a_dead_peer_is_noticed_within_thirty_seconds(autojump_clock: trio.testing.MockClock) -> None:
    one, other = await said_hello(trio.testing.memory_stream_pair())
    began = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(one.keep_alive)
        reason = await ending(one)
    assert trio.current_time() - began == DEAD_AFTER
    assert "nothing was heard" in str(reason)
    with pytest.raises(LinkClosed):
        await one.send(SMALL)
    pings = [other._take(), await quiet_read(other), list(other._due)]
    assert pings == [None, None, [Pong]]  # it was asked, and would have answered
    assert other.bytes_in - one.bytes_in == 2 * (2 + 256 + 16)  # twice: at 10 and at 20 seconds


async def quiet_read(link: Link) -> Message | None:
    await link._read()
    return link._take()


async def test_a_link_that_is_alive_stays_and_says_little(autojump_clock: trio.testing.MockClock) -> None:
    one, other = await said_hello(trio.testing.memory_stream_pair())
    before = one.bytes_in + one.bytes_out
    async with trio.open_nursery() as nursery:
        for link in (one, other):
            nursery.start_soon(link.keep_alive)
            nursery.start_soon(ending, link)
        await trio.sleep(3600)
        said = one.bytes_in + one.bytes_out - before
        await one.close()
    assert 3600 / PING_AFTER * 2 * 274 * 0.9 <= said <= 3600 / PING_AFTER * 4 * 274


async def test_who_does_not_listen_does_not_accuse_the_other_of_silence(autojump_clock: trio.testing.MockClock) -> None:
    one, other = await said_hello(trio.testing.memory_stream_pair())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(one.keep_alive)
        await trio.sleep(10 * DEAD_AFTER)  # a long write to a slow disk, say
        await other.send(SMALL)
        assert await one.receive() == SMALL
        nursery.cancel_scope.cancel()


async def test_time_of_listening_adds_up_over_many_short_calls(autojump_clock: trio.testing.MockClock) -> None:
    one, _ = await said_hello(trio.testing.memory_stream_pair())
    began = trio.current_time()

    async def now_and_then() -> None:
        while True:
            with trio.move_on_after(3):
                await one.receive()
            await trio.sleep(1)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(one.keep_alive)
        await refused(now_and_then)
    assert DEAD_AFTER <= trio.current_time() - began <= DEAD_AFTER * 4 / 3 + 20


@pytest.mark.parametrize("gate", [MEMBERS, GUESTS], ids=["member", "guest"])
async def test_who_does_not_say_what_it_wants_is_left_after_twenty_seconds(gate: Gate, autojump_clock: trio.testing.MockClock) -> None:
    _, host = await linked(trio.testing.memory_stream_pair(), gate)
    began = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(host.keep_alive)
        assert "who it is" in str(await ending(host))
    assert trio.current_time() - began == PROVE_WITHIN


async def test_a_guest_may_wait_for_an_owner_as_long_as_it_takes(autojump_clock: trio.testing.MockClock) -> None:
    guest, host = await linked(trio.testing.memory_stream_pair(), GUESTS)
    async with trio.open_nursery() as nursery:
        for link in (guest, host):
            nursery.start_soon(link.keep_alive)
        await guest.send(Join((b"chain",), b"device", b"join"))
        assert isinstance(await host.receive(), Join)
        await host.send(Pending())

        async def decide() -> None:
            with trio.move_on_after(3600):
                await host.receive()
            await host.send(Welcome(MANDATE, ((0, SECRET),), ()))
            assert await host.receive() == HELLO

        nursery.start_soon(decide)
        assert await guest.receive() == Pending()
        assert await guest.receive() == Welcome(MANDATE, ((0, SECRET),), ())
        await guest.send(HELLO)
        await trio.sleep(PROVE_WITHIN - 1)
        nursery.cancel_scope.cancel()


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


async def test_a_goodbye_arrives_with_its_reason(streams: Streams) -> None:
    one, other = await said_hello(streams)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(one.close, CloseCode.REVOKED, "since yesterday")
        end = await ending(other)
    assert end.said == Close(CloseCode.REVOKED, "since yesterday")
    assert "goodbye (revoked)" in str(end)
    for link in (one, other):
        with pytest.raises(LinkClosed):
            await link.send(SMALL)
        with pytest.raises(LinkClosed):
            await link.receive()
    await one.close()  # again is no error


async def test_a_goodbye_arrives_at_one_that_is_busy_sending(tcp: Streams) -> None:
    one, other = await said_hello(tcp)

    async def pour() -> None:
        while True:
            await other.send(BIG)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(refused, pour)
        await trio.testing.wait_all_tasks_blocked(0.01)
        nursery.start_soon(one.close, CloseCode.REVOKED)
        assert (await ending(other)).said == Close(CloseCode.REVOKED)


async def refused(act: Callable[[], Awaitable[None]]) -> None:
    with pytest.raises(LinkClosed):
        await act()


async def test_a_goodbye_while_somebody_receives(streams: Streams) -> None:
    one, other = await said_hello(streams)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ending, one)
        nursery.start_soon(ending, other)
        await trio.testing.wait_all_tasks_blocked(0.01)
        with trio.fail_after(GOODBYE_WITHIN / 2):
            await one.close()


async def test_both_say_goodbye_at_once(autojump_clock: trio.testing.MockClock) -> None:
    one, other = await said_hello(trio.testing.memory_stream_pair())
    began = trio.current_time()
    await close_both(one, other)
    assert trio.current_time() == began


async def test_a_goodbye_to_nobody_takes_two_seconds(autojump_clock: trio.testing.MockClock) -> None:
    for streams in (trio.testing.memory_stream_pair(), trio.testing.lockstep_stream_pair()):
        one, _ = await said_hello(streams)
        began = trio.current_time()
        await one.close()
        assert trio.current_time() - began == GOODBYE_WITHIN


async def test_close_is_immediate_when_cancelled() -> None:
    one, other = await said_hello(trio.testing.memory_stream_pair())
    with trio.CancelScope() as scope:
        scope.cancel()
        await one.close()
    assert scope.cancelled_caught
    assert "without a goodbye" in str(await ending(other))


async def test_an_end_without_goodbye_is_told_as_such(tcp: Streams) -> None:
    one, other = await said_hello(tcp)
    await trio.aclose_forcefully(one._stream)
    assert "without a goodbye" in str(await ending(other))


async def test_who_breaks_the_rules_is_told_why() -> None:
    one, other = await linked(trio.testing.memory_stream_pair())
    one.session.received(HELLO)  # this side believes that they have met, the other does not
    one.session.sent(HELLO)
    one.session.sent(OPEN)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(one.send, SMALL)
        with pytest.raises(OutOfTurn):
            await other.receive()
        with pytest.raises(OutOfTurn):  # and is not listened to any more
            await other.receive()
        nursery.start_soon(other.close, CloseCode.PROTOCOL)
        assert (await ending(one)).said == Close(CloseCode.PROTOCOL)


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


async def test_a_flood_of_questions_gets_few_answers() -> None:
    one, other = await said_hello(trio.testing.memory_stream_pair())
    for number in range(1000):
        await one.send(Ping(number.to_bytes(8, "big")))
    await one.send(SMALL)
    assert await other.receive() == SMALL
    assert other._due == {Pong: Pong((999).to_bytes(8, "big"))}
