"""One link to one other device, from the first word after the handshake to the goodbye.

Whoever comes through a member's gate is looked up by the key that the handshake proved; one that we do not know has to show the
records that make it a member. Then each side says which mandates it shares, in a form that only another member understands, and a
conversation begins about each mandate that both have and in which the other takes part.
"""

import logging
from collections import deque
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

import trio

from p2psync import __version__
from p2psync.daemon.conversation import Conversation
from p2psync.edge.link import Link, LinkClosed
from p2psync.engine import messages as m
from p2psync.engine.encoding import Message
from p2psync.engine.introduction import chain_for, introduced
from p2psync.values.digest import blake2b
from p2psync.values.errors import PeerError, UserError
from p2psync.values.names import DeviceId, MandateId

if TYPE_CHECKING:
    from p2psync.daemon.mandate import Mandate
    from p2psync.daemon.office import Office

log = logging.getLogger(__name__)

_JOBS = 256
"""Requests of a peer that wait to be served; one that asks for more breaks the rules."""
_PADDED = 16
"""Tokens are filled up to a multiple of this, so that their number says little."""


class NotAMember(PeerError):
    """The other machine is no member of any mandate here."""


class TooManyRequests(PeerError):
    """The other machine asked for more than it may at a time."""


class Peer:
    """The other end of ``link``, a member. ``dialled`` is where it was reached, when we called."""

    def __init__(self, office: "Office", link: Link, dialled: tuple[str, int] | None = None) -> None:
        self.link = link
        self.dialled = dialled
        self.on_known: Callable[[DeviceId], None] = lambda device: None
        self.device = DeviceId(bytes(32))
        self.since = trio.current_time()
        self.clock_off_ms = 0
        self.conversations: dict[MandateId, Conversation] = {}
        self._office = office
        self._proved: MandateId | None = None
        self._outbox: deque[Message] = deque()
        self._something_to_say = trio.Event()
        self._jobs: deque[Callable[[], Awaitable[None]]] = deque()
        self._something_to_do = trio.Event()
        self._tokens: frozenset[bytes] = frozenset()
        self._ours: dict[MandateId, int] = {}
        self._theirs: dict[int, MandateId] = {}
        self._greeted = False

    async def run(self) -> None:
        """Talk until the link ends.

        Raises:
            PeerError: the link is over, with the reason; LinkClosed among them.
        """
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.link.keep_alive)
            nursery.start_soon(self._send_messages)
            nursery.start_soon(self._do_jobs)
            try:
                await self._meet()
                while True:
                    await self._heard(await self.link.receive())
            except (PeerError, UserError) as e:
                await self.link.close(m.CloseCode.BYE if isinstance(e, (UserError, LinkClosed)) else m.CloseCode.PROTOCOL)
                raise
            finally:
                self._office.unregister(self)
                for conversation in self.conversations.values():
                    conversation.mandate.leave(conversation)
                nursery.cancel_scope.cancel()

    async def close(self, text: str = "") -> None:
        """Say goodbye."""
        await self.link.close(m.CloseCode.BYE, text)

    def whereabouts(self) -> tuple[tuple[DeviceId, tuple[tuple[bytes, int], ...]], ...]:
        """Where this machine itself listens, for a peer that may have been called by us and cannot know."""
        spots = tuple((hint.address, hint.port) for hint in self._office.own_hints())
        return ((self._office.device, spots),) if spots else ()

    # ---- who is it?

    async def _meet(self) -> None:
        member = self._office.member_with_key(self.link.peer_key)
        if member is None:
            member = await self._ask_who()
        self.device = member
        self._office.register(self)
        self.on_known(member)
        self._say_hello()
        self.refresh()

    async def _ask_who(self) -> DeviceId:
        mandate = self._office.mandates[self.link.gate.mandate]
        self.say(m.Who(mandate.id))
        while True:
            message = await self.link.receive()
            if isinstance(message, m.Introduce) and message.mandate == mandate.id:
                member = introduced(mandate.books.roster, message.records, self.link.peer_key)
                if member is None:
                    raise NotAMember()
                self._proved = mandate.id
                return member.device
            await self._heard(message)

    def _introduce(self, asked: m.Who) -> None:
        mandate = self._office.mandates.get(asked.mandate)
        if mandate is not None and asked.mandate == self.link.gate.mandate:
            self.say(m.Introduce(mandate.id, chain_for(mandate.books.roster, self._office.device)))

    # ---- which mandates do we share?

    def _say_hello(self) -> None:
        tokens = [self._token(mandate, self.link.initiator) for mandate in self._office.shared_mandates()][: m.MAX_LOGS]
        tokens += [self._office.nonce(16) for _ in range(-len(tokens) % _PADDED)]
        self.say(m.Hello(m.PROTOCOL, m.PROTOCOL, 0, self._office.now_ms(), b"".join(sorted(tokens)), f"p2psync {__version__}"[:32]))

    def _token(self, mandate: "Mandate", initiator: bool) -> bytes:
        return blake2b(self.link.channel + bytes([not initiator]), b"p2psync1-session", key=mandate.group_keys().session, size=16)

    def refresh(self) -> None:
        """Begin a conversation about each shared mandate in which the other takes part and that we have not opened yet."""
        if not self._greeted:
            return
        for mandate in self._office.shared_mandates():
            token = self._token(mandate, not self.link.initiator)
            if mandate.id in self._ours or token not in self._tokens or not self._takes_part(mandate):
                continue
            self._ours[mandate.id] = handle = len(self._ours)
            self.say(m.Open(handle, token))
            self._converse(mandate)

    def _takes_part(self, mandate: "Mandate") -> bool:
        return self.device in mandate.books.roster.members() or mandate.id == self._proved

    def _converse(self, mandate: "Mandate") -> None:
        """Once both sides have opened it."""
        if mandate.id in self._ours and mandate.id in self._theirs.values() and mandate.id not in self.conversations:
            conversation = Conversation(self, mandate, self._ours[mandate.id])
            self.conversations[mandate.id] = conversation
            mandate.join(conversation)

    # ---- hearing

    async def _heard(self, message: Message) -> None:
        log.debug("heard %s", type(message).__name__)
        match message:
            case m.Hello():
                self._tokens = frozenset(message.tokens[at : at + 16] for at in range(0, len(message.tokens), 16))
                self.clock_off_ms = message.now_ms - self._office.now_ms()
                self._greeted = True
                self.refresh()
            case m.Who():
                self._introduce(message)
            case m.Open():
                for mandate in self._office.shared_mandates():
                    if message.token == self._token(mandate, self.link.initiator):
                        self._theirs[message.handle] = mandate.id
                        self._converse(mandate)
            case _:
                mandate_id = self._theirs.get(getattr(message, "handle", -1))
                conversation = self.conversations.get(mandate_id) if mandate_id else None
                if conversation is not None:
                    await conversation.heard(message)

    # ---- speaking

    def say(self, message: Message) -> None:
        """Send a message as soon as the link takes it; in order."""
        self._outbox.append(message)
        self._something_to_say.set()

    def serve(self, job: Callable[[], Awaitable[None]]) -> None:
        """Answer a request of the peer when those before it are answered. Raises: TooManyRequests."""
        if len(self._jobs) >= _JOBS:
            raise TooManyRequests()
        self._jobs.append(job)
        self._something_to_do.set()

    async def _send_messages(self) -> None:
        while True:
            await self._something_to_say.wait()
            self._something_to_say = trio.Event()
            while self._outbox:
                message = self._outbox.popleft()
                log.debug("say %s", type(message).__name__)
                await self.link.send(message)

    async def _do_jobs(self) -> None:
        while True:
            await self._something_to_do.wait()
            self._something_to_do = trio.Event()
            while self._jobs:
                await self._jobs.popleft()()
