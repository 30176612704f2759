"""Strangers at the door: 32 bytes, then nothing, whatever they do; and nobody keeps us waiting."""

import hashlib
import secrets
from collections.abc import Awaitable, Callable, Iterable

import pytest
import trio
import trio.testing

from p2psync.edge.link import accept, connect
from p2psync.edge.meeting import HESITATION, STEP_WITHIN
from p2psync.engine.hello import ANSWER_SIZE, GREETING_SIZE, PROOF_SIZE, Gate, HandshakeError, Knock
from p2psync.values.keys import GroupKeys
from p2psync.values.names import InviteId, MandateId
from tests.edge.links import ANNA, BEAT, GUESTS, MEMBERS, SECRET, candidates, linked, over_both, streams


def fixed(size: int) -> bytes:
    """No chance at all, so that two runs can be compared."""
    return hashlib.shake_128(b"fixed").digest(size)


def patience() -> float:
    """How long a stranger is left waiting when chance is ``fixed``."""
    return int.from_bytes(fixed(2), "big") / 65536 * HESITATION


@over_both
@pytest.mark.parametrize("gate", [MEMBERS, GUESTS], ids=["member", "guest"])
async def test_two_machines_meet(over: str, gate: Gate) -> None:
    async with streams(over) as ends:
        caller, host = await linked(ends, gate)
        assert (caller.peer_key, host.peer_key) == (BEAT.transport_public, ANNA.transport_public)
        assert caller.gate == gate == host.gate
        assert (caller.initiator, host.initiator) == (True, False)
        assert caller.channel == host.channel
        if over == "tcp":
            assert caller.peer_address == ends[1].socket.getsockname()  # type: ignore[attr-defined]
        else:
            assert caller.peer_address is None


Stranger = Callable[[trio.abc.Stream, bytes], Awaitable[None]]


async def says_garbage(stream: trio.abc.Stream, greeting: bytes) -> None:
    await stream.send_all(bytes(82))


async def does_not_stop_talking(stream: trio.abc.Stream, greeting: bytes) -> None:
    await stream.send_all(bytes(10_000))


async def speaks_http(stream: trio.abc.Stream, greeting: bytes) -> None:
    await stream.send_all(b"GET / HTTP/1.1\r\nHost: somewhere\r\n\r\n" * 3)


async def knows_another_mandate(stream: trio.abc.Stream, greeting: bytes) -> None:
    other = MandateId(b"N" * 32)
    await stream.send_all(Knock(greeting, ANNA, Gate.for_members(other, 0, GroupKeys.of(SECRET, other)), fixed).data)


async def replays_a_knock(stream: trio.abc.Stream, greeting: bytes) -> None:
    await stream.send_all(Knock(bytes(32), ANNA, MEMBERS, fixed).data)


async def forges_the_first_message(stream: trio.abc.Stream, greeting: bytes) -> None:
    knock = bytearray(Knock(greeting, ANNA, MEMBERS, fixed).data)
    knock[-1] ^= 1
    await stream.send_all(bytes(knock))


async def lies_about_the_length(stream: trio.abc.Stream, greeting: bytes) -> None:
    knock = bytearray(Knock(greeting, ANNA, MEMBERS, fixed).data)
    knock[33] ^= 1
    await stream.send_all(bytes(knock))


async def goes_away(stream: trio.abc.Stream, greeting: bytes) -> None:
    await stream.send_all(bytes(40))
    await stream.send_eof()  # type: ignore[attr-defined]


STRANGERS: list[Stranger] = [
    *(says_garbage, does_not_stop_talking, speaks_http, knows_another_mandate),
    *(replays_a_knock, forges_the_first_message, lies_about_the_length, goes_away),
]


@pytest.mark.parametrize("stranger", STRANGERS, ids=lambda stranger: stranger.__name__)
async def test_a_stranger_gets_the_greeting_and_nothing_else_after_the_same_delay(
    stranger: Stranger, autojump_clock: trio.testing.MockClock
) -> None:
    client, server = trio.testing.memory_stream_pair()
    got, left_after = await visited(client, server, stranger)
    assert len(got) == GREETING_SIZE
    assert left_after == pytest.approx(patience())


@pytest.mark.parametrize("stranger", STRANGERS, ids=lambda stranger: stranger.__name__)
async def test_strangers_over_tcp(stranger: Stranger) -> None:
    async with streams("tcp") as (client, server):
        got, _ = await visited(client, server, stranger)
    assert len(got) == GREETING_SIZE


async def visited(client: trio.abc.Stream, server: trio.abc.Stream, stranger: Stranger) -> tuple[bytes, float]:
    """Everything that the stranger was told, and the seconds from its last word until it was left."""

    async def host() -> None:
        with pytest.raises(HandshakeError):
            await accept(server, BEAT, candidates, nonce=fixed)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(host)
        got = bytes(await client.receive_some(GREETING_SIZE))
        await stranger(client, got)
        began = trio.current_time()
        try:
            while data := await client.receive_some():
                got += data
        except trio.BrokenResourceError:  # what it sent beyond its 82 bytes was never read: the system resets the connection
            pass
        return got, trio.current_time() - began


@pytest.mark.parametrize("trickle", [False, True])
async def test_who_says_nothing_or_too_slowly_is_left_after_five_seconds(trickle: bool, autojump_clock: trio.testing.MockClock) -> None:
    client, server = trio.testing.memory_stream_pair()

    async def caller() -> None:
        for _ in range(20 if trickle else 0):
            await client.send_all(b"x")
            await trio.sleep(0.9)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(caller)
        with pytest.raises(HandshakeError):
            await accept(server, BEAT, candidates, nonce=fixed)
        assert trio.current_time() == pytest.approx(STEP_WITHIN + patience())
        assert len(await client.receive_some()) == GREETING_SIZE
        assert await client.receive_some() == b""
        nursery.cancel_scope.cancel()


async def test_who_knocks_but_does_not_prove_itself_has_another_five_seconds(autojump_clock: trio.testing.MockClock) -> None:
    client, server = trio.testing.memory_stream_pair()

    async def caller() -> None:
        greeting = bytes(await client.receive_some())
        await trio.sleep(4)
        await client.send_all(Knock(greeting, ANNA, MEMBERS, fixed).data)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(caller)
        with pytest.raises(HandshakeError):
            await accept(server, BEAT, candidates, nonce=fixed)
    assert trio.current_time() == pytest.approx(4 + STEP_WITHIN + patience())


async def test_a_forged_last_message_ends_it() -> None:
    client, server = trio.testing.memory_stream_pair()

    async def caller() -> None:
        knock = Knock(bytes(await client.receive_some()), ANNA, MEMBERS, fixed)
        await client.send_all(knock.data)
        proof = bytearray(knock.hear(bytes(await client.receive_some(ANSWER_SIZE))).data)
        assert len(proof) == PROOF_SIZE
        proof[10] ^= 1
        await client.send_all(bytes(proof))
        assert await client.receive_some() == b""

    async with trio.open_nursery() as nursery:
        nursery.start_soon(caller)
        with pytest.raises(HandshakeError):
            await accept(server, BEAT, candidates, nonce=fixed)


async def test_a_host_that_says_nothing_is_given_up(autojump_clock: trio.testing.MockClock) -> None:
    client, server = trio.testing.memory_stream_pair()
    with pytest.raises(HandshakeError, match="did not answer"):
        await connect(client, ANNA, MEMBERS, nonce=fixed)
    assert trio.current_time() == 2 * STEP_WITHIN
    assert await server.receive_some() == b""  # and it has learnt nothing


async def test_a_host_of_another_mandate_is_given_up() -> None:
    client, server = trio.testing.memory_stream_pair()

    async def host() -> None:
        with pytest.raises(HandshakeError):
            await accept(server, BEAT, lambda _: [GUESTS], nonce=fixed)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(host)
        with pytest.raises(HandshakeError, match="closed the connection"):
            await connect(client, ANNA, MEMBERS, nonce=fixed)


async def test_a_device_that_calls_itself_notices() -> None:
    client, server = trio.testing.memory_stream_pair()

    async def host() -> None:
        with pytest.raises(HandshakeError):
            await accept(server, ANNA, candidates, nonce=secrets.token_bytes)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(host)
        with pytest.raises(HandshakeError, match="itself"):
            await connect(client, ANNA, MEMBERS, nonce=secrets.token_bytes)


@pytest.mark.parametrize("role", ["caller", "host"])
async def test_cancelled_it_closes_the_stream(role: str) -> None:
    client, server = trio.testing.memory_stream_pair()
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            if role == "caller":
                nursery.start_soon(lambda: connect(client, ANNA, MEMBERS, nonce=fixed))
            else:
                nursery.start_soon(lambda: accept(server, BEAT, candidates, nonce=fixed))
            await trio.testing.wait_all_tasks_blocked()
            scope.cancel()
    other = server if role == "caller" else client
    while data := await other.receive_some():
        assert len(data) == GREETING_SIZE


async def test_a_mistake_in_the_candidates_closes_the_stream_too() -> None:
    client, server = trio.testing.memory_stream_pair()

    def broken(invite: InviteId) -> Iterable[Gate]:
        raise ZeroDivisionError

    await client.send_all(bytes(82))
    with pytest.raises(ZeroDivisionError):
        await accept(server, BEAT, broken, nonce=fixed)
    assert len(await client.receive_some()) == GREETING_SIZE
    assert await client.receive_some() == b""
