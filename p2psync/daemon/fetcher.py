"""Fetching what one mandate's files lack: chunk lists page by page, chunks from whoever has them, written down in batches.

Nothing is a task of its own to lose: wants are derived anew after each round, and what has arrived is in the vault or in a staging
file, where the next round finds it. Who has what, and who is asked for what, is decided in engine/transfer and engine/pages.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import trio

from p2psync.daemon.inbox import Inbox
from p2psync.daemon.seekers import Seekers
from p2psync.engine.pages import Pages
from p2psync.engine.shares import in_turn
from p2psync.engine.transfer import Transfer
from p2psync.store.arrivals import Arrivals
from p2psync.store.jobs import Want
from p2psync.values.content import Content, Listing
from p2psync.values.digest import Digest, content_digest
from p2psync.values.errors import Malformed, UserError
from p2psync.values.listingchange import ListingChange as Change
from p2psync.values.names import DeviceId, RelPath

if TYPE_CHECKING:
    from p2psync.daemon.conversation import Conversation
    from p2psync.engine.messages import Listing as ListingPage
    from p2psync.engine.messages import ListingChange

PAUSE_S = 20.0
"""After something could not be written, nothing is asked for so long."""


@dataclass
class _Lack:
    """What one path still lacks."""

    path: RelPath
    want: Want
    chunks: int
    size: int


class Fetcher:
    """The wants of one mandate on this ``device``. ``deposit`` writes what arrives; ``ready`` is told the paths that may now be complete,
    ``failed`` what could not be written, and ``wrote`` that something was.
    """

    def __init__(
        self,
        device: DeviceId,
        deposit: Arrivals,
        ready: Callable[[set[RelPath]], None],
        failed: Callable[[UserError], None],
        wrote: Callable[[], None],
    ) -> None:
        self._device = device
        self._deposit = deposit
        self._ready, self._failed, self._wrote = ready, failed, wrote
        self.bytes_in = 0
        self.seekers = Seekers()
        self._inbox = Inbox()
        self._conversations: list[Conversation] = []
        self._forget_wants()

    def _forget_wants(self) -> None:
        self._lacks: dict[str, _Lack] = {}
        self._recalled: set[str] = set()
        self._bytes = 0
        self._transfer: Transfer[Conversation] = Transfer()
        self._pages: Pages[Conversation] = Pages()
        self._paths: dict[Digest, set[RelPath]] = {}
        self._listed: dict[Digest, set[RelPath]] = {}
        self._paused_until = -1.0

    def forget(self) -> None:
        """Drop what is only in memory; who can be asked stays."""
        for conversation in self._conversations:
            self._transfer.remove_peer(conversation)
            self._pages.remove_peer(conversation)
        self._inbox.clear()
        self._forget_wants()
        for conversation in self._conversations:
            self._add_peer(conversation)

    # ---- wants

    def update(self, done: set[RelPath], wants: dict[RelPath, Want]) -> None:
        """After a round: these paths want nothing any more, unless they are in ``wants``."""
        for path in done | wants.keys():
            old = self._lacks.pop(path.text, None)
            self._recalled.discard(path.text)
            if old is not None:
                self._forget(path, old, wants.get(path))
        if wants:
            self._want_all(wants)
        if wants or done:
            self.ask_everybody()

    def recall(self, path: RelPath, want: Want) -> None:
        """Want something that is no part of what this disk owes the journal, under a name of its own, until a round has seen that name."""
        self.update(set(), {path: want})
        self._recalled.add(path.text)

    def left(self, shown: str) -> int:
        """Bytes that the path of this name still wants."""
        return self._lacks[shown].size if shown in self._lacks else 0

    def _want_all(self, wants: dict[RelPath, Want]) -> None:
        """Want these, each member its own share first; who has all that the journal says is trusted to have all of it."""
        fellows = sorted([self._device, *(c.device for c in self._conversations if not c.holds_all)])
        place, of = fellows.index(self._device), len(fellows)
        self._transfer.place = place / of
        for path in in_turn(list(wants), place, of, self._device):
            self._want(path, wants[path], place, of)
        for conversation in self._conversations:
            self._transfer.trust(conversation, fully=conversation.holds_all)

    def _want(self, path: RelPath, want: Want, place: int, of: int) -> None:
        size = want.content.size if want.listing is None else sum(chunk.size for chunk in want.chunks)
        self._lacks[path.text] = _Lack(path, want, len(want.chunks), size)
        self._bytes += size
        for chunk in want.chunks:
            self._paths.setdefault(chunk.digest, set()).add(path)
        chunks = in_turn(want.chunks, place, of, self._device + want.content.digest)
        fresh = (chunk for chunk in chunks if chunk.digest not in self._inbox)
        self._transfer.want(((chunk.digest, chunk.size) for chunk in fresh), of=want.content.size)
        if want.listing is None:
            self._listed.setdefault(want.content.listing, set()).add(path)
            self._pages.want(want.content)

    def _forget(self, path: RelPath, old: _Lack, new: Want | None) -> None:
        """Let go of what a path wanted; what it goes on wanting stays asked for."""
        self._bytes -= old.size
        kept = {chunk.digest for chunk in new.chunks} if new else set()
        for chunk in old.want.chunks:
            paths = self._paths.get(chunk.digest)
            if paths is not None and chunk.digest not in kept:
                paths.discard(path)
                if not paths:
                    del self._paths[chunk.digest]
                    self._transfer.drop([chunk.digest])
        listing = old.want.content.listing
        if old.want.listing is None and not (new and new.listing is None and new.content.listing == listing):
            self._listed[listing].discard(path)
            if not self._listed[listing]:
                del self._listed[listing]
                self._pages.drop(listing)

    @property
    def missing(self) -> tuple[int, int]:
        """Files and bytes that are wanted and not here, recalled ones left out."""
        return len(self._lacks) - len(self._recalled), self._bytes - sum(map(self.left, self._recalled))

    @property
    def paths(self) -> set[RelPath]:
        """The paths that want something."""
        return {lack.path for lack in self._lacks.values()}

    def wants(self, shown: str) -> bool:
        """Whether the path of this name wants something."""
        return shown in self._lacks

    def lack(self, shown: str) -> tuple[int, int] | None:
        """Bytes that the path of this name still lacks, of how many; None when it wants nothing."""
        lack = self._lacks.get(shown)
        return None if lack is None else (lack.size, lack.want.content.size)

    def nobody_has(self, shown: str) -> bool:
        """Whether no machine that is online has what the path of this name wants."""
        lack = self._lacks.get(shown)
        if lack is None:
            return False
        if lack.want.listing is None:
            return self._pages.nobody_has(lack.want.content.listing)
        return self._transfer.nobody_has(chunk.digest for chunk in lack.want.chunks)

    # ---- peers

    def join(self, conversation: "Conversation") -> None:
        """This conversation can be asked from now on."""
        self._conversations.append(conversation)
        self._add_peer(conversation)
        self.ask(conversation)

    def _add_peer(self, conversation: "Conversation") -> None:
        self._transfer.add_peer(conversation, conversation.peer.turns.load)
        self._pages.add_peer(conversation, conversation.peer.turns.load)

    def leave(self, conversation: "Conversation") -> None:
        """It has ended; others are asked for what it owed."""
        if conversation in self._conversations:
            self._conversations.remove(conversation)
            self._transfer.remove_peer(conversation)
            self._pages.remove_peer(conversation)
            self.seekers.remove(conversation)
            self.ask_everybody()

    def prefer(self, conversation: "Conversation") -> None:
        """This peer told of something new: it is asked first from now on, for it is surely there and is likely to have it."""
        if conversation in self._conversations:
            self._conversations.remove(conversation)
            self._conversations.insert(0, conversation)

    def has_more(self, conversation: "Conversation") -> int:
        """The peer may have what it lacked, or answer again; how much it lacked."""
        lacked = self._transfer.has_more(conversation) + self._pages.has_more(conversation)
        self._transfer.trust(conversation, fully=conversation.holds_all)
        self.ask(conversation)
        return lacked

    def gave_up(self, conversation: "Conversation") -> None:
        """The peer has not answered for too long; others are asked for what it owes."""
        self._transfer.gave_up(conversation)
        self._pages.gave_up(conversation)
        self.ask_everybody()

    def says(self, conversation: "Conversation", digests: Iterable[Digest]) -> None:
        """The peer, which does not have all of what it is about, says that it has these chunks of it."""
        self._transfer.says(conversation, digests, trio.current_time())
        self.ask(conversation)

    def sought(self, conversation: "Conversation") -> None:
        """The peer asked for a chunk that we lack: it is told what we have of what we are fetching, and what comes."""
        self.seekers.add(conversation, self._have())

    def _have(self) -> Iterator[Digest]:
        for lack in list(self._lacks.values()):
            for chunk in lack.want.listing or ():
                if chunk.digest not in self._paths:
                    yield chunk.digest

    def tend(self, conversation: "Conversation") -> bool:
        """The peer owes something: what is late is asked of others; returns whether there was anything new to ask them for."""
        now, load = trio.current_time(), conversation.peer.turns.load
        reopened = self._transfer.tend(conversation, now)
        if load.late:
            reopened = self._pages.tend(conversation) or reopened
        if reopened:
            self.ask_everybody()
        return reopened

    def answers(self, conversation: "Conversation") -> None:
        """The peer, which was late, answers again."""
        self._pages.answers(conversation)
        self.ask(conversation)

    def ask_everybody(self) -> None:
        """Ask whoever has room for more."""
        for conversation in self._conversations:
            self.ask(conversation)

    def ask(self, conversation: "Conversation") -> None:
        """Ask this peer for as much as its link takes; it is its turn again when there is room for more."""
        if trio.current_time() < self._paused_until or not self._lacks:
            return
        now = trio.current_time()
        for content in self._pages.requests(conversation, now):
            conversation.ask_listing(content, 0)
        while ids := self._transfer.requests(conversation, now):
            conversation.ask_chunks(ids)
        conversation.peer.turns.owing()
        if conversation.peer.turns.load.items:
            conversation.peer.turns.wait(conversation)

    # ---- what arrives

    async def chunk(self, conversation: "Conversation", digest: Digest, data: bytes) -> None:
        """A chunk has arrived; waits while too much is not written yet. Raises: Malformed when it is not the one that it claims to be."""
        if content_digest(data) != digest:
            raise Malformed(why="a chunk with another digest")
        self._transfer.arrived(conversation, digest)
        self.bytes_in += len(data)
        if digest not in self._inbox:
            (self._inbox if digest in self._paths else self._deposit.early).put(digest, data)
        conversation.peer.turns.answered()
        if self._inbox.full:
            with conversation.peer.turns.held_up():
                await self._inbox.room()

    def no_chunk(self, conversation: "Conversation", digest: Digest) -> None:
        """The peer lacks a chunk: another one is asked."""
        self._transfer.lacks(conversation, digest)
        self._elsewhere(conversation)

    async def page(self, conversation: "Conversation", page: "ListingPage") -> None:
        """A page of a chunk list has arrived. Raises: Malformed when the whole list is not the one asked for."""
        if page.listing not in self._listed and page.pages == 1 and content_digest(page.data) == page.listing:
            self._deposit.early.put(page.listing, page.data)
        try:
            found = self._pages.page(conversation, page.listing, page.page, page.pages, page.data)
            if found is not None:
                content, rest = found
                if isinstance(rest, int):
                    conversation.ask_listing(content, rest)
                else:
                    await self._take_listing(content, rest)
        except Malformed:
            self._pages.lacks(conversation, page.listing)
            raise
        self.ask(conversation)
        conversation.peer.turns.answered()

    async def change(self, told: "ListingChange") -> None:
        """What has changed in a chunk list was told, unasked; of use only while the list is not asked for."""
        if told.listing not in self._listed:
            change = Change(told.known, told.before, told.after, told.data)
            await trio.to_thread.run_sync(self._deposit.changed_listing, told.listing, change)

    async def _take_listing(self, content: Content, packed: bytes) -> None:
        def work() -> None:
            self._deposit.listing(content, Listing.received(packed, content))

        try:
            await trio.to_thread.run_sync(work)
        except UserError as e:
            self._pages.drop(content.listing)
            self._could_not_write(e)
            return
        self._pages.drop(content.listing)
        self._wrote()
        self._ready(set(self._listed.get(content.listing, ())))

    def no_listing(self, conversation: "Conversation", listing: Digest) -> None:
        """The peer lacks a chunk list: another one is asked."""
        self._pages.lacks(conversation, listing)
        self.ask(conversation)
        self._elsewhere(conversation)

    def _elsewhere(self, conversation: "Conversation") -> None:
        for other in self._conversations:
            if other is not conversation:
                self.ask(other)
        conversation.peer.turns.answered()

    # ---- writing it down

    async def write_down(self) -> None:
        """Write what arrives, batch after batch, for as long as the mandate lives."""
        async with trio.open_nursery() as nursery:
            while True:
                complete = await self._write_batch()
                if self._deposit.large(complete):
                    nursery.start_soon(self._make_lasting, complete)
                elif complete:
                    self._ready(complete)

    async def _make_lasting(self, complete: set[RelPath]) -> None:
        """Large files wait for the disk here, so that no round has to: whoever saves meanwhile would wait with it."""
        try:
            await trio.to_thread.run_sync(self._deposit.sync, complete)
        except UserError as e:
            self._could_not_write(e)
        self._ready(complete)

    async def _write_batch(self) -> set[RelPath]:
        """Write down what has arrived next; the paths whose last missing chunk was among it."""
        batch = await self._inbox.batch(lambda: len(self._transfer))
        complete: set[RelPath] = set()
        try:
            await trio.to_thread.run_sync(self._deposit.chunks, batch)
        except UserError as e:
            self._could_not_write(e)
        else:
            self._wrote()
            complete = self._finished(batch)
            self.seekers.came(digest for digest, _ in batch)
        self._inbox.written(batch)
        return complete

    def _could_not_write(self, error: UserError) -> None:
        self._paused_until = trio.current_time() + PAUSE_S
        self._failed(error)

    def _finished(self, batch: list[tuple[Digest, bytes]]) -> set[RelPath]:
        """The paths whose last missing chunk was among these."""
        complete: set[RelPath] = set()
        for digest, data in batch:
            for path in self._paths.pop(digest, ()):
                lack = self._lacks[path.text]
                lack.chunks -= 1
                lack.size -= len(data)
                self._bytes -= len(data)
                if not lack.chunks:
                    complete.add(path)
        return complete
