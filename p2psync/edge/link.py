"""The link: one connection to one other machine, from the handshake to the goodbye.

It carries messages both ways, keeps itself alive, and ends with one reason for everybody who uses it. The caller runs three things:
whatever sends, one task that receives, and ``keep_alive`` beside it. Each is safe to cancel: a message is received whole or not at all,
and a send that is cut in the middle ends the link, since nothing behind it could be understood any more.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from typing import Final, TypeAlias

import trio

from p2psync.edge.meeting import address_of, call, hear
from p2psync.engine.encoding import Message, unpack_message
from p2psync.engine.frames import Channel
from p2psync.engine.hello import Candidates, Gate, Nonce, Secured
from p2psync.engine.messages import BULK, MAX_UNPROVEN, Close, CloseCode, Hello, Ping, Pong
from p2psync.engine.pulse import Pulse
from p2psync.engine.session import Session, State
from p2psync.values.errors import Malformed, PeerError
from p2psync.values.keys import DeviceKeys

SEND_WITHIN: Final = 30.0
"""Seconds for the other side to take one message."""
GOODBYE_WITHIN: Final = 2.0
"""Seconds for a goodbye to arrive."""
READ_SIZE: Final = 256 * 1024
PIECE: Final = 256 * 1024
"""Bytes of bulk that are sent in one go."""
UNSENT: Final = 256 * 1024
"""Bytes that the system may hold and have not sent: enough that it never waits for us, and 2 ms of a gigabit that what is small waits."""
IN_A_ROW: Final = 15
"""Messages that are taken before everybody else has a turn: each turn costs as much as a message."""

Packed: TypeAlias = tuple[Message, bytes, bytes]
"""A message and its bytes, in two pieces."""

_UNPROVEN = (State.UNKNOWN, State.GUEST_GATE)
_LEFT = "this side said goodbye"


class LinkClosed(PeerError):
    """The link to the other machine is over: {reason}."""

    @property
    def said(self) -> Close | None:
        """The goodbye of the other side, if it said one."""
        said = self.facts.get("said")
        return said if isinstance(said, Close) else None


async def connect(stream: trio.abc.Stream, keys: DeviceKeys, gate: Gate, *, nonce: Nonce) -> "Link":
    """A link to the machine behind ``stream``, called at ``gate``; the stream belongs to it, and is closed on any failure.

    Raises:
        HandshakeError: it is not a member of that mandate, is this device itself, or did not answer in time.
    """
    return Link(stream, await call(stream, keys, gate, nonce=nonce))


async def accept(stream: trio.abc.Stream, keys: DeviceKeys, candidates: Candidates, *, nonce: Nonce) -> "Link":
    """A link to whoever calls through ``stream``, which belongs to it, and is closed on any failure.

    ``candidates`` is asked once, with the 16 bytes of the caller's id, for the gates to compare with: every member gate, and the guest
    gates of the open invitation of that id.

    Raises:
        HandshakeError: a stranger, which was left without a word.
    """
    return Link(stream, await hear(stream, keys, candidates, nonce=nonce))


class Link:
    """An established link.

    ``peer_key`` is the proved X25519 key of the other device and ``gate`` the gate that it passed, which says nothing about what it
    may do; ``channel`` names this connection and no other (64 bytes); ``initiator`` tells whether we called; ``peer_address`` is (host,
    port) or None; ``bytes_in`` and ``bytes_out`` count what went over the wire since the handshake.
    """

    def __init__(self, stream: trio.abc.Stream, secured: Secured) -> None:
        self.gate, self.initiator = secured.gate, secured.initiator
        self.peer_key, self.channel = secured.peer_key, secured.channel
        self.peer_address = address_of(stream)
        self.session = Session(secured.gate.kind)
        self.bytes_in = self.bytes_out = 0
        self._stream = stream
        _widen(stream)
        self._frames = Channel(secured.sealer, secured.opener)
        self._wire, self._bulk = trio.StrictFIFOLock(), trio.StrictFIFOLock()
        self._pulse = Pulse()
        self._unproven = self._unbroken = 0
        self._due: dict[type[Message], Message] = {}
        self._errand = trio.Event()
        self._fault: PeerError | None = None
        self._mute = ""
        self._reason = ""
        self._said: Close | None = None
        self._over = trio.Event()

    async def send(self, *messages: Message) -> None:
        """Send these messages, which wait for one piece of bulk at most; the last byte is in the hands of the system when this returns.

        Cancelled before their turn they were not sent; cancelled later, it ends the link.

        Raises:
            LinkClosed: the link is over, or the other side did not take the message within ``SEND_WITHIN`` seconds.
            LocalError: it is not our turn to say this.
            ValueError: the message breaks a limit.
        """
        await self._send([_packed(message) for message in messages])

    async def send_bulk(self, *messages: Message) -> None:
        """As ``send``, for what is long: it waits for other bulk, and goes in pieces between which everything else has its turn."""
        async with self._bulk:
            for piece in _pieces(messages):
                await self._send(piece)

    async def _send(self, messages: Sequence[Packed]) -> None:
        async with self._wire:
            await self._transmit(messages)

    async def _transmit(self, messages: Sequence[Packed]) -> None:
        if self._mute or self._over.is_set():
            raise self._closed()
        frames: list[bytes] = []
        for message, head, body in messages:
            self.session.sent(message)
            frames += self._frames.frames(body, head, padded=not isinstance(message, BULK))
        data = b"".join(frames)
        cut = "a message was cut off on this side"
        try:
            with trio.move_on_after(SEND_WITHIN):
                await self._stream.send_all(data)
                cut = ""
            if cut:
                cut = f"it took nothing for {SEND_WITHIN:.0f} s"
                raise self._end(cut)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            cut, self._mute = "", "the connection broke"  # what it said last may still be there to be read
            raise self._closed() from None
        finally:
            if cut:
                self._end(cut)
                await trio.aclose_forcefully(self._stream)
        self.bytes_out += len(data)
        if isinstance(messages[-1][0], Close):
            self._mute = _LEFT

    async def receive(self) -> Message:
        """The next message. Pings are answered by ``keep_alive``; a goodbye ends the link. One task at a time may wait here.

        Cancelled, it has taken nothing: the next call goes on where this one was. After a PeerError other than LinkClosed nothing
        more can be received, but the reason can still be told with :meth:`close`.

        Raises:
            LinkClosed: the link is over.
            Malformed, UnknownMessage, NotAuthentic, OutOfTurn: the other side broke the rules.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        if self._mute == _LEFT:
            raise self._closed()
        self._unbroken += 1
        try:
            while (message := self._take()) is None:
                await self._read()
                self._unbroken = 0
        except LinkClosed:
            await trio.aclose_forcefully(self._stream)
            raise
        if self._unbroken >= IN_A_ROW:
            self._unbroken = 0
            await trio.lowlevel.cancel_shielded_checkpoint()
        return message

    async def _read(self) -> None:
        self._pulse.listen(trio.current_time())
        try:
            data = await self._stream.receive_some(READ_SIZE)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            raise self._end(self._mute or "the connection broke") from None
        finally:
            self._pulse.rest(trio.current_time())
        if not data:
            raise self._end(self._mute or "the connection ended without a goodbye")
        self.bytes_in += len(data)
        self._frames.feed(data)

    def _take(self) -> Message | None:
        """The next message for the caller among what is already here."""
        if self._fault:
            raise self._fault
        try:
            while (message := self._heard()) is not None:
                if isinstance(message, Close):
                    self._said = message
                    raise self._end(f"it said goodbye ({_meaning(message.code)})")
                if isinstance(message, Ping):
                    self._soon(Pong(message.cookie))
                elif not isinstance(message, Pong) and self._mute != _LEFT:
                    return message
        except PeerError as fault:
            self._fault = fault
            raise
        return None

    def _heard(self) -> Message | None:
        before = self._frames.opened
        body = self._frames.next()
        if self._frames.opened != before:
            self._pulse.heard(trio.current_time())
        if body is None:
            return None
        message = unpack_message(body)
        if self.session.theirs in _UNPROVEN and not isinstance(message, Hello):
            self._unproven += len(body)
            if self._unproven > MAX_UNPROVEN + 1024:  # one Join or Introduction, and what little goes beside it
                raise Malformed(why="too much from somebody who is not known yet")
        self.session.received(message)
        return message

    async def close(self, code: CloseCode = CloseCode.BYE, text: str = "") -> None:
        """Say goodbye, let it arrive, and close: ``GOODBYE_WITHIN`` seconds at most, and at once when cancelled. May be repeated."""
        try:
            with trio.move_on_after(GOODBYE_WITHIN):
                await self._leave(Close(code, text))
        finally:
            self._end(_LEFT)
            await trio.aclose_forcefully(self._stream)

    async def _leave(self, goodbye: Close) -> None:
        if self._over.is_set() or not self.session.may_send(goodbye):
            return
        try:
            await self.send(goodbye)
            # If we closed while it still sends, our system would reset the connection, and the goodbye could be lost: wait for its end.
            if self._pulse.listening:
                await self._over.wait()
            while not self._over.is_set():
                self._take()
                await self._read()
        except PeerError:
            return

    async def keep_alive(self) -> None:
        """Answer pings, ask when it is silent, and end the link when nothing comes; returns when the link is over.

        The link ends when nothing was heard for ``DEAD_AFTER`` seconds of listening, or when whoever is behind the gate says neither
        hello nor what it wants within ``PROVE_WITHIN`` (engine/pulse): ``receive`` and ``send`` then raise, this does not.
        """
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._run_errands)
            while not self._over.is_set():
                verdict = self._pulse.judge(trio.current_time(), proven=self.session.theirs not in _UNPROVEN)
                if verdict.ask:
                    self._soon(Ping(bytes(8)))
                if verdict.over:
                    self._end(verdict.over)
                    await trio.aclose_forcefully(self._stream)
                with trio.move_on_after(verdict.pause):
                    await self._over.wait()
            nursery.cancel_scope.cancel()

    def _soon(self, errand: Ping | Pong) -> None:
        """Have it sent when its turn comes; only the last of each kind, so that whoever floods us with questions gets few answers."""
        self._due[type(errand)] = errand
        self._errand.set()

    async def _run_errands(self) -> None:
        """In a task of its own: an answer that waits for its turn holds up neither the reading nor the watch."""
        while True:
            await self._errand.wait()
            self._errand = trio.Event()
            due, self._due = self._due, {}
            try:
                for message in due.values():
                    if self.session.may_send(message):
                        await self.send(message)
            except LinkClosed:
                return

    def _end(self, reason: str) -> LinkClosed:
        """The link is over, for this reason unless there was one before."""
        self._reason = self._reason or reason
        self._over.set()
        return self._closed()

    def _closed(self) -> LinkClosed:
        return LinkClosed(reason=self._reason or self._mute, said=self._said)


def _packed(message: Message) -> Packed:
    return message, *(message.parts() if isinstance(message, BULK) else (b"", message.pack()))


def _pieces(messages: Iterable[Message]) -> Iterator[list[Packed]]:
    """These messages packed, in pieces of ``PIECE`` bytes or a little more."""
    piece: list[Packed] = []
    for message in messages:
        piece.append(_packed(message))
        if sum(len(body) for _, _, body in piece) >= PIECE:
            yield piece
            piece = []
    if piece:
        yield piece


def _widen(stream: trio.abc.Stream) -> None:
    """Let the system hold as much as ``UNSENT``: with trio's 16 KiB each chunk would take five turns of the loop."""
    if isinstance(stream, trio.SocketStream) and hasattr(trio.socket, "TCP_NOTSENT_LOWAT"):
        with suppress(OSError):
            stream.setsockopt(trio.socket.IPPROTO_TCP, trio.socket.TCP_NOTSENT_LOWAT, UNSENT)


def _meaning(code: int) -> str:
    return CloseCode(code).name.lower().replace("_", " ") if code in CloseCode.__members__.values() else f"code {code}"
