"""One link to one other device, from the first word after the handshake to the goodbye.

Whoever comes through a member's gate is looked up by the key that the handshake proved; one that we do not know has to show the
records that make it a member. Then each side says which mandates it has, in a form that only another member understands, and a
conversation begins about each mandate that both have opened.
"""

import logging
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

import trio

from p2psync import __version__
from p2psync.daemon.conversation import BadRecord, Conversation
from p2psync.daemon.outbox import Lane, Outbox, TooMuch
from p2psync.daemon.turns import Turns
from p2psync.edge.link import Link, LinkClosed
from p2psync.engine import messages as m
from p2psync.engine.encoding import Message
from p2psync.engine.introduction import chain_for, introduced
from p2psync.engine.session import MAX_HANDLES
from p2psync.store.addresses import usable
from p2psync.values.digest import blake2b
from p2psync.values.errors import PeerError, UserError
from p2psync.values.names import DeviceId, MandateId

if TYPE_CHECKING:
    from p2psync.daemon.mandate import Mandate
    from p2psync.daemon.office import Office

log = logging.getLogger(__name__)

_PADDED = 16
"""Tokens are filled up to a multiple of this, so that their number says little."""


class NotAMember(PeerError):
    """The other machine is no member of any mandate here."""


class Superfluous(PeerError):
    """There is another link to that machine already."""


class Benched(PeerError):
    """The other machine broke the rules a short while ago."""


_CODES: dict[type[Exception], m.CloseCode] = {
    BadRecord: m.CloseCode.ROLE,
    TooMuch: m.CloseCode.TOO_MUCH,
    Benched: m.CloseCode.BUSY,
    Superfluous: m.CloseCode.BYE,
    LinkClosed: m.CloseCode.BYE,
}
NO_FAULT = (LinkClosed, Superfluous, Benched, NotAMember)
"""Ends of a link for which nobody is to blame."""


class Peer:
    """The other end of ``link``, a member. ``dialled`` is where it was reached, when we called."""

    def __init__(self, office: "Office", link: Link, dialled: tuple[str, int] | None = None) -> None:
        self.link = link
        self.dialled = dialled
        self.on_known: Callable[[DeviceId], None] = lambda device: None
        self.device = DeviceId(bytes(32))
        self.since = trio.current_time()
        self.clock_off_ms = 0
        self.features = 0
        self.conversations: dict[MandateId, Conversation] = {}
        self.turns = Turns(self)
        self._office = office
        self.features = 0
        """What the other side understands beyond the first protocol."""
        self._known = self._greeted = self._placed = self._blamed = False
        self._asked: set[MandateId] = set()
        self._proved: set[MandateId] = set()
        self._shown: set[MandateId] = set()
        self._outbox = Outbox(link.send, self._drained)
        self._records, self._content = Lane(), Lane()
        self._ours: dict[MandateId, int] = {}
        self._theirs: dict[int, MandateId] = {}
        self._unknown: dict[int, bytes] = {}
        self._nursery: trio.Nursery | None = None
        self._fault: PeerError | UserError | None = None
        self._cut = trio.Event()

    # ---- the life of a link

    async def run(self) -> None:
        """Talk until the link ends.

        Raises:
            PeerError: in a group: the link is over, with the reason; LinkClosed among them.
        """
        try:
            await self._live()
        except* (PeerError, UserError) as ended:
            error = _first(ended)
            self._blame(error)
            await self.link.close(_code(error))
            raise

    async def _live(self) -> None:
        try:
            async with trio.open_nursery() as self._nursery:
                lanes = (self._outbox, self._records, self._content)
                for task in (self.link.keep_alive, *(lane.run for lane in lanes), self.turns.watch, self._until_cut):
                    self._nursery.start_soon(task)
                try:
                    self._meet()
                    while True:
                        await self._heard(await self.link.receive())
                except (PeerError, UserError) as e:
                    if isinstance(e, LinkClosed):
                        raise
                    self.cut(e)
                await trio.sleep_forever()
        finally:
            self._office.unregister(self)
            for conversation in self.conversations.values():
                conversation.mandate.leave(conversation)

    async def _until_cut(self) -> None:
        """Tell the reason while what is being sent can still be finished; a message that is cut off would be the last."""
        await self._cut.wait()
        assert self._fault is not None
        with trio.CancelScope(shield=True):  # it takes two seconds at most
            await self.link.close(_code(self._fault))
        raise self._fault

    def cut(self, fault: PeerError | UserError) -> None:
        """End the link, for this reason unless there was one before."""
        if self._fault is None:
            self._fault = fault
            self._blame(fault)
            self._cut.set()

    def _blame(self, error: BaseException) -> None:
        """Once for each link, if it is the other's doing."""
        if self._blamed or not self._known or not isinstance(error, PeerError) or isinstance(error, NO_FAULT):
            return
        self._blamed = True
        self._office.blame(self, error)

    async def close(self, text: str = "") -> None:
        """Say goodbye."""
        await self.link.close(m.CloseCode.BYE, text)

    def later(self, wait_s: float, act: Callable[[], object]) -> None:
        """Do something after a while, if the link still stands then."""

        async def wait() -> None:
            await trio.sleep(max(wait_s, 0))
            act()

        if self._nursery is not None:
            self._nursery.start_soon(wait)

    # ---- who is it?

    def _meet(self) -> None:
        member = self._office.member_with_key(self.link.peer_key)
        if member is None:
            self._ask_who(self.link.gate.mandate)
        else:
            self._know(member)

    def _ask_who(self, mandate: MandateId) -> None:
        if mandate not in self._asked:
            self._asked.add(mandate)
            self.say(m.Who(mandate))

    def _know(self, member: DeviceId) -> None:
        """We know who it is. Who called keeps the link from here on; who was called, when the other has said hello (docs/protocol 3.4)."""
        if self._known:
            return
        self.device, self._known = member, True
        self.on_known(member)
        if self.link.initiator:
            self._take_place()
        self._say_hello()
        self._begin()

    def _take_place(self) -> None:
        if not self._placed:
            self._office.register(self)
            self._placed = True

    def _begin(self) -> None:
        if self._known and self._greeted:
            self._take_place()
            self.refresh()

    def _introduce(self, asked: m.Who) -> None:
        """Once for each mandate: the proof is large, the question small."""
        mandate = self._office.shared_mandate(asked.mandate)
        if mandate is None or mandate.id in self._shown:
            return
        if mandate.id == self.link.gate.mandate or self._takes_part(mandate):
            self._shown.add(mandate.id)
            self.say(m.Introduce(mandate.id, chain_for(mandate.books.roster, self._office.device)))

    def _introduced(self, shown: m.Introduce) -> None:
        mandate = self._office.shared_mandate(shown.mandate)
        if mandate is None or shown.mandate not in self._asked:
            return
        member = introduced(mandate.books.roster, shown.records, self.link.peer_key)
        if member is None or (self._known and member.device != self.device):
            if not self._known:
                raise NotAMember()
            return
        self._proved.add(mandate.id)
        self._know(member.device)
        self._begin()

    # ---- which mandates do we share?

    def _say_hello(self) -> None:
        tokens = [self._token(mandate, self.link.initiator) for mandate in self._office.shared_mandates()][: m.MAX_LOGS]
        tokens += [self._office.nonce(16) for _ in range(-len(tokens) % _PADDED)]
        now, software = self._office.now_ms(), f"p2psync {__version__}"[:32]
        features = m.LISTING_CHANGES | m.HEARS_HAVE
        self.say(m.Hello(m.PROTOCOL, m.PROTOCOL, features, now, b"".join(sorted(tokens)), software))

    def _token(self, mandate: "Mandate", initiator: bool) -> bytes:
        return blake2b(self.link.channel + bytes([not initiator]), b"p2psync1-session", key=mandate.group_keys().session, size=16)

    def refresh(self) -> None:
        """Open each shared mandate in which the other takes part, and take note of those that it opened before we had them."""
        if not self._placed or not self._greeted:
            return
        for handle, token in list(self._unknown.items()):
            self._match(handle, token)
        for mandate in self._office.shared_mandates():
            if mandate.id not in self._ours and len(self._ours) < MAX_HANDLES and self._takes_part(mandate):
                self._ours[mandate.id] = handle = len(self._ours)
                self.say(m.Open(handle, self._token(mandate, not self.link.initiator)))
                self._converse(mandate)

    def _takes_part(self, mandate: "Mandate") -> bool:
        return self.device in mandate.books.roster.members() or mandate.id in self._proved

    def _match(self, handle: int, token: bytes) -> None:
        """The other has opened a mandate: which one? One that we do not have yet, or that is not shared yet, may come later."""
        self._unknown[handle] = token
        for mandate in self._office.shared_mandates():
            if token == self._token(mandate, self.link.initiator):
                del self._unknown[handle]
                self._theirs[handle] = mandate.id
                if not self._takes_part(mandate):
                    self._ask_who(mandate.id)
                self._converse(mandate)
                return

    def _converse(self, mandate: "Mandate") -> None:
        """Once both sides have opened it."""
        if mandate.id in self._ours and mandate.id in self._theirs.values() and mandate.id not in self.conversations:
            conversation = Conversation(self, mandate, self._ours[mandate.id])
            self.conversations[mandate.id] = conversation
            self._office.note_met(mandate, self)
            mandate.join(conversation)

    # ---- hearing

    async def _heard(self, message: Message) -> None:
        log.debug("heard %s", type(message).__name__)
        match message:
            case m.Hello():
                self.clock_off_ms = message.now_ms - self._office.now_ms()
                self._greeted, self.features = True, message.features
                self._begin()
            case m.Who():
                self._introduce(message)
            case m.Introduce():
                self._introduced(message)
            case m.Open():
                self._match(message.handle, message.token)
                self.refresh()
            case _:
                mandate_id = self._theirs.get(getattr(message, "handle", -1))
                conversation = self.conversations.get(mandate_id) if mandate_id else None
                if conversation is not None:
                    await conversation.heard(message)

    def heard_of(self, mandate: "Mandate", told: m.Whereabouts) -> None:
        """It says where other members are."""
        if mandate.sightings.told(self.device, told.members):
            own = next((usable(spots) for device, spots in told.members if device == self.device), [])
            self._office.note_own_word(mandate, self.device, own[:8])
            self._office.wake_dialer.set()

    # ---- speaking

    @property
    def crowded(self) -> bool:
        """Whether it takes what it is sent so slowly that news had better wait."""
        return self._outbox.crowded

    def say(self, message: Message) -> None:
        """Send a message as soon as the link takes it; in order."""
        self._outbox.put(message)
        if self._outbox.full:
            self.cut(TooMuch())

    def _drained(self) -> None:
        for conversation in list(self.conversations.values()):
            conversation.catch_up()

    def serve(self, job: Callable[[], Awaitable[None]]) -> None:
        """Answer a request for records when those before it are answered. Raises: TooMuch."""
        self._records.add(job)

    def serve_content(self, job: Callable[[], Awaitable[None]]) -> None:
        """Answer a request for content when those before it are answered. Raises: TooMuch."""
        self._content.add(job)

    def whereabouts(self) -> tuple[tuple[DeviceId, tuple[tuple[bytes, int], ...]], ...]:
        """Where this machine itself listens, for a peer that may have been called by us and cannot know."""
        spots = tuple((hint.address, hint.port) for hint in self._office.own_hints())
        return ((self._office.device, spots),) if spots else ()


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The error that tells most about why a link ended: what somebody did, before what followed from it."""
    found = list(_leaves(group))
    return next((error for error in found if not isinstance(error, LinkClosed)), found[0])


def _leaves(error: BaseException) -> list[BaseException]:
    return [leaf for one in error.exceptions for leaf in _leaves(one)] if isinstance(error, BaseExceptionGroup) else [error]


def _code(error: BaseException) -> m.CloseCode:
    if isinstance(error, UserError):
        return m.CloseCode.BYE
    return next((code for kind, code in _CODES.items() if isinstance(error, kind)), m.CloseCode.PROTOCOL)
