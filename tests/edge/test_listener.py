"""The listener: members get in, strangers only as far as the door, and not too many of them."""

import errno
import logging
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing

from p2psync.edge.link import Link, LinkClosed, accept, connect
from p2psync.edge.listener import SUMMARY_EVERY, serve
from p2psync.engine.doorkeeper import Limits
from p2psync.engine.hello import GREETING_SIZE, HandshakeError
from p2psync.engine.messages import Close, CloseCode
from p2psync.values.errors import Malformed
from tests.edge.links import ANNA, BEAT, HELLO, MEMBERS, candidates


async def greet(stream: trio.abc.Stream) -> Link:
    return await accept(stream, BEAT, candidates, nonce=secrets.token_bytes)


async def talk(link: Link) -> None:
    """Send back what is said, until the link is over."""
    while True:
        await link.send(await link.receive())


@asynccontextmanager
async def listening(*, limits: Limits | None = None, talk: Callable[[Link], Awaitable[None]] = talk) -> AsyncIterator[int]:
    """A listener on the loopback interface; its port."""
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with trio.open_nursery() as nursery:
        await nursery.start(lambda task_status: serve(listeners, greet, talk, limits=limits, task_status=task_status))
        yield listeners[0].socket.getsockname()[1]
        nursery.cancel_scope.cancel()


async def call(port: int) -> Link:
    return await connect(await trio.open_tcp_stream("127.0.0.1", port), ANNA, MEMBERS, nonce=secrets.token_bytes)


async def rest_of(stream: trio.abc.Stream) -> bytes:
    data = b""
    try:
        while more := await stream.receive_some():
            data += more
    except trio.BrokenResourceError:
        pass
    return data


async def test_a_member_gets_in() -> None:
    async with listening() as port:
        link = await call(port)
        await link.send(HELLO)
        assert await link.receive() == HELLO
        await link.close()


async def test_a_fifth_stranger_from_one_address_is_not_even_greeted() -> None:
    async with listening() as port, trio.open_nursery() as nursery:
        strangers = [await trio.open_tcp_stream("127.0.0.1", port) for _ in range(4)]
        for stranger in strangers:
            assert len(await stranger.receive_some()) == GREETING_SIZE
        fifth = await trio.open_tcp_stream("127.0.0.1", port)
        assert await rest_of(fifth) == b""
        await strangers[0].aclose()
        await until(lambda: greeted(port))
        for stream in (*strangers, fifth):
            nursery.start_soon(trio.aclose_forcefully, stream)


async def greeted(port: int) -> bool:
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
        try:
            return len(await stream.receive_some()) == GREETING_SIZE
        except trio.BrokenResourceError:
            return False


async def until(happens: Callable[[], Awaitable[bool]]) -> None:
    with trio.fail_after(10):
        while not await happens():
            await trio.sleep(0.02)


async def test_one_address_may_come_so_often() -> None:
    async with listening(limits=Limits(burst=3, each_minute=0.001, strangers_each=99)) as port:
        assert [await greeted(port) for _ in range(5)] == [True, True, True, False, False]


async def test_members_come_as_often_as_they_like() -> None:
    async with listening(limits=Limits(burst=1, each_minute=0.001)) as port:
        for _ in range(5):
            await (await call(port)).close()


async def test_a_full_house_says_so_to_members_only() -> None:
    async with listening(limits=Limits(members=1)) as port:
        first = await call(port)
        second = await call(port)
        with pytest.raises(LinkClosed) as closed:
            await second.receive()
        assert closed.value.said == Close(CloseCode.BUSY)
        await first.close()

        async def free() -> bool:
            link = await call(port)
            with trio.move_on_after(0.2):
                await link.send(HELLO)
                heard = False
                try:
                    heard = await link.receive() == HELLO
                except LinkClosed:
                    pass
                await link.close()
                return heard
            return False

        await until(free)


async def test_strangers_cannot_take_the_places_of_members() -> None:
    async with listening(limits=Limits(strangers=2, strangers_each=9, members=2)) as port:
        links = [await call(port) for _ in range(2)]
        strangers = [await trio.open_tcp_stream("127.0.0.1", port) for _ in range(2)]
        for stranger in strangers:
            assert len(await stranger.receive_some()) == GREETING_SIZE
        for link in links:
            await link.send(HELLO)
            assert await link.receive() == HELLO
            await link.close()
        for stranger in strangers:
            await trio.aclose_forcefully(stranger)


async def test_a_mistake_in_one_link_leaves_the_others_alone(expect_errors: set[str], caplog: pytest.LogCaptureFixture) -> None:
    expect_errors.add("p2psync.edge.listener")
    turn = [0]

    async def mistaken(link: Link) -> None:
        turn[0] += 1
        if turn[0] == 1:
            raise ZeroDivisionError
        await talk(link)

    async with listening(talk=mistaken) as port:
        first = await call(port)
        with pytest.raises(LinkClosed):
            await first.receive()
        second = await call(port)
        await second.send(HELLO)
        assert await second.receive() == HELLO
        await second.close()
    assert "mistake of ours" in caplog.text
    assert "ZeroDivisionError" in caplog.text


@pytest.mark.parametrize("fault", [Malformed(why="test"), ExceptionGroup("", [Malformed(why="test"), LinkClosed(reason="test")])])
async def test_what_a_peer_does_wrong_is_no_error_of_ours(fault: Exception) -> None:
    async def offended(link: Link) -> None:
        raise fault

    async with listening(talk=offended) as port:
        link = await call(port)
        with pytest.raises(LinkClosed) as closed:
            await link.receive()
        assert closed.value.said


async def test_closed_listeners_end_it_when_the_last_link_has_ended() -> None:
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listeners[0].socket.getsockname()[1]
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            await nursery.start(lambda task_status: serve(listeners, greet, talk, task_status=task_status))
            link = await call(port)
            for listener in listeners:
                await listener.aclose()
            with pytest.raises(OSError, match="all attempts to connect"):
                await call(port)
            await link.send(HELLO)
            assert await link.receive() == HELLO
            await link.close()


class Line(trio.abc.Listener[trio.abc.Stream]):
    """A listener in memory: whatever is put into it comes out, errors included."""

    def __init__(self) -> None:
        self.send, self.receive = trio.open_memory_channel[trio.abc.Stream | OSError](100)

    async def accept(self) -> trio.abc.Stream:
        try:
            come = await self.receive.receive()
        except trio.EndOfChannel:
            raise trio.ClosedResourceError from None
        if isinstance(come, OSError):
            raise come
        return come

    async def aclose(self) -> None:
        await self.receive.aclose()


async def test_it_waits_when_the_system_has_no_more_sockets(autojump_clock: trio.testing.MockClock) -> None:
    line = Line()
    client, server = trio.testing.memory_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve, [line], greet, talk)
        for come in (OSError(errno.EMFILE, "too many"), OSError(errno.ENFILE, "far too many"), server):
            await line.send.send(come)
        link = await connect(client, ANNA, MEMBERS, nonce=secrets.token_bytes)
        await link.close()
        await line.send.aclose()


async def test_strangers_are_counted_once_a_minute(autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "p2psync")
    line = Line()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lambda: serve([line], greet, talk, limits=Limits(burst=5)))
        for _ in range(7):
            client, server = trio.testing.memory_stream_pair()
            await client.send_all(bytes(82))
            await line.send.send(server)
            await trio.sleep(0.3)
        assert caplog.messages == []
        await trio.sleep(3 * SUMMARY_EVERY)
        assert caplog.messages == ["7 connections turned away"]
        nursery.cancel_scope.cancel()


async def test_it_says_nothing_to_a_caller_that_is_one_too_many(autojump_clock: trio.testing.MockClock) -> None:
    line = Line()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lambda: serve([line], greet, talk, limits=Limits(burst=1, each_minute=1)))
        for greeting in (GREETING_SIZE, 0):
            client, server = trio.testing.memory_stream_pair()
            await line.send.send(server)
            if greeting:
                assert len(await client.receive_some()) == greeting
            else:
                with pytest.raises(HandshakeError):
                    await connect(client, ANNA, MEMBERS, nonce=secrets.token_bytes)
        nursery.cancel_scope.cancel()
