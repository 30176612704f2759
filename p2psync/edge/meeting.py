"""Two machines meet: a stream is led through the handshake of engine/hello, or closed.

A stranger gets a greeting of 32 random bytes and, whatever it says or leaves unsaid, not one byte more.
"""

from typing import Final

import trio

from p2psync.engine.hello import (
    ANSWER_SIZE,
    GREETING_SIZE,
    KNOCK_SIZE,
    PROOF_SIZE,
    Candidates,
    Gate,
    Greeting,
    HandshakeError,
    Knock,
    Nonce,
    Secured,
)
from p2psync.values.keys import DeviceKeys

STEP_WITHIN: Final = 5.0
"""Seconds for each half of the handshake."""
HESITATION: Final = 0.2
"""A stranger is left after up to so many seconds by chance, so that it cannot time what we found out."""

_GONE = (HandshakeError, trio.TooSlowError, trio.BrokenResourceError)


async def call(stream: trio.abc.Stream, keys: DeviceKeys, gate: Gate, *, nonce: Nonce) -> Secured:
    """Knock at ``gate`` of the machine behind ``stream``, which is closed on any failure and when cancelled.

    Raises:
        HandshakeError: it is not a member of that mandate, is this device itself, or did not answer in time.
    """
    secured = None
    try:
        with trio.fail_after(2 * STEP_WITHIN):
            knock = Knock(await _exactly(stream, GREETING_SIZE), keys, gate, nonce)
            await stream.send_all(knock.data)
            proof = knock.hear(await _exactly(stream, ANSWER_SIZE))
            await stream.send_all(proof.data)
            secured = proof.secured
    except _GONE as fault:
        raise _error(fault) from None
    finally:
        if secured is None:
            await trio.aclose_forcefully(stream)
    return secured


async def hear(stream: trio.abc.Stream, keys: DeviceKeys, candidates: Candidates, *, nonce: Nonce) -> Secured:
    """Hear whoever calls through ``stream``, which is closed on any failure and when cancelled.

    Raises:
        HandshakeError: a stranger. Every one was left without a word, after the same delay, whatever it did.
    """
    secured = None
    try:
        secured = await _heard(stream, keys, candidates, nonce)
    except _GONE as fault:
        await trio.sleep(int.from_bytes(nonce(2), "big") / 65536 * HESITATION)
        raise _error(fault) from None
    finally:
        if secured is None:
            await trio.aclose_forcefully(stream)
    return secured


def address_of(stream: object) -> tuple[str, int] | None:
    """Host and port at the other end of a stream: of its socket, or its own attribute ``peer_address``, or None."""
    if isinstance(stream, trio.SocketStream):
        try:
            host, port = stream.socket.getpeername()[:2]
        except (OSError, ValueError):  # it has gone already, or has no such address
            return None
        return str(host), int(port)
    found: tuple[str, int] | None = getattr(stream, "peer_address", None)
    return found


async def _heard(stream: trio.abc.Stream, keys: DeviceKeys, candidates: Candidates, nonce: Nonce) -> Secured:
    with trio.fail_after(STEP_WITHIN):
        greeting = Greeting(keys, nonce)
        await stream.send_all(greeting.data)
        knock = await _exactly(stream, KNOCK_SIZE)
    answer = greeting.hear(knock, candidates)
    with trio.fail_after(STEP_WITHIN):
        await stream.send_all(answer.data)
        return answer.hear(await _exactly(stream, PROOF_SIZE))


async def _exactly(stream: trio.abc.Stream, size: int) -> bytes:
    """The next ``size`` bytes, and none beyond them: what follows belongs to the channel, or to nobody."""
    data = b""
    while len(data) < size:
        more = await stream.receive_some(size - len(data))
        if not more:
            raise HandshakeError(why="it closed the connection")
        data += more
    return data


def _error(fault: Exception) -> HandshakeError:
    return fault if isinstance(fault, HandshakeError) else HandshakeError(why="it did not answer")
