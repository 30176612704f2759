"""A link is kept alive, a dead one noticed, and a silent stranger shown out."""

import pytest
import trio
import trio.testing

from p2psync.edge.link import Link, LinkClosed
from p2psync.engine.encoding import Message
from p2psync.engine.hello import Gate
from p2psync.engine.messages import Join, Pending, Ping, Pong, Welcome
from p2psync.engine.pulse import DEAD_AFTER, PING_AFTER, PROVE_WITHIN
from tests.edge.links import GUESTS, HELLO, MANDATE, MEMBERS, SECRET, SMALL, ending, linked, refused, said_hello


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


async def test_a_flood_of_questions_gets_few_answers() -> None:
    one, other = await said_hello(trio.testing.memory_stream_pair())
    for number in range(1000):
        await one.send(Ping(number.to_bytes(8, "big")))
    await one.send(SMALL)
    assert await other.receive() == SMALL
    assert other._due == {Pong: Pong((999).to_bytes(8, "big"))}
