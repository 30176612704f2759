"""How links end: with a goodbye that arrives, or with the reason for its absence."""

import pytest
import trio
import trio.testing

from p2psync.edge.link import GOODBYE_WITHIN, LinkClosed
from p2psync.engine.messages import Close, CloseCode
from p2psync.engine.session import OutOfTurn
from tests.edge.links import BIG, HELLO, OPEN, SMALL, close_both, ending, linked, over_both, refused, said_hello, talking


@over_both
async def test_a_goodbye_arrives_with_its_reason(over: str) -> None:
    async with talking(over) as (one, other):
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


async def test_a_goodbye_arrives_at_one_that_is_busy_sending() -> None:
    async with talking("tcp") as (one, other):

        async def pour() -> None:
            while True:
                await other.send(BIG)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(refused, pour)
            await trio.testing.wait_all_tasks_blocked(0.01)
            nursery.start_soon(one.close, CloseCode.REVOKED)
            assert (await ending(other)).said == Close(CloseCode.REVOKED)


@over_both
async def test_a_goodbye_while_somebody_receives(over: str) -> None:
    async with talking(over) as (one, other), trio.open_nursery() as nursery:
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


async def test_an_end_without_goodbye_is_told_as_such() -> None:
    async with talking("tcp") as (one, other):
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
